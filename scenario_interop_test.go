package election_test

import (
	"context"
	"errors"
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

// Members that are not this library: the Ruby gem casts ballots called
// ballot%010d and acknowledges with plain creates.

// gem is a member of the Ruby gem, played with a plain connection.
type gem struct {
	w    *world
	conn *zk.Conn
	root string
	path string
}

func (w *world) gem() *gem {
	return &gem{w: w, conn: w.client(), root: "/_zkelection/" + w.name()}
}

func (g *gem) vote() *gem {
	g.w.t.Helper()
	for _, path := range []string{"/_zkelection", g.root} {
		if _, err := g.conn.Create(path, nil, 0, zk.WorldACL(zk.PermAll)); err != nil && !errors.Is(err, zk.ErrNodeExists) {
			g.w.t.Fatal(err)
		}
	}
	path, err := g.conn.Create(g.root+"/ballot", []byte("gem"), everyone, zk.WorldACL(zk.PermAll))
	require.NoError(g.w.t, err)
	g.path = path
	return g
}

func (g *gem) acknowledge() {
	g.w.t.Helper()
	require.NoError(g.w.t, second(g.conn.Create(g.root+"/leader_ack", []byte("gem"), zk.FlagEphemeral, zk.WorldACL(zk.PermAll))))
}

// isLeader is how the gem decides: the first when sorted by the digits at the end.
func (g *gem) isLeader() bool {
	first, lowest := "", "a"
	for _, name := range ballotNames(g.w.children(g.conn, g.root)) {
		if digits := name[len(name)-10:]; digits < lowest {
			first, lowest = name, digits
		}
	}
	return g.path == g.root+"/"+first
}

func (g *gem) leave() {
	g.w.t.Helper()
	for _, path := range []string{g.root + "/leader_ack", g.path} {
		_, stat, err := g.conn.Exists(path)
		if err == nil && stat.EphemeralOwner == g.conn.SessionID() {
			err = g.conn.Delete(path, -1)
		}
		require.NoError(g.w.t, err)
	}
}

// awaitLeader is what the gem's losers do: they wait for an acknowledgement and
// look whose turn it is only once there has been one.
func (g *gem) awaitLeader() <-chan zk.Event {
	g.w.t.Helper()
	exists, _, created, err := g.conn.ExistsW(g.root + "/leader_ack")
	require.NoError(g.w.t, err, "acknowledged already: %v", exists)
	require.False(g.w.t, exists, "acknowledged already: %v", exists)
	return created
}

// A leader that withdraws before it has acknowledged wakes the gem member behind
// it, which would wait for that acknowledgement forever.
func TestGemBehindFailedTakeover(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		gemIsWoken(t, w, func(context.Context, *member) error { return errors.New("cannot take over") })
	})
}

func TestGemBehindResignation(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		gemIsWoken(t, w, func(ctx context.Context, a *member) error { return a.Resign(ctx) })
	})
}

func gemIsWoken(t *testing.T, w *world, win func(context.Context, *member) error) {
	j, oj := &journal{}, &journal{}
	a, b := w.member("a", j), w.member("b", j, followLeader)
	o := w.observer(w.session(), oj)
	require.NoError(t, o.Observe(w.context()))
	waits, release := make(chan struct{}), make(chan struct{})
	a.OnWin(func(ctx context.Context, _ election.Term) error {
		close(waits)
		<-release
		return win(ctx, a)
	})
	a.vote()
	<-waits
	g := w.gem().vote()
	created := g.awaitLeader()
	b.vote()
	close(release)
	select {
	case e := <-created:
		require.Equal(t, zk.EventNodeCreated, e.Type, "the gem is told %v", e)
	case <-time.After(w.patience()):
		t.Fatalf("the gem still waits\n%s", w.log.String())
	}
	require.True(t, g.isLeader(), "the gem is woken before its turn")
	if acked, err := b.LeaderAcked(w.context()); acked || err != nil {
		t.Fatalf("acknowledged: %v, %v", acked, err)
	}
	g.acknowledge()
	w.await(j, "b lost to gem")
	w.await(oj, "new leader gem")
	w.same("what our observer was told", oj.all(), []string{"dead leader ", "new leader gem"})
	require.Equal(t, 1, j.count("b lost to gem"), "journal %q", j.all())
	require.False(t, b.IsLeader(), "journal %q", j.all())
}

// voteUnanswered has a candidate vote whose ballot is made and not answered for, and whose network is down then.
func (w *world) voteUnanswered(a *member) {
	made := make(chan struct{})
	cancel := w.srv.Control(testutil.OpCreate, func(r *testutil.Request) testutil.Action {
		if !isBallotCreation(r) {
			return testutil.Pass
		}
		close(made)
		a.link().setDown(true)
		return testutil.LoseReply
	})
	defer cancel()
	go func() { _ = a.Vote(w.context()) }()
	<-made
	synctest.Wait()
}

// So does a ballot that its candidate never knew it had, and one whose place is not known when it goes.
func TestGemBehindAStray(t *testing.T) {
	for how, stray := range map[string]func(w *world, a *member, next func()){
		"the reply to its creation was lost": func(w *world, a *member, next func()) {
			w.voteUnanswered(a)
			next()
			go func() { _ = a.Resign(w.context()) }()
			synctest.Wait()
			a.link().setDown(false)
		},
		"it may not be watched": func(w *world, a *member, next func()) {
			held, release := w.holding(func(r *testutil.Request) bool { return r.Op == testutil.OpGetChildren2 && r.Path == a.RootVotePath() })
			cancel := w.srv.Control(testutil.AnyOp, func(r *testutil.Request) testutil.Action {
				if opIs(testutil.OpGetChildren2, testutil.OpExists)(r) && strings.HasPrefix(r.Path, a.RootVotePath()+"/ballot-") {
					return testutil.Fail(zk.ErrNoAuth)
				}
				return testutil.Pass
			})
			go func() { _ = a.Vote(w.context()) }()
			<-held
			next()
			release()
			time.Sleep(w.timeout() / 2)
			cancel()
		},
		"its place is not known": func(w *world, a *member, next func()) {
			first, second := w.gem().vote(), w.gem().vote()
			first.acknowledge()
			a.vote()
			time.Sleep(w.timeout())
			listed, cancel := w.answering(throttled, func(r *testutil.Request) bool {
				return r.Op == testutil.OpGetChildren2 && r.SessionID == a.node.ID() && r.Path == a.RootVotePath()
			})
			second.leave()
			w.until("a to look for its place", func() bool { return listed.Load() > 0 })
			first.leave()
			next()
			go func() { _ = a.Resign(w.context()) }()
			synctest.Wait()
			cancel()
		},
	} {
		t.Run(how, func(t *testing.T) {
			virtually(t, func(t *testing.T, w *world) {
				w.gem().vote().leave() // the election is there
				var g *gem
				var created <-chan zk.Event
				stray(w, w.member("a", &journal{}), func() {
					g = w.gem().vote()
					require.False(t, g.isLeader(), "there is no ballot in front")
					created = g.awaitLeader()
				})
				select {
				case e := <-created:
					require.Equal(t, zk.EventNodeCreated, e.Type, "the gem is told %v", e)
				case <-time.After(2 * w.timeout()):
					t.Fatalf("the gem still waits\n%s", w.log.String())
				}
				require.True(t, g.isLeader(), "the gem is woken before its turn")
				g.acknowledge()
			})
		})
	}
}

// Who may not make what wakes the gem member withdraws all the same.
func TestStrayGoesThoughNobodyCanBeWoken(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		w.gem().vote().leave()
		a, operator := w.member("a", &journal{}), w.client()
		w.voteUnanswered(a)
		asked, cancel := w.answering(-125, isAcknowledgement)
		defer cancel()
		g := w.gem().vote()
		resigned := make(chan error, 1)
		go func() { resigned <- a.Resign(w.context()) }()
		synctest.Wait()
		a.link().setDown(false)
		require.NoError(t, <-resigned)
		assert.Positive(t, asked.Load(), "nobody was to be woken")
		assert.Equal(t, []string{g.path[len(g.root)+1:]}, ballotNames(w.children(operator, g.root)))
	})
}

// The next in line is ours: nobody is woken, whoever is behind it.
func TestGemFurtherBehind(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		a, b := w.member("a", j), w.member("b", j)
		waits, release := make(chan struct{}), make(chan struct{})
		a.OnWin(func(context.Context, election.Term) error {
			close(waits)
			<-release
			return errors.New("cannot take over")
		})
		hold := make(chan struct{})
		b.OnWin(func(context.Context, election.Term) error { <-hold; return nil })
		a.vote()
		<-waits
		b.vote()
		g := w.gem().vote()
		created := g.awaitLeader()
		close(release)
		w.await(j, "b won")
		w.settle()
		select {
		case e := <-created:
			t.Fatalf("the gem is told %v", e)
		default:
		}
		close(hold)
		<-created // by b's acknowledgement
	})
}

func TestBehindTheGem(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		g := w.gem().vote()
		a := w.member("a", j).vote()
		o := w.observer(w.session(), j)
		require.NoError(t, o.Observe(w.context()))
		w.await(j, "dead leader ")
		w.settle()
		w.same("before the gem has acknowledged", j.all(), []string{"dead leader "})
		g.acknowledge()
		w.await(j, "a lost to gem")
		w.await(j, "new leader gem")
		require.False(t, a.IsLeader(), "leads beside the gem")
		g.leave()
		w.await(j, "new leader a")
		require.True(t, a.IsLeader(), "does not lead")
	})
}

func TestBeforeTheGem(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.member("a", j).lead()
		g := w.gem().vote()
		require.False(t, g.isLeader(), "the gem takes itself for the leader")
		data, _, err := g.conn.Get(a.LeaderAckPath())
		require.NoError(t, err, "the gem reads %q", data)
		require.Equal(t, "a", string(data), "the gem reads %q", data)
		_, _, deleted, err := g.conn.ExistsW(a.LeaderAckPath())
		require.NoError(t, err)
		a.resign()
		require.Equal(t, zk.EventNodeDeleted, (<-deleted).Type, "what the gem is told")
		require.True(t, g.isLeader(), "the gem does not take itself for the leader")
		g.acknowledge()
		a.vote()
		w.await(j, "a lost to gem")
	})
}

func TestBetweenGems(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		first := w.gem().vote()
		first.acknowledge()
		a := w.member("a", j, followLeader).vote()
		second := w.gem().vote()
		b := w.member("b", j, followLeader).vote()
		w.await(j, "a lost to gem")
		w.await(j, "b lost to gem")
		first.leave()
		w.await(j, "a won")
		w.await(j, "b lost to a")
		require.False(t, second.isLeader(), "the second gem leads, too")
		a.resign()
		second.acknowledge()
		w.until("b to follow the second gem", func() bool { return j.count("b lost to gem") == 2 })
		second.leave()
		w.await(j, "b won")
		require.True(t, b.IsLeader(), "b does not lead")
	})
}

func TestStrangeChildren(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		conn := w.client()
		a := w.member("a", j)
		for _, name := range []string{"", "/ballot", "/ballot-x", "/_c_short", "/lock-1", "/ballots", "/leader_ack_2", "/ballot-0000000000x", "/xballot-0000000000"} {
			if name == "" {
				if _, err := conn.Create("/_zkelection", nil, 0, zk.WorldACL(zk.PermAll)); err != nil && !errors.Is(err, zk.ErrNodeExists) {
					t.Fatal(err)
				}
			}
			require.NoError(t, second(conn.Create(a.RootVotePath()+name, nil, 0, zk.WorldACL(zk.PermAll))))
		}
		b := w.member("b", j)
		a.lead()
		b.vote()
		w.await(j, "b lost to a")
		if ballots, err := a.Ballots(w.context()); err != nil || len(ballots) != 2 {
			t.Fatalf("ballots %v, %v", ballots, err)
		}
		a.resign()
		w.await(j, "b won")
	})
}

// The counter's end: a ballot that cannot be ordered is withdrawn, and the
// error says what to do.
func TestSequenceExhausted(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		a, b := w.member("a", j), w.member("b", j)
		a.lead()
		for _, next := range []int32{1<<31 - 1, -5} {
			require.NoError(t, w.srv.SetSequence(a.RootVotePath(), next))
			err := b.Vote(w.context())
			require.ErrorIs(t, err, election.ErrSequenceExhausted, "Vote at %d", next)
			require.Contains(t, err.Error(), "delete", "Vote at %d: %v", next, err)
			require.Len(t, ballotNames(w.children(w.client(), a.RootVotePath())), 1, "ballots")
		}
		require.True(t, a.IsLeader(), "the leader lost by another's trouble")
		// The operator deletes the empty node, and all is well.
		a.resign()
		conn := w.client()
		require.NoError(t, conn.Delete(a.RootVotePath(), -1))
		b.lead()
		a.vote()
		w.until("a to lose", func() bool { return j.has("a lost to b") })
	})
}

// virtually runs a test that needs the in-process server's own faults.
func virtually(t *testing.T, run func(t *testing.T, w *world)) {
	t.Helper()
	bubble(t, func(t *testing.T) { run(t, inProcess(t, nil)) })
}
