package history

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/internal/monotonic"
)

const ms = int64(time.Millisecond)

// story makes a history of one process, in milliseconds.
type story struct {
	who    string
	events []Event
}

// leads samples true every 5 ms from one time to another, under a lease that
// always ends lease later.
func (s *story) leads(token, from, to, lease int64) *story {
	for at := from; at <= to; at += 5 {
		until := int64(0)
		if lease > 0 {
			until = (at + lease) * ms
		}
		s.events = append(s.events, Event{At: at * ms, After: at * ms, Who: s.who, Kind: True, Token: token, Until: until})
	}
	return s
}

func (s *story) says(kind Kind, at int64) *story {
	s.events = append(s.events, Event{At: at * ms, After: at * ms, Who: s.who, Kind: kind})
	return s
}

func (s *story) acks(token, at int64) *story {
	s.events = append(s.events, Event{At: at * ms, Who: s.who, Kind: Acked, Token: token})
	return s
}

func of(who string) *story { return &story{who: who} }

func together(stories ...*story) []Event {
	var all []Event
	for _, s := range stories {
		all = append(all, s.events...)
	}
	return all
}

func TestOverlaps(t *testing.T) {
	wideSample := Event{At: 1000 * ms, After: 9000 * ms, Who: "b", Kind: True, Token: 2}
	for name, test := range map[string]struct {
		events []Event
		want   []time.Duration
	}{
		"one after the other": {together(
			of("a").leads(1, 0, 1000, 3000).says(False, 1005),
			of("b").leads(2, 1010, 2000, 3000)), nil},
		"both for 500 ms": {together(
			of("a").leads(1, 0, 1000, 3000).says(False, 1005),
			of("b").leads(2, 500, 2000, 3000).says(False, 2005)), []time.Duration{500 * time.Millisecond}},
		"one within the other": {together(
			of("a").leads(1, 0, 3000, 3000).says(False, 3005),
			of("b").leads(2, 500, 600, 3000).says(False, 605)), []time.Duration{100 * time.Millisecond}},
		"for one instant": {together(
			of("a").leads(1, 0, 1000, 3000).says(False, 1005),
			of("b").leads(2, 1000, 2000, 3000)), []time.Duration{0}},
		"three at a time": {
			together(
				of("a").leads(1, 0, 1000, 0), of("b").leads(2, 0, 1000, 0), of("c").leads(3, 0, 1000, 0)),
			[]time.Duration{time.Second, time.Second, time.Second},
		},
		"stopped, the lease over before the next": {together(
			of("a").leads(1, 0, 1000, 3000).says(False, 6000),
			of("b").leads(2, 4100, 6000, 3000)), nil},
		"stopped, and the next began under its lease": {together(
			of("a").leads(1, 0, 1000, 3000).says(False, 6000),
			of("b").leads(2, 3500, 6000, 3000)), []time.Duration{500 * time.Millisecond}},
		"stopped, and led on afterwards beside the next": {together(
			of("a").leads(1, 0, 1000, 3000).leads(1, 5000, 6000, 2000).says(False, 6005),
			of("b").leads(2, 4500, 7000, 3000)), []time.Duration{1500 * time.Millisecond}},
		"killed, and the next began under its lease": {together(
			of("a").leads(1, 0, 1000, 3000).says(Killed, 1001),
			of("b").leads(2, 3500, 6000, 3000)), []time.Duration{500 * time.Millisecond}},
		"killed with a guard, and the next began under its lease": {together(
			of("a").leads(1, 0, 1000, 3000).says(Dead, 1001),
			of("b").leads(2, 1010, 6000, 3000)), nil},
		"stopped, killed with a guard, and the next began before": {together(
			of("a").leads(1, 0, 1000, 3000).says(Dead, 2000),
			of("b").leads(2, 1900, 6000, 3000)), []time.Duration{100 * time.Millisecond}},
		"killed, the lease over before the next": {together(
			of("a").leads(1, 0, 1000, 3000),
			of("b").leads(2, 4001, 6000, 3000)), nil},
		"resigned, and stopped at once": {together(
			of("a").leads(1, 0, 1000, 3000).says(Release, 1001).says(False, 6000),
			of("b").leads(2, 1010, 2000, 3000)), nil},
		"resigned, and the next one too early": {together(
			of("a").leads(1, 0, 1000, 3000).says(Release, 1050).says(False, 6000),
			of("b").leads(2, 1040, 2000, 3000)), []time.Duration{10 * time.Millisecond}},
		"a sample during which the process was stopped proves nothing": {together(
			of("a").leads(1, 0, 2000, 3000).says(False, 2005),
			&story{events: []Event{wideSample}}), nil},
		"the same process, another token": {together(
			of("a").leads(1, 0, 1000, 3000).leads(5, 1005, 2000, 3000)), nil},
	} {
		t.Run(name, func(t *testing.T) {
			var lengths []time.Duration
			for _, o := range Overlaps(Leaderships(test.events)) {
				lengths = append(lengths, o.Length())
			}
			assert.Equal(t, test.want, lengths)
		})
	}
}

func TestTokensOutOfOrder(t *testing.T) {
	for name, test := range map[string]struct {
		events []Event
		want   int
	}{
		"growing":        {together(of("a").leads(1, 0, 10, 0).says(False, 15), of("b").leads(2, 20, 30, 0).says(False, 35), of("a").leads(7, 40, 50, 0)), 0},
		"the same again": {together(of("a").leads(1, 0, 10, 0).says(False, 15).leads(1, 20, 30, 0)), 0},
		"the same again, another between": {together(
			of("a").leads(3, 0, 10, 0).says(False, 15).leads(3, 40, 50, 0), of("b").leads(4, 20, 30, 0)), 1},
		"equal for two":    {together(of("a").leads(3, 0, 10, 0).says(False, 15), of("b").leads(3, 20, 30, 0)), 1},
		"back by one":      {together(of("a").leads(3, 0, 10, 0).says(False, 15), of("b").leads(2, 20, 30, 0)), 1},
		"below an earlier": {together(of("a").leads(9, 0, 10, 0).says(False, 15), of("b").leads(2, 20, 30, 0).says(False, 35), of("c").leads(3, 40, 50, 0)), 2},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Len(t, TokensOutOfOrder(Leaderships(test.events)), test.want)
		})
	}
}

func commits(from, to int64) *story {
	s := of("probe")
	for at := from; at <= to; at += 100 {
		s.says(Commit, at)
	}
	return s
}

func TestTooLong(t *testing.T) {
	const bound = 6 * time.Second
	run := Span{0, 20_000 * ms}
	for name, test := range map[string]struct {
		events []Event
		want   []time.Duration
	}{
		"led all the time": {together(commits(0, 20_000), of("a").acks(1, 1).leads(1, 0, 20_000, 3000)), nil},
		"taken over in time": {together(commits(0, 20_000),
			of("a").acks(1, 1).leads(1, 0, 5000, 3000), of("b").leads(2, 10_000, 20_000, 3000).acks(2, 10_900)), nil},
		"taken over too late": {together(commits(0, 20_000),
			of("a").acks(1, 1).leads(1, 0, 5000, 3000), of("b").leads(2, 10_000, 20_000, 3000).acks(2, 11_100)), []time.Duration{6100 * time.Millisecond}},
		"led, and never acknowledged": {together(commits(0, 20_000), of("a").leads(1, 0, 20_000, 3000)), []time.Duration{20 * time.Second}},
		"nobody, ever":                {together(commits(0, 20_000)), []time.Duration{20 * time.Second}},
		"a lease is no leader": {together(commits(0, 20_000),
			of("a").acks(1, 1).leads(1, 0, 5000, 3000).says(False, 12_000), of("b").leads(2, 11_995, 20_000, 3000).acks(2, 12_000)), []time.Duration{7 * time.Second}},
		"no quorum for most of it": {together(commits(0, 5000), commits(10_000, 20_000),
			of("a").acks(1, 1).leads(1, 0, 5000, 3000), of("b").leads(2, 15_000, 20_000, 3000).acks(2, 15_900)), nil},
		"too late after the quorum was back": {together(commits(0, 5000), commits(10_000, 20_000),
			of("a").acks(1, 1).leads(1, 0, 5000, 3000), of("b").leads(2, 15_000, 20_000, 3000).acks(2, 16_100)), []time.Duration{6100 * time.Millisecond}},
		"another fault meanwhile": {together(commits(0, 20_000), of("nemesis").says(Fault, 8000),
			of("a").acks(1, 1).leads(1, 0, 5000, 3000), of("b").leads(2, 13_000, 20_000, 3000).acks(2, 13_900)), nil},
		"dead behind a server that was stopped": {together(commits(0, 20_000), of("nemesis").says(Fault, 4000).says(Resumed, 8000),
			of("a").acks(1, 1).leads(1, 0, 5000, 3000), of("b").leads(2, 13_000, 20_000, 3000).acks(2, 13_900)), nil},
		"too late after the server went on": {together(commits(0, 20_000), of("nemesis").says(Fault, 4000).says(Resumed, 8000),
			of("a").acks(1, 1).leads(1, 0, 5000, 3000), of("b").leads(2, 13_000, 20_000, 3000).acks(2, 14_100)), []time.Duration{6100 * time.Millisecond}},
		"too late after another fault": {together(commits(0, 20_000), of("nemesis").says(Fault, 8000),
			of("a").acks(1, 1).leads(1, 0, 5000, 3000), of("b").leads(2, 13_000, 20_000, 3000).acks(2, 14_100)), []time.Duration{6100 * time.Millisecond}},
	} {
		t.Run(name, func(t *testing.T) {
			var lengths []time.Duration
			for _, s := range TooLong(Leaderships(test.events), test.events, run, bound) {
				lengths = append(lengths, s.Length())
			}
			assert.Equal(t, test.want, lengths)
		})
	}
}

func (s *story) asks(target string, token, at int64) *story {
	s.events = append(s.events, Event{At: at * ms, Who: s.who, Kind: Asked, Text: target, Token: token})
	return s
}

func (s *story) isTold(outcome string, at int64) *story {
	s.events = append(s.events, Event{At: at * ms, Who: s.who, Kind: Answered, Text: outcome})
	return s
}

func (s *story) wins(token, at int64) *story {
	s.events = append(s.events, Event{At: at * ms, Who: s.who, Kind: Win, Token: token})
	return s
}

func TestTransfers(t *testing.T) {
	events := together(
		of("c").asks("b", 2, 1000).isTold(Done, 1010).asks("a", 5, 3000).isTold(Nothing, 9000).asks("a", 5, 9500),
		of("d").isTold(NotKnown, 2000).asks("a", 5, 20_000),
		of("nemesis").says(Fault, 4000).says(FaultOver, 5000).says(Fault, 19_000), of("c").says(Killed, 9700),
	)
	want := []Transfer{
		{Span: Span{1000 * ms, 1010 * ms}, Who: "c", Target: "b", Token: 2, Outcome: Done, Calm: true},
		{Span: Span{3000 * ms, 9000 * ms}, Who: "c", Target: "a", Token: 5, Outcome: Nothing},
		{Span: Span{9500 * ms, 9700 * ms}, Who: "c", Target: "a", Token: 5, Calm: true},
		{Span: Span{20_000 * ms, 1 << 62}, Who: "d", Target: "a", Token: 5},
	}
	assert.Equal(t, want, Transfers(events))
}

func TestBrokenPromises(t *testing.T) {
	c := func() *story { return of("c") }
	for name, test := range map[string]struct {
		events []Event
		broken bool
	}{
		"done":                            {together(c().asks("b", 2, 1000).isTold(Done, 1010), of("a").says(PassesOn, 1004), of("b").wins(2, 1006)), false},
		"done, to the leader":             {together(of("b").wins(2, 500), c().asks("b", 2, 1000).isTold(Done, 1010)), false},
		"done, and it has not won":        {together(c().asks("b", 2, 1000).isTold(Done, 1010), of("a").says(PassesOn, 1004)), true},
		"done, and it won afterwards":     {together(c().asks("b", 2, 1000).isTold(Done, 1010), of("b").wins(2, 1011)), true},
		"done, and another one won":       {together(c().asks("b", 2, 1000).isTold(Done, 1010), of("d").wins(2, 1006)), true},
		"done, with its former ballot":    {together(c().asks("b", 2, 1000).isTold(Done, 1010), of("b").wins(1, 1006)), true},
		"nothing":                         {together(c().asks("b", 2, 1000).isTold(Nothing, 9000)), false},
		"nothing, and it was passed on":   {together(c().asks("b", 2, 1000).isTold(Nothing, 9000), of("a").says(PassesOn, 8990), of("b").wins(2, 9010)), true},
		"nothing, and the leader stopped": {together(c().asks("b", 2, 1000).isTold(Nothing, 9000), of("a").says(PassesOn, 8990).wins(1, 9010)), true},
		"nothing, and passed on beside a fault": {together(c().asks("b", 2, 1000).isTold(Nothing, 9000),
			of("nemesis").says(Fault, 3000).says(FaultOver, 4000), of("a").says(PassesOn, 8990), of("b").wins(2, 9010)), true},
		"nothing, since the asker's session went": {together(c().asks("b", 2, 1000).isTold(Nothing, 9000),
			of("nemesis").says(Fault, 3000).says(FaultOver, 8000), of("a").says(PassesOn, 6000).wins(1, 6010)), false},
		"nothing, and the leader died": {together(c().asks("b", 2, 1000).isTold(Nothing, 9000),
			of("nemesis").says(Fault, 3000), of("b").wins(2, 7000)), false},
		"nothing, and the leader died as it passed it on": {together(c().asks("b", 2, 1000).isTold(Nothing, 9000),
			of("a").says(PassesOn, 2990), of("nemesis").says(Fault, 3000), of("b").wins(2, 7000)), false},
		"nothing, passed on long before": {together(of("a").says(PassesOn, 900), of("b").wins(2, 910), c().asks("a", 7, 1000).isTold(Nothing, 9000)), false},
		"it may still happen":            {together(c().asks("b", 2, 1000).isTold(MayHappen, 9000), of("a").says(PassesOn, 8990), of("b").wins(2, 9010)), false},
		"another one that may":           {together(c().asks("b", 2, 1000).isTold(MayHappen, 9000).asks("d", 3, 9100).isTold(Nothing, 9200), of("a").says(PassesOn, 9150), of("b").wins(2, 9210)), false},
		"another one that was over long ago": {together(c().asks("b", 2, 1000).isTold(MayHappen, 9000).asks("d", 3, 30_000).isTold(Nothing, 39_000),
			of("a").says(PassesOn, 38_000).wins(1, 38_010)), true},
		"the asker was killed": {together(c().asks("b", 2, 1000).says(Killed, 1100), of("a").says(PassesOn, 1110), of("b").wins(2, 1120)), false},
	} {
		t.Run(name, func(t *testing.T) {
			found := BrokenPromises(test.events)
			assert.Equal(t, test.broken, len(found) > 0, "found %q", found)
		})
	}
}

func TestStepDowns(t *testing.T) {
	run := Span{0, 10_000 * ms}
	for name, test := range map[string]struct {
		events []Event
		want   int
	}{
		"none":                       {of("a").leads(1, 0, 10_000, 0).events, 0},
		"one that was told":          {of("a").leads(1, 0, 10_000, 0).says(StepDown, 5000).events, 1},
		"after the end":              {of("a").leads(1, 0, 10_000, 0).says(StepDown, 10_001).events, 0},
		"one that only samples show": {of("a").leads(1, 0, 5000, 0).says(False, 5005).leads(1, 5010, 10_000, 0).events, 1},
		"one that never came back":   {of("a").leads(1, 0, 5000, 0).events, 1},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Len(t, StepDowns(Leaderships(test.events), test.events, run), test.want)
		})
	}
}

func TestOutages(t *testing.T) {
	events := together(commits(500, 2000), commits(5000, 8000))
	assert.Equal(t, []Span{{2000 * ms, 5000 * ms}, {8000 * ms, 10_000 * ms}}, Outages(events, Span{0, 10_000 * ms}))
	assert.Equal(t, 3*time.Second, LongestPause(events, Span{0, 10_000 * ms}))
}

func TestAnAcknowledgementIsOfTheStretchItWasWrittenIn(t *testing.T) {
	all := Leaderships(of("a").leads(1, 0, 1000, 0).acks(1, 500).says(False, 1005).leads(1, 2000, 3000, 0).events)
	require.Len(t, all, 2)
	assert.Equal(t, 500*ms, all[0].Acked)
	assert.Zero(t, all[1].Acked)
	// Written by the loop before the first sample saw it lead.
	all = Leaderships(of("a").acks(1, 99).leads(1, 100, 1000, 0).events)
	require.Len(t, all, 1)
	assert.Equal(t, 99*ms, all[0].Acked)
}

func TestWriterWritesWholeLines(t *testing.T) {
	var to bytes.Buffer
	before := monotonic.Now()
	w := NewWriter(&to, "c1")
	w.Write(Event{Kind: Win, Token: 7})
	w.Write(Event{Kind: Fault, At: 3, Text: "kill"})
	lines := bytes.Split(bytes.TrimSpace(to.Bytes()), []byte("\n"))
	require.Len(t, lines, 2, "wrote %q", &to)
	var first, second Event
	require.NoError(t, json.Unmarshal(lines[0], &first))
	require.NoError(t, json.Unmarshal(lines[1], &second))
	assert.Equal(t, Event{At: first.At, Who: "c1", Kind: Win, Token: 7}, first)
	assert.GreaterOrEqual(t, first.At, before)
	assert.LessOrEqual(t, first.At, monotonic.Now())
	assert.Equal(t, Event{At: 3, Who: "c1", Kind: Fault, Text: "kill"}, second)
}
