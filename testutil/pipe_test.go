package testutil

import (
	"bytes"
	"crypto/rand"
	"errors"
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

func testPipe() (a, b net.Conn) { return newPipe(pipeAddr("a"), pipeAddr("b")) }

func TestPipeCarriesBothWays(t *testing.T) {
	a, b := testPipe()
	sent := make([]byte, 3*pipeBuffer)
	_, _ = rand.Read(sent)
	for _, way := range []struct{ from, to net.Conn }{{a, b}, {b, a}} {
		errs := make(chan error, 1)
		go func() {
			_, err := way.from.Write(sent)
			errs <- err
		}()
		got := make([]byte, len(sent))
		_, err := io.ReadFull(way.to, got)
		assert.NoError(t, err)
		assert.True(t, bytes.Equal(got, sent), "what arrived is not what was sent")
		assert.NoError(t, <-errs)
	}
	assert.Equal(t, "a", a.LocalAddr().String())
	assert.Equal(t, "b", a.RemoteAddr().String())
	assert.Equal(t, "mem", b.LocalAddr().Network())
}

func TestPipeEndsWhenClosed(t *testing.T) {
	a, b := testPipe()
	_, err := a.Write([]byte("last"))
	require.NoError(t, err)
	assert.NoError(t, errors.Join(a.Close(), a.Close()))
	got, err := io.ReadAll(b)
	assert.NoError(t, err)
	assert.Equal(t, "last", string(got))
	_, err = b.Write([]byte("x"))
	assert.Error(t, err, "wrote to a closed pipe")
	_, err = a.Write([]byte("x"))
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = a.Read(make([]byte, 1))
	require.ErrorIs(t, err, net.ErrClosed)
}

func TestPipeUnblocksWhenClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, end := range []func(a, b net.Conn) net.Conn{
			func(a, _ net.Conn) net.Conn { return a },
			func(_, b net.Conn) net.Conn { return b },
		} {
			a, b := testPipe()
			failed := make(chan error, 2)
			go func() {
				_, err := a.Read(make([]byte, 1))
				failed <- err
			}()
			go func() {
				_, err := a.Write(make([]byte, 2*pipeBuffer))
				failed <- err
			}()
			synctest.Wait()
			_ = end(a, b).Close()
			for range 2 {
				assert.Error(t, <-failed)
			}
		}
	})
}

func TestPipeDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := testPipe()
		began := time.Now()
		_ = a.SetDeadline(began.Add(time.Second))
		_, err := a.Read(make([]byte, 1))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		assert.Equal(t, time.Second, time.Since(began), "read gave up after")
		_, err = a.Write([]byte("x"))
		assert.ErrorIs(t, err, os.ErrDeadlineExceeded, "a write behind the deadline")
		_ = a.SetWriteDeadline(time.Now().Add(time.Second))
		n, err := a.Write(make([]byte, 2*pipeBuffer))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		assert.Equal(t, 2*time.Second, time.Since(began), "write gave up after")
		assert.Equal(t, pipeBuffer, n)
		var netErr net.Error
		require.ErrorAs(t, err, &netErr)
		assert.True(t, netErr.Timeout(), "%v is no timeout", err)
		// A deadline that is moved counts for a read under way.
		_ = a.SetReadDeadline(time.Now().Add(time.Hour))
		go func() {
			time.Sleep(time.Second)
			_ = a.SetReadDeadline(time.Now())
		}()
		_, err = a.Read(make([]byte, 1))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		assert.Equal(t, 3*time.Second, time.Since(began), "read gave up after")
	})
}

func TestDialerRefusesWhenNobodyServes(t *testing.T) {
	inMemory(t, ServerOptions{}, func(t *testing.T, srv *Server) {
		srv.Stop()
		_, err := srv.Dialer()("tcp", srv.Addr(), time.Second)
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
		srv.Close()
		_, err = srv.Dialer()("tcp", srv.Addr(), time.Second)
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
		assert.Error(t, srv.Start(), "started a closed server")
	})
}
