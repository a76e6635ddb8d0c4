package election

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-zookeeper/zk"
)

// Leaving: the end of a term, resigning, and withdrawing the ballot.

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
	if errors.Is(cause, ErrLeaseLapsed) {
		c.countLapse()
	}
	if !errors.Is(cause, ErrResigned) && !errors.Is(cause, ErrClosed) {
		c.failed(cause)
	}
	c.interrupt(cause)
	c.metrics.Leading(c.name, false)
	c.draining, c.overdueAt = true, time.Now().Add(c.stepDown())
	c.setPhase(leaving)
}

// beginAskCause finds out why the leader's ballot is gone. When a session
// expires, the event of its ballot's deletion is the first that its owner hears
// of it; the end of the connection follows, and is taken for it. An answer to
// the session tells that it was somebody who deleted the ballot.
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
		c.tellStepDown(ErrSessionLost)
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
		ctx, cancel := context.WithDeadline(now, limit)
		defer cancel()
		var turns []func()
		if errors.Is(cause, ErrTakeoverFailed) {
			for i, fn := range c.onTakeoverError.snapshot() {
				turns = append(turns, func() {
					_ = c.call("OnTakeoverError", i, *fn, func() error { (*fn)(l.term, cause); return nil })
				})
			}
		}
		turns = append(turns, func() {
			if !l.begun.Load() {
				return // OnWin was never called
			}
			var turns []func()
			for i, fn := range c.onStepDown.snapshot() {
				turns = append(turns, func() {
					_ = c.call("OnStepDown", i, *fn, func() error { (*fn)(ctx, l.term, cause); return nil })
				})
			}
			inTurn(turns...)
		})
		inTurn(turns...)
	})
}

// absent notes why this candidate does not stand for now, though it wants to.
func (c *candidacy) absent(err error) {
	if c.want {
		c.absence = err
	}
}

// hanging names the callback that runs.
func (c *candidacy) hanging() string {
	if run := c.inside.Load(); run != nil {
		return run.String()
	}
	if c.runLead != nil {
		return "the function given to Run"
	}
	return "none"
}

// hurry ends a Close whose time is over, whatever has not answered or returned.
func (c *candidacy) hurry() {
	if c.phase == ended {
		return
	}
	if !c.closing {
		c.resign(resignCommand{cause: ErrClosed})
	}
	if c.untold {
		c.tellStepDown(ErrBallotDeleted)
	}
	if c.phase != idle {
		c.closeErr = fmt.Errorf("election: close %s: the time to shut down was over: the ballot ends with the session", c.path)
	}
	c.abandonBallot()
	c.setPhase(ended)
}

// drained notes that a callback of the last term, or the function given to
// Run, has returned.
func (c *candidacy) drained() {
	if !c.draining && c.runLead == nil {
		if c.stuck.Swap(false) {
			c.hangAt = time.Time{}
		}
	}
}

// endTerm: the callbacks of the term have returned, or are not waited for.
func (c *candidacy) endTerm() {
	c.lead, c.reack, c.untold = nil, false, false
}

func (c *candidacy) resign(m resignCommand) {
	if errors.Is(m.cause, ErrClosed) {
		if !c.closing {
			begun := time.Now()
			if c.phase == withdrawing {
				// What a Resign has waited in vain is not waited again.
				begun = c.leftAt
				if answered := c.session.lastAnswerAt(); answered.After(begun) {
					begun = answered
				}
			}
			c.quitAt = begun.Add(c.patience())
		}
		c.closing = true
	}
	c.want, c.asked, c.absence, c.failures = false, false, m.cause, 0
	c.fail(m.cause)
	c.resigners = append(c.resigners, m.reply)
	switch c.phase {
	case idle:
		if c.uncertain {
			c.setPhase(withdrawing)
		}
	case casting, moving:
		c.withdraw = true // whatever is cast, also if somebody votes meanwhile
		c.interrupt(m.cause)
	case waiting, claiming, leaving:
		c.withdraw = true
	case winning, acking, leading:
		c.withdraw = true
		c.leave(m.cause)
	case withdrawing, ended:
	}
}

func (c *candidacy) withdrawal() withdrawal {
	w := withdrawal{
		ballot: c.ballot, acked: c.acked, ack: c.ack, unsure: c.ackUnsure, watched: c.ackWatch != nil, data: c.ackData,
		front: c.placed && c.place.below == 0,
	}
	if c.uncertain || c.phase == casting {
		w.tag, w.name = c.tag, c.leftover
	}
	return w
}

// abandonBallot is for a Close that gives up: should a server answer while the
// Session lives, the ballot is withdrawn then, or it would block the others
// until the Session ends.
func (c *candidacy) abandonBallot() {
	if c.phase == withdrawing && c.busy {
		return // that errand goes on
	}
	c.interrupt(ErrClosed)
	if w := c.withdrawal(); w.ballot != nil || w.tag != "" {
		c.session.help(func() { _ = c.Candidate.withdraw(context.Background(), w) })
	}
}

func (c *candidacy) beginWithdraw() {
	w := c.withdrawal()
	c.errand(func(ctx context.Context) any { return withdrawDone{c.Candidate.withdraw(ctx, w)} })
}

func (c *candidacy) withdrawDone(err error) {
	c.errandDone()
	switch {
	case err == nil:
		c.uncertain, c.tag, c.leftover, c.refusal = false, "", "", nil
		c.last.over()
		c.logger.Info("election: ballot withdrawn")
		c.ballot = nil
	case isRefused(err):
		// Nothing but the session's end takes it back now.
		c.logger.Error("election: cannot withdraw the ballot", "error", err)
		c.refusal = err
		c.failed(err)
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
