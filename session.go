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
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-zookeeper/zk"
)

// SessionOptions are the options of Connect. The zero value, and nil, mean
// the defaults.
type SessionOptions struct {
	// Dialer opens connections, for TLS, proxies and tests. It is given the
	// servers as they were given to Connect. The default resolves a name anew
	// each time, and goes round its addresses.
	Dialer zk.Dialer
	// HostProvider chooses the server for each connection. The default goes
	// round in random order, and names are resolved anew each time. One of
	// your own must say retryStart once in each round, or Close cannot end a
	// client that finds no server.
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
	// own lines at Debug. The default is slog.Default().
	Logger *slog.Logger
}

// Auth is one credential, as zk.Conn.AddAuth takes it: scheme "digest" with
// credentials "user:password", for example.
type Auth struct {
	Scheme      string
	Credentials []byte
}

// maxInFlight bounds the requests that are under way for one Session, so that
// a heartbeat never waits behind thousands.
const maxInFlight = 64

// Session is one ZooKeeper connection, shared by any number of candidates and
// observers. It follows the connection through reconnections and through
// sessions that end and are followed by new ones, and keeps the lease under
// which its candidates lead. All methods may be called from any goroutine.
type Session struct {
	logger  *slog.Logger
	metrics *Metrics
	tick    time.Duration
	base    time.Time
	owned   bool
	servers []string // the rest of this group: owned connections only
	opts    SessionOptions
	asked   time.Duration

	// The client and its connection, as the client's goroutines and ours see
	// them; changed only by atomic replacement.
	conn        atomic.Pointer[zk.Conn]
	connection  atomic.Pointer[connection]
	wire        atomic.Pointer[wire]
	clientMu    sync.Mutex   // guards client, wire and connection against a change between a look and a store
	granted     grant        // what servers granted the present session; guarded by clientMu
	encrypted   atomic.Bool  // a connection of the client was TLS
	client      atomic.Int64 // number of the present client
	timeout     atomic.Int64
	answeredAt  atomic.Int64 // instant of the last answer on any connection
	established atomic.Int64 // counts StateHasSession
	unanswered  atomic.Int64 // handshakes sent since one was answered
	helloAt     atomic.Int64 // instant of the first of those
	ahead       atomic.Int64 // how far the wall clock is ahead of the monotonic one, as leases have it
	awake       atomic.Int64 // instant of the last jump of the clock: times before it are not comparable
	server      atomic.Pointer[serverAt]
	refusedAt   atomic.Int64 // instant since when servers refuse the credentials; 0: they do not

	slots     chan struct{}           // one for each request under way
	helpers   sync.WaitGroup          // goroutines that make a call of the client
	loops     sync.WaitGroup          // followers
	trouble   atomic.Pointer[trouble] // of the last attempt to get a connection; nil since one was had
	quitting  atomic.Bool             // Close is closing the connection
	helpMu    sync.Mutex              // guards helpless, and helpers against a beginning during the end
	helpless  bool                    // no helper begins any more
	watches   spareWatches
	last      lastError     // of heartbeats and of making a session ready
	inbox     *inbox        // events for the loop
	done      chan struct{} // closed when the loop has ended
	closed    chan struct{} // closed when Close is through
	closeSlot chan struct{} // whoever closes the client holds it
	closeErr  error         // its result, written before

	mu        sync.Mutex
	view      sessionView
	changed   chan struct{} // closed, and replaced, when view changes
	members   map[member]struct{}
	observers int                 // so many of the members
	keepers   map[member]struct{} // members that need the lease
	followers map[string]*follower
	hooks     []*connectedHook
	closing   bool
}

// member is what hangs on a Session: a candidate, an observer or a follower.
type member interface {
	// wake tells the member to look at the Session again. It never blocks.
	wake()
	Close() error
}

// sessionView is what members see of a Session, never changed once published.
type sessionView struct {
	// inc is the ZooKeeper session that is ready for use, or nil.
	inc *incarnation
	// connected is whether it has a connection now.
	connected bool
	// looks counts the reasons to look again at everything: reconnections.
	looks uint64
	// err is why the Session cannot be used: a server refuses the credentials,
	// or the owner of the connection has closed it.
	err error
}

// serverAt is the server that a Session is connected to.
type serverAt struct {
	name  string    // its address, as the dialer was given it
	since time.Time // when the connection was had
}

// connectedTo returns whether the Session has a connection now, as far as its
// loop has seen, and to which server.
func (s *Session) connectedTo() (connected bool, server string) {
	if at := s.server.Load(); at != nil {
		return true, at.name
	}
	return false, ""
}

// connectedSince returns when the present connection began, or the zero Time
// when there is none.
func (s *Session) connectedSince() time.Time {
	if at := s.server.Load(); at != nil {
		return at.since
	}
	return time.Time{}
}

// incarnation is one ZooKeeper session: a Session has one after another.
type incarnation struct {
	id int64
	// ctx ends, with the cause ErrSessionLost or ErrClosed, when this is known
	// to be the Session's no more.
	ctx    context.Context
	cancel context.CancelCauseFunc
	// lease is replaced by the Session's loop when one has lapsed and another
	// begins; nil before the first.
	lease atomic.Pointer[lease]
}

// grant is the least session timeout that any server has granted a session.
type grant struct {
	id    int64
	least time.Duration
}

// connectedHook is one function given to OnConnected.
type connectedHook struct {
	fn      func()
	queue   callbackQueue
	pending atomic.Bool
	ended   atomic.Bool // it stays registered while fn runs, for Close
}

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
		return nil, fmt.Errorf("election: connect: %w", err)
	}
	s := newSession(timeout)
	s.configure(opts)
	s.owned = true
	s.servers = servers
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("election: connect: %w", err)
	}
	go s.run()
	return s, nil
}

// NewSession makes a Session on a connection that the caller has and goes on
// owning: it is never closed from here. timeout is the session timeout that
// was negotiated for it, which the client does not tell; a larger one than
// the servers granted breaks the guarantee of a single leader. The lease is
// shorter than with Connect, because only this library's own requests are seen.
// Close the Session before the connection: the other way round its sessions
// end, and its methods return zk.ErrClosing.
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
	case opts.Guard != nil:
		err = errors.New("option Guard is for connections that Connect opens: of others the password is not known")
	}
	if err != nil {
		return nil, fmt.Errorf("election: new session: %w", err)
	}
	s := newSession(timeout)
	s.configure(opts)
	s.conn.Store(conn)
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
		logger:    slog.Default(),
		metrics:   (*Metrics)(nil).filled(),
		base:      time.Now(),
		asked:     timeout,
		slots:     make(chan struct{}, maxInFlight),
		inbox:     newInbox(),
		done:      make(chan struct{}),
		closed:    make(chan struct{}),
		closeSlot: make(chan struct{}, 1),
		changed:   make(chan struct{}),
		members:   make(map[member]struct{}),
		keepers:   make(map[member]struct{}),
		followers: make(map[string]*follower),
	}
	s.timeout.Store(int64(timeout))
	return s
}

// configure takes the options. The caller may change what they refer to
// afterwards.
func (s *Session) configure(opts *SessionOptions) {
	s.opts = *opts
	s.tick = opts.TickTime
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
func (s *Session) Conn() *zk.Conn { return s.conn.Load() }

// ID returns the id of the present ZooKeeper session, or 0 when there is none.
func (s *Session) ID() int64 {
	if conn := s.conn.Load(); conn != nil {
		return conn.SessionID()
	}
	return 0
}

// Timeout returns the session timeout: the least that a server has granted the
// present session, or before the first handshake the one that was asked for. With
// NewSession it is the one that was given.
func (s *Session) Timeout() time.Duration { return time.Duration(s.timeout.Load()) }

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

// await returns the session that is ready and connected, and waits for it. It
// does not wait when the Session cannot be used. While the Session is closing,
// and while a server refuses the credentials of a session that still lives, it
// waits for those who clean up, and not for the others.
func (s *Session) await(ctx context.Context, cleaning bool) (*incarnation, error) {
	for {
		s.mu.Lock()
		view, changed, closing := s.view, s.changed, s.closing
		s.mu.Unlock()
		switch {
		case ctx.Err() != nil:
			return nil, contextError(ctx)
		case view.err != nil && !cleaning:
			return nil, view.err
		case view.inc != nil && view.connected:
			return view.inc, nil
		case closing && !cleaning:
			return nil, ErrClosed
		case view.err != nil && view.inc == nil:
			return nil, view.err
		}
		select {
		case <-changed:
		case <-s.done:
			return nil, ErrClosed
		case <-ctx.Done():
			return nil, contextError(ctx)
		}
	}
}

// OnConnected calls fn now, if there is a session, and again for each new
// session later; not for a mere reconnection within one. fn runs on a
// goroutine of its own, never twice at a time, and may block: it is the place
// to call Vote. However many sessions begin while fn runs, it is called once
// more. cancel ends this.
func (s *Session) OnConnected(fn func()) (cancel func()) {
	h := &connectedHook{fn: fn, queue: callbackQueue{logger: s.logger}}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closing {
		s.hooks = append(slices.DeleteFunc(s.hooks, (*connectedHook).over), h)
		if s.view.inc != nil {
			h.fire(s.logger)
		}
	}
	return func() {
		h.ended.Store(true)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.hooks = slices.DeleteFunc(s.hooks, (*connectedHook).over)
	}
}

// over reports whether a hook is called no more, and does not run.
func (h *connectedHook) over() bool { return h.ended.Load() && h.queue.rests() }

func (h *connectedHook) fire(logger *slog.Logger) {
	if h.ended.Load() || h.pending.Swap(true) {
		return
	}
	h.queue.push(func() {
		h.pending.Store(false)
		if h.ended.Load() {
			return
		}
		_ = protect(logger, "OnConnected", func() error { h.fn(); return nil })
	})
}

// Close steps down and closes the Session's candidates and observers, then
// the connection, if the Session owns it. It returns the errors of those, and
// ErrCallbackRunning when an OnConnected function has not returned within the
// session timeout. When it returns nil no callback runs any more and, with an
// owned connection, no goroutine is left. It waits for StepDownTimeout and two
// session timeouts at most, as Candidate.Close does, and some seconds for the
// connection; Shutdown has a bound of yours. A second Close waits for the first
// and returns the same.
func (s *Session) Close() error { return s.Shutdown(context.Background()) }

// Shutdown is Close within ctx, one bound for all of it. Call it when the
// process is told to end, beside Run: that returns when its candidate is
// closed, which is within ctx as well, and its function has returned. No
// candidate leads any more before anything is waited for.
//
// If ctx ends first, Shutdown returns its error at once. A connection that the
// Session owns is closed then all the same, and its session with it if a server
// can be told: ballots are gone, and others may lead, though callbacks of the
// last term may not have returned. What is still under way goes on in the
// background, for no longer than Close would; a Close or Shutdown after that
// waits for it.
func (s *Session) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if !s.closing {
		s.closing = true
		s.publish(s.view) // wakes those who wait for a connection
		go s.closeAll()
	}
	s.mu.Unlock()
	select {
	case <-s.closed:
		return s.closeErr
	case <-ctx.Done():
	}
	s.mu.Lock()
	hurried := make(map[*Candidate]chan struct{})
	for m := range s.members {
		if c, ok := m.(*Candidate); ok {
			hurried[c] = make(chan struct{})
			c.inbox.push(hurryCommand{hurried[c]})
		}
	}
	s.mu.Unlock()
	// The session must not end before they have heard: others may lead from then on.
	// Their loops wait for nobody, so this is at once.
	for c, taken := range hurried {
		select {
		case <-taken:
		case <-c.done:
		}
	}
	if s.owned {
		s.quitting.Store(true) // whatever connection comes now comes too late
		s.help(s.closeConnection)
	}
	return fmt.Errorf("election: shut down: %w", contextError(ctx))
}

// closeAll is what Close and Shutdown wait for.
func (s *Session) closeAll() {
	defer close(s.closed)
	s.mu.Lock()
	members := make([]member, 0, len(s.members))
	for m := range s.members {
		members = append(members, m)
	}
	hooks := s.hooks
	s.hooks = nil
	s.mu.Unlock()

	var errs []error
	results := make(chan error, len(members))
	for _, m := range members {
		go func() { results <- m.Close() }()
	}
	for range members {
		errs = append(errs, <-results)
	}
	s.loops.Wait()
	s.inbox.push(sessionQuit{})
	<-s.done
	patience := s.Timeout()
	for _, h := range hooks {
		go func() {
			if h.queue.close(patience, true) {
				results <- nil
			} else {
				results <- fmt.Errorf("%w in %v: OnConnected", ErrCallbackRunning, patience)
			}
		}()
	}
	for range hooks {
		errs = append(errs, <-results)
	}
	if err := s.look().err; errors.Is(err, errOwnerClosed) {
		errs = append(errs, err)
	}
	if s.owned {
		s.quitting.Store(true) // whatever connection comes now comes too late
		s.closeConnection()
		s.unguard()
		s.helpMu.Lock()
		s.helpless = true
		s.helpMu.Unlock()
		s.helpers.Wait()
	}
	s.closeErr = errors.Join(errs...)
}

// closeConnection closes the client. It may be called more than once, and at the
// same time: who waits does so here and not in the client, whose mutex would keep
// time from passing in testing/synctest.
func (s *Session) closeConnection() {
	s.closeSlot <- struct{}{}
	defer func() { <-s.closeSlot }()
	s.conn.Load().Close()
	if w := s.wire.Load(); w != nil {
		_ = w.Close() // the client may be waiting for a handshake
	}
}

func (s *Session) now() instant { return time.Since(s.base) }

// join registers a member, unless the Session is closed.
func (s *Session) join(m member) error {
	if s == nil {
		return errors.New("election: nil Session")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return ErrClosed
	}
	s.members[m] = struct{}{}
	if _, observes := m.(*Observer); observes {
		s.observers++
	}
	return nil
}

func (s *Session) leave(m member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, observes := m.(*Observer); observes {
		s.observers-- // it leaves once
	}
	delete(s.members, m)
	delete(s.keepers, m)
}

// keepLease says whether a member needs the lease. While one does, heartbeats
// keep it; the member is woken when a new one begins. It reports whether that
// holds from this call on, and did not before.
func (s *Session) keepLease(m member, need bool) (begins bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, has := s.keepers[m]; has == need {
		return false
	}
	if need {
		s.keepers[m] = struct{}{}
		s.inbox.push(nil)
	} else {
		delete(s.keepers, m)
	}
	return need
}

func (s *Session) needed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.keepers) > 0
}

// look returns the present view.
func (s *Session) look() sessionView {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.view
}

// publish replaces the view; the caller holds mu.
func (s *Session) publish(v sessionView) {
	s.view = v
	close(s.changed)
	s.changed = make(chan struct{})
}

// relook returns how long a member waits until it looks again for changes
// that no watch has told of: about T, less or more by a quarter, so that many
// do not ask at once; longer when there are so many candidates and elections that
// are followed that the reads would weigh on the servers.
func (s *Session) relook() time.Duration {
	s.mu.Lock()
	many := (len(s.members) - s.observers) / 100 // observers leave looking to their follower
	s.mu.Unlock()
	return jitter(s.Timeout() * time.Duration(1+many))
}

// metricsFor returns a candidate's own metrics, or the Session's. s may be nil.
func (s *Session) metricsFor(own *Metrics) *Metrics {
	if own == nil && s != nil {
		return s.metrics
	}
	return own.filled()
}

// jitter spreads d by a quarter to both sides.
func jitter(d time.Duration) time.Duration {
	return d - d/4 + rand.N(d/2+1)
}

var _ io.Closer = (*Session)(nil)
