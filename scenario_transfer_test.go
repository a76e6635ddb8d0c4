package election_test

import (
	"context"
	"errors"
	"fmt"
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

// Leadership that moves on purpose.

// ballotOf returns a member's ballot, as an operator's tool has it.
func (m *member) ballotOf() election.Ballot {
	m.w.t.Helper()
	var found election.Ballot
	m.w.until(m.id+"'s ballot", func() bool { // a leader that has just passed leadership on is getting another
		ballots, err := m.Ballots(m.w.context())
		require.NoError(m.w.t, err)
		for _, b := range ballots {
			if b.Path == m.VotePath() {
				found = b
				return true
			}
		}
		return false
	})
	return found
}

// line names the members in line, in order.
func (w *world) line(conn *zk.Conn, path string) (line []string) {
	w.t.Helper()
	type place struct{ number, data string }
	var all []place
	for _, name := range w.children(conn, path) {
		if !strings.HasPrefix(name, "ballot") {
			continue
		}
		data, _, err := conn.Get(path + "/" + name)
		if errors.Is(err, zk.ErrNoNode) {
			continue
		}
		require.NoError(w.t, err)
		all = append(all, place{name[len(name)-10:], string(data)})
	}
	slices.SortFunc(all, func(a, b place) int { return strings.Compare(a.number, b.number) })
	for _, p := range all {
		line = append(line, p.data)
	}
	return line
}

// noRequest waits until nothing of a request is left.
func (w *world) noRequest(path string) {
	w.t.Helper()
	conn := w.client()
	w.until("the request to be removed", func() bool {
		return !slices.ContainsFunc(w.children(conn, path), func(name string) bool { return strings.HasPrefix(name, "transfer") })
	})
}

// settledLine makes members a, b, c... of which the first leads.
func (w *world) settledLine(j *journal, n int, opts ...func(*election.CandidateOptions)) (line []*member) {
	w.t.Helper()
	for i := range n {
		m := w.member(string(rune('a'+i)), j, opts...)
		if i == 0 {
			m.lead()
		} else {
			m.vote()
			w.await(j, m.id+" lost to a")
		}
		line = append(line, m)
	}
	return line
}

func TestTransferToTheLast(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j, oj := &journal{}, &journal{}
		line := w.settledLine(j, 4, followLeader)
		a, b, c, d := line[0], line[1], line[2], line[3]
		o := w.observer(w.session(), oj)
		require.NoError(t, o.Observe(w.context()))
		to := d.ballotOf()
		require.NoError(t, a.Transfer(w.context(), to))
		leader, err := b.LeaderSync(w.context())
		require.NoError(t, err)
		assert.Equal(t, "d", string(leader.Data))
		assert.True(t, d.IsLeader())
		assert.False(t, a.IsLeader())
		assert.Equal(t, to.Path, d.VotePath(), "the target keeps its ballot")
		for _, m := range []*member{a, b, c} {
			w.await(j, m.id+" lost to d")
		}
		w.await(oj, "new leader d")
		w.same("observer", oj.all(), []string{"new leader a", "dead leader a", "new leader d"})
		conn := w.client()
		got := w.line(conn, a.RootVotePath())
		require.Len(t, got, 4)
		assert.Equal(t, "d", got[0])
		assert.Equal(t, "a", got[3], "the former leader is the last")
		assert.Equal(t, 1, j.count("a stepped down: passed on"))
		for _, event := range []string{"b won", "c won", "b lost to a twice"} {
			assert.False(t, j.has(event), event)
		}
		assert.Equal(t, 1, j.count("b lost to a"), "OnLose is told once of each leader")
		assert.Greater(t, d.term.Load().Token, a.term.Load().Token)
		w.noRequest(a.RootVotePath())
		assert.NotContains(t, w.log.String(), "ballot lost")
	})
}

func TestTransferThereAndBack(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		line := w.settledLine(j, 2)
		a, b := line[0], line[1]
		for range 3 {
			require.NoError(t, a.Transfer(w.context(), b.ballotOf()))
			assert.True(t, b.IsLeader())
			assert.False(t, a.IsLeader())
			require.NoError(t, a.Transfer(w.context(), a.ballotOf()))
			assert.True(t, a.IsLeader())
			assert.False(t, b.IsLeader())
		}
		assert.Equal(t, 4, j.count("a won"))
		assert.Equal(t, 3, j.count("b won"))
	})
}

func TestTransferAskedByAnybody(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		line := w.settledLine(j, 3)
		by := w.member("operator", j) // which does not stand
		for i, asker := range []*member{by, line[1], line[2], line[0]} {
			target := line[(i+1)%3]
			require.NoError(t, asker.Transfer(w.context(), target.ballotOf()), "asked by %s", asker.id)
			assert.True(t, target.IsLeader())
		}
		assert.Empty(t, by.VotePath())
	})
}

func TestTransferToTheLeader(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.member("a", j).lead()
		require.NoError(t, a.Transfer(w.context(), a.ballotOf()))
		w.same("journal", j.all(), []string{"a won"})
		w.noRequest(a.RootVotePath())
	})
}

func TestTransferTargetGone(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		line := w.settledLine(j, 3)
		a, b, c := line[0], line[1], line[2]
		former := c.ballotOf()
		c.resign()
		c.vote() // the same candidate with another ballot
		require.ErrorIs(t, b.Transfer(w.context(), former), election.ErrTransferTargetGone)
		require.ErrorIs(t, a.Transfer(w.context(), former), election.ErrTransferTargetGone)
		w.noRequest(a.RootVotePath())

		// It goes while it is asked for.
		hold := make(chan struct{})
		cancel := a.OnStepDown(func(context.Context, election.Term, error) { c.resign(); close(hold) })
		err := b.Transfer(w.context(), c.ballotOf())
		require.ErrorIs(t, err, election.ErrTransferTargetGone)
		<-hold
		cancel()
		w.until("a to lead again", a.IsLeader)
		w.noRequest(a.RootVotePath())
		assert.Equal(t, []string{"a", "b"}, sorted(w.line(w.client(), a.RootVotePath())))

		for _, path := range []string{"", "/", a.RootVotePath(), a.RootVotePath() + "/leader_ack", a.RootVotePath() + "x" + former.Path[len(a.RootVotePath()):], former.Path + "/x"} {
			assert.ErrorIs(t, a.Transfer(w.context(), election.Ballot{Path: path}), election.ErrInvalidPath, path)
		}
	})
}

func sorted(all []string) []string { slices.Sort(all); return all }

func TestTransferOneAtATime(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		line := w.settledLine(j, 3)
		a, b, c := line[0], line[1], line[2]
		asked, goOn := make(chan struct{}), make(chan struct{})
		defer a.OnStepDown(func(context.Context, election.Term, error) { close(asked); <-goOn })()
		first := make(chan error, 1)
		to := c.ballotOf()
		go func() { first <- a.Transfer(w.context(), to) }()
		<-asked
		err := b.Transfer(w.context(), to)
		require.ErrorIs(t, err, election.ErrTransferUnderWay)
		assert.ErrorContains(t, err, to.Path[strings.LastIndex(to.Path, "/")+1:], "it says to whom")
		close(goOn)
		require.NoError(t, <-first)
		assert.True(t, c.IsLeader())
	})
}

// blockedBy checks the error of a transfer that somebody has not moved for.
func blockedBy(t *testing.T, err error, words ...string) {
	t.Helper()
	require.ErrorIs(t, err, election.ErrTransferBlocked)
	assert.Equal(t, 1, strings.Count(err.Error(), "election: "), "%v", err)
	for _, word := range words {
		assert.ErrorContains(t, err, word)
	}
}

func TestTransferGemBetween(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.member("a", j).lead()
		b := w.member("b", j).vote()
		g := w.gem().vote()
		c := w.member("c", j).vote()
		w.await(j, "c lost to a")
		err := c.Transfer(w.context2T(), c.ballotOf())
		blockedBy(t, err, g.path[len(g.root)+1:], fmt.Sprintf("0x%x", g.conn.SessionID()), `"gem"`, `"asked"`, "has not moved")
		assert.True(t, a.IsLeader())
		w.noRequest(a.RootVotePath())
		assert.Equal(t, []string{"a", "gem", "c", "b"}, w.line(w.client(), a.RootVotePath()), "nothing is lost but places")
		assert.Equal(t, 1, j.count("a won"))

		// And the gem's ballot is no target.
		ballots, err := a.Ballots(w.context())
		require.NoError(t, err)
		blockedBy(t, a.Transfer(w.context(), ballots[1]), "the gem")
		g.leave()
		require.NoError(t, c.Transfer(w.context(), c.ballotOf()))
		_ = b
	})
}

// context2T gives a transfer that is to fail no more time than it needs.
func (w *world) context2T() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*w.timeout())
	w.t.Cleanup(cancel)
	return ctx
}

func TestTransferGemLeads(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		g := w.gem().vote()
		g.acknowledge()
		b := w.member("b", j).vote()
		w.await(j, "b lost to gem")
		blockedBy(t, b.Transfer(w.context2T(), b.ballotOf()), g.path[len(g.root)+1:], "leads", `"ready"`)
		assert.True(t, g.isLeader())
		w.noRequest(b.RootVotePath())
		g.leave()
		w.await(j, "b won")
	})
}

// TestTransferOldMembers: names of the version before, which shows no priority.
func TestTransferOldMembers(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.member("a", j).lead()
		old := w.client()
		path, err := old.Create(a.RootVotePath()+"/ballot-"+strings.Repeat("0f", 16)+"-", []byte("old"), zk.FlagEphemeral|zk.FlagSequence, zk.WorldACL(zk.PermAll))
		require.NoError(t, err)
		c := w.member("c", j).vote()
		w.await(j, "c lost to a")
		blockedBy(t, a.Transfer(w.context2T(), c.ballotOf()), path[len(a.RootVotePath())+1:], `"old"`)
		assert.True(t, a.IsLeader())
		require.NoError(t, old.Delete(path, -1))
		require.NoError(t, a.Transfer(w.context(), c.ballotOf()))
	})
}

// Leadership is not handed to one that is dead and has not expired yet.
func TestTransferTargetNotReady(t *testing.T) {
	virtually(t, transferTargetNotReady)
}

func transferTargetNotReady(t *testing.T, w *world) {
	j := &journal{}
	line := w.settledLine(j, 3)
	a, b, c := line[0], line[1], line[2]
	to := c.ballotOf()
	// What it sends is refused, but for its pings: a process that hangs.
	id := c.node.ID()
	stop := w.srv.Control(testutil.OpMulti, func(r *testutil.Request) testutil.Action {
		if r.SessionID == id {
			return testutil.Fail(testutil.ErrorCode(-127))
		}
		return testutil.Pass
	})
	err := b.Transfer(context.Background(), to)
	blockedBy(t, err, to.Path[len(a.RootVotePath())+1:], "ready", fmt.Sprintf("0x%x", id), `"c"`)
	assert.NotErrorIs(t, err, context.DeadlineExceeded, "nobody gave it one")
	assert.True(t, a.IsLeader())
	assert.Equal(t, 1, j.count("a won"))
	assert.False(t, j.has("a stepped down: passed on"))
	stop()
	require.NoError(t, b.Transfer(w.context(), to))
	assert.True(t, c.IsLeader())
}

func TestTransferCancelled(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.member("a", j).lead()
		w.gem().vote()
		c := w.member("c", j).vote()
		w.await(j, "c lost to a")
		ctx, cancel := context.WithCancel(w.context())
		done := make(chan error, 1)
		to := c.ballotOf()
		go func() { done <- c.Transfer(ctx, to) }()
		conn := w.client()
		w.until("the request", func() bool {
			return slices.Contains(w.children(conn, a.RootVotePath()), "transfer")
		})
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
		w.noRequest(a.RootVotePath())
		assert.True(t, a.IsLeader())

		ended, cancel := context.WithCancel(context.Background())
		cancel()
		require.ErrorIs(t, c.Transfer(ended, to), context.Canceled)
		require.NoError(t, c.Close())
		require.ErrorIs(t, c.Transfer(w.context(), to), election.ErrClosed)
	})
}

// Two candidates of one election share a session, and so do their acknowledgements.
func TestTransferOnOneSession(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		n := w.session()
		a := w.memberOn(n, "a", j).lead()
		b := w.memberOn(n, "b", j).vote()
		c := w.memberOn(n, "c", j).vote()
		w.await(j, "c lost to a")
		require.NoError(t, b.Transfer(w.context(), c.ballotOf()))
		leader, err := a.LeaderSync(w.context())
		require.NoError(t, err)
		assert.Equal(t, "c", string(leader.Data))
		assert.True(t, c.IsLeader())
		require.NoError(t, b.Transfer(w.context(), b.ballotOf()))
		assert.True(t, b.IsLeader())
	})
}

func TestTransferBetweenRuns(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		a, b := w.member("a", j), w.member("b", j)
		ctx, cancel := context.WithCancel(w.context())
		defer cancel()
		ran := make(chan string, 10)
		ended := make(chan error, 2)
		var inside atomic.Int64
		start := func(m *member) {
			go func() {
				ended <- m.Run(ctx, func(ctx context.Context, _ election.Term) error {
					assert.LessOrEqual(t, inside.Add(1), int64(1), "two lead")
					ran <- m.id
					<-ctx.Done()
					inside.Add(-1)
					assert.Error(t, m.Transfer(ctx, election.Ballot{Path: m.VotePath()}), "a transfer from inside Run's function would wait for itself")
					return nil
				})
			}()
		}
		start(a)
		require.Equal(t, "a", <-ran)
		start(b)
		w.await(j, "b lost to a")
		require.NoError(t, b.Transfer(w.context(), b.ballotOf()))
		require.Equal(t, "b", <-ran)
		w.await(j, "a lost to b")
		require.NoError(t, b.Transfer(w.context(), a.ballotOf()))
		require.Equal(t, "a", <-ran, "it has gone on to contend")
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
		require.ErrorIs(t, <-ended, context.Canceled)
	})
}

// A leader whose callbacks hang keeps nobody from leading, in a transfer neither.
func TestTransferWhileCallbacksHang(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.member("a", j, func(o *election.CandidateOptions) { o.StepDownTimeout = 300 * time.Millisecond }).lead()
		hang := make(chan struct{})
		a.OnStepDown(func(context.Context, election.Term, error) { <-hang })
		b := w.member("b", j).vote()
		w.await(j, "b lost to a")
		require.NoError(t, b.Transfer(w.context(), b.ballotOf()))
		assert.True(t, b.IsLeader())
		w.until("a to know that its ballot is withdrawn", func() bool { return a.VotePath() == "" })
		close(hang)
		w.await(j, "a lost to b") // it votes when the callback has returned
		w.noRequest(a.RootVotePath())
	})
}

// The target's takeover fails: whoever stands behind it leads.
func TestTransferToFailingTakeover(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		line := w.settledLine(j, 3)
		a, b, c := line[0], line[1], line[2]
		c.OnWin(func(context.Context, election.Term) error { return errors.New("cannot take over") })
		err := b.Transfer(w.context(), c.ballotOf())
		require.ErrorIs(t, err, election.ErrTransferTargetGone)
		w.until("somebody to lead", func() bool { return a.IsLeader() || b.IsLeader() })
		w.noRequest(a.RootVotePath())
		w.until("c to come back with the lowest priority", func() bool { return c.Voted() && c.Status().Priority == -9 })
	})
}

func withPriority(p int) func(*election.CandidateOptions) {
	return func(o *election.CandidateOptions) { o.Priority = p }
}

func TestBetterPriorityIsNext(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.member("a", j, withPriority(-9)).lead()
		priorities, want := []int{0, 5, -3, 9}, []string{"a", "e", "c", "b", "d"}
		if !w.virtual() { // each move takes some session timeouts
			priorities, want = []int{0, 5}, []string{"a", "c", "b"}
		}
		for i, p := range priorities {
			assert.Equal(t, p, w.member(string(rune('b'+i)), j, withPriority(p)).vote().Status().Priority)
		}
		conn := w.client()
		w.until("the line to be in order", func() bool { return slices.Equal(w.line(conn, a.RootVotePath()), want) })
		assert.True(t, a.IsLeader(), "a leader is never unseated by priority")
		assert.Equal(t, 1, j.count("a won"))
		w.gem().vote()
		ballots, err := a.Ballots(w.context())
		require.NoError(t, err)
		shown := map[string]int{}
		for _, b := range ballots {
			shown[string(b.Data)] = b.Priority
		}
		all := map[string]int{"a": -9, "gem": 0}
		for i, p := range priorities {
			all[string(rune('b'+i))] = p
		}
		assert.Equal(t, all, shown)
		_, err = election.NewCandidate(a.node.Session, w.name(), &election.CandidateOptions{Priority: 10})
		require.Error(t, err)
	})
}

func TestSetPriority(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		line := w.settledLine(j, 3)
		a, b, c := line[0], line[1], line[2]
		require.Error(t, b.SetPriority(w.context(), -10))
		before := b.VotePath()
		require.NoError(t, b.SetPriority(w.context(), 3))
		assert.NotEqual(t, before, b.VotePath())
		assert.Equal(t, 3, b.Status().Priority)
		conn := w.client()
		assert.Equal(t, []string{"a", "c", "b"}, w.line(conn, a.RootVotePath()))
		w.until("the other one to give way", func() bool {
			return slices.Equal(w.line(conn, a.RootVotePath()), []string{"a", "b", "c"})
		})
		require.NoError(t, a.SetPriority(w.context(), 7), "of a leader: with its next ballot")
		assert.True(t, a.IsLeader())
		a.resign()
		require.NoError(t, a.SetPriority(w.context(), 8))
		a.vote()
		assert.Equal(t, 8, a.Status().Priority)
		require.NoError(t, c.Close())
		require.ErrorIs(t, c.SetPriority(w.context(), 1), election.ErrClosed)
	})
}

// readiness is a function for StandWhile.
type readiness struct{ err atomic.Pointer[error] }

func (r *readiness) ready(context.Context) error {
	if err := r.err.Load(); err != nil {
		return *err
	}
	return nil
}

func (r *readiness) set(err error) {
	if err == nil {
		r.err.Store(nil)
		return
	}
	r.err.Store(&err)
}

// checkedEvery is also what a call may take, on machines on which a goroutine may have to wait long for its turn.
const checkedEvery = 500 * time.Millisecond

var errLag = errors.New("the replica lags")

func TestStandWhile(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.member("a", j)
		r := &readiness{}
		r.set(errLag)
		ctx, cancel := context.WithCancel(w.context())
		done := make(chan error, 1)
		go func() { done <- a.StandWhile(ctx, r.ready, checkedEvery) }()
		w.until("why it does not stand", func() bool { return errors.Is(a.Status().Absence, errLag) })
		assert.Empty(t, a.VotePath())
		assert.False(t, a.Status().Standing)
		require.ErrorIs(t, a.Vote(w.context()), errLag, "a Vote is told why")
		r.set(nil)
		w.await(j, "a won")
		w.until("it to stand", func() bool { return a.Status().Standing })
		assert.NoError(t, a.Status().Absence)
		b := w.member("b", j).vote()
		r.set(errLag)
		w.await(j, "a stepped down: resigned")
		w.await(j, "b won")
		w.until("a to withdraw", func() bool { return a.VotePath() == "" })
		require.ErrorIs(t, a.Status().Absence, errLag)
		require.ErrorIs(t, a.Status().Absence, election.ErrResigned)
		r.set(nil)
		w.await(j, "a lost to b")
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
		assert.Empty(t, a.VotePath(), "it has resigned")
		assert.True(t, b.IsLeader())
	})
}

func TestStandWhileBesideRun(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.member("a", j)
		r := &readiness{}
		ctx, cancel := context.WithCancel(w.context())
		defer cancel()
		stands, runs := make(chan error, 1), make(chan error, 1)
		ran := make(chan struct{}, 10)
		go func() { stands <- a.StandWhile(ctx, r.ready, checkedEvery) }()
		go func() {
			runs <- a.Run(ctx, func(ctx context.Context, _ election.Term) error {
				ran <- struct{}{}
				<-ctx.Done()
				return nil
			})
		}()
		<-ran
		r.set(errLag)
		w.await(j, "a stepped down: resigned")
		w.until("a to stand aside", func() bool { return a.VotePath() == "" })
		r.set(nil)
		<-ran
		require.NoError(t, a.Close())
		require.ErrorIs(t, <-stands, election.ErrClosed)
		require.ErrorIs(t, <-runs, election.ErrClosed)
	})
}

// A Campaign that gives up before the candidate was ever ready ends what it has asked for, and
// not the StandWhile beside it, which nobody has resigned.
func TestStandWhileBesideCampaign(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		a := w.member("a", &journal{})
		r := &readiness{}
		r.set(errLag)
		done := make(chan error, 1)
		go func() { done <- a.StandWhile(w.context(), r.ready, 20*time.Millisecond) }()
		w.until("a to stand aside", func() bool { return errors.Is(a.Status().Absence, errLag) })
		err := a.Vote(w.context())
		require.ErrorIs(t, err, errLag)
		assert.Equal(t, 1, strings.Count(err.Error(), "election: "), "%v", err)
		ctx, cancel := context.WithTimeout(w.context(), time.Second)
		defer cancel()
		require.ErrorIs(t, second(a.Campaign(ctx)), context.DeadlineExceeded)
		r.set(nil)
		w.until("a to lead", a.IsLeader)
		require.Empty(t, done, "StandWhile has ended")
		a.resign()
		require.ErrorIs(t, <-done, election.ErrResigned)
	})
}

// With a Retry below zero nobody but a caller of Vote brings a candidate back: StandWhile, which
// would stand by without a ballot, says so. Otherwise it goes on.
func TestStandWhileWithFailedTakeover(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		for _, retry := range []time.Duration{-1, time.Second} {
			a := w.member("a", &journal{}, func(o *election.CandidateOptions) { o.Retry = retry })
			failed := errors.New("no disk")
			fails := make(chan error, 1)
			fails <- failed
			a.OnWin(func(context.Context, election.Term) error {
				select {
				case err := <-fails:
					return err
				default:
					return nil
				}
			})
			done := make(chan error, 1)
			go func() { done <- a.StandWhile(w.context(), (&readiness{}).ready, time.Second) }()
			if retry > 0 {
				w.until("a to lead", func() bool { return !a.Status().AcknowledgedAt.IsZero() })
				require.Empty(t, fails)
				require.Empty(t, done)
				a.resign()
				require.ErrorIs(t, <-done, election.ErrResigned)
				continue
			}
			err := <-done
			require.ErrorIs(t, err, election.ErrTakeoverFailed)
			require.ErrorIs(t, err, failed)
			a.lead() // and Vote brings it back
			a.resign()
		}
	})
}

func TestStandWhileEnds(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.member("a", j)
		stand := func(ready func(context.Context) error) chan error {
			done := make(chan error, 1)
			go func() { done <- a.StandWhile(w.context(), ready, checkedEvery) }()
			return done
		}
		ok := func(context.Context) error { return nil }
		done := stand(ok)
		w.await(j, "a won")
		require.ErrorContains(t, a.StandWhile(w.context(), ok, time.Second), "already running")
		a.resign()
		require.ErrorIs(t, <-done, election.ErrResigned)

		// A panic, and a call that does not return, are failures.
		done = stand(func(context.Context) error { panic("no disk") })
		w.until("the panic to be told", func() bool {
			absence := a.Status().Absence
			return absence != nil && strings.Contains(absence.Error(), "no disk")
		})
		a.resign()
		require.ErrorIs(t, <-done, election.ErrResigned)
		hang := make(chan struct{})
		var hangs atomic.Bool // once it leads: a slow server takes longer than the first calls
		done = stand(func(context.Context) error {
			if hangs.Load() {
				<-hang
			}
			return nil
		})
		w.until("a to lead", a.IsLeader)
		hangs.Store(true)
		w.until("a to stand aside", func() bool { return a.VotePath() == "" })
		absence := a.Status().Absence
		assert.ErrorContains(t, absence, "has not returned")
		assert.Equal(t, 1, strings.Count(absence.Error(), "election: "), "%v", absence)
		close(hang)
		w.until("a to lead again", a.IsLeader)
		require.NoError(t, a.Close())
		require.ErrorIs(t, <-done, election.ErrClosed)
		require.ErrorIs(t, a.StandWhile(w.context(), ok, 0), election.ErrClosed)
		require.Error(t, a.StandWhile(w.context(), ok, -1))
	})
}
