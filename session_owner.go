package election

import (
	"errors"

	"github.com/go-zookeeper/zk"

	"github.com/zkelection/election/internal/lease"
)

// A caller's connection: its events are the caller's, so it is looked at again and
// again, and its owner may close it.

// owner is what is known of the owner of a caller's connection.
type owner struct {
	probing    bool            // a helper finds out whether the connection is closed
	closedSeen int             // so many times in a row it seemed to be
	closed     <-chan zk.Event // fires when it is; nil before there is a session
}

// sessionsSeen counts the times that the connection had a session. With a
// caller's connection there are no events to count: there, every change of
// what State and SessionID tell begins a new connection, and one that comes
// and goes between two steps is missed. The lease is safe all the same: a
// session that moves is heard of by the ensemble's leader in doing so.
func (l *sessionLoop) sessionsSeen(conn *zk.Conn) int64 {
	if !l.owned {
		hasSession := conn.State() == zk.StateHasSession
		switch current := l.client.connection.Load(); {
		case !hasSession && current != nil:
			l.client.connection.Store(nil)
		case hasSession && current == nil:
			l.client.connection.Store(&connection{Connection: lease.NewConnection(l.Timeout(), l.opts.TickTime)})
			l.signs.established.Add(1)
		}
	}
	return l.signs.established.Load()
}

// errOwnerClosed is why a Session on a caller's connection cannot be used.
var errOwnerClosed = errorf("the owner of the connection has closed it: %w", zk.ErrClosing)

// probeOwner finds out whether the owner of a caller's connection has closed
// it before there was a session. A client that is closed rests in
// StateDisconnected, where others are for moments only, and answers whatever it is
// asked at once, by ErrConnectionClosed.
func (l *sessionLoop) probeOwner(conn *zk.Conn) {
	if l.owned || l.owner.probing || l.view.err != nil || l.view.inc != nil {
		return // with a session its watch tells
	}
	if conn.State() != zk.StateDisconnected {
		l.owner.closedSeen = 0
		return
	}
	l.owner.probing = true
	l.goHelper(func() {
		_, _, err := conn.Exists("/")
		l.inbox.push(ownerProbed{errors.Is(err, zk.ErrConnectionClosed) && conn.State() == zk.StateDisconnected})
	})
}

// ownerProbed takes what came of that. It takes two in a row.
func (l *sessionLoop) ownerProbed(m ownerProbed) {
	l.owner.probing = false
	if !m.closed {
		l.owner.closedSeen = 0
		return
	}
	if l.owner.closedSeen++; l.owner.closedSeen < 2 {
		return // the step that follows asks again
	}
	l.ownerClosed()
}

// ownerClosed notes that a caller's connection is closed, and with it the
// session.
func (l *sessionLoop) ownerClosed() {
	l.view.err = errOwnerClosed
	if l.view.inc != nil {
		l.lose(ErrSessionLost)
	}
	l.publishView()
	l.logger.Error("election: the owner of the connection has closed it")
}

// armClosed sets a watch that fires when a caller's connection is closed: the
// client then ends all watches, with an error that says so.
func armClosed(conn *zk.Conn) (<-chan zk.Event, error) {
	_, _, watch, err := conn.ExistsW("/")
	return watch, err
}

// closedFired takes the event of that watch.
func (l *sessionLoop) closedFired(event zk.Event) {
	l.owner.closed = nil
	switch {
	case errors.Is(event.Err, zk.ErrClosing):
		l.ownerClosed()
	case event.Err == nil: // somebody has changed the root node
		conn := l.client.conn.Load()
		l.goHelper(func() {
			if watch, err := armClosed(conn); err == nil {
				l.inbox.push(closedArmed{watch})
			}
		})
	}
}
