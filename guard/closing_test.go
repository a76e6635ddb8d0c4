package guard

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/testutil"
	"github.com/zkelection/election/testutil/realzk"
	"github.com/zkelection/election/testutil/virtualtime"
)

// abandoned is a session of 10 s whose client has gone without a word.
func abandoned(t *testing.T, srv *testutil.Server, dial zk.Dialer) *record {
	t.Helper()
	return abandonedAt(t, srv.Addr(), 10*time.Second, dial)
}

func abandonedAt(t *testing.T, address string, timeout time.Duration, dial zk.Dialer) *record {
	t.Helper()
	conn, err := dial("tcp", address, time.Minute)
	require.NoError(t, err)
	hello := appendInt32(nil, 0)
	hello = binary.BigEndian.AppendUint64(hello, 0)
	hello = appendInt32(hello, int32(timeout.Milliseconds()))
	hello = binary.BigEndian.AppendUint64(hello, 0)
	hello = append(appendBuffer(hello, make([]byte, 16)), 0)
	_, err = conn.Write(appendBuffer(nil, hello))
	require.NoError(t, err)
	answer, err := readFrame(conn)
	require.NoError(t, err)
	require.NoError(t, conn.Close())
	require.Equal(t, timeout.Milliseconds(), int64(binary.BigEndian.Uint32(answer[4:])))
	return &record{
		ID: int64(binary.BigEndian.Uint64(answer[8:])), Password: answer[20:36], Timeout: timeout,
		Servers: []server{{Name: address, Addresses: []string{address}}},
	}
}

func newServer(t *testing.T, opts *testutil.ServerOptions) *testutil.Server {
	t.Helper()
	srv, err := testutil.NewServer(opts)
	require.NoError(t, err)
	t.Cleanup(srv.Close)
	return srv
}

// scripted is a server that answers each connection as the next of its scripts does, and the last one for all that follow.
func scripted(t *testing.T, scripts ...func(conn net.Conn)) (address string, asked func() int) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var mu sync.Mutex
	var all sync.WaitGroup
	var conns []net.Conn
	all.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			script := scripts[min(len(conns), len(scripts)-1)]
			conns = append(conns, conn)
			mu.Unlock()
			all.Go(func() {
				script(conn)
				_ = conn.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		mu.Lock()
		for _, conn := range conns {
			_ = conn.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return listener.Addr().String(), func() int { mu.Lock(); defer mu.Unlock(); return len(conns) }
}

// inMemory is scripted without sockets, for a test in virtual time: there a try that takes its time to be answered is not
// taken for one that nobody answers, however slow the machine is.
func inMemory(scripts ...func(conn net.Conn)) (dial zk.Dialer, asked func() int) {
	var dialed atomic.Int64
	dial = func(string, string, time.Duration) (net.Conn, error) {
		script := scripts[min(int(dialed.Add(1)), len(scripts))-1]
		ours, theirs := net.Pipe()
		go func() {
			script(theirs)
			_ = theirs.Close()
		}()
		return ours, nil
	}
	return dial, func() int { return int(dialed.Load()) }
}

// answers reads the request and sends frames: a handshake that grants timeout, and the codes of answers to closeSession.
func answers(timeout int32, codes ...int32) func(net.Conn) {
	return func(conn net.Conn) {
		for range 2 { // the handshake and closeSession
			if _, err := readFrame(conn); err != nil {
				return
			}
		}
		hello := appendInt32(appendInt32(nil, 0), timeout)
		hello = append(appendBuffer(binary.BigEndian.AppendUint64(hello, 7), make([]byte, 16)), 0)
		out := appendBuffer(nil, hello)
		for _, code := range codes {
			out = appendBuffer(out, appendInt32(binary.BigEndian.AppendUint64(appendInt32(nil, xidClose), 1), code))
		}
		_, _ = conn.Write(out)
	}
}

func silent(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) } // until the other side, or the test, ends
func hangsUp(net.Conn)     {}

func at(addresses ...string) *record {
	r := &record{ID: 7, Password: make([]byte, 16), Timeout: 30 * time.Second, Tick: 500 * time.Millisecond}
	for _, address := range addresses {
		r.Servers = append(r.Servers, server{Name: address, Addresses: []string{address}})
	}
	return r
}

func TestCloseSession(t *testing.T) {
	t.Parallel()
	virtualtime.Test(t, nil, func(t *testing.T, srv *testutil.Server) {
		r := abandoned(t, srv, srv.Dialer())
		require.Len(t, srv.Sessions(), 1)
		require.NoError(t, closeSession(t.Context(), r, srv.Dialer()))
		require.Empty(t, srv.Sessions())
		require.NoError(t, closeSession(t.Context(), r, srv.Dialer()), "it is closed already")

		other := abandoned(t, srv, srv.Dialer())
		other.Password = bytes.Clone(r.Password)
		require.NoError(t, closeSession(t.Context(), other, srv.Dialer()), "the server knows no session with this password")
		require.Len(t, srv.Sessions(), 1)
	})
}

// TestOnlyAnAnswerCounts: neither the end of a connection nor an error is a success, and then not even that a server
// knows no such session.
func TestOnlyAnAnswerCounts(t *testing.T) {
	t.Parallel()
	reads := func(conn net.Conn) { _, _ = readFrame(conn); _, _ = readFrame(conn) }
	for name, script := range map[string]func(net.Conn){
		"hangs up":                   hangsUp,
		"hangs up after the request": reads,
		"granted, and no more":       answers(1000),
		"an error":                   answers(1000, -118),
		"nonsense":                   func(conn net.Conn) { reads(conn); _, _ = conn.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")) },
		"a short answer":             func(conn net.Conn) { reads(conn); _, _ = conn.Write(appendBuffer(nil, make([]byte, 3))) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				dial, asked := inMemory(script, script, answers(1000, 0))
				require.NoError(t, closeSession(t.Context(), at("zk1"), dial))
				require.Equal(t, 3, asked())

				// What knows no such session may be closing it: it is asked until the session is over by itself.
				dial, asked = inMemory(script, answers(0))
				r := at("zk1")
				r.Timeout, r.Tick = 3*time.Second, 50*time.Millisecond
				began := time.Now()
				require.ErrorIs(t, closeSession(t.Context(), r, dial), errTooLate)
				require.Equal(t, r.lifetime(), time.Since(began))
				require.Equal(t, int(r.lifetime()/retryAfter)+1, asked())
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		dial, asked := inMemory(answers(0))
		require.NoError(t, closeSession(t.Context(), at("zk1"), dial), "nothing went unanswered")
		require.Equal(t, 1, asked())
	})
}

// TestHangingServer: a first server that takes connections and says nothing costs a moment, and one that refuses them, not
// even that.
func TestHangingServer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		servers := map[string]func(net.Conn){"hangs": silent, "good": answers(1000, 0)}
		dial := func(_, name string, _ time.Duration) (net.Conn, error) {
			script := servers[name]
			if script == nil {
				return nil, errors.New("refused")
			}
			ours, theirs := net.Pipe()
			go func() { script(theirs); _ = theirs.Close() }()
			return ours, nil
		}
		began := time.Now()
		require.NoError(t, closeSession(t.Context(), at("hangs", "refuses", "good"), dial))
		require.Equal(t, retryAfter, time.Since(began))
		time.Sleep(tryTimeout) // of virtual time: the end of the first try
	})
}

// TestSilentForLong: a server that comes back to itself is asked again.
func TestSilentForLong(t *testing.T) {
	t.Parallel()
	address, _ := scripted(t, silent, answers(1000, 0))
	require.NoError(t, closeSession(t.Context(), at(address), nil))
}

// TestRefused: what asking again cannot change ends it.
func TestRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dial, asked := inMemory(answers(1000, codeNeedsAuth))
		err := closeSession(t.Context(), at("zk1"), dial)
		require.ErrorContains(t, err, "-124")
		require.Equal(t, 1, asked())
	})
}

// TestRefusedForReal: a server that wants credentials does not close a session without them. It ends by itself all the same, and
// sooner than its 10 s: the guard has asked for the shortest timeout (TestCloseRequest sees that; here it ends at all).
func TestRefusedForReal(t *testing.T) {
	t.Parallel()
	zookeeper := realzk.StartZooKeeperWith(t, 1, realzk.EnsembleOptions{
		Properties: []string{"zookeeper.enforce.auth.enabled=true", "zookeeper.enforce.auth.schemes=digest"},
	})
	r := abandonedAt(t, zookeeper.Servers()[0], 10*time.Second, net.DialTimeout)
	err := closeSession(t.Context(), r, nil)
	var refused refusal
	require.ErrorAs(t, err, &refused)
	require.Equal(t, int32(codeNeedsAuth), refused.code)
	require.Eventually(t, func() bool {
		dump, err := zookeeper.FourLetter(0, "dump")
		return err == nil && !strings.Contains(dump, sessionName(r.ID))
	}, 25*time.Second, 50*time.Millisecond, "it was prolonged")
}

// TestGivesUp: never later than the session lasts.
func TestGivesUp(t *testing.T) {
	t.Parallel()
	address, _ := scripted(t, hangsUp)
	r := at(address)
	r.Timeout, r.Tick = 400*time.Millisecond, 100*time.Millisecond
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	require.ErrorIs(t, closeSession(ctx, r, nil), errTooLate)
	require.GreaterOrEqual(t, time.Since(began), 600*time.Millisecond)
	require.ErrorIs(t, closeSession(t.Context(), at(), nil), errNothingToAsk)
}

// TestSuspended: after a suspension of the machine, in which the monotonic clock stands still, it is too late as well.
func TestSuspended(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(time.Minute))
	defer cancel()
	require.False(t, late(ctx))
	past := wallDeadline{ctx, time.Now().Round(0).Add(-time.Minute)}
	require.True(t, late(past))
	address, asked := scripted(t, answers(1000, 0))
	targets, err := at(address).targets(nil)
	require.NoError(t, err)
	require.ErrorIs(t, targets[0].try(past, closeRequest(at(address))), errTooLate)
	require.LessOrEqual(t, asked(), 1)
}

type wallDeadline struct {
	context.Context
	at time.Time
}

func (w wallDeadline) Deadline() (time.Time, bool) { return w.at, true }

// TestCredentials: they are sent before closeSession, and a refusal of them is final.
func TestCredentials(t *testing.T) {
	t.Parallel()
	virtualtime.Test(t, nil, func(t *testing.T, srv *testutil.Server) {
		r := abandoned(t, srv, srv.Dialer())
		r.Auth = []Auth{{Scheme: "digest", Credentials: []byte("user:password")}}
		var sent []string
		defer srv.Control(testutil.OpAuth, func(*testutil.Request) testutil.Action {
			sent = append(sent, "auth")
			return testutil.Pass
		})()
		require.NoError(t, closeSession(t.Context(), r, srv.Dialer()))
		require.Equal(t, []string{"auth"}, sent)

		r = abandoned(t, srv, srv.Dialer())
		r.Auth = []Auth{{Scheme: "nonsense", Credentials: []byte("x")}}
		err := closeSession(t.Context(), r, srv.Dialer())
		var refused refusal
		require.True(t, errors.As(err, &refused), "%v", err)
	})
}

// TestRecord: the connected server comes first, with the address that it has; a name that has no address is left to
// dialers of one's own.
func TestRecord(t *testing.T) {
	r := newRecord(&Session{
		Servers: []string{"10.0.0.1:2181", "zk2:2181", "[::1]:2181"}, Connected: "zk2:2181", Remote: "10.0.0.2:2181",
		ID: 7,
	}, nil, literal)
	require.Equal(t, []server{
		{Name: "zk2:2181", Addresses: []string{"10.0.0.2:2181"}},
		{Name: "10.0.0.1:2181", Addresses: []string{"10.0.0.1:2181"}},
		{Name: "[::1]:2181", Addresses: []string{"[::1]:2181"}},
	}, r.Servers)
	r = newRecord(&Session{Servers: []string{"zk1:2181", "zk2:2181"}, Connected: "zk2:2181"}, nil,
		func(host string) []string { return []string{host + ".a", host + ".b"} })
	targets, err := r.targets(nil)
	require.NoError(t, err)
	var names []string
	for _, target := range targets {
		names = append(names, target.name)
	}
	require.Equal(t, []string{"zk2.a:2181", "zk1.a:2181", "zk2.b:2181", "zk1.b:2181"}, names)
	// A client that has resolved the names itself was connected to an address.
	resolved := newRecord(&Session{
		Servers: []string{"zk1:2181", "zk2:2181"}, Connected: "10.0.0.2:2181", Remote: "10.0.0.2:2181",
	}, nil, literal)
	targets, err = resolved.targets(nil)
	require.NoError(t, err)
	require.Len(t, targets, 1)
	require.Equal(t, "10.0.0.2:2181", targets[0].name)
	own, err := r.targets(func(string, string, time.Duration) (net.Conn, error) { return nil, errors.New("x") })
	require.NoError(t, err)
	require.Len(t, own, 2)
	require.Equal(t, "zk2:2181", own[0].name)

	request := closeRequest(&record{Password: make([]byte, 16)})
	require.Len(t, request, 4+45+4+8)
	require.Equal(t, []byte{0, 0, 0, 1}, request[16:20], "another timeout than 1 ms would prolong the session")
}

// TestTimesAreBounded: what a process says of its session does not make a guard try forever.
func TestTimesAreBounded(t *testing.T) {
	t.Parallel()
	const most = math.MaxInt64
	for _, r := range []record{{Timeout: most}, {Timeout: most, Tick: most}, {Tick: most}, {Timeout: -1, Tick: -1}} {
		require.LessOrEqual(t, r.lifetime(), 3*longestTimeout, "%v", r)
		require.GreaterOrEqual(t, r.lifetime(), time.Duration(0), "%v", r)
	}
	require.Equal(t, 14*time.Second, (&record{Timeout: 10 * time.Second, Tick: 2 * time.Second}).lifetime())
	require.Equal(t, 20*time.Second, (&record{Timeout: 10 * time.Second}).lifetime())
}
