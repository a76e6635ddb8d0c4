package testutil

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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
			require.Empty(t, c.takeEvents())
			time.Sleep(time.Second)
		}
		c.wantClosedWithin(time.Minute)
		assert.Equal(t, limit, time.Since(began), "clients were dropped after")
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
			c.wantNext(xid, codeOK)
		}
		other.wantNext(sync, codeOK)
		assert.Equal(t, []rawEvent{{nodeCreated, "/b"}}, other.takeEvents())
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
			_, err := n.frame()
			assert.NoError(t, err)
			n.do(OpPing, nil)
		}
		c.wantClosed()
	})
}

// TestCutOffMemberDecidesByItself: of a handshake it asks the leader only whether the session lives.
func TestCutOffMemberDecidesByItself(t *testing.T) {
	inMemory(t, three, func(t *testing.T, srv *Server) {
		c, ahead := openRaw(t, srv.Member(1), 40*time.Second), openRaw(t, srv.Member(0), 40*time.Second)
		srv.Member(1).CutOff()
		ahead.want(codeOK, OpCreate, createBody("/a", "", 0))
		late := newRaw(t, srv.Member(1))
		late.zxid = ahead.zxid
		late.sendHandshake(ahead.session, ahead.password, 40*time.Second)
		late.wantClosed()

		wrong := newRaw(t, srv.Member(1))
		wrong.handshake(ahead.session, nil, 40*time.Second)
		assert.Zero(t, wrong.session)
		assert.Zero(t, wrong.timeout)
		wrong.wantClosed()

		malformed := newRaw(t, srv.Member(1))
		malformed.write(append(append([]byte{0, 0, 0, 32}, make([]byte, 27)...), 100, 0, 0, 0, 0)) // a password that is longer than all
		malformed.wantClosed()

		first := newRaw(t, srv.Member(1))
		first.sendHandshake(c.session, c.password, 40*time.Second)
		c.wantClosed()
		second := newRaw(t, srv.Member(1))
		second.sendHandshake(c.session, c.password, 40*time.Second)
		first.wantClosed()
		second.wantSilence(time.Second)
		for _, s := range srv.Sessions() {
			assert.Equal(t, s.ID == ahead.session, s.Connected())
		}
		srv.Member(1).Heal()
		_, err := second.frame()
		require.NoError(t, err)
		second.want(codeOK, OpExists, watchBody("/a", false))
	})
	// A session that has ended meanwhile: its connection is closed with it.
	inMemory(t, three, func(t *testing.T, srv *Server) {
		c := openRaw(t, srv.Member(1), 40*time.Second)
		srv.Member(1).CutOff()
		resumed := newRaw(t, srv.Member(1))
		resumed.sendHandshake(c.session, c.password, 40*time.Second)
		c.wantClosed()
		assert.True(t, srv.ExpireSession(c.session))
		srv.Member(1).Heal()
		resumed.wantClosed()
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
		require.LessOrEqual(c.t, time.Since(began), time.Hour, "the connection never ends")
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
		assert.Equal(t, limit, c.pingUntilClosed(), "the member answered for")
		d := <-expired
		assert.GreaterOrEqual(t, d, 4*time.Second, "expired after")
		assert.LessOrEqual(t, d, 6*time.Second+100*time.Millisecond, "expired after")
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
		assert.Equal(t, 6*time.Second, expiresAt(), "begun at 0, expires at")
		// Heard of at 1.5 s and passed on at 2 s and a little, it lives until a tick after 6 s.
		time.Sleep(1500 * time.Millisecond)
		c.do(OpPing, nil)
		assert.Equal(t, 6*time.Second, expiresAt(), "before it is passed on: expires at")
		time.Sleep(510 * time.Millisecond)
		assert.Equal(t, 8*time.Second, expiresAt(), "after it is passed on: expires at")
		// A write that goes through the leader does not count there either.
		time.Sleep(100 * time.Millisecond)
		c.want(codeOK, OpCreate, createBody("/a", "", 0))
		assert.Equal(t, 8*time.Second, expiresAt(), "after a write: expires at")
		time.Sleep(900 * time.Millisecond)
		assert.Equal(t, 8*time.Second, expiresAt(), "after the next ping of the leader: expires at")
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
		assert.Equal(t, want, passedOn)
	})
}

func TestClientWhoseClockRunsAtAnotherRate(t *testing.T) {
	for _, clock := range []float64{11. / 12, 1, 13. / 12} {
		inMemory(t, ServerOptions{ClientClock: func() float64 { return clock }}, func(t *testing.T, srv *Server) {
			began := time.Now()
			c := openRaw(t, srv.Member(0), 10*time.Second)
			// The next tick after 10 s, by the ensemble's clock.
			want := time.Duration(12 * clock * float64(time.Second))
			assert.Equal(t, want, srv.Sessions()[0].ExpiresIn, "at rate %v the session expires in", clock)
			c.wantClosedWithin(time.Minute)
			took := time.Since(began)
			assert.GreaterOrEqual(t, took, want, "at rate %v it has expired after", clock)
			assert.LessOrEqual(t, took, want+time.Millisecond, "at rate %v it has expired after", clock)
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
		c.wantNext(xid, codeOK)
		// Heard of by 3.75 s, it lives until a tick after 8 s.
		assert.Equal(t, 10*time.Second, time.Since(began)+srv.Sessions()[0].ExpiresIn, "expires, when the write is answered, at")
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
		assert.Equal(t, 32*time.Second, time.Since(began)+srv.Sessions()[0].ExpiresIn, "what the member heard was passed on")
	})
}

func TestClientOfAFollowerStaysAliveByPings(t *testing.T) {
	inMemory(t, three, func(t *testing.T, srv *Server) {
		c := newClient(t, srv.Member(2).Dialer(), 4*time.Second, srv.Addr())
		c.await(t)
		id := c.SessionID()
		time.Sleep(time.Hour)
		got := srv.Sessions()
		require.Len(t, got, 1)
		assert.Equal(t, id, got[0].ID)
		assert.Equal(t, 2, got[0].Member)
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
		require.Equal(t, 1, srv.Leader(), "leader")
		wantNoSession(t, srv.Member(0))
		next := onFollower.again(srv.Member(2))
		next.want(codeOK, OpCreate, createBody("/b", "", 0))
		assert.Equal(t, before>>32+1, next.zxid>>32, "zxid 0x%x after 0x%x: want another epoch", next.zxid, before)
		srv.Member(0).Heal()
		last := onLeader.again(srv.Member(0))
		last.want(codeOK, OpExists, watchBody("/b", false))
		last.want(codeNoNode, OpExists, watchBody("/a", false))
		assert.Equal(t, 1, srv.Leader(), "leader after the other came back")
	})
}

func TestWithoutAMajorityNothingIsServedAfterTheLimit(t *testing.T) {
	inMemory(t, three, func(t *testing.T, srv *Server) {
		c, short := openRaw(t, srv.Member(0), 40*time.Second), openRaw(t, srv.Member(0), 4*time.Second)
		c.want(codeOK, OpCreate, createBody("/e", "", 1))
		short.want(codeOK, OpCreate, createBody("/short", "", 1))
		srv.Member(1).CutOff()
		time.Sleep(time.Second)
		c.want(codeOK, OpSetData, setBody("/e", "x", -1))
		srv.Member(2).CutOff()
		c.request(OpSetData, setBody("/e", "y", -1))
		c.wantSilence(2 * time.Second)
		c.wantClosedWithin(limit)
		time.Sleep(time.Minute)
		assert.Equal(t, -1, srv.Leader(), "leader")
		wantNoSession(t, srv.Member(0))
		srv.Member(2).Heal()
		synctest.Wait()
		assert.Equal(t, 0, srv.Leader(), "leader")
		// What the leader had decided is in its log, so it leads again, and makes it true: the write that hung, and the
		// end of the session whose time was over by then.
		next := c.again(srv.Member(2))
		assert.Equal(t, "y", string(next.want(codeOK, OpGetData, watchBody("/e", false)).body.bytes()))
		next.want(codeNoNode, OpExists, watchBody("/short", false))
		assert.Zero(t, short.again(srv.Member(2)).session)
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
		c.wantNext(xid, codeOK)
		assert.Equal(t, 0, srv.Leader(), "leader")
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
		assert.Equal(t, leader.zxid-1, c.wantNext(write, codeOK).zxid)
		assert.Equal(t, []rawEvent{{nodeCreated, "/a"}}, c.events, "before the answer")
		assert.Equal(t, leader.zxid-1, c.wantNext(sync, codeOK).zxid, "it has its place among the writes")
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
		assert.Equal(t, id, c.SessionID())
		assert.Len(t, srv.Sessions(), 1)
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
		assert.Equal(t, []rawEvent{{nodeDeleted, "/e"}}, c.events)
	})
}

func TestEnsembleRestarts(t *testing.T) {
	inMemory(t, three, func(t *testing.T, srv *Server) {
		c := openRaw(t, srv.Member(1), 40*time.Second)
		c.want(codeOK, OpCreate, createBody("/e", "", 1))
		srv.Member(1).CutOff()
		srv.Member(2).Lag()
		srv.Stop()
		require.NoError(t, srv.Start())
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
	require.NoError(t, err)
	defer srv.Close()
	for i, addr := range srv.Servers() {
		c := newClient(t, nil, 4*time.Second, addr)
		c.await(t)
		found := false
		for _, info := range srv.Sessions() {
			found = found || info.ID == c.SessionID() && info.Member == i
		}
		assert.True(t, found, "member %d does not have the session: %+v", i, srv.Sessions())
		c.stop()
	}
}

// TestMovedSessionAtTheLeader: the leader sees at every request that the session is
// elsewhere, a follower at writes, and what has been answered by then still arrives.
func TestMovedSessionAtTheLeader(t *testing.T) {
	for _, op := range []struct {
		op   Op
		body func(*encoder)
	}{{OpExists, watchBody("/", true)}, {OpPing, nil}, {OpGetEphemerals, pathBody("/")}, {OpSetData, setBody("/", "x", -1)}} {
		inMemory(t, three, func(t *testing.T, srv *Server) {
			old := openRaw(t, srv.Member(0), 40*time.Second)
			now := old.again(srv.Member(1))
			old.request(op.op, op.body)
			old.wantClosed()
			now.want(codeOK, op.op, op.body)
		})
	}
	inMemory(t, three, func(t *testing.T, srv *Server) {
		old := openRaw(t, srv.Member(1), 40*time.Second)
		old.again(srv.Member(0)).close()
		for range 100 {
			old.request(OpExists, watchBody("/", false))
		}
		old.request(OpCreate, createBody("/a", "", 0))
		for xid := range int32(100) {
			old.wantNext(xid+1, codeOK)
		}
		old.wantClosed()
	})
}

// TestFollowersTellOfNewSessions: each says so to the leader once, as of when it learns
// of it, and with the timeout that the session had at its beginning.
func TestFollowersTellOfNewSessions(t *testing.T) {
	expiresIn := func(srv *Server) time.Duration {
		synctest.Wait()
		return srv.Sessions()[0].ExpiresIn
	}
	inMemory(t, three, func(t *testing.T, srv *Server) {
		c := openRaw(t, srv.Member(0), 40*time.Second)
		c.timeout = 4000
		next := c.again(srv.Member(0))
		assert.Equal(t, 6*time.Second, expiresIn(srv))
		time.Sleep(tick/2 + time.Millisecond)
		assert.Greater(t, expiresIn(srv), 40*time.Second, "the followers have not said that it is new")
		next.do(OpPing, nil)
		assert.LessOrEqual(t, expiresIn(srv), 6*time.Second, "it is not new any more")
	})
	inMemory(t, three, func(t *testing.T, srv *Server) {
		srv.Member(2).Lag()
		c := openRaw(t, srv.Member(0), 4*time.Second)
		defer c.close()
		time.Sleep(5 * time.Second)
		assert.LessOrEqual(t, expiresIn(srv), time.Second)
		srv.Member(2).CatchUp()
		time.Sleep(1100 * time.Millisecond)
		require.Len(t, srv.Sessions(), 1, "expired, though a follower has learnt of it only now")
		assert.Greater(t, expiresIn(srv), 3*time.Second)
	})
}

// TestHealedMemberSeesEverythingInOrder: what was committed while it was cut off comes before the expiries that its return
// makes possible.
func TestHealedMemberSeesEverythingInOrder(t *testing.T) {
	inMemory(t, three, func(t *testing.T, srv *Server) {
		watcher, leader := openRaw(t, srv.Member(1), 40*time.Second), openRaw(t, srv.Member(0), 40*time.Second)
		owner := openRaw(t, srv.Member(2), 4*time.Second)
		owner.want(codeOK, OpCreate, createBody("/e", "", 1))
		watcher.want(codeNoNode, OpExists, watchBody("/b", true))
		watcher.want(codeOK, OpExists, watchBody("/e", true))
		srv.Member(1).CutOff()
		leader.want(codeOK, OpCreate, createBody("/b", "", 0))
		time.Sleep(time.Second)
		srv.Member(2).CutOff()
		time.Sleep(6 * time.Second)
		srv.Member(1).Heal()
		assert.Equal(t, []rawEvent{{nodeCreated, "/b"}, {nodeDeleted, "/e"}}, watcher.takeEvents())
	})
}

// To the leader's own clients a sync is a read, whatever hangs.
func TestSyncAtTheLeaderWaitsForNobody(t *testing.T) {
	inMemory(t, three, func(t *testing.T, srv *Server) {
		here, other := openRaw(t, srv.Member(0), 40*time.Second), openRaw(t, srv.Member(0), 40*time.Second)
		srv.Member(1).CutOff()
		srv.Member(2).CutOff()
		here.request(OpCreate, createBody("/a", "", 0))
		synctest.Wait()
		other.want(codeOK, OpSync, pathBody("/"))
		here.request(OpSync, pathBody("/")) // behind its own write it waits
		here.wantSilence(time.Second)
	})
}

// At a follower a sync waits for what hangs at the leader, and not for what has never got there.
func TestSyncAtAFollowerWaitsForWhatHangsAtTheLeader(t *testing.T) {
	inMemory(t, ServerOptions{Members: 5}, func(t *testing.T, srv *Server) {
		far, near := openRaw(t, srv.Member(4), 40*time.Second), openRaw(t, srv.Member(1), 40*time.Second)
		leader := openRaw(t, srv.Member(0), 40*time.Second)
		for _, i := range []int{2, 3, 4} {
			srv.Member(i).CutOff()
		}
		far.request(OpCreate, createBody("/a", "", 0))
		synctest.Wait()
		near.want(codeOK, OpSync, pathBody("/"))
		write := leader.request(OpCreate, createBody("/b", "", 0))
		synctest.Wait()
		sync := near.request(OpSync, pathBody("/"))
		near.wantSilence(time.Second)
		srv.Member(3).Heal()
		leader.wantNext(write, codeOK)
		near.wantNext(sync, codeOK)
		near.want(codeOK, OpExists, watchBody("/b", false))
	})
}

// TestSessionResumedAtAFollowerIsHeardOfOnce: by the question that the follower puts to the leader, and not with its next
// answer to a ping again.
func TestSessionResumedAtAFollowerIsHeardOfOnce(t *testing.T) {
	inMemory(t, three, func(t *testing.T, srv *Server) {
		began := time.Now()
		c := openRaw(t, srv.Member(0), 10*time.Second)
		time.Sleep(1500 * time.Millisecond)
		c.again(srv.Member(1))
		time.Sleep(time.Second) // a ping of the leader's was at 2 s and a little
		synctest.Wait()
		assert.Equal(t, 12*time.Second, time.Since(began)+srv.Sessions()[0].ExpiresIn)
	})
}

// What comes in behind a request that hangs is heard of then, and not when it gets its turn.
func TestWhatIsBehindAHangingWriteIsHeardOfOnce(t *testing.T) {
	inMemory(t, three, func(t *testing.T, srv *Server) {
		began := time.Now()
		c := openRaw(t, srv.Member(0), 10*time.Second)
		time.Sleep(tick) // the followers have said that it is new
		srv.Member(1).CutOff()
		srv.Member(2).CutOff()
		write := c.request(OpCreate, createBody("/a", "", 0))
		time.Sleep(1500 * time.Millisecond)
		ping := c.request(OpPing, nil)
		time.Sleep(1500 * time.Millisecond)
		srv.Member(2).Heal()
		c.wantNext(write, codeOK)
		c.wantNext(ping, codeOK)
		assert.Equal(t, 14*time.Second, time.Since(began)+srv.Sessions()[0].ExpiresIn)
	})
}

// TestAuthDoesNotWaitBehindAWrite: it is answered as it is read, and what came before it is judged by whom the client had
// proved to be by then. The session is not heard of by it.
func TestAuthDoesNotWaitBehindAWrite(t *testing.T) {
	mine := func(path string) func(*encoder) {
		return func(e *encoder) {
			e.string(path)
			e.bytes(nil)
			e.acls([]acl{{permAll, identity{"auth", ""}}})
			e.int32(0)
		}
	}
	inMemory(t, three, func(t *testing.T, srv *Server) {
		began := time.Now()
		c := openRaw(t, srv.Member(1), 10*time.Second)
		srv.Member(1).CutOff()
		first := c.request(OpCreate, mine("/a"))
		who := c.request(OpWhoAmI, nil)
		synctest.Wait()
		time.Sleep(1500 * time.Millisecond)
		c.want(codeOK, OpAuth, authBody("digest", "me:secret"))
		sasl := c.do(OpSASL, func(e *encoder) { e.bytes([]byte("token")) })
		assert.Equal(t, codeOK, sasl.err)
		second := c.request(OpCreate, mine("/b"))
		now := c.request(OpWhoAmI, nil)
		synctest.Wait()
		srv.Member(1).Heal()
		c.wantNext(first, codeInvalidACL)
		assert.Equal(t, int32(1), c.wantNext(who, codeOK).body.int32(), "identities")
		c.wantNext(second, codeOK)
		assert.Equal(t, int32(2), c.wantNext(now, codeOK).body.int32(), "identities")
		time.Sleep(tick)
		assert.Equal(t, 12*time.Second, time.Since(began)+srv.Sessions()[0].ExpiresIn)

		// One that is refused ends the connection, and with it what hangs.
		srv.Member(1).CutOff()
		c.request(OpCreate, createBody("/c", "", 0))
		synctest.Wait()
		c.want(codeAuthFailed, OpAuth, authBody("nobody", "x"))
		c.wantClosed()
	})
}

func TestSASLIsNoSignOfLife(t *testing.T) {
	inMemory(t, ServerOptions{}, func(t *testing.T, srv *Server) {
		began := time.Now()
		c := openRaw(t, srv.Member(0), 10*time.Second)
		time.Sleep(2500 * time.Millisecond)
		c.want(codeOK, OpSASL, func(e *encoder) { e.bytes([]byte("token")) })
		assert.Equal(t, 12*time.Second, time.Since(began)+srv.Sessions()[0].ExpiresIn)
	})
}
