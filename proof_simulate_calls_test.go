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

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/testutil"
)

// The second simulation: the order of calls. Up to three goroutines for each
// candidate call whatever there is to call, from callbacks too, and callbacks
// panic, hang, end their goroutine, close their candidate or its session. Every call
// returns in bounded time, callbacks are paired and never follow a Close that
// returned nil, no two lead, and when all is over nothing is left and another can lead.
//
// What is called is callOps; more is added there, a line each.

var callSeed = flag.Int64("calls.seed", 0, "run this schedule of TestSimulateCalls only")

func TestSimulateCalls(t *testing.T) {
	tuneGC(t)
	var total callTotals
	if *callSeed != 0 {
		for range *simRepeat {
			if !simulateCalls(t, *callSeed, &total) {
				break
			}
		}
		return
	}
	// What is asked for below is a fifth of what is to be expected, or less: no further schedules are needed to tell.
	runSchedules(t, func(seed int64) bool { return simulateCalls(t, seed, &total) }, func() int { return 0 }, func(took time.Duration) {
		total.report(t, took)
	})
}

// callTotals is what all schedules came to.
type callTotals struct {
	mu        sync.Mutex
	schedules int
	virtual   time.Duration
	met       map[string]int
	claims    int
	stepDowns int
	excused   int
}

func (c *callTotals) report(t *testing.T, took time.Duration) {
	t.Logf("%d schedules from seed %d in %v, %.0f a second: %v of virtual time, %d wins, %d step-downs, %d moments with two leaders after an early expiry",
		c.schedules, *simFirst, took.Round(time.Millisecond), float64(c.schedules)/took.Seconds(), c.virtual.Round(time.Second),
		c.claims, c.stepDowns, c.excused)
	t.Logf("calls and what callbacks did: %v", c.met)
	if c.schedules < 300 {
		return
	}
	assert.GreaterOrEqual(t, c.claims, c.schedules/2, "%d wins: the simulation is blind", c.claims)
	for _, op := range callOps {
		if c.met[op.name] < c.schedules/20 {
			t.Errorf("%s was called %d times: the simulation is blind", op.name, c.met[op.name])
		}
		if inside := "inside: " + op.name; c.met[inside] < c.schedules/200 {
			t.Errorf("%s was called from callbacks %d times: the simulation is blind", op.name, c.met[inside])
		}
	}
	for _, b := range callBehaviours {
		if c.met[b.name] < c.schedules/50 {
			t.Errorf("a callback that %s: %d times: the simulation is blind", b.name, c.met[b.name])
		}
	}
}

// callSim is one schedule under way.
type callSim struct {
	*trial
	release chan struct{} // closed when callbacks that hang are to return
	over    atomic.Bool   // no call is begun any more, and callbacks return at once
	calls   sync.WaitGroup

	drawing sync.Mutex // guards rng and made, and over against a call that begins
	rng     *rand.Rand
	made    int // candidates
}

// caller is who calls: a goroutine, or a callback that calls something.
type caller struct {
	s      *callSim
	a      *actor
	inside bool // a callback: what blocks is given its context, or one of its own that ends
	leads  bool // the function given to Run
}

// callOp is something to call. ctx ends soon.
type callOp struct {
	name   string
	weight int
	do     func(c *caller, ctx context.Context)
}

var callOps []callOp

// The table refers to functions that refer to it.
func init() {
	callOps = []callOp{
		{"Vote", 8, func(c *caller, ctx context.Context) { _ = c.a.Vote(ctx) }},
		{"Campaign", 4, func(c *caller, ctx context.Context) { _, _ = c.a.Campaign(ctx) }},
		{"Run", 3, func(c *caller, ctx context.Context) { _ = c.a.Run(ctx, c.lead) }},
		{"Resign", 4, func(c *caller, ctx context.Context) { _ = c.a.Resign(ctx) }},
		{"Proclaim", 3, (*caller).proclaim},
		{"Close", 1, func(c *caller, _ context.Context) { c.s.close(c.a) }},
		{"Session.Close", 1, func(c *caller, _ context.Context) {
			if c.s.draw(3) == 0 {
				c.s.closeProcess(c.a.p)
			}
		}},
		{"Session.Shutdown", 1, func(c *caller, ctx context.Context) {
			if c.s.draw(3) == 0 {
				c.s.shutDown(ctx, c.a.p)
			}
		}},
		{"NewCandidate", 2, (*caller).another},
		{"Leader", 1, func(c *caller, ctx context.Context) { _, _ = c.a.Leader(ctx) }},
		{"LeaderSync", 1, func(c *caller, ctx context.Context) { _, _ = c.a.LeaderSync(ctx) }},
		{"LeaderAcked", 1, func(c *caller, ctx context.Context) { _, _ = c.a.LeaderAcked(ctx) }},
		{"LeaderData", 1, func(c *caller, ctx context.Context) { _, _ = c.a.LeaderData(ctx) }},
		{"Ballots", 1, func(c *caller, ctx context.Context) { _, _ = c.a.Ballots(ctx) }},
		{"AwaitConnected", 1, func(c *caller, ctx context.Context) { _ = c.a.p.session.AwaitConnected(ctx) }},
		{"what is known", 2, func(c *caller, _ context.Context) {
			c.a.IsLeader()
			c.a.Term()
			c.a.Voted()
			c.a.VotePath()
			c.a.LeaseUntil()
			_ = c.a.Healthy(time.Second)
			c.a.Status()
			c.a.p.session.ID()
			c.a.p.session.Timeout()
			c.a.p.session.Conn()
		}},
		{"OnWin", 2, func(c *caller, ctx context.Context) {
			behave := c.callback()
			c.cancelLater(ctx, c.a.OnWin(func(ctx context.Context, _ Term) error { return behave(ctx) }))
		}},
		{"OnStepDown", 2, func(c *caller, ctx context.Context) {
			behave := c.callback()
			c.cancelLater(ctx, c.a.OnStepDown(func(ctx context.Context, _ Term, _ error) { _ = behave(ctx) }))
		}},
		{"OnLose", 2, func(c *caller, ctx context.Context) {
			behave := c.callback()
			c.cancelLater(ctx, c.a.OnLose(func(ctx context.Context, _ Leader) { _ = behave(ctx) }))
		}},
		{"OnTakeoverError", 1, func(c *caller, ctx context.Context) {
			behave := c.callback()
			c.cancelLater(ctx, c.a.OnTakeoverError(func(Term, error) { _ = behave(nil) }))
		}},
		{"OnLeaderAck", 1, func(c *caller, ctx context.Context) {
			behave := c.callback()
			c.cancelLater(ctx, c.a.OnLeaderAck(func(Leader) { _ = behave(nil) }))
		}},
		{"OnConnected", 1, func(c *caller, ctx context.Context) {
			behave := c.callback()
			c.cancelLater(ctx, c.a.p.session.OnConnected(func() { _ = behave(nil) }))
		}},
		{"Observe", 1, (*caller).observe},
		{"Transfer", 3, func(c *caller, ctx context.Context) {
			all := *c.s.actors.Load()
			_ = c.a.transfer(ctx, all[c.s.draw(len(all))])
		}},
		{"SetPriority", 2, func(c *caller, ctx context.Context) { _ = c.a.SetPriority(ctx, c.s.draw(19)-9) }},
		{"StandWhile", 2, func(c *caller, ctx context.Context) {
			_ = c.a.StandWhile(ctx, func(ctx context.Context) error { return c.lead(ctx, Term{}) }, 1+c.s.upTo(c.s.timeout/2))
		}},
	}
}

// callBehaviour is what a callback does; err is what OnWin returns.
type callBehaviour struct {
	name   string
	weight int
	do     func(c *caller, ctx context.Context) error
}

var callBehaviours = []callBehaviour{
	{"returns", 12, func(*caller, context.Context) error { return nil }},
	{"fails", 1, func(*caller, context.Context) error { return errors.New("cannot") }},
	{"panics", 1, func(*caller, context.Context) error { panic("a callback panics") }},
	{"ends its goroutine", 1, func(*caller, context.Context) error { runtime.Goexit(); return nil }},
	{"hangs", 1, func(c *caller, _ context.Context) error {
		if c.leads {
			c.s.wait(context.Background(), 3*c.s.timeout) // or Run, which is waited for, would wait for the end of waiting
			return nil
		}
		<-c.s.release
		return nil
	}},
	{"waits for its context", 2, func(c *caller, ctx context.Context) error {
		c.s.wait(ctx, c.s.upTo(2*c.s.timeout))
		return ctx.Err()
	}},
	{"takes its time", 2, func(c *caller, _ context.Context) error {
		c.s.wait(context.Background(), c.s.upTo(c.s.timeout))
		return nil
	}},
	{"calls", 8, func(c *caller, ctx context.Context) error { c.call(ctx); return nil }},
	{"closes its candidate", 1, func(c *caller, _ context.Context) error { c.s.close(c.a); return nil }},
	{"closes its session", 1, func(c *caller, _ context.Context) error { c.s.closeProcess(c.a.p); return nil }},
}

// callFaults disturb the servers a little: what is called is what counts here.
var callFaults = []func(s *callSim, p *process) (heal func()){
	func(s *callSim, _ *process) func() {
		s.note("FAULT: connections cut")
		s.srv.DropConnections()
		return nil
	},
	func(s *callSim, p *process) func() {
		s.note("FAULT: %s is isolated", p.name)
		return s.srv.Isolate(p.session.ID())
	},
	func(s *callSim, p *process) func() {
		id := p.session.ID()
		s.excuse(id)
		s.note("FAULT: session %s of %s expires early", sessionName(id), p.name)
		s.srv.ExpireSession(id)
		return nil
	},
	func(s *callSim, _ *process) func() { s.note("FAULT: the servers stop"); s.stop(); return s.start },
	func(s *callSim, p *process) func() {
		s.note("FAULT: %s pauses", p.name)
		p.gate.shut()
		return p.gate.open
	},
}

func simulateCalls(t *testing.T, seed int64, total *callTotals) (ok bool) {
	defer bound(fmt.Sprintf("TestSimulateCalls -calls.seed=%d", seed))()
	synctest.Test(t, func(t *testing.T) {
		s := newCallSim(t, seed)
		start := time.Now()
		s.play()
		s.finish()
		ok = !s.hasFailed()
		if !ok {
			t.Logf("replay: go test -run TestSimulateCalls -calls.seed=%d -simulate.repeat=20", seed)
		}
		total.mu.Lock()
		defer total.mu.Unlock()
		if total.met == nil {
			total.met = make(map[string]int)
		}
		total.schedules++
		total.virtual += time.Since(start)
		total.claims += s.claims
		total.stepDowns += s.stepDowns
		total.excused += s.excused
		for what, n := range s.met {
			total.met[what] += n
		}
	})
	return ok
}

func newCallSim(t *testing.T, seed int64) *callSim {
	rng := rand.New(rand.NewPCG(uint64(seed), 11))
	timeout := time.Duration(2+rng.IntN(3)) * time.Second
	return &callSim{
		trial:   newTrial(t, testutil.ServerOptions{TickTime: timeout / 8, MinSessionTimeout: timeout, MaxSessionTimeout: timeout}, timeout),
		rng:     rng,
		release: make(chan struct{}),
	}
}

// bound is how long a call may take. Its context ends after two session timeouts
// at most; Close waits up to two for callbacks and two for a server; Session.Close
// waits for its members, for OnConnected functions and for the client.
func (s *callSim) bound() time.Duration { return 12*s.timeout + 10*time.Second }

func (s *callSim) play() {
	var callers sync.WaitGroup
	var processes []*process
	for i := range 1 + s.draw(3) {
		p := s.process(fmt.Sprintf("p%d", i+1))
		processes = append(processes, p)
		a := s.candidate(p)
		for range 1 + s.draw(3) {
			callers.Go(func() {
				c := &caller{s: s, a: a}
				for range 4 + s.draw(12) {
					c.call(context.Background())
					time.Sleep(s.upTo(s.timeout / time.Duration(1+s.draw(20))))
				}
			})
		}
	}
	done := make(chan struct{})
	go func() { defer close(done); callers.Wait() }()
	for disturbed := s.draw(3) > 0; disturbed && !isClosed(done); {
		time.Sleep(s.upTo(3 * s.timeout))
		heal := callFaults[s.draw(len(callFaults))](s, processes[s.draw(len(processes))])
		if heal != nil {
			time.Sleep(s.upTo(s.timeout * 3 / 2))
			heal()
		}
		s.sample()
	}
	<-done
	s.drawing.Lock()
	s.over.Store(true)
	s.drawing.Unlock()
	close(s.release)
	s.note("callbacks that hang return")
	s.calls.Wait()

	// All that is left returns, and leaves nothing.
	for _, a := range *s.actors.Load() {
		s.within("Close in the end", func() { s.close(a) })
	}
	for _, p := range processes {
		s.within("Session.Close in the end", func() { s.closeProcess(p) })
	}
	time.Sleep(s.timeout + 2*s.tick) // what could not be withdrawn
	fresh := s.newActor(s.newProcess("fresh session", 0, 0), "fresh", nil)
	fresh.want(true)
	ctx, cancel := context.WithTimeout(context.Background(), s.timeout+2*time.Second)
	defer cancel()
	if _, err := fresh.Campaign(ctx); err != nil {
		s.violated("nobody can lead any more", "%v", err)
	}
}

func isClosed(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

func (s *callSim) draw(n int) int {
	s.drawing.Lock()
	defer s.drawing.Unlock()
	return s.rng.IntN(n)
}

func (s *callSim) upTo(d time.Duration) time.Duration { return time.Duration(s.draw(int(d) + 1)) }

// wait lasts until ctx ends, or d is over, or the schedule.
func (s *callSim) wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-s.release:
	}
}

func (s *callSim) process(name string) *process {
	if s.draw(3) == 0 {
		return s.newCallersProcess(name, 0, 0)
	}
	return s.newProcess(name, 0, 0)
}

// candidate makes one whose callbacks do as they like; nil on a closed session.
func (s *callSim) candidate(p *process) *actor {
	s.drawing.Lock()
	s.made++
	name := fmt.Sprintf("c%d", s.made)
	s.drawing.Unlock()
	opts := &CandidateOptions{HotStandby: s.draw(4) == 0, Follow: Follow(s.draw(2))}
	if s.draw(2) == 0 {
		opts.StepDownTimeout = s.timeout/8 + s.upTo(2*s.timeout)
	}
	if s.draw(4) == 0 {
		opts.TakeoverTimeout = time.Millisecond + s.upTo(s.timeout)
	}
	if s.draw(3) == 0 {
		opts.Retry = s.upTo(s.timeout) - s.timeout/4
	}
	a := s.newActor(p, name, opts)
	if a == nil {
		return nil
	}
	// Behind the hooks that check: a callback that ends its goroutine may take
	// those behind it along.
	a.OnWin(func(ctx context.Context, _ Term) error { return s.behave(ctx, a) })
	a.OnStepDown(func(ctx context.Context, _ Term, _ error) { _ = s.behave(ctx, a) })
	a.OnLose(func(ctx context.Context, _ Leader) { _ = s.behave(ctx, a) })
	return a
}

// behave is a callback. Without a context of its own it is given one.
func (s *callSim) behave(ctx context.Context, a *actor) error {
	return (&caller{s: s, a: a, inside: true}).behave(ctx)
}

// callback is what a callback does that c registers. (c goes on to another
// candidate meanwhile.)
func (c *caller) callback() func(ctx context.Context) error {
	a := c.a
	return func(ctx context.Context) error { return c.s.behave(ctx, a) }
}

func (c *caller) behave(ctx context.Context) error {
	s := c.s
	if s.over.Load() {
		return nil
	}
	if ctx == nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.Background(), s.upTo(s.timeout))
		defer cancel()
	}
	total := 0
	for _, b := range callBehaviours {
		total += b.weight
	}
	n := s.draw(total)
	for _, b := range callBehaviours {
		if n -= b.weight; n < 0 {
			s.meets(b.name)
			if b.name != "returns" {
				s.note("a callback of %s %s", c.a.name, b.name)
			}
			return b.do(c, ctx)
		}
	}
	return nil
}

// call makes one call, and requires that it ends.
func (c *caller) call(ctx context.Context) {
	s := c.s
	if !s.begin() {
		return
	}
	defer s.calls.Done()
	total := 0
	for _, op := range callOps {
		total += op.weight
	}
	n := s.draw(total)
	i := slices.IndexFunc(callOps, func(op callOp) bool { n -= op.weight; return n < 0 })
	op := callOps[i]
	name := op.name
	if c.inside {
		name = "inside: " + name
	}
	s.meets(name)
	s.note("%s: %s", c.a.name, name)
	ctx, cancel := context.WithTimeout(ctx, s.upTo(2*s.timeout))
	defer cancel()
	s.within(name+" of "+c.a.name, func() { op.do(c, ctx) })
}

// begin counts a call, unless it is over.
func (s *callSim) begin() bool {
	s.drawing.Lock()
	defer s.drawing.Unlock()
	if s.over.Load() {
		return false
	}
	s.calls.Add(1)
	return true
}

// within requires that fn, which calls something, returns within the bound. It
// runs on a goroutine of its own, which the function given to Run may end.
func (s *callSim) within(what string, fn func()) {
	late := time.AfterFunc(s.bound(), func() { s.violated("stuck", "%s has not returned in %v", what, s.bound()) })
	defer late.Stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn()
	}()
	<-done
	s.sample()
}

// close closes a candidate, whoever else does.
func (s *callSim) close(a *actor) {
	a.want(false)
	err := a.Close()
	a.mu.Lock()
	if err == nil {
		a.closed = true
	} else {
		a.broken = true
	}
	a.mu.Unlock()
	if err == nil {
		a.checkGone()
		return
	}
	s.note("%s: Close: %v", a.name, err)
	if !errors.Is(err, ErrCallbackRunning) {
		s.closeProcess(a.p) // its ballot ends with that
	}
}

func (s *callSim) closeProcess(p *process) {
	p.setClosing()
	s.note("%s closes: %v", p.name, p.end())
}

// shutDown closes a session within a time, which may be too short for all of it.
func (s *callSim) shutDown(ctx context.Context, p *process) {
	p.setClosing()
	ctx, cancel := context.WithTimeout(ctx, s.upTo(2*s.timeout))
	defer cancel()
	s.note("%s shuts down: %v", p.name, p.session.Shutdown(ctx))
	s.closeProcess(p)
}

// another makes a second candidate on the session, and goes on with that.
func (c *caller) another(context.Context) {
	if len(*c.s.actors.Load()) > 8 {
		return
	}
	if a := c.s.candidate(c.a.p); a != nil {
		c.a = a
	}
}

// lead is the function given to Run.
func (c *caller) lead(ctx context.Context, _ Term) error {
	return (&caller{s: c.s, a: c.a, inside: true, leads: true}).behave(ctx)
}

func (c *caller) proclaim(ctx context.Context) {
	data := fmt.Sprintf("%s|%d", c.a.name, c.s.draw(1000))
	c.s.mu.Lock()
	c.s.asked[data] = true
	c.s.mu.Unlock()
	_ = c.a.Proclaim(ctx, []byte(data))
}

// cancelLater ends a registration, or leaves it.
func (c *caller) cancelLater(ctx context.Context, cancel func()) {
	switch c.s.draw(3) {
	case 0:
		cancel()
	case 1:
		c.s.wait(ctx, c.s.upTo(c.s.timeout))
		cancel()
	}
}

// observe makes an observer, with callbacks of the same kind, and closes it.
func (c *caller) observe(ctx context.Context) {
	o, err := NewObserver(c.a.p.session, electionName, nil)
	if err != nil {
		return
	}
	behave := c.callback()
	o.OnNewLeader(func(Leader) { _ = behave(nil) })
	o.OnLeaderDeath(func(Leader) { _ = behave(nil) })
	_ = o.Observe(ctx)
	o.LeaderAlive()
	c.s.wait(ctx, c.s.upTo(c.s.timeout))
	if c.s.draw(4) > 0 {
		_ = o.Close()
	}
}

// A call that does not return, callbacks that are not paired, and a ballot that is
// left, are seen by the simulation of calls.
func TestCallsControl(t *testing.T) {
	play := func(t *testing.T, disturb func(s *callSim)) map[string]bool {
		var broken map[string]bool
		synctest.Test(t, func(t *testing.T) {
			s := newCallSim(t, 1)
			s.control = true
			disturb(s)
			s.play()
			s.finish()
			broken = s.broken
		})
		return broken
	}
	assert.Empty(t, play(t, func(*callSim) {}))
	assert.True(t, play(t, func(s *callSim) {
		s.calls.Go(func() { s.within("a call", func() { time.Sleep(2 * s.bound()) }) })
	})["stuck"])
	assert.True(t, play(t, func(s *callSim) {
		a := s.newActor(s.newProcess("control's session", 0, 0), "control", nil)
		a.onStepDown(context.Background(), Term{}, ErrResigned) // as if it had been called without a win
	})["alternation"])
	assert.True(t, play(t, func(s *callSim) {
		a := s.newActor(s.newProcess("control's session", 0, 0), "control", nil)
		a.closed = true
		a.onLose(context.Background(), Leader{})
	})["callback after Close"])
	assert.True(t, play(t, func(s *callSim) {
		// A ballot that nobody serves.
		p := s.newProcess("control's session", 0, 0)
		require.NoError(t, p.session.AwaitConnected(context.Background()))
		c, err := NewCandidate(p.session, electionName, nil)
		require.NoError(t, err)
		require.NoError(t, c.Vote(context.Background()))
	})["nobody can lead any more"])
}
