package election

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"
)

// Waiting: the place in the line, the predecessor, the periodic recheck at what
// the watches should have told, and the loss of the ballot.

func (c *candidacy) beginFindPlace() {
	o := placeOrder{ballot: c.own()}
	if c.isTarget() {
		o.next = c.ballot.line.place.front
	}
	if place := c.ballot.line.place; place.predecessor != "" {
		// From the list that followed the vote. It is used once.
		o.known = &place
		c.ballot.line.place.predecessor = ""
	}
	c.begin(o)
}

func (c *candidacy) placeFound(r placeResult) {
	c.errandDone()
	switch {
	case r.ballot != c.own() || c.phase != waiting:
		return
	case r.err != nil:
		c.failed(r.err)
		if c.holdBack(stepFindPlace, "list", r.err) {
			c.logger.Warn("election: cannot list the ballots", "error", r.err)
		}
		return
	case r.gone:
		c.ballotLost(c.goneCause())
		return
	}
	c.last.over()
	if r.again {
		c.ballot.line = line{place: r.place}
		c.lineSeen(r.place)
		c.ballot.line.forgetPlace()
		return
	}
	c.ballot.line.placeAt(r.place, r.watch, c.now)
	c.lineSeen(r.place)
	c.followPredecessor()
}

// followPredecessor begins to follow another predecessor, for OnLose.
func (c *candidacy) followPredecessor() {
	place := c.ballot.line.place
	if c.follow == FollowNextNode && place.ahead > 0 && place.predecessor != c.ballot.losing.to {
		c.stopLosing()
		c.startLosing(true)
	}
}

func (c *candidacy) predecessorChanged(event zk.Event) {
	c.session.watches.remove(c.path + "/" + c.ballot.line.place.predecessor)
	c.ballot.line.watch = nil
	if event.Type == zk.EventNodeDeleted {
		c.predecessorGone()
		return
	}
	c.ballot.line.forgetPlace()
}

// predecessorGone is called when the ballot in front has gone.
func (c *candidacy) predecessorGone() {
	l := &c.ballot.line
	if c.phase != waiting {
		l.forgetPlace()
		return
	}
	l.predecessorGone()
	if l.first() {
		return // OnLose is over with the phase
	}
	if c.follow == FollowNextNode {
		c.ballot.losing.endLoss()
	}
	if l.known {
		c.followPredecessor()
	}
}

func (c *candidacy) secondChanged(event zk.Event) {
	l := &c.ballot.line
	c.session.watches.remove(c.path + "/" + l.place.second)
	l.second = nil
	if event.Type == zk.EventNodeDeleted {
		l.secondGone()
		return
	}
	l.secondAt = c.now // another watch is armed, or finds that it is gone
}

// wantsSecond reports whether a hot standby is to watch the second in front, too. By that
// one's end it learns that it is the next, while the predecessor still has to take over.
func (c *candidacy) wantsSecond() bool {
	return c.hotStandby && c.phase == waiting && c.ballot.line.lacksSecond()
}

// secondDue is when it is to; zero for never, or at once.
func (c *candidacy) secondDue() time.Time {
	if c.wantsSecond() {
		return c.ballot.line.secondAt
	}
	return time.Time{}
}

func (c *candidacy) beginWatchSecond() {
	c.begin(secondOrder{ballot: c.own(), second: c.ballot.line.place.second})
}

func (c *candidacy) secondDone(r secondResult) {
	c.errandDone()
	switch {
	case r.ballot != c.own() || c.phase != waiting || !c.ballot.line.lacksSecond() || c.ballot.line.place.second != r.second:
		// The watch, if there is one, is kept for whoever needs it next.
	case r.err != nil:
		// Nothing but haste depends on it, so it holds up nothing else.
		pause := jitter(c.session.Timeout() / 32)
		if isPermanent(r.err) {
			pause = c.session.recheckInterval()
			if c.last.first(fmt.Errorf("watch: %w", r.err)) {
				c.logger.Warn("election: cannot watch the ballot in front of the predecessor", "error", r.err)
			}
		}
		c.ballot.line.secondAt = c.now.Add(pause)
	case r.gone:
		c.last.over()
		c.ballot.line.secondGone()
	default:
		c.last.over()
		c.ballot.line.second = r.watch
	}
}

func (c *candidacy) ownChanged(event zk.Event) {
	c.ballot.watch = nil
	if event.Type == zk.EventNodeDeleted && c.phase == moving {
		c.ballot.deleted = true // the result of the move will show what that means
		return
	}
	if event.Type == zk.EventNodeDeleted && c.phase != withdrawing {
		c.ballotLost(ErrBallotDeleted)
		return
	}
	c.ballot.recheck.all = true // the watch may have ended with its session
}

// ballotLost is called when our ballot no longer exists, though we have not
// withdrawn it.
func (c *candidacy) ballotLost(cause error) {
	lost := c.own().name
	c.live.Store(nil)
	c.failed(cause)
	// Of a session that has ended nothing is left.
	leavesAck := errors.Is(cause, ErrBallotDeleted) && c.ballot.ack.possible
	switch {
	case c.phase.leads() && errors.Is(cause, ErrBallotDeleted):
		c.quit(cause)
		// The callbacks still have most of their time then.
		c.term.causePending = true
		c.term.causeBy = c.now.Add(min(c.session.Timeout()/8, c.callbackTimeout()/4))
	case c.phase.leads():
		c.leave(cause)
	case c.phase == leaving:
		c.stepping.Store(nil)
	}
	// Not before that: a log can be slow, and others may lead.
	c.logger.Warn("election: ballot lost", "ballot", lost, "cause", cause)
	switch c.phase {
	case casting, waiting, claiming, moving:
		if leavesAck {
			c.setPhase(withdrawing) // what it acknowledged before its lease lapsed goes, too
			return
		}
		c.setPhase(idle)
	case leaving:
		if leavesAck {
			c.ballot.withdraw = true // of what it has acknowledged
			return
		}
		c.ballot = nil
	case withdrawing:
		// The errand finds that there is nothing left, and the acknowledgement
		// may be.
	case idle, winning, acking, leading, ended: // there is no ballot, or the term has just ended
	}
}

// goneCause returns why a ballot is not there: its session may have ended.
func (c *candidacy) goneCause() error {
	if c.session.ID() != c.own().inc.id {
		return ErrSessionLost
	}
	return ErrBallotDeleted
}

// beginRecheck reads nodes whose watches should have reported a change, in case a
// watch was lost without notice: one node in turn as a periodic recheck, all of
// them after a reconnection.
func (c *candidacy) beginRecheck() {
	b := c.ballot
	if !b.recheck.all && c.followTransfers() && c.phase == waiting {
		b.recheck.at = c.now.Add(c.session.Timeout() / 8) // that was this time's; what it was for comes soon
		return
	}
	what := recheckOrder{ballot: b.node, own: true}
	if c.phase == waiting && b.line.known {
		what.predecessor = b.line.place.predecessor
	}
	what.ack = c.phase == leading
	what.watchAck = b.ack.watch == nil
	if !b.recheck.all {
		b.recheck.turn++
		turn := b.recheck.turn
		switch {
		case what.predecessor != "" && turn%(1+b.line.place.ahead/16) == 0:
			// A list shows both nodes in one request, and how many are in front. A
			// candidate that learns in time that only the leader is in front can keep
			// a lease warm (HotStandby), and take over without a list when that goes.
			// Far back in the line that is less urgent.
			what.own, what.list = false, true
		case what.ack && b.ack.watch != nil && turn%3 == 2:
			b.recheck.at = c.now.Add(c.session.recheckInterval())
			c.transfers.readAgain()
			return
		case what.ack && (b.ack.watch == nil || turn%3 == 0), what.predecessor != "" && turn%2 == 1:
			what.own = false
		default:
			what.ack, what.predecessor = false, ""
		}
	} else if what.predecessor != "" && b.line.second != nil {
		what.list = true // which shows both of those in front in one request
	}
	b.recheck.all = false
	b.recheck.at = c.now.Add(c.session.recheckInterval())
	c.begin(what)
}

func (c *candidacy) recheckDone(r recheckResult) {
	c.errandDone()
	if r.ballot != c.own() || c.phase == withdrawing {
		return
	}
	if c.phase == leaving {
		switch {
		case r.ownGone: // known, whatever was refused behind it
			if !c.term.causePending {
				c.ballotLost(c.goneCause())
			}
		case r.err != nil: // and nothing is held back for it: the withdrawal must not wait
			c.ballot.recheck.at = c.now.Add(c.session.Timeout() / 8)
		}
		return
	}
	l := &c.ballot.line
	switch {
	case r.ownGone: // known, whatever was refused behind it
		c.ballotLost(c.goneCause())
		return
	case r.err != nil:
		c.ballot.recheck.all = true
		c.failed(r.err)
		if c.holdBack(stepRecheck, "recheck", r.err) {
			c.logger.Warn("election: cannot look at the nodes", "error", r.err)
		}
		return
	case r.predecessorGone && l.known && l.place.predecessor == r.predecessor:
		// A watch should have told.
		c.session.watches.remove(c.path + "/" + r.predecessor)
		c.predecessorGone()
	case r.list && l.known && l.place.predecessor == r.predecessor && r.place.predecessor == r.predecessor:
		// Another one between the two is known to be gone: the server lags.
		l.listed(r.place, c.now)
		c.lineSeen(r.place)
	}
	c.last.over()
	if r.own {
		c.ballot.verify = false
	}
	if r.ack && c.phase == leading {
		c.ackFound(r)
	}
}

// placeOrder asks for a ballot's place.
type placeOrder struct {
	ballot *ballot
	known  *standing // behind others, from a list a moment ago; nil if there was none
	// next is the first in line if those between are about to make way, or "": it is
	// watched while the list travels.
	next string
}

func (o placeOrder) run(ctx context.Context, e errands) any { return e.findPlace(ctx, o) }

// placeResult is a ballot's place among the others, and the watch on the one in
// front.
type placeResult struct {
	ballot *ballot
	gone   bool // our own ballot is not there
	again  bool // the one in front has gone meanwhile
	place  standing
	watch  <-chan zk.Event
	err    error
}

// findPlace lists the ballots, unless the place is known, and watches the
// predecessor. When that is gone by then and was the only one in front, nobody
// is: numbers only grow. Otherwise it has to be listed again, or there is something
// better to do by then: while many make way, each of them is in front of another one.
func (e errands) findPlace(ctx context.Context, o placeOrder) (r placeResult) {
	r.ballot = o.ballot
	switch {
	case o.known != nil:
		r.place = *o.known
	case o.next != "":
		if r.err = e.listAhead(ctx, o, &r); r.err != nil || r.gone || r.place.ahead == 0 {
			return r
		}
	}
	listed := o.known != nil || o.next != ""
	if listed && e.reuseWatch(&r) {
		return r
	}
	r.err = e.session.do(ctx, func(conn *zk.Conn) error {
		if !listed {
			if err := e.list(conn, &r); err != nil || r.gone || r.place.ahead == 0 {
				return err
			}
		}
		if e.reuseWatch(&r) {
			if listed {
				return errNothingAsked // another candidate has armed it since this errand began
			}
			return nil
		}
		if err := e.watchPredecessor(conn, &r); err != nil || r.watch != nil {
			return err
		}
		if r.again = r.place.ahead > 1; !r.again {
			r.place = standing{}
		}
		return nil
	})
	return r
}

// listAhead finds the ballot's place, and arms a watch on the one that is to be the one
// in front meanwhile. Whatever comes of that, findPlace finds the watch, or arms one itself.
func (e errands) listAhead(ctx context.Context, o placeOrder, r *placeResult) error {
	inc, path := o.ballot.inc, e.path+"/"+o.next
	var both sync.WaitGroup
	if e.session.watches.reuse(inc, path) == nil {
		both.Go(func() {
			_ = e.session.do(ctx, func(conn *zk.Conn) error {
				stat, watch, err := watchDeletion(conn, path)
				if err == nil && stat != nil {
					e.session.watches.add(inc, path, watch)
				}
				return err
			})
		})
	}
	err := e.session.do(ctx, func(conn *zk.Conn) error { return e.list(conn, r) })
	both.Wait()
	return err
}

// list finds the ballot's place in the list of all.
func (e errands) list(conn *zk.Conn, r *placeResult) error {
	children, _, err := conn.Children(e.path)
	if err != nil && !errors.Is(err, zk.ErrNoNode) {
		return err
	}
	place, stands := placeIn(children, r.ballot.name)
	r.place, r.gone = place, !stands
	return nil
}

// reuseWatch takes a watch on the predecessor that another candidate has left, if
// there is one.
func (e errands) reuseWatch(r *placeResult) bool {
	r.watch = e.session.watches.reuse(r.ballot.inc, e.path+"/"+r.place.predecessor)
	return r.watch != nil
}

// watchPredecessor arms a watch, unless the predecessor is gone.
func (e errands) watchPredecessor(conn *zk.Conn, r *placeResult) error {
	path := e.path + "/" + r.place.predecessor
	stat, watch, err := watchDeletion(conn, path)
	if err == nil && stat != nil {
		e.session.watches.add(r.ballot.inc, path, watch)
		r.watch = watch
	}
	return err
}

// secondOrder asks for a watch on the ballot in front of the predecessor.
type secondOrder struct {
	ballot *ballot
	second string // its name
}

func (o secondOrder) run(ctx context.Context, e errands) any { return e.watchSecond(ctx, o) }

// secondResult is that watch, or that there is nothing to watch any more.
type secondResult struct {
	secondOrder
	watch <-chan zk.Event
	gone  bool
	err   error
}

func (e errands) watchSecond(ctx context.Context, o secondOrder) (r secondResult) {
	r.secondOrder = o
	path := e.path + "/" + o.second
	if r.watch = e.session.watches.reuse(o.ballot.inc, path); r.watch != nil {
		return r
	}
	r.err = e.session.do(ctx, func(conn *zk.Conn) error {
		stat, watch, err := watchDeletion(conn, path)
		if err == nil && conn.SessionID() != o.ballot.inc.id {
			return errUncertain // of a server that need not have seen what the list has shown
		}
		if r.gone = err == nil && stat == nil; watch != nil {
			e.session.watches.add(o.ballot.inc, path, watch)
			r.watch = watch
		}
		return err
	})
	return r
}

// recheckOrder asks for a recheck of some nodes.
type recheckOrder struct {
	ballot      *ballot
	own         bool   // the ballot itself
	predecessor string // its name; "" for none
	list        bool   // all ballots: it shows both of these, and how many are in front
	ack         bool   // our acknowledgement
	watchAck    bool   // and arm a watch on its deletion
}

func (o recheckOrder) run(ctx context.Context, e errands) any { return e.recheck(ctx, o) }

// recheckResult is what a recheck has found.
type recheckResult struct {
	recheckOrder
	ownGone         bool
	predecessorGone bool
	place           standing // from the list
	ackStat         *zk.Stat // nil: it is not there
	ackWatch        <-chan zk.Event
	err             error
}

// recheck reads nodes whose watches should have reported a change.
func (e errands) recheck(ctx context.Context, what recheckOrder) (r recheckResult) {
	r.recheckOrder = what
	r.err = e.session.do(ctx, func(conn *zk.Conn) error {
		err := errNothingAsked
		for _, read := range []struct {
			asked bool
			node  func(*zk.Conn, *recheckResult) error
		}{
			{what.own, e.recheckOwn},
			{what.list, e.recheckList},
			{what.predecessor != "" && !what.list, e.recheckPredecessor},
			{what.ack, e.recheckAck},
		} {
			if !read.asked {
				continue
			}
			if err = read.node(conn, &r); err != nil {
				return err
			}
		}
		return err
	})
	return r
}

func (e errands) recheckOwn(conn *zk.Conn, r *recheckResult) error {
	exists, stat, err := conn.Exists(r.ballot.path)
	if err == nil {
		r.ownGone = !exists || stat.EphemeralOwner != r.ballot.inc.id
	}
	return err
}

func (e errands) recheckList(conn *zk.Conn, r *recheckResult) error {
	children, _, err := conn.Children(e.path)
	if err != nil && !errors.Is(err, zk.ErrNoNode) {
		return err
	}
	r.takeList(children)
	return nil
}

// takeList takes what a list of all children shows. One that another predecessor stands in says nothing of the
// former: a server that lags may show one in between that is known to be gone.
func (r *recheckResult) takeList(children []string) {
	place, stands := placeIn(children, r.ballot.name)
	r.ownGone = r.ownGone || !stands
	r.predecessorGone, r.place = !slices.Contains(children, r.predecessor), place
}

func (e errands) recheckPredecessor(conn *zk.Conn, r *recheckResult) error {
	exists, _, err := conn.Exists(e.path + "/" + r.predecessor)
	if err == nil {
		r.predecessorGone = !exists
	}
	return err
}

func (e errands) recheckAck(conn *zk.Conn, r *recheckResult) (err error) {
	if r.watchAck {
		r.ackStat, r.ackWatch, err = watchDeletion(conn, e.ackPath())
		return err
	}
	exists, stat, err := conn.Exists(e.ackPath())
	if err == nil && exists {
		r.ackStat = stat
	}
	return err
}
