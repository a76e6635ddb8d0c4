package docs_test

import (
	"context"
	"crypto/tls"
	"net"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election"
	"github.com/zkelection/election/testutil"
	"github.com/zkelection/election/testutil/virtualtime"
)

// private joins an election that nobody else can touch or read.
func private(servers []string, user, password string, opts election.SessionOptions) (*election.Session, *election.Candidate, error) {
	opts.Auth = []election.Auth{{Scheme: "digest", Credentials: []byte(user + ":" + password)}}
	session, err := election.Connect(servers, 10*time.Second, &opts)
	if err != nil {
		return nil, nil, err
	}
	c, err := election.NewCandidate(session, "database_election", &election.CandidateOptions{
		ACL: zk.DigestACL(zk.PermAll, user, password),
	})
	return session, c, err
}

// secureDialer is for SessionOptions.Dialer.
func secureDialer(config *tls.Config) zk.Dialer {
	return func(network, address string, timeout time.Duration) (net.Conn, error) {
		return tls.DialWithDialer(&net.Dialer{Timeout: timeout}, network, address, config)
	}
}

var _ = election.SessionOptions{Dialer: secureDialer(nil)}

func TestPrivate(t *testing.T) {
	virtualtime.Test(t, nil, func(t *testing.T, srv *testutil.Server) {
		session, c, err := private([]string{"mem"}, "member", "secret", election.SessionOptions{Dialer: srv.Dialer()})
		require.NoError(t, err)
		defer session.Close()
		term, err := c.Campaign(t.Context())
		require.NoError(t, err)
		stranger, err := election.Connect([]string{"mem"}, 10*time.Second, &election.SessionOptions{Dialer: srv.Dialer()})
		require.NoError(t, err)
		defer stranger.Close()
		require.NoError(t, stranger.AwaitConnected(t.Context()))
		assert.ErrorIs(t, stranger.Conn().Delete(term.Ballot, -1), zk.ErrNoAuth, "a stranger deletes the ballot")

		// What operations.md says of an open parent, and what to do about it.
		require.NoError(t, c.Resign(t.Context()))
		require.NoError(t, stranger.Conn().Delete(c.RootVotePath(), -1), "a stranger deletes the empty election node")
		_, err = stranger.Conn().Create(c.RootVotePath(), nil, 0, zk.WorldACL(zk.PermAll))
		require.NoError(t, err)
		assert.ErrorIs(t, c.Vote(t.Context()), election.ErrOpenElection, "a vote in the stranger's election")
		require.NoError(t, stranger.Conn().Delete(c.RootVotePath(), -1))
		_, err = session.Conn().SetACL(election.DefaultRoot, zk.DigestACL(zk.PermAll, "member", "secret"), -1)
		require.NoError(t, err)
		_, err = c.Campaign(t.Context())
		require.NoError(t, err)
		require.NoError(t, c.Resign(t.Context()))
		assert.ErrorIs(t, stranger.Conn().Delete(c.RootVotePath(), -1), zk.ErrNoAuth, "a stranger deletes an election node whose parent has an ACL")
	})
}

// TestLeaseFigures measures what operations.md says of the lease: how much of
// it is always left while nothing is wrong, in parts of the session timeout.
func TestLeaseFigures(t *testing.T) {
	for _, row := range []struct {
		timeout, tickTime time.Duration
		least             float64
	}{
		{4 * time.Second, 0, 0.33},
		{4 * time.Second, 2 * time.Second, 0.33},
		{10 * time.Second, 0, 0.33},
		{10 * time.Second, 2 * time.Second, 0.52},
		{30 * time.Second, 2 * time.Second, 0.52},
	} {
		virtualtime.Test(t, nil, func(t *testing.T, srv *testutil.Server) {
			session, err := election.Connect([]string{"mem"}, row.timeout,
				&election.SessionOptions{Dialer: srv.Dialer(), TickTime: row.tickTime})
			require.NoError(t, err)
			defer session.Close()
			c, err := election.NewCandidate(session, "lease", nil)
			require.NoError(t, err)
			_, err = c.Campaign(context.Background())
			require.NoError(t, err)
			// No network is without delay, and a rule that asks for what was
			// answered by a certain time may miss an answer by a millisecond.
			defer srv.Control(testutil.AnyOp, func(*testutil.Request) testutil.Action { return testutil.Delay(2 * time.Millisecond) })()
			time.Sleep(3 * row.timeout) // until heartbeats and pings have settled
			left := row.timeout
			for range 20_000 {
				left = min(left, time.Until(c.LeaseUntil()))
				time.Sleep(row.timeout / 200)
			}
			part := left.Seconds() / row.timeout.Seconds()
			t.Logf("T %v, TickTime %v: %.3f T", row.timeout, row.tickTime, part)
			assert.GreaterOrEqual(t, part, row.least, "T %v, TickTime %v: what operations.md says is always left of the lease", row.timeout, row.tickTime)
			assert.LessOrEqual(t, part, row.least+0.05, "T %v, TickTime %v: what operations.md says is always left of the lease", row.timeout, row.tickTime)
		})
	}
}
