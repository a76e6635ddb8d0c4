package election

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/go-zookeeper/zk"
)

// Moving: a ballot goes, and another one comes at the end of the line, in one
// transaction. A candidate that is the first in line and gets no lease, or cannot keep
// one, moves so that it does not keep others from leading; one that waits makes way for
// the target of a transfer or for a better one, or has another priority; a leader
// passes leadership on.

// moveReason is why a ballot moves.
type moveReason int

const (
	forWantOfLease moveReason = iota
	forTransfer               // it stands between the leader and the target
	forPriority               // a better one stands behind it, or its own has changed
	forHandover               // the leader's, to the target
)

const (
	lackTimeouts  = 2  // a first candidate without a lease makes way after so many session timeouts
	lapsesToMove  = 3  // or after so many lapses
	lapseTimeouts = 10 // within so many session timeouts
)

// demotion is what speaks for moving a ballot to the end of the line.
type demotion struct {
	lackingSince time.Time     // since when it has been first, connected, without a lease
	lacked       time.Duration // and for how long before that
	lapses       []time.Time   // of the lease, in terms of this ballot
	flaps        bool          // there were too many
	notBefore    time.Time     // no move before, since one was not possible
}

// countLapse notes that the lease has lapsed under a term of this ballot.
func (d *demotion) countLapse(now time.Time, timeout time.Duration) {
	d.lapses = slices.DeleteFunc(d.lapses, func(at time.Time) bool { return now.Sub(at) > lapseTimeouts*timeout })
	d.lapses = append(d.lapses, now)
	d.flaps = len(d.lapses) >= lapsesToMove
}

// countLack measures for how long the ballot has been the first in line with a
// connection and without a lease: as long as counts is true.
func (d *demotion) countLack(now time.Time, counts bool) {
	switch {
	case counts && d.lackingSince.IsZero():
		d.lackingSince = now
	case !counts && !d.lackingSince.IsZero():
		d.lacked += now.Sub(d.lackingSince)
		d.lackingSince = time.Time{}
	}
}

func (d *demotion) endLack() { d.lackingSince, d.lacked = time.Time{}, 0 }

// lackDue returns when the lack of a lease has lasted for too long; zero while
// it is not measured.
func (d *demotion) lackDue(timeout time.Duration) time.Time {
	if d.lackingSince.IsZero() {
		return time.Time{}
	}
	return d.lackingSince.Add(lackTimeouts*timeout - d.lacked)
}

// lacks reports whether the lack of a lease has lasted for too long.
func (d *demotion) lacks(now time.Time, timeout time.Duration) bool {
	due := d.lackDue(timeout)
	return !due.IsZero() && !now.Before(due)
}

func (c *candidacy) beginMove() {
	o := moveOrder{withdrawal: c.withdrawal(), data: c.data, front: c.ballot.line.place.front}
	switch c.phase {
	case waiting:
		o.reason = forPriority
		if _, makeWay, _, _ := c.transferDuties(); makeWay {
			o.reason, o.request = forTransfer, c.transfers.seen
		}
	case leaving:
		o.reason, o.request = forHandover, c.ballot.handover
		c.endTerm()
	default:
		c.priority.demote()
	}
	o.priority = c.priority.now()
	// Whatever becomes of the request, a withdrawal takes back both ballots.
	c.stray = stray{tag: newTag(), possible: true}
	o.stray = c.stray
	c.ballot.deleted, c.ballot.recheck.all = false, false
	c.setPhase(moving) // before the request is sent
	c.begin(o)
}

func (c *candidacy) moveDone(r moveResult) {
	c.errandDone()
	from := c.own()
	sessionLost := c.session.currentView().inc != from.inc
	known := !r.sent || r.ballot != nil || r.gone || r.refused
	switch {
	case sessionLost:
		c.stray.possible = r.sent
	case known:
		c.stray = stray{} // what has stood under it goes with its session
	}
	moved := r.ballot != nil && r.ballot.name != from.name
	if moved {
		c.movedTo(r)
	} else if r.ballot != nil {
		c.ballot.node, c.ballot.watch, c.ballot.verify = r.ballot, r.watch, false
		c.live.Store(r.ballot)
	}
	switch {
	case c.ballot.withdraw || c.closing || !c.want:
		c.setPhase(withdrawing)
	case sessionLost:
		c.ballotLost(ErrSessionLost)
	case r.gone:
		c.ballotLost(c.goneCause())
	case !known:
		// Nothing tells which of the two ballots there is: both are taken back.
		c.failed(r.err)
		c.setPhase(withdrawing)
	case r.ballot == nil && c.ballot.deleted:
		c.ballotLost(ErrBallotDeleted)
	case moved:
		c.standInLine()
	case r.reason == forWantOfLease:
		c.notMoved(r)
	default:
		c.notMadeWay(r)
	}
}

// movedTo begins the life of the ballot that has come in the place of the other.
// What callers and the connection have asked for meanwhile is asked of this one.
func (c *candidacy) movedTo(r moveResult) {
	from := c.own()
	c.transfers.failures = 0
	c.ballot = &ballotState{
		node: r.ballot, watch: r.watch, data: c.data,
		line:     line{known: r.place.ahead == 0, place: r.place},
		withdraw: c.ballot.withdraw, recheck: c.ballot.recheck, losing: c.ballot.losing,
		rank: rank{notBefore: c.now.Add(jitter(c.session.Timeout()))},
	}
	c.live.Store(r.ballot)
	attrs := []any{"from", from.name, "ballot", r.ballot.name, "in_front", r.place.ahead}
	switch r.reason {
	case forWantOfLease:
		c.logger.Warn("election: moved to the end of the line for want of a lease", attrs...)
		c.metrics.MovedToEnd(c.name)
	case forTransfer:
		c.logger.Info("election: moved to the end of the line, out of the way of a transfer", attrs...)
	case forPriority:
		c.logger.Info("election: moved to the end of the line for its priority", attrs...)
	case forHandover:
		c.logger.Info("election: passed leadership on", attrs...)
	}
}

// notMoved: the ballot stands where it stood, and is the first in line.
func (c *candidacy) notMoved(r moveResult) {
	c.setPhase(claiming)
	switch {
	case r.alone:
		// It costs nobody anything to stand here.
		c.ballot.verify, c.ballot.demotion.flaps = false, false
		c.ballot.demotion.notBefore = c.now.Add(c.session.recheckInterval())
	case isPermanent(r.err):
		c.logger.Warn("election: cannot move to the end of the line", "ballot", c.own().name, "error", r.err)
		c.failed(r.err)
		c.ballot.demotion.notBefore = c.now.Add(c.session.recheckInterval())
	default:
		c.failed(r.err)
		c.holdBack(stepMove, "move", r.err)
	}
}

// notMadeWay: the ballot stands where it stood. What was noted meanwhile of the one in
// front may be true, so the place is looked up anew; and so is what the move was for.
func (c *candidacy) notMadeWay(r moveResult) {
	c.transferFailed("move to the end of the line", r.err)
	if r.reason == forPriority && isPermanent(r.err) {
		c.replyAll(&c.priority.waiters, r.err) // it is tried again all the same
	}
	if r.reason == forHandover {
		c.logger.Warn("election: leadership could not be passed on", "ballot", c.own().name, "to", c.ballot.handover.target, "error", r.err)
		c.ballot.handover = nil
		c.ballot.recheck.all, c.ballot.verify = true, true
		c.setPhase(claiming)
		return
	}
	c.ballot.line.forgetPlace()
	c.ballot.rank.givesWay = false
	c.setPhase(waiting)
}

// moveOrder asks for a move: stray is the tag of the new ballot.
type moveOrder struct {
	withdrawal
	data     []byte // for the new ballot
	priority int    // that it shows
	reason   moveReason
	front    string           // of one that waits: who leads
	request  *transferRequest // that a move for a transfer, or a handover, is for
}

func (o moveOrder) run(ctx context.Context, e errands) any { return e.move(ctx, o) }

// moveResult is what a move came to.
type moveResult struct {
	reason  moveReason
	alone   bool // nobody stands behind: there is nothing to make way for
	sent    bool // the request has been sent
	refused bool // it was answered, and nothing was done: what it was for is true no more
	gone    bool // the ballot is not there, and neither is a new one
	// ballot is the one that stands now, the former or a new one. With sent, nil means
	// that this is not known, or that there is none.
	ballot *ballot
	watch  <-chan zk.Event // on its deletion
	place  standing
	err    error
}

// move goes to the end of the line: the ballot, and what it has acknowledged, go and
// another ballot comes in one transaction, so at no moment is there none or are
// there two. For want of a lease it does so only if somebody else is in the line. It
// ends when it is known what stands, or with ctx or the session.
func (e errands) move(ctx context.Context, o moveOrder) (r moveResult) {
	r.reason = o.reason
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(o.ballot.inc.ctx, func() { cancel(ErrSessionLost) })()

	wakeGem := false
	if o.reason == forWantOfLease {
		var behind []child
		if behind, r.gone, r.err = e.behind(ctx, o.ballot); r.err != nil || r.gone {
			return r
		}
		if r.alone = len(behind) == 0; r.alone {
			return r
		}
		wakeGem = isGemStyle(behind[0].name)
	}
	if o.withdrawal, r.err = e.confirmAck(ctx, o.withdrawal); r.err != nil {
		return r
	}
	name := e.sendMove(ctx, o, wakeGem, &r)
	for wait := e.session.newBackoff(); !r.gone && !r.refused; wait.pause(ctx) {
		if name == "" {
			var err error
			if name, err = e.whichStands(ctx, o.withdrawal); err != nil {
				r.err = err
				return r
			}
			if r.gone = name == ""; r.gone {
				return r
			}
		}
		var err error
		var c confirmed
		if c, err = e.confirm(ctx, o.ballot.inc, o.tag, name, behindCreation{}); err == nil {
			r.ballot, r.watch, r.place = c.ballot, c.watch, c.place
			return r
		}
		name = "" // and then look what there is
		if ctx.Err() != nil || isPermanent(err) {
			r.err = errors.Join(err, context.Cause(ctx))
			return r
		}
	}
	return r
}

// behind lists the ballots behind ours.
func (e errands) behind(ctx context.Context, b *ballot) (behind []child, gone bool, err error) {
	err = e.session.do(ctx, func(conn *zk.Conn) error {
		children, _, err := conn.Children(e.path)
		if err != nil && !errors.Is(err, zk.ErrNoNode) {
			return err
		}
		ballots := ballotsOf(children)
		i := slices.IndexFunc(ballots, func(o child) bool { return o.name == b.name })
		if gone = i < 0; !gone {
			behind = ballots[i+1:]
		}
		return nil
	})
	return behind, gone, err
}

// conditions are what has to be true still when a move is made.
func (o moveOrder) conditions(e errands) []any {
	exists := func(path string) *zk.CheckVersionRequest {
		return &zk.CheckVersionRequest{Path: path, Version: -1}
	}
	switch o.reason {
	case forTransfer, forPriority:
		// Who has become the first meanwhile stays. And while nobody has acknowledged
		// a member of the gem waits for that, and watches nobody: the line in front of
		// it must not change.
		conditions := []any{exists(e.path + "/" + o.front), exists(e.ackPath())}
		if o.reason == forTransfer {
			conditions = append(conditions, e.checkRequested(o.request), exists(e.path+"/"+o.request.target))
		}
		return conditions
	case forHandover:
		// Check and outcome in one: what was taken back is not done, and what is done
		// is not reported as failed.
		return append(e.changeRequest(o.request, transferDone), exists(e.path+"/"+o.request.target))
	case forWantOfLease:
	}
	return nil
}

// sendMove sends the transaction. It returns the name of the ballot that stands
// now, or "" when the answer does not tell.
func (e errands) sendMove(ctx context.Context, o moveOrder, wakeGem bool, r *moveResult) string {
	ack := e.ackPath()
	conditions := o.conditions(e)
	withAck := o.ack.possible
	for {
		ops := slices.Clip(conditions)
		ackAt := len(ops)
		switch {
		case withAck:
			// Beside a successor it would be taken for that one's.
			ops = append(ops, o.ack.deletion(ack))
		case wakeGem:
			// A member of the gem watches nobody before it has seen an acknowledgement.
			ops = append(ops, &zk.CreateRequest{Path: ack, Data: []byte{}, Acl: e.nodeACL(), Flags: zk.FlagEphemeral},
				&zk.DeleteRequest{Path: ack, Version: -1})
		}
		own := len(ops)
		ops = append(ops, &zk.DeleteRequest{Path: o.ballot.path, Version: -1}, &zk.CreateRequest{
			Path: ballotStem(e.path, o.tag, o.priority), Data: o.data, Acl: e.nodeACL(), Flags: zk.FlagEphemeral | zk.FlagSequence,
		})
		r.sent = true
		results, err := e.guarded(ctx, o.ballot, ops...)
		r.err = err
		switch {
		case err == nil:
			return strings.TrimPrefix(results[own+1].String, e.path+"/")
		case failedAmong(results, len(conditions)):
			r.refused = true
			return ""
		case withAck && (failedAt(results, ackAt, zk.ErrNoNode) || failedAt(results, ackAt, zk.ErrNotEmpty)):
			withAck = false // somebody has deleted it, or put another one with children in its place
		case withAck && failedAt(results, ackAt, zk.ErrBadVersion):
			o.ack.version, o.watched = 0, false
			if o.withdrawal, r.err = e.confirmAck(ctx, o.withdrawal); r.err != nil {
				return o.ballot.name // nothing has been done
			}
			withAck = o.ack.possible
		case own > ackAt && failedAt(results, ackAt, zk.ErrNodeExists):
			wakeGem = false // there is one to be seen
		case failedAt(results, own, zk.ErrNoNode):
			r.gone = true
			return ""
		case isPermanent(err):
			return o.ballot.name
		default:
			return ""
		}
	}
}

// failedAmong reports whether it was one of the multi's first n operations, its
// conditions, that failed.
func failedAmong(results []zk.MultiResponse, n int) bool {
	for i := range n {
		for _, err := range []error{zk.ErrNoNode, zk.ErrBadVersion, zk.ErrNoAuth} {
			if failedAt(results, i, err) {
				return true
			}
		}
	}
	return false
}

// whichStands tells, after the answer to a move was lost, the name of the ballot
// that there is; "" when there is none.
func (e errands) whichStands(ctx context.Context, w withdrawal) (name string, err error) {
	if _, err := e.session.barrier(ctx); err != nil {
		return "", err
	}
	err = e.session.retry(ctx, func(conn *zk.Conn) error {
		children, _, err := conn.Children(e.path)
		if ours := tagged(children, w.tag); len(ours) > 0 {
			name = ours[0].name
		} else if slices.Contains(children, w.ballot.name) {
			name = w.ballot.name
		}
		return err
	})
	if errors.Is(err, zk.ErrNoNode) {
		return "", nil
	}
	return name, err
}
