package election_test

import (
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election"
	"github.com/zkelection/election/internal/zxid"
	"github.com/zkelection/election/testutil"
)

// What went wrong in the clients that the libraries before stood on: lessons
// about connections, watches and servers.

// A client goes on without the watches that a server refused to set again. They
// are set again one by one.
func TestWatchesLost(t *testing.T) {
	for _, test := range []struct {
		name    string
		refuses int64 // so many times, on each session
		within  func(timeout time.Duration) time.Duration
	}{
		{"once", 1, func(timeout time.Duration) time.Duration { return timeout / 8 }},
		{"three times", 3, func(timeout time.Duration) time.Duration { return timeout / 2 }},
		{"always", math.MaxInt64, func(timeout time.Duration) time.Duration { return timeout * 3 / 2 }},
	} {
		t.Run(test.name, func(t *testing.T) {
			virtually(t, func(t *testing.T, w *world) {
				j := &journal{}
				a, b := w.member("a", j).lead(), w.member("b", j)
				b.vote()
				oj := &journal{}
				o := w.observer(w.session(), oj)
				require.NoError(t, o.Observe(w.context()))
				w.await(j, "b lost to a")
				w.await(oj, "new leader a")
				time.Sleep(w.timeout())
				var mu sync.Mutex
				refused := map[int64]int64{}
				defer w.srv.Control(testutil.OpSetWatches, func(r *testutil.Request) testutil.Action {
					mu.Lock()
					defer mu.Unlock()
					if refused[r.SessionID] == test.refuses {
						return testutil.Pass
					}
					refused[r.SessionID]++
					return testutil.Fail(zk.ErrNoAuth)
				})()
				w.srv.DropConnections()
				time.Sleep(w.timeout() / 40 * 2) // they have connected again, and looked at everything
				mu.Lock()
				require.GreaterOrEqual(t, len(refused), 2, "refused to %d sessions", len(refused))
				mu.Unlock()
				began := time.Now()
				a.resign()
				w.await(j, "b won")
				w.await(oj, "new leader b")
				if took, limit := time.Since(began), test.within(w.timeout()); took > limit {
					t.Errorf("found out after %v, want %v", took, limit)
				}
				assert.True(t, b.IsLeader(), "b does not lead")
				time.Sleep(4 * w.timeout())
				assert.True(t, b.IsLeader(), "b does not lead for long")
				w.same("journal", j.all(), []string{"a won", "b lost to a", "a stepped down: resigned", "b won"})
			})
		})
	}
}

// As of v1.0.4 the client sends no more of its watches after a refusal: there
// are several requests when there are many.
func TestManyWatchesLost(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		const many = 300
		s := w.session()
		require.NoError(t, s.AwaitConnected(w.context()))
		var watches []<-chan zk.Event
		name := func(i int) string { return fmt.Sprintf("/%0900d", i) } // 270 kB of names: three requests
		for i := range many {
			exists, _, watch, err := s.Conn().ExistsW(name(i))
			if err != nil || exists {
				t.Fatal(exists, err)
			}
			watches = append(watches, watch)
		}
		var requests atomic.Int64
		defer w.srv.Control(testutil.OpSetWatches, func(*testutil.Request) testutil.Action {
			if requests.Add(1) == 1 {
				return testutil.Fail(zk.ErrNoAuth)
			}
			return testutil.Pass
		})()
		w.srv.DropConnections()
		time.Sleep(w.timeout())
		assert.Equal(t, int64(4), requests.Load(), "requests to set watches: three, and the first one again")
		conn := w.client()
		for i := range many {
			require.NoError(t, second(conn.Create(name(i), nil, zk.FlagEphemeral, zk.WorldACL(zk.PermAll))))
		}
		silent := 0
		time.Sleep(time.Second)
		for _, watch := range watches {
			select {
			case <-watch:
			default:
				silent++
			}
		}
		assert.LessOrEqual(t, silent, 0, "%d of %d watches are silent", silent, many)
	})
}

// A handshake that nobody answers ends after T, where the client waits for
// many times that.
func TestSilentHandshake(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.member("a", j).lead()
		silent := make(chan struct{})
		var once atomic.Bool
		defer w.srv.Control(testutil.OpConnect, func(*testutil.Request) testutil.Action {
			if once.Swap(true) {
				return testutil.Pass
			}
			return testutil.Hold(silent)
		})()
		began := time.Now()
		a.node.link.cut()
		w.await(j, "a stepped down: lease lapsed")
		require.NoError(t, a.node.AwaitConnected(w.context()))
		w.until("a to lead again", a.IsLeader)
		require.LessOrEqual(t, time.Since(began), 3*w.timeout(), "it took")
	})
}

// An ensemble that has lost its state refuses every client that has seen more
// than it knows. A connection of our own is replaced after a while.
func TestEnsembleLostItsState(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		var target atomic.Pointer[testutil.Server]
		target.Store(w.srv)
		first := w.dial
		w.dial = func(network, address string, timeout time.Duration) (net.Conn, error) {
			if srv := target.Load(); srv != w.srv {
				return srv.Dialer()(network, address, timeout)
			}
			return first(network, address, timeout)
		}
		j := &journal{}
		a := w.member("a", j).lead()
		for range 100 {
			require.NoError(t, a.Proclaim(w.context(), []byte("x")))
		}
		conn := a.node.Conn()
		fresh, err := testutil.NewServer(&testutil.ServerOptions{NoListen: true})
		require.NoError(t, err)
		defer fresh.Close()
		target.Store(fresh)
		w.srv.Stop()
		w.await(j, "a stepped down: lease lapsed")
		w.until("a to lead on the new ensemble", a.IsLeader)
		if a.node.Conn() == conn {
			t.Fatal("the fresh ensemble took the old client: nothing was tested")
		}
		require.NoError(t, a.node.Close()) // before the fresh server goes
	})
}

// fadingHosts is a HostProvider of one server that works once.
type fadingHosts struct {
	inits *atomic.Int64
	hosts []string
}

func (h *fadingHosts) Init(servers []string) error {
	if h.inits.Add(1) > 1 {
		return errors.New("no such host")
	}
	h.hosts = servers
	return nil
}

func (h *fadingHosts) Len() int             { return len(h.hosts) }
func (h *fadingHosts) Next() (string, bool) { return h.hosts[0], true }
func (h *fadingHosts) Connected()           {}

// A client is to be replaced, and no new one can be made. The old one is
// listened to again.
func TestReplacementFails(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		inits := new(atomic.Int64)
		j := &journal{}
		n := w.session(func(o *election.SessionOptions) { o.HostProvider = &fadingHosts{inits: inits} })
		a := w.memberOn(n, "a", j).lead()
		silent := make(chan struct{})
		var answers atomic.Bool
		defer w.srv.Control(testutil.OpConnect, func(*testutil.Request) testutil.Action {
			if answers.Load() {
				return testutil.Pass
			}
			return testutil.Hold(silent)
		})()
		n.link.cut()
		w.until("an attempt to replace the client", func() bool { return inits.Load() > 1 })
		answers.Store(true)
		w.until("a to lead again", a.IsLeader)
		assert.LessOrEqual(t, inits.Load()-1, int64(2), "attempts to replace the client")
	})
}

// Hundreds of requests at once are sent sixty-four at a time, and heartbeats go
// ahead of them.
func TestInFlightBound(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		n := w.session()
		leader := w.memberOn(n, "leader", j).lead()
		w.memberOn(n, "second", j).vote() // from here on the session takes it that an election's node is there
		w.await(j, "second lost to leader")
		synctest.Wait() // nothing of those two is under way
		listed := n.link.count(func(r request) bool { return r.op == opChildren2 })
		release := make(chan struct{})
		var arrived atomic.Int64
		cancel := w.srv.Control(testutil.OpCreate, func(*testutil.Request) testutil.Action {
			arrived.Add(1)
			return testutil.HoldReply(release)
		})
		for range 300 {
			c, err := election.NewCandidate(n.Session, w.name(), nil)
			require.NoError(t, err)
			go func() { _ = c.Vote(w.context()) }()
		}
		time.Sleep(w.timeout() / 8)
		// The lists that go with the creations are answered behind them, and count, too.
		lists := n.link.count(func(r request) bool { return r.op == opChildren2 }) - listed
		require.Equal(t, 64, int(arrived.Load())+lists, "requests in flight")
		cancel()
		close(release)
		w.until("all ballots", func() bool { return len(w.children(n.Conn(), leader.RootVotePath())) == 303 })
	})
}

// The connection of an expired session is closed, where the client leaves it
// open.
func TestExpiredConnectionClosed(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		var open atomic.Int64
		dial := w.dial
		w.dial = func(network, address string, timeout time.Duration) (net.Conn, error) {
			c, err := dial(network, address, timeout)
			if err != nil {
				return nil, err
			}
			open.Add(1)
			return &countedConn{Conn: c, open: &open}, nil
		}
		n := w.session()
		for range 5 {
			id := n.ID()
			w.srv.ExpireSession(id)
			w.until("a new session", func() bool { return n.ID() != id && n.State() == zk.StateHasSession })
		}
		require.Equal(t, int64(1), open.Load(), "connections are open")
	})
}

type countedConn struct {
	net.Conn
	open *atomic.Int64
	done atomic.Bool
}

func (c *countedConn) Close() error {
	if !c.done.Swap(true) {
		c.open.Add(-1)
	}
	return c.Conn.Close()
}

// clientOn is a client that is not ours, and its network. Its race with itself
// when it sets watches again (internal/zxid) is kept from the tests, whose
// subject it is not: a caller's own connection has it.
func (w *world) clientOn() (*zk.Conn, <-chan zk.Event, *link) {
	w.t.Helper()
	l := newLink(w.dial)
	conn, events, err := zk.Connect([]string{"127.0.0.1:1"}, w.timeout(), zk.WithLogger(silent{}),
		zk.WithDialer(zxid.Dialer(election.Unfailing(func(network, _ string, timeout time.Duration) (net.Conn, error) {
			return l.Dial(network, w.servers[0], timeout)
		}))))
	require.NoError(w.t, err)
	return conn, events, l
}

// Nobody reads the events of a caller's connection, of which the client
// drops all but the first few.
func TestEventsUnread(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		conn, events, l := w.clientOn()
		s, err := election.NewSession(conn, w.timeout(), nil)
		require.NoError(t, err)
		for range 10 { // four events each
			time.Sleep(w.timeout())
			l.cut()
		}
		require.Equal(t, cap(events), len(events), "there is room for more events")
		j := &journal{}
		a := w.memberOn(&node{Session: s, link: l}, "a", j).lead()
		id := s.ID()
		require.NoError(t, l.expire())
		w.until("a to lead on another session", func() bool { return s.ID() != id && a.IsLeader() })
		require.NoError(t, s.Close())
		conn.Close()
		for range events {
		}
	})
}

// A caller's connection that gets no session for long is reported, once
// each time: it is not ours to replace.
func TestCallersConnectionReported(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		conn, events, l := w.clientOn()
		defer func() {
			conn.Close()
			for range events {
			}
		}()
		s, err := election.NewSession(conn, w.timeout(), &election.SessionOptions{Logger: w.logger()})
		require.NoError(t, err)
		defer func() { _ = s.Close() }()
		require.NoError(t, s.AwaitConnected(w.context()))
		reports := func() int {
			return strings.Count(w.log.String(), "the caller's connection has had no session for long")
		}
		for outage := range 2 {
			l.setDown(true)
			l.cut()
			time.Sleep(5 * w.timeout())
			require.Equal(t, outage, reports(), "reports early in outage %d", outage)
			time.Sleep(20 * w.timeout())
			require.Equal(t, outage+1, reports(), "reports late in outage %d", outage)
			l.setDown(false)
			require.NoError(t, s.AwaitConnected(w.context()))
			time.Sleep(w.timeout())
		}
	})
}

// After an outage of all the sessions are there at the same moment. What they
// then look at they do not ask for at the same moment.
func TestNoStormAfterOutage(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		const many = 40
		j := &journal{}
		w.member("leader", j).lead()
		for i := range many {
			w.member(fmt.Sprint(i), j).vote()
		}
		time.Sleep(w.timeout() / 2) // before the first periodic recheck
		var mu sync.Mutex
		var back, looks []time.Time
		defer w.srv.Control(testutil.AnyOp, func(r *testutil.Request) testutil.Action {
			mu.Lock()
			defer mu.Unlock()
			switch r.Op {
			case testutil.OpConnect:
				back = append(back, time.Now())
			case testutil.OpExists, testutil.OpGetChildren, testutil.OpGetChildren2:
				looks = append(looks, time.Now())
			default:
			}
			return testutil.Pass
		})()
		w.srv.DropConnections()
		time.Sleep(w.timeout() / 8)
		mu.Lock()
		defer mu.Unlock()
		require.GreaterOrEqual(t, len(back), many, "%d sessions came back, and not at the same moment", len(back))
		require.LessOrEqual(t, slices.MaxFunc(back, time.Time.Compare).Sub(back[0]), time.Millisecond, "%d sessions came back, and not at the same moment", len(back))
		require.GreaterOrEqual(t, len(looks), 2*many, "%d looks of %d candidates at two nodes each", len(looks), many)
		slices.SortFunc(looks, time.Time.Compare)
		if first := looks[0].Sub(back[0]); first < w.timeout()/80 {
			t.Errorf("the first recheck comes %v after the connection", first)
		}
		busiest := 0
		for i, from := range looks {
			n := 0
			for _, at := range looks[i:] {
				if at.Sub(from) < w.timeout()/400 {
					n++
				}
			}
			busiest = max(busiest, n)
		}
		assert.LessOrEqual(t, busiest, len(looks)/2, "%d of %d looks come within %v", busiest, len(looks), w.timeout()/400)
	})
}

// The dialer is given names, for each connection anew: where a name leads to may
// have changed.
func TestDialerIsGivenNames(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		var mu sync.Mutex
		var asked []string
		direct := w.dial
		w.servers = []string{"zk.example:2181"}
		w.dial = func(network, address string, timeout time.Duration) (net.Conn, error) {
			mu.Lock()
			asked = append(asked, address)
			mu.Unlock()
			return direct(network, w.srv.Addr(), timeout)
		}
		n := w.session()
		for range 3 {
			time.Sleep(w.timeout())
			n.link.cut()
		}
		time.Sleep(w.timeout())
		mu.Lock()
		defer mu.Unlock()
		assert.Len(t, asked, 4, "connections")
		for _, address := range asked {
			assert.Equal(t, w.servers[0], address, "what the dialer was given")
		}
	})
}
