package election_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
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

// Error codes, those too that go-zookeeper has no name for: what is not known to
// pass is an answer, and whoever asked is told.

// unnamed are codes that ZooKeeper answers with and the client does not name,
// and one that nobody has heard of.
var unnamed = []election.ErrorCode{-125, -1, -5, -124, -199}

const throttled = election.ErrorCode(-127)

// answering lets the server answer what match picks with a code, and counts it.
func (w *world) answering(code election.ErrorCode, match func(*testutil.Request) bool) (asked *atomic.Int64, cancel func()) {
	asked = new(atomic.Int64)
	return asked, w.srv.Control(testutil.AnyOp, func(r *testutil.Request) testutil.Action {
		if !match(r) {
			return testutil.Pass
		}
		asked.Add(1)
		return testutil.Fail(testutil.ErrorCode(code))
	})
}

func isBallotCreation(r *testutil.Request) bool {
	return r.Op == testutil.OpCreate && strings.Contains(r.Path, "/ballot-")
}

func isParentCreation(r *testutil.Request) bool {
	return r.Op == testutil.OpCreate && !strings.Contains(r.Path, "/ballot-")
}

func isAcknowledgement(r *testutil.Request) bool {
	for _, op := range r.Ops {
		if op.Op == testutil.OpCreate && strings.HasSuffix(op.Path, "/leader_ack") {
			return true
		}
	}
	return false
}

func isProclamation(r *testutil.Request) bool {
	return len(r.Ops) == 2 && r.Ops[1].Op == testutil.OpSetData
}

func isAHeartbeat(r *testutil.Request) bool { return len(r.Ops) == 1 }

func isWithdrawal(r *testutil.Request) bool {
	return r.Op == testutil.OpDelete || len(r.Ops) > 0 && r.Ops[len(r.Ops)-1].Op == testutil.OpDelete
}

func opIs(ops ...testutil.Op) func(*testutil.Request) bool {
	return func(r *testutil.Request) bool {
		for _, op := range ops {
			if r.Op == op {
				return true
			}
		}
		return false
	}
}

// forEachCode runs a test with each of the codes that are answers.
func forEachCode(t *testing.T, run func(t *testing.T, w *world, code election.ErrorCode)) {
	for _, code := range unnamed {
		t.Run(fmt.Sprint(int32(code)), func(t *testing.T) {
			virtually(t, func(t *testing.T, w *world) { run(t, w, code) })
		})
	}
}

// said counts the lines of the log about a code.
func (w *world) said(code election.ErrorCode) int {
	n := 0
	for line := range strings.Lines(w.log.String()) {
		if strings.Contains(line, "level=WARN") && strings.Contains(line, "an error code of its own") && strings.Contains(line, code.Error()) {
			n++
		}
	}
	return n
}

func TestRefusedVoteIsTold(t *testing.T) {
	for name, match := range map[string]func(*testutil.Request) bool{
		"ballot": isBallotCreation, "parents": isParentCreation, "list": opIs(testutil.OpGetChildren2),
	} {
		t.Run(name, func(t *testing.T) {
			forEachCode(t, func(t *testing.T, w *world, code election.ErrorCode) {
				a := w.member("a", &journal{})
				asked, cancel := w.answering(code, match)
				began := time.Now()
				err := a.Vote(w.context())
				require.ErrorIs(t, err, code)
				assert.Contains(t, err.Error(), fmt.Sprint(int32(code)))
				assert.Zero(t, time.Since(began).Round(time.Second))
				time.Sleep(10 * w.timeout())
				assert.LessOrEqual(t, asked.Load(), int64(20), "it is not asked again and again")
				assert.Equal(t, 1, w.said(code), "%s", w.log.String())
				cancel()
				time.Sleep(2 * w.timeout())
				assert.Empty(t, ballotNames(w.children(w.client(), a.RootVotePath())))
				assert.False(t, a.Voted())
				a.lead()
			})
		})
	}
}

// An acknowledgement that is refused is a takeover that has failed, and not a
// leadership that nobody is told of.
func TestRefusedAcknowledgementFailsTheTakeover(t *testing.T) {
	forEachCode(t, func(t *testing.T, w *world, code election.ErrorCode) {
		j := &journal{}
		a, b := w.member("a", j), w.member("b", j)
		asked, cancel := w.answering(code, isAcknowledgement)
		_, err := a.Campaign(w.context())
		require.ErrorIs(t, err, election.ErrTakeoverFailed)
		require.ErrorIs(t, err, code)
		assert.False(t, a.IsLeader())
		assert.Equal(t, int64(1), asked.Load())
		w.until("the withdrawal", func() bool { return !a.Voted() })
		w.same("journal", j.all(), []string{"a won", "a failed to take over", "a stepped down: takeover failed"})
		cancel()
		b.lead()
	})
}

// Nor is a move for a priority that is refused waited for in silence; it is made when it can be.
func TestRefusedPriorityIsTold(t *testing.T) {
	forEachCode(t, func(t *testing.T, w *world, code election.ErrorCode) {
		a, b := w.member("a", &journal{}).lead(), w.member("b", &journal{})
		b.vote()
		w.settle()
		asked, cancel := w.answering(code, isMove)
		began := time.Now()
		require.ErrorIs(t, b.SetPriority(w.context(), 5), code)
		assert.Less(t, time.Since(began), w.timeout()/10)
		time.Sleep(10 * w.timeout())
		assert.LessOrEqual(t, asked.Load(), int64(20), "it is not asked again and again")
		cancel()
		w.until("the move", func() bool { return b.Status().Priority == 5 })
		assert.True(t, a.IsLeader())
	})
}

// Whoever sets it again is answered by another try, whether that is refused or not.
func TestPriorityIsSetAgain(t *testing.T) {
	for _, refused := range []bool{false, true} {
		virtually(t, func(t *testing.T, w *world) {
			w.member("a", &journal{}).lead()
			b := w.member("b", &journal{}).vote()
			w.settle()
			_, cancel := w.answering(-125, isMove)
			require.ErrorIs(t, b.SetPriority(w.context(), 5), election.ErrorCode(-125))
			if !refused {
				cancel()
			}
			began := time.Now()
			err := b.SetPriority(w.context(), 5)
			assert.Equal(t, refused, errors.Is(err, election.ErrorCode(-125)), err)
			assert.Less(t, time.Since(began), w.timeout()/8)
			cancel()
		})
	}
}

// A leader whose acknowledgement was removed, and may not be written again,
// asks at the slow pace, and says so to who waits for it.
func TestAcknowledgementRefusedLater(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		a := w.member("a", &journal{}).lead()
		w.offBeat() // it watches its acknowledgement
		asked, cancel := w.answering(-125, isAcknowledgement)
		require.NoError(t, w.client().Delete(a.LeaderAckPath(), -1))
		time.Sleep(w.timeout())
		require.ErrorIs(t, a.Proclaim(w.context(), []byte("x")), election.ErrorCode(-125))
		time.Sleep(10 * w.timeout())
		assert.True(t, a.IsLeader())
		assert.LessOrEqual(t, asked.Load(), int64(16))
		cancel()
		w.until("the acknowledgement", func() bool { acked, err := a.LeaderAcked(w.context()); return acked && err == nil })
	})
}

func TestRefusedPreparationIsTold(t *testing.T) {
	for _, op := range []testutil.Op{testutil.OpSync, testutil.OpAuth} {
		t.Run(op.String(), func(t *testing.T) {
			forEachCode(t, func(t *testing.T, w *world, code election.ErrorCode) {
				_, cancel := w.answering(code, opIs(op))
				s, err := election.Connect(w.servers, w.timeout(), &election.SessionOptions{
					Dialer: w.dial, Logger: w.logger(), Auth: []election.Auth{{Scheme: "digest", Credentials: []byte("user:password")}},
				})
				require.NoError(t, err)
				defer s.Close()
				if op == testutil.OpSync { // the first session has none
					w.renewed(s)
				}
				c, err := election.NewCandidate(s, w.name(), nil)
				require.NoError(t, err)
				require.ErrorIs(t, s.AwaitConnected(w.context()), code)
				require.ErrorIs(t, c.Vote(w.context()), code)
				cancel()
				time.Sleep(w.timeout())
				require.NoError(t, s.AwaitConnected(w.context()))
				require.NoError(t, c.Vote(w.context()))
			})
		})
	}
}

// renewed has a Session lose its first session, in virtual time.
func (w *world) renewed(s *election.Session) {
	w.t.Helper()
	require.NoError(w.t, s.AwaitConnected(w.context()))
	w.srv.ExpireSession(s.ID())
	synctest.Wait()
}

// No code that is not known to be given behind the check of the session renews
// a lease, or makes one.
func TestUnnamedCodeRenewsNoLease(t *testing.T) {
	forEachCode(t, func(t *testing.T, w *world, code election.ErrorCode) {
		j := &journal{}
		a := w.member("a", j).lead()
		_, cancel := w.answering(code, isAHeartbeat)
		time.Sleep(w.timeout())
		assert.False(t, a.IsLeader())
		w.same("journal", j.all(), []string{"a won", "a stepped down: lease lapsed"})
		time.Sleep(10 * w.timeout())
		assert.Equal(t, 1, j.count("a won"))
		assert.LessOrEqual(t, w.said(code), 2, "once by the session, once by the candidate")
		assert.GreaterOrEqual(t, w.said(code), 1)
		cancel()
		w.until("a to lead again", func() bool { return j.count("a won") == 2 })
	})
}

func TestRefusedProclamationIsTold(t *testing.T) {
	forEachCode(t, func(t *testing.T, w *world, code election.ErrorCode) {
		a := w.member("a", &journal{}).lead()
		_, cancel := w.answering(code, isProclamation)
		require.ErrorIs(t, a.Proclaim(w.context(), []byte("x")), code)
		cancel()
		require.NoError(t, a.Proclaim(w.context(), []byte("y")))
	})
}

// The acknowledgement took the new data and the ballot did not: what is written
// later agrees with what the leader's observers have seen.
func TestProclamationRefusedHalfway(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		a := w.member("a", &journal{}).lead()
		_, cancel := w.answering(-125, func(r *testutil.Request) bool {
			return isProclamation(r) && strings.Contains(r.Ops[1].Path, "/ballot-")
		})
		require.ErrorIs(t, a.Proclaim(w.context(), []byte("x")), election.ErrorCode(-125))
		cancel()
		require.NoError(t, a.node.link.expire())
		w.until("another ballot", func() bool {
			ballots, err := a.Ballots(w.context())
			return err == nil && len(ballots) == 1 && string(ballots[0].Data) == "x" && a.IsLeader()
		})
	})
}

func TestRefusedWithdrawalIsTold(t *testing.T) {
	forEachCode(t, func(t *testing.T, w *world, code election.ErrorCode) {
		for _, leads := range []bool{true, false} {
			a := w.member("a", &journal{})
			if leads {
				a.lead()
			} else {
				other := w.member("b", &journal{}).lead()
				defer other.resign()
				a.vote()
			}
			asked, cancel := w.answering(code, isWithdrawal)
			require.ErrorIs(t, a.Resign(w.context()), code)
			time.Sleep(10 * w.timeout())
			assert.LessOrEqual(t, asked.Load(), int64(16))
			cancel()
			w.until("the withdrawal", func() bool { return !a.Voted() })
		}
	})
}

func TestRefusedLookUpIsTold(t *testing.T) {
	forEachCode(t, func(t *testing.T, w *world, code election.ErrorCode) {
		a := w.member("a", &journal{}).lead()
		asked, cancel := w.answering(code, opIs(testutil.OpGetData, testutil.OpGetChildren2, testutil.OpExists))
		for range 5 {
			require.ErrorIs(t, second(a.Leader(w.context())), code)
			require.ErrorIs(t, second(a.LeaderAcked(w.context())), code)
			require.ErrorIs(t, second(a.Ballots(w.context())), code)
		}
		assert.LessOrEqual(t, asked.Load(), int64(20))
		o := w.observer(w.session(), &journal{})
		require.ErrorIs(t, o.Observe(w.context()), code)
		require.ErrorIs(t, o.Observe(w.context()), code)
		second := w.observer(&node{Session: w.session().Session}, &journal{})
		require.ErrorIs(t, second.Observe(w.context()), code)
		cancel()
		time.Sleep(2 * w.timeout())
		require.NoError(t, o.Observe(w.context())) // it went on trying
	})
}

// What passes is tried again, and when the wait ends first its error says why it
// waited. It is logged once.
func TestLastAnswerStandsInTheError(t *testing.T) {
	for name, test := range map[string]struct {
		match func(*testutil.Request) bool
		wait  func(ctx context.Context, w *world, a *member) error
	}{
		"Vote":     {isBallotCreation, func(ctx context.Context, _ *world, a *member) error { return a.Vote(ctx) }},
		"parents":  {isParentCreation, func(ctx context.Context, _ *world, a *member) error { return a.Vote(ctx) }},
		"Campaign": {isAcknowledgement, func(ctx context.Context, _ *world, a *member) error { return second(a.Campaign(ctx)) }},
		"Run": {isBallotCreation, func(ctx context.Context, _ *world, a *member) error {
			return a.Run(ctx, func(context.Context, election.Term) error { return nil })
		}},
		"Proclaim": {isProclamation, func(ctx context.Context, _ *world, a *member) error {
			a.lead()
			return a.Proclaim(ctx, []byte("x"))
		}},
		"Resign": {isWithdrawal, func(ctx context.Context, _ *world, a *member) error {
			a.lead()
			return a.Resign(ctx)
		}},
		"Leader":      {opIs(testutil.OpGetData), func(ctx context.Context, _ *world, a *member) error { return second(a.Leader(ctx)) }},
		"LeaderAcked": {opIs(testutil.OpGetData), func(ctx context.Context, _ *world, a *member) error { return second(a.LeaderAcked(ctx)) }},
		"LeaderSync":  {opIs(testutil.OpMulti), func(ctx context.Context, _ *world, a *member) error { return second(a.LeaderSync(ctx)) }},
		"Ballots":     {opIs(testutil.OpGetChildren2), func(ctx context.Context, _ *world, a *member) error { return second(a.Ballots(ctx)) }},
		"Observe": {opIs(testutil.OpExists, testutil.OpGetData), func(ctx context.Context, w *world, a *member) error {
			return w.observer(a.node, &journal{}).Observe(ctx)
		}},
		"AwaitConnected": {opIs(testutil.OpSync), func(ctx context.Context, w *world, _ *member) error {
			s, err := election.Connect(w.servers, w.timeout(), &election.SessionOptions{Dialer: w.dial, Logger: w.logger()})
			if err != nil {
				return err
			}
			defer s.Close()
			w.renewed(s) // the first session has nothing to wait for
			return s.AwaitConnected(ctx)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			virtually(t, func(t *testing.T, w *world) {
				a := w.member("a", &journal{})
				_, cancel := w.answering(throttled, test.match)
				ctx, stop := context.WithTimeout(context.Background(), 2*w.timeout())
				defer stop()
				err := test.wait(slowContext{ctx}, w, a)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.ErrorIs(t, err, throttled)
				assert.Contains(t, err.Error(), "context deadline exceeded (last answer: request throttled (-127))")
				assert.LessOrEqual(t, w.said(throttled), 1, "%s", w.log.String())
				cancel()
				time.Sleep(3 * w.timeout())
				a.lead() // and it is over
				ended, stop := context.WithCancel(context.Background())
				stop()
				assert.NotErrorIs(t, a.Vote(ended), throttled)
			})
		})
	}
}

// A slowContext takes a second to say why it has ended: a call that reads its last
// answer only behind that finds what it has given up meanwhile.
type slowContext struct{ context.Context }

func (c slowContext) Err() error {
	err := c.Context.Err()
	if err != nil {
		time.Sleep(time.Second)
	}
	return err
}

// Who asks for a transfer is told the last answer, and not that there was none.
func TestTransferSaysTheLastAnswer(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		line := w.settledLine(&journal{}, 2)
		by := w.member("operator", &journal{})
		w.heard()
		to := line[1].ballotOf()
		_, cancel := w.answering(throttled, func(r *testutil.Request) bool { return r.SessionID == by.node.ID() })
		defer cancel()
		ctx, stop := context.WithTimeout(context.Background(), w.timeout())
		defer stop()
		err := by.Transfer(ctx, to)
		require.ErrorIs(t, err, election.ErrTransferBlocked)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, throttled)
		assert.NotContains(t, err.Error(), "no server has answered")
	})
}

// Somebody has put a node of his own, with children, where the acknowledgement belongs: it cannot be replaced, so
// the takeover fails, and everybody is told why.
func TestAcknowledgementThatHasChildren(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.member("a", j)
		stranger := w.client()
		for _, path := range []string{"/_zkelection", a.RootVotePath(), a.LeaderAckPath(), a.LeaderAckPath() + "/child"} {
			require.NoError(t, second(stranger.Create(path, nil, 0, zk.WorldACL(zk.PermAll))))
		}
		ctx, cancel := context.WithTimeout(context.Background(), 4*w.timeout())
		defer cancel()
		_, err := a.Campaign(ctx)
		require.ErrorIs(t, err, election.ErrTakeoverFailed)
		require.ErrorIs(t, err, zk.ErrNotEmpty)
		require.NoError(t, stranger.Delete(a.LeaderAckPath()+"/child", -1))
		a.lead()
	})
}

// On a real ZooKeeper that enforces quotas: the refused ballot and the refused
// acknowledgement.
func TestQuotaExceeded(t *testing.T) {
	ensemble := realzk.StartZooKeeperWith(t, 1, realzk.EnsembleOptions{Config: []string{"enforceQuota=true"}})
	w := &world{t: t, servers: ensemble.Servers(), dial: net.DialTimeout}
	operator := w.client()
	const exceeded = election.ErrorCode(-125)
	for _, test := range []struct {
		name  string
		nodes int // the election's node counts, too
		check func(t *testing.T, a *member)
	}{
		{"no ballot", 1, func(t *testing.T, a *member) {
			err := a.Vote(w.context())
			require.ErrorIs(t, err, exceeded)
			assert.Contains(t, err.Error(), "quota exceeded (-125)")
		}},
		{"no acknowledgement", 2, func(t *testing.T, a *member) {
			_, err := a.Campaign(w.context())
			require.ErrorIs(t, err, election.ErrTakeoverFailed)
			require.ErrorIs(t, err, exceeded)
			assert.False(t, a.IsLeader())
		}},
		{"enough", 3, func(_ *testing.T, a *member) { a.lead() }},
	} {
		n := w.session()
		c, err := election.NewCandidate(n.Session, strings.ReplaceAll(test.name, " ", "-"), nil)
		require.NoError(t, err)
		a := &member{Candidate: c, w: w, node: n, id: "a", journal: &journal{}}
		create := func(path, data string) {
			var made string
			for part := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
				made += "/" + part
				content := []byte{}
				if made == path {
					content = []byte(data)
				}
				if _, err := operator.Create(made, content, 0, zk.WorldACL(zk.PermAll)); err != nil && !errors.Is(err, zk.ErrNodeExists) {
					require.NoError(t, err, made)
				}
			}
		}
		create(a.RootVotePath(), "")
		quota := "/zookeeper/quota" + a.RootVotePath()
		create(quota+"/zookeeper_stats", "count=1,bytes=0")
		create(quota+"/zookeeper_limits", fmt.Sprintf("count=-1,bytes=-1=;byteHardLimit=-1;countHardLimit=%d", test.nodes))
		t.Run(test.name, func(t *testing.T) { test.check(t, a) })
		w.until("no ballot but the leader's", func() bool {
			return a.IsLeader() == (len(ballotNames(w.children(operator, a.RootVotePath()))) == 1)
		})
	}
}

// closedElection makes an election's node on which the world has the given
// permissions, and the returned operator all of them.
func (w *world) closedElection(path string, world int32) *zk.Conn {
	w.t.Helper()
	operator := w.client()
	require.NoError(w.t, operator.AddAuth("digest", []byte("operator:secret")))
	acl := append(zk.DigestACL(zk.PermAll, "operator", "secret"), zk.WorldACL(world)...)
	if _, err := operator.Create("/_zkelection", []byte{}, 0, zk.WorldACL(zk.PermAll)); err != nil {
		require.ErrorIs(w.t, err, zk.ErrNodeExists)
	}
	_, err := operator.Create(path, []byte{}, 0, acl)
	require.NoError(w.t, err)
	return operator
}

// Who may create, but neither list nor read, gets an error and leaves nothing.
func TestWhoMayNotReadLeavesNoBallot(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		a := w.member("a", &journal{})
		operator := w.closedElection(a.RootVotePath(), zk.PermCreate|zk.PermDelete)
		for range 3 {
			require.ErrorIs(t, a.Vote(w.context()), zk.ErrNoAuth)
			assert.Empty(t, w.children(operator, a.RootVotePath()))
		}
		// Nor does one whose own ballot may not be read by anybody.
		_, err := operator.SetACL(a.RootVotePath(), zk.WorldACL(zk.PermAll), -1)
		require.NoError(t, err)
		a.lead()
	})
}

// Nor when the first answer to the question for its ballot passes, or its
// candidate leaves meanwhile.
func TestUnreadableBallotAfterTrouble(t *testing.T) {
	for _, resigns := range []bool{false, true} {
		virtually(t, func(t *testing.T, w *world) {
			a := w.member("a", &journal{})
			operator := w.closedElection(a.RootVotePath(), zk.PermCreate|zk.PermDelete)
			_, cancel := w.answering(throttled, opIs(testutil.OpGetChildren2, testutil.OpDelete))
			voted := make(chan error, 1)
			go func() { voted <- a.Vote(w.context()) }()
			time.Sleep(w.timeout())
			if resigns {
				go func() { _ = a.Resign(w.context()) }()
				synctest.Wait()
				cancel()
				require.ErrorIs(t, <-voted, election.ErrResigned)
			} else {
				cancel()
				require.ErrorIs(t, <-voted, zk.ErrNoAuth)
			}
			w.until("the ballot to go", func() bool { return len(w.children(operator, a.RootVotePath())) == 0 })
		})
	}
}

// Nor does the acknowledgement wait for a recheck that was refused while OnWin ran, or for one after a
// reconnection: it asks for the ballot itself.
func TestAcknowledgementAfterARefusal(t *testing.T) {
	for _, reconnects := range []bool{false, true} {
		virtually(t, func(t *testing.T, w *world) {
			a := w.member("a", &journal{})
			hold := make(chan struct{})
			a.OnWin(func(context.Context, election.Term) error { <-hold; return nil })
			a.vote()
			w.until("a to take over", a.IsLeader)
			rechecks := make(chan struct{}, 100)
			stop := w.srv.Control(testutil.AnyOp, func(r *testutil.Request) testutil.Action {
				if r.SessionID != a.node.ID() || r.Path != a.VotePath() {
					return testutil.Pass
				}
				rechecks <- struct{}{}
				return testutil.Fail(zk.ErrNoAuth)
			})
			if reconnects {
				w.srv.DropConnections()
				time.Sleep(w.timeout() / 16)
				assert.Empty(t, rechecks, "a request before the acknowledgement")
			} else {
				<-rechecks
				synctest.Wait()
			}
			stop()
			began := time.Now()
			close(hold)
			w.until("the acknowledgement", func() bool { return !a.Status().AcknowledgedAt.IsZero() })
			assert.Less(t, time.Since(began), w.timeout()/8)
		})
	}
}

// TestTransferAfterARefusal: a leader whose recheck was refused passes leadership on at once, and a
// target whose recheck was refused takes it at once.
func TestTransferAfterARefusal(t *testing.T) {
	for _, of := range []int{0, 1} {
		settled(t, 2, func(t *testing.T, w *world, line []*member) {
			refused := make(chan struct{}, 100)
			m := line[of]
			stop := w.srv.Control(testutil.AnyOp, func(r *testutil.Request) testutil.Action {
				if r.SessionID != m.node.ID() || r.Op != testutil.OpExists && r.Op != testutil.OpGetChildren2 {
					return testutil.Pass
				}
				refused <- struct{}{}
				return testutil.Fail(zk.ErrNoAuth)
			})
			<-refused
			synctest.Wait()
			stop()
			began := time.Now()
			require.NoError(t, line[0].Transfer(w.context(), line[1].ballotOf()))
			assert.Less(t, time.Since(began), w.timeout()/8)
		})
	}
}

// TestWhoAsksAgainDoesNotWait: what was refused is tried again for whoever asks for it next, and not only when it would be by
// itself.
func TestWhoAsksAgainDoesNotWait(t *testing.T) {
	resign := func(w *world, a *member) error { return a.Resign(w.context()) }
	for _, test := range []struct {
		name          string
		before, again func(w *world, a *member) error
	}{
		{"Resign", resign, resign},
		{"Close", resign, func(_ *world, a *member) error { return a.Close() }},
		{"Vote", resign, func(w *world, a *member) error { return a.Vote(w.context()) }},
		{"Campaign", resign, func(w *world, a *member) error { return second(a.Campaign(w.context())) }},
		{"Run", resign, func(w *world, a *member) error {
			return a.Run(w.context(), func(context.Context, election.Term) error { return nil })
		}},
		{"StandWhile", resign, func(w *world, a *member) error {
			ctx, cancel := context.WithCancel(w.context())
			defer cancel()
			won, ended := make(chan struct{}), make(chan error, 1)
			a.OnWin(func(context.Context, election.Term) error { close(won); return nil })
			go func() { ended <- a.StandWhile(ctx, func(context.Context) error { return nil }, time.Second) }()
			select {
			case <-won:
				cancel()
				require.ErrorIs(w.t, <-ended, context.Canceled)
				return nil
			case err := <-ended:
				return err
			}
		}},
		{"Proclaim", func(w *world, a *member) error {
			require.NoError(w.t, w.client().Delete(a.LeaderAckPath(), -1)) // so that it has to be written again
			return a.Proclaim(w.context(), []byte("x"))
		}, func(w *world, a *member) error { return a.Proclaim(w.context(), []byte("y")) }},
	} {
		for _, want := range []error{nil, zk.ErrNoAuth} {
			t.Run(fmt.Sprintf("%s, then %v", test.name, want), func(t *testing.T) {
				virtually(t, func(t *testing.T, w *world) {
					a := w.member("a", &journal{}).lead()
					stop := w.srv.Control(testutil.OpMulti, func(r *testutil.Request) testutil.Action {
						if slices.ContainsFunc(r.Ops, func(op testutil.Request) bool { return op.Op == testutil.OpCreate || op.Op == testutil.OpDelete }) {
							return testutil.Fail(zk.ErrNoAuth)
						}
						return testutil.Pass
					})
					defer stop()
					require.ErrorIs(t, test.before(w, a), zk.ErrNoAuth)
					if want == nil {
						stop()
					}
					began := time.Now()
					require.ErrorIs(t, test.again(w, a), want)
					assert.Less(t, time.Since(began), w.timeout()/8)
				})
			})
		}
	}
}

// Without the right to read, Observe says so at once, as Leader does; what only
// waits for a leader has it logged.
func TestWhoMayNotReadIsTold(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		leader := w.member("leader", j)
		operator := w.closedElection(leader.RootVotePath(), zk.PermAll)
		leader.lead()
		_, err := operator.SetACL(leader.LeaderAckPath(), zk.DigestACL(zk.PermAll, "operator", "secret"), -1)
		require.NoError(t, err)

		n := w.session()
		o := w.observer(n, j)
		began := time.Now()
		require.ErrorIs(t, second(o.Leader(w.context())), zk.ErrNoAuth)
		require.ErrorIs(t, o.Observe(w.context()), zk.ErrNoAuth)
		again := w.observer(n, j)
		require.ErrorIs(t, again.Observe(w.context()), zk.ErrNoAuth)
		if w.virtual() {
			assert.Less(t, time.Since(began), w.timeout()/2)
		}
		assert.Contains(t, w.log.String(), "cannot read the acknowledgement")
		_, known := o.LeaderAlive()
		assert.False(t, known)
		_, err = operator.SetACL(leader.LeaderAckPath(), zk.WorldACL(zk.PermAll), -1)
		require.NoError(t, err)
		w.await(j, "new leader leader")
		require.NoError(t, o.Observe(w.context()))
	})
}

// A request that is refused is repeated as rarely as the periodic recheck. The withdrawal is another one, and
// does not wait for that: others would wait with it.
func TestWithdrawalAfterARefusal(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.member("a", j).lead()
		b := w.member("b", j).vote()
		for _, m := range []*member{b, a} {
			refused := make(chan struct{}, 1)
			stop := w.srv.Control(testutil.AnyOp, func(r *testutil.Request) testutil.Action {
				if r.SessionID != m.node.ID() || r.Path != m.VotePath() && r.Path != m.RootVotePath() {
					return testutil.Pass
				}
				select {
				case refused <- struct{}{}:
				default:
				}
				return testutil.Fail(zk.ErrNoAuth)
			})
			<-refused
			synctest.Wait()
			stop()
			began := time.Now()
			m.resign()
			assert.Less(t, time.Since(began), w.timeout()/8, "%s has resigned", m.id)
		}
	})
}
