package election

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"
)

// gate is the network of one simulated process. Closed, it holds all bytes both
// ways, and what was on its way arrives at once when it opens: what a stopped
// process sees of its connection when it goes on. (Its clock goes on meanwhile,
// which a real stopped process's does as well, unseen.) Deadlines of the client
// do not fire behind a closed gate, since a stopped process does not look.
//
// mu guards paused and conns; it is held for moments only.
type gate struct {
	dial zk.Dialer

	mu     sync.Mutex
	opened chan struct{} // closed when the gate opens; nil while it is open
	conns  map[*gateConn]struct{}
}

func newGate(dial zk.Dialer) *gate {
	return &gate{dial: dial, conns: make(map[*gateConn]struct{})}
}

// shut closes the gate; it may be shut already.
func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opened == nil {
		g.opened = make(chan struct{})
	}
}

// open delivers what was held.
func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opened == nil {
		return
	}
	for c := range g.conns {
		c.deliver()
	}
	close(g.opened)
	g.opened = nil
}

// passage is nil when the gate is open, else closes when it opens.
func (g *gate) passage() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.opened
}

func (g *gate) Dial(network, address string, timeout time.Duration) (net.Conn, error) {
	if wait := g.passage(); wait != nil {
		<-wait
	}
	conn, err := g.dial(network, address, timeout)
	if err != nil {
		return nil, err
	}
	c := &gateConn{Conn: conn, gate: g, gone: make(chan struct{})}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.conns[c] = struct{}{}
	return c, nil
}

// gateConn is one connection through a gate; gate.mu guards held and closed.
type gateConn struct {
	net.Conn
	gate   *gate
	held   []byte
	closed bool
	gone   chan struct{}
}

// deliver sends what was written, and then closes if that was asked for, while
// the gate was shut. The caller holds gate.mu; the pipe's buffer is larger than
// all that a client can have under way, so the write does not block.
func (c *gateConn) deliver() {
	if len(c.held) > 0 {
		_, _ = c.Conn.Write(c.held)
		c.held = nil
	}
	if c.closed {
		_ = c.Conn.Close()
		delete(c.gate.conns, c)
	}
}

func (c *gateConn) Write(p []byte) (int, error) {
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	switch {
	case c.closed:
		return 0, net.ErrClosed
	case c.gate.opened != nil:
		c.held = append(c.held, p...)
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func (c *gateConn) Read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		wait := c.gate.passage()
		if wait == nil {
			return n, err
		}
		select {
		case <-wait:
		case <-c.gone:
			return 0, net.ErrClosed
		}
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		// What waits in the socket is read before the clock is looked at.
		_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
	}
}

func (c *gateConn) Close() error {
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.closed = true
	close(c.gone)
	if c.gate.opened == nil {
		delete(c.gate.conns, c)
		return c.Conn.Close()
	}
	return nil
}
