package election_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election"
)

// The behaviours of the Ruby gem's election spec, row by row.

func TestWinnerAcknowledges(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.member("a", j)
		if acked, err := a.LeaderAcked(w.context()); acked || err != nil {
			t.Fatalf("before any vote: acked %v, %v", acked, err)
		}
		if _, err := a.LeaderData(w.context()); !errors.Is(err, election.ErrNoLeader) {
			t.Fatalf("LeaderData without a leader: %v, want ErrNoLeader", err)
		}
		require.False(t, a.Voted(), "a candidate that has not voted says that it has")
		require.Equal(t, "", a.VotePath(), "a candidate that has not voted says that it has")
		require.False(t, a.IsLeader(), "a candidate that has not voted says that it has")
		a.vote()
		require.True(t, a.Voted(), "a candidate that has voted does not say so")
		require.NotEqual(t, "", a.VotePath(), "a candidate that has voted does not say so")
		w.until("the acknowledgement", func() bool {
			acked, err := a.LeaderAcked(w.context())
			return err == nil && acked
		})
		leader, err := a.LeaderSync(w.context())
		require.NoError(t, err, "leader %+v", leader)
		require.Equal(t, "a", string(leader.Data), "leader %+v", leader)
		require.Equal(t, a.node.ID(), leader.SessionID, "leader %+v", leader)
		require.NotZero(t, leader.Zxid, "leader %+v", leader)
		require.False(t, leader.Since.IsZero(), "leader %+v", leader)
		term, ok := a.Term()
		require.True(t, ok, "term %+v, %v", term, ok)
		require.Equal(t, a.VotePath(), term.Ballot, "term %+v, %v", term, ok)
		require.Equal(t, *a.term.Load(), term, "term %+v, %v", term, ok)
		_, stat, err := w.client().Get(term.Ballot)
		if err != nil || stat.Czxid != term.Token {
			t.Fatalf("token %d is not the ballot's czxid %d (%v)", term.Token, stat.Czxid, err)
		}
		require.True(t, a.IsLeader(), "the leader does not say that it leads")
		require.False(t, a.LeaseUntil().IsZero(), "the leader does not say that it leads")
		w.same("journal", j.all(), []string{"a won"})
	})
}

// Losers are not told before the leader's OnWin has returned and it has
// acknowledged, and then once, with its data.
func TestLosersWaitForTheAcknowledgement(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		for _, follow := range []election.Follow{election.FollowNextNode, election.FollowLeader} {
			j := &journal{}
			with := func(o *election.CandidateOptions) {
				o.Follow, o.Root = follow, fmt.Sprintf("/losersWait-%s-%d", w.name(), follow)
			}
			taken := make(chan struct{})
			a := w.member("a", j, with)
			a.OnWin(func(context.Context, election.Term) error { <-taken; return nil })
			a.vote()
			w.await(j, "a won")
			b := w.member("b", j, with).vote()
			c := w.member("c", j, with).vote()
			w.settle()
			w.same("before the acknowledgement", j.all(), []string{"a won"})
			require.False(t, b.IsLeader(), "the wrong one leads")
			require.False(t, c.IsLeader(), "the wrong one leads")
			require.True(t, a.IsLeader(), "the wrong one leads")
			close(taken)
			w.await(j, "b lost to a")
			w.await(j, "c lost to a")
			w.settle()
			require.Len(t, j.all(), 3, "journal")
		}
	})
}

func TestTakeOver(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.member("a", j).lead()
		b := w.member("b", j).vote()
		w.await(j, "b lost to a")
		a.resign()
		w.await(j, "b won")
		require.False(t, a.IsLeader(), "a candidate that resigned still stands")
		require.False(t, a.Voted(), "a candidate that resigned still stands")
		a.vote()
		w.await(j, "a lost to b")
		require.True(t, b.IsLeader(), "the wrong one leads")
		require.False(t, a.IsLeader(), "the wrong one leads")
		w.same("journal", j.all(), []string{"a won", "b lost to a", "a stepped down: resigned", "b won", "a lost to b"})
		if b.term.Load().Token <= a.term.Load().Token {
			t.Fatalf("tokens do not grow: %d, then %d", a.term.Load().Token, b.term.Load().Token)
		}
	})
}

func (w *world) observer(n *node, j *journal) *election.Observer {
	w.t.Helper()
	ob, err := election.NewObserver(n.Session, w.name(), nil)
	require.NoError(w.t, err)
	ob.OnNewLeader(func(l election.Leader) { j.add("new leader %s", l.Data) })
	ob.OnLeaderDeath(func(l election.Leader) { j.add("dead leader %s", l.Data) })
	ob.OnLeaderData(func(l election.Leader) { j.add("leader data %s", l.Data) })
	return ob
}

func TestObserverBeginsWithoutLeader(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		o := w.observer(w.session(), j)
		if _, known := o.LeaderAlive(); known {
			t.Fatal("an observer that has not begun knows something")
		}
		require.NoError(t, o.Observe(w.context()))
		if alive, known := o.LeaderAlive(); alive || !known {
			t.Fatalf("alive %v, known %v", alive, known)
		}
		w.await(j, "dead leader ")
		w.member("a", &journal{}).vote()
		w.await(j, "new leader a")
		w.same("journal", j.all(), []string{"dead leader ", "new leader a"})
		if alive, known := o.LeaderAlive(); !alive || !known {
			t.Fatalf("alive %v, known %v", alive, known)
		}
	})
}

func TestObserverBeginsWithLeader(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		w.member("a", &journal{}).lead()
		j := &journal{}
		o := w.observer(w.session(), j)
		require.NoError(t, o.Observe(w.context()))
		w.await(j, "new leader a")
		w.settle()
		w.same("journal", j.all(), []string{"new leader a"})
	})
}

func TestObserverSeesEveryChange(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		a, b := w.member("a", &journal{}).lead(), w.member("b", &journal{}).vote()
		j := &journal{}
		o := w.observer(w.session(), j)
		require.NoError(t, o.Observe(w.context()))
		a.resign()
		w.await(j, "new leader b")
		a.vote()
		require.NoError(t, b.node.link.expire())
		w.until("a to lead again", func() bool { return j.count("new leader a") == 2 })
		w.same("journal", j.all(), []string{
			"new leader a", "dead leader a", "new leader b", "dead leader b", "new leader a",
		})
		require.NoError(t, o.Close())
		a.resign()
		w.settle()
		require.Len(t, j.all(), 5, "callbacks after Close")
		require.ErrorIs(t, o.Observe(w.context()), election.ErrClosed, "Observe after Close")
	})
}

func TestLeaderAckCallback(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.member("a", j)
		o := w.observer(w.session(), &journal{})
		o.OnLeaderAck(func(l election.Leader) { j.add("observer: acked %s", l.Data) })
		a.OnLeaderAck(func(l election.Leader) { j.add("candidate: acked %s", l.Data) })
		cancel := a.OnLeaderAck(func(election.Leader) { j.add("cancelled") })
		cancel()
		w.settle()
		w.same("journal", j.all(), nil)
		a.lead()
		w.await(j, "observer: acked a")
		w.await(j, "candidate: acked a")
		o.OnLeaderAck(func(l election.Leader) { j.add("late: acked %s", l.Data) })
		w.await(j, "late: acked a")
		// Once means once: another leader is not told.
		a.resign()
		a.lead()
		w.settle()
		for _, event := range []string{"observer: acked a", "candidate: acked a", "late: acked a"} {
			require.Equal(t, 1, j.count(event), "journal %q", j.all())
		}
		require.False(t, j.has("cancelled"), "a cancelled callback was called")
	})
}

func TestPathsAndNames(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		n := w.session()
		name := w.name() + "/with/slashes"
		c, err := election.NewCandidate(n.Session, name, &election.CandidateOptions{Root: "/root/of/" + w.name()})
		require.NoError(t, err)
		want := "/root/of/" + w.name() + "/" + w.name() + "__with__slashes"
		if c.Name() != name || c.RootVotePath() != want || c.LeaderAckPath() != want+"/leader_ack" {
			t.Fatalf("name %q, path %q, ack %q", c.Name(), c.RootVotePath(), c.LeaderAckPath())
		}
		// Existing data of the election node stays as it is.
		conn := w.client()
		for _, path := range []string{"/root", "/root/of", "/root/of/" + w.name()} {
			if _, err := conn.Create(path, nil, 0, zk.WorldACL(zk.PermAll)); err != nil && !errors.Is(err, zk.ErrNodeExists) {
				t.Fatal(err)
			}
		}
		require.NoError(t, second(conn.Create(want, []byte("precious"), 0, zk.WorldACL(zk.PermAll))))
		require.NoError(t, second(c.Campaign(w.context())))
		if data, _, err := conn.Get(want); err != nil || string(data) != "precious" {
			t.Fatalf("the election node holds %q, %v", data, err)
		}
	})
}

// A hundred candidates join, and the leader leaves ninety-nine times: each time
// exactly one wins, in the order of the ballots.
func TestHundredCandidates(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		const many = 100
		j := &journal{}
		var members []*member
		sessions := []*node{w.session(), w.session(), w.session(), w.session(), w.session()}
		for i := range many {
			m := w.memberOn(sessions[i%len(sessions)], fmt.Sprint(i), j)
			m.vote()
			members = append(members, m)
		}
		var wins []string
		for i, m := range members {
			w.await(j, m.id+" won")
			for _, other := range members[i+1:] {
				require.False(t, other.IsLeader(), "%s leads beside %s", other.id, m.id)
			}
			if i < many-1 {
				require.NoError(t, m.Close())
			}
			wins = append(wins, m.id+" won")
		}
		var got []string
		standing := make(map[string]string)
		for _, event := range j.all() {
			var id, what string
			_, _ = fmt.Sscanf(event, "%s %s", &id, &what)
			switch what {
			case "won":
				got = append(got, event)
				standing[id] = what
			case "stepped":
				require.Equal(t, "won", standing[id], "%s without a win", event)
				standing[id] = what
			case "lost":
				require.Equal(t, "", standing[id], "%s after it", event)
			}
		}
		w.same("wins", got, wins)
	})
}

func TestCampaignAndRun(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		a, b := w.member("a", j), w.member("b", j)
		terms := make(chan election.Term)
		finish := make(chan error)
		result := make(chan error, 1)
		go func() {
			result <- a.Run(w.context(), func(ctx context.Context, term election.Term) error {
				leader, err := a.Leader(ctx)
				if err != nil || string(leader.Data) != "a" {
					return fmt.Errorf("called before the acknowledgement: %v, %w", leader, err)
				}
				terms <- term
				select {
				case err := <-finish:
					return err
				case <-ctx.Done():
					j.add("a: context ended: %s", causeName(context.Cause(ctx)))
					return <-finish // cleaning up takes its time
				}
			})
		}()
		first := <-terms
		b.vote()
		w.await(j, "b lost to a")
		// A loss: the function's context ends, and the candidate contends again
		// once it has returned.
		require.NoError(t, a.node.link.expire())
		w.await(j, "b won")
		w.await(j, "a: context ended: session lost")
		finish <- nil
		w.await(j, "a lost to b")
		b.resign()
		second := <-terms
		require.Greater(t, second.Token, first.Token, "tokens")
		// The function returns while leading: Run resigns and returns its error.
		b.vote()
		w.until("b to lose again", func() bool { return j.count("b lost to a") == 2 })
		boom := errors.New("boom")
		finish <- boom
		require.ErrorIs(t, <-result, boom, "Run returned")
		w.until("b to win again", func() bool { return j.count("b won") == 2 })
		require.False(t, a.Voted(), "Run left a ballot behind")
		// A panic is an error, and the end of the context ends Run.
		b.resign()
		require.Error(t, a.Run(w.context(), func(context.Context, election.Term) error { panic("at the disco") }), "a panic went unseen")
		ctx, cancel := context.WithCancel(w.context())
		err := a.Run(ctx, func(ctx context.Context, _ election.Term) error { cancel(); <-ctx.Done(); return nil })
		require.ErrorIs(t, err, context.Canceled, "Run returned %v, voted %v", err, a.Voted())
		require.False(t, a.Voted(), "Run returned %v, voted %v", err, a.Voted())
		term, err := b.Campaign(w.context())
		require.NoError(t, err, "Campaign: %v", term)
		require.Equal(t, b.VotePath(), term.Ballot, "Campaign: %v", term)
		if again, err := b.Campaign(w.context()); err != nil || again != term {
			t.Fatalf("Campaign while leading: %v, %v", again, err)
		}
	})
}

func TestProclaim(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		a, b := w.member("a", j), w.member("b", j)
		require.ErrorIs(t, a.Proclaim(w.context(), []byte("x")), election.ErrNotLeader, "Proclaim before voting")
		o := w.observer(w.session(), j)
		require.NoError(t, o.Observe(w.context()))
		a.lead()
		b.vote()
		w.await(j, "new leader a")
		w.await(j, "b lost to a")
		require.ErrorIs(t, b.Proclaim(w.context(), []byte("x")), election.ErrNotLeader, "Proclaim on a loser")
		require.NoError(t, a.Proclaim(w.context(), []byte("a2")))
		w.await(j, "leader data a2")
		ballots, err := b.Ballots(w.context())
		require.NoError(t, err, "ballots %v", ballots)
		require.Len(t, ballots, 2, "ballots %v", ballots)
		require.Equal(t, "a2", string(ballots[0].Data), "ballots %v", ballots)
		// It stays with the candidate: its next term begins with the new data.
		a.resign()
		w.await(j, "new leader b")
		a.vote()
		b.resign()
		w.await(j, "new leader a2")
		require.False(t, j.has("dead leader a"), "journal %q", j.all())
		require.True(t, j.has("dead leader a2"), "journal %q", j.all())
	})
}

func TestBallotsInOrder(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		o := w.observer(w.session(), &journal{})
		if ballots, err := o.Ballots(w.context()); len(ballots) != 0 || err != nil {
			t.Fatalf("before any vote: %v, %v", ballots, err)
		}
		var members []*member
		for _, id := range []string{"c", "a", "b"} {
			members = append(members, w.member(id, &journal{}).vote())
		}
		ballots, err := o.Ballots(w.context())
		require.NoError(t, err, "ballots %v", ballots)
		require.Len(t, ballots, 3, "ballots %v", ballots)
		for i, m := range members {
			b := ballots[i]
			require.Equal(t, m.id, string(b.Data), "ballot %d is %+v", i, b)
			require.Equal(t, m.VotePath(), b.Path, "ballot %d is %+v", i, b)
			require.Equal(t, m.node.ID(), b.SessionID, "ballot %d is %+v", i, b)
			require.NotZero(t, b.Token, "ballot %d is %+v", i, b)
			if i > 0 && b.Sequence <= ballots[i-1].Sequence {
				t.Fatalf("sequence %d after %d", b.Sequence, ballots[i-1].Sequence)
			}
		}
	})
}
