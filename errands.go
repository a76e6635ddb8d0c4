package election

import (
	"context"
	"errors"

	"github.com/go-zookeeper/zk"
)

// errands make a candidate's requests. The methods run on helper goroutines: they
// know what is needed to ask ZooKeeper, and cannot reach the state of the
// candidate's loop. Each is given all else that it needs, and ends when it is
// known to be done, when its context ends, or when trying again cannot help. The
// value does not change.
type errands struct {
	session *Session
	path    string   // of the election's node
	acl     []zk.ACL // empty: open to everybody
}

// order is one errand and what it is given. Nobody changes that any more.
type order interface {
	run(ctx context.Context, e errands) (message any)
}

// errBallotGone: the ballot that a write was conditional on is not there.
var errBallotGone = errors.New("election: the ballot is gone")

func (e errands) ackPath() string { return e.path + "/" + leaderAckName }

// remove deletes a node until it is known to be gone.
func (e errands) remove(ctx context.Context, path string) error {
	err := e.session.retry(ctx, func(conn *zk.Conn) error { return conn.Delete(path, -1) })
	if errors.Is(err, zk.ErrNoNode) {
		return nil
	}
	return err
}

// guarded makes a multi that is conditional on the ballot. The error is
// errUncertain, too, when the session was another one by the time of the answer.
func (e errands) guarded(ctx context.Context, b *ballot, ops ...any) (results []zk.MultiResponse, err error) {
	if b.inc.ctx.Err() != nil {
		return nil, context.Cause(b.inc.ctx)
	}
	err = e.session.do(ctx, func(conn *zk.Conn) (err error) {
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
