package election

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/internal/lease"
	"github.com/zkelection/election/testutil"
)

// What the sweep and the simulation have found, each case as small as it could
// be made, and what they cannot see.

// The client answers a request whose writing failed at once, and again at the
// connection's end; the second answer blocks it forever when nobody takes the
// first. So it goes when its credentials cannot be sent behind a handshake, and
// when a request that Close overtook cannot: then Close never returned.
func TestConnectionBreaksBehindTheHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, err := testutil.NewServer(&testutil.ServerOptions{NoListen: true})
		require.NoError(t, err)
		defer srv.Close()
		dial := srv.Dialer()
		var breaks atomic.Bool
		s, err := Connect([]string{"mem"}, 4*time.Second, &SessionOptions{
			Auth: []Auth{{"digest", []byte("user:password")}},
			Dialer: func(network, address string, timeout time.Duration) (net.Conn, error) {
				conn, err := dial(network, address, timeout)
				if breaks.Swap(false) {
					conn = &onceWriter{Conn: conn}
				}
				return conn, err
			},
		})
		require.NoError(t, err)
		require.NoError(t, s.AwaitConnected(t.Context()))
		synctest.Wait()
		breaks.Store(true)
		srv.DropConnections()
		time.Sleep(time.Minute)
		if info := srv.Sessions(); len(info) != 1 || !info[0].Connected() {
			panic("the client has not connected again in a minute") // nor can it be closed
		}
		assert.NoError(t, s.Close())
	})
}

// onceWriter is a connection that breaks behind the handshake.
type onceWriter struct {
	net.Conn
	written bool
}

func (w *onceWriter) Write(p []byte) (int, error) {
	if w.written {
		_ = w.Close()
		return 0, errors.New("broken")
	}
	w.written = true
	return w.Conn.Write(p)
}

// In virtual time the loop that ends a lease is never late, so no simulation
// reports whether IsLeader needs it. Here there is no loop.
func TestIsLeaderComparesTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &Candidate{}
		c.leader.Store(&leadership{lease: lease.New(lease.NewClock(), lease.NewRule(time.Hour, 0), time.Second)})
		time.Sleep(time.Second - time.Nanosecond)
		assert.True(t, c.IsLeader(), "does not lead before the end of its lease")
		time.Sleep(time.Nanosecond)
		assert.False(t, c.IsLeader(), "leads at the end of its lease")
	})
}

// Leadership that was lost just before the first OnWin function was called: it
// was not called, and OnStepDown was.
func TestNoStepDownWithoutAWin(t *testing.T) {
	for looks := range 4 {
		c := &candidacy{Candidate: &Candidate{Base: &Base{}, inbox: newInbox()}}
		won := false
		c.onWin.add(func(context.Context, Term) error { won = true; return nil })
		l := &leadership{ctx: &endsAfter{t.Context(), looks}, lease: lease.New(lease.NewClock(), lease.NewRule(time.Hour, 0), time.Hour)}
		c.callWin(l)
		assert.Equal(t, won, l.win.Load() == winCalled, "ended after %d looks: OnStepDown is called if OnWin was", looks)
	}
}

// OnWin was called in the moment in which the loop gave it up: it ran, and the ballot
// did not wait for it. Whoever comes first decides.
func TestOnWinIsCalledOrGivenUp(t *testing.T) {
	c := inPhase(t, winning)
	c.stuck.Store(false)
	won := false
	c.onWin.add(func(context.Context, Term) error { won = true; return nil })
	l := c.term.lead
	l.lease = lease.New(lease.NewClock(), lease.NewRule(time.Hour, 0), time.Hour)
	c.callWin(l)
	require.True(t, won)
	c.stalled()
	assert.Equal(t, winning, c.phase, "it has been called")
	assert.False(t, c.stuck.Load())

	c = inPhase(t, winning)
	c.onWin.add(func(context.Context, Term) error { t.Error("it has been given up"); return nil })
	l = c.term.lead
	l.lease = lease.New(lease.NewClock(), lease.NewRule(time.Hour, 0), time.Hour)
	l.ctx = t.Context() // as the callbacks' goroutine has seen it a moment before
	c.stalled()
	assert.Equal(t, leaving, c.phase)
	c.callWin(l)
}

// endsAfter is a context that ends when it has been looked at a few times.
type endsAfter struct {
	context.Context
	looks int
}

func (c *endsAfter) Err() error {
	if c.looks == 0 {
		return context.Canceled
	}
	c.looks--
	return nil
}

// A second Close of an Observer waited on a mutex for the first, which waits for
// callbacks: in virtual time nothing goes on then, and the test hung.
func TestObserverClosedTwiceAtOnce(t *testing.T) {
	defer bound("TestObserverClosedTwiceAtOnce")()
	synctest.Test(t, func(t *testing.T) {
		srv, err := testutil.NewServer(&testutil.ServerOptions{NoListen: true})
		require.NoError(t, err)
		defer srv.Close()
		s, err := Connect([]string{"mem"}, 4*time.Second, &SessionOptions{Dialer: srv.Dialer()})
		require.NoError(t, err)
		o, err := NewObserver(s, "db", nil)
		require.NoError(t, err)
		hangs, release := make(chan struct{}), make(chan struct{})
		o.OnLeaderDeath(func(Leader) { close(hangs); <-release })
		require.NoError(t, o.Observe(t.Context()))
		<-hangs
		began := time.Now()
		results := make(chan error, 2)
		for range 2 {
			go func() { results <- o.Close() }()
		}
		for range 2 {
			assert.ErrorIs(t, <-results, ErrCallbackRunning, "Close")
		}
		assert.Equal(t, s.Timeout(), time.Since(began), "took")
		close(release)
		if err := s.Close(); err != nil && !errors.Is(err, ErrCallbackRunning) {
			t.Error(err)
		}
	})
}
