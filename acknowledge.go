package election

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"github.com/go-zookeeper/zk"
)

// acknowledge writes leader_ack, on the condition that the ballot exists, so
// that an acknowledgement never stands without it, on whatever session the
// request is executed. maybe tells that this ballot may have one already; known
// is its czxid, or 0. It returns the czxid of what stands then, 0 when that is
// not known, and ends with errBallotGone when the ballot is not there.
func (c *Candidate) acknowledge(ctx context.Context, b *ballot, data []byte, known int64, maybe bool) (int64, error) {
	path := c.LeaderAckPath()
	guard := &zk.CheckVersionRequest{Path: b.path, Version: -1}
	// The answer to a creation tells nothing but the path. That to new data, in
	// the same transaction, tells the czxid: without it the acknowledgement
	// cannot be told from that of another candidate on this session. Nobody sees
	// the node before it has its data.
	create := &zk.CreateRequest{Path: path, Data: []byte{}, Acl: c.nodeACL(), Flags: zk.FlagEphemeral}
	set := &zk.SetDataRequest{Path: path, Data: data, Version: -1}
	write := []any{create, set}
	ops := []any{guard, create, set}
	for wait := newBackoff(c.session.Timeout()); ; wait.pause(ctx) {
		results, err := c.guarded(ctx, b, ops...)
		switch {
		case err == nil:
			if last := results[len(results)-1]; last.Stat != nil {
				return last.Stat.Czxid, nil
			}
			return 0, nil
		case failedAt(results, 0, zk.ErrNoNode):
			return 0, errBallotGone
		case errors.Is(err, zk.ErrNodeExists), errors.Is(err, zk.ErrNoNode):
			// Somebody's acknowledgement is there, or went while we replaced it.
		case len(write) == 2 && len(ops) > 2 && failedAt(results, len(ops)-1, zk.ErrNoAuth):
			// An ACL under which nobody may write: it has its data from the start.
			write = []any{&zk.CreateRequest{Path: path, Data: data, Acl: create.Acl, Flags: create.Flags}}
			ops = append(slices.Clip(ops[:len(ops)-2]), write...)
			continue
		case isRefused(err), ctx.Err() != nil:
			return 0, err
		default:
			maybe = true // the lost reply may have been of a success
			if _, err := c.session.barrier(ctx); err != nil {
				return 0, err
			}
		}
		var found *node
		if err := c.session.settled(ctx, func(conn *zk.Conn) (err error) {
			found, err = readNode(conn, path)
			return err
		}); err != nil {
			return 0, err
		}
		switch {
		case found == nil:
			ops = append([]any{guard}, write...)
		case !isOurs(found, b, [][]byte{data}, known, maybe):
			// One transaction, so that there is no moment without.
			ops = append([]any{guard, &zk.DeleteRequest{Path: path, Version: -1}}, write...)
		case bytes.Equal(found.data, data):
			return found.stat.Czxid, nil
		default:
			ops = []any{guard, set}
		}
	}
}

// isOurs reports whether this candidate made an acknowledgement. The session
// alone does not show it: two candidates may share one. Ours is younger than our
// ballot.
func isOurs(found *node, b *ballot, data [][]byte, known int64, maybe bool) bool {
	return found.stat.EphemeralOwner == b.inc.id &&
		(known != 0 && found.stat.Czxid == known || maybe && found.stat.Czxid > b.token && carries(data, found.data))
}

// carries reports whether data is one of those that an acknowledgement may have.
func carries(all [][]byte, data []byte) bool {
	return slices.ContainsFunc(all, func(d []byte) bool { return bytes.Equal(d, data) })
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

// failedAt reports whether it was the multi's operation i that failed so.
func failedAt(results []zk.MultiResponse, i int, err error) bool {
	return i < len(results) && errors.Is(results[i].Error, err)
}

// proclaim writes new data into the acknowledgement, if it is told to, and the
// ballot. Two multis, since both together may exceed what ZooKeeper takes. It
// returns whether the acknowledgement has the data.
func (c *Candidate) proclaim(ctx context.Context, b *ballot, data []byte, ack bool) (acked bool, err error) {
	guard := &zk.CheckVersionRequest{Path: b.path, Version: -1}
	paths := []string{c.LeaderAckPath(), b.path}
	if !ack {
		paths = paths[1:]
	}
	for _, path := range paths {
		for wait := newBackoff(c.session.Timeout()); ; wait.pause(ctx) {
			results, err := c.guarded(ctx, b, guard, &zk.SetDataRequest{Path: path, Data: data, Version: -1})
			if err == nil {
				break
			}
			if failedAt(results, 0, zk.ErrNoNode) {
				return acked, errBallotGone
			}
			if isRefused(err) || isAnswer(err) || ctx.Err() != nil {
				return acked, err
			}
			if _, err := c.session.await(ctx, true); err != nil {
				return acked, err
			}
		}
		acked = acked || path != b.path
	}
	return acked, nil
}
