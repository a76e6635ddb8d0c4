// Package wire is the net.Conn below a client of ZooKeeper. It shows what
// go-zookeeper does not tell: the session timeout that a handshake granted, and
// when each request and ping was sent and answered. Of a frame it reads the
// first bytes; of a creation the path, too, and of watches that are set again all.
//
// It also keeps from the client what the client, as of v1.0.4, does not bear: a
// handshake that nobody answers or that no ZooKeeper server would answer so, a
// write that failed, and the refusal to set watches again.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Numbers of ZooKeeper's wire protocol.
const (
	// OpAuth is the operation that adds a credential to a connection.
	OpAuth = 100

	opCreate      = 1
	opSASL        = 102
	opSetWatches  = 101
	xidWatchEvent = -1
	xidPing       = -2
	codeThrottled = -127

	frameHead = 16 // xid, zxid and error code
	helloHead = 20 // of a handshake's answer: version, timeout, session, length of the password
	// helloMost is more than any server answers to a handshake, which is 37 bytes.
	helloMost = 1024

	passwordSize = 16 // all servers' passwords have it
)

// Events are told what one Conn sees. They are called on the client's sending
// goroutine (Creating), on the one that connects it (HandshakeSent, HandshakeAnswered, Failed), on a timer's (Failed), and on
// the client's receiving goroutine (Failed and the others), must not block, and may close the Conn.
type Events interface {
	// HandshakeSent is told that the client is about to ask for a session, and
	// returns how long the server may take for the answer. After that the Conn is
	// closed: the client would wait for many session timeouts.
	HandshakeSent(at time.Time) (limit time.Duration)
	// HandshakeAnswered is told of the answer. It returns the session timeout
	// that holds on this connection; when ok is false nothing more is told of it.
	HandshakeAnswered(h Handshake) (timeout time.Duration, ok bool)
	// Creating is told of the path of each node that the client is about to ask for by a
	// create. What it asks from here on comes behind that, if on the same connection.
	Creating(path []byte)
	// Answered is told of each request and ping that the server has answered.
	Answered(a Answer)
	// WatchesRefused is told of the server's error code when it does not set the
	// client's watches again. The Conn asks until it does.
	WatchesRefused(code int32)
	// Failed is told why the connection comes to nothing. stranger: the server has
	// answered the handshake by what cannot be an answer, and will again.
	Failed(err error, stranger bool)
}

// Handshake is a client's request for a session, and the answer to it.
type Handshake struct {
	Sent     time.Time
	Former   int64         // the session that was asked for; 0 for a new one
	Session  int64         // the session that was granted; 0: the former one has expired
	Timeout  time.Duration // that was granted
	Password []byte        // of the session; nil if it has not the usual length
	// Whole is whether all that the client has written were whole frames. If not,
	// nothing can be said of when a request was sent.
	Whole bool
}

// Answer is an answered request.
type Answer struct {
	Op       int32
	Code     int32 // the error code; 0: none
	Sent     time.Time
	Answered time.Time
	// SignOfLife is whether the server, in answering, counts the request as a sign
	// of life of the session.
	SignOfLife bool
}

// Conn is one connection of a client. The client's sending goroutine calls Write,
// and so does a timer's, to set watches again; its receiving goroutine calls Read.
// mu guards what they share. It is not held while Events are called.
type Conn struct {
	net.Conn
	events  Events
	writing sync.Mutex // one frame at a time; taken before mu
	greeted bool       // the handshake was sent; guarded by writing

	mu       sync.Mutex
	outgoing []outgoing  // sent and not answered, oldest first
	deadline *time.Timer // ends a handshake that nobody answers
	rewatch  rewatch     // what becomes of watches that a server refuses to set again
	hello    hello
	blind    bool // a write was no whole frame: nothing more is believed
	closed   bool

	late atomic.Bool // the handshake was not answered in time, and that is why this is closed

	receiving receiving
}

// receiving is what the receiving goroutine owns, and before there is one that which connects the client.
type receiving struct {
	head    [4 + helloHead + passwordSize]byte
	filled  int
	skip    int
	shaken  bool          // the handshake's answer has been seen
	timeout time.Duration // that holds on this connection; 0: nothing more is told of it
}

type outgoing struct {
	xid, op int32
	sent    time.Time
	frame   []byte // of opSetWatches only: it may have to be sent once more
}

// signOfLife reports whether the server counts a request as a sign of life.
// Authentication is answered by the connection, before the session is touched.
func (o outgoing) signOfLife() bool { return o.op != OpAuth && o.op != opSASL }

// hello is the client's part of the handshake.
type hello struct {
	sent      time.Time
	sessionID int64
}

// New returns a connection to a server for one client.
func New(conn net.Conn, events Events) *Conn { return &Conn{Conn: conn, events: events} }

// Write does not tell of a failure: the connection closes, and the reading side
// finds it so. As of v1.0.4 the client answers a request that it could not write
// at once, and once more when the connection has ended, and the second answer
// blocks it forever when nobody takes the first.
func (c *Conn) Write(p []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.note(p)
	if _, err := c.Conn.Write(p); err != nil {
		_ = c.Close()
	}
	return len(p), nil
}

// note records a frame before it is sent, so that the time is never too late. The
// caller holds writing.
func (c *Conn) note(p []byte) {
	sent := time.Now()
	// The client writes one whole frame at a time.
	if len(p) < 12 || int(binary.BigEndian.Uint32(p)) != len(p)-4 {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.blind = true
		return
	}
	if !c.greeted {
		c.greeted = true
		c.greet(p, sent)
		return
	}
	xid, op := int32(binary.BigEndian.Uint32(p[4:])), int32(binary.BigEndian.Uint32(p[8:]))
	request := outgoing{xid: xid, op: op, sent: sent}
	switch op {
	case opSetWatches:
		request.frame = slices.Clone(p)
	case opCreate:
		if path, ok := firstString(p[12:]); ok {
			c.events.Creating(path)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.outgoing = append(c.outgoing, request)
}

// firstString returns the string that a request's body begins with.
func firstString(body []byte) (text []byte, ok bool) {
	if len(body) < 4 {
		return nil, false
	}
	size, rest := binary.BigEndian.Uint32(body), body[4:]
	if uint64(size) > uint64(len(rest)) {
		return nil, false
	}
	return rest[:size], true
}

// greet notes the handshake.
func (c *Conn) greet(p []byte, sent time.Time) {
	limit := c.events.HandshakeSent(sent)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hello.sent = sent
	if len(p) >= 28 {
		c.hello.sessionID = int64(binary.BigEndian.Uint64(p[20:]))
	}
	if c.closed {
		return
	}
	// The client gives a handshake many times T, its body no limit at all.
	c.deadline = time.AfterFunc(limit, func() {
		c.late.Store(true)
		c.events.Failed(fmt.Errorf("it has not answered the handshake in %v", limit), false)
		_ = c.Close()
	})
}

func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if wrong := c.feed(p[:n]); wrong != nil {
		c.events.Failed(wrong, !c.receiving.shaken)
		_ = c.Close()
		return 0, wrong
	}
	if err != nil && !c.receiving.shaken && !c.late.Load() {
		c.events.Failed(fmt.Errorf("it has not answered the handshake: %w", err), false)
	}
	return n, err
}

// feed follows the frames through whatever pieces they are read in. Its error
// is that this cannot be the protocol: of the answer to a handshake the client would make room for
// gigabytes, or panic.
func (c *Conn) feed(p []byte) error {
	r := &c.receiving
	for len(p) > 0 {
		if r.skip > 0 {
			n := min(r.skip, len(p))
			r.skip -= n
			p = p[n:]
			if err := c.finishHandshake(); err != nil {
				return err
			}
			continue
		}
		want := 4
		if r.filled >= 4 {
			want = 4 + min(r.headSize(), r.length())
		}
		n := copy(r.head[r.filled:want], p)
		c.hideRefusal(p[:n])
		r.filled += n
		p = p[n:]
		if r.filled == 4 {
			if err := r.checkLength(); err != nil {
				return err
			}
		}
		if r.filled < 4 || r.filled < 4+min(r.headSize(), r.length()) {
			continue
		}
		r.skip = max(0, r.length()-r.headSize())
		r.filled = 0
		if r.shaken {
			c.received(r.head[4:])
		}
		if err := c.finishHandshake(); err != nil {
			return err
		}
	}
	return nil
}

// checkLength looks at the first four bytes of a frame.
func (r *receiving) checkLength() error {
	begin, length := r.head[:4], r.length()
	switch {
	case r.shaken && length >= frameHead, !r.shaken && length >= helloHead && length <= helloMost:
		return nil
	case r.shaken:
		return fmt.Errorf("it has sent an answer of %d bytes", length)
	case (begin[0] == 0x15 || begin[0] == 0x16) && begin[1] == 3: // an alert, or a handshake, of TLS
		return errors.New("not a ZooKeeper server that speaks in the clear: a TLS port? see SessionOptions.Dialer")
	default:
		return fmt.Errorf("not a ZooKeeper server: its answer to the handshake begins with %q", begin)
	}
}

// headSize is how much of a frame is looked at.
func (r *receiving) headSize() int {
	if r.shaken {
		return frameHead
	}
	return helloHead + passwordSize
}

func (r *receiving) length() int { return int(int32(binary.BigEndian.Uint32(r.head[:]))) }

// finishHandshake takes the answer to the handshake, once all of it is there:
// the client would wait for the rest without a limit.
func (c *Conn) finishHandshake() error {
	r := &c.receiving
	if r.shaken || r.skip > 0 {
		return nil
	}
	head := r.head[4:]
	timeout, session := int32(binary.BigEndian.Uint32(head[4:])), int64(binary.BigEndian.Uint64(head[8:]))
	password := int(int32(binary.BigEndian.Uint32(head[16:])))
	switch {
	case session != 0 && timeout <= 0:
		return fmt.Errorf("not a ZooKeeper server: it grants a session timeout of %d ms", timeout)
	case password > r.length()-helloHead:
		return fmt.Errorf("not a ZooKeeper server: it sends a password of %d bytes in an answer of %d", password, r.length())
	}
	r.shaken = true
	c.mu.Lock()
	if c.deadline != nil {
		c.deadline.Stop()
	}
	h := Handshake{
		Sent: c.hello.sent, Former: c.hello.sessionID,
		Session: session, Timeout: time.Duration(timeout) * time.Millisecond, Whole: !c.blind,
	}
	c.mu.Unlock()
	if password == passwordSize {
		h.Password = slices.Clone(head[helloHead:][:passwordSize])
	}
	if timeout, ok := c.events.HandshakeAnswered(h); ok {
		r.timeout = timeout
	}
	return nil
}

// received takes the head of an answer or an event.
func (c *Conn) received(head []byte) {
	answered := time.Now()
	xid, code := int32(binary.BigEndian.Uint32(head)), int32(binary.BigEndian.Uint32(head[12:]))
	if xid == xidWatchEvent || c.receiving.timeout == 0 {
		return
	}
	c.mu.Lock()
	i := slices.IndexFunc(c.outgoing, func(o outgoing) bool { return o.xid == xid })
	if i < 0 {
		c.mu.Unlock()
		return
	}
	request := c.outgoing[i]
	c.outgoing = slices.Delete(c.outgoing, i, i+1)
	alive := request.signOfLife() && code != codeThrottled && !c.blind
	c.mu.Unlock()
	c.events.Answered(Answer{request.op, code, request.sent, answered, alive})
	if request.op == opSetWatches {
		c.watchesAnswered(request.frame, code)
	}
}

// Close also ends the wait for a handshake.
func (c *Conn) Close() error {
	c.mu.Lock()
	c.closed = true
	if c.deadline != nil {
		c.deadline.Stop()
	}
	c.rewatch.stop()
	c.mu.Unlock()
	return c.Conn.Close()
}
