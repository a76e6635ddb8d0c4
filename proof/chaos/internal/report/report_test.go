package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/proof/chaos/internal/history"
)

const second = int64(time.Second)

// phase is a minute in which c1 leads, is killed at 10 s, c2 takes over at
// 15 s, is stopped briefly at 30 s, and the quorum goes from 40 to 44 s, with
// c2 leading again at 45 s.
func phase() *Phase {
	var events []history.Event
	add := func(e history.Event) { events = append(events, e) }
	for _, who := range []string{"c1.1", "c2.1"} {
		add(history.Event{At: 1, Who: who, Kind: history.Start})
	}
	for at := int64(1); at <= 60*second; at += second / 4 {
		if at < 40*second || at > 44*second {
			add(history.Event{At: at, Who: "probe", Kind: history.Commit})
		}
	}
	fault := func(from, to int64, name, target string) {
		add(history.Event{At: from, Who: "nemesis", Kind: history.Fault, Text: name, Target: target})
		add(history.Event{At: to, Who: "nemesis", Kind: history.FaultOver, Text: name, Target: target})
	}
	fault(10*second, 12*second, "kill the leader", "c1")
	fault(30*second, 31*second, "stop the leader briefly", "c2")
	fault(40*second, 44*second, "cut <the ZooKeeper leader> off", "zk1")
	return &Phase{
		Timeout: 4 * time.Second,
		Run:     history.Span{From: 1, To: 60 * second},
		Events:  events,
		Leaderships: []history.Leadership{
			// Its last sample is older than the strike.
			{Who: "c1.1", Token: 1, From: 1, Last: 10*second - 60e6, To: 13 * second, Acked: 1},
			{Who: "c2.1", Token: 2, From: 14 * second, Last: 40 * second, To: 40 * second, Acked: 15 * second},
			{Who: "c2.1", Token: 2, From: 45 * second, Last: 60 * second, To: 60 * second, Acked: 45 * second},
		},
	}
}

func TestFaultsAndWhatTheyCost(t *testing.T) {
	faults := phase().Faults()
	require.Len(t, faults, 3)
	kill, stop, cut := faults[0], faults[1], faults[2]
	require.Equal(t, []time.Duration{5060 * time.Millisecond}, kill.Gaps)
	assert.True(t, kill.Another, "the kill: %+v", kill)
	assert.Equal(t, kill.Gaps[0], kill.Quorum[0])
	assert.Equal(t, 2*time.Second, kill.Length())
	assert.Empty(t, stop.Gaps)
	assert.False(t, stop.Another, "the stop: %+v", stop)
	require.Equal(t, []time.Duration{5 * time.Second}, cut.Gaps)
	assert.False(t, cut.Another, "the cut: %+v", cut)
	assert.Equal(t, time.Second, cut.Quorum[0].Round(time.Second))
}

func contains(t *testing.T, table *bytes.Buffer, row string) {
	t.Helper()
	assert.True(t, strings.Contains(table.String(), row), "the table lacks %q:\n%s", row, table)
}

func TestTable(t *testing.T) {
	var table bytes.Buffer
	phase().Table(&table)
	for _, want := range []string{
		"| kill the leader | 1 | 1 | 1 | 5.06 s | 5.06 s | 5.06 s | 5.06 s |\n",
		"| stop the leader briefly | 1 | 0 | 0 | – | – | – | – |\n",
		"| cut <the ZooKeeper leader> off | 1 | 1 | 0 | 5.00 s | 5.00 s | 5.00 s | 1.00 s |\n",
		"| **all** | 3 | 2 | 1 | 5.00 s | 5.06 s | 5.06 s | 5.06 s |\n",
	} {
		contains(t, &table, want)
	}
	// 10 s of 60 without a leader, of which some 4 s, as of all, without a quorum.
	assert.InDelta(t, 0.89, phase().Led(), 0.01)
}

func TestTwoFaultsAtOnceHaveARowOfTheirOwn(t *testing.T) {
	p := phase()
	for i, e := range p.Events {
		if e.Kind == history.FaultOver && e.Target == "c2" {
			p.Events[i].At = 41 * second
		}
	}
	var table bytes.Buffer
	p.Table(&table)
	contains(t, &table, "| (two of these at once, or a transfer) | 2 | 1 | 0 | 5.00 s |")
	contains(t, &table, "| kill the leader | 1 | 1 | 1 |")
}

// withTransfers is phase with three transfers: one by the way, during which the leader is
// another for 20 ms, one that comes to nothing beside a fault, and one whose asker is killed.
func withTransfers() *Phase {
	p := phase()
	c2 := p.Leaderships[1]
	moved, back := c2, c2
	c2.Last, c2.To = 20*second, 20*second
	moved.Who, moved.Token, moved.From, moved.Acked, moved.Last, moved.To = "c3.1", 3, 20*second+20e6, 20*second+20e6, 25*second, 25*second
	back.From, back.Acked, back.Token = 25*second+40e6, 25*second+40e6, 4
	p.Leaderships = []history.Leadership{p.Leaderships[0], c2, moved, back, p.Leaderships[2]}
	p.Transfers = []history.Transfer{
		{Span: history.Span{From: 20*second - 5e6, To: 20*second + 30e6}, Outcome: history.Done, Target: "c3.1"},
		{Span: history.Span{From: 25*second - 5e6, To: 25*second + 50e6}, Outcome: history.Done, Target: "c2.1"},
		{Span: history.Span{From: 30*second - 5e6, To: 38 * second}, Outcome: history.Nothing},
		{Span: history.Span{From: 50 * second, To: 51 * second}},
	}
	return p
}

func TestTransfersAreNoFaults(t *testing.T) {
	p := withTransfers()
	p.BrokenPromises = []string{"one"}
	assert.Len(t, p.Faults(), 3)
	assert.Len(t, p.Moves(), 4)
	var table, rows bytes.Buffer
	p.Table(&table)
	for _, want := range []string{
		"| kill the leader | 1 | 1 | 1 | 5.06 s | 5.06 s | 5.06 s | 5.06 s |\n",
		"| (two of these at once, or a transfer) | 1 | 0 | 0 | – | – | – | – |\n",
		"| **all** | 3 | 2 | 1 | 5.00 s | 5.06 s | 5.06 s | 5.06 s |\n",
	} {
		contains(t, &table, want)
	}
	p.TransferRows(&rows)
	assert.Equal(t, `| transfers asked for, between the faults and during them | 4: 2 done, 1 came to nothing, 0 may have happened, 1 whose asker was killed | |
| time without an acknowledged leader at a transfer, beside no fault | median 20ms, longest 40ms | |
| transfers that were said to be done, or to have come to nothing, and it was not so | 1 | 0 |
`, rows.String())
	led, without := p.Led(), phase().Led()
	assert.Less(t, led, without, "the part of the time led, and without transfers")
	assert.GreaterOrEqual(t, led, without-0.01, "the part of the time led, and without transfers")
}

func TestPercentile(t *testing.T) {
	var values []time.Duration
	for i := range 200 {
		values = append(values, time.Duration(200-i))
	}
	for percent, want := range map[int]time.Duration{0: 1, 50: 100, 99: 198, 100: 200} {
		assert.Equal(t, want, Percentile(values, percent), "percentile %d", percent)
	}
	assert.Zero(t, Percentile(nil, 50), "of nothing")
	assert.Equal(t, time.Duration(7), Percentile([]time.Duration{7}, 99), "of one")
}

func TestPicture(t *testing.T) {
	var picture bytes.Buffer
	require.NoError(t, phase().Picture(&picture, "A & B"))
	colours := make(map[string]int)
	decoder := xml.NewDecoder(bytes.NewReader(picture.Bytes()))
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err, "not XML")
		if element, ok := token.(xml.StartElement); ok && element.Name.Local == "rect" {
			for _, a := range element.Attr {
				if a.Name.Local == "fill" {
					colours[a.Value]++
				}
			}
		}
	}
	// One of each colour is in the legend.
	for colour, want := range map[string]int{colourLeads: 4, colourKill: 2, colourStop: 2, colourCut: 2, colourOutage: 2, colourLane: 3} {
		assert.Equal(t, want, colours[colour], "of colour %s", colour)
	}
	assert.Contains(t, picture.String(), "A &amp; B", "a title is missing, or not escaped")
	assert.Contains(t, picture.String(), "cut &lt;the ZooKeeper leader&gt; off (zk1) for 4s", "a title is missing, or not escaped")
}
