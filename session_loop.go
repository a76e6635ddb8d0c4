package election

import (
	"fmt"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/zkelection/election/internal/lease"
)

// sessionLoop is the state that only the Session's own goroutine touches. What
// others see of it is the view that it publishes, and the incarnation's lease.
type sessionLoop struct {
	*Session

	view       sessionView      // as it is, or is about to be, published
	fresh      freshSession     // a session that is not ready yet
	heartbeats lease.Heartbeats // of the session that is
	jumps      *lease.Watch     // of the clock
	outage     outage           // the time without a connection, while there is none
	owner      owner            // of a caller's connection
	seen       int64            // of signs.established, at the last step
	probed     int64            // of signs.established: a refused session was tried on that connection
	recheckAt  lease.Instant    // when to tell members to look at everything again; 0: not due
	guarded    *connection      // what the guard knows of
	timer      *time.Timer
	quit       bool
}

// Messages to the loop.
type (
	sessionQuit struct{}
	// prepared is the end of a helper's work on a new session.
	prepared struct {
		conn       *zk.Conn
		id         int64
		authorized int
		closed     <-chan zk.Event // fires when the owner of the connection closes it
		err        error
	}
	// closedArmed brings another such watch, or says why there is none.
	closedArmed struct {
		of     *incarnation
		closed <-chan zk.Event
		err    error
	}
	// heartbeatDone is the end of a heartbeat. The connection is nil unless it was
	// the same before and after, under the same session.
	heartbeatDone struct {
		beat     lease.Heartbeat
		sent     lease.Instant
		answered lease.Instant
		on       *connection
		err      error
	}
	watchesRefused struct{ code int32 }
	// ownerProbed reports whether a caller's connection seems to be closed.
	ownerProbed struct{ closed bool }
	// notZooKeeper is about a server whose answer to a handshake cannot be one.
	notZooKeeper struct {
		server string
		err    error
	}
	// serverKnown names the server of a caller's connection.
	serverKnown struct {
		on     *connection
		server string
	}
)

func (s *Session) run() {
	defer close(s.done)
	s.last.logger = s.logger
	l := &sessionLoop{Session: s, jumps: lease.NewWatch(s.clock)}
	l.clockJumped(l.jumps.LookClosely(l.Timeout()))
	l.beginOutage(s.clock.Now())
	l.timer = time.NewTimer(time.Hour)
	defer l.timer.Stop()
	for !l.quit {
		l.step()
		select {
		case <-s.inbox.signal:
			for _, message := range s.inbox.take() {
				l.handle(message)
			}
		case event := <-l.owner.closed:
			l.closedFired(event)
		case <-l.timer.C:
		}
	}
	if l.view.inc != nil {
		l.lose(ErrClosed)
	}
	if l.link.Load().Connected {
		l.disconnected()
	}
	l.view.connected = false
	l.publishView()
}

func (l *sessionLoop) handle(message any) {
	switch m := message.(type) {
	case sessionQuit:
		l.quit = true
	case prepared:
		l.prepared(m)
	case heartbeatDone:
		l.heartbeatDone(m)
	case watchesRefused:
		l.logger.Warn("election: the server refuses to set the watches again; asking until it does", "code", m.code)
	case closedArmed:
		l.closedArmed(m)
	case ownerProbed:
		l.ownerProbed(m)
	case notZooKeeper:
		l.notZooKeeper(m)
	case serverKnown:
		l.serverKnown(m)
	default:
		panic(fmt.Sprintf("election: the Session's loop was sent a %T", message))
	}
}

// step compares what is with what was last known, and acts on the difference.
// Events only wake the loop: the client's State and SessionID are the truth.
func (l *sessionLoop) step() {
	if l.quit {
		return
	}
	now := l.clock.Now()
	l.clockJumped(l.jumps.Look(l.Timeout()))
	conn := l.client.conn.Load()
	id := conn.SessionID()
	// In this order: a session that is established between the two reads is
	// seen as one more at the next step.
	established := l.sessionsSeen(conn)
	hasSession := conn.State() == zk.StateHasSession
	moved := established != l.seen

	if l.view.inc != nil && id != l.view.inc.id {
		l.lose(ErrSessionLost)
		l.publishView()
	}
	if hasSession && id != 0 && l.view.inc == nil {
		l.prepareWhenDue(now, conn, id)
	}
	if l.view.inc != nil {
		l.noteConnection(now, hasSession, moved)
	}
	l.reportConnection(now, hasSession, moved)
	l.noteRefusal(now, conn, hasSession, established)
	l.watchOwner(now, conn, hasSession)
	l.probeOwner(now, conn)
	l.seen = established
	l.guard(id)
	l.replaceClient(now)
	l.keepLeaseAlive(now)
	l.timer.Reset(max(0, l.wakeAt(now)-now))
}

// noteConnection tells the members of the present session's connection: whether
// there is one, and a moment after each that is made to look at everything again.
// A watch may have got lost.
func (l *sessionLoop) noteConnection(now lease.Instant, hasSession, moved bool) {
	if hasSession && moved && l.recheckAt == 0 {
		l.recheckAt = now + l.spread()
	}
	if l.recheckAt != 0 && now >= l.recheckAt {
		l.recheckAt = 0
		l.view.reconnects++
		l.publishView()
	}
	if l.view.connected != hasSession {
		l.view.connected = hasSession
		l.publishView()
	}
}

// spread is a random delay for work after a reconnection, so that many
// sessions do not come back as a storm. It is no part of a takeover.
func (l *sessionLoop) spread() time.Duration { return jitter(l.Timeout() / 40) }

// publishView tells everybody what the loop knows.
func (l *sessionLoop) publishView() {
	l.roster.mu.Lock()
	defer l.roster.mu.Unlock()
	l.publishLocked()
}

func (l *sessionLoop) publishLocked() {
	l.roster.publish(l.view)
	for m := range l.roster.members {
		m.wake()
	}
}

// wakeAt returns when the loop has something to do without being told.
func (l *sessionLoop) wakeAt(now lease.Instant) lease.Instant {
	at := now + l.Timeout() // to look at the clocks: a jump that is found late costs a takeover its time
	soonest := func(t lease.Instant) { at = min(at, t) }
	if !l.owned {
		// The connection's events are the caller's: ours is to look.
		soonest(now + min(l.Timeout()/32, 250*time.Millisecond))
	}
	if !l.link.Load().Connected && l.outage.warn > now {
		soonest(l.outage.warn)
	}
	if l.recheckAt != 0 {
		soonest(l.recheckAt)
	}
	if l.view.inc == nil {
		if due, ok := l.fresh.due(); ok && due > now {
			soonest(due)
		}
		return at
	}
	if since := lease.Instant(l.signs.refusedAt.Load()); since != 0 {
		soonest(since + l.Timeout())
	}
	if until := l.view.inc.lease.Load().Until(); until != 0 {
		soonest(until)
	}
	if due, ok := l.heartbeatDue(now); ok {
		soonest(due)
	}
	return at
}
