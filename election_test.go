package election_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/go-zookeeper/zk"

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
		if a.Voted() || a.VotePath() != "" || a.IsLeader() {
			t.Fatal("a candidate that has not voted says that it has")
		}
		a.vote()
		if !a.Voted() || a.VotePath() == "" {
			t.Fatal("a candidate that has voted does not say so")
		}
		w.until("the acknowledgement", func() bool {
			acked, err := a.LeaderAcked(w.context())
			return err == nil && acked
		})
		leader, err := a.LeaderSync(w.context())
		if err != nil || string(leader.Data) != "a" || leader.SessionID != a.node.ID() || leader.Zxid == 0 || leader.Since.IsZero() {
			t.Fatalf("leader %+v, %v", leader, err)
		}
		term, ok := a.Term()
		if !ok || term.Ballot != a.VotePath() || term != *a.term.Load() {
			t.Fatalf("term %+v, %v", term, ok)
		}
		_, stat, err := w.client().Get(term.Ballot)
		if err != nil || stat.Czxid != term.Token {
			t.Fatalf("token %d is not the ballot's czxid %d (%v)", term.Token, stat.Czxid, err)
		}
		if !a.IsLeader() || a.LeaseUntil().IsZero() {
			t.Fatal("the leader does not say that it leads")
		}
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
			if b.IsLeader() || c.IsLeader() || !a.IsLeader() {
				t.Fatal("the wrong one leads")
			}
			close(taken)
			w.await(j, "b lost to a")
			w.await(j, "c lost to a")
			w.settle()
			if n := len(j.all()); n != 3 {
				t.Fatalf("journal %q", j.all())
			}
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
		if a.IsLeader() || a.Voted() {
			t.Fatal("a candidate that resigned still stands")
		}
		a.vote()
		w.await(j, "a lost to b")
		if !b.IsLeader() || a.IsLeader() {
			t.Fatal("the wrong one leads")
		}
		w.same("journal", j.all(), []string{"a won", "b lost to a", "a stepped down: resigned", "b won", "a lost to b"})
		if b.term.Load().Token <= a.term.Load().Token {
			t.Fatalf("tokens do not grow: %d, then %d", a.term.Load().Token, b.term.Load().Token)
		}
	})
}

func (w *world) observer(n *node, j *journal) *election.Observer {
	w.t.Helper()
	ob, err := election.NewObserver(n.Session, w.name(), nil)
	if err != nil {
		w.t.Fatal(err)
	}
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
		if err := o.Observe(w.context()); err != nil {
			t.Fatal(err)
		}
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
		if err := o.Observe(w.context()); err != nil {
			t.Fatal(err)
		}
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
		if err := o.Observe(w.context()); err != nil {
			t.Fatal(err)
		}
		a.resign()
		w.await(j, "new leader b")
		a.vote()
		if err := b.node.link.expire(); err != nil {
			t.Fatal(err)
		}
		w.until("a to lead again", func() bool { return j.count("new leader a") == 2 })
		w.same("journal", j.all(), []string{
			"new leader a", "dead leader a", "new leader b", "dead leader b", "new leader a",
		})
		if err := o.Close(); err != nil {
			t.Fatal(err)
		}
		a.resign()
		w.settle()
		if n := len(j.all()); n != 5 {
			t.Fatalf("callbacks after Close: %q", j.all())
		}
		if err := o.Observe(w.context()); !errors.Is(err, election.ErrClosed) {
			t.Fatalf("Observe after Close: %v", err)
		}
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
			if j.count(event) != 1 {
				t.Fatalf("journal %q", j.all())
			}
		}
		if j.has("cancelled") {
			t.Fatal("a cancelled callback was called")
		}
	})
}

func TestPathsAndNames(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		n := w.session()
		name := w.name() + "/with/slashes"
		c, err := election.NewCandidate(n.Session, name, &election.CandidateOptions{Root: "/root/of/" + w.name()})
		if err != nil {
			t.Fatal(err)
		}
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
		if _, err := conn.Create(want, []byte("precious"), 0, zk.WorldACL(zk.PermAll)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Campaign(w.context()); err != nil {
			t.Fatal(err)
		}
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
				if other.IsLeader() {
					t.Fatalf("%s leads beside %s", other.id, m.id)
				}
			}
			if i < many-1 {
				if err := m.Close(); err != nil {
					t.Fatal(err)
				}
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
				if standing[id] != "won" {
					t.Fatalf("%s without a win", event)
				}
				standing[id] = what
			case "lost":
				if standing[id] != "" {
					t.Fatalf("%s after it %s", event, standing[id])
				}
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
		if err := a.node.link.expire(); err != nil {
			t.Fatal(err)
		}
		w.await(j, "b won")
		w.await(j, "a: context ended: session lost")
		finish <- nil
		w.await(j, "a lost to b")
		b.resign()
		second := <-terms
		if second.Token <= first.Token {
			t.Fatalf("tokens %d, %d", first.Token, second.Token)
		}
		// The function returns while leading: Run resigns and returns its error.
		b.vote()
		w.until("b to lose again", func() bool { return j.count("b lost to a") == 2 })
		boom := errors.New("boom")
		finish <- boom
		if err := <-result; !errors.Is(err, boom) {
			t.Fatalf("Run returned %v", err)
		}
		w.until("b to win again", func() bool { return j.count("b won") == 2 })
		if a.Voted() {
			t.Fatal("Run left a ballot behind")
		}
		// A panic is an error, and the end of the context ends Run.
		b.resign()
		if err := a.Run(w.context(), func(context.Context, election.Term) error { panic("at the disco") }); err == nil {
			t.Fatal("a panic went unseen")
		}
		ctx, cancel := context.WithCancel(w.context())
		err := a.Run(ctx, func(ctx context.Context, _ election.Term) error { cancel(); <-ctx.Done(); return nil })
		if !errors.Is(err, context.Canceled) || a.Voted() {
			t.Fatalf("Run returned %v, voted %v", err, a.Voted())
		}
		term, err := b.Campaign(w.context())
		if err != nil || term.Ballot != b.VotePath() {
			t.Fatalf("Campaign: %v, %v", term, err)
		}
		if again, err := b.Campaign(w.context()); err != nil || again != term {
			t.Fatalf("Campaign while leading: %v, %v", again, err)
		}
	})
}

func TestProclaim(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		a, b := w.member("a", j), w.member("b", j)
		if err := a.Proclaim(w.context(), []byte("x")); !errors.Is(err, election.ErrNotLeader) {
			t.Fatalf("Proclaim before voting: %v", err)
		}
		o := w.observer(w.session(), j)
		if err := o.Observe(w.context()); err != nil {
			t.Fatal(err)
		}
		a.lead()
		b.vote()
		w.await(j, "new leader a")
		w.await(j, "b lost to a")
		if err := b.Proclaim(w.context(), []byte("x")); !errors.Is(err, election.ErrNotLeader) {
			t.Fatalf("Proclaim on a loser: %v", err)
		}
		if err := a.Proclaim(w.context(), []byte("a2")); err != nil {
			t.Fatal(err)
		}
		w.await(j, "leader data a2")
		ballots, err := b.Ballots(w.context())
		if err != nil || len(ballots) != 2 || string(ballots[0].Data) != "a2" {
			t.Fatalf("ballots %v, %v", ballots, err)
		}
		// It stays with the candidate: its next term begins with the new data.
		a.resign()
		w.await(j, "new leader b")
		a.vote()
		b.resign()
		w.await(j, "new leader a2")
		if j.has("dead leader a") || !j.has("dead leader a2") {
			t.Fatalf("journal %q", j.all())
		}
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
		if err != nil || len(ballots) != 3 {
			t.Fatalf("ballots %v, %v", ballots, err)
		}
		for i, m := range members {
			b := ballots[i]
			if string(b.Data) != m.id || b.Path != m.VotePath() || b.SessionID != m.node.ID() || b.Token == 0 {
				t.Fatalf("ballot %d is %+v", i, b)
			}
			if i > 0 && b.Sequence <= ballots[i-1].Sequence {
				t.Fatalf("sequence %d after %d", b.Sequence, ballots[i-1].Sequence)
			}
		}
	})
}
