package testutil

import (
	"os"
	"testing"
	"testing/synctest"
	"time"
)

func TestTimeoutIsNegotiated(t *testing.T) {
	inMemory(t, ServerOptions{TickTime: time.Second, MaxSessionTimeout: 15 * time.Second}, func(t *testing.T, srv *Server) {
		for asked, want := range map[time.Duration]int32{
			0: 2000, -time.Second: 2000, time.Second: 2000, 7 * time.Second: 7000, time.Minute: 15000,
		} {
			if c := openRaw(t, srv.Member(0), asked); c.timeout != want {
				t.Errorf("asked for %v, got %d ms, want %d", asked, c.timeout, want)
			}
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
			if got := time.Since(began); got != test.want {
				t.Errorf("last heard at %v, timeout %v: expired at %v, want %v", test.lastHeard, test.timeout, got, test.want)
			}
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
		if d := time.Since(began); d != 8*time.Second {
			t.Errorf("expired after %v", d)
		}
	})
}

// wantClosedWithin is wantClosed with more patience.
func (c *rawClient) wantClosedWithin(d time.Duration) {
	c.t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if r, err := c.next(); err == nil {
			c.t.Errorf("reply %+v, want the connection closed", r)
		}
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
		if !srv.ExpireSession(c.session) || srv.ExpireSession(c.session) {
			t.Error("want it to expire once")
		}
		c.wantClosed()
		s := witness.stat("/")
		if s.pzxid != before+1 || witness.zxid != before+1 {
			t.Errorf("zxid %d, pzxid %d, want both %d", witness.zxid, s.pzxid, before+1)
		}
		if events := witness.takeEvents(); len(events) != 1 {
			t.Errorf("events %v", events)
		}
		next := c.again(srv.Member(0))
		if next.session != 0 || next.timeout != 0 {
			t.Errorf("session 0x%x, timeout %d", next.session, next.timeout)
		}
		next.wantClosed()
	})
}

func TestClosedSessionIsGoneAndAnswered(t *testing.T) {
	inMemory(t, ServerOptions{}, func(t *testing.T, srv *Server) {
		c := openRaw(t, srv.Member(0), 4*time.Second)
		c.want(codeOK, OpCreate, createBody("/e", "", 1))
		c.want(codeOK, OpExists, watchBody("/e", true))
		c.want(codeOK, OpClose, nil)
		if len(c.events) != 1 || c.events[0] != (rawEvent{nodeDeleted, "/e"}) {
			t.Errorf("events %v", c.events)
		}
		c.wantClosed()
		if n := len(srv.Sessions()); n != 0 {
			t.Errorf("%d sessions", n)
		}
		if n := srv.Watches(); n != 0 {
			t.Errorf("%d watches", n)
		}
	})
}

func TestResumedSessionReplacesItsConnection(t *testing.T) {
	inMemory(t, ServerOptions{}, func(t *testing.T, srv *Server) {
		c := openRaw(t, srv.Member(0), 4*time.Second)
		c.want(codeNoNode, OpExists, watchBody("/w", true))
		next := c.again(srv.Member(0))
		if next.session != c.session {
			t.Fatalf("session 0x%x, want 0x%x", next.session, c.session)
		}
		c.wantClosed()
		next.want(codeOK, OpCreate, createBody("/w", "", 0))
		if events := next.takeEvents(); len(events) != 0 {
			t.Errorf("the old connection's watch fired on the new one: %v", events)
		}
	})
}

func TestWrongPasswordIsRefused(t *testing.T) {
	inMemory(t, ServerOptions{}, func(t *testing.T, srv *Server) {
		c := openRaw(t, srv.Member(0), 4*time.Second)
		c.password = make([]byte, 16)
		next := c.again(srv.Member(0))
		if next.session != 0 {
			t.Error("resumed with a wrong password")
		}
		next.wantClosed()
		if n := len(srv.Sessions()); n != 1 {
			t.Errorf("%d sessions", n)
		}
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
		if d := time.Since(began); d != handshakeLimit {
			t.Errorf("closed after %v", d)
		}
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
		if _, err := srv.Dialer()("tcp", addr, time.Second); err == nil {
			t.Error("a stopped server took a connection")
		}
		time.Sleep(time.Hour)
		if err := srv.Start(); err != nil {
			t.Fatal(err)
		}
		if srv.Addr() != addr {
			t.Errorf("address %s, was %s", srv.Addr(), addr)
		}
		time.Sleep(3 * time.Second)
		next := c.again(srv.Member(0))
		if s := next.stat("/e"); s.ephemeralOwner != c.session {
			t.Errorf("owner 0x%x", s.ephemeralOwner)
		}
	})
}

func TestSessionThatDoesNotComeBackExpiresAfterARestart(t *testing.T) {
	inMemory(t, ServerOptions{}, func(t *testing.T, srv *Server) {
		openRaw(t, srv.Member(0), 4*time.Second)
		srv.Stop()
		if err := srv.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if n := len(srv.Sessions()); n != 1 {
			t.Errorf("%d sessions before the timeout", n)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if n := len(srv.Sessions()); n != 0 {
			t.Errorf("%d sessions after the timeout", n)
		}
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
		r, err := c.next()
		if err != nil || r.xid != xid || r.err != codeOK {
			t.Errorf("reply %+v, error %v", r, err)
		}
		if len(c.events) != 1 || c.events[0] != (rawEvent{nodeCreated, "/w"}) {
			t.Errorf("events %v", c.events)
		}
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
		if err != nil || len(frame) != 37 {
			t.Fatalf("answer of %d bytes, error %v", len(frame), err)
		}
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
		wantErr(t, err, os.ErrDeadlineExceeded)
		if d := time.Since(began); d != 3*time.Second {
			t.Errorf("gave up after %v", d)
		}
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
		if r, err := c.next(); err != nil || r.xid != xid {
			t.Errorf("reply %+v, error %v", r, err)
		}
		other.want(codeOK, OpExists, watchBody("/a", false))
		srv.IsolateAll()
		go func() {
			time.Sleep(time.Second)
			srv.Close()
		}()
		if _, err := srv.Dialer()("tcp", srv.Addr(), 0); err == nil {
			t.Error("a closed server took a connection")
		}
		c.wantClosed()
	})
}
