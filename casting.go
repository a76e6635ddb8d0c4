package election

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"
)

func (c *candidacy) beginCast() {
	if c.tag == "" {
		c.tag = newTag()
	}
	tag, data, uncertain, created := c.tag, c.data, c.uncertain, c.leftover
	c.checkAll = false // casting looks at all nodes
	c.setPhase(casting)
	c.errand(func(ctx context.Context) any { return c.cast(ctx, tag, data, uncertain, created) })
}

func (c *candidacy) castDone(r castResult) {
	c.errandDone()
	c.uncertain, c.leftover = r.uncertain, r.name
	if r.ballot != nil {
		c.tag = "" // the next vote is another
		c.ballot, c.ownWatch = r.ballot, r.watch
		c.last.over()
		c.ballotData, c.catchUp = r.data, false
		c.place, c.placed = r.place, r.place.below == 0
		c.acked, c.ack, c.ackWatch, c.reack, c.ackUnsure, c.ackData = false, 0, nil, false, false, nil
		c.lapses, c.flaps, c.moveAt = nil, false, time.Time{}
		c.absence = nil
		c.live.Store(c.ballot)
		c.logger.Info("election: voted", "ballot", c.ballot.name, "in_front", r.place.below)
	}
	switch {
	case !c.want || c.closing || c.withdraw:
		c.withdraw = true
		c.setPhase(withdrawing)
	case r.ballot != nil:
		defer replyAll(&c.voters, nil)
		if view := c.session.look(); view.inc != r.ballot.inc {
			c.phase = waiting
			c.ballotLost(ErrSessionLost)
			return
		}
		if c.placed {
			c.setPhase(claiming)
		} else {
			c.setPhase(waiting)
		}
	case isRefused(r.err):
		c.refused(r.err)
	default:
		c.setPhase(idle)
	}
}

// refused: ZooKeeper will not have this ballot. Who called Vote is told and
// has to do something about it. With nobody to tell, as after a session loss,
// the only one who can is an operator, so it is tried again at a slow pace.
func (c *candidacy) refused(err error) {
	c.logger.Error("election: cannot vote", "error", err)
	c.failed(err)
	c.absence = err
	if len(c.voters) > 0 || len(c.campaigns) > 0 || c.runner != nil {
		c.want, c.asked = false, false
		defer c.fail(err)
	}
	c.voteAt = time.Now().Add(c.session.relook())
	if c.uncertain {
		c.withdraw = true
		c.setPhase(withdrawing)
		return
	}
	c.becomeIdle()
}

func (c *candidacy) becomeIdle() {
	c.ballot, c.ownWatch, c.nextWatch, c.ackWatch = nil, nil, nil, nil
	c.placed, c.withdraw, c.verify, c.acked = false, false, false, false
	c.live.Store(nil)
	c.setPhase(idle)
}

// The ZooKeeper side of a candidate: each function here is one errand, run on
// a helper goroutine, that takes all it needs as arguments and touches none of
// the loop's state. An errand ends when it is known to be done, when its
// context ends, or when trying again cannot help.

// errBallotGone: the ballot that a write was conditional on is not there.
var errBallotGone = errors.New("election: the ballot is gone")

// ballot is a ballot of ours that is known to exist. It does not change.
type ballot struct {
	path     string
	name     string
	sequence int64
	token    int64 // its czxid
	inc      *incarnation
}

// castResult is what casting a vote came to.
type castResult struct {
	ballot *ballot
	watch  <-chan zk.Event // on the ballot's deletion
	place  standing
	data   []byte // what it was cast with
	// uncertain: a ballot with the tag may exist that nobody serves; name is
	// its name, if it is known.
	uncertain bool
	name      string
	err       error
}

// cast creates a ballot. It tries until there is exactly one, under the
// present session, or until ctx ends. created is the name that the answer to
// the last creation told, or "".
func (c *Candidate) cast(ctx context.Context, tag string, data []byte, uncertain bool, created string) (r castResult) {
	r.data, r.uncertain = data, uncertain
	for wait := newBackoff(c.session.Timeout()); ; wait.pause(ctx) {
		inc, err := c.session.await(ctx, true)
		if err != nil {
			r.err = err
			return r
		}
		name := ""
		if r.uncertain {
			if inc, name, err = c.find(ctx, tag); err != nil {
				r.err = err
				c.takeBack(ctx, &r, created)
				return r
			}
			r.uncertain = name != ""
		}
		if name == "" {
			name, err = c.create(ctx, tag, data)
			created = name
			if err != nil && ctx.Err() != nil {
				r.err, r.uncertain = contextError(ctx), true
				return r
			}
			if isRefused(err) {
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
		b, watch, place, err := c.confirm(ctx, inc, tag, name)
		switch {
		case err == nil:
			r.ballot, r.watch, r.place, r.uncertain = b, watch, place, false
			return r
		case isRefused(err):
			r.err = err
			if errors.Is(err, ErrSequenceExhausted) {
				r.uncertain = false // it has been taken back
			} else {
				c.takeBack(ctx, &r, created)
			}
			return r
		}
	}
}

// takeBack deletes the ballot of a vote that came to nothing behind its
// creation. Its name is known, so it can be deleted also by one who may not
// read it, or what else there is. If that fails, the withdrawal goes on with it.
func (c *Candidate) takeBack(ctx context.Context, r *castResult, name string) {
	if name != "" && r.uncertain {
		if r.name = name; c.remove(ctx, c.path+"/"+name) == nil {
			r.uncertain, r.name = false, ""
		}
	}
}

// create creates the ballot, and the nodes above it if they are missing.
func (c *Candidate) create(ctx context.Context, tag string, data []byte) (name string, err error) {
	stem := ballotStem(c.path, tag)
	for tries := 0; ; tries++ {
		if len(c.acl) > 0 {
			if err := c.checkOpen(ctx); err != nil && !errors.Is(err, zk.ErrNoNode) {
				return "", err
			}
		}
		var path string
		err = c.session.do(ctx, func(conn *zk.Conn) (err error) {
			path, err = conn.Create(stem, data, zk.FlagEphemeral|zk.FlagSequence, c.nodeACL())
			return err
		})
		// Parents may go as fast as they are made, so not forever.
		if !errors.Is(err, zk.ErrNoNode) || tries == 3 {
			if err != nil {
				return "", err
			}
			return strings.TrimPrefix(path, c.path+"/"), nil
		}
		if err := c.makeParents(ctx); err != nil {
			return "", err
		}
	}
}

func (c *Candidate) makeParents(ctx context.Context) error {
	for _, path := range parents(c.path) {
		acl := zk.WorldACL(zk.PermAll)
		if path == c.path {
			acl = c.nodeACL()
		}
		err := c.session.do(ctx, func(conn *zk.Conn) error {
			_, err := conn.Create(path, []byte{}, 0, acl)
			return err
		})
		if errors.Is(err, zk.ErrNoAuth) {
			// Whoever may not create it need not, if it is there.
			if c.session.do(ctx, func(conn *zk.Conn) error {
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
func (c *Candidate) find(ctx context.Context, tag string) (*incarnation, string, error) {
	for wait := newBackoff(c.session.Timeout()); ; wait.pause(ctx) {
		inc, err := c.session.barrier(ctx)
		if err != nil {
			return nil, "", err
		}
		var name string
		foreign := false
		err = c.session.do(ctx, func(conn *zk.Conn) error {
			children, _, err := conn.Children(c.path)
			if errors.Is(err, zk.ErrNoNode) {
				return nil
			}
			for _, b := range tagged(ballotsOf(children), tag) {
				exists, stat, err := conn.Exists(c.path + "/" + b.name)
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
		if isRefused(err) {
			return nil, "", err
		}
	}
}

// confirm makes sure of a ballot: it belongs to the present session, it can be
// ordered, it is the only one with our tag. It also arms the watch on it and
// finds its place. An error that is not a refusal means: begin again.
func (c *Candidate) confirm(ctx context.Context, inc *incarnation, tag, name string) (*ballot, <-chan zk.Event, standing, error) {
	path := c.path + "/" + name
	var (
		stat             *zk.Stat
		watch            <-chan zk.Event
		children         []string
		watchErr, allErr error
		both             sync.WaitGroup
	)
	// Neither needs the other, so they travel together.
	both.Go(func() {
		allErr = c.session.do(ctx, func(conn *zk.Conn) (err error) {
			children, _, err = conn.Children(c.path)
			return err
		})
	})
	watchErr = c.session.do(ctx, func(conn *zk.Conn) (err error) {
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
		if err := c.remove(ctx, c.path+"/"+extra.name); err != nil {
			return nil, nil, standing{}, err
		}
		ballots = slices.DeleteFunc(ballots, func(o child) bool { return o == extra })
	}
	parsed, ok := parseBallot(name)
	if !ok || parsed.sequence < 0 || parsed.sequence >= sequenceEnd {
		if err := c.remove(ctx, path); err != nil {
			return nil, nil, standing{}, err
		}
		return nil, nil, standing{}, fmt.Errorf("%w: %s", ErrSequenceExhausted, path)
	}
	b.sequence = parsed.sequence
	place, ok := standingOf(ballots, name)
	if !ok {
		return nil, nil, standing{}, errUncertain
	}
	return b, watch, place, nil
}

// remove deletes a node until it is known to be gone.
func (c *Candidate) remove(ctx context.Context, path string) error {
	err := c.session.settled(ctx, func(conn *zk.Conn) error { return conn.Delete(path, -1) })
	if errors.Is(err, zk.ErrNoNode) {
		return nil
	}
	return err
}
