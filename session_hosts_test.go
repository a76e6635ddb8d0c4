package election

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A name with several addresses is gone round, though the first one takes
// connections, only to close them.
func TestRounds(t *testing.T) {
	var taken [3]atomic.Int64
	first, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	_, port, err := net.SplitHostPort(first.Addr().String())
	require.NoError(t, err)
	listeners := []net.Listener{first}
	for _, address := range []string{"127.0.0.2", "127.0.0.3"} {
		l, err := net.Listen("tcp", net.JoinHostPort(address, port))
		if err != nil {
			t.Skip("one port on several loopback addresses:", err) // not on every system
		}
		listeners = append(listeners, l)
	}
	for i, l := range listeners {
		defer l.Close()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				taken[i].Add(1)
				_ = c.Close()
			}
		}()
	}
	failing := errors.New("no such name")
	r := newRounds()
	r.lookup = func(_ context.Context, host string) ([]string, error) {
		switch host {
		case "three.example":
			return []string{"127.0.0.3", "127.0.0.1", "127.0.0.2"}, nil
		case "half.example": // nobody listens at the first
			return []string{"127.0.0.2", "127.0.0.1"}, nil
		}
		return nil, failing
	}
	dial := func(host string) {
		c, err := r.dial("tcp", net.JoinHostPort(host, port), 10*time.Second)
		require.NoError(t, err)
		_, _ = io.ReadAll(c) // until it is closed, and so counted
		_ = c.Close()
	}
	for range 6 {
		dial("three.example")
	}
	for i := range taken {
		assert.Equal(t, int64(2), taken[i].Load(), "connections to address %d", i+1)
	}
	require.NoError(t, listeners[0].Close())
	for range 2 {
		dial("half.example")
	}
	assert.Equal(t, int64(4), taken[1].Load(), "where one address is down the other is tried")
	_, err = r.dial("tcp", net.JoinHostPort("127.0.0.1", port), 10*time.Second)
	require.Error(t, err)
	_, err = r.dial("tcp", "unknown.example:1", time.Second)
	require.ErrorIs(t, err, failing)
	dial("127.0.0.3")
}

// attempts is what a client does with its hosts, on a clock that stands still for
// everything else.
type attempts struct {
	*hosts
	t     *testing.T
	began time.Time
}

func newAttempts(t *testing.T, servers ...string) *attempts {
	h := new(hosts)
	require.NoError(t, h.Init(servers))
	require.Equal(t, len(servers), h.Len())
	return &attempts{hosts: h, t: t, began: time.Now()}
}

// next is one attempt: it returns the server, and how long the client has paused.
func (a *attempts) next() (server string, paused time.Duration) {
	began := time.Now()
	server, retryStart := a.Next()
	if retryStart {
		time.Sleep(clientPause)
	}
	require.True(a.t, a.await())
	return server, time.Since(began)
}

// round makes the attempts of one round that comes to nothing, and returns the pause
// before it.
func (a *attempts) round() (paused time.Duration) {
	seen := make(map[string]bool)
	for i := range a.Len() {
		server, pause := a.next()
		seen[server] = true
		if i == 0 {
			paused = pause
		} else {
			assert.Zero(a.t, pause, "within a round")
		}
	}
	assert.Len(a.t, seen, a.Len(), "the servers of a round")
	return paused
}

func TestHosts(t *testing.T) {
	require.Error(t, new(hosts).Init(nil))
	within := func(t *testing.T, pause, d time.Duration) {
		t.Helper()
		assert.GreaterOrEqual(t, d, pause*3/4)
		assert.LessOrEqual(t, d, pause*5/4)
	}
	// outage is rounds that come to nothing, as the first pauses go.
	outage := func(t *testing.T, a *attempts) {
		t.Helper()
		assert.Zero(t, a.round(), "the first round is at once")
		for _, pause := range []time.Duration{25 * time.Millisecond, 100 * time.Millisecond, 400 * time.Millisecond} {
			within(t, pause, a.round())
		}
		for range 5 {
			d := a.round()
			assert.GreaterOrEqual(t, d, time.Second, "the client's own pause, in which it fails what was asked")
			assert.LessOrEqual(t, d, time.Second*5/4)
		}
	}
	for _, servers := range [][]string{{"only"}, {"a", "b", "c"}} {
		synctest.Test(t, func(t *testing.T) {
			a := newAttempts(t, servers...)
			outage(t, a)
			a.Connected()
			time.Sleep(lasting)
			outage(t, a) // as if nothing had been
		})
		synctest.Test(t, func(t *testing.T) {
			// Connections that do not last.
			a := newAttempts(t, servers...)
			a.next()
			for _, pause := range []time.Duration{25 * time.Millisecond, 100 * time.Millisecond, 400 * time.Millisecond} {
				a.Connected()
				_, paused := a.next()
				within(t, pause, paused)
			}
			for range 5 {
				a.Connected()
				_, paused := a.next()
				assert.GreaterOrEqual(t, paused, time.Second)
			}
			a.Connected()
			time.Sleep(lasting)
			_, paused := a.next()
			assert.Zero(t, paused, "one that lasted")
			a.Connected()
			_, paused = a.next()
			within(t, 25*time.Millisecond, paused)
		})
		synctest.Test(t, func(t *testing.T) {
			// A round that takes longer than the pause is one.
			a := newAttempts(t, servers...)
			for range 10 * a.Len() {
				_, paused := a.next()
				assert.Zero(t, paused)
				time.Sleep(2 * time.Second)
			}
		})
		synctest.Test(t, func(t *testing.T) {
			// Who says that the session has expired is asked for another one at once,
			// however long the outage was.
			a := newAttempts(t, servers...)
			for range 8 {
				a.round()
			}
			said, paused := a.next()
			assert.GreaterOrEqual(t, paused, time.Second)
			a.sessionExpired()
			again, paused := a.next()
			assert.Equal(t, said, again)
			assert.Zero(t, paused)
			if a.Len() > 1 {
				other, _ := a.next()
				assert.NotEqual(t, said, other, "once")
			}
		})
	}
}

// Whatever a client waits for, it ends when it is told to.
func TestHostsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAttempts(t, "a", "b")
		for range 3 {
			a.round()
		}
		_, retryStart := a.Next() // and a pause of some 400 ms
		require.False(t, retryStart)
		began, awaited := time.Now(), make(chan bool)
		go func() { awaited <- a.await() }()
		synctest.Wait()
		a.end()
		a.end()
		assert.False(t, <-awaited)
		assert.Zero(t, time.Since(began))
		for range 5 {
			_, retryStart := a.Next()
			assert.True(t, retryStart, "the client looks for its end in its own pause alone")
			assert.False(t, a.await())
		}
		assert.Zero(t, time.Since(began))
	})
}
