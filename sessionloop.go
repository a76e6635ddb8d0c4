package election

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-zookeeper/zk"
)

// patience is how many session timeouts long servers may take our connections
// and answer no handshake before the client is replaced by a new one: an
// ensemble that lost its state refuses a client that has seen a later one for
// ever. An outage looks the same, and replacing the client gives up its
// session, hence the patience.
const patience = 6

// sessionLoop is the state that only the Session's own goroutine touches. What
// others see of it is published as a sessionView, and as the incarnation's lease.
type sessionLoop struct {
	*Session

	inc              *incarnation
	connected        bool
	looks            uint64
	err              error
	seen             int64 // of Session.established
	first            bool  // no session has been ready yet
	preparing        bool  // a helper authenticates and syncs a new session
	authorized       int   // how many of opts.Auth the client knows
	retryAt          instant
	lookAt           instant // when to tell members to look again; 0: not due
	readyAt          instant // when a new session may be prepared
	freshID          int64   // the session that readyAt is for
	beating          bool    // a heartbeat is under way
	triedAt          instant // when the last heartbeat was sent, answered or not
	failed           bool    // it had no answer that counts
	lastBeat         instant // when the last answered one was sent
	lastBeatAnswered instant
	lastBeatOn       *connection
	clocks           [2]clockReading // an older reading and a newer one
	timer            *time.Timer
	quit             bool
	away             outage
	strangers        map[string]bool // servers that are no ZooKeeper, as was said
}

// Messages to the loop.
type (
	sessionQuit struct{}
	// prepared is the end of a helper's work on a new session.
	prepared struct {
		conn       *zk.Conn
		id         int64
		authorized int
		err        error
	}
	// beat is the end of a heartbeat. The connection is nil unless it was the
	// same before and after, under the same session.
	beat struct {
		sent     instant
		answered instant
		on       *connection
		err      error
	}
	watchesRefused struct{ code int32 }
	// notZooKeeper tells of a server whose answer to a handshake cannot be one.
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

// outage is what a Session says about the time without a connection. It is
// empty while there is one.
type outage struct {
	began  instant
	warn   instant       // when to warn next
	every  time.Duration // and how long after that again
	asking bool          // a helper asks for the name of the server
	given  bool          // a caller's connection was said to have no session for long
}

func (s *Session) run() {
	defer close(s.done)
	now := s.readClock()
	l := &sessionLoop{Session: s, first: true, clocks: [2]clockReading{now, now}}
	l.beginOutage(now.monotonic)
	l.strangers = make(map[string]bool)
	l.timer = time.NewTimer(time.Hour)
	defer l.timer.Stop()
	for !l.quit {
		l.step()
		select {
		case <-s.inbox.signal:
			for _, message := range s.inbox.take() {
				l.handle(message)
			}
		case <-l.timer.C:
		}
	}
	if l.inc != nil {
		l.lose(ErrClosed)
	}
	l.connected = false
	l.publishView()
}

func (l *sessionLoop) handle(message any) {
	switch m := message.(type) {
	case sessionQuit:
		l.quit = true
	case prepared:
		l.preparing = false
		if m.conn == l.conn.Load() {
			l.authorized = m.authorized
			l.prepared(m)
		}
	case beat:
		l.beating = false
		l.beaten(m)
	case watchesRefused:
		l.logger.Warn("election: the server refuses to set the watches again; asking until it does", "code", m.code)
	case notZooKeeper:
		if !l.strangers[m.server] {
			l.strangers[m.server] = true // once, until there is a connection
			l.logger.Warn("election: a server cannot be used", "server", m.server, "error", m.err)
		}
	case serverKnown:
		l.away.asking = false
		if m.on != nil && m.on == l.connection.Load() && l.server.Load() == nil {
			l.arrived(l.now(), m.server)
		}
	}
}

// step compares what is with what was last known, and acts on the difference.
// Events only wake the loop: the client's State and SessionID are the truth.
func (l *sessionLoop) step() {
	if l.quit {
		return
	}
	now := l.now()
	l.watchClock()
	conn := l.conn.Load()
	id := conn.SessionID()
	// In this order: a session that is established between the two reads is
	// seen as one more at the next step.
	established := l.sessionsSeen(conn)
	hasSession := conn.State() == zk.StateHasSession

	if l.inc != nil && id != l.inc.id {
		l.lose(ErrSessionLost)
		l.publishView()
	}
	if hasSession && id != 0 && l.inc == nil {
		if l.freshID != id {
			l.freshID, l.readyAt = id, now
			if !l.first {
				l.readyAt += l.spread()
			}
		}
		if !l.preparing && now >= l.readyAt && now >= l.retryAt {
			l.prepare(conn, id)
		}
	}
	if l.inc != nil {
		if hasSession && established != l.seen && l.lookAt == 0 {
			l.lookAt = now + l.spread()
		}
		if l.lookAt != 0 && now >= l.lookAt {
			l.lookAt = 0
			l.looks++
			l.publishView()
		}
		if l.connected != hasSession {
			l.connected = hasSession
			l.publishView()
		}
	}
	l.reportConnection(now, hasSession, established != l.seen)
	l.seen = established
	l.replaceClient(now)
	l.keep(now)
	l.timer.Reset(max(0, l.wakeAt(now)-now))
}

// sessionsSeen counts the times that the connection had a session. With a
// connection lent to us there are no events to count: there, every change of
// what State and SessionID tell begins a new connection, and one that comes
// and goes between two looks is missed. The lease is safe all the same: a
// session that moves is heard of by the ensemble's leader in doing so.
func (l *sessionLoop) sessionsSeen(conn *zk.Conn) int64 {
	if !l.owned {
		hasSession := conn.State() == zk.StateHasSession
		switch current := l.connection.Load(); {
		case !hasSession && current != nil:
			l.connection.Store(nil)
		case hasSession && current == nil:
			l.connection.Store(newConnection(l.Timeout(), l.tick))
			l.established.Add(1)
		}
	}
	return l.established.Load()
}

// spread is a random delay for work after a reconnection, so that many
// sessions do not come back as a storm. It is no part of a takeover.
func (l *sessionLoop) spread() time.Duration { return jitter(l.Timeout() / 40) }

// prepare makes a new session ready for use: it is authenticated, and its
// server has caught up. The client forgets with a session how far it had
// seen, so a server that lags behind could show a state before this one.
func (l *sessionLoop) prepare(conn *zk.Conn, id int64) {
	l.preparing = true
	auth := l.opts.Auth[l.authorized:]
	done := l.authorized
	l.help(func() {
		var err error
		for _, a := range auth {
			if err = conn.AddAuth(a.Scheme, a.Credentials); err != nil {
				break
			}
			done++
		}
		if err == nil {
			_, err = conn.Sync("/")
		}
		l.inbox.push(prepared{conn, id, done, err})
	})
}

func (l *sessionLoop) prepared(m prepared) {
	conn := l.conn.Load()
	if m.err != nil {
		l.retryAt = l.now() + jitter(l.Timeout()/8)
		if errors.Is(m.err, zk.ErrAuthFailed) && l.err == nil {
			l.err = m.err
			l.logger.Error("election: the server refuses the credentials", "error", m.err)
			l.publishView()
		}
		return
	}
	if conn.SessionID() != m.id || l.inc != nil {
		return
	}
	inc := &incarnation{id: m.id}
	inc.ctx, inc.cancel = context.WithCancelCause(context.Background())
	l.inc, l.first, l.err = inc, false, nil
	l.connected = conn.State() == zk.StateHasSession
	l.lookAt = 0
	l.looks++
	l.logger.Info("election: session ready", "session", sessionName(m.id), "timeout", l.Timeout())
	if rule := newLeaseRule(l.Timeout(), l.tick); !rule.feasible() {
		l.logger.Error("election: TickTime is too long for the session timeout: nobody can lead on this session",
			"tick", rule.tick, "timeout", rule.timeout)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	// In one step with the view, or a hook registered in between is called twice.
	l.publishLocked()
	for _, h := range l.hooks {
		h.fire(l.logger)
	}
}

// lose ends the present session, as far as this process is concerned.
func (l *sessionLoop) lose(cause error) {
	if !errors.Is(cause, ErrClosed) {
		l.logger.Warn("election: session lost", "session", sessionName(l.inc.id))
		l.metrics.SessionLost()
	}
	if lease := l.inc.lease.Load(); lease != nil {
		lease.revoke(cause)
	}
	l.inc.cancel(cause)
	l.inc, l.connected, l.lookAt = nil, false, 0
	l.lastBeatOn = nil
	if !l.owned {
		l.connection.Store(nil)
	}
}

// publishView tells everybody what the loop knows.
func (l *sessionLoop) publishView() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.publishLocked()
}

func (l *sessionLoop) publishLocked() {
	l.publish(sessionView{l.inc, l.connected, l.looks, l.err})
	for m := range l.members {
		m.wake()
	}
}

// wakeAt returns when the loop has something to do without being told.
func (l *sessionLoop) wakeAt(now instant) instant {
	at := now + time.Hour
	soonest := func(t instant) { at = min(at, t) }
	if !l.owned {
		// Nobody tells of the connection's events.
		soonest(now + min(l.Timeout()/32, 250*time.Millisecond))
	}
	if l.server.Load() == nil && l.away.warn > now {
		soonest(l.away.warn)
	}
	if l.inc == nil && l.freshID != 0 && !l.preparing {
		if next := max(l.readyAt, l.retryAt); next > now {
			soonest(next)
		}
	}
	if l.lookAt != 0 {
		soonest(l.lookAt)
	}
	if l.inc == nil {
		return at
	}
	if lease := l.inc.lease.Load(); lease != nil {
		if until := lease.until.Load(); until != 0 {
			soonest(instant(until))
		}
	}
	if due, ok := l.due(now); ok {
		soonest(due)
	}
	return at
}

// reportConnection says when the connection is lost, warns again and again
// while it is away, and says when it is back. moved tells that there has been a
// handshake since the last time.
func (l *sessionLoop) reportConnection(now instant, hasSession, moved bool) {
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
	case !hasSession && now >= l.away.warn:
		attrs := []any{"for", now - l.away.began}
		if l.owned {
			attrs = append(attrs, "servers", l.servers)
		}
		if last := l.trouble.Load(); last != nil {
			attrs = append(attrs, "server", last.server, "error", last.err)
		}
		l.logger.Warn("election: no server reached", attrs...)
		l.away.warn, l.away.every = now+l.away.every, min(2*l.away.every, 32*l.Timeout())
	}
	if !l.owned && !hasSession && !l.away.given && now-l.away.began > patience*l.Timeout() {
		l.away.given = true // unlike one of our own it is not ours to replace
		l.logger.Error("election: the caller's connection has had no session for long; its owner may have to replace it",
			"for", patience*l.Timeout())
	}
}

func (l *sessionLoop) beginOutage(now instant) {
	l.away = outage{began: now, warn: now + l.Timeout(), every: l.Timeout()}
}

// askServer finds out to which server the connection leads. The client's own
// answer can wait for its HostProvider.
func (l *sessionLoop) askServer(now instant) {
	if l.owned {
		if w := l.wire.Load(); w != nil {
			l.arrived(now, w.server)
		}
		return
	}
	if l.away.asking {
		return
	}
	l.away.asking = true
	conn, on := l.conn.Load(), l.connection.Load()
	l.help(func() { l.inbox.push(serverKnown{on, conn.Server()}) })
}

// arrived notes that there is a connection.
func (l *sessionLoop) arrived(now instant, server string) {
	l.logger.Info("election: connected", "server", server, "after", now-l.away.began)
	l.server.Store(&serverAt{server, time.Now()})
	clear(l.strangers)
	l.away = outage{}
}

func (l *sessionLoop) replaceClient(now instant) {
	const enough = 3
	if !l.owned || l.unanswered.Load() < enough || now-instant(l.helloAt.Load()) < patience*l.Timeout() {
		return
	}
	l.logger.Warn("election: no server answers this session's handshake; starting anew", "for", now-instant(l.helloAt.Load()))
	former := l.conn.Load()
	l.unanswered.Store(0) // also when it fails: then it is tried as much later
	if err := l.open(); err != nil {
		l.logger.Error("election: cannot make a new connection", "error", err)
		// The old client may have had a session meanwhile, and was not listened to.
		l.established.Add(1)
		l.inbox.push(nil)
		return
	}
	l.freshID = 0
	if l.inc != nil {
		l.lose(ErrSessionLost)
		l.publishView()
	}
	l.authorized = 0
	l.help(former.Close)
}

// help runs fn, which calls the client, on a goroutine of its own. No call of
// the client is made inline: each can block for several session timeouts.
// It reports false when the Session is at its end, and fn is not called.
func (s *Session) help(fn func()) bool {
	s.helpMu.Lock()
	defer s.helpMu.Unlock()
	if s.helpless {
		return false
	}
	s.helpers.Go(fn)
	return true
}

// sessionName prints a session id as ZooKeeper does.
func sessionName(id int64) string { return fmt.Sprintf("0x%x", id) }
