package election

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/zkelection/election/internal/zxid"
)

// callersConn is a connection of a caller's, for NewSession: a plain client on a
// network that hides two faults of go-zookeeper v1.0.4, which a Session's own
// connection hides (internal/wire). A caller that has such a client has to live with
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
		zk.WithDialer(zxid.Dialer(func(network, address string, timeout time.Duration) (net.Conn, error) {
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
			wrapped := &callersWire{conn}
			c.mu.Lock()
			defer c.mu.Unlock()
			c.last = wrapped
			return wrapped, nil
		})))
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
type callersWire struct{ net.Conn }

// Write hides a failure: the client would answer the request twice, and the
// second answer can block it for good.
func (w *callersWire) Write(p []byte) (int, error) {
	if _, err := w.Conn.Write(p); err != nil {
		_ = w.Close()
	}
	return len(p), nil
}

// Unfailing opens connections as dial does that hide it.
func Unfailing(dial zk.Dialer) zk.Dialer {
	return func(network, address string, timeout time.Duration) (net.Conn, error) {
		conn, err := dial(network, address, timeout)
		if err != nil {
			return nil, err
		}
		return &callersWire{conn}, nil
	}
}

type mute struct{}

func (mute) Printf(string, ...any) {}
