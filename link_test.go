package election_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"
)

// link is the network between one client and the servers, with faults that
// work alike on a real ZooKeeper and on the in-process one. It knows the frames
// of the protocol, so that a single request or reply can be lost.
type link struct {
	dial zk.Dialer

	mu        sync.Mutex
	conns     map[*linkConn]bool
	down      bool
	rules     []*rule
	sessionID int64
	password  []byte
	address   string
	timeout   time.Duration // that the last handshake granted
	grants    time.Duration // what handshakes grant, when it is set
	requests  []request     // everything sent, for tests that count
	forgets   bool          // it is not kept, for those that weigh
}

// request is what a rule sees of a request.
type request struct {
	op   int32
	path string
}

// Operation codes of the protocol.
const (
	opCreate       = 1
	opExists       = 3
	opGetData      = 4
	opChildren2    = 12
	opMulti        = 14
	opSync         = 9
	opPing         = 11
	opCloseSession = -11
)

// fault is what becomes of a request.
type fault int

const (
	loseRequest fault = iota // it is not sent, and the connection breaks
	loseReply                // it is applied, and the connection breaks before the answer
	lateReply                // the answer, and all behind it, comes so much later
)

// lateBy is how much later.
const lateBy = 100 * time.Millisecond

type rule struct {
	match func(request) bool
	fault fault
	left  int
	fired chan struct{}
}

var errLink = errors.New("link: broken by the test")

func newLink(dial zk.Dialer) *link { return &link{dial: dial, conns: make(map[*linkConn]bool)} }

// Dial is the zk.Dialer to give to a client.
func (l *link) Dial(network, address string, timeout time.Duration) (net.Conn, error) {
	l.mu.Lock()
	down := l.down
	l.mu.Unlock()
	if down {
		return nil, errLink
	}
	conn, err := l.dial(network, address, timeout)
	if err != nil {
		return nil, err
	}
	c := &linkConn{Conn: conn, link: l, lose: make(map[int32]*rule)}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down {
		_ = conn.Close()
		return nil, errLink
	}
	l.conns[c] = true
	l.address = address
	return c, nil
}

// cut breaks the connections; the client may connect again.
func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		_ = c.Conn.Close()
	}
}

// setDown breaks the connections and refuses new ones, or lets them through.
func (l *link) setDown(down bool) {
	l.mu.Lock()
	l.down = down
	l.mu.Unlock()
	if down {
		l.cut()
	}
}

// grant makes handshakes grant a session timeout, whatever the server does; 0
// leaves that to the server.
func (l *link) grant(timeout time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.grants = timeout
}

// next applies a fault to the next request that matches. The channel is closed
// when that has happened.
func (l *link) next(f fault, match func(request) bool) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := &rule{match: match, fault: f, left: 1, fired: make(chan struct{})}
	l.rules = append(l.rules, r)
	return r.fired
}

// count returns how many requests that match have been sent.
func (l *link) count(match func(request) bool) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, r := range l.requests {
		if match(r) {
			n++
		}
	}
	return n
}

// expire ends the session on the servers, as its owner would by closing it,
// from a connection of its own: to the owner that is an expiry.
func (l *link) expire() error {
	l.mu.Lock()
	id, password, address, timeout := l.sessionID, l.password, l.address, l.timeout
	l.down = true // or the owner, thrown out, takes its session back at once
	l.mu.Unlock()
	defer l.setDown(false)
	conn, err := l.dial("tcp", address, 5*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	hello := binary.BigEndian.AppendUint32(nil, 0)
	hello = binary.BigEndian.AppendUint64(hello, 0)
	hello = binary.BigEndian.AppendUint32(hello, uint32(timeout.Milliseconds()))
	hello = binary.BigEndian.AppendUint64(hello, uint64(id))
	hello = binary.BigEndian.AppendUint32(hello, uint32(len(password)))
	hello = append(hello, password...)
	if err := writeFrame(conn, hello); err != nil {
		return err
	}
	answer, err := readFrame(conn)
	if err != nil {
		return err
	}
	if int64(binary.BigEndian.Uint64(answer[8:])) != id {
		return errors.New("link: the session could not be resumed")
	}
	closing := binary.BigEndian.AppendUint32(nil, 1)
	op := int32(opCloseSession)
	closing = binary.BigEndian.AppendUint32(closing, uint32(op))
	if err := writeFrame(conn, closing); err != nil {
		return err
	}
	_, err = readFrame(conn)
	return err
}

func writeFrame(w io.Writer, body []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...))
	return err
}

func readFrame(r io.Reader) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	body := make([]byte, binary.BigEndian.Uint32(size[:]))
	_, err := io.ReadFull(r, body)
	return body, err
}

type linkConn struct {
	net.Conn
	link *link

	mu     sync.Mutex
	lose   map[int32]*rule // by xid, the replies to lose
	shaken bool

	// Owned by the reading goroutine.
	buffer []byte
	hello  bool
}

func (c *linkConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	first := !c.shaken
	c.shaken = true
	c.mu.Unlock()
	if first || len(p) < 12 {
		return c.Conn.Write(p)
	}
	xid, r := int32(binary.BigEndian.Uint32(p[4:])), parseRequest(p[8:])
	c.link.mu.Lock()
	if !c.link.forgets {
		c.link.requests = append(c.link.requests, r)
	}
	var hit *rule
	for _, rule := range c.link.rules {
		if rule.left > 0 && rule.match(r) {
			rule.left--
			hit = rule
			break
		}
	}
	c.link.mu.Unlock()
	if hit == nil {
		return c.Conn.Write(p)
	}
	if hit.fault == loseRequest {
		_ = c.Conn.Close()
		close(hit.fired)
		return 0, errLink
	}
	c.mu.Lock()
	c.lose[xid] = hit
	c.mu.Unlock()
	return c.Conn.Write(p)
}

// parseRequest reads operation and path, of a multi those of its first part.
func parseRequest(p []byte) request {
	r := request{op: int32(binary.BigEndian.Uint32(p))}
	rest := p[4:]
	if r.op == opMulti && len(rest) > 9 {
		rest = rest[9:]
	}
	if len(rest) >= 4 {
		if n := int(binary.BigEndian.Uint32(rest)); n > 0 && n <= len(rest)-4 {
			r.path = string(rest[4 : 4+n])
		}
	}
	return r
}

func (c *linkConn) Read(p []byte) (int, error) {
	for len(c.buffer) == 0 {
		body, err := readFrame(c.Conn)
		if err != nil {
			return 0, err
		}
		if !c.hello {
			c.hello = true
			c.link.granted(body)
		} else if len(body) >= 4 {
			xid := int32(binary.BigEndian.Uint32(body))
			c.mu.Lock()
			hit := c.lose[xid]
			delete(c.lose, xid)
			c.mu.Unlock()
			switch {
			case hit == nil:
			case hit.fault == lateReply:
				time.Sleep(lateBy)
				close(hit.fired)
			default:
				_ = c.Conn.Close()
				close(hit.fired)
				return 0, errLink
			}
		}
		c.buffer = append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
	}
	n := copy(p, c.buffer)
	c.buffer = c.buffer[n:]
	return n, nil
}

func (c *linkConn) Close() error {
	c.link.mu.Lock()
	delete(c.link.conns, c)
	c.link.mu.Unlock()
	return c.Conn.Close()
}

func (l *link) granted(answer []byte) {
	if len(answer) < 20 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.grants > 0 {
		binary.BigEndian.PutUint32(answer[4:], uint32(l.grants.Milliseconds()))
	}
	l.timeout = time.Duration(binary.BigEndian.Uint32(answer[4:])) * time.Millisecond
	l.sessionID = int64(binary.BigEndian.Uint64(answer[8:]))
	if n := int(binary.BigEndian.Uint32(answer[16:])); n <= len(answer)-20 {
		l.password = append([]byte(nil), answer[20:20+n]...)
	}
}
