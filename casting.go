package election

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/go-zookeeper/zk"
)

// Casting: a vote, from its beginning to the one ballot that comes of it, or to
// the refusal.

func (c *candidacy) beginCast() {
	c.ballot = &ballotState{data: c.data}
	c.setPhase(casting)
	inbox := c.inbox
	c.begin(c.voteOrder(func(place standing) { inbox.push(castPlaced{place}) }))
}

// castPlaced is the place of a ballot whose creation has been answered, and that is
// not confirmed yet. It is good for what may begin beside the confirmation and is of
// no use to anybody without it.
type castPlaced struct{ place standing }

// castPlaced has the acknowledgement read that OnLose will be told of, or the lease made.
func (c *candidacy) castPlaced(m castPlaced) {
	if c.phase != casting {
		return
	}
	c.ballot.line = line{known: m.place.ahead == 0, place: m.place}
	c.forgetEarlierTry()
	if m.place.ahead > 0 {
		c.startLosing(m.place.acked)
	}
}

// forgetEarlierTry drops what a try to cast has heard of the leader, which was true of its
// ballot, and of its time.
func (c *candidacy) forgetEarlierTry() {
	if c.ballot.losing != nil {
		c.stopLosing()
	}
}

func (c *candidacy) castDone(r castResult) {
	c.errandDone()
	c.stray.possible, c.stray.name = r.uncertain, r.name
	if r.ballot != nil {
		c.voteDone()
		b := c.ballot
		if !r.placed {
			c.forgetEarlierTry()
		}
		b.node, b.watch = r.ballot, r.watch
		b.line = line{known: r.place.ahead == 0, place: r.place}
		if r.ahead != nil {
			b.line.placeAt(r.place, r.ahead, c.now)
		}
		c.last.over()
		c.endAbsence()
		c.live.Store(b.node)
		c.logger.Info("election: voted", "ballot", b.node.name, "in_front", r.place.ahead)
	}
	switch {
	case !c.want || c.closing || c.ballot.withdraw:
		c.setPhase(withdrawing)
	case r.ballot != nil:
		if c.session.currentView().inc != r.ballot.inc {
			c.ballotLost(ErrSessionLost)
		} else {
			c.standInLine()
		}
		c.replyAll(&c.voters, nil)
	case isPermanent(r.err):
		c.refused(r.err)
	default:
		c.setPhase(idle)
	}
}

// standInLine goes on with a ballot that has just been cast, or moved.
func (c *candidacy) standInLine() {
	if c.ballot.line.first() {
		c.setPhase(claiming)
	} else {
		c.setPhase(waiting)
		c.lineSeen(c.ballot.line.place)
	}
}

// refused: ZooKeeper will not have this ballot. Who called Vote is told and
// has to do something about it. With nobody to tell, as after a session loss,
// the only one who can is an operator, so it is tried again as rarely as the
// periodic recheck.
func (c *candidacy) refused(err error) {
	asked := c.isAsked()
	if former := c.absence.cause; asked || former == nil || former.Error() != err.Error() {
		c.logger.Error("election: cannot vote", "error", err) // each further try would say the same, mostly
	}
	c.failed(err)
	c.absence.cause = err
	if asked {
		defer c.refuseCallers(err)()
	}
	c.absence.until = c.now.Add(c.session.recheckInterval())
	switch {
	case c.stray.possible:
		c.setPhase(withdrawing)
	case c.phase != idle:
		c.setPhase(idle)
	}
}

// castOrder is a vote to be cast.
type castOrder struct {
	// stray is the tag to cast with, and what earlier tries with it may have left.
	stray
	data     []byte
	priority int
	again    bool           // it has stood before, so the election's node is there
	placed   func(standing) // called when the place is known, and before it is confirmed
}

func (o castOrder) run(ctx context.Context, e errands) any { return e.cast(ctx, o) }

// castResult is what casting a vote came to.
type castResult struct {
	confirmed
	placed bool // the try that succeeded has told its place
	// uncertain: a ballot with the tag may exist that nobody serves; name is
	// its name, if it is known.
	uncertain bool
	name      string
	err       error
}

// cast creates a ballot. It tries until there is exactly one, under the
// present session, or until ctx ends.
func (e errands) cast(ctx context.Context, o castOrder) (r castResult) {
	created := o.name // that the answer to the last creation told, or ""
	r.uncertain = o.possible
	for wait := e.session.newBackoff(); ; wait.pause(ctx) {
		inc, err := e.session.await(ctx, true)
		if err != nil {
			r.err = err
			return r
		}
		var name string
		var seen behindCreation
		r.placed = false
		if r.uncertain {
			if inc, name, err = e.find(ctx, o.tag); err != nil {
				r.err = err
				e.takeBack(ctx, &r, created)
				return r
			}
		}
		if name == "" {
			name, seen, err = e.create(ctx, o, inc)
			created = name
			if err != nil {
				if r.uncertain, r.err = createFailed(ctx, err); r.err != nil {
					return r
				}
				continue
			}
		}
		r.uncertain = true // until it is confirmed
		if seen.stands && o.placed != nil {
			o.placed(seen.place)
			r.placed = true
		}
		c, err := e.confirm(ctx, inc, o.tag, name, seen)
		switch {
		case err == nil:
			r.confirmed, r.uncertain = c, false
			return r
		case isPermanent(err):
			r.err, r.uncertain = err, !errors.Is(err, ErrSequenceExhausted) // that one has been taken back
			e.takeBack(ctx, &r, created)
			return r
		}
	}
}

// createFailed returns what the error of a creation means: whether there may be a ballot all the same, and the error
// that ends the vote; nil: it is tried again.
func createFailed(ctx context.Context, err error) (uncertain bool, final error) {
	switch {
	case ctx.Err() != nil:
		return true, contextError(ctx)
	case isPermanent(err):
		// What such a code says of the ballot nobody knows.
		var code ErrorCode
		return errors.As(err, &code), err
	default:
		// Anything else that was not an answer may have been applied. That
		// includes a create sent under a session other than the one that was
		// awaited: the client sends what was queued on the next one.
		return !errors.Is(err, zk.ErrNoNode), nil
	}
}

// takeBack deletes the ballot of a vote that came to nothing behind its
// creation. Its name is known, so it can be deleted also by one who may not
// read it, or what else there is. If that fails, the withdrawal goes on with it.
func (e errands) takeBack(ctx context.Context, r *castResult, name string) {
	if name != "" && r.uncertain {
		if r.name = name; e.removeStray(ctx, name) == nil {
			r.uncertain, r.name = false, ""
		}
	}
}

// behindCreation is what was asked behind a ballot's creation before all of its answer, and the
// list's, had come. The zero value is nothing.
type behindCreation struct {
	own *ownWatch // under way; nil: not asked for
	// children are as they were behind the creation, and hold the ballot, if stands; place is its place then,
	// but for other ballots of its tag.
	children []string
	place    standing
	stands   bool
}

// ownWatch is the watch on a ballot of ours, which is on its way. What it has brought is to be read
// when done is closed.
type ownWatch struct {
	done  chan struct{}
	stat  *zk.Stat
	watch <-chan zk.Event
	err   error
}

// watchOwn begins to watch a ballot. Whoever begins that waits for its end.
func (e errands) watchOwn(ctx context.Context, inc *incarnation, path string) *ownWatch {
	own := &ownWatch{done: make(chan struct{})}
	go func() {
		defer close(own.done)
		own.err = e.session.do(ctx, func(conn *zk.Conn) (err error) {
			own.stat, own.watch, err = watchDeletion(conn, path)
			if err == nil && conn.SessionID() != inc.id {
				return errUncertain
			}
			return err
		})
	}()
	return own
}

// create creates the ballot, and the nodes above it if they are missing. It brings the
// children as they are behind that, if they can be had without another round trip. The watch on
// the ballot is asked for as soon as its name is known, while the list is still on its way.
func (e errands) create(ctx context.Context, o castOrder, inc *incarnation) (name string, seen behindCreation, err error) {
	stem := ballotStem(e.path, o.tag, o.priority)
	// An ACL would stand in that request twice, and may be large.
	mayBeBare := len(e.acl) == 0
	bare := mayBeBare && !o.again && e.session.newElections.Load()
	for tries := 0; ; tries++ {
		if len(e.acl) > 0 {
			if err := e.checkOpen(ctx); err != nil && !errors.Is(err, zk.ErrNoNode) {
				return "", seen, err
			}
		}
		if bare {
			mayBeBare = false
			path, made, err := e.createWithNode(ctx, stem, o.data)
			switch {
			case err != nil:
				return "", seen, err
			case made:
				seen.own = e.watchOwn(ctx, inc, path)
				return strings.TrimPrefix(path, e.path+"/"), seen, nil
			}
		}
		name, seen, err = e.createAndList(ctx, o, inc, stem)
		// Parents may go as fast as they are made, so not forever.
		if !errors.Is(err, zk.ErrNoNode) || tries == 3 {
			return name, seen, err
		}
		e.session.newElections.Store(true)
		if bare = mayBeBare; bare {
			continue
		}
		if err := e.makeParents(ctx); err != nil {
			return "", seen, err
		}
	}
}

// createAndList creates the ballot, and lists the children behind that.
func (e errands) createAndList(ctx context.Context, o castOrder, inc *incarnation, stem string) (name string, seen behindCreation, err error) {
	var path string
	var children []string
	err, listed, listErr := e.session.createThen(ctx, stem, func(conn *zk.Conn) (err error) {
		if path, err = conn.Create(stem, o.data, zk.FlagEphemeral|zk.FlagSequence, e.nodeACL()); err == nil {
			seen.own = e.watchOwn(ctx, inc, path)
		}
		return err
	}, func(conn *zk.Conn) (err error) {
		children, _, err = conn.Children(e.path)
		return err
	})
	if err != nil {
		return "", seen, err
	}
	name = strings.TrimPrefix(path, e.path+"/")
	if listed && listErr == nil { // otherwise it is listed behind the answer
		seen.children = children
		seen.place, seen.stands = placeWithout(children, o.tag, name)
	}
	return name, seen, nil
}

// createWithNode creates the election's node and the ballot in one request. made is false without an error
// when the node was there, or has been made in another way since this one is not possible: then there is no ballot yet.
func (e errands) createWithNode(ctx context.Context, stem string, data []byte) (path string, made bool, err error) {
	var results []zk.MultiResponse
	err = e.session.do(ctx, func(conn *zk.Conn) (err error) {
		results, err = conn.Multi(
			&zk.CreateRequest{Path: e.path, Data: []byte{}, Acl: e.nodeACL()},
			&zk.CreateRequest{Path: stem, Data: data, Acl: e.nodeACL(), Flags: zk.FlagEphemeral | zk.FlagSequence},
		)
		return err
	})
	switch {
	case err == nil:
		return results[1].String, true, nil
	case failedAt(results, 0, zk.ErrNodeExists):
		e.session.newElections.Store(false)
		return "", false, nil
	case failedAt(results, 0, zk.ErrNoNode), failedAt(results, 0, zk.ErrNoAuth):
		return "", false, e.makeParents(ctx)
	}
	return "", false, err
}

// makeParents makes the election's node, and those above it that are missing. The
// others are there nearly always, so it begins below.
func (e errands) makeParents(ctx context.Context) error {
	all := parents(e.path)
	steps := 0
	for i := len(all) - 1; i < len(all); steps++ {
		err := e.makeParent(ctx, all[i])
		switch {
		case err == nil || errors.Is(err, zk.ErrNodeExists):
			i++
		case errors.Is(err, zk.ErrNoNode) && i > 0 && steps < 4*len(all): // they may go as fast as they are made
			i--
		default:
			return err
		}
	}
	return nil
}

func (e errands) makeParent(ctx context.Context, path string) error {
	acl := zk.WorldACL(zk.PermAll)
	if path == e.path {
		acl = e.nodeACL()
	}
	err := e.session.do(ctx, func(conn *zk.Conn) error {
		_, err := conn.Create(path, []byte{}, 0, acl)
		return err
	})
	if !errors.Is(err, zk.ErrNoAuth) {
		return err
	}
	// Whoever may not create it need not, if it is there.
	if e.session.do(ctx, func(conn *zk.Conn) error {
		exists, _, err := conn.Exists(path)
		if errors.Is(err, zk.ErrNoAuth) {
			return nil // it is there, and since 3.9 that is all that is said of it
		}
		if err == nil && !exists {
			return zk.ErrNoNode
		}
		return err
	}) == nil {
		return nil
	}
	return err
}

// find looks for a ballot whose creation was left open, behind a barrier. One
// of the present session is returned; none is returned as "". One of another
// session, our own earlier one, is waited out: its end comes with that session.
func (e errands) find(ctx context.Context, tag string) (*incarnation, string, error) {
	for wait := e.session.newBackoff(); ; wait.pause(ctx) {
		inc, err := e.session.barrier(ctx)
		if err != nil {
			return nil, "", err
		}
		var name string
		var foreign bool
		err = e.session.do(ctx, func(conn *zk.Conn) (err error) {
			name, foreign, err = e.findTagged(conn, tag, inc)
			return err
		})
		switch {
		case err == nil && (name != "" || !foreign):
			return inc, name, nil
		case ctx.Err() != nil:
			return nil, "", contextError(ctx)
		case isPermanent(err):
			return nil, "", err
		}
	}
}

// findTagged looks for the ballots with a tag. name is that of the first one that a session owns, or "";
// foreign is whether another session owns one.
func (e errands) findTagged(conn *zk.Conn, tag string, inc *incarnation) (name string, foreign bool, err error) {
	children, _, err := conn.Children(e.path)
	if errors.Is(err, zk.ErrNoNode) {
		return "", false, nil
	}
	for _, b := range tagged(children, tag) {
		exists, stat, err := conn.Exists(e.path + "/" + b.name)
		switch {
		case err != nil:
			return "", false, err
		case !exists:
		case stat.EphemeralOwner != inc.id:
			foreign = true
		case name == "":
			name = b.name
		}
	}
	if err == nil && conn.SessionID() != inc.id {
		err = errUncertain
	}
	return name, foreign, err
}

// confirmed is a ballot that is known to be there, and to be the only one.
type confirmed struct {
	ballot *ballot
	watch  <-chan zk.Event // on its deletion
	place  standing
	ahead  <-chan zk.Event // on the predecessor's deletion; nil if that is not watched yet
}

// confirm makes sure of a ballot: it belongs to the present session, it can be
// ordered, it is the only one with our tag. It also arms the watch on it and
// finds its place. Of the list that it is given it is known only that it is of a moment
// when the ballot's creation had been asked for: one that holds the ballot shows, too, all that
// was created before it, and the predecessor is then watched in the same round trip. With
// any other list, or none, the children are listed again. An error that is not a
// refusal means: begin again.
func (e errands) confirm(ctx context.Context, inc *incarnation, tag, name string, seen behindCreation) (c confirmed, err error) {
	path := e.path + "/" + name
	own := seen.own
	if own == nil {
		own = e.watchOwn(ctx, inc, path)
	}
	// Neither needs the other, so they travel together.
	ahead := placeResult{ballot: &ballot{inc: inc}, place: seen.place}
	var listErr error
	switch {
	case !seen.stands:
		listErr = e.session.do(ctx, func(conn *zk.Conn) (err error) {
			seen.children, _, err = conn.Children(e.path)
			return err
		})
		seen.place, seen.stands = placeWithout(seen.children, tag, name)
	case seen.place.ahead > 0 && !e.reuseWatch(&ahead):
		ahead.err = e.session.do(ctx, func(conn *zk.Conn) error { return e.watchPredecessor(conn, &ahead) })
	}
	<-own.done
	if err := errors.Join(own.err, listErr); err != nil {
		return confirmed{}, err
	}
	c.watch = own.watch
	if own.stat == nil || own.stat.EphemeralOwner != inc.id {
		return confirmed{}, errUncertain
	}
	for _, extra := range tagged(seen.children, tag) {
		if extra.name == name {
			continue
		}
		// From a try whose reply was lost. Nobody serves it.
		if err := e.remove(ctx, e.path+"/"+extra.name); err != nil {
			return confirmed{}, err
		}
	}
	parsed, ok := parseBallot(name)
	if !ok || parsed.sequence < 0 || parsed.sequence >= sequenceEnd {
		if err := e.remove(ctx, path); err != nil {
			return confirmed{}, err
		}
		return confirmed{}, fmt.Errorf("%w: %s", ErrSequenceExhausted, path)
	}
	name = path[len(path)-len(name):] // the same, without the answer that it lay in: this is kept
	c.ballot = &ballot{path: path, name: name, sequence: parsed.sequence, token: own.stat.Czxid, inc: inc}
	if !seen.stands {
		return confirmed{}, errUncertain
	}
	c.place = seen.place
	switch c.ahead = ahead.watch; {
	case ahead.place.predecessor == "" || ahead.err != nil || ahead.watch != nil:
	case c.place.ahead == 1:
		// The predecessor has gone, and was the only one in front. Numbers only grow, so nobody is.
		c.place = standing{transfer: c.place.transfer}
	default:
		c.place.predecessor = "" // it has gone: who is the next one has to be looked up
	}
	return c, nil
}
