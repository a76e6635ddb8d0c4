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
//
// The phase moving is entered before the request is sent. In it the end of the
// own ballot is only noted, and nothing is claimed: the ballot may be another one
// by now, and the old place in line says nothing about that.

const (
	lackTimeouts  = 2  // a first candidate without a lease makes way after so many session timeouts
	lapsesToMove  = 3  // or after so many lapses
	lapseTimeouts = 10 // within so many session timeouts
)

// countLapse notes that the lease has lapsed under a term of this candidate.
func (c *candidacy) countLapse() {
	now := time.Now()
	c.lapses = slices.DeleteFunc(c.lapses, func(at time.Time) bool { return now.Sub(at) > lapseTimeouts*c.session.Timeout() })
	c.lapses = append(c.lapses, now)
	c.flaps = len(c.lapses) >= lapsesToMove
}

// countLack measures for how long this candidate has been the first in line with
// a connection and without a lease.
func (c *candidacy) countLack(view sessionView) {
	counts := c.phase == claiming && view.inc != nil && view.connected
	switch now := time.Now(); {
	case counts && c.lackingSince.IsZero():
		c.lackingSince = now
	case !counts && !c.lackingSince.IsZero():
		c.lacked += now.Sub(c.lackingSince)
		c.lackingSince = time.Time{}
	}
}

// lackDue returns when the lack of a lease has lasted for too long; zero while
// it is not measured.
func (c *candidacy) lackDue() time.Time {
	if c.lackingSince.IsZero() {
		return time.Time{}
	}
	return c.lackingSince.Add(lackTimeouts*c.session.Timeout() - c.lacked)
}

func (c *candidacy) beginMove() {
	// Whatever becomes of the request, a withdrawal takes back both ballots.
	order := c.withdrawal()
	c.tag, c.uncertain = newTag(), true
	order.tag = c.tag
	data := c.data
	c.ownEnded, c.checkAll = false, false
	c.setPhase(moving)
	c.errand(func(ctx context.Context) any { return c.move(ctx, order, data) })
}

func (c *candidacy) moveDone(r moveResult) {
	c.errandDone()
	if c.phase != moving {
		return
	}
	sessionLost := c.session.look().inc != r.from.inc
	known := !r.sent || r.ballot != nil || r.gone
	if known {
		c.uncertain, c.tag = false, "" // what has stood under it goes with its session
	}
	if sessionLost {
		c.uncertain, c.tag = r.sent, r.tag
	}
	moved := r.ballot != nil && r.ballot.name != r.from.name
	if r.ballot != nil {
		c.ballot, c.ownWatch, c.verify = r.ballot, r.watch, false
		c.live.Store(c.ballot)
		if moved {
			c.ballotData = r.data
			c.acked, c.ack, c.ackWatch, c.reack, c.ackUnsure, c.ackData = false, 0, nil, false, false, nil
			c.lapses, c.flaps = nil, false
			c.lackingSince, c.lacked = time.Time{}, 0 // the new place is another chance
			c.logger.Warn("election: moved to the end of the line for want of a lease",
				"from", r.from.name, "ballot", c.ballot.name, "in_front", r.place.below)
			c.metrics.MovedToEnd(c.name)
		}
	}
	switch {
	case c.withdraw || c.closing || !c.want:
		c.withdraw = true
		c.setPhase(withdrawing)
	case sessionLost:
		c.ballotLost(ErrSessionLost)
	case r.gone:
		c.ballotLost(c.goneCause())
	case !known:
		// Nothing tells which of the two ballots there is: both are taken back.
		c.failed(r.err)
		c.withdraw = true
		c.setPhase(withdrawing)
	case r.ballot == nil && c.ownEnded:
		c.ballotLost(ErrBallotDeleted)
	case moved:
		c.place, c.placed = r.place, r.place.below == 0
		if c.placed {
			c.setPhase(claiming)
		} else {
			c.setPhase(waiting)
		}
	default:
		c.setPhase(claiming)
		switch {
		case r.alone:
			// It costs nobody anything to stand here.
			c.verify, c.flaps = false, false
			c.moveAt = time.Now().Add(c.session.relook())
		case isRefused(r.err):
			c.logger.Warn("election: cannot move to the end of the line", "ballot", c.ballot.name, "error", r.err)
			c.failed(r.err)
			c.moveAt = time.Now().Add(c.session.relook())
		default:
			c.failed(r.err)
			c.hold()
		}
	}
}

// moveResult is what a move came to.
type moveResult struct {
	from  *ballot
	tag   string // of the new ballot
	alone bool   // nobody stands behind: there is nothing to make way for
	sent  bool   // the request has been sent
	gone  bool   // from is not there, and neither is a new ballot
	// ballot is the one that stands now, from or another. With sent, nil means
	// that this is not known, or that there is none.
	ballot *ballot
	watch  <-chan zk.Event // on its deletion
	place  standing
	data   []byte // that a new one carries
	err    error
}

// move goes to the end of the line, if somebody else is in it: the ballot, and
// what it has acknowledged, go and another ballot comes in one transaction, so at
// no moment is there none or are there two. It ends when it is known what stands,
// or with ctx or the session.
func (c *Candidate) move(ctx context.Context, w withdrawal, data []byte) (r moveResult) {
	r.from, r.tag, r.data = w.ballot, w.tag, data
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(w.ballot.inc.ctx, func() { cancel(ErrSessionLost) })()

	var behind []child
	r.err = c.session.do(ctx, func(conn *zk.Conn) error {
		children, _, err := conn.Children(c.path)
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
	if w, r.err = c.settleAck(ctx, w); r.err != nil {
		return r
	}
	name := c.sendMove(ctx, w, data, isGemStyle(behind[0].name), &r)
	for wait := newBackoff(c.session.Timeout()); !r.gone; wait.pause(ctx) {
		if name == "" {
			var err error
			if name, err = c.whichStands(ctx, w); err != nil {
				r.err = err
				return r
			}
			if r.gone = name == ""; r.gone {
				return r
			}
		}
		var err error
		if r.ballot, r.watch, r.place, err = c.confirm(ctx, w.ballot.inc, w.tag, name); err == nil {
			return r
		}
		name = "" // and then look what there is
		if ctx.Err() != nil || isRefused(err) {
			r.err = errors.Join(err, context.Cause(ctx))
			return r
		}
	}
	return r
}

// sendMove sends the transaction. It returns the name of the ballot that stands
// now, or "" when the answer does not tell.
func (c *Candidate) sendMove(ctx context.Context, w withdrawal, data []byte, wakeGem bool, r *moveResult) string {
	ack := c.LeaderAckPath()
	for {
		var ops []any
		switch {
		case w.acked:
			// Beside a successor it would be taken for that one's.
			ops = append(ops, &zk.DeleteRequest{Path: ack, Version: -1})
		case wakeGem:
			// A member of the gem watches nobody before it has seen an acknowledgement.
			ops = append(ops, &zk.CreateRequest{Path: ack, Data: []byte{}, Acl: c.nodeACL(), Flags: zk.FlagEphemeral},
				&zk.DeleteRequest{Path: ack, Version: -1})
		}
		own := len(ops)
		ops = append(ops, &zk.DeleteRequest{Path: w.ballot.path, Version: -1}, &zk.CreateRequest{
			Path: ballotStem(c.path, w.tag), Data: data, Acl: c.nodeACL(), Flags: zk.FlagEphemeral | zk.FlagSequence,
		})
		r.sent = true
		results, err := c.guarded(ctx, w.ballot, ops...)
		r.err = err
		switch {
		case err == nil:
			return strings.TrimPrefix(results[own+1].String, c.path+"/")
		case w.acked && failedAt(results, 0, zk.ErrNoNode):
			w.acked = false // somebody has deleted it
		case own > 0 && failedAt(results, 0, zk.ErrNodeExists):
			wakeGem = false // there is one to be seen
		case failedAt(results, own, zk.ErrNoNode):
			r.gone = true
			return ""
		case isRefused(err):
			return w.ballot.name
		default:
			return ""
		}
	}
}

// whichStands tells, after the answer to a move was lost, the name of the ballot
// that there is; "" when there is none.
func (c *Candidate) whichStands(ctx context.Context, w withdrawal) (name string, err error) {
	if _, err := c.session.barrier(ctx); err != nil {
		return "", err
	}
	err = c.session.settled(ctx, func(conn *zk.Conn) error {
		children, _, err := conn.Children(c.path)
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
