package testutil

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestCodecReadsWhatItWrote(t *testing.T) {
	e := &encoder{}
	e.bool(true)
	e.bool(false)
	e.int32(-2)
	e.int64(-3)
	e.string("text")
	e.bytes(nil)
	e.bytes([]byte{})
	e.bytes([]byte("data"))
	e.strings([]string{"a", ""})
	e.acls([]acl{{permAll, anyone}})
	s := stat{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}
	e.stat(&s)
	d := &decoder{b: e.b}
	got := []any{
		d.bool(), d.bool(), d.int32(), d.int64(), d.string(), d.bytes(), d.bytes(), d.bytes(),
		d.strings(), d.acls(), d.stat(),
	}
	want := []any{
		true, false, int32(-2), int64(-3), "text", []byte(nil),
		[]byte{},
		[]byte("data"),
		[]string{"a", ""},
		openACL, s,
	}
	assert.Equal(t, want, got)
	assert.NoError(t, d.err)
	assert.Empty(t, d.b)
}

func TestDecoderRefuses(t *testing.T) {
	for _, test := range []struct {
		name  string
		frame string
		read  func(*decoder)
		want  error
	}{
		{"no bool", "", func(d *decoder) { d.bool() }, errShort},
		{"short int", "\x00\x00\x00", func(d *decoder) { d.int32() }, errShort},
		{"short long", "\x00\x00\x00\x00\x00\x00\x00", func(d *decoder) { d.int64() }, errShort},
		{"string beyond the frame", "\x00\x00\x00\x02a", func(d *decoder) { _ = d.string() }, errLength},
		{"negative length", "\xff\xff\xff\xfe", func(d *decoder) { d.bytes() }, errLength},
		{"huge list", "\x7f\xff\xff\xff", func(d *decoder) { d.strings() }, errLength},
		{"huge acl", "\x7f\xff\xff\xff", func(d *decoder) { d.acls() }, errLength},
	} {
		d := &decoder{b: []byte(test.frame)}
		test.read(d)
		assert.ErrorIs(t, d.err, test.want, test.name)
		assert.Zero(t, d.int32(), "%s: read on after the error", test.name)
		assert.Nil(t, d.bytes(), "%s: read on after the error", test.name)
	}
}

// Null is told from what is empty, and what it means is for the operation to say.
func TestDecoderTellsNullFromEmpty(t *testing.T) {
	null := &decoder{b: []byte("\xff\xff\xff\xff\xff\xff\xff\xff")}
	assert.Equal(t, nullText, null.string())
	assert.Nil(t, null.strings())
	empty := &decoder{b: make([]byte, 8)}
	assert.Empty(t, empty.string())
	assert.Equal(t, []string{}, empty.strings())
	for _, d := range []*decoder{null, empty} {
		require.NoError(t, d.err)
		assert.Empty(t, d.b)
	}
	foreign := &decoder{b: []byte("\x00\x00\x00\x01" + nullText)}
	assert.NotEqual(t, nullText, foreign.string(), "a client has sent what stands for null")
}

func TestStringsAreThoseOfJava(t *testing.T) {
	for given, want := range map[string]string{
		"/a":              "/a",
		"/\u00e4\u20ac":   "/\u00e4\u20ac",
		"/\xff":           "/\ufffd",
		"/a\U0001f600b":   "/a\xed\xa0\xbd\xed\xb8\x80b",
		"/\U0010ffff\xc3": "/\xed\xaf\xbf\xed\xbf\xbf\ufffd",
		// What breaks off is one, up to the byte that cannot belong to it; so is a surrogate.
		"\xe2\x82A\xe2A\xe2\x82":            "\ufffdA\ufffdA\ufffd",
		"u\xed\xa0\xbd\xed\xb8\x80:h":       "u\ufffd\ufffd:h",
		"\xf0\x9f\x98A\xf0\x9f":             "\ufffdA\ufffd",
		"\xe0\x80A\xf0\x80\x80\xf5\xc1\x80": "\ufffd\ufffdA\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd",
		"\xf4\x90\x80\xf4\x8f\xbfA":         "\ufffd\ufffd\ufffd\ufffdA",
	} {
		in := &encoder{}
		in.bytes([]byte(given))
		d := &decoder{b: in.b}
		out := &encoder{}
		out.string(d.string())
		assert.Equal(t, want, string((&decoder{b: out.b}).bytes()), given)
	}
}

// FuzzDecode feeds requests of every operation to the decoders. What they make
// of them must stay within the frame.
func FuzzDecode(f *testing.F) {
	for _, op := range sortedKeys(opNames) {
		f.Add(int32(op), []byte{})
	}
	for _, seed := range []struct {
		op   Op
		body func(*encoder)
	}{
		{OpCreate, createBody("/a", "data", 3)},
		{OpSetData, setBody("/a", "data", 1)},
		{OpExists, watchBody("/a", true)},
		{OpMulti, multiBody(subOp{OpCreate, createBody("/a", "", 0)}, subOp{OpCheck, versionBody("/a", 0)})},
		{OpMultiRead, multiBody(subOp{OpGetData, watchBody("/a", false)})},
		{OpSetWatches2, setWatchesBody(7, []string{"/a"}, nil, nil, []string{"/b"}, nil)},
	} {
		e := &encoder{}
		seed.body(e)
		f.Add(int32(seed.op), e.b)
	}
	f.Fuzz(func(t *testing.T, op int32, body []byte) {
		r := describe(newestRelease, Op(op), 1, body)
		// (What is no UTF-8 grows when it is read as U+FFFD.)
		assert.LessOrEqual(t, len(r.Path), 3*len(body), "%v: more was read than there is", Op(op))
		assert.LessOrEqual(t, len(r.Data), len(body), "%v: more was read than there is", Op(op))
		assert.LessOrEqual(t, len(r.Ops), len(body), "%v: more was read than there is", Op(op))
	})
}

// FuzzConnection sends bytes to a server after a handshake, or in place of one.
// Whatever they are, the server must go on serving others, and must not write a
// frame that is none.
func FuzzConnection(f *testing.F) {
	frame := func(op Op, body func(*encoder)) []byte {
		e := &encoder{b: make([]byte, 4)}
		e.int32(1)
		e.int32(int32(op))
		if body != nil {
			body(e)
		}
		return e.frame()
	}
	f.Add(true, []byte{})
	f.Add(false, []byte("ruok"))
	f.Add(false, []byte("\x00\x00\x00\x1c0123456789012345678901234567"))
	f.Add(true, []byte("\xff\xff\xff\xff"))
	f.Add(true, []byte("\x00\x00\x00\x08\x00\x00\x00\x01\x00\x00\x00\x63"))
	f.Add(true, frame(OpPing, nil))
	f.Add(true, frame(OpClose, nil))
	f.Add(true, frame(OpAuth, authBody("digest", "me:secret")))
	f.Add(true, bytes.Join([][]byte{
		frame(OpCreate, createBody("/a-", "data", 3)),
		frame(OpGetChildren2, watchBody("/", true)),
		frame(OpMulti, multiBody(subOp{OpCreate, createBody("/b", "", 1)}, subOp{OpDelete, versionBody("/b", 0)})),
		frame(OpAddWatch, versionBody("/", 1)),
		frame(OpSetWatches, setWatchesBody(0, []string{"/x"}, []string{"/"}, []string{"/"})),
		frame(OpDelete, versionBody("/a", 7)),
	}, nil))
	srv, err := NewServer(&ServerOptions{NoListen: true})
	require.NoError(f, err)
	f.Cleanup(srv.Close)
	f.Fuzz(func(t *testing.T, handshake bool, sent []byte) {
		c := newRaw(t, srv.Member(0))
		defer c.close()
		if handshake {
			c.handshake(0, nil, time.Second)
		}
		_ = c.nc.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.nc.Write(sent); err == nil {
			// The end of what was sent, so that the server answers what is whole
			// and gives the rest up.
			c.nc.(*pipeEnd).closeWrite()
		}
		answer, err := io.ReadAll(c.nc)
		var netErr net.Error
		require.False(t, errors.As(err, &netErr) && netErr.Timeout(), "the server does not end the connection")
		for handshake && len(answer) > 0 {
			d := &decoder{b: answer}
			reply := d.bytes()
			require.NoError(t, d.err, "no frame: %x", answer)
			require.GreaterOrEqual(t, len(reply), 16, "no frame: %x", answer)
			answer = d.b
		}
		witness := newRaw(t, srv.Member(0))
		defer witness.close()
		witness.handshake(0, nil, time.Second)
		witness.want(codeOK, OpGetChildren2, watchBody("/", false))
		witness.want(codeOK, OpClose, nil)
		if handshake {
			srv.ExpireSession(c.session)
		}
	})
}
