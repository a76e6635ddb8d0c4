package election_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election"
	"github.com/zkelection/election/testutil"
	"github.com/zkelection/election/testutil/realzk"
)

// Back after an outage: once the servers answer again the line stands again.

// leadsAt notes when a member begins to lead.
func leadsAt(m *member) (at func() time.Time) {
	var last atomic.Int64
	m.OnWin(func(context.Context, election.Term) error {
		last.Store(time.Now().UnixNano())
		return nil
	})
	return func() time.Time { return time.Unix(0, last.Load()) }
}

// firstHandshake notes when the first handshake after the call is answered.
func firstHandshake(w *world) (at func() time.Time) {
	var first atomic.Int64
	w.t.Cleanup(w.srv.Control(testutil.OpConnect, func(*testutil.Request) testutil.Action {
		first.CompareAndSwap(0, time.Now().UnixNano())
		return testutil.Pass
	}))
	return func() time.Time { return time.Unix(0, first.Load()) }
}

// The servers have stood still for so long that the session is over. The attempt
// that is under way is answered, the same server is asked for another session at once,
// and nothing on the way to the next leadership waits for time to pass.
func TestBackWithoutTheSession(t *testing.T) {
	for _, servers := range []int{1, 3} {
		for _, outage := range []int{15, 20, 25, 40, 100} { // tenths of T
			t.Run(fmt.Sprintf("%d servers, %d", servers, outage), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := inProcess(t, &testutil.ServerOptions{Members: servers})
					w.servers = w.srv.Servers()
					// All but one take connections and stand still for good.
					var still atomic.Bool
					dial := w.dial
					w.dial = func(network, address string, timeout time.Duration) (net.Conn, error) {
						if still.Load() && address != w.servers[0] {
							ours, theirs := net.Pipe()
							go func() { _, _ = io.Copy(io.Discard, theirs) }()
							return ours, nil
						}
						return dial(network, address, timeout)
					}
					j := &journal{}
					a := w.member("a", j)
					at := leadsAt(a)
					a.lead()
					w.offBeat()
					session := a.node.ID()
					still.Store(true)
					heal := w.srv.IsolateAll()
					time.Sleep(time.Duration(outage) * w.timeout() / 10)
					healed, first := time.Now(), firstHandshake(w)
					heal()
					w.until("a to lead again", a.IsLeader)
					assert.NotEqual(t, session, a.node.ID())
					assert.LessOrEqual(t, first().Sub(healed), time.Duration(servers-1)*w.timeout()+clientPauses)
					assert.Zero(t, at().Sub(first()), "from the first answer until it leads")
				})
			})
		}
	}
}

// The servers were away, and the session lives: after the first answer it takes the
// half tick of the lease, and no more.
func TestBackWithTheSession(t *testing.T) {
	for _, outage := range []int{10, 19, 30, 50, 200} { // twentieths of T
		t.Run(fmt.Sprint(outage), func(t *testing.T) {
			virtually(t, func(t *testing.T, w *world) {
				j := &journal{}
				a := w.member("a", j)
				at := leadsAt(a)
				a.lead()
				w.offBeat()
				session := a.node.ID()
				w.srv.Member(0).Stop()
				time.Sleep(time.Duration(outage) * w.timeout() / 20)
				lapsed := !a.IsLeader()
				first := firstHandshake(w)
				require.NoError(t, w.srv.Member(0).Start())
				time.Sleep(clientPauses)
				w.until("a to lead again", a.IsLeader)
				assert.NotZero(t, first(), "an attempt")
				assert.Equal(t, session, a.node.ID())
				if !lapsed {
					assert.Equal(t, []string{"a won"}, j.all())
					return
				}
				assert.Equal(t, 2, j.count("a won"))
				assert.InDelta(t, w.halfTick(), at().Sub(first()), float64(time.Millisecond), "from the first answer until it leads")
			})
		})
	}
}

// Close waits for no pause, whether that is the library's own or the client's, and not for
// servers that stand still either.
func TestCloseDuringPause(t *testing.T) {
	for _, still := range []bool{false, true} {
		for _, after := range []time.Duration{0, 5 * time.Millisecond, 60 * time.Millisecond, 300 * time.Millisecond, time.Second, 10 * time.Second} {
			t.Run(fmt.Sprintf("still %v, %v", still, after), func(t *testing.T) {
				virtually(t, func(t *testing.T, w *world) {
					n := w.session()
					time.Sleep(time.Second)
					if still {
						defer w.srv.IsolateAll()()
						n.link.cut() // and nobody takes a connection: each attempt takes a second
					} else {
						n.link.setDown(true)
					}
					time.Sleep(after)
					began := time.Now()
					closed := make(chan error, 1)
					go func() { closed <- n.Close() }()
					select {
					case err := <-closed:
						require.NoError(t, err)
					case <-time.After(time.Minute):
						require.Fail(t, "no end in a minute")
					}
					assert.LessOrEqual(t, time.Since(began), 2*time.Second, "which is what the client gives its last request, and an attempt")
				})
			})
		}
	}
}

// clientPauses is the longest pause between two rounds of servers.
const clientPauses = time.Second * 5 / 4

// A server that takes connections only to close them, or to grant a session and then
// close, is not asked in a busy loop; a moment after it serves again, there is a session.
func TestServerThatClosesAtOnce(t *testing.T) {
	for name, action := range map[string]testutil.Action{
		"the request is lost": testutil.LoseRequest,
		"the answer is lost":  testutil.LoseReply,
		"behind the answer":   testutil.CutAfter,
	} {
		t.Run(name, func(t *testing.T) {
			virtually(t, func(t *testing.T, w *world) {
				a := w.member("a", &journal{}).lead()
				w.offBeat()
				var handshakes atomic.Int64
				cancel := w.srv.Control(testutil.OpConnect, func(*testutil.Request) testutil.Action {
					handshakes.Add(1)
					return action
				})
				a.node.link.cut()
				const outage = time.Minute
				time.Sleep(outage)
				cancel()
				healed := time.Now()
				assert.GreaterOrEqual(t, handshakes.Load(), int64(outage/clientPauses))
				// Some at first, and again with each client that takes the place of one to which
				// nobody answers.
				clients := 1 + outage/(6*w.timeout())
				assert.LessOrEqual(t, handshakes.Load(), int64(outage/time.Second+4*clients))
				w.until("a session", func() bool { return a.node.AwaitConnected(w.context()) == nil && a.node.Connection().Connected })
				assert.LessOrEqual(t, time.Since(healed), clientPauses)
			})
		})
	}
}

// Many sessions that come back together ask for no more than it takes, and not all in
// one moment.
func TestManyComeBack(t *testing.T) {
	const sessions, servers, outage = 100, 3, 15 * time.Second
	synctest.Test(t, func(t *testing.T) {
		w := inProcess(t, &testutil.ServerOptions{Members: servers})
		w.servers = w.srv.Servers()
		var dials atomic.Int64
		dial := w.dial
		w.dial = func(network, address string, timeout time.Duration) (net.Conn, error) {
			dials.Add(1)
			return dial(network, address, timeout)
		}
		j := &journal{}
		for range sessions {
			w.member("c", j).vote()
		}
		w.offBeat()
		dials.Store(0)
		for i := range servers {
			w.srv.Member(i).Stop()
		}
		time.Sleep(outage)
		assert.LessOrEqual(t, dials.Load(), sessions*servers*int64(outage/time.Second+4))

		// Which tenth of a second each comes back in.
		w.srv.ResetCounts()
		began := time.Now()
		var mu sync.Mutex
		arrivals := make(map[time.Duration]int)
		defer w.srv.Control(testutil.OpConnect, func(*testutil.Request) testutil.Action {
			mu.Lock()
			defer mu.Unlock()
			arrivals[time.Since(began).Truncate(100*time.Millisecond)]++
			return testutil.Pass
		})()
		for i := range servers {
			require.NoError(t, w.srv.Member(i).Start())
		}
		wins := j.count("c won")
		w.until("a leader", func() bool { return j.count("c won") > wins })
		assert.LessOrEqual(t, time.Since(began), clientPauses+w.halfTick()+10*time.Millisecond)
		time.Sleep(clientPauses)
		mu.Lock()
		defer mu.Unlock()
		for tenth, n := range arrivals {
			assert.Less(t, n, sessions/3, "in the tenth of a second from %v on", tenth)
		}
		counts := costs(w.srv.Counts())
		delete(counts, testutil.OpPing)
		// The handshake, the watches, and a look at what they are on; for the leader its lease
		// and its acknowledgement, too.
		assert.LessOrEqual(t, counts.requests(), int64(5*sessions+20), "%v", counts)
	})
}

// halfTick is how long an answered request has to lie back for a lease to stand on it:
// half a tick, and what is for pings that are late and clocks that differ.
func (w *world) halfTick() time.Duration {
	tick := w.timeout() / 2
	return (tick/2 + w.timeout()/100) / 12 * 13
}

// firstAnswer is a network that notes when a server is first heard on a new connection.
type firstAnswer struct {
	dial zk.Dialer
	at   atomic.Int64 // nanoseconds since 1970; 0: none since reset
}

func (f *firstAnswer) Dial(network, address string, timeout time.Duration) (net.Conn, error) {
	c, err := f.dial(network, address, timeout)
	if err != nil {
		return nil, err
	}
	return &firstAnswerConn{c, f}, nil
}

type firstAnswerConn struct {
	net.Conn
	to *firstAnswer
}

func (c *firstAnswerConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.to.at.CompareAndSwap(0, time.Now().UnixNano())
	}
	return n, err
}

// outageOf has a real server stop for a while, and returns how long it took after it
// goes on until the first answer, and from there until the candidate leads again.
func outageOf(tb testing.TB, ensemble *realzk.Ensemble, timeout, lasts time.Duration) (toAnswer, toLead time.Duration, kept bool) {
	network := &firstAnswer{dial: net.DialTimeout}
	s, err := election.Connect(ensemble.Servers(), timeout, &election.SessionOptions{
		Dialer: network.Dial, TickTime: timeout / 2, Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(tb, err)
	defer s.Close()
	won := make(chan time.Time, 10)
	c, err := election.NewCandidate(s, "outage", nil)
	require.NoError(tb, err)
	c.OnWin(func(context.Context, election.Term) error {
		won <- time.Now()
		return nil
	})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err = c.Campaign(ctx)
	require.NoError(tb, err)
	<-won
	session := s.ID()
	ensemble.Pause(0)
	time.Sleep(lasts)
	network.at.Store(0)
	resumed := time.Now()
	ensemble.Resume(0)
	select {
	case at := <-won:
		answered := time.Unix(0, network.at.Load())
		return answered.Sub(resumed), at.Sub(answered), s.ID() == session
	case <-ctx.Done():
		require.FailNow(tb, "no leader again")
		return
	}
}

// outageTimeout is the session timeout of real outages: two ticks of the server.
const outageTimeout = 2 * time.Second

func pausable(tb testing.TB) *realzk.Ensemble {
	return realzk.StartZooKeeperWith(tb, 1, realzk.EnsembleOptions{TickTime: outageTimeout / 2})
}

// A real server is stopped for two and a half session timeouts, and goes on. On a busy
// machine a server may take long, so the best of a few counts. A new session's lease takes the
// half tick; the client's own pause would be a second more in each.
func TestBackOnZooKeeper(t *testing.T) {
	const limit = outageTimeout/4 + clientPauses/2
	ensemble := pausable(t)
	best := time.Hour
	for range 5 {
		toAnswer, toLead, kept := outageOf(t, ensemble, outageTimeout, outageTimeout*5/2)
		t.Logf("%v until the first answer, %v from there until it leads; session kept: %v", toAnswer, toLead, kept)
		if best = min(best, toLead); best < limit {
			return
		}
	}
	assert.Less(t, best, limit)
}

// BenchmarkOutage stops a real server for so many session timeouts, and measures from the
// first answer after that until the candidate leads again.
func BenchmarkOutage(b *testing.B) {
	ensemble := pausable(b)
	for _, tenths := range []int{10, 25} {
		b.Run(fmt.Sprintf("T=%v/stopped=%v", outageTimeout, outageTimeout*time.Duration(tenths)/10), func(b *testing.B) {
			var s samples
			kept := 0
			for b.Loop() {
				toAnswer, toLead, same := outageOf(b, ensemble, outageTimeout, outageTimeout*time.Duration(tenths)/10)
				s.took("to-answer", toAnswer)
				s.took("to-lead", toLead)
				if same {
					kept++
				}
			}
			s.report(b)
			b.ReportMetric(float64(kept), "sessions-kept")
		})
	}
}

// BenchmarkManyComeBack ends all servers of a real ensemble for a while, as a power failure would, and
// measures how long they take to serve again, how long after that all of many sessions are back with their
// ballots, and one leads and has acknowledged, and what each session has asked.
func BenchmarkManyComeBack(b *testing.B) {
	const sessions, timeout, outage = 500, 10 * time.Second, 15 * time.Second
	ensemble := realzk.StartZooKeeper(b, 3)
	servers := ensemble.Servers()
	links, candidates := make([]*link, sessions), make([]*election.Candidate, sessions)
	for i := range sessions {
		links[i] = newLink(net.DialTimeout)
		s, err := election.Connect(servers, timeout, &election.SessionOptions{Dialer: links[i].Dial, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(b, err)
		b.Cleanup(func() { _ = s.Close() })
		candidates[i], err = election.NewCandidate(s, "many", nil)
		require.NoError(b, err)
		require.NoError(b, candidates[i].Vote(b.Context()))
	}
	asked := func() (n int) {
		for _, l := range links {
			n += l.count(func(r request) bool { return r.op != opPing })
		}
		return n
	}
	// back reports how things are: whether all have a connection and a ballot, and whether one has acknowledged.
	back := func() (all, led bool) {
		all = true
		for _, c := range candidates {
			status := c.Status()
			connected := c.Session().Connection().Connected
			all = all && connected && status.Ballot != ""
			led = led || status.Leads && !status.AcknowledgedAt.IsZero()
		}
		return all, led
	}
	await := func(began time.Time) (all, led time.Duration) {
		for all == 0 || led == 0 {
			a, l := back()
			if now := time.Since(began); now > 2*time.Minute {
				require.FailNow(b, "not back", "all: %v, a leader: %v", a, l)
			} else {
				if a && all == 0 {
					all = now
				}
				if l && led == 0 {
					led = now
				}
			}
			time.Sleep(5 * time.Millisecond)
		}
		return all, led
	}
	await(time.Now())
	var s samples
	requests := 0
	for b.Loop() {
		for i := range servers {
			ensemble.Kill(i)
		}
		time.Sleep(outage)
		before, began := asked(), time.Now()
		var starts sync.WaitGroup
		for i := range servers {
			starts.Go(func() { ensemble.Restart(i) })
		}
		starts.Wait()
		require.NoError(b, ensemble.AwaitServing(time.Minute))
		serving := time.Since(began)
		all, led := await(began)
		s.took("servers-back", serving)
		s.took("all-back-after", max(0, all-serving))
		s.took("leader-after", max(0, led-serving))
		time.Sleep(time.Second) // for what is still under way
		requests += asked() - before
	}
	s.report(b)
	b.ReportMetric(float64(requests)/sessions/float64(b.N), "requests/session")
}

// hangingLog is a log that stands still at a line.
type hangingLog struct {
	slog.Handler
	line    string
	release <-chan struct{}
}

func (h hangingLog) WithAttrs([]slog.Attr) slog.Handler { return h }

func (hangingLog) Enabled(context.Context, slog.Level) bool { return true }

func (h hangingLog) Handle(_ context.Context, r slog.Record) error {
	if r.Message == h.line {
		<-h.release
	}
	return nil
}

// A log may go over the network that is lost. The leader's context ends with its lease all the same.
func TestContextEndsThoughTheLogHangs(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		release := make(chan struct{})
		n := w.session(func(o *election.SessionOptions) {
			o.Logger = slog.New(hangingLog{slog.DiscardHandler, "election: connection lost", release})
		})
		j := &journal{}
		a := w.memberOn(n, "a", j, func(o *election.CandidateOptions) { o.Logger = w.logger() })
		leads := make(chan context.Context, 1)
		a.OnWin(func(ctx context.Context, _ election.Term) error {
			leads <- ctx
			return nil
		})
		a.lead()
		ctx := <-leads
		until := a.LeaseUntil()
		n.link.setDown(true)
		time.Sleep(time.Until(until) - time.Millisecond)
		assert.NoError(t, ctx.Err())
		assert.True(t, a.IsLeader())
		time.Sleep(2 * time.Millisecond)
		assert.Error(t, ctx.Err(), "the lease has ended, and the leader's context has not")
		w.await(j, "a stepped down: lease lapsed")
		close(release)
	})
}
