package election

import (
	"bytes"
	"context"
	"crypto/sha1" //nolint:gosec // what ZooKeeper's digest scheme is made of
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/go-zookeeper/zk"
)

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
	// uncertain: a ballot with the tag may exist that nobody serves.
	uncertain bool
	err       error
}

// cast creates a ballot. It tries until there is exactly one, under the
// present session, or until ctx ends.
func (c *Candidate) cast(ctx context.Context, tag string, data []byte, uncertain bool) (r castResult) {
	r.uncertain = uncertain
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
				return r
			}
			r.uncertain = name != ""
		}
		if name == "" {
			name, err = c.create(ctx, tag, data)
			if err != nil && ctx.Err() != nil {
				r.err, r.uncertain = context.Cause(ctx), true
				return r
			}
			if isRefused(err) {
				r.err = err
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
			r.uncertain = !errors.Is(err, ErrSequenceExhausted)
			return r
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
		// Parents may go as fast as they are made, so not for ever.
		if !errors.Is(err, zk.ErrNoNode) || tries == 3 {
			return strings.TrimPrefix(path, c.path+"/"), err
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
			_, err := conn.Create(path, nil, 0, acl)
			return err
		})
		if errors.Is(err, zk.ErrNoAuth) {
			// Whoever may not create it need not, if it is there.
			if c.session.do(ctx, func(conn *zk.Conn) error {
				exists, _, err := conn.Exists(path)
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

func (c *Candidate) nodeACL() []zk.ACL {
	if len(c.acl) == 0 {
		return zk.WorldACL(zk.PermAll)
	}
	return c.acl
}

// checkOpen refuses an election node on which others may create or delete
// ballots, whatever the ballots' own ACL: ZooKeeper asks the parent's.
func (c *Candidate) checkOpen(ctx context.Context) error {
	var existing []zk.ACL
	if err := c.session.do(ctx, func(conn *zk.Conn) (err error) {
		existing, _, err = conn.GetACL(c.path)
		return err
	}); err != nil {
		return err
	}
	allowed := c.acl
	for _, entry := range c.acl {
		if entry.Scheme == "auth" {
			// The server stores the credentials of the connection instead.
			for _, a := range c.session.opts.Auth {
				allowed = append(slices.Clip(allowed), zk.ACL{Perms: entry.Perms, Scheme: a.Scheme, ID: authID(a)})
			}
		}
	}
	for _, entry := range existing {
		const dangerous = zk.PermCreate | zk.PermDelete | zk.PermAdmin
		mine := slices.ContainsFunc(allowed, func(a zk.ACL) bool { return a.Scheme == entry.Scheme && a.ID == entry.ID })
		if entry.Perms&dangerous != 0 && !mine {
			return fmt.Errorf("%w: %s lets %s:%s in", ErrOpenElection, c.path, entry.Scheme, entry.ID)
		}
	}
	return nil
}

// authID is how the server names a credential in an ACL.
func authID(a Auth) string {
	user, _, ok := strings.Cut(string(a.Credentials), ":")
	if a.Scheme != "digest" || !ok {
		return string(a.Credentials)
	}
	sum := sha1.Sum(a.Credentials) //nolint:gosec // see above
	return user + ":" + base64.StdEncoding.EncodeToString(sum[:])
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
			return nil, "", context.Cause(ctx)
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
				return nil
			}
			path := c.path + "/" + r.place.predecessor
			if r.watch = c.session.watches.reuse(b.inc, path); r.watch != nil {
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

// checks are the nodes that a slow look is for.
type checks struct {
	ballot      *ballot
	own         bool   // the ballot itself
	predecessor string // its name; "" for none
	ack         bool   // our acknowledgement
	watchAck    bool   // and arm a watch on its deletion
}

// checkResult is what the slow look has found.
type checkResult struct {
	checks
	ownGone         bool
	predecessorGone bool
	ackStat         *zk.Stat // nil: it is not there
	ackWatch        <-chan zk.Event
	err             error
}

// check looks at nodes whose watches should have told, in case one was lost.
func (c *Candidate) check(ctx context.Context, what checks) (r checkResult) {
	r.checks = what
	r.err = c.session.do(ctx, func(conn *zk.Conn) (err error) {
		if what.own {
			exists, stat, err := conn.Exists(what.ballot.path)
			if err != nil {
				return err
			}
			r.ownGone = !exists || stat.EphemeralOwner != what.ballot.inc.id
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

// acknowledge writes leader_ack, on the condition that the ballot exists, so
// that an acknowledgement never stands without it, on whatever session the
// request is executed. maybe tells that this ballot may have one already; known
// is its czxid, or 0. It ends with errBallotGone when the ballot is not there.
func (c *Candidate) acknowledge(ctx context.Context, b *ballot, data []byte, known int64, maybe bool) error {
	path := c.LeaderAckPath()
	guard := &zk.CheckVersionRequest{Path: b.path, Version: -1}
	create := &zk.CreateRequest{Path: path, Data: data, Acl: c.nodeACL(), Flags: zk.FlagEphemeral}
	ops := []any{guard, create}
	for wait := newBackoff(c.session.Timeout()); ; wait.pause(ctx) {
		results, err := c.guarded(ctx, b, ops...)
		switch {
		case err == nil:
			return nil
		case failedAt(results, 0, zk.ErrNoNode):
			return errBallotGone
		case errors.Is(err, zk.ErrNodeExists), errors.Is(err, zk.ErrNoNode):
			// Somebody's acknowledgement is there, or went while we replaced it.
		case isRefused(err), ctx.Err() != nil:
			return err
		default:
			maybe = true // the lost reply may have been of a success
			if _, err := c.session.barrier(ctx); err != nil {
				return err
			}
		}
		var found *node
		if err := c.session.settled(ctx, func(conn *zk.Conn) (err error) {
			found, err = readNode(conn, path)
			return err
		}); err != nil {
			return err
		}
		switch {
		case found == nil:
			ops = []any{guard, create}
		case !isOurs(found, b, data, known, maybe):
			// One transaction, so that there is no moment without.
			ops = []any{guard, &zk.DeleteRequest{Path: path, Version: -1}, create}
		case bytes.Equal(found.data, data):
			return nil
		default:
			ops = []any{guard, &zk.SetDataRequest{Path: path, Data: data, Version: -1}}
		}
	}
}

// isOurs tells whether this candidate made an acknowledgement. The session
// alone does not: two candidates may share one.
func isOurs(found *node, b *ballot, data []byte, known int64, maybe bool) bool {
	return found.stat.EphemeralOwner == b.inc.id &&
		(known != 0 && found.stat.Czxid == known || maybe && bytes.Equal(found.data, data))
}

// guarded makes a multi that is conditional on the ballot. The error is
// errUncertain, too, when the session was another one by the time of the answer.
func (c *Candidate) guarded(ctx context.Context, b *ballot, ops ...any) (results []zk.MultiResponse, err error) {
	if b.inc.ctx.Err() != nil {
		return nil, context.Cause(b.inc.ctx)
	}
	err = c.session.do(ctx, func(conn *zk.Conn) (err error) {
		results, err = conn.Multi(ops...)
		if err == nil && conn.SessionID() != b.inc.id {
			return errUncertain
		}
		return err
	})
	return results, err
}

// failedAt tells whether it was the multi's operation i that failed so.
func failedAt(results []zk.MultiResponse, i int, err error) bool {
	return i < len(results) && errors.Is(results[i].Error, err)
}

// proclaim writes new data into the acknowledgement and the ballot. Two multis, since both together may exceed what ZooKeeper takes.
func (c *Candidate) proclaim(ctx context.Context, b *ballot, data []byte) error {
	guard := &zk.CheckVersionRequest{Path: b.path, Version: -1}
	for _, path := range []string{c.LeaderAckPath(), b.path} {
		for wait := newBackoff(c.session.Timeout()); ; wait.pause(ctx) {
			results, err := c.guarded(ctx, b, guard, &zk.SetDataRequest{Path: path, Data: data, Version: -1})
			if err == nil {
				break
			}
			if failedAt(results, 0, zk.ErrNoNode) {
				return errBallotGone
			}
			if isRefused(err) || isAnswer(err) || ctx.Err() != nil {
				return err
			}
			if _, err := c.session.await(ctx, true); err != nil {
				return err
			}
		}
	}
	return nil
}

// withdrawal is what to take back.
type withdrawal struct {
	ballot *ballot // nil: none that is known
	// tag of a ballot that may exist though no reply told of it; "" if none can.
	tag string
	// acked: an acknowledgement may have been written; ack is its czxid, 0
	// when that is not known.
	acked bool
	ack   int64
}

// withdraw deletes the ballot and the acknowledgement that we wrote, and ends
// when the server has confirmed that both are gone, or the session is.
func (c *Candidate) withdraw(ctx context.Context, w withdrawal) error {
	if w.ballot != nil {
		if err := c.withdrawBallot(ctx, w); err != nil {
			return err
		}
	}
	if w.tag == "" {
		return nil
	}
	for {
		inc, err := c.session.barrier(ctx)
		if err != nil {
			return err
		}
		err = c.session.settled(ctx, func(conn *zk.Conn) error {
			children, _, err := conn.Children(c.path)
			if err != nil {
				return err // NoNode: there is nothing
			}
			for _, b := range tagged(ballotsOf(children), w.tag) {
				path := c.path + "/" + b.name
				exists, stat, err := conn.Exists(path)
				// What another session owns ends with that session.
				if err == nil && exists && stat.EphemeralOwner == inc.id {
					err = conn.Delete(path, -1)
				}
				if err != nil && !errors.Is(err, zk.ErrNoNode) {
					return err
				}
			}
			return nil
		})
		if inc.ctx.Err() != nil && ctx.Err() == nil {
			continue
		}
		if errors.Is(err, zk.ErrNoNode) {
			return nil
		}
		return err
	}
}

func (c *Candidate) withdrawBallot(ctx context.Context, w withdrawal) error {
	// A session's end withdraws everything.
	under, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(w.ballot.inc.ctx, func() { cancel(errBallotGone) })()

	err := c.deleteBallot(under, w)
	if err != nil && w.ballot.inc.ctx.Err() != nil {
		return nil
	}
	return err
}

func (c *Candidate) deleteBallot(ctx context.Context, w withdrawal) error {
	path := c.LeaderAckPath()
	ballotOp := &zk.DeleteRequest{Path: w.ballot.path, Version: -1}
	withAck := w.acked
	for {
		if withAck && w.ack == 0 {
			ack, err := c.ownAck(ctx, w)
			if err != nil {
				return err
			}
			withAck = ack != 0
		}
		var results []zk.MultiResponse
		err := c.session.settled(ctx, func(conn *zk.Conn) (err error) {
			if !withAck {
				return conn.Delete(w.ballot.path, -1)
			}
			results, err = conn.Multi(&zk.DeleteRequest{Path: path, Version: -1}, ballotOp)
			return err
		})
		switch {
		case withAck && failedAt(results, 0, zk.ErrNoNode):
			withAck = false // the ballot remains to be deleted
			continue
		case err != nil && !errors.Is(err, zk.ErrNoNode):
			return err
		case err == nil || !w.acked:
			return nil
		}
		// Somebody deleted the ballot, or our own deletion's reply was lost
		// and it took the acknowledgement along: only what we made is deleted.
		ack, err := c.ownAck(ctx, w)
		if err == nil && ack != 0 {
			err = c.remove(ctx, path)
		}
		return err
	}
}

// ownAck returns the czxid of the acknowledgement if this candidate made it.
func (c *Candidate) ownAck(ctx context.Context, w withdrawal) (int64, error) {
	var found *node
	err := c.session.settled(ctx, func(conn *zk.Conn) (err error) {
		found, err = readNode(conn, c.LeaderAckPath())
		return err
	})
	if err != nil || found == nil || found.stat.EphemeralOwner != w.ballot.inc.id {
		return 0, err
	}
	if w.ack != 0 && found.stat.Czxid != w.ack {
		return 0, nil
	}
	return found.stat.Czxid, nil
}
