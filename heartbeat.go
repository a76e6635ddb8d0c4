package election

import (
	"slices"
	"time"

	"github.com/go-zookeeper/zk"
)

// Heartbeats: when one is sent, and what its answer makes of the lease.

// heartbeatLog is what the Session's loop knows of its heartbeats.
type heartbeatLog struct {
	underWay []sentHeartbeat // oldest first; one of a former connection may be among them
	newest   instant         // when the newest was sent, answered or not
	count    int64           // how many were sent: the number of the newest
	void     int64           // those up to this number count for nothing
	failed   bool            // the last that ended had no answer that counts

	// The newest that was answered, and its connection; nil when nothing that was
	// answered counts any more.
	sent, answerAt instant
	on             *connection
}

type sentHeartbeat struct {
	number int64
	at     instant
	on     *connection
}

// heartbeatResult is the end of a heartbeat.
type heartbeatResult struct {
	number   int64
	sent     instant
	answered instant
	// previous is when the newest heartbeat was sent that had been answered on the
	// same connection before this one was sent; paired is false when there was none.
	previous instant
	paired   bool
	// on is nil unless the connection was the same before and after, under the
	// same session.
	on  *connection
	err error
}

// onConnection is the log as the schedule needs it.
func (b *heartbeatLog) onConnection(conn *connection) heartbeats {
	state := heartbeats{answered: b.on == conn, sent: b.sent, answerAt: b.answerAt, newest: b.newest, underWay: len(b.underWay)}
	state.oldest = b.newest
	for _, h := range b.underWay {
		if h.on == conn {
			state.oldest = h.at
			break
		}
	}
	return state
}

// forget lets no heartbeat that was sent until now count any more.
func (b *heartbeatLog) forget() { b.on, b.void = nil, b.count }

// due returns when the next heartbeat is to be sent, if one is needed.
func (l *sessionLoop) due(now instant) (instant, bool) {
	conn := l.connection.Load()
	if l.inc == nil || !l.connected || conn == nil || !l.needed() {
		return 0, false
	}
	var until instant
	if lease := l.inc.lease.Load(); lease != nil {
		until = instant(lease.until.Load())
	}
	due := conn.rule.next(conn.heard, l.heartbeats.onConnection(conn), until, now)
	if l.heartbeats.failed {
		due = max(due, l.heartbeats.newest+conn.rule.timeout/32)
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
		l.sendHeartbeat(now)
	}
}

// sendHeartbeat sends a write that changes nothing, which nobody but a leader
// with a quorum can answer, and only for a session that it knows to live.
func (l *sessionLoop) sendHeartbeat(now instant) {
	conn, id, on, log := l.conn.Load(), l.inc.id, l.connection.Load(), &l.heartbeats
	log.count++
	log.newest = now
	log.underWay = append(log.underWay, sentHeartbeat{log.count, now, on})
	result := heartbeatResult{number: log.count, previous: log.sent, paired: log.on == on}
	l.help(func() {
		result.sent = l.now()
		result.err = heartbeat(conn)
		result.answered = l.now()
		if l.connection.Load() == on && conn.SessionID() == id {
			result.on = on
			if !l.owned && isAnswer(result.err) {
				on.heard.add(result.sent, result.answered)
			}
		}
		l.inbox.push(result)
	})
}

// heartbeat is the request itself, unconditional of any node but the root.
func heartbeat(conn *zk.Conn) error {
	_, err := conn.Multi(&zk.CheckVersionRequest{Path: "/", Version: -1})
	return err
}

// heartbeatDone evaluates an answered heartbeat by the rule of the lease.
func (l *sessionLoop) heartbeatDone(m heartbeatResult) {
	log := &l.heartbeats
	log.underWay = slices.DeleteFunc(log.underWay, func(h sentHeartbeat) bool { return h.number == m.number })
	l.watchClock() // before anything is believed of the time that has passed
	log.failed = m.on == nil || !isAnswer(m.err) || l.inc == nil || m.on != l.connection.Load()
	if log.failed || m.number <= log.void {
		return
	}
	if log.on != m.on || m.sent > log.sent {
		log.sent, log.answerAt, log.on = m.sent, m.answered, m.on
	}
	if !m.paired {
		return
	}
	until, ok := m.on.rule.end(m.on.heard, m.previous)
	if !ok {
		return
	}
	current := l.inc.lease.Load()
	var end instant
	if current != nil {
		end = instant(current.until.Load())
	}
	minToClaim := m.on.rule.minToClaim(m.on.rule.spacing(m.answered - m.sent))
	if current != nil && current.extend(until) {
		// Reckoned after the extension: whoever found too little of the lease
		// left before it is told.
		margin := max(0, end-l.now())
		before := time.Duration(current.toClaim.Swap(int64(minToClaim)))
		if newer := l.connection.Load(); newer != m.on && newer != nil && newer.atMost > 0 {
			current.shorten(newer.atMost) // a handshake has come in between
		}
		l.metrics.LeaseRenewed(margin)
		if margin >= max(before, minToClaim) {
			return // nobody has been waiting for it
		}
	} else if until-l.now() >= minToClaim {
		l.inc.lease.Store(newLease(l.base, until, minToClaim))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for m := range l.keepers {
		m.wake()
	}
}

// watchClock takes a difference between the two clocks for a lapse. It looks
// back for one session timeout or two, so that short stops add up: nothing older
// bears on a lease.
func (l *sessionLoop) watchClock() { l.noteClock(l.readClock()) }

func (l *sessionLoop) noteClock(reading clockReading) {
	if !reading.slept(l.clocks[0], l.Timeout()/12) {
		if reading.monotonic-l.clocks[1].monotonic > l.Timeout() {
			l.clocks = [2]clockReading{l.clocks[1], reading}
		}
		return
	}
	l.clocks = [2]clockReading{reading, reading}
	l.logger.Warn("election: the wall clock jumped: the machine may have been suspended")
	l.awake.Store(int64(reading.monotonic))
	if conn := l.connection.Load(); conn != nil {
		conn.heard.forget(reading.monotonic)
	}
	l.heartbeats.forget()
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
