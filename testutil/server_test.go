package testutil

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/internal/zxid"
)

type quiet struct{}

func (quiet) Printf(string, ...any) {}

// A testClient is the unmodified Go client on a server.
type testClient struct {
	*zk.Conn
	events <-chan zk.Event
	ended  chan struct{}
	once   sync.Once
}

// await blocks until the client has a session.
func (c *testClient) await(t *testing.T) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		if c.State() == zk.StateHasSession {
			return
		}
		select {
		case <-c.ended:
			t.Fatal("client ended")
		case <-deadline:
			t.Fatalf("client is in state %v", c.State())
		case <-time.After(time.Millisecond):
		}
	}
}

// stop closes the client, if that has not been done, and waits for its end.
func (c *testClient) stop() {
	c.once.Do(c.Close)
	<-c.ended
}

func newClient(t *testing.T, dialer zk.Dialer, timeout time.Duration, servers ...string) *testClient {
	t.Helper()
	// Small buffers: the client takes 1.5 MiB for each connection otherwise.
	// The client races with itself when it sets watches again: see package zxid.
	conn, events, err := zk.Connect(servers, timeout, zk.WithLogger(quiet{}), zk.WithLogInfo(false),
		zk.WithMaxBufferSize(64<<10), zk.WithMaxConnBufferSize(64<<10), zk.WithDialer(zxid.Dialer(dialer)))
	require.NoError(t, err)
	c := &testClient{Conn: conn, events: events, ended: make(chan struct{})}
	go func() {
		defer close(c.ended)
		for range events {
		}
	}()
	t.Cleanup(c.stop) // for a test that fails: a bubble in which a client goes on is a deadlock, which ends all tests
	return c
}

// inMemory runs a test in virtual time with a server that has no sockets.
func inMemory(t *testing.T, opts ServerOptions, f func(t *testing.T, srv *Server)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		opts.NoListen = true
		srv, err := NewServer(&opts)
		require.NoError(t, err)
		defer srv.Close()
		f(t, srv)
	})
}

// connect gives a client in memory that has its session.
func connect(t *testing.T, srv *Server, timeout time.Duration) *testClient {
	t.Helper()
	c := newClient(t, srv.Dialer(), timeout, srv.Addr())
	c.await(t)
	return c
}

var everybody = zk.WorldACL(zk.PermAll)

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		require.NoError(t, err)
		return v
	}
}

// elect is the recipe for leader election, as a client would use it.
func elect(t *testing.T, first, second *testClient) {
	t.Helper()
	str := must[string](t)
	str(first.Create("/election", nil, 0, everybody))
	a := str(first.Create("/election/n-", []byte("a"), zk.FlagEphemeral|zk.FlagSequence, everybody))
	b := str(second.Create("/election/n-", []byte("b"), zk.FlagEphemeral|zk.FlagSequence, everybody))
	require.Equal(t, "/election/n-0000000000", a)
	require.Equal(t, "/election/n-0000000001", b)
	exists, _, gone, err := second.ExistsW(a)
	require.NoError(t, err)
	require.True(t, exists, "predecessor")
	first.stop()
	select {
	case e := <-gone:
		require.Equal(t, zk.EventNodeDeleted, e.Type)
		require.Equal(t, a, e.Path)
	case <-time.After(10 * time.Second):
		t.Fatal("the predecessor's end was not told")
	}
	children, _, err := second.Children("/election")
	require.NoError(t, err)
	require.Equal(t, []string{"n-0000000001"}, children)
	res, err := second.Multi(
		&zk.CheckVersionRequest{Path: b, Version: -1},
		&zk.CreateRequest{Path: "/election/leader", Data: []byte("b"), Acl: everybody, Flags: zk.FlagEphemeral})
	require.NoError(t, err)
	require.Len(t, res, 2)
	require.Equal(t, "/election/leader", res[1].String)
}

// TestOptionsRefused: each error names the option that is wrong.
func TestOptionsRefused(t *testing.T) {
	for says, opts := range map[string]ServerOptions{
		`no release "4.0": want "3.8" or "3.9"`:        {Release: "4.0"},
		"TickTime -1ns":                                {TickTime: -1},
		"Members -1":                                   {Members: -1},
		"MinSessionTimeout -1s":                        {MinSessionTimeout: -time.Second},
		"MaxSessionTimeout -1s":                        {MaxSessionTimeout: -time.Second},
		"MinSessionTimeout above MaxSessionTimeout":    {MinSessionTimeout: time.Minute, MaxSessionTimeout: time.Second},
		"MaxSessionTimeout 720h0m0s is more than":      {MaxSessionTimeout: 30 * 24 * time.Hour},
		"the super user is not of the form user:hash:": {SuperDigest: "root"},
	} {
		opts.NoListen = true
		srv, err := NewServer(&opts)
		assert.ErrorContains(t, err, says)
		if err == nil {
			srv.Close()
		}
	}
}

func TestClientElectsInMemory(t *testing.T) {
	inMemory(t, ServerOptions{}, func(t *testing.T, srv *Server) {
		first, second := connect(t, srv, 4*time.Second), connect(t, srv, 4*time.Second)
		elect(t, first, second)
		second.stop()
	})
}

func TestClientElectsOverTCP(t *testing.T) {
	srv, err := NewServer(nil)
	require.NoError(t, err)
	defer srv.Close()
	first := newClient(t, nil, 4*time.Second, srv.Addr())
	second := newClient(t, nil, 4*time.Second, srv.Addr())
	first.await(t)
	second.await(t)
	elect(t, first, second)
	second.stop()
}

func TestClientElectsOnAnEnsemble(t *testing.T) {
	inMemory(t, ServerOptions{Members: 3}, func(t *testing.T, srv *Server) {
		first := newClient(t, srv.Member(1).Dialer(), 4*time.Second, srv.Addr())
		second := newClient(t, srv.Member(2).Dialer(), 4*time.Second, srv.Addr())
		first.await(t)
		second.await(t)
		elect(t, first, second)
		second.stop()
	})
}

func TestSilentSessionExpiresAndTheClientLearnsOfIt(t *testing.T) {
	inMemory(t, ServerOptions{}, func(t *testing.T, srv *Server) {
		c, other := connect(t, srv, 4*time.Second), connect(t, srv, 4*time.Second)
		must[string](t)(c.Create("/mine", nil, zk.FlagEphemeral, everybody))
		id := c.SessionID()
		heal := srv.Isolate(id)
		_, _, gone, err := other.ExistsW("/mine")
		require.NoError(t, err)
		began := time.Now()
		<-gone
		d := time.Since(began)
		assert.GreaterOrEqual(t, d, 2*time.Second, "expired after")
		assert.LessOrEqual(t, d, 6*time.Second, "expired after")
		heal()
		for c.SessionID() == id {
			time.Sleep(10 * time.Millisecond)
		}
		c.await(t)
		c.stop()
		other.stop()
	})
}

func TestHourOfPingsIsCheap(t *testing.T) {
	began := time.Now()
	inMemory(t, ServerOptions{}, func(t *testing.T, srv *Server) {
		var clients []*testClient
		for range 4 {
			clients = append(clients, connect(t, srv, 10*time.Second))
		}
		time.Sleep(time.Hour)
		assert.GreaterOrEqual(t, srv.Counts()[OpPing], int64(4*1000), "pings")
		assert.Len(t, srv.Sessions(), 4)
		for _, c := range clients {
			c.stop()
		}
	})
	t.Logf("took %v", time.Since(began))
}
