package election_test

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election"
)

// lent is a session on a caller's connection, and its network.
func (w *world) lent(opts ...func(*election.SessionOptions)) *node {
	w.t.Helper()
	conn, events, l := w.clientOn()
	o := &election.SessionOptions{Logger: w.logger()}
	for _, set := range opts {
		set(o)
	}
	s, err := election.NewSession(conn, w.timeout(), o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		l.setDown(false)
		if err := s.Close(); err != nil {
			w.t.Errorf("close session: %v", err)
		}
		conn.Close()
		for range events {
		}
	})
	if err := s.AwaitConnected(w.context()); err != nil {
		w.t.Fatal(err)
	}
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
					n = w.lent()
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
				if !regexp.MustCompile(`msg="election: connected" server=\S+ after=3[45]`).MatchString(w.log.String()) {
					t.Errorf("the return was not said to come after some 34 s:\n%s", w.log.String())
				}
			})
		})
	}
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
		{[]string{"[::1]"}, time.Second, 0, "[address]:port"},
		{[]string{"a:"}, time.Second, 0, "port"},
		{[]string{":2181"}, time.Second, 0, "port"},
		{[]string{"a:0"}, time.Second, 0, "65535"},
		{[]string{"a:65536"}, time.Second, 0, "65535"},
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
		s, err := election.Connect([]string{"a:2181", " b:2181", "c\n"}, 4*time.Second, &election.SessionOptions{
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
		assert.Equal(t, map[string]bool{"a:2181": true, "b:2181": true, "c:2181": true}, asked)
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
			"Auth": func() (*election.Session, error) {
				return election.NewSession(conn, time.Second, &election.SessionOptions{Auth: []election.Auth{{Scheme: "digest"}}})
			},
		} {
			s, err := make()
			assert.Error(t, err, name)
			assert.Nil(t, s, name)
		}
		m := &metrics{}
		n := w.lent(func(o *election.SessionOptions) { o.Metrics, o.TickTime = m, time.Second })
		w.memberOn(n, "a", &journal{}).lead()
		w.until("the session's metrics to be told", func() bool { return m.renewals.Load() > 0 })
		assert.Contains(t, w.log.String(), "session ready", "the logger that was given")
	})
}
