package election_test

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election"
	"github.com/zkelection/election/testutil"
)

// Edges of the public methods, each found by looking for one.

// A Run whose context ends resigns. Nothing of that comes after it has returned, or it would undo what is asked for then.
func TestNothingOfARunComesAfterIt(t *testing.T) {
	w := inProcess(t, nil)
	n := w.session()
	w.memberOn(n, "keeps the lease", &journal{}).lead()
	c, err := election.NewCandidate(n.Session, "another", nil)
	require.NoError(t, err)
	// Two processors: while one is busy the other does all that there is to do, in whatever order.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	for i := range 100 {
		ctx, cancel := context.WithCancel(context.Background())
		leads, over := make(chan struct{}), atomic.Bool{}
		go func() {
			defer over.Store(true)
			_ = c.Run(ctx, func(context.Context, election.Term) error {
				close(leads)
				<-ctx.Done() // which the leader's own context follows a moment later
				return nil
			})
		}()
		<-leads
		cancel()
		for until := time.Now().Add(time.Minute); !over.Load() && time.Now().Before(until); {
			continue // and let nobody else have this processor
		}
		require.NoError(t, second(c.Campaign(w.context())), i)
		require.NoError(t, c.Resign(w.context()))
	}
}

func TestRunAgainAfterResign(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		a := w.member("a", &journal{})
		leads := make(chan struct{}, 1)
		until := func(ctx context.Context, _ election.Term) error { leads <- struct{}{}; <-ctx.Done(); return ctx.Err() }
		result := make(chan error, 1)
		for range 3 {
			go func() { result <- a.Run(w.context(), until) }()
			<-leads
			if err := a.Run(w.context(), until); err == nil || errors.Is(err, election.ErrResigned) {
				t.Fatalf("two at a time: %v", err)
			}
			a.resign()
			require.ErrorIs(t, <-result, election.ErrResigned, "Run ended with")
		}
		a.lead() // and it is free for everything else
		require.NoError(t, a.Healthy(time.Minute))
	})
}

// A context that has ended before the call does nothing at all.
func TestEndedContextDoesNothing(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		a := w.member("a", &journal{})
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		for range 20 {
			for _, err := range []error{
				a.Vote(ended), second(a.Campaign(ended)),
				a.Run(ended, func(context.Context, election.Term) error { return nil }),
				a.Transfer(ended, election.Ballot{Path: a.RootVotePath() + "/ballot-0123456789abcdef-j-0000000000"}),
			} {
				require.ErrorIs(t, err, context.Canceled)
			}
		}
		late, cancel := context.WithDeadline(context.Background(), time.Now())
		defer cancel()
		err := a.Transfer(late, election.Ballot{Path: a.RootVotePath() + "/ballot-0123456789abcdef-j-0000000000"})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, election.ErrTransferBlocked)
		require.NotContains(t, err.Error(), "may still happen", "nothing was asked")
		w.settle()
		require.False(t, a.Voted(), "it has voted")
		require.False(t, a.IsLeader(), "it has voted")
	})
}

// However Run ends, nobody leads without it.
func TestRunEndsWithItsGoroutine(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		a := w.member("a", &journal{})
		go func() {
			_ = a.Run(w.context(), func(context.Context, election.Term) error { runtime.Goexit(); return nil })
		}()
		time.Sleep(time.Minute)
		require.False(t, a.IsLeader(), "it leads for nobody")
		require.False(t, a.Voted(), "it leads for nobody")
	})
}

// A function given to Run that overran once is given its time again.
func TestRunOverrunsOnce(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		a, b := w.member("a", j), w.member("b", j)
		overrun := atomic.Bool{}
		overrun.Store(true)
		leads := make(chan struct{}, 1)
		go func() {
			_ = a.Run(w.context(), func(ctx context.Context, _ election.Term) error {
				leads <- struct{}{}
				<-ctx.Done()
				if overrun.Swap(false) {
					time.Sleep(10 * w.timeout())
				} else {
					time.Sleep(w.timeout() / 2)
				}
				j.add("a has run")
				return nil
			})
		}()
		<-leads
		require.NoError(t, a.node.link.expire())
		time.Sleep(2 * w.timeout())
		require.ErrorIs(t, a.Healthy(time.Hour), election.ErrCallbackRunning, "while it overruns")
		<-leads
		require.NoError(t, a.Healthy(w.timeout()), "after it has returned")
		b.vote()
		ctx, cancel := context.WithCancel(w.context())
		defer cancel()
		go func() { _ = a.Resign(ctx) }()
		w.await(j, "b won")
		require.Equal(t, 2, j.count("a has run"), "leadership passed on before the function returned: %q", j.all())
	})
}

// A withdrawal that is refused is not asked for without end.
func TestRefusedWithdrawal(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		a := w.member("a", &journal{})
		w.member("b", &journal{}).lead()
		a.vote()
		var asked atomic.Int64
		cancel := w.srv.Control(testutil.OpDelete, func(*testutil.Request) testutil.Action {
			asked.Add(1)
			return testutil.Fail(zk.ErrNoAuth)
		})
		require.ErrorIs(t, a.Resign(w.context()), zk.ErrNoAuth, "Resign")
		time.Sleep(10 * w.timeout())
		require.LessOrEqual(t, asked.Load(), int64(15), "requests")
		cancel()
		w.until("the withdrawal", func() bool { return !a.Voted() })
	})
}

// The leader's ballot is deleted, and StepDownTimeout is short: OnStepDown is
// called all the same, and the candidate contends again.
func TestBallotDeletedShortStepDown(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.member("a", j, func(o *election.CandidateOptions) { o.StepDownTimeout = 100 * time.Millisecond }).lead()
		operator := w.client()
		path := a.VotePath()
		release := make(chan struct{})
		held := w.srv.Control(testutil.OpMulti, func(r *testutil.Request) testutil.Action {
			if r.SessionID == a.node.ID() {
				return testutil.HoldReply(release) // nobody tells why
			}
			return testutil.Pass
		})
		require.NoError(t, operator.Delete(path, -1))
		w.await(j, "a stepped down: ballot deleted")
		held()
		close(release)
		w.until("a to win again", func() bool { return j.count("a won") == 2 })
	})
}

// The answer to a handshake that stops halfway does not stop the client.
func TestHandshakeStopsHalfway(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := inProcess(t, nil)
		dial, first := w.dial, true
		w.dial = func(network, address string, timeout time.Duration) (net.Conn, error) {
			conn, err := dial(network, address, timeout)
			if err == nil && first {
				first, conn = false, &halfConn{Conn: conn, left: 24}
			}
			return conn, err
		}
		s, err := election.Connect(w.servers, w.timeout(), &election.SessionOptions{Dialer: w.dial, Logger: w.logger()})
		require.NoError(t, err)
		defer s.Close()
		began := time.Now()
		require.NoError(t, s.AwaitConnected(w.context()))
		require.LessOrEqual(t, time.Since(began), 2*w.timeout(), "it took")
	})
}

// halfConn delivers so many bytes, and then nothing.
type halfConn struct {
	net.Conn
	left int
}

func (c *halfConn) Read(p []byte) (int, error) {
	if c.left == 0 {
		var rest [1]byte
		for {
			if _, err := c.Conn.Read(rest[:]); err != nil {
				return 0, err
			}
		}
	}
	n, err := c.Conn.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

// Close does not wait forever when a connection comes up behind it.
func TestCloseDuringDial(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := inProcess(t, nil)
		gate := make(chan struct{})
		var dials atomic.Int64
		s, err := election.Connect(w.servers, w.timeout(), &election.SessionOptions{
			Logger: w.logger(),
			Dialer: func(network, address string, timeout time.Duration) (net.Conn, error) {
				if dials.Add(1) > 1 {
					<-gate
				}
				return w.dial(network, address, timeout)
			},
		})
		require.NoError(t, err)
		require.NoError(t, s.AwaitConnected(w.context()))
		time.Sleep(2 * time.Second)
		w.srv.DropConnections()
		synctest.Wait()
		var calls sync.WaitGroup
		for range 20 { // more than the client's queue takes
			calls.Go(func() { _, _, _ = s.Conn().Get("/") })
		}
		synctest.Wait()
		closed := make(chan error, 1)
		go func() { closed <- s.Close() }()
		time.Sleep(3500 * time.Millisecond)
		close(gate)
		select {
		case err := <-closed:
			require.NoError(t, err)
		case <-time.After(time.Minute):
			t.Fatal("Close has not returned")
		}
		calls.Wait()
	})
}

// A server grants a resumed session less than the one before it did: the lease
// shrinks with it.
func TestTimeoutShrinks(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := inProcess(t, nil)
		var dials atomic.Int64 // by two clients: the session ends isolated, and its client is replaced
		s, err := election.Connect(w.servers, 20*time.Second, &election.SessionOptions{
			Logger: w.logger(), TickTime: 2 * time.Second,
			Dialer: func(network, address string, timeout time.Duration) (net.Conn, error) {
				conn, err := w.dial(network, address, timeout)
				if n := dials.Add(1); err == nil && n == 2 {
					conn = &shrinkingConn{Conn: conn, timeout: 4 * time.Second}
				}
				return conn, err
			},
		})
		require.NoError(t, err)
		defer s.Close()
		a := w.memberOn(&node{Session: s}, "a", &journal{}).lead()
		b := w.member("b", &journal{}, func(o *election.CandidateOptions) { o.HotStandby = true }).vote()
		time.Sleep(30 * time.Second)
		w.srv.DropConnections()
		w.until("the smaller timeout", func() bool { return s.Timeout() == 4*time.Second })
		defer w.srv.Isolate(s.ID())()
		for range 3000 {
			if a.IsLeader() && b.IsLeader() {
				t.Fatal("two leaders")
			}
			time.Sleep(10 * time.Millisecond)
		}
		require.True(t, b.IsLeader(), "b never led")
	})
}

// shrinkingConn asks for less than its client does, as a server with a smaller
// maximum would answer.
type shrinkingConn struct {
	net.Conn
	timeout time.Duration
	done    bool
}

func (c *shrinkingConn) Write(p []byte) (int, error) {
	if !c.done {
		c.done = true
		p = append([]byte(nil), p...)
		binary.BigEndian.PutUint32(p[16:], uint32(c.timeout.Milliseconds()))
	}
	return c.Conn.Write(p)
}

// Observers and candidates that come and go leave no watch in the client,
// which cannot give one back.
func TestWatchesDoNotPileUp(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		n := w.session()
		cycle := func() {
			o := w.observer(n, &journal{})
			require.NoError(t, o.Observe(w.context()))
			c := w.memberOn(n, "x", &journal{}, followLeader).vote()
			synctest.Wait()
			require.NoError(t, errors.Join(o.Close(), c.Close()))
		}
		for _, leader := range []bool{false, true} {
			if leader {
				w.member("leader", &journal{}).lead()
			}
			cycle()
			before := clientWatches(n.Conn())
			for range 50 {
				cycle()
			}
			require.LessOrEqual(t, clientWatches(n.Conn()), before, "watches with a leader %v", leader)
		}
	})
}

// clientWatches counts the channels that the client keeps, which it tells nobody.
func clientWatches(conn *zk.Conn) (n int) {
	v := reflect.ValueOf(conn).Elem()
	mu := (*sync.Mutex)(unsafe.Pointer(v.FieldByName("watchersLock").UnsafeAddr()))
	mu.Lock()
	defer mu.Unlock()
	watchers := v.FieldByName("watchers")
	for _, key := range watchers.MapKeys() {
		n += watchers.MapIndex(key).Len()
	}
	return n
}

// After Close no callback runs, OnLeaderAck's included; and what a win owes its
// OnStepDown is called, however late OnWin returns.
func TestCloseAndCallbacks(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.member("a", j)
		inside := make(chan struct{})
		release := make(chan struct{})
		a.OnLeaderAck(func(election.Leader) { close(inside); <-release; j.add("acked") })
		a.lead()
		<-inside
		require.ErrorIs(t, a.Close(), election.ErrCallbackRunning, "Close while a callback runs")
		close(release)
		w.await(j, "acked")
		w.await(j, "a stepped down: closed")

		b := w.member("b", j)
		slow := make(chan struct{})
		winning := make(chan struct{})
		b.OnWin(func(context.Context, election.Term) error { close(winning); <-slow; return nil })
		b.vote()
		<-winning
		require.ErrorIs(t, b.Close(), election.ErrCallbackRunning, "Close while OnWin runs")
		close(slow)
		w.await(j, "b stepped down: closed")
	})
}

// What keeps a candidate from standing is told as long as it does, and not until there is a ballot again.
func TestStandsOnceItsCallbackHasReturned(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		a := w.member("a", &journal{})
		release := a.hangs()
		a.lead()
		a.link().setDown(true)
		w.until("the callback to be late", func() bool { return errors.Is(a.Status().Absence, election.ErrCallbackRunning) })
		assert.False(t, a.Status().Standing)
		release()
		w.heard()
		assert.NoError(t, a.Status().Absence)
		assert.True(t, a.Status().Standing)
		a.link().setDown(false)
		w.until("a to lead", a.IsLeader)
	})
}

// And what kept it from standing before that still does.
func TestFailedTakeoverOutlastsItsCallback(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		a := w.member("a", &journal{}, func(o *election.CandidateOptions) { o.Retry = time.Hour })
		a.OnWin(func(context.Context, election.Term) error { return errors.New("cannot") })
		release := a.hangs()
		a.vote()
		w.until("the callback to be late", func() bool { return errors.Is(a.Status().Absence, election.ErrCallbackRunning) })
		release()
		w.heard()
		s := a.Status()
		assert.ErrorIs(t, s.Absence, election.ErrTakeoverFailed)
		assert.False(t, s.Standing)
		assert.NotZero(t, s.RetryAt)
	})
}

// A slow OnLose gives the next in line its turn, and the candidate comes back
// by itself.
func TestSlowOnLose(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		a, b := w.member("a", j).lead(), w.member("b", j)
		losing := make(chan struct{}, 8)
		b.OnLose(func(context.Context, election.Leader) { losing <- struct{}{}; time.Sleep(10 * w.timeout()) })
		b.vote()
		<-losing
		c := w.member("c", j).vote()
		w.await(j, "c lost to a")
		a.resign()
		w.await(j, "c won")
		require.False(t, j.has("b won"), "journal %q", j.all())
		require.False(t, b.IsLeader(), "journal %q", j.all())
		w.until("b to stand again", b.Voted)
		c.resign()
		w.await(j, "b won")
	})
}

// A Vote outlasts a Campaign whose context ends.
func TestVoteOutlastsCampaign(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		w.member("a", &journal{}).lead()
		for _, voted := range []bool{false, true} {
			b := w.member("b", &journal{})
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			done := make(chan error, 1)
			go func() { done <- second(b.Campaign(ctx)) }()
			w.until("the ballot", b.Voted)
			if voted {
				b.vote()
			}
			require.ErrorIs(t, <-done, context.DeadlineExceeded)
			cancel()
			time.Sleep(10 * time.Second)
			require.Equal(t, voted, b.Voted(), "a ballot stands for whom has voted")
		}
	})
}

// Of two Campaigns the one that voted ends first: the vote is the other's then,
// and ends with it.
func TestCampaignInheritsTheVote(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		w.member("a", &journal{}).lead()
		b := w.member("b", &journal{})
		done := make(chan error, 2)
		campaign := func() (giveUp func()) {
			ctx, cancel := context.WithCancel(context.Background())
			go func() { done <- second(b.Campaign(ctx)) }()
			synctest.Wait()
			return func() {
				cancel()
				assert.ErrorIs(t, <-done, context.Canceled)
				time.Sleep(time.Second)
			}
		}
		giveUpFirst := campaign()
		giveUpSecond := campaign()
		w.until("the ballot", b.Voted)
		giveUpFirst()
		assert.True(t, b.Voted(), "the ballot is gone, and a Campaign goes on")
		giveUpSecond()
		assert.False(t, b.Voted(), "the ballot stands for nobody")
	})
}

// Lookups while the session closes end, and harm nothing.
func TestLookupsDuringClose(t *testing.T) {
	for range 20 {
		virtually(t, func(t *testing.T, w *world) {
			n := w.session()
			a := w.memberOn(n, "a", &journal{})
			stop := make(chan struct{})
			var lookups sync.WaitGroup
			for range 4 {
				lookups.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
							_, _ = a.Leader(context.Background())
							_, _ = a.Ballots(context.Background())
						}
					}
				})
			}
			assert.NoError(t, n.Close())
			close(stop)
			lookups.Wait()
			assert.ErrorIs(t, second(a.Leader(context.Background())), election.ErrClosed, "after Close")
		})
	}
}

// The scheme auth on a connection whose credentials only its owner knows.
func TestAuthACLOnCallersConnection(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		conn := w.client()
		require.NoError(t, conn.AddAuth("digest", []byte("user:password")))
		s, err := election.NewSession(conn, w.timeout(), nil)
		require.NoError(t, err)
		defer s.Close()
		a := w.memberOn(&node{Session: s}, "a", &journal{}, func(o *election.CandidateOptions) { o.ACL = zk.AuthACL(zk.PermAll) })
		for range 2 {
			a.lead()
			a.resign()
		}
	})
}

// A withdrawal whose reply was lost does not take along what another candidate
// on the same session has acknowledged since.
func TestSiblingsAcknowledgement(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		oj := &journal{}
		n := w.session()
		a, b := w.memberOn(n, "a", &journal{}), w.memberOn(n, "b", &journal{})
		require.NoError(t, w.observer(w.session(), oj).Observe(w.context()))
		a.lead()
		b.vote()
		synctest.Wait()
		var tries atomic.Int64
		w.srv.Control(testutil.OpMulti, func(r *testutil.Request) testutil.Action {
			if len(r.Ops) != 2 || r.Ops[1].Op != testutil.OpDelete {
				return testutil.Pass
			}
			switch tries := tries.Add(1); {
			case tries == 1:
				return testutil.LoseReply
			case tries < 9:
				return testutil.Fail(testutil.ErrorCode(-127))
			default:
				return testutil.Pass
			}
		})
		a.resign()
		time.Sleep(5 * w.timeout())
		events := oj.all()
		if n := oj.count("new leader b"); n != 1 || oj.has("dead leader b") {
			t.Fatalf("the observer was told %q", events)
		}
	})
}

// A candidate without OnWin functions wins, too, and its OnStepDown is called.
func TestStepDownWithoutOnWin(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		c, err := election.NewCandidate(w.session().Session, w.name(), nil)
		require.NoError(t, err)
		downs := make(chan election.Term, 2)
		c.OnStepDown(func(_ context.Context, term election.Term, _ error) { downs <- term })
		term, err := c.Campaign(w.context())
		require.NoError(t, err)
		require.NoError(t, c.Resign(w.context()))
		require.Equal(t, term, <-downs)
	})
}

// Where no server is reached, the log and the errors say why.
func TestUnreachableServer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		refused := errors.New("connection refused by the test")
		var log logBuffer
		s, err := election.Connect([]string{"nowhere"}, 4*time.Second, &election.SessionOptions{
			Logger: slog.New(slog.NewTextHandler(&log, nil)),
			Dialer: func(string, string, time.Duration) (net.Conn, error) { return nil, refused },
		})
		require.NoError(t, err)
		defer s.Close()
		c, err := election.NewCandidate(s, "x", nil)
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		for _, err := range []error{s.AwaitConnected(ctx), c.Vote(ctx), second(c.Leader(ctx))} {
			if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, refused) || !strings.Contains(err.Error(), "nowhere") {
				t.Errorf("%v", err)
			}
		}
		if n := strings.Count(log.String(), "no server reached"); n != 3 || !strings.Contains(log.String(), refused.Error()) { // after T, 2 T and 4 T
			t.Errorf("said %d times:\n%s", n, log.String())
		}
		for _, servers := range [][]string{{""}, {"a:1", ""}} {
			assert.Error(t, second(election.Connect(servers, time.Second, nil)), "servers %q were taken", servers)
		}
	})
}

// The reply to the acknowledgement is lost, the leader resigns before it has
// another connection, and gets one to a server that lags and does not show what
// it has acknowledged: that goes with its ballot.
func TestResignAmidLag(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := inProcess(t, &testutil.ServerOptions{Members: 3})
		w.servers = w.srv.Servers()
		leader := w.srv.Leader()
		var lost, lags, resigns atomic.Bool
		direct := w.dial
		w.dial = func(network, address string, timeout time.Duration) (net.Conn, error) {
			if toLeader := address == w.servers[leader]; lost.Load() && (toLeader || !resigns.Load()) || !lost.Load() && !toLeader {
				return nil, errors.New("the leading member can be reached before the fault, others after the resignation")
			}
			return direct(network, address, timeout)
		}
		a := w.member("a", &journal{})
		defer w.srv.Control(testutil.OpMulti, func(r *testutil.Request) testutil.Action {
			if len(r.Ops) == 1 && lags.Load() {
				return testutil.Fail(testutil.ErrorCode(-127)) // a heartbeat, a write that what follows would wait for
			}
			if len(r.Ops) != 3 || r.Ops[1].Op != testutil.OpCreate || lost.Swap(true) {
				return testutil.Pass
			}
			lags.Store(true)
			for i := range w.servers {
				if i != leader {
					w.srv.Member(i).Lag()
				}
			}
			return testutil.LoseReply
		})()
		time.Sleep(w.timeout()) // or the client would pause, and not fail what is asked, before it connects again
		a.vote()
		w.until("the acknowledgement's reply to be lost", lost.Load)
		time.Sleep(w.timeout() / 8)
		resigned := make(chan error, 1)
		go func() { resigned <- a.Resign(w.context()) }()
		synctest.Wait()
		resigns.Store(true)
		time.Sleep(w.timeout() / 2)
		lags.Store(false)
		for i := range w.servers {
			if i != leader {
				w.srv.Member(i).CatchUp()
			}
		}
		require.NoError(t, <-resigned)
		lost.Store(false)
		assert.Empty(t, w.children(w.client(), a.RootVotePath()), "after the resignation")
	})
}

// A member that leads no more, and has not noticed it, answers reads by what it has, and ZooKeeper's sync as well.
func TestLeaderSyncNeedsAQuorum(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := inProcess(t, &testutil.ServerOptions{Members: 3})
		w.servers = w.srv.Servers()
		leader := w.srv.Leader()
		s := w.session(func(o *election.SessionOptions) {
			o.Dialer = func(network, address string, timeout time.Duration) (net.Conn, error) {
				if address != w.servers[leader] {
					return nil, errors.New("only the leading member can be reached")
				}
				return w.dial(network, address, timeout)
			}
		})
		require.NoError(t, s.AwaitConnected(w.context()))
		o := w.observer(s, &journal{})
		require.ErrorIs(t, second(o.LeaderSync(w.context())), election.ErrNoLeader)
		w.srv.Member(leader).CutOff()
		ctx, cancel := context.WithTimeout(context.Background(), w.timeout()/8)
		defer cancel()
		require.ErrorIs(t, second(o.Leader(ctx)), election.ErrNoLeader, "the control: it answers reads")
		require.ErrorIs(t, second(o.LeaderSync(ctx)), context.DeadlineExceeded)
		w.srv.Member(leader).Heal()
		require.ErrorIs(t, second(o.LeaderSync(w.context())), election.ErrNoLeader)
	})
}

// A hot standby hears that its predecessor has gone and that only the leader is in front, and its connection
// moves to a server that lags before anything else has been answered. The list of a periodic recheck is from
// before then: it shows the predecessor that is known to be gone, and the leader as well, which is not.
func TestOldListAmidLag(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := inProcess(t, &testutil.ServerOptions{Members: 3})
		w.servers = w.srv.Servers()
		leader := w.srv.Leader()
		first, lagging := (leader+1)%3, (leader+2)%3
		var moves, throttles atomic.Bool
		var lists atomic.Int64
		hot := w.session(func(o *election.SessionOptions) {
			o.Dialer = func(network, address string, timeout time.Duration) (net.Conn, error) {
				if moves.Load() != (address == w.servers[lagging]) || !moves.Load() && address != w.servers[first] {
					return nil, errors.New("first the one member can be reached, then the one that lags")
				}
				return w.dial(network, address, timeout)
			}
		})
		id := hot.ID()
		defer w.srv.Control(testutil.AnyOp, func(r *testutil.Request) testutil.Action {
			switch {
			case r.SessionID != id || !moves.Load():
			case r.Member == first:
				return testutil.LoseRequest
			case r.Op == testutil.OpMulti && throttles.Load():
				return testutil.Fail(testutil.ErrorCode(-127)) // a heartbeat, which what follows would wait for
			case r.Op == testutil.OpGetChildren2 && throttles.Load():
				lists.Add(1)
			}
			return testutil.Pass
		})()
		j := &journal{}
		a := w.member("a", j).lead()
		b := w.member("b", j).vote()
		c := w.memberOn(hot, "c", j, func(o *election.CandidateOptions) { o.HotStandby = true }).vote()
		w.await(j, "c lost to a")
		time.Sleep(100 * time.Millisecond) // both in front are watched

		w.srv.Member(lagging).Lag()
		moves.Store(true)
		throttles.Store(true)
		b.resign()
		w.until("a list from the server that lags", func() bool { return lists.Load() > 0 })
		time.Sleep(w.timeout() / 8)
		throttles.Store(false)
		w.srv.Member(lagging).CatchUp()
		time.Sleep(2 * w.timeout())
		require.True(t, a.IsLeader())
		require.False(t, c.IsLeader(), "two leaders")
		require.False(t, j.has("c won"))
		a.resign()
		w.await(j, "c won")
	})
}
