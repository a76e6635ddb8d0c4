package main

import (
	"context"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestLeavesOneThatDoesNotAnswer: when another leads the former one is not dialled any more, though it takes forever.
func TestLeavesOneThatDoesNotAnswer(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = listener.Close() }()
	const former = "127.0.0.1:1"
	dialled := make(chan struct{})
	d := &LeaderDialer{}
	d.ctx, d.end = context.WithCancel(context.Background())
	d.ControlContext = func(ctx context.Context, _, address string, _ syscall.RawConn) error {
		if address == former {
			close(dialled)
			<-ctx.Done() // as where the host has gone
			return context.Cause(ctx)
		}
		return nil
	}
	d.set(former)
	go func() {
		<-dialled
		d.set(listener.Addr().String())
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	conn, err := d.DialContext(ctx, "tcp", "")
	require.NoError(t, err)
	require.Equal(t, listener.Addr(), conn.RemoteAddr())
	require.NoError(t, conn.Close())
}
