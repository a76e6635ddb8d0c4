package testutil

import (
	"bytes"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
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
		if srv, err := NewServer(&opts); err == nil {
			srv.Close()
			t.Errorf("%+v: no error", opts)
		}
	}
}

func TestRestartOverTCPKeepsThePort(t *testing.T) {
	srv, err := NewServer(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	c := newClient(t, nil, 10*time.Second, srv.Addr())
	c.await(t)
	id := c.SessionID()
	must[string](t)(c.Create("/e", nil, zk.FlagEphemeral, everybody))
	for range 3 {
		srv.Stop()
		if nc, err := net.Dial("tcp", srv.Addr()); err == nil {
			_ = nc.Close()
			t.Error("a stopped server took a connection")
		}
		if err := srv.Start(); err != nil {
			t.Fatal(err)
		}
		if err := srv.Start(); err != nil {
			t.Errorf("starting a started server: %v", err)
		}
		eventually(t, "the session goes on", func() bool {
			exists, _, err := c.Exists("/e")
			return err == nil && exists
		})
	}
	if c.SessionID() != id {
		t.Error("it is another session")
	}
	c.stop()
}

func TestStartFailsWhenThePortIsTaken(t *testing.T) {
	for range 10 {
		srv, err := NewServer(nil)
		if err != nil {
			t.Fatal(err)
		}
		defer srv.Close()
		srv.Stop()
		thief, err := net.Listen("tcp", srv.Addr())
		if err != nil {
			continue // another thief was quicker
		}
		if err := srv.Start(); err == nil {
			t.Error("started on a port that is taken")
		}
		_ = thief.Close()
		if err := srv.Start(); err != nil {
			t.Error(err)
		}
		return
	}
	t.Fatal("each port was taken at once by somebody else")
}

func TestCloseFromSeveralSides(t *testing.T) {
	srv, err := NewServer(nil)
	if err != nil {
		t.Fatal(err)
	}
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
	if srv.ExpireSession(c.SessionID()) {
		t.Error("a closed server expires sessions")
	}
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
		if n := strings.Count(log.String(), want); n == 0 {
			t.Errorf("no %q in\n%s", want, log.String())
		}
	}
}

func TestOpsHaveNames(t *testing.T) {
	for op, want := range map[Op]string{OpCreate: "create", OpMulti: "multi", OpConnect: "connect", AnyOp: "any", 4711: "op4711"} {
		if got := op.String(); got != want {
			t.Errorf("%d is %q, want %q", op, got, want)
		}
	}
}
