package election

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Voting: who asks for it, casting the ballot, and who is told that it came to nothing.

func (c *candidacy) vote(m voteCommand) {
	if c.closing {
		m.reply <- ErrClosed
		return
	}
	c.want, c.asked, c.absence, c.voteAt = true, true, nil, time.Time{}
	c.publish()
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
	c.publish()
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
	c.want, c.absence, c.voteAt = true, nil, time.Time{}
	c.publish()
	c.campaigns = append(c.campaigns, m)
}

func (c *candidacy) abandon(m *campaignCommand) {
	i := slices.Index(c.campaigns, m)
	if i < 0 {
		return // it has had its answer, and takes that
	}
	c.campaigns = slices.Delete(c.campaigns, i, i+1)
	switch {
	case !m.voted || c.asked || c.runner != nil:
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
	c.runner, c.want, c.absence, c.voteAt = m.runner, true, nil, time.Time{}
	c.publish()
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
	c.publish()
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
