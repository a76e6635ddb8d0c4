//go:build linux

package bench

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/bench/internal/report"
	"github.com/zkelection/election/testutil/realzk"
)

var (
	flagReport = flag.String("bench.report", "", "the whole run, half an hour: the directory of performance.md, whose tables it writes, and of performance.svg; with -bench.short the short form's")
	flagShort  = flag.Bool("bench.short", false, "the short form of the run, less than a minute")
	flagNs     = flag.String("bench.ns", "", "numbers of candidates, with commas, instead of those of the run")
	flagOnly   = flag.Bool("bench.contest", false, "with -bench.report: only the contest, and leave the other tables as they are")
)

// contend runs the contest.
func contend(t *testing.T, s scale) *contest {
	if *flagNs != "" {
		s.ns = nil
		for n := range strings.SplitSeq(*flagNs, ",") {
			number, err := strconv.Atoi(n)
			require.NoError(t, err)
			s.ns = append(s.ns, number)
		}
	}
	c := &contest{t: t, scale: s, rows: make(map[string][]*report.Row)}
	c.machine = report.Machine{Began: time.Now(), Processors: runtime.NumCPU(), Model: model(t), Before: loadAverage(t)}
	c.with = prepare(t)
	timed := func(what string, do func() error) {
		began := time.Now()
		require.NoError(t, do(), what)
		t.Logf("%s: %v", what, time.Since(began).Round(time.Second/10))
	}
	zookeeper := c.zookeeper()
	c.machine.Versions = append([]string{"ZooKeeper " + zookeeper.Version()}, c.with.versions...)
	for _, n := range s.ns {
		timed(fmt.Sprintf("times, N = %d", n), func() error { return c.times(zookeeper, n) })
		timed(fmt.Sprintf("packets, N = %d", n), func() error { return c.count(zookeeper, n) })
	}
	timed("kills", func() error { return c.kills(zookeeper) })
	zookeeper.Close()
	var alone *realzk.Ensemble // for nobody else is to be stopped with it
	timed("stops", func() error { alone = c.zookeeper(); return c.stops(alone) })
	c.machine.Took = time.Since(c.machine.Began)
	return c
}

// table is the contest's.
func (c *contest) table() string {
	var rows []*report.Row
	for _, what := range shown {
		rows = append(rows, c.rows[what]...)
	}
	return report.Table(rows)
}

// TestShort is a short form of the run: that each contestant does what it is asked, that all is measured, and that the
// floor's packets are as many as its source has.
func TestShort(t *testing.T) {
	if !*flagShort || *flagReport != "" {
		t.Skip("without -bench.short")
	}
	c := contend(t, smoke)
	t.Log("\n" + c.table())
	for _, what := range shown {
		assert.NotEmpty(t, c.rows[what], what)
		for _, r := range c.rows[what] {
			for _, name := range report.Contestants {
				_, measured := r.Median(name)
				switch what {
				case toAck, placeAll:
					assert.Equal(t, name != report.Curator && name != report.Kazoo, measured, "%s, N = %d: %s", what, r.N, name)
				case stopped:
					// Whoever kept its session has no value.
				default:
					assert.True(t, measured, "%s, N = %d: %s", what, r.N, name)
				}
				for _, v := range r.Values[name] {
					assert.True(t, v > 0 || r.Unit == report.Packets, "%s, N = %d: %s: %v", what, r.N, name, v)
				}
			}
		}
	}
	// Withdraw, list, acknowledge; connect, create, list, watch.
	for what, want := range map[string]float64{perFail: 3, perJoin: 4} {
		for _, r := range c.rows[what] {
			packets, _ := r.Median(report.Floor)
			assert.Equal(t, want, packets, "%s, N = %d", what, r.N)
		}
	}
}

// TestBench is the whole run.
func TestBench(t *testing.T) {
	if *flagReport == "" {
		t.Skip("without -bench.report")
	}
	file := filepath.Join(*flagReport, "performance.md")
	document, err := os.ReadFile(file)
	require.NoError(t, err)
	sections := make(map[string]string)
	s := full
	if *flagShort {
		s = smoke
	}
	c := contend(t, s)
	sections["contest"] = c.machine.String() + "\n" + c.table()
	if !*flagOnly {
		goBenchmarks(t, sections)
	}

	text := string(document)
	for name, section := range sections {
		text, err = report.Insert(text, name, section)
		require.NoError(t, err)
	}
	var picture bytes.Buffer
	require.NoError(t, report.Plot(&picture, "A failover and joining, on one "+c.machine.Versions[0]+": medians and quartiles", []report.Panel{
		{Title: failover, Rows: c.rows[failover]}, {Title: joinAll, Rows: c.rows[joinAll]},
	}))
	require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(*flagReport, "performance.svg"), picture.Bytes(), 0o644))
}

// TestMarkers: the document has a place for all that the run writes.
func TestMarkers(t *testing.T) {
	document, err := os.ReadFile("../docs/performance.md")
	require.NoError(t, err)
	names := []string{
		"contest", "failover on a real ZooKeeper", "failover in the process", "joining in the process", "elections", "isleader", "soak",
	}
	assert.Equal(t, len(names), strings.Count(string(document), "<!-- bench: "), "the marks of the document")
	for _, name := range names {
		_, err := report.Insert(string(document), name, "")
		assert.NoError(t, err)
	}
}

// goBenchmarks runs the benchmarks of the library's own tests.
func goBenchmarks(t *testing.T, sections map[string]string) {
	run := func(args ...string) *bytes.Buffer {
		began := time.Now()
		var output bytes.Buffer
		cmd := exec.Command("go", append([]string{"test", "-timeout", "1h", "-count"}, args...)...)
		cmd.Dir = ".."
		cmd.Stdout, cmd.Stderr = &output, os.Stderr
		require.NoError(t, cmd.Run(), "%v\n%s", args, &output)
		t.Logf("%v: %v\n%s", args, time.Since(began).Round(time.Second), &output)
		return &output
	}
	benchmarks := func(pattern, benchtime, count string) *report.Benchmarks {
		b, err := report.ParseBenchmarks(run(count, "-run", "^$", "-bench", pattern, "-benchtime", benchtime, "."))
		require.NoError(t, err)
		return b
	}
	columns := []report.Column{
		{Head: "to OnWin, µs", Unit: "win-µs"},
		{Head: "floor", Unit: "floor-win-µs"},
		{Head: "ratio", Unit: "win/floor"},
		{Head: "to the acknowledgement, µs", Unit: "ack-µs"},
		{Head: "floor", Unit: "floor-ack-µs"},
		{Head: "ratio", Unit: "ack/floor"},
		{Head: "to OnNewLeader, µs", Unit: "told-µs"},
		{Head: "floor", Unit: "floor-told-µs"},
		{Head: "ratio", Unit: "told/floor"},
	}
	sections["failover on a real ZooKeeper"] = benchmarks("^BenchmarkFailover$/^zookeeper$", "6x", "1").Table("Failover/zookeeper/", columns...)
	sections["failover in the process"] = benchmarks("^BenchmarkFailover$/^inprocess$", "10x", "1").Table("Failover/inprocess/", columns...)
	sections["joining in the process"] = benchmarks("^BenchmarkJoin$/^inprocess$", "5x", "1").Table("Join/inprocess/",
		report.Column{Head: "to the last vote, µs", Unit: "voted-µs"}, report.Column{Head: "until all know the leader, µs", Unit: "joined-µs"},
		report.Column{Head: "floor", Unit: "floor-joined-µs"}, report.Column{Head: "ratio", Unit: "joined/floor"})
	sections["elections"] = benchmarks("^BenchmarkElections$", "1x", "3").Compare([]report.Metric{
		{What: "to lead all, 256 at a time, s", Unit: "s-to-lead", AtMost: 3},
		{What: "from the loss of the session until all OnStepDown were called, ms", Unit: "ms-to-step-down", AtMost: 300},
		{What: "goroutines for each that leads", Unit: "goroutines/leading", AtMost: 2},
		{What: "goroutines for each that waits", Unit: "goroutines/waiting", AtMost: 2},
		{What: "bytes for each that leads", Unit: "B/leading", AtMost: 8192},
		{What: "bytes for each that waits", Unit: "B/waiting", AtMost: 8192},
		{What: "heartbeats in a second, T = 10 s", Unit: "heartbeats/s", AtMost: 0.85},
	}, report.Column{Head: "a real ZooKeeper", Unit: "Elections/zookeeper"}, report.Column{Head: "in process, the server's memory included", Unit: "Elections/inprocess"})
	leader := benchmarks("^BenchmarkIsLeader$", "50x", "1")
	sections["isleader"] = leader.Compare([]report.Metric{
		{What: "`time.Since`, ns", Unit: "ns/since"},
		{What: "`IsLeader`, ns", Unit: "ns/isleader"},
		{What: "more, ns", Unit: "ns/more", AtMost: 5},
		{What: "allocations", Unit: "allocs/op"},
	}, report.Column{Head: "one caller", Unit: "IsLeader"}) + "\n" +
		benchmarks("^BenchmarkIsLeaderParallel$", "1s", "1").Table("IsLeaderParallel/", report.Column{Head: "32 callers on two processors, ns", Unit: "ns/op"})
	soak, err := report.SoakTable(run("1", "-v", "-run", "^TestSoak$", ".", "-soak.cycles=10000"))
	require.NoError(t, err)
	sections["soak"] = soak
}

// model is what the processors are.
func model(t *testing.T) string {
	text, err := os.ReadFile("/proc/cpuinfo")
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		if key, value, _ := strings.Cut(line, ":"); strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "of an unknown kind"
}
