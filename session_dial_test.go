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
		case "two.example":
			return []string{"127.0.0.1", "127.0.0.2"}, nil
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
	// Two servers of one name take turns, and each goes round the addresses.
	for range 2 {
		dial("two.example")
		_, err := r.dial("tcp", "two.example:1", 10*time.Second)
		require.Error(t, err, "nobody listens there")
	}
	assert.Equal(t, int64(3), taken[0].Load())
	assert.Equal(t, int64(3), taken[1].Load())
	require.NoError(t, listeners[0].Close())
	for range 2 {
		dial("half.example")
	}
	assert.Equal(t, int64(5), taken[1].Load(), "where one address is down the other is tried")
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
