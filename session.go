package election

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/zkelection/election/internal/lease"
)

// SessionOptions are the options of Connect. The zero value, and nil, mean
// the defaults.
type SessionOptions struct {
	// Dialer opens connections, for TLS, proxies and tests. It is given the
	// servers as they were given to Connect. The default resolves a name anew
	// each time, and goes round its addresses; while no name server answers, round
	// those that it had last. One of your own has to go round the addresses of a name itself:
	// net.Dialer and tls.Dialer begin each time with the first one that takes a connection, so the
	// servers behind the others are never tried while nothing good comes of that one.
	// It may be called by two goroutines at a time: where a client is replaced, since no server answers it,
	// the former one may be dialing still.
	Dialer zk.Dialer
	// HostProvider chooses the server for each connection. The default goes
	// round in random order, and names are resolved anew each time. One of
	// your own must say retryStart once in each round, or Close cannot end a
	// client that finds no server; the client then pauses for a second, where the
	// default makes shorter pauses first. Like Dialer it may be called by two goroutines at
	// a time, and Init more than once.
	HostProvider zk.HostProvider
	// Auth is added to the connection before anything else is asked on it.
	Auth []Auth
	// Guard closes the session when this process dies without Close, so that the
	// next candidate leads within milliseconds: see package guard. The default,
	// and a nil *guard.Guard, is none.
	Guard Guard
	// TickTime is the tickTime of the servers. The lease of a leader lasts
	// longer when it is given, and is wrong when it is given too small. The
	// default is half the session timeout, which is safe for every server
	// that keeps ZooKeeper's minimum session timeout of two ticks.
	TickTime time.Duration
	// Metrics is told of the lease and of lost sessions, and of the candidates
	// that have none of their own. The default is none.
	Metrics *Metrics
	// Logger gets transitions at Info, troubles at Warn and Error, the client's
	// own lines at Debug. The default is slog.Default(). Its handler is called on
	// this library's own goroutines, which wait for it: one that does not return
	// holds up whose line it is, a candidate's Resign, Close and Shutdown included,
	// and must not call these itself.
	Logger *slog.Logger
}

// Auth is one credential, as zk.Conn.AddAuth takes it: scheme "digest" with
// credentials "user:password", for example.
type Auth struct {
	Scheme      string
	Credentials []byte
}

// Session is one ZooKeeper connection, shared by any number of candidates and
// observers. It follows the connection through reconnections and through
// sessions that end and are followed by new ones, and keeps the lease under
// which its candidates lead. All methods may be called from any goroutine.
type Session struct {
	setup

	client  client                     // the connection
	signs   signs                      // what it has told of the servers
	link    atomic.Pointer[Connection] // as the loop has seen it
	roster  roster                     // who uses the Session, and what they all see of it
	slots   chan struct{}              // one for each request under way
	helpers helpers                    // goroutines that make a call of the client
	watches spareWatches
	// newElections is whether the last election that a candidate of ours was new in had no node, so that the next one
	// may have none either: a process with many elections of its own.
	newElections atomic.Bool
	last         lastError     // of heartbeats and of making a session ready
	inbox        *inbox        // messages for the loop: see sessionLoop
	done         chan struct{} // closed when the loop has ended
	closing      sessionClosing
}

// setup is what Connect and NewSession set, and nobody changes.
type setup struct {
	logger  *slog.Logger
	metrics *Metrics
	opts    SessionOptions
	owned   bool          // Connect has made the connection, and Close closes it
	servers []string      // owned connections only
	asked   time.Duration // the session timeout to ask for
	clock   *lease.Clock
}

// The locks of the Session's half of this package, in the order in which they are
// taken. Whoever holds one takes only those that come after it:
//
//	Observer.mu      an observer subscribes, and ends that, under it
//	presentConn.mu   the handshake's answer looks at the view under it
//	roster.mu        members are woken, hooks queued and ackWatchers made under it
//	audience.mu, inbox.mu, callbackQueue.mu and all the others
//
// The two of a wire.Conn, writing before mu, stand apart: of the Session's
// only pipelines.mu, the last of all, is taken under them. No lock is held across a call of the client, a user's
// function or anything else that may wait, but for writing, across the writing of a
// frame. The client calls the dialer, wire.Events and the event callback on its own
// goroutines, at times under its own locks: they only store and hand on.

// Connect makes a Session that opens and owns its connection. It returns at
// once and connects in the background, forever: while no server answers, Vote
// and the like wait, so give them a deadline or call AwaitConnected first.
//
// servers are written "host:port", one in each element; the port is 2181 when
// it is left out. timeout is the session timeout to ask for, from a
// millisecond to 24 days; the server may grant another (Timeout). Both are
// checked, as TickTime is, and what cannot work is an error. Close the Session
// to end it. A nil opts means the defaults.
func Connect(servers []string, timeout time.Duration, opts *SessionOptions) (*Session, error) {
	if opts == nil {
		opts = &SessionOptions{}
	}
	servers, err := checkServers(servers)
	if err == nil {
		err = checkTimes(timeout, opts.TickTime)
	}
	if err != nil {
		return nil, errorf("connect: %w", err)
	}
	s := newSession(timeout)
	s.configure(opts)
	s.owned = true
	s.servers = servers
	if err := s.open(); err != nil {
		return nil, errorf("connect: %w", err)
	}
	go s.run()
	return s, nil
}

// NewSession makes a Session on a connection that the caller has and goes on
// owning: it is never closed from here. timeout is the session timeout that
// was negotiated for it, which the client does not tell; a larger one than
// the servers granted breaks the guarantee of a single leader. The lease is
// shorter than with Connect, because only this library's own requests are seen.
// Close the Session before the connection. The other way round its ZooKeeper
// session ends at once, another may lead before a candidate here has noticed that it
// no longer does, and the Session's methods return zk.ErrClosing.
//
// Make one Session for a connection and keep it: each leaves a watch or two in the client
// until the ZooKeeper session ends.
//
// Of the options TickTime, Logger and Metrics can be given. The others are
// about making a connection, and are an error here.
func NewSession(conn *zk.Conn, timeout time.Duration, opts *SessionOptions) (*Session, error) {
	if opts == nil {
		opts = &SessionOptions{}
	}
	err := checkTimes(timeout, opts.TickTime)
	switch {
	case err != nil:
	case conn == nil:
		err = errors.New("there is no connection")
	case opts.Dialer != nil:
		err = errors.New("option Dialer is for connections that Connect opens")
	case opts.HostProvider != nil:
		err = errors.New("option HostProvider is for connections that Connect opens")
	case opts.Auth != nil:
		err = errors.New("option Auth is for connections that Connect opens: call zk.Conn.AddAuth")
	case guardGiven(opts.Guard):
		err = errors.New("option Guard is for connections that Connect opens: of others the password is not known")
	}
	if err != nil {
		return nil, errorf("new session: %w", err)
	}
	s := newSession(timeout)
	s.configure(opts)
	s.client.conn.Store(conn)
	go s.run()
	return s, nil
}

// checkTimes checks a session timeout, and the servers' tick or 0.
func checkTimes(timeout, tick time.Duration) error {
	const most = math.MaxInt32 * time.Millisecond // as the protocol counts
	switch {
	case timeout < time.Millisecond:
		return fmt.Errorf("session timeout %v is less than a millisecond", timeout)
	case timeout > most:
		return fmt.Errorf("session timeout %v is more than ZooKeeper can count, which is %v", timeout, most)
	case tick != 0 && tick < time.Millisecond:
		return fmt.Errorf("TickTime %v is less than a millisecond: give the servers' tickTime, or leave it out", tick)
	case tick > timeout:
		return fmt.Errorf("TickTime %v is more than the session timeout %v: nobody could lead", tick, timeout)
	}
	return nil
}

func newSession(timeout time.Duration) *Session {
	s := &Session{
		setup:   setup{logger: slog.Default(), metrics: (*Metrics)(nil).filled(), clock: lease.NewClock(), asked: timeout},
		client:  client{closeSlot: make(chan struct{}, 1)},
		roster:  newRoster(),
		slots:   make(chan struct{}, maxInFlight),
		inbox:   newInbox(),
		done:    make(chan struct{}),
		closing: sessionClosing{closed: make(chan struct{})},
	}
	s.client.timeout.Store(int64(timeout))
	s.client.rounds = newRounds(s.goHelper)
	s.link.Store(&Connection{Since: time.Now()})
	return s
}

// configure takes the options. The caller may change what they refer to
// afterwards.
func (s *Session) configure(opts *SessionOptions) {
	s.opts = *opts
	s.metrics = opts.Metrics.filled()
	if opts.Logger != nil {
		s.logger = opts.Logger
	}
	s.opts.Auth = slices.Clone(opts.Auth)
	for i := range s.opts.Auth {
		s.opts.Auth[i].Credentials = slices.Clone(s.opts.Auth[i].Credentials)
	}
}

// Conn returns the client's connection. A Session made by Connect replaces it
// when the ensemble refuses the old one forever, so do not keep it.
func (s *Session) Conn() *zk.Conn { return s.client.conn.Load() }

// ID returns the id of the present ZooKeeper session, or 0 when there is none.
func (s *Session) ID() int64 {
	if conn := s.client.conn.Load(); conn != nil {
		return conn.SessionID()
	}
	return 0
}

// Timeout returns the session timeout: the least that a server has granted the
// present session, or before the first handshake the one that was asked for. With
// NewSession it is the one that was given.
func (s *Session) Timeout() time.Duration { return time.Duration(s.client.timeout.Load()) }

// AwaitConnected waits until there is a session that is ready for use. It
// returns ErrClosed after Close, zk.ErrAuthFailed when the server refuses
// the credentials, zk.ErrClosing when the owner of the connection has closed it,
// and the context's error and cause when that ends first.
func (s *Session) AwaitConnected(ctx context.Context) error {
	_, err := s.await(ctx, false)
	if err != nil {
		return wrapf(s.last.explain(s.unreached(err)), "await a connection to", fmt.Sprintf("%q", s.servers))
	}
	return nil
}

// rule is the rule of the lease under the present session timeout.
func (s *Session) rule() lease.Rule { return lease.NewRule(s.Timeout(), s.opts.TickTime) }

// minToClaim is how much of a lease must be left for leadership to be claimed under it.
func (s *Session) minToClaim() time.Duration {
	if on := s.client.connection.Load(); on != nil {
		return on.MinToClaim()
	}
	return s.rule().MinToClaim()
}

// metricsFor returns a candidate's own metrics, or the Session's. s may be nil.
func (s *Session) metricsFor(own *Metrics) *Metrics {
	if own == nil && s != nil {
		return s.metrics
	}
	return own.filled()
}

// sessionName writes a session id as ZooKeeper does: without a sign, which the ids
// that servers with a number from 128 on give would have.
func sessionName(id int64) string { return fmt.Sprintf("0x%x", uint64(id)) }

// jitter spreads d by a quarter to both sides.
func jitter(d time.Duration) time.Duration {
	return d - d/4 + rand.N(d/2+1)
}

var _ io.Closer = (*Session)(nil)
