package election

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
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
	c.lead, c.claimedAt, c.begunAt = l, time.Now(), time.Time{}
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
	c.inbox.push(winBegun{l, time.Now()})
	for i, fn := range c.onWin.snapshot() {
		if i > 0 && l.ctx.Err() != nil {
			break // lost meanwhile
		}
		if failure := c.call("OnWin", i, *fn, func() error { return (*fn)(l.ctx, l.term) }); failure != nil {
			err = failure
			return
		}
	}
	err = nil
}

// winBegun: TakeoverTimeout counts from here. What was called before OnWin, a
// slow OnLose for one, is not the takeover's fault.
func (c *candidacy) winBegun(m winBegun) {
	if m.lead == c.lead && c.phase == winning {
		c.begunAt, c.hangAt = m.at, m.at.Add(c.session.Timeout())
	}
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

// reportHang says what hangs: an OnWin, with which nobody leads in truth though
// this candidate holds the leadership, or what goes on after it was lost.
func (c *candidacy) reportHang(now time.Time) {
	c.hangAt = now.Add(2 * c.session.Timeout())
	switch {
	case c.phase == winning:
		c.hung.Store(true)
		c.logger.Warn("election: OnWin has not returned", "callback", c.hanging(), "for", now.Sub(c.begunAt).Round(time.Millisecond))
	case c.stuck.Load():
		c.logger.Warn("election: a callback of a lost term still has not returned", "callback", c.hanging())
	default:
		c.hangAt = time.Time{}
	}
}

func (c *candidacy) lossCause() error {
	if cause := context.Cause(c.lead.ctx); cause != nil {
		return cause
	}
	return ErrLeaseLapsed
}

// takeoverFailed steps down and withdraws, so that the next one can try. If Vote
// has asked for this candidacy it goes on, at the end of the line and after a
// pause; one that only a Campaign or a Run asked for ends with that.
func (c *candidacy) takeoverFailed(err error) {
	err = fmt.Errorf("%w: %w", ErrTakeoverFailed, err)
	c.logger.Error("election: takeover failed", "ballot", c.ballot.name, "error", err)
	c.withdraw, c.absence = true, err
	c.failed(err)
	if c.want = c.asked && c.retry >= 0; c.want {
		c.voteAt = time.Now().Add(c.retryPause())
	}
	c.asked = c.want
	c.leave(err)
	c.fail(err)
}

// retryDoublings is how often the pause after a failed takeover doubles.
const retryDoublings = 5

// retryPause is how long to stay out after a takeover that has failed: longer
// after each one in a row.
func (c *candidacy) retryPause() time.Duration {
	pause := c.retry
	if pause == 0 {
		pause = c.session.Timeout()
	}
	if pause < math.MaxInt64>>(retryDoublings+1) {
		pause <<= min(c.failures, retryDoublings)
	}
	c.failures++
	return jitter(pause)
}

// stalled: OnWin could not be called, because the callback before it hangs.
// Others may do better meanwhile; this candidate votes again when it is free, if
// Vote or Run has asked for that.
func (c *candidacy) stalled() {
	err := fmt.Errorf("%w: %w in %v, so OnWin could not be called", ErrTakeoverFailed, ErrCallbackRunning, c.stepDown())
	c.logger.Error("election: takeover failed", "ballot", c.ballot.name, "error", err, "callback", c.hanging())
	c.stuck.Store(true)
	c.withdraw, c.absence = true, err
	c.want = c.want && (c.asked || c.runner != nil) // else only a Campaign has asked, which ends here
	c.failed(err)
	c.leave(err)
	c.hangAt = time.Now().Add(2 * c.session.Timeout())
	for _, m := range c.campaigns { // it may be Campaign that hangs
		m.reply <- campaignResult{err: err}
	}
	c.campaigns = nil
}

func (c *candidacy) beginAck() {
	l, data, ack := c.lead, c.data, c.ack
	maybe := c.ackUnsure || c.acked && ack == 0 // one that is not known to us by its czxid
	c.acked, c.ackUnsure = true, true           // from now on there may be one
	if !carries(c.ackData, data) {
		c.ackData = append(c.ackData, data) // OnWin may have proclaimed since the last one
	}
	c.errand(func(ctx context.Context) any {
		czxid, err := c.acknowledge(ctx, l.ballot, data, ack, maybe)
		return ackDone{l, data, czxid, err}
	})
}

func (c *candidacy) ackDone(m ackDone) {
	c.errandDone()
	if m.err == nil && m.lead.ballot == c.ballot {
		c.ackData = [][]byte{m.data}
	}
	switch {
	case m.lead != c.lead || c.phase != acking && c.phase != leading:
		if m.err == nil && m.lead.ballot == c.ballot {
			c.ack, c.ackUnsure = m.czxid, false
		}
		return
	case errors.Is(m.err, errBallotGone):
		c.ballotLost(c.goneCause())
	case isRefused(m.err) && c.phase == acking:
		c.takeoverFailed(m.err)
	case m.err != nil:
		c.failed(m.err)
		if c.holdFor("acknowledge", m.err) {
			c.logger.Warn("election: cannot write the acknowledgement", "error", m.err)
		}
		if isRefused(m.err) {
			c.refuseProclaims(m.err)
		}
	default:
		c.last.over()
		c.reack, c.ack, c.ackWatch, c.ackUnsure = false, m.czxid, nil, false
		if c.phase == acking {
			c.ackedAt, c.failures = time.Now(), 0
			took := c.ackedAt.Sub(c.claimedAt)
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
	l, data := c.lead, c.data
	var m *proclaimCommand
	if len(c.proclaims) > 0 {
		m, c.proclaims = c.proclaims[0], c.proclaims[1:]
		data = m.data
	}
	c.errand(func(ctx context.Context) any {
		acked, err := c.proclaim(ctx, l.ballot, data, m != nil)
		return proclaimDone{m, l, data, acked, err}
	})
}

func (c *candidacy) proclaimDone(m proclaimDone) {
	c.errandDone()
	err := m.err
	current := m.lead == c.lead && c.phase == leading
	if m.acked || err == nil {
		c.data = m.data // what the acknowledgement says, the next ballot says, too
	}
	if err == nil && m.lead.ballot == c.ballot {
		c.last.over()
		c.ballotData, c.catchUp = m.data, false
	}
	switch {
	case err == nil:
	case !current:
		err = ErrNotLeader
	case errors.Is(err, errBallotGone):
		c.ballotLost(c.goneCause())
		err = ErrNotLeader
	case m.command == nil && isRefused(err):
		c.logger.Warn("election: cannot give the ballot the data of the acknowledgement", "error", err)
		c.catchUp = false // until the next term
	case m.command == nil:
		c.hold()
	case errors.Is(err, zk.ErrNoNode):
		// The acknowledgement is not there: it is written again, then this.
		c.reack = true
		c.proclaims = append([]*proclaimCommand{m.command}, c.proclaims...)
		return
	}
	if m.command != nil {
		m.command.reply <- err
	}
}

// refuseProclaims answers those who wait behind an acknowledgement that ZooKeeper
// refuses to write again.
func (c *candidacy) refuseProclaims(err error) {
	for _, m := range c.proclaims {
		m.reply <- err
	}
	c.proclaims = nil
}

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
			m.reply <- nil
		}
	default:
		for _, m := range c.proclaims {
			m.reply <- ErrNotLeader
		}
	}
	c.proclaims = nil
}

// acknowledge writes leader_ack, on the condition that the ballot exists, so
// that an acknowledgement never stands without it, on whatever session the
// request is executed. maybe tells that this ballot may have one already; known
// is its czxid, or 0. It returns the czxid of what stands then, 0 when that is
// not known, and ends with errBallotGone when the ballot is not there.
func (c *Candidate) acknowledge(ctx context.Context, b *ballot, data []byte, known int64, maybe bool) (int64, error) {
	path := c.LeaderAckPath()
	guard := &zk.CheckVersionRequest{Path: b.path, Version: -1}
	// The answer to a creation tells nothing but the path. That to new data, in
	// the same transaction, tells the czxid: without it the acknowledgement
	// cannot be told from that of another candidate on this session. Nobody sees
	// the node before it has its data.
	create := &zk.CreateRequest{Path: path, Data: []byte{}, Acl: c.nodeACL(), Flags: zk.FlagEphemeral}
	set := &zk.SetDataRequest{Path: path, Data: data, Version: -1}
	write := []any{create, set}
	ops := []any{guard, create, set}
	for wait := newBackoff(c.session.Timeout()); ; wait.pause(ctx) {
		results, err := c.guarded(ctx, b, ops...)
		switch {
		case err == nil:
			if last := results[len(results)-1]; last.Stat != nil {
				return last.Stat.Czxid, nil
			}
			return 0, nil
		case failedAt(results, 0, zk.ErrNoNode):
			return 0, errBallotGone
		case errors.Is(err, zk.ErrNodeExists), errors.Is(err, zk.ErrNoNode):
			// Somebody's acknowledgement is there, or went while we replaced it.
		case len(write) == 2 && len(ops) > 2 && failedAt(results, len(ops)-1, zk.ErrNoAuth):
			// An ACL under which nobody may write: it has its data from the start.
			write = []any{&zk.CreateRequest{Path: path, Data: data, Acl: create.Acl, Flags: create.Flags}}
			ops = append(slices.Clip(ops[:len(ops)-2]), write...)
			continue
		case isRefused(err), ctx.Err() != nil:
			return 0, err
		default:
			maybe = true // the lost reply may have been of a success
			if _, err := c.session.barrier(ctx); err != nil {
				return 0, err
			}
		}
		var found *node
		if err := c.session.settled(ctx, func(conn *zk.Conn) (err error) {
			found, err = readNode(conn, path)
			return err
		}); err != nil {
			return 0, err
		}
		switch {
		case found == nil:
			ops = append([]any{guard}, write...)
		case !isOurs(found, b, [][]byte{data}, known, maybe):
			// One transaction, so that there is no moment without.
			ops = append([]any{guard, &zk.DeleteRequest{Path: path, Version: -1}}, write...)
		case bytes.Equal(found.data, data):
			return found.stat.Czxid, nil
		default:
			ops = []any{guard, set}
		}
	}
}

// isOurs reports whether this candidate made an acknowledgement. The session
// alone does not show it: two candidates may share one. Ours is younger than our
// ballot.
func isOurs(found *node, b *ballot, data [][]byte, known int64, maybe bool) bool {
	return found.stat.EphemeralOwner == b.inc.id &&
		(known != 0 && found.stat.Czxid == known || maybe && found.stat.Czxid > b.token && carries(data, found.data))
}

// carries reports whether data is one of those that an acknowledgement may have.
func carries(all [][]byte, data []byte) bool {
	return slices.ContainsFunc(all, func(d []byte) bool { return bytes.Equal(d, data) })
}

// guarded makes a multi that is conditional on the ballot. The error is
// errUncertain, too, when the session was another one by the time of the answer.
func (c *Candidate) guarded(ctx context.Context, b *ballot, ops ...any) (results []zk.MultiResponse, err error) {
	if b.inc.ctx.Err() != nil {
		return nil, context.Cause(b.inc.ctx)
	}
	err = c.session.do(ctx, func(conn *zk.Conn) (err error) {
		results, err = conn.Multi(ops...)
		if err == nil && conn.SessionID() != b.inc.id {
			return errUncertain
		}
		return err
	})
	return results, err
}

// failedAt reports whether it was the multi's operation i that failed so.
func failedAt(results []zk.MultiResponse, i int, err error) bool {
	return i < len(results) && errors.Is(results[i].Error, err)
}

// proclaim writes new data into the acknowledgement, if it is told to, and the
// ballot. Two multis, since both together may exceed what ZooKeeper takes. It
// returns whether the acknowledgement has the data.
func (c *Candidate) proclaim(ctx context.Context, b *ballot, data []byte, ack bool) (acked bool, err error) {
	guard := &zk.CheckVersionRequest{Path: b.path, Version: -1}
	paths := []string{c.LeaderAckPath(), b.path}
	if !ack {
		paths = paths[1:]
	}
	for _, path := range paths {
		for wait := newBackoff(c.session.Timeout()); ; wait.pause(ctx) {
			results, err := c.guarded(ctx, b, guard, &zk.SetDataRequest{Path: path, Data: data, Version: -1})
			if err == nil {
				break
			}
			if failedAt(results, 0, zk.ErrNoNode) {
				return acked, errBallotGone
			}
			if isRefused(err) || isAnswer(err) || ctx.Err() != nil {
				return acked, err
			}
			if _, err := c.session.await(ctx, true); err != nil {
				return acked, err
			}
		}
		acked = acked || path != b.path
	}
	return acked, nil
}
