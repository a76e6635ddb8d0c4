package wire

import (
	"encoding/binary"
	"math/rand/v2"
	"time"
)

// Setting watches again. The client does that on each new connection of its
// session, and as of v1.0.4 ignores a refusal (a server that has too
// much to do refuses anything): it sends no more of its watches, and they are
// silent as long as the connection lasts. So the Conn takes a refusal upon
// itself: the client reads a success and goes on, and the request is repeated
// until the server takes it. It says up to where the client had seen, so what
// changes meanwhile is told as well.

// xidRewatch is the xid of a repeated request, the one that ZooKeeper's own
// clients use for it. go-zookeeper counts from 1 up, and ignores an answer to
// this one.
const xidRewatch = -8

// codeAt is where the error code begins in a frame with its length.
const codeAt = 4 + 12

// rewatch holds the requests that were refused. The Conn's mu guards it.
type rewatch struct {
	frames [][]byte
	timer  *time.Timer // set while there are frames
	wait   time.Duration
}

// watchesAnswered takes the answer to a request that sets watches again.
func (c *Conn) watchesAnswered(frame []byte, code int32) {
	if c.repeatLater(frame, code) {
		c.events.WatchesRefused(code)
	}
}

// repeatLater repeats a refused request after a while; it reports whether it is
// the first that is refused since one was taken.
func (c *Conn) repeatLater(frame []byte, code int32) (first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, timeout := &c.rewatch, c.receiving.timeout
	if c.closed {
		return false
	}
	if code == 0 {
		r.wait = 0
		return false
	}
	if first = r.wait == 0; first {
		r.wait = timeout / 64
	}
	xid := int32(xidRewatch)
	binary.BigEndian.PutUint32(frame[4:], uint32(xid))
	r.frames = append(r.frames, frame)
	if r.timer == nil {
		r.timer = time.AfterFunc(r.wait-r.wait/4+rand.N(r.wait/2+1), c.setWatchesAgain)
		r.wait = min(2*r.wait, timeout/8)
	}
	return first
}

func (c *Conn) setWatchesAgain() {
	c.mu.Lock()
	frames := c.rewatch.frames
	c.rewatch.frames, c.rewatch.timer = nil, nil
	c.mu.Unlock()
	for _, frame := range frames {
		_, _ = c.Write(frame)
	}
}

func (r *rewatch) stop() {
	r.frames = nil
	if r.timer != nil {
		r.timer.Stop()
	}
}

// hideRefusal makes a success of the answer that the client is about to read,
// if it refuses watches: p is the part of its head that has just been copied.
func (c *Conn) hideRefusal(p []byte) {
	r := &c.receiving
	from, to := max(0, codeAt-r.filled), min(len(p), codeAt+4-r.filled)
	if from < to && r.shaken && c.awaitsWatches() {
		clear(p[from:to])
	}
}

// awaitsWatches reports whether the frame whose head is being read answers a
// request that sets watches again.
func (c *Conn) awaitsWatches() bool {
	xid := int32(binary.BigEndian.Uint32(c.receiving.head[4:]))
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, request := range c.outgoing {
		if request.xid == xid {
			return request.op == opSetWatches
		}
	}
	return false
}
