package wire

import (
	"bufio"
	"net"
	"sync/atomic"
	"time"

	"github.com/go-zookeeper/zk"
)

// Buffered returns a dialer whose connections are read through a buffer: the client reads each answer in two pieces, its length
// first, and each would be a call of the system. With many requests under way one call brings many answers.
//
// Whatever notes what the client has been told has to stand between it and the buffer: what is in there when a connection
// ends the client may never read.
func Buffered(dial zk.Dialer) zk.Dialer {
	return func(network, address string, timeout time.Duration) (net.Conn, error) {
		c, err := dial(network, address, timeout)
		if err != nil {
			return nil, err
		}
		return &buffered{Conn: c, answers: bufio.NewReader(c)}, nil
	}
}

type buffered struct {
	net.Conn
	answers *bufio.Reader // the receiving goroutine's
	closed  atomic.Bool
}

// Read reads nothing more once the connection has been closed, whatever lies in the buffer.
func (c *buffered) Read(p []byte) (int, error) {
	if c.closed.Load() {
		return 0, net.ErrClosed
	}
	return c.answers.Read(p)
}

func (c *buffered) Close() error {
	c.closed.Store(true)
	return c.Conn.Close()
}
