package election

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/go-zookeeper/zk"
)

// Moving: a candidate that is the first in line and gets no lease, or cannot keep
// one, goes to the end of the line, so that it does not keep others from leading.

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
	o := moveOrder{withdrawal: c.withdrawal(), data: c.data}
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
	known := !r.sent || r.ballot != nil || r.gone
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
	default:
		c.notMoved(r)
	}
}

// movedTo begins the life of the ballot that has come in the place of the other.
// What callers and the connection have asked for meanwhile is asked of this one.
func (c *candidacy) movedTo(r moveResult) {
	from := c.own()
	c.ballot = &ballotState{
		node: r.ballot, watch: r.watch, data: c.data,
		line:     line{known: r.place.ahead == 0, place: r.place},
		withdraw: c.ballot.withdraw, recheck: c.ballot.recheck,
	}
	c.live.Store(r.ballot)
	c.logger.Warn("election: moved to the end of the line for want of a lease",
		"from", from.name, "ballot", r.ballot.name, "in_front", r.place.ahead)
	c.metrics.MovedToEnd(c.name)
}

// notMoved: the ballot stands where it stood.
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
		c.backOff()
	}
}

// moveOrder asks for a move: stray is the tag of the new ballot.
type moveOrder struct {
	withdrawal
	data []byte // for the new ballot
}

func (o moveOrder) run(ctx context.Context, e errands) any { return e.move(ctx, o.withdrawal, o.data) }

// moveResult is what a move came to.
type moveResult struct {
	alone bool // nobody stands behind: there is nothing to make way for
	sent  bool // the request has been sent
	gone  bool // the ballot is not there, and neither is a new one
	// ballot is the one that stands now, the former or a new one. With sent, nil means
	// that this is not known, or that there is none.
	ballot *ballot
	watch  <-chan zk.Event // on its deletion
	place  standing
	err    error
}

// move goes to the end of the line, if somebody else is in it: the ballot, and
// what it has acknowledged, go and another ballot comes in one transaction, so at
// no moment is there none or are there two. It ends when it is known what stands,
// or with ctx or the session.
func (e errands) move(ctx context.Context, w withdrawal, data []byte) (r moveResult) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(w.ballot.inc.ctx, func() { cancel(ErrSessionLost) })()

	var behind []child
	r.err = e.session.do(ctx, func(conn *zk.Conn) error {
		children, _, err := conn.Children(e.path)
		if err != nil && !errors.Is(err, zk.ErrNoNode) {
			return err
		}
		ballots := ballotsOf(children)
		i := slices.IndexFunc(ballots, func(b child) bool { return b.name == w.ballot.name })
		if r.gone = i < 0; !r.gone {
			behind = ballots[i+1:]
		}
		return nil
	})
	if r.alone = r.err == nil && !r.gone && len(behind) == 0; r.err != nil || r.gone || r.alone {
		return r
	}
	if w, r.err = e.confirmAck(ctx, w); r.err != nil {
		return r
	}
	name := e.sendMove(ctx, w, data, isGemStyle(behind[0].name), &r)
	for wait := newBackoff(e.session.Timeout()); !r.gone; wait.pause(ctx) {
		if name == "" {
			var err error
			if name, err = e.whichStands(ctx, w); err != nil {
				r.err = err
				return r
			}
			if r.gone = name == ""; r.gone {
				return r
			}
		}
		var err error
		if r.ballot, r.watch, r.place, err = e.confirm(ctx, w.ballot.inc, w.tag, name); err == nil {
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

// sendMove sends the transaction. It returns the name of the ballot that stands
// now, or "" when the answer does not tell.
func (e errands) sendMove(ctx context.Context, w withdrawal, data []byte, wakeGem bool, r *moveResult) string {
	ack := e.ackPath()
	for {
		var ops []any
		switch {
		case w.ack.possible:
			// Beside a successor it would be taken for that one's.
			ops = append(ops, &zk.DeleteRequest{Path: ack, Version: -1})
		case wakeGem:
			// A member of the gem watches nobody before it has seen an acknowledgement.
			ops = append(ops, &zk.CreateRequest{Path: ack, Data: []byte{}, Acl: e.nodeACL(), Flags: zk.FlagEphemeral},
				&zk.DeleteRequest{Path: ack, Version: -1})
		}
		own := len(ops)
		ops = append(ops, &zk.DeleteRequest{Path: w.ballot.path, Version: -1}, &zk.CreateRequest{
			Path: ballotStem(e.path, w.tag), Data: data, Acl: e.nodeACL(), Flags: zk.FlagEphemeral | zk.FlagSequence,
		})
		r.sent = true
		results, err := e.guarded(ctx, w.ballot, ops...)
		r.err = err
		switch {
		case err == nil:
			return strings.TrimPrefix(results[own+1].String, e.path+"/")
		case w.ack.possible && failedAt(results, 0, zk.ErrNoNode):
			w.ack.possible = false // somebody has deleted it
		case own > 0 && failedAt(results, 0, zk.ErrNodeExists):
			wakeGem = false // there is one to be seen
		case failedAt(results, own, zk.ErrNoNode):
			r.gone = true
			return ""
		case isPermanent(err):
			return w.ballot.name
		default:
			return ""
		}
	}
}

// whichStands tells, after the answer to a move was lost, the name of the ballot
// that there is; "" when there is none.
func (e errands) whichStands(ctx context.Context, w withdrawal) (name string, err error) {
	if _, err := e.session.barrier(ctx); err != nil {
		return "", err
	}
	err = e.session.retry(ctx, func(conn *zk.Conn) error {
		children, _, err := conn.Children(e.path)
		ballots := ballotsOf(children)
		if ours := tagged(ballots, w.tag); len(ours) > 0 {
			name = ours[0].name
		} else if slices.ContainsFunc(ballots, func(b child) bool { return b.name == w.ballot.name }) {
			name = w.ballot.name
		}
		return err
	})
	if errors.Is(err, zk.ErrNoNode) {
		return "", nil
	}
	return name, err
}
