package testutil

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/go-zookeeper/zk"
)

// ServerOptions are the settings of a Server. Nil, and the zero of each field,
// mean ZooKeeper's defaults. The functions and the Logger may be called before
// NewServer has returned.
type ServerOptions struct {
	// Release is the ZooKeeper that the server behaves as. Default ZooKeeper39.
	Release Release
	// TickTime is ZooKeeper's unit of time: sessions expire at whole ticks, and
	// an ensemble gives a member up after 5 of them. Default 2 s.
	TickTime time.Duration
	// MinSessionTimeout and MaxSessionTimeout bound what a client gets. Default 2
	// and 20 ticks.
	MinSessionTimeout, MaxSessionTimeout time.Duration
	// Members is the number of servers in the ensemble, see Member. Default 1.
	Members int
	// SuperDigest is ZooKeeper's property DigestAuthenticationProvider.superDigest:
	// who proves to be this user, given as user:hash, may do everything. Digest makes
	// one. Default none.
	SuperDigest string
	// NoListen leaves out the TCP listeners: only Dialer connects. Inside
	// testing/synctest it must be set.
	NoListen bool
	// PingDelay says by how much the next ping of the ensemble's leader is late,
	// in whole milliseconds; it is asked before each. The leader pings the others
	// every half tick, and only in answer to that do they tell it which sessions
	// they have heard of. A real one sleeps for half a tick and works after that,
	// so its pings are always a little late, and each is counted from the one
	// before. It may call every method of the Server but Close, and is not called
	// twice at a time. Default 1 ms. Without an ensemble there are no pings.
	PingDelay func() time.Duration
	// ClientClock says, for each new session, at what rate its client's clock runs
	// as compared with the ensemble's, which has to be more than 0: at 11/12 the
	// client counts 11 seconds while the ensemble counts 12 by which the session
	// expires. (The time of the process is the client's: it is the session's end
	// that comes sooner or later.) It may call every method of the Server but Close, and
	// is not called twice at a time. Default 1.
	ClientClock func() float64
	// Logger hears of sessions and members that come and go, and of malformed
	// requests, each line as soon as what it tells of has been done. Its handler runs
	// on a goroutine of the server, or on one that calls it; it gets one line at a
	// time, and may call every method of the Server but Close. Default none.
	Logger *slog.Logger
}

// A Server is a ZooKeeper in the test's process: a server of its own, or with
// Members an ensemble. Its methods may be called from any goroutine.
//
// All state, the tree, the sessions, the watches, what each connection has still
// to send, is guarded by one mutex. It is held only to compute: never while
// reading or writing a connection, waiting for a client or calling a function that
// the test has given. (Only Start waits with it, for up to a second, for a port that
// another program has taken.) So a write and the watch events it causes are one step, no client
// can see the one without the other being on its way before, and the goroutines
// of a synctest bubble are never found blocked on the mutex. An owner goroutine
// in its place would cost two switches for each request and order nothing better.
type Server struct {
	release                Release
	super                  string // user:hash of the super user, or ""
	tick                   time.Duration
	minTimeout, maxTimeout int32 // milliseconds
	listen                 bool
	pingDelay              func() time.Duration
	clientClock            func() float64
	clocking               chan struct{} // holds a token while clientClock is called
	log                    *slog.Logger  // nil for none
	began                  time.Time
	members                []*member
	wake                   chan struct{} // tells the clock that it may have slept too long
	done                   chan struct{} // closed by Close
	running                sync.WaitGroup

	mu sync.Mutex
	// The fields below are guarded by mu, as are all of member, conn, session,
	// tree and watches that are not said to be constant.
	tree     *tree // what the leader has committed
	sessions map[int64]*session
	leader   *member // nil while there is none
	// gone is a leader that was stopped while it was cut off: the others follow it still,
	// until they notice, when they have heard nothing for long enough. There is no leader
	// meanwhile.
	gone     *member
	epoch    int64
	zxid     int64
	conns    map[*conn]struct{} // whose goroutines have not ended
	controls []*control         // replaced, never changed
	counts   map[Op]int64
	isolated map[int64]int // by session: how often it is cut off
	// isolatedAll is how often everybody is.
	isolatedAll int
	changed     chan struct{} // closed and replaced when a dialer, or a delayed request, might go on
	// proposed is what the leader has decided and cannot commit, in order, ahead the tree
	// as it will be then, and leaving how many children of a node will have gone with their
	// sessions. A leader that is no more leaves them to the next.
	proposed   []*proposed
	ahead      *tree
	leaving    map[string]int
	closed     bool
	lines      []slog.Record // for the Logger, see unlock
	telling    chan struct{} // nil while nobody tells them, then closed when that is over
	pulseFrom  int64         // when the leader's last ping was, or its election
	nextPulse  int64         // -1 while it has not been asked how late that is
	sweepsFrom int64
	nextSweep  int64
}

const (
	defaultTick = 2 * time.Second
	syncLimit   = 5
	// longestSession is the longest timeout that the wire can tell.
	longestSession = math.MaxInt32 * time.Millisecond
)

// NewServer starts a server. It must be closed.
func NewServer(opts *ServerOptions) (*Server, error) {
	var o ServerOptions
	if opts != nil {
		o = *opts
	}
	if !o.NoListen && inBubble() {
		return nil, errors.New("testutil: a socket does not work in a synctest bubble: set ServerOptions.NoListen, and give Dialer to the clients")
	}
	if o.SuperDigest != "" && !validDigest(o.SuperDigest) {
		return nil, fmt.Errorf("testutil: the super user is not of the form user:hash: %q", o.SuperDigest)
	}
	if o.Release == "" {
		o.Release = newestRelease
	}
	if o.Release != ZooKeeper38 && o.Release != ZooKeeper39 {
		return nil, fmt.Errorf("testutil: no release %q: want %q or %q", o.Release, ZooKeeper38, ZooKeeper39)
	}
	if o.TickTime == 0 {
		o.TickTime = defaultTick
	}
	switch {
	case o.TickTime < time.Millisecond:
		return nil, fmt.Errorf("testutil: TickTime %v is less than a millisecond", o.TickTime)
	case o.Members < 0:
		return nil, fmt.Errorf("testutil: Members %d is negative", o.Members)
	case o.MinSessionTimeout < 0 || o.MaxSessionTimeout < 0:
		return nil, fmt.Errorf("testutil: MinSessionTimeout %v or MaxSessionTimeout %v is negative", o.MinSessionTimeout, o.MaxSessionTimeout)
	}
	if o.Members == 0 {
		o.Members = 1
	}
	if o.MinSessionTimeout == 0 {
		o.MinSessionTimeout = 2 * o.TickTime
	}
	if o.MaxSessionTimeout == 0 {
		o.MaxSessionTimeout = 20 * o.TickTime
	}
	if o.MinSessionTimeout > o.MaxSessionTimeout {
		return nil, errors.New("testutil: MinSessionTimeout above MaxSessionTimeout")
	}
	if o.MaxSessionTimeout > longestSession {
		return nil, fmt.Errorf("testutil: MaxSessionTimeout %v is more than the protocol has room for, %v", o.MaxSessionTimeout, longestSession)
	}
	if o.PingDelay == nil {
		o.PingDelay = func() time.Duration { return time.Millisecond }
	}
	if o.ClientClock == nil {
		o.ClientClock = func() float64 { return 1 }
	}
	s := &Server{
		release:     o.Release,
		super:       o.SuperDigest,
		tick:        o.TickTime.Truncate(time.Millisecond),
		minTimeout:  int32(o.MinSessionTimeout.Milliseconds()),
		maxTimeout:  int32(o.MaxSessionTimeout.Milliseconds()),
		listen:      !o.NoListen,
		pingDelay:   o.PingDelay,
		clientClock: o.ClientClock,
		clocking:    make(chan struct{}, 1),
		log:         o.Logger,
		began:       time.Now(),
		wake:        make(chan struct{}, 1),
		done:        make(chan struct{}),
		tree:        newTree(),
		sessions:    make(map[int64]*session),
		conns:       make(map[*conn]struct{}),
		counts:      make(map[Op]int64),
		isolated:    make(map[int64]int),
		changed:     make(chan struct{}),
	}
	for i := range o.Members {
		s.members = append(s.members, newMember(s, i))
	}
	if err := s.Start(); err != nil {
		return nil, err
	}
	if o.Members > 1 {
		// It may have clients already. The node is as the real one makes it at its start: without a transaction.
		s.mu.Lock()
		config := s.tree.nodes["/zookeeper/config"]
		config.data, config.version, config.mtime = []byte(s.config()), -1, s.wallTime()
		s.unlock()
	}
	s.running.Go(s.runClock)
	return s, nil
}

// Start starts every member that is stopped, under the address that it had and
// with the tree and the sessions. As after a restart of ZooKeeper, every session
// has its whole timeout before it again when a leader is found. It fails, and
// starts none, when another program has taken a port meanwhile, which takes a second in which nothing is answered,
// or the server is closed.
func (s *Server) Start() error {
	s.mu.Lock()
	defer s.unlock()
	return s.start(s.members)
}

func (s *Server) start(members []*member) error {
	if s.closed {
		return errors.New("testutil: the server is closed")
	}
	for i, m := range members {
		if err := m.openListener(); err != nil {
			for _, m := range members[:i] {
				if m.down() {
					m.closeListener()
				}
			}
			return err
		}
	}
	for _, m := range members {
		if m.down() {
			m.downAt = -1
		}
	}
	s.quorumChanged()
	return nil
}

// The ports of the ensemble's own traffic, of which there is none.
const (
	quorumPort   = 2888
	electionPort = 3888
)

// config is the ensemble as /zookeeper/config has it, with the addresses for clients:
// that of an ensemble whose configuration names them, as it should since 3.5.
func (s *Server) config() string {
	var w strings.Builder
	for i, m := range s.members {
		host, _, err := net.SplitHostPort(m.addr)
		if err != nil {
			host = m.addr
		}
		fmt.Fprintf(&w, "server.%d=%s:%d:%d:participant;%s\n", i+1, host, quorumPort+i, electionPort+i, m.addr)
	}
	w.WriteString("version=0")
	return w.String()
}

// Stop stops every member: it cuts all connections and refuses new ones until
// Start. Once it has returned no request is applied any more. Time stands still
// for the sessions.
func (s *Server) Stop() {
	s.mu.Lock()
	defer s.unlock()
	s.stop()
}

func (s *Server) stop() {
	s.leader, s.gone = nil, nil
	for _, m := range s.members {
		m.stop()
	}
}

// Close stops the server for good. When it returns, all its goroutines have
// ended, and the Logger has got its last line. It must not be called from a
// function that was given to the server: for Control, or in the ServerOptions.
func (s *Server) Close() {
	s.mu.Lock()
	s.stop()
	if !s.closed {
		s.closed = true
		close(s.done)
	}
	for c := range s.conns {
		_ = c.nc.Close()
		c.poke()
	}
	s.unlock()
	s.running.Wait()
	s.mu.Lock()
	for _, m := range s.members {
		m.port.Release()
	}
	telling := s.telling
	s.unlock()
	if telling != nil {
		<-telling
	}
}

// Addr is the host and port of the server, of the first member in an ensemble.
// With NoListen it is an address that only Dialer understands: who connects to it
// by any other way is refused at once.
func (s *Server) Addr() string { return s.members[0].Addr() }

// Servers lists the addresses of all members, for zk.Connect.
func (s *Server) Servers() []string {
	addrs := make([]string, len(s.members))
	for i, m := range s.members {
		addrs[i] = m.Addr()
	}
	return addrs
}

// Dialer connects in memory, without sockets, so that a client and the server
// run in virtual time inside testing/synctest; the server must have been made
// there. The address chooses the member: it is one of Servers, any other means
// the first. (zk.Connect resolves names; it takes those of Servers.)
func (s *Server) Dialer() zk.Dialer {
	return func(_, address string, timeout time.Duration) (net.Conn, error) {
		for _, m := range s.members {
			if m.Addr() == address {
				return m.dial(timeout)
			}
		}
		return s.members[0].dial(timeout)
	}
}

// DropConnections cuts all connections. The clients can connect again at once.
func (s *Server) DropConnections() {
	s.mu.Lock()
	defer s.unlock()
	for _, m := range s.members {
		m.dropClients()
	}
}

// Watches is the number of watches set by all clients.
func (s *Server) Watches() int {
	s.mu.Lock()
	defer s.unlock()
	n := 0
	for _, m := range s.members {
		n += m.watches.size()
	}
	return n
}

// now is the server's clock in milliseconds since it was made.
func (s *Server) now() int64 { return time.Since(s.began).Milliseconds() }

// wallTime is what nodes are stamped with.
func (s *Server) wallTime() int64 { return time.Now().UnixMilli() }

func (s *Server) nextZxid() int64 {
	s.zxid++
	return s.zxid
}

// spawn runs f on a goroutine that Close waits for. The caller holds the lock.
func (s *Server) spawn(f func()) {
	if !s.closed {
		s.running.Go(f)
	}
}

// broadcast lets those look again who wait for an isolation to end.
func (s *Server) broadcast() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Server) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// commit makes a transaction true: in the leader's tree, which the members in
// step share, with the watch events that it causes there; the other members get
// it to apply later. The result is the same for all.
func (s *Server) commit(x *txn) result {
	lasting := len(s.tree.transient) == 0
	r := s.tree.apply(x, func(e event) {
		for _, m := range s.members {
			if m.inStep() {
				m.watches.fire(e)
			}
		}
	})
	if x.op == OpClose {
		delete(s.sessions, x.session)
	}
	if lasting && len(s.tree.transient) > 0 {
		s.setSweep()
		s.poke() // the clock does not know of the sweep
	}
	for _, m := range s.members {
		switch {
		case m.inStep():
			m.committed(x)
		case m.serving():
			m.backlog = append(m.backlog, &proposal{x: x})
		}
	}
	return r
}

// inBubble reports whether the caller runs in a bubble of testing/synctest. The
// header of its stack says so.
func inBubble() bool {
	var stack [128]byte
	header, _, _ := bytes.Cut(stack[:runtime.Stack(stack[:], false)], []byte{'\n'})
	return bytes.Contains(header, []byte("synctest bubble"))
}

func refused(addr string) error {
	return &net.OpError{Op: "dial", Net: "mem", Addr: pipeAddr(addr), Err: syscall.ECONNREFUSED}
}

func sessionName(id int64) string { return "0x" + strconv.FormatInt(id, 16) }
