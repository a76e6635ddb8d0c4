package election_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election"
	"github.com/zkelection/election/testutil"
)

// What went wrong in the libraries that came before. docs/testing.md lists
// which test stands for which lesson.

func TestOperatorDeletesLeadersBallot(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		a, b := w.member("a", j).lead(), w.member("b", j)
		b.vote()
		w.await(j, "b lost to a")
		operator := w.client()
		began := time.Now()
		require.NoError(t, operator.Delete(a.VotePath(), -1))
		w.await(j, "a stepped down: ballot deleted")
		if took := time.Since(began); w.virtual() && took > w.timeout()/8 {
			t.Errorf("stepped down %v after the deletion: it was not the watch that told", took)
		}
		w.await(j, "b won")
		w.await(j, "a lost to b") // it contends again, at the end of the line
		w.until("b's acknowledgement to stand", func() bool {
			data, err := b.LeaderData(w.context())
			return err == nil && string(data) == "b"
		})
		require.False(t, a.IsLeader(), "the wrong one leads")
		require.True(t, b.IsLeader(), "the wrong one leads")
	})
}

// So it is while OnWin runs, when the watch has been lost: the periodic recheck tells, also one
// that comes to nothing at first.
func TestOperatorDeletesBallotDuringOnWin(t *testing.T) {
	for name, fault := range recheckFaults {
		t.Run(name, func(t *testing.T) {
			virtually(t, func(t *testing.T, w *world) {
				j := &journal{}
				a := w.member("a", j)
				a.OnWin(func(ctx context.Context, _ election.Term) error {
					<-ctx.Done()
					return context.Cause(ctx)
				})
				a.vote()
				w.until("a to take over", a.IsLeader)
				w.member("b", j).vote()
				path := a.VotePath()
				defer a.deafAfterReconnection()()
				w.srv.DropConnections()
				time.Sleep(2 * w.timeout())
				require.True(t, a.IsLeader())
				require.NoError(t, w.client().Delete(path, -1))
				met, cancel := a.firstRequestFor(path, fault)
				defer cancel()
				w.await(j, "a stepped down: ballot deleted")
				<-met // or what has told was not the recheck
				w.await(j, "b won")
				w.await(j, "a lost to b") // which votes again
			})
		})
	}
}

// Nor does it go unseen where the acknowledgement, which is looked at behind the ballot, may not be read any more.
func TestOperatorDeletesBallotBesideAnUnreadableAcknowledgement(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.member("a", j).lead() // with nobody behind it, who would replace the acknowledgement
		path, id := a.VotePath(), a.node.ID()
		defer a.deafAfterReconnection()()
		defer w.srv.Control(testutil.AnyOp, func(r *testutil.Request) testutil.Action {
			if r.SessionID == id && r.Path == a.LeaderAckPath() && opIs(testutil.OpExists, testutil.OpGetData)(r) {
				return testutil.Fail(zk.ErrNoAuth)
			}
			return testutil.Pass
		})()
		w.srv.DropConnections()
		time.Sleep(2 * w.timeout())
		require.True(t, a.IsLeader())
		require.NoError(t, w.client().Delete(path, -1))
		w.await(j, "a stepped down: ballot deleted")
	})
}

func TestOperatorDeletesWaitingBallot(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		w.member("a", j).lead()
		b := w.member("b", j).vote()
		w.member("c", j).vote()
		w.await(j, "b lost to a") // what has not been told when the ballot goes is told once only
		w.await(j, "c lost to a")
		before := b.VotePath()
		require.NoError(t, w.client().Delete(before, -1))
		w.until("b to vote again", func() bool { return b.Voted() && b.VotePath() != before })
		w.until("b to lose again", func() bool { return j.count("b lost to a") == 2 })
		w.until("c to be told of its new predecessor", func() bool { return j.count("c lost to a") == 2 })
	})
}

func TestEveryWinHasOneStepDown(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		for _, leave := range []struct {
			how  string
			do   func(m *member) error
			want string
		}{
			{"resign", func(m *member) error { return m.Resign(w.context()) }, "resigned"},
			{"close", func(m *member) error { return m.Close() }, "closed"},
			{"close session", func(m *member) error { return m.node.Close() }, "closed"},
			{"expire", func(m *member) error { return m.node.link.expire() }, "session lost"},
		} {
			j := &journal{}
			m := w.member("a", j)
			m.vote()
			w.await(j, "a won")
			require.NoError(t, leave.do(m), leave.how)
			w.await(j, "a stepped down: "+leave.want)
			require.NoError(t, m.Close(), leave.how)
			wins, downs := 0, 0
			for _, event := range j.all() {
				if strings.HasSuffix(event, "won") {
					wins++
				} else {
					downs++
				}
				require.GreaterOrEqual(t, wins-downs, 0, "%s: %q", leave.how, j.all())
				require.LessOrEqual(t, wins-downs, 1, "%s: %q", leave.how, j.all())
			}
			require.Equal(t, downs, wins, "%s: %q", leave.how, j.all())
		}
	})
}

func TestPassesOnAfterTheWork(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		a, b := w.member("a", j).lead(), w.member("b", j)
		b.vote()
		w.await(j, "b lost to a")
		release := make(chan struct{})
		a.OnStepDown(func(context.Context, election.Term, error) { <-release; j.add("a is done") })
		resigned := make(chan error, 1)
		go func() { resigned <- a.Resign(w.context()) }()
		w.await(j, "a stepped down: resigned")
		w.settle()
		require.False(t, b.IsLeader(), "leadership passed on while the leader's work went on")
		require.True(t, a.Voted(), "leadership passed on while the leader's work went on")
		require.False(t, a.IsLeader(), "leadership passed on while the leader's work went on")
		close(release)
		require.NoError(t, <-resigned)
		w.await(j, "b won")
		w.same("journal", j.all(), []string{"a won", "b lost to a", "a stepped down: resigned", "a is done", "b won"})
		// The same with the function given to Run.
		b.resign()
		ctx, cancel := context.WithCancel(w.context())
		leads := make(chan struct{})
		done := make(chan error, 1)
		go func() {
			done <- a.Run(ctx, func(ctx context.Context, _ election.Term) error {
				close(leads)
				<-ctx.Done()
				time.Sleep(50 * time.Millisecond)
				j.add("a has run")
				return nil
			})
		}()
		<-leads
		b.vote()
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
		w.until("b to win", func() bool { return j.count("b won") == 2 })
		events := j.all()
		require.Equal(t, "b won", events[len(events)-1], "journal %q", events)
		require.True(t, j.has("a has run"), "journal %q", events)
	})
}

func TestContextEndsBeforeAnyRequest(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.member("a", j)
		leader := make(chan context.Context, 1)
		a.OnWin(func(ctx context.Context, _ election.Term) error { leader <- ctx; return nil })
		a.lead()
		ctx := <-leader
		a.node.link.setDown(true) // no request can be made
		short, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		defer cancel()
		_ = a.Resign(short)
		require.Error(t, ctx.Err(), "after Resign: %v, leads %v", context.Cause(ctx), a.IsLeader())
		require.ErrorIs(t, context.Cause(ctx), election.ErrResigned, "after Resign: %v, leads %v", context.Cause(ctx), a.IsLeader())
		require.False(t, a.IsLeader(), "after Resign: %v, leads %v", context.Cause(ctx), a.IsLeader())
	})
}

func TestElectionNodeDeleted(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.member("a", j).lead()
		conn := w.client()
		for _, name := range w.children(conn, a.RootVotePath()) {
			// The candidate takes its acknowledgement back when its ballot goes.
			if err := conn.Delete(a.RootVotePath()+"/"+name, -1); err != nil && !errors.Is(err, zk.ErrNoNode) {
				t.Fatal(err)
			}
		}
		// Between its ballots the candidate may be quicker than we are.
		for {
			err := conn.Delete(a.RootVotePath(), -1)
			if err == nil {
				break
			}
			require.ErrorIs(t, err, zk.ErrNotEmpty)
			for _, name := range w.children(conn, a.RootVotePath()) {
				_ = conn.Delete(a.RootVotePath()+"/"+name, -1)
			}
		}
		w.until("the election to be back", func() bool {
			data, err := a.LeaderData(w.context())
			return err == nil && string(data) == "a" && a.IsLeader()
		})
		w.member("b", j).vote()
		w.await(j, "b lost to a")
	})
}

func TestCloseRacesWithVote(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		conn := w.client()
		for i := range 20 {
			a := w.member("a", &journal{})
			root := a.RootVotePath()
			if i%4 == 1 {
				a.node.link.next(loseReply, isBallot)
			}
			if i%4 == 2 {
				a.node.link.next(loseRequest, isBallot)
			}
			voted := make(chan error, 1)
			go func() { voted <- a.Vote(w.context()) }()
			if i%2 == 0 {
				w.until("the vote to be under way", func() bool { return a.node.link.count(isBallot) > 0 })
			}
			require.NoError(t, a.Close())
			if err := <-voted; err != nil && !errors.Is(err, election.ErrClosed) {
				t.Fatal(err)
			}
			require.Empty(t, w.children(conn, root), "round %d left", i)
		}
	})
}

func TestGuardAndTokenFence(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		a, b := w.member("a", &journal{}).lead(), w.member("b", &journal{})
		b.vote()
		conn := w.client()
		store := "/store" + w.name()
		require.NoError(t, second(conn.Create(store, nil, 0, zk.WorldACL(zk.PermAll))))
		write := func(term election.Term) error {
			_, err := conn.Multi(term.Guard(), &zk.SetDataRequest{Path: store, Data: []byte(term.Ballot), Version: -1})
			return err
		}
		first, ok := a.Term()
		require.True(t, ok, "no term")
		require.NoError(t, write(first))
		a.resign()
		next := b.lead()
		second, _ := next.Term()
		require.ErrorIs(t, write(first), zk.ErrNoNode, "a leader of the past could write")
		require.NoError(t, write(second))
		require.Greater(t, second.Token, first.Token, "tokens")
		if _, ok := a.Term(); ok || !a.LeaseUntil().IsZero() {
			t.Fatal("the old leader has a term")
		}
	})
}

func TestWedgedLeader(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		wedge := make(chan struct{})
		a := w.member("a", j, func(o *election.CandidateOptions) { o.StepDownTimeout = 300 * time.Millisecond })
		b := w.member("b", j)
		a.OnStepDown(func(context.Context, election.Term, error) { <-wedge })
		a.lead()
		b.vote()
		require.NoError(t, a.Healthy(time.Minute), "a healthy leader")
		time.Sleep(time.Millisecond)
		require.Error(t, a.Healthy(0), "no lease is renewed within no time")
		a.resign() // returns once the ballot is gone
		w.await(j, "b won")
		require.ErrorIs(t, a.Healthy(time.Minute), election.ErrCallbackRunning, "a wedged candidate")
		require.ErrorIs(t, a.Vote(w.context()), election.ErrCallbackRunning, "Vote while wedged")
		require.False(t, a.Voted(), "a wedged candidate holds a ballot")
		close(wedge)
		w.await(j, "a lost to b") // the vote is cast once it is free
		require.NoError(t, a.Healthy(time.Minute), "free again")
	})
}

func TestTakeoverTimeout(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.member("a", j, func(o *election.CandidateOptions) { o.TakeoverTimeout = time.Second })
		b := w.member("b", j)
		a.OnWin(func(ctx context.Context, _ election.Term) error {
			<-ctx.Done()
			j.add("a: context ended")
			return ctx.Err()
		})
		a.vote()
		w.await(j, "a won")
		b.vote()
		w.await(j, "b won")
		w.settle()
		w.same("journal", j.all(), []string{"a won", "a: context ended", "a failed to take over", "a stepped down: takeover failed", "b won"})
		require.False(t, a.Voted(), "it did not stay out")
	})
}

func TestShortDisconnectionCostsNothing(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		a, b := w.member("a", j).lead(), w.member("b", j)
		b.vote()
		w.await(j, "b lost to a")
		reconnected := func(m *member) {
			w.until("the connection to be back", func() bool { return m.node.State() == zk.StateHasSession })
		}
		for range 3 {
			time.Sleep(1500 * time.Millisecond) // the client does not hurry after a connection that was short
			a.node.link.cut()
			b.node.link.cut()
			w.until("the connection to break", func() bool { return a.node.State() != zk.StateHasSession || a.IsLeader() })
			reconnected(a)
			reconnected(b)
			require.True(t, a.IsLeader(), "a short disconnection cost the leadership")
		}
		w.settle()
		w.same("journal", j.all(), []string{"a won", "b lost to a"})
	})
}

func TestTwoCandidatesOnOneSession(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		n := w.session()
		a, b := w.memberOn(n, "a", j), w.memberOn(n, "b", j, followLeader)
		for range 3 {
			a.lead()
			b.vote()
			w.until("b to lose", func() bool { return !b.IsLeader() && strings.HasPrefix(last(j), "b lost") })
			a.resign()
			w.until("b's acknowledgement", func() bool { data, err := a.LeaderData(w.context()); return err == nil && string(data) == "b" })
			require.False(t, a.IsLeader(), "the wrong one leads")
			require.True(t, b.IsLeader(), "the wrong one leads")
			a.vote()
			w.until("a to lose", func() bool { return strings.HasPrefix(last(j), "a lost") })
			b.resign()
			w.until("a's acknowledgement", func() bool { data, err := a.LeaderData(w.context()); return err == nil && string(data) == "a" })
			a.resign()
			require.Empty(t, w.children(n.Conn(), a.RootVotePath()), "left behind")
		}
	})
}

func last(j *journal) string {
	events := j.all()
	if len(events) == 0 {
		return ""
	}
	return events[len(events)-1]
}

// A Session on a connection that somebody else owns.
func TestCandidateOnCallersConnection(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		conn, events, l := w.clientOn()
		defer func() {
			conn.Close()
			for range events {
			}
		}()
		s, err := election.NewSession(conn, w.timeout(), nil)
		require.NoError(t, err)
		require.NoError(t, s.AwaitConnected(w.context()))
		j := &journal{}
		a, b := w.memberOn(&node{Session: s, link: l}, "a", j), w.member("b", j)
		a.lead()
		b.vote()
		w.await(j, "b lost to a")
		time.Sleep(2 * w.timeout())
		require.True(t, a.IsLeader(), "the lease was not kept: %q", j.all())
		require.False(t, j.has("b won"), "the lease was not kept: %q", j.all())
		require.NoError(t, l.expire())
		w.await(j, "b won")
		w.await(j, "a lost to b")
		require.Equal(t, 1, j.count("a stepped down: session lost")+j.count("a stepped down: lease lapsed"), "journal %q", j.all())
		require.NoError(t, s.Close())
		require.Equal(t, zk.StateHasSession, conn.State(), "a caller's connection was closed")
		require.Len(t, ballotNames(w.children(conn, a.RootVotePath())), 1, "ballots")
	})
}

// --- with the in-process server's own faults

// An isolated leader is the leader no more, by its own clock, before its
// session ends; then the other one leads.
func TestIsolatedLeader(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		a, b := w.member("a", j).lead(), w.member("b", j)
		b.vote()
		w.await(j, "b lost to a")
		heal := w.srv.Isolate(a.node.ID())
		for !b.IsLeader() {
			if a.IsLeader() && b.IsLeader() {
				t.Fatal("two leaders")
			}
			time.Sleep(time.Millisecond)
		}
		require.False(t, a.IsLeader(), "two leaders")
		w.await(j, "a stepped down: lease lapsed")
		heal()
		w.await(j, "a lost to b")
	})
}

// A lapse without the end of the session: the candidate wins again, with the
// same token, and observers see one leader throughout.
func TestLapseAndReturn(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j, oj := &journal{}, &journal{}
		a := w.member("a", j).lead()
		o := w.observer(w.session(), oj)
		require.NoError(t, o.Observe(w.context()))
		first, _ := a.Term()
		time.Sleep(10 * w.timeout())
		// Heartbeats get no answer for a while; pings do.
		release := make(chan struct{})
		held := w.srv.Control(testutil.OpMulti, func(r *testutil.Request) testutil.Action {
			if r.SessionID == a.node.ID() {
				return testutil.HoldReply(release)
			}
			return testutil.Pass
		})
		w.await(j, "a stepped down: lease lapsed")
		held()
		close(release)
		w.until("a to win again", func() bool { return j.count("a won") == 2 && a.IsLeader() })
		second, _ := a.Term()
		require.Equal(t, first.Token, second.Token, "token %d, then %d with nobody in between", first.Token, second.Token)
		w.settle()
		w.same("observer", oj.all(), []string{"new leader a"})
	})
}

// A lapse, and before the lease returns the ballot is deleted by hand: what it
// had acknowledged goes, too, or others would be told of a leader that resigned.
func TestBallotDeletedAfterLapse(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.member("a", j).lead()
		time.Sleep(w.timeout())
		// Multis are throttled, heartbeats among them; all else is answered.
		free := w.srv.Control(testutil.OpMulti, func(r *testutil.Request) testutil.Action {
			if r.SessionID == a.node.ID() {
				return testutil.Fail(testutil.ErrorCode(-127))
			}
			return testutil.Pass
		})
		w.await(j, "a stepped down: lease lapsed")
		conn := w.client()
		require.Len(t, w.children(conn, a.RootVotePath()), 2, "after the lapse")
		require.NoError(t, conn.Delete(a.VotePath(), -1))
		w.settle()
		resigned := make(chan error, 1)
		go func() { resigned <- a.Resign(w.context()) }()
		w.settle()
		free()
		require.NoError(t, <-resigned)
		require.Empty(t, w.children(conn, a.RootVotePath()), "nobody stands")
	})
}

// HotStandby: the candidate next in line leads at once.
func TestHotStandby(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.member("a", j).lead()
		b := w.member("b", j, func(o *election.CandidateOptions) { o.HotStandby = true }).vote()
		time.Sleep(10*w.timeout() + w.timeout()/16) // between two heartbeats
		beats := b.node.link.count(func(r request) bool { return r.op == opMulti })
		require.GreaterOrEqual(t, beats, 8*9, "%d heartbeats in ten session timeouts", beats)
		require.LessOrEqual(t, beats, 8*11, "%d heartbeats in ten session timeouts", beats)
		require.False(t, b.IsLeader(), "a standby is no leader")
		require.True(t, b.LeaseUntil().IsZero(), "a standby is no leader")
		won := make(chan int, 1)
		b.OnWin(func(context.Context, election.Term) error {
			won <- b.node.link.count(func(r request) bool { return r.op != opPing })
			return nil
		})
		before := b.node.link.count(func(r request) bool { return r.op != opPing })
		a.resign()
		if after := <-won; after != before {
			t.Fatalf("%d requests between the watch and OnWin: %+v", after-before, b.node.link.requests[len(b.node.link.requests)-3:])
		}
	})
}

func TestMetricsAndLogs(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		m := &metrics{journal: &journal{}}
		var lines logBuffer
		logger := slog.New(slog.NewTextHandler(&lines, nil))
		n := w.session(func(o *election.SessionOptions) { o.Metrics = m.hooks() })
		a := w.memberOn(n, "a", &journal{}, func(o *election.CandidateOptions) { o.Logger = logger })
		a.lead()
		time.Sleep(w.timeout())
		require.GreaterOrEqual(t, m.renewals.Load(), int64(7), "%d renewals, the last with %v left", m.renewals.Load(), time.Duration(m.margin.Load()))
		require.GreaterOrEqual(t, time.Duration(m.margin.Load()), w.timeout()/6, "%d renewals, the last with %v left", m.renewals.Load(), time.Duration(m.margin.Load()))
		require.NoError(t, n.link.expire())
		w.until("the session to be lost", func() bool { return m.has("session lost") })
		w.until("a to lead again", func() bool { return a.IsLeader() && !a.Status().AcknowledgedAt.IsZero() })
		a.resign()
		// The session tells of its end, and the candidate of its own, on a goroutine each.
		ofSession := func(line string) bool { return line == "session lost" }
		assert.True(t, slices.ContainsFunc(m.all(), ofSession))
		w.same("metrics", slices.DeleteFunc(m.all(), ofSession), []string{
			"standing true", "leading true", "taking over: true", "taken over", "taking over: false",
			"leading false", "stepped down: session lost",
			"leading true", "taking over: true", "taken over", "taking over: false",
			"standing false", "leading false", "stepped down: resigned",
		})
		for _, want := range []string{"election: voted", "election: won", "election: leading", "election: stepping down", "ballot withdrawn", "election=" + w.name()} {
			assert.Contains(t, lines.String(), want, "the log")
		}
	})
}

type metrics struct {
	*journal
	renewals, margin atomic.Int64
}

func (m *metrics) hooks() *election.Metrics {
	return &election.Metrics{
		Standing:    func(_ string, stands bool) { m.add("standing %v", stands) },
		Leading:     func(_ string, leads bool) { m.add("leading %v", leads) },
		TakingOver:  func(_ string, since time.Time) { m.add("taking over: %v", !since.IsZero()) },
		TakenOver:   func(string, time.Duration) { m.add("taken over") },
		SteppedDown: func(_ string, cause error) { m.add("stepped down: %s", causeName(cause)) },
		Lost:        func(string) { m.add("lost") },
		SessionLost: func() { m.add("session lost") },
		LeaseRenewed: func(margin time.Duration) {
			m.renewals.Add(1)
			m.margin.Store(int64(margin))
		},
	}
}

// A lease that nobody needed for a while is renewed, not begun: whoever has
// waited for it claims at once all the same.
func TestClaimUnderRenewedLease(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		a := w.member("a", &journal{}).lead()
		for idle := w.timeout() / 16; idle < 2*w.timeout(); idle += w.timeout() / 16 {
			a.resign()
			time.Sleep(idle)
			began := time.Now()
			a.lead()
			if took := time.Since(began); took > w.timeout()/8 {
				t.Fatalf("after %v without a need for the lease it took %v to lead", idle, took)
			}
		}
	})
}
