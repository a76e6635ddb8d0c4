package election

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"
)

// The cast of a trial: processes, each with a session and a network of its own,
// candidates and observers that check what they are told as they are told it.

// process is one simulated process: a session behind a gate.
type process struct {
	w       *trial
	name    string
	session *Session
	gate    *gate
	farness farness
	caller  *callersConn // what the session is on; nil when it owns its connection
	actors  atomic.Pointer[[]*actor]
	asking  atomic.Int64 // calls of Transfer that may have a request
	closing bool         // guarded by trial.mu
}

// roundRobin gives out the servers in order, so that a seed chooses them.
type roundRobin struct {
	hosts
	offset int
}

func (r *roundRobin) Init(servers []string) error {
	if err := r.hosts.Init(servers); err != nil {
		return err
	}
	// The client has shuffled them by a seed of its own.
	inOrder := slices.Sorted(slices.Values(servers))
	for i := range inOrder {
		r.servers[i] = inOrder[(i+r.offset)%len(inOrder)]
	}
	return nil
}

// behindGate returns a process that is not connected yet.
func (w *trial) behindGate(name string) *process {
	p := &process{w: w, name: name}
	dial := w.srv.Dialer()
	if w.far {
		dial = Far(dial, p.farness.delay)
	}
	p.gate = newGate(dial)
	return p
}

// farness is how long answers take at most, if that is not nothing, and half of that at least.
type farness struct {
	most atomic.Int64
	turn atomic.Uint64
}

func (f *farness) delay() time.Duration {
	most := f.most.Load()
	if most == 0 {
		return 0
	}
	// Sixteenths of the half that differ, in an order that looks like none.
	return time.Duration(most/2 + most/32*int64(f.turn.Add(1)*7%16))
}

// newProcess connects. tick is SessionOptions.TickTime; member is the server
// that it tries first.
func (w *trial) newProcess(name string, tick time.Duration, member int) *process {
	p := w.behindGate(name)
	p.actors.Store(new([]*actor))
	s, err := Connect(w.srv.Servers(), w.timeout, &SessionOptions{
		Dialer: p.gate.Dial, TickTime: tick, HostProvider: p.provider(member),
		Logger: w.logger.With("as", name), Metrics: &Metrics{LeaseRenewed: p.leaseRenewed},
	})
	require.NoError(w.t, err)
	p.session = s
	w.mu.Lock()
	defer w.mu.Unlock()
	w.processes = append(w.processes, p)
	return p
}

// newCallersProcess is newProcess with a Session on a caller's connection.
func (w *trial) newCallersProcess(name string, tick time.Duration, member int) *process {
	p := w.behindGate(name)
	p.actors.Store(new([]*actor))
	caller, err := newCallersConn(w.srv.Servers(), w.timeout, p.gate.Dial, p.provider(member))
	require.NoError(w.t, err)
	p.caller = caller
	s, err := NewSession(caller.Conn, w.timeout, &SessionOptions{
		TickTime: tick, Logger: w.logger.With("as", name), Metrics: &Metrics{LeaseRenewed: p.leaseRenewed},
	})
	require.NoError(w.t, err)
	p.session = s
	w.mu.Lock()
	defer w.mu.Unlock()
	w.processes = append(w.processes, p)
	return p
}

// end closes the session, and the connection that it is on.
func (p *process) end() error {
	err := p.session.Close()
	if p.caller != nil {
		p.caller.close()
	}
	return err
}

func (p *process) provider(member int) *roundRobin {
	if len(p.w.srv.Servers()) == 1 {
		member = 0
	}
	return &roundRobin{offset: member}
}

// leaseRenewed checks the lease at each renewal.
func (p *process) leaseRenewed(time.Duration) {
	p.w.sample()
	for _, a := range *p.actors.Load() {
		p.w.checkLease(a)
	}
}

// actor is a candidate that checks its callbacks.
type actor struct {
	*Candidate
	w    *trial
	p    *process
	name string // its data begins with it

	// What the test adds to the callbacks; set before the first vote.
	win      func(ctx context.Context) error
	stepDown func(ctx context.Context)

	mu        sync.Mutex
	wanted    bool
	closed    bool // Close has returned nil
	broken    bool // Close has given up
	inside    string
	won       *Term // between OnWin and OnStepDown
	winCtx    context.Context
	failing   bool // the last OnWin has returned an error
	wins      int
	stepDowns int
	leads     int             // calls of Run's function under way
	lostTo    int64           // Leader.Zxid that OnLose was last told
	led       map[string]bool // ballots that OnWin was called for
}

// leading is told by the candidate's Metrics.
func (a *actor) leading(_ string, leads bool) {
	if leads {
		a.w.claimed(a)
	} else {
		a.w.sample()
	}
}

// newActor makes a candidate; opts may be nil. Its data is its name. It is nil
// when the process has ended meanwhile.
func (w *trial) newActor(p *process, name string, opts *CandidateOptions) *actor {
	if opts == nil {
		opts = &CandidateOptions{}
	}
	a := &actor{w: w, p: p, name: name}
	o := *opts
	o.Data, o.Metrics, o.Logger = []byte(name), &Metrics{Leading: a.leading}, w.logger.With("as", name)
	c, err := NewCandidate(p.session, electionName, &o)
	if errors.Is(err, ErrClosed) && p.isClosing() {
		return nil
	}
	require.NoError(w.t, err)
	a.Candidate = c
	c.OnWin(a.onWin)
	c.OnStepDown(a.onStepDown)
	c.OnLose(a.onLose)
	c.OnTakeoverError(a.onTakeoverError)
	for _, list := range []*atomic.Pointer[[]*actor]{&w.actors, &p.actors} {
		for added := false; !added; { // others may be made at the same time
			before := list.Load()
			all := append(slices.Clip(*before), a)
			added = list.CompareAndSwap(before, &all)
		}
	}
	return a
}

// enter begins a callback: no other runs, and none after Close.
func (a *actor) enter(what string) (leave func()) {
	a.w.sample()
	a.mu.Lock()
	other, closed := a.inside, a.closed
	a.inside = what
	a.mu.Unlock()
	if other != "" {
		a.w.violated("callbacks at one time", "%s: %s within %s", a.name, what, other)
	}
	if closed {
		a.w.violated("callback after Close", "%s: %s", a.name, what)
	}
	return func() {
		a.mu.Lock()
		a.inside = ""
		a.mu.Unlock()
		a.w.sample()
	}
}

func (a *actor) onWin(ctx context.Context, term Term) error {
	defer a.enter("OnWin")()
	a.w.note("%s: OnWin %x", a.name, term.Token)
	a.mu.Lock()
	twice := a.won != nil
	a.won, a.winCtx = &term, ctx
	a.wins++
	if a.led == nil {
		a.led = make(map[string]bool)
	}
	a.led[term.Ballot] = true
	a.mu.Unlock()
	if twice {
		a.w.violated("alternation", "%s won twice without a step-down", a.name)
	}
	if a.win == nil {
		return nil
	}
	err := a.win(ctx)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failing = err != nil
	return err
}

func (a *actor) onStepDown(ctx context.Context, term Term, cause error) {
	defer a.enter("OnStepDown")()
	a.w.note("%s: OnStepDown %x: %v", a.name, term.Token, cause)
	a.mu.Lock()
	won, winCtx := a.won, a.winCtx
	a.won = nil
	a.stepDowns++
	a.mu.Unlock()
	a.w.mu.Lock()
	a.w.stepDowns++
	a.w.mu.Unlock()
	switch {
	case won == nil:
		a.w.violated("alternation", "%s stepped down without a win", a.name)
		return
	case *won != term:
		a.w.violated("alternation", "%s stepped down from %v, had won %v", a.name, term, *won)
	case winCtx.Err() == nil:
		a.w.violated("leader's context", "%s steps down and its context is live", a.name)
	case a.IsLeader():
		a.w.violated("leads while stepping down", "%s", a.name)
	case !knownCause(cause):
		a.w.violated("cause", "%s: %v", a.name, cause)
	}
	if a.stepDown != nil {
		a.stepDown(ctx)
	}
}

func knownCause(err error) bool {
	for _, cause := range []error{ErrResigned, ErrClosed, ErrLeaseLapsed, ErrSessionLost, ErrBallotDeleted, ErrTakeoverFailed, ErrTransferred} {
		if errors.Is(err, cause) {
			return true
		}
	}
	return false
}

func (a *actor) onTakeoverError(_ Term, err error) {
	defer a.enter("OnTakeoverError")()
	if errors.Is(err, ErrCallbackRunning) {
		return // OnWin could not be called; it votes again by itself
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.wanted = false // it stays out
	if a.won == nil {
		a.w.violated("alternation", "%s failed to take over without a win", a.name)
	}
}

// onLose: nobody is told of a leader that has not acknowledged, nor of one
// before the last.
func (a *actor) onLose(_ context.Context, leader Leader) {
	defer a.enter("OnLose")()
	a.w.mu.Lock()
	asked := a.w.asked[string(leader.Data)]
	a.w.mu.Unlock()
	a.mu.Lock()
	last, leads := a.lostTo, a.won != nil
	a.lostTo = leader.Zxid
	a.mu.Unlock()
	switch {
	case leads:
		a.w.violated("alternation", "%s lost before it had stepped down", a.name)
	case !asked:
		a.w.violated("acknowledgement", "%s lost to %q, who never acknowledged", a.name, leader.Data)
	case leader.Zxid < last:
		a.w.violated("leaders out of order", "%s lost to %x after %x", a.name, leader.Zxid, last)
	}
}

// stands reports whether this candidate is to lead when its turn comes.
func (a *actor) stands() bool {
	gone := a.p.isClosing()
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.wanted && !a.closed && !gone
}

// steppedDown is how often OnStepDown has been called.
func (a *actor) steppedDown() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stepDowns
}

// vote casts a ballot, and waits for at most limit.
func (a *actor) vote(limit time.Duration) error {
	a.want(true)
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return a.Vote(ctx)
}

func (a *actor) want(wanted bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.wanted = wanted
}

// resign withdraws, and waits for at most limit.
func (a *actor) resign(limit time.Duration) error {
	a.want(false)
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return a.Resign(ctx)
}

// transfer asks for leadership to be passed to another one. One that reports success
// has its target leading; one that reports that it is taken back has been.
func (a *actor) transfer(ctx context.Context, to *actor) error {
	path := to.VotePath()
	if path == "" {
		return ErrTransferTargetGone
	}
	a.p.asking.Add(1)
	err := a.Transfer(ctx, Ballot{Path: path})
	to.mu.Lock()
	led := to.led[path]
	to.mu.Unlock()
	gone := true // its request is not there any more
	switch {
	case err == nil && !led && !a.w.isMistakable(path):
		a.w.violated("transfer", "%s was told that %s leads with %s, which it never has", a.name, to.name, path)
	case err == nil:
		a.w.meets("transfer")
	case errors.Is(err, ErrTransferBlocked) && !strings.Contains(err.Error(), "may still happen") && !strings.Contains(err.Error(), "no server"):
		a.w.meets("transfer blocked")
		s, _ := a.w.look()
		if a.p.asking.Load() > 1 {
			break // a request that stands could be that of another call on the same session
		}
		a.w.meets("transfer taken back")
		if s.request != 0 && s.request == a.p.session.ID() {
			a.w.violated("transfer", "%s was told %q, and the request stands", a.name, err)
		}
	case errors.Is(err, ErrTransferTargetGone):
		a.w.meets("transfer's target gone")
	case errors.Is(err, ErrTransferUnderWay):
		a.w.meets("another transfer under way")
	default:
		a.w.meets("transfer ended")
		gone = false
	}
	if gone {
		a.p.asking.Add(-1)
	}
	return err
}

// standWhile is StandWhile for a time, with a replica that lags now and then.
func (a *actor) standWhile(ctx context.Context, every time.Duration, lags func() bool) error {
	a.want(false)
	return a.StandWhile(ctx, func(context.Context) error {
		if lags() {
			a.w.meets("not ready")
			return errors.New("the replica lags")
		}
		return nil
	}, every)
}

// run is Run with a function that goes on for linger after its context has
// ended.
func (a *actor) run(ctx context.Context, linger time.Duration) error {
	a.want(true)
	defer a.want(false)
	return a.Run(ctx, func(ctx context.Context, _ Term) error {
		a.mu.Lock()
		a.leads++
		n := a.leads
		a.mu.Unlock()
		if n > 1 {
			a.w.violated("two leads of Run", "%s", a.name)
		}
		<-ctx.Done()
		time.Sleep(linger)
		a.mu.Lock()
		a.leads--
		a.mu.Unlock()
		return nil
	})
}

// close closes the candidate. In calm, with the servers there, it must succeed,
// and leave nothing.
func (a *actor) close(calm bool) {
	a.w.closing.Add(1)
	defer a.w.closing.Add(-1)
	a.want(false)
	err := a.Close()
	if err == nil {
		a.mu.Lock()
		a.closed = true
		a.mu.Unlock()
		a.checkGone()
		return
	}
	a.w.note("%s: Close: %v", a.name, err)
	if calm {
		if !a.p.isClosing() { // else it is what the first Close came to
			a.w.violated("close", "%s: %v", a.name, err)
		}
		return
	}
	a.mu.Lock()
	a.broken = true
	a.mu.Unlock()
	// The ballot ends with the session, and so that has to end.
	a.p.setClosing()
	_ = a.p.end()
}

func (a *actor) gaveUp() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.broken
}

// checkGone: after Close there is no ballot. One of a session that this process
// has given up ends with that session.
func (a *actor) checkGone() {
	s, _ := a.w.look()
	id := a.p.session.ID()
	for _, b := range s.ballots {
		a.w.mu.Lock()
		owner := a.w.tags[b.tag]
		a.w.mu.Unlock()
		if owner == a && b.session == id {
			a.w.violated("orphan", "%s has closed and %s stands", a.name, b.path)
		}
	}
}

// ended: every win has had its step-down.
func (a *actor) ended() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.won != nil || a.wins != a.stepDowns {
		a.w.violated("alternation", "%s: %d wins, %d step-downs at the end", a.name, a.wins, a.stepDowns)
	}
	if a.IsLeader() {
		a.w.violated("leads after Close", "%s", a.name)
	}
}

// witness is an observer that checks what it is told.
type witness struct {
	*Observer
	w    *trial
	p    *process
	name string

	// Guarded by trial.mu.
	current *Leader
	told    bool
	last    int64
}

func (w *trial) newWitness(p *process, name string) *witness {
	o, err := NewObserver(p.session, electionName, &ObserverOptions{Logger: w.logger.With("as", name)})
	require.NoError(w.t, err)
	v := &witness{Observer: o, w: w, p: p, name: name}
	o.OnNewLeader(v.onNewLeader)
	o.OnLeaderDeath(v.onLeaderDeath)
	o.OnLeaderData(v.onLeaderData)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.witnesses = append(w.witnesses, v)
	return v
}

// watch begins to observe.
func (v *witness) watch(limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return v.Observe(ctx)
}

func (v *witness) change(what func() (kind string)) {
	v.w.mu.Lock()
	kind := what()
	v.told = true
	v.w.mu.Unlock()
	if kind != "" {
		v.w.violated(kind, "%s", v.name)
	}
}

func (v *witness) onNewLeader(l Leader) {
	v.change(func() string {
		former, last, asked := v.current, v.last, v.w.asked[string(l.Data)]
		v.current, v.last = &l, l.Zxid
		switch {
		case former != nil:
			return "observer: two leaders without a death"
		case l.Zxid <= last:
			return "observer: a leader of the past"
		case !asked:
			return "observer: a leader that never acknowledged"
		}
		return ""
	})
}

func (v *witness) onLeaderDeath(l Leader) {
	v.change(func() string {
		former, told := v.current, v.told
		v.current = nil
		switch {
		case former == nil && told, former == nil && l.Zxid != 0:
			return "observer: a death without a leader"
		case former != nil && former.Zxid != l.Zxid:
			return "observer: the death of another"
		}
		return ""
	})
}

func (v *witness) onLeaderData(l Leader) {
	v.change(func() string {
		former := v.current
		v.current = &l
		if former == nil || former.Zxid != l.Zxid {
			return "observer: data of another leader"
		}
		return ""
	})
}

// dataOf is the name that an actor's data begins with.
func dataOf(data []byte) string {
	name, _, _ := strings.Cut(string(data), "|")
	return name
}
