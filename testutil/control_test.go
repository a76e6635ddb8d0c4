package testutil

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestControlActions(t *testing.T) {
	custom := errors.New("custom")
	for _, test := range []struct {
		name    string
		action  Action
		reply   bool // an answer comes
		err     code
		applied bool
		closed  bool // the connection ends
		alive   bool // the session lives on
	}{
		{"pass", Pass, true, codeOK, true, false, true},
		{"zero", Action{}, true, codeOK, true, false, true},
		{"lose request", LoseRequest, false, 0, false, true, true},
		{"lose reply", LoseReply, false, 0, true, true, true},
		{"cut after", CutAfter, true, codeOK, true, true, true},
		{"expire before", ExpireBefore, false, 0, false, true, false},
		{"expire after", ExpireAfter, true, codeOK, true, true, false},
		{"fail", Fail(zk.ErrNoAuth), true, codeNoAuth, false, false, true},
		{"fail wrapped", Fail(fmt.Errorf("here: %w", zk.ErrNoNode)), true, codeNoNode, false, false, true},
		{"fail by number", Fail(ErrorCode(-127)), true, -127, false, false, true},
		{"fail otherwise", Fail(custom), true, codeSystemError, false, false, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			inMemory(t, ServerOptions{}, func(t *testing.T, srv *Server) {
				c, witness := openRaw(t, srv.Member(0), 4*time.Second), openRaw(t, srv.Member(0), 4*time.Second)
				before := witness.want(codeNoNode, OpExists, watchBody("/a", false)).zxid
				srv.Control(OpCreate, Once(test.action))
				xid := c.request(OpCreate, createBody("/a", "", 0))
				if test.reply {
					c.wantNext(xid, test.err)
				}
				if test.closed {
					c.wantClosed()
				} else {
					c.do(OpPing, nil)
				}
				r := witness.do(OpExists, watchBody("/a", false))
				assert.Equal(t, test.applied, r.err == codeOK, "applied")
				if test.err != codeOK {
					assert.Equal(t, before+1, r.zxid, "a failed write takes a zxid")
				}
				assert.Equal(t, test.alive, c.again(srv.Member(0)).session == c.session, "the session is resumed")
			})
		})
	}
}

func TestDelayedRequestArrivesLateAndInOrder(t *testing.T) {
	inMemory(t, ServerOptions{}, func(t *testing.T, srv *Server) {
		c, witness := openRaw(t, srv.Member(0), 10*time.Second), openRaw(t, srv.Member(0), 10*time.Second)
		began := time.Now()
		srv.Control(OpCreate, Once(Delay(3*time.Second)))
		first, second := c.request(OpCreate, createBody("/a", "", 0)), c.request(OpExists, watchBody("/a", false))
		witness.want(codeNoNode, OpExists, watchBody("/a", false))
		for _, xid := range []int32{first, second} {
			c.wantNext(xid, codeOK)
		}
		assert.Equal(t, 3*time.Second, time.Since(began), "took")
	})
}

func TestDelayedRequestNeverArrivesWhenTheClientGoes(t *testing.T) {
	inMemory(t, ServerOptions{}, func(t *testing.T, srv *Server) {
		c, witness := openRaw(t, srv.Member(0), 10*time.Second), openRaw(t, srv.Member(0), 10*time.Second)
		srv.Control(OpCreate, Once(Delay(3*time.Second)))
		c.request(OpCreate, createBody("/a", "", 0))
		synctest.Wait()
		c.close()
		time.Sleep(5 * time.Second)
		witness.want(codeNoNode, OpExists, watchBody("/a", false))
	})
}

func TestHeldRequestWaitsForItsChannel(t *testing.T) {
	inMemory(t, ServerOptions{}, func(t *testing.T, srv *Server) {
		c := openRaw(t, srv.Member(0), 30*time.Second)
		release := make(chan struct{})
		srv.Control(OpSync, Once(Hold(release)))
		xid := c.request(OpSync, pathBody("/"))
		c.wantSilence(7 * time.Second)
		close(release)
		c.wantNext(xid, codeOK)
	})
}

func TestDelayedReplyIsApplied(t *testing.T) {
	inMemory(t, ServerOptions{}, func(t *testing.T, srv *Server) {
		c, witness := openRaw(t, srv.Member(0), 10*time.Second), openRaw(t, srv.Member(0), 10*time.Second)
		srv.Control(OpCreate, Once(DelayReply(3*time.Second)))
		release := make(chan struct{})
		srv.Control(OpDelete, Once(HoldReply(release)))
		xid := c.request(OpCreate, createBody("/a", "", 0))
		ping := c.request(OpPing, nil)
		c.wantSilence(time.Second)
		witness.want(codeOK, OpExists, watchBody("/a", false))
		for _, want := range []int32{xid, ping} {
			c.wantNext(want, codeOK)
		}
		xid = c.request(OpDelete, versionBody("/a", -1))
		c.wantSilence(time.Second)
		witness.want(codeNoNode, OpExists, watchBody("/a", false))
		close(release)
		c.wantNext(xid, codeOK)
	})
}

func TestControlIsToldOfTheRequest(t *testing.T) {
	inMemory(t, ServerOptions{}, func(t *testing.T, srv *Server) {
		var seen []Request
		cancel := srv.Control(AnyOp, func(r *Request) Action {
			seen = append(seen, *r)
			return Pass
		})
		c := openRaw(t, srv.Member(0), 4*time.Second)
		c.want(codeOK, OpCreate, createBody("/a", "data", 0))
		c.want(codeOK, OpMulti, multiBody(
			subOp{OpSetData, setBody("/a", "new", 0)}, subOp{OpCheck, versionBody("/a", 1)}))
		c.do(OpPing, nil)
		next := c.again(srv.Member(0))
		cancel()
		cancel()
		next.do(OpPing, nil)
		want := []Request{
			{Op: OpConnect},
			{Op: OpCreate, Path: "/a", SessionID: c.session, Xid: 1, Data: []byte("data")},
			{Op: OpMulti, SessionID: c.session, Xid: 2, Ops: []Request{
				{Op: OpSetData, Path: "/a", Xid: 2, Data: []byte("new")},
				{Op: OpCheck, Path: "/a", Xid: 2, Version: 1},
			}},
			{Op: OpPing, SessionID: c.session, Xid: -2},
			{Op: OpConnect, SessionID: c.session},
		}
		assert.Equal(t, want, seen)
	})
}

func TestFirstActionThatIsNotPassCounts(t *testing.T) {
	inMemory(t, ServerOptions{}, func(t *testing.T, srv *Server) {
		c := openRaw(t, srv.Member(0), 4*time.Second)
		calls := 0
		count := func(a Action) func(*Request) Action {
			return func(*Request) Action { calls++; return a }
		}
		srv.Control(AnyOp, count(Pass))
		cancel := srv.Control(OpExists, count(Fail(zk.ErrNoAuth)))
		srv.Control(OpExists, count(Fail(zk.ErrBadVersion)))
		c.want(codeNoAuth, OpExists, watchBody("/", false))
		assert.Equal(t, 3, calls, "calls")
		cancel()
		c.want(codeBadVersion, OpExists, watchBody("/", false))
	})
}

func TestControlFunctionMayUseTheServer(t *testing.T) {
	inMemory(t, ServerOptions{}, func(t *testing.T, srv *Server) {
		victim := openRaw(t, srv.Member(0), 4*time.Second)
		victim.want(codeOK, OpCreate, createBody("/e", "", 1))
		c := openRaw(t, srv.Member(0), 4*time.Second)
		srv.Control(OpSync, func(*Request) Action {
			srv.ExpireSession(victim.session)
			_ = srv.Dump()
			_ = srv.Sessions()
			return Pass
		})
		srv.Control(OpDelete, func(*Request) Action {
			srv.Stop()
			return Pass
		})
		c.want(codeOK, OpSync, pathBody("/"))
		c.want(codeNoNode, OpExists, watchBody("/e", false))
		victim.wantClosed()
		c.want(codeOK, OpCreate, createBody("/a", "", 0))
		c.request(OpDelete, versionBody("/a", -1))
		c.wantClosed()
		require.NoError(t, srv.Start())
		next := c.again(srv.Member(0))
		next.want(codeOK, OpExists, watchBody("/a", false))
	})
}

func TestFailedHandshakeSaysThatTheSessionIsGone(t *testing.T) {
	inMemory(t, ServerOptions{}, func(t *testing.T, srv *Server) {
		c := openRaw(t, srv.Member(0), 4*time.Second)
		srv.Control(OpConnect, Once(Fail(zk.ErrSessionExpired)))
		next := c.again(srv.Member(0))
		assert.Zero(t, next.session)
		next.wantClosed()
	})
}

func TestCounts(t *testing.T) {
	inMemory(t, ServerOptions{}, func(t *testing.T, srv *Server) {
		c := openRaw(t, srv.Member(0), 4*time.Second)
		srv.Control(OpExists, Once(Fail(zk.ErrNoAuth)))
		c.do(OpExists, watchBody("/a", false))
		c.do(OpExists, watchBody("/a", true))
		c.do(OpCreate, createBody("/a", "", 0))
		c.do(OpPing, nil)
		want := map[Op]int64{OpConnect: 1, OpExists: 2, OpCreate: 1, OpPing: 1, OpNotification: 1}
		assert.Equal(t, want, srv.Counts())
		srv.ResetCounts()
		c.do(OpPing, nil)
		assert.Equal(t, map[Op]int64{OpPing: 1}, srv.Counts(), "after a reset")
	})
}

func TestNthCountsFromOne(t *testing.T) {
	fn := Nth(3, LoseReply)
	for i := 1; i < 6; i++ {
		assert.Equal(t, i == 3, fn(&Request{}) == LoseReply, "call %d", i)
	}
}

// What was to be sent before a reply is not held back with it, and each hold ends by itself.
func TestDelayedReplyHoldsBackOnlyWhatIsBehindIt(t *testing.T) {
	inMemory(t, ServerOptions{}, func(t *testing.T, srv *Server) {
		c := openRaw(t, srv.Member(0), 30*time.Second)
		first, second, third := make(chan struct{}), make(chan struct{}), make(chan struct{})
		srv.Control(OpCreate, Once(HoldReply(first)))
		srv.Control(OpSetData, Once(HoldReply(second)))
		srv.Control(OpDelete, Once(HoldReply(third)))
		xids := []int32{
			c.request(OpExists, watchBody("/a", false)), c.request(OpCreate, createBody("/a", "", 0)),
			c.request(OpPing, nil), c.request(OpSetData, setBody("/a", "x", -1)),
			c.request(OpSync, pathBody("/")), c.request(OpDelete, versionBody("/a", -1)),
		}
		c.wantNext(xids[0], codeNoNode)
		c.wantSilence(time.Second)
		close(first)
		c.wantNext(xids[1], codeOK)
		c.wantNext(xids[2], codeOK)
		c.wantSilence(time.Second)
		close(third) // not the next
		c.wantSilence(time.Second)
		close(second)
		for _, xid := range xids[3:] {
			c.wantNext(xid, codeOK)
		}
	})
}

// The same where the writer has not got round to what was queued before.
func TestHoldBeginsWhereTheOutputIs(t *testing.T) {
	c := &conn{wake: make(chan struct{}, 1), out: []byte("before ")}
	first := c.hold()
	c.out = append(c.out, "first "...)
	second := c.hold()
	assert.Equal(t, "before ", string(c.takeOut()))
	c.out = append(c.out, "second "...)
	assert.Empty(t, c.takeOut())
	c.release(first)
	assert.Equal(t, "first ", string(c.takeOut()))
	third := c.hold()
	c.out = append(c.out, "third"...)
	c.release(third)
	assert.Empty(t, c.takeOut())
	c.release(second)
	assert.Equal(t, "second third", string(c.takeOut()))
	assert.Empty(t, c.takeOut())
}

func TestDelayedRequestDoesNotArriveInAnIsolation(t *testing.T) {
	inMemory(t, ServerOptions{}, func(t *testing.T, srv *Server) {
		c, witness := openRaw(t, srv.Member(0), 30*time.Second), openRaw(t, srv.Member(0), 30*time.Second)
		srv.Control(OpCreate, Once(Delay(2*time.Second)))
		xid := c.request(OpCreate, createBody("/a", "", 0))
		time.Sleep(time.Second)
		heal := srv.Isolate(c.session)
		time.Sleep(3 * time.Second)
		witness.want(codeNoNode, OpExists, watchBody("/a", false))
		heal()
		c.wantNext(xid, codeOK)
		witness.want(codeOK, OpExists, watchBody("/a", false))

		// The connection that ends meanwhile takes it along.
		srv.Control(OpDelete, Once(Delay(time.Second)))
		c.request(OpDelete, versionBody("/a", -1))
		synctest.Wait()
		srv.Isolate(c.session)
		time.Sleep(2 * time.Second)
		srv.DropConnections()
	})
}
