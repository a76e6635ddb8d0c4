package zxid

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// script is a net.Conn that reads what it is given, in pieces of one size, and
// keeps what is written.
type script struct {
	net.Conn
	in    []byte
	piece int
	out   [][]byte
}

func (s *script) Read(p []byte) (int, error) {
	if len(s.in) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), s.piece)], s.in)
	s.in = s.in[n:]
	return n, nil
}

func (s *script) Write(p []byte) (int, error) {
	s.out = append(s.out, bytes.Clone(p))
	return len(p), nil
}

func framed(body []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

func hello(zxid, session int64) []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 4), uint64(zxid))
	b = binary.BigEndian.AppendUint32(b, 4000)
	b = binary.BigEndian.AppendUint64(b, uint64(session))
	return framed(append(b, make([]byte, 20)...))
}

func request(xid, op int32, zxid int64, rest string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(xid))
	b = binary.BigEndian.AppendUint32(b, uint32(op))
	b = binary.BigEndian.AppendUint64(b, uint64(zxid))
	return framed(append(b, rest...))
}

func answer(xid int32, zxid int64, rest string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(xid))
	b = binary.BigEndian.AppendUint64(b, uint64(zxid))
	return framed(append(b, "code"+rest...))
}

// Whatever comes in, in whatever pieces: the client reads no zxid, and the
// server is told of the right one.
func TestKeeper(t *testing.T) {
	greeting := framed(make([]byte, 37))
	copy(greeting[8:], "grant, session, password")
	event := framed([]byte("\xff\xff\xff\xffan event's zxid is not touched"))
	for _, piece := range []int{1, 3, 4, 7, 16, 1000} {
		t.Run(fmt.Sprint(piece), func(t *testing.T) {
			var k keeper
			connect := func(in ...[]byte) (*script, net.Conn) {
				s := &script{in: bytes.Join(in, nil), piece: piece}
				return s, k.wrap(s)
			}
			write := func(c net.Conn, s *script, p []byte) []byte {
				before := bytes.Clone(p)
				n, err := c.Write(p)
				require.NoError(t, err)
				require.Equal(t, len(p), n)
				require.Equal(t, before, p, "the caller's bytes were changed")
				return s.out[len(s.out)-1]
			}
			read := func(c net.Conn) []byte {
				b, err := io.ReadAll(c)
				require.NoError(t, err)
				return b
			}

			// A new session: nothing to remember, and watches that were set on this
			// connection are told of nothing old.
			s, c := connect(greeting, answer(1, 0x11, "x"), event, answer(-2, 0x99, ""), answer(2, 0x12, "some body"), framed([]byte("short")))
			assert.Equal(t, hello(0, 0), write(c, s, hello(0, 0)))
			assert.Equal(t, bytes.Join([][]byte{greeting, answer(1, 0, "x"), event, answer(-2, 0x99, ""), answer(2, 0, "some body"), framed([]byte("short"))}, nil), read(c))
			assert.Equal(t, request(7, opSetWatches, 0x12, "paths"), write(c, s, request(7, opSetWatches, 0, "paths")))
			assert.Equal(t, request(8, 4, 0, "another request"), write(c, s, request(8, 4, 0, "another request")))

			// Resumed: the handshake tells how far it had seen, and so do the watches,
			// whatever was answered on this connection before they are sent.
			s, c = connect(greeting, answer(3, 0x30, ""))
			assert.Equal(t, hello(0x12, 5), write(c, s, hello(0, 5)))
			read(c)
			for range 2 {
				assert.Equal(t, request(9, opSetWatches, 0x12, ""), write(c, s, request(9, opSetWatches, 0, "")))
			}

			// An answer that breaks off was not seen by the client either.
			broken := answer(4, 0x40, "breaks off")
			s, c = connect(greeting, broken[:len(broken)-1])
			assert.Equal(t, hello(0x30, 5), write(c, s, hello(0, 5)))
			assert.Equal(t, append(bytes.Clone(greeting), answer(4, 0, "breaks off")[:len(broken)-1]...), read(c))
			s, c = connect(greeting)
			assert.Equal(t, hello(0x30, 5), write(c, s, hello(0, 5)))

			// The next session begins anew.
			s, c = connect(greeting)
			assert.Equal(t, hello(0, 0), write(c, s, hello(0, 0)))
			s, c = connect(greeting)
			assert.Equal(t, hello(0, 6), write(c, s, hello(0, 6)))
		})
	}
}

// What is not the protocol passes unchanged, and harms nothing.
func TestNotTheProtocol(t *testing.T) {
	for seed := range uint64(1000) {
		rng := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // a test
		in := make([]byte, rng.IntN(200))
		for i := range in {
			in[i] = byte(rng.Uint32())
		}
		var k keeper
		s := &script{in: bytes.Clone(in), piece: 1 + rng.IntN(9)}
		c := k.wrap(s)
		_, err := c.Write(in)
		require.NoError(t, err)
		got, err := io.ReadAll(c)
		require.NoError(t, err)
		require.Len(t, got, len(in))
	}
	in := []byte("HTTP/1.1 400 Bad Request\r\n\r\n")
	var k keeper
	got, err := io.ReadAll(k.wrap(&script{in: bytes.Clone(in), piece: 5}))
	require.NoError(t, err)
	assert.Equal(t, in, got)
	in = []byte("\xff\xff\xff\xffHTTP/1.1 400 Bad Request\r\n\r\n")
	got, err = io.ReadAll(k.wrap(&script{in: bytes.Clone(in), piece: 5}))
	require.NoError(t, err)
	assert.Equal(t, in, got)
}
