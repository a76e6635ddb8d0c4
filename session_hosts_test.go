package election

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func onGoroutine(fn func()) bool {
	go fn()
	return true
}

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
	r := newRounds(onGoroutine)
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

// testRounds is a dialer of names whose look-ups take a while, in virtual time, and
// whose connections come to nothing: it tells which addresses it would have tried.
type testRounds struct {
	*rounds
	takes     time.Duration // a look-up
	addresses []string
	err       error
	lookups   int
}

func newTestRounds() *testRounds {
	r := &testRounds{rounds: newRounds(onGoroutine)}
	r.lookup = func(ctx context.Context, _ string) ([]string, error) {
		r.lookups++
		addresses, err := slices.Clone(r.addresses), r.err
		select {
		case <-time.After(r.takes):
			return addresses, err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return r
}

// resolve is what one dial makes of a name, and how long it takes.
func (r *testRounds) resolve() (addresses []string, took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second) // as the client's
	defer cancel()
	began := time.Now()
	addresses, err = r.rounds.resolve(ctx, "zk.example")
	took = time.Since(began)
	synctest.Wait() // the look-up has taken what it is to find
	return addresses, took, err
}

// A look-up that takes longer than a dial may is not begun again by each dial, and so
// never ends: the next one has what came of it.
func TestSlowLookup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTestRounds()
		defer r.end()
		r.takes, r.addresses = 4500*time.Millisecond, []string{"b", "a", "b"}
		var addresses []string
		began := time.Now()
		for range 10 {
			var err error
			if addresses, _, err = r.resolve(); err == nil {
				break
			}
			var answer *net.DNSError
			require.ErrorAs(t, err, &answer)
			assert.True(t, answer.Timeout())
			assert.Equal(t, 1, r.lookups)
		}
		assert.Equal(t, []string{"a", "b"}, addresses)
		assert.Equal(t, r.takes, time.Since(began))
		// Then the dials need not wait for it, and learn of what has changed.
		r.addresses = []string{"c"}
		addresses, took, err := r.resolve()
		require.NoError(t, err)
		assert.Equal(t, []string{"a", "b"}, addresses)
		assert.Less(t, took, time.Second/2, "the rest is for the dial")
		time.Sleep(r.takes)
		addresses, _, err = r.resolve()
		require.NoError(t, err)
		assert.Equal(t, []string{"c"}, addresses)
	})
}

// While name servers do not answer, or fail, a name keeps the addresses that it had; an
// answer counts, also that there is no such name.
func TestLookupThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTestRounds()
		defer r.end()
		r.addresses = []string{"a"}
		_, _, err := r.resolve()
		require.NoError(t, err)
		for _, failure := range []error{&net.DNSError{Err: "server misbehaving", IsTemporary: true}, &net.DNSError{IsTimeout: true}, io.EOF} {
			r.err = failure
			addresses, _, err := r.resolve()
			require.NoError(t, err)
			assert.Equal(t, []string{"a"}, addresses)
		}
		gone := &net.DNSError{Err: "no such host", IsNotFound: true}
		r.err = gone
		_, _, err = r.resolve()
		require.ErrorIs(t, err, gone)
		r.addresses, r.err = []string{"b"}, nil
		addresses, _, err := r.resolve()
		require.NoError(t, err)
		assert.Equal(t, []string{"b"}, addresses)
	})
}

// The end of the Session ends a look-up that is under way, and none begins after it.
func TestLookupEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSession(time.Minute)
		r := s.client.rounds
		r.lookup = func(ctx context.Context, _ string) ([]string, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		_, err := r.dial("tcp", "zk.example:2181", time.Second)
		require.Error(t, err)
		r.end()
		s.helpers.close()
		_, err = r.dial("tcp", "zk.example:2181", time.Second)
		require.ErrorIs(t, err, net.ErrClosed)
	})
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
