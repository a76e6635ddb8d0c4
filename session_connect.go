package election

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/zkelection/election/internal/zxid"
)

// The client that a Session owns: opened, told apart from the one that it
// replaces, and what its connections tell.

// open makes a new client. Events of a client that was replaced are ignored.
func (s *Session) open() error {
	s.clientMu.Lock()
	number := s.client.Add(1)
	s.clientMu.Unlock()
	current := func() bool { return s.client.Load() == number }
	dial := s.opts.Dialer
	if dial == nil {
		dial = newRounds().dial
	}
	dial = zxid.Dialer(s.noteEncryption(dial))
	provider := s.opts.HostProvider
	if provider == nil {
		provider = new(hosts)
	}
	c, events, err := zk.Connect(s.servers, s.asked,
		zk.WithDialer(func(network, address string, timeout time.Duration) (net.Conn, error) {
			// The client leaves the connection of an expired session open.
			if former := s.wire.Load(); former != nil && current() {
				_ = former.Close()
			}
			c, err := dial(network, address, timeout)
			if err != nil {
				s.trouble.Store(&trouble{address, err})
				return nil, err
			}
			s.clientMu.Lock() // or a client that is replaced here would have its connection taken for the Session's
			defer s.clientMu.Unlock()
			if !current() || s.quitting.Load() {
				_ = c.Close()
				return nil, net.ErrClosed
			}
			w := s.wrap(c, address)
			s.connection.Store(nil)
			s.wire.Store(w)
			return w, nil
		}),
		// Called on the client's own goroutines, so only a hand-off.
		zk.WithEventCallback(func(event zk.Event) {
			if event.Type != zk.EventSession || !current() {
				return
			}
			if event.State == zk.StateHasSession {
				s.established.Add(1)
			}
			s.inbox.push(nil)
		}),
		zk.WithLogger(clientLogger{s.logger}),
		zk.WithHostProvider(provider),
	)
	if err != nil {
		s.clientMu.Lock()
		defer s.clientMu.Unlock()
		s.client.Add(-1) // the one before goes on
		return err
	}
	s.conn.Store(c)
	s.helpers.Add(1)
	go func() { // the client closes the channel when its goroutines are done
		defer s.helpers.Done()
		for range events {
		}
	}()
	return nil
}

// noteEncryption notes whether the connections that dial opens are TLS, for the
// guard.
func (s *Session) noteEncryption(dial zk.Dialer) zk.Dialer {
	return func(network, address string, timeout time.Duration) (net.Conn, error) {
		c, err := dial(network, address, timeout)
		if _, ok := c.(*tls.Conn); ok {
			s.encrypted.Store(true)
		}
		return c, err
	}
}

// handshakeSent and the three after it are called by the wire.
func (s *Session) handshakeSent(sent instant) {
	if s.unanswered.Add(1) == 1 {
		s.helloAt.Store(int64(sent))
	}
}

func (s *Session) handshakeAnswered(conn *connection, sent instant) {
	s.unanswered.Store(0)
	s.trouble.Store(nil)
	if conn == nil {
		return
	}
	s.timeout.Store(int64(conn.rule.timeout))
	conn.atMost = sent + conn.rule.duration()
	s.connection.Store(conn)
	if awake := instant(s.awake.Load()); sent < awake {
		conn.heard.forget(awake) // the clock has jumped before the loop could find this connection
	}
	s.answered(sent)
	// A server may grant less than the one before it, and has told the leader so.
	if inc := s.look().inc; inc != nil {
		if lease := inc.lease.Load(); lease != nil {
			lease.shorten(conn.atMost)
		}
	}
}

func (s *Session) answered(at instant) { s.answeredAt.Store(int64(at)) }

func (s *Session) lastAnswer() instant { return instant(s.answeredAt.Load()) }

// lastAnswerAt is when the last request that was answered had been sent; the
// Session's beginning when there is none, as on a caller's connection.
func (s *Session) lastAnswerAt() time.Time { return s.base.Add(s.lastAnswer()) }

// clientLogger passes the client's lines on at Debug.
type clientLogger struct{ logger *slog.Logger }

func (l clientLogger) Printf(format string, args ...any) {
	if l.logger.Enabled(context.Background(), slog.LevelDebug) {
		l.logger.Debug("zk: " + fmt.Sprintf(format, args...))
	}
}

// trouble is why the last attempt to get a connection failed.
type trouble struct {
	server string
	err    error
}

// credentialsAnswered notes that the server refuses a credential, or that it
// answers something else: the client asks nothing before all its credentials
// are taken.
func (s *Session) credentialsAnswered(request outgoing, code int32) {
	switch {
	case request.op != opAuth:
		if s.refusedAt.Swap(0) != 0 {
			s.inbox.push(nil)
		}
	case code != 0:
		if s.refusedAt.CompareAndSwap(0, max(1, int64(request.sent))) {
			s.inbox.push(nil)
		}
	}
}

// troubled notes why a connection came to nothing.
func (s *Session) troubled(w *wire, err error) {
	if s.wire.Load() == w {
		s.trouble.Store(&trouble{w.server, err})
	}
}

// unreached adds to the error of a wait that was given up why the last attempt
// to get a connection failed, if it did.
func (s *Session) unreached(err error) error {
	last := s.trouble.Load()
	if last == nil || !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("%w (no server of %q reached, the last was %s: %w)", err, s.servers, last.server, last.err)
}
