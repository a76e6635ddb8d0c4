package testutil_test

import (
	"encoding/binary"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/testutil"
)

// A tampering makes a server look as if it had a fault. Wrong answers are planted by changing packets on their way, wrong
// doings by changing what is asked for, or with the server's own faults.
type tampering struct {
	name string

	// packet replaces one from the server by those that it returns, op being the request whose answer is awaited. It
	// must return at least one, if need be by reading on.
	packet func(w *wire, op string, p packet) []packet

	// request replaces a request.
	request func(st step) step

	// connect changes the answer to a handshake.
	connect func(a *connectAnswer)

	// password replaces the wrong one of a stranger.
	password func(r *run, id int64) []byte

	// release is another one than that which is looked for.
	release testutil.Release

	// server spoils the server itself.
	server func(server *testutil.Server)
}

// TestConformanceSeesPlantedDifferences is the conformance test's own proof: each of these differences is small, and none
// may pass. Both sides are in-process servers, so that it needs no Java.
func TestConformanceSeesPlantedDifferences(t *testing.T) {
	const patience = 200 // scripts
	for i := range plantedDifferences {
		planted := &plantedDifferences[i]
		t.Run(strings.ReplaceAll(planted.name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			sound, faulty := inProcessBackend(t, testutil.ZooKeeper39), faultyBackend(t, testutil.ZooKeeper39, planted)
			done := 0
			for seed := range uint64(patience) {
				// Without the steps that take long: no difference here needs them.
				script := slices.DeleteFunc(generate(seed, stepsInScript), func(st step) bool { return st.Op == "expire" })
				done += operations(script)
				a, b, err := compare(script, sound, faulty)
				require.NoError(t, err)
				if !slices.Equal(a, b) {
					t.Logf("seen within %d operations", done)
					return
				}
			}
			t.Errorf("not seen in %d operations", done)
		})
	}
}

// TestConformanceSeesNoDifferenceWhereNoneIs also shows that the server is the same in memory as over TCP.
func TestConformanceSeesNoDifferenceWhereNoneIs(t *testing.T) {
	t.Parallel()
	one, other := inProcessBackend(t, testutil.ZooKeeper39), inMemoryBackend(t, testutil.ZooKeeper39)
	for seed := range uint64(20) {
		script := generate(seed, stepsInScript)
		a, b, err := compare(script, one, other)
		require.NoError(t, err)
		if !slices.Equal(a, b) {
			t.Fatal(explain(script, one, other, a, b))
		}
	}
}

// TestConformanceExplainsADifferenceBriefly plants a fault whose shortest script is known: a write with a version, after
// at most one that makes the version matter.
func TestConformanceExplainsADifferenceBriefly(t *testing.T) {
	t.Parallel()
	sound := inProcessBackend(t, testutil.ZooKeeper39)
	faulty := faultyBackend(t, testutil.ZooKeeper39, &tampering{request: func(st step) step {
		if st.Op == "setData" {
			st.Version = -1
		}
		return st
	}})
	script := []step{{Op: "create", Path: "/a", ACL: openACL}}
	for _, st := range generate(1, 2*stepsInScript) {
		if st.Op != "delete" && st.Op != "multi" && st.Op != "burst" && st.Op != "expire" {
			script = append(script, st)
		}
	}
	script = append(script, step{Op: "setData", S: 1, Path: "/a", Version: 77})
	a, b, err := compare(script, sound, faulty)
	require.NoError(t, err)
	require.NotEqual(t, a, b)
	text := explain(script, sound, faulty, a, b)
	steps := 0
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, `{"op":`) {
			steps++
		}
	}
	assert.Positive(t, steps, text)
	assert.LessOrEqual(t, steps, 2, text)
	assert.Contains(t, text, "BadVersion")
}

// field changes an integer of the Stat at the end of an answer.
func field(offset, width int, change func(int64) int64) func(*wire, string, packet) []packet {
	const statLength = 68
	withStat := []string{"exists", "setData", "getData", "getACL", "setACL", "getChildren2", "create2", "createContainer", "createTTL"}
	return func(_ *wire, op string, p packet) []packet {
		if p.xid > 0 && p.err == 0 && slices.Contains(withStat, op) {
			p.body = slices.Clone(p.body)
			at := p.body[len(p.body)-statLength+offset:]
			if width == 4 {
				binary.BigEndian.PutUint32(at, uint32(change(int64(int32(binary.BigEndian.Uint32(at))))))
			} else {
				binary.BigEndian.PutUint64(at, uint64(change(int64(binary.BigEndian.Uint64(at)))))
			}
		}
		return []packet{p}
	}
}

// answer changes successful answers to one request.
func answer(to string, change func(body []byte) []byte) func(*wire, string, packet) []packet {
	return func(_ *wire, op string, p packet) []packet {
		if p.xid > 0 && p.err == 0 && op == to {
			p.body = change(slices.Clone(p.body))
		}
		return []packet{p}
	}
}

// event changes watch events.
func event(change func(w *wire, p packet) []packet) func(*wire, string, packet) []packet {
	return func(w *wire, _ string, p packet) []packet {
		if p.xid == eventXid {
			return change(w, p)
		}
		return []packet{p}
	}
}

// code replaces one error by another.
func code(is, becomes int32) func(*wire, string, packet) []packet {
	return func(_ *wire, _ string, p packet) []packet {
		if p.err == is {
			p.err = becomes
		}
		return []packet{p}
	}
}

// next reads the packet after an event; without one there is nothing to change the order with.
func next(w *wire, p packet, order func(event, next packet) []packet) []packet {
	following, err := w.readPacket()
	if err != nil {
		return []packet{p}
	}
	return order(p, following)
}

func oneMore(v int64) int64 { return v + 1 }
func zero(int64) int64      { return 0 }

func sortedStrings(body []byte) []byte {
	d := decoder{bytes: body}
	list := d.strings()
	slices.Sort(list)
	var e encoder
	e.strings(list)
	return e.bytes
}

// inMulti changes the parts of a multi.
func inMulti(change func(step) step) func(step) step {
	return func(st step) step {
		if st.Op == "multi" {
			st.Ops = slices.Clone(st.Ops)
			for i := range st.Ops {
				st.Ops[i] = change(st.Ops[i])
			}
		}
		return st
	}
}

// every makes each n-th matching request meet a fault of the server's own.
func every(n int64, op testutil.Op, action testutil.Action) func(*testutil.Server) {
	return func(server *testutil.Server) {
		var count atomic.Int64
		server.Control(op, func(*testutil.Request) testutil.Action {
			if count.Add(1)%n == 0 {
				return action
			}
			return testutil.Pass
		})
	}
}

var plantedDifferences = []tampering{
	// Stats.
	{name: "czxid is one too high", packet: field(0, 8, oneMore)},
	{name: "mzxid is one too high", packet: field(8, 8, oneMore)},
	{name: "ctime is missing", packet: field(16, 8, zero)},
	{name: "mtime is missing", packet: field(24, 8, zero)},
	{name: "version counts from one", packet: field(32, 4, oneMore)},
	{name: "cversion is not counted", packet: field(36, 4, zero)},
	{name: "aversion is not counted", packet: field(40, 4, zero)},
	{name: "ephemerals have no owner", packet: field(44, 8, zero)},
	{name: "the length is one too high", packet: field(52, 4, oneMore)},
	{name: "children are not counted", packet: field(56, 4, zero)},
	{name: "pzxid is not kept", packet: field(60, 8, zero)},

	// Headers and errors.
	{name: "a refused write takes no zxid", packet: func(_ *wire, op string, p packet) []packet {
		if p.err == -110 && strings.HasPrefix(op, "create") {
			p.zxid--
		}
		return []packet{p}
	}},
	{name: "an event has another zxid", packet: event(func(_ *wire, p packet) []packet {
		p.zxid++
		return []packet{p}
	})},
	{name: "an event has none", packet: event(func(_ *wire, p packet) []packet {
		p.zxid = -1
		return []packet{p}
	})},
	{name: "a create2 in a multi is a create", request: inMulti(func(st step) step {
		if st.Op == "create2" {
			st.Op = "create"
		}
		return st
	})},
	{name: "a watch of one mode is removed for one of another", request: func(st step) step {
		if st.Op == "removeWatches" && st.Type > 3 {
			st.Type = 3
		}
		return st
	}},
	{name: "NotEmpty is BadVersion", packet: code(-111, -103)},
	{name: "NoAuth is NoNode", packet: code(-102, -101)},
	{name: "NoChildrenForEphemerals is BadArguments", packet: code(-108, -8)},
	{name: "NoWatcher is ok", packet: code(-121, 0)},
	{name: "InvalidACL is BadArguments", packet: code(-114, -8)},
	{name: "an answer has another xid", packet: func(_ *wire, op string, p packet) []packet {
		if op == "sync" {
			p.xid++
		}
		return []packet{p}
	}},

	// Answers.
	{name: "a child is left out", packet: answer("getChildren", func(body []byte) []byte {
		d := decoder{bytes: body}
		list := d.strings()
		var e encoder
		e.strings(list[:max(0, len(list)-1)])
		return e.bytes
	})},
	{name: "children are sorted", packet: answer("getChildren", func(body []byte) []byte {
		return sortedStrings(body)
	})},
	{name: "children with their Stat are sorted", packet: answer("getChildren2", func(body []byte) []byte {
		d := decoder{bytes: body}
		list := d.strings()
		slices.Sort(list)
		var e encoder
		e.strings(list)
		return append(e.bytes, d.bytes...)
	})},
	{name: "what a session leaves is deleted in another order", packet: event(func(w *wire, p packet) []packet {
		return next(w, p, func(event, following packet) []packet {
			if following.xid == -1 && event.zxid == following.zxid && event.body[3] == 2 && following.body[3] == 2 {
				return []packet{following, event}
			}
			return []packet{event, following}
		})
	})},
	{name: "ephemerals are sorted", packet: answer("getEphemerals", func(body []byte) []byte {
		return sortedStrings(body)
	})},
	{name: "identities are in the order in which they were proved", packet: answer("whoAmI", func(body []byte) []byte {
		d := decoder{bytes: body}
		type info struct{ scheme, id string }
		var infos []info
		for n := d.int(); n > 0; n-- {
			infos = append(infos, info{d.string(), d.string()})
		}
		slices.SortStableFunc(infos, func(a, b info) int { return -strings.Compare(a.scheme, b.scheme) })
		var e encoder
		e.int(int32(len(infos)))
		for _, i := range infos {
			e.string(i.scheme)
			e.string(i.id)
		}
		return e.bytes
	})},
	{name: "a sequence number is one too high", packet: answer("create", func(body []byte) []byte {
		if last := body[len(body)-1]; last >= '0' && last < '9' && body[len(body)-2] == '0' {
			body[len(body)-1]++
		}
		return body
	})},
	{name: "the undone parts of a multi succeed", packet: func(_ *wire, op string, p packet) []packet {
		if op == "multi" {
			undone := binary.BigEndian.AppendUint32(nil, 0xfffffffe)
			p.body = []byte(strings.ReplaceAll(string(p.body), string(undone), "\x00\x00\x00\x00"))
		}
		return []packet{p}
	}},
	{name: "whoAmI forgets", packet: answer("whoAmI", func([]byte) []byte { return make([]byte, 4) })},
	{name: "getEphemerals finds none", packet: answer("getEphemerals", func([]byte) []byte { return make([]byte, 4) })},
	{name: "getAllChildrenNumber counts the node too", packet: answer("getAllChildrenNumber", func(body []byte) []byte {
		body[3]++
		return body
	})},
	{name: "an answer has a byte too many", packet: answer("exists", func(body []byte) []byte { return append(body, 0) })},
	{name: "data are cut short", packet: answer("getData", func(body []byte) []byte {
		if n := binary.BigEndian.Uint32(body); int32(n) > 0 {
			body = append(binary.BigEndian.AppendUint32(nil, n-1), slices.Concat(body[4:4+n-1], body[4+n:])...)
		}
		return body
	})},

	// Watches.
	{name: "events are lost", packet: event(func(w *wire, p packet) []packet {
		return next(w, p, func(_, following packet) []packet { return []packet{following} })
	})},
	{name: "events come twice", packet: event(func(_ *wire, p packet) []packet { return []packet{p, p} })},
	{name: "an event follows the answer that it should precede", packet: event(func(w *wire, p packet) []packet {
		return next(w, p, func(event, following packet) []packet { return []packet{following, event} })
	})},
	{name: "a creation is called a change", packet: event(func(_ *wire, p packet) []packet {
		if p.body[3] == 1 {
			p.body[3] = 3
		}
		return []packet{p}
	})},
	{name: "exists leaves no watch", request: func(st step) step {
		st.Watch = st.Watch && st.Op != "exists"
		return st
	}},
	{name: "getData leaves no watch", request: func(st step) step {
		st.Watch = st.Watch && st.Op != "getData"
		return st
	}},
	{name: "getChildren leaves no watch", request: func(st step) step {
		st.Watch = st.Watch && st.Op != "getChildren"
		return st
	}},
	{name: "recursive watches are not recursive", request: func(st step) step {
		if st.Op == "addWatch" && st.Type == 1 {
			st.Type = 0
		}
		return st
	}},
	{name: "removeWatches removes nothing", request: func(st step) step {
		if st.Op == "removeWatches" {
			st.Op = "checkWatches"
		}
		return st
	}},
	{name: "setWatches sets none", request: func(st step) step {
		if strings.HasPrefix(st.Op, "setWatches") {
			st.Paths = nil
		}
		return st
	}},
	{name: "setWatches overlooks what happened", request: func(st step) step {
		if strings.HasPrefix(st.Op, "setWatches") {
			st.Zxid = 1 << 40
		}
		return st
	}},

	// Writes.
	{name: "delete checks no version", request: func(st step) step {
		if st.Op == "delete" {
			st.Version = -1
		}
		return st
	}},
	{name: "setACL checks no version", request: func(st step) step {
		if st.Op == "setACL" {
			st.Version = -1
		}
		return st
	}},
	{name: "a check in a multi checks no version", request: inMulti(func(st step) step {
		if st.Op == "check" {
			st.Version = -1
		}
		return st
	})},
	{name: "a create in a multi is never sequential", request: inMulti(func(st step) step {
		if strings.HasPrefix(st.Op, "create") && (st.Flags == 2 || st.Flags == 3) {
			st.Flags -= 2
		}
		return st
	})},
	{name: "ephemerals stay", request: func(st step) step {
		if st.Op == "create" && (st.Flags == 1 || st.Flags == 3) {
			st.Flags--
		}
		return st
	}},
	{name: "a time to live is halved", request: func(st step) step {
		st.TTL /= 2
		return st
	}},
	{name: "null data are empty", request: func(st step) step {
		st.Null = false
		return st
	}},

	// Rights and sessions.
	{name: "a node is open whatever its ACL", request: func(st step) step {
		if st.Op == "create" && len(st.ACL) > 0 && st.ACL[0].Scheme == "digest" {
			st.ACL = openACL
		}
		return st
	}},
	{name: "auth proves somebody else", request: func(st step) step {
		if st.Op == "auth" && strings.HasPrefix(st.Auth, "ann") {
			st.Auth = "eve:secret"
		}
		return st
	}},
	{name: "nobody is super", request: func(st step) step {
		if st.Op == "auth" && st.Auth == "super:root" {
			st.Auth = "super:wrong"
		}
		return st
	}},
	{name: "another timeout is negotiated", connect: func(a *connectAnswer) { a.timeout++ }},
	{name: "any password opens a session", password: func(r *run, id int64) []byte {
		for _, c := range r.clients {
			if c.id == id {
				return c.password
			}
		}
		return make([]byte, 16)
	}},

	// The release. Each of the two looks like a server that is the other.
	{name: "the release is another", release: testutil.ZooKeeper38},

	// The server's own doing.
	{name: "a setData in ten is applied and not answered", server: every(10, testutil.OpSetData, testutil.LoseReply)},
	{name: "a delete in ten is lost", server: every(10, testutil.OpDelete, testutil.LoseRequest)},
	{name: "a getACL in ten is refused", server: every(10, testutil.OpGetACL, testutil.Fail(zk.ErrNoAuth))},
}
