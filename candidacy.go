package election

import (
	"context"
	"errors"
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
	winning                  // leads; OnWin runs
	acking                   // leads; the acknowledgement is being written
	leading                  // leads and has acknowledged
	leaving                  // has led; OnStepDown runs
	withdrawing              // a helper is deleting the ballot
	ended                    // closed
)

var phaseNames = [...]string{"idle", "casting", "waiting", "claiming", "winning", "acking", "leading", "leaving", "withdrawing", "ended"}

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
	abandonCommand struct{ campaign *campaignCommand }
	resignCommand  struct {
		cause error // ErrResigned or ErrClosed
		reply chan error
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
		lead *leadership
		err  error
	}
	withdrawDone struct{ err error }
	proclaimDone struct {
		command *proclaimCommand
		lead    *leadership
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
	data  []byte

	// The ballot, and what is known of it.
	inc       *incarnation // that the Session has now, as far as was seen
	looks     uint64
	tag       string // of the vote under way
	uncertain bool   // a ballot with the tag may exist that no reply told of
	ballot    *ballot
	ownWatch  <-chan zk.Event
	placed    bool // place is known, and its predecessor watched
	place     standing
	nextWatch <-chan zk.Event

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
	reack     bool // it has to be written again
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

	// Timers, as points in time; zero means not set.
	checkAt   time.Time // the next slow look at one node
	retryAt   time.Time // no errand before
	claimedAt time.Time // the present term began
	overdueAt time.Time // the callbacks of a lost term are late
	quitAt    time.Time // Close gives up
	timer     *time.Timer

	turn     int  // whose turn it is at the slow look
	checkAll bool // look at all nodes now
	verify   bool // no claim before the own ballot has been looked at
}

func (c *candidacy) run() {
	defer close(c.done)
	c.queue.logger = c.logger
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
			c.ackWatch, c.ack, c.checkAll = nil, 0, true
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
	case resignCommand:
		c.resign(m)
		if m.taken != nil {
			close(m.taken)
		}
	case *proclaimCommand:
		c.proclaims = append(c.proclaims, m)
	case runCommand:
		c.startRun(m)
	case unrunCommand:
		if c.runner == m.runner {
			c.runner, c.runLead = nil, nil
		}
	case runDone:
		if c.runner == m.runner && c.runLead == m.lead {
			c.runLead = nil
		}
	case castResult:
		c.castDone(m)
	case lookResult:
		c.lookDone(m)
	case checkResult:
		c.checkDone(m)
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
		c.stuck.Store(false)
	case withdrawDone:
		c.withdrawDone(m.err)
	case leaderSeen:
		c.leaderSeen(m)
	}
}

// --- what to do next

// situation is what the decision about the next step depends on.
type situation struct {
	phase             phase
	want, closing     bool
	ready             bool // the Session has a session, connected
	barred            bool // the servers refuse its credentials
	busy, held        bool // an errand is under way; none may begin yet
	draining          bool // callbacks of the last term, or Run's function, go on
	overdue           bool // and have gone on for too long
	withdraw, untold  bool
	ballot, uncertain bool
	placed, first     bool
	lease             bool // worth claiming under
	reack, proclaim   bool
	check, verify     bool // a slow look is due; and comes before a claim
}

type step int

const (
	rest step = iota
	stepEnd
	stepRefused
	stepCast
	stepLook
	stepClaim
	stepWait
	stepAcknowledge
	stepProclaim
	stepCheck
	stepAskCause
	stepWithdraw // go on to withdrawing
	stepDelete   // begin the errand of withdrawing
	stepContend  // a term is over, the ballot still stands
	stepIdle     // a term is over, and so is the ballot
)

// decide is the candidate's policy: what to do in a situation.
func decide(s situation) step {
	errand := !s.busy && !s.held
	switch s.phase {
	case idle:
		switch {
		case s.busy || s.draining && !s.overdue:
		case s.closing:
			return stepEnd
		case s.want && s.barred && !s.held:
			return stepRefused
		case s.want && s.ready && errand && !s.draining:
			return stepCast
		}
	case waiting, claiming:
		switch {
		case s.withdraw:
			return stepWithdraw
		case s.phase == claiming && s.verify:
			if s.ready && errand {
				return stepCheck
			}
		case s.phase == claiming && s.lease:
			return stepClaim
		case s.phase == waiting && s.placed && s.first:
			return stepWait // no more: it is our turn
		case !s.placed && s.ready && errand:
			return stepLook
		case s.check && s.ready && errand:
			return stepCheck
		}
	case acking:
		if s.ready && errand {
			return stepAcknowledge
		}
	case leading:
		switch {
		case !s.ready || !errand:
		case s.reack:
			return stepAcknowledge
		case s.proclaim:
			return stepProclaim
		case s.check:
			return stepCheck
		}
	case leaving:
		switch {
		case s.untold && s.ready && errand:
			return stepAskCause
		case s.draining && !s.overdue:
		case s.draining || s.withdraw:
			return stepWithdraw
		case !s.ballot:
			return stepIdle
		default:
			return stepContend
		}
	case withdrawing:
		switch {
		case s.busy:
		case !s.ballot && !s.uncertain:
			return stepIdle
		default:
			return stepDelete
		}
	case casting, winning, ended:
	}
	return rest
}

func (c *candidacy) situation(view sessionView, now time.Time) situation {
	s := situation{
		phase: c.phase, want: c.want, closing: c.closing,
		ready: view.inc != nil && view.connected, barred: view.err != nil,
		busy: c.busy, held: now.Before(c.retryAt),
		draining: c.draining || c.runLead != nil,
		overdue:  c.stuck.Load(), withdraw: c.withdraw, untold: c.untold,
		ballot: c.ballot != nil, uncertain: c.uncertain,
		placed: c.placed, first: c.placed && c.place.below == 0,
		reack: c.reack, proclaim: len(c.proclaims) > 0, check: c.checkAll || !now.Before(c.checkAt), verify: c.verify,
	}
	if view.inc != nil {
		if l := view.inc.lease.Load(); l != nil {
			s.lease = l.remaining() >= newLeaseRule(c.session.Timeout(), 0).worthwhile()
		}
	}
	return s
}

// advance takes steps until there is nothing to do but wait.
func (c *candidacy) advance() {
	for c.phase != ended {
		view := c.session.look()
		c.noticeSession(view)
		if c.phase == idle && (!c.draining && c.runLead == nil || c.stuck.Load()) {
			replyAll(&c.resigners, nil)
		}
		now := time.Now()
		next := decide(c.situation(view, now))
		if next == rest {
			break
		}
		c.take(next, view)
	}
	c.settleProclaims()
	c.session.keepLease(c.Candidate, c.needsLease())
}

func (c *candidacy) take(next step, view sessionView) {
	switch next {
	case rest:
	case stepEnd:
		c.setPhase(ended)
	case stepRefused:
		c.refused(view.err)
	case stepCast:
		c.beginCast()
	case stepLook:
		c.beginLook()
	case stepWait:
		c.stopLosing()
		c.setPhase(claiming)
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
	case claiming, winning, acking, leading:
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
	c.phase = p
	switch p {
	case waiting:
		c.checkAt = time.Now().Add(c.session.relook())
		c.startLosing()
	case claiming:
		c.checkAt = time.Now().Add(c.session.relook())
	case leading:
		c.checkAt = time.Now().Add(c.session.relook())
		c.succeed()
	default:
	}
}

// noticeSession notices what has become of the Session.
func (c *candidacy) noticeSession(view sessionView) {
	if view.inc != c.inc {
		c.inc = view.inc
		c.retryAt = time.Time{}
		if c.untold {
			c.tellStepDown(ErrSessionLost)
		}
		if c.ballot != nil && c.ballot.inc != view.inc {
			c.ballotLost(ErrSessionLost)
		}
	}
	if view.looks != c.looks {
		c.looks = view.looks
		c.retryAt = time.Time{}
		c.checkAll = true
	}
}

// --- voting

func (c *candidacy) vote(m voteCommand) {
	if c.closing {
		m.reply <- ErrClosed
		return
	}
	c.want = true
	if c.ballot != nil && !c.withdraw && c.phase != withdrawing {
		m.reply <- nil
		return
	}
	c.voters = append(c.voters, m.reply)
	if c.stuck.Load() {
		c.failStuckVoters()
	}
}

// failStuckVoters answers those who would wait for callbacks that do not
// return, and may be called from one. The vote is cast when they have.
func (c *candidacy) failStuckVoters() {
	replyAll(&c.voters, fmt.Errorf("%w in %v since leadership was lost; the vote will be cast when it has", ErrCallbackRunning, c.stepDown()))
}

func (c *candidacy) campaign(m *campaignCommand) {
	switch {
	case c.closing:
		m.reply <- campaignResult{err: ErrClosed}
		return
	case c.phase == leading:
		m.reply <- campaignResult{term: c.lead.term}
		return
	}
	m.voted = !c.want
	c.want = true
	c.campaigns = append(c.campaigns, m)
}

func (c *candidacy) abandon(m *campaignCommand) {
	for i, other := range c.campaigns {
		if other == m {
			c.campaigns = append(c.campaigns[:i:i], c.campaigns[i+1:]...)
			break
		}
	}
	// Whoever else waits for this candidate to lead keeps it voting.
	if m.voted && len(c.campaigns) == 0 && c.runner == nil {
		c.resign(resignCommand{cause: ErrResigned})
	}
}

func (c *candidacy) startRun(m runCommand) {
	switch {
	case c.closing:
		m.reply <- ErrClosed
		return
	case c.runner != nil:
		m.reply <- errors.New("election: Run is already running")
		return
	}
	c.runner, c.want = m.runner, true
	m.reply <- nil
	if c.phase == leading {
		c.giveToRunner()
	}
}

func (c *candidacy) giveToRunner() {
	if c.runner != nil && c.runLead == nil {
		c.runLead = c.lead
		c.runner.terms <- c.lead
	}
}

// fail tells everybody who waits for this candidate to vote or lead that it
// will not, for now.
func (c *candidacy) fail(err error) {
	replyAll(&c.voters, err)
	for _, m := range c.campaigns {
		m.reply <- campaignResult{err: err}
	}
	c.campaigns = nil
	if c.runner != nil {
		select {
		case c.runner.ended <- err:
		default:
		}
	}
}

// succeed tells those who wait for this candidate to lead that it does.
func (c *candidacy) succeed() {
	for _, m := range c.campaigns {
		m.reply <- campaignResult{term: c.lead.term}
	}
	c.campaigns = nil
	c.giveToRunner()
}

func replyAll(waiters *[]chan error, err error) {
	for _, reply := range *waiters {
		if reply != nil {
			reply <- err
		}
	}
	*waiters = nil
}

// errand runs fn on a helper. What it returns comes back as a message.
func (c *candidacy) errand(fn func(ctx context.Context) any) {
	ctx, cancel := context.WithCancelCause(context.Background())
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

func (c *candidacy) beginCast() {
	if c.tag == "" {
		c.tag = newTag()
	}
	tag, data, uncertain := c.tag, c.data, c.uncertain
	c.setPhase(casting)
	c.errand(func(ctx context.Context) any { return c.cast(ctx, tag, data, uncertain) })
}

func (c *candidacy) castDone(r castResult) {
	c.errandDone()
	c.uncertain = r.uncertain
	if r.ballot != nil {
		c.tag = "" // the next vote is another
		c.ballot, c.ownWatch = r.ballot, r.watch
		c.place, c.placed = r.place, r.place.below == 0
		c.acked, c.ack, c.ackWatch, c.reack = false, 0, nil, false
		c.live.Store(c.ballot)
		c.logger.Info("election: voted", "ballot", c.ballot.name, "in_front", r.place.below)
	}
	switch {
	case !c.want || c.closing:
		c.withdraw = true
		c.setPhase(withdrawing)
	case r.ballot != nil:
		replyAll(&c.voters, nil)
		if view := c.session.look(); view.inc != r.ballot.inc {
			c.phase = waiting
			c.ballotLost(ErrSessionLost)
			return
		}
		if c.placed {
			c.setPhase(claiming)
		} else {
			c.setPhase(waiting)
		}
	case isRefused(r.err):
		c.refused(r.err)
	default:
		c.setPhase(idle)
	}
}

// refused: ZooKeeper will not have this ballot. Who called Vote is told and
// has to do something about it. With nobody to tell, as after a session loss,
// the only one who can is an operator, so it is tried again at a slow pace.
func (c *candidacy) refused(err error) {
	c.logger.Error("election: cannot vote", "error", err)
	if len(c.voters) > 0 || len(c.campaigns) > 0 || c.runner != nil {
		c.want = false
		c.fail(err)
	}
	c.retryAt = time.Now().Add(c.session.relook())
	if c.uncertain {
		c.withdraw = true
		c.setPhase(withdrawing)
		return
	}
	c.becomeIdle()
}

func (c *candidacy) becomeIdle() {
	c.ballot, c.ownWatch, c.nextWatch, c.ackWatch = nil, nil, nil, nil
	c.placed, c.withdraw, c.verify, c.acked = false, false, false, false
	c.live.Store(nil)
	c.setPhase(idle)
}

// --- waiting

func (c *candidacy) beginLook() {
	b := c.ballot
	var known *standing
	if c.place.predecessor != "" {
		// From the list that followed the vote; good for one look.
		place := c.place
		known, c.place.predecessor = &place, ""
	}
	c.errand(func(ctx context.Context) any { return c.look(ctx, b, known) })
}

func (c *candidacy) lookDone(r lookResult) {
	c.errandDone()
	switch {
	case r.ballot != c.ballot || c.phase != waiting && c.phase != claiming:
		return
	case r.err != nil:
		c.hold()
		return
	case r.gone:
		c.ballotLost(c.goneCause())
		return
	}
	c.placed, c.place, c.nextWatch = true, r.place, r.watch
	if c.phase == waiting && c.follow == FollowNextNode && c.place.below > 0 && c.place.predecessor != c.losingTo {
		c.stopLosing()
		c.startLosing()
	}
}

func (c *candidacy) predecessorChanged(event zk.Event) {
	c.session.watches.remove(c.path + "/" + c.place.predecessor)
	c.nextWatch = nil
	if event.Type == zk.EventNodeDeleted {
		c.predecessorGone()
		return
	}
	c.lookAgain()
}

// predecessorGone: when it was the only one in front, we are the lowest.
// Numbers only grow, so nobody can have come in between.
func (c *candidacy) predecessorGone() {
	if c.phase == waiting && c.place.below == 1 {
		c.nextWatch = nil
		c.place = standing{}
		return
	}
	if c.follow == FollowNextNode {
		c.endLoss()
	}
	c.lookAgain()
}

func (c *candidacy) lookAgain() {
	c.nextWatch, c.placed, c.place.predecessor = nil, false, ""
}

func (c *candidacy) ownChanged(event zk.Event) {
	c.ownWatch = nil
	if event.Type == zk.EventNodeDeleted && c.phase != withdrawing {
		c.ballotLost(ErrBallotDeleted)
		return
	}
	c.checkAll = true // it may have been the session
}

// ballotLost: our ballot is there no more, though we have not withdrawn it.
func (c *candidacy) ballotLost(cause error) {
	c.logger.Warn("election: ballot lost", "ballot", c.ballot.name, "cause", cause)
	c.live.Store(nil)
	switch {
	case c.phase.leads() && errors.Is(cause, ErrBallotDeleted):
		c.quit(cause)
		c.untold, c.untoldBy = true, time.Now().Add(c.session.Timeout()/8)
	case c.phase.leads():
		c.leave(cause)
	}
	switch c.phase {
	case waiting, claiming:
		c.stopLosing()
		c.becomeIdle()
	case withdrawing:
		// The errand finds that there is nothing left, and the acknowledgement
		// may be.
	default:
		if errors.Is(cause, ErrBallotDeleted) && c.acked {
			c.withdraw = true // of what we acknowledged
			return
		}
		c.ballot, c.ownWatch, c.nextWatch, c.placed = nil, nil, nil, false
	}
}

// beginCheck looks at nodes whose watches should have told of a change, in
// case one was lost without a word: at one node at the slow pace, in turn, at
// all of them after a reconnection.
func (c *candidacy) beginCheck() {
	what := checks{ballot: c.ballot, own: true}
	if c.phase == waiting && c.placed {
		what.predecessor = c.place.predecessor
	}
	what.ack = c.phase == leading
	what.watchAck = c.ackWatch == nil
	if !c.checkAll {
		c.turn++
		switch {
		case what.ack && (c.ack == 0 || c.turn%2 == 0), what.predecessor != "" && c.turn%2 == 1:
			what.own = false
		default:
			what.ack, what.predecessor = false, ""
		}
	}
	c.checkAll = false
	c.checkAt = time.Now().Add(c.session.relook())
	c.errand(func(ctx context.Context) any { return c.check(ctx, what) })
}

func (c *candidacy) checkDone(r checkResult) {
	c.errandDone()
	if r.ballot != c.ballot || c.phase == leaving || c.phase == withdrawing {
		return
	}
	switch {
	case r.err != nil:
		c.checkAll = true
		c.hold()
		return
	case r.ownGone:
		c.ballotLost(c.goneCause())
		return
	case r.predecessorGone && c.placed && c.place.predecessor == r.predecessor:
		// A watch should have told.
		c.session.watches.remove(c.path + "/" + r.predecessor)
		c.predecessorGone()
	}
	if r.own {
		c.verify = false
	}
	if r.ack && c.phase == leading {
		c.ackFound(r)
	}
}

// ackFound: the leader has looked at its acknowledgement.
func (c *candidacy) ackFound(r checkResult) {
	if r.ackWatch != nil {
		c.ackWatch = r.ackWatch
	}
	switch {
	case r.ackStat == nil, r.ackStat.EphemeralOwner != c.ballot.inc.id, c.ack != 0 && r.ackStat.Czxid != c.ack:
		c.logger.Warn("election: the acknowledgement was removed or replaced; writing it again")
		c.reack = true
	default:
		c.ack = r.ackStat.Czxid
	}
}

// hold keeps errands that failed from being repeated at once.
func (c *candidacy) hold() {
	c.retryAt = time.Now().Add(jitter(c.session.Timeout() / 32))
}

// goneCause tells why a ballot is not there: its session may have ended.
func (c *candidacy) goneCause() error {
	if c.session.ID() != c.ballot.inc.id {
		return ErrSessionLost
	}
	return ErrBallotDeleted
}

// --- leading

// claim begins a term: from here on IsLeader is true.
func (c *candidacy) claim(under *lease) {
	ctx := context.WithValue(under.ctx, callbackOwner{}, c.Candidate)
	l := &leadership{term: Term{Token: c.ballot.token, Ballot: c.ballot.path}, lease: under, ballot: c.ballot}
	l.ctx, l.cancel = context.WithCancelCause(ctx)
	c.lead, c.claimedAt = l, time.Now()
	c.leader.Store(l)
	c.metrics.Leading(c.name, true)
	c.logger.Info("election: won", "ballot", c.ballot.name, "token", l.term.Token)
	c.setPhase(winning)
	c.queue.push(func() { c.callWin(l) })
}

// callWin runs on the callback goroutine.
func (c *candidacy) callWin(l *leadership) {
	err := errors.New("election: OnWin ended its goroutine")
	defer func() { c.inbox.push(winDone{l, err}) }()
	if l.ctx.Err() == nil {
		l.begun.Store(true)
	}
	for _, fn := range c.onWin.snapshot() {
		if l.ctx.Err() != nil {
			break // lost already: there is nothing to take over
		}
		if failure := protect(c.logger, "OnWin", func() error { return (*fn)(l.ctx, l.term) }); failure != nil {
			err = failure
			return
		}
	}
	err = nil
}

func (c *candidacy) winDone(m winDone) {
	switch {
	case m.lead != c.lead || c.phase != winning:
		return // that term is over
	case m.lead.ctx.Err() != nil || !m.lead.lease.valid():
		// The loss came first, and may be why the callback failed.
		c.leave(c.lossCause())
	case m.err != nil:
		c.takeoverFailed(m.err)
	default:
		c.setPhase(acking)
	}
}

func (c *candidacy) lossCause() error {
	if cause := context.Cause(c.lead.ctx); cause != nil {
		return cause
	}
	return ErrLeaseLapsed
}

// takeoverFailed steps down and stays out, so that the next one can try.
func (c *candidacy) takeoverFailed(err error) {
	err = fmt.Errorf("%w: %w", ErrTakeoverFailed, err)
	c.logger.Error("election: takeover failed", "ballot", c.ballot.name, "error", err)
	c.want, c.withdraw = false, true
	c.leave(err)
	c.fail(err)
}

func (c *candidacy) beginAck() {
	l, data, ack, acked := c.lead, c.data, c.ack, c.acked
	c.acked = true // from now on there may be one
	c.errand(func(ctx context.Context) any {
		return ackDone{l, c.acknowledge(ctx, l.ballot, data, ack, acked)}
	})
}

func (c *candidacy) ackDone(m ackDone) {
	c.errandDone()
	switch {
	case m.lead != c.lead || c.phase != acking && c.phase != leading:
		return
	case errors.Is(m.err, errBallotGone):
		c.ballotLost(c.goneCause())
	case isRefused(m.err) && c.phase == acking:
		c.takeoverFailed(m.err)
	case m.err != nil:
		c.hold()
	default:
		c.reack, c.ack, c.ackWatch = false, 0, nil
		if c.phase == acking {
			took := time.Since(c.claimedAt)
			c.metrics.TakenOver(c.name, took)
			c.logger.Info("election: leading", "ballot", c.ballot.name, "token", c.lead.term.Token,
				"takeover", took.Round(time.Microsecond))
			c.setPhase(leading)
		}
	}
}

func (c *candidacy) beginProclaim() {
	m, l := c.proclaims[0], c.lead
	c.proclaims = c.proclaims[1:]
	c.errand(func(ctx context.Context) any {
		return proclaimDone{m, l, c.proclaim(ctx, l.ballot, m.data)}
	})
}

func (c *candidacy) proclaimDone(m proclaimDone) {
	c.errandDone()
	err := m.err
	current := m.lead == c.lead && c.phase == leading
	switch {
	case err == nil:
		c.data = m.command.data
	case !current:
		err = ErrNotLeader
	case errors.Is(err, errBallotGone):
		c.ballotLost(c.goneCause())
		err = ErrNotLeader
	case errors.Is(err, zk.ErrNoNode):
		// The acknowledgement is not there: it is written again, then this.
		c.reack = true
		c.proclaims = append([]*proclaimCommand{m.command}, c.proclaims...)
		return
	}
	if m.command.reply != nil {
		m.command.reply <- err
	}
}

// settleProclaims answers those that nothing will come of, and those that only
// change what the acknowledgement is going to say.
func (c *candidacy) settleProclaims() {
	switch c.phase {
	case acking, leading:
		return
	case winning:
		// OnWin may be waiting for the answer. The ballot follows later.
		for _, m := range c.proclaims {
			c.data = m.data
			if m.reply != nil {
				m.reply <- nil
				m.reply = nil
			}
		}
	default:
		for _, m := range c.proclaims {
			if m.reply != nil {
				m.reply <- ErrNotLeader
			}
		}
		c.proclaims = nil
	}
}

// --- leaving

// leave ends leadership and tells why.
func (c *candidacy) leave(cause error) {
	c.quit(cause)
	c.tellStepDown(cause)
}

// quit ends leadership: IsLeader is false and the leader's context has ended
// before anything else is done.
func (c *candidacy) quit(cause error) {
	c.leader.Store(nil)
	c.lead.cancel(cause)
	c.interrupt(cause)
	c.metrics.Leading(c.name, false)
	c.draining, c.overdueAt = true, time.Now().Add(c.stepDown())
	c.setPhase(leaving)
}

// beginAskCause finds out why the leader's ballot is gone. When a session
// expires, the event of its ballot's deletion is the first that its owner hears
// of it; the end of the connection follows. An answer to the session tells that
// it was somebody who deleted the ballot.
func (c *candidacy) beginAskCause() {
	l := c.lead
	c.errand(func(ctx context.Context) any {
		err := c.session.do(ctx, func(conn *zk.Conn) error {
			err := heartbeat(conn)
			if isAnswer(err) && conn.SessionID() == l.ballot.inc.id {
				return nil
			}
			return errUncertain
		})
		return causeAsked{l, err}
	})
}

func (c *candidacy) causeAsked(m causeAsked) {
	c.errandDone()
	switch {
	case m.lead != c.lead || !c.untold:
	case m.err == nil:
		c.tellStepDown(ErrBallotDeleted)
	default:
		c.hold() // the Session will know more
	}
}

// tellStepDown queues what is to be called at the end of a term.
func (c *candidacy) tellStepDown(cause error) {
	l := c.lead
	c.untold = false
	c.metrics.SteppedDown(c.name, cause)
	c.logger.Info("election: stepping down", "ballot", l.ballot.name, "cause", cause)
	limit, now := c.overdueAt, context.WithValue(context.Background(), callbackOwner{}, c.Candidate)
	c.queue.push(func() {
		defer c.inbox.push(stepDownDone{})
		if errors.Is(cause, ErrTakeoverFailed) {
			for _, fn := range c.onTakeoverError.snapshot() {
				_ = protect(c.logger, "OnTakeoverError", func() error { (*fn)(l.term, cause); return nil })
			}
		}
		if !l.begun.Load() {
			return // OnWin was never called
		}
		ctx, cancel := context.WithDeadline(now, limit)
		defer cancel()
		for _, fn := range c.onStepDown.snapshot() {
			_ = protect(c.logger, "OnStepDown", func() error { (*fn)(ctx, l.term, cause); return nil })
		}
	})
}

// endTerm: the callbacks of the term have returned, or are not waited for.
func (c *candidacy) endTerm() {
	c.lead, c.reack, c.untold = nil, false, false
}

func (c *candidacy) resign(m resignCommand) {
	if errors.Is(m.cause, ErrClosed) {
		if !c.closing {
			c.quitAt = time.Now().Add(c.patience())
		}
		c.closing = true
	}
	c.want = false
	c.fail(m.cause)
	c.resigners = append(c.resigners, m.reply)
	switch c.phase {
	case idle:
		if c.uncertain {
			c.setPhase(withdrawing)
		}
	case casting:
		c.interrupt(m.cause)
	case waiting, claiming, leaving:
		c.withdraw = true
	case winning, acking, leading:
		c.withdraw = true
		c.leave(m.cause)
	case withdrawing, ended:
	}
}

func (c *candidacy) beginWithdraw() {
	w := withdrawal{ballot: c.ballot, acked: c.acked, ack: c.ack}
	if c.uncertain {
		w.tag = c.tag
	}
	c.errand(func(ctx context.Context) any { return withdrawDone{c.Candidate.withdraw(ctx, w)} })
}

func (c *candidacy) withdrawDone(err error) {
	c.errandDone()
	switch {
	case err == nil:
		c.uncertain, c.tag = false, ""
		c.logger.Info("election: ballot withdrawn")
		c.ballot = nil
	case isRefused(err):
		// Nothing but the session's end takes it back now.
		c.logger.Error("election: cannot withdraw the ballot", "error", err)
		replyAll(&c.resigners, err)
		if c.closing {
			c.closeErr = fmt.Errorf("election: withdraw from %s: %w", c.path, err)
			c.setPhase(ended)
			return
		}
		c.retryAt = time.Now().Add(c.session.relook())
	default:
		c.hold()
	}
}

// --- losing

// startLosing waits for the leader's acknowledgement, to tell OnLose of it.
func (c *candidacy) startLosing() {
	sub := &subscription{lasting: c.follow == FollowLeader}
	sub.notify = func(view ackView) { c.inbox.push(leaderSeen{sub, view}) }
	c.sub, c.losingTo, c.told = sub, c.place.predecessor, 0
	c.session.subscribe(c.LeaderAckPath(), sub)
}

func (c *candidacy) stopLosing() {
	if c.sub != nil {
		c.sub.end()
		c.sub = nil
	}
	c.endLoss()
}

func (c *candidacy) endLoss() {
	if c.loseCancel != nil {
		c.loseCancel()
		c.loseCancel = nil
	}
}

func (c *candidacy) leaderSeen(m leaderSeen) {
	if m.sub != c.sub {
		return
	}
	if m.view.leader == nil {
		c.endLoss()
		c.told = 0
		return
	}
	leader := m.view.leader.leader()
	if leader.Zxid == c.told {
		return
	}
	c.endLoss()
	c.told = leader.Zxid
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), callbackOwner{}, c.Candidate))
	c.loseCancel = cancel
	c.metrics.Lost(c.name)
	c.logger.Info("election: lost", "ballot", c.ballot.name, "leader", sessionName(leader.SessionID))
	c.queue.push(func() {
		for _, fn := range c.onLose.snapshot() {
			if ctx.Err() != nil {
				return // true no more
			}
			_ = protect(c.logger, "OnLose", func() error { (*fn)(ctx, leader); return nil })
		}
	})
}

// --- time

// deadlines returns the points in time at which timeout has something to do.
func (c *candidacy) deadlines() []time.Time {
	at := []time.Time{c.retryAt}
	switch c.phase {
	case waiting, claiming, leading:
		at = append(at, c.checkAt)
	case winning:
		if c.takeoverTimeout > 0 {
			at = append(at, c.claimedAt.Add(c.takeoverTimeout))
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
	case idle, casting, acking, withdrawing, ended:
	}
	if c.closing {
		at = append(at, c.quitAt)
	}
	return at
}

func (c *candidacy) setTimer() {
	now := time.Now()
	wait := time.Hour
	for _, at := range c.deadlines() {
		if at.After(now) {
			wait = min(wait, at.Sub(now))
		} else if !at.IsZero() && at != c.retryAt && at != c.checkAt {
			wait = 0
		}
	}
	c.timer.Reset(wait)
}

func (c *candidacy) timeout(now time.Time) {
	switch c.phase {
	case winning:
		switch {
		case c.takeoverTimeout > 0 && !now.Before(c.claimedAt.Add(c.takeoverTimeout)):
			c.takeoverFailed(fmt.Errorf("OnWin has not returned in %v", c.takeoverTimeout))
		case !c.lead.begun.Load() && !now.Before(c.claimedAt.Add(c.stepDown())):
			// The callback before it hangs. Others may do better.
			c.takeoverFailed(fmt.Errorf("%w in %v, so OnWin could not be called", ErrCallbackRunning, c.stepDown()))
		}
	case leaving:
		if c.untold && !now.Before(c.untoldBy) {
			c.tellStepDown(ErrBallotDeleted)
		}
		if (c.draining || c.runLead != nil) && !now.Before(c.overdueAt) && !c.stuck.Load() {
			c.logger.Error("election: callbacks have not returned after the loss of leadership; withdrawing the ballot",
				"limit", c.stepDown())
			c.stuck.Store(true)
			c.failStuckVoters()
		}
	default:
	}
	if c.closing && c.phase != leaving && !now.Before(c.quitAt) {
		if c.ballot != nil || c.uncertain || c.phase == casting {
			c.closeErr = fmt.Errorf("election: close %s: no server answered in %v: the ballot ends with the session", c.path, c.patience())
		}
		c.interrupt(ErrClosed)
		c.setPhase(ended)
	}
}

// finish answers everybody who is left.
func (c *candidacy) finish() {
	c.stopLosing()
	c.leader.Store(nil)
	c.live.Store(nil)
	c.fail(ErrClosed)
	for _, m := range c.proclaims {
		if m.reply != nil {
			m.reply <- ErrClosed
		}
	}
	replyAll(&c.resigners, c.closeErr)
	c.session.keepLease(c.Candidate, false)
}
