package testutil

import (
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// word sends a four-letter word over TCP.
func word(t *testing.T, addr, word string) string {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer nc.Close()
	_, err = io.WriteString(nc, word)
	require.NoError(t, err)
	answer, err := io.ReadAll(nc)
	require.NoError(t, err)
	return string(answer)
}

func TestFourLetterWords(t *testing.T) {
	srv, err := NewServer(nil)
	require.NoError(t, err)
	defer srv.Close()
	c := newClient(t, nil, 30*time.Second, srv.Addr())
	defer c.stop()
	c.await(t)
	must[string](t)(c.Create("/e", []byte("data"), zk.FlagEphemeral, everybody))
	_, _, _, err = c.GetW("/e")
	require.NoError(t, err)
	id := sessionName(c.SessionID())
	// What the last operation was is looked for at a client that has no watch. One that has sets it once more when it finds it
	// there as it gets round to that after connecting. And it pings when it has been silent for a third of its timeout.
	reader := newClient(t, nil, 30*time.Second, srv.Addr())
	defer reader.stop()
	reader.await(t)
	_, _, err = reader.Get("/e")
	require.NoError(t, err)
	for name, wants := range map[string][]string{
		"srvr": {"Zookeeper version: 3.9.3-", "\nZxid: 0x3\n", "\nMode: standalone\n", "\nNode count: 6\n"},
		"stat": {"Clients:\n /127.0.0.1:", "\nMode: standalone\n"},
		"mntr": {"zk_server_state\tstandalone\n", "zk_znode_count\t6\n", "zk_watch_count\t1\n", "zk_ephemerals_count\t1\n"},
		"cons": {"sid=" + sessionName(reader.SessionID()) + ",lop=GETD,", ",to=30000,"},
		"wchs": {"1 connections watching 1 paths\nTotal watches:1\n"},
		"wchp": {"/e\n\t" + id + "\n"},
		"dump": {"\t" + id + "\n", id + ":\n\t/e\n"},
		"envi": {"Environment:\nzookeeper.version=3.9.3-"},
	} {
		answer := word(t, srv.Addr(), name)
		for _, want := range wants {
			assert.Contains(t, answer, want, name)
		}
	}
	assert.Equal(t, "imok", word(t, srv.Addr(), "ruok"), "ruok")
	assert.Empty(t, word(t, srv.Addr(), "none"), "an unknown word")
}

func TestGoClientReadsFourLetterWords(t *testing.T) {
	srv, err := NewServer(&ServerOptions{Members: 3})
	require.NoError(t, err)
	defer srv.Close()
	c := newClient(t, nil, 30*time.Second, srv.Servers()[1])
	defer c.stop()
	c.await(t)
	const patience = 30 * time.Second
	assert.Equal(t, []bool{true, true, true}, zk.FLWRuok(srv.Servers(), patience), "ruok")
	// It knows the version line of 3.4, and fails here as on every later release.
	stats, ok := zk.FLWSrvr(srv.Servers(), patience)
	assert.False(t, ok)
	require.Len(t, stats, 3)
	assert.Error(t, stats[0].Error)
	// (It cannot parse the line of the connection that asks, a real server's
	// either, and says so; the other lines are there.)
	clients, _ := zk.FLWCons(srv.Servers()[1:2], patience)
	require.Len(t, clients, 1)
	assert.True(t, slices.ContainsFunc(clients[0].Clients, func(s *zk.ServerClient) bool {
		return s.SessionID == c.SessionID() && s.Timeout == 30_000
	}), "cons: %v", clients)
}

func TestWordsOfAnEnsembleWithoutALeader(t *testing.T) {
	inMemory(t, three, func(t *testing.T, srv *Server) {
		srv.Member(1).CutOff()
		time.Sleep(time.Second)
		c := newRaw(t, srv.Member(0))
		c.write([]byte("srvr"))
		answer, err := io.ReadAll(c.nc)
		require.NoError(t, err)
		assert.Contains(t, string(answer), "Mode: leader")
	})
}

func TestDumpNamesWhatThereIs(t *testing.T) {
	inMemory(t, three, func(t *testing.T, srv *Server) {
		c := openRaw(t, srv.Member(1), 10*time.Second)
		c.want(codeOK, OpAddWatch, versionBody("/e", 0))
		c.want(codeOK, OpCreate, createBody("/e", strings.Repeat("long", 100), 1))
		c.want(codeOK, OpCreateContainer, createBody("/k", "", 4))
		c.want(codeOK, OpGetData, watchBody("/e", true))
		c.want(codeOK, OpAddWatch, versionBody("/k", 1))
		srv.Member(1).CutOff()
		srv.Member(2).Lag()
		srv.Isolate(c.session)
		dump := srv.Dump()
		id := sessionName(c.session)
		for _, want := range []string{
			"member 0: leader", "member 1: follower, 233.252.0.2:2181, cut off", "lagging",
			"session " + id + ": timeout 10s", "connected from 127.0.0.1:1 to member 1, isolated",
			"watch on data of /e: session " + id + ", persistent, member 1\n",
			"watch on children of /e: session " + id + ", persistent, member 1\n",
			"watch on data of /k: session " + id + ", recursive, member 1\n",
			"/e version 0", "(400 bytes), ephemeral of " + id, ", container\n",
			"/zookeeper/config version -1", "world:anyone may r\n",
		} {
			assert.Contains(t, dump, want)
		}
	})
}

// A write that hangs is queued as far as its client is concerned, and has been handled as far as the member is.
func TestConsCountsWhatIsNotAnswered(t *testing.T) {
	inMemory(t, three, func(t *testing.T, srv *Server) {
		c := openRaw(t, srv.Member(1), 10*time.Second)
		cons := func() string {
			asker := newRaw(t, srv.Member(1))
			asker.write([]byte("cons"))
			answer, err := io.ReadAll(asker.nc)
			require.NoError(t, err)
			return string(answer)
		}
		srv.Member(1).CutOff()
		c.request(OpPing, nil)
		c.request(OpCreate, createBody("/a", "", 0))
		c.request(OpExists, watchBody("/a", false))
		c.request(OpPing, nil)
		synctest.Wait()
		assert.Contains(t, cons(), "(queued=2,recved=5,sent=2,sid="+sessionName(c.session)+",lop=PING,")
		srv.Member(1).Heal()
		synctest.Wait()
		assert.Contains(t, cons(), "(queued=0,recved=5,sent=5,sid="+sessionName(c.session)+",lop=PING,")
	})
}

// What a member has sent and received it begins to count anew with each leader.
func TestSumsOfAMemberBeginWithItsLeader(t *testing.T) {
	inMemory(t, three, func(t *testing.T, srv *Server) {
		srvr := func() string {
			asker := newRaw(t, srv.Member(1))
			asker.write([]byte("srvr"))
			answer, err := io.ReadAll(asker.nc)
			require.NoError(t, err)
			return string(answer)
		}
		c := openRaw(t, srv.Member(1), 10*time.Second)
		c.do(OpPing, nil)
		assert.Contains(t, srvr(), "\nReceived: 3\nSent: 2\n")
		c.want(codeOK, OpClose, nil)
		c.wantClosed()
		assert.Contains(t, srvr(), "\nReceived: 5\nSent: 4\n", "its client has gone")
		srv.Member(0).Stop()
		assert.Contains(t, srvr(), "\nReceived: 1\nSent: 0\n")
	})
}
