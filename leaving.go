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

// withdrawal is what to take back.
type withdrawal struct {
	ballot *ballot // nil: none that is known
	// tag of a ballot that may exist though no reply told of it; "" if none can.
	tag string
	// name of such a ballot, if it is known: then there is no other.
	name string
	// acked: an acknowledgement may have been written; ack is its czxid, 0
	// when that is not known.
	acked bool
	ack   int64
	// unsure: the reply to the acknowledgement's creation was lost.
	unsure bool
	// watched: a watch on it, which has not fired, tells that it still stands.
	watched bool
	data    [][]byte // that acknowledgement has one of these
	// front: no other ballot is in front.
	front bool
}

// withdraw deletes the ballot and the acknowledgement that we wrote, and ends
// when the server has confirmed that both are gone, or the session is.
func (c *Candidate) withdraw(ctx context.Context, w withdrawal) error {
	if w.ballot != nil {
		if err := c.withdrawBallot(ctx, w); err != nil {
			return err
		}
	}
	if w.name != "" {
		// Its owner need not be asked: nobody else makes one with our tag.
		return c.remove(ctx, c.path+"/"+w.name)
	}
	if w.tag == "" {
		return nil
	}
	for {
		inc, err := c.session.barrier(ctx)
		if err != nil {
			return err
		}
		err = c.session.settled(ctx, func(conn *zk.Conn) error {
			children, _, err := conn.Children(c.path)
			if err != nil {
				return err // NoNode: there is nothing
			}
			for _, b := range tagged(ballotsOf(children), w.tag) {
				path := c.path + "/" + b.name
				exists, stat, err := conn.Exists(path)
				// What another session owns ends with that session.
				if err == nil && exists && stat.EphemeralOwner == inc.id {
					err = conn.Delete(path, -1)
				}
				if err != nil && !errors.Is(err, zk.ErrNoNode) {
					return err
				}
			}
			return nil
		})
		if inc.ctx.Err() != nil && ctx.Err() == nil {
			continue
		}
		if errors.Is(err, zk.ErrNoNode) {
			return nil
		}
		return err
	}
}

func (c *Candidate) withdrawBallot(ctx context.Context, w withdrawal) error {
	// A session's end withdraws everything.
	under, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(w.ballot.inc.ctx, func() { cancel(errBallotGone) })()

	err := c.deleteBallot(under, w)
	if err != nil && w.ballot.inc.ctx.Err() != nil {
		return nil
	}
	return err
}

func (c *Candidate) deleteBallot(ctx context.Context, w withdrawal) error {
	path := c.LeaderAckPath()
	ballotOp := &zk.DeleteRequest{Path: w.ballot.path, Version: -1}
	withAck := w.acked
	for {
		if withAck {
			var err error
			if w, err = c.settleAck(ctx, w); err != nil {
				return err
			}
			withAck = w.acked
		}
		if !withAck && w.front {
			w.front = false
			if c.wakeGem(ctx, w.ballot) {
				return nil
			}
		}
		var results []zk.MultiResponse
		err := c.session.settled(ctx, func(conn *zk.Conn) (err error) {
			if !withAck {
				return conn.Delete(w.ballot.path, -1)
			}
			results, err = conn.Multi(&zk.DeleteRequest{Path: path, Version: -1}, ballotOp)
			return err
		})
		switch {
		case withAck && failedAt(results, 0, zk.ErrNoNode):
			withAck = false // the ballot remains to be deleted
			continue
		case err != nil && !errors.Is(err, zk.ErrNoNode):
			return err
		case err == nil || !w.acked:
			return nil
		}
		// Somebody deleted the ballot, or our own deletion's reply was lost
		// and it took the acknowledgement along: only what we made is deleted.
		if _, err := c.session.barrier(ctx); err != nil {
			return err
		}
		ack, err := c.ownAck(ctx, w)
		if err == nil && ack != 0 {
			err = c.remove(ctx, path)
		}
		return err
	}
}

// settleAck finds out whether there is an acknowledgement of ours to go with the
// ballot, unless a watch guards what is known of it.
func (c *Candidate) settleAck(ctx context.Context, w withdrawal) (withdrawal, error) {
	if !w.acked || w.ack != 0 && w.watched {
		return w, nil
	}
	if w.unsure {
		// A server that lags would not show it yet.
		if _, err := c.session.barrier(ctx); err != nil {
			return w, err
		}
	}
	ack, err := c.ownAck(ctx, w)
	if err != nil {
		return w, err
	}
	// What is found later may be of another candidate on this session.
	w.acked, w.ack, w.unsure, w.watched = ack != 0, ack, false, true
	return w, nil
}

// ownAck returns the czxid of the acknowledgement if this candidate made it.
func (c *Candidate) ownAck(ctx context.Context, w withdrawal) (int64, error) {
	var found *node
	err := c.session.settled(ctx, func(conn *zk.Conn) (err error) {
		found, err = readNode(conn, c.LeaderAckPath())
		return err
	})
	if err != nil || found == nil || !isOurs(found, w.ballot, w.data, w.ack, w.unsure || w.ack == 0) {
		return 0, err
	}
	return found.stat.Czxid, nil
}

// wakeGem deletes a ballot that is at the front and has acknowledged nothing,
// if the next in line is a member of the Ruby gem. That one waits for an
// acknowledgement before it looks at anything else, so it is given one, which is
// gone again in the same transaction. It reports whether the ballot is deleted.
func (c *Candidate) wakeGem(ctx context.Context, b *ballot) bool {
	var names []string
	if err := c.session.settled(ctx, func(conn *zk.Conn) (err error) {
		names, _, err = conn.Children(c.path)
		return err
	}); err != nil || !gemIsNext(ballotsOf(names), b.name) {
		return false
	}
	path := c.LeaderAckPath()
	return c.session.settled(ctx, func(conn *zk.Conn) error {
		_, err := conn.Multi(
			&zk.CreateRequest{Path: path, Data: []byte{}, Acl: c.nodeACL(), Flags: zk.FlagEphemeral},
			&zk.DeleteRequest{Path: path, Version: -1},
			&zk.DeleteRequest{Path: b.path, Version: -1})
		return err
	}) == nil // or one stands, for which the gem member has not waited in vain
}
