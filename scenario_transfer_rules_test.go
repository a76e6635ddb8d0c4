package election_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election"
	"github.com/zkelection/election/testutil"
)

// The rules of transfers, each in the situation that it is for.

// askedByHand makes a request for a transfer by hand, as somebody does who is not this
// library's Transfer and can stop anywhere.
type askedByHand struct {
	w     *world
	conn  *zk.Conn
	path  string // of the election
	nonce string
	to    string // a ballot's name
}

const firstNonce = "00112233445566778899aabbccddeeff"

func (w *world) request(to *member) *askedByHand {
	return &askedByHand{w: w, conn: w.client(), path: to.RootVotePath(), nonce: firstNonce, to: to.VotePath()[len(to.RootVotePath())+1:]}
}

func (r *askedByHand) content(state string) []byte {
	text, err := json.Marshal(map[string]string{"target": r.to, "nonce": r.nonce, "state": state})
	require.NoError(r.w.t, err)
	return text
}

func (r *askedByHand) ask() *askedByHand {
	r.w.t.Helper()
	_, err := r.conn.Multi(
		&zk.CreateRequest{Path: r.path + "/transfer", Data: r.content("asked"), Acl: zk.WorldACL(zk.PermAll), Flags: zk.FlagEphemeral},
		&zk.CreateRequest{Path: r.path + "/transfer-" + r.nonce, Acl: zk.WorldACL(zk.PermAll), Flags: zk.FlagEphemeral})
	require.NoError(r.w.t, err)
	return r
}

func (r *askedByHand) takeBack() {
	r.w.t.Helper()
	_, err := r.conn.Multi(&zk.DeleteRequest{Path: r.path + "/transfer", Version: -1}, &zk.DeleteRequest{Path: r.path + "/transfer-" + r.nonce, Version: -1})
	require.NoError(r.w.t, err)
}

// takeBackOf removes another session's request, whatever its nonce.
func (r *askedByHand) takeBackOf(session int64) {
	r.w.t.Helper()
	children, _, err := r.conn.Children(r.path)
	require.NoError(r.w.t, err)
	var removal []any
	for _, name := range children {
		if name == "transfer" || strings.HasPrefix(name, "transfer-") {
			_, stat, err := r.conn.Get(r.path + "/" + name)
			require.NoError(r.w.t, err)
			require.Equal(r.w.t, session, stat.EphemeralOwner)
			removal = append(removal, &zk.DeleteRequest{Path: r.path + "/" + name, Version: -1})
		}
	}
	require.Len(r.w.t, removal, 2)
	_, err = r.conn.Multi(removal...)
	require.NoError(r.w.t, err)
}

// state is how far it has come; "" when it is not there.
func (r *askedByHand) state() string {
	data, _, err := r.conn.Get(r.path + "/transfer")
	if errors.Is(err, zk.ErrNoNode) {
		return ""
	}
	require.NoError(r.w.t, err)
	var content struct{ State string }
	require.NoError(r.w.t, json.Unmarshal(data, &content))
	return content.State
}

func (r *askedByHand) await(state string) {
	r.w.t.Helper()
	r.w.until("the state "+state, func() bool { return r.state() == state })
}

// isHandover reports whether a request passes leadership on.
func isHandover(r *testutil.Request) bool {
	return isMove(r) && slices.ContainsFunc(r.Ops, func(op testutil.Request) bool {
		return op.Op == testutil.OpDelete && strings.HasSuffix(op.Path, "/leader_ack")
	})
}

// writes reports whether a request writes that state of a request for a transfer.
func writes(r *testutil.Request, state string) bool {
	return slices.ContainsFunc(r.Ops, func(op testutil.Request) bool {
		return op.Op == testutil.OpSetData && strings.HasSuffix(op.Path, "/transfer") && strings.Contains(string(op.Data), `"`+state+`"`)
	})
}

// settled runs a scenario in a line of n that has heard of everything: the first leads.
func settled(t *testing.T, n int, scenario func(t *testing.T, w *world, line []*member)) {
	t.Helper()
	virtually(t, func(t *testing.T, w *world) {
		line := w.settledLine(&journal{}, n)
		w.heard()
		scenario(t, w, line)
	})
}

// heard lets everybody hear of requests for transfers: their watches are armed.
func (w *world) heard() { time.Sleep(3 * w.timeout()) }

// A request that goes while leadership is being passed is not executed: the leader,
// which has stepped down, wins again.
func TestTransferTakenBackIsNotExecuted(t *testing.T) {
	settled(t, 3, func(t *testing.T, w *world, line []*member) {
		j := line[0].journal
		a, c := line[0], line[2]
		held, release := w.holding(isHandover)
		r := w.request(c).ask()
		<-held
		assert.Equal(t, "passing", r.state())
		assert.False(t, a.IsLeader(), "it leads no more when it passes leadership on")
		assert.Equal(t, 1, j.count("a stepped down: passed on"), "and its work is over")
		before := a.VotePath()
		r.takeBack() // as the end of the asker's session does
		release()
		w.heard()
		require.True(t, a.IsLeader(), "it leads again")
		assert.Equal(t, before, a.VotePath())
		assert.Equal(t, 2, j.count("a won"))
		assert.False(t, j.has("c won"))
	})
}

// Nor is another one in its place: a version says nothing of which node it is of.
func TestTransferInAnothersPlaceIsNotExecuted(t *testing.T) {
	settled(t, 3, func(t *testing.T, w *world, line []*member) {
		j := line[0].journal
		a, b, c := line[0], line[1], line[2]
		// c is next, and is about to say so of the first request.
		held, release := w.holding(func(r *testutil.Request) bool { return writes(r, "ready") })
		first := w.request(c).ask()
		<-held
		first.takeBack()
		second := w.request(b)
		second.nonce = strings.Repeat("ab", 16)
		second.ask() // in the same state, and version, as the first was
		release()
		w.heard()
		assert.False(t, j.has("c won"), "a request that was taken back is executed")
		w.until("the second to be done", func() bool { return b.IsLeader() && second.state() == "done" })
		assert.False(t, a.IsLeader())
		assert.Equal(t, 1, j.count("a stepped down: passed on"))
	})
}

// Who stands between moves only for a request that is there.
func TestNobodyMovesForARequestTakenBack(t *testing.T) {
	settled(t, 3, func(t *testing.T, w *world, line []*member) {
		b, c := line[1], line[2]
		held, release := w.holding(isMove)
		r := w.request(c).ask()
		<-held
		before := b.VotePath()
		r.takeBack()
		release()
		w.heard()
		assert.Equal(t, before, b.VotePath())
		assert.Equal(t, 1, b.Status().InFront)
	})
}

// Nobody who has become the first moves away, whatever was asked of it before.
func TestWhoIsFirstStays(t *testing.T) {
	settled(t, 3, func(t *testing.T, w *world, line []*member) {
		j := line[0].journal
		a, b, c := line[0], line[1], line[2]
		held, release := w.holding(isMove)
		w.request(c).ask()
		<-held
		// The leader's ballot goes, its acknowledgement stays, as after somebody's hand.
		require.NoError(t, w.client().Delete(a.VotePath(), -1))
		before := b.VotePath()
		release()
		w.await(j, "b won") // it may then pass leadership on, as was asked
		assert.Equal(t, before, b.term.Load().Ballot)
	})
}

// While nobody has acknowledged nobody moves: a member of the gem behind waits for that
// and watches nobody.
func TestNobodyMovesBeforeTheAcknowledgement(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.member("a", j)
		taken := make(chan struct{})
		a.OnWin(func(context.Context, election.Term) error { <-taken; return nil })
		a.vote()
		w.await(j, "a won")
		b := w.member("b", j).vote()
		w.gem().vote()
		c := w.member("c", j, withPriority(9)).vote()
		before := b.VotePath()
		w.heard()
		w.request(c).ask()
		w.heard()
		assert.Equal(t, before, b.VotePath(), "b has moved behind one that waits for an acknowledgement")
		close(taken)
		w.until("b to make way", func() bool { return b.VotePath() != before && b.Status().InFront == 3 })
	})
}

// Leadership is passed to nobody who has not said that it is ready, and to nobody
// who is gone.
func TestPassedOnlyToWhoIsReady(t *testing.T) {
	settled(t, 2, func(t *testing.T, w *world, line []*member) {
		j := line[0].journal
		a, b := line[0], line[1]
		starve := w.starve(b.node) // no lease
		r := w.request(b).ask()
		w.heard()
		assert.Equal(t, "asked", r.state())
		assert.True(t, a.IsLeader())
		starve()
		r.await("done")
		w.until("b to lead", b.IsLeader)

		// It dies when it has said so, and before the leader has begun.
		w.until("a to wait", func() bool { return a.Status().Phase == "waiting" })
		r.takeBack()
		w.heard()
		held, release := w.holding(func(q *testutil.Request) bool { return writes(q, "passing") })
		r2 := w.request(a).ask()
		<-held
		assert.Equal(t, "ready", r2.state())
		w.srv.ExpireSession(a.node.ID())
		release()
		w.heard()
		assert.Equal(t, 0, j.count("b stepped down: passed on"))
		assert.True(t, b.IsLeader())
	})
}

// A target that goes while leadership is being passed: the leader wins again, and
// removes the request, which it would else step down for again.
func TestTargetGoesWhilePassing(t *testing.T) {
	settled(t, 3, func(t *testing.T, w *world, line []*member) {
		j := line[0].journal
		a, b, c := line[0], line[1], line[2]
		held, release := w.holding(isHandover)
		r := w.request(c).ask()
		<-held
		c.link().setDown(true)
		w.srv.ExpireSession(c.node.ID())
		release()
		w.until("a to lead again", a.IsLeader)
		w.until("the request to be removed", func() bool { return r.state() == "" })
		w.heard()
		assert.Equal(t, 2, j.count("a won"))
		assert.Equal(t, 1, j.count("a stepped down: passed on"))
		assert.False(t, b.IsLeader())
		c.link().setDown(false)
	})
}

func (m *member) link() *link { return m.node.link }

// Work that goes on after the loss is waited for.
func TestPassedAfterTheWork(t *testing.T) {
	settled(t, 2, func(t *testing.T, w *world, line []*member) {
		a, b := line[0], line[1]
		works := make(chan struct{})
		a.OnStepDown(func(context.Context, election.Term, error) { <-works })
		r := w.request(b).ask()
		r.await("passing")
		time.Sleep(w.timeout() / 2)
		assert.False(t, b.IsLeader())
		assert.False(t, a.IsLeader())
		close(works)
		w.until("b to lead", b.IsLeader)
		assert.Equal(t, "done", r.state())
	})
}

// A leader removes a request that nothing has come of for four session timeouts, and
// leaves alone what it does not understand.
func TestLeaderRemovesWhatNothingComesOf(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.member("a", j).lead()
		w.gem().vote()
		c := w.member("c", j).vote()
		w.heard()
		r := w.request(c).ask()
		time.Sleep(4*w.timeout() - w.timeout()/8)
		assert.Equal(t, "asked", r.state())
		time.Sleep(w.timeout() / 4)
		assert.Empty(t, r.state())
		assert.NotContains(t, w.children(r.conn, r.path), "transfer-"+r.nonce)

		_, err := r.conn.Create(r.path+"/transfer-"+r.nonce, nil, 0, zk.WorldACL(zk.PermAll)) // or nothing could be removed
		require.NoError(t, err)
		for _, content := range []string{
			"", "x", "{}", `{"target":"` + r.to + `","nonce":"` + r.nonce + `","state":"paused"}`,
			`{"target":"leader_ack","nonce":"` + r.nonce + `","state":"ready"}`, `{"target":"` + r.to + `","nonce":"0","state":"ready"}`,
			`{"target":"` + r.to + `","state":"ready"}`, `["ready"]`, "null",
		} {
			_, err := r.conn.Create(r.path+"/transfer", []byte(content), 0, zk.WorldACL(zk.PermAll))
			require.NoError(t, err)
			time.Sleep(6 * w.timeout())
			data, _, err := r.conn.Get(r.path + "/transfer")
			require.NoError(t, err, content)
			assert.Equal(t, content, string(data))
			assert.True(t, a.IsLeader())
			err = c.Transfer(w.context(), c.ballotOf())
			require.ErrorIs(t, err, election.ErrTransferUnderWay, content)
			require.NoError(t, r.conn.Delete(r.path+"/transfer", -1))
		}
		assert.Equal(t, 1, j.count("a won"))
	})
}

// Success is the target's acknowledgement, and not the leader's "done".
func TestSuccessIsTheAcknowledgement(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		line := w.settledLine(j, 2)
		a, b := line[0], line[1]
		taken := make(chan struct{})
		b.OnWin(func(context.Context, election.Term) error { <-taken; return nil })
		w.heard()
		done := make(chan error, 1)
		go func() { done <- a.Transfer(w.context(), b.ballotOf()) }()
		w.await(j, "b won")
		time.Sleep(w.timeout())
		select {
		case err := <-done:
			t.Fatalf("it has returned %v, and nobody has acknowledged", err)
		default:
		}
		close(taken)
		require.NoError(t, <-done)

		// With a takeover that goes on the request cannot be taken back: it says so.
		hold := make(chan struct{})
		cancel := a.OnWin(func(context.Context, election.Term) error { <-hold; return nil })
		err := b.Transfer(context.Background(), a.ballotOf())
		blockedBy(t, err, "may still happen", "has not acknowledged", `"done"`)
		cancel()
		close(hold)
		w.until("a to have acknowledged", func() bool { return !a.Status().AcknowledgedAt.IsZero() })
		w.noRequest(a.RootVotePath())
	})
}

// Each leader that did not wait before, and each session, hears of a request in time.
func TestTransferHeardEverywhere(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.member("a", j).lead()
		b := w.member("b", j).vote()
		w.await(j, "b lost to a")
		require.NoError(t, b.Transfer(context.Background(), b.ballotOf()), "of a line that has just come to be")
		w.until("a to wait", func() bool { return a.Status().Phase == "waiting" })
		w.srv.ExpireSession(a.node.ID())
		w.until("a to stand on another session", func() bool { return a.Voted() && a.Status().Phase == "waiting" })
		require.NoError(t, b.Transfer(context.Background(), a.ballotOf()))
		assert.True(t, a.IsLeader())
	})
}

// A hundred stand between: they move at once, in a few rounds.
func TestTransferAcrossAHundred(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		line := w.settledLine(j, 26)
		n := w.session()
		for range 75 {
			line = append(line, w.memberOn(n, "more", j).vote())
		}
		w.heard()
		z := w.member("z", j).vote()
		w.heard()
		to := z.ballotOf()
		w.srv.ResetCounts()
		began := time.Now()
		require.NoError(t, z.Transfer(w.context(), to))
		took := time.Since(began)
		t.Logf("%v, requests: %v", took, w.srv.Counts())
		assert.True(t, z.IsLeader())
		assert.Less(t, took, w.timeout()/4)
		_ = line
	})
}

// What a transfer costs, in a settled line: each of those between moves with one
// write, and what it takes to stand in the new place.
func TestBudgetTransfer(t *testing.T) {
	for _, between := range []int{0, 1, 8} {
		t.Run(fmt.Sprint(between), func(t *testing.T) {
			virtually(t, func(t *testing.T, w *world) {
				j := &journal{}
				line := w.settledLine(j, between+2, nextNode)
				a, target := line[0], line[len(line)-1]
				w.heard()
				w.offBeat()
				to := target.ballotOf()
				synctest.Wait()
				m, mt := w.meter(a.node.ID(), 0), w.meter(target.node.ID(), 0)
				var movers []*meter
				for _, mover := range line[1 : len(line)-1] {
					movers = append(movers, w.meter(mover.node.ID(), 0))
				}
				by := w.member("operator", j)
				synctest.Wait()
				mb := w.meter(by.node.ID(), 0)
				require.NoError(t, by.Transfer(w.context(), to))
				synctest.Wait()
				beats := 0
				writes := func(m *meter) (writes, reads []string) {
					beats = 0
					for _, r := range m.take() {
						switch {
						case r.op == testutil.OpMulti && r.path == "check ":
							beats++
						case r.op == testutil.OpMulti || r.op == testutil.OpCreate || r.op == testutil.OpDelete || r.op == testutil.OpSetData:
							writes = append(writes, ops([]arrival{r})[0])
						default:
							reads = append(reads, r.op.String())
						}
					}
					return writes, reads
				}
				wrote, read := writes(m)
				assert.Equal(t, []string{
					"multi check check setData check ",                // passing
					"multi check setData check delete delete create ", // done
				}, wrote, "the leader")
				assert.LessOrEqual(t, len(read), 18, "the leader reads %q", read)
				wrote, read = writes(mt)
				assert.Equal(t, []string{"multi check check setData ", acknowledgings}, wrote, "the target")
				assert.LessOrEqual(t, len(read), 12+3*between, "the target reads %q", read)
				for _, mover := range movers {
					wrote, read = writes(mover)
					assert.Equal(t, []string{"multi check check check check delete create "}, wrote, "one between")
					assert.Zero(t, beats, "who waits and moves has no use for a lease")
					assert.LessOrEqual(t, len(read), 20, "one between reads %q", read)
				}
				wrote, read = writes(mb)
				assert.Equal(t, []string{"multi check create create ", "multi delete delete "}, wrote, "who asks")
				assert.LessOrEqual(t, len(read), 40, "who asks reads %q", read)
			})
		})
	}
}

// Following requests costs one watch for each session and election, and no request
// more while candidates wait; a change of priority one write.
func TestBudgetFollowingTransfers(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		w.member("a", j).lead()
		n := w.session()
		var others []*member
		for range 10 {
			others = append(others, w.memberOn(n, "b", j, nextNode).vote())
		}
		time.Sleep(w.timeout() / 2)
		m := w.meter(n.ID(), 0)
		time.Sleep(10 * w.timeout())
		armed := 0
		for _, r := range m.take() {
			if strings.HasSuffix(r.path, "/transfer") {
				armed++
				assert.Equal(t, testutil.OpExists, r.op)
			}
		}
		assert.Equal(t, 1, armed)

		before := others[3].VotePath()
		require.NoError(t, others[3].SetPriority(w.context(), 1))
		assert.NotEqual(t, before, others[3].VotePath())
		moves := 0
		for _, r := range m.take() {
			if r.op == testutil.OpMulti {
				moves++
				assert.Equal(t, "check check delete create ", r.path)
			}
		}
		assert.Equal(t, 1, moves)
	})
}

// A transfer to the last of a settled line takes no longer than twice a resignation's
// failover and four writes, and nobody leads for about as long as then.
func TestTransferIsAsFastAsAFailover(t *testing.T) {
	const trip = 5 * time.Millisecond
	measure := func(t *testing.T, n int, act func(line []*member, last election.Ballot)) (took, without, returned time.Duration, requests, writes int64) {
		virtually(t, func(_ *testing.T, w *world) {
			j := &journal{}
			line := w.settledLine(j, n)
			w.heard()
			w.offBeat()
			last := line[n-1].ballotOf()
			defer w.srv.Control(testutil.AnyOp, func(*testutil.Request) testutil.Action { return testutil.DelayReply(trip) })()
			w.srv.ResetCounts()
			began := time.Now()
			done := make(chan time.Duration, 1)
			go func() {
				act(line, last)
				done <- time.Since(began)
			}()
			acked := func() bool {
				return slices.ContainsFunc(line, func(m *member) bool { return m.IsLeader() && !m.Status().AcknowledgedAt.IsZero() })
			}
			for acked() {
				time.Sleep(time.Millisecond / 4)
			}
			lost := time.Now()
			for !acked() {
				time.Sleep(time.Millisecond / 4)
			}
			without, took = time.Since(lost), time.Since(began)
			returned = <-done
			for op, n := range w.srv.Counts() {
				if op != testutil.OpPing {
					requests += n
				}
				if op == testutil.OpMulti {
					writes += n
				}
			}
		})
		return took, without, returned, requests, writes
	}
	for _, n := range []int{2, 10, 100} {
		failover, gap, _, cost, writes := measure(t, n, func(line []*member, _ election.Ballot) { line[0].resign() })
		transfer, gapT, returned, costT, writesT := measure(t, n, func(line []*member, last election.Ballot) {
			require.NoError(t, line[1].Transfer(line[1].w.context(), last))
		})
		t.Logf("%d candidates, %v for each answer: after a resignation somebody leads in %v, of it %v without a leader, with %d requests, %d of them writes; after a transfer to the last in %v, of it %v, with %d, %d of them writes; and Transfer returns in %v",
			n, trip, failover, gap, cost, writes, transfer, gapT, costT, writesT, returned)
		assert.LessOrEqual(t, gapT, gap+trip, "the time without a leader")
		assert.LessOrEqual(t, transfer, 2*failover+4*trip+trip/2, "until the target leads")
	}
}

// One failure of ready is forgiven, two in a row are not.
func TestOneHiccupIsForgiven(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.member("a", j)
		ctx, cancel := context.WithCancel(context.Background())
		calls := 0
		done := make(chan error, 1)
		go func() {
			done <- a.StandWhile(ctx, func(context.Context) error {
				if calls++; calls > 1 && calls%2 == 0 {
					return errLag
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
