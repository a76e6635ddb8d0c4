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

	"github.com/zkelection/election/internal/lease"
)

// Leading: from the claim under a lease to the acknowledgement, and what the
// leader does with that.

// claim begins a term: from here on IsLeader is true.
func (c *candidacy) claim(under *lease.Lease) {
	ctx := context.WithValue(under.Context(), callbackOwner{}, c.Candidate)
	b := c.own()
	l := &leadership{term: Term{Token: b.token, Ballot: b.path}, lease: under, ballot: b}
	l.ctx, l.cancel = context.WithCancelCause(ctx)
	c.term = &termState{lead: l, claimedAt: c.now}
	c.leader.Store(l)
	c.setPhase(winning)
	c.logger.Info("election: won", "ballot", b.name, "token", l.term.Token)
	c.queue.push(func() { c.callWin(l) })
}

// Results of the callback goroutine.
type (
	winBegun struct {
		lead *leadership
		at   time.Time
	}
	winDone struct {
		lead *leadership
		err  error
	}
)

// callWin runs on the callback goroutine.
func (c *Candidate) callWin(l *leadership) {
	err := errors.New("election: OnWin ended its goroutine")
	defer func() { c.inbox.push(winDone{l, err}) }()
	if l.lost() {
		return // lost already: there is nothing to take over
	}
	if !l.win.CompareAndSwap(winAwaited, winCalled) {
		return // given up in this moment
	}
	// From here on OnStepDown follows, so the first is called.
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

// winBegun notes when OnWin was called: TakeoverTimeout counts from then. Time that
// a callback before it has taken, a slow OnLose for example, does not count.
func (c *candidacy) winBegun(m winBegun) {
	if c.term.is(m.lead) && c.phase == winning {
		c.term.begunAt, c.term.hangAt = m.at, m.at.Add(c.session.Timeout())
	}
}

func (c *candidacy) winDone(m winDone) {
	switch {
	case !c.term.is(m.lead) || c.phase != winning:
		return // that term is over
	case m.lead.lost():
		// The loss came first, and may be why the callback failed.
		c.leave(c.lossCause())
	case m.err != nil:
		c.takeoverFailed(m.err)
	default:
		c.setPhase(acking)
	}
}

// reportHang logs which callback hangs: an OnWin, while which this candidate holds
// the leadership and nobody does the leader's work, or one that goes on after
// leadership was lost.
func (c *candidacy) reportHang() {
	c.term.hangAt = c.now.Add(2 * c.session.Timeout())
	switch {
	case c.phase == winning:
		c.hung.Store(true)
		c.logger.Warn("election: OnWin has not returned", "callback", c.hanging(), "for", c.now.Sub(c.term.begunAt).Round(time.Millisecond))
	case c.stuck.Load():
		c.logger.Warn("election: a callback of a lost term still has not returned", "callback", c.hanging())
	default:
		c.term.hangAt = time.Time{}
	}
}

func (c *candidacy) lossCause() error {
	if cause := context.Cause(c.term.lead.ctx); cause != nil {
		return cause
	}
	return ErrLeaseLapsed
}

// takeoverFailed steps down and withdraws, so that the next one can try. If Vote
// has asked for this candidacy it goes on, at the end of the line and after a
// pause; one that only a Campaign or a Run asked for ends with that.
func (c *candidacy) takeoverFailed(err error) {
	err = errorf("%w: %w", ErrTakeoverFailed, err)
	c.logger.Error("election: takeover failed", "ballot", c.own().name, "error", err)
	c.ballot.withdraw = true
	c.failed(err)
	goesOn, stander := c.setBack(err, c.retry >= 0)
	if goesOn {
		c.absence.until = c.now.Add(c.retryPause())
	}
	c.priority.demote()
	c.leave(err)
	c.fail(err)
	stander.tell(err)
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
	pause = min(pause, math.MaxInt64>>(retryDoublings+1)) << min(c.absence.failures, retryDoublings) // to be jittered
	c.absence.failures++
	return jitter(pause)
}

// stalled: OnWin could not be called, because the callback before it hangs.
// Others may do better meanwhile; this candidate votes again when it is free, if
// Vote or Run has asked for that.
func (c *candidacy) stalled() {
	if !c.term.lead.win.CompareAndSwap(winAwaited, winGivenUp) {
		return // it is called in this moment
	}
	err := errorf("%w: %w in %v, so OnWin could not be called", ErrTakeoverFailed, ErrCallbackRunning, c.callbackTimeout())
	c.logger.Error("election: takeover failed", "ballot", c.own().name, "error", err, "callback", c.hanging())
	c.stuck.Store(true)
	c.ballot.withdraw, c.absence.cause = true, err
	c.want = c.want && (c.asked || c.runner != nil) // else only a Campaign has asked, which ends here
	c.priority.demote()
	c.failed(err)
	c.leave(err)
	c.term.hangAt = c.now.Add(2 * c.session.Timeout())
	c.answerCampaigns(campaignResult{err: err}) // it may be Campaign that hangs
}

// takeoverDue is when the OnWin functions have taken too long; zero without a limit.
func (c *candidacy) takeoverDue() time.Time {
	if c.phase == winning && c.takeoverTimeout > 0 && !c.term.begunAt.IsZero() {
		return c.term.begunAt.Add(c.takeoverTimeout)
	}
	return time.Time{}
}

func (c *candidacy) takeoverTooLong() {
	c.takeoverFailed(fmt.Errorf("OnWin has not returned in %v", c.takeoverTimeout))
}

// callDue is when OnWin has waited for too long to be called.
func (c *candidacy) callDue() time.Time {
	if c.phase == winning && c.term.lead.win.Load() == winAwaited {
		return c.term.claimedAt.Add(c.callbackTimeout())
	}
	return time.Time{}
}

// --- the acknowledgement

func (c *candidacy) beginAck() {
	a := &c.ballot.ack
	o := ackOrder{lead: c.term.lead, data: c.data, known: a.czxid}
	o.maybe = a.unsure || a.possible && a.czxid == 0 // one that is not known to us by its czxid
	a.possible, a.unsure, a.version = true, true, 0  // from now on there may be one
	if !carries(a.data, o.data) {
		a.data = append(a.data, o.data) // OnWin may have proclaimed since the last one
	}
	c.begin(o)
}

func (c *candidacy) ackDone(m ackDone) {
	c.errandDone()
	if m.err == nil && m.lead.ballot == c.own() {
		c.ballot.ack.data = [][]byte{m.data}
	}
	switch {
	case !c.term.is(m.lead) || c.phase != acking && c.phase != leading:
		if m.err == nil && m.lead.ballot == c.own() {
			c.ballot.ack.written(m)
		}
		return
	case errors.Is(m.err, errBallotGone):
		c.ballotLost(c.goneCause())
	case isPermanent(m.err) && c.phase == acking:
		c.takeoverFailed(m.err)
	case m.err != nil:
		c.failed(m.err)
		if c.holdBack(stepAcknowledge, "acknowledge", m.err) {
			c.logger.Warn("election: cannot write the acknowledgement", "error", m.err)
		}
		if isPermanent(m.err) {
			c.answerProclaims(m.err)
		}
	default:
		c.last.over()
		c.ballot.ack.written(m)
		c.ballot.ack.missing, c.ballot.ack.watch = false, nil
		switch {
		case c.phase != acking:
		case m.lead.lost(): // before the answer: nobody is told of a leader that is none
			c.leave(c.lossCause())
		default:
			c.acknowledged()
		}
	}
}

// written notes what the answer to an acknowledgement tells of it.
func (a *acknowledgement) written(m ackDone) {
	a.czxid, a.version, a.unsure = m.czxid, m.version, false
}

// acknowledged: the takeover has succeeded.
func (c *candidacy) acknowledged() {
	c.term.ackedAt, c.absence.failures = c.now, 0
	took := c.term.ackedAt.Sub(c.term.claimedAt)
	c.metrics.TakenOver(c.name, took)
	c.logger.Info("election: leading", "ballot", c.own().name, "token", c.term.lead.term.Token,
		"takeover", took.Round(time.Microsecond))
	c.setPhase(leading)
}

// ackFound compares the acknowledgement that a recheck has found with our own.
func (c *candidacy) ackFound(r recheckResult) {
	a := &c.ballot.ack
	if r.ackWatch != nil {
		a.watch = r.ackWatch
	}
	switch {
	case r.ackStat == nil, r.ackStat.EphemeralOwner != c.own().inc.id, a.czxid != 0 && r.ackStat.Czxid != a.czxid:
		c.logger.Warn("election: the acknowledgement was removed or replaced; writing it again")
		a.missing = true
	default:
		a.czxid = r.ackStat.Czxid
	}
}

// --- new data

func (c *candidacy) beginProclaim() {
	o := proclaimOrder{lead: c.term.lead, data: c.data}
	if len(c.proclaims) > 0 {
		o.command, c.proclaims = c.proclaims[0], c.proclaims[1:]
		o.data = o.command.data
		c.ballot.ack.version = 0 // until the answer tells
	}
	c.begin(o)
}

func (c *candidacy) proclaimDone(m proclaimDone) {
	c.errandDone()
	err := m.err
	current := c.term.is(m.lead) && c.phase == leading
	if m.acked || err == nil {
		c.data = m.data // what the acknowledgement says, the next ballot says, too
	}
	if m.acked && m.lead.ballot == c.own() {
		c.ballot.ack.version = m.version
	}
	if err == nil && m.lead.ballot == c.own() {
		c.last.over()
		c.ballot.data, c.ballot.catchUp = m.data, false
	}
	switch {
	case err == nil:
	case !current:
		err = ErrNotLeader
	case errors.Is(err, errBallotGone):
		c.ballotLost(c.goneCause())
		err = ErrNotLeader
	case m.command == nil && isPermanent(err):
		c.logger.Warn("election: cannot give the ballot the data of the acknowledgement", "error", err)
		c.ballot.catchUp = false // until the next term
	case m.command == nil:
		c.holdBack(stepProclaim, "proclaim", err)
	case errors.Is(err, zk.ErrNoNode):
		// The acknowledgement is not there: it is written again, then this.
		c.ballot.ack.missing = true
		c.proclaims = append([]*proclaimCommand{m.command}, c.proclaims...)
		return
	}
	if m.command != nil {
		m.command.reply <- err
	}
}

// ackOrder asks for the acknowledgement.
type ackOrder struct {
	lead  *leadership
	data  []byte
	known int64 // the czxid of the one that this ballot has, or 0
	maybe bool  // this ballot may have one all the same
}

func (o ackOrder) run(ctx context.Context, e errands) any {
	done := ackDone{lead: o.lead, data: o.data}
	done.czxid, done.version, done.err = e.acknowledge(ctx, o.lead.ballot, o.data, o.known, o.maybe)
	return done
}

type ackDone struct {
	lead    *leadership
	data    []byte
	czxid   int64 // 0: not known
	version int32 // 0: not known
	err     error
}

// acknowledge writes leader_ack, on the condition that the ballot exists, so
// that an acknowledgement never stands without it, on whatever session the
// request is executed. maybe tells that this ballot may have one already; known
// is its czxid, or 0. It returns the czxid and the version of what stands then, 0 when
// that is not known, and ends with errBallotGone when the ballot is not there.
func (e errands) acknowledge(ctx context.Context, b *ballot, data []byte, known int64, maybe bool) (czxid int64, version int32, err error) {
	path := e.ackPath()
	guard := &zk.CheckVersionRequest{Path: b.path, Version: -1}
	// The answer to a creation tells nothing but the path. That to new data, in
	// the same transaction, tells the czxid: without it the acknowledgement
	// cannot be told from that of another candidate on this session. Nobody sees
	// the node before it has its data.
	create := &zk.CreateRequest{Path: path, Data: []byte{}, Acl: e.nodeACL(), Flags: zk.FlagEphemeral}
	set := &zk.SetDataRequest{Path: path, Data: data, Version: -1}
	var found *node
	write := []any{create, set}
	ops := []any{guard, create, set}
	for wait := e.session.newBackoff(); ; wait.pause(ctx) {
		results, err := e.guarded(ctx, b, ops...)
		switch {
		case err == nil:
			if last := results[len(results)-1]; last.Stat != nil {
				return last.Stat.Czxid, last.Stat.Version, nil
			}
			return 0, 0, nil
		case failedAt(results, 0, zk.ErrNoNode):
			return 0, 0, errBallotGone
		case errors.Is(err, zk.ErrNodeExists), errors.Is(err, zk.ErrNoNode):
			// Somebody's acknowledgement is there, or went while we replaced it.
		case ops[len(ops)-1] == any(set) && failedAt(results, firstWrite(ops), zk.ErrNoAuth):
			// An ACL under which nobody may write: it has its data from the start, and other data only when it is made anew.
			write = []any{&zk.CreateRequest{Path: path, Data: data, Acl: create.Acl, Flags: create.Flags}}
			if i := slices.Index(ops, any(create)); i >= 0 {
				ops = append(slices.Clip(ops[:i]), write...)
			} else {
				ops = append([]any{guard}, replacing(found, write)...)
			}
			continue
		case isPermanent(err), ctx.Err() != nil:
			return 0, 0, err
		default:
			maybe = true // the lost reply may have been of a success
			if _, err := e.session.barrier(ctx); err != nil {
				return 0, 0, err
			}
		}
		if err := e.session.retry(ctx, func(conn *zk.Conn) (err error) {
			found, err = readNode(conn, path)
			return err
		}); err != nil {
			return 0, 0, err
		}
		switch {
		case found == nil:
			ops = append([]any{guard}, write...)
		case !isOurs(found, b, [][]byte{data}, known, maybe):
			ops = append([]any{guard}, replacing(found, write)...)
		case bytes.Equal(found.data, data):
			return found.stat.Czxid, found.stat.Version, nil
		default:
			ops = []any{guard, set}
		}
	}
}

// replacing are the operations that put what write makes in the place of another acknowledgement: one transaction,
// so that there is no moment without. What comes has another version than what goes, as long as it may be written
// at all: who made that one, and is about to delete it by its version, does not delete this one.
func replacing(found *node, write []any) []any {
	ops := []any{&zk.DeleteRequest{Path: write[0].(*zk.CreateRequest).Path, Version: -1}, write[0]}
	if len(write) == 2 && found.stat.Version == 1 {
		ops = append(ops, &zk.SetDataRequest{Path: write[1].(*zk.SetDataRequest).Path, Data: []byte{}, Version: -1})
	}
	return append(ops, write[1:]...)
}

// firstWrite is the place of the first operation that gives a node data which it was not created with.
func firstWrite(ops []any) int {
	return slices.IndexFunc(ops, func(op any) bool {
		_, writes := op.(*zk.SetDataRequest)
		return writes
	})
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

// proclaimOrder asks for new data in the ballot and, with a command, in the
// acknowledgement.
type proclaimOrder struct {
	command *proclaimCommand // nil: only the ballot's data are to follow
	lead    *leadership
	data    []byte
}

func (o proclaimOrder) run(ctx context.Context, e errands) any {
	done := proclaimDone{proclaimOrder: o}
	done.acked, done.version, done.err = e.proclaim(ctx, o.lead.ballot, o.data, o.command != nil)
	return done
}

type proclaimDone struct {
	proclaimOrder
	acked   bool  // the acknowledgement has them
	version int32 // that it has got with them
	err     error
}

// proclaim writes new data into the acknowledgement, if that is asked for, and the
// ballot. Two multis, since both together may exceed what ZooKeeper takes. It
// returns whether the acknowledgement has the data, and its version then.
func (e errands) proclaim(ctx context.Context, b *ballot, data []byte, ack bool) (acked bool, version int32, err error) {
	guard := &zk.CheckVersionRequest{Path: b.path, Version: -1}
	paths := []string{e.ackPath(), b.path}
	if !ack {
		paths = paths[1:]
	}
	for _, path := range paths {
		for wait := e.session.newBackoff(); ; wait.pause(ctx) {
			results, err := e.guarded(ctx, b, guard, &zk.SetDataRequest{Path: path, Data: data, Version: -1})
			if err == nil {
				if path != b.path {
					acked, version = true, results[1].Stat.Version
				}
				break
			}
			if failedAt(results, 0, zk.ErrNoNode) {
				return acked, version, errBallotGone
			}
			if isPermanent(err) || isDefinite(err) || ctx.Err() != nil {
				return acked, version, err
			}
			if _, err := e.session.await(ctx, true); err != nil {
				return acked, version, err
			}
		}
	}
	return acked, version, nil
}
