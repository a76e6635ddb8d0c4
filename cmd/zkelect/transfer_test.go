//go:build unix

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election"
	"github.com/zkelection/election/testutil"
)

// TestTransfer: the command of the leader ends in order before that of the chosen one begins, and who is passed over stays.
func TestTransfer(t *testing.T) {
	onBoth(t, func(t *testing.T, servers string) {
		j := newJournal(t)
		begin := func(name string) *process {
			p := start(t, servers, atEase(t, "--keep", "--data", name, "--",
				"sh", "-c", fmt.Sprintf(`echo %[1]s begins >>%[2]q; trap 'sleep 0.3; echo %[1]s ends >>%[2]q; exit' TERM; while :; do sleep 0.05; done`, name, j.path))...)
			until(t, name+" to stand", func() bool {
				_, stdout, _ := zkelect(t, servers, "status", "--wide", "--election", electionOf(t))
				return strings.Contains(stdout, "  "+name+"\n")
			})
			return p
		}
		a := begin("A")
		j.has(t, "A begins\n")
		begin("B")
		begin("C")
		status, _, stderr := zkelect(t, servers, "transfer", "--election", electionOf(t), "--to", "C", "--within", "30s")
		require.Zero(t, status, stderr)
		assert.Contains(t, stderr, "C leads "+electionOf(t))
		j.has(t, "C begins\n")
		assert.Equal(t, "A begins\nA ends\nC begins\n", j.read())
		a.says(&a.stderr, "is given up (election: leadership is passed on): stopping sh")

		status, _, stderr = zkelect(t, servers, "transfer", "--election", electionOf(t), "--to", "C")
		assert.Zero(t, status, stderr)
		assert.Contains(t, stderr, "C leads "+electionOf(t)+" already\n")
		status, _, stderr = zkelect(t, servers, "transfer", "--election", electionOf(t), "--to", "D")
		assert.Equal(t, exitNobody, status)
		assert.Contains(t, stderr, `no candidate of `+electionOf(t)+` is called "D"; there are `)
		status, _, _ = zkelect(t, servers, "transfer", "--election", electionOf(t))
		assert.Equal(t, exitUsage, status)
	})
}

// TestTransferGivesTheCommandItsGrace: a command that takes longer to end than a lease lasts is waited for, and not killed.
func TestTransferGivesTheCommandItsGrace(t *testing.T) {
	onBoth(t, func(t *testing.T, servers string) {
		j := newJournal(t)
		begin := func(name string) {
			start(t, servers, atEase(t, "--keep", "--data", name, "--grace", "1m", "--",
				"sh", "-c", fmt.Sprintf(`echo %[1]s begins >>%[2]q; trap 'sleep 13; echo %[1]s ends >>%[2]q; exit' TERM; while :; do sleep 0.05; done`, name, j.path))...)
			until(t, name+" to stand", func() bool {
				_, stdout, _ := zkelect(t, servers, "status", "--wide", "--election", electionOf(t))
				return strings.Contains(stdout, "  "+name+"\n")
			})
		}
		begin("A")
		j.has(t, "A begins\n")
		begin("B")
		status, _, stderr := zkelect(t, servers, "transfer", "--election", electionOf(t), "--to", "B", "--within", "1m")
		require.Zero(t, status, stderr)
		j.has(t, "B begins\n")
		assert.Equal(t, "A begins\nA ends\nB begins\n", j.read())
	})
}

// TestTransferWaitsForTheLeader: the request ends with zkelect, so while the leader steps down it waits, whatever --within says.
func TestTransferWaitsForTheLeader(t *testing.T) {
	onBoth(t, func(t *testing.T, servers string) { waitsForTheLeader(t, servers, nil, func(*election.Candidate) {}) })
}

// TestTransferWaitsBeyondALostConnection: as long as its session lives the request stands, and an answer that does not come
// decides nothing. Zkelect would take the request along.
func TestTransferWaitsBeyondALostConnection(t *testing.T) {
	t.Parallel()
	srv, err := testutil.NewServer(&testutil.ServerOptions{TickTime: 500 * time.Millisecond, MaxSessionTimeout: 12 * time.Second})
	require.NoError(t, err)
	t.Cleanup(srv.Close)
	waitsForTheLeader(t, srv.Addr(), nil, func(*election.Candidate) {
		looked := make(chan struct{})
		var mu sync.Mutex
		looks := map[int64]int{} // of each session; zkelect's looks all the time
		t.Cleanup(srv.Control(testutil.OpExists, func(q *testutil.Request) testutil.Action {
			mu.Lock()
			defer mu.Unlock()
			if strings.HasSuffix(q.Path, "/transfer") {
				looks[q.SessionID]++
				switch looks[q.SessionID] {
				case 5:
					return testutil.LoseReply
				case 10:
					close(looked)
				}
			}
			return testutil.Pass
		}))
		select {
		case <-looked: // again
		case <-time.After(time.Minute):
			t.Error("it has given up")
		}
	})
}

// TestTransferIsAsClosedAsItsElection: whoever can write to a request says who is to lead. Who may not administer the
// election's node is shown its digests in part, and knows its own; those of others a request cannot be made with.
func TestTransferIsAsClosedAsItsElection(t *testing.T) {
	for name, perms := range map[string]int32{"with all rights": zk.PermAll, "without administering": zk.PermAll &^ zk.PermAdmin} {
		t.Run(name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, servers string) {
				waitsForTheLeader(t, servers, zk.DigestACL(perms, "me", "secret"), func(leader *election.Candidate) {
					outside, _ := member(t, servers, "a stranger")
					members, stranger := leader.Session().Conn(), outside.Conn()
					children, _, err := members.Children(leader.RootVotePath())
					require.NoError(t, err)
					seen := 0
					for _, child := range children {
						if !strings.HasPrefix(child, "transfer") {
							continue
						}
						seen++
						node := leader.RootVotePath() + "/" + child
						acl, _, err := members.GetACL(node)
						require.NoError(t, err)
						assert.Equal(t, zk.DigestACL(zk.PermAll, "me", "secret"), acl, child)
						_, _, err = stranger.Get(node)
						assert.ErrorIs(t, err, zk.ErrNoAuth, child)
						_, err = stranger.Set(node, []byte("another"), -1)
						assert.ErrorIs(t, err, zk.ErrNoAuth, child)
					}
					assert.Equal(t, 2, seen, "the request and its mark")
				})
			})
		})
	}
	t.Run("of others", func(t *testing.T) {
		onBoth(t, func(t *testing.T, servers string) {
			acl := append(zk.DigestACL(zk.PermAll, "me", "secret"), zk.DigestACL(zk.PermAll&^zk.PermAdmin, "you", "other")...)
			campaign(t, private(t, servers, "A", acl))
			status, _, stderr := zkelect(t, servers, "transfer", "--auth", "digest:you:other", "--election", electionOf(t), "--to", "A")
			assert.Equal(t, exitFailed, status)
			assert.Contains(t, stderr, " lets me in, whose digest it shows only to those who may administer it")
			status, _, stderr = zkelect(t, servers, "transfer", "--auth", "digest:me:secret", "--election", electionOf(t), "--to", "A")
			assert.Zero(t, status, stderr)
			assert.Contains(t, stderr, "A leads "+electionOf(t)+" already\n")
		})
	})
}

// TestTransferAsksForTheRightsAgain: one answer that does not come decides nothing.
func TestTransferAsksForTheRightsAgain(t *testing.T) {
	t.Parallel()
	srv, err := testutil.NewServer(&testutil.ServerOptions{TickTime: 500 * time.Millisecond, MaxSessionTimeout: 12 * time.Second})
	require.NoError(t, err)
	t.Cleanup(srv.Close)
	campaign(t, private(t, srv.Addr(), "A", zk.DigestACL(zk.PermAll, "me", "secret")))
	before := srv.Counts()[testutil.OpGetACL]
	t.Cleanup(srv.Control(testutil.OpGetACL, testutil.Once(testutil.LoseReply)))
	status, _, stderr := zkelect(t, srv.Addr(), "transfer", "--auth", "digest:me:secret", "--election", electionOf(t), "--to", "A")
	assert.Zero(t, status, stderr)
	assert.Contains(t, stderr, "A leads "+electionOf(t)+" already\n")
	assert.Equal(t, int64(2), srv.Counts()[testutil.OpGetACL]-before)
}

// private makes a candidate that holds the credentials me:secret and lets in whom the ACL names; nil is open to everybody.
func private(t *testing.T, servers, data string, acl []zk.ACL) *election.Candidate {
	t.Helper()
	// For a lease that is not lost while the machine stands still: see atEase.
	s, err := election.Connect([]string{servers}, 12*time.Second, &election.SessionOptions{
		TickTime: 500 * time.Millisecond, Auth: []election.Auth{{Scheme: "digest", Credentials: []byte("me:secret")}},
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	c, err := election.NewCandidate(s, electionOf(t), &election.CandidateOptions{Data: []byte(data), StepDownTimeout: time.Hour, ACL: acl})
	require.NoError(t, err)
	return c
}

// waitsForTheLeader has zkelect pass leadership on from one whose step-down hangs while something happens.
func waitsForTheLeader(t *testing.T, servers string, acl []zk.ACL, meanwhile func(leader *election.Candidate)) {
	t.Helper()
	a, b := private(t, servers, "A", acl), private(t, servers, "B", acl)
	campaign(t, a)
	require.NoError(t, b.Vote(t.Context()))
	hold := make(chan struct{})
	release := sync.OnceFunc(func() { close(hold) })
	t.Cleanup(release) // before the sessions are closed
	a.OnStepDown(func(context.Context, election.Term, error) { <-hold })
	p := start(t, servers, "transfer", "--auth", "digest:me:secret", "--election", electionOf(t), "--to", "B", "--within", "24s")
	until(t, "A to step down", func() bool { return !a.IsLeader() })
	p.says(&p.stderr, "waiting for what comes of it")
	meanwhile(a)
	assert.False(t, b.IsLeader())
	release()
	assert.Zero(t, p.wait(), p.stderr.String())
	assert.True(t, b.IsLeader())
	assert.Contains(t, p.stderr.String(), "B leads "+electionOf(t))
}

// TestTransferToOneOfTwo: data that two candidates have names neither.
func TestTransferToOneOfTwo(t *testing.T) {
	onBoth(t, func(t *testing.T, servers string) {
		j := newJournal(t)
		pair(t, servers, j, "--data", "same")
		status, _, stderr := zkelect(t, servers, "transfer", "--election", electionOf(t), "--to", "same")
		assert.Equal(t, exitNobody, status)
		assert.Contains(t, stderr, "2 candidates")
	})
}

// TestRunReady: who is not ready stands aside, a leader ends its command first, and votes again when it is ready.
func TestRunReady(t *testing.T) {
	onBoth(t, func(t *testing.T, servers string) {
		j := newJournal(t)
		lags := filepath.Join(t.TempDir(), "lags")
		require.NoError(t, os.WriteFile(lags, nil, 0o600))
		a := start(t, servers, append(atEase(
			t, "--keep", "--data", "A", "--ready", fmt.Sprintf("! test -e %q || { echo 7 s behind; exit 1; }", lags), "--ready-every", "100ms", "--",
		), j.beats("A")...)...)
		a.says(&a.stderr, "7 s behind")
		status, stdout, _ := zkelect(t, servers, "status", "--election", electionOf(t))
		assert.Equal(t, exitNoLeader, status, stdout)
		assert.Empty(t, j.read())

		require.NoError(t, os.Remove(lags))
		j.has(t, "A\n")
		start(t, servers, append(atEase(t, "--data", "B", "--"), j.beats("B")...)...)
		require.NoError(t, os.WriteFile(lags, nil, 0o600))
		j.has(t, "B\n")
		assert.Empty(t, overlap(j.read()))
		a.says(&a.stderr, "is given up")
	})
}

// TestRunPriority: the best of those who wait is the next, whoever came first.
func TestRunPriority(t *testing.T) {
	onBoth(t, func(t *testing.T, servers string) {
		j := newJournal(t)
		begin := func(name string, flags ...string) *process {
			args := atEase(t, append([]string{"--data", name}, flags...)...)
			return start(t, servers, append(append(args, "--"), j.beats(name)...)...)
		}
		a := begin("A")
		j.has(t, "A\n")
		b := begin("B")
		b.says(&b.stderr, "waiting: A leads")
		c := begin("C", "--priority", "5")
		c.says(&c.stderr, "waiting: A leads")
		until(t, "C to be the next", func() bool {
			_, stdout, _ := zkelect(t, servers, "status", "--wide", "--election", electionOf(t))
			at := func(name string) int { return strings.Index(stdout, "  "+name+"\n") }
			return at("C") > 0 && at("C") < at("B")
		})
		a.signal(syscall.SIGKILL)
		j.has(t, "C\n")
		assert.NotContains(t, j.read(), "B\n")
		status, _, _ := zkelect(t, servers, "run", "--election", electionOf(t), "--priority", "10", "--", "true")
		assert.Equal(t, exitUsage, status)
	})
}
