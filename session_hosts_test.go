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

func TestHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := new(hosts)
		if err := h.Init(nil); err == nil {
			t.Fatal("no servers were taken")
		}
		if err := h.Init([]string{"a", "b", "c"}); err != nil || h.Len() != 3 {
			t.Fatal(err, h.Len())
		}
		next := func(wantPause bool) string {
			t.Helper()
			server, pause := h.Next()
			if pause != wantPause {
				t.Fatalf("pause %v before %s", pause, server)
			}
			return server
		}
		round := map[string]bool{next(false): true, next(false): true, next(false): true}
		if len(round) != 3 {
			t.Fatalf("a round of %v", round)
		}
		next(true) // a pause after each round
		next(false)
		next(false)
		next(true)
		h.Connected()
		next(true) // a connection that did not last
		h.Connected()
		time.Sleep(time.Minute)
		next(false) // one that did
		if err := h.Init([]string{"only"}); err != nil {
			t.Fatal(err)
		}
		next(false)
		next(false)
		next(true)
		next(true)
	})
}
