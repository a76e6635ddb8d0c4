package election_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/zkelection/election"
	"github.com/zkelection/election/testutil"
	"github.com/zkelection/election/testutil/realzk"
)

func bubble(t *testing.T, run func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, run)
}

func TestBadNames(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := inProcess(t, nil)
		s := w.session()
		for _, name := range []string{"", ".", "..", "a\x00b", "a\nb", "a\x7fb", "a\u0085b", "\ufff0", "\uf000", "\ue000", "😀", "\xff"} {
			for _, err := range []error{
				second(election.NewCandidate(s.Session, name, nil)),
				second(election.NewObserver(s.Session, name, nil)),
			} {
				if !errors.Is(err, election.ErrInvalidName) {
					t.Errorf("name %q: %v", name, err)
				}
			}
		}
		for _, root := range []string{"relative", "/", "/a/", "//a", "/a//b", "/./a", "/a/..", "/a\x01"} {
			for _, err := range []error{
				second(election.NewCandidate(s.Session, "x", &election.CandidateOptions{Root: root})),
				second(election.NewObserver(s.Session, "x", &election.ObserverOptions{Root: root})),
			} {
				if !errors.Is(err, election.ErrInvalidPath) {
					t.Errorf("root %q: %v", root, err)
				}
			}
		}
		for _, name := range []string{"a", "a/b", "/", "...", "Zürich", "a b"} {
			c, err := election.NewCandidate(s.Session, name, nil)
			if err != nil {
				t.Errorf("name %q: %v", name, err)
				continue
			}
			if _, err := c.Campaign(w.context()); err != nil {
				t.Errorf("name %q: %v", name, err)
			}
		}
		if _, err := election.NewCandidate(nil, "x", nil); err == nil {
			t.Error("a nil session was taken")
		}
		if _, err := election.NewObserver(nil, "x", nil); err == nil {
			t.Error("a nil session was taken")
		}
		closed := w.session()
		if err := closed.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := election.NewObserver(closed.Session, "x", nil); !errors.Is(err, election.ErrClosed) {
			t.Errorf("a closed session: %v", err)
		}
		if _, err := election.NewCandidate(s.Session, "x", &election.CandidateOptions{Follow: 7}); err == nil {
			t.Error("Follow(7) was taken")
		}
		if _, err := election.Connect(w.servers, 0, nil); err == nil {
			t.Error("a timeout of 0 was taken")
		}
		if _, err := election.Connect(nil, time.Second, nil); err == nil {
			t.Error("no servers were taken")
		}
	})
}

func second[T any](_ T, err error) error { return err }

func TestNoPermission(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		conn := w.client()
		root := "/noPermission" + w.name()
		if _, err := conn.Create(root, nil, 0, zk.WorldACL(zk.PermRead)); err != nil {
			t.Fatal(err)
		}
		j := &journal{}
		a := w.member("a", j, func(o *election.CandidateOptions) { o.Root = root })
		if err := a.Vote(w.context()); !errors.Is(err, zk.ErrNoAuth) {
			t.Fatalf("Vote: %v", err)
		}
		if _, err := a.Campaign(w.context()); !errors.Is(err, zk.ErrNoAuth) {
			t.Fatalf("Campaign: %v", err)
		}
		if err := a.Run(w.context(), func(context.Context, election.Term) error { return nil }); !errors.Is(err, zk.ErrNoAuth) {
			t.Fatalf("Run: %v", err)
		}
		if a.Voted() {
			t.Fatal("a ballot without permission")
		}
		w.settle()
		w.same("journal", j.all(), nil)
	})
}

func TestACL(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		acl := zk.DigestACL(zk.PermAll, "member", "secret")
		auth := func(o *election.SessionOptions) {
			o.Auth = []election.Auth{{Scheme: "digest", Credentials: []byte("member:secret")}}
		}
		private := func(o *election.CandidateOptions) { o.ACL = acl }
		j := &journal{}
		a := w.memberOn(w.session(auth), "a", j, private)
		b := w.memberOn(w.session(auth), "b", j, private, followLeader)
		a.lead()
		b.vote()
		w.await(j, "b lost to a")
		if err := a.Proclaim(w.context(), []byte("a2")); err != nil {
			t.Fatal(err)
		}
		stranger := w.client()
		for what, err := range map[string]error{
			"remove the ballot":           stranger.Delete(a.VotePath(), -1),
			"remove the acknowledgement":  stranger.Delete(a.LeaderAckPath(), -1),
			"read the data":               second3(stranger.Get(a.LeaderAckPath())),
			"read the ballot":             second3(stranger.Get(a.VotePath())),
			"change the data":             second(stranger.Set(a.LeaderAckPath(), nil, -1)),
			"vote":                        second(stranger.Create(a.RootVotePath()+"/ballot", nil, zk.FlagEphemeral|zk.FlagSequence, zk.WorldACL(zk.PermAll))),
			"list the ballots":            second3(stranger.Children(a.RootVotePath())),
			"remove the election's node":  stranger.Delete(a.RootVotePath(), -1),
			"open the election to others": second(stranger.SetACL(a.RootVotePath(), zk.WorldACL(zk.PermAll), -1)),
		} {
			if err == nil || !errors.Is(err, zk.ErrNoAuth) && !errors.Is(err, zk.ErrNotEmpty) {
				t.Errorf("a stranger could %s: %v", what, err)
			}
		}
		if err := a.node.link.expire(); err != nil { // credentials go along to a new session
			t.Fatal(err)
		}
		w.await(j, "b won")
		w.until("a to stand again", a.Voted)
		// An open election node is refused.
		open := w.memberOn(w.session(), "open", &journal{}, func(o *election.CandidateOptions) { o.Root = "/open" + w.name() })
		open.lead()
		closed := w.memberOn(w.session(auth), "closed", &journal{}, private, func(o *election.CandidateOptions) { o.Root = "/open" + w.name() })
		if err := closed.Vote(w.context()); !errors.Is(err, election.ErrOpenElection) {
			t.Fatalf("Vote in an open election with an ACL: %v", err)
		}
		// As the server writes it, with the scheme auth.
		creator := w.memberOn(w.session(auth), "creator", &journal{}, func(o *election.CandidateOptions) {
			o.Root, o.ACL = "/auth"+w.name(), zk.AuthACL(zk.PermAll)
		})
		creator.lead()
		creator.resign()
		creator.lead()
	})
}

func second3[A, B any](_ A, _ B, err error) error { return err }

func TestWrongCredentials(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		s, err := election.Connect(w.servers, w.timeout(), &election.SessionOptions{
			Dialer: w.dial, Logger: w.logger(), Auth: []election.Auth{{Scheme: "no such scheme", Credentials: []byte("x")}},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := s.AwaitConnected(w.context()); !errors.Is(err, zk.ErrAuthFailed) {
			t.Fatalf("AwaitConnected: %v", err)
		}
		c, err := election.NewCandidate(s, w.name(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Vote(w.context()); !errors.Is(err, zk.ErrAuthFailed) {
			t.Fatalf("Vote: %v", err)
		}
	})
}

func TestEphemeralElectionNode(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		conn := w.client()
		a := w.member("a", &journal{})
		if _, err := conn.Create("/_zkelection", nil, 0, zk.WorldACL(zk.PermAll)); err != nil && !errors.Is(err, zk.ErrNodeExists) {
			t.Fatal(err)
		}
		if _, err := conn.Create(a.RootVotePath(), nil, zk.FlagEphemeral, zk.WorldACL(zk.PermAll)); err != nil {
			t.Fatal(err)
		}
		if err := a.Vote(w.context()); !errors.Is(err, zk.ErrNoChildrenForEphemerals) {
			t.Fatalf("Vote: %v", err)
		}
		if err := conn.Delete(a.RootVotePath(), -1); err != nil {
			t.Fatal(err)
		}
		a.lead()
	})
}

func TestLargeData(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		n := w.session()
		if _, err := election.NewCandidate(n.Session, w.name(), &election.CandidateOptions{Data: make([]byte, election.MaxDataSize+1)}); !errors.Is(err, election.ErrDataTooLarge) {
			t.Fatalf("too much data: %v", err)
		}
		large := []byte(strings.Repeat("x", election.MaxDataSize))
		j := &journal{}
		a := w.memberOn(n, "a", j, func(o *election.CandidateOptions) { o.Data = large })
		a.lead()
		data, err := a.LeaderData(w.context())
		if err != nil || len(data) != election.MaxDataSize {
			t.Fatalf("%d bytes, %v", len(data), err)
		}
		if err := a.Proclaim(w.context(), append(large, 'x')); !errors.Is(err, election.ErrDataTooLarge) {
			t.Fatalf("Proclaim of too much data: %v", err)
		}
		large[0] = 'y' // the candidate has a copy of its own
		if err := a.Proclaim(w.context(), large); err != nil {
			t.Fatal(err)
		}
		data, err = a.LeaderData(w.context())
		if err != nil || len(data) != election.MaxDataSize || data[0] != 'y' {
			t.Fatalf("%d bytes, %v", len(data), err)
		}
		w.same("journal", j.all(), []string{"a won"})
	})
}

// Every blocking call ends when its context does, also while no server can be
// reached, and leaves nothing half done.
func TestContextsEndEveryWait(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		conn := w.client()
		n := w.session()
		a := w.memberOn(n, "a", j)
		o := w.observer(n, j)
		n.link.setDown(true)
		w.until("the connection to break", func() bool { return n.State() != zk.StateHasSession })
		w.settle()
		for what, call := range map[string]func(ctx context.Context) error{
			"Vote":     a.Vote,
			"Campaign": func(ctx context.Context) error { return second(a.Campaign(ctx)) },
			"Run": func(ctx context.Context) error {
				return a.Run(ctx, func(context.Context, election.Term) error { return nil })
			},
			"Leader":      func(ctx context.Context) error { return second(a.Leader(ctx)) },
			"LeaderSync":  func(ctx context.Context) error { return second(o.LeaderSync(ctx)) },
			"LeaderData":  func(ctx context.Context) error { return second(o.LeaderData(ctx)) },
			"LeaderAcked": func(ctx context.Context) error { return second(o.LeaderAcked(ctx)) },
			"Ballots":     func(ctx context.Context) error { return second(a.Ballots(ctx)) },
			"Observe":     o.Observe,
			"Await":       n.AwaitConnected,
		} {
			ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
			began := time.Now()
			err := call(ctx)
			// Run gives its resignation time.
			if limit := time.Second + 2*w.timeout(); w.virtual() && time.Since(began) > limit {
				t.Errorf("%s took %v", what, time.Since(began))
			}
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: %v", what, err)
			}
			cancel()
			if err := call(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s with a context that has ended: %v", what, err)
			}
		}
		n.link.setDown(false)
		// What is there now is served: it leads, or there is none.
		w.until("a settled state", func() bool {
			names := ballotNames(w.children(conn, a.RootVotePath()))
			return len(names) == 0 && !a.Voted() || len(names) == 1 && a.IsLeader()
		})
		a.lead()
		n.link.setDown(true)
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		if err := a.Proclaim(ctx, []byte("x")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Proclaim: %v", err)
		}
		if err := a.Resign(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Resign: %v", err)
		}
		if a.IsLeader() {
			t.Error("leads after Resign")
		}
		n.link.setDown(false)
		w.until("the withdrawal to be made good", func() bool { return len(w.children(conn, a.RootVotePath())) == 0 })
	})
}

// Close gives up after two session timeouts; after it nothing is left.
func TestCloseWhileNobodyAnswers(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		n := w.session()
		a := w.memberOn(n, "a", j).lead()
		n.link.setDown(true)
		began := time.Now()
		err := a.Close()
		if err == nil || errors.Is(err, election.ErrCallbackRunning) {
			t.Fatalf("Close while nobody answers: %v", err)
		}
		if took := time.Since(began); took < w.timeout() || w.virtual() && took > 3*w.timeout() {
			t.Fatalf("Close gave up after %v", took)
		}
		if a.IsLeader() {
			t.Fatal("leads after Close")
		}
		w.same("journal", j.all(), []string{"a won", "a stepped down: closed"})
		if again := a.Close(); again == nil || again.Error() != err.Error() {
			t.Fatalf("a second Close: %v", again)
		}
		// The ballot does not wait for the session's end once a server answers.
		n.link.setDown(false)
		conn := w.client()
		w.until("the withdrawal", func() bool { return len(w.children(conn, a.RootVotePath())) == 0 })
		// The whole session, too.
		b := w.memberOn(w.session(), "b", j)
		b.node.link.setDown(true)
		began = time.Now()
		_ = b.node.Close()
		if took := time.Since(began); w.virtual() && took > 4*w.timeout() {
			t.Fatalf("the session's Close took %v", took)
		}
	})
}

// Every method may be called from inside a callback, and none deadlocks.
func TestCallbacksMayCallEverything(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		quick := func(o *election.CandidateOptions) { o.StepDownTimeout = 500 * time.Millisecond }
		a := w.member("a", j, quick)
		b := w.member("b", j, quick)
		a.OnWin(func(ctx context.Context, term election.Term) error {
			if err := a.Vote(ctx); err != nil {
				j.add("vote: %v", err)
			}
			if !a.IsLeader() || !a.Voted() || a.VotePath() != term.Ballot {
				j.add("not leading")
			}
			if err := a.Proclaim(ctx, []byte("a2")); err != nil {
				j.add("proclaim: %v", err)
			}
			if _, err := a.Ballots(ctx); err != nil {
				j.add("ballots: %v", err)
			}
			if _, err := a.Campaign(ctx); !errors.Is(err, election.ErrCallbackRunning) {
				j.add("campaign: %v", err)
			}
			if err := a.Run(ctx, nil); !errors.Is(err, election.ErrCallbackRunning) {
				j.add("run: %v", err)
			}
			return nil
		})
		a.lead()
		w.until("the proclaimed data", func() bool { data, err := a.LeaderData(w.context()); return err == nil && string(data) == "a2" })
		w.same("journal", j.all(), []string{"a won"})
		b.vote()
		w.await(j, "b lost to a2")
		// Resign with the callback's own context begins, and returns.
		cancel := a.OnStepDown(func(ctx context.Context, _ election.Term, _ error) {
			if err := a.Resign(ctx); err != nil {
				j.add("resign: %v", err)
			}
			if err := a.Vote(ctx); err != nil {
				j.add("vote again: %v", err)
			}
		})
		a.resign()
		w.await(j, "b won")
		w.await(j, "a lost to b")
		cancel()
		// Resign with another context would wait for the callback: bounded.
		b.OnStepDown(func(context.Context, election.Term, error) {
			ctx, stop := context.WithTimeout(context.Background(), w.patience())
			defer stop()
			if err := b.Resign(ctx); err != nil {
				j.add("resign in vain: %v", err)
			}
			if err := b.Vote(ctx); !errors.Is(err, election.ErrCallbackRunning) && err != nil {
				j.add("vote in vain: %v", err)
			}
			j.add("b through")
		})
		b.resign()
		w.until("a to win again", func() bool { return j.count("a won") == 2 })
		w.await(j, "b through")
		w.until("a's acknowledgement", func() bool { data, err := a.LeaderData(w.context()); return err == nil && string(data) == "a2" })
		// Close from inside: bounded, and says so.
		closed := make(chan error, 1)
		a.OnStepDown(func(context.Context, election.Term, error) { closed <- a.Close() })
		a.resign()
		if err := <-closed; !errors.Is(err, election.ErrCallbackRunning) {
			t.Fatalf("Close from a callback: %v", err)
		}
		for _, event := range j.all() {
			if strings.Contains(event, ":") && !strings.Contains(event, "stepped down") {
				t.Fatalf("journal %q", j.all())
			}
		}
		o := w.observer(w.session(), j)
		o.OnLeaderDeath(func(election.Leader) { closed <- o.Close() })
		o.OnNewLeader(func(election.Leader) { closed <- o.Close() })
		if err := o.Observe(w.context()); err != nil && !errors.Is(err, election.ErrClosed) {
			t.Fatal(err)
		}
		if err := <-closed; !errors.Is(err, election.ErrCallbackRunning) {
			t.Fatalf("the observer's Close from a callback: %v", err)
		}
	})
}

// The negotiated timeout is learnt from the handshake, since the lease needs
// it: here the server's maximum is below what was asked for.
func TestNegotiatedTimeout(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := inProcess(t, &testutil.ServerOptions{TickTime: 500 * time.Millisecond, MaxSessionTimeout: 2 * time.Second})
		m := w.member("a", &journal{})
		if m.node.Timeout() != 2*time.Second {
			t.Fatalf("asked for %v, learnt %v", w.timeout(), m.node.Timeout())
		}
		m.lead()
		if left := time.Until(m.LeaseUntil()); left > 2*time.Second*11/12 || left <= 0 {
			t.Fatalf("the lease lasts for %v", left)
		}
	})
	t.Run("ZooKeeper", func(t *testing.T) {
		ensemble := realzk.StartZooKeeperWith(t, 1, realzk.EnsembleOptions{MaxSessionTimeout: 2 * time.Second})
		w := &world{t: t, servers: ensemble.Servers(), dial: net.DialTimeout}
		if s := w.session(); s.Timeout() != 2*time.Second {
			t.Fatalf("asked for %v, learnt %v", w.timeout(), s.Timeout())
		}
	})
}
