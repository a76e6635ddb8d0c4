package election

import (
	"context"
	"errors"

	"github.com/go-zookeeper/zk"
)

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
