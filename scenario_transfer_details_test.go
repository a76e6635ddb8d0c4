package election_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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
	settled(t, 3, func(t *testing.T, w *world, line []*member) {
		b := line[1]
		before := b.VotePath()
		require.NoError(t, b.SetPriority(w.context(), 0))
		assert.Equal(t, before, b.VotePath())
	})
}

// A removal whose request is lost is made again.
func TestRequestIsRemovedThoughTheRemovalIsLost(t *testing.T) {
	settled(t, 2, func(t *testing.T, w *world, line []*member) {
		a, b := line[0], line[1]
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
	settled(t, 3, func(t *testing.T, w *world, line []*member) {
		j := line[0].journal
		a, c := line[0], line[2]
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
		heldPass, pass := w.holding(func(q *testutil.Request) bool { return writes(q, "passing") })
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
	settled(t, 2, func(t *testing.T, w *world, line []*member) {
		a, b := line[0], line[1]
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

// A request that somebody removes is no deadline. While a ballot stands between, nothing can come of it; once the target is
// next it may still happen: the leader may be stepping down for it, and nobody who asks can know.
func TestRemovedRequestSaysWhatItCameTo(t *testing.T) {
	settled(t, 3, func(t *testing.T, w *world, line []*member) {
		a, b, c := line[0], line[1], line[2]
		hold := make(chan struct{})
		for _, test := range []struct {
			to    *member
			state string
			keep  func() (end func())
			who   string
		}{
			{c, "asked", func() func() { return w.unmoved(b.node) }, "has not moved"},
			{b, "asked", func() func() { return w.starve(b.node) }, "has not left the first place yet"},
			{b, "passing", func() func() {
				return a.OnStepDown(func(context.Context, election.Term, error) { <-hold })
			}, "has not left the first place yet"},
		} {
			end := test.keep()
			done := make(chan error, 1)
			to := test.to.ballotOf()
			go func() { done <- a.Transfer(w.context(), to) }()
			r := w.request(test.to)
			r.await(test.state)
			require.NoError(t, r.conn.Delete(r.path+"/transfer", -1))
			err := <-done
			blockedBy(t, err, "it was removed", test.who)
			assert.NotErrorIs(t, err, context.DeadlineExceeded)
			assert.Equal(t, test.to == b, strings.Contains(err.Error(), "may still happen"), err)
			end()
			w.heard()
		}
		w.until("b to lead", b.IsLeader)
		close(hold)
	})
}

// unmoved keeps a node's candidates from moving in line.
func (w *world) unmoved(n *node) (cancel func()) {
	id := n.ID()
	return w.srv.Control(testutil.OpMulti, func(q *testutil.Request) testutil.Action {
		if q.SessionID == id && isMove(q) {
			return testutil.Fail(testutil.ErrorCode(-127))
		}
		return testutil.Pass
	})
}

// A request goes while who has asked does not see how far it comes: by hand, or with the session.
func TestRequestGoesUnseen(t *testing.T) {
	for _, byHand := range []bool{true, false} {
		t.Run(fmt.Sprint(byHand), func(t *testing.T) {
			settled(t, 2, func(t *testing.T, w *world, line []*member) {
				a, b := line[0], line[1]
				by := w.member("operator", line[0].journal)
				hold := make(chan struct{})
				a.OnStepDown(func(context.Context, election.Term, error) { <-hold })
				feed := w.starve(b.node)
				done := make(chan error, 1)
				to, id := b.ballotOf(), by.node.ID()
				go func() { done <- by.Transfer(w.context(), to) }()
				r := w.request(b)
				r.await("asked")
				time.Sleep(w.timeout() / 4)
				by.link().setDown(true)
				feed()
				r.await("passing")
				if byHand {
					r.takeBackOf(id)
				} else {
					require.True(t, w.srv.ExpireSession(id))
				}
				require.Empty(t, r.state())
				by.link().setDown(false)
				blockedBy(t, <-done, `"asked"`, "it was removed", "may still happen", "has not left the first place yet")
				close(hold)
				w.until("a to lead again", a.IsLeader)
			})
		})
	}
}

// The same at the last moment, when it is to be taken back. Of one's own removal whose answer is lost that is not said.
func TestRequestGoesUnseenAtTheLastMoment(t *testing.T) {
	settled(t, 2, func(t *testing.T, w *world, line []*member) {
		a, b := line[0], line[1]
		by := w.member("operator", line[0].journal)
		defer w.starve(b.node)()
		r := w.request(b)
		id := by.node.ID()
		for _, ours := range []bool{false, true} {
			began := time.Now()
			var once sync.Once
			met := false
			end := w.srv.Control(testutil.AnyOp, func(q *testutil.Request) testutil.Action {
				action := testutil.Pass
				switch removal := q.Op == testutil.OpMulti && len(q.Ops) == 2 && q.Ops[0].Op == testutil.OpDelete; {
				case q.SessionID != id || time.Since(began) < 2*w.timeout():
				case ours && removal:
					once.Do(func() { action, met = testutil.LoseReply, true })
				case !ours && q.Op == testutil.OpGetData && q.Path == r.path+"/transfer":
					once.Do(func() {
						gone := make(chan struct{})
						go func() {
							r.takeBackOf(id)
							close(gone)
						}()
						action, met = testutil.Hold(gone), true
					})
				}
				return action
			})
			err := by.Transfer(context.Background(), b.ballotOf())
			end()
			require.True(t, met)
			blockedBy(t, err, `"asked"`)
			assert.Equal(t, !ours, strings.Contains(err.Error(), "may still happen"), err)
			assert.Equal(t, !ours, strings.Contains(err.Error(), "it was removed"), err)
			w.noRequest(a.RootVotePath())
		}
		assert.True(t, a.IsLeader())
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

// What is left to tidy up is waited for, not asked for again and again.
func TestBudgetTidyingUp(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.member("a", j, func(o *election.CandidateOptions) { o.StepDownTimeout = time.Hour }).lead()
		b := w.member("b", j).vote()
		w.await(j, "b lost to a")
		by := w.member("operator", j)
		hold := make(chan struct{})
		a.OnStepDown(func(context.Context, election.Term, error) { <-hold })
		w.heard()
		blockedBy(t, by.Transfer(context.Background(), b.ballotOf()), "may still happen")
		m := w.meter(by.node.ID(), 0)
		time.Sleep(10 * w.timeout())
		asked := 0
		for _, r := range m.take() {
			if r.op != testutil.OpMulti { // but for heartbeats
				asked++
			}
		}
		assert.Less(t, asked, 60, "a few in each session timeout")
		close(hold)
		w.until("b to lead", b.IsLeader)
		before := time.Now()
		w.noRequest(a.RootVotePath())
		assert.Less(t, time.Since(before), w.timeout()/4, "it hears when it is done")
	})
}

// Somebody deletes one of the two nodes of a request.
func TestOneNodeOfARequestIsDeletedByHand(t *testing.T) {
	for _, test := range []struct {
		node, why string
		byHand    bool
	}{
		{"transfer", "it was removed", false},
		{"transfer-", `it came to the state "asked"`, false},
		{"transfer-", "", true},
	} {
		t.Run(fmt.Sprint(test), func(t *testing.T) {
			settled(t, 2, func(t *testing.T, w *world, line []*member) {
				j := line[0].journal
				a, b := line[0], line[1]
				defer w.starve(b.node)() // or it would be done
				conn := w.client()
				done := make(chan error, 1)
				to := b.ballotOf()
				if test.byHand {
					w.request(b).ask()
				} else {
					go func() { done <- a.Transfer(context.Background(), to) }()
				}
				var node string
				w.until("the request", func() bool {
					all := w.children(conn, a.RootVotePath())
					i := slices.IndexFunc(all, func(name string) bool {
						return name == test.node || test.node == "transfer-" && strings.HasPrefix(name, test.node)
					})
					if i >= 0 {
						node = all[i]
					}
					return i >= 0
				})
				require.NoError(t, conn.Delete(a.RootVotePath()+"/"+node, -1))
				before := time.Now()
				if !test.byHand {
					err := <-done
					blockedBy(t, err, test.why)
					assert.Equal(t, test.node == "transfer", strings.Contains(err.Error(), "may still happen"), err)
					assert.LessOrEqual(t, time.Since(before), 2*w.timeout()+w.timeout()/8)
				}
				w.noRequest(a.RootVotePath()) // by the leader in four session timeouts, if by nobody else
				assert.Less(t, time.Since(before), 5*w.timeout())
				assert.True(t, a.IsLeader())
				assert.Equal(t, 1, j.count("a won"))
			})
		})
	}
}

// A request that is there no more is not acted on, though what is there in its place may
// not be read; and one that may be read again is.
func TestUnreadableRequestIsNotTheFormer(t *testing.T) {
	settled(t, 3, func(t *testing.T, w *world, line []*member) {
		a, b, c := line[0], line[1], line[2]
		starve := w.starve(c.node)
		r := w.request(c).ask()
		w.until("b to make way", func() bool { return b.Status().InFront == 2 })
		hidden := zk.DigestACL(zk.PermAll, "who", "knows")
		path := r.path + "/transfer"
		_, err := r.conn.Multi(
			&zk.DeleteRequest{Path: path, Version: -1}, &zk.DeleteRequest{Path: r.path + "/transfer-" + r.nonce, Version: -1},
			&zk.CreateRequest{Path: path, Data: r.content("asked"), Acl: hidden, Flags: zk.FlagEphemeral})
		require.NoError(t, err)
		w.heard()
		var tries atomic.Int32
		stop := w.srv.Control(testutil.OpMulti, func(q *testutil.Request) testutil.Action {
			if writes(q, "ready") {
				tries.Add(1)
			}
			return testutil.Pass
		})
		starve()
		time.Sleep(10 * w.timeout())
		assert.Zero(t, tries.Load(), "for a request that is gone")
		stop()
		require.NoError(t, r.conn.Delete(path, -1))
		w.heard()

		// The leader alone reads it once more, about each third periodic recheck.
		starve = w.starve(c.node)
		r = w.request(c)
		r.nonce = strings.Repeat("cd", 16)
		id := a.node.ID()
		var refused atomic.Bool
		defer w.srv.Control(testutil.OpGetData, func(q *testutil.Request) testutil.Action {
			if q.SessionID == id && q.Path == path {
				refused.Store(true)
			}
			return testutil.Pass
		})()
		r.ask()
		time.Sleep(w.timeout() / 4)
		refused.Store(false) // it has read it, and has nothing to do yet
		_, err = r.conn.SetACL(path, hidden, -1)
		require.NoError(t, err)
		w.until("the leader to be refused", refused.Load)
		require.NoError(t, w.as(r.conn, "who", "knows"))
		_, err = r.conn.SetACL(path, zk.WorldACL(zk.PermAll), -1)
		require.NoError(t, err)
		time.Sleep(8 * w.timeout())
		assert.Empty(t, r.state(), "it is removed, since nothing comes of it")
		starve()
		assert.True(t, a.IsLeader())
	})
}

func (w *world) as(conn *zk.Conn, user, password string) error {
	return conn.AddAuth("digest", []byte(user+":"+password))
}

// On a network whose answers take T/26 there is time to take the request back and, meanwhile, to ask who has not moved, and not
// for one after the other.
func TestTransferBlockedFarAway(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		t.Cleanup(func() { time.Sleep(w.timeout()) }) // until what was on the way has arrived
		j := &journal{}
		g := w.gem().vote()
		g.acknowledge()
		b := w.member("b", j).vote()
		w.await(j, "b lost to gem")
		session, err := election.Connect(w.servers, w.timeout(), &election.SessionOptions{
			Dialer: election.Far(w.dial, func() time.Duration { return w.timeout() / 26 }), Logger: w.logger(),
		})
		require.NoError(t, err)
		defer session.Close()
		operator, err := election.NewCandidate(session, w.name(), nil)
		require.NoError(t, err)
		blockedBy(t, operator.Transfer(w.context2T(), b.ballotOf()), g.path[len(g.root)+1:], `"gem"`, "leads", `"ready"`)
		w.noRequest(b.RootVotePath())
	})
}

// Who could take its request back says so, also when the answer to who has not moved comes too late.
func TestTransferTakenBackUnexplained(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		g := w.gem().vote()
		g.acknowledge()
		b := w.member("b", j).vote()
		w.await(j, "b lost to gem")
		operator := w.member("operator", j)
		w.heard()
		for i := range 20 {
			var takenBack, refused, asked, late bool
			var mu sync.Mutex
			hold := make(chan struct{})
			end := w.srv.Control(testutil.AnyOp, func(q *testutil.Request) testutil.Action {
				mu.Lock()
				defer mu.Unlock()
				switch {
				case q.SessionID != operator.node.ID():
				case q.Op == testutil.OpMulti && len(q.Ops) == 2 && q.Ops[0].Op == testutil.OpDelete:
					if i%2 == 1 && !refused {
						refused = true
						return testutil.Fail(testutil.ErrorCode(-127)) // it is tried again behind what is held
					}
					takenBack = takenBack || !late
				case q.Op == testutil.OpGetData && q.Path == g.path:
					asked = true
				case q.Op == testutil.OpGetData && q.Path == b.RootVotePath()+"/leader_ack" && asked:
					if i%2 == 0 && !takenBack {
						return testutil.Fail(testutil.ErrorCode(-127)) // and this behind that
					}
					late = true
					return testutil.Hold(hold)
				}
				return testutil.Pass
			})
			err := operator.Transfer(w.context2T(), b.ballotOf())
			require.ErrorIs(t, err, election.ErrTransferBlocked)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			mu.Lock()
			assert.True(t, late, "the answer has come in time")
			assert.Equal(t, i%2 == 0, takenBack)
			assert.Equal(t, takenBack, strings.Contains(err.Error(), "taken back"), err)
			assert.Equal(t, !takenBack, strings.Contains(err.Error(), "may still happen"), err)
			mu.Unlock()
			end()
			close(hold)
			w.noRequest(b.RootVotePath())
		}
	})
}

// The acknowledgement of a leader whose ballot somebody has deleted stands until that one hears of it. It is no other's on its
// session: neither when the target was seen behind that leader, nor when its ballot is the younger one.
func TestTransferToTheSessionOfADeletedLeader(t *testing.T) {
	t.Run("asked before", func(t *testing.T) { transferToTheSessionOfADeletedLeader(t, false) })
	t.Run("asked after", func(t *testing.T) { transferToTheSessionOfADeletedLeader(t, true) })
}

func transferToTheSessionOfADeletedLeader(t *testing.T, deleted bool) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.member("a", j).lead()
		b := w.memberOn(a.node, "b", j).vote()
		operator := w.member("operator", j)
		w.heard()
		to, leads := b.ballotOf(), a.VotePath()
		a.link().setDown(true)
		if deleted {
			require.NoError(t, w.client().Delete(leads, -1))
		}
		done := make(chan error, 1)
		go func() { done <- operator.Transfer(w.context(), to) }()
		w.request(b).await("asked")
		if !deleted {
			require.NoError(t, w.client().Delete(leads, -1))
		}
		time.Sleep(w.timeout() / 4)
		select {
		case err := <-done:
			t.Fatalf("the transfer has ended with %v, and b leads: %t", err, b.IsLeader())
		default:
		}
		a.link().setDown(false)
		require.NoError(t, <-done)
		assert.True(t, b.IsLeader())
	})
}

// atTheLastMoment has an operator ask for a transfer from a member of the gem to b, behind another one, which comes to nothing, and does
// something after its last look, before the request is taken back.
func atTheLastMoment(t *testing.T, do func(w *world, request string, first, second *gem, b *member)) (first, second *gem, told error) {
	virtually(t, func(_ *testing.T, w *world) {
		first = w.gem().vote()
		first.acknowledge()
		second = w.gem().vote()
		b := w.member("b", &journal{}).vote()
		operator := w.member("operator", &journal{})
		w.heard()
		ctx, request := w.context2T(), b.RootVotePath()+"/transfer"
		deadline, _ := ctx.Deadline()
		taking, goOn := make(chan struct{}), make(chan struct{})
		var once sync.Once
		defer w.srv.Control(testutil.OpGetData, func(q *testutil.Request) testutil.Action {
			if q.SessionID == operator.node.ID() && q.Path == request && time.Until(deadline) <= w.timeout()/8 {
				once.Do(func() { close(taking) })
				return testutil.Hold(goOn)
			}
			return testutil.Pass
		})()
		done := make(chan error, 1)
		go func() { done <- operator.Transfer(ctx, b.ballotOf()) }()
		<-taking
		do(w, request, first, second, b)
		close(goOn)
		told = <-done
	})
	return first, second, told
}

// A request that comes farther at the last moment is blocked by whom it waits for then.
func TestTransferBlockedAfterItsLastStep(t *testing.T) {
	first, second, err := atTheLastMoment(t, func(w *world, request string, _, _ *gem, _ *member) {
		conn := w.client()
		data, stat, err := conn.Get(request)
		require.NoError(t, err)
		_, err = conn.Set(request, bytes.Replace(data, []byte("asked"), []byte("ready"), 1), stat.Version)
		require.NoError(t, err)
	})
	blockedBy(t, err, `"ready"`, first.path[len(first.root)+1:], "leads")
	assert.NotContains(t, err.Error(), second.path[len(second.root)+1:])
}

// And one that is gone at the last moment has not failed if the target leads.
func TestTransferDoneAtTheLastMoment(t *testing.T) {
	_, _, err := atTheLastMoment(t, func(w *world, request string, first, second *gem, b *member) {
		conn := w.client()
		for _, name := range w.children(conn, b.RootVotePath()) {
			if path := b.RootVotePath() + "/" + name; strings.HasPrefix(path, request) {
				require.NoError(t, conn.Delete(path, -1))
			}
		}
		second.leave()
		first.leave()
		w.until("b leads", func() bool { return !b.Status().AcknowledgedAt.IsZero() })
	})
	require.NoError(t, err)
}

// Nor has one that is taken back when the target leads by then, nor is it said to be blocked when the target is gone.
func TestTransferIsLookedAtOnceMore(t *testing.T) {
	_, _, err := atTheLastMoment(t, func(w *world, _ string, first, second *gem, b *member) {
		second.leave()
		first.leave()
		w.until("b leads", func() bool { return !b.Status().AcknowledgedAt.IsZero() })
	})
	require.NoError(t, err)

	_, second, err := atTheLastMoment(t, func(_ *world, _ string, first, _ *gem, _ *member) { first.leave() })
	blockedBy(t, err, "has not said that it is ready") // b is the next by now
	assert.NotContains(t, err.Error(), second.path[len(second.root)+1:])

	_, _, err = atTheLastMoment(t, func(_ *world, _ string, _, _ *gem, b *member) { b.resign() })
	require.ErrorIs(t, err, election.ErrTransferTargetGone)
	blockedBy(t, err, `"asked"`)

	_, _, err = atTheLastMoment(t, func(w *world, request string, first, second *gem, b *member) {
		hold := make(chan struct{})
		b.OnWin(func(context.Context, election.Term) error { <-hold; return nil })
		second.leave()
		first.leave()
		conn := w.client()
		data, stat, err := conn.Get(request)
		require.NoError(t, err)
		_, err = conn.Set(request, bytes.Replace(data, []byte("asked"), []byte("done"), 1), stat.Version)
		require.NoError(t, err)
		w.until("b wins", func() bool { return !b.Status().TakingOverSince.IsZero() })
		time.AfterFunc(w.timeout(), func() { close(hold) })
	})
	blockedBy(t, err, "may still happen", "has not acknowledged")
	assert.NotContains(t, err.Error(), "has not stepped down")
}

// A target that is the first already, and has not acknowledged, may do so although the request is taken back.
func TestTransferToWhoTakesOver(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.member("a", j)
		hold := make(chan struct{})
		a.OnWin(func(context.Context, election.Term) error { <-hold; return nil })
		a.vote()
		b := w.member("b", j).vote()
		w.await(j, "a won")
		blockedBy(t, b.Transfer(context.Background(), a.ballotOf()), "may still happen", "has not acknowledged")
		close(hold)
		w.until("a to lead", a.IsLeader)
	})
}

// What has come of it is told although the request cannot be removed.
func TestTransferIsDecidedBeforeItIsTidiedUp(t *testing.T) {
	settled(t, 3, func(t *testing.T, w *world, line []*member) {
		a, b, c := line[0], line[1], line[2]
		by := w.member("operator", a.journal)
		id := by.node.ID()
		hold := make(chan struct{})
		end := w.srv.Control(testutil.OpMulti, func(q *testutil.Request) testutil.Action {
			if q.SessionID == id && q.Ops[0].Op == testutil.OpDelete {
				return testutil.Hold(hold)
			}
			return testutil.Pass
		})
		require.NoError(t, by.Transfer(w.context2T(), b.ballotOf()))
		assert.True(t, b.IsLeader())
		close(hold)
		w.noRequest(a.RootVotePath())
		hold = make(chan struct{})
		feed := w.starve(c.node)
		done := make(chan error, 1)
		to := c.ballotOf()
		go func() { done <- by.Transfer(w.context2T(), to) }()
		w.request(c).await("asked")
		c.resign()
		require.ErrorIs(t, <-done, election.ErrTransferTargetGone)
		end()
		close(hold)
		feed()
		w.noRequest(a.RootVotePath())
	})
}

// Who may ask, and not take it back, is told that it may still happen; and so it does.
func TestTransferThatMayNotBeTakenBack(t *testing.T) {
	settled(t, 2, func(t *testing.T, w *world, line []*member) {
		a, b := line[0], line[1]
		by := w.member("operator", a.journal)
		id := by.node.ID()
		end := w.srv.Control(testutil.OpMulti, func(q *testutil.Request) testutil.Action {
			if q.SessionID == id && q.Ops[0].Op == testutil.OpDelete {
				return testutil.Fail(zk.ErrNoAuth)
			}
			return testutil.Pass
		})
		feed := w.starve(b.node)
		err := by.Transfer(w.context2T(), b.ballotOf())
		blockedBy(t, err, "may still happen")
		require.ErrorIs(t, err, zk.ErrNoAuth)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		feed()
		w.until("b to lead", b.IsLeader)
		end()
	})
}

// What an unknown code says of a request nobody knows: it may be there all the same, and is removed then.
func TestTransferRefusedBehindItsCreation(t *testing.T) {
	settled(t, 2, func(t *testing.T, w *world, line []*member) {
		a, b := line[0], line[1]
		by := w.member("operator", a.journal)
		id, conn := by.node.ID(), w.client()
		defer w.starve(b.node)()
		defer w.srv.Control(testutil.OpMulti, func(q *testutil.Request) testutil.Action {
			if q.SessionID != id || len(q.Ops) != 3 || q.Ops[1].Path != b.RootVotePath()+"/transfer" {
				return testutil.Pass
			}
			for _, op := range q.Ops[1:] {
				_, err := conn.Create(op.Path, op.Data, zk.FlagEphemeral, zk.WorldACL(zk.PermAll))
				assert.NoError(t, err)
			}
			return testutil.Fail(testutil.ErrorCode(-5))
		})()
		err := by.Transfer(context.Background(), b.ballotOf())
		code := election.ErrorCode(0)
		require.ErrorAs(t, err, &code)
		require.NotContains(t, w.children(conn, a.RootVotePath()), "transfer")
	})
}

// One that has been executed, and whose request is gone then, has not failed though it was last seen under way.
func TestTransferDoneAndGoneAtTheLastMoment(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.member("a", j, func(o *election.CandidateOptions) { o.StepDownTimeout = time.Hour }).lead()
		b := w.member("b", j).vote()
		w.await(j, "b lost to a")
		by := w.member("operator", j)
		w.heard()
		id, hold := by.node.ID(), make(chan struct{})
		a.OnStepDown(func(context.Context, election.Term, error) { <-hold })
		r := w.request(b)
		began := time.Now()
		var once sync.Once
		met := false
		end := w.srv.Control(testutil.OpGetData, func(q *testutil.Request) testutil.Action {
			action := testutil.Pass
			if q.SessionID == id && q.Path == r.path+"/transfer" && time.Since(began) >= 2*w.timeout() {
				once.Do(func() {
					goOn := make(chan struct{})
					go func() {
						close(hold)
						w.until("b to lead", func() bool { return !b.Status().AcknowledgedAt.IsZero() })
						r.takeBackOf(id)
						close(goOn)
					}()
					action, met = testutil.Hold(goOn), true
				})
			}
			return action
		})
		require.NoError(t, by.Transfer(context.Background(), b.ballotOf()))
		end()
		require.True(t, met)
	})
}

// Without a deadline of the caller's the error is none.
func TestTransferNamesNoDeadlineThatNobodyGave(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		line := w.settledLine(j, 2)
		a, b := line[0], line[1]
		by := w.member("operator", j)
		w.heard()
		to := b.ballotOf()
		asked := by.link().next(loseRequest, func(r request) bool { return r.op == opMulti && r.path == to.Path })
		go func() { <-asked; by.link().setDown(true) }()
		began := time.Now()
		err := by.Transfer(context.Background(), to)
		blockedBy(t, err, "no server has answered in time", "may still happen")
		assert.NotErrorIs(t, err, context.DeadlineExceeded, err)
		assert.LessOrEqual(t, time.Since(began), 2*w.timeout()+w.timeout()/2)
		ctx, cancel := context.WithTimeout(context.Background(), w.timeout())
		defer cancel()
		err = by.Transfer(ctx, to)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		blockedBy(t, err, "no server has answered in time, and nothing was asked")
		assert.NotContains(t, err.Error(), "may still happen")
		by.link().setDown(false)
		w.noRequest(a.RootVotePath())
		w.until("the session", func() bool { return by.node.Connection().Connected })

		// One that is cancelled says, too, that it may still happen.
		hold := make(chan struct{})
		a.OnStepDown(func(context.Context, election.Term, error) { <-hold })
		ctx, cancel = context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- by.Transfer(ctx, line[1].ballotOf()) }()
		w.request(b).await("passing")
		time.Sleep(w.timeout() / 2)
		cancel()
		err = <-done
		require.ErrorIs(t, err, context.Canceled)
		assert.ErrorContains(t, err, "may still happen")
		close(hold)
	})
}

// The target's SetPriority waits for the transfer.
func TestTargetKeepsItsPlaceForItsPriority(t *testing.T) {
	settled(t, 3, func(t *testing.T, w *world, line []*member) {
		b, c := line[1], line[2]
		starve := w.starve(c.node)
		to := c.ballotOf()
		done, changed := make(chan error, 1), make(chan error, 1)
		go func() { done <- b.Transfer(w.context(), to) }()
		w.request(c).await("asked")
		w.until("b to make way", func() bool { return b.Status().InFront == 2 })
		go func() { changed <- c.SetPriority(w.context(), 5) }()
		time.Sleep(w.timeout() / 2)
		assert.Equal(t, to.Path, c.VotePath())
		starve()
		require.NoError(t, <-done)
		require.NoError(t, <-changed)
		assert.True(t, c.IsLeader())

		// If it comes to nothing the priority is changed then.
		starve = w.starve(b.node)
		w.until("b to be next", func() bool { return b.Status().InFront >= 0 })
		before := b.VotePath()
		go func() { done <- c.Transfer(context.Background(), b.ballotOf()) }()
		w.request(b).await("asked")
		go func() { changed <- b.SetPriority(w.context(), 5) }()
		blockedBy(t, <-done, `"asked"`)
		require.NoError(t, <-changed)
		assert.NotEqual(t, before, b.VotePath())
		assert.Equal(t, 5, b.Status().Priority)
		starve()
	})
}

// Who leads and has not acknowledged is not blamed for leading on.
func TestBlockedByATakeover(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.member("a", j)
		taken := make(chan struct{})
		a.OnWin(func(context.Context, election.Term) error { <-taken; return nil })
		a.vote()
		w.await(j, "a won")
		b := w.member("b", j).vote()
		w.heard()
		blockedBy(t, b.Transfer(context.Background(), b.ballotOf()), a.ballotOf().Path[len(a.RootVotePath())+1:]+" takes over, and has not acknowledged", `"ready"`, `"a"`)
		close(taken)
		require.NoError(t, b.Transfer(context.Background(), b.ballotOf()))
	})
}

// Nobody votes before the function given to StandWhile has answered.
func TestStandWhileDecidesFirst(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.member("a", j)
		ctx, cancel := context.WithCancel(context.Background())
		answers := make(chan error)
		stands, runs, voted := make(chan error, 1), make(chan error, 1), make(chan error, 1)
		go func() {
			stands <- a.StandWhile(ctx, func(ctx context.Context) error {
				select {
				case err := <-answers:
					return err
				case <-ctx.Done():
					return ctx.Err()
				}
			}, time.Minute)
		}()
		time.Sleep(time.Millisecond)
		go func() {
			runs <- a.Run(ctx, func(ctx context.Context, _ election.Term) error { <-ctx.Done(); return nil })
		}()
		go func() { voted <- a.Vote(ctx) }()
		time.Sleep(w.timeout())
		assert.Empty(t, a.VotePath())
		assert.Empty(t, j.all())
		answers <- errLag
		require.ErrorIs(t, <-voted, errLag)
		time.Sleep(w.timeout())
		assert.Empty(t, a.VotePath())
		answers <- nil
		w.await(j, "a won")
		cancel()
		require.ErrorIs(t, <-stands, context.Canceled)
		require.ErrorIs(t, <-runs, context.Canceled)
	})
}
