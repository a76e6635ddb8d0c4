package election

import (
	"context"
	"errors"

	"github.com/go-zookeeper/zk"
)

// withdrawal is what to take back.
type withdrawal struct {
	ballot *ballot // nil: none that is known
	// tag of a ballot that may exist though no reply told of it; "" if none can.
	tag string
	// name of such a ballot, if it is known: then there is no other.
	name string
	// acked: an acknowledgement may have been written; ack is its czxid, 0
	// when that is not known.
	acked bool
	ack   int64
	// unsure: the reply to the acknowledgement's creation was lost.
	unsure bool
	// watched: a watch on it, which has not fired, tells that it still stands.
	watched bool
	data    [][]byte // that acknowledgement has one of these
	// front: no other ballot is in front.
	front bool
}

// withdraw deletes the ballot and the acknowledgement that we wrote, and ends
// when the server has confirmed that both are gone, or the session is.
func (c *Candidate) withdraw(ctx context.Context, w withdrawal) error {
	if w.ballot != nil {
		if err := c.withdrawBallot(ctx, w); err != nil {
			return err
		}
	}
	if w.name != "" {
		// Its owner need not be asked: nobody else makes one with our tag.
		return c.remove(ctx, c.path+"/"+w.name)
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
		if withAck {
			var err error
			if w, err = c.settleAck(ctx, w); err != nil {
				return err
			}
			withAck = w.acked
		}
		if !withAck && w.front {
			w.front = false
			if c.wakeGem(ctx, w.ballot) {
				return nil
			}
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
		if _, err := c.session.barrier(ctx); err != nil {
			return err
		}
		ack, err := c.ownAck(ctx, w)
		if err == nil && ack != 0 {
			err = c.remove(ctx, path)
		}
		return err
	}
}

// settleAck finds out whether there is an acknowledgement of ours to go with the
// ballot, unless a watch guards what is known of it.
func (c *Candidate) settleAck(ctx context.Context, w withdrawal) (withdrawal, error) {
	if !w.acked || w.ack != 0 && w.watched {
		return w, nil
	}
	if w.unsure {
		// A server that lags would not show it yet.
		if _, err := c.session.barrier(ctx); err != nil {
			return w, err
		}
	}
	ack, err := c.ownAck(ctx, w)
	if err != nil {
		return w, err
	}
	// What is found later may be of another candidate on this session.
	w.acked, w.ack, w.unsure, w.watched = ack != 0, ack, false, true
	return w, nil
}

// ownAck returns the czxid of the acknowledgement if this candidate made it.
func (c *Candidate) ownAck(ctx context.Context, w withdrawal) (int64, error) {
	var found *node
	err := c.session.settled(ctx, func(conn *zk.Conn) (err error) {
		found, err = readNode(conn, c.LeaderAckPath())
		return err
	})
	if err != nil || found == nil || !isOurs(found, w.ballot, w.data, w.ack, w.unsure || w.ack == 0) {
		return 0, err
	}
	return found.stat.Czxid, nil
}

// wakeGem deletes a ballot that is at the front and has acknowledged nothing,
// if the next in line is a member of the Ruby gem. That one waits for an
// acknowledgement before it looks at anything else, so it is given one, which is
// gone again in the same transaction. It reports whether the ballot is deleted.
func (c *Candidate) wakeGem(ctx context.Context, b *ballot) bool {
	var names []string
	if err := c.session.settled(ctx, func(conn *zk.Conn) (err error) {
		names, _, err = conn.Children(c.path)
		return err
	}); err != nil || !gemIsNext(ballotsOf(names), b.name) {
		return false
	}
	path := c.LeaderAckPath()
	return c.session.settled(ctx, func(conn *zk.Conn) error {
		_, err := conn.Multi(
			&zk.CreateRequest{Path: path, Data: []byte{}, Acl: c.nodeACL(), Flags: zk.FlagEphemeral},
			&zk.DeleteRequest{Path: path, Version: -1},
			&zk.DeleteRequest{Path: b.path, Version: -1})
		return err
	}) == nil // or one stands, for which the gem member has not waited in vain
}
