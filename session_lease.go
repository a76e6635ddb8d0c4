package election

import (
	"time"

	"github.com/go-zookeeper/zk"
)

// Heartbeats: when one is sent, and what its answer makes of the lease.

// due returns when the next heartbeat is to be sent, if one is needed.
func (l *sessionLoop) due(now instant) (instant, bool) {
	conn := l.connection.Load()
	if l.inc == nil || !l.connected || conn == nil || l.beating || !l.needed() {
		return 0, false
	}
	var until instant
	if lease := l.inc.lease.Load(); lease != nil {
		until = instant(lease.until.Load())
	}
	answered := l.lastBeatOn == conn
	due := conn.rule.next(conn.heard, l.lastBeat, l.lastBeatAnswered, answered, until, now)
	if l.failed {
		due = max(due, l.triedAt+conn.rule.timeout/32)
	}
	return due, true
}

// keep ends a lease whose time is over, and sends a heartbeat if one is due.
func (l *sessionLoop) keep(now instant) {
	if l.inc == nil {
		return
	}
	if lease := l.inc.lease.Load(); lease != nil && lease.until.Load() != 0 && !lease.valid() {
		l.logger.Debug("election: lease lapsed", "session", sessionName(l.inc.id))
	}
	if due, ok := l.due(now); ok && due <= now {
		l.beat(now)
	}
}

// beat sends a heartbeat: a write that changes nothing, which nobody but a
// leader with a quorum can answer, and only for a session that it knows to live.
func (l *sessionLoop) beat(now instant) {
	l.beating, l.triedAt = true, now
	conn, id, on := l.conn.Load(), l.inc.id, l.connection.Load()
	l.help(func() {
		sent := l.now()
		err := heartbeat(conn)
		answered := l.now()
		if l.connection.Load() != on || conn.SessionID() != id {
			on = nil
		} else if !l.owned && isDefinite(err) {
			on.heard.add(sent, answered)
		}
		l.inbox.push(beat{sent, answered, on, err})
	})
}

// heartbeat is the request itself, unconditional of any node but the root.
func heartbeat(conn *zk.Conn) error {
	_, err := conn.Multi(&zk.CheckVersionRequest{Path: "/", Version: -1})
	return named(err)
}

// beaten evaluates an answered heartbeat by the rule of the lease.
func (l *sessionLoop) beaten(m beat) {
	l.watchClock() // before anything is believed of the time that has passed
	l.failed = m.on == nil || !isDefinite(m.err) || l.inc == nil || m.on != l.connection.Load()
	if l.failed {
		l.last.note(m.err)
		return
	}
	l.last.over()
	previous, ok := l.lastBeat, l.lastBeatOn == m.on
	l.lastBeat, l.lastBeatAnswered, l.lastBeatOn = m.sent, m.answered, m.on
	if !ok {
		return
	}
	until, ok := m.on.rule.end(m.on.heard, previous)
	if !ok {
		return
	}
	l.renew(m.on, until)
}

// renew makes the lease last until then, as a heartbeat on that connection says.
func (l *sessionLoop) renew(on *connection, until instant) {
	current := l.inc.lease.Load()
	var end instant
	if current != nil {
		end = instant(current.until.Load())
	}
	minToClaim := on.rule.minToClaim()
	if current != nil && current.extend(until) {
		// Reckoned after the extension: whoever found too little of the lease
		// left before it is told.
		margin := max(0, end-l.now())
		l.noLonger(current, on)
		l.metrics.LeaseRenewed(margin)
		if margin >= minToClaim {
			return // nobody has been waiting for it
		}
	} else if until-l.now() >= minToClaim {
		current = newLease(l.base, until).beside(&l.ahead, on.rule.timeout/12)
		l.inc.lease.Store(current)
		l.noLonger(current, on)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for m := range l.keepers {
		m.wake()
	}
}

// noLonger shortens a lease from before the present connection, whose handshake
// has come in between and may have found another lease, or none, to shorten.
func (l *sessionLoop) noLonger(lease *lease, on *connection) {
	if newer := l.connection.Load(); newer != on && newer != nil && newer.atMost > 0 {
		lease.shorten(newer.atMost)
	}
}

// watchClock takes a difference between the two clocks for a lapse. It looks
// back for one session timeout or two, so that short stops add up: nothing older
// bears on a lease. On Linux the kernel tells besides of suspensions that the
// wall clock does not show, or not yet, and of shorter ones.
func (l *sessionLoop) watchClock() {
	reading := l.readClock()
	l.noteClock(reading)
	if least, most, ok := suspendedFor(); ok {
		l.noteSuspension(reading, least, most)
	}
}

func (l *sessionLoop) noteClock(reading clockReading) {
	if !reading.slept(l.clocks[0], l.Timeout()/12) {
		if reading.monotonic-l.clocks[1].monotonic > l.Timeout() {
			l.clocks = [2]clockReading{l.clocks[1], reading}
			l.ahead.Store(int64(l.clocks[0].ahead()))
		}
		return
	}
	l.logger.Warn("election: the wall clock jumped: the machine may have been suspended")
	l.stoodStill(reading)
}

// noteSuspension takes for how long the machine has been suspended, in all.
func (l *sessionLoop) noteSuspension(reading clockReading, least, most time.Duration) {
	first := l.suspensionAt == 0
	l.suspensionAt = max(1, reading.monotonic)
	if first {
		l.suspended = most
		return
	}
	if least-l.suspended <= l.Timeout()/100 {
		l.suspended = min(l.suspended, most) // the closer of two upper bounds
		return
	}
	l.logger.Warn("election: the machine was suspended", "for", least-l.suspended)
	l.suspended = most
	l.stoodStill(reading)
}

// stoodStill gives up what rests on the monotonic clock, which has stood still.
func (l *sessionLoop) stoodStill(reading clockReading) {
	l.clocks = [2]clockReading{reading, reading}
	l.ahead.Store(int64(reading.ahead()))
	l.awake.Store(int64(reading.monotonic))
	if conn := l.connection.Load(); conn != nil {
		conn.heard.forget(reading.monotonic)
	}
	l.lastBeatOn = nil
	if l.inc != nil {
		if lease := l.inc.lease.Load(); lease != nil {
			lease.revoke(ErrLeaseLapsed)
		}
	}
}

func (s *Session) readClock() clockReading {
	now := time.Now()
	return clockReading{now.Round(0), now.Sub(s.base)}
}
