package testutil_test

import (
	"encoding/binary"
	"io"
	"net"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/testutil"
)

// A laggard is a member as a busy machine makes a real one, leader or not: what others have brought about it has applied only
// when it has been asked several times, while it has its own clients' doings at once. The members of the in-process ensemble
// never lag unless told to, so here the zxids of their answers are made older on the way.
type laggard struct {
	mu      sync.Mutex
	applied int64 // guarded by mu, as are the others
	current bool  // its own client has done something: it has applied all there was before that
	asked   int   // since something of others came
}

// answersBehind is how many answers show the state before.
const answersBehind = 3

// shows is the zxid that a reply carries in place of the true one. That to what changes something comes from a member that has
// applied it.
func (l *laggard) shows(changes bool, zxid int64) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case zxid <= l.applied:
	case l.current, changes, l.asked == answersBehind:
		l.applied, l.current, l.asked = zxid, false, 0
	default:
		l.asked++
	}
	return min(zxid, l.applied)
}

func (l *laggard) hasConnected() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.current = true
}

// behindTheOthers dials a member that lags.
func behindTheOthers(member testutil.Member) func() (net.Conn, error) {
	lagging := &laggard{}
	return func() (net.Conn, error) {
		conn, err := overTCP(member)()
		if err != nil {
			return nil, err
		}
		return &laggingConn{TCPConn: conn.(*net.TCPConn), member: lagging, changes: make(map[int32]bool)}, nil
	}
}

// A laggingConn is one connection to a laggard. It is used by one goroutine.
type laggingConn struct {
	*net.TCPConn
	member    *laggard
	connected bool
	changes   map[int32]bool // the xids of requests that take a zxid
	sent      []byte         // what is no whole request yet
	ready     []byte         // what is to be read next
}

var changingOps = []string{
	"create", "create2", "createContainer", "createTTL", "delete", "deleteContainer", "setData", "setACL", "check", "multi", "closeSession",
}

// wholeFrame takes the first frame off, without its length. What is no frame at all comes in streams, and is left alone.
func wholeFrame(bytes []byte) (frame, rest []byte, whole bool) {
	if len(bytes) < 4 {
		return nil, bytes, false
	}
	n := binary.BigEndian.Uint32(bytes)
	if uint64(len(bytes)-4) < uint64(n) {
		return nil, bytes, false
	}
	return bytes[4 : 4+n], bytes[4+n:], true
}

func (c *laggingConn) Write(b []byte) (int, error) {
	c.sent = append(c.sent, b...)
	for {
		frame, rest, whole := wholeFrame(c.sent)
		if !whole {
			return c.TCPConn.Write(b)
		}
		c.sent = rest
		d := &decoder{bytes: frame}
		xid, code := d.int(), d.int()
		for _, op := range changingOps {
			c.changes[xid] = c.changes[xid] || code == opcodes[op]
		}
	}
}

func (c *laggingConn) Read(b []byte) (int, error) {
	if len(c.ready) == 0 {
		var length [4]byte
		n, err := io.ReadFull(c.TCPConn, length[:])
		c.ready = append(c.ready, length[:n]...)
		if size := binary.BigEndian.Uint32(length[:]); err == nil && size < 64<<20 {
			frame := make([]byte, size)
			n, err = io.ReadFull(c.TCPConn, frame)
			if err == nil {
				c.rewrite(frame)
			}
			c.ready = append(c.ready, frame[:n]...)
		}
		if len(c.ready) == 0 {
			return 0, err
		}
	}
	n := copy(b, c.ready)
	c.ready = c.ready[n:]
	return n, nil
}

func (c *laggingConn) rewrite(frame []byte) {
	d := &decoder{bytes: frame}
	xid, zxid := d.int(), d.long()
	switch {
	case !c.connected:
		c.connected = true
		c.member.hasConnected()
	case xid != eventXid && zxid > 0:
		binary.BigEndian.PutUint64(frame[4:], uint64(c.member.shows(c.changes[xid], zxid)))
	}
}

// TestConformanceWaitsForMembersThatLag: a script shows the same whichever member lags, the one that leads among them.
func TestConformanceWaitsForMembersThatLag(t *testing.T) {
	const members = 3
	lagging := newBackend(t, testutil.ZooKeeper39, members, behindTheOthers, nil)
	prompt := newBackend(t, testutil.ZooKeeper39, members, overTCP, nil)
	for seed := range uint64(20) {
		script := generateFor(testutil.ZooKeeper39, members, seed, stepsInScript)
		a, b, err := compare(script, prompt, lagging)
		require.NoError(t, err)
		if !slices.Equal(a, b) {
			t.Fatal(explain(script, prompt, lagging, a, b))
		}
	}
}
