package election

import (
	"github.com/go-zookeeper/zk"

	"github.com/zkelection/election/internal/lease"
)

// Heartbeats: when one is sent, and what its answer makes of the lease.

// heartbeatDue returns when the next heartbeat is to be sent, if one is needed.
func (l *sessionLoop) heartbeatDue(now lease.Instant) (lease.Instant, bool) {
	conn := l.client.connection.Load()
	if l.view.inc == nil || !l.view.connected || conn == nil || !l.needed() {
		return 0, false
	}
	return l.heartbeats.Due(conn.Connection, l.view.inc.lease.Load().Until(), now)
}

// keepLeaseAlive ends a lease whose time is over, and sends a heartbeat if one is due.
func (l *sessionLoop) keepLeaseAlive(now lease.Instant) {
	if l.view.inc == nil {
		return
	}
	if lease := l.view.inc.lease.Load(); lease.Until() != 0 && !lease.Valid() {
		l.logger.Debug("election: lease lapsed", "session", sessionName(l.view.inc.id))
	}
	if due, ok := l.heartbeatDue(now); ok && due <= now {
		l.sendHeartbeat(now)
	}
}

// sendHeartbeat sends a heartbeat: a write that changes nothing, which nobody but
// a leader with a quorum can answer, and only for a session that it knows to live.
func (l *sessionLoop) sendHeartbeat(now lease.Instant) {
	beat := l.heartbeats.Sent(now)
	conn, id, on := l.client.conn.Load(), l.view.inc.id, l.client.connection.Load()
	l.goHelper(func() {
		sent := l.clock.Now()
		err := heartbeat(conn)
		answered := l.clock.Now()
		if l.client.connection.Load() != on || conn.SessionID() != id {
			on = nil
		} else if !l.owned && isDefinite(err) {
			on.Heard(sent, answered)
		}
		l.inbox.push(heartbeatDone{beat, sent, answered, on, err})
	})
}

// heartbeat is the request itself, unconditional of any node but the root.
func heartbeat(conn *zk.Conn) error {
	_, err := conn.Multi(&zk.CheckVersionRequest{Path: "/", Version: -1})
	return named(err)
}

// heartbeatDone evaluates an answered heartbeat by the rule of the lease.
func (l *sessionLoop) heartbeatDone(m heartbeatDone) {
	l.clockJumped(l.jumps.LookClosely(l.Timeout())) // before anything is believed of the time that has passed
	if m.on == nil || !isDefinite(m.err) || l.view.inc == nil || m.on != l.client.connection.Load() {
		l.heartbeats.Failed()
		l.last.note(m.err)
		return
	}
	l.last.over()
	enough := m.on.MinToClaim()
	if until, ok := l.heartbeats.Answered(m.beat, m.on.Connection, m.sent, m.answered); ok {
		l.renew(m.on, until)
	}
	if m.on.MinToClaim() < enough {
		l.wakeLeaseKeepers() // what was too little before may be enough now
	}
}

// renew makes the lease last until then, as a heartbeat on that connection says.
func (l *sessionLoop) renew(on *connection, until lease.Instant) {
	current := l.view.inc.lease.Load()
	end := current.Until()
	if current != nil && current.Extend(until) {
		// Reckoned after the extension: whoever found too little of the lease
		// left before it is told.
		margin := max(0, end-l.clock.Now())
		l.shorten(current, on)
		l.metrics.LeaseRenewed(margin)
		if margin >= max(on.MinToClaim(), on.Rule.MinToClaim()) {
			return // nobody has been waiting for it
		}
	} else if until-l.clock.Now() >= on.MinToClaim() {
		current = lease.New(l.clock, on.Rule, until)
		l.view.inc.lease.Store(current)
		l.shorten(current, on)
	}
	l.wakeLeaseKeepers()
}

// wakeLeaseKeepers has those who need the lease look at it.
func (l *sessionLoop) wakeLeaseKeepers() {
	l.roster.mu.Lock()
	defer l.roster.mu.Unlock()
	for m := range l.roster.leaseKeepers {
		m.wake()
	}
}

// shorten bounds a lease that a heartbeat on a connection made by what has come of
// the connection since: the handshake of a newer one may have found another lease,
// or none, to shorten. That one may have ended, too.
func (l *sessionLoop) shorten(made *lease.Lease, on *connection) {
	if newer := l.client.greeted.Load(); newer != on && newer != nil {
		newer.Shorten(made)
	}
}

// clockJumped gives up what rests on the monotonic clock, if that has stood still.
func (l *sessionLoop) clockJumped(found lease.Jump) {
	if !found.Found() {
		return
	}
	// A connection that is made from here on finds the jump by itself.
	if conn := l.client.connection.Load(); conn != nil {
		conn.Forget(l.clock.Jumped())
	}
	l.heartbeats.Forget()
	if l.view.inc != nil {
		if lease := l.view.inc.lease.Load(); lease != nil {
			lease.Revoke(ErrLeaseLapsed)
		}
	}
	// Last, since a log can be slow, above all on a machine that has just gone on.
	if found.Wall {
		l.logger.Warn("election: the wall clock jumped: the machine may have been suspended")
	}
	if found.Suspended > 0 {
		l.logger.Warn("election: the machine was suspended", "for", found.Suspended)
	}
}
