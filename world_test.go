package election_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election"
	"github.com/zkelection/election/internal/zxid"
	"github.com/zkelection/election/testutil"
	"github.com/zkelection/election/testutil/realzk"
)

// everywhere runs a scenario, which is one behaviour of the library, on the
// in-process ZooKeeper, in virtual time, and on a real one of each release. Those
// run beside each other, once all tests that are not parallel are over.
func everywhere(t *testing.T, scenario func(t *testing.T, w *world)) {
	t.Helper()
	t.Run("in-process", func(t *testing.T) { virtually(t, scenario) })
	t.Parallel()
	for _, z := range zooKeepers {
		t.Run("ZooKeeper-"+string(z.release), func(t *testing.T) {
			t.Parallel()
			scenario(t, &world{t: t, servers: z.start(t).Servers(), dial: net.DialTimeout, run: z.run(t)})
		})
	}
}

// sharedZooKeeper is a real ZooKeeper for all tests that run everywhere, started
// when the first of them needs it.
type sharedZooKeeper struct {
	release testutil.Release

	once     sync.Once
	dir      string
	ensemble *realzk.Ensemble
	err      error

	mu   sync.Mutex
	runs map[string]int // of a test, by its name
}

var zooKeepers = []*sharedZooKeeper{{release: testutil.ZooKeeper38}, {release: testutil.ZooKeeper39}}

// start returns the ZooKeeper for a test, which shows its log if it fails.
func (z *sharedZooKeeper) start(t *testing.T) *realzk.Ensemble {
	t.Helper()
	z.once.Do(z.launch)
	if errors.Is(z.err, realzk.ErrNoZooKeeper) {
		// It finds none either, and skips the test, or fails it where one is required.
		realzk.StartZooKeeperWith(t, 1, realzk.EnsembleOptions{Release: z.release})
	}
	require.NoError(t, z.err)
	t.Logf("ZooKeeper %s", z.ensemble.Version())
	t.Cleanup(func() {
		if t.Failed() {
			var logs strings.Builder
			z.ensemble.WriteLogs(&logs, 8<<10)
			t.Log(logs.String())
		}
	})
	return z.ensemble
}

// run numbers the runs of a test from 0, all on this ZooKeeper (go test -count).
func (z *sharedZooKeeper) run(t *testing.T) int {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.runs == nil {
		z.runs = make(map[string]int)
	}
	defer func() { z.runs[t.Name()]++ }()
	return z.runs[t.Name()]
}

func (z *sharedZooKeeper) launch() {
	if z.dir, z.err = os.MkdirTemp("", "zookeeper-"+string(z.release)+"-"); z.err == nil {
		z.ensemble, z.err = realzk.LaunchZooKeeper(z.dir, 1, realzk.EnsembleOptions{Release: z.release})
	}
}

// close ends the ZooKeeper, if it was started.
func (z *sharedZooKeeper) close() error {
	if z.ensemble != nil {
		z.ensemble.Close()
	}
	if z.dir == "" {
		return nil
	}
	return os.RemoveAll(z.dir)
}

// world is the backend that a scenario runs on, and helpers for the clients.
type world struct {
	t       *testing.T
	servers []string
	dial    zk.Dialer
	srv     *testutil.Server // nil on a real ZooKeeper
	run     int              // on this ZooKeeper, from 0
	log     logBuffer
}

// inProcess makes a world of an in-process server, without sockets.
func inProcess(t *testing.T, opts *testutil.ServerOptions) *world {
	if opts == nil {
		opts = &testutil.ServerOptions{}
	}
	opts.NoListen = true
	srv, err := testutil.NewServer(opts)
	require.NoError(t, err)
	t.Cleanup(srv.Close)
	return &world{t: t, servers: []string{"mem"}, dial: srv.Dialer(), srv: srv}
}

// virtual reports whether time costs nothing.
func (w *world) virtual() bool { return w.srv != nil }

// timeout is the session timeout that scenarios ask for: on a real server one that a
// slow machine does not let lapse beside it.
func (w *world) timeout() time.Duration {
	if w.virtual() {
		return 4 * time.Second
	}
	return 12 * time.Second
}

// patience is how long something may take that is to happen.
func (w *world) patience() time.Duration {
	if w.virtual() {
		return time.Hour
	}
	return time.Minute
}

func (w *world) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), w.patience())
	w.t.Cleanup(cancel)
	return ctx
}

// name is an election of the test's own.
func (w *world) name() string {
	name := strings.ReplaceAll(w.t.Name(), "/", ".")
	if w.run > 0 {
		name += fmt.Sprintf(".%d", w.run)
	}
	return name
}

// node is one session with its network.
type node struct {
	*election.Session
	link *link
}

func (w *world) session(opts ...func(*election.SessionOptions)) *node {
	w.t.Helper()
	n := &node{link: newLink(w.dial)}
	o := &election.SessionOptions{Dialer: n.link.Dial, Logger: w.logger()}
	for _, set := range opts {
		set(o)
	}
	s, err := election.Connect(w.servers, w.timeout(), o)
	require.NoError(w.t, err)
	n.Session = s
	w.t.Cleanup(func() {
		n.link.setDown(false)
		if err := s.Close(); err != nil && !errors.Is(err, election.ErrCallbackRunning) {
			w.t.Errorf("close session: %v", err)
		}
	})
	require.NoError(w.t, s.AwaitConnected(w.context()))
	return n
}

func (w *world) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(&w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// logBuffer keeps what was logged, and prints it if the test fails.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// client is a plain connection, for members that are not this library and to
// look at the nodes. Its race with itself is kept from them, as with clientOn.
func (w *world) client() *zk.Conn {
	w.t.Helper()
	conn, events, err := zk.Connect([]string{"127.0.0.1:1"}, w.timeout(), zk.WithLogger(silent{}),
		zk.WithDialer(zxid.Dialer(func(network, _ string, timeout time.Duration) (net.Conn, error) {
			return w.dial(network, w.servers[0], timeout)
		})))
	require.NoError(w.t, err)
	w.t.Cleanup(func() {
		conn.Close()
		for range events {
		}
	})
	w.until("a client to connect", func() bool { return conn.State() == zk.StateHasSession })
	return conn
}

type silent struct{}

func (silent) Printf(string, ...any) {}

// until polls for a condition.
func (w *world) until(what string, condition func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(w.patience())
	for !condition() {
		if time.Now().After(deadline) {
			w.t.Fatalf("waited %v for %s\n%s%s", w.patience(), what, w.log.String(), w.dump())
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (w *world) dump() string {
	if w.srv == nil {
		return ""
	}
	return w.srv.Dump()
}

// settle lets things happen that should not.
func (w *world) settle() { time.Sleep(200 * time.Millisecond) }

// member is a candidate that writes a journal.
type member struct {
	*election.Candidate
	w       *world
	node    *node
	id      string
	journal *journal
	term    atomic.Pointer[election.Term]
}

// recheckFaults are what may come of the first read of a recheck.
var recheckFaults = map[string]testutil.Action{
	"a read": testutil.Pass, "its request lost": testutil.LoseRequest, "its reply lost": testutil.LoseReply,
	"refused at first": testutil.Fail(throttled),
}

// deafAfterReconnection has the member's watches refused whenever its connection has broken.
func (m *member) deafAfterReconnection() (cancel func()) {
	id := m.node.ID()
	return m.w.srv.Control(testutil.OpSetWatches, func(r *testutil.Request) testutil.Action {
		if r.SessionID == id {
			return testutil.Fail(zk.ErrNoAuth)
		}
		return testutil.Pass
	})
}

// firstRequestFor has that happen to the member's next request for a node. met is closed with it.
func (m *member) firstRequestFor(path string, fault testutil.Action) (met <-chan struct{}, cancel func()) {
	id, first, came := m.node.ID(), sync.Once{}, make(chan struct{})
	return came, m.w.srv.Control(testutil.AnyOp, func(r *testutil.Request) (action testutil.Action) {
		if r.SessionID == id && r.Path == path {
			first.Do(func() {
				close(came)
				action = fault
			})
		}
		return action
	})
}

// journal is a list of what happened, in order.
type journal struct {
	mu     sync.Mutex
	events []string
}

func (j *journal) add(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.events = append(j.events, fmt.Sprintf(format, args...))
}

func (j *journal) all() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.events)
}

func (j *journal) has(event string) bool { return slices.Contains(j.all(), event) }

func (j *journal) count(event string) (n int) {
	for _, e := range j.all() {
		if e == event {
			n++
		}
	}
	return n
}

// member makes a candidate on a session of its own, called id, whose journal
// reads "id won", "id lost to X", "id stepped down: cause".
func (w *world) member(id string, j *journal, opts ...func(*election.CandidateOptions)) *member {
	w.t.Helper()
	return w.memberOn(w.session(), id, j, opts...)
}

func (w *world) memberOn(n *node, id string, j *journal, opts ...func(*election.CandidateOptions)) *member {
	w.t.Helper()
	o := &election.CandidateOptions{Data: []byte(id)}
	for _, set := range opts {
		set(o)
	}
	c, err := election.NewCandidate(n.Session, w.name(), o)
	require.NoError(w.t, err)
	m := &member{Candidate: c, w: w, node: n, id: id, journal: j}
	c.OnWin(func(_ context.Context, term election.Term) error {
		m.term.Store(&term)
		j.add("%s won", id)
		return nil
	})
	c.OnLose(func(_ context.Context, l election.Leader) { j.add("%s lost to %s", id, l.Data) })
	c.OnStepDown(func(_ context.Context, _ election.Term, cause error) {
		j.add("%s stepped down: %s", id, causeName(cause))
	})
	c.OnTakeoverError(func(election.Term, error) { j.add("%s failed to take over", id) })
	return m
}

func causeName(err error) string {
	for cause, name := range map[error]string{
		election.ErrResigned: "resigned", election.ErrClosed: "closed", election.ErrLeaseLapsed: "lease lapsed",
		election.ErrTransferred: "passed on", election.ErrSessionLost: "session lost", election.ErrBallotDeleted: "ballot deleted", election.ErrTakeoverFailed: "takeover failed",
	} {
		if errors.Is(err, cause) {
			return name
		}
	}
	return fmt.Sprint(err)
}

func (m *member) vote() *member {
	m.w.t.Helper()
	require.NoError(m.w.t, m.Vote(m.w.context()))
	return m
}

// lead votes, and waits for the acknowledgement.
func (m *member) lead() *member {
	m.w.t.Helper()
	require.NoError(m.w.t, second(m.Campaign(m.w.context())), m.id)
	return m
}

func (m *member) resign() {
	m.w.t.Helper()
	require.NoError(m.w.t, m.Resign(m.w.context()))
}

func (w *world) await(j *journal, event string) {
	w.t.Helper()
	deadline := time.Now().Add(w.patience())
	for !j.has(event) {
		if time.Now().After(deadline) {
			w.t.Fatalf("waited %v for %q in %q\n%s%s", w.patience(), event, j.all(), w.log.String(), w.dump())
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// same compares a journal, or anything else.
func (w *world) same(what string, got, want []string) {
	w.t.Helper()
	if !slices.Equal(got, want) {
		w.t.Fatalf("%s:\n got %q\nwant %q\n%s%s", what, got, want, w.log.String(), w.dump())
	}
}

// children lists the election's nodes.
func (w *world) children(conn *zk.Conn, path string) []string {
	w.t.Helper()
	names, _, err := conn.Children(path)
	if err != nil && !errors.Is(err, zk.ErrNoNode) {
		w.t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

// waitingCalls are the calls that wait for the servers, but for a leader's own.
func waitingCalls(n *node, c *election.Candidate, o *election.Observer) map[string]func(ctx context.Context) error {
	return map[string]func(ctx context.Context) error{
		"AwaitConnected": n.AwaitConnected,
		"Vote":           c.Vote,
		"Campaign":       func(ctx context.Context) error { return second(c.Campaign(ctx)) },
		"Run": func(ctx context.Context) error {
			return c.Run(ctx, func(context.Context, election.Term) error { return nil })
		},
		"Leader":      func(ctx context.Context) error { return second(c.Leader(ctx)) },
		"LeaderSync":  func(ctx context.Context) error { return second(o.LeaderSync(ctx)) },
		"LeaderData":  func(ctx context.Context) error { return second(o.LeaderData(ctx)) },
		"LeaderAcked": func(ctx context.Context) error { return second(o.LeaderAcked(ctx)) },
		"Ballots":     func(ctx context.Context) error { return second(c.Ballots(ctx)) },
		"Observe":     o.Observe,
	}
}
