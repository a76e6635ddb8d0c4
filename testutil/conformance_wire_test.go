package testutil_test

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// This file is a ZooKeeper client of its own, as raw as can be: it shares no line with the server's codec, so that one
// mistake cannot be on both sides.

// opcodes of ZooDefs.OpCode, by the names that scripts use.
var opcodes = map[string]int32{
	"create": 1, "delete": 2, "exists": 3, "getData": 4, "setData": 5, "getACL": 6, "setACL": 7, "getChildren": 8,
	"sync": 9, "ping": 11, "getChildren2": 12, "check": 13, "multi": 14, "create2": 15, "checkWatches": 17,
	"removeWatches": 18, "createContainer": 19, "deleteContainer": 20, "createTTL": 21, "multiRead": 22, "auth": 100, "setWatches": 101,
	"getEphemerals": 103, "getAllChildrenNumber": 104, "setWatches2": 105, "addWatch": 106, "whoAmI": 107,
	"closeSession": -11,
}

// xids that are the same for each request of their kind; what is not here gets one of a running count.
var fixedXids = map[string]int32{"ping": -2, "auth": -4, "setWatches": -8, "setWatches2": -8}

const (
	eventXid         = -1
	errUnimplemented = -6
	errAuthFailed    = -115
)

// errorNames are those of KeeperException.Code that a client can be sent.
var errorNames = map[int32]string{
	0: "ok", -1: "SystemError", -2: "RuntimeInconsistency", -3: "DataInconsistency", -4: "ConnectionLoss",
	-5: "MarshallingError", -6: "Unimplemented", -7: "OperationTimeout", -8: "BadArguments", -100: "APIError",
	-101: "NoNode", -102: "NoAuth", -103: "BadVersion", -108: "NoChildrenForEphemerals", -110: "NodeExists",
	-111: "NotEmpty", -112: "SessionExpired", -113: "InvalidCallback", -114: "InvalidACL", -115: "AuthFailed",
	-118: "SessionMoved", -119: "NotReadOnly", -120: "EphemeralOnLocalSession", -121: "NoWatcher",
	-122: "RequestTimeout", -125: "QuotaExceeded", -127: "Throttled",
}

func errorName(code int32) string {
	if name, known := errorNames[code]; known {
		return name
	}
	return fmt.Sprintf("error %d", code)
}

// An encoder appends what jute writes.
type encoder struct{ bytes []byte }

func (e *encoder) int(v int32)  { e.bytes = binary.BigEndian.AppendUint32(e.bytes, uint32(v)) }
func (e *encoder) long(v int64) { e.bytes = binary.BigEndian.AppendUint64(e.bytes, uint64(v)) }
func (e *encoder) buffer(v []byte) {
	e.int(int32(len(v)))
	e.bytes = append(e.bytes, v...)
}
func (e *encoder) string(v string) { e.buffer([]byte(v)) }

func (e *encoder) data(st step) {
	switch {
	case st.Null:
		e.int(-1)
	case st.Size > 0:
		e.buffer(make([]byte, st.Size))
	default:
		e.string(st.Data)
	}
}

func (e *encoder) bool(v bool) {
	if v {
		e.bytes = append(e.bytes, 1)
	} else {
		e.bytes = append(e.bytes, 0)
	}
}

func (e *encoder) strings(list []string) {
	e.int(int32(len(list)))
	for _, s := range list {
		e.string(s)
	}
}

// A decoder reads what jute writes. Reading past the end gives zeros and sets short.
type decoder struct {
	bytes []byte
	short bool
}

func (d *decoder) take(n int) []byte {
	if n < 0 || n > len(d.bytes) {
		d.short, d.bytes = true, nil
		return nil
	}
	taken := d.bytes[:n]
	d.bytes = d.bytes[n:]
	return taken
}

func (d *decoder) int() int32 {
	if b := d.take(4); b != nil {
		return int32(binary.BigEndian.Uint32(b))
	}
	return 0
}

func (d *decoder) long() int64 {
	if b := d.take(8); b != nil {
		return int64(binary.BigEndian.Uint64(b))
	}
	return 0
}

func (d *decoder) bool() bool {
	b := d.take(1)
	return b != nil && b[0] != 0
}

// buffer tells a null one (length -1) from an empty one.
func (d *decoder) buffer() (_ []byte, null bool) {
	n := d.int()
	if n == -1 {
		return nil, true
	}
	return d.take(int(n)), false
}

func (d *decoder) string() string {
	b, null := d.buffer()
	if null {
		return "(null)"
	}
	return string(b)
}

// strings reads a vector, the null one as nil.
func (d *decoder) strings() []string {
	n := d.int()
	var list []string
	for i := int32(0); i < n && !d.short; i++ {
		list = append(list, d.string())
	}
	return list
}

// rest describes what the decoder should not have left, or lacked.
func (d *decoder) rest() string {
	switch {
	case d.short:
		return " (cut short)"
	case len(d.bytes) > 64:
		return fmt.Sprintf(" (and %d bytes)", len(d.bytes))
	case len(d.bytes) > 0:
		return " (and " + hex.EncodeToString(d.bytes) + ")"
	}
	return ""
}

// A packet is one frame from the server.
type packet struct {
	xid  int32
	zxid int64
	err  int32
	body []byte
}

var errClosed = errors.New("closed")

// wireTimeout bounds each read: whatever the script asks, both servers answer in milliseconds.
const wireTimeout = 10 * time.Second

// A wire is one connection. It is used by one goroutine.
type wire struct {
	conn   net.Conn
	tamper *tampering
	// held are packets to be received before the connection is read again.
	held []packet
}

func (w *wire) write(frames ...[]byte) error {
	var all []byte
	for _, frame := range frames {
		all = binary.BigEndian.AppendUint32(all, uint32(len(frame)))
		all = append(all, frame...)
	}
	if err := w.conn.SetWriteDeadline(time.Now().Add(wireTimeout)); err != nil {
		return errClosed
	}
	if _, err := w.conn.Write(all); err != nil {
		return closedOr(err)
	}
	return nil
}

func (w *wire) readFrame() ([]byte, error) {
	if err := w.conn.SetReadDeadline(time.Now().Add(wireTimeout)); err != nil {
		return nil, errClosed
	}
	var length [4]byte
	if _, err := io.ReadFull(w.conn, length[:]); err != nil {
		return nil, closedOr(err)
	}
	frame := make([]byte, binary.BigEndian.Uint32(length[:])&(64<<20-1))
	if _, err := io.ReadFull(w.conn, frame); err != nil {
		return nil, closedOr(err)
	}
	return frame, nil
}

// closedOr makes no difference between the ways in which a connection ends, which depend on what is under way.
func closedOr(err error) error {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return fmt.Errorf("no answer in %v", wireTimeout)
	}
	return errClosed
}

func (w *wire) readPacket() (packet, error) {
	frame, err := w.readFrame()
	if err != nil {
		return packet{}, err
	}
	d := &decoder{bytes: frame}
	p := packet{xid: d.int(), zxid: d.long(), err: d.int(), body: d.bytes}
	if d.short {
		return packet{}, fmt.Errorf("a reply of %d bytes", len(frame))
	}
	return p, nil
}

// receive is readPacket for a script, op being the request whose answer is awaited: here answers are tampered with.
func (w *wire) receive(op string) (packet, error) {
	if len(w.held) > 0 {
		p := w.held[0]
		w.held = w.held[1:]
		return p, nil
	}
	p, err := w.readPacket()
	if err != nil || w.tamper == nil || w.tamper.packet == nil {
		return p, err
	}
	w.held = w.tamper.packet(w, op, p)
	return w.receive(op)
}

// connectAnswer is the server's ConnectResponse.
type connectAnswer struct {
	version, timeout int32
	id               int64
	password         []byte
	rest             string
}

// handshake sends a ConnectRequest and reads its answer.
func (w *wire) handshake(zxid int64, timeout int32, id int64, password []byte) (connectAnswer, error) {
	if err := w.greet(zxid, timeout, id, password); err != nil {
		return connectAnswer{}, err
	}
	return w.readConnectAnswer()
}

// greet sends a handshake.
func (w *wire) greet(zxid int64, timeout int32, id int64, password []byte) error {
	var e encoder
	e.int(0)
	e.long(zxid)
	e.int(timeout)
	e.long(id)
	e.buffer(password)
	e.bool(false) // no read-only server
	return w.write(e.bytes)
}

func (w *wire) readConnectAnswer() (connectAnswer, error) {
	frame, err := w.readFrame()
	if err != nil {
		return connectAnswer{}, err
	}
	d := &decoder{bytes: frame}
	a := connectAnswer{version: d.int(), timeout: d.int(), id: d.long()}
	a.password, _ = d.buffer()
	a.rest = d.rest()
	return a, nil
}

// encodeRequest is a step as a request's body, paths mapped to those of this run.
func encodeRequest(st step, absolute func(string) string, base int64) []byte {
	var e encoder
	path := absolute(st.Path)
	switch st.Op {
	case "create", "create2", "createContainer", "createTTL":
		e.path(st, path)
		e.data(st)
		e.acl(st.ACL)
		e.int(st.Flags)
		if st.Op == "createTTL" {
			e.long(st.TTL)
		}
	case "delete", "check":
		e.path(st, path)
		e.int(st.Version)
	case "exists", "getData", "getChildren", "getChildren2":
		e.path(st, path)
		e.bool(st.Watch)
	case "setData":
		e.path(st, path)
		e.data(st)
		e.int(st.Version)
	case "getACL", "sync", "deleteContainer", "getEphemerals", "getAllChildrenNumber":
		e.path(st, path)
	case "setACL":
		e.path(st, path)
		e.acl(st.ACL)
		e.int(st.Version)
	case "checkWatches", "removeWatches", "addWatch":
		e.path(st, path)
		e.int(st.Type)
	case "multi", "multiRead":
		for _, op := range st.Ops {
			e.int(opcodes[op.Op])
			e.bool(false)
			e.int(-1)
			e.bytes = append(e.bytes, encodeRequest(op, absolute, base)...)
		}
		e.int(-1)
		e.bool(true)
		e.int(-1)
	case "auth":
		e.int(0)
		e.string(st.Scheme)
		e.buffer([]byte(st.Auth))
	case "setWatches", "setWatches2":
		e.long(base + st.Zxid)
		lists := 3
		if st.Op == "setWatches2" {
			lists = 5
		}
		for i := range lists {
			var paths []string
			if i < len(st.Paths) {
				for _, p := range st.Paths[i] {
					paths = append(paths, absolute(p))
				}
			}
			e.strings(paths)
		}
	case "unknown":
		e.path(st, path)
	}
	return e.bytes
}

// path writes null if the step says so.
func (e *encoder) path(st step, path string) {
	if st.NullPath {
		e.int(-1)
		return
	}
	e.string(path)
}

func (e *encoder) acl(list []scriptACL) {
	e.int(int32(len(list)))
	for _, a := range list {
		e.int(a.Perms)
		e.string(a.Scheme)
		e.string(a.ID)
	}
}

// A describer turns answers into text in which two runs of a script are equal if the servers are: paths and zxids
// relative to the run's, sessions by number, times only as plausible or not.
type describer struct {
	parent   string // of root
	root     string
	base     int64
	sessions map[int64]string
}

func (r *describer) zxid(z int64) string {
	if z == 0 || z == -1 {
		return fmt.Sprint(z)
	}
	return fmt.Sprintf("%+d", z-r.base)
}

func (r *describer) path(p string) string {
	if rest, within := strings.CutPrefix(p, r.root); within {
		p = "~" + rest
	} else if rest, above := strings.CutPrefix(p, r.parent); above {
		p = "^" + rest
	}
	if quoted := strconv.QuoteToASCII(p); quoted != `"`+p+`"` {
		return quoted
	}
	return p
}

func (r *describer) paths(list []string) []string {
	var described []string
	for _, p := range list {
		described = append(described, r.path(p))
	}
	return described
}

func (r *describer) session(id int64) string {
	if name, known := r.sessions[id]; known {
		return name
	}
	if id == 0 {
		return "none"
	}
	return fmt.Sprintf("%#x", uint64(id)) // the marks of containers and TTLs among others
}

func (r *describer) stat(d *decoder) string {
	czxid, mzxid := d.long(), d.long()
	ctime, mtime := time.UnixMilli(d.long()), time.UnixMilli(d.long())
	version, cversion, aversion := d.int(), d.int(), d.int()
	owner := d.long()
	length, children := d.int(), d.int()
	pzxid := d.long()
	times := ""
	if time.Since(ctime).Abs() > time.Hour || time.Since(mtime).Abs() > time.Hour || mtime.Before(ctime) {
		times = " implausible times"
	}
	return fmt.Sprintf("{czxid %s mzxid %s pzxid %s version %d cversion %d aversion %d owner %s length %d children %d%s}",
		r.zxid(czxid), r.zxid(mzxid), r.zxid(pzxid), version, cversion, aversion, r.session(owner), length, children, times)
}

func (r *describer) acl(d *decoder) string {
	var list []string
	for n := d.int(); n > 0 && !d.short; n-- {
		perms, scheme, id := d.int(), d.string(), d.string()
		list = append(list, fmt.Sprintf("%d:%s:%s", perms, scheme, id))
	}
	return fmt.Sprint(list)
}

// quoteData keeps long data out of the transcript.
func quoteData(data []byte, null bool) string {
	if null {
		return "null"
	}
	if len(data) > 100 {
		return fmt.Sprintf("%d bytes %.10q…", len(data), data)
	}
	return fmt.Sprintf("%q", data)
}

func (r *describer) event(p packet) string {
	d := &decoder{bytes: p.body}
	kind, state, path := d.int(), d.int(), d.string()
	names := map[int32]string{1: "created", 2: "deleted", 3: "data changed", 4: "children changed"}
	name, known := names[kind]
	if !known {
		name = fmt.Sprintf("type %d", kind)
	}
	return fmt.Sprintf("event %s %s state %d zxid %s error %d%s", name, r.path(path), state, r.zxid(p.zxid), p.err, d.rest())
}

// reply describes the answer to a request.
func (r *describer) reply(op string, p packet) string {
	text := fmt.Sprintf("zxid %s %s", r.zxid(p.zxid), errorName(p.err))
	d := &decoder{bytes: p.body}
	if p.err == 0 || op == "multi" || op == "multiRead" {
		text += r.result(op, d)
	}
	return text + d.rest()
}

func (r *describer) result(op string, d *decoder) string {
	switch op {
	case "create", "sync":
		return " " + r.path(d.string())
	case "create2", "createContainer", "createTTL":
		return " " + r.path(d.string()) + " " + r.stat(d)
	case "exists", "setData", "setACL":
		return " " + r.stat(d)
	case "getData":
		data := quoteData(d.buffer())
		return " " + data + " " + r.stat(d)
	case "getACL":
		acl := r.acl(d)
		return " " + acl + " " + r.stat(d)
	case "getChildren", "getEphemerals":
		return fmt.Sprint(" ", r.paths(d.strings()))
	case "getChildren2":
		children := r.paths(d.strings())
		return fmt.Sprint(" ", children, " ", r.stat(d))
	case "getAllChildrenNumber":
		return fmt.Sprint(" ", d.int())
	case "whoAmI":
		var infos []string
		for n := d.int(); n > 0 && !d.short; n-- {
			scheme, user := d.string(), d.string()
			infos = append(infos, scheme+":"+user)
		}
		return fmt.Sprint(" ", infos)
	case "multi", "multiRead":
		return r.results(d)
	}
	return ""
}

// results describes the parts of a multi's answer.
func (r *describer) results(d *decoder) string {
	if len(d.bytes) == 0 {
		return ""
	}
	names := make(map[int32]string, len(opcodes))
	for name, code := range opcodes {
		names[code] = name
	}
	var parts []string
	for !d.short {
		code, done, err := d.int(), d.bool(), d.int()
		if done {
			parts = append(parts, fmt.Sprintf("end %d %d", code, err))
			break
		}
		if code == -1 {
			parts = append(parts, fmt.Sprintf("error %s %s", errorName(err), errorName(d.int())))
			continue
		}
		name, known := names[code]
		if !known {
			parts = append(parts, fmt.Sprintf("op %d", code))
			break
		}
		parts = append(parts, fmt.Sprintf("%s %d%s", name, err, r.result(name, d)))
	}
	return " [" + strings.Join(parts, "; ") + "]"
}
