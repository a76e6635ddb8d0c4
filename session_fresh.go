package election

import (
	"context"
	"errors"

	"github.com/go-zookeeper/zk"

	"github.com/zkelection/election/internal/lease"
)

// A session's beginning, until it is ready for use, and its end.

// freshSession is a session that the client has and that is not ready for use yet.
type freshSession struct {
	id         int64         // 0: none
	readyAt    lease.Instant // when it may be prepared
	retryAt    lease.Instant // not before, since it has failed
	preparing  bool          // a helper is at it
	authorized int           // how many of opts.Auth the client knows
}

// due returns when there is something to do about it.
func (f *freshSession) due() (at lease.Instant, ok bool) {
	return max(f.readyAt, f.retryAt), f.id != 0 && !f.preparing
}

// prepareWhenDue prepares the session, and if there has been one before not at once.
func (l *sessionLoop) prepareWhenDue(now lease.Instant, conn *zk.Conn, id int64) {
	f := &l.fresh
	if f.id != id {
		f.id, f.readyAt = id, now
		if l.view.reconnects > 0 {
			f.readyAt += l.spread()
		}
	}
	if due, ok := f.due(); ok && now >= due {
		l.prepare(conn, id)
	}
}

// prepare makes a new session ready for use: it is authenticated, and its
// server has caught up. The client forgets with a session how far it had
// seen, so a server that lags behind could show a state before this one.
func (l *sessionLoop) prepare(conn *zk.Conn, id int64) {
	l.fresh.preparing = true
	done := l.fresh.authorized
	auth := l.opts.Auth[done:]
	l.goHelper(func() {
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
	l.fresh.preparing = false
	conn := l.client.conn.Load()
	if m.conn != conn {
		return // of a client that has been replaced
	}
	l.fresh.authorized = m.authorized
	if m.err != nil {
		l.last.note(m.err)
		l.fresh.retryAt = l.clock.Now() + jitter(l.Timeout()/8)
		if isPermanent(m.err) && l.view.err == nil {
			l.refuse(m.err)
		}
		return
	}
	if conn.SessionID() != m.id || l.view.inc != nil {
		return
	}
	inc := &incarnation{id: m.id}
	inc.ctx, inc.cancel = context.WithCancelCause(context.Background())
	l.view = sessionView{inc: inc, connected: conn.State() == zk.StateHasSession, reconnects: l.view.reconnects + 1}
	l.owner.closed = m.closed
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
	if !errors.Is(cause, ErrClosed) {
		l.logger.Warn("election: session lost", "session", sessionName(inc.id))
		l.metrics.SessionLost()
		l.guarded = nil
		l.unguard()
	}
	if lease := inc.lease.Load(); lease != nil {
		lease.Revoke(cause)
	}
	inc.cancel(cause)
	l.view.inc, l.view.connected, l.recheckAt = nil, false, 0
	l.heartbeats.Forget()
	if !l.owned {
		l.client.connection.Store(nil)
	}
}
