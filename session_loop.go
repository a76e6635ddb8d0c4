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
	suspended        time.Duration   // for how long the machine has been, at most, when it was last looked at
	suspensionAt     instant         // which was then
	timer            *time.Timer
	quit             bool
	away             outage
	probed           int64 // of Session.established: a refused session was tried on that connection
	probing          bool  // a helper finds out whether a caller's connection is closed
	closedSeen       int   // so many times in a row it seemed to be
	closed           <-chan zk.Event
	strangers        map[string]bool // servers that are no ZooKeeper, as was said
	guarded          *connection     // what the guard knows of
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
	// closedArmed brings another such watch.
	closedArmed struct{ closed <-chan zk.Event }
	// beat is the end of a heartbeat. The connection is nil unless it was the
	// same before and after, under the same session.
	beat struct {
		sent     instant
		answered instant
		on       *connection
		err      error
	}
	watchesRefused struct{ code int32 }
	// ownerProbed reports whether a caller's connection seems to be closed.
	ownerProbed struct{ closed bool }
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
	s.last.logger = s.logger
	now := s.readClock()
	l := &sessionLoop{Session: s, first: true, clocks: [2]clockReading{now, now}}
	s.ahead.Store(int64(now.ahead()))
	l.watchClock()
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
		case event := <-l.closed:
			l.closedFired(event)
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
	case closedArmed:
		l.closed = m.closed
	case ownerProbed:
		l.ownerProbed(m)
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
	if now-l.suspensionAt >= l.Timeout()/16 { // that one asks the kernel
		l.watchClock()
	} else {
		l.noteClock(l.readClock())
	}
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
	l.noteRefusal(now, conn, hasSession, established)
	l.probeOwner(conn)
	l.seen = established
	l.guard()
	l.replaceClient(now)
	l.keep(now)
	l.timer.Reset(max(0, l.wakeAt(now)-now))
}

// sessionsSeen counts the times that the connection had a session. With a
// caller's connection there are no events to count: there, every change of
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
		var closed <-chan zk.Event
		if err == nil && !l.owned {
			closed, err = armClosed(conn)
		}
		l.inbox.push(prepared{conn, id, done, closed, named(err)})
	})
}

func (l *sessionLoop) prepared(m prepared) {
	conn := l.conn.Load()
	if m.err != nil {
		l.last.note(m.err)
		l.retryAt = l.now() + jitter(l.Timeout()/8)
		if isPermanent(m.err) && l.err == nil {
			l.refuse(m.err)
		}
		return
	}
	if conn.SessionID() != m.id || l.inc != nil {
		return
	}
	inc := &incarnation{id: m.id}
	inc.ctx, inc.cancel = context.WithCancelCause(context.Background())
	l.inc, l.first, l.err = inc, false, nil
	l.closed = m.closed
	l.last.over()
	l.connected = conn.State() == zk.StateHasSession
	l.lookAt = 0
	l.looks++
	l.guard() // before there is a ballot
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
		l.guarded = nil
		l.unguard()
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
	if since := instant(l.refusedAt.Load()); since != 0 {
		soonest(since + l.Timeout())
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
	l.startAnew()
}

// startAnew replaces the client by a new one, without its session.
func (l *sessionLoop) startAnew() {
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

// noteRefusal notes that servers refuse the credentials of a session that they
// have resumed. Each handshake keeps that session alive, and its ballots, though
// nothing can be done with it: others would wait behind them forever. So after T
// without a server that takes the credentials the session is given up, as one
// that no server heard of would be.
func (l *sessionLoop) noteRefusal(now instant, conn *zk.Conn, hasSession bool, established int64) {
	since := instant(l.refusedAt.Load())
	switch {
	case l.inc == nil:
	case since == 0:
		if l.err != nil {
			l.err = nil
			l.logger.Info("election: the credentials are taken again")
			l.publishView()
		}
	case now-since >= l.Timeout():
		l.logger.Warn("election: no server takes the session's credentials; giving it up", "session", sessionName(l.inc.id), "for", now-since)
		l.refusedAt.Store(0)
		l.startAnew()
	default:
		if l.err == nil {
			l.refuse(zk.ErrAuthFailed)
		}
		if hasSession && l.probed != established {
			// One answer to something else tells that this server takes them.
			l.probed = established
			l.help(func() { _ = heartbeat(conn) })
		}
	}
}

// refuse says that the server refuses the credentials, or to serve the session.
func (l *sessionLoop) refuse(err error) {
	l.err = err
	server := ""
	if w := l.wire.Load(); w != nil {
		server = w.server
	}
	if errors.Is(err, zk.ErrAuthFailed) {
		l.logger.Error("election: the server refuses the credentials", "server", server, "error", err)
	} else {
		l.logger.Error("election: the server refuses to serve a new session", "server", server, "error", err)
	}
	l.publishView()
}

// errOwnerClosed is why a Session on a caller's connection cannot be used.
var errOwnerClosed = fmt.Errorf("election: the owner of the connection has closed it: %w", zk.ErrClosing)

// probeOwner finds out whether the owner of a caller's connection has closed
// it before there was a session. A client that is closed rests in StateDisconnected, where others are for
// moments only, and answers whatever it is asked at once, by ErrConnectionClosed.
func (l *sessionLoop) probeOwner(conn *zk.Conn) {
	if l.owned || l.probing || l.err != nil || l.inc != nil {
		return // with a session its watch tells
	}
	if conn.State() != zk.StateDisconnected {
		l.closedSeen = 0
		return
	}
	l.probing = true
	l.help(func() {
		_, _, err := conn.Exists("/")
		l.inbox.push(ownerProbed{errors.Is(err, zk.ErrConnectionClosed) && conn.State() == zk.StateDisconnected})
	})
}

func (l *sessionLoop) ownerProbed(m ownerProbed) {
	l.probing = false
	if !m.closed {
		l.closedSeen = 0
		return
	}
	if l.closedSeen++; l.closedSeen < 2 {
		return // the step that follows asks again
	}
	l.ownerClosed()
}

// ownerClosed notes that a caller's connection is closed, and with it the
// session.
func (l *sessionLoop) ownerClosed() {
	l.err = errOwnerClosed
	l.logger.Error("election: the owner of the connection has closed it")
	if l.inc != nil {
		l.lose(ErrSessionLost)
	}
	l.publishView()
}

// armClosed sets a watch that tells of the end of a caller's connection: the
// client ends all watches when it is closed, and says so.
func armClosed(conn *zk.Conn) (<-chan zk.Event, error) {
	_, _, watch, err := conn.ExistsW("/")
	return watch, err
}

// closedFired takes the event of that watch.
func (l *sessionLoop) closedFired(event zk.Event) {
	l.closed = nil
	switch {
	case errors.Is(event.Err, zk.ErrClosing):
		l.ownerClosed()
	case event.Err == nil: // somebody has changed the root node
		conn := l.conn.Load()
		l.help(func() {
			if watch, err := armClosed(conn); err == nil {
				l.inbox.push(closedArmed{watch})
			}
		})
	}
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
