package election

import (
	"encoding/binary"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-zookeeper/zk"
)

// callersConn is a connection of a caller's, for NewSession: a plain client on a
// network that hides two faults of go-zookeeper v1.0.4, which a Session's own
// connection hides in wire.go. A caller that has such a client has to live with
// them; a simulation would find nothing else.
type callersConn struct {
	*zk.Conn
	begun atomic.Bool   // close has been called
	ended chan struct{} // closed when the client's goroutines are done

	mu   sync.Mutex
	last net.Conn
}

func newCallersConn(servers []string, timeout time.Duration, dial zk.Dialer, provider zk.HostProvider) (*callersConn, error) {
	c := &callersConn{ended: make(chan struct{})}
	conn, events, err := zk.Connect(servers, timeout, zk.WithHostProvider(provider), zk.WithLogger(mute{}),
		zk.WithDialer(func(network, address string, timeout time.Duration) (net.Conn, error) {
			c.mu.Lock()
			former := c.last
			c.mu.Unlock()
			if former != nil {
				_ = former.Close() // the client leaves the one of an expired session open
			}
			conn, err := dial(network, address, timeout)
			if err != nil {
				return nil, err
			}
			wrapped := &callersWire{Conn: conn, handshake: 4, gate: make(chan struct{})}
			wrapped.open = sync.OnceFunc(func() { close(wrapped.gate) })
			c.mu.Lock()
			defer c.mu.Unlock()
			c.last = wrapped
			return wrapped, nil
		}))
	if err != nil {
		return nil, err
	}
	c.Conn = conn
	go func() {
		defer close(c.ended)
		for range events {
		}
	}()
	return c, nil
}

// close ends the client, and returns when nothing of it runs any more.
func (c *callersConn) close() {
	if !c.begun.Swap(true) {
		c.Close()
	}
	c.mu.Lock()
	last := c.last
	c.mu.Unlock()
	if last != nil {
		_ = last.Close() // it may be waiting for a handshake
	}
	<-c.ended
}

// callersWire is one connection of it.
type callersWire struct {
	net.Conn
	// handshake is how many bytes of the handshake's answer are still to be
	// read, the four of its length first. Owned by the reading goroutine.
	handshake int
	sized     bool
	length    [4]byte
	// gate holds back what follows it until the client has sent its watches
	// again: it reads how far it has seen beside the goroutine that takes answers.
	gate chan struct{}
	open func()
}

// Write hides a failure: the client would answer the request twice, and the
// second answer can block it for good.
func (w *callersWire) Write(p []byte) (int, error) {
	if len(p) >= 12 && int32(binary.BigEndian.Uint32(p[8:])) == opSetWatches {
		w.open()
	}
	if _, err := w.Conn.Write(p); err != nil {
		_ = w.Close()
	}
	return len(p), nil
}

func (w *callersWire) Read(p []byte) (int, error) {
	if w.handshake == 0 {
		<-w.gate
		return w.Conn.Read(p)
	}
	n, err := w.Conn.Read(p[:min(len(p), w.handshake)])
	if !w.sized {
		copy(w.length[4-w.handshake:], p[:n])
	}
	w.handshake -= n
	if w.handshake == 0 && !w.sized {
		w.handshake, w.sized = int(binary.BigEndian.Uint32(w.length[:])), true
	}
	if w.handshake == 0 {
		time.AfterFunc(time.Millisecond, w.open) // it may have none; in virtual time it has sent them before
	}
	return n, err
}

func (w *callersWire) Close() error {
	w.open()
	return w.Conn.Close()
}

type mute struct{}

func (mute) Printf(string, ...any) {}
