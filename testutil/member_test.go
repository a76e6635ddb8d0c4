package testutil

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

var three = ServerOptions{Members: 3}

// tick and limit are those of the default options.
const (
	tick  = defaultTick
	limit = syncLimit * defaultTick
)

// wantNoSession wants the member to take a connection, to leave it open while it is
// idle, and to close it at the handshake.
func wantNoSession(t *testing.T, m Member) {
	t.Helper()
	c := newRaw(t, m)
	c.wantSilence(time.Second)
	c.sendHandshake(0, nil, 10*time.Second)
	c.wantClosed()
}

func TestCutOffMemberServesReadsFromItsLastState(t *testing.T) {
	inMemory(t, three, func(t *testing.T, srv *Server) {
		c, leader := openRaw(t, srv.Member(1), 40*time.Second), openRaw(t, srv.Member(0), 40*time.Second)
		c.want(codeNoNode, OpExists, watchBody("/a", true))
		srv.Member(1).CutOff()
		leader.want(codeOK, OpCreate, createBody("/a", "", 0))
		began := time.Now()
		for time.Since(began) < limit-time.Second {
			c.want(codeNoNode, OpExists, watchBody("/a", false))
			if events := c.takeEvents(); len(events) > 0 {
				t.Fatalf("events %v", events)
			}
			time.Sleep(time.Second)
		}
		c.wantClosedWithin(time.Minute)
		if d := time.Since(began); d != limit {
			t.Errorf("clients were dropped after %v, want %v", d, limit)
		}
		wantNoSession(t, srv.Member(1))
		srv.Member(1).Heal()
		next := c.again(srv.Member(1))
		next.want(codeOK, OpExists, watchBody("/a", false))
	})
}

func TestWriteOnACutOffMemberHangsWithWhatIsBehindIt(t *testing.T) {
	inMemory(t, three, func(t *testing.T, srv *Server) {
		c, other := openRaw(t, srv.Member(1), 40*time.Second), openRaw(t, srv.Member(1), 40*time.Second)
		leader := openRaw(t, srv.Member(0), 40*time.Second)
		other.want(codeNoNode, OpExists, watchBody("/b", true))
		srv.Member(1).CutOff()
		leader.want(codeOK, OpCreate, createBody("/b", "", 0))
		write := c.request(OpCreate, createBody("/a", "", 0))
		read := c.request(OpExists, watchBody("/b", false))
		ping := c.request(OpPing, nil)
		c.wantSilence(5 * time.Second)
		other.do(OpPing, nil)
		sync := other.request(OpSync, pathBody("/"))
		other.wantSilence(time.Second)
		srv.Member(1).Heal()
		for _, xid := range []int32{write, read, ping} {
			if r, err := c.next(); err != nil || r.xid != xid || r.err != codeOK {
				t.Errorf("reply %+v, error %v, want to %d", r, err, xid)
			}
		}
		if r, err := other.next(); err != nil || r.xid != sync {
			t.Errorf("reply %+v, error %v", r, err)
		}
		if events := other.takeEvents(); len(events) != 1 || events[0] != (rawEvent{nodeCreated, "/b"}) {
			t.Errorf("events %v", events)
		}
		leader.want(codeOK, OpExists, watchBody("/a", false))
	})
}

func TestHangingWriteOfAGivenUpMemberIsLost(t *testing.T) {
	inMemory(t, three, func(t *testing.T, srv *Server) {
		c, leader := openRaw(t, srv.Member(1), 40*time.Second), openRaw(t, srv.Member(0), 40*time.Second)
		srv.Member(1).CutOff()
		c.request(OpCreate, createBody("/a", "", 0))
		c.wantClosedWithin(time.Minute)
		srv.Member(1).Heal()
		synctest.Wait()
		leader.want(codeNoNode, OpExists, watchBody("/a", false))
	})
}

func TestCutOffMemberTakesNoSessions(t *testing.T) {
	inMemory(t, three, func(t *testing.T, srv *Server) {
		c := openRaw(t, srv.Member(1), 40*time.Second)
		srv.Member(1).CutOff()
		fresh, resumed := newRaw(t, srv.Member(1)), newRaw(t, srv.Member(1))
		fresh.sendHandshake(0, nil, 40*time.Second)
		resumed.sendHandshake(c.session, c.password, 40*time.Second)
		fresh.wantSilence(time.Second)
		resumed.wantSilence(time.Second)
		srv.Member(1).Heal()
		for _, n := range []*rawClient{fresh, resumed} {
			if _, err := n.frame(); err != nil {
				t.Error(err)
			}
			n.do(OpPing, nil)
		}
		c.wantClosed()
	})
}

// pingUntilClosed pings all the time, and tells how long the connection lived.
func (c *rawClient) pingUntilClosed() time.Duration {
	began := time.Now()
	ping := &encoder{b: make([]byte, 4)}
	ping.int32(-2)
	ping.int32(int32(OpPing))
	for {
		if _, err := c.nc.Write(ping.frame()); err != nil {
			return time.Since(began)
		}
		if _, err := c.next(); err != nil {
			return time.Since(began)
		}
		time.Sleep(100 * time.Millisecond)
		if time.Since(began) > time.Hour {
			c.t.Fatal("the connection never ends")
		}
	}
}

func TestWhatACutOffMemberHearsIsNotPassedOn(t *testing.T) {
	inMemory(t, three, func(t *testing.T, srv *Server) {
		c := openRaw(t, srv.Member(1), 4*time.Second)
		leader := openRaw(t, srv.Member(0), 40*time.Second)
		c.want(codeOK, OpCreate, createBody("/e", "", 1))
		leader.want(codeOK, OpExists, watchBody("/e", true))
		srv.Member(1).CutOff()
		began := time.Now()
		expired := make(chan time.Duration, 1)
		go func() {
			for len(leader.takeEvents()) == 0 {
				time.Sleep(100 * time.Millisecond)
			}
			expired <- time.Since(began)
		}()
		// The cut-off member answers its client long after the session is gone.
		// (Not at the tick itself: who comes first there is open.)
		time.Sleep(50 * time.Millisecond)
		if d := c.pingUntilClosed(); d != limit {
			t.Errorf("the member answered for %v, want %v", d, limit)
		}
		if d := <-expired; d < 4*time.Second || d > 6*time.Second+100*time.Millisecond {
			t.Errorf("expired after %v", d)
		}
	})
}

func TestFollowerPassesOnWhatItHeardEveryHalfTick(t *testing.T) {
	inMemory(t, three, func(t *testing.T, srv *Server) {
		c := openRaw(t, srv.Member(1), 4*time.Second)
		began := time.Now()
		expiresAt := func() time.Duration {
			synctest.Wait()
			return time.Since(began) + srv.Sessions()[0].ExpiresIn
		}
		if got := expiresAt(); got != 6*time.Second {
			t.Errorf("begun at 0, expires at %v", got)
		}
		// Heard of at 1.5 s and passed on at 2 s and a little, it lives until a tick after 6 s.
		time.Sleep(1500 * time.Millisecond)
		c.do(OpPing, nil)
		if got := expiresAt(); got != 6*time.Second {
			t.Errorf("before it is passed on: expires at %v", got)
		}
		time.Sleep(510 * time.Millisecond)
		if got := expiresAt(); got != 8*time.Second {
			t.Errorf("after it is passed on: expires at %v", got)
		}
		// A write that goes through the leader does not count there either.
		time.Sleep(100 * time.Millisecond)
		c.want(codeOK, OpCreate, createBody("/a", "", 0))
		if got := expiresAt(); got != 8*time.Second {
			t.Errorf("after a write: expires at %v", got)
		}
		time.Sleep(900 * time.Millisecond)
		if got := expiresAt(); got != 8*time.Second {
			t.Errorf("after the next ping of the leader: expires at %v", got)
		}
	})
}

func TestPingsAreAsLateAsTheyAreToldToBe(t *testing.T) {
	late := make(chan time.Duration, 3)
	for _, d := range []time.Duration{20 * time.Millisecond, 70 * time.Millisecond, 0} {
		late <- d
	}
	opts := ServerOptions{Members: 3, PingDelay: func() time.Duration {
		select {
		case d := <-late:
			return d
		default:
			return time.Hour
		}
	}}
	inMemory(t, opts, func(t *testing.T, srv *Server) {
		c := openRaw(t, srv.Member(1), 30*time.Second)
		// Each is counted from the one before: 1.02 s, 2.09 s, 3.09 s, and then none.
		var passedOn []time.Duration
		last := srv.Sessions()[0].ExpiresIn
		for began := time.Now(); time.Since(began) < 5*time.Second; {
			c.do(OpPing, nil)
			time.Sleep(5 * time.Millisecond)
			synctest.Wait()
			left := srv.Sessions()[0].ExpiresIn
			if left > last {
				passedOn = append(passedOn, time.Since(began))
			}
			last = left
		}
		// Only a touch in another tick than the one before moves the end.
		want := []time.Duration{2090 * time.Millisecond}
		if !slices.Equal(passedOn, want) {
			t.Errorf("the session's end moved at %v, want %v", passedOn, want)
		}
	})
}

func TestClientWhoseClockRunsAtAnotherRate(t *testing.T) {
	for _, clock := range []float64{11. / 12, 1, 13. / 12} {
		inMemory(t, ServerOptions{ClientClock: func() float64 { return clock }}, func(t *testing.T, srv *Server) {
			began := time.Now()
			c := openRaw(t, srv.Member(0), 10*time.Second)
			// The next tick after 10 s, by the ensemble's clock.
			want := time.Duration(12 * clock * float64(time.Second))
			if got := srv.Sessions()[0].ExpiresIn; got != want {
				t.Errorf("at rate %v the session expires in %v, want %v", clock, got, want)
			}
			c.wantClosedWithin(time.Minute)
			if took := time.Since(began); took < want || took > want+time.Millisecond {
				t.Errorf("at rate %v it has expired after %v, want %v", clock, took, want)
			}
		})
	}
}

func TestWhatWasHeardArrivesBeforeTheWritesThatHung(t *testing.T) {
	inMemory(t, three, func(t *testing.T, srv *Server) {
		c := openRaw(t, srv.Member(1), 6*time.Second)
		began := time.Now()
		srv.Member(0).CutOff() // the leader
		time.Sleep(3500 * time.Millisecond)
		c.do(OpPing, nil)
		xid := c.request(OpCreate, createBody("/a", "", 0))
		time.Sleep(250 * time.Millisecond)
		srv.Member(0).Heal()
		if r, err := c.next(); err != nil || r.xid != xid {
			t.Fatalf("reply %+v, error %v", r, err)
		}
		// Heard of by 3.75 s, it lives until a tick after 8 s.
		if got := time.Since(began) + srv.Sessions()[0].ExpiresIn; got != 10*time.Second {
			t.Errorf("expires at %v when the write is answered", got)
		}
	})
}

func TestMemberThatGaveUpForgetsWhomItHeard(t *testing.T) {
	inMemory(t, three, func(t *testing.T, srv *Server) {
		began := time.Now()
		c := openRaw(t, srv.Member(1), 30*time.Second)
		srv.Member(1).CutOff()
		time.Sleep(limit - time.Second)
		c.do(OpPing, nil)
		c.wantClosedWithin(limit)
		srv.Member(1).Heal()
		time.Sleep(2 * tick)
		if got := time.Since(began) + srv.Sessions()[0].ExpiresIn; got != 32*time.Second {
			t.Errorf("expires at %v: what the member heard was passed on", got)
		}
	})
}

func TestClientOfAFollowerStaysAliveByPings(t *testing.T) {
	inMemory(t, three, func(t *testing.T, srv *Server) {
		c := newClient(t, srv.Member(2).Dialer(), 4*time.Second, srv.Addr())
		c.await(t)
		id := c.SessionID()
		time.Sleep(time.Hour)
		if got := srv.Sessions(); len(got) != 1 || got[0].ID != id || got[0].Member != 2 {
			t.Errorf("sessions %+v", got)
		}
		c.stop()
	})
}

func TestSessionThatMovedMayNotWriteThroughTheOldMember(t *testing.T) {
	for _, test := range []struct {
		name string
		op   Op
		body func(*encoder)
	}{
		{"create", OpCreate, createBody("/a", "", 0)},
		{"multi", OpMulti, multiBody(subOp{OpCheck, versionBody("/", -1)}, subOp{OpCreate, createBody("/a", "", 0)})},
	} {
		t.Run(test.name, func(t *testing.T) {
			inMemory(t, three, func(t *testing.T, srv *Server) {
				old := openRaw(t, srv.Member(1), 40*time.Second)
				now := old.again(srv.Member(2))
				old.want(codeOK, OpExists, watchBody("/", false))
				old.request(test.op, test.body)
				old.wantClosed()
				now.want(codeNoNode, OpExists, watchBody("/a", false))
				now.want(codeOK, test.op, test.body)
			})
		})
	}
}

func TestWriteThatHungIsRefusedWhenTheSessionHasMoved(t *testing.T) {
	inMemory(t, three, func(t *testing.T, srv *Server) {
		old := openRaw(t, srv.Member(1), 40*time.Second)
		srv.Member(1).CutOff()
		old.request(OpCreate, createBody("/a", "", 0))
		now := old.again(srv.Member(2))
		srv.Member(1).Heal()
		old.wantClosed()
		now.want(codeNoNode, OpExists, watchBody("/a", false))
	})
}

func TestWriteOfAnExpiredSessionThroughAHealedMember(t *testing.T) {
	inMemory(t, three, func(t *testing.T, srv *Server) {
		c := openRaw(t, srv.Member(1), 4*time.Second)
		srv.Member(1).CutOff()
		c.request(OpCreate, createBody("/a", "", 0))
		synctest.Wait()
		srv.ExpireSession(c.session)
		c.wantSilence(time.Second)
		srv.Member(1).Heal()
		c.wantClosed()
	})
}

func TestLeaderThatIsCutOffIsReplacedAfterTheLimit(t *testing.T) {
	inMemory(t, three, func(t *testing.T, srv *Server) {
		onLeader, onFollower := openRaw(t, srv.Member(0), 30*time.Second), openRaw(t, srv.Member(1), 30*time.Second)
		onFollower.want(codeOK, OpCreate, createBody("/e", "", 1))
		before := onFollower.zxid
		srv.Member(0).CutOff()
		for _, c := range []*rawClient{onLeader, onFollower} {
			c.want(codeOK, OpExists, watchBody("/e", false))
			c.request(OpCreate, createBody("/a", "", 0))
			c.wantSilence(time.Second)
		}
		onFollower.wantClosedWithin(limit)
		onLeader.wantClosedWithin(time.Millisecond)
		synctest.Wait()
		if leader := srv.Leader(); leader != 1 {
			t.Fatalf("member %d leads", leader)
		}
		wantNoSession(t, srv.Member(0))
		next := onFollower.again(srv.Member(2))
		next.want(codeOK, OpCreate, createBody("/b", "", 0))
		if next.zxid>>32 != before>>32+1 {
			t.Errorf("zxid 0x%x after 0x%x: want another epoch", next.zxid, before)
		}
		srv.Member(0).Heal()
		last := onLeader.again(srv.Member(0))
		last.want(codeOK, OpExists, watchBody("/b", false))
		last.want(codeNoNode, OpExists, watchBody("/a", false))
		if leader := srv.Leader(); leader != 1 {
			t.Errorf("member %d leads after the other came back", leader)
		}
	})
}

func TestWithoutAMajorityNothingIsServedAfterTheLimit(t *testing.T) {
	inMemory(t, three, func(t *testing.T, srv *Server) {
		c := openRaw(t, srv.Member(0), 4*time.Second)
		c.want(codeOK, OpCreate, createBody("/e", "", 1))
		srv.Member(1).CutOff()
		time.Sleep(time.Second)
		c.want(codeOK, OpSetData, setBody("/e", "x", -1))
		srv.Member(2).CutOff()
		c.request(OpSetData, setBody("/e", "y", -1))
		c.wantSilence(2 * time.Second)
		c.wantClosedWithin(limit)
		time.Sleep(time.Minute)
		if leader := srv.Leader(); leader != -1 {
			t.Errorf("member %d leads", leader)
		}
		wantNoSession(t, srv.Member(0))
		srv.Member(2).Heal()
		synctest.Wait()
		if leader := srv.Leader(); leader != 0 {
			t.Errorf("member %d leads", leader)
		}
		// Nobody could commit the session's end meanwhile.
		next := c.again(srv.Member(2))
		if r := next.want(codeOK, OpGetData, watchBody("/e", false)); string(r.body.bytes()) != "x" {
			t.Error("the hanging write was applied")
		}
	})
}

func TestWritesGoOnWhenTheMajorityIsBackInTime(t *testing.T) {
	inMemory(t, three, func(t *testing.T, srv *Server) {
		c := openRaw(t, srv.Member(0), 40*time.Second)
		srv.Member(1).CutOff()
		srv.Member(2).CutOff()
		xid := c.request(OpCreate, createBody("/a", "", 0))
		c.wantSilence(limit - time.Second)
		srv.Member(2).Heal()
		if r, err := c.next(); err != nil || r.xid != xid || r.err != codeOK {
			t.Errorf("reply %+v, error %v", r, err)
		}
		if leader := srv.Leader(); leader != 0 {
			t.Errorf("member %d leads", leader)
		}
	})
}

func TestLaggingMemberReadsThePastAndAnswersWritesLate(t *testing.T) {
	inMemory(t, three, func(t *testing.T, srv *Server) {
		c, leader := openRaw(t, srv.Member(1), 40*time.Second), openRaw(t, srv.Member(0), 40*time.Second)
		c.want(codeNoNode, OpExists, watchBody("/a", true))
		srv.Member(1).Lag()
		leader.want(codeOK, OpCreate, createBody("/a", "", 0))
		c.want(codeNoNode, OpExists, watchBody("/a", false))
		write := c.request(OpCreate, createBody("/b", "", 0))
		sync := c.request(OpSync, pathBody("/"))
		c.wantSilence(time.Second)
		leader.want(codeOK, OpExists, watchBody("/b", false))
		leader.want(codeOK, OpCreate, createBody("/c", "", 0))
		// Who has seen the leader's state cannot go back to the past.
		late := newRaw(t, srv.Member(1))
		late.zxid = leader.zxid
		late.sendHandshake(leader.session, leader.password, 40*time.Second)
		late.wantClosed()
		srv.Member(1).CatchUp()
		r, err := c.next()
		if err != nil || r.xid != write || r.err != codeOK || r.zxid != leader.zxid-1 {
			t.Errorf("reply %+v, error %v, want zxid %d", r, err, leader.zxid-1)
		}
		if len(c.events) != 1 || c.events[0] != (rawEvent{nodeCreated, "/a"}) {
			t.Errorf("events %v before the answer", c.events)
		}
		if r, err := c.next(); err != nil || r.xid != sync || r.zxid != leader.zxid {
			t.Errorf("reply %+v, error %v", r, err)
		}
		c.want(codeOK, OpExists, watchBody("/c", false))
	})
}

func TestLaggingMemberStaysInTouch(t *testing.T) {
	inMemory(t, three, func(t *testing.T, srv *Server) {
		c := newClient(t, srv.Member(1).Dialer(), 4*time.Second, srv.Addr())
		c.await(t)
		id := c.SessionID()
		srv.Member(1).Lag()
		time.Sleep(time.Minute)
		if c.SessionID() != id || len(srv.Sessions()) != 1 {
			t.Error("the session did not last")
		}
		srv.Member(1).CatchUp()
		c.stop()
	})
}

func TestSessionEndsOnALaggingMemberWhenItHearsOfIt(t *testing.T) {
	inMemory(t, three, func(t *testing.T, srv *Server) {
		c := openRaw(t, srv.Member(1), 40*time.Second)
		c.want(codeOK, OpCreate, createBody("/e", "", 1))
		c.want(codeOK, OpExists, watchBody("/e", true))
		srv.Member(1).Lag()
		srv.ExpireSession(c.session)
		c.want(codeOK, OpExists, watchBody("/e", false))
		srv.Member(1).CatchUp()
		c.wantClosed()
		if len(c.events) != 1 || c.events[0] != (rawEvent{nodeDeleted, "/e"}) {
			t.Errorf("events %v", c.events)
		}
	})
}

func TestEnsembleRestarts(t *testing.T) {
	inMemory(t, three, func(t *testing.T, srv *Server) {
		c := openRaw(t, srv.Member(1), 40*time.Second)
		c.want(codeOK, OpCreate, createBody("/e", "", 1))
		srv.Member(1).CutOff()
		srv.Member(2).Lag()
		srv.Stop()
		if err := srv.Start(); err != nil {
			t.Fatal(err)
		}
		wantNoSession(t, srv.Member(1))
		next := c.again(srv.Member(0))
		next.want(codeOK, OpCreate, createBody("/a", "", 0))
		srv.Member(1).Heal()
		srv.Member(2).CatchUp()
		for i := 1; i < 3; i++ {
			openRaw(t, srv.Member(i), 40*time.Second).want(codeOK, OpExists, watchBody("/a", false))
		}
	})
}

func TestEnsembleListensOnAnAddressForEachMember(t *testing.T) {
	srv, err := NewServer(&three)
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	for i, addr := range srv.Servers() {
		c := newClient(t, nil, 4*time.Second, addr)
		c.await(t)
		found := false
		for _, info := range srv.Sessions() {
			found = found || info.ID == c.SessionID() && info.Member == i
		}
		if !found {
			t.Errorf("member %d does not have the session: %+v", i, srv.Sessions())
		}
		c.stop()
	}
}
