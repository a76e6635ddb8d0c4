package election

import (
	"context"
	"errors"
	"time"

	"github.com/go-zookeeper/zk"
)

// Waiting behind others: the place in the line, the predecessor, and the periodic recheck
// at what the watches should have told.

func (c *candidacy) beginLook() {
	b := c.ballot
	var known *standing
	if c.place.predecessor != "" {
		// From the list that followed the vote; good for one look.
		place := c.place
		known, c.place.predecessor = &place, ""
	}
	c.errand(func(ctx context.Context) any { return c.look(ctx, b, known) })
}

func (c *candidacy) lookDone(r lookResult) {
	c.errandDone()
	switch {
	case r.ballot != c.ballot || c.phase != waiting && c.phase != claiming:
		return
	case r.err != nil:
		c.failed(r.err)
		if c.holdFor("list", r.err) {
			c.logger.Warn("election: cannot list the ballots", "error", r.err)
		}
		return
	case r.gone:
		c.ballotLost(c.goneCause())
		return
	}
	c.last.over()
	c.placed, c.place, c.nextWatch = true, r.place, r.watch
	if c.phase == waiting && c.follow == FollowNextNode && c.place.below > 0 && c.place.predecessor != c.losingTo {
		c.stopLosing()
		c.startLosing()
	}
}

func (c *candidacy) predecessorChanged(event zk.Event) {
	c.session.watches.remove(c.path + "/" + c.place.predecessor)
	c.nextWatch = nil
	if event.Type == zk.EventNodeDeleted {
		c.predecessorGone()
		return
	}
	c.lookAgain()
}

// predecessorGone: when it was the only one in front, we are the lowest.
// Numbers only grow, so nobody can have come in between.
func (c *candidacy) predecessorGone() {
	if c.phase == waiting && c.place.below == 1 {
		c.nextWatch = nil
		c.place = standing{}
		return
	}
	if c.follow == FollowNextNode {
		c.endLoss()
	}
	c.lookAgain()
}

func (c *candidacy) lookAgain() {
	c.nextWatch, c.placed, c.place.predecessor = nil, false, ""
}

func (c *candidacy) ownChanged(event zk.Event) {
	c.ownWatch = nil
	if event.Type == zk.EventNodeDeleted && c.phase == moving {
		c.ownEnded = true // what that means the move's own answer tells
		return
	}
	if event.Type == zk.EventNodeDeleted && c.phase != withdrawing {
		c.ballotLost(ErrBallotDeleted)
		return
	}
	c.checkAll = true // it may have been the session
}

// ballotLost: our ballot is there no more, though we have not withdrawn it.
func (c *candidacy) ballotLost(cause error) {
	c.logger.Warn("election: ballot lost", "ballot", c.ballot.name, "cause", cause)
	c.live.Store(nil)
	c.failed(cause)
	switch {
	case c.phase.leads() && errors.Is(cause, ErrBallotDeleted):
		c.quit(cause)
		// The callbacks still have most of their time then.
		c.untold, c.untoldBy = true, time.Now().Add(min(c.session.Timeout()/8, c.stepDown()/4))
	case c.phase.leads():
		c.leave(cause)
	}
	switch c.phase {
	case waiting, claiming, moving:
		c.stopLosing()
		if errors.Is(cause, ErrBallotDeleted) && c.acked {
			c.setPhase(withdrawing) // what it acknowledged before its lease lapsed goes, too
			return
		}
		c.becomeIdle()
	case withdrawing:
		// The errand finds that there is nothing left, and the acknowledgement
		// may be.
	default:
		if errors.Is(cause, ErrBallotDeleted) && c.acked {
			c.withdraw = true // of what we acknowledged
			return
		}
		c.ballot, c.ownWatch, c.nextWatch, c.placed = nil, nil, nil, false
	}
}

// goneCause tells why a ballot is not there: its session may have ended.
func (c *candidacy) goneCause() error {
	if c.session.ID() != c.ballot.inc.id {
		return ErrSessionLost
	}
	return ErrBallotDeleted
}

// beginCheck looks at nodes whose watches should have told of a change, in
// case one was lost without a word: at one node at the slow pace, in turn, at
// all of them after a reconnection.
func (c *candidacy) beginCheck() {
	what := checks{ballot: c.ballot, own: true}
	if c.phase == waiting && c.placed {
		what.predecessor = c.place.predecessor
	}
	what.ack = c.phase == leading
	what.watchAck = c.ackWatch == nil
	if !c.checkAll {
		c.turn++
		switch {
		case what.predecessor != "" && c.turn%(1+c.place.below/16) == 0:
			// Both nodes in one request. Who learns in time that nobody but the leader
			// is in front can stand by, and takes over without a list, and who is the
			// next should see first. Far back all that is less urgent.
			what.own, what.list = false, true
		case what.ack && (c.ackWatch == nil || c.turn%2 == 0), what.predecessor != "" && c.turn%2 == 1:
			what.own = false
		default:
			what.ack, what.predecessor = false, ""
		}
	}
	c.checkAll = false
	c.checkAt = time.Now().Add(c.session.relook())
	c.errand(func(ctx context.Context) any { return c.check(ctx, what) })
}

func (c *candidacy) checkDone(r checkResult) {
	c.errandDone()
	if r.ballot != c.ballot || c.phase == leaving || c.phase == withdrawing {
		return
	}
	switch {
	case r.err != nil:
		c.checkAll = true
		c.failed(r.err)
		if c.holdFor("look", r.err) {
			c.logger.Warn("election: cannot look at the nodes", "error", r.err)
		}
		return
	case r.ownGone:
		c.ballotLost(c.goneCause())
		return
	case r.predecessorGone && c.placed && c.place.predecessor == r.predecessor:
		// A watch should have told.
		c.session.watches.remove(c.path + "/" + r.predecessor)
		c.predecessorGone()
	case r.list && c.placed && c.place.predecessor == r.predecessor:
		c.place.below = min(r.below, c.place.below) // it only shrinks: an old list is safe, too
	}
	c.last.over()
	if r.own {
		c.verify = false
	}
	if r.ack && c.phase == leading {
		c.ackFound(r)
	}
}

// lookResult is a ballot's place among the others, and the watch on the one in
// front.
type lookResult struct {
	ballot *ballot
	gone   bool // our own ballot is not there
	place  standing
	watch  <-chan zk.Event
	err    error
}

// look lists the ballots, unless the place is known, and watches the
// predecessor. When that is gone by then and was the only one in front, nobody
// is: numbers only grow. Otherwise it lists again.
func (c *Candidate) look(ctx context.Context, b *ballot, known *standing) (r lookResult) {
	r.ballot = b
	if known != nil && known.below > 0 {
		if watch := c.session.watches.reuse(b.inc, c.path+"/"+known.predecessor); watch != nil {
			r.place, r.watch = *known, watch
			return r
		}
	}
	r.err = c.session.do(ctx, func(conn *zk.Conn) error {
		for ; ; known = nil {
			if known != nil {
				r.place = *known
			} else {
				children, _, err := conn.Children(c.path)
				if err != nil && !errors.Is(err, zk.ErrNoNode) {
					return err
				}
				var ok bool
				if r.place, ok = standingOf(ballotsOf(children), b.name); !ok {
					r.gone = true
					return nil
				}
			}
			if r.place.below == 0 {
				if known != nil {
					return errNothingAsked
				}
				return nil
			}
			path := c.path + "/" + r.place.predecessor
			if r.watch = c.session.watches.reuse(b.inc, path); r.watch != nil {
				if known != nil {
					return errNothingAsked // armed for another since this look began
				}
				return nil
			}
			stat, watch, err := watchDeletion(conn, path)
			if err != nil {
				return err
			}
			if stat != nil {
				c.session.watches.add(b.inc, path, watch)
				r.watch = watch
				return nil
			}
			if r.place.below == 1 {
				r.place = standing{}
				return nil
			}
		}
	})
	return r
}

// checks are the nodes that a periodic recheck is for.
type checks struct {
	ballot      *ballot
	own         bool   // the ballot itself
	predecessor string // its name; "" for none
	list        bool   // all ballots: it shows both of these, and how many are in front
	ack         bool   // our acknowledgement
	watchAck    bool   // and arm a watch on its deletion
}

// checkResult is what the periodic recheck has found.
type checkResult struct {
	checks
	ownGone         bool
	predecessorGone bool
	below           int      // ballots in front, from the list
	ackStat         *zk.Stat // nil: it is not there
	ackWatch        <-chan zk.Event
	err             error
}

// check looks at nodes whose watches should have told, in case one was lost.
func (c *Candidate) check(ctx context.Context, what checks) (r checkResult) {
	r.checks = what
	r.err = c.session.do(ctx, func(conn *zk.Conn) (err error) {
		if !what.own && !what.list && what.predecessor == "" && !what.ack {
			return errNothingAsked
		}
		if what.own {
			exists, stat, err := conn.Exists(what.ballot.path)
			if err != nil {
				return err
			}
			r.ownGone = !exists || stat.EphemeralOwner != what.ballot.inc.id
		}
		if what.list {
			children, _, err := conn.Children(c.path)
			if err != nil && !errors.Is(err, zk.ErrNoNode) {
				return err
			}
			place, ok := standingOf(ballotsOf(children), what.ballot.name)
			r.ownGone, r.predecessorGone, r.below = !ok, place.predecessor != what.predecessor, place.below
			return nil
		}
		if what.predecessor != "" {
			exists, _, err := conn.Exists(c.path + "/" + what.predecessor)
			if err != nil {
				return err
			}
			r.predecessorGone = !exists
		}
		if what.ack && what.watchAck {
			r.ackStat, r.ackWatch, err = watchDeletion(conn, c.LeaderAckPath())
		} else if what.ack {
			var exists bool
			if exists, r.ackStat, err = conn.Exists(c.LeaderAckPath()); !exists {
				r.ackStat = nil
			}
		}
		return err
	})
	return r
}
