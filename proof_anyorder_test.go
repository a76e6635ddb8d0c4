package election

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/internal/lease"
)

// A candidate's loop is given whatever can come to it, in any order: what callers
// ask, what errands and callbacks come to, watches, timers, and what becomes of the
// session and its lease. There is no server, and what errands answer need not fit
// together: nothing may panic, what belongs to a phase is there in it and gone
// after it, each caller has one answer, no timer makes the loop spin, and in the end
// the candidate leads, rests or is closed, as it was asked to.

var anyOrder = flag.Int("anyorder.n", 3000, "how many schedules TestLoopInAnyOrder tries")

func TestLoopInAnyOrder(t *testing.T) {
	visited := make(map[string]int)
	for seed := range *anyOrder {
		tryAnyOrder(t, uint64(seed), visited)
	}
	t.Logf("transitions: %v", visited)
	if *anyOrder < 3000 {
		return
	}
	for from, all := range edges {
		for to := range all {
			if phase(from) == leaving && to == moving {
				continue // nobody asks for a transfer here
			}
			edge := fmt.Sprintf("%v to %v", phase(from), to)
			require.NotZero(t, visited[edge], "%s: never tried", edge)
		}
	}
}

// anyOrderLoop is one loop, and what the world around it would know.
type anyOrderLoop struct {
	*candidacy
	t     *testing.T
	rng   *rand.Rand
	trace []func() string
	well  bool // all goes well from here on

	ids       int64
	answer    func(well bool) any // of the errand under way; nil: none is
	callbacks []*anyOrderCallback
	waiters   map[string]chan error
	campaigns []*anyOrderCampaign
	run       *runner
	lead      *leadership // that run has, and has not returned from
}

type anyOrderCampaign struct {
	command *campaignCommand
	reply   chan campaignResult
}

// anyOrderCallback is what the callback goroutine has to call.
type anyOrderCallback struct {
	lead  *leadership
	win   bool
	begun bool
}

func tryAnyOrder(t *testing.T, seed uint64, visited map[string]int) {
	l := newAnyOrderLoop(t, seed)
	defer func() {
		p := recover()
		if p == nil && !t.Failed() {
			return
		}
		for _, line := range l.trace {
			t.Log(line())
		}
		if p != nil {
			t.Fatalf("schedule %d: %v\n%s", seed, p, debug.Stack())
		}
		t.Logf("schedule %d", seed)
	}()
	l.logger = slog.New(logFunc(func(record slog.Record) {
		if record.Message == "election: candidate" {
			var from, to string
			record.Attrs(func(a slog.Attr) bool {
				switch a.Key {
				case "from":
					from = a.Value.String()
				case "to":
					to = a.Value.String()
				}
				return true
			})
			visited[from+" to "+to]++
			l.note("    %s to %s", from, to)
		}
	}))
	l.advanceAll()
	for range 10 + l.rng.IntN(120) {
		if l.phase == ended {
			break
		}
		l.event()
		l.advanceAll()
		l.check()
	}
	l.comeToRest()
}

func newAnyOrderLoop(t *testing.T, seed uint64) *anyOrderLoop {
	s := newSession(time.Minute)
	s.roster.closing = true // nobody watches acknowledgements
	s.helpers.closed = true // and errands are not run
	base, err := newBase(s, electionName, "", slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	l := &anyOrderLoop{t: t, rng: rand.New(rand.NewPCG(seed, 1)), waiters: make(map[string]chan error)}
	c := bareCandidacy(base)
	c.queue.closed = true // callbacks are called from here
	c.metrics = (&Metrics{
		Leading: func(_ string, leads bool) {
			if leads {
				l.callbacks = append(l.callbacks, &anyOrderCallback{lead: c.term.lead, win: true})
				c.queue.running = true
			}
		},
		SteppedDown: func(string, error) {
			if c.onStepDown.none() && len(l.callbacks) == 0 {
				return // nothing is called
			}
			l.callbacks = append(l.callbacks, &anyOrderCallback{lead: c.term.lead})
		},
	}).filled()
	if l.chance(2) {
		c.follow = FollowLeader
	}
	c.hotStandby = l.chance(2)
	if l.chance(2) {
		c.onStepDown.add(func(context.Context, Term, error) {})
	}
	if l.chance(2) {
		c.takeoverTimeout = 90 * time.Second
	}
	if l.chance(4) {
		c.retry = -1
	}
	l.candidacy = c
	return l
}

func (l *anyOrderLoop) chance(of int) bool { return l.rng.IntN(of) == 0 }

func (l *anyOrderLoop) note(format string, args ...any) {
	l.trace = append(l.trace, func() string { return fmt.Sprintf(format, args...) })
}

// --- the loop's own part, with an eye on errands

func (l *anyOrderLoop) advanceAll() {
	for {
		for steps := 0; l.phase != ended; steps++ {
			require.Less(l.t, steps, 50, "the loop goes round and round")
			view := l.session.currentView()
			l.noticeSession(view)
			if l.phase == idle && (!l.term.drains() || l.stuck.Load()) {
				l.replyAll(&l.resigners, nil)
			}
			next := decide(l.situation(view))
			if next == rest {
				break
			}
			l.expect(next)
			busy := l.helper.busy()
			l.take(next, view)
			if !busy && !l.helper.busy() {
				l.answer = nil
			}
		}
		l.settleProclaims()
		l.publish()
		if !l.session.keepLease(l.Candidate, l.needsLease()) {
			return
		}
	}
}

// expect notes what the errand that a step begins may come to.
func (l *anyOrderLoop) expect(next step) {
	own, lead, data := l.own(), (*leadership)(nil), l.data
	if l.term != nil {
		lead = l.term.lead
	}
	inc := l.session.currentView().inc
	switch next {
	case stepCast:
		l.answer = func(well bool) any { return l.castAnswer(inc, well) }
	case stepFindPlace:
		l.answer = func(well bool) any { return l.placeAnswer(own, well) }
	case stepWatchSecond:
		o := secondOrder{own, l.ballot.line.place.second}
		l.answer = func(well bool) any {
			r := secondResult{secondOrder: o, err: l.failure(well), gone: l.chance(3)}
			if !r.gone && r.err == nil {
				r.watch = make(chan zk.Event, 1)
			}
			return r
		}
	case stepRecheck:
		o := recheckOrder{ballot: own, own: true, ack: l.phase == leading, watchAck: l.ballot.ack.watch == nil}
		if l.phase == waiting && l.ballot.line.known {
			o.predecessor, o.list = l.ballot.line.place.predecessor, l.chance(2)
		}
		l.answer = func(well bool) any { return l.recheckAnswer(o, well) }
	case stepMove:
		reason := forWantOfLease
		if l.phase == waiting {
			reason = forPriority
		}
		l.answer = func(well bool) any {
			r := l.moveAnswer(own, well)
			if r.reason = reason; reason == forPriority && r.alone {
				r.alone, r.refused, r.sent = false, true, true
			}
			return r
		}
	case stepAcknowledge:
		l.answer = func(well bool) any {
			err := l.failure(well, errBallotGone)
			return ackDone{lead, data, l.rng.Int64N(3), l.rng.Int32N(3), err}
		}
	case stepProclaim:
		o := proclaimOrder{lead: lead, data: data}
		if len(l.proclaims) > 0 {
			o.command, o.data = l.proclaims[0], l.proclaims[0].data
		}
		l.answer = func(well bool) any {
			err := l.failure(well, errBallotGone, zk.ErrNoNode)
			return proclaimDone{o, o.command != nil && (err == nil || l.chance(2)), l.rng.Int32N(3), err}
		}
	case stepAskCause:
		l.answer = func(bool) any { return causeAsked{lead, l.failure(l.chance(2))} }
	case stepDelete:
		l.answer = func(well bool) any { return withdrawDone{l.failure(well)} }
	case rest, stepEnd, stepRefused, stepClaim, stepReachFront, stepWithdraw, stepContend, stepIdle,
		stepSayReady, stepPass, stepRemoveRequest: // these are for transfers
	}
}

func (l *anyOrderLoop) failure(well bool, more ...error) error {
	all := append([]error{nil, nil, errUncertain, zk.ErrNoAuth, zk.ErrConnectionClosed}, more...)
	if well {
		return nil
	}
	return all[l.rng.IntN(len(all))]
}

func (l *anyOrderLoop) newBallot(inc *incarnation) *ballot {
	l.ids++
	name := fmt.Sprintf("ballot-%016x-j-%010d", l.ids, l.ids)
	return &ballot{path: l.path + "/" + name, name: name, sequence: l.ids, token: l.ids, inc: inc}
}

func (l *anyOrderLoop) place(well bool) standing {
	ahead := l.rng.IntN(4)
	if well || ahead == 0 {
		return standing{}
	}
	place := standing{ahead: ahead, predecessor: fmt.Sprintf("ballot-p-%010d", l.rng.IntN(4)), front: "ballot-p-0000000000"}
	if ahead > 1 {
		place.second = fmt.Sprintf("ballot-s-%010d", l.rng.IntN(4))
	}
	return place
}

func (l *anyOrderLoop) castAnswer(inc *incarnation, well bool) castResult {
	if err := l.failure(well); err != nil || inc == nil {
		r := castResult{err: err, uncertain: l.chance(2)}
		if err == nil {
			r.err = errUncertain
		}
		if r.uncertain && l.chance(2) {
			r.name = "ballot-left"
		}
		return r
	}
	c := confirmed{ballot: l.newBallot(inc), watch: make(chan zk.Event, 1), place: l.place(l.well)}
	if c.place.ahead > 0 && l.chance(2) {
		c.ahead = make(chan zk.Event, 1)
	}
	return castResult{confirmed: c}
}

func (l *anyOrderLoop) placeAnswer(own *ballot, well bool) placeResult {
	r := placeResult{ballot: own}
	switch r.err = l.failure(well); {
	case r.err != nil:
	case !well && l.chance(6):
		r.gone = true
	default:
		if r.place = l.place(l.well); r.place.ahead > 0 {
			r.watch = make(chan zk.Event, 1)
		}
	}
	return r
}

func (l *anyOrderLoop) recheckAnswer(o recheckOrder, well bool) recheckResult {
	r := recheckResult{recheckOrder: o, err: l.failure(well)}
	if r.err != nil {
		return r
	}
	r.ownGone = !well && l.chance(5)
	r.predecessorGone = o.predecessor != "" && (well || l.chance(3))
	if r.place = l.place(false); o.predecessor != "" {
		r.place.ahead, r.place.predecessor, r.place.front = max(1, r.place.ahead), o.predecessor, "ballot-p-0000000000"
	}
	if o.ack && (well || !l.chance(4)) {
		r.ackStat = &zk.Stat{EphemeralOwner: o.ballot.inc.id, Czxid: l.rng.Int64N(3)}
		if o.watchAck {
			r.ackWatch = make(chan zk.Event, 1)
		}
	}
	return r
}

func (l *anyOrderLoop) moveAnswer(own *ballot, well bool) moveResult {
	switch n := l.rng.IntN(7); {
	case well, n == 0:
		return moveResult{alone: true}
	case n == 1:
		return moveResult{err: l.failure(false, errUncertain)}
	case n == 2:
		return moveResult{gone: true, sent: l.chance(2)}
	case n == 3:
		return moveResult{sent: true, ballot: own, watch: make(chan zk.Event, 1), err: zk.ErrNoAuth}
	case n == 4:
		return moveResult{sent: true, err: errUncertain}
	default:
		return moveResult{sent: true, ballot: l.newBallot(own.inc), watch: make(chan zk.Event, 1), place: l.place(l.well)}
	}
}

// --- what comes

func (l *anyOrderLoop) event() {
	switch n := l.rng.IntN(20); {
	case n < 7:
		for range 1 + l.rng.IntN(3) {
			l.message()
		}
		l.now = l.now.Add(time.Duration(l.rng.Int64N(int64(time.Second))))
		l.handleAll()
	case n < 10:
		l.session1()
	case n < 12 && l.phase == claiming && l.chance(2):
		l.note("the lease has lapsed too often")
		l.ballot.demotion.flaps = true
	case n < 12 && l.phase == waiting && l.chance(2):
		l.note("a better one stands behind")
		l.ballot.rank.givesWay = true
	case n < 12:
		l.leaseEvent()
	case n < 14:
		l.watchEvent()
	case n < 15 && l.phase.leads() && l.term.lead.ctx.Err() != nil:
		l.note("the leader's context has ended")
		l.leave(context.Cause(l.term.lead.ctx))
	case n < 18:
		l.passTime()
	default:
		l.oneAnswer(!l.chance(3))
	}
}

// passTime waits until a timer is due, or for less.
func (l *anyOrderLoop) passTime() {
	next := l.nextTimer()
	if l.chance(3) {
		l.now = l.now.Add(max(0, next.Sub(l.now)) / 2)
		return
	}
	if next.After(l.now) {
		l.now = next
	}
	l.note("time: %v", l.now)
	l.fireTimers()
	l.advanceAll()
	if l.phase != ended {
		require.True(l.t, l.nextTimer().After(l.now), "a timer that is due does nothing")
	}
}

func (l *anyOrderLoop) message() {
	name := fmt.Sprintf("%d", len(l.trace))
	reply := func(what string) chan error {
		ch := make(chan error, 4)
		l.waiters[what+" "+name] = ch
		return ch
	}
	switch n := l.rng.IntN(24); {
	case n < 4:
		l.note("Vote")
		l.inbox.push(voteCommand{reply("Vote")})
	case n < 6:
		l.note("Campaign")
		ch := make(chan campaignResult, 4)
		m := &campaignCommand{reply: ch}
		l.campaigns = append(l.campaigns, &anyOrderCampaign{m, ch})
		l.inbox.push(m)
	case n < 7 && len(l.campaigns) > 0:
		l.note("a Campaign is given up")
		i := l.rng.IntN(len(l.campaigns))
		l.inbox.push(abandonCommand{l.campaigns[i].command, make(chan struct{})})
		l.campaigns = append(l.campaigns[:i:i], l.campaigns[i+1:]...)
	case n < 8:
		l.note("Resign")
		l.inbox.push(resignCommand{ErrResigned, reply("Resign"), make(chan struct{})})
	case n < 9 && l.chance(4):
		l.note("Close")
		l.inbox.push(resignCommand{ErrClosed, reply("Close"), make(chan struct{})})
	case n < 9 && l.chance(4), (l.phase == moving || l.phase == waiting) && l.chance(20):
		l.note("the time to shut down is over")
		l.inbox.push(hurryCommand{make(chan struct{})})
	case n < 11:
		l.note("Proclaim")
		l.inbox.push(&proclaimCommand{[]byte(name), reply("Proclaim")})
	case n < 12 && l.run == nil:
		l.note("Run")
		l.run = &runner{terms: make(chan *leadership, 1), ended: make(chan error, 1)}
		l.inbox.push(runCommand{l.run, reply("Run")})
	case n < 13 && l.run != nil:
		l.note("Run ends")
		l.inbox.push(unrunCommand{l.run})
		l.inbox.push(resignCommand{ErrResigned, reply("Run's end"), make(chan struct{})})
		l.run, l.lead = nil, nil
	case n < 15 && l.phase == casting && l.helper.busy() && l.chance(2):
		place := l.place(false)
		l.note("the ballot's creation is answered: %+v", place)
		l.inbox.push(castPlaced{place})
	case n < 15:
		l.pushLeaderSeen()
	default:
		l.pushAnswer(!l.chance(3))
	}
}

func (l *anyOrderLoop) pushLeaderSeen() {
	if l.phase != waiting && l.phase != casting || l.ballot.losing == nil || l.ballot.losing.sub == nil {
		return
	}
	view := ackView{}
	if !l.chance(4) {
		view.leader = &node{stat: zk.Stat{Czxid: 1 + l.rng.Int64N(3)}}
	}
	l.note("a leader is seen, or none")
	l.inbox.push(leaderSeen{l.ballot.losing.sub, view})
}

func (l *anyOrderLoop) oneAnswer(well bool) bool {
	if !l.pushAnswer(well) {
		return false
	}
	l.handleAll()
	return true
}

// pushAnswer brings the end of an errand or a callback.
func (l *anyOrderLoop) pushAnswer(well bool) bool {
	if l.run != nil && l.lead == nil {
		select {
		case l.lead = <-l.run.terms:
		default:
		}
	}
	for _, n := range l.rng.Perm(3) {
		switch {
		case n == 0 && l.answer != nil && l.helper.busy():
			answer := l.answer(well)
			l.answer = nil
			l.note("%T %+v", answer, answer)
			l.inbox.push(answer)
			return true
		case n == 1 && len(l.callbacks) > 0:
			l.callback(well)
			return true
		case n == 2 && l.lead != nil:
			l.note("Run's function returns")
			l.inbox.push(runDone{l.run, l.lead})
			l.lead = nil
			return true
		}
	}
	return false
}

// callback goes on with the callback that is the next.
func (l *anyOrderLoop) callback(well bool) {
	cb := l.callbacks[0]
	switch {
	case !cb.win:
		l.note("OnStepDown has returned")
		l.inbox.push(stepDownDone{cb.lead})
	case !cb.begun && cb.lead.lease.Valid() && cb.lead.ctx.Err() == nil && cb.lead.win.CompareAndSwap(winAwaited, winCalled):
		l.note("OnWin is called")
		cb.begun = true
		l.inbox.push(winBegun{cb.lead, l.now})
		return
	default:
		l.note("OnWin has returned")
		var err error
		if !cb.begun || !well {
			err = errors.New("no")
		}
		l.inbox.push(winDone{cb.lead, err})
	}
	l.callbacks = l.callbacks[1:]
	l.queue.running = len(l.callbacks) > 0
}

// session1 changes what the Session has.
func (l *anyOrderLoop) session1() {
	s := l.session
	view := s.currentView()
	switch n := l.rng.IntN(6); {
	case view.inc == nil, n == 0:
		l.endSession(&view)
		if n > 0 || l.chance(2) {
			l.beginSession(&view)
		}
	case n < 3:
		view.connected = !view.connected
	case n < 4:
		view.reconnects++
	case view.err != nil:
		view.err = nil
	default:
		view.err = zk.ErrAuthFailed
	}
	l.note("session: %v connected %v, %d, %v", view.inc != nil, view.connected, view.reconnects, view.err)
	l.show(view)
}

func (l *anyOrderLoop) show(view sessionView) {
	l.session.roster.mu.Lock()
	defer l.session.roster.mu.Unlock()
	l.session.roster.publish(view)
}

func (l *anyOrderLoop) endSession(view *sessionView) {
	if view.inc == nil {
		return
	}
	if held := view.inc.lease.Load(); held != nil {
		held.Revoke(ErrSessionLost)
	}
	view.inc.cancel(ErrSessionLost)
	view.inc, view.connected = nil, false
}

func (l *anyOrderLoop) beginSession(view *sessionView) {
	l.ids++
	// There is no client, and so the present session's id is 0.
	inc := &incarnation{id: l.ids * l.rng.Int64N(2)}
	inc.ctx, inc.cancel = context.WithCancelCause(context.Background())
	*view = sessionView{inc: inc, connected: true, reconnects: view.reconnects + 1}
}

func (l *anyOrderLoop) leaseEvent() {
	inc := l.session.currentView().inc
	if inc == nil {
		return
	}
	held := inc.lease.Load()
	if held != nil && held.Valid() && !l.chance(3) {
		l.note("the lease lapses")
		held.Revoke(ErrLeaseLapsed)
		return
	}
	if !l.chance(3) {
		return
	}
	l.note("a lease")
	if held == nil || !held.Valid() {
		inc.lease.Store(lease.New(l.session.clock, l.session.rule(), l.session.clock.Now()+24*time.Hour))
	}
}

func (l *anyOrderLoop) watchEvent() {
	if l.ballot == nil {
		return
	}
	event := zk.Event{Type: zk.EventNodeDeleted}
	if l.chance(3) {
		event = zk.Event{Type: zk.EventNotWatching, Err: zk.ErrSessionExpired}
	}
	switch n := l.rng.IntN(4); {
	case n == 0 && l.ballot.watch != nil:
		l.note("own ballot: %v", event.Type)
		l.ownChanged(event)
	case n == 1 && l.ballot.line.watch != nil:
		l.note("predecessor: %v", event.Type)
		l.predecessorChanged(event)
	case n == 2 && l.ballot.ack.watch != nil:
		l.note("acknowledgement: %v", event.Type)
		l.ballot.ack.watch, l.ballot.recheck.all = nil, true
	case n == 3 && l.ballot.line.second != nil && l.phase != moving:
		l.note("second in front: %v", event.Type)
		l.secondChanged(event)
	}
}

// --- what must hold

func (l *anyOrderLoop) check() {
	t, c := l.t, l.candidacy
	is := func(all ...phase) bool {
		for _, p := range all {
			if c.phase == p {
				return true
			}
		}
		return false
	}
	require.Equal(t, c.phase.leads(), c.leader.Load() != nil, "%v: the leader that is published", c.phase)
	if is(waiting, claiming, moving) || c.phase.leads() {
		require.NotNil(t, c.own(), "%v", c.phase)
	}
	if is(waiting, claiming, moving, casting) {
		require.Nil(t, c.term, "%v", c.phase)
	}
	if is(leaving) || c.phase.leads() {
		require.NotNil(t, c.term, "%v", c.phase)
		require.False(t, c.term.over, "%v", c.phase)
	}
	if is(claiming) || c.phase.leads() {
		require.True(t, c.ballot.line.first(), "%v", c.phase)
	}
	if is(waiting) && c.ballot.line.known {
		n := &c.ballot.line
		require.Equal(t, n.place.ahead > 0, n.place.predecessor != "", "%+v", n)
		require.Equal(t, n.place.ahead > 1, n.place.second != "", "%+v", n)
	}
	if c.ballot != nil && c.ballot.line.second != nil {
		require.True(t, c.hotStandby && c.ballot.line.known && c.ballot.line.place.second != "", "%+v", c.ballot.line)
	}
	if is(idle) {
		require.Nil(t, c.ballot)
		require.Nil(t, c.live.Load())
		require.True(t, c.term == nil || c.term.over && c.term.drains())
	}
	if is(casting) {
		require.Nil(t, c.own())
	}
	if is(casting) {
		require.True(t, c.ballot.losing == nil || c.ballot.losing.told == 0, "told of a leader before the ballot is confirmed")
	}
	if !is(moving, casting) { // one that waits and moves goes on, one whose place is known has begun
		require.Equal(t, is(waiting), c.ballot != nil && c.ballot.losing != nil, "%v: losing", c.phase)
	}
	require.True(t, !c.stuck.Load() || c.term.drains() || is(ended), "%v: stuck on nothing", c.phase)
	require.True(t, !c.term.drains() || len(l.callbacks) > 0 || c.term.running || c.term.causePending || is(ended), "%v: it waits for nothing", c.phase)
	if is(ended) {
		return // what has come behind the end is not taken
	}
	require.Equal(t, c.helper.busy(), l.answer != nil, "%v: errand", c.phase)
	for who, reply := range l.waiters {
		require.LessOrEqual(t, len(reply), 1, "%s has more than one answer", who)
	}
	waiting := make(map[chan error]bool)
	for _, all := range [][]chan error{c.voters, c.resigners} {
		for _, reply := range all {
			waiting[reply] = true
		}
	}
	for _, m := range c.proclaims {
		waiting[m.reply] = true
	}
	lost := 0
	for who, reply := range l.waiters {
		if len(reply) == 0 && !waiting[reply] {
			lost++
			// A Proclaim may be under way.
			require.True(t, strings.HasPrefix(who, "Proclaim") && c.helper.busy() && lost == 1, "%s is forgotten", who)
		}
		require.False(t, len(reply) > 0 && waiting[reply], "%s has an answer and waits for another", who)
	}
	for _, m := range l.campaigns {
		require.LessOrEqual(t, len(m.reply), 1, "a Campaign has more than one answer")
		waits := false
		for _, other := range c.campaigns {
			waits = waits || other == m.command
		}
		require.NotEqual(t, waits, len(m.reply) == 1, "a Campaign: waits %v, answers %d", waits, len(m.reply))
	}
}

// comeToRest lets all go well from here on: the candidate gets where callers want it.
func (l *anyOrderLoop) comeToRest() {
	if l.chance(2) && l.phase != ended {
		l.note("Close")
		l.inbox.push(resignCommand{cause: ErrClosed})
		l.handleAll()
	}
	l.well = true
	for round := 0; l.phase != ended; round++ {
		view := l.session.currentView()
		if view.inc == nil {
			l.beginSession(&view)
		}
		view.connected, view.err = true, nil
		l.show(view)
		if held := view.inc.lease.Load(); held == nil || !held.Valid() {
			view.inc.lease.Store(lease.New(l.session.clock, l.session.rule(), l.session.clock.Now()+24*time.Hour))
		}
		l.advanceAll()
		l.check()
		if l.phase == ended {
			break
		}
		if l.phase.leads() && l.term.lead.ctx.Err() != nil {
			l.leave(context.Cause(l.term.lead.ctx))
			continue
		}
		if !l.closing && !l.helper.busy() && len(l.callbacks) == 0 && l.lead == nil && (l.phase == leading || l.phase == idle && !l.want) {
			break
		}
		require.Less(l.t, round, 200, "it does not come to rest: %v", l.phase)
		if !l.oneAnswer(true) {
			l.passTime()
		}
	}
	if l.phase == ended {
		l.finish()
		return
	}
	l.note("at rest in %v", l.phase)
	require.Empty(l.t, l.voters)
	require.Empty(l.t, l.callers.campaigns)
	require.Empty(l.t, l.resigners)
}
