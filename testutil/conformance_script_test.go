package testutil_test

import (
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/zkelection/election/testutil"
)

// A step is one line of a script: a request, or something done to a session. Paths are relative to the run's own node,
// which is "/"; one that does not begin with a slash is sent as it is.
//
// A session is connected at its first step, resumed if the server has closed its connection, and opened anew after its
// end. So a script stays a script whatever steps are taken out of it, which shrinking needs.
type step struct {
	Op      string      `json:"op"`
	S       int         `json:"s,omitempty"`
	Path    string      `json:"path,omitempty"`
	Data    string      `json:"data,omitempty"`
	Size    int         `json:"size,omitempty"` // as many zero bytes instead of Data
	Null    bool        `json:"null,omitempty"` // null instead of Data
	Version int32       `json:"version,omitempty"`
	Flags   int32       `json:"flags,omitempty"`
	TTL     int64       `json:"ttl,omitempty"`
	ACL     []scriptACL `json:"acl,omitempty"`
	Watch   bool        `json:"watch,omitempty"`
	Type    int32       `json:"type,omitempty"` // of watches, an addWatch's mode, an unknown request's code
	Zxid    int64       `json:"zxid,omitempty"` // relative to the run's start
	Paths   [][]string  `json:"paths,omitempty"`
	Scheme  string      `json:"scheme,omitempty"`
	Auth    string      `json:"auth,omitempty"`
	Timeout int32       `json:"timeout,omitempty"` // of a new session, in ms
	Ops     []step      `json:"ops,omitempty"`     // of multi, multiRead and burst

	// What makes of a request one that no client sends, see mangled. In a handshake they do the same to it.
	NullPath bool    `json:"nullPath,omitempty"`
	Xid      int32   `json:"xid,omitempty"` // instead of the one that is due
	Put      []int32 `json:"put,omitempty"` // where in the body, and the number that is put there; then where else, and so on
	Cut      int     `json:"cut,omitempty"` // as many bytes are left out at the end
	Pad      string  `json:"pad,omitempty"` // is added there
}

// mangled reports whether nobody can say beforehand what comes back: one answer, or none, or the end of the connection.
func (st step) mangled() bool {
	return st.NullPath || st.Xid != 0 || st.Put != nil || st.Cut != 0 || st.Pad != ""
}

// mangle changes the bytes of what would have been a request.
func (st step) mangle(body []byte) []byte {
	for put := range slices.Chunk(st.Put, 2) {
		if len(put) == 2 && int(put[0])+4 <= len(body) {
			binary.BigEndian.PutUint32(body[put[0]:], uint32(put[1]))
		}
	}
	return append(body[:max(0, len(body)-st.Cut)], st.Pad...)
}

type scriptACL struct {
	Perms  int32  `json:"perms"`
	Scheme string `json:"scheme"`
	ID     string `json:"id"`
}

func (st step) String() string {
	text, err := json.Marshal(st)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// operations counts the requests of a script, those within others and the connects included.
func operations(script []step) int {
	n := 0
	for _, st := range script {
		n += max(1, len(st.Ops))
	}
	return n
}

// parseScript reads a script as differences are printed: a step in a line. Lines that begin with # are comments.
func parseScript(text string) ([]step, error) {
	var script []step
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		var st step
		decoder := json.NewDecoder(strings.NewReader(line))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&st); err != nil {
			return nil, fmt.Errorf("%s: %w", line, err)
		}
		script = append(script, st)
	}
	return script, nil
}

const sessionsInScript = 4

var openACL = []scriptACL{{31, "world", "anyone"}}

func digestOf(user, password string) string {
	sum := sha1.Sum([]byte(user + ":" + password))
	return user + ":" + base64.StdEncoding.EncodeToString(sum[:])
}

// A generator makes scripts. It remembers roughly what may exist, so that about two in three requests meet a node.
type generator struct {
	*rand.Rand
	release testutil.Release
	members int // of the servers; more than one bring steps of their own, and none that the real ones do not survive
	known   []string
	session int                      // of the step that is being made
	watched [sessionsInScript]string // what the last watch of each session is on
}

// generate makes a script for one server of ZooKeeper 3.9.
func generate(seed uint64, length int) []step {
	return generateFor(testutil.ZooKeeper39, 1, seed, length)
}

func generateFor(release testutil.Release, members int, seed uint64, length int) []step {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 0)), release: release, members: members}
	script := make([]step, length)
	for i := range script {
		script[i] = g.step()
	}
	return script
}

// weighted picks one of the functions, each as often as its weight says.
func weighted[T any](g *generator, choices ...choice[T]) T {
	sum := 0
	for _, c := range choices {
		sum += c.weight
	}
	n := g.IntN(sum)
	for _, c := range choices {
		if n -= c.weight; n < 0 {
			return c.make()
		}
	}
	panic("unreachable")
}

type choice[T any] struct {
	weight int
	make   func() T
}

func pick[T any](g *generator, list ...T) T { return list[g.IntN(len(list))] }

func (g *generator) step() step {
	g.session = g.IntN(sessionsInScript)
	st := weighted(g,
		choice[step]{62, g.request},
		choice[step]{4, g.burst},
		choice[step]{3, g.brood},
		choice[step]{8, g.multi},
		choice[step]{3, g.multiRead},
		choice[step]{4, g.auth},
		choice[step]{4, g.setWatches},
		choice[step]{9, g.sessionStep},
		choice[step]{2, g.abuse},
		choice[step]{6, g.mangledOrMoved},
		choice[step]{2, g.handshake},
		choice[step]{1, g.stream},
	)
	st.S = g.session
	if st.Watch || st.Op == "addWatch" {
		g.watched[st.S] = st.Path
	}
	return st
}

// request is one that can stand alone or in a burst.
func (g *generator) request() step {
	return weighted(g,
		choice[step]{22, g.create},
		choice[step]{10, func() step { return step{Op: "delete", Path: g.anyPath(), Version: g.version()} }},
		choice[step]{8, func() step { return step{Op: "exists", Path: g.anyPath(), Watch: g.IntN(2) == 0} }},
		choice[step]{8, func() step { return step{Op: "getData", Path: g.anyPath(), Watch: g.IntN(2) == 0} }},
		choice[step]{10, g.setData},
		choice[step]{4, func() step { return step{Op: "getACL", Path: g.anyPath()} }},
		choice[step]{5, func() step { return step{Op: "setACL", Path: g.path(), ACL: g.acl(), Version: g.version()} }},
		choice[step]{5, func() step { return step{Op: "getChildren", Path: g.anyPath(), Watch: g.IntN(2) == 0} }},
		choice[step]{5, func() step { return step{Op: "getChildren2", Path: g.anyPath(), Watch: g.IntN(2) == 0} }},
		choice[step]{2, func() step { return step{Op: "sync", Path: g.anyPath()} }},
		choice[step]{1, func() step { return step{Op: "deleteContainer", Path: g.anyPath()} }},
		// A check outside a multi is answered only if it fails: ZooKeeper 3.8 stumbles over its own answer.
		choice[step]{2, func() step { return step{Op: "check", Path: "/none", Version: g.version()} }},
		choice[step]{6, func() step {
			return step{Op: "addWatch", Path: g.anyPath(), Type: pick[int32](g, 0, 0, 1, 1, 1, 2, -1)}
		}},
		choice[step]{3, func() step { return step{Op: "checkWatches", Path: g.watchedPath(), Type: g.watcherType()} }},
		choice[step]{3, func() step { return step{Op: "removeWatches", Path: g.watchedPath(), Type: g.watcherType()} }},
		choice[step]{2, func() step { return step{Op: "getEphemerals", Path: pick(g, "/", "/", g.path())} }},
		choice[step]{2, func() step { return step{Op: "getAllChildrenNumber", Path: g.anyPath()} }},
		choice[step]{1, func() step { return step{Op: "whoAmI"} }},
		choice[step]{1, func() step { return step{Op: "ping"} }},
	)
}

func (g *generator) watcherType() int32 { return pick[int32](g, 1, 2, 3, 3, 0, 4, 5, 9) }

func (g *generator) version() int32 { return pick[int32](g, -1, -1, -1, 0, 0, 1, 1, 2, 3, -2, 1<<31-1) }

func (g *generator) name() string { return pick(g, "a", "b", "c", "d") }

// path is one that may exist.
func (g *generator) path() string {
	switch n := g.IntN(40); {
	case n == 0:
		return g.badPath()
	case n <= 2:
		return "/"
	case n <= 7 || len(g.known) == 0:
		return "/" + g.name()
	}
	return g.known[g.IntN(len(g.known))]
}

// anyPath is for what changes nothing that is not the run's: it may be of the server's own nodes.
func (g *generator) anyPath() string {
	if g.IntN(40) == 0 {
		path := pick(g, "!/zookeeper", "!/zookeeper/quota", "!/zookeeper/config", "!/zookeeper/none", "!/zookeeper/", "!relative/a")
		if g.members > 1 && path == "!/zookeeper/config" {
			return "!/zookeeper" // the addresses in it differ
		}
		return path
	}
	return g.path()
}

// watchedPath is one that the session may have a watch on.
func (g *generator) watchedPath() string {
	if path := g.watched[g.session]; path != "" && g.IntN(2) == 0 {
		return path
	}
	return g.anyPath()
}

func (g *generator) badPath() string {
	return pick(g, "relative", "/a/", "/a//b", "/a/./b", "/a/../b", "/..", "/.", "/a\x00b", "/a\x01b", "/a\u001fb",
		"/a\u007fb", "/a\u009fb", "/a\ud7ff", "/a\ue000b", "/a\uf8ffb", "/a\ufff0", "/a\uffffb", "/a\U0001F600b", "/a\u00e4b", "/a b",
		"/.../a", "/..a", "/a..")
}

// newPath is one at which a create may succeed.
func (g *generator) newPath() string {
	if g.IntN(30) == 0 {
		return g.badPath()
	}
	parent := ""
	if len(g.known) > 0 && g.IntN(3) > 0 {
		parent = g.known[g.IntN(len(g.known))]
	}
	if strings.Count(parent, "/") > 3 {
		parent = ""
	}
	return parent + "/" + g.name()
}

func (g *generator) create() step {
	st := step{
		Op: pick(g, "create", "create", "create", "create2", "create2", "createContainer", "createTTL"),
		// Beyond the six that exist: one with no meaning, one that looks like a negative mode.
		Path: g.newPath(), Data: g.value(), ACL: openACL,
		Flags: pick[int32](g, 0, 0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 5, 6, 7, -1),
	}
	switch {
	case st.Op == "createContainer" && g.IntN(4) > 0:
		st.Flags = 4
	case st.Op == "createTTL":
		st.TTL = pick[int64](g, 1_000_000, 3_600_000, 1<<39, 1<<40-1)
		if g.IntN(4) > 0 {
			// With any other mode, a bad TTL is not checked, and ends ZooKeeper's process.
			st.Flags = pick[int32](g, 5, 6)
			st.TTL = pick[int64](g, st.TTL, st.TTL, st.TTL, 0, -1, 1<<40)
		}
	}
	if g.IntN(5) == 0 {
		st.ACL = g.acl()
	}
	if g.IntN(12) == 0 {
		st.Null, st.Data = true, ""
	}
	if st.Flags == 2 || st.Flags == 3 || st.Flags == 6 {
		st.Path += "-"
		if g.IntN(8) == 0 {
			st.Path = strings.TrimRight(st.Path, "abcd-") // a number for a name
		}
	}
	g.learn(st)
	return st
}

// learn remembers the node that a create may make; of a sequential one, a number that it may get.
func (g *generator) learn(st step) {
	path := st.Path
	if !strings.HasPrefix(path, "/") {
		return
	}
	if st.Flags == 2 || st.Flags == 3 || st.Flags == 6 {
		path = fmt.Sprintf("%s%010d", path, g.IntN(6))
	}
	g.known = append(g.known, path)
	if len(g.known) > 12 {
		g.known = g.known[1:]
	}
}

func (g *generator) value() string {
	return pick(g, "", "x", "some data", "\x00\x01", strings.Repeat("long ", 50))
}

func (g *generator) setData() step {
	st := step{Op: "setData", Path: g.path(), Data: g.value(), Version: g.version()}
	if g.IntN(12) == 0 {
		st.Null, st.Data = true, ""
	}
	return st
}

func (g *generator) acl() []scriptACL {
	perms := pick[int32](g, 31, 31, 1, 2, 4, 8, 16, 1|8|16, 31&^16, 31&^1, 0, 64, -1)
	return weighted(g,
		choice[[]scriptACL]{6, func() []scriptACL { return []scriptACL{{perms, "world", "anyone"}} }},
		choice[[]scriptACL]{5, func() []scriptACL { return []scriptACL{{perms, "digest", digestOf("ann", "secret")}} }},
		choice[[]scriptACL]{4, func() []scriptACL { return []scriptACL{{perms, "auth", ""}} }},
		choice[[]scriptACL]{3, func() []scriptACL {
			return []scriptACL{{1, "world", "anyone"}, {31, "digest", digestOf("bob", "secret")}}
		}},
		choice[[]scriptACL]{3, func() []scriptACL {
			return []scriptACL{{perms, "ip", pick(g, "127.0.0.1", "127.0.0.0/8", "10.0.0.1", "10.0.0.0/8", "127.0.0.1/33", "nowhere", "::1")}}
		}},
		choice[[]scriptACL]{1, func() []scriptACL { return nil }},
		choice[[]scriptACL]{1, func() []scriptACL { return []scriptACL{{31, "nonsense", "x"}} }},
		choice[[]scriptACL]{1, func() []scriptACL { return []scriptACL{{31, "world", "someone"}} }},
		choice[[]scriptACL]{1, func() []scriptACL { return []scriptACL{{31, "digest", "no colon"}} }},
		choice[[]scriptACL]{1, func() []scriptACL { return []scriptACL{openACL[0], openACL[0], {31, "auth", "x"}} }},
	)
}

func (g *generator) auth() step {
	scheme, auth := "digest", pick(g, "ann:secret", "ann:secret", "bob:secret", "bob:wrong", "super:root", "super:wrong", "no colon", "", "a:b:c")
	switch g.IntN(20) {
	case 0:
		scheme = "nonsense"
	case 1:
		scheme = "world"
	case 2:
		scheme = "ip"
	case 3:
		scheme = "auth"
	}
	return step{Op: "auth", Scheme: scheme, Auth: auth}
}

func (g *generator) setWatches() step {
	st := step{Op: pick(g, "setWatches", "setWatches2"), Zxid: g.Int64N(80), Paths: make([][]string, 5)}
	for i := range st.Paths {
		for range g.IntN(3) {
			st.Paths[i] = append(st.Paths[i], g.path())
		}
	}
	if st.Op == "setWatches" {
		st.Paths = st.Paths[:3]
	}
	return st
}

// sessionStep is something done to a session: see the run of each in conformance_run_test.go.
func (g *generator) sessionStep() step {
	st := step{Op: pick(g, "closeSession", "drop", "resume", "resume", "resume", "steal", "badPassword", "unknownSession", "fromTheFuture", "connectAgain", "expire")}
	switch st.Op {
	case "connectAgain":
		st.Timeout = pick[int32](g, 0, 1, -1, 25_000, 1<<31-1)
	case "expire":
		// Whether the connection is open meanwhile. It takes long, so it comes more seldom.
		st.Watch = g.IntN(2) == 0
		// In an ensemble it depends on when the session began: the followers tell the leader of it once more.
		if g.IntN(3) > 0 || g.members > 1 {
			st.Op = "resume"
		}
	}
	return st
}

func (g *generator) abuse() step {
	switch g.IntN(10) {
	default:
		return step{Op: "unknown", Type: pick[int32](g, 99, 10, 500, -77, 3000), Path: g.path()}
	case 0, 1:
		return step{Op: "setData", Path: g.path(), Size: 1<<20 + 10, Version: -1}
	case 2:
		return step{Op: "setData", Path: g.path(), Size: 1<<20 - 100, Version: -1}
	case 3:
		return step{Op: "create", Path: g.newPath(), Size: 1<<20 - 200, ACL: openACL}
	}
}

// mangledOrMoved leaves an ensemble its health: what cannot be read takes no zxid in 3.9, and yet is proposed.
func (g *generator) mangledOrMoved() step {
	switch {
	case g.members == 1:
		return g.mangled()
	case g.IntN(2) == 0:
		return step{Op: "move"}
	}
	// One: whether a second one still reaches a connection that the first makes the server close is a matter of chance.
	return step{Op: "moveAndStay", Ops: []step{g.request()}}
}

// mangled is a request of which a part is not what it should be.
func (g *generator) mangled() step {
	st := weighted(g,
		choice[step]{12, g.request},
		choice[step]{4, g.multi},
		choice[step]{3, g.multiRead},
		choice[step]{2, g.auth},
		choice[step]{3, g.setWatches},
		choice[step]{1, func() step {
			return step{Op: "unknown", Path: g.path(), Type: pick[int32](g, 0, -1, 2, 10, 12, 16, 20, 23, 102, 108, -12)}
		}},
	)
	// A time to live that is not checked ends the process of ZooKeeper 3.8, which is not what a check outside a multi is.
	if st.Op == "createTTL" || st.Op == "check" {
		st.Op = "create2"
	}
	for n := 1 + g.IntN(2); n > 0; n-- {
		// No number is put in at random: it may come to be the length of a path, and the root, which is then read, is not of
		// the run. Those of malformed.script are chosen.
		switch g.IntN(4) {
		case 0:
			st.Cut = 1 + g.IntN(12)
		case 1:
			st.Pad = pick(g, "\x00", "\x00\x00\x00\x00", "more", strings.Repeat("\x7f", 9)) // what is no UTF-8 a script cannot hold
		case 2:
			if st.Op != "ping" { // the answer to one has the same number whatever it had, and the next one would be taken for it
				st.Xid = pick[int32](g, -2, -3, -4, -5, -8, -9, -100, 1<<31-1, -1<<31)
			}
		case 3:
			// ZooKeeper 3.8 never closes a connection that has watched null.
			st.NullPath = st.Op != "addWatch" || g.release != testutil.ZooKeeper38
		}
	}
	return st
}

// handshake is one of a stranger, of whatever may be in it.
func (g *generator) handshake() step {
	st := step{
		Op: "handshake", Version: pick[int32](g, 0, 0, 0, 1, -1), Timeout: pick[int32](g, 30_000, 30_000, 30_000, 0, -1, 1<<31-1),
		Type: pick[int32](g, 0, 0, 0, 1, 2), Zxid: pick[int64](g, 0, 0, 0, -1000, -1<<60),
		Data: pick(g, strings.Repeat("\x00", 16), strings.Repeat("\x00", 16), "", "short", strings.Repeat("long", 10)),
		Null: g.IntN(5) == 0, Watch: g.IntN(4) == 0,
	}
	switch g.IntN(8) {
	case 0:
		st.Cut = pick(g, 1, 1, 1, 2, 8, 17, 20)
	case 1:
		st.Pad = pick(g, "\x00", "more", "\x01")
	case 2:
		// At the password's length or behind: a zxid or an id is another number on each server.
		st.Put = []int32{pick[int32](g, 24, 24, 24+int32(g.IntN(16))), pick[int32](g, -1, -2, 0, 4, 1<<20, 1<<31-1)}
	}
	return st
}

// stream is what is no handshake at all, or stands behind one: what makes the server close the connection, or a part of a
// frame, after which the client closes its side.
func (g *generator) stream() step {
	if g.IntN(3) == 0 {
		return step{Op: "stream", Watch: g.IntN(2) == 0, Null: true, Data: pick(g, "", "\x00\x00\x00", "\x00\x00\x00\x05\x00\x00", "\x00\x0f\xff\xff", "ruo")}
	}
	return step{Op: "stream", Watch: g.IntN(2) == 0, Data: pick(g,
		"ruok", "ruok\n", "ruokruok", "RUOK", "xxxx", "isro", "crst", "srst", "GET / HTTP/1.0\r\n\r\n", "\x00\x00\x00\x00", "\x00\x00\x00\x04abcd",
		"\xff\xff\xff\xff", "\x7f\xff\xff\xff", "\x00\x10\x00\x00", "\x00\x00\x00\x07\x00\x00\x00\x01\x00\x00\x00",
		"\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x00",
	)}
}

// burst is several requests of one session, all sent before the first answer is read.
func (g *generator) burst() step {
	st := step{Op: "burst"}
	for range 2 + g.IntN(8) {
		next := g.request
		switch g.IntN(8) {
		case 0:
			next = g.multi
		case 1:
			next = g.setWatches
		}
		request := next()
		for g.chancy(request) {
			request = next()
		}
		st.Ops = append(st.Ops, request)
	}
	return st
}

// chancy reports whether the answers to what is behind a request in its burst are a matter of chance: ZooKeeper has applied it
// by then, or has only prepared it.
func (g *generator) chancy(st step) bool {
	switch st.Op {
	case "setACL": // until it is applied, what follows is judged by the old rights
		return true
	case "check": // what follows an operation that it does not know, as 3.9 a check, may be applied before the connection closes
		return g.release != testutil.ZooKeeper38
	case "multi": // one that it cannot read to its end it does not undo at once: what follows may see what it had begun
		return slices.ContainsFunc(st.Ops, unreadable) || slices.ContainsFunc(st.Ops, ephemeralContainer)
	}
	return ephemeralContainer(st)
}

// ephemeralContainer reports whether a container has the flags of an ephemeral node. It is taken for one, which has no children and
// is not deleted as containers are, until it is applied, and for a container from then on.
func ephemeralContainer(st step) bool {
	return st.Op == "createContainer" && (st.Flags == 1 || st.Flags == 3)
}

// brood is a burst that makes many children of one node, and lists them: their order shows with their number.
func (g *generator) brood() step {
	st := step{Op: "burst"}
	parent := pick(g, "", "", "/"+g.name())
	for range 4 + g.IntN(16) {
		child := step{Op: "create", Path: parent + "/" + g.word(), ACL: openACL, Flags: pick[int32](g, 0, 1, 1, 1, 2, 3)}
		g.learn(child)
		st.Ops = append(st.Ops, child)
	}
	list := step{Op: pick(g, "getChildren", "getChildren2", "getAllChildrenNumber"), Path: "/" + strings.TrimPrefix(parent, "/")}
	st.Ops = append(st.Ops, list, step{Op: "getEphemerals", Path: "/"})
	return st
}

// word is a name of some length, so that its hash may be any.
func (g *generator) word() string {
	var b strings.Builder
	for range 1 + g.IntN(8) {
		b.WriteString(pick(g, "a", "e", "o", "k", "r", "s", "t", "Z", "-", "7", "\u00e4", "\u4e16"))
	}
	return b.String()
}

// unreadable reports whether the flags of a create within a multi ask for a time to live that it has no room for.
func unreadable(st step) bool {
	return slices.Contains([]string{"create", "create2", "createContainer"}, st.Op) && (st.Flags == 5 || st.Flags == 6)
}

func (g *generator) multi() step {
	st := step{Op: "multi"}
	for range g.IntN(6) {
		switch n := g.IntN(30); {
		case n < 12:
			st.Ops = append(st.Ops, g.create())
		case n < 17:
			st.Ops = append(st.Ops, step{Op: "delete", Path: g.anyPath(), Version: g.version()})
		case n < 23:
			st.Ops = append(st.Ops, g.setData())
		case n < 29:
			st.Ops = append(st.Ops, step{Op: "check", Path: g.path(), Version: pick[int32](g, -1, -1, -1, 0, 0, 1)})
		default:
			st.Ops = append(st.Ops, step{Op: pick(g, "getData", "exists", "setACL"), Path: g.path()})
		}
	}
	return st
}

func (g *generator) multiRead() step {
	st := step{Op: "multiRead"}
	for range g.IntN(5) {
		op := pick(g, "getData", "getData", "getChildren", "getChildren")
		if g.IntN(15) == 0 {
			op = pick(g, "exists", "delete")
		}
		st.Ops = append(st.Ops, step{Op: op, Path: g.path(), Watch: g.IntN(5) == 0})
	}
	return st
}
