package election

import (
	"net"

	"github.com/go-zookeeper/zk"

	"github.com/zkelection/election/guard"
)

// Guard is what closes the sessions of a process that has died: a *guard.Guard.
type Guard interface {
	// Hold is told what it takes to close the present ZooKeeper session of a
	// Session, which is the owner, each time that this changes; and nil when
	// there is nothing to be closed. It must not block. For one owner it is not
	// called by two goroutines at a time.
	Hold(owner any, session *guard.Session)
}

// guardGiven reports whether there is a guard: a nil *guard.Guard is none, as
// what guard.Start returns beside its error.
func guardGiven(g Guard) bool {
	own, ok := g.(*guard.Guard)
	return g != nil && (!ok || own != nil)
}

// guard tells the guard of the session with this id, which the loop knows as the
// present one, and of the server that it is connected to. The client may have gone
// on to another session already: the loop first notices that this one is lost.
func (l *sessionLoop) guard(id int64) {
	if l.opts.Guard == nil {
		return
	}
	conn := l.client.connection.Load()
	if conn == nil || conn == l.guarded || conn.session != id {
		return // between two connections it stays as it is
	}
	l.guarded = conn
	session := &guard.Session{
		Servers: zk.FormatServers(l.servers), Connected: conn.server, Remote: conn.remote,
		ID: conn.session, Password: conn.password,
		Timeout: conn.Timeout, Tick: conn.Tick, Encrypted: l.client.encrypted.Load(),
	}
	for _, a := range l.opts.Auth {
		session.Auth = append(session.Auth, guard.Auth(a))
	}
	l.opts.Guard.Hold(l.Session, session)
}

// unguard tells the guard that there is no session any more.
func (s *Session) unguard() {
	if s.opts.Guard != nil {
		s.opts.Guard.Hold(s, nil)
	}
}

// remoteOf returns the address of the other side, "" if it has none that a
// process elsewhere could dial.
func remoteOf(conn net.Conn) string {
	if address, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		return address.String()
	}
	return ""
}

var _ Guard = (*guard.Guard)(nil)
