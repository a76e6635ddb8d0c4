package testutil

import (
	"fmt"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// alone cuts everybody off from the leader, which is member 0.
func alone(srv *Server) { cutOff(srv, 1, 2) }

func cutOff(srv *Server, members ...int) {
	for _, i := range members {
		srv.Member(i).CutOff()
	}
}

// TestWhatHangsIsDecided: a write that has reached the leader is made true when there is a majority again, in the order of
// arrival, whether or not its client still waits.
func TestWhatHangsIsDecided(t *testing.T) {
	for _, test := range []struct {
		name string
		f    func(t *testing.T, srv *Server)
	}{
		{"those behind it are judged by it", func(t *testing.T, srv *Server) {
			one, two, three := openRaw(t, srv.Member(0), 40*time.Second), openRaw(t, srv.Member(0), 40*time.Second), openRaw(t, srv.Member(0), 40*time.Second)
			alone(srv)
			first := one.request(OpCreate, createBody("/a", "", 0))
			synctest.Wait()
			second := two.request(OpCreate, createBody("/a", "", 0))
			synctest.Wait()
			third := three.request(OpMulti, multiBody(subOp{OpCreate, createBody("/a/b", "", 1)}, subOp{OpSetData, setBody("/a", "x", 0)}))
			synctest.Wait()
			srv.Member(2).Heal()
			zxid := one.wantNext(first, codeOK).zxid
			two.wantNext(second, codeNodeExists)
			three.wantNext(third, codeOK)
			assert.Equal(t, zxid, one.stat("/a").czxid)
			assert.Equal(t, zxid+2, one.stat("/a").mzxid)
			assert.Equal(t, zxid+2, one.stat("/a/b").czxid)
			assert.Equal(t, three.session, one.stat("/a/b").ephemeralOwner)
		}},
		{"the client has hung up", func(t *testing.T, srv *Server) {
			c, witness := openRaw(t, srv.Member(0), 40*time.Second), openRaw(t, srv.Member(0), 40*time.Second)
			alone(srv)
			wantLeftBehind(t, srv, c, witness, 0, 2)
			c.again(srv.Member(0)).want(codeOK, OpDelete, versionBody("/e", -1))
			time.Sleep(4 * tick)
			assert.Len(t, srv.Sessions(), 2, "it has ended, for nobody uses it")
		}},
		{"the client of a follower has hung up", func(t *testing.T, srv *Server) {
			c, witness := openRaw(t, srv.Member(1), 40*time.Second), openRaw(t, srv.Member(0), 40*time.Second)
			srv.Member(1).CutOff()
			wantLeftBehind(t, srv, c, witness, 1, 1)
		}},
		{"what is behind it on its connection", func(t *testing.T, srv *Server) { wantPassedOn(t, srv, 0) }},
		{"what is behind it on a follower's connection", func(t *testing.T, srv *Server) { wantPassedOn(t, srv, 1) }},
		{"what has come in behind one that was delayed", func(t *testing.T, srv *Server) {
			c, other := openRaw(t, srv.Member(0), 40*time.Second), openRaw(t, srv.Member(0), 40*time.Second)
			srv.Control(OpCreate, Once(Delay(time.Second)))
			xids := []int32{
				c.request(OpCreate, createBody("/n-", "", 2)), c.request(OpPing, nil), c.request(OpSetData, setBody("/n-0000000000", "x", 0)),
			}
			alone(srv)
			time.Sleep(2 * time.Second)
			late := other.request(OpSetData, setBody("/n-0000000000", "y", 1))
			synctest.Wait()
			srv.Member(2).Heal()
			for _, xid := range xids {
				c.wantNext(xid, codeOK)
			}
			other.wantNext(late, codeOK)
		}},
		{"what a control function wants to see waits for its turn", func(t *testing.T, srv *Server) {
			c, other := openRaw(t, srv.Member(0), 40*time.Second), openRaw(t, srv.Member(0), 40*time.Second)
			alone(srv)
			seen := 0
			srv.Control(OpSetData, func(*Request) Action { seen++; return Pass })
			c.request(OpCreate, createBody("/a", "", 0))
			c.request(OpSetData, setBody("/a", "x", -1))
			c.request(OpDelete, versionBody("/a", -1))
			c.request(OpExists, watchBody("/a", false))
			synctest.Wait()
			assert.Zero(t, seen)
			write := other.request(OpCreate, createBody("/a/b", "", 1))
			synctest.Wait()
			srv.Member(2).Heal()
			other.wantNext(write, codeOK)
			for xid, want := range []code{codeOK, codeOK, codeNotEmpty, codeOK} {
				c.wantNext(int32(xid+1), want)
			}
			assert.Equal(t, 1, seen)
			counts := srv.Counts()
			assert.Equal(t, []int64{2, 1, 1, 1}, []int64{counts[OpCreate], counts[OpSetData], counts[OpDelete], counts[OpExists]})
		}},
		{"the session's time is over by then", func(t *testing.T, srv *Server) {
			c, witness := openRaw(t, srv.Member(0), 4*time.Second), openRaw(t, srv.Member(0), 40*time.Second)
			time.Sleep(tick)
			witness.want(codeNoNode, OpExists, watchBody("/e", true))
			alone(srv)
			c.request(OpMulti, multiBody(subOp{OpCreate, createBody("/a", "", 0)}, subOp{OpCreate, createBody("/e", "", 1)}))
			time.Sleep(7 * time.Second)
			srv.Member(2).Heal()
			before := witness.stat("/a").czxid
			assert.Equal(t, []rawEvent{{nodeCreated, "/e"}}, witness.takeEvents())
			witness.want(codeNoNode, OpExists, watchBody("/e", false))
			assert.Equal(t, before+1, witness.zxid, "it ends behind its write")
		}},
		{"a session taken up again by a client that has gone elsewhere", func(t *testing.T, srv *Server) {
			c := openRaw(t, srv.Member(1), 40*time.Second)
			srv.Member(2).CutOff()
			hung := newRaw(t, srv.Member(2))
			hung.sendHandshake(c.session, c.password, 40*time.Second)
			synctest.Wait()
			hung.close()
			now := c.again(srv.Member(0))
			now.want(codeOK, OpCreate, createBody("/a", "", 0))
			srv.Member(2).Heal()
			now.request(OpSetData, setBody("/a", "x", -1))
			now.wantClosed()
			c.again(srv.Member(0)).want(codeOK, OpSetData, setBody("/a", "x", 0))
		}},
		{"a session taken up again where its write hangs", func(t *testing.T, srv *Server) {
			c, other := openRaw(t, srv.Member(0), 40*time.Second), openRaw(t, srv.Member(0), 40*time.Second)
			c.want(codeOK, OpCreate, createBody("/a", "", 0))
			alone(srv)
			c.request(OpSetData, setBody("/a", "x", -1))
			synctest.Wait()
			c.close()
			synctest.Wait()
			wantStoodBehind(t, srv, c, other, srv.Member(2).Heal)
		}},
		{"a session taken up again where its write is not there yet", func(t *testing.T, srv *Server) {
			c, other := openRaw(t, srv.Member(1), 40*time.Second), openRaw(t, srv.Member(0), 40*time.Second)
			c.want(codeOK, OpCreate, createBody("/a", "", 0))
			srv.Member(1).Lag()
			c.request(OpSetData, setBody("/a", "x", -1))
			synctest.Wait()
			assert.Equal(t, int32(1), other.stat("/a").version)
			c.close()
			synctest.Wait()
			wantStoodBehind(t, srv, c, other, srv.Member(1).CatchUp)
		}},
		{"a session taken up again twice", func(t *testing.T, srv *Server) {
			c := openRaw(t, srv.Member(0), 40*time.Second)
			alone(srv)
			c.request(OpCreate, createBody("/a", "", 0))
			synctest.Wait()
			second := c.again(srv.Member(0))
			c.wantClosed()
			second.request(OpSetData, setBody("/a", "x", 0))
			synctest.Wait()
			third := second.again(srv.Member(0))
			second.wantClosed()
			data := third.request(OpGetData, watchBody("/a", false))
			third.wantSilence(time.Second)
			srv.Member(2).Heal()
			assert.Equal(t, "x", string(third.wantNext(data, codeOK).body.bytes()))
			third.want(codeOK, OpDelete, versionBody("/a", 1))
		}},
		{"an operation that there is not", func(t *testing.T, srv *Server) {
			unknown := []Op{99, OpNotification}
			if !srv.release.checksOutsideMultis() {
				unknown = append(unknown, OpCheck)
			}
			for i, op := range unknown {
				c, other := openRaw(t, srv.Member(0), 40*time.Second), openRaw(t, srv.Member(0), 40*time.Second)
				alone(srv)
				path := fmt.Sprintf("/a%d", i)
				c.request(OpCreate, createBody(path, "", 0))
				xid := c.request(op, versionBody(path, -1))
				assert.Equal(t, int64(-1), c.wantNext(xid, codeUnimplemented).zxid, "at once")
				c.wantClosed()
				srv.Member(2).Heal()
				other.want(codeOK, OpExists, watchBody(path, false))
			}
		}},
		{"rights that are not in force yet", func(t *testing.T, srv *Server) {
			c, other := openRaw(t, srv.Member(0), 40*time.Second), openRaw(t, srv.Member(0), 40*time.Second)
			for _, path := range []string{"/open", "/closed"} {
				c.want(codeOK, OpCreate, createBody(path, "", 0))
			}
			c.want(codeOK, OpSetACL, aclBody("/closed", permRead|permAdmin))
			alone(srv)
			set := []int32{
				c.request(OpSetACL, aclBody("/open", permRead)), c.request(OpSetData, setBody("/open", "x", -1)),
				c.request(OpSetACL, aclBody("/closed", permAll)), c.request(OpSetData, setBody("/closed", "x", -1)),
			}
			synctest.Wait()
			srv.Member(2).Heal()
			for i, want := range []code{codeOK, codeOK, codeOK, codeNoAuth} {
				c.wantNext(set[i], want)
			}
			other.want(codeNoAuth, OpSetData, setBody("/open", "y", -1))
			other.want(codeOK, OpSetData, setBody("/closed", "y", -1))
		}},
		{"children that go with their session", func(t *testing.T, srv *Server) {
			c, other := openRaw(t, srv.Member(0), 40*time.Second), openRaw(t, srv.Member(0), 40*time.Second)
			other.want(codeOK, OpCreate, createBody("/p", "", 0))
			c.want(codeOK, OpCreate, createBody("/p/e", "", 1))
			alone(srv)
			c.request(OpClose, nil)
			synctest.Wait()
			gone := []int32{
				other.request(OpDelete, versionBody("/p/e", -1)), other.request(OpDelete, versionBody("/p", -1)),
			}
			synctest.Wait()
			srv.Member(2).Heal()
			other.wantNext(gone[0], codeNoNode)
			other.wantNext(gone[1], codeNotEmpty)
			other.want(codeOK, OpDelete, versionBody("/p", -1))
		}},
		{"many, at the leader", func(t *testing.T, srv *Server) { wantInOrder(t, srv, 0) }},
		{"many, at a follower", func(t *testing.T, srv *Server) { wantInOrder(t, srv, 1) }},
		{"the session is closed behind it", func(t *testing.T, srv *Server) {
			c, witness := openRaw(t, srv.Member(0), 40*time.Second), openRaw(t, srv.Member(0), 40*time.Second)
			c.want(codeOK, OpCreate, createBody("/e", "", 1))
			alone(srv)
			end := c.request(OpClose, nil)
			synctest.Wait()
			witness.want(codeOK, OpExists, watchBody("/e", false))
			assert.Zero(t, c.again(srv.Member(0)).session, "it is closing")
			srv.Member(2).Heal()
			c.wantNext(end, codeOK)
			c.wantClosed()
			witness.want(codeNoNode, OpExists, watchBody("/e", false))
		}},
		{"a test ends the session", func(t *testing.T, srv *Server) {
			c, witness := openRaw(t, srv.Member(0), 40*time.Second), openRaw(t, srv.Member(0), 40*time.Second)
			alone(srv)
			c.request(OpCreate, createBody("/e", "", 1))
			synctest.Wait()
			assert.True(t, srv.ExpireSession(c.session))
			witness.want(codeNoNode, OpExists, watchBody("/e", true))
			srv.Member(2).Heal()
			witness.want(codeNoNode, OpExists, watchBody("/e", false))
			assert.Equal(t, []rawEvent{{nodeCreated, "/e"}}, witness.takeEvents())
			assert.Len(t, srv.Sessions(), 1)
		}},
		{"one of which the answer is cut", func(t *testing.T, srv *Server) {
			c, other := openRaw(t, srv.Member(0), 40*time.Second), openRaw(t, srv.Member(0), 40*time.Second)
			alone(srv)
			srv.Control(OpCreate, Once(ExpireAfter))
			first := c.request(OpCreate, createBody("/e", "", 1))
			synctest.Wait()
			second := other.request(OpSetData, setBody("/e", "x", -1))
			synctest.Wait()
			srv.Member(2).Heal()
			c.wantNext(first, codeOK)
			c.wantClosed()
			zxid := other.wantNext(second, codeOK).zxid
			other.want(codeNoNode, OpExists, watchBody("/e", false))
			assert.Equal(t, zxid+1, other.zxid)
		}},
	} {
		t.Run(test.name, func(t *testing.T) { inMemory(t, three, test.f) })
	}
}

// wantStoodBehind takes up a session whose connection has ended while its write to /a hangs: nothing is answered before that.
func wantStoodBehind(t *testing.T, srv *Server, c, other *rawClient, heal func()) {
	t.Helper()
	next := c.again(srv.Member(int(uint64(c.session)>>56) - 1))
	require.Equal(t, c.session, next.session, "the handshake is answered at once")
	ping, data := next.request(OpPing, nil), next.request(OpGetData, watchBody("/a", false))
	next.wantSilence(time.Second)
	other.want(codeOK, OpExists, watchBody("/a", false))
	more := next.request(OpSetData, setBody("/a", "y", 1))
	heal()
	next.wantNext(ping, codeOK)
	assert.Equal(t, "x", string(next.wantNext(data, codeOK).body.bytes()))
	next.wantNext(more, codeOK)
	next.want(codeOK, OpDelete, versionBody("/a", 2))
}

// wantPassedOn sends several requests behind a write that hangs. They take their places among those of others as they come
// in, are answered in their turn, and are there though the client has gone.
func wantPassedOn(t *testing.T, srv *Server, member int) {
	t.Helper()
	c, other := openRaw(t, srv.Member(member), 40*time.Second), openRaw(t, srv.Member(member), 40*time.Second)
	gone := openRaw(t, srv.Member(member), 40*time.Second)
	alone(srv)
	one := c.request(OpCreate, createBody("/n-", "", 2))
	read := c.request(OpGetChildren, watchBody("/", true))
	sync := c.request(OpSync, pathBody("/"))
	synctest.Wait()
	two := other.request(OpCreate, createBody("/n-", "", 2))
	synctest.Wait()
	unreadable := c.request(OpSetData, func(e *encoder) { e.string("/n-0000000000") })
	three := c.request(OpCreate, createBody("/n-", "", 2))
	ping := c.request(OpPing, nil)
	synctest.Wait()
	gone.request(OpCreate, createBody("/gone-", "", 2))
	gone.request(OpExists, watchBody("/", false))
	gone.request(OpCreate, createBody("/gone-", "", 2))
	synctest.Wait()
	gone.close()
	synctest.Wait()
	four := other.request(OpCreate, createBody("/n-", "", 2))
	synctest.Wait()
	srv.Member(2).Heal()
	srv.Member(1).Heal()
	first := c.wantNext(one, codeOK)
	assert.Equal(t, "/n-0000000000", first.body.string())
	list := c.wantNext(read, codeOK)
	assert.Equal(t, []string{"n-0000000000", "zookeeper"}, sorted(list.body.strings()))
	assert.Equal(t, first.zxid, list.zxid)
	assert.Equal(t, first.zxid, c.wantNext(sync, codeOK).zxid)
	c.wantNext(unreadable, codeMarshallingError)
	assert.Equal(t, "/n-0000000002", c.wantNext(three, codeOK).body.string())
	c.wantNext(ping, codeOK)
	assert.Equal(t, []rawEvent{{nodeChildrenChanged, "/"}}, c.events)
	assert.Equal(t, "/n-0000000001", other.wantNext(two, codeOK).body.string())
	assert.Equal(t, "/n-0000000005", other.wantNext(four, codeOK).body.string())
	other.want(codeOK, OpExists, watchBody("/gone-0000000003", false))
	other.want(codeOK, OpExists, watchBody("/gone-0000000004", false))
	other.want(codeOK, OpClose, nil)
}

func sorted(list []string) []string {
	slices.Sort(list)
	return list
}

// wantInOrder has many clients of a member number nodes while there is no majority.
func wantInOrder(t *testing.T, srv *Server, member int) {
	t.Helper()
	var clients []*rawClient
	for range 20 {
		clients = append(clients, openRaw(t, srv.Member(member), 40*time.Second))
	}
	alone(srv)
	for i, c := range clients {
		c.request(OpCreate, createBody("/n-", fmt.Sprint(i), 2))
		synctest.Wait()
	}
	srv.Member(1).Heal()
	srv.Member(2).Heal()
	for i, c := range clients {
		path := c.wantNext(1, codeOK).body.string()
		assert.Equal(t, fmt.Sprintf("/n-%010d", i), path)
		assert.Equal(t, fmt.Sprint(i), string(c.want(codeOK, OpGetData, watchBody(path, false)).body.bytes()))
	}
}

// TestMemberThatBeginsAnewKnowsOfNoRequest: what it has passed on before hangs at the leader, and holds nobody up here.
func TestMemberThatBeginsAnewKnowsOfNoRequest(t *testing.T) {
	inMemory(t, ServerOptions{Members: 5}, func(t *testing.T, srv *Server) {
		c := openRaw(t, srv.Member(1), 40*time.Second)
		cutOff(srv, 2, 3, 4)
		c.request(OpCreate, createBody("/a", "", 0))
		synctest.Wait()
		assert.Len(t, srv.proposed, 1)
		srv.Member(1).Stop()
		require.NoError(t, srv.Member(1).Start())
		next := c.again(srv.Member(1))
		next.want(codeNoNode, OpExists, watchBody("/a", false))
		srv.Member(2).Heal()
		next.want(codeOK, OpExists, watchBody("/a", false))
	})
}

// TestWhoHasLoggedTheMostLeads: what hung is in the logs of those whom it reached, and with none of them it is lost.
func TestWhoHasLoggedTheMostLeads(t *testing.T) {
	inMemory(t, ServerOptions{Members: 5}, func(t *testing.T, srv *Server) {
		c := openRaw(t, srv.Member(0), 40*time.Second)
		cutOff(srv, 1, 2, 3)
		c.request(OpCreate, createBody("/a", "", 0))
		synctest.Wait()
		srv.Member(4).CutOff()
		next := openRawLater(t, srv.Member(0))
		synctest.Wait()
		assert.Len(t, srv.Sessions(), 2)
		srv.Member(0).Stop()
		for _, i := range []int{4, 1, 2, 3} {
			srv.Member(i).Heal()
		}
		require.Equal(t, 4, srv.Leader())
		next.close()
		assert.Len(t, srv.Sessions(), 1, "a session of which only member 0 knows")
		c = c.again(srv.Member(2))
		c.want(codeOK, OpExists, watchBody("/a", false))
		require.NoError(t, srv.Member(0).Start())
		openRaw(t, srv.Member(0), 40*time.Second).want(codeOK, OpExists, watchBody("/a", false))
	})
	inMemory(t, three, func(t *testing.T, srv *Server) {
		c := openRaw(t, srv.Member(0), 40*time.Second)
		alone(srv)
		c.request(OpCreate, createBody("/a", "", 0))
		synctest.Wait()
		srv.Member(0).Stop()
		srv.Member(1).Heal()
		srv.Member(2).Heal()
		require.Equal(t, 1, srv.Leader())
		require.NoError(t, srv.Member(0).Start())
		c = c.again(srv.Member(0))
		c.want(codeNoNode, OpExists, watchBody("/a", false))
		c.want(codeOK, OpCreate, createBody("/a", "", 0))
	})
}

// openRawLater sends the handshake of a new session.
func openRawLater(t *testing.T, m Member) *rawClient {
	t.Helper()
	c := newRaw(t, m)
	c.sendHandshake(0, nil, 40*time.Second)
	return c
}

// TestLeaderEndsSessionsWithoutAMajority: it cannot commit their end, and hears no more of them.
func TestLeaderEndsSessionsWithoutAMajority(t *testing.T) {
	inMemory(t, three, func(t *testing.T, srv *Server) {
		there, here := openRaw(t, srv.Member(1), 4*time.Second), openRaw(t, srv.Member(0), 4*time.Second)
		witness := openRaw(t, srv.Member(0), 40*time.Second)
		there.want(codeOK, OpCreate, createBody("/e", "", 1))
		witness.want(codeOK, OpExists, watchBody("/e", true))
		alone(srv)
		time.Sleep(7 * time.Second)
		assert.Zero(t, there.again(srv.Member(0)).session)
		here.request(OpPing, nil)
		here.wantSilence(time.Second / 2)
		witness.want(codeOK, OpExists, watchBody("/e", false))
		srv.Member(2).Heal()
		here.wantClosed()
		assert.Equal(t, []rawEvent{{nodeDeleted, "/e"}}, witness.takeEvents())
		assert.Len(t, srv.Sessions(), 1)
	})
	// Another leader knows nothing of it.
	inMemory(t, three, func(t *testing.T, srv *Server) {
		c := openRaw(t, srv.Member(1), 4*time.Second)
		c.want(codeOK, OpCreate, createBody("/e", "", 1))
		srv.Member(0).CutOff()
		time.Sleep(limit + time.Millisecond)
		require.Equal(t, 1, srv.Leader())
		assert.Equal(t, c.session, c.again(srv.Member(2)).stat("/e").ephemeralOwner)
	})
}

// TestNewLeaderShowsItsEpoch: to a client that has seen that a follower has nothing to say until the first transaction.
func TestNewLeaderShowsItsEpoch(t *testing.T) {
	zxid := func(m Member) string {
		c := newRaw(t, m)
		c.write([]byte("srvr"))
		answer, err := io.ReadAll(c.nc)
		require.NoError(t, err)
		return string(answer)
	}
	inMemory(t, three, func(t *testing.T, srv *Server) {
		assert.Contains(t, zxid(srv.Member(0)), "\nZxid: 0x100000000\n")
		assert.Contains(t, zxid(srv.Member(1)), "\nZxid: 0x0\n")
		c := openRaw(t, srv.Member(1), 40*time.Second)
		srv.Member(0).Stop()
		require.Equal(t, 1, srv.Leader())
		there := c.again(srv.Member(1))
		there.want(codeNoNode, OpExists, watchBody("/a", false))
		assert.Equal(t, int64(2)<<32, there.zxid)
		late := newRaw(t, srv.Member(2))
		late.zxid = there.zxid
		late.sendHandshake(c.session, c.password, 40*time.Second)
		late.wantClosed()
		there.want(codeOK, OpCreate, createBody("/a", "", 0))
		assert.Equal(t, int64(2)<<32+1, there.zxid)
		there.again(srv.Member(2)).want(codeOK, OpExists, watchBody("/a", false))
	})
}

// wantLeftBehind has two clients of a member ask for something, and hang up, while there is no majority for it: c for a node, and
// another for a session. Both are there once heals is healed.
func wantLeftBehind(t *testing.T, srv *Server, c, witness *rawClient, member, heals int) {
	t.Helper()
	c.request(OpCreate, createBody("/e", "", 1))
	synctest.Wait()
	c.close()
	fresh := newRaw(t, srv.Member(member))
	fresh.sendHandshake(0, nil, 4*time.Second)
	synctest.Wait()
	fresh.close()
	synctest.Wait()
	witness.want(codeNoNode, OpExists, watchBody("/e", false))
	srv.Member(heals).Heal()
	assert.Equal(t, c.session, witness.stat("/e").ephemeralOwner)
	assert.Len(t, srv.Sessions(), 3, "the new one has begun")
}
