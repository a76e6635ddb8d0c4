// Package packets counts what clients ask of ZooKeeper: a proxy in front of a server reads the frames that pass.
package packets

import (
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// An Op is the number of a request's kind, as ZooKeeper has it.
type Op int32

const (
	// Connect is the handshake, which begins or resumes a session.
	Connect Op = -10
	// CloseSession ends a session.
	CloseSession Op = -11
	// ping is no request of a client's user, and comes by the clock: it is not counted.
	ping Op = 11
)

var names = map[Op]string{
	Connect: "connect",
	1:       "create", 2: "delete", 3: "exists", 4: "getData", 5: "setData", 6: "getACL", 7: "setACL", 8: "getChildren", 9: "sync",
	12: "getChildren2", 13: "check", 14: "multi", 15: "create2", 16: "reconfig", 17: "checkWatches", 18: "removeWatches",
	19: "createContainer", 20: "deleteContainer", 21: "createTTL", 22: "multiRead", 100: "auth", 101: "setWatches", 102: "sasl",
	103: "getEphemerals", 104: "getAllChildrenNumber", 105: "setWatches2", 106: "addWatch", 107: "whoAmI", CloseSession: "closeSession",
}

// String is the name.
func (op Op) String() string {
	if name, ok := names[op]; ok {
		return name
	}
	return fmt.Sprintf("operation %d", int32(op))
}

// Counts is how many requests of each kind there were. A multi counts as one.
type Counts map[Op]int

// Total is how many there were in all.
func (c Counts) Total() (n int) {
	for _, of := range c {
		n += of
	}
	return n
}

// Since returns what has come after an earlier count.
func (c Counts) Since(before Counts) Counts {
	more := make(Counts)
	for op, n := range c {
		if n -= before[op]; n != 0 {
			more[op] = n
		}
	}
	return more
}

// String lists them by name, as in "2 create, 1 exists".
func (c Counts) String() string {
	all := make([]string, 0, len(c))
	for op, n := range c {
		all = append(all, fmt.Sprintf("%d %v", n, op))
	}
	slices.SortFunc(all, func(a, b string) int {
		_, x, _ := strings.Cut(a, " ")
		_, y, _ := strings.Cut(b, " ")
		return strings.Compare(x, y)
	})
	return strings.Join(all, ", ")
}

// frames reads one connection's requests: a length of four bytes, then for the first frame the handshake, and for each
// further one the request's number and its kind, four bytes each. Only the goroutine that reads the connection uses it.
type frames struct {
	count  func(Op)
	head   []byte // length, number and kind, as far as they have come
	skip   int    // bytes of the present frame that are still to come and say nothing
	greets bool   // the handshake has begun
}

const (
	headLength = 12
	// mostLength is far more than ZooKeeper takes, so a length above it is none.
	mostLength = 64 << 20
)

// feed takes the next bytes of the stream, in pieces of any size.
func (f *frames) feed(p []byte) error {
	for len(p) > 0 {
		if f.skip > 0 {
			n := min(f.skip, len(p))
			f.skip, p = f.skip-n, p[n:]
			continue
		}
		n := min(headLength-len(f.head), len(p))
		f.head, p = append(f.head, p[:n]...), p[n:]
		if len(f.head) < headLength {
			return nil
		}
		length := binary.BigEndian.Uint32(f.head)
		if length < headLength-4 || length > mostLength {
			return fmt.Errorf("packets: a frame of %d bytes", length)
		}
		if !f.greets {
			f.greets = true
			f.count(Connect)
		} else if op := Op(int32(binary.BigEndian.Uint32(f.head[8:]))); op != ping {
			f.count(op)
		}
		f.skip, f.head = int(length)-(headLength-4), f.head[:0]
	}
	return nil
}

// A Proxy passes connections on to one server. Its methods may be called from any goroutine.
type Proxy struct {
	server   string
	listener net.Listener

	mu     sync.Mutex
	counts Counts
	last   time.Time // when something was counted
	conns  map[net.Conn]bool
	closed bool
	err    error // of a stream that is none of ZooKeeper's
	all    sync.WaitGroup
}

// Start listens on loopback for what is meant for the server, HOST:PORT.
func Start(server string) (*Proxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{server: server, listener: listener, counts: make(Counts), conns: make(map[net.Conn]bool)}
	p.all.Go(p.accept)
	return p, nil
}

// Address is where clients connect to.
func (p *Proxy) Address() string { return p.listener.Addr().String() }

// Counts returns what was counted so far. A request is counted before the server has it.
func (p *Proxy) Counts() (Counts, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.counts), p.err
}

// Quiet waits until no request has come for so long, and at most limit.
func (p *Proxy) Quiet(long, limit time.Duration) {
	began := time.Now()
	for {
		p.mu.Lock()
		since := min(time.Since(p.last), time.Since(began))
		p.mu.Unlock()
		if since >= long || time.Since(began) >= limit {
			return
		}
		time.Sleep(long - since)
	}
}

// Close ends all connections.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.closed = true
	p.listener.Close()
	for c := range p.conns {
		c.Close()
	}
	p.mu.Unlock()
	p.all.Wait()
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return // it is closed
		}
		p.all.Go(func() { p.serve(client) })
	}
}

// own remembers a connection for Close, and reports whether it may be used.
func (p *Proxy) own(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		c.Close()
		return false
	}
	p.conns[c] = true
	return true
}

func (p *Proxy) disown(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	c.Close()
}

func (p *Proxy) serve(client net.Conn) {
	if !p.own(client) {
		return
	}
	defer p.disown(client)
	server, err := net.Dial("tcp", p.server)
	if err != nil || !p.own(server) {
		return
	}
	defer p.disown(server)
	p.all.Go(func() {
		_, _ = io.Copy(client, server) // its end is the connection's
		client.Close()
		server.Close()
	})
	f := frames{count: func(op Op) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.counts[op]++
		p.last = time.Now()
	}}
	buf := make([]byte, 64<<10)
	for {
		n, err := client.Read(buf)
		if bad := f.feed(buf[:n]); bad != nil {
			p.mu.Lock()
			p.err = bad
			p.mu.Unlock()
			return
		}
		if n > 0 {
			if _, err := server.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
