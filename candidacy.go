package election

import (
	"context"
	"fmt"
	"time"

	"github.com/go-zookeeper/zk"
)

// candidacy is the life of a candidate, from NewCandidate to Close: its loop,
// and the state that only the loop's goroutine touches. Within it live one ballot
// after another, and in the time of a ballot one term after another.
//
// Whatever asks ZooKeeper is an errand, on a helper goroutine, one at a time; what
// an errand or a callback came to arrives as a message, and is dropped when the
// ballot or the term that it was about is no more. Readers see what the loop
// publishes in Candidate.
type candidacy struct {
	*Candidate
	stance
	callers
	nextBallot

	phase phase     // changed by setPhase alone
	now   time.Time // when the present turn of the loop began: the time for all that is done in it

	ballot    *ballotState // from casting until it is gone, or lost
	term      *termState   // from winning until its last callback has returned
	transfers transfers

	seen    seenSession
	helper  helper
	failure failure
	retreat retreat
}

// seenSession is what the loop has seen of the Session, and has told it.
type seenSession struct {
	inc        *incarnation
	reconnects uint64 // of the Session: each is a reason to look at everything again
	keepsLease bool   // it has been told that the candidate needs the lease
}

// notice takes the present view. It reports whether there is another ZooKeeper session, and whether there has been
// another connection.
func (s *seenSession) notice(view sessionView) (another, reconnected bool) {
	another, reconnected = view.inc != s.inc, view.reconnects != s.reconnects
	s.inc, s.reconnects = view.inc, view.reconnects
	return another, reconnected
}

// helper is the goroutine that runs the candidate's errands.
type helper struct {
	cancel context.CancelCauseFunc
	over   chan struct{} // closed when it has returned; nil while it has no errand
	// heldBack is, for steps that have failed, until when they are not tried again. One that is refused holds back no
	// other: a candidate whose recheck is refused can still acknowledge, pass leadership on, and withdraw.
	heldBack map[step]time.Time
}

// busy reports whether there is an errand whose result the loop has not taken.
func (h *helper) busy() bool { return h.over != nil }

// failure is what last went wrong, for Status.
type failure struct {
	err error
	at  time.Time
}

// retreat is the withdrawal that is under way.
type retreat struct {
	since   time.Time
	refusal error // why it was refused
}

func newCandidacy(c *Candidate, data []byte) *candidacy {
	return &candidacy{
		Candidate: c, now: time.Now(),
		stance: stance{absence: absence{cause: errNotVoted}}, nextBallot: nextBallot{data: data},
	}
}

func (c *candidacy) run() {
	defer close(c.done)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for c.advance(); c.phase != ended; c.advance() {
		var own, predecessor, second, ack <-chan zk.Event
		if b := c.ballot; b != nil {
			own, predecessor, second, ack = b.watch, b.line.watch, b.line.second, b.ack.watch
		}
		if c.phase == moving {
			predecessor, second = nil, nil // they may not be ours any more: the place is looked up anew
		}
		var lapsed <-chan struct{}
		if c.phase.leads() {
			lapsed = c.term.lead.ctx.Done()
		}
		timer.Reset(time.Until(c.nextTimer()))
		var act func()
		select {
		case <-lapsed:
			act = func() { c.leave(context.Cause(c.term.lead.ctx)) }
		case event := <-predecessor:
			act = func() { c.predecessorChanged(event) }
		case event := <-second:
			act = func() { c.secondChanged(event) }
		case event := <-own:
			act = func() { c.ownChanged(event) }
		case <-ack:
			act = func() { c.ballot.ack.watch, c.ballot.recheck.all = nil, true }
		case <-c.inbox.signal:
			act = c.handleAll
		case <-timer.C:
			act = c.fireTimers
		}
		c.now = time.Now()
		act()
	}
	c.finish()
}

func (c *candidacy) handleAll() {
	for _, message := range c.inbox.take() {
		if c.phase == ended {
			return // whoever still waits for an answer gets it from the end of the loop
		}
		c.handle(message)
	}
}

// handle takes one message: a command of a public method, or what an errand or a
// callback came to.
func (c *candidacy) handle(message any) {
	switch m := message.(type) {
	case voteCommand:
		c.vote(m)
	case *campaignCommand:
		c.campaign(m)
	case abandonCommand:
		c.abandon(m.campaign)
		close(m.taken)
	case resignCommand:
		c.resign(m)
		if m.taken != nil {
			close(m.taken)
		}
	case hurryCommand:
		c.hurry()
		close(m.taken)
	case *proclaimCommand:
		c.proclaims = append(c.proclaims, m)
		c.helper.retry(stepAcknowledge) // it has to be there
	case runCommand:
		c.startRun(m)
	case unrunCommand:
		if c.runner == m.runner {
			c.runner = nil
			c.runReturned()
		}
	case runDone:
		if c.runner == m.runner && c.term.is(m.lead) {
			c.runReturned()
		}
	case castPlaced:
		c.castPlaced(m)
	case castResult:
		c.castDone(m)
	case placeResult:
		c.placeFound(m)
	case secondResult:
		c.secondDone(m)
	case recheckResult:
		c.recheckDone(m)
	case moveResult:
		c.moveDone(m)
	case winBegun:
		c.winBegun(m)
	case winDone:
		c.winDone(m)
	case ackDone:
		c.ackDone(m)
	case proclaimDone:
		c.proclaimDone(m)
	case causeAsked:
		c.causeAsked(m)
	case stepDownDone:
		if c.term.is(m.lead) {
			c.term.draining = false
			c.callbackReturned()
		}
	case withdrawDone:
		c.withdrawDone(m.err)
	case leaderSeen:
		c.leaderSeen(m)
	case requestSeen:
		c.requestSeen(m)
	case requestDone:
		c.requestDone(m)
	case priorityCommand:
		c.setPriority(m)
	case standCommand:
		c.startStanding(m)
	case unstandCommand:
		c.endStanding(m)
	case readinessCommand:
		c.readiness(m)
	default:
		panic(fmt.Sprintf("election: a candidate cannot take a %T", message))
	}
}

// --- what to do next

// advance takes steps until there is nothing to do but wait.
func (c *candidacy) advance() {
	for {
		c.takeSteps()
		c.settleProclaims()
		c.settlePriority()
		c.publish()
		need := c.needsLease()
		if need == c.seen.keepsLease {
			return
		}
		c.seen.keepsLease = need
		if !c.session.keepLease(c.Candidate, need) {
			return
		}
		// From here on the Session wakes this candidate when a lease begins. It did
		// not for one that began between the last decision and this call, so decide
		// once more.
	}
}

func (c *candidacy) takeSteps() {
	for c.phase != ended {
		view := c.session.currentView()
		c.noticeSession(view)
		if c.phase == idle && (!c.term.drains() || c.stuck.Load()) {
			c.replyAll(&c.resigners, nil)
		}
		next := decide(c.situation(view))
		if next == rest {
			break
		}
		c.take(next, view)
	}
}

func (c *candidacy) situation(view sessionView) situation {
	s := situation{
		phase: c.phase, want: c.want, closing: c.closing,
		ready: view.inc != nil && view.connected, authFailed: view.err != nil, hopeless: c.hopeless(view),
		busy: c.helper.busy(), heldBack: c.helper.heldBackAt(c.now), votePaused: c.now.Before(c.absence.until),
		draining: c.term.drains(), overdue: c.stuck.Load(), causePending: c.term != nil && c.term.causePending,
		exclusive: c.stepping.Load() != nil,
		ballot:    c.own() != nil, stray: c.stray.possible, proclaim: len(c.proclaims) > 0,
	}
	if b := c.ballot; b != nil {
		s.withdraw, s.verify = b.withdraw, b.verify
		s.placed, s.first = b.line.known, b.line.first()
		s.lacks, s.flaps, s.movePaused = b.demotion.lacks(c.now, c.session.Timeout()), b.demotion.flaps, c.now.Before(b.demotion.notBefore)
		s.ackMissing, s.proclaim = b.ack.missing, s.proclaim || b.catchUp
		// While OnWin runs only by the clock: the acknowledgement, which asks for the ballot as well, is not to wait for another request.
		s.check = b.recheck.all && c.phase != winning || !c.now.Before(b.recheck.at)
		s.sayReady, s.makeWay, s.pass, s.removeRequest = c.transferDuties()
		s.makeWay = s.makeWay && b.line.place.front != "" ||
			s.placed && (b.rank.givesWay && !c.transfers.underWay() || c.mustRelabel() && !c.isTarget()) && !c.now.Before(c.transfers.notBefore)
		s.handover = b.handover != nil
	}
	s.second = c.wantsSecond() && !c.now.Before(c.secondDue())
	s.aside = c.stander.aside() || c.stander.undecided()
	if view.inc != nil {
		if l := view.inc.lease.Load(); l != nil {
			s.lease = l.Remaining() >= c.session.minToClaim()
		}
	}
	return s
}

// hopeless reports whether no lease that is worth claiming under can be had on
// the present session, because of the servers' tick. The timeout may change
// whenever the session moves.
func (c *candidacy) hopeless(view sessionView) bool {
	return view.inc != nil && !c.session.rule().Feasible()
}

func (c *candidacy) take(next step, view sessionView) {
	switch next {
	case rest:
	case stepEnd:
		c.setPhase(ended)
	case stepRefused:
		err := view.err
		if err == nil {
			err = fmt.Errorf("%w: a tick of %v, a session timeout of %v", ErrTickTime,
				c.session.rule().Tick, c.session.Timeout())
		}
		c.refused(err)
	case stepCast:
		c.beginCast()
	case stepFindPlace:
		c.beginFindPlace()
	case stepReachFront:
		c.setPhase(claiming)
	case stepWatchSecond:
		c.beginWatchSecond()
	case stepMove:
		c.beginMove()
	case stepSayReady:
		c.beginRequest(transferReady)
	case stepPass:
		c.beginRequest(transferPassing)
	case stepRemoveRequest:
		c.beginRequest("")
	case stepClaim:
		c.claim(view.inc.lease.Load())
	case stepAcknowledge:
		c.beginAck()
	case stepProclaim:
		c.beginProclaim()
	case stepRecheck:
		c.beginRecheck()
	case stepAskCause:
		c.beginAskCause()
	case stepWithdraw:
		c.setPhase(withdrawing)
		if c.closing {
			c.giveUpAt = c.now.Add(c.closeTimeout())
		}
	case stepDelete:
		c.beginWithdraw()
	case stepContend:
		c.endTerm()
		c.ballot.recheck.all, c.ballot.verify = true, true
		c.setPhase(claiming)
	case stepIdle:
		c.endTerm()
		c.setPhase(idle)
	}
}

// needsLease reports whether the Session is to keep the lease for this candidate:
// from the moment that nobody is in front until its ballot is gone, so that the
// work that ends with OnStepDown is covered, too.
func (c *candidacy) needsLease() bool {
	switch c.phase {
	case casting:
		return c.ballot.line.first()
	case claiming, winning, acking, leading:
		return true
	case moving:
		return c.ballot.losing == nil // from the front: who waited has no use for one
	case leaving, withdrawing:
		return c.ballot != nil && c.term != nil
	case waiting:
		return c.hotStandby && (c.ballot.line.next() || c.ballot.line.nextSoon) || c.isTarget()
	default:
		return false
	}
}

// noticeSession acts on what has changed in the Session: another ZooKeeper
// session, or another connection.
func (c *candidacy) noticeSession(view sessionView) {
	if c.phase == leaving && c.term.causePending && (view.inc != c.term.lead.ballot.inc || !view.connected) {
		c.tellStepDown(ErrSessionLost)
	}
	another, reconnected := c.seen.notice(view)
	if another {
		c.helper.retryAll()
		switch b := c.own(); {
		case b == nil || b.inc == view.inc:
		case c.phase == moving:
			c.live.Store(nil)
			c.interrupt(ErrSessionLost) // the rest when it has returned
		default:
			c.ballotLost(ErrSessionLost)
		}
	}
	if c.ballot != nil {
		c.ballot.demotion.countLack(c.now, c.phase == claiming && view.inc != nil && view.connected)
	}
	stands := c.phase != leaving && c.phase != withdrawing // what is held then is of what has failed
	c.priority.countLease(c.now, view, stands && c.needsLease(), c.session.Timeout())
	if reconnected {
		c.helper.retryAll()
		if c.ballot != nil {
			c.ballot.recheck.all = true
		}
	}
}

// --- errands

// begin sends the helper on an errand. What that came to arrives as a message.
func (c *candidacy) begin(o order) {
	ctx, cancel := context.WithCancelCause(withLastError(context.Background(), &c.last))
	over := make(chan struct{})
	c.helper.cancel, c.helper.over = cancel, over
	errands, inbox := c.errands, c.inbox
	c.session.goHelper(func() {
		defer close(over)
		defer cancel(nil)
		inbox.push(o.run(ctx, errands))
	})
}

func (c *candidacy) errandDone() { c.helper.cancel, c.helper.over = nil, nil }

// interrupt ends an errand that waits: for a connection, or between tries.
func (c *candidacy) interrupt(cause error) {
	if c.helper.cancel != nil {
		c.helper.cancel(cause)
	}
}

// holdBack keeps a step that failed from being repeated at once, and one that is refused
// from being repeated more often than the periodic recheck is made: trying again does not
// change that, only an operator can. It reports whether that is the first refusal of its
// kind, for the log, where what says in words what was tried.
func (c *candidacy) holdBack(failed step, what string, err error) (say bool) {
	if !isPermanent(err) {
		c.helper.holdBack(failed, c.now.Add(jitter(c.session.Timeout()/32)))
		return false
	}
	c.helper.holdBack(failed, c.now.Add(c.session.recheckInterval()))
	return c.last.first(fmt.Errorf("%s: %w", what, err))
}

func (h *helper) holdBack(failed step, until time.Time) {
	if h.heldBack == nil {
		h.heldBack = make(map[step]time.Time)
	}
	h.heldBack[failed] = until
}

// heldBackAt is which steps are held back at a time.
func (h *helper) heldBackAt(now time.Time) (held [stepCount]bool) {
	for s, until := range h.heldBack {
		held[s] = now.Before(until)
	}
	return held
}

// retry is for a caller, who need not wait until a step that has failed is tried again by itself.
func (h *helper) retry(failed step) { delete(h.heldBack, failed) }

// retryAll is for another connection: what has failed on the one before may go well on this one.
func (h *helper) retryAll() { h.heldBack = nil }

// retryDue is when the next of them may be tried again; zero if none is held back.
func (h *helper) retryDue(now time.Time) (due time.Time) {
	for _, until := range h.heldBack {
		if until.After(now) && (due.IsZero() || until.Before(due)) {
			due = until
		}
	}
	return due
}

// --- the end

// finish answers everybody who is left.
func (c *candidacy) finish() {
	c.transfers.end()
	c.leader.Store(nil)
	c.live.Store(nil)
	c.publish()
	c.fail(ErrClosed)
	c.replyAll(&c.priority.waiters, ErrClosed)
	c.answerProclaims(ErrClosed)
	c.replyAll(&c.resigners, c.closeErr)
	c.session.keepLease(c.Candidate, false)
}
