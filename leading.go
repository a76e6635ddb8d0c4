package election

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-zookeeper/zk"
)

// Leading: from the claim under a lease to the acknowledgement, and what the
// leader does with that.

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
	if !l.lease.valid() || l.ctx.Err() != nil {
		return // lost already: there is nothing to take over
	}
	l.begun.Store(true) // from here on OnStepDown follows, so the first is called
	for i, fn := range c.onWin.snapshot() {
		if i > 0 && l.ctx.Err() != nil {
			break // lost meanwhile
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
	c.want, c.asked, c.withdraw = false, false, true
	c.leave(err)
	c.fail(err)
}

// stalled: OnWin could not be called, because the callback before it hangs.
// Others may do better meanwhile; this candidate votes again when it is free.
func (c *candidacy) stalled() {
	err := fmt.Errorf("%w: %w in %v, so OnWin could not be called", ErrTakeoverFailed, ErrCallbackRunning, c.stepDown())
	c.logger.Error("election: takeover failed", "ballot", c.ballot.name, "error", err)
	c.stuck.Store(true)
	c.withdraw = true
	c.leave(err)
	for _, m := range c.campaigns { // it may be Campaign that hangs
		m.reply <- campaignResult{err: err}
	}
	c.campaigns = nil
}

func (c *candidacy) beginAck() {
	l, data, ack, acked := c.lead, c.data, c.ack, c.acked
	c.acked, c.ackUnsure = true, true // from now on there may be one
	c.errand(func(ctx context.Context) any {
		return ackDone{l, c.acknowledge(ctx, l.ballot, data, ack, acked)}
	})
}

func (c *candidacy) ackDone(m ackDone) {
	c.errandDone()
	switch {
	case m.lead != c.lead || c.phase != acking && c.phase != leading:
		c.ackUnsure = m.err != nil
		return
	case errors.Is(m.err, errBallotGone):
		c.ballotLost(c.goneCause())
	case isRefused(m.err) && c.phase == acking:
		c.takeoverFailed(m.err)
	case m.err != nil:
		c.hold()
	default:
		c.reack, c.ack, c.ackWatch, c.ackUnsure = false, 0, nil, false
		if c.phase == acking {
			took := time.Since(c.claimedAt)
			c.metrics.TakenOver(c.name, took)
			c.logger.Info("election: leading", "ballot", c.ballot.name, "token", c.lead.term.Token,
				"takeover", took.Round(time.Microsecond))
			c.setPhase(leading)
		}
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
