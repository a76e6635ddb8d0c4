//go:build linux

package chaos

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election"
	"github.com/zkelection/election/testutil/realzk"
)

var (
	quietLogger = slog.New(slog.DiscardHandler)
	service     = election.Auth{Scheme: "digest", Credentials: []byte("service:secret")}
)

// attack is what a stranger tries on the election of a candidate that leads.
type attack struct {
	name string
	do   func(conn *zk.Conn, c *election.Candidate) error
}

// attacks are in an order in which each can succeed on an open election.
var attacks = []attack{
	{"list the ballots", func(conn *zk.Conn, c *election.Candidate) error {
		_, _, err := conn.Children(c.RootVotePath())
		return err
	}},
	{"read a ballot", func(conn *zk.Conn, c *election.Candidate) error {
		_, _, err := conn.Get(c.VotePath())
		return err
	}},
	{"read the acknowledgement", func(conn *zk.Conn, c *election.Candidate) error {
		_, _, err := conn.Get(c.LeaderAckPath())
		return err
	}},
	{"read a ballot, watching", func(conn *zk.Conn, c *election.Candidate) error {
		_, _, _, err := conn.GetW(c.VotePath())
		return err
	}},
	{"change the acknowledgement", func(conn *zk.Conn, c *election.Candidate) error {
		_, err := conn.Set(c.LeaderAckPath(), []byte("forged"), -1)
		return err
	}},
	{"change a ballot", func(conn *zk.Conn, c *election.Candidate) error {
		_, err := conn.Set(c.VotePath(), []byte("forged"), -1)
		return err
	}},
	{"replace the acknowledgement", func(conn *zk.Conn, c *election.Candidate) error {
		_, err := conn.Multi(&zk.DeleteRequest{Path: c.LeaderAckPath(), Version: -1},
			&zk.CreateRequest{Path: c.LeaderAckPath(), Data: []byte("forged"), Acl: zk.WorldACL(zk.PermAll), Flags: zk.FlagEphemeral})
		return err
	}},
	{"remove the acknowledgement", func(conn *zk.Conn, c *election.Candidate) error {
		return conn.Delete(c.LeaderAckPath(), -1)
	}},
	{"cast a ballot", func(conn *zk.Conn, c *election.Candidate) error {
		path, err := conn.Create(c.RootVotePath()+"/ballot-", []byte("forged"), zk.FlagEphemeral|zk.FlagSequence, zk.WorldACL(zk.PermAll))
		if err == nil {
			err = conn.Delete(path, -1)
		}
		return err
	}},
	{"take a ballot's rights", func(conn *zk.Conn, c *election.Candidate) error {
		_, err := conn.SetACL(c.VotePath(), zk.WorldACL(zk.PermAll), -1)
		return err
	}},
	{"take the election's rights", func(conn *zk.Conn, c *election.Candidate) error {
		_, err := conn.SetACL(c.RootVotePath(), zk.WorldACL(zk.PermAll), -1)
		return err
	}},
	{"remove a ballot", func(conn *zk.Conn, c *election.Candidate) error {
		return conn.Delete(c.VotePath(), -1)
	}},
}

// TestStrangersCanDoNothing attacks an election that has an ACL, without
// credentials and with others than the service's. The control is an open
// election, where every one of the attacks succeeds.
func TestStrangersCanDoNothing(t *testing.T) {
	zookeeper := realzk.StartZooKeeper(t, 1)
	strangers := map[string]*zk.Conn{"nobody": connectRaw(t, zookeeper), "somebody else": connectRaw(t, zookeeper)}
	require.NoError(t, strangers["somebody else"].AddAuth("digest", []byte("stranger:guess")))

	for name, acl := range map[string][]zk.ACL{
		"digest": zk.DigestACL(zk.PermAll, "service", "secret"),
		"auth":   zk.AuthACL(zk.PermAll),
	} {
		t.Run(name, func(t *testing.T) {
			session := connect(t, zookeeper.Servers(), &election.SessionOptions{Auth: []election.Auth{service}, Logger: quietLogger})
			c := newCandidate(t, session, "guarded-"+name, &election.CandidateOptions{Data: []byte("secret data"), ACL: acl})
			term := campaign(t, c)
			for who, conn := range strangers {
				for _, a := range attacks {
					assert.ErrorIs(t, a.do(conn, c), zk.ErrNoAuth, "%s tries to %s", who, a.name)
				}
			}
			id, err := resume(zookeeper.Servers()[0], session.ID())
			assert.NoError(t, err)
			assert.Zero(t, id, "the session that a stranger resumed")

			// Nothing of it has reached the election.
			leader, err := c.LeaderSync(t.Context())
			require.NoError(t, err)
			assert.Equal(t, "secret data", string(leader.Data))
			assert.Equal(t, session.ID(), leader.SessionID)
			now, leads := c.Term()
			assert.True(t, leads, "it does not lead any more")
			assert.Equal(t, term, now)
			require.NoError(t, c.Resign(t.Context()))
			// With nobody leading, the acknowledgement is there to be forged.
			for who, conn := range strangers {
				_, err := conn.Create(c.LeaderAckPath(), []byte("forged"), zk.FlagEphemeral, zk.WorldACL(zk.PermAll))
				assert.ErrorIs(t, err, zk.ErrNoAuth, "%s acknowledges", who)
			}
			open := connect(t, zookeeper.Servers(), &election.SessionOptions{Logger: quietLogger})
			assert.ErrorIs(t, newCandidate(t, open, "guarded-"+name, nil).Vote(t.Context()), zk.ErrNoAuth, "a candidate without credentials votes")
		})
	}

	t.Run("control", func(t *testing.T) {
		session := connect(t, zookeeper.Servers(), &election.SessionOptions{Logger: quietLogger})
		for _, a := range attacks {
			c := newCandidate(t, session, "open "+a.name, nil)
			campaign(t, c)
			assert.NoError(t, a.do(strangers["nobody"], c), "on an open election a stranger cannot %s", a.name)
		}
		// An election that was open before is not taken for a guarded one.
		owner := connect(t, zookeeper.Servers(), &election.SessionOptions{Auth: []election.Auth{service}, Logger: quietLogger})
		c := newCandidate(t, owner, "open cast a ballot", &election.CandidateOptions{ACL: zk.DigestACL(zk.PermAll, "service", "secret")})
		assert.ErrorIs(t, c.Vote(t.Context()), election.ErrOpenElection, "a vote with an ACL in an open election")
	})
}

// TestEveryCallWorksUnderAnACL goes through the library's calls with a digest ACL.
func TestEveryCallWorksUnderAnACL(t *testing.T) {
	zookeeper := realzk.StartZooKeeper(t, 1)
	opts := &election.SessionOptions{Auth: []election.Auth{service}, Logger: quietLogger}
	everyCall(t, func() *election.Session { return connect(t, zookeeper.Servers(), opts) },
		zk.DigestACL(zk.PermAll, "service", "secret"))
}

// everyCall goes through the calls of two candidates and an observer, each on
// a session of its own.
func everyCall(t *testing.T, session func() *election.Session, acl []zk.ACL) {
	t.Helper()
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		require.NoError(t, err)
	}
	s1 := session()
	first := newCandidate(t, s1, "every/call", &election.CandidateOptions{Data: []byte("first"), ACL: acl})
	second := newCandidate(t, session(), "every/call", &election.CandidateOptions{
		Data: []byte("second"), ACL: acl, Follow: election.FollowLeader, HotStandby: true,
	})
	observer, err := election.NewObserver(session(), "every/call", nil)
	must(err)
	defer func() { must(observer.Close()) }()

	newLeader, data, death := make(chan string, 4), make(chan string, 4), make(chan string, 4)
	lost, stepped, acked := make(chan string, 4), make(chan error, 4), make(chan string, 4)
	observer.OnNewLeader(func(l election.Leader) { newLeader <- string(l.Data) })
	observer.OnLeaderData(func(l election.Leader) { data <- string(l.Data) })
	observer.OnLeaderDeath(func(l election.Leader) { death <- string(l.Data) })
	second.OnLose(func(_ context.Context, l election.Leader) { lost <- string(l.Data) })
	second.OnLeaderAck(func(l election.Leader) { acked <- string(l.Data) })
	first.OnStepDown(func(_ context.Context, _ election.Term, cause error) { stepped <- cause })

	must(observer.Observe(ctx))
	want(t, death, "")
	_, err = first.Leader(ctx)
	assert.ErrorIs(t, err, election.ErrNoLeader, "a leader of nothing")
	term := campaign(t, first)
	want(t, newLeader, "first")
	want(t, acked, "first")
	must(second.Vote(ctx))
	want(t, lost, "first")
	assert.True(t, first.IsLeader())
	assert.False(t, second.IsLeader())
	assert.True(t, second.Voted())
	assert.Positive(t, time.Until(first.LeaseUntil()))
	// It renews its lease in every sixth of this; on a busy machine one of its heartbeats may be late.
	must(first.Healthy(first.Session().Timeout() / 3))
	assert.ErrorContains(t, first.Healthy(0), "the lease was last renewed", "with no tolerance")
	ok, err := second.LeaderAcked(ctx)
	assert.NoError(t, err)
	assert.True(t, ok, "it is not acknowledged")
	ballots, err := observer.Ballots(ctx)
	require.NoError(t, err)
	require.Len(t, ballots, 2)
	assert.Equal(t, "first", string(ballots[0].Data))
	assert.Equal(t, term.Token, ballots[0].Token)
	assert.Equal(t, second.VotePath(), ballots[1].Path)
	must(first.Proclaim(ctx, []byte("moved")))
	want(t, data, "moved")
	got, err := second.LeaderData(ctx)
	assert.NoError(t, err)
	assert.Equal(t, "moved", string(got), "the leader's data")
	_, err = s1.Conn().Multi(term.Guard(), &zk.CreateRequest{Path: "/guarded-write", Acl: zk.WorldACL(zk.PermAll)})
	assert.NoError(t, err, "a guarded write")

	must(first.Resign(ctx))
	assert.ErrorIs(t, receive(t, stepped), election.ErrResigned, "stepped down")
	want(t, death, "moved")
	want(t, newLeader, "second")
	leader, err := first.LeaderSync(ctx)
	require.NoError(t, err)
	assert.Equal(t, "second", string(leader.Data))
	_, err = s1.Conn().Multi(term.Guard(), &zk.DeleteRequest{Path: "/guarded-write", Version: -1})
	assert.ErrorIs(t, err, zk.ErrNoNode, "a write of a leader of the past")
	running := make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		ended <- first.Run(ctx, func(context.Context, election.Term) error { close(running); return nil })
	}()
	await(t, 10*time.Second, "ballot of the first", func() string { return "" }, first.Voted)
	must(second.Close())
	receive(t, running)
	must(receive(t, ended))
	must(first.Close())
	ballots, err = observer.Ballots(ctx)
	assert.NoError(t, err)
	assert.Empty(t, ballots, "ballots left")
}

func want(t *testing.T, ch <-chan string, value string) {
	t.Helper()
	require.Equal(t, value, receive(t, ch))
}

func receive[T any](t *testing.T, ch <-chan T) T {
	t.Helper()
	select {
	case value := <-ch:
		return value
	case <-time.After(20 * time.Second):
		t.Fatal("nothing came in 20 s")
		panic("unreachable")
	}
}

// connect opens a session that outlasts a machine that stands still: nothing here waits for its end.
func connect(t *testing.T, servers []string, opts *election.SessionOptions) *election.Session {
	t.Helper()
	s, err := election.Connect(servers, 20*time.Second, opts)
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.NoError(t, s.Close())
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	require.NoError(t, s.AwaitConnected(ctx))
	return s
}

func newCandidate(t *testing.T, s *election.Session, name string, opts *election.CandidateOptions) *election.Candidate {
	t.Helper()
	c, err := election.NewCandidate(s, name, opts)
	require.NoError(t, err)
	return c
}

func campaign(t *testing.T, c *election.Candidate) election.Term {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	term, err := c.Campaign(ctx)
	require.NoError(t, err)
	return term
}

func connectRaw(t *testing.T, zookeeper *realzk.Ensemble) *zk.Conn {
	t.Helper()
	conn, events, err := zk.Connect(zookeeper.Servers(), 20*time.Second, zk.WithLogger(quiet{}))
	require.NoError(t, err)
	t.Cleanup(func() {
		conn.Close()
		for range events {
		}
	})
	return conn
}

// resume tries to take over a session whose password it does not know, and
// returns the session that it was given: 0 for none.
func resume(server string, session int64) (int64, error) {
	conn, err := net.DialTimeout("tcp", server, 10*time.Second)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return 0, err
	}
	if _, err := conn.Write(handshake(session)); err != nil {
		return 0, err
	}
	answer := make([]byte, 4+16)
	_, err = io.ReadFull(conn, answer)
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
		// ZooKeeper closes the connection behind its answer, and now and then before that is sent ("CancelledKeyException
		// causing close of session" in its log).
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return int64(binary.BigEndian.Uint64(answer[12:])), nil
}
