package election

import (
	"bytes"
	"context"
	"errors"

	"github.com/go-zookeeper/zk"
)

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
