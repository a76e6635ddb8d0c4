package testutil

import (
	"math/rand/v2"
	"net"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// abuse opens a connection and drops it at a random moment of its life.
func abuse(rng *rand.Rand, dial func() (net.Conn, error)) error {
	nc, err := dial()
	if err != nil {
		return err
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(30 * time.Second))
	e := &encoder{b: make([]byte, 4)}
	e.int32(0)
	e.int64(0)
	e.int32(4000)
	e.int64(0)
	e.bytes(make([]byte, 16))
	handshake := e.frame()
	cut := rng.IntN(8)
	if cut == 0 {
		return nil
	}
	if cut == 1 {
		_, err := nc.Write(handshake[:rng.IntN(len(handshake))])
		return err
	}
	if _, err := nc.Write(handshake); err != nil || cut == 2 {
		return err
	}
	if _, err := nc.Read(make([]byte, 64)); err != nil {
		return err
	}
	requests := []byte{}
	add := func(op Op, body func(*encoder)) {
		e := &encoder{b: make([]byte, 4)}
		e.int32(1)
		e.int32(int32(op))
		if body != nil {
			body(e)
		}
		requests = append(requests, e.frame()...)
	}
	path := "/" + strconv.Itoa(rng.IntN(100))
	add(OpCreate, createBody(path, "data", 1))
	add(OpGetChildren, watchBody("/", true))
	add(OpExists, watchBody(path, true))
	add(OpCreate, createBody("/n-", "data", 3))
	if cut == 3 {
		requests = requests[:rng.IntN(len(requests))]
	}
	if cut >= 6 {
		add(OpClose, nil)
	}
	_, _ = nc.Write(requests) // the server may have ended it
	if cut >= 5 {
		_, _ = nc.Read(make([]byte, 64))
	}
	return nil
}

func TestDroppedConnectionsLeaveNothingBehind(t *testing.T) {
	for _, test := range []struct {
		name        string
		connections int
		opts        ServerOptions
	}{
		{"memory", 10_000, ServerOptions{NoListen: true, TickTime: 10 * time.Millisecond}},
		{"tcp", 3_000, ServerOptions{TickTime: 10 * time.Millisecond}},
	} {
		t.Run(test.name, func(t *testing.T) {
			srv, err := NewServer(&test.opts)
			require.NoError(t, err)
			defer srv.Close()
			dial := func() (net.Conn, error) { return net.Dial("tcp", srv.Addr()) }
			if test.opts.NoListen {
				dial = func() (net.Conn, error) { return srv.Dialer()("tcp", srv.Addr(), time.Second) }
			}
			goroutines, heap := runtime.NumGoroutine(), heapInUse()
			const workers = 20
			var wg sync.WaitGroup
			for worker := range workers {
				wg.Go(func() {
					rng := rand.New(rand.NewPCG(1, uint64(worker)))
					for range test.connections / workers {
						if err := abuse(rng, dial); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			eventually(t, "goroutines, sessions and watches are gone", func() bool {
				srv.mu.Lock()
				conns, left := len(srv.conns), len(srv.tree.ephemerals)
				srv.mu.Unlock()
				return runtime.NumGoroutine() <= goroutines && conns == 0 && left == 0 &&
					len(srv.Sessions()) == 0 && srv.Watches() == 0
			})
			assert.GreaterOrEqual(t, srv.Counts()[OpConnect], int64(test.connections)/2, "handshakes of %d connections", test.connections)
			assert.LessOrEqual(t, heapInUse()-heap, int64(8<<20), "bytes that the heap has grown by")
		})
	}
}

func heapInUse() int64 {
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

// eventually waits for what happens on its own, in real time. It asks on the
// test's goroutine: require.Eventually has one more, and goroutines are counted.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// TestEverythingAtOnce has clients work on an ensemble whose members come and
// go, with faults of all kinds, to let the race detector see it all. In the end
// everything must be reachable again.
func TestEverythingAtOnce(t *testing.T) {
	for seed := range uint64(5) {
		inMemory(t, three, func(t *testing.T, srv *Server) {
			rng := rand.New(rand.NewPCG(7, seed))
			actions := []Action{
				Pass, LoseRequest, LoseReply, CutAfter, ExpireBefore, ExpireAfter,
				Fail(ErrorCode(-127)), Delay(time.Second), DelayReply(time.Second),
			}
			var mu sync.Mutex
			cancel := srv.Control(AnyOp, func(*Request) Action {
				mu.Lock()
				defer mu.Unlock()
				if rng.IntN(10) > 0 {
					return Pass
				}
				return actions[rng.IntN(len(actions))]
			})
			done := make(chan struct{})
			var clients sync.WaitGroup
			for i := range 6 {
				clients.Go(func() {
					c := newClient(t, srv.Dialer(), 4*time.Second, srv.Servers()...)
					defer c.stop()
					path := "/" + strconv.Itoa(i%3)
					for n := 0; ; n++ {
						select {
						case <-done:
							return
						case <-time.After(100 * time.Millisecond):
						}
						switch n % 4 {
						case 0:
							_, _ = c.Create(path, nil, int32(n/4%2), everybody)
						case 1:
							_, _, _ = c.Children("/")
						case 2:
							_ = c.Delete(path, -1)
						case 3:
							_, _, _ = c.Exists(path)
						}
					}
				})
			}
			// Watches are left to these: the Go client reads its last zxid without
			// a lock when it sets watches again after a reconnect.
			for i := range 3 {
				clients.Go(func() {
					rng := rand.New(rand.NewPCG(9, seed+uint64(i)))
					for {
						select {
						case <-done:
							return
						case <-time.After(100 * time.Millisecond):
						}
						// Refused and cut off as the moment may have it.
						_ = abuse(rng, func() (net.Conn, error) {
							return srv.Dialer()("tcp", srv.Servers()[rng.IntN(3)], time.Second)
						})
					}
				})
			}
			nemesis := rand.New(rand.NewPCG(8, seed))
			var undo []func()
			for range 60 {
				time.Sleep(time.Duration(nemesis.IntN(4000)) * time.Millisecond)
				m := srv.Member(nemesis.IntN(3))
				switch nemesis.IntN(7) {
				case 0:
					m.CutOff()
					undo = append(undo, m.Heal)
				case 1:
					m.Lag()
					undo = append(undo, m.CatchUp)
				case 2:
					if infos := srv.Sessions(); len(infos) > 0 {
						undo = append(undo, srv.Isolate(infos[nemesis.IntN(len(infos))].ID))
					}
				case 3:
					srv.Stop()
					undo = append(undo, func() {
						assert.NoError(t, srv.Start())
					})
				case 4:
					srv.DropConnections()
				case 5:
					if infos := srv.Sessions(); len(infos) > 0 {
						srv.ExpireSession(infos[nemesis.IntN(len(infos))].ID)
					}
				case 6:
					m.Stop()
					undo = append(undo, func() {
						assert.NoError(t, m.Start())
					})
				}
				_ = srv.Dump()
				if len(undo) > 2 {
					undo[0]()
					undo = undo[1:]
				}
			}
			for _, f := range undo {
				f()
			}
			cancel()
			time.Sleep(time.Minute)
			for i := range 3 {
				c := openRaw(t, srv.Member(i), 4*time.Second)
				c.want(codeOK, OpSync, pathBody("/"))
				c.want(codeOK, OpClose, nil)
			}
			close(done)
			clients.Wait()
			time.Sleep(time.Minute)
			synctest.Wait()
			srv.mu.Lock()
			defer srv.mu.Unlock()
			assert.Empty(t, srv.sessions, "sessions")
			assert.Empty(t, srv.conns, "connections")
			assert.Empty(t, srv.tree.ephemerals, "ephemeral nodes")
			assert.Empty(t, srv.proposed, "writes that hang")
			assert.Nil(t, srv.ahead, "the tree with what hangs")
			for _, m := range srv.members {
				assert.Empty(t, m.waiting, "member %d", m.index)
				assert.True(t, m.tree == srv.tree, "member %d has a tree of its own", m.index)
				assert.Empty(t, m.backlog, "member %d", m.index)
				assert.Zero(t, m.watches.size(), "member %d", m.index)
				assert.Empty(t, m.clients, "member %d", m.index)
				assert.Empty(t, m.bySession, "member %d", m.index)
			}
		})
	}
}
