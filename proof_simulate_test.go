package election

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
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
// how late these are and at what rates the clients' clocks run, candidates,
// observers, their options, whose connections they are on) and on a schedule of
// faults, of some kinds, and of what its users do. The invariants are checked all along;
// after the last fault somebody leads, and every observer knows it, within the
// session timeout and two seconds or so; the leaders have kept a count, and none of what
// they have added is missing (proof_simulate_counter_test.go); and all schedules together
// have met what there is to be met (proof_simulate_situations_test.go).
//
// A seed replays with -seed. It decides on the schedule to the nanosecond; which
// of two goroutines runs first within one moment is Go's to decide, so a rare
// failure may take several tries (-simulate.repeat).

var (
	simSeed   = flag.Int64("seed", 0, "run this schedule of TestSimulate only")
	simRepeat = flag.Int("simulate.repeat", 1, "how often to run the schedule of -seed")
	simFirst  = flag.Int64("simulate.first", 1, "the first seed")
	simCount  = flag.Int64("simulate.n", 0, "how many schedules to run; 0 for as many as there is time for; TestSimulate runs more where these seem to miss a situation")
	simFor    = flag.Duration("simulate.for", 0, "for how long to begin schedules; 0 for 10s, 3s with -short, no limit with -simulate.n; TestSimulate goes on for up to six times that where these seem to miss a situation")
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
	failed := runSchedules(t, func(seed int64) bool { return simulate(t, seed, &total) },
		func() int { return schedulesToBeSure(total.met, total.schedules) },
		func(took time.Duration) { total.report(t, took) })
	if !failed {
		checkSituations(t, total.met, total.schedules)
	}
}

// runSchedules runs schedules on all processors, as the flags say, until a few
// have failed, and reports whether one has. Then it asks once how many schedules
// there have to be for a verdict, and runs those that are missing.
func runSchedules(t *testing.T, run func(seed int64) (ok bool), enough func() int, report func(took time.Duration)) (failed bool) {
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
	runOn := func(count int64, limit time.Duration) {
		var workers sync.WaitGroup
		for range runtime.GOMAXPROCS(0) {
			workers.Go(func() {
				for int(failures.Load()) < *failLimit && time.Since(start) < limit {
					n := next.Add(1) - 1
					if n >= count {
						next.Add(-1)
						return
					}
					if !run(*simFirst + n) {
						failures.Add(1)
					}
				}
			})
		}
		workers.Wait()
	}
	count := *simCount
	if count == 0 {
		count = math.MaxInt64
	}
	runOn(count, limit)
	if done := next.Load(); failures.Load() == 0 && int64(enough()) > done {
		t.Logf("%d schedules are too few to tell what they miss: %d are run", done, enough())
		runOn(int64(enough()), math.MaxInt64)
	}
	report(time.Since(start))
	return failures.Load() > 0 || t.Failed()
}

// simAllowance is how late the members are, and how different the clocks.
type simAllowance struct {
	late  float64 // the ensemble leader's pings, at most; in session timeouts
	rates float64 // by which the rates of two clocks differ, at most
}

// simAllowed is what docs/protocol.md section 5 assumes.
var simAllowed = simAllowance{1. / 100, 1. / 12}

// Members that are later, or clocks that differ more, than is allowed for, break
// the promise, and the simulation has to see it.
func TestSimulateBeyondAllowance(t *testing.T) {
	for _, test := range []struct {
		name     string
		beyond   simAllowance
		violated string
	}{
		{"pings too late", simAllowance{1. / 4, 1. / 12}, "lease longer than the session"},
		{"pings much too late", simAllowance{1, 1. / 12}, "two leaders"},
		{"clocks too different", simAllowance{1. / 100, 1. / 4}, "lease longer than the session"},
		{"clocks much too different", simAllowance{1. / 100, 1. / 2}, "two leaders"},
	} {
		t.Run(test.name, func(t *testing.T) {
			const enough = 3000
			for seed := range int64(enough) {
				if found := simulateBeyond(t, seed+1, test.beyond); found[test.violated] {
					t.Logf("seen by schedule %d", seed+1)
					return
				}
			}
			t.Errorf("%d schedules have seen no %s", enough, test.violated)
		})
	}
}

// simulateBeyond runs a schedule for the violations that it finds.
func simulateBeyond(t *testing.T, seed int64, allowance simAllowance) (found map[string]bool) {
	defer bound(fmt.Sprintf("TestSimulateBeyondAllowance, seed %d", seed))()
	synctest.Test(t, func(t *testing.T) {
		s := newSimulation(t, seed, allowance, true)
		s.play()
		s.finish()
		found = s.broken
	})
	return found
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
	met       map[string]int
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
	t.Logf("%.0f schedules a second; faults: %v", float64(s.schedules)/took.Seconds(), s.faults)
}

// simulation is one schedule under way. Its main goroutine, of the bubble,
// decides and acts; calls that may block run on goroutines that calls counts.
type simulation struct {
	*trial
	rng     *rand.Rand
	limit   time.Duration // for a leader to be there after the faults
	tick    time.Duration // what SessionOptions.TickTime is
	faults  []simFault    // those that this schedule has
	cast    []*actor      // candidates that have not been closed
	pings   *simPings
	callers int  // whose connections the sessions are on: none, some, all are callers'
	deaf    bool // watches were refused on a caller's connection; guarded by trial.mu
	counter counter
	made    int
	calls   sync.WaitGroup
	heals   map[*simHeal]struct{}
	count   map[string]int
	ending  chan struct{} // closed when the faults end: no callback is slow any more

	lapses atomic.Int64
	seenMu sync.Mutex // guards seen
	seen   simSeen
	// What callbacks do next, by name; guarded by mu below.
	chaosMu sync.Mutex
	slow    map[string]time.Duration
	fail    map[string]bool
	ambush  *simAmbush
}

// simHeal is the end of a fault.
type simHeal struct {
	at time.Time
	do func()
}

func simulate(t *testing.T, seed int64, total *simTotals) (ok bool) {
	defer bound(fmt.Sprintf("TestSimulate -seed=%d", seed))()
	synctest.Test(t, func(t *testing.T) {
		s := newSimulation(t, seed, simAllowed, false)
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
		total.times = append(total.times, took)
		if total.faults == nil {
			total.faults, total.met = make(map[string]int), make(map[string]int)
		}
		for what, n := range s.count {
			total.faults[what] += n
		}
		for what, n := range s.met {
			total.met[what] += n
		}
	})
	return ok
}

// newSimulation begins a schedule. control: its violations are wanted.
func newSimulation(t *testing.T, seed int64, allowance simAllowance, control bool) *simulation {
	rng := rand.New(rand.NewPCG(uint64(seed), 7))
	timeout := time.Duration(2+rng.IntN(5)) * time.Second
	tick := min(timeout/time.Duration(2+rng.IntN(7)), time.Second).Truncate(time.Millisecond)
	members := 3
	if rng.IntN(5) == 0 {
		members = 1
	}
	pings := newSimPings(rng, tick, time.Duration(allowance.late*float64(timeout)), allowance.rates)
	s := &simulation{
		trial: newTrial(t, testutil.ServerOptions{
			TickTime: tick, Members: members, MinSessionTimeout: timeout, MaxSessionTimeout: timeout,
			PingDelay: pings.delay, ClientClock: clocks(rng, allowance.rates),
		}, timeout),
		rng: rng, pings: pings, heals: make(map[*simHeal]struct{}), count: make(map[string]int), ending: make(chan struct{}),
		slow: make(map[string]time.Duration), fail: make(map[string]bool),
	}
	s.control = control // before anything goes on in it
	s.counter.init(s.trial, rng.Uint64())
	s.watchSituations()
	s.faults, s.callers = someFaults(rng), rng.IntN(3)
	s.far = slices.ContainsFunc(s.faults, func(f simFault) bool { return f.name == "far away" })
	// An ensemble expires a session a tick and a half late: it looks once a tick,
	// and followers pass on whom they heard once in half a tick. By the slowest
	// clock all that takes a twelfth longer.
	s.limit = timeout + timeout/12 + 2*time.Second
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
			p = s.startProcess(fmt.Sprintf("o%d's session", i))
		}
		o := s.newWitness(p, fmt.Sprintf("o%d", i))
		s.call(func() { _ = o.watch(time.Hour) })
	}
	return s
}

// someFaults draws the kinds of faults of a schedule: of all kinds about half, or
// no more than three, which then come often.
func someFaults(rng *rand.Rand) (some []simFault) {
	few := rng.IntN(2) == 0
	for _, f := range simFaults {
		if !few && rng.IntN(2) == 0 {
			some = append(some, f)
		}
	}
	for range rng.IntN(4) {
		if few {
			some = append(some, drawFault(rng, simFaults))
		}
	}
	return some
}

// drawFault draws one by the weights; there must be one.
func drawFault(rng *rand.Rand, from []simFault) simFault {
	total := 0
	for _, f := range from {
		total += f.weight
	}
	n := rng.IntN(total)
	i := slices.IndexFunc(from, func(f simFault) bool { n -= f.weight; return n < 0 })
	return from[i]
}

// simPings decides how late the pings of the ensemble's leader are.
type simPings struct {
	tick, late time.Duration
	kind       int
	slow       float64    // how much longer the members' half tick is by a client's clock
	rng        *rand.Rand // of the members' clock alone, which asks for one at a time
	next       atomic.Int64
}

func newSimPings(rng *rand.Rand, tick, late time.Duration, rates float64) *simPings {
	return &simPings{
		tick: tick, late: late, kind: rng.IntN(4), slow: 1 + rates*[]float64{0, rng.Float64(), 1, 1}[rng.IntN(4)],
		rng: rand.New(rand.NewPCG(rng.Uint64(), 1)),
	}
}

// delay is ServerOptions.PingDelay.
func (p *simPings) delay() time.Duration {
	late := p.late
	switch p.kind {
	case 0:
		late = 0
	case 1:
		late = time.Duration(p.rng.Int64N(int64(late) + 1))
	}
	period := time.Duration(p.slow * float64(p.tick/2+late))
	p.next.Store(time.Now().Add(period).UnixNano())
	return period - p.tick/2
}

// untilNext is how long it is to the next ping.
func (p *simPings) untilNext() time.Duration { return time.Until(time.Unix(0, p.next.Load())) }

// clocks makes a ServerOptions.ClientClock: rates that differ by up to a share.
func clocks(rng *rand.Rand, rates float64) func() float64 {
	if rng.IntN(4) == 0 {
		return func() float64 { return 1 }
	}
	own := rand.New(rand.NewPCG(rng.Uint64(), 2)) // drawn from under the server's mutex
	return func() float64 {
		switch own.IntN(3) {
		case 0:
			return 1 - rates
		case 1:
			return 1 + rates
		default:
			return 1 + rates*(2*own.Float64()-1)
		}
	}
}

// startProcess connects, on a connection of the Session's own or of a caller's.
func (s *simulation) startProcess(name string) *process {
	member := s.rng.IntN(3)
	if s.callers == 2 || s.callers == 1 && s.rng.IntN(3) == 0 {
		return s.newCallersProcess(name, s.tick, member)
	}
	return s.newProcess(name, s.tick, member)
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
		p = s.startProcess(name + "'s session")
	}
	opts := &CandidateOptions{HotStandby: s.rng.IntN(4) == 0}
	if s.rng.IntN(2) == 0 {
		opts.Priority = s.rng.IntN(19) - 9
	}
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
		a = s.newActor(s.startProcess(name+"'s session"), name, opts)
	}
	counts := s.rng.IntN(2) == 0
	a.win = func(ctx context.Context) error {
		a.mu.Lock()
		term := *a.won
		a.mu.Unlock()
		s.noticeWin(a, term)
		if counts {
			s.counter.keep(ctx, a, term)
		}
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
	a.stepDown = func(ctx context.Context) {
		if d := s.dally(name + " steps down"); d > 0 {
			select {
			case <-time.After(d):
			case <-s.ending:
			}
		}
		if ctx.Err() != nil {
			s.meets("callbacks overdue")
		}
	}
	a.OnStepDown(func(_ context.Context, term Term, cause error) {
		s.noticeStepDown(a, term, cause)
		if errors.Is(cause, ErrLeaseLapsed) {
			s.lapses.Add(1)
		}
	})
	a.OnTakeoverError(func(Term, error) { s.meets("takeover failed") })
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
	s.mu.Lock()
	if s.deaf {
		// A candidate may learn of its turn, and then an observer of the leader, by a recheck alone: that comes within five
		// quarters of the session timeout, and an eighth later if it is the first.
		s.limit += 2*(s.timeout+s.timeout/4) + s.timeout/8
	}
	s.mu.Unlock()
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
