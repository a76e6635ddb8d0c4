package testutil_test

import (
	"cmp"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/zkelection/election/testutil"
)

// A backend is a server under comparison. Runs on one backend follow each other, so that nothing but the run's own
// requests moves the server's zxid.
type backend struct {
	name    string
	release testutil.Release
	dials   []func() (net.Conn, error) // one for each member, the leader's first
	tamper  *tampering                 // nil but in the negative controls

	// restart ends the server's process and starts it again with its data.
	restart func()

	// renew, if not nil, replaces the server by a new one, which happens every renewal.
	renew func(b *backend)
	born  time.Time

	admin *client // lives as long as the server, and looks at the tree from outside
	// witnesses are such clients, one on each member, the admin first: what one has seen its member has applied.
	witnesses []*client

	runs int
}

// The in-process server looks once a minute for containers to delete, and its zxid moves then: it does not live so long.
const renewal = 20 * time.Second

func (b *backend) fresh() {
	if b.renew != nil && time.Since(b.born) > renewal {
		b.close()
		b.admin, b.witnesses, b.born = nil, nil, time.Now()
		b.renew(b)
	}
}

// A client is a session of a run, on the connection that it has at the moment. It is used by one goroutine.
type client struct {
	*wire
	name     string
	member   int // that it connects to
	id       int64
	password []byte
	zxid     int64 // the newest seen
	xid      int32
	open     bool // the connection
	live     bool // the session, as far as the client knows
}

// A run is one script on one backend.
type run struct {
	*backend
	describer
	clients    [sessionsInScript]*client
	transcript []string
	late       bool // see prompt
}

// The session timeouts of both servers: the shortest, for sessions that are to expire, and the one that the others have.
const (
	shortestTimeout = 400 * time.Millisecond
	normalTimeout   = 30_000
	longestTimeout  = time.Minute
)

// prompt does what must be over well before a session of the shortest timeout expires. On a machine that stood still
// meanwhile the script has not been run as written, and the run counts for nothing.
func (r *run) prompt(work func()) {
	begin := time.Now()
	work()
	r.mustBePrompt(begin)
}

func (r *run) mustBePrompt(begin time.Time) {
	r.late = r.late || time.Since(begin) > shortestTimeout/2
}

// execute runs the script and returns what was seen, one line for each answer and event. It leaves no session behind. Not
// ok means that it was not run as written, see [run.prompt].
func (b *backend) execute(script []step) (transcript []string, ok bool) {
	b.fresh()
	r := &run{backend: b, describer: describer{sessions: map[int64]string{}}}
	if b.admin == nil {
		b.admin = &client{wire: &wire{}, name: "outside"}
		r.connect(b.admin, int32(longestTimeout.Milliseconds()))
		r.proveOutside()
		b.witnesses = []*client{b.admin}
		for i := 1; i < len(b.dials); i++ {
			witness := &client{wire: &wire{}, name: fmt.Sprintf("witness of member %d", i), member: i}
			r.connect(witness, int32(longestTimeout.Milliseconds()))
			b.witnesses = append(b.witnesses, witness)
		}
	}
	// The run's node has a parent of its own, because a sequential create at the run's node makes a sibling.
	r.parent = fmt.Sprintf("/c%07d", b.runs)
	b.runs++
	r.outside(step{Op: "create", Path: "^", ACL: openACL})
	r.base = r.outside(step{Op: "create", Path: "^/run", ACL: openACL}).zxid
	r.root = r.parent + "/run"
	r.sessions[b.admin.id] = b.admin.name
	r.transcript = nil
	r.settle() // each has the run's node
	for i := range r.clients {
		r.clients[i] = &client{wire: &wire{}, name: fmt.Sprintf("session %d", i), member: i % len(b.dials)}
	}

	for i, st := range script {
		r.note("step %d: %s", i+1, st)
		r.do(r.clients[st.S], st)
		r.barrier()
	}
	r.note("at the end")
	r.dump("/")
	for _, c := range r.clients {
		if c.live && r.ready(c) {
			r.request(c, step{Op: "closeSession"})
			r.barrier()
		}
		c.hangUp()
	}
	r.note("after the end of all sessions")
	r.dump("/")
	return r.transcript, !r.late
}

// close ends what the backend's own session holds; the server is its maker's to end.
func (b *backend) close() {
	for _, witness := range b.witnesses {
		witness.hangUp()
	}
}

func (r *run) note(format string, args ...any) {
	r.transcript = append(r.transcript, fmt.Sprintf(format, args...))
}

// absolute is the path on the server: "^" stands for the parent of the run's node, which no script touches,
// and "!" for nothing.
func (r *run) absolute(path string) string {
	if within, above := strings.CutPrefix(path, "^"); above {
		return r.parent + within
	}
	switch {
	case path == "/":
		return r.root
	case strings.HasPrefix(path, "/"):
		return r.root + path
	case strings.HasPrefix(path, "!"):
		return path[1:]
	}
	return path
}

// outside sends a request of the backend's own session. Nothing is left to compare when it fails.
func (r *run) outside(st step) packet { return r.ask(r.admin, st) }

func (r *run) ask(c *client, st step) packet {
	err := c.write(r.frame(c, st))
	var p packet
	if err == nil {
		p, err = c.readPacket()
	}
	if err != nil {
		panic(fmt.Sprintf("%s: %s outside the script: %v", r.name, st, err))
	}
	return p
}

// proveOutside gives the connection of the backend's own session the rights of those who appear in scripts.
func (r *run) proveOutside() {
	for _, auth := range []string{"ann:secret", "bob:secret"} {
		r.outside(step{Op: "auth", Scheme: "digest", Auth: auth})
	}
}

// A halfCloser is a connection over TCP.
type halfCloser interface{ CloseWrite() error }

// hangUp ends the connection from the client's side. It waits until the server has done the same: ZooKeeper, when it
// notices the end of a session's old connection only after the session got a new one, forgets the new one.
func (c *client) hangUp() {
	if !c.open {
		return
	}
	c.open = false
	if half, ok := c.conn.(halfCloser); ok && half.CloseWrite() == nil {
		for err := error(nil); err == nil; {
			_, err = c.readFrame()
		}
	}
	_ = c.conn.Close()
}

// lost notes that the connection ended.
func (r *run) lost(c *client, err error) {
	r.note("  %s: %v", c.name, err)
	c.hangUp()
}

// dialWire opens a connection, which replaces nothing yet.
func (r *run) dialWire(member int) (*wire, bool) {
	conn, err := r.dials[member]()
	if err != nil {
		r.note("  dial: %v", err)
		return nil, false
	}
	return &wire{conn: conn, tamper: r.tamper}, true
}

func (r *run) noteConnect(c *client, a connectAnswer) {
	r.note("  %s: connected: version %d timeout %d %s password of %d bytes%s",
		c.name, a.version, a.timeout, r.session(a.id), len(a.password), a.rest)
}

// connect opens a session.
func (r *run) connect(c *client, timeout int32) {
	w, ok := r.dialWire(c.member)
	if !ok {
		return
	}
	a, err := w.handshake(0, timeout, 0, make([]byte, 16))
	if r.tamper != nil && r.tamper.connect != nil {
		r.tamper.connect(&a)
	}
	if err != nil {
		r.note("  %s: connect: %v", c.name, err)
		_ = w.conn.Close()
		return
	}
	if a.id != 0 {
		r.sessions[a.id] = c.name
	}
	r.noteConnect(c, a)
	c.wire, c.id, c.password, c.open, c.live, c.xid = w, a.id, a.password, true, true, 0
}

// resume binds the session to a new connection. The old one, if given back, is still open.
func (r *run) resume(c *client, timeout int32) (old *wire) {
	w, ok := r.dialWire(c.member)
	if !ok {
		return nil
	}
	a, err := w.handshake(c.zxid, timeout, c.id, c.password)
	if err == nil {
		r.noteConnect(c, a)
	}
	if err != nil || a.id != c.id {
		if err != nil {
			r.note("  %s: resume: %v", c.name, err)
		} else if _, err := w.readFrame(); err != nil {
			r.note("  %s: refused: %v", c.name, err)
		}
		_ = w.conn.Close()
		c.hangUp()
		c.live = false
		return nil
	}
	if c.open {
		old = c.wire
	}
	c.wire, c.open, c.password, c.xid = w, true, a.password, 0
	return old
}

// ready brings the session to a connection, if need be.
func (r *run) ready(c *client) bool {
	if !c.open && c.live {
		r.resume(c, normalTimeout)
	}
	if !c.live {
		r.connect(c, normalTimeout)
	}
	return c.open
}

func (r *run) do(c *client, st step) {
	switch st.Op {
	case "restart":
		for _, c := range append(r.clients[:], r.admin) {
			c.hangUp()
		}
		r.restart()
		r.resume(r.admin, int32(longestTimeout.Milliseconds()))
		r.proveOutside()
	case "connectAgain":
		if c.live {
			r.ready(c)
			r.request(c, step{Op: "closeSession"})
		}
		// It may be shorter than the script lasts, so it is only looked at.
		r.prompt(func() {
			r.connect(c, st.Timeout)
			r.request(c, step{Op: "closeSession"})
		})
	case "closeSession":
		if c.live && r.ready(c) {
			r.request(c, st)
		}
	case "drop":
		c.hangUp()
	case "resume":
		if r.ready(c) {
			c.hangUp()
			r.resume(c, normalTimeout)
		}
	case "move":
		if r.ready(c) {
			c.hangUp()
			c.member = (c.member + 1) % len(r.dials)
			r.resume(c, normalTimeout)
		}
	case "moveAndStay":
		if r.ready(c) {
			r.moveAndStay(c, st)
		}
	case "steal":
		if r.ready(c) {
			if old := r.resume(c, normalTimeout); old != nil {
				_, err := old.readFrame()
				r.note("  %s: old connection: %v", c.name, err)
				_ = old.conn.Close()
			}
		}
	case "badPassword":
		if r.ready(c) {
			r.strange(c.member, c.zxid, c.id, []byte("0123456789abcdef"))
		}
	case "unknownSession":
		r.strange(c.member, 0, 0x0123456789abcdef, []byte("0123456789abcdef"))
	case "fromTheFuture":
		r.strange(c.member, 1<<60, 0, make([]byte, 16))
	case "expire":
		if r.ready(c) {
			r.expire(c, st.Watch)
		}
	case "handshake":
		if r.ready(c) {
			r.handshake(c, st)
		}
	case "stream":
		r.stream(st)
	case "burst":
		if r.ready(c) {
			r.request(c, st.Ops...)
		}
	default:
		if r.ready(c) && st.mangled() {
			r.requestMangled(c, st)
		} else if c.open {
			r.request(c, st)
		}
	}
}

// moveAndStay resumes the session at another member while its connection stays open, on which a request is sent then: at the
// leader any shows that the session is elsewhere, at a follower a write.
func (r *run) moveAndStay(c *client, st step) {
	before := *c
	c.member = (c.member + 1) % len(r.dials)
	old := r.resume(c, normalTimeout)
	if old == nil {
		return
	}
	before.wire, before.name = old, c.name+" where it was"
	r.request(&before, st.Ops...)
	before.hangUp()
}

// strange is a handshake that should bring no session.
func (r *run) strange(member int, zxid, id int64, password []byte) {
	w, ok := r.dialWire(member)
	if !ok {
		return
	}
	defer w.conn.Close()
	if r.tamper != nil && r.tamper.password != nil {
		password = r.tamper.password(r, id)
	}
	a, err := w.handshake(zxid, normalTimeout, id, password)
	if err != nil {
		r.note("  stranger: %v", err)
		return
	}
	r.noteConnect(&client{name: "stranger"}, a)
	_, err = w.readFrame()
	r.note("  stranger: %v", err)
}

// expire lets the session end in silence: with its connection open, or cut. A node of its own tells when.
func (r *run) expire(c *client, open bool) {
	r.prompt(func() {
		if old := r.resume(c, 1); old != nil {
			_ = old.conn.Close()
		}
		r.request(c, step{Op: "create", Path: "^/expiring", Flags: 3, ACL: openACL})
	})
	if !c.open {
		return
	}
	if !open {
		c.hangUp()
	}
	if !r.awaitNoMarker() {
		r.note("  %s: never expired", c.name)
		return
	}
	if open {
		r.drain(c)
	}
	c.hangUp()
	c.live = false
}

// drain reads a connection that the server is to close, for the events that came before.
func (r *run) drain(c *client) {
	for {
		p, err := c.receive("")
		if err != nil {
			r.lost(c, err)
			return
		}
		r.noteEvent(c, p)
	}
}

// awaitNoMarker polls, since a watch of the outside session would be one more that the servers could differ in. That a session
// never expires is what it would see, not how soon it does.
func (r *run) awaitNoMarker() bool {
	const patience = 30 * time.Second
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		p := r.outside(step{Op: "getChildren", Path: "^"})
		found := false
		d := &decoder{bytes: p.body}
		for _, child := range d.strings() {
			found = found || strings.HasPrefix(child, "expiring")
		}
		if !found {
			return true
		}
		time.Sleep(2 * time.Millisecond)
	}
	return false
}

// frame is a request with its header.
func (r *run) frame(c *client, st step) []byte {
	if r.tamper != nil && r.tamper.request != nil && c != r.admin {
		st = r.tamper.request(st)
	}
	xid, fixed := fixedXids[st.Op]
	if !fixed {
		c.xid++
		xid = c.xid
	}
	code := opcodes[st.Op]
	if st.Op == "unknown" {
		code = st.Type
	}
	if st.Xid != 0 {
		xid = st.Xid
	}
	var e encoder
	e.int(xid)
	e.int(code)
	e.bytes = append(e.bytes, st.mangle(encodeRequest(st, r.absolute, r.base))...)
	return e.bytes
}

// requestMangled sends what may bring one answer, or none. Those that come before that of a ping belong to it.
func (r *run) requestMangled(c *client, st step) {
	if err := c.write(r.frame(c, st)); err != nil {
		r.lost(c, err)
		return
	}
	ping := fixedXids["ping"]
	switch {
	case st.Op == "unknown":
		// It has an answer, but what stands behind it may have one too, before the connection is closed.
		if code, ok := r.answer(c, st.Op, cmp.Or(st.Xid, c.xid)); ok && code == errUnimplemented {
			r.drain(c)
		}
		return
	case st.Xid == ping || st.Op == "ping":
		// Its own answer looks like that of the ping: so does a ping's, whatever its xid.
		if _, ok := r.answer(c, st.Op, ping); !ok {
			return
		}
	}
	r.untilPing(c, st.Op)
}

// untilPing notes what comes up to the answer of a ping, or up to the end of the connection.
func (r *run) untilPing(c *client, op string) {
	if err := c.write(r.frame(c, step{Op: "ping"})); err != nil {
		r.lost(c, err)
		return
	}
	for {
		p, err := c.receive(op)
		switch {
		case err != nil:
			r.lost(c, err)
			return
		case p.xid == fixedXids["ping"]:
			return
		case p.xid == eventXid && p.err == 0 && len(p.body) > 12:
			r.noteEvent(c, p)
		default:
			c.zxid = max(c.zxid, p.zxid)
			r.note("  %s: %s: xid %d: %s", c.name, op, p.xid, r.reply(op, p))
			if p.err == errUnimplemented || p.err == errAuthFailed {
				r.drain(c)
				return
			}
		}
	}
}

// handshake is that of a stranger, who uses the session that it gets, and closes it.
func (r *run) handshake(c *client, st step) {
	w, ok := r.dialWire(c.member)
	if !ok {
		return
	}
	stranger := &client{wire: w, name: "stranger", open: true}
	var id int64
	switch st.Type {
	case 1:
		id = c.id
	case 2:
		id = 0x0123456789abcdef
	}
	var e encoder
	e.int(st.Version)
	e.long(r.base + st.Zxid)
	e.int(st.Timeout)
	e.long(id)
	e.data(st)
	e.bool(st.Watch)
	defer stranger.hangUp()
	begin := time.Now()
	if err := w.write(st.mangle(e.bytes)); err != nil {
		r.lost(stranger, err)
		return
	}
	a, err := w.readConnectAnswer()
	if err != nil {
		r.lost(stranger, err)
		return
	}
	if a.id != 0 && a.id != c.id {
		r.sessions[a.id] = "stranger"
	}
	r.noteConnect(stranger, a)
	r.untilPing(stranger, "")
	if stranger.open && a.id != c.id {
		r.request(stranger, step{Op: "closeSession"})
	}
	if a.timeout == int32(shortestTimeout.Milliseconds()) {
		r.mustBePrompt(begin)
	}
}

// stream sends bytes on a connection of their own, after a handshake or without, and reads to the end.
func (r *run) stream(st step) {
	w, ok := r.dialWire(0)
	if !ok {
		return
	}
	stranger := &client{wire: w, name: "stranger", open: true}
	if st.Watch {
		a, err := w.handshake(0, normalTimeout, 0, make([]byte, 16))
		if err != nil {
			r.lost(stranger, err)
			return
		}
		stranger.id, stranger.password, stranger.zxid = a.id, a.password, r.base
		r.sessions[a.id] = "stranger"
	}
	_, err := w.conn.Write([]byte(st.Data))
	var got []byte
	if err == nil {
		if half, ok := w.conn.(halfCloser); ok && st.Null {
			_ = half.CloseWrite()
		} else if st.Null {
			_ = w.conn.Close()
		}
		_ = w.conn.SetReadDeadline(time.Now().Add(wireTimeout))
		got, err = io.ReadAll(w.conn)
	}
	stranger.open = false
	_ = w.conn.Close()
	r.note("  stranger: %.100q %v", got, closedOr(err))
	if !st.Watch {
		return
	}
	// The session is ended in any case, which moves the zxid.
	r.resume(stranger, normalTimeout)
	r.request(stranger, step{Op: "closeSession"})
	stranger.hangUp()
}

// request sends the requests at once, and reads an answer for each.
func (r *run) request(c *client, requests ...step) {
	if !c.open {
		return
	}
	frames := make([][]byte, len(requests))
	xids := make([]int32, len(requests))
	for i, st := range requests {
		frames[i] = r.frame(c, st)
		d := decoder{bytes: frames[i]}
		xids[i] = d.int()
	}
	if err := c.write(frames...); err != nil {
		r.lost(c, err)
		return
	}
	for i, st := range requests {
		code, ok := r.answer(c, st.Op, xids[i])
		if !ok {
			return
		}
		if st.Op == "closeSession" {
			c.live = false
		}
		// After these answers the server closes the connection, when it gets round to it.
		if st.Op == "closeSession" || code == errUnimplemented || code == errAuthFailed {
			r.drain(c)
			return
		}
	}
}

// answer reads up to the reply of a request, noting what comes before it, and returns the reply's error.
func (r *run) answer(c *client, op string, xid int32) (code int32, ok bool) {
	for {
		p, err := c.receive(op)
		if err != nil {
			r.lost(c, err)
			return 0, false
		}
		if p.xid == eventXid {
			r.noteEvent(c, p)
			continue
		}
		c.zxid = max(c.zxid, p.zxid)
		note := ""
		if p.xid != xid {
			note = fmt.Sprintf(" xid %d instead of %d", p.xid, xid)
		}
		r.note("  %s: %s: %s%s", c.name, op, r.reply(op, p), note)
		return p.err, true
	}
}

func (r *run) noteEvent(c *client, p packet) {
	if p.xid != eventXid {
		r.note("  %s: unasked: %s", c.name, r.reply("", p))
		return
	}
	r.note("  %s: %s", c.name, r.event(p))
}

// barrier collects the events that the last step brought to each session: they are written to a connection before the
// answer to a ping that is sent afterwards, once the connection's member has applied the step.
func (r *run) barrier() {
	r.settle()
	for _, c := range r.clients {
		r.request(c, step{Op: "ping"})
	}
}

// settle waits until every member has applied all that was answered by any of them. What a client has been told its member
// has applied, but no other one need have: a follower may be ahead of the leader, and a real member answers even a sync before
// it has applied what another session's request had committed. So each is asked after the answers, and then again until it
// shows what the foremost of them has shown; what the clients themselves have seen would lack what was done by a stranger,
// and the beginning of a session, whose answer shows no zxid.
func (r *run) settle() {
	if len(r.witnesses) == 1 {
		return // one member does all things in the order in which it is asked
	}
	shown := make([]int64, len(r.witnesses))
	ask := func(i int) { shown[i] = r.ask(r.witnesses[i], step{Op: "sync", Path: "/"}).zxid }
	for i := range shown {
		ask(i)
	}
	foremost := slices.Max(shown)
	for i := range shown {
		for shown[i] < foremost {
			time.Sleep(time.Millisecond)
			ask(i)
		}
	}
}

// dump notes the whole tree of the run, as the outside session sees it.
func (r *run) dump(path string) {
	for _, op := range []string{"getData", "getACL", "getChildren2"} {
		p := r.outside(step{Op: op, Path: path})
		r.note("  %s %q: %s", op, path, r.reply(op, p))
		if op != "getChildren2" || p.err != 0 {
			continue
		}
		d := &decoder{bytes: p.body}
		for _, child := range d.strings() {
			r.dump(strings.TrimSuffix(path, "/") + "/" + child)
		}
	}
}
