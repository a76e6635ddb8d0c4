package election

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

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
