package testutil

import (
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func wantRefused(t *testing.T, m Member) {
	t.Helper()
	_, err := m.Dialer()("tcp", m.Addr(), time.Second)
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
}

func TestStoppedFollower(t *testing.T) {
	inMemory(t, three, func(t *testing.T, srv *Server) {
		there, here := openRaw(t, srv.Member(1), 10*time.Second), openRaw(t, srv.Member(2), 10*time.Second)
		there.want(codeOK, OpCreate, createBody("/e", "", 1))
		epoch := there.zxid >> 32
		srv.Member(1).Stop()
		srv.Member(1).Stop()
		there.wantClosed()
		wantRefused(t, srv.Member(1))
		assert.Contains(t, srv.Dump(), "member 1: stopped, 233.252.0.2:2181\n")

		// The others notice nothing, and the session goes on there.
		here.want(codeOK, OpCreate, createBody("/a", "", 0))
		assert.Equal(t, epoch, here.zxid>>32)
		moved := there.again(srv.Member(2))
		assert.Equal(t, there.session, moved.stat("/e").ephemeralOwner)
		moved.want(codeOK, OpSetData, setBody("/e", "x", -1))

		// What it has missed it knows when it is back.
		addr := srv.Member(1).Addr()
		require.NoError(t, srv.Member(1).Start())
		require.NoError(t, srv.Member(1).Start())
		assert.Equal(t, addr, srv.Member(1).Addr())
		back := moved.again(srv.Member(1))
		back.want(codeOK, OpExists, watchBody("/a", false))
		back.want(codeOK, OpCreate, createBody("/b", "", 0))
		assert.Equal(t, epoch, back.zxid>>32)
	})
}

func TestSessionOfAStoppedMemberExpiresWhenNobodyTakesItElsewhere(t *testing.T) {
	inMemory(t, three, func(t *testing.T, srv *Server) {
		there, here := openRaw(t, srv.Member(1), 4*time.Second), openRaw(t, srv.Member(2), 40*time.Second)
		there.want(codeOK, OpCreate, createBody("/e", "", 1))
		here.want(codeOK, OpExists, watchBody("/e", true))
		began := time.Now()
		srv.Member(1).Stop()
		_ = here.nc.SetReadDeadline(time.Time{})
		go func() { time.Sleep(7 * time.Second); here.request(OpPing, nil) }()
		_, err := here.next()
		require.NoError(t, err)
		require.Len(t, here.events, 1)
		assert.Equal(t, 7*time.Second, time.Since(began))
		assert.Len(t, srv.Sessions(), 1)
	})
}

func TestWhatAStoppedMemberHeardIsLost(t *testing.T) {
	inMemory(t, three, func(t *testing.T, srv *Server) {
		began := time.Now()
		c := openRaw(t, srv.Member(1), 10*time.Second)
		time.Sleep(1500 * time.Millisecond)
		c.do(OpPing, nil)
		srv.Member(1).Stop()
		require.NoError(t, srv.Member(1).Start())
		time.Sleep(2 * tick)
		assert.Equal(t, 12*time.Second, time.Since(began)+srv.Sessions()[0].ExpiresIn, "passed on what it heard before it was stopped")
	})
}

func TestStoppedLeaderIsReplacedAtOnce(t *testing.T) {
	inMemory(t, three, func(t *testing.T, srv *Server) {
		onLeader, onFollower := openRaw(t, srv.Member(0), 4*time.Second), openRaw(t, srv.Member(2), 4*time.Second)
		onFollower.want(codeOK, OpCreate, createBody("/e", "", 1))
		began := time.Now()
		srv.Member(0).Stop()
		assert.Equal(t, 1, srv.Leader())
		// A follower drops its clients too when it loses its leader.
		onLeader.wantClosed()
		onFollower.wantClosed()
		next := onFollower.again(srv.Member(2))
		next.want(codeOK, OpCreate, createBody("/b", "", 0))
		assert.Equal(t, onFollower.zxid>>32+1, next.zxid>>32, "another epoch")
		assert.Equal(t, began, time.Now())

		require.NoError(t, srv.Member(0).Start())
		back := onLeader.again(srv.Member(0))
		back.want(codeOK, OpExists, watchBody("/b", false))
		assert.Equal(t, 1, srv.Leader(), "who comes back follows")
	})
}

func TestLeaderWithoutFollowersGivesUpWithinATick(t *testing.T) {
	inMemory(t, three, func(t *testing.T, srv *Server) {
		c := openRaw(t, srv.Member(0), 40*time.Second)
		srv.Member(1).Stop()
		time.Sleep(time.Hour / 100)
		c.want(codeOK, OpCreate, createBody("/a", "", 0))
		began := time.Now()
		srv.Member(2).Stop()
		c.want(codeOK, OpExists, watchBody("/a", false))
		c.request(OpCreate, createBody("/b", "", 0))
		c.wantSilence(tick / 2)
		c.wantClosedWithin(tick)
		assert.Equal(t, tick, time.Since(began))
		assert.Equal(t, -1, srv.Leader())
		wantNoSession(t, srv.Member(0))

		// Nobody could end the session meanwhile, and its whole timeout is before it. The write that hung is in the
		// leader's log.
		time.Sleep(time.Hour)
		require.NoError(t, srv.Member(2).Start())
		assert.Equal(t, 0, srv.Leader())
		c.again(srv.Member(2)).want(codeOK, OpExists, watchBody("/b", false))
	})
}

func TestWordsOfAMemberWithoutALeader(t *testing.T) {
	inMemory(t, three, func(t *testing.T, srv *Server) {
		ask := func(word string) string {
			c := newRaw(t, srv.Member(0))
			c.write([]byte(word))
			answer, err := io.ReadAll(c.nc)
			require.NoError(t, err)
			return string(answer)
		}
		srv.Member(1).Stop()
		srv.Member(2).Stop()
		time.Sleep(2 * tick)
		assert.Equal(t, "imok", ask("ruok"))
		assert.Equal(t, "null", ask("isro"))
		for _, word := range []string{"srvr", "stat", "mntr", "conf", "cons", "crst", "srst", "wchs", "wchp", "wchc", "dump"} {
			assert.Equal(t, "This ZooKeeper instance is not currently serving requests\n", ask(word), word)
		}
		assert.True(t, strings.HasPrefix(ask("envi"), "Environment:\n"))
	})
}

func TestStopWhileCutOff(t *testing.T) {
	for _, test := range []struct {
		name    string
		members int
		f       func(t *testing.T, srv *Server)
	}{
		{"a follower stays cut off over its restart", 3, func(t *testing.T, srv *Server) {
			srv.Member(1).CutOff()
			srv.Member(1).Stop()
			require.NoError(t, srv.Member(1).Start())
			wantNoSession(t, srv.Member(1))
			srv.Member(1).Heal()
			openRaw(t, srv.Member(1), 10*time.Second).want(codeOK, OpCreate, createBody("/a", "", 0))
		}},
		{"healed while it is stopped", 3, func(t *testing.T, srv *Server) {
			srv.Member(1).CutOff()
			srv.Member(1).Stop()
			srv.Member(1).Heal()
			wantRefused(t, srv.Member(1))
			require.NoError(t, srv.Member(1).Start())
			openRaw(t, srv.Member(1), 10*time.Second).want(codeOK, OpCreate, createBody("/a", "", 0))
		}},
		{"the leader stops while a follower does not hear of it", 5, func(t *testing.T, srv *Server) {
			c := openRaw(t, srv.Member(4), 40*time.Second)
			srv.Member(4).CutOff()
			srv.Member(0).Stop()
			openRaw(t, srv.Member(1), 10*time.Second).want(codeOK, OpCreate, createBody("/a", "", 0))
			c.want(codeNoNode, OpExists, watchBody("/a", false))
			c.request(OpCreate, createBody("/b", "", 0))
			c.wantSilence(time.Second)
			// It learns that its leader is gone, and joins the next.
			srv.Member(4).Heal()
			c.wantClosed()
			next := c.again(srv.Member(4))
			next.want(codeOK, OpExists, watchBody("/a", false))
			next.want(codeNoNode, OpExists, watchBody("/b", false))
		}},
		{"one cut off and one stopped leave no majority", 3, func(t *testing.T, srv *Server) {
			c := openRaw(t, srv.Member(0), 40*time.Second)
			srv.Member(1).CutOff()
			time.Sleep(tick)
			srv.Member(2).Stop()
			c.request(OpCreate, createBody("/a", "", 0))
			// The leader counts on who is cut off until the limit.
			began := time.Now()
			c.wantSilence(limit - tick - time.Millisecond)
			c.wantClosed()
			assert.Equal(t, limit-tick, time.Since(began))
			srv.Member(1).Heal()
			assert.Equal(t, 0, srv.Leader())
		}},
		{"the leader, and the others do not see it", 3, func(t *testing.T, srv *Server) {
			c := openRaw(t, srv.Member(1), 40*time.Second)
			srv.Member(0).CutOff()
			time.Sleep(tick)
			srv.Member(0).Stop()
			wantRefused(t, srv.Member(0))
			assert.Equal(t, -1, srv.Leader())
			c.want(codeNoNode, OpExists, watchBody("/a", false))
			c.request(OpCreate, createBody("/a", "", 0))
			began := time.Now()
			c.wantSilence(limit - tick - time.Millisecond)
			c.wantClosed()
			assert.Equal(t, limit-tick, time.Since(began), "five ticks from the cut")
			assert.Equal(t, 1, srv.Leader())
			c.again(srv.Member(2)).want(codeOK, OpCreate, createBody("/b", "", 0))
			srv.Member(0).Heal()
			require.NoError(t, srv.Member(0).Start())
			assert.Equal(t, 1, srv.Leader())
			openRaw(t, srv.Member(0), 10*time.Second).want(codeOK, OpSetData, setBody("/b", "", -1))
		}},
		{"the leader, until the others see it", 3, func(t *testing.T, srv *Server) {
			c := openRaw(t, srv.Member(1), 40*time.Second)
			srv.Member(0).CutOff()
			srv.Member(0).Stop()
			c.want(codeNoNode, OpExists, watchBody("/a", false))
			srv.Member(0).Heal()
			c.wantClosed()
			assert.Equal(t, 1, srv.Leader())
			wantRefused(t, srv.Member(0))
			c.again(srv.Member(1)).want(codeOK, OpCreate, createBody("/a", "", 0))
		}},
		{"the leader, which comes back before they see it", 3, func(t *testing.T, srv *Server) {
			c := openRaw(t, srv.Member(1), 40*time.Second)
			srv.Member(0).CutOff()
			srv.Member(0).Stop()
			require.NoError(t, srv.Member(0).Start())
			wantNoSession(t, srv.Member(0))
			assert.Equal(t, -1, srv.Leader(), "it leads no more, and they do not know")
			c.want(codeNoNode, OpExists, watchBody("/a", false))
			srv.Member(0).Heal()
			c.wantClosed()
			assert.Equal(t, 0, srv.Leader())
			c.again(srv.Member(0)).want(codeOK, OpCreate, createBody("/a", "", 0))
		}},
		{"a follower, and the leader counts on it", 3, func(t *testing.T, srv *Server) {
			c := openRaw(t, srv.Member(0), 40*time.Second)
			srv.Member(2).Stop()
			srv.Member(1).CutOff()
			srv.Member(1).Stop()
			c.request(OpCreate, createBody("/a", "", 0))
			began := time.Now()
			c.wantSilence(limit - time.Millisecond)
			c.wantClosed()
			assert.Equal(t, limit, time.Since(began))
		}},
		{"everything, while they do not see it", 3, func(t *testing.T, srv *Server) {
			openRaw(t, srv.Member(1), 40*time.Second)
			srv.Member(0).CutOff()
			srv.Member(0).Stop()
			srv.Stop()
			srv.Member(0).Heal()
			require.NoError(t, srv.Start())
			openRaw(t, srv.Member(1), 10*time.Second).want(codeOK, OpCreate, createBody("/a", "", 0))
		}},
		{"all of them one by one", 3, func(t *testing.T, srv *Server) {
			c := openRaw(t, srv.Member(0), 10*time.Second)
			for i := range 3 {
				srv.Member(i).Stop()
			}
			assert.Equal(t, -1, srv.Leader())
			time.Sleep(time.Hour)
			assert.Len(t, srv.Sessions(), 1)
			require.NoError(t, srv.Member(1).Start())
			wantNoSession(t, srv.Member(1))
			require.NoError(t, srv.Start())
			c.again(srv.Member(0)).want(codeOK, OpCreate, createBody("/a", "", 0))
		}},
		{"one that lags is caught up at its start", 3, func(t *testing.T, srv *Server) {
			c := openRaw(t, srv.Member(0), 10*time.Second)
			srv.Member(1).Lag()
			c.want(codeOK, OpCreate, createBody("/a", "", 0))
			srv.Member(1).Stop()
			require.NoError(t, srv.Member(1).Start())
			late := openRaw(t, srv.Member(2), 10*time.Second).again(srv.Member(1))
			late.want(codeOK, OpExists, watchBody("/a", false))
			c.want(codeOK, OpCreate, createBody("/b", "", 0))
			late.want(codeNoNode, OpExists, watchBody("/b", false))
			srv.Member(1).CatchUp()
			late.want(codeOK, OpExists, watchBody("/b", false))
		}},
		{"a server of its own", 1, func(t *testing.T, srv *Server) {
			c := openRaw(t, srv.Member(0), 10*time.Second)
			c.want(codeOK, OpCreate, createBody("/a", "", 0))
			srv.Member(0).Stop()
			c.wantClosed()
			wantRefused(t, srv.Member(0))
			assert.Contains(t, srv.Dump(), "stopped\n")
			require.NoError(t, srv.Member(0).Start())
			next := c.again(srv.Member(0))
			next.want(codeOK, OpCreate, createBody("/b", "", 0))
			assert.Equal(t, c.zxid+1, next.zxid, "a server of its own has no epochs")
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			inMemory(t, ServerOptions{Members: test.members}, test.f)
		})
	}
}

// TestRollingRestart is the maintenance of an ensemble under a client of its own for
// each member: no session is lost, and each of the members serves at the end.
func TestRollingRestart(t *testing.T) {
	inMemory(t, three, func(t *testing.T, srv *Server) {
		var clients []*testClient
		var ids []int64
		for range 6 {
			c := newClient(t, srv.Dialer(), 10*time.Second, srv.Servers()...)
			c.await(t)
			clients, ids = append(clients, c), append(ids, c.SessionID())
		}
		for round := range 3 {
			for i := range 3 {
				srv.Member(i).Stop()
				time.Sleep(3 * time.Second)
				require.NoError(t, srv.Member(i).Start())
				time.Sleep(20 * time.Second)
			}
			assert.NotEqual(t, -1, srv.Leader(), "after round %d", round)
		}
		for i, c := range clients {
			c.await(t)
			assert.Equal(t, ids[i], c.SessionID())
			_, err := c.Create("/after-", nil, zk.FlagSequence, everybody)
			assert.NoError(t, err)
			c.stop()
		}
		for i := range 3 {
			openRaw(t, srv.Member(i), 10*time.Second).want(codeOK, OpExists, watchBody("/after-0000000005", false))
		}
	})
}

func TestMemberRestartsOverTCP(t *testing.T) {
	srv, err := NewServer(&ServerOptions{Members: 3, TickTime: 100 * time.Millisecond})
	require.NoError(t, err)
	defer srv.Close()
	for i := range 3 {
		m := srv.Member(i)
		m.Stop()
		_, err := net.Dial("tcp", m.Addr())
		require.True(t, errors.Is(err, syscall.ECONNREFUSED), "%v", err)
		require.NoError(t, m.Start())
		c := newClient(t, nil, 4*time.Second, m.Addr())
		c.await(t)
		c.stop()
	}
}

// The port of a stopped member may be taken; then nothing has changed.
func TestMemberStartFailsWhenThePortIsTaken(t *testing.T) {
	srv, err := NewServer(&ServerOptions{Members: 3})
	require.NoError(t, err)
	defer srv.Close()
	srv.Member(1).Stop()
	srv.Member(2).Stop()
	thief, err := srv.members[2].port.ListenAgain()
	require.NoError(t, err)
	require.Error(t, srv.Member(2).Start())
	require.Error(t, srv.Start(), "one of two ports is taken")
	_, err = net.Dial("tcp", srv.Member(1).Addr())
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	require.NoError(t, thief.Close())
	require.NoError(t, srv.Start())
	c := newClient(t, nil, 10*time.Second, srv.Member(1).Addr())
	c.await(t)
	c.stop()
}

func TestClosedServerStartsNoMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, err := NewServer(&ServerOptions{Members: 3, NoListen: true})
		require.NoError(t, err)
		srv.Member(1).Stop()
		srv.Close()
		srv.Member(2).Stop()
		assert.Error(t, srv.Member(1).Start())
	})
}

// Whoever is healed when its leader has been stopped and nobody leads yet has lost
// its leader all the same: it does not go on in the new epoch with its old clients.
func TestHealedWhileNobodyLeads(t *testing.T) {
	inMemory(t, three, func(t *testing.T, srv *Server) {
		c := openRaw(t, srv.Member(2), 40*time.Second)
		srv.Member(2).CutOff()
		srv.Member(0).Stop() // one of three can talk: there is no election
		require.Equal(t, -1, srv.Leader())
		c.want(codeNoNode, OpExists, watchBody("/a", false))
		srv.Member(2).Heal()
		require.Equal(t, 1, srv.Leader())
		c.wantClosed()

		// It follows that leader, so a short cut costs its next clients nothing.
		next := c.again(srv.Member(2))
		srv.Member(2).CutOff()
		srv.Member(2).Heal()
		next.want(codeOK, OpCreate, createBody("/a", "", 0))
	})
}
