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

// Connection is what a Session has of a connection at one moment.
type Connection struct {
	// Connected is whether there is one, with a ZooKeeper session on it.
	Connected bool
	// Server is the address that it leads to. Without a connection it is the one
	// that was tried last, or "" if none was.
	Server string
	// Since is since when there is this connection, or none.
	Since time.Time
}

// Connection returns whether the Session has a connection, to which server and
// since when. A connection that is lost without a word is noticed when nothing
// has come for two thirds of the session timeout.
func (s *Session) Connection() Connection {
	now := *s.link.Load()
	if last := s.signs.trouble.Load(); last != nil && !now.Connected {
		now.Server = last.server
	}
	return now
}

// reportConnection says when the connection is lost, warns again and again
// while it is away, and says when it is back. moved reports that there has been a
// handshake since the last time.
func (l *sessionLoop) reportConnection(now lease.Instant, hasSession, moved bool) {
	connected := l.link.Load().Connected
	if connected && (!hasSession || moved) {
		was := l.disconnected()
		l.logger.Info("election: connection lost", "server", was.Server, "lasted", time.Since(was.Since))
		l.beginOutage(now)
		connected = false
	}
	switch {
	case hasSession && !connected:
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
	if m.on != nil && m.on == l.client.connection.Load() && !l.link.Load().Connected {
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
	l.link.Store(&Connection{true, server, time.Now()})
	l.outage = outage{}
	l.metrics.Connected(true)
}

// disconnected notes that there is none any more, and returns the last one.
func (l *sessionLoop) disconnected() *Connection {
	was := l.link.Load()
	l.link.Store(&Connection{false, was.Server, time.Now()})
	l.metrics.Connected(false)
	return was
}
