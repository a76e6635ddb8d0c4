package election_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election"
)

// What the gem gets wrong, shown absent: docs/protocol.md section 2, in its
// order. Each fails when the fault is put back.

func followLeader(o *election.CandidateOptions) { o.Follow = election.FollowLeader }

// Defect 1: leader dies before it acknowledges.
func TestLeaderDiesBeforeItAcknowledges(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		a, b := w.member("a", j), w.member("b", j)
		a.OnWin(func(ctx context.Context, _ election.Term) error { <-ctx.Done(); return ctx.Err() })
		a.vote()
		w.await(j, "a won")
		b.vote()
		require.NoError(t, a.node.link.expire())
		w.await(j, "b won")
		w.await(j, "a lost to b")
		for _, event := range []string{"a won", "a stepped down: session lost", "b won", "a lost to b"} {
			require.Equal(t, 1, j.count(event), "journal %q", j.all())
			require.Len(t, j.all(), 4, "journal")
		}
	})
}

// Defect 2: a leader learns that its session expired.
func TestLeaderLearnsOfItsExpiry(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		a, b := w.member("a", j), w.member("b", j)
		ended := make(chan error, 1)
		a.OnWin(func(ctx context.Context, _ election.Term) error {
			context.AfterFunc(ctx, func() { ended <- context.Cause(ctx) })
			return nil
		})
		a.lead()
		b.vote()
		require.NoError(t, a.node.link.expire())
		require.ErrorIs(t, <-ended, election.ErrSessionLost, "the cause of the leader's context")
		require.False(t, a.IsLeader(), "the old leader still believes in itself")
		w.await(j, "a stepped down: session lost")
		w.await(j, "a lost to b")
		require.True(t, b.IsLeader(), "the wrong one leads")
		require.False(t, a.IsLeader(), "the wrong one leads")
		require.Equal(t, 1, j.count("a stepped down: session lost"), "journal %q", j.all())
	})
}

// Defect 3: voting and observing go on after an expiry.
func TestGoesOnAfterExpiry(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		a, b := w.member("a", j), w.member("b", j)
		oj := &journal{}
		o := w.observer(a.node, oj)
		b.lead()
		a.vote()
		require.NoError(t, o.Observe(w.context()))
		hooked := make(chan int64, 8)
		cancel := a.node.OnConnected(func() { hooked <- a.node.ID() })
		defer cancel()
		first := <-hooked
		require.NoError(t, a.node.link.expire())
		require.NotEqual(t, first, <-hooked, "OnConnected told of the same session twice")
		w.until("a to vote again", a.Voted)
		b.resign()
		w.await(j, "a won")
		w.await(oj, "new leader a")
		w.same("observer", oj.all(), []string{"new leader b", "dead leader b", "new leader a"})
		// And once more, as the leader.
		b.vote()
		require.NoError(t, a.node.link.expire())
		w.until("b to lead again", func() bool { return oj.count("new leader b") == 2 })
	})
}

// Defect 4: a takeover that outlives its session acknowledges nothing.
func TestTakeoverOutlivesSession(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		a, b := w.member("a", j), w.member("b", j)
		release := make(chan struct{})
		a.OnWin(func(context.Context, election.Term) error { <-release; j.add("a took over"); return nil })
		a.vote()
		w.await(j, "a won")
		b.vote()
		require.NoError(t, a.node.link.expire())
		w.await(j, "b won")
		w.until("b to acknowledge", func() bool { data, err := b.LeaderData(w.context()); return err == nil && string(data) == "b" })
		w.until("a to have a session again", func() bool { return a.node.State() == zk.StateHasSession })
		close(release)
		w.await(j, "a stepped down: session lost")
		w.await(j, "a lost to b")
		if data, err := b.LeaderData(w.context()); err != nil || string(data) != "b" {
			t.Fatalf("acknowledged is %q, %v", data, err)
		}
	})
}

func (n *node) State() zk.State { return n.Conn().State() }

// Defect 5: a takeover that fails is no success.
func TestFailedTakeoverIsNoSuccess(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		boom := errors.New("disk full")
		for kind, fail := range map[string]func(context.Context, election.Term) error{
			"error": func(context.Context, election.Term) error { return boom },
			"panic": func(context.Context, election.Term) error { panic(boom) },
		} {
			j := &journal{}
			root := func(o *election.CandidateOptions) { o.Root = "/takeover-" + kind + w.name() }
			a, b := w.member("a", j, root), w.member("b", j, root)
			cancel := a.OnWin(fail)
			a.OnWin(func(context.Context, election.Term) error { j.add("a: the next one"); return nil })
			var told error
			a.OnTakeoverError(func(_ election.Term, err error) { told = err })
			if _, err := a.Campaign(w.context()); !errors.Is(err, election.ErrTakeoverFailed) || !errors.Is(err, boom) {
				t.Fatalf("%s: Campaign: %v", kind, err)
			}
			b.lead()
			w.settle()
			w.same(kind, j.all(), []string{"a won", "a failed to take over", "a stepped down: takeover failed", "b won"})
			require.ErrorIs(t, told, boom, "what OnTakeoverError was told")
			require.ErrorIs(t, told, election.ErrTakeoverFailed, "what OnTakeoverError was told")
			require.False(t, a.Voted(), "it did not stay out")
			// Until it votes again.
			cancel()
			a.vote()
			w.await(j, "a lost to b")
			b.resign()
			w.until("a to win", func() bool { return j.count("a won") == 2 })
			w.await(j, "a: the next one")
		}
	})
}

// Defect 6: the acknowledgement of another is replaced.
func TestForeignAckReplaced(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.member("a", j)
		stranger := w.client()
		if _, err := stranger.Create("/_zkelection", nil, 0, zk.WorldACL(zk.PermAll)); err != nil && !errors.Is(err, zk.ErrNodeExists) {
			t.Fatal(err)
		}
		require.NoError(t, second(stranger.Create(a.RootVotePath(), nil, 0, zk.WorldACL(zk.PermAll))))
		require.NoError(t, second(stranger.Create(a.LeaderAckPath(), []byte("stranger"), zk.FlagEphemeral, zk.WorldACL(zk.PermAll))))
		a.lead()
		leader, err := a.LeaderSync(w.context())
		require.NoError(t, err, "acknowledged: %q", leader.Data)
		require.Equal(t, "a", string(leader.Data), "acknowledged: %q", leader.Data)
		require.Equal(t, a.node.ID(), leader.SessionID, "acknowledged: %q", leader.Data)
		// Removed by somebody, it is written again.
		require.NoError(t, stranger.Delete(a.LeaderAckPath(), -1))
		w.until("the acknowledgement to be written again", func() bool {
			data, err := a.LeaderData(w.context())
			return err == nil && string(data) == "a"
		})
		// Replaced by somebody at the last moment, theirs is left alone.
		require.NoError(t, second(stranger.Multi(
			&zk.DeleteRequest{Path: a.LeaderAckPath(), Version: -1},
			&zk.CreateRequest{Path: a.LeaderAckPath(), Data: []byte("stranger"), Acl: zk.WorldACL(zk.PermAll), Flags: zk.FlagEphemeral},
		)))
		a.resign()
		w.settle()
		if data, err := a.LeaderData(w.context()); err != nil || string(data) != "stranger" && string(data) != "" {
			t.Fatalf("after resigning: %q, %v", data, err)
		}
		if !a.IsLeader() && j.count("a won") != 1 {
			t.Fatalf("journal %q", j.all())
		}
	})
}

// Defect 7: losing is told once.
func TestLosingToldOnce(t *testing.T) {
	everywhere(t, func(_ *testing.T, w *world) {
		j := &journal{}
		a, b := w.member("a", j), w.member("b", j)
		for i := range 3 {
			a.lead()
			b.vote()
			w.until("b to lose", func() bool { return j.count("b lost to a") == i+1 })
			a.resign()
			w.until("b to win", func() bool { return j.count("b won") == i+1 })
			b.resign()
		}
		w.settle()
		var want []string
		for range 3 {
			want = append(want, "a won", "b lost to a", "a stepped down: resigned", "b won", "b stepped down: resigned")
		}
		w.same("journal", j.all(), want)
	})
}

func isBallot(r request) bool {
	return r.op == opCreate && strings.Contains(r.path, "/ballot-")
}

// Defect 8: a lost reply leaves no ballot unserved.
func TestLostRepliesLeaveNothing(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		for _, f := range []fault{loseRequest, loseReply} {
			j := &journal{}
			a, b := w.member("a", j), w.member("b", j)
			for _, m := range []*member{a, b} {
				fired := m.node.link.next(f, isBallot)
				m.vote()
				<-fired
			}
			conn := w.client()
			ballots := ballotNames(w.children(conn, a.RootVotePath()))
			require.Len(t, ballots, 2, "ballots")
			w.await(j, "b lost to a")
			// The replies to the acknowledgement and to the withdrawal, too.
			fired := b.node.link.next(f, func(r request) bool { return r.op == opMulti && strings.Contains(r.path, "/ballot-") })
			a.resign()
			<-fired
			w.until("b's acknowledgement", func() bool { data, err := a.LeaderData(w.context()); return err == nil && string(data) == "b" })
			fired = b.node.link.next(f, func(r request) bool { return r.op == opMulti && strings.HasSuffix(r.path, "/leader_ack") })
			b.resign()
			<-fired
			require.Empty(t, w.children(conn, a.RootVotePath()), "left behind")
			require.NoError(t, errors.Join(a.Close(), b.Close()))
			w.same("journal", j.all(), []string{"a won", "b lost to a", "a stepped down: resigned", "b won", "b stepped down: resigned"})
		}
	})
}

func ballotNames(children []string) (ballots []string) {
	for _, name := range children {
		if strings.HasPrefix(name, "ballot") {
			ballots = append(ballots, name)
		}
	}
	return ballots
}

// Defect 9: followers of the leader hear of each.
func TestFollowersHearOfEach(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		a, b, c := w.member("a", j, followLeader), w.member("b", j, followLeader), w.member("c", j, followLeader)
		contexts := make(chan context.Context, 8)
		c.OnLose(func(ctx context.Context, _ election.Leader) { contexts <- ctx })
		a.lead()
		b.vote()
		c.vote()
		w.await(j, "b lost to a")
		w.await(j, "c lost to a")
		first := <-contexts
		require.NoError(t, first.Err(), "the context of OnLose ended while its leader leads")
		a.resign()
		w.await(j, "c lost to b")
		second := <-contexts
		require.Error(t, first.Err(), "the context of OnLose outlived its leader")
		b.resign()
		w.await(j, "c won")
		require.Error(t, second.Err(), "the context of OnLose outlived losing")
		require.Equal(t, 2, j.count("c lost to a")+j.count("c lost to b"), "journal %q", j.all())
	})
}

// Defect 10: leaving takes the ballot along.
func TestLeavingTakesTheBallot(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		conn := w.client()
		j := &journal{}
		a, b, c := w.member("a", j), w.member("b", j), w.member("c", j)
		a.lead()
		b.vote()
		w.await(j, "b lost to a")
		c.vote()
		w.await(j, "c lost to a")
		b.resign() // from the middle
		require.Len(t, ballotNames(w.children(conn, a.RootVotePath())), 2, "ballots after the middle one resigned")
		// c was behind b and is now behind a: its predecessor changed.
		w.until("c to be told again", func() bool { return j.count("c lost to a") == 2 })
		require.NoError(t, a.Close())
		w.await(j, "c won")
		require.NoError(t, c.node.Close()) // closes its candidate first
		require.Empty(t, w.children(conn, a.RootVotePath()), "left behind")
		w.same("journal", j.all(), []string{
			"a won", "b lost to a", "c lost to a", "c lost to a", "a stepped down: closed", "c won", "c stepped down: closed",
		})
		for _, err := range []error{a.Vote(w.context()), a.Resign(w.context()), c.Proclaim(w.context(), nil)} {
			require.ErrorIs(t, err, election.ErrClosed, "after Close")
		}
		require.ErrorIs(t, second(election.NewCandidate(c.node.Session, "x", nil)), election.ErrClosed, "a candidate on a closed session")
		require.ErrorIs(t, c.node.AwaitConnected(w.context()), election.ErrClosed, "a closed session")
	})
}
