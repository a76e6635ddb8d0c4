package election

import (
	"errors"
	"fmt"
	"slices"
)

// callers are those of the public methods, and what each waits for.
type callers struct {
	voters    []chan error
	campaigns []*campaignCommand
	resigners []chan error
	proclaims []*proclaimCommand
	runner    *runner
}

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

// --- who wants to lead

// stand notes that somebody asks for this candidacy.
func (c *candidacy) stand() {
	c.letStand()
	c.helper.retry(stepDelete) // the ballot before has to go first
	c.publish()
}

func (c *candidacy) vote(m voteCommand) {
	if c.closing {
		m.reply <- ErrClosed
		return
	}
	c.asked = true
	c.stand()
	if b := c.own(); b != nil && b.inc.ctx.Err() == nil && !c.ballot.withdraw && c.phase != withdrawing {
		m.reply <- nil // what has gone with its session is about to be noticed
		return
	}
	c.voters = append(c.voters, m.reply)
	if c.stuck.Load() {
		c.failStuckVoters()
	}
	if c.stander.aside() {
		c.failVotersAside()
	}
}

// failStuckVoters answers those who would wait for callbacks that do not
// return, and may be called from one. The vote is cast when they have.
func (c *candidacy) failStuckVoters() {
	c.replyAll(&c.voters, fmt.Errorf("%w in %v since leadership was lost; the vote will be cast when it has", ErrCallbackRunning, c.callbackTimeout()))
}

func (c *candidacy) campaign(m *campaignCommand) {
	switch {
	case c.closing:
		m.reply <- campaignResult{err: ErrClosed}
		return
	case c.phase == leading && !c.term.lead.lost(): // nobody is told of a leader that is none
		m.reply <- campaignResult{term: c.term.lead.term}
		return
	}
	m.voted = !c.want
	c.stand()
	c.campaigns = append(c.campaigns, m)
}

func (c *candidacy) abandon(m *campaignCommand) {
	i := slices.Index(c.campaigns, m)
	if i < 0 {
		return // it has had its answer, and takes that
	}
	c.campaigns = slices.Delete(c.campaigns, i, i+1)
	switch {
	case !m.voted || c.asked || c.runner != nil || c.stander.handle != nil:
	case len(c.campaigns) > 0:
		c.campaigns[0].voted = true // the vote is for that one now
	default:
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
	c.runner = m.runner
	c.stand()
	m.reply <- nil
	if c.phase == leading {
		c.giveToRunner()
	}
}

func (c *candidacy) giveToRunner() {
	if c.runner != nil && !c.term.running {
		c.term.running = true
		c.runner.terms <- c.term.lead
	}
}

// succeed tells those who wait for this candidate to lead that it does.
func (c *candidacy) succeed() {
	c.answerCampaigns(campaignResult{term: c.term.lead.term})
	c.giveToRunner()
}

// isAsked reports whether somebody waits for this candidate to vote or lead, who can be told that it may not.
func (c *candidacy) isAsked() bool {
	return len(c.voters) > 0 || len(c.campaigns) > 0 || c.runner != nil || c.stander.handle != nil
}

// refuseCallers ends what they have asked for. What it returns tells them, when the rest has been done.
func (c *candidacy) refuseCallers(err error) (tell func()) {
	stander := c.endAsking(err)
	return func() { c.fail(err); stander.tell(err) }
}

// fail tells everybody who waits for this candidate to vote or lead that it
// will not, for now.
func (c *candidacy) fail(err error) {
	c.publish()
	c.replyAll(&c.voters, err)
	c.answerCampaigns(campaignResult{err: err})
	if c.runner != nil {
		select {
		case c.runner.ended <- err:
		default:
		}
	}
}

// Whoever waits is answered when Status has what has come of it.

func (c *candidacy) answerCampaigns(result campaignResult) {
	if len(c.campaigns) > 0 {
		c.publish()
	}
	for _, m := range c.campaigns {
		m.reply <- result
	}
	c.campaigns = nil
}

func (c *candidacy) replyAll(waiters *[]chan error, err error) {
	if len(*waiters) > 0 {
		c.publish()
	}
	for _, reply := range *waiters {
		if reply != nil {
			reply <- err
		}
	}
	*waiters = nil
}

// --- who wants to be rid of it

// resign is for Resign and Close, and for what only a Campaign or Run that has
// ended had asked for.
func (c *candidacy) resign(m resignCommand) {
	if errors.Is(m.cause, ErrClosed) {
		if !c.closing {
			begun := c.now
			if c.phase == withdrawing {
				// What a Resign has waited in vain is not waited again.
				begun = c.retreat.since
				if answered := c.session.lastAnswerAt(); answered.After(begun) {
					begun = answered
				}
			}
			c.giveUpAt = begun.Add(c.closeTimeout())
		}
		c.closing = true
	}
	stander := c.endAsking(m.cause)
	c.absence.failures = 0
	c.resigners = append(c.resigners, m.reply)
	c.giveUpBallot(m.cause)
	c.fail(m.cause)
	stander.tell(m.cause)
}

// giveUpBallot withdraws the ballot that there is or may be, if it leads in order.
func (c *candidacy) giveUpBallot(cause error) {
	switch c.phase {
	case idle:
		if c.stray.possible {
			c.setPhase(withdrawing)
		}
	case casting, moving:
		c.ballot.withdraw = true // whatever is cast, also if somebody votes meanwhile
		c.interrupt(cause)
	case waiting, claiming:
		c.ballot.withdraw = true
	case winning, acking, leading:
		c.ballot.withdraw = true
		c.leave(cause)
	case leaving:
		if c.ballot != nil {
			c.ballot.withdraw = true
		}
	case withdrawing:
		c.helper.retry(stepDelete) // for whoever asks now
	case ended:
	}
}

// --- who has new data

// settleProclaims answers those that nothing will come of, and those that only
// change what the acknowledgement is going to say.
func (c *candidacy) settleProclaims() {
	switch c.phase {
	case acking, leading:
		return
	case winning:
		// OnWin may be waiting for the answer. The acknowledgement is going to have
		// the data; the ballot follows.
		for _, m := range c.proclaims {
			c.data = m.data
		}
		c.answerProclaims(nil)
	default:
		c.answerProclaims(ErrNotLeader)
	}
}

func (c *candidacy) answerProclaims(err error) {
	if len(c.proclaims) > 0 {
		c.publish()
	}
	for _, m := range c.proclaims {
		m.reply <- err
	}
	c.proclaims = nil
}
