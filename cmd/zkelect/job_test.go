package main

import (
	"context"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestFreshLease: a command begins under a lease that has much left, or that has been renewed.
func TestFreshLease(t *testing.T) {
	const timeout = 40 * time.Second
	for name, test := range map[string]struct {
		left, renewedAfter, endsAfter time.Duration // renewed to 20 s
		begins, until                 time.Duration // until 0: it does not begin
	}{
		"much of it":           {15 * time.Second, 0, 0, 0, 15 * time.Second},
		"little of it":         {2 * time.Second, time.Second, 0, time.Second, 21 * time.Second},
		"none":                 {0, 0, 3 * time.Second, 3 * time.Second, 0},
		"little, and no more":  {2 * time.Second, 0, 5 * time.Second, 2 * time.Second, 0},
		"gone, then back":      {-1, time.Second, 0, time.Second, 21 * time.Second},
		"a signal ends it all": {time.Second, 0, time.Second / 2, time.Second / 2, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				lease := func() time.Time {
					passed := time.Since(began)
					switch {
					case test.renewedAfter > 0 && passed >= test.renewedAfter:
						return began.Add(test.renewedAfter + 20*time.Second)
					case passed < test.left:
						return began.Add(test.left)
					default:
						return time.Time{}
					}
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if test.endsAfter > 0 {
					time.AfterFunc(test.endsAfter, cancel)
				}
				until := freshLease(timeout, lease, t.Context(), ctx)
				assert.InDelta(t, test.begins, time.Since(began), float64(timeout/128))
				if test.until == 0 {
					assert.Zero(t, until)
				} else {
					assert.Equal(t, began.Add(test.until), until)
				}
			})
		})
	}
}

// TestSignalAtTheBeginning: a signal that comes when the command may begin is passed on to it, also where this process gets its
// next turn after that. One that came before is not.
func TestSignalAtTheBeginning(t *testing.T) {
	keeper, orders := net.Pipe() // a write returns when all of it has been read
	s := &signals{forwarded: make(chan os.Signal, 2)}
	j := &job{runOptions: &runOptions{connection: &connection{env: &env{signals: s}}}}
	s.forwarded <- syscall.SIGHUP
	began := make(chan bool)
	go func() { began <- j.begin(&kept{orders: patient{orders}}, time.Now().Add(time.Hour)) }()
	_, err := io.ReadFull(keeper, make([]byte, len("lease ")))
	require.NoError(t, err)
	s.forwarded <- syscall.SIGINT
	go func() { _, _ = io.Copy(io.Discard, keeper) }()
	assert.True(t, <-began)
	require.Len(t, s.forwarded, 1)
	assert.Equal(t, syscall.SIGINT, <-s.forwarded)
}

// patient is a pipe to a reader that may be slow.
type patient struct{ net.Conn }

func (patient) SetWriteDeadline(time.Time) error { return nil }
