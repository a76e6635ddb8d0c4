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
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

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
				assert.ErrorIs(t, err, election.ErrInvalidName, "name %q", name)
			}
		}
		for _, root := range []string{"relative", "/", "/a/", "//a", "/a//b", "/./a", "/a/..", "/a\x01"} {
			for _, err := range []error{
				second(election.NewCandidate(s.Session, "x", &election.CandidateOptions{Root: root})),
				second(election.NewObserver(s.Session, "x", &election.ObserverOptions{Root: root})),
			} {
				assert.ErrorIs(t, err, election.ErrInvalidPath, "root %q", root)
			}
		}
		for _, name := range []string{"a", "a/b", "/", "...", "Zürich", "a b"} {
			c, err := election.NewCandidate(s.Session, name, nil)
			if err != nil {
				t.Errorf("name %q: %v", name, err)
				continue
			}
			assert.NoError(t, second(c.Campaign(w.context())), "name %q", name)
		}
		assert.Error(t, second(election.NewCandidate(nil, "x", nil)), "a nil session was taken")
		assert.Error(t, second(election.NewObserver(nil, "x", nil)), "a nil session was taken")
		closed := w.session()
		require.NoError(t, closed.Close())
		assert.ErrorIs(t, second(election.NewObserver(closed.Session, "x", nil)), election.ErrClosed, "a closed session")
		assert.Error(t, second(election.NewCandidate(s.Session, "x", &election.CandidateOptions{Follow: 7})), "Follow(7) was taken")
		assert.Error(t, second(election.Connect(w.servers, 0, nil)), "a timeout of 0 was taken")
		assert.Error(t, second(election.Connect(nil, time.Second, nil)), "no servers were taken")
	})
}

func second[T any](_ T, err error) error { return err }

func TestNoPermission(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		conn := w.client()
		root := "/noPermission" + w.name()
		require.NoError(t, second(conn.Create(root, nil, 0, zk.WorldACL(zk.PermRead))))
		j := &journal{}
		a := w.member("a", j, func(o *election.CandidateOptions) { o.Root = root })
		require.ErrorIs(t, a.Vote(w.context()), zk.ErrNoAuth, "Vote")
		require.ErrorIs(t, second(a.Campaign(w.context())), zk.ErrNoAuth, "Campaign")
		require.ErrorIs(t, a.Run(w.context(), func(context.Context, election.Term) error { return nil }), zk.ErrNoAuth, "Run")
		require.False(t, a.Voted(), "a ballot without permission")
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
		require.NoError(t, a.Proclaim(w.context(), []byte("a2")))
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
		require.NoError(t, a.node.link.expire()) // credentials go along to a new session
		w.await(j, "b won")
		w.until("a to stand again", a.Voted)
		// An open election node is refused.
		open := w.memberOn(w.session(), "open", &journal{}, func(o *election.CandidateOptions) { o.Root = "/open" + w.name() })
		open.lead()
		closed := w.memberOn(w.session(auth), "closed", &journal{}, private, func(o *election.CandidateOptions) { o.Root = "/open" + w.name() })
		require.ErrorIs(t, closed.Vote(w.context()), election.ErrOpenElection, "Vote in an open election with an ACL")
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
		require.NoError(t, err)
		defer s.Close()
		require.ErrorIs(t, s.AwaitConnected(w.context()), zk.ErrAuthFailed, "AwaitConnected")
		c, err := election.NewCandidate(s, w.name(), nil)
		require.NoError(t, err)
		require.ErrorIs(t, c.Vote(w.context()), zk.ErrAuthFailed, "Vote")
	})
}

func TestEphemeralElectionNode(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		conn := w.client()
		a := w.member("a", &journal{})
		if _, err := conn.Create("/_zkelection", nil, 0, zk.WorldACL(zk.PermAll)); err != nil && !errors.Is(err, zk.ErrNodeExists) {
			t.Fatal(err)
		}
		require.NoError(t, second(conn.Create(a.RootVotePath(), nil, zk.FlagEphemeral, zk.WorldACL(zk.PermAll))))
		require.ErrorIs(t, a.Vote(w.context()), zk.ErrNoChildrenForEphemerals, "Vote")
		require.NoError(t, conn.Delete(a.RootVotePath(), -1))
		a.lead()
	})
}

func TestLargeData(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		n := w.session()
		require.ErrorIs(t, second(election.NewCandidate(n.Session, w.name(), &election.CandidateOptions{Data: make([]byte, election.MaxDataSize+1)})), election.ErrDataTooLarge, "too much data")
		large := []byte(strings.Repeat("x", election.MaxDataSize))
		j := &journal{}
		a := w.memberOn(n, "a", j, func(o *election.CandidateOptions) { o.Data = large })
		a.lead()
		data, err := a.LeaderData(w.context())
		require.NoError(t, err, "%d bytes", len(data))
		require.Equal(t, election.MaxDataSize, len(data), "%d bytes", len(data))
		require.ErrorIs(t, a.Proclaim(w.context(), append(large, 'x')), election.ErrDataTooLarge, "Proclaim of too much data")
		large[0] = 'y' // the candidate has a copy of its own
		require.NoError(t, a.Proclaim(w.context(), large))
		data, err = a.LeaderData(w.context())
		require.NoError(t, err, "%d bytes", len(data))
		require.Equal(t, election.MaxDataSize, len(data), "%d bytes", len(data))
		require.Equal(t, byte('y'), data[0], "%d bytes", len(data))
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
		for what, call := range waitingCalls(n, a.Candidate, o) {
			ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
			began := time.Now()
			err := call(ctx)
			// Run gives its resignation time.
			if limit := time.Second + 2*w.timeout(); w.virtual() && time.Since(began) > limit {
				t.Errorf("%s took %v", what, time.Since(began))
			}
			assert.ErrorIs(t, err, context.DeadlineExceeded, what)
			cancel()
			assert.ErrorIs(t, call(ctx), context.DeadlineExceeded, "%s with a context that has ended", what)
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
		assert.ErrorIs(t, a.Proclaim(ctx, []byte("x")), context.DeadlineExceeded, "Proclaim")
		assert.ErrorIs(t, a.Resign(ctx), context.DeadlineExceeded, "Resign")
		assert.False(t, a.IsLeader(), "leads after Resign")
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
		require.Error(t, err, "Close while nobody answers")
		require.NotErrorIs(t, err, election.ErrCallbackRunning, "Close while nobody answers")
		if took := time.Since(began); took < w.timeout() || w.virtual() && took > 3*w.timeout() {
			t.Fatalf("Close gave up after %v", took)
		}
		require.False(t, a.IsLeader(), "leads after Close")
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
		quick := func(o *election.CandidateOptions) { o.StepDownTimeout = 3 * time.Second }
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
		require.ErrorIs(t, <-closed, election.ErrCallbackRunning, "Close from a callback")
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
		require.ErrorIs(t, <-closed, election.ErrCallbackRunning, "the observer's Close from a callback")
	})
}

// The negotiated timeout is learnt from the handshake, since the lease needs
// it: here the server's maximum is below what was asked for.
func TestNegotiatedTimeout(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := inProcess(t, &testutil.ServerOptions{TickTime: 500 * time.Millisecond, MaxSessionTimeout: 2 * time.Second})
		m := w.member("a", &journal{})
		require.Equal(t, 2*time.Second, m.node.Timeout(), "asked for %v", w.timeout())
		m.lead()
		if left := time.Until(m.LeaseUntil()); left > 2*time.Second*11/12 || left <= 0 {
			t.Fatalf("the lease lasts for %v", left)
		}
	})
	t.Run("ZooKeeper", func(t *testing.T) {
		ensemble := realzk.StartZooKeeperWith(t, 1, realzk.EnsembleOptions{MaxSessionTimeout: 2 * time.Second})
		w := &world{t: t, servers: ensemble.Servers(), dial: net.DialTimeout}
		require.Equal(t, 2*time.Second, w.session().Timeout(), "asked for %v", w.timeout())
	})
}
