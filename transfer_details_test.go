package election_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election"
	"github.com/zkelection/election/testutil"
)

// Transfers, priority and standing aside in corners where they went wrong.

// One call of ready that takes too long is one failure: not a second one when it returns.
func TestOneSlowAnswerIsForgiven(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.member("a", j)
		ctx, cancel := context.WithCancel(context.Background())
		calls := 0
		done := make(chan error, 1)
		go func() {
			done <- a.StandWhile(ctx, func(ctx context.Context) error {
				if calls++; calls%3 == 2 {
					<-ctx.Done()
					return ctx.Err()
				}
				return nil
			}, time.Second)
		}()
		w.await(j, "a won")
		time.Sleep(20 * time.Second)
		w.same("journal", j.all(), []string{"a won"})
		assert.True(t, a.IsLeader())
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
	})
}

// The lease that a takeover was held under before it failed does not end the demotion.
func TestLongTakeoverThatFailsIsDemoted(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.member("a", j, withPriority(5))
		fails := true
		a.OnWin(func(context.Context, election.Term) error {
			if !fails {
				return nil
			}
			fails = false
			time.Sleep(2 * w.timeout())
			return errors.New("not today")
		})
		first := a.vote().VotePath()
		w.until("another ballot", func() bool { return a.VotePath() != "" && a.VotePath() != first })
		assert.Equal(t, -9, a.Status().Priority)
	})
}

// A priority that is the candidate's already costs it no place.
func TestSamePriorityMovesNobody(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		line := w.settledLine(j, 3)
		b := line[1]
		w.heard()
		before := b.VotePath()
		require.NoError(t, b.SetPriority(w.context(), 0))
		assert.Equal(t, before, b.VotePath())
	})
}

// A removal whose request is lost is made again.
func TestRequestIsRemovedThoughTheRemovalIsLost(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		line := w.settledLine(j, 2)
		a, b := line[0], line[1]
		w.heard()
		defer w.starve(b.node)()
		r := w.request(b).ask()
		var lost atomic.Bool
		defer w.srv.Control(testutil.OpMulti, func(q *testutil.Request) testutil.Action {
			if lost.Load() || !slices.ContainsFunc(q.Ops, func(op testutil.Request) bool {
				return op.Op == testutil.OpDelete && strings.HasSuffix(op.Path, "/transfer")
			}) {
				return testutil.Pass
			}
			lost.Store(true)
			return testutil.LoseRequest
		})()
		time.Sleep(10 * w.timeout())
		assert.True(t, lost.Load())
		assert.Empty(t, r.state())
		assert.True(t, a.IsLeader())
	})
}

// A request that its target has left is removed, though it was ready once.
func TestReadyRequestWithoutTargetIsRemoved(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		line := w.settledLine(j, 3)
		a, c := line[0], line[2]
		w.heard()
		r := w.request(c)
		c.resign()
		w.heard()
		_, err := r.conn.Multi(
			&zk.CreateRequest{Path: r.path + "/transfer", Data: r.content("ready"), Acl: zk.WorldACL(zk.PermAll), Flags: zk.FlagEphemeral},
			&zk.CreateRequest{Path: r.path + "/transfer-" + r.nonce, Acl: zk.WorldACL(zk.PermAll), Flags: zk.FlagEphemeral})
		require.NoError(t, err)
		var tries atomic.Int32
		defer w.srv.Control(testutil.OpMulti, func(q *testutil.Request) testutil.Action {
			if writes(q, "passing") {
				tries.Add(1)
			}
			return testutil.Pass
		})()
		time.Sleep(6 * w.timeout())
		assert.Empty(t, r.state())
		assert.LessOrEqual(t, tries.Load(), int32(2))
		assert.True(t, a.IsLeader())
		assert.Equal(t, 1, j.count("a won"))
	})
}

// and after.
func TestAskerWhoseSessionEndsWhileItReads(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		line := w.settledLine(j, 2)
		b := line[1]
		by := w.member("operator", j)
		w.heard()
		to := b.ballotOf()
		heldPass, pass := w.holdUp(func(q *testutil.Request) bool { return writes(q, "passing") })
		id := by.node.ID()
		hold, held := make(chan struct{}), make(chan struct{})
		var (
			mu     sync.Mutex
			listed time.Time
			armed  bool
		)
		defer w.srv.Control(testutil.AnyOp, func(q *testutil.Request) testutil.Action {
			mu.Lock()
			defer mu.Unlock()
			switch {
			case q.SessionID != id:
			case q.Path == by.RootVotePath():
				listed = time.Now()
			case armed && q.Op == testutil.OpGetData && strings.HasSuffix(q.Path, "/transfer") && time.Since(listed) < time.Millisecond:
				armed = false
				close(held)
				return testutil.Hold(hold)
			}
			return testutil.Pass
		})()
		ctx, cancel := context.WithTimeout(context.Background(), 20*w.timeout())
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- by.Transfer(ctx, to) }()
		<-heldPass
		mu.Lock()
		armed = true
		mu.Unlock()
		<-held
		by.link().setDown(true)
		pass()
		w.until("b to lead", func() bool { return b.IsLeader() && !b.Status().AcknowledgedAt.IsZero() })
		w.srv.ExpireSession(id)
		close(hold)
		by.link().setDown(false)
		require.NoError(t, <-done)
	})
}

// A request that nobody may read does not keep anybody from hearing of the next one.
func TestUnreadableRequestDoesNotDeafen(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		line := w.settledLine(j, 2)
		a, b := line[0], line[1]
		w.heard()
		conn := w.client()
		path := a.RootVotePath() + "/transfer"
		_, err := conn.Create(path, []byte("x"), zk.FlagEphemeral, zk.DigestACL(zk.PermAll, "who", "knows"))
		require.NoError(t, err)
		w.heard()
		require.NoError(t, conn.Delete(path, -1))
		w.heard()
		require.NoError(t, b.Transfer(context.Background(), b.ballotOf()))
		assert.True(t, b.IsLeader())
	})
}

// A request that somebody removes is no deadline; and while leadership is being passed it may
// still happen, when what the leader waits for takes too long.
func TestRemovedRequestSaysWhatItCameTo(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		line := w.settledLine(j, 2)
		a, b := line[0], line[1]
		w.heard()
		hold := make(chan struct{})
		for _, passing := range []bool{false, true} {
			stop := func() {}
			if passing {
				a.OnStepDown(func(context.Context, election.Term, error) { <-hold })
			} else {
				stop = w.starve(b.node)
			}
			done := make(chan error, 1)
			to := b.ballotOf()
			go func() { done <- a.Transfer(w.context(), to) }()
			r := w.request(b)
			if passing {
				r.await("passing")
			} else {
				r.await("asked")
			}
			require.NoError(t, r.conn.Delete(r.path+"/transfer", -1))
			err := <-done
			blockedBy(t, err, "it was removed")
			assert.NotErrorIs(t, err, context.DeadlineExceeded)
			if passing {
				assert.ErrorContains(t, err, "may still happen")
			} else {
				assert.NotContains(t, err.Error(), "may still happen")
			}
			stop()
			w.heard()
		}
		w.until("b to lead", b.IsLeader)
		close(hold)
	})
}

// While nobody has acknowledged a move is refused; that is not asked every moment.
func TestBudgetMovesWhileNobodyHasAcknowledged(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.member("a", j)
		taken := make(chan struct{})
		a.OnWin(func(context.Context, election.Term) error { <-taken; return nil })
		a.vote()
		w.await(j, "a won")
		b := w.member("b", j).vote()
		w.heard()
		var moves atomic.Int32
		defer w.srv.Control(testutil.OpMulti, func(q *testutil.Request) testutil.Action {
			if isMove(q) {
				moves.Add(1)
			}
			return testutil.Pass
		})()
		done := make(chan error, 1)
		go func() { done <- b.SetPriority(w.context(), 3) }()
		w.heard()
		w.heard()
		w.heard()
		assert.LessOrEqual(t, moves.Load(), int32(50))
		close(taken)
		require.NoError(t, <-done)
		assert.Equal(t, 3, b.Status().Priority)
	})
}
