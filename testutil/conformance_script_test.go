package testutil_test

import (
	"crypto/sha1"
	"encoding/base64"
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
	known   []string
}

func generate(release testutil.Release, seed uint64, length int) []step {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 0)), release: release}
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
	st := weighted(g,
		choice[step]{62, g.request},
		choice[step]{4, g.burst},
		choice[step]{3, g.brood},
		choice[step]{8, g.multi},
		choice[step]{3, g.multiRead},
		choice[step]{4, g.auth},
		choice[step]{4, g.setWatches},
		choice[step]{9, g.session},
		choice[step]{2, g.abuse},
	)
	st.S = g.IntN(sessionsInScript)
	return st
}

// request is one that can stand alone or in a burst.
func (g *generator) request() step {
	return weighted(g,
		choice[step]{22, g.create},
		choice[step]{10, func() step { return step{Op: "delete", Path: g.path(), Version: g.version()} }},
		choice[step]{8, func() step { return step{Op: "exists", Path: g.path(), Watch: g.IntN(2) == 0} }},
		choice[step]{8, func() step { return step{Op: "getData", Path: g.path(), Watch: g.IntN(2) == 0} }},
		choice[step]{10, g.setData},
		choice[step]{4, func() step { return step{Op: "getACL", Path: g.path()} }},
		choice[step]{5, func() step { return step{Op: "setACL", Path: g.path(), ACL: g.acl(), Version: g.version()} }},
		choice[step]{5, func() step { return step{Op: "getChildren", Path: g.path(), Watch: g.IntN(2) == 0} }},
		choice[step]{5, func() step { return step{Op: "getChildren2", Path: g.path(), Watch: g.IntN(2) == 0} }},
		choice[step]{2, func() step { return step{Op: "sync", Path: g.path()} }},
		// A check outside a multi is answered only if it fails: ZooKeeper 3.8 stumbles over its own answer.
		choice[step]{2, func() step { return step{Op: "check", Path: "/none", Version: g.version()} }},
		choice[step]{6, func() step { return step{Op: "addWatch", Path: g.path(), Type: pick[int32](g, 0, 0, 1, 1, 1, 2, -1)} }},
		// Whether a path without a slash is refused here depends on what other sessions watch.
		choice[step]{3, func() step { return step{Op: "checkWatches", Path: g.absolutePath(), Type: g.watcherType()} }},
		choice[step]{3, func() step { return step{Op: "removeWatches", Path: g.absolutePath(), Type: g.watcherType()} }},
		choice[step]{2, func() step { return step{Op: "getEphemerals", Path: pick(g, "/", "/", g.path())} }},
		choice[step]{2, func() step { return step{Op: "getAllChildrenNumber", Path: g.path()} }},
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

func (g *generator) absolutePath() string {
	for {
		if path := g.path(); strings.HasPrefix(path, "/") {
			return path
		}
	}
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

// session steps: see the run of each in conformance_run_test.go.
func (g *generator) session() step {
	st := step{Op: pick(g, "closeSession", "drop", "resume", "resume", "resume", "steal", "badPassword", "unknownSession", "fromTheFuture", "connectAgain", "expire")}
	switch st.Op {
	case "connectAgain":
		st.Timeout = pick[int32](g, 0, 1, -1, 25_000, 1<<31-1)
	case "expire":
		// Whether the connection is open meanwhile. It takes long, so it comes more seldom.
		st.Watch = g.IntN(2) == 0
		if g.IntN(3) > 0 {
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

// burst is several requests of one session, all sent before the first answer is read.
func (g *generator) burst() step {
	st := step{Op: "burst"}
	for range 2 + g.IntN(8) {
		switch g.IntN(8) {
		case 0:
			multi := g.multi()
			// One that it cannot read to its end ZooKeeper does not undo at once, and what
			// follows may see what it had begun: a matter of chance.
			for slices.ContainsFunc(multi.Ops, unreadable) {
				multi = g.multi()
			}
			st.Ops = append(st.Ops, multi)
		case 1:
			st.Ops = append(st.Ops, g.setWatches())
		default:
			request := g.request()
			// Until it has applied a setACL, ZooKeeper judges what follows by the old rights: a matter of chance. What
			// follows an operation that it does not know, as 3.9 a check, may be applied before the connection closes.
			for request.Op == "setACL" || request.Op == "check" && g.release != testutil.ZooKeeper38 {
				request = g.request()
			}
			st.Ops = append(st.Ops, request)
		}
	}
	return st
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

// unreadable tells of a create within a multi whose flags ask for a time to live that it has no room for.
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
			st.Ops = append(st.Ops, step{Op: "delete", Path: g.path(), Version: g.version()})
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
