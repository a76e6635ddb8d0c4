package testutil

import (
	"bytes"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestOptionsAreChecked(t *testing.T) {
	for _, opts := range []ServerOptions{
		{TickTime: time.Microsecond},
		{TickTime: -time.Second},
		{Members: -1},
		{MinSessionTimeout: -1},
		{MinSessionTimeout: time.Hour},
		{MinSessionTimeout: 2 * time.Second, MaxSessionTimeout: time.Second},
	} {
		if srv, err := NewServer(&opts); !assert.Error(t, err, "%+v", opts) {
			srv.Close()
		}
	}
}

func TestRestartOverTCPKeepsThePort(t *testing.T) {
	srv, err := NewServer(nil)
	require.NoError(t, err)
	defer srv.Close()
	c := newClient(t, nil, 10*time.Second, srv.Addr())
	c.await(t)
	id := c.SessionID()
	must[string](t)(c.Create("/e", nil, zk.FlagEphemeral, everybody))
	for range 3 {
		srv.Stop()
		if nc, err := net.Dial("tcp", srv.Addr()); !assert.Error(t, err, "a stopped server took a connection") {
			_ = nc.Close()
		}
		require.NoError(t, srv.Start())
		assert.NoError(t, srv.Start(), "starting a started server")
		eventually(t, "the session goes on", func() bool {
			exists, _, err := c.Exists("/e")
			return err == nil && exists
		})
	}
	assert.Equal(t, id, c.SessionID(), "it is another session")
	c.stop()
}

func TestStartFailsWhenThePortIsTaken(t *testing.T) {
	srv, err := NewServer(nil)
	require.NoError(t, err)
	defer srv.Close()
	srv.Stop()
	thief, err := srv.members[0].port.ListenAgain()
	require.NoError(t, err)
	require.Error(t, srv.Start(), "started on a port that is taken")
	require.NoError(t, thief.Close())
	require.NoError(t, srv.Start())
}

// A server that is stopped keeps its port from all who claim one, and it is none that the system gives to outgoing
// connections: whoever connects meanwhile would hold it.
func TestStoppedServerKeepsItsPort(t *testing.T) {
	srv, err := NewServer(&ServerOptions{Members: 3})
	require.NoError(t, err)
	srv.Stop()
	for _, address := range srv.Servers() {
		_, err := net.ListenPacket("udp", address)
		require.ErrorIs(t, err, syscall.EADDRINUSE)
		_, number, err := net.SplitHostPort(address)
		require.NoError(t, err)
		port, err := strconv.Atoi(number)
		require.NoError(t, err)
		assert.Less(t, port, 32000)
	}
	require.NoError(t, srv.Start())
	srv.Close()
	for _, address := range srv.Servers() {
		// A process that another test starts may have the claim for a moment.
		eventually(t, "it is given back", func() bool {
			claim, err := net.ListenPacket("udp", address)
			if err == nil {
				_ = claim.Close()
			}
			return err == nil
		})
	}
}

func TestCloseFromSeveralSides(t *testing.T) {
	srv, err := NewServer(nil)
	require.NoError(t, err)
	c := newClient(t, nil, 10*time.Second, srv.Addr())
	c.await(t)
	held := make(chan struct{})
	srv.Control(OpExists, func(*Request) Action { return Hold(held) })
	go func() { _, _, _ = c.Exists("/") }()
	eventually(t, "the request is held", func() bool { return srv.Counts()[OpExists] > 0 })
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(srv.Close)
	}
	wg.Wait()
	assert.False(t, srv.ExpireSession(c.SessionID()), "a closed server expires sessions")
	c.stop()
}

func TestSilentUnlessGivenALogger(t *testing.T) {
	var log bytes.Buffer
	inMemory(t, ServerOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))}, func(t *testing.T, srv *Server) {
		c := openRaw(t, srv.Member(0), 4*time.Second)
		c.write([]byte("\xff\xff\xff\xff"))
		c.wantClosed()
		time.Sleep(10 * time.Second)
		openRaw(t, srv.Member(0), 4*time.Second).want(codeOK, OpClose, nil)
	})
	for _, want := range []string{"session begins", "a frame of -1 bytes", "session expired", "session closes"} {
		assert.Contains(t, log.String(), want)
	}
}

func TestOpsHaveNames(t *testing.T) {
	for op, want := range map[Op]string{OpCreate: "create", OpMulti: "multi", OpConnect: "connect", AnyOp: "any", 4711: "op4711"} {
		assert.Equal(t, want, op.String())
	}
}
