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
)

const ms = 1e-3

// rows are a run as it could be: the library meets one goal, and misses two.
func rows() []*Row {
	failover := func(n int, floor, hot float64) *Row {
		r := &Row{What: "failover", N: n, Unit: Seconds, Goals: []Goal{{Of: Hot, AtMost: 1, ToFloor: true}}, Load: Load{0.14, 1.26}}
		for _, share := range []float64{0.5, 0.9, 1, 1.1, 2} {
			r.Add(Floor, floor*share)
			r.Add(Hot, hot*share)
		}
		return r
	}
	packets := &Row{What: "packets", N: 100, Unit: Packets, Goals: []Goal{{Of: Hot, AtMost: 5}}, Load: Load{2, 2}}
	for _, n := range []float64{7, 7, 7, 8} {
		packets.Add(Hot, n)
		packets.Add(Floor, 3)
	}
	kills := &Row{What: "kill", N: 4, Unit: Timeouts}
	kills.Add(Kazoo, 0.871)
	stops := &Row{What: "stop", N: 1, Unit: Seconds, Goals: []Goal{{Of: Hot, AtMost: 0.1}, {Of: Cold, AtMost: 0.1}}}
	stops.Add(Hot, 2.06)
	stops.Add(Curator, 25*ms)
	return []*Row{failover(2, 1.5*ms, 1.44*ms), failover(100, 1.3*ms, 3.2*ms), packets, kills, stops}
}

func TestTable(t *testing.T) {
	want := `| | N | floor | this library, hot | this library, cold | Curator | kazoo | goal | load |
|---|--:|--:|--:|--:|--:|--:|---|--:|
| failover | 2 | **1.00** · 1.5 ms (1.35–1.65) | **0.96** · 1.44 ms (1.3–1.58) | – | – | – | hot at most 1.00: met | 0.1–1.3 |
|  | 100 | **1.00** · 1.3 ms (1.17–1.43) | **2.46** · 3.2 ms (2.88–3.52) | – | – | – | hot at most 1.00: **missed by 1.9 ms, 146 %** | 0.1–1.3 |
| packets | 100 | 3 | 7 (7–7.25) | – | – | – | hot at most 5: **missed by 2** | 2.0 |
| kill | 4 | – | – | – | – | 0.87 T (0.87–0.87) |  | 0.0 |
| stop | 1 | – | 2.06 s (2.06–2.06) | – | 25 ms (25–25) | – | hot at most 100 ms: **missed by 1.96 s**; cold at most 100 ms: not measured | 0.0 |
`
	assert.Equal(t, want, Table(rows()))
}

func TestQuartiles(t *testing.T) {
	first, median, third := Quartiles([]float64{4, 1, 3, 2})
	assert.Equal(t, []float64{1.75, 2.5, 3.25}, []float64{first, median, third})
	first, median, third = Quartiles([]float64{7})
	assert.Equal(t, []float64{7, 7, 7}, []float64{first, median, third})
	first, median, third = Quartiles(nil)
	assert.Equal(t, []float64{0, 0, 0}, []float64{first, median, third})
}

func TestDigits(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 3: "3", 0.96: "0.96", 1.204: "1.2", 12.34: "12.3", 10: "10", 100: "100", 123.6: "124", 8192: "8192"} {
		assert.Equal(t, want, digits(v))
	}
}

func TestLoad(t *testing.T) {
	var l Load
	for _, average := range []float64{1.5, 0.6, 0.9} {
		l.See(average)
	}
	assert.Equal(t, Load{0.6, 1.5}, l)
	m := Machine{Began: time.Unix(0, 0), Took: 20 * time.Minute, Processors: 2, Model: "X", Versions: []string{"A 1", "B 2"}, Before: 0.1, During: l}
	assert.Equal(t, "One run, on 1970-01-01 00:00 UTC, 20 minutes; 2 processors (X). Load average before it 0.1, during it 0.6–1.5, its own included. A 1, B 2.\n", m.String())
}

func TestInsert(t *testing.T) {
	const document = "# A\n\n<!-- bench: one -->\nold\n<!-- end -->\nbetween\n<!-- bench: two -->\n<!-- end -->\nlast\n"
	once, err := Insert(document, "one", "new\n")
	require.NoError(t, err)
	both, err := Insert(once, "two", "\nmore")
	require.NoError(t, err)
	assert.Equal(t, "# A\n\n<!-- bench: one -->\n\nnew\n\n<!-- end -->\nbetween\n<!-- bench: two -->\n\nmore\n\n<!-- end -->\nlast\n", both)
	again, err := Insert(both, "one", "new")
	require.NoError(t, err)
	assert.Equal(t, both, again, "inserting twice changes nothing")

	_, err = Insert(document, "three", "")
	assert.ErrorContains(t, err, "three")
	_, err = Insert("<!-- bench: one -->\n", "one", "")
	assert.Error(t, err)
}

// shapes reads a picture, and counts its elements by colour.
func shapes(t *testing.T, picture []byte) map[string]int {
	found := make(map[string]int)
	decoder := xml.NewDecoder(bytes.NewReader(picture))
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return found
		}
		require.NoError(t, err)
		element, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		for _, a := range element.Attr {
			if a.Name.Local == "fill" || a.Name.Local == "stroke" {
				found[element.Name.Local+" "+a.Value]++
			}
		}
	}
}

func TestPlot(t *testing.T) {
	var picture bytes.Buffer
	require.NoError(t, Plot(&picture, "A & B", []Panel{{"failover", rows()[:2]}, {"nothing", nil}}))
	found := shapes(t, picture.Bytes())
	// A sign for each N and one in the legend; a stroke from quartile to quartile for each N, and a line between them.
	assert.Equal(t, 3, found["circle "+styles[Floor].colour])
	assert.Equal(t, 3, found["line "+styles[Floor].colour])
	assert.Equal(t, 3, found["polygon "+styles[Hot].colour])
	assert.Equal(t, 3, found["line "+styles[Hot].colour])
	assert.Equal(t, 1, found["polygon "+styles[Kazoo].colour], "only the legend's")
	assert.Zero(t, found["line "+styles[Kazoo].colour])
	assert.Contains(t, picture.String(), "A &amp; B")
	assert.Contains(t, picture.String(), "this library, hot, N = 100: **2.46** · 3.2 ms")
}

// What is slower is higher, and what has more candidates is further right.
func TestPlotIsInOrder(t *testing.T) {
	var picture bytes.Buffer
	require.NoError(t, Plot(&picture, "", []Panel{{"failover", rows()[:2]}}))
	var x, y []float64
	decoder := xml.NewDecoder(&picture)
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		element, ok := token.(xml.StartElement)
		if !ok || element.Name.Local != "circle" {
			continue
		}
		var c struct {
			X float64 `xml:"cx,attr"`
			Y float64 `xml:"cy,attr"`
		}
		require.NoError(t, decoder.DecodeElement(&c, &element))
		x, y = append(x, c.X), append(y, c.Y)
	}
	require.Len(t, x, 3, "the legend's, N = 2, N = 100")
	assert.Greater(t, x[2], x[1])
	assert.Greater(t, y[2], y[1], "1.3 ms is below 1.5 ms")
}

func TestStep(t *testing.T) {
	for v, want := range map[float64][2]float64{1: {1, 1}, 1.1: {1, 2}, 3: {2, 5}, 70: {50, 100}, 0.03: {0.02, 0.05}} {
		assert.InEpsilon(t, want[0], step(v, -1), 1e-9)
		assert.InEpsilon(t, want[1], step(v, 1), 1e-9)
	}
}

const output = `goos: linux
BenchmarkElections/zookeeper-2   	       1	         0.80 heartbeats/s	      900 ms-to-step-down	 10.0 s-to-lead
BenchmarkElections/zookeeper-2   	       1	         0.80 heartbeats/s	      200 ms-to-step-down	 12.0 s-to-lead
BenchmarkElections/zookeeper-2   	       1	         0.80 heartbeats/s	      250 ms-to-step-down	 11.0 s-to-lead
BenchmarkElections/inprocess-2   	       1	         0.81 heartbeats/s	 1.8 s-to-lead
PASS
ok  	x	1.0s
`

func TestBenchmarks(t *testing.T) {
	b, err := ParseBenchmarks(strings.NewReader(output))
	require.NoError(t, err)
	assert.Equal(t, []string{"Elections/zookeeper", "Elections/inprocess"}, b.Names)
	assert.Equal(t, `| | real | in process | goal |
|---|--:|--:|---|
| to lead | 11 (10–12) | 1.8 | at most 3: **missed by 8** |
| to step down | 250 (200–900) | – | at most 300: met |
| heartbeats | 0.8 | 0.81 |  |
| other | – | – | at most 1: not measured |
`, b.Compare([]Metric{{"to lead", "s-to-lead", 3}, {"to step down", "ms-to-step-down", 300}, {"heartbeats", "heartbeats/s", 0}, {"other", "x", 1}},
		Column{"real", "Elections/zookeeper"}, Column{"in process", "Elections/inprocess"}))
	assert.Equal(t, "| | s | x |\n|---|--:|--:|\n| zookeeper | 11 | – |\n| inprocess | 1.8 | – |\n",
		b.Table("Elections/", Column{"s", "s-to-lead"}, Column{"x", "x"}))

	for _, bad := range []string{"", "PASS\n", output + "--- FAIL: BenchmarkX\n", output + "FAIL\n", "panic: x\n" + output, "BenchmarkX 1 x y/op\n"} {
		_, err := ParseBenchmarks(strings.NewReader(bad))
		assert.Error(t, err, bad)
	}
}

func TestSoakTable(t *testing.T) {
	const log = `=== RUN   TestSoak/vote_and_resign
    soak_test.go:266: 200 cycles in 2h2m0s of virtual time: goroutines 14, then 14; heap 3230 KiB, then 3280; client's watches 0, then 0; server's watches 0, then 1
`
	table, err := SoakTable(strings.NewReader(log))
	require.NoError(t, err)
	assert.Contains(t, table, "| vote and resign | 14, 14 | 3230, 3280 | 0, 0 | 0, 1 |\n")
	for _, bad := range []string{"", log + "    --- FAIL: TestSoak/vote (1s)\n"} {
		_, err := SoakTable(strings.NewReader(bad))
		assert.Error(t, err)
	}
}
