package election

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/go-zookeeper/zk"
)

// Casting: a vote, from its beginning to the one ballot that comes of it, or to
// the refusal.

func (c *candidacy) beginCast() {
	if c.stray.tag == "" {
		c.stray.tag = newTag()
	}
	c.ballot = &ballotState{data: c.data}
	c.setPhase(casting)
	c.begin(castOrder{stray: c.stray, data: c.data, priority: c.priority.now()})
}

func (c *candidacy) castDone(r castResult) {
	c.errandDone()
	c.stray.possible, c.stray.name = r.uncertain, r.name
	if r.ballot != nil {
		c.stray = stray{} // the next vote is another
		b := c.ballot
		b.node, b.watch = r.ballot, r.watch
		b.line = line{known: r.place.ahead == 0, place: r.place}
		c.last.over()
		if !c.stander.aside() {
			c.absence.cause = nil
		}
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
		replyAll(&c.voters, nil)
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
	c.logger.Error("election: cannot vote", "error", err)
	c.failed(err)
	c.absence.cause = err
	if len(c.voters) > 0 || len(c.campaigns) > 0 || c.runner != nil || c.stander.handle != nil {
		c.want, c.asked = false, false
		defer c.fail(err)
		c.stander.end(err)
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
}

func (o castOrder) run(ctx context.Context, e errands) any { return e.cast(ctx, o) }

// castResult is what casting a vote came to.
type castResult struct {
	ballot *ballot
	watch  <-chan zk.Event // on the ballot's deletion
	place  standing
	// uncertain: a ballot with the tag may exist that nobody serves; name is
	// its name, if it is known.
	uncertain bool
	name      string
	err       error
}

// cast creates a ballot. It tries until there is exactly one, under the
// present session, or until ctx ends.
func (e errands) cast(ctx context.Context, o castOrder) (r castResult) {
	tag := o.tag
	created := o.name // that the answer to the last creation told, or ""
	r.uncertain = o.possible
	for wait := newBackoff(e.session.Timeout()); ; wait.pause(ctx) {
		inc, err := e.session.await(ctx, true)
		if err != nil {
			r.err = err
			return r
		}
		name := ""
		if r.uncertain {
			if inc, name, err = e.find(ctx, tag); err != nil {
				r.err = err
				e.takeBack(ctx, &r, created)
				return r
			}
			r.uncertain = name != ""
		}
		if name == "" {
			name, err = e.create(ctx, o)
			created = name
			if err != nil && ctx.Err() != nil {
				r.err, r.uncertain = contextError(ctx), true
				return r
			}
			if isPermanent(err) {
				// What such a code says of the ballot nobody knows.
				var code ErrorCode
				r.err, r.uncertain = err, errors.As(err, &code)
				return r
			}
			// Anything else that was not an answer may have been applied. That
			// includes a create sent under a session other than inc: the
			// client sends what was queued on the next one.
			r.uncertain = err == nil || !errors.Is(err, zk.ErrNoNode)
			if err != nil {
				continue
			}
		}
		b, watch, place, err := e.confirm(ctx, inc, tag, name)
		switch {
		case err == nil:
			r.ballot, r.watch, r.place, r.uncertain = b, watch, place, false
			return r
		case isPermanent(err):
			r.err = err
			if errors.Is(err, ErrSequenceExhausted) {
				r.uncertain = false // it has been taken back
			} else {
				e.takeBack(ctx, &r, created)
			}
			return r
		}
	}
}

// takeBack deletes the ballot of a vote that came to nothing behind its
// creation. Its name is known, so it can be deleted also by one who may not
// read it, or what else there is. If that fails, the withdrawal goes on with it.
func (e errands) takeBack(ctx context.Context, r *castResult, name string) {
	if name != "" && r.uncertain {
		if r.name = name; e.remove(ctx, e.path+"/"+name) == nil {
			r.uncertain, r.name = false, ""
		}
	}
}

// create creates the ballot, and the nodes above it if they are missing.
func (e errands) create(ctx context.Context, o castOrder) (name string, err error) {
	stem := ballotStem(e.path, o.tag, o.priority)
	for tries := 0; ; tries++ {
		if len(e.acl) > 0 {
			if err := e.checkOpen(ctx); err != nil && !errors.Is(err, zk.ErrNoNode) {
				return "", err
			}
		}
		var path string
		err = e.session.do(ctx, func(conn *zk.Conn) (err error) {
			path, err = conn.Create(stem, o.data, zk.FlagEphemeral|zk.FlagSequence, e.nodeACL())
			return err
		})
		// Parents may go as fast as they are made, so not forever.
		if !errors.Is(err, zk.ErrNoNode) || tries == 3 {
			if err != nil {
				return "", err
			}
			return strings.TrimPrefix(path, e.path+"/"), nil
		}
		if err := e.makeParents(ctx); err != nil {
			return "", err
		}
	}
}

func (e errands) makeParents(ctx context.Context) error {
	for _, path := range parents(e.path) {
		acl := zk.WorldACL(zk.PermAll)
		if path == e.path {
			acl = e.nodeACL()
		}
		err := e.session.do(ctx, func(conn *zk.Conn) error {
			_, err := conn.Create(path, []byte{}, 0, acl)
			return err
		})
		if errors.Is(err, zk.ErrNoAuth) {
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
				continue
			}
		}
		if err != nil && !errors.Is(err, zk.ErrNodeExists) {
			return err
		}
	}
	return nil
}

// find looks for a ballot whose creation was left open, behind a barrier. One
// of the present session is returned; none is returned as "". One of another
// session, our own earlier one, is waited out: its end comes with that session.
func (e errands) find(ctx context.Context, tag string) (*incarnation, string, error) {
	for wait := newBackoff(e.session.Timeout()); ; wait.pause(ctx) {
		inc, err := e.session.barrier(ctx)
		if err != nil {
			return nil, "", err
		}
		var name string
		foreign := false
		err = e.session.do(ctx, func(conn *zk.Conn) error {
			children, _, err := conn.Children(e.path)
			if errors.Is(err, zk.ErrNoNode) {
				return nil
			}
			for _, b := range tagged(ballotsOf(children), tag) {
				exists, stat, err := conn.Exists(e.path + "/" + b.name)
				switch {
				case err != nil:
					return err
				case !exists:
				case stat.EphemeralOwner != inc.id:
					foreign = true
				case name == "":
					name = b.name
				}
			}
			if err == nil && conn.SessionID() != inc.id {
				return errUncertain
			}
			return err
		})
		if err == nil && (name != "" || !foreign) {
			return inc, name, nil
		}
		if ctx.Err() != nil {
			return nil, "", contextError(ctx)
		}
		if isPermanent(err) {
			return nil, "", err
		}
	}
}

// confirm makes sure of a ballot: it belongs to the present session, it can be
// ordered, it is the only one with our tag. It also arms the watch on it and
// finds its place. An error that is not a refusal means: begin again.
func (e errands) confirm(ctx context.Context, inc *incarnation, tag, name string) (*ballot, <-chan zk.Event, standing, error) {
	path := e.path + "/" + name
	var (
		stat             *zk.Stat
		watch            <-chan zk.Event
		children         []string
		watchErr, allErr error
		both             sync.WaitGroup
	)
	// Neither needs the other, so they travel together.
	both.Go(func() {
		allErr = e.session.do(ctx, func(conn *zk.Conn) (err error) {
			children, _, err = conn.Children(e.path)
			return err
		})
	})
	watchErr = e.session.do(ctx, func(conn *zk.Conn) (err error) {
		stat, watch, err = watchDeletion(conn, path)
		if err == nil && conn.SessionID() != inc.id {
			return errUncertain
		}
		return err
	})
	both.Wait()
	if err := errors.Join(watchErr, allErr); err != nil {
		return nil, nil, standing{}, err
	}
	if stat == nil || stat.EphemeralOwner != inc.id {
		return nil, nil, standing{}, errUncertain
	}
	b := &ballot{path: path, name: name, token: stat.Czxid, inc: inc}
	ballots := ballotsOf(children)
	for _, extra := range tagged(ballots, tag) {
		if extra.name == name {
			continue
		}
		// From a try whose reply was lost. Nobody serves it.
		if err := e.remove(ctx, e.path+"/"+extra.name); err != nil {
			return nil, nil, standing{}, err
		}
		ballots = slices.DeleteFunc(ballots, func(o child) bool { return o == extra })
	}
	parsed, ok := parseBallot(name)
	if !ok || parsed.sequence < 0 || parsed.sequence >= sequenceEnd {
		if err := e.remove(ctx, path); err != nil {
			return nil, nil, standing{}, err
		}
		return nil, nil, standing{}, fmt.Errorf("%w: %s", ErrSequenceExhausted, path)
	}
	b.sequence = parsed.sequence
	place, ok := standingOf(ballots, name)
	place.transfer = slices.Contains(children, transferName)
	if !ok {
		return nil, nil, standing{}, errUncertain
	}
	return b, watch, place, nil
}
