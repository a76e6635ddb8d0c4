package testutil

import (
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTimeoutIsNegotiated(t *testing.T) {
	inMemory(t, ServerOptions{TickTime: time.Second, MaxSessionTimeout: 15 * time.Second}, func(t *testing.T, srv *Server) {
		for asked, want := range map[time.Duration]int32{
			0: 2000, -time.Second: 2000, time.Second: 2000, 7 * time.Second: 7000, time.Minute: 15000,
		} {
			assert.Equal(t, want, openRaw(t, srv.Member(0), asked).timeout, "asked for %v", asked)
		}
	})
}

func TestExpiryIsRoundedUpToTheNextTick(t *testing.T) {
	for _, test := range []struct {
		lastHeard, timeout, want time.Duration
	}{
		// Exactly at a boundary the next one counts, as in ZooKeeper.
		{0, 4 * time.Second, 6 * time.Second},
		{time.Millisecond, 4 * time.Second, 6 * time.Second},
		{1999 * time.Millisecond, 4 * time.Second, 6 * time.Second},
		{2000 * time.Millisecond, 4 * time.Second, 8 * time.Second},
		{2500 * time.Millisecond, 5 * time.Second, 8 * time.Second},
		{3 * time.Second, 5 * time.Second, 10 * time.Second},
	} {
		inMemory(t, ServerOptions{}, func(t *testing.T, srv *Server) {
			began := time.Now()
			c := openRaw(t, srv.Member(0), test.timeout)
			time.Sleep(test.lastHeard)
			c.do(OpPing, nil)
			c.wantClosedWithin(time.Minute)
			assert.Equal(t, test.want, time.Since(began), "last heard at %v, timeout %v: expired at", test.lastHeard, test.timeout)
		})
	}
}

func TestResumedWithAShorterTimeout(t *testing.T) {
	inMemory(t, ServerOptions{}, func(t *testing.T, srv *Server) {
		began := time.Now()
		c := openRaw(t, srv.Member(0), 40*time.Second)
		time.Sleep(time.Second) // the clock sleeps until the end of the timeout
		c.timeout = 5000
		next := c.again(srv.Member(0))
		next.wantClosedWithin(time.Minute)
		assert.Equal(t, 8*time.Second, time.Since(began), "expired after")
	})
}

// wantClosedWithin is wantClosed with more patience.
func (c *rawClient) wantClosedWithin(d time.Duration) {
	c.t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		r, err := c.next()
		assert.Error(c.t, err, "reply %+v, want the connection closed", r)
	}()
	select {
	case <-done:
	case <-time.After(d):
		c.t.Fatal("still open")
	}
}

func TestExpiryDeletesEphemeralsInOneTransaction(t *testing.T) {
	inMemory(t, ServerOptions{}, func(t *testing.T, srv *Server) {
		c, witness := openRaw(t, srv.Member(0), 4*time.Second), openRaw(t, srv.Member(0), 40*time.Second)
		c.want(codeOK, OpCreate, createBody("/e1", "", 1))
		c.want(codeOK, OpCreate, createBody("/e2", "", 1))
		c.want(codeOK, OpCreate, createBody("/p", "", 0))
		before := witness.want(codeOK, OpGetChildren, watchBody("/", true)).zxid
		assert.True(t, srv.ExpireSession(c.session), "once")
		assert.False(t, srv.ExpireSession(c.session), "twice")
		c.wantClosed()
		s := witness.stat("/")
		assert.Equal(t, before+1, s.pzxid)
		assert.Equal(t, before+1, witness.zxid)
		assert.Len(t, witness.takeEvents(), 1)
		next := c.again(srv.Member(0))
		assert.Zero(t, next.session)
		assert.Zero(t, next.timeout)
		next.wantClosed()
	})
}

func TestClosedSessionIsGoneAndAnswered(t *testing.T) {
	inMemory(t, ServerOptions{}, func(t *testing.T, srv *Server) {
		c := openRaw(t, srv.Member(0), 4*time.Second)
		c.want(codeOK, OpCreate, createBody("/e", "", 1))
		c.want(codeOK, OpExists, watchBody("/e", true))
		c.want(codeOK, OpClose, nil)
		assert.Equal(t, []rawEvent{{nodeDeleted, "/e"}}, c.events)
		c.wantClosed()
		assert.Empty(t, srv.Sessions())
		assert.Zero(t, srv.Watches(), "watches")
	})
}

func TestResumedSessionReplacesItsConnection(t *testing.T) {
	inMemory(t, ServerOptions{}, func(t *testing.T, srv *Server) {
		c := openRaw(t, srv.Member(0), 4*time.Second)
		c.want(codeNoNode, OpExists, watchBody("/w", true))
		next := c.again(srv.Member(0))
		require.Equal(t, c.session, next.session)
		c.wantClosed()
		next.want(codeOK, OpCreate, createBody("/w", "", 0))
		assert.Empty(t, next.takeEvents(), "the old connection's watch fired on the new one")
	})
}

func TestWrongPasswordIsRefused(t *testing.T) {
	inMemory(t, ServerOptions{}, func(t *testing.T, srv *Server) {
		c := openRaw(t, srv.Member(0), 4*time.Second)
		c.password = make([]byte, 16)
		next := c.again(srv.Member(0))
		assert.Zero(t, next.session, "resumed with a wrong password")
		next.wantClosed()
		assert.Len(t, srv.Sessions(), 1)
	})
}

func TestClientThatHasSeenMoreIsTurnedAway(t *testing.T) {
	inMemory(t, ServerOptions{}, func(t *testing.T, srv *Server) {
		c := newRaw(t, srv.Member(0))
		c.zxid = 1000
		c.sendHandshake(0, nil, time.Second)
		c.wantClosed()
	})
}

func TestHandshakeMustComeInTime(t *testing.T) {
	inMemory(t, ServerOptions{}, func(t *testing.T, srv *Server) {
		began := time.Now()
		c := newRaw(t, srv.Member(0))
		c.wantClosedWithin(time.Minute)
		assert.Equal(t, handshakeLimit, time.Since(began), "closed after")
	})
}

func TestStoppedServerKeepsTreeSessionsAndAddress(t *testing.T) {
	inMemory(t, ServerOptions{}, func(t *testing.T, srv *Server) {
		c := openRaw(t, srv.Member(0), 4*time.Second)
		c.want(codeOK, OpCreate, createBody("/e", "data", 1))
		addr := srv.Addr()
		srv.Stop()
		srv.Stop()
		c.wantClosed()
		_, err := srv.Dialer()("tcp", addr, time.Second)
		assert.Error(t, err, "a stopped server took a connection")
		time.Sleep(time.Hour)
		require.NoError(t, srv.Start())
		assert.Equal(t, addr, srv.Addr())
		time.Sleep(3 * time.Second)
		next := c.again(srv.Member(0))
		assert.Equal(t, c.session, next.stat("/e").ephemeralOwner)
	})
}

func TestSessionThatDoesNotComeBackExpiresAfterARestart(t *testing.T) {
	inMemory(t, ServerOptions{}, func(t *testing.T, srv *Server) {
		openRaw(t, srv.Member(0), 4*time.Second)
		srv.Stop()
		require.NoError(t, srv.Start())
		time.Sleep(5 * time.Second)
		assert.Len(t, srv.Sessions(), 1, "before the timeout")
		time.Sleep(time.Second)
		synctest.Wait()
		assert.Empty(t, srv.Sessions(), "after the timeout")
	})
}

func TestIsolationHidesEverythingUntilHealed(t *testing.T) {
	inMemory(t, ServerOptions{}, func(t *testing.T, srv *Server) {
		c, witness := openRaw(t, srv.Member(0), 20*time.Second), openRaw(t, srv.Member(0), 40*time.Second)
		c.want(codeNoNode, OpExists, watchBody("/w", true))
		heal := srv.Isolate(c.session)
		again := srv.Isolate(c.session)
		witness.want(codeOK, OpCreate, createBody("/w", "", 0))
		xid := c.request(OpCreate, createBody("/a", "", 0))
		c.wantSilence(10 * time.Second)
		witness.want(codeNoNode, OpExists, watchBody("/a", false))
		heal()
		heal()
		c.wantSilence(time.Second)
		again()
		c.wantNext(xid, codeOK)
		assert.Equal(t, []rawEvent{{nodeCreated, "/w"}}, c.events)
	})
}

func TestIsolatedClientSeesNoClose(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(srv *Server, id int64)
	}{
		{"expired", func(srv *Server, id int64) { srv.ExpireSession(id) }},
		{"dropped", func(srv *Server, _ int64) { srv.DropConnections() }},
		{"stopped", func(srv *Server, _ int64) { srv.Stop() }},
	} {
		t.Run(test.name, func(t *testing.T) {
			inMemory(t, ServerOptions{}, func(t *testing.T, srv *Server) {
				c := openRaw(t, srv.Member(0), 20*time.Second)
				heal := srv.Isolate(c.session)
				test.end(srv, c.session)
				c.wantSilence(time.Second)
				heal()
				c.wantClosed()
			})
		})
	}
}

func TestIsolatedSessionCannotResume(t *testing.T) {
	inMemory(t, ServerOptions{}, func(t *testing.T, srv *Server) {
		c := openRaw(t, srv.Member(0), 20*time.Second)
		heal := srv.Isolate(c.session)
		given, next := newRaw(t, srv.Member(0)), newRaw(t, srv.Member(0))
		for _, n := range []*rawClient{given, next} {
			n.sendHandshake(c.session, c.password, 20*time.Second)
			n.wantSilence(time.Second)
		}
		given.close()
		synctest.Wait()
		heal()
		frame, err := next.frame()
		require.NoError(t, err)
		require.Len(t, frame, 37)
		next.do(OpPing, nil)
	})
}

func TestCloseEndsAnIsolation(t *testing.T) {
	inMemory(t, ServerOptions{}, func(t *testing.T, srv *Server) {
		c := openRaw(t, srv.Member(0), 20*time.Second)
		srv.Isolate(c.session)
		c.request(OpPing, nil)
		srv.Close()
		c.wantClosed()
	})
}

func TestIsolationOfAll(t *testing.T) {
	inMemory(t, ServerOptions{}, func(t *testing.T, srv *Server) {
		c := openRaw(t, srv.Member(0), 40*time.Second)
		heal := srv.IsolateAll()
		one := srv.Isolate(c.session)
		began := time.Now()
		_, err := srv.Dialer()("tcp", srv.Addr(), 3*time.Second)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		assert.Equal(t, 3*time.Second, time.Since(began), "gave up after")
		dialed := make(chan *rawClient, 1)
		go func() { dialed <- openRaw(t, srv.Member(0), 40*time.Second) }()
		xid := c.request(OpCreate, createBody("/a", "", 0))
		c.wantSilence(time.Second / 2)
		heal()
		heal()
		other := <-dialed
		other.want(codeNoNode, OpExists, watchBody("/a", false))
		c.wantSilence(time.Second)
		one()
		c.wantNext(xid, codeOK)
		other.want(codeOK, OpExists, watchBody("/a", false))
		srv.IsolateAll()
		go func() {
			time.Sleep(time.Second)
			srv.Close()
		}()
		_, err = srv.Dialer()("tcp", srv.Addr(), 0)
		assert.Error(t, err, "a closed server took a connection")
		c.wantClosed()
	})
}
