package election

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/zkelection/election/internal/lease"
	"github.com/zkelection/election/internal/wire"
	"github.com/zkelection/election/internal/zxid"
)

// The client that a Session owns: opened, told apart from the one that it
// replaces, and what its connections tell.

// client is the client of a Session and its connection. The client's goroutines
// write it, and the loop; anybody reads it.
type client struct {
	conn atomic.Pointer[zk.Conn]
	// hosts paces its attempts to connect; nil with a HostProvider of the caller's.
	hosts atomic.Pointer[hosts]
	presentConn
	rounds    *rounds       // the default dialer
	timeout   atomic.Int64  // the session timeout
	encrypted atomic.Bool   // a connection was TLS
	closeSlot chan struct{} // has room for one: whoever closes the client holds it
	pipelines pipelines
}

// presentConn is which connection is the Session's: the last one that the present client has
// opened. With a caller's connection there is but what the lease knows of it, and that is the loop's.
type presentConn struct {
	// mu keeps what is here from changing between a check and a store. Whoever only loads from an atomic
	// does without.
	mu       sync.Mutex
	number   atomic.Int64 // of the present client: what those before it tell is ignored
	quitting bool         // that is being closed: whatever connection comes now comes too late
	granted  grant

	newest     atomic.Pointer[clientConn] // was opened last
	connection atomic.Pointer[connection] // what the lease knows of that; nil unless it has a session
	// greeted is the connection on which a handshake was last answered with a session. It
	// stays when that connection ends. With a caller's connection there is none.
	greeted atomic.Pointer[connection]
}

// nextClient begins to listen to another client, and no longer to the one before.
func (p *presentConn) nextClient() (number int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.number.Add(1)
}

// formerClient goes back to the one before: the other could not be made.
func (p *presentConn) formerClient() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.number.Add(-1)
}

// listensTo reports whether a client is the present one.
func (p *presentConn) listensTo(number int64) bool { return p.number.Load() == number }

// take makes a connection that a client has opened the Session's, unless the client
// has been replaced or is being closed.
func (p *presentConn) take(opened *clientConn, number int64) bool {
	p.mu.Lock() // or one that is replaced here would have its connection taken
	defer p.mu.Unlock()
	if !p.listensTo(number) || p.quitting {
		return false
	}
	p.connection.Store(nil)
	p.newest.Store(opened)
	return true
}

// takeNoMore is for the end: whatever connection comes from here on is closed.
func (p *presentConn) takeNoMore() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.quitting = true
}

// whileNewest has fn note what a connection tells, unless another one has taken its place. None does meanwhile.
func (p *presentConn) whileNewest(c *clientConn, fn func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.newest.Load() == c {
		fn()
	}
}

// grant is the least session timeout that any server has granted a session.
type grant struct {
	id    int64
	least time.Duration
}

// note takes what a server has granted a session, and returns what counts.
func (g *grant) note(id int64, created bool, timeout time.Duration) time.Duration {
	if !created && g.id == id {
		// A server that it has left may tell the ensemble's leader late of what it
		// had heard, and with the timeout that it granted.
		timeout = min(timeout, g.least)
	}
	*g = grant{id, timeout}
	return timeout
}

// connection is one connection of a session. With a caller's connection it stands
// for all that we know of it. It does not change, but for what has been heard on it and how much of a lease suffices.
type connection struct {
	*lease.Connection

	// What a guard needs to close the session, with a client of our own only.
	session        int64
	password       []byte
	server, remote string // HOST:PORT as given, and the address it has
}

// signs are what connections have told of the servers. The client's goroutines
// write them, and the loop where it begins anew; anybody reads them.
type signs struct {
	established atomic.Int64            // counts StateHasSession
	unanswered  atomic.Int64            // handshakes sent since one was answered
	helloAt     atomic.Int64            // instant of the first of those
	answeredAt  atomic.Int64            // when the request was sent that was answered last on any connection
	refusedAt   atomic.Int64            // instant since when servers refuse the credentials; 0: they do not
	trouble     atomic.Pointer[trouble] // of the last attempt to get a connection; nil since one was had
}

// trouble is why the last attempt to get a connection failed.
type trouble struct {
	server string
	err    error
}

// errNotAnswered is of an attempt that goes on.
var errNotAnswered = errors.New("it has not answered yet")

// open makes a new client. Events of a client that was replaced are ignored.
func (s *Session) open() error {
	number := s.client.nextClient()
	provider := s.opts.HostProvider
	if provider == nil {
		provider = new(hosts)
	}
	var pacing *hosts
	if own, ok := provider.(interface{ pacing() *hosts }); ok {
		pacing = own.pacing()
	}
	c, events, err := zk.Connect(s.servers, s.asked,
		zk.WithDialer(s.dialFor(number, pacing)),
		// Called on the client's own goroutines, so only a hand-off.
		zk.WithEventCallback(func(event zk.Event) {
			if event.Type != zk.EventSession || !s.client.listensTo(number) {
				return
			}
			if event.State == zk.StateHasSession {
				s.signs.established.Add(1)
			}
			s.inbox.push(nil)
		}),
		zk.WithLogger(clientLogger{s.logger}),
		zk.WithHostProvider(provider),
	)
	if err != nil {
		s.client.formerClient()
		return err
	}
	s.client.conn.Store(c)
	s.client.hosts.Store(pacing)
	s.helpers.running.Go(func() { // the client closes the channel when its goroutines are done
		for range events {
		}
	})
	return nil
}

// dialFor opens the connections of one client.
func (s *Session) dialFor(number int64, pacing *hosts) zk.Dialer {
	dial := s.opts.Dialer
	if dial == nil {
		dial = s.client.rounds.dial
	}
	dial = zxid.Dialer(wire.Buffered(s.noteEncryption(dial))) // how far the session has seen is what the client has read
	return func(network, address string, timeout time.Duration) (net.Conn, error) {
		// The client leaves the connection of an expired session open.
		if former := s.client.newest.Load(); former != nil && s.client.listensTo(number) {
			_ = former.Close()
		}
		if pacing != nil && !pacing.await() {
			return nil, net.ErrClosed
		}
		// Until something is known the first attempt is all that there is to say.
		if s.client.listensTo(number) {
			s.signs.trouble.CompareAndSwap(nil, &trouble{address, errNotAnswered})
		}
		c, err := dial(network, address, timeout)
		if err != nil {
			s.signs.trouble.Store(&trouble{address, err})
			return nil, err
		}
		opened := newClientConn(s, c, address)
		opened.hosts = pacing
		if !s.client.take(opened, number) {
			_ = c.Close()
			return nil, net.ErrClosed
		}
		return opened, nil
	}
}

// noteEncryption notes whether the connections that dial opens are TLS, or have one in them that says so, for the
// guard.
func (s *Session) noteEncryption(dial zk.Dialer) zk.Dialer {
	return func(network, address string, timeout time.Duration) (net.Conn, error) {
		c, err := dial(network, address, timeout)
		if _, ok := c.(interface{ ConnectionState() tls.ConnectionState }); ok {
			s.client.encrypted.Store(true)
		}
		return c, err
	}
}

// close closes the client. It may be called more than once, and at the same time:
// who waits does so here and not in the client, whose mutex would keep time from
// passing in testing/synctest.
func (c *client) close() {
	c.closeSlot <- struct{}{}
	defer func() { <-c.closeSlot }()
	if pacing := c.hosts.Load(); pacing != nil {
		pacing.end()
	}
	c.rounds.end()
	c.conn.Load().Close()
	if newest := c.newest.Load(); newest != nil {
		_ = newest.Close() // the client may be waiting for a handshake
	}
}

// clientConn is one connection that a client of ours has opened: what its
// wire.Conn tells is taken for the Session.
type clientConn struct {
	*wire.Conn
	session *Session
	server  string // its address, as the dialer was given it
	hosts   *hosts // paces the attempts of its client; nil with a HostProvider of the caller's
	// connection is nil before the handshake's answer. The client's receiving
	// goroutine owns it.
	connection *connection
}

var _ wire.Events = (*clientConn)(nil)

func newClientConn(s *Session, conn net.Conn, server string) *clientConn {
	c := &clientConn{session: s, server: server}
	c.Conn = wire.New(conn, c)
	return c
}

// HandshakeSent counts the handshakes that no server has answered.
func (c *clientConn) HandshakeSent(at time.Time) (limit time.Duration) {
	if c.session.signs.unanswered.Add(1) == 1 {
		c.session.signs.helloAt.Store(int64(c.session.clock.Instant(at)))
	}
	return c.session.Timeout()
}

// HandshakeAnswered makes a connection of it, if there is a session, and its client has not been replaced.
func (c *clientConn) HandshakeAnswered(h wire.Handshake) (timeout time.Duration, ok bool) {
	c.session.client.whileNewest(c, func() { timeout, ok = c.establish(h) })
	return timeout, ok
}

// establish is called while no other connection takes the place of this one.
func (c *clientConn) establish(h wire.Handshake) (timeout time.Duration, ok bool) {
	s := c.session
	s.signs.unanswered.Store(0)
	s.signs.trouble.Store(nil)
	if h.Session == 0 {
		if h.Former != 0 && c.hosts != nil {
			c.hosts.sessionExpired()
		}
		return 0, false // expired: there is no session on this connection
	}
	sent, created := s.clock.Instant(h.Sent), h.Former == 0
	timeout = s.client.granted.note(h.Session, created, h.Timeout)
	conn := &connection{
		Connection: lease.NewConnection(timeout, s.opts.TickTime),
		session:    h.Session, password: h.Password,
		server: c.server, remote: remoteOf(c.Conn),
	}
	resumed := h.Former == h.Session &&
		sent-s.signs.lastAnswer() < timeout/2
	conn.Establish(sent, (created || resumed) && h.Whole && sent >= s.clock.Jumped())
	s.client.timeout.Store(int64(timeout))
	s.client.greeted.Store(conn)
	s.client.connection.Store(conn)
	if jumped := s.clock.Jumped(); sent < jumped {
		conn.Forget(jumped) // the clock has jumped before the loop could find this connection
	}
	s.signs.answeredAt.Store(int64(sent))
	// A server may grant less than the one before it, and has told the leader so.
	if inc := s.currentView().inc; inc != nil {
		conn.Shorten(inc.lease.Load())
	}
	c.connection = conn
	return timeout, true
}

// Answered notes an answer, for the lease among others.
func (c *clientConn) Answered(a wire.Answer) {
	s, sent := c.session, c.session.clock.Instant(a.Sent)
	s.signs.answeredAt.Store(int64(sent))
	if a.SignOfLife {
		c.connection.Heard(sent, s.clock.Instant(a.Answered))
	}
	// Whether the server refuses a credential, or answers something else: the
	// client asks nothing before all its credentials are taken.
	switch {
	case a.Op != wire.OpAuth:
		if s.signs.refusedAt.Swap(0) != 0 {
			s.inbox.push(nil)
		}
	case a.Code != 0:
		if s.signs.refusedAt.CompareAndSwap(0, max(1, int64(sent))) {
			s.inbox.push(nil)
		}
	}
}

// Creating lets what is to follow a creation be asked.
func (c *clientConn) Creating(path []byte) { c.session.client.pipelines.sent(path) }

// WatchesRefused has it logged.
func (c *clientConn) WatchesRefused(code int32) { c.session.inbox.push(watchesRefused{code}) }

// Failed notes why the connection came to nothing.
func (c *clientConn) Failed(err error, stranger bool) {
	if c.session.client.newest.Load() == c {
		c.session.signs.trouble.Store(&trouble{c.server, err})
	}
	if stranger {
		c.session.inbox.push(notZooKeeper{c.server, err})
	}
}

func (s *signs) lastAnswer() lease.Instant { return lease.Instant(s.answeredAt.Load()) }

// lastAnswerAt is when the last request that was answered had been sent; the
// Session's beginning when there is none, as on a caller's connection.
func (s *Session) lastAnswerAt() time.Time { return s.clock.Time(s.signs.lastAnswer()) }

// clientLogger passes the client's lines on at Debug.
type clientLogger struct{ logger *slog.Logger }

func (l clientLogger) Printf(format string, args ...any) {
	if l.logger.Enabled(context.Background(), slog.LevelDebug) {
		l.logger.Debug("zk: " + fmt.Sprintf(format, args...))
	}
}

// unreached adds to the error of a wait that was given up why the last attempt
// to get a connection failed, if it did.
func (s *Session) unreached(err error) error {
	last := s.signs.trouble.Load()
	if last == nil || !endsWait(err) {
		return err
	}
	return errorf("%w (no server of %q reached, the last was %s: %w)", err, s.servers, last.server, last.err)
}
