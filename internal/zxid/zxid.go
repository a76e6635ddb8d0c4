// Package zxid remembers, in the place of go-zookeeper's client, how far a
// session has seen.
//
// As of v1.0.4 the client notes the zxid of each answer on one goroutine and
// reads it on another to set its watches again on a new connection. An answer
// that comes early enough is a data race, and the request then says that the
// client has seen what it has not, so that a change is never told. Nothing
// that the client does shows when that moment is over: with no watches it
// sends nothing. So the client is told no zxid at all, and writes none. The
// connection below it knows them all, and puts them where they belong: into
// the handshake and into the requests that set watches again.
package zxid

import (
	"encoding/binary"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/go-zookeeper/zk"
)

const (
	opSetWatches = 101

	// Offsets in a frame with its length.
	helloZxid    = 8  // in a handshake: protocol version, zxid, timeout, session
	helloSession = 20 //
	requestOp    = 8  // in a request: xid, operation, and what is asked
	watchesZxid  = 12 // the first of that, when it sets watches
	answerXid    = 4  // in an answer: xid, zxid, error code
	answerZxid   = 8
	answerHead   = 16
)

// Dialer returns a dialer, for one client, whose connections do that. The
// other one opens them; nil means net.DialTimeout.
func Dialer(dial zk.Dialer) zk.Dialer {
	if dial == nil {
		dial = net.DialTimeout
	}
	k := new(keeper)
	return func(network, address string, timeout time.Duration) (net.Conn, error) {
		c, err := dial(network, address, timeout)
		if err != nil {
			return nil, err
		}
		return k.wrap(c), nil
	}
}

// keeper remembers how far one client has seen. The zero value is ready.
type keeper struct {
	// seen is the zxid of the last answer to the client's present session.
	// Connections of a client follow one another; of one of them, the reading
	// goroutine stores and the writing one loads.
	seen atomic.Int64
}

// wrap returns a connection of the client that c is the network of.
func (k *keeper) wrap(c net.Conn) net.Conn { return &conn{Conn: c, keeper: k} }

// conn is one connection.
type conn struct {
	net.Conn
	keeper *keeper

	// Owned by whoever writes: the client makes one Write at a time, of one
	// whole frame.
	greeted bool
	fresh   bool  // it has asked for a new session
	before  int64 // else: how far the session had seen when it asked

	// Owned by the reading goroutine.
	head   [answerHead]byte
	filled int  // so much of head is there
	rest   int  // so many bytes of the frame are still to come
	shaken bool // the answer to the handshake is through
	lost   bool // it is not the protocol
}

func (c *conn) Write(p []byte) (int, error) {
	switch {
	case !c.greeted:
		c.greeted = true
		if len(p) < helloSession+8 {
			break
		}
		if c.fresh = binary.BigEndian.Uint64(p[helloSession:]) == 0; c.fresh {
			c.keeper.seen.Store(0)
			break
		}
		c.before = c.keeper.seen.Load()
		p = with(p, helloZxid, c.before)
	case len(p) >= watchesZxid+8 && binary.BigEndian.Uint32(p[requestOp:]) == opSetWatches:
		// What has changed since the last connection is to be told. On the first
		// one there are no other watches than those set on it.
		since := c.before
		if c.fresh {
			since = c.keeper.seen.Load()
		}
		p = with(p, watchesZxid, since)
	}
	return c.Conn.Write(p)
}

// with returns a copy of a frame with a zxid in it.
func with(p []byte, at int, zxid int64) []byte {
	p = slices.Clone(p)
	binary.BigEndian.PutUint64(p[at:], uint64(zxid))
	return p
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.follow(p[:n])
	return n, err
}

// follow goes through the frames, in whatever pieces they are read, notes the
// zxid of each answer and takes it out of what the client reads.
func (c *conn) follow(p []byte) {
	for len(p) > 0 && !c.lost {
		if c.rest > 0 {
			n := min(c.rest, len(p))
			c.rest -= n
			p = p[n:]
			c.endFrame()
			continue
		}
		want := 4
		if c.filled >= 4 {
			want = 4 + min(answerHead-4, c.length())
		}
		n := copy(c.head[c.filled:want], p)
		if from := max(0, answerZxid-c.filled); from < n && c.shaken && c.length() >= answerHead-4 && c.answers() {
			clear(p[from:n])
		}
		c.filled += n
		p = p[n:]
		if c.filled < 4 {
			continue
		}
		if c.length() < 0 {
			c.lost = true
			return
		}
		if c.filled == 4+min(answerHead-4, c.length()) {
			c.rest = c.length() - (c.filled - 4)
			c.endFrame()
		}
	}
}

// endFrame notes an answer once all of it is through, as the client does.
func (c *conn) endFrame() {
	if c.rest > 0 {
		return
	}
	if c.shaken && c.filled == answerHead && c.answers() {
		if zxid := int64(binary.BigEndian.Uint64(c.head[answerZxid:])); zxid > 0 {
			c.keeper.seen.Store(zxid)
		}
	}
	c.shaken, c.filled = true, 0
}

// answers reports whether the frame answers a request of the client's; pings
// and events have negative numbers, and tell no zxid.
func (c *conn) answers() bool { return int32(binary.BigEndian.Uint32(c.head[answerXid:])) >= 0 }

func (c *conn) length() int { return int(int32(binary.BigEndian.Uint32(c.head[:]))) }
