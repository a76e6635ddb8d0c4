package election

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

// What the client does not tell, its connection shows: the timeout that a
// handshake granted, and when each request and ping was sent and answered. The
// wire reads no more than the first bytes of each frame.

// Numbers of ZooKeeper's wire protocol.
const (
	xidWatchEvent = -1
	xidPing       = -2
	opAuth        = 100
	opSASL        = 102
	opSetWatches  = 101
	codeThrottled = -127

	frameHead = 16 // xid, zxid and error code
	helloHead = 20 // of a handshake's answer: version, timeout, session, length of the password
	// helloMost is more than any server answers to a handshake, which is 37 bytes.
	helloMost = 1024

	passwordSize = 16 // all servers' passwords have it
)

// connection is one connection of a session, as the lease sees it. With a
// caller's connection it stands for all that we know of it.
type connection struct {
	rule  leaseRule
	heard *contacts
	// atMost is the end of every lease from before this connection: its
	// handshake may have granted a shorter timeout. 0 when that is not known.
	atMost instant

	// What a guard needs to close the session, with a client of our own only.
	session        int64
	password       []byte
	server, remote string // HOST:PORT as given, and the address it has
}

func newConnection(timeout, tick time.Duration) *connection {
	return &connection{rule: newLeaseRule(timeout, tick), heard: newContacts(timeout)}
}

// wire is the net.Conn below the client. Write is called by the client's
// sending goroutine, and to set watches again by a timer's, Read by the client's
// receiving one; mu guards what they share.
type wire struct {
	net.Conn
	session *Session
	server  string     // its address
	writing sync.Mutex // one frame at a time; taken before mu

	mu       sync.Mutex
	outgoing []outgoing  // sent and not answered, oldest first
	deadline *time.Timer // ends a handshake that nobody answers
	rewatch  rewatch     // what becomes of watches that a server refuses to set again
	hello    hello
	conn     *connection // nil until the handshake's answer
	blind    bool        // a write was no whole frame: nothing more is believed

	late atomic.Bool // the handshake was not answered in time, and that is why this is closed

	// Owned by the receiving goroutine.
	head   [4 + helloHead + passwordSize]byte
	filled int
	skip   int
	shaken bool // the handshake's answer has been seen
}

type outgoing struct {
	xid, op int32
	sent    instant
	frame   []byte // of opSetWatches only: it may have to be sent once more
}

// heard reports whether the server counts a request as a sign of life.
// Authentication is answered by the connection, before the session is touched.
func (o outgoing) heard() bool { return o.op != opAuth && o.op != opSASL }

// hello is the client's part of the handshake.
type hello struct {
	sent      instant
	sessionID int64
}

func (s *Session) wrap(conn net.Conn, server string) *wire {
	return &wire{Conn: conn, session: s, server: server}
}

// Write does not tell of a failure: the connection closes, and the reading side
// finds it so. As of v1.0.4 the client answers a request that it could not write
// at once, and once more when the connection has ended, and the second answer
// blocks it forever when nobody takes the first.
func (w *wire) Write(p []byte) (int, error) {
	w.writing.Lock()
	defer w.writing.Unlock()
	w.note(p)
	if _, err := w.Conn.Write(p); err != nil {
		_ = w.Close()
	}
	return len(p), nil
}

// note records a frame before it is sent, so that the time is never too late.
func (w *wire) note(p []byte) {
	sent := w.session.now()
	w.mu.Lock()
	defer w.mu.Unlock()
	// The client writes one whole frame at a time.
	if len(p) < 12 || int(binary.BigEndian.Uint32(p)) != len(p)-4 {
		w.blind = true
		return
	}
	if w.deadline == nil {
		if len(p) >= 28 {
			w.hello = hello{sent, int64(binary.BigEndian.Uint64(p[20:]))}
		}
		// The client gives a handshake many times T, its body no limit at all.
		limit := w.session.Timeout()
		w.deadline = time.AfterFunc(limit, func() {
			w.late.Store(true)
			w.session.troubled(w, fmt.Errorf("it has not answered the handshake in %v", limit))
			_ = w.Close()
		})
		w.session.handshakeSent(sent)
		return
	}
	xid, op := int32(binary.BigEndian.Uint32(p[4:])), int32(binary.BigEndian.Uint32(p[8:]))
	request := outgoing{xid: xid, op: op, sent: sent}
	if op == opSetWatches {
		request.frame = slices.Clone(p)
	}
	w.outgoing = append(w.outgoing, request)
}

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if wrong := w.feed(p[:n]); wrong != nil {
		w.session.troubled(w, wrong)
		if !w.shaken {
			w.session.inbox.push(notZooKeeper{w.server, wrong})
		}
		_ = w.Close()
		return 0, wrong
	}
	if err != nil && !w.shaken && !w.late.Load() {
		w.session.troubled(w, fmt.Errorf("it has not answered the handshake: %w", err))
	}
	return n, err
}

// feed follows the frames through whatever pieces they are read in. Its error
// is that this cannot be the protocol: the client would make room for
// gigabytes, or panic.
func (w *wire) feed(p []byte) error {
	for len(p) > 0 {
		if w.skip > 0 {
			n := min(w.skip, len(p))
			w.skip -= n
			p = p[n:]
			if err := w.finishHandshake(); err != nil {
				return err
			}
			continue
		}
		want := 4
		if w.filled >= 4 {
			want = 4 + min(w.headSize(), w.length())
		}
		n := copy(w.head[w.filled:want], p)
		w.hideRefusal(p[:n])
		w.filled += n
		p = p[n:]
		if w.filled == 4 {
			if err := w.checkLength(); err != nil {
				return err
			}
		}
		if w.filled < 4 || w.filled < 4+min(w.headSize(), w.length()) {
			continue
		}
		w.skip = max(0, w.length()-w.headSize())
		w.filled = 0
		if w.shaken {
			w.received(w.head[4:])
		}
		if err := w.finishHandshake(); err != nil {
			return err
		}
	}
	return nil
}

// checkLength looks at the first four bytes of a frame.
func (w *wire) checkLength() error {
	begin, length := w.head[:4], w.length()
	switch {
	case w.shaken && length >= frameHead, !w.shaken && length >= helloHead && length <= helloMost:
		return nil
	case w.shaken:
		return fmt.Errorf("it has sent an answer of %d bytes", length)
	case (begin[0] == 0x15 || begin[0] == 0x16) && begin[1] == 3: // an alert, or a handshake, of TLS
		return errors.New("not a ZooKeeper server that speaks in the clear: a TLS port? see SessionOptions.Dialer")
	default:
		return fmt.Errorf("not a ZooKeeper server: its answer to the handshake begins with %q", begin)
	}
}

// headSize is how much of a frame is looked at.
func (w *wire) headSize() int {
	if w.shaken {
		return frameHead
	}
	return helloHead + passwordSize
}

// finishHandshake takes the answer to the handshake, once all of it is there:
// the client would wait for the rest without a limit.
func (w *wire) finishHandshake() error {
	if w.shaken || w.skip > 0 {
		return nil
	}
	head := w.head[4:]
	timeout, session := int32(binary.BigEndian.Uint32(head[4:])), binary.BigEndian.Uint64(head[8:])
	password := int(int32(binary.BigEndian.Uint32(head[16:])))
	switch {
	case session != 0 && timeout <= 0:
		return fmt.Errorf("not a ZooKeeper server: it grants a session timeout of %d ms", timeout)
	case password > w.length()-helloHead:
		return fmt.Errorf("not a ZooKeeper server: it sends a password of %d bytes in an answer of %d", password, w.length())
	}
	w.shaken = true
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answerHandshake(head)
	return nil
}

func (w *wire) length() int { return int(int32(binary.BigEndian.Uint32(w.head[:]))) }

func (w *wire) received(head []byte) {
	answered := w.session.now()
	w.mu.Lock()
	defer w.mu.Unlock()
	xid := int32(binary.BigEndian.Uint32(head))
	if xid == xidWatchEvent || w.conn == nil {
		return
	}
	i := slices.IndexFunc(w.outgoing, func(o outgoing) bool { return o.xid == xid })
	if i < 0 {
		return
	}
	request := w.outgoing[i]
	w.outgoing = slices.Delete(w.outgoing, i, i+1)
	w.session.answered(request.sent)
	code := int32(binary.BigEndian.Uint32(head[12:]))
	if request.heard() && code != codeThrottled && !w.blind {
		w.conn.heard.add(request.sent, answered)
	}
	w.session.credentialsAnswered(request, code)
	if request.op == opSetWatches {
		w.watchesAnswered(request.frame, code)
	}
}

func (w *wire) answerHandshake(head []byte) {
	if w.deadline != nil {
		w.deadline.Stop()
	}
	w.session.clientMu.Lock()
	defer w.session.clientMu.Unlock()
	if w.session.wire.Load() != w {
		return // of a client that has been replaced
	}
	timeout := time.Duration(int32(binary.BigEndian.Uint32(head[4:]))) * time.Millisecond
	sessionID := int64(binary.BigEndian.Uint64(head[8:]))
	if sessionID == 0 {
		w.session.handshakeAnswered(nil, 0)
		return // expired: there is no session on this connection
	}
	created := w.hello.sessionID == 0
	if !created && w.session.granted.id == sessionID {
		// A server that it has left may tell the ensemble's leader late of what it
		// had heard, and with the timeout that it granted.
		timeout = min(timeout, w.session.granted.least)
	}
	w.session.granted.id, w.session.granted.least = sessionID, timeout
	w.conn = newConnection(timeout, w.session.tick)
	w.conn.session, w.conn.password = sessionID, passwordIn(head)
	w.conn.server, w.conn.remote = w.server, remoteOf(w.Conn)
	resumed := w.hello.sessionID == sessionID &&
		w.hello.sent-w.session.lastAnswer() < timeout/2
	if (created || resumed) && !w.blind && w.hello.sent >= instant(w.session.awake.Load()) {
		w.conn.heard.establish(w.hello.sent)
	}
	w.session.handshakeAnswered(w.conn, w.hello.sent)
}

// Close also ends the wait for a handshake.
func (w *wire) Close() error {
	w.mu.Lock()
	if w.deadline != nil {
		w.deadline.Stop()
	}
	w.rewatch.stop()
	w.mu.Unlock()
	return w.Conn.Close()
}
