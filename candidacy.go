package election

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/go-zookeeper/zk"
)

// phase is where a candidate is in an election.
type phase int

const (
	idle        phase = iota // no ballot
	casting                  // a helper is casting one
	waiting                  // behind others
	claiming                 // the lowest, without a lease yet
	moving                   // a helper is moving the ballot to the end of the line
	winning                  // leads; OnWin runs
	acking                   // leads; the acknowledgement is being written
	leading                  // leads and has acknowledged
	leaving                  // has led; OnStepDown runs
	withdrawing              // a helper is deleting the ballot
	ended                    // closed
)

var phaseNames = [...]string{"idle", "casting", "waiting", "claiming", "moving", "winning", "acking", "leading", "leaving", "withdrawing", "ended"}

func (p phase) String() string { return phaseNames[p] }

// leads tells in which phases IsLeader may be true.
func (p phase) leads() bool { return p == winning || p == acking || p == leading }

// Commands from the public methods. A reply channel has room for the one
// reply; it may be nil.
type (
	voteCommand     struct{ reply chan error }
	campaignCommand struct {
		reply chan campaignResult
		voted bool // it was this call that voted
	}
	campaignResult struct {
		term Term
		err  error
	}
	abandonCommand struct {
		campaign *campaignCommand
		taken    chan struct{} // closed when it is given up, unless it had an answer before
	}
	resignCommand struct {
		cause error // ErrResigned or ErrClosed
		reply chan error
		taken chan struct{} // closed when leadership has been given up
	}
	hurryCommand struct { // the time that Shutdown had is over
		taken chan struct{} // closed when leadership has been given up
	}
	proclaimCommand struct {
		data  []byte
		reply chan error
	}
	runCommand struct {
		runner *runner
		reply  chan error
	}
	unrunCommand struct{ runner *runner }
	runDone      struct {
		runner *runner
		lead   *leadership
	}
)

// runner is a Run under way.
type runner struct {
	terms chan *leadership // has room for one
	ended chan error       // has room for one: nothing will come any more
}

// Results of errands and callbacks.
type (
	winBegun struct {
		lead *leadership
		at   time.Time
	}
	winDone struct {
		lead *leadership
		err  error
	}
	stepDownDone struct{}
	causeAsked   struct {
		lead *leadership
		err  error // nil: the session answers
	}
	ackDone struct {
		lead  *leadership
		data  []byte
		czxid int64 // 0: not known
		err   error
	}
	withdrawDone struct{ err error }
	proclaimDone struct {
		command *proclaimCommand // nil: only the ballot's data were to follow
		lead    *leadership
		data    []byte
		acked   bool // the acknowledgement has them
		err     error
	}
	leaderSeen struct {
		sub  *subscription
		view ackView
	}
)

// candidacy is a candidate's loop and the state that only its goroutine
// touches. Calls of the client are errands on a helper, one at a time; what an
// errand or a callback came to arrives as a message, and is dropped when the
// ballot or the leadership that it was about is no more. Readers see what the
// loop publishes in Candidate.
type candidacy struct {
	*Candidate

	phase phase
	want  bool // Vote was called and nothing has ended it
	asked bool // and not by Campaign or Run alone, whose end would end it
	data  []byte

	ballotData []byte // what the ballot carries, as far as is known
	catchUp    bool   // it is to be given the data that the acknowledgement has

	// The ballot, and what is known of it.
	inc       *incarnation // that the Session has now, as far as was seen
	looks     uint64
	tag       string // of the vote under way
	uncertain bool   // a ballot with the tag may exist that no reply told of
	leftover  string // or one of this name does, which nobody serves
	ballot    *ballot
	ownWatch  <-chan zk.Event
	placed    bool // place is known, and its predecessor watched
	place     standing
	nextWatch <-chan zk.Event

	// What speaks for making way.
	lackingSince time.Time     // since when it has been first, connected, without a lease
	lacked       time.Duration // and for how long before that
	lapses       []time.Time   // of the lease, under the present session
	flaps        bool          // there were too many
	ownEnded     bool          // the own ballot's end was seen while moving

	// Why it does not stand, and what last went wrong.
	absence     error // nil while it stands
	failures    int   // takeovers that failed in a row
	lastError   error
	lastErrorAt time.Time
	standing    bool // as the metrics have been told

	// The errand under way.
	busy   bool
	cancel context.CancelCauseFunc

	// Leadership.
	lead      *leadership // from claiming to the end of leaving
	untold    bool        // it is being left, and OnStepDown waits for the cause
	untoldBy  time.Time   // but no longer than this
	withdraw  bool        // the ballot goes when leaving is over
	draining  bool        // OnStepDown functions of the last term have not returned
	acked     bool        // an acknowledgement of this ballot may exist
	ack       int64       // its czxid; 0 when not known
	ackWatch  <-chan zk.Event
	reack     bool     // it has to be written again
	ackUnsure bool     // it has been asked for, and no reply has come
	ackData   [][]byte // what it carries is one of these
	proclaims []*proclaimCommand

	// Losing.
	sub        *subscription
	loseCancel context.CancelFunc
	losingTo   string // the predecessor that OnLose was started for
	told       int64  // czxid of the leader that OnLose was last queued for

	// Who waits for what.
	voters    []chan error
	campaigns []*campaignCommand
	resigners []chan error
	runner    *runner
	runLead   *leadership // that the runner was given and has not returned from
	closing   bool
	refusal   error // why the last withdrawal was refused

	// Timers, as points in time; zero means not set.
	checkAt   time.Time // the next periodic recheck at one node
	retryAt   time.Time // no errand before
	claimedAt time.Time // the present term began
	begunAt   time.Time // OnWin was called in it; zero if it has not been
	ackedAt   time.Time // it was acknowledged
	moveAt    time.Time // no move before
	hangAt    time.Time // to report a callback that hangs, next
	overdueAt time.Time // the callbacks of a lost term are late
	voteAt    time.Time // no vote before, since one was refused or a takeover failed
	quitAt    time.Time // Close gives up
	leftAt    time.Time // the withdrawal under way began
	decidedAt time.Time // of the last decision
	timer     *time.Timer

	turn     int  // whose turn it is at the periodic recheck
	checkAll bool // look at all nodes now
	verify   bool // no claim before the own ballot has been looked at
}

func (c *candidacy) run() {
	defer close(c.done)
	c.timer = time.NewTimer(time.Hour)
	defer c.timer.Stop()
	for c.advance(); c.phase != ended; c.advance() {
		var lapsed <-chan struct{}
		if c.phase.leads() {
			lapsed = c.lead.ctx.Done()
		}
		c.setTimer()
		select {
		case <-lapsed:
			c.leave(context.Cause(c.lead.ctx))
		case event := <-c.nextWatch:
			c.predecessorChanged(event)
		case event := <-c.ownWatch:
			c.ownChanged(event)
		case <-c.ackWatch:
			c.ackWatch, c.checkAll = nil, true
		case <-c.inbox.signal:
			for _, message := range c.inbox.take() {
				c.handle(message)
			}
		case <-c.timer.C:
			c.timeout(time.Now())
		}
	}
	c.finish()
}

// handle takes one message.
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
	case runCommand:
		c.startRun(m)
	case unrunCommand:
		if c.runner == m.runner {
			c.runner, c.runLead = nil, nil
			c.drained()
		}
	case runDone:
		if c.runner == m.runner && c.runLead == m.lead {
			c.runLead = nil
			c.drained()
		}
	case castResult:
		c.castDone(m)
	case lookResult:
		c.lookDone(m)
	case checkResult:
		c.checkDone(m)
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
		c.draining = false
		c.drained()
	case withdrawDone:
		c.withdrawDone(m.err)
	case leaderSeen:
		c.leaderSeen(m)
	}
}

func (c *candidacy) situation(view sessionView, now time.Time) situation {
	s := situation{
		phase: c.phase, want: c.want, closing: c.closing,
		ready: view.inc != nil && view.connected, barred: view.err != nil, hopeless: c.hopeless(view),
		busy: c.busy, held: now.Before(c.retryAt), refused: now.Before(c.voteAt),
		draining: c.draining || c.runLead != nil,
		overdue:  c.stuck.Load(), withdraw: c.withdraw, untold: c.untold,
		ballot: c.ballot != nil, uncertain: c.uncertain,
		placed: c.placed, first: c.placed && c.place.below == 0,
		lacks: !c.lackingSince.IsZero() && !now.Before(c.lackDue()), flaps: c.flaps, moved: now.Before(c.moveAt),
		reack: c.reack, proclaim: len(c.proclaims) > 0 || c.catchUp, check: c.checkAll || !now.Before(c.checkAt), verify: c.verify,
	}
	if view.inc != nil {
		if l := view.inc.lease.Load(); l != nil {
			s.lease = l.remaining() >= newLeaseRule(c.session.Timeout(), 0).minToClaim()
		}
	}
	return s
}

// hopeless reports whether no lease that is worth claiming under can be had on
// the present session, because of the servers' tick. The timeout may change
// whenever the session moves.
func (c *candidacy) hopeless(view sessionView) bool {
	return view.inc != nil && !newLeaseRule(c.session.Timeout(), c.session.tick).feasible()
}

// advance takes steps until there is nothing to do but wait.
func (c *candidacy) advance() {
	for {
		c.takeSteps()
		c.settleProclaims()
		c.publish()
		if !c.session.keepLease(c.Candidate, c.needsLease()) {
			return
		}
		// From here on this candidate is told of a lease that begins. One that
		// began since it was looked for has told nobody.
	}
}

func (c *candidacy) takeSteps() {
	for c.phase != ended {
		view := c.session.look()
		c.noticeSession(view)
		if c.phase == idle && (!c.draining && c.runLead == nil || c.stuck.Load()) {
			replyAll(&c.resigners, nil)
		}
		c.decidedAt = time.Now()
		next := decide(c.situation(view, c.decidedAt))
		if next == rest {
			break
		}
		c.take(next, view)
	}
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
				newLeaseRule(c.session.Timeout(), c.session.tick).tick, c.session.Timeout())
		}
		c.refused(err)
	case stepCast:
		c.beginCast()
	case stepLook:
		c.beginLook()
	case stepWait:
		c.stopLosing()
		c.setPhase(claiming)
	case stepMove:
		c.beginMove()
	case stepClaim:
		c.claim(view.inc.lease.Load())
	case stepAcknowledge:
		c.beginAck()
	case stepProclaim:
		c.beginProclaim()
	case stepCheck:
		c.beginCheck()
	case stepAskCause:
		c.beginAskCause()
	case stepWithdraw:
		c.stopLosing()
		c.setPhase(withdrawing)
		if c.closing {
			c.quitAt = time.Now().Add(c.patience())
		}
	case stepDelete:
		c.beginWithdraw()
	case stepContend:
		c.endTerm()
		c.checkAll, c.verify = true, true
		c.setPhase(claiming)
	case stepIdle:
		c.endTerm()
		c.becomeIdle()
	}
}

// needsLease: from the moment that this candidate is the lowest until its
// ballot is gone, so that the end of its work is covered, too.
func (c *candidacy) needsLease() bool {
	switch c.phase {
	case claiming, moving, winning, acking, leading:
		return true
	case leaving, withdrawing:
		return c.ballot != nil && c.lead != nil
	case waiting:
		return c.hotStandby && c.placed && c.place.below == 1
	default:
		return false
	}
}

// setPhase is where every transition passes.
func (c *candidacy) setPhase(p phase) {
	if p == c.phase {
		return
	}
	c.logger.Debug("election: candidate", "from", c.phase, "to", p, "ballot", c.VotePath())
	if takesOver := p == winning || p == acking; takesOver != (c.phase == winning || c.phase == acking) {
		since := c.claimedAt
		if !takesOver {
			since = time.Time{}
		}
		c.metrics.TakingOver(c.name, since)
	}
	if c.phase == winning {
		c.hung.Store(false)
		c.hangAt = time.Time{}
	}
	if p != claiming && p != moving {
		c.lackingSince, c.lacked = time.Time{}, 0
	}
	c.phase = p
	c.publish()
	switch p {
	case waiting:
		c.checkAt = time.Now().Add(c.session.relook())
		c.placeInLine()
	case claiming:
		c.checkAt = time.Now().Add(c.session.relook())
	case leading:
		c.checkAt = time.Now().Add(c.session.relook())
		// What was proclaimed while OnWin ran, or just before a lapse.
		c.catchUp = !bytes.Equal(c.ballotData, c.data)
		c.succeed()
	case withdrawing:
		c.leftAt = time.Now()
	default:
	}
}

// noticeSession notices what has become of the Session.
func (c *candidacy) noticeSession(view sessionView) {
	if c.untold && (view.inc != c.lead.ballot.inc || !view.connected) {
		c.tellStepDown(ErrSessionLost)
	}
	if view.inc != c.inc {
		c.inc = view.inc
		c.retryAt = time.Time{}
		c.lapses, c.flaps = nil, false
		switch {
		case c.ballot == nil || c.ballot.inc == view.inc:
		case c.phase == moving:
			c.live.Store(nil)
			c.interrupt(ErrSessionLost) // the rest when it has returned
		default:
			c.ballotLost(ErrSessionLost)
		}
	}
	c.countLack(view)
	if view.looks != c.looks {
		c.looks = view.looks
		c.retryAt = time.Time{}
		c.checkAll = true
	}
}

// errand runs fn on a helper. What it returns comes back as a message.
func (c *candidacy) errand(fn func(ctx context.Context) any) {
	ctx, cancel := context.WithCancelCause(withLastError(context.Background(), &c.last))
	c.busy, c.cancel = true, cancel
	c.session.help(func() {
		defer cancel(nil)
		c.inbox.push(fn(ctx))
	})
}

func (c *candidacy) errandDone() { c.busy, c.cancel = false, nil }

// interrupt ends an errand that waits: for a connection, or between tries.
func (c *candidacy) interrupt(cause error) {
	if c.cancel != nil {
		c.cancel(cause)
	}
}

// hold keeps errands that failed from being repeated at once.
func (c *candidacy) hold() {
	c.retryAt = time.Now().Add(jitter(c.session.Timeout() / 32))
}

// holdFor is hold after an error. After a refusal the request is repeated at
// the slow pace, since only an operator can change it; it reports whether that is
// the first of its kind, for the log.
func (c *candidacy) holdFor(what string, err error) (say bool) {
	c.hold()
	if !isRefused(err) {
		return false
	}
	c.retryAt = time.Now().Add(c.session.relook())
	return c.last.first(fmt.Errorf("%s: %w", what, err))
}

// --- time

// deadlines returns the points in time at which timeout has something to do.
func (c *candidacy) deadlines() (at []time.Time) {
	switch c.phase {
	case winning:
		if c.takeoverTimeout > 0 && !c.begunAt.IsZero() {
			at = append(at, c.begunAt.Add(c.takeoverTimeout))
		}
		if !c.lead.begun.Load() {
			at = append(at, c.claimedAt.Add(c.stepDown()))
		}
	case leaving:
		if c.untold {
			at = append(at, c.untoldBy)
		}
		if !c.stuck.Load() {
			at = append(at, c.overdueAt)
		}
	case idle, casting, waiting, claiming, moving, acking, leading, withdrawing, ended:
	}
	if !c.hangAt.IsZero() {
		at = append(at, c.hangAt)
	}
	if c.closing && c.phase != leaving {
		at = append(at, c.quitAt)
	}
	return at
}

// pauses returns the points in time until which decide holds something back.
func (c *candidacy) pauses() []time.Time {
	return []time.Time{c.retryAt, c.voteAt, c.checkAt, c.moveAt, c.lackDue()}
}

func (c *candidacy) setTimer() {
	now := time.Now()
	wait := time.Hour
	for _, at := range c.deadlines() {
		wait = min(wait, at.Sub(now))
	}
	for _, at := range c.pauses() {
		// One that was over then has been taken into account; one that has ended
		// since has not.
		if at.After(c.decidedAt) {
			wait = min(wait, at.Sub(now))
		}
	}
	c.timer.Reset(max(0, wait))
}

func (c *candidacy) timeout(now time.Time) {
	switch c.phase {
	case winning:
		switch {
		case c.takeoverTimeout > 0 && !c.begunAt.IsZero() && !now.Before(c.begunAt.Add(c.takeoverTimeout)):
			c.takeoverFailed(fmt.Errorf("OnWin has not returned in %v", c.takeoverTimeout))
		case !c.lead.begun.Load() && !now.Before(c.claimedAt.Add(c.stepDown())):
			c.stalled()
		}
	case leaving:
		if c.untold && !now.Before(c.untoldBy) {
			c.tellStepDown(ErrBallotDeleted)
		}
		if (c.draining || c.runLead != nil) && !now.Before(c.overdueAt) && !c.stuck.Load() {
			c.logger.Error("election: callbacks have not returned after the loss of leadership; withdrawing the ballot",
				"limit", c.stepDown(), "callback", c.hanging())
			c.stuck.Store(true)
			c.hangAt = now.Add(2 * c.session.Timeout())
			c.absent(fmt.Errorf("%w in %v after leadership was lost", ErrCallbackRunning, c.stepDown()))
			c.failStuckVoters()
		}
	default:
	}
	if !c.hangAt.IsZero() && !now.Before(c.hangAt) {
		c.reportHang(now)
	}
	if c.closing && c.phase != leaving && !now.Before(c.quitAt) {
		switch {
		case c.ballot == nil && !c.uncertain && c.phase != casting:
		case c.refusal != nil:
			c.closeErr = fmt.Errorf("election: withdraw from %s: %w", c.path, c.refusal)
		default:
			c.closeErr = c.last.after(fmt.Errorf("election: close %s: no server answered in %v: the ballot ends with the session", c.path, c.patience()))
		}
		c.abandonBallot()
		c.setPhase(ended)
	}
}

// finish answers everybody who is left.
func (c *candidacy) finish() {
	c.stopLosing()
	c.leader.Store(nil)
	c.live.Store(nil)
	c.publish()
	c.fail(ErrClosed)
	c.refuseProclaims(ErrClosed)
	replyAll(&c.resigners, c.closeErr)
	c.session.keepLease(c.Candidate, false)
}
