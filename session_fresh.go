package election

import (
	"context"
	"errors"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/zkelection/election/internal/lease"
)

// A session's beginning, until it is ready for use, and its end.

// freshSession is a session that the client has and that is not ready for use yet.
type freshSession struct {
	id         int64         // 0: none
	retryAt    lease.Instant // not before, since it has failed
	wait       time.Duration // before the next try, if that one fails, too
	preparing  bool          // a helper is at it
	authorized int           // how many of opts.Auth the client knows
}

// due returns when there is something to do about it.
func (f *freshSession) due() (at lease.Instant, ok bool) {
	return f.retryAt, f.id != 0 && !f.preparing
}

// prepareWhenDue prepares the session: at once, unless that has failed. Sessions of many
// processes that begin together are spread by the servers, since each has waited for
// the answer to its handshake, and waits for an answer again before each step.
func (l *sessionLoop) prepareWhenDue(now lease.Instant, conn *zk.Conn, id int64) {
	f := &l.fresh
	if f.id != id {
		f.id, f.retryAt, f.wait = id, now, l.Timeout()/256
	}
	if due, ok := f.due(); ok && now >= due {
		l.prepare(conn, id)
	}
}

// prepare makes a new session ready for use: it is authenticated, and its
// server has caught up. The client forgets with a session how far it had
// seen, so a server that lags behind could show a state before this one.
// Before the first session nothing has been seen.
func (l *sessionLoop) prepare(conn *zk.Conn, id int64) {
	l.fresh.preparing = true
	done, first := l.fresh.authorized, l.view.reconnects == 0
	auth := l.opts.Auth[done:]
	if first && l.owned && len(auth) == 0 {
		l.inbox.push(prepared{conn: conn, id: id, authorized: done})
		return
	}
	l.goHelper(func() {
		var err error
		for _, a := range auth {
			if err = conn.AddAuth(a.Scheme, a.Credentials); err != nil {
				break
			}
			done++
		}
		if err == nil && !first {
			_, err = conn.Sync("/")
		}
		var closed <-chan zk.Event
		if err == nil && !l.owned {
			// Whoever may not read the root node has no such watch: the connection is looked at then.
			if closed, err = armClosed(conn); errors.Is(err, zk.ErrNoAuth) {
				err = nil
			}
		}
		l.inbox.push(prepared{conn, id, done, closed, named(err)})
	})
}

func (l *sessionLoop) prepared(m prepared) {
	l.fresh.preparing = false
	conn := l.client.conn.Load()
	if m.conn != conn {
		return // of a client that has been replaced
	}
	l.fresh.authorized = m.authorized
	if m.err != nil {
		l.last.note(m.err)
		l.fresh.retryAt = l.clock.Now() + jitter(l.fresh.wait)
		l.fresh.wait = min(2*l.fresh.wait, l.Timeout()/8)
		if isPermanent(m.err) && l.view.err == nil {
			l.refuse(m.err)
		}
		return
	}
	if conn.SessionID() != m.id || l.view.inc != nil {
		return
	}
	// What another server refused before this one took them is over: no other answer need have come since.
	l.signs.refusedAt.Store(0)
	inc := &incarnation{id: m.id}
	inc.ctx, inc.cancel = context.WithCancelCause(context.Background())
	l.view = sessionView{inc: inc, connected: conn.State() == zk.StateHasSession, reconnects: l.view.reconnects + 1}
	l.owner.closed, l.owner.closedSeen = m.closed, 0
	l.last.over()
	l.recheckAt = 0
	l.guard(m.id) // before there is a ballot
	l.logger.Info("election: session ready", "session", sessionName(m.id), "timeout", l.Timeout())
	if rule := l.rule(); !rule.Feasible() {
		l.logger.Error("election: TickTime is too long for the session timeout: nobody can lead on this session",
			"tick", rule.Tick, "timeout", rule.Timeout)
	}
	l.roster.mu.Lock()
	defer l.roster.mu.Unlock()
	// In one step with the view, or a hook registered in between is called twice.
	l.publishLocked()
	for _, h := range l.roster.hooks {
		h.fire(l.logger)
	}
}

// lose ends the present session, as far as this process is concerned.
func (l *sessionLoop) lose(cause error) {
	inc := l.view.inc
	if lease := inc.lease.Load(); lease != nil {
		lease.Revoke(cause)
	}
	inc.cancel(cause)
	// Not before that: a log can be slow, and others may lead.
	if !errors.Is(cause, ErrClosed) {
		l.logger.Warn("election: session lost", "session", sessionName(inc.id))
		l.metrics.SessionLost()
		l.guarded = nil
		l.unguard()
	}
	l.view.inc, l.view.connected, l.recheckAt = nil, false, 0
	l.heartbeats.Forget()
	if !l.owned {
		l.client.connection.Store(nil)
	}
}
