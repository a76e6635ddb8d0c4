package testutil

import (
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A rawClient speaks the wire protocol one frame at a time.
type rawClient struct {
	t        *testing.T
	release  Release
	nc       net.Conn
	xid      int32
	session  int64
	password []byte
	timeout  int32
	zxid     int64
	events   []rawEvent
}

type rawEvent struct {
	typ  eventType
	path string
}

type rawReply struct {
	xid  int32
	zxid int64
	err  code
	body *decoder
}

// newRaw connects in memory without a handshake.
func newRaw(t *testing.T, m Member) *rawClient {
	t.Helper()
	nc, err := m.Dialer()("tcp", m.Addr(), time.Second)
	require.NoError(t, err)
	return &rawClient{t: t, release: m.m.srv.release, nc: nc}
}

// openRaw begins a session.
func openRaw(t *testing.T, m Member, timeout time.Duration) *rawClient {
	t.Helper()
	c := newRaw(t, m)
	c.handshake(0, nil, timeout)
	require.NotZero(t, c.session, "no session")
	return c
}

// again resumes the session of another client on a new connection.
func (c *rawClient) again(m Member) *rawClient {
	c.t.Helper()
	next := newRaw(c.t, m)
	next.zxid = c.zxid
	next.handshake(c.session, c.password, time.Duration(c.timeout)*time.Millisecond)
	return next
}

func (c *rawClient) close() { _ = c.nc.Close() }

func (c *rawClient) write(frame []byte) {
	c.t.Helper()
	_, err := c.nc.Write(frame)
	require.NoError(c.t, err)
}

func (c *rawClient) sendHandshake(id int64, password []byte, timeout time.Duration) {
	c.t.Helper()
	if password == nil {
		password = make([]byte, 16)
	}
	e := &encoder{b: make([]byte, 4)}
	e.int32(0)
	e.int64(c.zxid)
	e.int32(int32(timeout.Milliseconds()))
	e.int64(id)
	e.bytes(password)
	e.bool(false)
	c.write(e.frame())
}

func (c *rawClient) handshake(id int64, password []byte, timeout time.Duration) {
	c.t.Helper()
	c.sendHandshake(id, password, timeout)
	frame, err := c.frame()
	require.NoError(c.t, err, "handshake")
	d := &decoder{b: frame}
	d.int32()
	c.timeout, c.session, c.password = d.int32(), d.int64(), d.bytes()
	readOnly := d.bool()
	require.NoError(c.t, d.err, "handshake")
	require.False(c.t, readOnly, "handshake: read-only")
	require.Empty(c.t, d.b, "handshake")
}

func (c *rawClient) frame() ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(c.nc, head[:]); err != nil {
		return nil, err
	}
	frame := make([]byte, binary.BigEndian.Uint32(head[:]))
	_, err := io.ReadFull(c.nc, frame)
	return frame, err
}

// request sends without waiting for the answer.
func (c *rawClient) request(op Op, body func(*encoder)) int32 {
	c.t.Helper()
	c.xid++
	xid := c.xid
	if op == OpPing {
		xid = -2
	}
	e := &encoder{b: make([]byte, 4)}
	e.int32(xid)
	e.int32(int32(op))
	if body != nil {
		body(e)
	}
	c.write(e.frame())
	return xid
}

// next reads the next reply; events before it are kept.
func (c *rawClient) next() (rawReply, error) {
	for {
		frame, err := c.frame()
		if err != nil {
			return rawReply{}, err
		}
		d := &decoder{b: frame}
		r := rawReply{xid: d.int32(), zxid: d.int64(), err: code(d.int32()), body: d}
		if r.xid != -1 {
			c.zxid = max(c.zxid, r.zxid)
			return r, nil
		}
		typ, state := eventType(d.int32()), d.int32()
		// An event that setWatches brings has none in any release.
		assert.True(c.t, r.zxid == -1 || c.release.eventsHaveZxids() && r.zxid > 0, "event with zxid %d", r.zxid)
		assert.Equal(c.t, int32(3), state, "event's state")
		c.events = append(c.events, rawEvent{typ, d.string()})
	}
}

// wantNext wants the next reply to be to this request, with this error.
func (c *rawClient) wantNext(xid int32, err code) rawReply {
	c.t.Helper()
	r, failed := c.next()
	require.NoError(c.t, failed)
	require.Equal(c.t, xid, r.xid, "reply to")
	require.Equal(c.t, err, r.err)
	return r
}

// do sends a request and reads its reply.
func (c *rawClient) do(op Op, body func(*encoder)) rawReply {
	c.t.Helper()
	xid := c.request(op, body)
	r, err := c.next()
	require.NoError(c.t, err, op)
	require.Equal(c.t, xid, r.xid, "%v: reply to", op)
	return r
}

// want is do with the error that the reply must have.
func (c *rawClient) want(err code, op Op, body func(*encoder)) rawReply {
	c.t.Helper()
	r := c.do(op, body)
	require.Equal(c.t, err, r.err, op)
	return r
}

// takeEvents gives the events that have come, after a ping as a barrier.
func (c *rawClient) takeEvents() []rawEvent {
	c.t.Helper()
	c.do(OpPing, nil)
	events := c.events
	c.events = nil
	return events
}

// wantClosed reads until the server's end of the connection.
func (c *rawClient) wantClosed() {
	c.t.Helper()
	_ = c.nc.SetReadDeadline(time.Now().Add(5 * time.Second))
	r, err := c.next()
	require.ErrorIs(c.t, err, io.EOF, "reply %+v, want the connection closed", r)
}

// wantSilence waits for d and expects that nothing comes.
func (c *rawClient) wantSilence(d time.Duration) {
	c.t.Helper()
	_ = c.nc.SetReadDeadline(time.Now().Add(d))
	r, err := c.next()
	var timeout net.Error
	require.ErrorAs(c.t, err, &timeout, "reply %+v, want silence", r)
	require.True(c.t, timeout.Timeout(), "%v, want silence", err)
	_ = c.nc.SetReadDeadline(time.Time{})
}

func createBody(path, data string, flags int32) func(*encoder) {
	return func(e *encoder) {
		e.string(path)
		e.bytes([]byte(data))
		e.acls(openACL)
		e.int32(flags)
	}
}

func pathBody(path string) func(*encoder) { return func(e *encoder) { e.string(path) } }

func watchBody(path string, watch bool) func(*encoder) {
	return func(e *encoder) { e.string(path); e.bool(watch) }
}

func versionBody(path string, version int32) func(*encoder) {
	return func(e *encoder) { e.string(path); e.int32(version) }
}

func setBody(path, data string, version int32) func(*encoder) {
	return func(e *encoder) { e.string(path); e.bytes([]byte(data)); e.int32(version) }
}

// aclBody gives everybody these rights.
func aclBody(path string, perms int32) func(*encoder) {
	return func(e *encoder) {
		e.string(path)
		e.acls([]acl{{perms, identity{"world", "anyone"}}})
		e.int32(-1)
	}
}

func authBody(scheme, credentials string) func(*encoder) {
	return func(e *encoder) { e.int32(0); e.string(scheme); e.bytes([]byte(credentials)) }
}

// A subOp is an operation of a multi.
type subOp struct {
	op   Op
	body func(*encoder)
}

func multiBody(ops ...subOp) func(*encoder) {
	return func(e *encoder) {
		for _, op := range ops {
			e.multiHeader(op.op, false, -1)
			op.body(e)
		}
		e.multiHeader(opError, true, -1)
	}
}

func (d *decoder) stat() stat {
	return stat{
		czxid: d.int64(), mzxid: d.int64(), ctime: d.int64(), mtime: d.int64(),
		version: d.int32(), cversion: d.int32(), aversion: d.int32(), ephemeralOwner: d.int64(),
		dataLength: d.int32(), numChildren: d.int32(), pzxid: d.int64(),
	}
}

func (c *rawClient) stat(path string) stat {
	c.t.Helper()
	r := c.want(codeOK, OpExists, watchBody(path, false))
	return r.body.stat()
}
