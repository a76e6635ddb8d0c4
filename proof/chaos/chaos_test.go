//go:build linux

package chaos

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/zkelection/election/internal/monotonic"
	"github.com/zkelection/election/proof/chaos/internal/history"
	"github.com/zkelection/election/proof/chaos/internal/report"
)

// TestChaos lets a nemesis loose on an ensemble, five candidates and two
// observers, moves leadership among them on purpose between the faults and during them, and has
// their histories checked. `make chaos` runs it with a few
// hundred faults, then restarts the ensemble node by node under a session
// timeout of 10 s.
func TestChaos(t *testing.T) {
	if *flagFaults == 0 && *flagDuration == 0 {
		t.Skip("it measures time and wants the machine for itself: make chaos, make chaos-short")
	}
	seed := *flagSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	w := newWorld(t, seed)
	results.seed, results.cutsPossible, results.version = seed, w.net != nil, w.zookeeper.Version()

	results.main = w.runNemesis()
	check(t, results.main, sessionTimeout+2*time.Second)
	if w.strikes >= 20 && !slices.ContainsFunc(results.main.Transfers, func(tr history.Transfer) bool { return tr.Outcome == history.Done }) {
		t.Error("no transfer was done: that no promise was broken says nothing")
	}
	keepHistory(t, results.main)
	if *flagRolls > 0 {
		results.rolling = w.runRolling(*flagRolls)
		check(t, results.rolling, rollingTimeout+2*time.Second)
		keepHistory(t, results.rolling)
	}
}

// runNemesis injects faults one after the other, and now and then two at a
// time, waiting each time until the world is as before.
func (w *world) runNemesis() *report.Phase {
	w.populate("chaos", sessionTimeout, false)
	stopProbes := probe(w.fleet, w.zookeeper.Servers())
	defer stopProbes()
	w.settle()
	run := history.Span{From: monotonic.Now()}
	deadline := time.Now().Add(*flagDuration)
	allowed := func(f fault) bool { return w.net != nil || !f.cuts }
	told := 0
	for !w.t.Failed() && (w.strikes < *flagFaults || time.Now().Before(deadline)) {
		// Once everybody is in place the candidates are given a moment, so
		// that the next one in line is not always one that has just come.
		time.Sleep(w.between(100*time.Millisecond, time.Second))
		// Every other time leadership is moved on purpose, and now and then a fault
		// strikes while it moves.
		moved, meanwhile := func() {}, false
		switch w.rng.IntN(8) {
		case 0, 1:
			w.transfer()()
			w.settle()
			time.Sleep(w.between(100*time.Millisecond, time.Second))
		case 2:
			moved = w.transfer()
			time.Sleep(w.between(0, 10*time.Millisecond))
		case 3:
			meanwhile = true
		}
		first := w.pick(allowed)
		under := []underWay{w.begin(first)}
		if first.node && w.rng.IntN(5) == 0 {
			time.Sleep(w.between(0, 1500*time.Millisecond))
			under = append(under, w.begin(w.pick(func(f fault) bool { return allowed(f) && !f.node })))
		}
		if meanwhile {
			time.Sleep(w.between(0, time.Second))
			moved = w.transfer()
		}
		slices.SortFunc(under, func(a, b underWay) int { return a.until.Compare(b.until) })
		for _, u := range under {
			time.Sleep(time.Until(u.until))
			u.heal()
		}
		moved()
		w.settle()
		if w.strikes >= told+20 {
			told = w.strikes
			w.t.Logf("%d faults after %v", told, time.Duration(monotonic.Now()-run.From).Round(time.Second))
		}
	}
	run.To = monotonic.Now()
	stopProbes()
	return w.finish(run, sessionTimeout)
}

// underWay is a fault that has begun.
type underWay struct {
	until time.Time
	heal  func()
}

func (w *world) begin(f fault) underWay {
	hold, heal := f.begin(w)
	return underWay{time.Now().Add(hold), heal}
}

// rollingTimeout is long enough for a lease to outlast a node's restart.
const rollingTimeout = 10 * time.Second

// runRolling restarts the nodes one after the other, as an operator does for
// an upgrade, the ensemble's leader among them.
func (w *world) runRolling(rounds int) *report.Phase {
	w.populate("rolling", rollingTimeout, true)
	stopProbes := probe(w.fleet, w.zookeeper.Servers())
	defer stopProbes()
	w.settle()
	time.Sleep(time.Second) // let the last ones join
	run := history.Span{From: monotonic.Now()}
	for range rounds {
		for i := range w.zookeeper.Len() {
			heal := w.strike("restart, node by node", node(i), func() func() {
				w.zookeeper.Kill(i)
				return func() { w.zookeeper.Restart(i) }
			})
			time.Sleep(w.between(0, 2*time.Second))
			heal()
			w.settle()
			// An operator looks whether all is well before going on.
			time.Sleep(3 * time.Second)
		}
	}
	w.settle()
	run.To = monotonic.Now()
	stopProbes()
	p := w.finish(run, rollingTimeout)
	p.StepDowns = history.StepDowns(p.Leaderships, p.Events, run)
	for _, s := range p.StepDowns {
		w.t.Errorf("during a rolling restart: %s", s)
	}
	return p
}

// finish ends the processes and reads what they have written.
func (w *world) finish(run history.Span, timeout time.Duration) *report.Phase {
	for _, a := range w.fleet.all() {
		a.kill()
	}
	events := w.fleet.history()
	return &report.Phase{
		Timeout:     timeout,
		Run:         run,
		Events:      events,
		Leaderships: history.Leaderships(events),
		Observers:   w.lag,
	}
}

// check fails the test for whatever the histories show that must not be.
func check(t *testing.T, p *report.Phase, bound time.Duration) {
	t.Helper()
	p.Overlaps = history.Overlaps(p.Leaderships)
	for _, o := range p.Overlaps {
		t.Errorf("two leaders: %v", o)
	}
	p.Disorders = history.TokensOutOfOrder(p.Leaderships)
	for _, d := range p.Disorders {
		t.Error(d)
	}
	p.Transfers = history.Transfers(p.Events)
	p.BrokenPromises = history.BrokenPromises(p.Events)
	for _, broken := range p.BrokenPromises {
		t.Error(broken)
	}
	p.Bound = bound
	p.TooLong = history.TooLong(p.Leaderships, p.Events, p.Run, bound)
	for _, s := range p.TooLong {
		t.Errorf("no acknowledged leader for %v, from %v on, while a quorum and a candidate lived", s, time.Duration(s.From-p.Run.From))
	}
}

// keepHistory keeps what a failed test's processes have written, to be read.
func keepHistory(t *testing.T, p *report.Phase) {
	t.Helper()
	if !t.Failed() {
		return
	}
	file, err := os.CreateTemp("", "chaos-history-*.jsonl") //nolint:usetesting // it is to outlive the test
	if err != nil {
		t.Error(err)
		return
	}
	defer file.Close()
	lines := json.NewEncoder(file)
	for _, e := range p.Events {
		if err := lines.Encode(e); err != nil {
			t.Error(err)
			return
		}
	}
	t.Logf("the history is in %s; the run began at %d", file.Name(), p.Run.From)
}
