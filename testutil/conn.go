package testutil

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"
)

const (
	// maxFrame is jute.maxbuffer: a longer request closes the connection.
	maxFrame = 0xfffff
	// handshakeLimit is how long a connection may stay without a session. ZooKeeper looks
	// every 10 s at who has been silent for as long, so there it is between one time and two.
	handshakeLimit = 10 * time.Second
)

// A conn is a client's connection to a member.
//
// Two goroutines belong to it. The reader cuts the stream into frames and puts
// them into the inbox; the writer sends what is in out. Requests are handled one
// after the other by whoever has set busy: the reader, or, when a request is to
// arrive late, a goroutine that lives as long as the delay. While one waits for the
// ensemble nobody does; who answers it goes on. So the reader always notices that the
// client has gone.
type conn struct {
	srv    *Server
	m      *member
	nc     net.Conn
	remote string
	began  time.Time
	wake   chan struct{} // tells the writer to look
	done   chan struct{} // closed when dead

	// The rest is guarded by the server's mutex.
	session int64 // 0 before the handshake
	claimed int64 // the session that the handshake wants to resume
	timeout int32 // milliseconds, as negotiated on this connection
	who     []identity
	inbox   []arrival
	busy    bool
	started bool // the handshake has been taken from the inbox
	parked  bool // the request being handled waits for the ensemble
	out     []byte
	holds   []*hold // by where they begin
	dead    bool    // takes no part any more; what is in out may still be sent
	closing bool    // to be closed once out has been sent
	ended   bool    // the client has closed its side
	// queued counts the requests with a number above 0 that have not been answered.
	queued int
	stats  connStats
}

// An arrival is a request in the inbox.
type arrival struct {
	frame []byte
	k     *call // nil until it has arrived, which is when it gets its turn, unless the one before it waits for the ensemble
}

func (a arrival) taken() bool { return a.k != nil && a.k.taken }

// A hold keeps back what is in out from a byte on.
type hold struct{ at int }

// hold keeps back what will be sent from now on, until it is released.
func (c *conn) hold() *hold {
	h := &hold{len(c.out)}
	c.holds = append(c.holds, h)
	return h
}

func (c *conn) release(h *hold) {
	c.holds = slices.DeleteFunc(c.holds, func(other *hold) bool { return other == h })
	c.poke()
}

// takeOut gives the writer what may be sent.
func (c *conn) takeOut() []byte {
	n := len(c.out)
	if len(c.holds) > 0 && !c.dead {
		n = c.holds[0].at
	}
	out := c.out[:n:n]
	c.out = c.out[n:]
	for _, h := range c.holds {
		h.at -= n
	}
	return out
}

// A packetCount is for the four-letter words. That of a member counts from when it began to
// follow its leader, or from srst, that of a connection from its beginning, or from crst.
type packetCount struct{ received, sent int64 }

// connStats are for the four-letter words, and about what was answered last.
type connStats struct {
	packetCount
	lastXid   int32 // -1 for none; those below 0 are not noted
	lastZxid  int64
	lastOp    string
	lastReply int64 // milliseconds; the real one counts them from no known time
}

// resetStats is what crst does to a connection.
func (c *conn) resetStats() {
	c.stats = connStats{lastXid: -1, lastZxid: -1, lastOp: "NA"}
}

func (c *conn) countReceived() {
	c.stats.received++
	c.m.packets.received++
}

func (c *conn) countSent() {
	c.stats.sent++
	c.m.packets.sent++
}

// serve takes a connection on; it is false when nobody listens.
func (m *member) serve(nc net.Conn) bool {
	s := m.srv
	s.mu.Lock()
	defer s.unlock()
	if s.closed || m.down() {
		return false
	}
	c := &conn{
		srv: s, m: m, nc: nc, remote: nc.RemoteAddr().String(), began: time.Now(),
		wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
	if host, _, err := net.SplitHostPort(c.remote); err == nil {
		c.who = []identity{{"ip", host}}
	}
	c.stats.lastOp = "null" // until something is answered, to which the handshake of a session resumed does not count
	s.conns[c] = struct{}{}
	m.clients[c] = struct{}{}
	s.spawn(func() {
		written := make(chan struct{})
		s.running.Go(func() {
			defer close(written)
			c.write()
		})
		c.readFrames()
		<-written
		s.mu.Lock()
		defer s.unlock()
		delete(s.conns, c)
	})
	return true
}

// readFrames is the reader.
func (c *conn) readFrames() {
	err := c.readAll()
	s := c.srv
	s.mu.Lock()
	defer s.unlock()
	c.ended = true
	if c.isolated() {
		return // the end has not been heard of
	}
	if err != nil && !c.dead {
		s.logWarn("connection closed", "client", c.remote, "session", sessionName(c.session), "error", err)
	}
	c.kill(err != nil) // it is the server that ends it then
}

// readAll reads until the connection ends; nil means that the client closed it,
// or the server did.
func (c *conn) readAll() error {
	_ = c.nc.SetReadDeadline(time.Now().Add(handshakeLimit))
	r := bufio.NewReader(c.nc)
	var head [4]byte
	for first := true; ; first = false {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return unexpected(err)
		}
		if word := string(head[:]); first && isFourLetterWord(word) {
			c.answerWord(word)
			return nil
		}
		n := int32(binary.BigEndian.Uint32(head[:]))
		if n < 0 || n > maxFrame {
			return fmt.Errorf("a frame of %d bytes", n)
		}
		frame := make([]byte, n)
		if _, err := io.ReadFull(r, frame); err != nil {
			return unexpected(err)
		}
		if first {
			_ = c.nc.SetReadDeadline(time.Time{})
		}
		if err := c.receive(frame, first); err != nil {
			return err
		}
	}
}

// unexpected keeps the errors that are worth a line in the log.
func unexpected(err error) error {
	var netErr net.Error
	if errors.As(err, &netErr) && netErr.Timeout() {
		return errors.New("no handshake in time")
	}
	return nil
}

// receive puts a frame into the inbox and, unless somebody does already, handles
// what is there.
func (c *conn) receive(frame []byte, first bool) error {
	if first && len(frame) < 28 || len(frame) < 8 {
		return fmt.Errorf("a request of %d bytes", len(frame))
	}
	s := c.srv
	s.mu.Lock()
	if c.dead {
		s.unlock()
		return nil
	}
	c.countReceived()
	if first {
		c.claimed = int64(binary.BigEndian.Uint64(frame[16:]))
	} else if int32(binary.BigEndian.Uint32(frame)) > 0 {
		c.queued++
	}
	c.arrive(arrival{frame: frame})
	mine := !c.busy
	c.busy = true
	s.unlock()
	if mine {
		c.drain()
	}
	return nil
}

// arrive puts a request into the inbox. While the one before it waits for the ensemble
// ZooKeeper takes it on, though it cannot answer yet.
func (c *conn) arrive(a arrival) {
	if c.parked && a.k == nil && c.session != 0 && !c.isolated() {
		k := c.takeOn(a.frame)
		if k == nil {
			return
		}
		a.k = k
		if k.taken && !k.unknown && k.ordered() && k.proposable() {
			defer k.pass()
		}
	}
	c.inbox = append(c.inbox, a)
}

// park notes that the request being handled waits for the ensemble, and takes on what has come
// in behind it.
func (c *conn) park() {
	c.parked = true
	behind := c.inbox
	c.inbox = nil
	for _, a := range behind {
		if !c.dead {
			c.arrive(a)
		}
	}
}

// takeOn is the arrival of a request while the one before it waits for the ensemble. It is nil
// when that is all.
func (c *conn) takeOn(frame []byte) *call {
	s := c.srv
	k := &call{c: c, who: c.who}
	k.decode(frame)
	wanted := len(s.controlsFor(k.op)) > 0
	if !wanted && (!k.op.asksServer() || !s.release.knows(k.op)) {
		s.counts[k.op]++
		if k.hear() {
			k.execute()
		}
		return nil
	}
	k.unknown, k.heard = !k.hear(), true
	// Each is shown to the control functions in its turn, and so is what is behind it.
	k.taken = !wanted && (len(c.inbox) == 0 || c.inbox[len(c.inbox)-1].taken())
	if k.taken {
		s.counts[k.op]++
	}
	return k
}

// drain handles the inbox until it is empty or a request has to wait. The
// caller has set busy.
func (c *conn) drain() {
	s := c.srv
	for {
		s.mu.Lock()
		if c.ended && !c.started && !c.isolated() {
			// Given up while it was cut off: its handshake has never arrived.
			c.kill(false)
		}
		if c.dead || c.isolated() || len(c.inbox) == 0 {
			c.busy = false
			if c.ended && !c.isolated() {
				c.kill(false)
			}
			s.unlock()
			return
		}
		k, frame := c.inbox[0].k, c.inbox[0].frame
		c.inbox = c.inbox[1:]
		if k == nil {
			k = &call{c: c, handshake: !c.started, who: c.who}
			k.decode(frame)
		}
		c.started = true
		s.counts[k.op]++
		controls := s.controlsFor(k.op)
		session := c.session
		if k.handshake {
			session = c.claimed
		}
		s.unlock()
		if !k.handle(controls, session) {
			return
		}
	}
}

// send queues a frame for the client.
func (c *conn) send(frame []byte) {
	if c.dead {
		return
	}
	c.out = append(c.out, frame...)
	c.countSent()
	c.poke()
}

// answer is send for the answer to a request.
func (c *conn) answer(xid int32, e *encoder) {
	if xid > 0 {
		c.queued--
	}
	c.send(e.frame())
}

func (c *conn) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// notify sends a watch event, unless the client may not know of the node.
func (c *conn) notify(e event) {
	if c.dead || !allowed(e.acl, permRead, c.who) {
		return
	}
	zxid := int64(-1)
	if c.srv.release.eventsHaveZxids() && e.zxid != 0 {
		zxid = e.zxid
	}
	reply := newReply(-1, zxid, codeOK)
	reply.int32(int32(e.typ))
	reply.int32(3) // the client is connected
	reply.string(e.path)
	c.srv.counts[OpNotification]++
	c.send(reply.frame())
}

// kill ends the connection, with flush once all has been sent that is queued.
// To an isolated client it stays open: a cut network carries no end either.
func (c *conn) kill(flush bool) {
	if c.dead {
		return
	}
	c.dead = true
	close(c.done)
	delete(c.m.clients, c)
	if id := cmp.Or(c.session, c.claimed); c.m.bySession[id] == c {
		delete(c.m.bySession, id)
	}
	c.m.watches.removeConn(c)
	c.inbox = nil
	if flush {
		c.closing = true
	} else {
		c.out = nil
	}
	switch {
	case c.isolated() && !c.srv.closed:
	case flush:
		c.poke()
	default:
		_ = c.nc.Close()
		c.poke()
	}
}

// linger is how long a connection that the server ends is read on for. Otherwise what
// the client has sent, and nobody reads any more, would reset it, and take the last
// answers with it.
const linger = time.Second

// hangUp ends the connection in order, if it is a socket.
func (c *conn) hangUp() {
	if half, ok := c.nc.(*net.TCPConn); ok && half.CloseWrite() == nil {
		_ = half.SetReadDeadline(time.Now().Add(linger))
		_, _ = io.Copy(io.Discard, half)
	}
	_ = c.nc.Close()
}

// write is the writer.
func (c *conn) write() {
	s := c.srv
	defer c.hangUp()
	for {
		s.mu.Lock()
		open := s.closed || !c.isolated()
		var out []byte
		if open {
			out = c.takeOut()
		}
		over := c.dead && open
		s.unlock()
		switch {
		case len(out) > 0:
			if _, err := c.nc.Write(out); err != nil {
				s.mu.Lock()
				c.kill(false)
				s.unlock()
			}
		case over:
			return
		default:
			<-c.wake
		}
	}
}
