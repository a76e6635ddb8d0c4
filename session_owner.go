package election

import (
	"errors"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/zkelection/election/internal/lease"
)

// A caller's connection: its events are the caller's, so it is looked at again and
// again, and its owner may close it.

// owner is what is known of the owner of a caller's connection.
type owner struct {
	probing    bool            // a helper finds out whether the connection is closed
	closedSeen int             // so many times in a row it seemed to be
	closed     <-chan zk.Event // fires when it is; nil before there is a session, while that watch is set anew, and when it is closed
	arming     bool            // which a helper does
	armAt      lease.Instant   // not before, since it has failed
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

// closedAnswer is how soon a client that is closed answers, without asking anybody. One that is slower is asked again.
const closedAnswer = 5 * time.Millisecond

// probeOwner finds out whether the owner of a caller's connection has closed
// it while no watch tells. There may be none; or the client hangs as it is closed, and ends none of its watches:
// its flushRequests can wait forever where a request was just being written. A client that is closed rests in
// StateDisconnected, where others are for moments only, and answers whatever it is
// asked at once, by ErrConnectionClosed.
func (l *sessionLoop) probeOwner(now lease.Instant, conn *zk.Conn) {
	if l.owned || l.owner.probing || l.view.err != nil {
		return
	}
	if l.view.inc != nil && (l.link.Load().Connected || now-l.outage.began < l.Timeout()/4) {
		return // the watch tells, or is set in a moment
	}
	if conn.State() != zk.StateDisconnected {
		l.owner.closedSeen = 0
		return
	}
	l.owner.probing = true
	l.goHelper(func() {
		asked := time.Now()
		_, _, err := conn.Exists("/")
		// Later is the same answer from a connection that was made, and lost, meanwhile.
		atOnce := time.Since(asked) < closedAnswer
		l.inbox.push(ownerProbed{atOnce && errors.Is(err, zk.ErrConnectionClosed) && conn.State() == zk.StateDisconnected})
	})
}

// ownerProbed takes what came of that. It takes two in a row, and four where a watch stands.
func (l *sessionLoop) ownerProbed(m ownerProbed) {
	l.owner.probing = false
	if l.view.err != nil {
		return // its watch has told meanwhile
	}
	if !m.closed {
		l.owner.closedSeen = 0
		return
	}
	enough := 2
	if l.owner.closed != nil {
		enough = 4
	}
	if l.owner.closedSeen++; l.owner.closedSeen < enough {
		return // the step that follows asks again
	}
	l.ownerClosed()
}

// ownerClosed notes that a caller's connection is closed, and with it the
// session.
func (l *sessionLoop) ownerClosed() {
	l.view.err, l.owner.closed = errOwnerClosed, nil
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
	return watch, named(err)
}

// closedFired takes the event of that watch. Where the connection is open, somebody has changed the root node.
func (l *sessionLoop) closedFired(event zk.Event) {
	l.owner.closed = nil
	if errors.Is(event.Err, zk.ErrClosing) {
		l.ownerClosed()
	}
}

// watchOwner sets that watch again, until it is set.
func (l *sessionLoop) watchOwner(now lease.Instant, conn *zk.Conn, hasSession bool) {
	inc := l.view.inc
	if l.owned || inc == nil || !hasSession || l.owner.closed != nil || l.owner.arming || now < l.owner.armAt {
		return
	}
	l.owner.arming = true
	l.goHelper(func() {
		watch, err := armClosed(conn)
		l.inbox.push(closedArmed{inc, watch, err})
	})
}

func (l *sessionLoop) closedArmed(m closedArmed) {
	l.owner.arming = false
	switch {
	case isPermanent(m.err):
		l.owner.armAt = l.clock.Now() + l.recheckInterval()
	case m.err != nil:
		l.owner.armAt = l.clock.Now() + l.Timeout()/32 // at which the loop looks in any case
	case m.of == l.view.inc: // else there is a watch of the session that has followed
		l.owner.closed, l.owner.closedSeen = m.closed, 0
	}
}
