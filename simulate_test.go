package election

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zkelection/election/testutil"
)

// The simulation. A seed decides on an election (session timeout, tick, members,
// candidates, observers, their options) and on a schedule of faults and of what
// its users do; the invariants are checked all along, and after the last fault
// somebody leads, and every observer knows it, within the session timeout and
// two seconds.
//
// A seed replays with -seed. It decides on the schedule to the nanosecond; which
// of two goroutines runs first within one moment is Go's to decide, so a rare
// failure may take several tries (-simulate.repeat).

var (
	simSeed   = flag.Int64("seed", 0, "run this schedule of TestSimulate only")
	simRepeat = flag.Int("simulate.repeat", 1, "how often to run the schedule of -seed")
	simFirst  = flag.Int64("simulate.first", 1, "the first seed")
	simCount  = flag.Int64("simulate.n", 0, "how many schedules to run; 0 for as many as there is time for")
	simFor    = flag.Duration("simulate.for", 0, "for how long to begin schedules; 0 for 10s, 3s with -short, no limit with -simulate.n")
)

func TestSimulate(t *testing.T) {
	tuneGC(t)
	var total simTotals
	if *simSeed != 0 {
		for range *simRepeat {
			if !simulate(t, *simSeed, &total) {
				break
			}
		}
		return
	}
	limit := *simFor
	switch {
	case limit > 0:
	case *simCount > 0:
		limit = 24 * time.Hour
	case testing.Short():
		limit = 3 * time.Second
	default:
		limit = 10 * time.Second
	}
	start := time.Now()
	var next, failures atomic.Int64
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for int(failures.Load()) < *failLimit && time.Since(start) < limit {
				n := next.Add(1) - 1
				if *simCount > 0 && n >= *simCount {
					return
				}
				if !simulate(t, *simFirst+n, &total) {
					failures.Add(1)
				}
			}
		})
	}
	workers.Wait()
	total.report(t, time.Since(start))
	if total.schedules > 50 && (total.claims == 0 || total.lapses == 0 || total.settled == 0) {
		t.Error("nothing happened: the simulation is blind")
	}
}

// simTotals is what all schedules came to.
type simTotals struct {
	mu        sync.Mutex
	schedules int
	virtual   time.Duration
	faults    map[string]int
	claims    int
	stepDowns int
	lapses    int
	excused   int
	settled   int
	times     []time.Duration // until somebody led, after the faults
}

func (s *simTotals) report(t *testing.T, took time.Duration) {
	if s.schedules == 0 || len(s.times) == 0 {
		return
	}
	slices.Sort(s.times)
	t.Logf("%d schedules from seed %d in %v: %v of virtual time, %d wins, %d step-downs (%d for a lapsed lease), "+
		"%d moments with two leaders after an early expiry; a leader after the faults: median %v, 99th percentile %v, longest %v",
		s.schedules, *simFirst, took.Round(time.Millisecond), s.virtual.Round(time.Second), s.claims, s.stepDowns, s.lapses,
		s.excused, s.times[len(s.times)/2], s.times[len(s.times)*99/100], s.times[len(s.times)-1])
	t.Logf("faults: %v", s.faults)
}

// simulation is one schedule under way. Its main goroutine, of the bubble,
// decides and acts; calls that may block run on goroutines that calls counts.
type simulation struct {
	*trial
	rng    *rand.Rand
	limit  time.Duration // for a leader to be there after the faults
	tick   time.Duration // what SessionOptions.TickTime is
	cast   []*actor      // candidates that have not been closed
	made   int
	calls  sync.WaitGroup
	heals  map[*simHeal]struct{}
	count  map[string]int
	ending chan struct{} // closed when the faults end: no callback is slow any more

	lapses atomic.Int64
	// What callbacks do next, by name; guarded by mu below.
	chaosMu sync.Mutex
	slow    map[string]time.Duration
	fail    map[string]bool
}

// simHeal is the end of a fault.
type simHeal struct {
	at time.Time
	do func()
}

func simulate(t *testing.T, seed int64, total *simTotals) (ok bool) {
	defer guard(fmt.Sprintf("TestSimulate -seed=%d", seed))()
	synctest.Test(t, func(t *testing.T) {
		s := newSimulation(t, rand.New(rand.NewPCG(uint64(seed), 7)))
		start := time.Now()
		took := s.play()
		s.finish()
		ok = !s.hasFailed()
		if !ok {
			t.Logf("replay: go test -run TestSimulate -seed=%d -simulate.repeat=20", seed)
		}
		total.mu.Lock()
		defer total.mu.Unlock()
		total.schedules++
		total.virtual += time.Since(start)
		total.claims += s.claims
		total.stepDowns += s.stepDowns
		total.excused += s.excused
		total.lapses += int(s.lapses.Load())
		total.settled++
		total.times = append(total.times, took)
		if total.faults == nil {
			total.faults = make(map[string]int)
		}
		for what, n := range s.count {
			total.faults[what] += n
		}
	})
	return ok
}

func newSimulation(t *testing.T, rng *rand.Rand) *simulation {
	timeout := time.Duration(2+rng.IntN(5)) * time.Second
	tick := min(timeout/time.Duration(2+rng.IntN(7)), time.Second).Truncate(time.Millisecond)
	members := 3
	if rng.IntN(5) == 0 {
		members = 1
	}
	s := &simulation{
		trial: newTrial(t, testutil.ServerOptions{TickTime: tick, Members: members, MinSessionTimeout: timeout, MaxSessionTimeout: timeout}, timeout),
		rng:   rng, heals: make(map[*simHeal]struct{}), count: make(map[string]int), ending: make(chan struct{}),
		slow: make(map[string]time.Duration), fail: make(map[string]bool),
	}
	// An ensemble expires a session a tick and a half late: it looks once a tick,
	// and followers pass on whom they heard once in half a tick.
	s.limit = timeout + 2*time.Second
	if tick > 500*time.Millisecond {
		s.limit += tick + tick/2
	}
	if rng.IntN(2) == 0 {
		s.tick = tick
	}
	for range 2 + rng.IntN(3) {
		s.enlist(nil)
	}
	for i := range 1 + rng.IntN(2) {
		p := s.cast[rng.IntN(len(s.cast))].p
		if rng.IntN(2) == 0 {
			p = s.newProcess(fmt.Sprintf("o%d's session", i), s.tick, rng.IntN(3))
		}
		o := s.newWitness(p, fmt.Sprintf("o%d", i))
		s.call(func() { _ = o.watch(time.Hour) })
	}
	return s
}

// call runs what may block.
func (s *simulation) call(fn func()) { s.calls.Go(fn) }

// enlist makes a candidate that votes, on a process of its own or on p.
func (s *simulation) enlist(p *process) {
	s.made++
	name := fmt.Sprintf("c%d", s.made)
	if p == nil && len(s.cast) > 0 && s.rng.IntN(6) == 0 {
		p = s.cast[s.rng.IntN(len(s.cast))].p
	}
	if p == nil {
		p = s.newProcess(name+"'s session", s.tick, s.rng.IntN(3))
	}
	opts := &CandidateOptions{HotStandby: s.rng.IntN(4) == 0}
	if s.rng.IntN(2) == 0 {
		opts.Follow = FollowLeader
	}
	if s.rng.IntN(4) == 0 {
		opts.StepDownTimeout = s.between(s.timeout/8, 2*s.timeout)
	}
	if s.rng.IntN(4) == 0 {
		opts.TakeoverTimeout = s.between(s.timeout/4, 2*s.timeout)
	}
	a := s.newActor(p, name, opts)
	if a == nil {
		a = s.newActor(s.newProcess(name+"'s session", s.tick, s.rng.IntN(3)), name, opts)
	}
	a.win = func(ctx context.Context) error {
		if d := s.dally(name + " wins"); d > 0 {
			select {
			case <-ctx.Done():
			case <-time.After(d):
			case <-s.ending:
			}
		}
		s.chaosMu.Lock()
		defer s.chaosMu.Unlock()
		if s.fail[name] {
			delete(s.fail, name)
			return errors.New("cannot take over")
		}
		return nil
	}
	a.stepDown = func(context.Context) {
		if d := s.dally(name + " steps down"); d > 0 {
			select {
			case <-time.After(d):
			case <-s.ending:
			}
		}
	}
	a.OnStepDown(func(_ context.Context, _ Term, cause error) {
		if errors.Is(cause, ErrLeaseLapsed) {
			s.lapses.Add(1)
		}
	})
	s.cast = append(s.cast, a)
	s.call(func() { _ = a.vote(4 * s.timeout) })
}

// dally tells how long a callback is to take.
func (s *simulation) dally(what string) time.Duration {
	s.chaosMu.Lock()
	defer s.chaosMu.Unlock()
	d := s.slow[what]
	delete(s.slow, what)
	return d
}

func (s *simulation) between(low, high time.Duration) time.Duration {
	return low + time.Duration(s.rng.Int64N(int64(high-low)+1))
}

// awhile is how long a fault lasts. What happens near the session timeout is
// what matters most.
func (s *simulation) awhile() time.Duration {
	switch s.rng.IntN(4) {
	case 0:
		return s.between(0, s.timeout/2)
	case 1:
		return s.between(s.timeout/2, s.timeout)
	case 2:
		return s.between(s.timeout-s.timeout/8, s.timeout+2*s.trial.tick)
	default:
		return s.between(s.timeout, 2*s.timeout)
	}
}

// someone is a candidate: often the one that leads.
func (s *simulation) someone() *actor {
	pick := s.rng.IntN(len(s.cast))
	if s.rng.IntN(2) == 0 {
		for _, a := range s.cast {
			if a.IsLeader() {
				return a
			}
		}
	}
	return s.cast[pick]
}

// play runs the schedule and returns how long it took, after its end, until
// somebody led.
func (s *simulation) play() time.Duration {
	if s.rng.IntN(4) > 0 {
		time.Sleep(s.between(0, 2*s.timeout)) // else faults begin before anybody leads
	}
	for range 2 + s.rng.IntN(8) {
		s.strike()
		pause := s.between(0, s.timeout)
		if s.rng.IntN(3) == 0 {
			pause = s.between(0, s.timeout/20)
		}
		s.healUntil(time.Now().Add(pause))
	}
	s.healUntil(time.Time{})
	s.note("the faults have ended")
	close(s.ending)
	synctest.Wait()
	// One that is closing may give up yet, and end its session with all on it.
	for s.closing.Load() > 0 {
		time.Sleep(10 * time.Millisecond)
	}
	synctest.Wait()
	s.cast = slices.DeleteFunc(s.cast, func(a *actor) bool { return a.p.isClosing() })
	if len(s.cast) == 0 {
		s.enlist(nil)
	}
	for _, a := range s.cast {
		s.call(func() { _ = a.vote(time.Hour) })
	}
	ended := time.Now()
	took := s.awaitLeader(s.limit, nil)
	// A lease that still holds may yet lapse before its owner has come back.
	time.Sleep(s.limit - time.Since(ended))
	if missing := s.settled(); missing != "" {
		s.violated("no leader", "%v after the faults, though there was one: %s", s.limit, missing)
	}
	if !s.hasFailed() {
		s.calm()
	}
	s.calls.Wait()
	return took
}

// calm requires that nobody steps down when nothing happens.
func (s *simulation) calm() {
	s.mu.Lock()
	before := s.stepDowns
	s.mu.Unlock()
	time.Sleep(s.timeout)
	s.mu.Lock()
	after := s.stepDowns
	s.mu.Unlock()
	if after != before {
		s.violated("calm", "%d step-downs though nothing happened", after-before)
	}
	if missing := s.settled(); missing != "" {
		s.violated("calm", "%s", missing)
	}
}

// lasts ends a fault after d.
func (s *simulation) lasts(d time.Duration, heal func()) {
	s.heals[&simHeal{time.Now().Add(d), heal}] = struct{}{}
}

// healUntil lets time pass until a moment, or until all faults have ended if
// that is zero.
func (s *simulation) healUntil(end time.Time) {
	for {
		var next *simHeal
		for h := range s.heals {
			if next == nil || h.at.Before(next.at) {
				next = h
			}
		}
		if next == nil || !end.IsZero() && next.at.After(end) {
			time.Sleep(max(0, time.Until(end)))
			return
		}
		time.Sleep(max(0, time.Until(next.at)))
		delete(s.heals, next)
		next.do()
		s.sample()
	}
}
