package testutil

import (
	"encoding/binary"
	"errors"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// The wire format: big-endian integers, strings and buffers behind a 32-bit
// length in which -1 is null, vectors behind a 32-bit count, records without
// any framing of their own. Nothing here knows what a field means.

var (
	errShort  = errors.New("record ends too early")
	errLength = errors.New("length out of range")
)

// A decoder reads fields from a frame. The first error sticks; every read after
// it gives zero values.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err = err
		d.b = nil
	}
}

func (d *decoder) take(n int) []byte {
	if len(d.b) < n {
		d.fail(errShort)
		return nil
	}
	p := d.b[:n:n]
	d.b = d.b[n:]
	return p
}

func (d *decoder) bool() bool {
	p := d.take(1)
	return p != nil && p[0] != 0
}

func (d *decoder) int32() int32 {
	p := d.take(4)
	if p == nil {
		return 0
	}
	return int32(binary.BigEndian.Uint32(p))
}

func (d *decoder) int64() int64 {
	p := d.take(8)
	if p == nil {
		return 0
	}
	return int64(binary.BigEndian.Uint64(p))
}

// bytes reads a buffer; null is nil, and an empty one is not. The result shares
// the frame's memory, which is never used again.
func (d *decoder) bytes() []byte {
	n := d.int32()
	if d.err != nil || n == -1 {
		return nil
	}
	if n < 0 || int(n) > len(d.b) {
		d.fail(errLength)
		return nil
	}
	if n == 0 {
		return []byte{}
	}
	return d.take(int(n))
}

// nullText stands for a null string where it differs from an empty one. It is no
// UTF-8, so no client can send it.
const nullText = "\xff"

// string reads a string; null is nullText, and what it means is for the operation to
// say.
func (d *decoder) string() string {
	p := d.bytes()
	if p == nil {
		return nullText
	}
	return asText(p)
}

// nullableString reads a string for which null and empty are the same.
func (d *decoder) nullableString() string {
	return asText(d.bytes())
}

// asText reads what is no UTF-8 as Java does: a character that breaks off is one U+FFFD,
// and so are a surrogate, which takes three bytes, and each byte that begins nothing.
func asText(p []byte) string {
	if utf8.Valid(p) {
		return string(p)
	}
	var text []rune
	for len(p) > 0 {
		if r, size := utf8.DecodeRune(p); r != utf8.RuneError || size > 1 {
			text, p = append(text, r), p[size:]
			continue
		}
		text, p = append(text, utf8.RuneError), p[brokenOff(p):]
	}
	return string(text)
}

// brokenOff is how many bytes at the beginning, which is that of no character, Java takes for
// one: as far as they might have become one, a surrogate included.
func brokenOff(p []byte) int {
	least, most := byte(0x80), byte(0xbf) // of the second byte
	size := 1
	switch first := p[0]; {
	case first >= 0xc2 && first <= 0xdf:
		size = 2
	case first >= 0xe0 && first <= 0xef:
		size = 3
		if first == 0xe0 {
			least = 0xa0
		}
	case first >= 0xf0 && first <= 0xf4:
		size = 4
		switch first {
		case 0xf0:
			least = 0x90
		case 0xf4:
			most = 0x8f
		}
	}
	n := 1
	for n < min(size, len(p)) && p[n] >= least && p[n] <= most {
		least, most = 0x80, 0xbf
		n++
	}
	return n
}

// count reads the length of a vector whose elements take at least size bytes
// each, so that a forged count cannot make the reader allocate.
func (d *decoder) count(size int) int {
	n := d.int32()
	if d.err != nil || n <= 0 {
		return 0
	}
	if int(n) > len(d.b)/size {
		d.fail(errLength)
		return 0
	}
	return int(n)
}

// isNull reports whether what comes next is a string, a buffer or a vector that is null. It
// reads nothing.
func (d *decoder) isNull() bool {
	return len(d.b) >= 4 && int32(binary.BigEndian.Uint32(d.b)) == -1
}

// strings reads a vector of strings; null is nil, and an empty one is not.
func (d *decoder) strings() []string {
	if d.isNull() {
		d.int32()
		return nil
	}
	n := d.count(4)
	list := make([]string, 0, n)
	for range n {
		list = append(list, d.string())
	}
	return list
}

// acls reads a list of access rights; null is the empty list.
func (d *decoder) acls() []acl {
	n := d.count(12)
	list := make([]acl, 0, n)
	for range n {
		list = append(list, acl{perms: d.int32(), id: identity{scheme: d.string(), id: d.string()}})
	}
	return list
}

// An encoder appends fields to a frame.
type encoder struct {
	b []byte
}

func (e *encoder) bool(v bool) {
	if v {
		e.b = append(e.b, 1)
	} else {
		e.b = append(e.b, 0)
	}
}

func (e *encoder) int32(v int32) { e.b = binary.BigEndian.AppendUint32(e.b, uint32(v)) }
func (e *encoder) int64(v int64) { e.b = binary.BigEndian.AppendUint64(e.b, uint64(v)) }

func (e *encoder) string(s string) {
	s = asJava(s)
	e.int32(int32(len(s)))
	e.b = append(e.b, s...)
}

// asJava writes each character beyond U+FFFF as a pair of surrogates of three
// bytes each, as ZooKeeper does in what it sends.
func asJava(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r > 0xffff }) {
		return s
	}
	var p []byte
	for _, r := range s {
		if r <= 0xffff {
			p = utf8.AppendRune(p, r)
			continue
		}
		for _, half := range utf16.Encode([]rune{r}) {
			p = append(p, 0xe0|byte(half>>12), 0x80|byte(half>>6&0x3f), 0x80|byte(half&0x3f))
		}
	}
	return string(p)
}

func (e *encoder) bytes(p []byte) {
	if p == nil {
		e.int32(-1)
		return
	}
	e.int32(int32(len(p)))
	e.b = append(e.b, p...)
}

func (e *encoder) strings(list []string) {
	e.int32(int32(len(list)))
	for _, s := range list {
		e.string(s)
	}
}

func (e *encoder) acls(list []acl) {
	e.int32(int32(len(list)))
	for _, a := range list {
		e.int32(a.perms)
		e.string(a.id.scheme)
		e.string(a.id.id)
	}
}

func (e *encoder) stat(s *stat) {
	e.int64(s.czxid)
	e.int64(s.mzxid)
	e.int64(s.ctime)
	e.int64(s.mtime)
	e.int32(s.version)
	e.int32(s.cversion)
	e.int32(s.aversion)
	e.int64(s.ephemeralOwner)
	e.int32(s.dataLength)
	e.int32(s.numChildren)
	e.int64(s.pzxid)
}

// newReply begins a frame: room for its length, then the reply's header.
func newReply(xid int32, zxid int64, err code) *encoder {
	e := &encoder{b: make([]byte, 4, 128)}
	e.int32(xid)
	e.int64(zxid)
	e.int32(int32(err))
	return e
}

// frame puts the length in front and gives the finished frame.
func (e *encoder) frame() []byte {
	binary.BigEndian.PutUint32(e.b, uint32(len(e.b)-4))
	return e.b
}
