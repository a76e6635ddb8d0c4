package election_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election"
	"github.com/zkelection/election/guard"
	"github.com/zkelection/election/internal/zxid"
	"github.com/zkelection/election/testutil"
)

// onCallersConnection is a session on a caller's connection, and its network.
func (w *world) onCallersConnection(opts ...func(*election.SessionOptions)) *node {
	w.t.Helper()
	conn, events, l := w.clientOn()
	o := &election.SessionOptions{Logger: w.logger()}
	for _, set := range opts {
		set(o)
	}
	s, err := election.NewSession(conn, w.timeout(), o)
	require.NoError(w.t, err)
	w.t.Cleanup(func() {
		l.setDown(false)
		assert.NoError(w.t, s.Close(), "close session")
		conn.Close()
		for range events {
		}
	})
	require.NoError(w.t, s.AwaitConnected(w.context()))
	return &node{Session: s, link: l}
}

// The log says when the connection is lost, for how long it has been away, and
// when it is back, with the server's address.
func TestConnectionLogged(t *testing.T) {
	for _, ours := range []bool{true, false} {
		t.Run(fmt.Sprint("owned ", ours), func(t *testing.T) {
			virtually(t, func(t *testing.T, w *world) {
				var n *node
				if ours {
					n = w.session()
				} else {
					n = w.onCallersConnection()
				}
				said := func(message string) int { return strings.Count(w.log.String(), message) }
				w.until("the first connection to be logged", func() bool { return said(`msg="election: connected" server=`) == 1 })
				n.link.setDown(true)
				time.Sleep(w.timeout() / 2)
				if lost, warned := said(`msg="election: connection lost" server=`), said("no server reached"); lost != 1 || warned != 0 {
					t.Errorf("soon after the loss: said %d times, and warned of %d times", lost, warned)
				}
				time.Sleep(8 * w.timeout())
				if warned := said("no server reached"); warned != 4 { // after T, 2 T, 4 T, 8 T
					t.Errorf("warned %d times in 8 T", warned)
				}
				n.link.setDown(false)
				w.until("the return to be logged", func() bool { return said(`msg="election: connected" server=`) == 2 })
				assert.True(t, regexp.MustCompile(`msg="election: connected" server=\S+ after=3[3-8]`).MatchString(w.log.String()), "the return was not said to come after some 34 s:\n%s", w.log.String())
			})
		})
	}
}

// unchecked is a session whose Close may fail.
func (w *world) unchecked() *node {
	w.t.Helper()
	n := &node{link: newLink(w.dial)}
	s, err := election.Connect(w.servers, w.timeout(), &election.SessionOptions{Dialer: n.link.Dial, Logger: w.logger()})
	require.NoError(w.t, err)
	n.Session = s
	w.t.Cleanup(func() { _ = s.Close() })
	require.NoError(w.t, s.AwaitConnected(w.context()))
	return n
}

// What cannot work is refused, and the error says what to write instead.
func TestConnectArguments(t *testing.T) {
	const hour = time.Hour
	for _, test := range []struct {
		servers       []string
		timeout, tick time.Duration
		say           string // of the error; none if empty
	}{
		{[]string{"a:2181", "b"}, time.Second, 0, ""},
		{[]string{"[::1]:2181"}, time.Second, time.Second, ""},
		{[]string{"a:service"}, time.Millisecond, 0, ""},
		{nil, time.Second, 0, "no servers"},
		{[]string{}, time.Second, 0, "no servers"},
		{[]string{"a:1", ""}, time.Second, 0, "server 2 of 2"},
		{[]string{"  "}, time.Second, 0, "empty"},
		{[]string{"a:1,b:1"}, time.Second, 0, "an element of its own"},
		{[]string{"a:1/chroot"}, time.Second, 0, "Root in CandidateOptions"},
		{[]string{"/"}, time.Second, 0, "Root in CandidateOptions"},
		{[]string{"zk://a:1/x"}, time.Second, 0, "URL"},
		{[]string{"https://a"}, time.Second, 0, "SessionOptions.Dialer"},
		{[]string{"a:1 b:1"}, time.Second, 0, "space"},
		{[]string{"a\x00:1"}, time.Second, 0, "space"},
		{[]string{"::1"}, time.Second, 0, "[address]:port"},
		{[]string{"::1:2181"}, time.Second, 0, "[address]:port"},
		{[]string{"[::1]"}, time.Second, 0, ""},
		{[]string{"[fe80::1%eth0]:2181"}, time.Second, 0, ""},
		{[]string{"[]"}, time.Second, 0, "no host"},
		{[]string{"[::1]x"}, time.Second, 0, "[address]:port"},
		{[]string{"[a:b]:1"}, time.Second, 0, "no IPv6 address"},
		{[]string{"zk1;zk2"}, time.Second, 0, "an element of its own"},
		{[]string{"zk1:2181;2182"}, time.Second, 0, "an element of its own"},
		{[]string{"user@zk1:2181"}, time.Second, 0, "SessionOptions.Auth"},
		{[]string{"2181"}, time.Second, 0, "a port without a host"},
		{[]string{"zk1?x"}, time.Second, 0, `"?" does not belong here`},
		{[]string{"zk1#2181"}, time.Second, 0, `"#" does not belong here`},
		{[]string{"zk1:2181?x"}, time.Second, 0, `"?" does not belong here`},
		{[]string{"zk_1.example:client-port"}, time.Second, 0, ""},
		{[]string{"überall.example:2181"}, time.Second, 0, ""},
		{[]string{"a:"}, time.Second, 0, "no port behind the colon"},
		{[]string{":2181"}, time.Second, 0, "no host before the colon"},
		{[]string{":"}, time.Second, 0, "no host before the colon"},
		{[]string{"a:0"}, time.Second, 0, "65535"},
		{[]string{"a:65536"}, time.Second, 0, "65535"},
		{[]string{"a:99999999999999999999"}, time.Second, 0, "65535"},
		{[]string{"a:-1"}, time.Second, 0, "65535"},
		{[]string{"a"}, 0, 0, "less than a millisecond"},
		{[]string{"a"}, -time.Second, 0, "less than a millisecond"},
		{[]string{"a"}, time.Millisecond - 1, 0, "less than a millisecond"},
		{[]string{"a"}, 30 * 24 * hour, 0, "more than ZooKeeper can count"},
		{[]string{"a"}, math.MaxInt32 * time.Millisecond, 0, ""},
		{[]string{"a"}, time.Second, -time.Second, "TickTime"},
		{[]string{"a"}, time.Second, time.Microsecond, "TickTime"},
		{[]string{"a"}, time.Second, time.Second + 1, "TickTime"},
	} {
		bubble(t, func(t *testing.T) {
			unreachable := func(string, string, time.Duration) (net.Conn, error) { return nil, errors.New("unreachable") }
			s, err := election.Connect(test.servers, test.timeout, &election.SessionOptions{Dialer: unreachable, TickTime: test.tick, Logger: slog.New(slog.DiscardHandler)})
			if err == nil {
				defer s.Close()
			}
			if test.say == "" {
				require.NoError(t, err, "%q", test.servers)
				return
			}
			require.ErrorContains(t, err, test.say, "%q %v %v", test.servers, test.timeout, test.tick)
		})
	}
}

// Spaces around a server are no part of its name.
func TestServersTrimmed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		asked := make(map[string]bool)
		var mu sync.Mutex
		s, err := election.Connect([]string{"a:2181", " b:2181", "c\n", "[::1]"}, 4*time.Second, &election.SessionOptions{
			Logger: slog.New(slog.DiscardHandler),
			Dialer: func(_, address string, _ time.Duration) (net.Conn, error) {
				mu.Lock()
				defer mu.Unlock()
				asked[address] = true
				return nil, errors.New("unreachable")
			},
		})
		require.NoError(t, err)
		defer s.Close()
		time.Sleep(time.Minute)
		mu.Lock()
		defer mu.Unlock()
		assert.Equal(t, map[string]bool{"a:2181": true, "b:2181": true, "c:2181": true, "[::1]:2181": true}, asked)
	})
}

// The caller may do what it likes with its arguments after Connect.
func TestArgumentsCloned(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		servers := []string{"mem"}
		auth := []election.Auth{{Scheme: "digest", Credentials: []byte("user:right")}}
		opts := &election.SessionOptions{Auth: auth, Dialer: w.dial, Logger: w.logger()}
		s, err := election.Connect(servers, w.timeout(), opts)
		require.NoError(t, err)
		defer s.Close()
		servers[0] = "elsewhere"
		copy(auth[0].Credentials, "xxxx")
		auth[0].Scheme = "unknown"
		*opts = election.SessionOptions{}
		require.NoError(t, s.AwaitConnected(w.context()))
		path, err := s.Conn().Create("/mine", nil, zk.FlagEphemeral, zk.DigestACL(zk.PermAll, "user", "right"))
		require.NoError(t, err)
		_, _, err = s.Conn().Get(path)
		assert.NoError(t, err, "the credentials were changed")
	})
}

// NewSession takes the options that make sense on a connection that is there.
func TestNewSessionArguments(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		conn := w.client()
		for name, make := range map[string]func() (*election.Session, error){
			"no connection": func() (*election.Session, error) { return election.NewSession(nil, time.Second, nil) },
			"no timeout":    func() (*election.Session, error) { return election.NewSession(conn, 0, nil) },
			"long timeout":  func() (*election.Session, error) { return election.NewSession(conn, 30*24*time.Hour, nil) },
			"tick": func() (*election.Session, error) {
				return election.NewSession(conn, time.Second, &election.SessionOptions{TickTime: 2 * time.Second})
			},
			"Dialer": func() (*election.Session, error) {
				return election.NewSession(conn, time.Second, &election.SessionOptions{Dialer: net.DialTimeout})
			},
			"HostProvider": func() (*election.Session, error) {
				return election.NewSession(conn, time.Second, &election.SessionOptions{HostProvider: zk.NewDNSHostProvider()})
			},
			"Guard": func() (*election.Session, error) {
				return election.NewSession(conn, time.Second, &election.SessionOptions{Guard: new(guard.Guard)})
			},
			"Auth": func() (*election.Session, error) {
				return election.NewSession(conn, time.Second, &election.SessionOptions{Auth: []election.Auth{{Scheme: "digest"}}})
			},
		} {
			s, err := make()
			assert.Error(t, err, name)
			assert.Nil(t, s, name)
		}
		unguarded, err := election.NewSession(conn, time.Second, &election.SessionOptions{Guard: (*guard.Guard)(nil)})
		require.NoError(t, err, "what guard.Start returns beside its error is no guard")
		require.NoError(t, unguarded.Close())
		m := &metrics{journal: &journal{}}
		n := w.onCallersConnection(func(o *election.SessionOptions) { o.Metrics, o.TickTime = m.hooks(), time.Second })
		w.memberOn(n, "a", &journal{}).lead()
		w.until("the session's metrics to be told", func() bool { return m.renewals.Load() > 0 })
		assert.Contains(t, w.log.String(), "session ready", "the logger that was given")
	})
}

// A server that is no ZooKeeper costs neither memory nor the process, and the
// reason is in the errors and, once, in the log.
func TestNotZooKeeper(t *testing.T) {
	granted := func(timeout int32) []byte {
		b := binary.BigEndian.AppendUint32(nil, 37)
		b = binary.BigEndian.AppendUint32(b, 0)
		b = binary.BigEndian.AppendUint32(b, uint32(timeout))
		b = binary.BigEndian.AppendUint64(b, 5)
		b = binary.BigEndian.AppendUint32(b, 16)
		return append(b, make([]byte, 17)...)
	}
	for _, test := range []struct {
		name, say string
		answer    []byte
		logged    bool
	}{
		{"HTTP", `not a ZooKeeper server: its answer to the handshake begins with "HTTP"`, []byte("HTTP/1.1 400 Bad Request\r\n\r\n"), true},
		{"TLS", "a TLS port? see SessionOptions.Dialer", []byte{0x15, 3, 3, 0, 2, 2, 70}, true},
		{"length -1", "not a ZooKeeper server", []byte{255, 255, 255, 255}, true},
		{"no timeout", "a session timeout of 0 ms", granted(0), true},
		{"closes", "has not answered the handshake", nil, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				var log logBuffer
				s, err := election.Connect([]string{"front:80"}, 4*time.Second, &election.SessionOptions{
					Logger: slog.New(slog.NewTextHandler(&log, nil)),
					Dialer: func(string, string, time.Duration) (net.Conn, error) {
						ours, theirs := net.Pipe()
						go func() {
							defer theirs.Close()
							_, _ = io.CopyN(io.Discard, theirs, 48) // the handshake, or most of it
							_, _ = theirs.Write(test.answer)
						}()
						return ours, nil
					},
				})
				require.NoError(t, err)
				defer s.Close()
				c, err := election.NewCandidate(s, "x", nil)
				require.NoError(t, err)
				for what, wait := range map[string]func(context.Context) error{"AwaitConnected": s.AwaitConnected, "Vote": c.Vote} {
					ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
					err := wait(ctx)
					cancel()
					require.ErrorIs(t, err, context.DeadlineExceeded, what)
					require.ErrorContains(t, err, test.say, what)
					require.ErrorContains(t, err, "front:80", what)
				}
				runtime.ReadMemStats(&after)
				assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(64<<20), "bytes allocated for it")
				want := 0
				if test.logged {
					want = 1
				}
				assert.Equal(t, want, strings.Count(log.String(), `msg="election: a server cannot be used" server=front:80`), "in the log:\n%s", log.String())
			})
		})
	}
}

// A server that takes the connection and never answers is named with that, and not
// with what reading from the connection said when it was closed for it: an HTTP
// server goes on waiting for the end of a line.
func TestServerThatNeverAnswers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, err := election.Connect([]string{"front:80"}, 4*time.Second, &election.SessionOptions{
			Logger: slog.New(slog.DiscardHandler),
			Dialer: func(string, string, time.Duration) (net.Conn, error) {
				ours, theirs := net.Pipe()
				go func() { _, _ = io.Copy(io.Discard, theirs) }()
				return ours, nil
			},
		})
		require.NoError(t, err)
		defer s.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 4500*time.Millisecond)
		defer cancel()
		err = s.AwaitConnected(ctx)
		require.ErrorContains(t, err, "the last was front:80: it has not answered the handshake in 4s")
		assert.NotContains(t, err.Error(), "closed")
	})
}

// The first line about an outage names a server, though nothing has come of the
// first attempt yet; so does the error of a wait.
func TestFirstOutageLineNamesServer(t *testing.T) {
	const T = 4 * time.Second
	for name, takes := range map[string]time.Duration{"slow handshake": T / 4, "slow connection": 10 * T} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var log logBuffer
				s, err := election.Connect([]string{"far:2181"}, T, &election.SessionOptions{
					Logger: slog.New(slog.NewTextHandler(&log, nil)),
					Dialer: func(string, string, time.Duration) (net.Conn, error) {
						time.Sleep(takes)
						ours, theirs := net.Pipe()
						go func() { _, _ = io.Copy(io.Discard, theirs) }()
						return ours, nil
					},
				})
				require.NoError(t, err)
				defer s.Close()
				ctx, cancel := context.WithTimeout(context.Background(), T+1)
				defer cancel()
				require.ErrorContains(t, s.AwaitConnected(ctx), "the last was far:2181: it has not answered yet")
				synctest.Wait()
				assert.Contains(t, log.String(), `msg="election: no server reached" for=4s servers=[far:2181] server=far:2181 error="it has not answered yet"`)
			})
		})
	}
}

// frames keeps what a client writes on each of its connections.
type frames struct {
	net.Conn
	mu   *sync.Mutex
	kept *[][]byte
}

func (f frames) Write(p []byte) (int, error) {
	f.mu.Lock()
	*f.kept = append(*f.kept, bytes.Clone(p))
	f.mu.Unlock()
	return f.Conn.Write(p)
}

// A session that moves to another connection tells in its handshake, and with
// its watches, how far it has seen, though answers come before the watches are
// sent. A server that is behind refuses it then, and no change is hidden from
// the watches.
func TestHowFarItHasSeen(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		var mu sync.Mutex
		var kept [][]byte
		direct := w.dial
		w.dial = func(network, address string, timeout time.Duration) (net.Conn, error) {
			c, err := direct(network, address, timeout)
			if err != nil {
				return nil, err
			}
			return frames{c, &mu, &kept}, nil
		}
		n := w.session()
		_, err := n.Conn().Create("/x", nil, 0, zk.WorldACL(zk.PermAll))
		require.NoError(t, err)
		_, stat, watch, err := n.Conn().GetW("/x")
		require.NoError(t, err)
		n.link.setDown(true)
		changed, err := w.client().Set("/x", nil, -1) // what it has not seen
		require.NoError(t, err)
		mu.Lock()
		kept = nil
		mu.Unlock()
		n.link.setDown(false)
		select {
		case event := <-watch:
			assert.Equal(t, zk.EventNodeDataChanged, event.Type)
		case <-time.After(2 * w.timeout()):
			t.Error("the change was hidden from the watch")
		}
		mu.Lock()
		defer mu.Unlock()
		require.NotEmpty(t, kept)
		seen := int64(binary.BigEndian.Uint64(kept[0][8:]))
		assert.GreaterOrEqual(t, seen, stat.Mzxid, "in the handshake")
		assert.Less(t, seen, changed.Mzxid, "in the handshake")
		sent := 0
		for _, frame := range kept[1:] {
			if binary.BigEndian.Uint32(frame[8:]) == opSetWatches {
				sent++
				assert.Equal(t, seen, int64(binary.BigEndian.Uint64(frame[12:])), "with the watches")
			}
		}
		assert.Positive(t, sent)
	})
}

const opSetWatches = 101

// Whatever waits for a context returns an error that is, for errors.Is, both
// the context's error and its cause: signal.NotifyContext sets one.
func TestContextCause(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		n := w.session()
		a := w.memberOn(n, "a", &journal{})
		led := w.memberOn(n, "led", &journal{}, func(o *election.CandidateOptions) { o.Root = "/elsewhere" }).lead()
		o, err := election.NewObserver(n.Session, w.name(), nil)
		require.NoError(t, err)
		n.link.setDown(true)
		synctest.Wait()
		signalled := errors.New("a signal")
		calls := waitingCalls(n, a.Candidate, o)
		calls["Proclaim"] = func(ctx context.Context) error { return led.Proclaim(ctx, []byte("x")) }
		calls["Resign"] = led.Resign
		for name, call := range calls {
			for _, before := range []bool{false, true} {
				ctx, cancel := context.WithCancelCause(context.Background())
				if before {
					cancel(signalled)
				} else {
					time.AfterFunc(w.timeout()/100, func() { cancel(signalled) })
				}
				err := call(ctx)
				cancel(nil)
				if name == "Proclaim" && errors.Is(err, election.ErrNotLeader) {
					continue // its lease has lapsed by now
				}
				assert.ErrorIs(t, err, signalled, "%s, ended before the call: %v", name, before)
				assert.ErrorIs(t, err, context.Canceled, "%s, ended before the call: %v", name, before)
			}
		}
		n.link.setDown(false)
	})
}

// A connection that its owner closes first is told apart at once from servers
// that do not answer.
func TestOwnerClosesFirst(t *testing.T) {
	// The last two: what watches the owner has fired, since somebody changed the root node, and is set again in vain.
	for _, when := range []string{
		"before a session", "with nothing to do", "leading", "voting", "while the servers are away",
		"unwatched", "unwatched while the servers are away",
	} {
		t.Run(when, func(t *testing.T) {
			virtually(t, func(t *testing.T, w *world) {
				conn, events, l := w.clientOn()
				l.setDown(when == "before a session")
				s, err := election.NewSession(conn, w.timeout(), &election.SessionOptions{Logger: w.logger()})
				require.NoError(t, err)
				j := &journal{}
				a := w.memberOn(&node{Session: s}, "a", j)
				if when != "before a session" {
					require.NoError(t, s.AwaitConnected(w.context()))
				}
				if when == "leading" || when == "while the servers are away" {
					a.lead()
				}
				if when == "voting" {
					casting, never := make(chan struct{}), make(chan struct{})
					defer w.srv.Control(testutil.OpCreate, func(*testutil.Request) testutil.Action {
						close(casting)
						return testutil.Hold(never)
					})()
					defer close(never)
					voted := make(chan error, 1)
					go func() { voted <- a.Vote(w.context()) }()
					defer func() { require.ErrorIs(t, <-voted, zk.ErrClosing, "the vote under way") }()
					<-casting
				}
				if strings.HasPrefix(when, "unwatched") {
					var lost atomic.Bool
					defer w.srv.Control(testutil.OpExists, func(r *testutil.Request) testutil.Action {
						if r.Path != "/" || lost.Swap(true) {
							return testutil.Pass
						}
						if when != "unwatched" {
							l.setDown(true)
						}
						return testutil.LoseRequest
					})()
					_, err := w.client().Set("/", []byte("x"), -1)
					require.NoError(t, err)
					w.until("the watch to be set again, in vain", lost.Load)
					if when == "unwatched" {
						w.until("the connection to be lost", func() bool { return !s.Connection().Connected })
						w.until("another connection", func() bool { return s.Connection().Connected })
					}
					time.Sleep(w.timeout() / 8)
				}
				if when == "while the servers are away" {
					l.setDown(true)
					time.Sleep(w.timeout() / 4)
				}
				conn.Close()
				for range events {
				}
				began := time.Now()
				if when == "with nothing to do" {
					time.Sleep(w.timeout() / 8)
				}
				w.until("AwaitConnected to tell", func() bool { return errors.Is(s.AwaitConnected(w.context()), zk.ErrClosing) })
				if when == "leading" || when == "while the servers are away" {
					w.until("the step-down", func() bool { return j.has("a stepped down: session lost") })
				}
				require.ErrorIs(t, a.Vote(w.context()), zk.ErrClosing, "Vote")
				require.ErrorIs(t, w.observer(a.node, &journal{}).Observe(w.context()), zk.ErrClosing, "Observe")
				require.ErrorIs(t, second(a.Leader(w.context())), zk.ErrClosing, "Leader")
				require.ErrorIs(t, s.Close(), zk.ErrClosing, "Close")
				limit := w.timeout() / 2
				if when != "before a session" && !strings.HasSuffix(when, "the servers are away") {
					limit = w.timeout() / 4 // its watch tells, which is sooner than what is done where there is none
				}
				assert.Less(t, time.Since(began), limit)
			})
		})
	}
}

// A client that hangs as it is closed, here since its owner's callback does, ends no watch: it is found out all the same.
func TestOwnerClosesAndTheClientHangs(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		never, closing := make(chan struct{}), atomic.Bool{}
		dial := election.Unfailing(func(network, _ string, timeout time.Duration) (net.Conn, error) {
			return w.dial(network, w.servers[0], timeout)
		})
		conn, _, err := zk.Connect([]string{"127.0.0.1:1"}, w.timeout(), zk.WithDialer(zxid.Dialer(dial)), zk.WithLogger(silent{}),
			zk.WithEventCallback(func(e zk.Event) {
				if closing.Load() && e.State == zk.StateDisconnected {
					<-never
				}
			}))
		require.NoError(t, err)
		defer close(never)
		s, err := election.NewSession(conn, w.timeout(), &election.SessionOptions{Logger: w.logger()})
		require.NoError(t, err)
		j := &journal{}
		a := w.memberOn(&node{Session: s}, "a", j).lead()
		closing.Store(true)
		conn.Close()
		began := time.Now()
		w.until("AwaitConnected to tell", func() bool { return errors.Is(s.AwaitConnected(w.context()), zk.ErrClosing) })
		assert.Less(t, time.Since(began), w.timeout()/2)
		w.until("the step-down", func() bool { return j.has("a stepped down: session lost") })
		require.ErrorIs(t, a.Vote(w.context()), zk.ErrClosing)
		require.ErrorIs(t, s.Close(), zk.ErrClosing)
	})
}

// Credentials that were taken and are refused when the session is resumed: each
// handshake keeps the session alive, and with it a ballot that nobody serves.
// Callers and log are told, and after T the line moves on.
func TestCredentialsRefusedOnResumption(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		credentials := func(o *election.SessionOptions) {
			o.Auth = []election.Auth{{Scheme: "digest", Credentials: []byte("user:password")}}
		}
		n := w.session(credentials)
		a, b := w.memberOn(n, "a", j).lead(), w.member("b", j)
		b.vote()
		session := n.ID()
		accept := w.srv.Control(testutil.OpAuth, func(*testutil.Request) testutil.Action { return testutil.Fail(zk.ErrAuthFailed) })
		n.link.cut()
		time.Sleep(w.timeout() / 2)
		require.ErrorIs(t, n.AwaitConnected(w.context()), zk.ErrAuthFailed)
		c := w.memberOn(n, "c", j)
		require.ErrorIs(t, c.Vote(w.context()), zk.ErrAuthFailed)
		o, began := w.observer(n, &journal{}), time.Now()
		require.ErrorIs(t, o.Observe(w.context()), zk.ErrAuthFailed)
		require.ErrorIs(t, second(c.Leader(w.context())), zk.ErrAuthFailed)
		require.ErrorIs(t, second(o.Ballots(w.context())), zk.ErrAuthFailed)
		assert.Less(t, time.Since(began), w.timeout()/100, "told at once")
		require.Equal(t, 1, strings.Count(w.log.String(), "the server refuses the credentials"), "in the log")
		time.Sleep(5 * w.timeout() / 2)
		require.True(t, b.IsLeader(), "the line has not moved on in 3 T")
		require.ErrorIs(t, n.AwaitConnected(w.context()), zk.ErrAuthFailed)
		time.Sleep(5 * time.Minute)
		assert.True(t, b.IsLeader())
		require.ErrorIs(t, n.AwaitConnected(w.context()), zk.ErrAuthFailed)
		require.Equal(t, 1, strings.Count(w.log.String(), "the server refuses the credentials"), "in the log")
		assert.LessOrEqual(t, strings.Count(w.log.String(), `msg="election: cannot vote"`), 2, "a and c say it once each")
		require.ErrorIs(t, o.Observe(w.context()), zk.ErrAuthFailed)
		assert.NotEqual(t, session, n.ID())
		// Nothing is left to be done by hand when they are taken again.
		accept()
		w.until("a to stand again", a.Voted)
		require.NoError(t, n.AwaitConnected(w.context()))
		require.NoError(t, o.Observe(w.context()))
		b.resign()
		w.until("a to lead again", a.IsLeader)
	})
}

// So while the ballots are read: that the session cannot be used is not why a ballot cannot be read.
func TestBallotsBesideARefusal(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		n := w.session(func(o *election.SessionOptions) {
			o.Auth = []election.Auth{{Scheme: "digest", Credentials: []byte("user:password")}}
		})
		w.member("a", &journal{}).lead()
		o := w.observer(n, &journal{})
		held, release := w.holding(func(r *testutil.Request) bool {
			return r.Op == testutil.OpGetData && r.SessionID == n.ID() && strings.Contains(r.Path, "/ballot-")
		})
		type result struct {
			ballots []election.Ballot
			err     error
		}
		done := make(chan result, 1)
		go func() {
			ballots, err := o.Ballots(w.context())
			done <- result{ballots, err}
		}()
		<-held
		defer w.srv.Control(testutil.OpAuth, func(*testutil.Request) testutil.Action { return testutil.Fail(zk.ErrAuthFailed) })()
		n.link.cut()
		release()
		r := <-done
		require.ErrorIs(t, r.err, zk.ErrAuthFailed)
		assert.Empty(t, r.ballots)
	})
}

// One server refuses the credentials, the next one takes them: nothing is lost.
func TestCredentialsRefusedOnce(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		n := w.session(func(o *election.SessionOptions) {
			o.Auth = []election.Auth{{Scheme: "digest", Credentials: []byte("user:password")}}
		})
		a := w.memberOn(n, "a", j).lead()
		time.Sleep(w.timeout())
		var refused atomic.Bool
		defer w.srv.Control(testutil.OpAuth, func(*testutil.Request) testutil.Action {
			if refused.Swap(true) {
				return testutil.Pass
			}
			return testutil.Fail(zk.ErrAuthFailed)
		})()
		n.link.cut()
		w.until("the refusal", refused.Load)
		time.Sleep(w.timeout() / 2)
		require.NoError(t, n.AwaitConnected(w.context()), "told that the credentials are refused, and they are not")
		time.Sleep(4 * w.timeout())
		assert.True(t, a.IsLeader())
		w.same("journal", j.all(), []string{"a won"})
	})
}

// A session in the place of a lost one is given the credentials by the client itself, ahead of what is asked on it: their
// refusal is the answer to nothing that anybody waits for, and is told all the same.
func TestCredentialsRefusedAfterExpiry(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		n := w.session(func(o *election.SessionOptions) {
			o.Auth = []election.Auth{{Scheme: "digest", Credentials: []byte("user:password")}}
		})
		a := w.memberOn(n, "a", &journal{}).lead()
		accept := w.srv.Control(testutil.OpAuth, func(*testutil.Request) testutil.Action { return testutil.Fail(zk.ErrAuthFailed) })
		require.True(t, w.srv.ExpireSession(n.ID()))
		time.Sleep(w.timeout())
		began := time.Now()
		require.ErrorIs(t, n.AwaitConnected(w.context()), zk.ErrAuthFailed)
		require.ErrorIs(t, w.memberOn(n, "b", &journal{}).Vote(w.context()), zk.ErrAuthFailed)
		require.ErrorIs(t, w.observer(n, &journal{}).Observe(w.context()), zk.ErrAuthFailed)
		assert.Less(t, time.Since(began), w.timeout()/100, "told at once")
		time.Sleep(5 * time.Minute)
		require.ErrorIs(t, n.AwaitConnected(w.context()), zk.ErrAuthFailed)
		require.Equal(t, 1, strings.Count(w.log.String(), "the server refuses the credentials"), "in the log")
		accept()
		w.until("a to lead again", a.IsLeader)
		require.NoError(t, n.AwaitConnected(w.context()))
	})
}

// Credentials that were refused at first, however long: once a server has taken them the session is as good as any.
func TestCredentialsTakenAtLast(t *testing.T) {
	for _, late := range []bool{false, true} {
		t.Run(fmt.Sprintf("after more than T: %v", late), func(t *testing.T) {
			virtually(t, func(t *testing.T, w *world) {
				var last atomic.Pointer[net.Conn]
				refused := make(chan struct{}, 1000)
				accept := w.srv.Control(testutil.OpAuth, func(*testutil.Request) testutil.Action {
					refused <- struct{}{}
					time.AfterFunc(time.Millisecond, func() { _ = (*last.Load()).Close() }) // as a server does behind the refusal
					return testutil.Fail(zk.ErrAuthFailed)
				})
				lost := 0
				dial := func(network, address string, timeout time.Duration) (net.Conn, error) {
					conn, err := w.dial(network, address, timeout)
					last.Store(&conn)
					return conn, err
				}
				s, err := election.Connect(w.servers, w.timeout(), &election.SessionOptions{
					Dialer: dial, Logger: w.logger(), Metrics: &election.Metrics{SessionLost: func() { lost++ }},
					Auth: []election.Auth{{Scheme: "digest", Credentials: []byte("user:password")}},
				})
				require.NoError(t, err)
				<-refused
				require.ErrorIs(t, s.AwaitConnected(w.context()), zk.ErrAuthFailed)
				if late {
					time.Sleep(3 * w.timeout())
				}
				accept()
				w.until("the session", func() bool { return s.AwaitConnected(w.context()) == nil })
				a, err := election.NewCandidate(s, w.name(), nil)
				require.NoError(t, err)
				require.NoError(t, a.Vote(w.context()), "when the session was told to be there")
				w.until("a to lead", a.IsLeader)
				time.Sleep(5 * w.timeout())
				assert.True(t, a.IsLeader())
				require.NoError(t, s.Close())
				assert.Zero(t, lost, "sessions")
				assert.NotContains(t, w.log.String(), "giving it up")
			})
		})
	}
}

// Shutdown is one bound for everything, whatever does not answer or return.
func TestShutdown(t *testing.T) {
	within := func(limit time.Duration) (context.Context, context.CancelFunc) {
		return context.WithTimeoutCause(context.Background(), limit, errors.New("the time is over"))
	}
	t.Run("all is well", func(t *testing.T) {
		virtually(t, func(t *testing.T, w *world) {
			j := &journal{}
			a := w.member("a", j).lead()
			ctx, cancel := within(w.timeout())
			defer cancel()
			require.NoError(t, a.node.Shutdown(ctx))
			require.NoError(t, a.node.Shutdown(ctx))
			require.NoError(t, a.node.Close())
			assert.Empty(t, w.children(w.client(), a.RootVotePath()))
			w.same("journal", j.all(), []string{"a won", "a stepped down: closed"})
		})
	})
	t.Run("no server answers", func(t *testing.T) {
		virtually(t, func(t *testing.T, w *world) {
			j := &journal{}
			a := w.memberOn(w.unchecked(), "a", j).lead()
			a.node.link.setDown(true)
			ctx, cancel := within(w.timeout() / 2)
			defer cancel()
			began := time.Now()
			err := a.node.Shutdown(ctx)
			assert.Equal(t, w.timeout()/2, time.Since(began))
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.ErrorContains(t, err, "the time is over")
			assert.False(t, a.IsLeader())
			w.same("journal", j.all(), []string{"a won", "a stepped down: closed"})
			require.ErrorContains(t, a.node.Close(), "the time to shut down was over")
			assert.LessOrEqual(t, time.Since(began), w.timeout()/2+4*time.Second, "what was left behind")
		})
	})
	t.Run("a callback hangs", func(t *testing.T) {
		virtually(t, func(t *testing.T, w *world) {
			j := &journal{}
			n := w.unchecked()
			a := w.memberOn(n, "a", j, func(o *election.CandidateOptions) { o.StepDownTimeout = time.Hour })
			release := make(chan struct{})
			a.OnStepDown(func(context.Context, election.Term, error) { <-release })
			b := w.member("b", j)
			won := make(chan time.Time, 1)
			b.OnWin(func(context.Context, election.Term) error { won <- time.Now(); return nil })
			a.lead()
			b.vote()
			ctx, cancel := within(w.timeout() / 2)
			defer cancel()
			began := time.Now()
			require.ErrorIs(t, n.Shutdown(ctx), context.DeadlineExceeded)
			assert.Equal(t, w.timeout()/2, time.Since(began))
			assert.GreaterOrEqual(t, (<-won).Sub(began), w.timeout()/2, "before the bound")
			assert.LessOrEqual(t, time.Since(began), w.timeout(), "its session ends, and its ballot with it")
			close(release)
			_ = n.Close()
		})
	})
	t.Run("there was no time", func(t *testing.T) {
		for range 20 { // the step-down would race with the end of the session
			virtually(t, func(t *testing.T, w *world) {
				a := w.memberOn(w.unchecked(), "a", &journal{})
				b := w.member("b", &journal{})
				won := make(chan bool, 1)
				b.OnWin(func(context.Context, election.Term) error { won <- a.IsLeader(); return nil })
				a.lead()
				b.vote()
				// With answers at once all might be closed before Shutdown looks at its context.
				defer w.slow(a.node, time.Millisecond)()
				ended, cancel := context.WithCancel(context.Background())
				cancel()
				require.ErrorIs(t, a.node.Shutdown(ended), context.Canceled)
				assert.False(t, a.IsLeader(), "after Shutdown")
				assert.False(t, <-won, "beside the next leader")
				_ = a.node.Close()
			})
		}
	})
	t.Run("beside Run", func(t *testing.T) {
		virtually(t, func(t *testing.T, w *world) {
			a := w.memberOn(w.unchecked(), "a", &journal{})
			ctx, stop := context.WithCancel(context.Background())
			defer stop()
			leads := make(chan struct{})
			ran := make(chan error, 1)
			go func() {
				ran <- a.Run(ctx, func(ctx context.Context, _ election.Term) error { close(leads); <-ctx.Done(); return nil })
			}()
			<-leads
			a.node.link.setDown(true)
			began := time.Now()
			stop()
			bound, cancel := within(w.timeout() / 2)
			defer cancel()
			require.ErrorIs(t, a.node.Shutdown(bound), context.DeadlineExceeded)
			assert.Equal(t, w.timeout()/2, time.Since(began))
			assert.Error(t, <-ran)
			assert.LessOrEqual(t, time.Since(began), w.timeout()/2+time.Second, "Run")
		})
	})
}

// A service that is told to end while no server answers, by Run and then Close:
// Close does not wait again for what Run has waited for.
func TestRunAndCloseDoNotAddUp(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		a := w.memberOn(w.unchecked(), "a", &journal{})
		ctx, stop := context.WithCancel(context.Background())
		defer stop()
		leads := make(chan struct{})
		ran := make(chan error, 1)
		go func() {
			ran <- a.Run(ctx, func(ctx context.Context, _ election.Term) error { close(leads); <-ctx.Done(); return nil })
		}()
		<-leads
		a.node.link.setDown(true)
		began := time.Now()
		stop()
		require.ErrorIs(t, <-ran, context.Canceled)
		require.ErrorContains(t, a.node.Close(), "no server answered")
		assert.LessOrEqual(t, time.Since(began), 2*w.timeout()+3*time.Second)
	})
}

// A session that was resumed with less and then with more keeps to the less: the
// server that granted it may still tell the ensemble's leader of it.
func TestLeastGrantedCounts(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		n := w.session()
		require.NoError(t, n.AwaitConnected(w.context()))
		require.Equal(t, w.timeout(), n.Timeout())
		n.link.grant(w.timeout() / 2)
		n.link.cut()
		w.until("less to be granted", func() bool { return n.Timeout() == w.timeout()/2 })
		n.link.grant(0)
		n.link.cut()
		id := n.ID()
		w.settle()
		time.Sleep(w.timeout() / 4)
		require.Equal(t, zk.StateHasSession, n.Conn().State())
		require.Equal(t, id, n.ID())
		assert.Equal(t, w.timeout()/2, n.Timeout())
		w.srv.ExpireSession(id)
		w.until("a new session", func() bool { return n.ID() != id && n.ID() != 0 })
		require.NoError(t, n.AwaitConnected(w.context()))
		assert.Equal(t, w.timeout(), n.Timeout())
	})
}

// A Shutdown whose time is over closes the connection while Close is about to:
// neither waits where time cannot pass.
func TestShutdownBesideClose(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		n := w.session()
		require.NoError(t, n.AwaitConnected(w.context()))
		defer w.srv.Control(testutil.AnyOp, func(*testutil.Request) testutil.Action { return testutil.Delay(w.timeout()) })()
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		require.ErrorIs(t, n.Shutdown(ended), context.Canceled)
		assert.NoError(t, n.Close())
	})
}

// A Shutdown whose time is over leaves no ballot on a caller's connection, whose session goes on: it would
// keep the others from leading for as long as that lives.
func TestHurriedShutdownOnCallersConnection(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		for _, delay := range []time.Duration{0, w.timeout() / 16} {
			conn, _, l := w.clientOn()
			s, err := election.NewSession(conn, w.timeout(), &election.SessionOptions{Logger: w.logger()})
			require.NoError(t, err)
			j := &journal{}
			a := w.memberOn(&node{Session: s, link: l}, "a", j).lead()
			b := w.member("b", j).vote()
			stop := w.srv.Control(testutil.OpMulti, func(r *testutil.Request) testutil.Action {
				if r.SessionID == conn.SessionID() && len(r.Ops) > 1 {
					return testutil.Delay(delay)
				}
				return testutil.Pass
			})
			ended, cancel := context.WithCancel(w.context())
			cancel()
			require.ErrorIs(t, s.Shutdown(ended), context.Canceled)
			w.until("b to lead", b.IsLeader)
			require.Equal(t, zk.StateHasSession, conn.State())
			require.Len(t, ballotNames(w.children(w.client(), a.RootVotePath())), 1, "ballots")
			stop()
			b.resign()
			conn.Close()
		}
	})
}
