package testutil

import (
	"context"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// handler is a log handler that is a function.
type handler struct {
	slog.Handler
	handle func(message string)
}

func newHandler(handle func(message string)) *slog.Logger {
	return slog.New(handler{slog.DiscardHandler, handle})
}

func (h handler) Enabled(context.Context, slog.Level) bool { return true }

func (h handler) Handle(_ context.Context, r slog.Record) error {
	h.handle(r.Message)
	return nil
}

// askEverything calls the server as code of a test does that wants to know what there is.
func askEverything(srv *Server) {
	_, _, _, _, _ = srv.Sessions(), srv.Dump(), srv.Counts(), srv.Watches(), srv.Leader()
	_, _ = srv.Servers(), srv.Member(0).Addr()
	srv.Member(0).Lag()
	srv.Member(0).CatchUp()
	srv.Isolate(1)()
	srv.Control(OpCheck, Once(Pass))()
	srv.ResetCounts()
	srv.ExpireSession(1)
	_ = srv.SetSequence("/none", 1)
}

// TestFunctionsOfTheTestMayCallTheServer: whatever code the server has been given may call it back, at any moment.
func TestFunctionsOfTheTestMayCallTheServer(t *testing.T) {
	for name, give := range map[string]func(o *ServerOptions, call func()){
		"Logger": func(o *ServerOptions, call func()) { o.Logger = newHandler(func(string) { call() }) },
		"PingDelay": func(o *ServerOptions, call func()) {
			o.PingDelay = func() time.Duration { call(); return 0 }
		},
		"ClientClock": func(o *ServerOptions, call func()) {
			o.ClientClock = func() float64 { call(); return 1 }
		},
	} {
		t.Run(name, func(t *testing.T) {
			// What holds a mutex hangs a bubble of synctest for good, so this is on sockets.
			opts := ServerOptions{Members: 3, TickTime: 20 * time.Millisecond}
			var srv atomic.Pointer[Server]
			var calls atomic.Int32
			give(&opts, func() {
				if srv := srv.Load(); srv != nil {
					askEverything(srv)
					calls.Add(1)
				}
			})
			s, err := NewServer(&opts)
			require.NoError(t, err)
			srv.Store(s)
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				c := newClient(t, nil, time.Second, s.Servers()...)
				c.await(t)
				s.Member(0).Stop()
				_ = s.Member(0).Start()
				s.Member(1).CutOff()
				s.Member(1).Heal()
				c.await(t)
				s.ExpireSession(c.SessionID())
				c.await(t)
				c.stop()
				s.Stop()
				_ = s.Start()
				s.Close()
			}()
			select {
			case <-ended:
			case <-time.After(time.Minute):
				t.Fatal("it has locked itself up")
			}
			assert.Positive(t, calls.Load(), "nothing was called")
		})
	}
}

// TestLinesOfTheLogComeInOrder: lines that a handler's own calls cause come behind the one that it is given, and all of
// them before Close returns.
func TestLinesOfTheLogComeInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said []string
		var srv *Server
		handling := false
		opts := three
		opts.NoListen = true
		opts.Logger = newHandler(func(message string) {
			assert.False(t, handling, "two lines at a time")
			handling = true
			defer func() { handling = false }()
			if message == "member stopped" {
				srv.Member(1).CutOff()
				srv.Member(1).Heal()
			}
			said = append(said, message)
		})
		var err error
		srv, err = NewServer(&opts)
		require.NoError(t, err)
		synctest.Wait()
		said = nil
		srv.Member(2).Stop()
		srv.Close()
		assert.Equal(t, []string{
			"member stopped", "member gives up its clients", "member cut off", "member healed",
			"member gives up its clients", "member gives up its clients",
		}, said)
	})
}

// TestSlowLogHoldsNobodyUp: while a handler blocks, the server goes on, and Close waits for the lines.
func TestSlowLogHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lines atomic.Int32
		release := make(chan struct{})
		opts := ServerOptions{NoListen: true, Logger: newHandler(func(message string) {
			if message == "session begins" {
				<-release
			}
			lines.Add(1)
		})}
		srv, err := NewServer(&opts)
		require.NoError(t, err)
		first := newRaw(t, srv.Member(0))
		first.handshake(0, nil, 10*time.Second)
		synctest.Wait() // its line is under way
		second := openRaw(t, srv.Member(0), 10*time.Second)
		second.want(codeOK, OpCreate, createBody("/a", "", 0))
		require.Zero(t, lines.Load())
		var closing sync.WaitGroup
		closing.Go(srv.Close)
		synctest.Wait()
		require.Zero(t, lines.Load())
		close(release)
		closing.Wait()
		assert.EqualValues(t, 3, lines.Load(), "two sessions, and a member without clients")
	})
}

// TestHandlerThatEndsItsGoroutine: as a test's FailNow does. The next line comes all the same.
func TestHandlerThatEndsItsGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lines atomic.Int32
		opts := three
		opts.NoListen = true
		opts.Logger = newHandler(func(message string) {
			if message == "member cut off" {
				runtime.Goexit()
			}
			lines.Add(1)
		})
		srv, err := NewServer(&opts)
		require.NoError(t, err)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			srv.Member(1).CutOff()
		}()
		<-ended
		before := lines.Load()
		srv.Member(1).Heal()
		assert.Equal(t, before+1, lines.Load())
		srv.Close()
	})
}
