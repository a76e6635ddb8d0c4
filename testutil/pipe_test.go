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
		if _, err := io.ReadFull(way.to, got); err != nil || !bytes.Equal(got, sent) {
			t.Errorf("what arrived is not what was sent (error %v)", err)
		}
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if a.LocalAddr().String() != "a" || a.RemoteAddr().String() != "b" || b.LocalAddr().Network() != "mem" {
		t.Error("wrong addresses")
	}
}

func TestPipeEndsWhenClosed(t *testing.T) {
	a, b := testPipe()
	if _, err := a.Write([]byte("last")); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(a.Close(), a.Close()); err != nil {
		t.Error(err)
	}
	got, err := io.ReadAll(b)
	if err != nil || string(got) != "last" {
		t.Errorf("read %q, error %v", got, err)
	}
	if _, err := b.Write([]byte("x")); err == nil {
		t.Error("wrote to a closed pipe")
	}
	_, err = a.Write([]byte("x"))
	wantErr(t, err, net.ErrClosed)
	_, err = a.Read(make([]byte, 1))
	wantErr(t, err, net.ErrClosed)
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
				if err := <-failed; err == nil {
					t.Error("want an error")
				}
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
		wantErr(t, err, os.ErrDeadlineExceeded)
		if d := time.Since(began); d != time.Second {
			t.Errorf("read gave up after %v", d)
		}
		if _, err := a.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("wrote behind the deadline: %v", err)
		}
		_ = a.SetWriteDeadline(time.Now().Add(time.Second))
		n, err := a.Write(make([]byte, 2*pipeBuffer))
		wantErr(t, err, os.ErrDeadlineExceeded)
		if d := time.Since(began); d != 2*time.Second || n != pipeBuffer {
			t.Errorf("write of %d bytes gave up after %v", n, d)
		}
		var netErr net.Error
		if !errors.As(err, &netErr) || !netErr.Timeout() {
			t.Errorf("%v is no timeout", err)
		}
		// A deadline that is moved counts for a read under way.
		_ = a.SetReadDeadline(time.Now().Add(time.Hour))
		go func() {
			time.Sleep(time.Second)
			_ = a.SetReadDeadline(time.Now())
		}()
		_, err = a.Read(make([]byte, 1))
		wantErr(t, err, os.ErrDeadlineExceeded)
		if d := time.Since(began); d != 3*time.Second {
			t.Errorf("read gave up after %v", d)
		}
	})
}

func TestDialerRefusesWhenNobodyServes(t *testing.T) {
	inMemory(t, ServerOptions{}, func(t *testing.T, srv *Server) {
		srv.Stop()
		_, err := srv.Dialer()("tcp", srv.Addr(), time.Second)
		wantErr(t, err, syscall.ECONNREFUSED)
		srv.Close()
		_, err = srv.Dialer()("tcp", srv.Addr(), time.Second)
		wantErr(t, err, syscall.ECONNREFUSED)
		if err := srv.Start(); err == nil {
			t.Error("started a closed server")
		}
	})
}
