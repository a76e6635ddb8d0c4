package election

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-zookeeper/zk"
)

// Leaving: the end of a term, what is called then, and the withdrawal of the
// ballot.

// leave ends leadership, and has OnStepDown called with the cause. Every step-down passes it, but for that of a leader
// whose ballot has gone: its cause is asked for in between (ballotLost).
func (c *candidacy) leave(cause error) {
	c.quit(cause)
	c.tellStepDown(cause)
}

// quit ends leadership: IsLeader is false and the leader's context has ended
// before anything else is done.
func (c *candidacy) quit(cause error) {
	c.term.draining = true
	if isVoluntary(cause) {
		c.stepping.Store(&stepDown{c.term.lead, time.Now().Add(c.callbackTimeout())})
	}
	c.leader.Store(nil)
	c.term.lead.cancel(cause)
	// Not from the beginning of this turn, nor from before: whoever has seen it lead has been told of as much (ExclusiveUntil).
	c.term.overdueAt = time.Now().Add(c.callbackTimeout())
	if errors.Is(cause, ErrLeaseLapsed) {
		c.ballot.demotion.countLapse(c.now, c.session.Timeout())
	}
	if !isVoluntary(cause) {
		c.failed(cause)
	}
	c.interrupt(cause)
	c.setPhase(leaving)
}

// isVoluntary reports whether a leader has given up its leadership because this
// program, or whoever asked for a transfer, wanted it to. What an OnWin that failed has returned does not count.
func isVoluntary(cause error) bool {
	return !errors.Is(cause, ErrTakeoverFailed) &&
		(errors.Is(cause, ErrResigned) || errors.Is(cause, ErrClosed) || errors.Is(cause, ErrTransferred))
}

// beginAskCause finds out why the leader's ballot is gone. When a session
// expires, the event of its ballot's deletion is the first that its owner hears
// of it; the end of the connection follows, and is taken for it. An answer to
// the session tells that it was somebody who deleted the ballot.
func (c *candidacy) beginAskCause() { c.begin(causeOrder{c.term.lead}) }

func (c *candidacy) causeAsked(m causeAsked) {
	c.errandDone()
	switch {
	case !c.term.is(m.lead) || !c.term.causePending:
	case m.err == nil:
		c.tellStepDown(ErrBallotDeleted)
	default:
		c.tellStepDown(ErrSessionLost)
	}
}

// tellStepDown queues what is to be called at the end of a term.
func (c *candidacy) tellStepDown(cause error) {
	l, limit := c.term.lead, c.term.overdueAt
	c.term.causePending = false
	c.metrics.SteppedDown(c.name, cause)
	if isVoluntary(cause) {
		c.logger.Info("election: stepping down", "ballot", l.ballot.name, "cause", cause)
	} else {
		c.logger.Warn("election: stepping down", "ballot", l.ballot.name, "cause", cause)
	}
	if c.onStepDown.none() && c.onTakeoverError.none() && c.queue.rests() {
		// Nothing is to be called, and nothing runs that would have to end before. The way over
		// the callbacks' goroutine and back would be on the way to the successor's OnWin.
		c.term.draining = false
		c.callbackReturned()
		return
	}
	c.queue.push(func() { c.callStepDown(l, limit, cause) })
}

// stepDownDone is the message that the last of these functions has returned.
type stepDownDone struct{ lead *leadership }

// callStepDown runs on the callback goroutine.
func (c *Candidate) callStepDown(l *leadership, limit time.Time, cause error) {
	defer c.inbox.push(stepDownDone{l})
	ctx, cancel := context.WithDeadline(context.WithValue(context.Background(), callbackOwner{}, c), limit)
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
		if l.win.Load() != winCalled {
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
}

// callbacksLate: what was called at the end of the term, or Run's function, has
// not returned. The ballot does not wait for it any longer.
func (c *candidacy) callbacksLate() {
	c.logger.Error("election: callbacks have not returned after the loss of leadership; withdrawing the ballot",
		"limit", c.callbackTimeout(), "callback", c.hanging())
	c.stuck.Store(true)
	c.term.hangAt = c.now.Add(2 * c.session.Timeout())
	if c.want {
		c.hangs(fmt.Errorf("%w in %v after leadership was lost", ErrCallbackRunning, c.callbackTimeout()))
	}
	c.failStuckVoters()
}

// hanging names the callback that runs.
func (c *candidacy) hanging() string {
	if run := c.inside.Load(); run != nil {
		return run.String()
	}
	if c.term != nil && c.term.running {
		return "the function given to Run"
	}
	return "none"
}

// --- the withdrawal

// withdrawal is what there is to take back now.
func (c *candidacy) withdrawal() withdrawal {
	var w withdrawal
	if c.stray.possible || c.phase == casting {
		w.stray = c.stray
	}
	if b := c.ballot; b != nil && b.node != nil {
		w.ballot, w.ack, w.watched, w.front = b.node, b.ack.ackRecord, b.ack.watch != nil, b.line.first() || !b.line.known
		w.place = b.line.known
	}
	return w
}

func (c *candidacy) beginWithdraw() { c.begin(c.withdrawal()) }

func (c *candidacy) withdrawDone(err error) {
	c.errandDone()
	if err == nil {
		c.stray, c.ballot = stray{}, nil
		c.last.over()
		c.logger.Info("election: ballot withdrawn")
		return
	}
	c.holdBack(stepDelete, "withdraw", err)
	if !isPermanent(err) {
		return
	}
	// Nothing but the session's end takes it back now.
	c.logger.Error("election: cannot withdraw the ballot", "error", err)
	c.retreat.refusal = err
	c.failed(err)
	c.replyAll(&c.resigners, err)
	switch {
	case c.closing:
		c.closeErr = errorf("withdraw from %s: %w", c.path, err)
		c.setPhase(ended)
	case c.isAsked():
		c.refuseCallers(err)() // nothing is cast beside a ballot that stands
	}
}

// closeDue is when Close gives up. While callbacks run it waits for them.
func (c *candidacy) closeDue() time.Time {
	if c.closing && c.phase != leaving {
		return c.giveUpAt
	}
	return time.Time{}
}

// giveUpClosing ends a Close that no server has answered.
func (c *candidacy) giveUpClosing() {
	switch {
	case c.leavesNothing():
	case c.retreat.refusal != nil:
		c.closeErr = errorf("withdraw from %s: %w", c.path, c.retreat.refusal)
	default:
		c.closeErr = c.last.after(errorf("close %s: no server answered in %v: the ballot ends with the session", c.path, c.closeTimeout()))
	}
	c.abandonBallot()
	c.setPhase(ended)
}

// leavesNothing reports whether there is no ballot, and none that may have been cast.
func (c *candidacy) leavesNothing() bool {
	return c.own() == nil && !c.stray.possible && c.phase != casting
}

// hurry ends a Close whose time is over, whatever has not answered or returned.
func (c *candidacy) hurry() {
	if !c.closing {
		c.resign(resignCommand{cause: ErrClosed})
	}
	if c.phase == leaving && c.term.causePending {
		c.tellStepDown(ErrBallotDeleted)
	}
	if c.phase != idle && !c.leavesNothing() {
		c.closeErr = c.last.after(errorf("close %s: the time to shut down was over: the ballot ends with the session", c.path))
	}
	c.stepping.Store(nil) // before the ballot goes
	until := c.giveUpAt
	if c.phase == leaving {
		until = c.now.Add(c.closeTimeout()) // which had not begun to count
	}
	if over := c.abandonBallot(); over != nil {
		c.session.closing.leave(withdrawalLeft{over, until})
	}
	c.setPhase(ended)
}

// abandonBallot is for a Close that gives up: should a server answer while the
// Session lives, the ballot is withdrawn then, or it would block the others
// until the Session ends. What is returned is closed when that is over; nil: there is nothing to withdraw.
func (c *candidacy) abandonBallot() (over <-chan struct{}) {
	if c.phase == withdrawing && c.helper.busy() {
		return c.helper.over // that errand goes on
	}
	c.interrupt(ErrClosed)
	w := c.withdrawal()
	if w.ballot == nil && w.tag == "" {
		return nil
	}
	before, errands, withdrawn := c.helper.over, c.errands, make(chan struct{})
	if !c.session.goHelper(func() {
		defer close(withdrawn)
		if before != nil {
			<-before // it may be about to ask for what is withdrawn here
		}
		_ = errands.withdraw(context.Background(), w)
	}) {
		return nil
	}
	return withdrawn
}

// withdrawal is what to take back.
type withdrawal struct {
	ballot *ballot // nil: none that is known
	// stray is one that may exist besides; without a tag none can.
	stray
	// ack is what is known of the ballot's acknowledgement.
	ack ackRecord
	// watched: a watch on that has not fired, so it still stands.
	watched bool
	// front: no other ballot is in front, or, without place, perhaps none.
	front bool
	// place: the ballot's place is known.
	place bool
}

func (w withdrawal) run(ctx context.Context, e errands) any { return withdrawDone{e.withdraw(ctx, w)} }

type withdrawDone struct{ err error }

// withdraw deletes the ballot and the acknowledgement that we wrote, and what
// may exist besides. It ends when the server has confirmed that all of it is gone,
// or the session is.
func (e errands) withdraw(ctx context.Context, w withdrawal) error {
	if w.ballot != nil {
		if err := e.withdrawBallot(ctx, w); err != nil {
			return err
		}
	}
	switch {
	case w.name != "":
		// Its owner need not be asked: nobody else makes one with our tag.
		return e.removeStray(ctx, w.name)
	case w.tag == "":
		return nil
	}
	for {
		inc, err := e.session.barrier(ctx)
		if err != nil {
			return err
		}
		err = e.session.retry(ctx, func(conn *zk.Conn) error { return e.deleteTagged(conn, w.tag, inc) })
		if inc.ctx.Err() != nil && ctx.Err() == nil {
			continue
		}
		return err
	}
}

// deleteTagged deletes the ballots with a tag that a session owns. What another
// one owns ends with that one.
func (e errands) deleteTagged(conn *zk.Conn, tag string, inc *incarnation) error {
	children, _, err := conn.Children(e.path)
	if err != nil && !errors.Is(err, zk.ErrNoNode) {
		return err
	}
	for _, b := range tagged(children, tag) {
		path := e.path + "/" + b.name
		exists, stat, err := conn.Exists(path)
		if err == nil && exists && stat.EphemeralOwner == inc.id {
			if all := ballotsOf(children); isFront(all, b.name) && gemIsNext(all, b.name) {
				err = named(e.deleteWaking(conn, path))
			}
			if isSettled(err) { // it may be refused what wakes
				err = conn.Delete(path, -1)
			}
		}
		if err != nil && !errors.Is(err, zk.ErrNoNode) {
			return err
		}
	}
	return nil
}

func (e errands) withdrawBallot(ctx context.Context, w withdrawal) error {
	// A session's end withdraws everything.
	under, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(w.ballot.inc.ctx, func() { cancel(errBallotGone) })()

	err := e.deleteBallot(under, w)
	if err != nil && w.ballot.inc.ctx.Err() != nil {
		return nil
	}
	return err
}

func (e errands) deleteBallot(ctx context.Context, w withdrawal) error {
	withAck := w.ack.possible
	for {
		if withAck {
			var err error
			if w, err = e.confirmAck(ctx, w); err != nil {
				return err
			}
			withAck = w.ack.possible
		}
		if !withAck && w.front {
			w.front = false
			if e.wakeGem(ctx, w.ballot.name, w.place) {
				return nil
			}
		}
		results, err := e.deleteOnce(ctx, w, withAck)
		switch {
		case failedAt(results, 0, zk.ErrBadVersion):
			// Another one is in its place, or somebody has changed its data.
			w.ack.version, w.watched = 0, false
		case withAck && failedAt(results, 0, zk.ErrNotEmpty):
			withAck, w.ack.possible = false, false // somebody's, since ours has no children
		case failedAt(results, 0, zk.ErrNoNode):
			withAck = false // the ballot remains to be deleted
		case !errors.Is(err, zk.ErrNoNode):
			return err
		case !w.ack.possible:
			return nil
		default:
			return e.deleteLeftAck(ctx, w)
		}
	}
}

// deleteOnce deletes the ballot, and with withAck the acknowledgement, which stands first in the results.
func (e errands) deleteOnce(ctx context.Context, w withdrawal, withAck bool) (results []zk.MultiResponse, err error) {
	err = e.session.retry(ctx, func(conn *zk.Conn) (err error) {
		if !withAck {
			return conn.Delete(w.ballot.path, -1)
		}
		results, err = conn.Multi(w.ack.deletion(e.ackPath()), &zk.DeleteRequest{Path: w.ballot.path, Version: -1})
		return err
	})
	return results, err
}

// deleteLeftAck is for a ballot that is not there. Somebody has deleted it, or our own deletion's
// reply was lost and it took the acknowledgement along: only what we made is deleted. A successor may
// replace it between the look and the deletion; its own never has the same version (replacing).
func (e errands) deleteLeftAck(ctx context.Context, w withdrawal) error {
	for wait := e.session.newBackoff(); ; wait.pause(ctx) {
		if _, err := e.session.barrier(ctx); err != nil {
			return err
		}
		ack, err := e.ownAck(ctx, w)
		if err != nil || ack == nil {
			return err
		}
		// Not a second time without a look: a successor may have come to a place that the first has made free.
		err = e.session.do(ctx, func(conn *zk.Conn) error { return conn.Delete(e.ackPath(), ack.stat.Version) })
		switch {
		case err == nil || errors.Is(err, zk.ErrNoNode):
			return nil
		case isPermanent(err):
			return err
		case ctx.Err() != nil:
			return contextError(ctx)
		}
		// Its answer was lost, another one is in its place, or somebody has changed its data.
	}
}

// confirmAck finds out whether there is an acknowledgement of ours to go with the
// ballot, unless a watch guards what is known of it, or the deletion itself finds out
// by the version.
func (e errands) confirmAck(ctx context.Context, w withdrawal) (withdrawal, error) {
	if !w.ack.possible || w.ack.czxid != 0 && (w.watched || w.ack.version != 0) {
		return w, nil
	}
	if w.ack.unsure {
		// A server that lags would not show it yet.
		if _, err := e.session.barrier(ctx); err != nil {
			return w, err
		}
	}
	ack, err := e.ownAck(ctx, w)
	if err != nil {
		return w, err
	}
	// What is found later may be of another candidate on this session.
	w.ack.possible, w.ack.czxid, w.ack.unsure, w.watched = ack != nil, 0, false, true
	if ack != nil {
		w.ack.czxid = ack.stat.Czxid
	}
	return w, nil
}

// deletion is the request to delete the acknowledgement: on the condition that it has
// the version that we have left it in, if that is known.
func (r ackRecord) deletion(path string) *zk.DeleteRequest {
	if r.version == 0 {
		return &zk.DeleteRequest{Path: path, Version: -1}
	}
	return &zk.DeleteRequest{Path: path, Version: r.version}
}

// ownAck returns the acknowledgement if this candidate made it, or nil.
func (e errands) ownAck(ctx context.Context, w withdrawal) (*node, error) {
	var found *node
	err := e.session.retry(ctx, func(conn *zk.Conn) (err error) {
		found, err = readNode(conn, e.ackPath())
		return err
	})
	if err != nil || found == nil || !isOurs(found, w.ballot, w.ack.data, w.ack.czxid, w.ack.unsure || w.ack.czxid == 0) {
		return nil, err
	}
	return found, nil
}

// removeStray deletes a ballot of ours that nobody serves. It may be the one that all others wait for.
func (e errands) removeStray(ctx context.Context, name string) error {
	if e.wakeGem(ctx, name, false) {
		return nil
	}
	return e.remove(ctx, e.path+"/"+name)
}

// wakeGem deletes a ballot that is at the front and has acknowledged nothing,
// if the next in line is a member of the Ruby gem. That one waits for an
// acknowledgement before it looks at anything else, so it is given one, which is
// gone again in the same transaction. front tells that it is known to be at the front; otherwise
// that is looked up, too. It reports whether the ballot is deleted.
func (e errands) wakeGem(ctx context.Context, name string, front bool) bool {
	var names []string
	if err := e.session.retry(ctx, func(conn *zk.Conn) (err error) {
		if !front {
			// Who has gone meanwhile is not to be taken for one in front.
			if _, err := conn.Sync(e.path); err != nil {
				return err
			}
		}
		names, _, err = conn.Children(e.path)
		return err
	}); err != nil {
		return false
	}
	ballots := ballotsOf(names)
	if !gemIsNext(ballots, name) || !front && !isFront(ballots, name) {
		return false
	}
	return e.session.retry(ctx, func(conn *zk.Conn) error { return e.deleteWaking(conn, e.path+"/"+name) }) == nil
	// Otherwise an acknowledgement stands, for which the gem member has not waited in vain.
}

// deleteWaking deletes a ballot, and makes an acknowledgement for no time.
func (e errands) deleteWaking(conn *zk.Conn, path string) error {
	ack := e.ackPath()
	_, err := conn.Multi(
		&zk.CreateRequest{Path: ack, Data: []byte{}, Acl: e.nodeACL(), Flags: zk.FlagEphemeral},
		&zk.DeleteRequest{Path: ack, Version: -1},
		&zk.DeleteRequest{Path: path, Version: -1})
	return err
}

// causeOrder asks whether a session has outlived the ballot of its leader.
type causeOrder struct{ lead *leadership }

type causeAsked struct {
	lead *leadership
	err  error // nil: the session answers
}

func (o causeOrder) run(ctx context.Context, e errands) any {
	err := e.session.do(ctx, func(conn *zk.Conn) error {
		err := heartbeat(conn)
		if isDefinite(err) && conn.SessionID() == o.lead.ballot.inc.id {
			return nil
		}
		return errUncertain
	})
	return causeAsked{o.lead, err}
}
