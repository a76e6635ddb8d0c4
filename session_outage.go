package election

import (
	"time"

	"github.com/zkelection/election/internal/lease"
)

// What the log says of the connection: that it is lost, away, and back.

// outage is the time without a connection. It is empty while there is one.
type outage struct {
	began     lease.Instant
	warn      lease.Instant   // when to warn next
	every     time.Duration   // and how long after that again
	asking    bool            // a helper asks for the name of the server
	reported  bool            // it was said that a caller's connection has had no session for long
	strangers map[string]bool // servers that are no ZooKeeper, as was said; noted also just before it
}

// serverAt is the server that a Session is connected to.
type serverAt struct {
	name  string    // its address, as the dialer was given it
	since time.Time // when the connection was had
}

// connectedTo returns whether the Session has a connection now, as far as its
// loop has seen, and to which server.
func (s *Session) connectedTo() (connected bool, server string) {
	if at := s.server.Load(); at != nil {
		return true, at.name
	}
	return false, ""
}

// connectedSince returns when the present connection began, or the zero Time
// when there is none.
func (s *Session) connectedSince() time.Time {
	if at := s.server.Load(); at != nil {
		return at.since
	}
	return time.Time{}
}

// reportConnection says when the connection is lost, warns again and again
// while it is away, and says when it is back. moved reports that there has been a
// handshake since the last time.
func (l *sessionLoop) reportConnection(now lease.Instant, hasSession, moved bool) {
	at := l.server.Load()
	if at != nil && (!hasSession || moved) {
		l.server.Store(nil)
		l.logger.Info("election: connection lost", "server", at.name, "lasted", time.Since(at.since))
		l.beginOutage(now)
		at = nil
	}
	switch {
	case hasSession && at == nil:
		l.askServer(now)
	case !hasSession && now >= l.outage.warn:
		attrs := []any{"for", now - l.outage.began}
		if l.owned {
			attrs = append(attrs, "servers", l.servers)
		}
		if last := l.signs.trouble.Load(); last != nil {
			attrs = append(attrs, "server", last.server, "error", last.err)
		}
		l.logger.Warn("election: no server reached", attrs...)
		l.outage.warn, l.outage.every = now+l.outage.every, min(2*l.outage.every, 32*l.Timeout())
	}
	if !l.owned && !hasSession && !l.outage.reported && now-l.outage.began > replaceAfter*l.Timeout() {
		l.outage.reported = true // unlike one of our own it is not ours to replace
		l.logger.Error("election: the caller's connection has had no session for long; its owner may have to replace it",
			"for", replaceAfter*l.Timeout())
	}
}

func (l *sessionLoop) beginOutage(now lease.Instant) {
	l.outage = outage{began: now, warn: now + l.Timeout(), every: l.Timeout(), strangers: l.outage.strangers}
}

// askServer finds out to which server the connection leads. The client's own
// answer can wait for its HostProvider.
func (l *sessionLoop) askServer(now lease.Instant) {
	if l.owned {
		if newest := l.client.newest.Load(); newest != nil {
			l.arrived(now, newest.server)
		}
		return
	}
	if l.outage.asking {
		return
	}
	l.outage.asking = true
	conn, on := l.client.conn.Load(), l.client.connection.Load()
	l.goHelper(func() { l.inbox.push(serverKnown{on, conn.Server()}) })
}

// serverKnown takes the answer of a caller's client.
func (l *sessionLoop) serverKnown(m serverKnown) {
	l.outage.asking = false
	if m.on != nil && m.on == l.client.connection.Load() && l.server.Load() == nil {
		l.arrived(l.clock.Now(), m.server)
	}
}

// notZooKeeper says once, until there is a connection, that a server is none.
func (l *sessionLoop) notZooKeeper(m notZooKeeper) {
	if l.outage.strangers[m.server] {
		return
	}
	if l.outage.strangers == nil {
		l.outage.strangers = make(map[string]bool)
	}
	l.outage.strangers[m.server] = true
	l.logger.Warn("election: a server cannot be used", "server", m.server, "error", m.err)
}

// arrived notes that there is a connection.
func (l *sessionLoop) arrived(now lease.Instant, server string) {
	l.logger.Info("election: connected", "server", server, "after", now-l.outage.began)
	l.server.Store(&serverAt{server, time.Now()})
	l.outage = outage{}
}
