package election

import (
	"errors"

	"github.com/go-zookeeper/zk"

	"github.com/zkelection/election/internal/lease"
)

// When a client of our own is given up, and its session with it.

// replaceAfter is for how many session timeouts servers may take our connections
// and answer no handshake before the client is replaced by a new one: an
// ensemble that lost its state refuses a client that has seen a later one
// forever. An outage looks the same, and replacing the client gives up its
// session, so it is not done sooner.
const replaceAfter = 6

// replaceClient replaces the client when no server has answered it for so long.
func (l *sessionLoop) replaceClient(now lease.Instant) {
	const enough = 3
	if !l.owned || l.signs.unanswered.Load() < enough || now-lease.Instant(l.signs.helloAt.Load()) < replaceAfter*l.Timeout() {
		return
	}
	l.logger.Warn("election: no server answers this session's handshake; starting anew", "for", now-lease.Instant(l.signs.helloAt.Load()))
	l.startAnew()
}

// startAnew replaces the client by a new one, without its session.
func (l *sessionLoop) startAnew() {
	former, pacing := l.client.conn.Load(), l.client.hosts.Load()
	l.signs.unanswered.Store(0) // also when it fails: then it is tried as much later
	if err := l.open(); err != nil {
		l.logger.Error("election: cannot make a new connection", "error", err)
		// The old client may have had a session meanwhile, and was not listened to.
		l.signs.established.Add(1)
		l.inbox.push(nil)
		return
	}
	l.fresh.id = 0
	if l.view.inc != nil {
		l.lose(ErrSessionLost)
		l.publishView()
	}
	l.fresh.authorized = 0
	l.goHelper(func() {
		if pacing != nil {
			pacing.end()
		}
		former.Close()
	})
}

// noteRefusal notes that servers refuse the credentials, of a new session or of one that they
// have resumed. In the second case each handshake keeps that session alive, and its ballots, though
// nothing can be done with it: others would wait behind them forever. So after T
// without a server that takes the credentials the session is given up, as one
// that no server heard of would be.
func (l *sessionLoop) noteRefusal(now lease.Instant, conn *zk.Conn, hasSession bool, established int64) {
	since := lease.Instant(l.signs.refusedAt.Load())
	switch {
	case l.view.inc == nil:
		// The client itself gives the credentials that were taken before to each new session, ahead of what is asked on it.
		// Of those that were not, the answer is read by whoever prepares the session.
		if since != 0 && l.fresh.authorized > 0 && l.view.err == nil {
			l.refuse(zk.ErrAuthFailed)
		}
	case since == 0:
		if l.view.err != nil {
			l.view.err = nil
			l.logger.Info("election: the credentials are taken again")
			l.publishView()
		}
	case now-since >= l.Timeout():
		l.logger.Warn("election: no server takes the session's credentials; giving it up", "session", sessionName(l.view.inc.id), "for", now-since)
		l.signs.refusedAt.Store(0)
		l.startAnew()
	default:
		if l.view.err == nil {
			l.refuse(zk.ErrAuthFailed)
		}
		if hasSession && l.probed != established {
			// One answer to something else tells that this server takes them.
			l.probed = established
			l.goHelper(func() { _ = heartbeat(conn) })
		}
	}
}

// refuse says that the server refuses the credentials, or to serve the session.
func (l *sessionLoop) refuse(err error) {
	l.view.err = err
	server := ""
	if newest := l.client.newest.Load(); newest != nil {
		server = newest.server
	}
	if errors.Is(err, zk.ErrAuthFailed) {
		l.logger.Error("election: the server refuses the credentials", "server", server, "error", err)
	} else {
		l.logger.Error("election: the server refuses to serve a new session", "server", server, "error", err)
	}
	l.publishView()
}
