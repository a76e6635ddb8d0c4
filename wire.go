package election

import (
	"encoding/binary"
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

	frameHead = 16 // xid, zxid and error code; of a handshake: version, timeout, session
)

// connection is one connection of a session, as the lease sees it. With a
// connection that was lent to us it stands for all that we know of it.
type connection struct {
	rule  leaseRule
	heard *contacts
	// atMost is the end of every lease from before this connection: its
	// handshake may have granted a shorter timeout. 0 when that is not known.
	atMost instant
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

	rewatched atomic.Bool // the watches have been sent again

	// gate, once set, holds answers back until it is closed: see hold.
	gate     chan struct{}
	openGate func()

	mu       sync.Mutex
	outgoing []outgoing  // sent and not answered, oldest first
	deadline *time.Timer // ends a handshake that nobody answers
	rewatch  rewatch     // what becomes of watches that a server refuses to set again
	hello    hello
	conn     *connection // nil until the handshake's answer
	blind    bool        // a write was no whole frame: nothing more is believed

	// Owned by the receiving goroutine.
	head   [4 + frameHead]byte
	filled int
	skip   int
	whole  bool // head is a frame's
	shaken bool // the handshake's answer has been seen
}

type outgoing struct {
	xid, op int32
	sent    instant
	frame   []byte // of opSetWatches only: it may have to be sent once more
}

// heard tells whether the server counts a request as a sign of life.
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
// blocks it for ever when nobody takes the first.
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
		w.deadline = time.AfterFunc(w.session.Timeout(), func() { _ = w.Close() })
		w.session.handshakeSent(sent)
		return
	}
	xid, op := int32(binary.BigEndian.Uint32(p[4:])), int32(binary.BigEndian.Uint32(p[8:]))
	request := outgoing{xid: xid, op: op, sent: sent}
	if op == opSetWatches {
		request.frame = slices.Clone(p)
		if w.openGate != nil {
			w.rewatched.Store(true)
			w.openGate()
		}
	}
	w.outgoing = append(w.outgoing, request)
}

// hold keeps the first answers after a handshake from the client until it has
// sent its watches again, or for a moment if it has none. As of v1.0.4 the
// client reads how far it has seen, for that request, beside the goroutine that
// takes answers: one that comes too early is a data race, and can hide a change
// of data from the watches.
func (w *wire) hold(moment time.Duration) {
	gate := make(chan struct{})
	w.gate, w.openGate = gate, sync.OnceFunc(func() { close(gate) })
	time.AfterFunc(moment, w.openGate)
}

func (w *wire) Read(p []byte) (int, error) {
	gate := w.gate // set by the Read that ended the handshake, on this goroutine or before it began
	n, err := w.Conn.Read(p)
	if gate != nil {
		<-gate
		w.gate = nil
		if w.session.quitting.Load() && !w.rewatched.Load() {
			// Close has overtaken the watches: they are not sent any more, and
			// the client may be about to read what this answer would change.
			_ = w.Close()
			return 0, net.ErrClosed
		}
	}
	w.feed(p[:n])
	return n, err
}

// feed follows the frames through whatever pieces they are read in.
func (w *wire) feed(p []byte) {
	for len(p) > 0 {
		if w.skip > 0 {
			n := min(w.skip, len(p))
			w.skip -= n
			p = p[n:]
			w.finishHandshake()
			continue
		}
		want := 4
		if w.filled >= 4 {
			want = 4 + min(frameHead, w.length())
		}
		n := copy(w.head[w.filled:want], p)
		w.hideRefusal(p[:n])
		w.filled += n
		p = p[n:]
		if w.filled < 4 || w.filled < 4+min(frameHead, w.length()) {
			continue
		}
		w.skip = max(0, w.length()-frameHead)
		w.filled = 0
		w.whole = w.length() >= frameHead
		if w.whole && w.shaken {
			w.received(w.head[4:])
		}
		w.finishHandshake()
	}
}

// finishHandshake takes the answer to the handshake, once all of it is there:
// the client would wait for the rest without a limit.
func (w *wire) finishHandshake() {
	if w.shaken || !w.whole || w.skip > 0 {
		return
	}
	w.shaken = true
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answerHandshake(w.head[4:])
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
	if sessionID == 0 || timeout <= 0 {
		w.session.handshakeAnswered(nil, 0)
		return // expired: there is no session on this connection
	}
	w.conn = newConnection(timeout, w.session.tick)
	created := w.hello.sessionID == 0
	resumed := w.hello.sessionID == sessionID &&
		w.hello.sent-w.session.lastAnswer() < timeout/2
	if created {
		w.hold(time.Millisecond)
	} else {
		w.hold(20 * time.Millisecond)
	}
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
	if w.openGate != nil {
		w.openGate()
	}
	w.mu.Unlock()
	return w.Conn.Close()
}
