package election_test

import (
	"context"
	"errors"
	"fmt"
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
	"github.com/zkelection/election/testutil"
)

// Nobody holds up the line: who is first in it and cannot lead makes way.

// slow delays every answer to a session.
func (w *world) slow(n *node, delay time.Duration) (cancel func()) {
	id := n.ID()
	return w.srv.Control(testutil.AnyOp, func(r *testutil.Request) testutil.Action {
		if r.SessionID == id {
			return testutil.DelayReply(delay)
		}
		return testutil.Pass
	})
}

// starve keeps a session from getting a lease: heartbeats get no answer that
// counts.
func (w *world) starve(n *node) (cancel func()) {
	id := n.ID()
	return w.srv.Control(testutil.OpMulti, func(r *testutil.Request) testutil.Action {
		if r.SessionID == id && len(r.Ops) == 1 && r.Ops[0].Op == testutil.OpCheck {
			return testutil.Fail(testutil.ErrorCode(-127)) // throttled
		}
		return testutil.Pass
	})
}

// led returns the share of a time in which one of the members leads.
func led(period time.Duration, members ...*member) float64 {
	const samples = 20_000
	n := 0
	for range samples {
		time.Sleep(period / samples)
		for _, m := range members {
			if m.IsLeader() {
				n++
				break
			}
		}
	}
	return float64(n) / samples
}

// One client whose answers are slow is first in line, a healthy one behind it.
func TestSlowClientMakesWay(t *testing.T) {
	for _, part := range []time.Duration{4, 8, 12} {
		t.Run(fmt.Sprintf("T/%d", part), func(t *testing.T) {
			virtually(t, func(t *testing.T, w *world) {
				slow := w.member("slow", &journal{})
				defer w.slow(slow.node, w.timeout()/part)()
				slow.vote()
				healthy := w.member("healthy", &journal{}).vote()
				share := led(time.Hour, slow, healthy)
				t.Logf("somebody led %.2f %% of an hour; %d terms of the slow one, %d of the healthy one",
					100*share, slow.journal.count("slow won"), healthy.journal.count("healthy won"))
				assert.GreaterOrEqual(t, share, 0.95)
			})
		})
	}
}

// A process whose TickTime leaves no lease learns it from Vote, and keeps nobody
// from leading.
func TestVoteTellsOfTickTime(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		n := w.session(func(o *election.SessionOptions) { o.TickTime = w.timeout() / 2 })
		n.link.grant(w.timeout() / 8)
		n.link.cut()
		w.until("the shorter timeout to be granted", func() bool { return n.Timeout() == w.timeout()/8 })
		hopeless := w.memberOn(n, "hopeless", &journal{})
		require.ErrorIs(t, hopeless.Vote(w.context()), election.ErrTickTime)
		assert.ErrorIs(t, hopeless.Status().Absence, election.ErrTickTime)
		assert.False(t, hopeless.Status().Standing)
		_, err := hopeless.Campaign(w.context())
		require.ErrorIs(t, err, election.ErrTickTime)
		err = hopeless.Run(w.context(), func(context.Context, election.Term) error { return nil })
		require.ErrorIs(t, err, election.ErrTickTime)
		healthy := w.member("healthy", &journal{}).lead()
		time.Sleep(10 * w.timeout())
		assert.True(t, healthy.IsLeader())
		assert.False(t, hopeless.Voted())
	})
}

// The same when the timeout becomes too short for TickTime later: the session
// moves to a server that grants less.
func TestTickTimeTooLongLater(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		n := w.session(func(o *election.SessionOptions) { o.TickTime = w.timeout() / 2 })
		a := w.memberOn(n, "a", &journal{}).lead()
		b := w.member("b", &journal{}).vote()
		n.link.grant(w.timeout() / 8)
		n.link.cut()
		w.until("b to lead", b.IsLeader)
		w.until("a to say why it does not stand", func() bool { return errors.Is(a.Status().Absence, election.ErrTickTime) })
		assert.False(t, a.Voted())
		assert.False(t, a.Status().RetryAt.IsZero(), "nobody has to be told, so it is tried again")
		n.link.grant(0)
		w.srv.ExpireSession(n.ID()) // the session keeps to the least that it was granted
		w.until("a to stand again", func() bool { return a.Voted() && a.Status().Standing })
	})
}

// A lease that lapses again and again is no way to lead while others could.
func TestThreeLapsesMakeWay(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j, oj := &journal{}, &journal{}
		var moves atomic.Int64
		a := w.memberOn(w.session(func(o *election.SessionOptions) {
			o.Metrics = &election.Metrics{MovedToEnd: func(string) { moves.Add(1) }}
		}), "a", j).lead()
		b := w.member("b", j).vote()
		o := w.observer(w.session(), oj)
		require.NoError(t, o.Observe(w.context()))
		first, _ := a.Term()
		for i := range 3 {
			feed := w.starve(a.node)
			w.until("a lapse", func() bool { return j.count("a stepped down: lease lapsed") == i+1 })
			feed()
			if i < 2 {
				w.until("a to return", func() bool { return j.count("a won") == i+2 && a.Status().AcknowledgedAt != time.Time{} })
				again, _ := a.Term()
				require.Equal(t, first, again)
			}
		}
		w.await(j, "b won")
		w.until("a to lose", func() bool { return j.has("a lost to b") })
		w.settle()
		assert.EqualValues(t, 1, moves.Load())
		assert.Equal(t, 3, j.count("a won"))
		s := a.Status()
		assert.Equal(t, "waiting", s.Phase)
		assert.Equal(t, 1, s.InFront)
		assert.NotEqual(t, first.Ballot, s.Ballot)
		w.same("observer", oj.all(), []string{"new leader a", "dead leader a", "new leader b"})
		assert.Contains(t, w.log.String(), "moved to the end of the line")
		assert.NotContains(t, w.log.String(), "ballot lost")

		b.resign()
		w.until("a to lead again", a.IsLeader)
		second, _ := a.Term()
		assert.Greater(t, second.Token, b.term.Load().Token)
	})
}

// Where it is alone, a candidate that lapses stays where it is, and reads one list
// more for each lapse from the third on at most.
func TestAloneNobodyMakesWay(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.member("a", j).lead()
		first, _ := a.Term()
		for i := range 5 {
			feed := w.starve(a.node)
			w.until("a lapse", func() bool { return j.count("a stepped down: lease lapsed") == i+1 })
			m := w.meter(a.node.ID(), 0)
			feed()
			w.until("a to return", func() bool { return j.count("a won") == i+2 })
			reads := 0
			for _, r := range m.take() {
				if r.op != testutil.OpMulti && r.path != a.LeaderAckPath() { // which it acknowledges anew
					reads++
				}
			}
			assert.LessOrEqual(t, reads, 1, "lapse %d", i+1)
		}
		feed := w.starve(a.node)
		w.until("a lapse", func() bool { return !a.IsLeader() })
		time.Sleep(10 * w.timeout()) // without a lease
		feed()
		w.until("a to return", a.IsLeader)
		again, _ := a.Term()
		assert.Equal(t, first, again)
	})
}

// lapse makes a member lose its lease, and returns while it gets no other.
func (m *member) lapse() (feed func()) {
	m.w.t.Helper()
	before := m.journal.count(m.id + " stepped down: lease lapsed")
	feed = m.w.starve(m.node)
	m.w.until("a lapse", func() bool { return m.journal.count(m.id+" stepped down: lease lapsed") > before })
	return feed
}

// isMove reports whether a request moves a ballot to the end of the line.
func isMove(r *testutil.Request) bool {
	n := len(r.Ops)
	return n >= 2 && r.Ops[n-2].Op == testutil.OpDelete && r.Ops[n-1].Op == testutil.OpCreate &&
		strings.Contains(r.Ops[n-1].Path, "/ballot-")
}

// While a move is under way the end of the own ballot is only noted, and nothing
// is claimed: not even under a lease, while the move's outcome is not known.
func TestNoClaimWhileMoving(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.member("a", j).lead()
		b := w.member("b", j).vote()
		for range 2 {
			a.lapse()()
			w.until("a to return", a.IsLeader)
		}
		// The reply to the move is lost, and what would tell of it is refused for
		// long enough to get a lease.
		id, sent, until := a.node.ID(), false, time.Time{}
		defer w.srv.Control(testutil.AnyOp, func(r *testutil.Request) testutil.Action {
			switch {
			case r.SessionID == id && isMove(r):
				sent, until = true, time.Now().Add(2*w.timeout())
				return testutil.LoseReply
			case r.SessionID == id && r.Op == testutil.OpGetChildren2 && sent && time.Now().Before(until):
				return testutil.Fail(testutil.ErrorCode(-127)) // throttled
			}
			return testutil.Pass
		})()
		a.lapse()()
		w.until("b to lead", b.IsLeader)
		moving := 0
		for ; a.Status().Phase == "moving"; moving++ {
			require.False(t, a.IsLeader())
			time.Sleep(w.timeout() / 50)
		}
		assert.Greater(t, moving, 75)
		w.until("a to wait", func() bool { return a.Status().Phase == "waiting" })
		assert.True(t, b.IsLeader())
		assert.Equal(t, 3, j.count("a won"))
		assert.Len(t, w.children(w.client(), a.RootVotePath()), 3)
	})
}

// Resign and Close while a move is under way take back whichever ballot there is.
func TestLeaveWhileMoving(t *testing.T) {
	for _, test := range []struct {
		name  string
		after testutil.Action
		leave func(m *member) error
	}{
		{"resign, applied", testutil.LoseReply, func(m *member) error { return m.Resign(m.w.context()) }},
		{"resign, not applied", testutil.LoseRequest, func(m *member) error { return m.Resign(m.w.context()) }},
		{"close, applied", testutil.LoseReply, func(m *member) error { return m.Close() }},
		{"close, not applied", testutil.LoseRequest, func(m *member) error { return m.Close() }},
	} {
		t.Run(test.name, func(t *testing.T) {
			virtually(t, func(t *testing.T, w *world) {
				j := &journal{}
				a := w.member("a", j).lead()
				b := w.member("b", j).vote()
				for range 2 {
					a.lapse()()
					w.until("a to return", a.IsLeader)
				}
				id := a.node.ID()
				left := make(chan error, 1)
				defer w.srv.Control(testutil.OpMulti, func(r *testutil.Request) testutil.Action {
					if r.SessionID != id || !isMove(r) {
						return testutil.Pass
					}
					go func() { left <- test.leave(a) }()
					return test.after
				})()
				a.lapse()()
				require.NoError(t, <-left)
				assert.Empty(t, a.VotePath())
				w.until("b to lead", b.IsLeader)
				synctest.Wait()
				names := w.children(w.client(), a.RootVotePath())
				require.Len(t, names, 2, "%q", names)
				assert.Contains(t, b.VotePath(), names[0])
			})
		})
	}
}

// A member of the gem that is next in line watches nobody before it has seen an
// acknowledgement. Who makes way without one wakes it.
func TestMakingWayWakesGem(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		a := w.member("a", &journal{})
		feed := w.starve(a.node)
		defer feed()
		a.vote()
		conn := w.client()
		_, err := conn.Create(a.RootVotePath()+"/ballot", nil, zk.FlagEphemeral|zk.FlagSequence, zk.WorldACL(zk.PermAll))
		require.NoError(t, err)
		_, _, acked, err := conn.ExistsW(a.LeaderAckPath())
		require.NoError(t, err)
		first := a.VotePath()
		select {
		case event := <-acked:
			assert.Equal(t, zk.EventNodeCreated, event.Type)
		case <-time.After(10 * w.timeout()):
			t.Fatal("the member of the gem was not woken")
		}
		w.until("a to stand behind", func() bool { return a.Status().InFront == 1 })
		assert.NotEqual(t, first, a.VotePath())
		exists, _, err := conn.Exists(a.LeaderAckPath())
		require.NoError(t, err)
		assert.False(t, exists)
	})
}

// TakeoverTimeout is for OnWin: an OnLose that has not ended before does not count.
func TestTakeoverTimeoutCountsFromOnWin(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.member("a", j).lead()
		b := w.member("b", j, func(o *election.CandidateOptions) {
			o.TakeoverTimeout, o.StepDownTimeout = time.Second, 10*w.timeout()
		})
		b.OnLose(func(context.Context, election.Leader) { time.Sleep(2 * w.timeout()) })
		b.vote()
		w.await(j, "b lost to a")
		a.resign()
		w.until("b to lead", func() bool { return !b.Status().AcknowledgedAt.IsZero() })
		assert.False(t, j.has("b failed to take over"))
	})
}

// A takeover that takes too long has failed, and one that failed is followed by
// another vote at the end of the line, after pauses that double.
func TestRetry(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.member("a", j, func(o *election.CandidateOptions) { o.TakeoverTimeout = w.timeout() / 4 })
		var mu sync.Mutex
		var failed []time.Time
		works := false
		failures := func() []time.Time {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(failed)
		}
		let := func(work bool) {
			mu.Lock()
			defer mu.Unlock()
			works, failed = work, nil
		}
		a.OnWin(func(ctx context.Context, _ election.Term) error {
			mu.Lock()
			ok := works
			mu.Unlock()
			if !ok {
				<-ctx.Done()
			}
			return nil
		})
		a.OnTakeoverError(func(election.Term, error) {
			mu.Lock()
			defer mu.Unlock()
			failed = append(failed, time.Now())
		})
		a.vote()
		w.until("a to fail", func() bool { return j.count("a failed to take over") == 1 })
		synctest.Wait()
		s := a.Status()
		assert.False(t, s.Standing)
		assert.ErrorIs(t, s.Absence, election.ErrTakeoverFailed)
		assert.WithinDuration(t, time.Now().Add(w.timeout()), s.RetryAt, w.timeout()/2)
		assert.False(t, a.Voted())
		w.until("a to have failed often", func() bool { return len(failures()) == 9 })
		pause, at := w.timeout(), failures()
		for i := 1; i < len(at); i++ {
			took := at[i].Sub(at[i-1]) - w.timeout()/4
			assert.InDelta(t, pause.Seconds(), took.Seconds(), pause.Seconds()/4+1, "the pause before try %d", i+1)
			pause = min(2*pause, 32*w.timeout())
		}
		b := w.member("b", j).lead()
		let(true)
		w.until("a to be behind b", func() bool { return a.Status().InFront == 1 })
		b.resign()
		w.until("a to lead", func() bool { return !a.Status().AcknowledgedAt.IsZero() })

		// A success begins anew.
		let(false)
		require.NoError(t, w.client().Delete(a.VotePath(), -1))
		w.until("a to fail twice", func() bool { return len(failures()) == 2 })
		at = failures()
		assert.Less(t, at[1].Sub(at[0]), 2*w.timeout())

		// Resign ends the waiting.
		a.resign()
		time.Sleep(100 * w.timeout())
		assert.False(t, a.Voted())
		assert.ErrorIs(t, a.Status().Absence, election.ErrResigned)
	})
}

// Whose vote a failed takeover ends: a negative Retry, and Campaign and Run, which
// have returned. Nobody votes for nobody.
func TestNoRetry(t *testing.T) {
	fails := func(context.Context, election.Term) error { return errors.New("cannot") }
	for _, test := range []struct {
		name  string
		retry time.Duration
		ask   func(m *member) error // nil: it does not tell
		back  bool
	}{
		{"vote, never again", -1, func(m *member) error { return m.Vote(m.w.context()) }, false},
		{"campaign", 0, func(m *member) error { return second(m.Campaign(m.w.context())) }, false},
		{"run", 0, func(m *member) error {
			return m.Run(m.w.context(), func(context.Context, election.Term) error { return nil })
		}, false},
		{"vote", 0, func(m *member) error { return m.Vote(m.w.context()) }, true},
		{"vote and campaign", 0, func(m *member) error {
			m.vote()
			return second(m.Campaign(m.w.context()))
		}, true},
		{"vote and run", 0, func(m *member) error {
			m.vote()
			return m.Run(m.w.context(), func(context.Context, election.Term) error { return nil })
		}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			virtually(t, func(t *testing.T, w *world) {
				j := &journal{}
				a := w.member("a", j, func(o *election.CandidateOptions) { o.Retry = test.retry })
				a.OnWin(fails)
				if err := test.ask(a); err != nil {
					require.ErrorIs(t, err, election.ErrTakeoverFailed)
				}
				w.await(j, "a failed to take over")
				time.Sleep(10 * w.timeout())
				assert.Equal(t, test.back, j.count("a failed to take over") > 1)
				assert.Equal(t, test.back, !a.Status().RetryAt.IsZero())
				assert.ErrorIs(t, a.Status().Absence, election.ErrTakeoverFailed)
				assert.False(t, a.Voted())
			})
		})
	}
}

// A win that could not be told, because a callback before it hangs, is followed by
// another vote once that has returned, but not for a Campaign that has returned.
func TestNoVoteForCampaignThatStalled(t *testing.T) {
	for _, votes := range []bool{true, false} {
		t.Run(fmt.Sprint(votes), func(t *testing.T) {
			virtually(t, func(t *testing.T, w *world) {
				j := &journal{}
				a, b := w.member("a", j).lead(), w.member("b", j)
				release, losing := make(chan struct{}), make(chan struct{}, 8)
				b.OnLose(func(context.Context, election.Leader) { losing <- struct{}{}; <-release })
				if votes {
					b.vote()
				}
				result := make(chan error, 1)
				go func() { result <- second(b.Campaign(w.context())) }()
				<-losing
				a.resign()
				err := <-result
				assert.ErrorIs(t, err, election.ErrTakeoverFailed)
				assert.ErrorIs(t, err, election.ErrCallbackRunning)
				assert.ErrorIs(t, b.Healthy(time.Hour), election.ErrCallbackRunning)
				assert.False(t, b.Status().Standing)
				time.Sleep(w.timeout())
				close(release)
				time.Sleep(2 * w.timeout())
				assert.Equal(t, votes, b.IsLeader())
				assert.Equal(t, votes, b.Voted())
				assert.ErrorIs(t, a.Status().Absence, election.ErrResigned)
			})
		})
	}
}

// The ballot of a candidate whose lease has lapsed is deleted by hand: what it has
// acknowledged does not stay behind beside a successor.
func TestDeletedAfterLapseLeavesNoAcknowledgement(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		a := w.member("a", &journal{}).lead()
		conn := w.client()
		_, err := conn.Create(a.RootVotePath()+"/ballot", nil, zk.FlagEphemeral|zk.FlagSequence, zk.WorldACL(zk.PermAll))
		require.NoError(t, err) // of somebody who acknowledges nothing
		feed := a.lapse()
		defer feed()
		w.until("a to be the first, without a lease", func() bool { return a.Status().Phase == "claiming" })
		require.NoError(t, conn.Delete(a.VotePath(), -1))
		feed()
		w.until("a to stand behind", func() bool { return a.Status().InFront == 1 })
		exists, _, err := conn.Exists(a.LeaderAckPath())
		require.NoError(t, err)
		assert.False(t, exists)
	})
}

// hanger's takeOver is an OnWin that does not return before it is closed.
type hanger chan struct{}

func (h hanger) takeOver(context.Context, election.Term) error {
	<-h
	return nil
}

// An OnWin that hangs is an outage: the log names it, again and again, and Healthy
// fails. So do callbacks of a lost term.
func TestHangingCallbacksAreNamed(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		a := w.member("a", &journal{})
		release, stepsDown := make(hanger), make(chan struct{})
		closeAll := sync.OnceFunc(func() { close(stepsDown) })
		defer closeAll()
		let := sync.OnceFunc(func() { close(release) })
		defer let()
		a.OnWin(release.takeOver)
		a.OnStepDown(func(context.Context, election.Term, error) { <-stepsDown })
		a.vote()
		w.until("a to win", a.IsLeader)
		warned := func() int { return strings.Count(w.log.String(), "OnWin has not returned") }
		for _, at := range []struct {
			after time.Duration
			lines int
		}{{w.timeout() - time.Second, 0}, {time.Second + time.Millisecond, 1}, {2*w.timeout() - time.Second, 1}, {time.Second, 2}, {2 * w.timeout(), 3}} {
			time.Sleep(at.after)
			synctest.Wait()
			require.Equal(t, at.lines, warned())
			if err := a.Healthy(time.Hour); at.lines == 0 {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, election.ErrCallbackRunning)
				require.ErrorContains(t, err, "OnWin function 1 (github.com/zkelection/election_test.hanger.takeOver-fm)")
			}
		}
		assert.Contains(t, w.log.String(), "OnWin function 1 (github.com/zkelection/election_test.hanger.takeOver-fm)")
		assert.Equal(t, "taking over", a.Status().Phase)
		let()
		w.until("a to have acknowledged", func() bool { return !a.Status().AcknowledgedAt.IsZero() })
		require.NoError(t, a.Healthy(time.Hour))
		time.Sleep(10 * w.timeout())
		assert.Equal(t, 3, warned())

		a.resign() // without what hangs
		still := func() int { return strings.Count(w.log.String(), "still has not returned") }
		assert.ErrorIs(t, a.Healthy(time.Hour), election.ErrCallbackRunning)
		assert.Equal(t, 0, still())
		time.Sleep(4*w.timeout() + time.Second)
		assert.Equal(t, 2, still())
		assert.Contains(t, w.log.String(), "OnStepDown function 1 (")
		closeAll()
		synctest.Wait()
		require.NoError(t, a.Healthy(time.Hour))
		time.Sleep(10 * w.timeout())
		assert.Equal(t, 2, still())
	})
}

// An OnLeaderAck function that hangs keeps OnWin from being called as others do, and
// is named, too.
func TestHangingOnLeaderAckIsNamed(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		a, b := w.member("a", j).lead(), w.member("b", j)
		hang := make(chan struct{})
		release := sync.OnceFunc(func() { close(hang) })
		defer release()
		called := make(chan struct{})
		b.OnLeaderAck(func(election.Leader) { close(called); <-hang })
		b.vote()
		<-called
		a.resign()
		w.await(j, "a stepped down: resigned")
		w.until("b to give up", func() bool { return b.Healthy(time.Hour) != nil })
		assert.Contains(t, w.log.String(), "OnLeaderAck function 0 (")
		release()
		w.await(j, "b won")
	})
}

// Status is one consistent picture, from before the first vote to after Close.
func TestStatus(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		a, b := w.member("a", j), w.member("b", j)
		s := a.Status()
		assert.Equal(t, "idle", s.Phase)
		assert.Equal(t, -1, s.InFront)
		assert.ErrorContains(t, s.Absence, "nobody has asked for the vote")
		assert.True(t, s.Connected)
		assert.Equal(t, a.node.Conn().Server(), s.Server)

		var inside election.Status
		began := time.Now()
		a.OnWin(func(context.Context, election.Term) error {
			inside = a.Status()
			time.Sleep(time.Second)
			return nil
		})
		require.NoError(t, a.Vote(w.context()))
		s = a.Status()
		assert.True(t, s.Standing)
		assert.Equal(t, a.VotePath(), s.Ballot)
		b.vote()
		w.await(j, "a won")
		w.until("a to have acknowledged", func() bool { return a.Status().Phase == "leading" })
		assert.Equal(t, "taking over", inside.Phase)
		assert.True(t, inside.Leads)
		assert.False(t, inside.TakingOverSince.Before(began))
		assert.True(t, inside.AcknowledgedAt.IsZero())

		assert.True(t, inside.LeaderKnown)
		assert.False(t, inside.LeaderAlive, "before it has acknowledged")

		s = a.Status()
		term, _ := a.Term()
		assert.Equal(t, term, s.Term)
		assert.True(t, s.Leads)
		assert.True(t, s.LeaderKnown && s.LeaderAlive)
		assert.Equal(t, election.FollowNextNode, b.Follow())
		assert.False(t, b.Status().LeaderKnown, "it follows the next node")
		assert.Equal(t, 0, s.InFront)
		assert.NoError(t, s.Absence)
		assert.True(t, s.TakingOverSince.IsZero())
		assert.Equal(t, time.Second, s.AcknowledgedAt.Sub(inside.TakingOverSince))
		assert.Equal(t, a.LeaseUntil(), s.LeaseUntil)
		s = b.Status()
		assert.Equal(t, "waiting", s.Phase)
		assert.Equal(t, 1, s.InFront)
		assert.False(t, s.Leads)
		assert.Zero(t, s.Term)

		a.node.link.setDown(true)
		time.Sleep(2 * w.timeout())
		s = a.Status()
		assert.False(t, s.Connected)
		assert.False(t, s.Leads)
		assert.ErrorIs(t, s.LastError, election.ErrLeaseLapsed)
		assert.True(t, s.LeaseUntil.IsZero())
		a.node.link.setDown(false)
		w.until("a to wait", func() bool { return a.Status().Phase == "waiting" })
		assert.ErrorIs(t, a.Status().LastError, election.ErrSessionLost)

		b.resign()
		assert.ErrorIs(t, b.Status().Absence, election.ErrResigned)
		assert.False(t, b.Status().Standing)
		require.NoError(t, b.Close())
		assert.ErrorIs(t, b.Status().Absence, election.ErrClosed)
		assert.Equal(t, "closed", b.Status().Phase)
	})
}

// A refusal is seen, too.
func TestStatusRefused(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		_, err := w.client().Create("/closed", nil, 0, zk.DigestACL(zk.PermAll, "somebody", "else"))
		require.NoError(t, err)
		a := w.member("a", &journal{}, func(o *election.CandidateOptions) { o.Root = "/closed" })
		require.ErrorIs(t, a.Vote(w.context()), zk.ErrNoAuth)
		s := a.Status()
		assert.Equal(t, "idle", s.Phase)
		assert.ErrorIs(t, s.Absence, zk.ErrNoAuth)
		assert.ErrorIs(t, s.LastError, zk.ErrNoAuth)
		assert.True(t, s.RetryAt.IsZero())
	})
}

// A candidate has the metrics of its Session, unless it is given others.
func TestMetricsAreInherited(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		var session, own atomic.Int64
		count := func(n *atomic.Int64) *election.Metrics {
			return &election.Metrics{Standing: func(string, bool) { n.Add(1) }} // the rest is nil
		}
		n := w.session(func(o *election.SessionOptions) { o.Metrics = count(&session) })
		w.memberOn(n, "a", &journal{}).lead()
		assert.EqualValues(t, 1, session.Load())
		w.memberOn(n, "b", &journal{}, func(o *election.CandidateOptions) { o.Metrics = count(&own) }).vote()
		assert.EqualValues(t, 1, own.Load())
		assert.EqualValues(t, 1, session.Load())
	})
}

// The reply to an acknowledgement was lost with the lease, and OnWin proclaimed
// other data in the next term, which failed: what stands has the data from before
// that, and does not stay behind beside a successor all the same.
func TestUncertainAcknowledgementGoesAfterProclaim(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.member("a", j, func(o *election.CandidateOptions) { o.Retry = -1 })
		var wins atomic.Int32
		a.OnWin(func(ctx context.Context, _ election.Term) error {
			if wins.Add(1) == 1 {
				return nil
			}
			return errors.Join(a.Proclaim(ctx, []byte("a again")), errors.New("refused"))
		})
		feed := func() {}
		defer func() { feed() }()
		var once sync.Once
		cancel := w.srv.Control(testutil.AnyOp, func(r *testutil.Request) (action testutil.Action) {
			if isAcknowledgement(r) {
				once.Do(func() { feed, action = w.starve(a.node), testutil.LoseReply })
			}
			return action
		})
		defer cancel()
		a.vote()
		w.await(j, "a stepped down: lease lapsed")
		conn := w.client()
		data, _, err := conn.Get(a.LeaderAckPath())
		require.NoError(t, err)
		require.Equal(t, "a", string(data))
		feed()
		w.await(j, "a stepped down: takeover failed")
		w.until("the ballot to go", func() bool { return a.Status().Phase == "idle" })
		require.Empty(t, w.children(conn, a.RootVotePath()))
	})
}
