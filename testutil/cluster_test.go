package testutil_test

import (
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/testutil"
	"github.com/zkelection/election/testutil/realzk"
)

// A cluster is an ensemble whose members can be killed and started: the real one, or that in the process over TCP.
type cluster struct {
	servers []string
	kill    func(i int)
	start   func(i int)
	leader  func() int
}

// onClusters runs a test on both, of each release.
func onClusters(t *testing.T, test func(t *testing.T, c *cluster)) {
	const tick = 500 * time.Millisecond
	for _, release := range releases {
		t.Run("inprocess/"+string(release), func(t *testing.T) {
			t.Parallel()
			srv, err := testutil.NewServer(&testutil.ServerOptions{Release: release, Members: 3, TickTime: tick, MaxSessionTimeout: time.Minute})
			require.NoError(t, err)
			t.Cleanup(srv.Close)
			test(t, &cluster{
				servers: srv.Servers(),
				kill:    func(i int) { srv.Member(i).Stop() },
				start:   func(i int) { assert.NoError(t, srv.Member(i).Start()) },
				leader:  srv.Leader,
			})
		})
		t.Run("zookeeper/"+string(release), func(t *testing.T) {
			t.Parallel()
			ensemble := realzk.StartZooKeeperWith(t, 3, realzk.EnsembleOptions{Release: release, TickTime: tick})
			test(t, &cluster{servers: ensemble.Servers(), kill: ensemble.Kill, start: ensemble.Restart, leader: ensemble.Leader})
		})
	}
}

// connect gives a client of all members, or of some, that has its session.
func (c *cluster) connect(t *testing.T, members ...int) *zk.Conn {
	t.Helper()
	servers := c.servers
	if len(members) > 0 {
		servers = nil
		for _, i := range members {
			servers = append(servers, c.servers[i])
		}
	}
	conn, events, err := zk.Connect(servers, 20*time.Second, zk.WithLogger(silent{}), zk.WithLogInfo(false))
	require.NoError(t, err)
	t.Cleanup(func() {
		conn.Close()
		for range events {
		}
	})
	c.await(t, "a session", func() bool { return conn.State() == zk.StateHasSession })
	return conn
}

// await polls: a real ensemble's doings cannot be waited for in any other way.
func (c *cluster) await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, time.Minute, 10*time.Millisecond, what)
}

// member is the one that the client is connected to.
func (c *cluster) member(conn *zk.Conn) int { return slices.Index(c.servers, conn.Server()) }

// retry does what a client does over the loss of its connection, until it succeeds.
func (c *cluster) retry(t *testing.T, what string, do func() error) {
	t.Helper()
	c.await(t, what, func() bool { return do() == nil })
}

// TestClientMovesOn kills the member that a client is connected to: its session, its ephemeral node and its watch go on
// elsewhere, and the member is there again when it is started, with what it missed.
func TestClientMovesOn(t *testing.T) {
	onClusters(t, func(t *testing.T, c *cluster) {
		follower := (c.leader() + 1) % 3
		conn, other := c.connect(t), c.connect(t, c.leader())
		// The client chooses its member: it must be one that is killed without its leader.
		for c.member(conn) != follower {
			conn = c.connect(t, follower, (follower+1)%3, (follower+2)%3)
		}
		session := conn.SessionID()
		_, err := conn.Create("/mine", nil, zk.FlagEphemeral, zk.WorldACL(zk.PermAll))
		require.NoError(t, err)
		_, _, changed, err := conn.GetW("/mine")
		require.NoError(t, err)

		c.kill(follower)
		c.await(t, "a move", func() bool { return conn.State() == zk.StateHasSession && c.member(conn) != follower })
		assert.Equal(t, session, conn.SessionID())
		c.retry(t, "a write of another", func() error {
			_, err := other.Set("/mine", []byte("x"), -1)
			return err
		})
		select {
		case event := <-changed:
			assert.Equal(t, zk.EventNodeDataChanged, event.Type)
		case <-time.After(time.Minute):
			t.Fatal("the watch did not move with the session")
		}
		_, err = other.Create("/missed", nil, 0, zk.WorldACL(zk.PermAll))
		require.NoError(t, err)

		c.start(follower)
		back := c.connect(t, follower)
		c.retry(t, "what it missed", func() error {
			_, _, err := back.Get("/missed")
			return err
		})
		exists, _, err := back.Exists("/mine")
		require.NoError(t, err)
		assert.True(t, exists, "the session has lasted")
	})
}

// TestLeaderKilled kills the member that leads: another leads in a new epoch, sessions last, and who comes back follows.
func TestLeaderKilled(t *testing.T) {
	onClusters(t, func(t *testing.T, c *cluster) {
		conn := c.connect(t)
		session := conn.SessionID()
		_, err := conn.Create("/mine", nil, zk.FlagEphemeral, zk.WorldACL(zk.PermAll))
		require.NoError(t, err)
		_, before, err := conn.Exists("/mine")
		require.NoError(t, err)

		old := c.leader()
		c.kill(old)
		c.await(t, "another leader", func() bool { leader := c.leader(); return leader >= 0 && leader != old })
		c.retry(t, "a write", func() error {
			_, err := conn.Set("/mine", []byte("x"), -1)
			return err
		})
		_, after, err := conn.Exists("/mine")
		require.NoError(t, err)
		assert.Equal(t, before.Czxid, after.Czxid)
		assert.Greater(t, after.Mzxid>>32, before.Czxid>>32, "a new epoch")
		assert.Equal(t, session, conn.SessionID())
		leader := c.leader()

		c.start(old)
		back := c.connect(t, old)
		c.retry(t, "the state", func() error {
			_, _, err := back.Get("/mine")
			return err
		})
		assert.Equal(t, leader, c.leader(), "who comes back follows")
	})
}

// TestQuorumLostAndBack leaves one member of three: nobody is served, no session ends, and with a second all goes on.
func TestQuorumLostAndBack(t *testing.T) {
	onClusters(t, func(t *testing.T, c *cluster) {
		conn := c.connect(t)
		session := conn.SessionID()
		_, err := conn.Create("/mine", nil, zk.FlagEphemeral, zk.WorldACL(zk.PermAll))
		require.NoError(t, err)

		c.kill(0)
		c.kill(1)
		c.await(t, "the end of service", func() bool { return c.leader() < 0 && conn.State() != zk.StateHasSession })
		// Who ceases to serve closes all connections a moment later, also one on which it is just being asked.
		for word, answer := range map[string]string{
			"ruok": "imok", "isro": "null", "srvr": "This ZooKeeper instance is not currently serving requests\n",
		} {
			c.await(t, word, func() bool {
				got, err := tryAsk(c.servers[2], word)
				return err == nil && got == answer
			})
		}
		// That closing may come behind the answers too, and then ends a connection that has just been opened, but not the next.
		var idle net.Conn
		for deadline := time.Now().Add(time.Minute); ; {
			idle, err = net.Dial("tcp", c.servers[2])
			require.NoError(t, err)
			defer idle.Close()
			require.NoError(t, idle.SetReadDeadline(time.Now().Add(time.Second)))
			_, err = idle.Read(make([]byte, 1))
			if !errors.Is(err, io.EOF) || time.Now().After(deadline) {
				break
			}
		}
		require.ErrorIs(t, err, os.ErrDeadlineExceeded, "a connection that says nothing stays open")
		_, err = idle.Write(append([]byte{0, 0, 0, 45}, make([]byte, 45)...)) // a handshake
		require.NoError(t, err)
		require.NoError(t, idle.SetReadDeadline(time.Now().Add(wireTimeout)))
		_, err = idle.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF, "and is closed in order behind its handshake")

		c.start(1)
		c.await(t, "a leader", func() bool { return c.leader() >= 0 })
		c.retry(t, "a write", func() error {
			_, err := conn.Set("/mine", []byte("x"), -1)
			return err
		})
		assert.Equal(t, session, conn.SessionID())
		c.start(0)
		back := c.connect(t, 0)
		exists, _, err := back.Exists("/mine")
		require.NoError(t, err)
		assert.True(t, exists)
	})
}
