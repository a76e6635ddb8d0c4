package testutil

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// withRaw runs a test with one client on a server of one member.
func withRaw(t *testing.T, f func(t *testing.T, srv *Server, c *rawClient)) {
	t.Helper()
	for _, release := range []Release{ZooKeeper38, ZooKeeper39} {
		t.Run(string(release), func(t *testing.T) {
			inMemory(t, ServerOptions{Release: release}, func(t *testing.T, srv *Server) {
				f(t, srv, openRaw(t, srv.Member(0), 40*time.Second))
			})
		})
	}
}

func TestCreateFillsInTheStat(t *testing.T) {
	withRaw(t, func(t *testing.T, _ *Server, c *rawClient) {
		now := time.Now().UnixMilli()
		r := c.want(codeOK, OpCreate2, createBody("/a", "data", 1))
		if path := r.body.string(); path != "/a" {
			t.Errorf("path %q", path)
		}
		want := stat{
			czxid: r.zxid, mzxid: r.zxid, pzxid: r.zxid, ctime: now, mtime: now,
			ephemeralOwner: c.session, dataLength: 4,
		}
		if got := r.body.stat(); got != want {
			t.Errorf("stat %+v\nwant %+v", got, want)
		}
		c.want(codeOK, OpCreate, createBody("/p", "", 0))
		time.Sleep(time.Second)
		c.want(codeOK, OpCreate, createBody("/p/x", "", 0))
		c.want(codeOK, OpCreate, createBody("/p/y", "", 0))
		deleted := c.want(codeOK, OpDelete, versionBody("/p/x", 0)).zxid
		set := c.want(codeOK, OpSetData, setBody("/p", "12345", 0)).body.stat()
		want = stat{
			czxid: 3, mzxid: deleted + 1, pzxid: deleted, ctime: now, mtime: now + 1000,
			version: 1, cversion: 3, dataLength: 5, numChildren: 1,
		}
		if set != want {
			t.Errorf("stat %+v\nwant %+v", set, want)
		}
	})
}

func TestRootBegins(t *testing.T) {
	withRaw(t, func(t *testing.T, _ *Server, c *rawClient) {
		if s := c.stat("/"); s != (stat{cversion: -1, numChildren: 1}) {
			t.Errorf("root %+v", s)
		}
		r := c.want(codeOK, OpGetChildren, watchBody("/zookeeper", false))
		if got := r.body.strings(); fmt.Sprint(got) != "[config quota]" {
			t.Errorf("children %v", got)
		}
	})
}

// Each row is a write on a tree that holds /a (version 1), /a/b and the
// ephemeral /e, and the error that it gets.
var refusals = []struct {
	name string
	op   Op
	body func(*encoder)
	want code
}{
	{"create existing", OpCreate, createBody("/a", "", 0), codeNodeExists},
	{"create root", OpCreate, createBody("/", "", 0), codeNodeExists},
	{"create without parent", OpCreate, createBody("/x/y", "", 0), codeNoNode},
	{"create below ephemeral", OpCreate, createBody("/e/x", "", 0), codeNoChildrenEphemerals},
	{"create with unknown flags", OpCreate, createBody("/x", "", 7), codeBadArguments},
	{"create with ttl flag and no ttl", OpCreate, createBody("/x", "", 5), codeBadArguments},
	{"create with no acl", OpCreate, func(e *encoder) { e.string("/x"); e.bytes(nil); e.acls(nil); e.int32(0) }, codeInvalidACL},
	{"create empty path", OpCreate, createBody("", "", 0), codeBadArguments},
	{"create relative path", OpCreate, createBody("x", "", 0), codeBadArguments},
	{"create relative path with parent", OpCreate, createBody("x/y", "", 0), codeNoNode},
	{"create trailing slash", OpCreate, createBody("/x/", "", 0), codeNoNode},
	{"create trailing slash below", OpCreate, createBody("/a/", "", 0), codeBadArguments},
	{"create null character", OpCreate, createBody("/x\x00", "", 0), codeBadArguments},
	{"create control character", OpCreate, createBody("/x\x01", "", 0), codeBadArguments},
	{"create dot", OpCreate, createBody("/.", "", 0), codeBadArguments},
	{"create dot dot", OpCreate, createBody("/a/..", "", 0), codeBadArguments},
	{"create emoji", OpCreate, createBody("/\U0001f600", "", 0), codeBadArguments},
	{"create private use", OpCreate, createBody("/\ue000", "", 0), codeBadArguments},
	{"create not utf-8", OpCreate, createBody("/\xff", "", 0), codeBadArguments},
	{"create truncated", OpCreate, pathBody("/x"), codeMarshallingError},
	{"create null path", OpCreate, func(e *encoder) { e.bytes(nil); e.bytes(nil); e.acls(openACL); e.int32(0) }, codeMarshallingError},
	{"createTTL with zero ttl", OpCreateTTL, func(e *encoder) { createBody("/x", "", 5)(e); e.int64(0) }, codeBadArguments},
	{"createTTL with long ttl", OpCreateTTL, func(e *encoder) { createBody("/x", "", 5)(e); e.int64(1 << 40) }, codeBadArguments},
	{"createTTL with ttl but no flag", OpCreateTTL, func(e *encoder) { createBody("/x", "", 0)(e); e.int64(5) }, codeBadArguments},
	{"delete missing", OpDelete, versionBody("/x", -1), codeNoNode},
	{"delete wrong version", OpDelete, versionBody("/a", 0), codeBadVersion},
	{"delete parent", OpDelete, versionBody("/a", 1), codeNotEmpty},
	{"delete root", OpDelete, versionBody("/", -1), codeBadArguments},
	{"delete quota", OpDelete, versionBody("/zookeeper/quota", -1), codeBadArguments},
	{"delete relative", OpDelete, versionBody("x", -1), codeBadArguments},
	{"set missing", OpSetData, setBody("/x", "", -1), codeNoNode},
	{"set wrong version", OpSetData, setBody("/a", "", 0), codeBadVersion},
	{"set bad path", OpSetData, setBody("/a/", "", -1), codeBadArguments},
	{"setACL missing", OpSetACL, func(e *encoder) { e.string("/x"); e.acls(openACL); e.int32(-1) }, codeNoNode},
	{"setACL wrong version", OpSetACL, func(e *encoder) { e.string("/a"); e.acls(openACL); e.int32(1) }, codeBadVersion},
	{"setACL none", OpSetACL, func(e *encoder) { e.string("/a"); e.acls(nil); e.int32(-1) }, codeInvalidACL},
	{"setACL unknown scheme", OpSetACL, func(e *encoder) {
		e.string("/a")
		e.acls([]acl{{permAll, identity{"sasl", "x"}}})
		e.int32(-1)
	}, codeInvalidACL},
	{"check missing", OpCheck, versionBody("/x", -1), codeNoNode},
	{"check wrong version", OpCheck, versionBody("/a", 7), codeBadVersion},
	{"createTTL without ttl", OpCreateTTL, func(e *encoder) { createBody("/x", "", 0)(e); e.int64(-1) }, codeBadArguments},
	{"deleteContainer", OpDeleteContainer, pathBody("/a"), codeBadArguments},
	{"reconfig", OpReconfig, func(e *encoder) { e.string(""); e.string(""); e.string(""); e.int64(-1) }, codeReconfigDisabled},
	{"multi of what it cannot hold", OpMulti, multiBody(subOp{OpSync, pathBody("/")}), codeMarshallingError},
	{"multi of a read", OpMulti, multiBody(subOp{OpGetData, watchBody("/a", false)}), codeMarshallingError},
	{"multi that does not end", OpMulti, func(e *encoder) { e.multiHeader(OpDelete, false, -1) }, codeMarshallingError},
}

func TestRefusedWrites(t *testing.T) {
	withRaw(t, func(t *testing.T, srv *Server, c *rawClient) {
		c.want(codeOK, OpCreate, createBody("/a", "", 0))
		c.want(codeOK, OpSetData, setBody("/a", "data", 0))
		c.want(codeOK, OpCreate, createBody("/a/b", "", 0))
		c.want(codeOK, OpCreate, createBody("/e", "", 1))
		srv.mu.Lock()
		before := srv.tree.clone()
		srv.mu.Unlock()
		for _, test := range refusals {
			if test.op == OpCheck && c.release != ZooKeeper38 {
				continue // there is none outside a multi
			}
			zxid := c.zxid
			r := c.do(test.op, test.body)
			if r.err != test.want || r.zxid != zxid+1 || len(r.body.b) != 0 {
				t.Errorf("%s: error %d, zxid +%d, %d bytes; want error %d, zxid +1, none",
					test.name, r.err, r.zxid-zxid, len(r.body.b), test.want)
			}
		}
		srv.mu.Lock()
		defer srv.mu.Unlock()
		if got, want := dumpTree(srv.tree), dumpTree(before); got != want {
			t.Errorf("the tree has changed:\n%s\nwas\n%s", got, want)
		}
	})
}

// dumpTree writes all that a tree holds.
func dumpTree(t *tree) string {
	var w strings.Builder
	for _, path := range sortedKeys(t.nodes) {
		n := t.nodes[path]
		fmt.Fprintf(&w, "%s %+v %q %v %v %v %d\n", path, n.stat(), n.data, n.acl, n.kind, n.childNames(), n.created)
	}
	for _, id := range sortedKeys(t.ephemerals) {
		fmt.Fprintf(&w, "%d %v\n", id, t.ephemeralsOf(id))
	}
	fmt.Fprintf(&w, "%v\n", sortedKeys(t.transient))
	return w.String()
}

func TestClonedTreeIsEqualAndApart(t *testing.T) {
	withRaw(t, func(t *testing.T, srv *Server, c *rawClient) {
		c.want(codeOK, OpCreate, createBody("/a", "x", 0))
		c.want(codeOK, OpCreate, createBody("/e", "", 1))
		srv.mu.Lock()
		clone := srv.tree.clone()
		if dumpTree(clone) != dumpTree(srv.tree) {
			t.Error("the clone differs")
		}
		before := dumpTree(clone)
		srv.mu.Unlock()
		c.want(codeOK, OpSetData, setBody("/a", "y", -1))
		c.want(codeOK, OpCreate, createBody("/a/b", "", 0))
		c.want(codeOK, OpDelete, versionBody("/e", -1))
		if dumpTree(clone) != before {
			t.Error("the clone changed with the tree")
		}
	})
}

func TestSequenceNumbersCountCreationsOnly(t *testing.T) {
	withRaw(t, func(t *testing.T, _ *Server, c *rawClient) {
		sequence := func(path string) string {
			return c.want(codeOK, OpCreate, createBody(path, "", 2)).body.string()
		}
		c.want(codeOK, OpCreate, createBody("/p", "", 0))
		got := []string{sequence("/p/a-"), sequence("/p/")}
		c.want(codeOK, OpDelete, versionBody("/p/0000000001", -1))
		c.want(codeNodeExists, OpCreate, createBody("/p/a-0000000000", "", 0))
		got = append(got, sequence("/p/b-"))
		c.want(codeOK, OpCreate, createBody("/p/x", "", 0))
		got = append(got, sequence("/p/a-"))
		want := []string{"/p/a-0000000000", "/p/0000000001", "/p/b-0000000002", "/p/a-0000000004"}
		if !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

func TestSequenceCounterSticksAtItsEnd(t *testing.T) {
	withRaw(t, func(t *testing.T, srv *Server, c *rawClient) {
		sequence := func() rawReply { return c.do(OpCreate, createBody("/p/n-", "", 2)) }
		c.want(codeOK, OpCreate, createBody("/p", "", 0))
		if err := srv.SetSequence("/p", 2147483646); err != nil {
			t.Fatal(err)
		}
		if err := srv.SetSequence("/none", 1); err == nil {
			t.Error("set the counter of a node that does not exist")
		}
		if got := sequence().body.string(); got != "/p/n-2147483646" {
			t.Error(got)
		}
		before := c.stat("/p").pzxid
		if got := sequence().body.string(); got != "/p/n-2147483647" {
			t.Error(got)
		}
		if got := c.stat("/p").pzxid; got != before {
			t.Errorf("pzxid %d, was %d", got, before)
		}
		if r := sequence(); r.err != codeNodeExists {
			t.Errorf("error %d", r.err)
		}
		if got := c.want(codeOK, OpCreate, createBody("/p/m-", "", 2)).body.string(); got != "/p/m-2147483647" {
			t.Error(got)
		}
		// Within a multi the second one sees the counter past its end.
		r := c.want(codeOK, OpMulti, multiBody(
			subOp{OpCreate, createBody("/p/o-", "", 2)}, subOp{OpCreate, createBody("/p/o-", "", 2)}))
		var paths []string
		for range 2 {
			r.body.take(9)
			paths = append(paths, r.body.string())
		}
		if !slices.Equal(paths, []string{"/p/o-2147483647", "/p/o--2147483648"}) {
			t.Errorf("paths %v", paths)
		}
	})
}

func TestMultiIsAllOrNothing(t *testing.T) {
	withRaw(t, func(t *testing.T, _ *Server, c *rawClient) {
		c.want(codeOK, OpCreate, createBody("/a", "", 0))
		r := c.want(codeOK, OpMulti, multiBody(
			subOp{OpCreate, createBody("/b", "", 0)},
			subOp{OpCreate, createBody("/b/c", "", 0)},
			subOp{OpDelete, versionBody("/a", 7)},
			subOp{OpSetData, setBody("/b", "x", -1)}))
		for i, want := range []code{codeOK, codeOK, codeBadVersion, codeRuntimeInconsistency} {
			op, done, err, again := Op(r.body.int32()), r.body.bool(), code(r.body.int32()), code(r.body.int32())
			if op != opError || done || err != want || again != want {
				t.Errorf("result %d: op %d, done %v, errors %d and %d, want %d", i, op, done, err, again, want)
			}
		}
		wantMultiEnd(t, r.body)
		c.want(codeNoNode, OpExists, watchBody("/b", false))
		zxid := c.zxid
		r = c.want(codeOK, OpMulti, multiBody(
			subOp{OpCreate, createBody("/b", "", 0)},
			subOp{OpCreate2, createBody("/b/c-", "", 2)},
			subOp{OpCheck, versionBody("/b", 0)},
			subOp{OpSetData, setBody("/b", "x", 0)},
			subOp{OpDelete, versionBody("/a", 0)},
			subOp{OpCreateContainer, createBody("/k", "", 4)},
			subOp{OpCreateTTL, func(e *encoder) { createBody("/t", "", 5)(e); e.int64(1000) }}))
		if r.zxid != zxid+1 {
			t.Errorf("zxid %d, want one more than %d", r.zxid, zxid)
		}
		d := r.body
		header := func(want Op) {
			t.Helper()
			if op, done, err := Op(d.int32()), d.bool(), d.int32(); op != want || done || err != 0 {
				t.Errorf("op %v, done %v, error %d, want op %v", op, done, err, want)
			}
		}
		header(OpCreate)
		if got := d.string(); got != "/b" {
			t.Errorf("path %q", got)
		}
		second := OpCreate // before 3.9 a create2 within a multi is answered like a create
		if c.release != ZooKeeper38 {
			second = OpCreate2
		}
		header(second)
		if got := d.string(); got != "/b/c-0000000000" {
			t.Errorf("path %q", got)
		}
		if second == OpCreate2 {
			if got := d.stat(); got.czxid != r.zxid {
				t.Errorf("stat %+v", got)
			}
		}
		header(OpCheck)
		header(OpSetData)
		if got := d.stat(); got.version != 1 || got.numChildren != 1 || got.mzxid != r.zxid {
			t.Errorf("stat %+v", got)
		}
		header(OpDelete)
		for _, path := range []string{"/k", "/t"} {
			header(OpCreate2)
			if got := d.string(); got != path {
				t.Errorf("path %q, want %q", got, path)
			}
			if got := d.stat(); got.czxid != r.zxid || got.ephemeralOwner != 0 {
				t.Errorf("stat %+v", got)
			}
		}
		wantMultiEnd(t, d)
		wantMultiEnd(t, c.want(codeOK, OpMulti, multiBody()).body)
	})
}

func wantMultiEnd(t *testing.T, d *decoder) {
	t.Helper()
	if op, done, err := d.int32(), d.bool(), d.int32(); op != -1 || !done || err != -1 || d.err != nil || len(d.b) != 0 {
		t.Errorf("end: op %d, done %v, error %d, %d bytes left", op, done, err, len(d.b))
	}
}

func TestMultiSeesItsOwnChanges(t *testing.T) {
	withRaw(t, func(t *testing.T, _ *Server, c *rawClient) {
		c.want(codeOK, OpCreate, createBody("/a", "", 0))
		for name, test := range map[string]struct {
			ops  []subOp
			fail int // the operation that fails, -1 for none
			err  code
		}{
			"replace": {[]subOp{{OpDelete, versionBody("/a", -1)}, {OpCreate, createBody("/a", "", 0)}}, -1, 0},
			"empty":   {[]subOp{{OpCreate, createBody("/x", "", 0)}, {OpDelete, versionBody("/x", 0)}}, -1, 0},
			"twice":   {[]subOp{{OpSetData, setBody("/a", "", 0)}, {OpSetData, setBody("/a", "", 0)}}, 1, codeBadVersion},
			"gone":    {[]subOp{{OpDelete, versionBody("/a", -1)}, {OpCheck, versionBody("/a", -1)}}, 1, codeNoNode},
			"full":    {[]subOp{{OpCreate, createBody("/a/b", "", 0)}, {OpDelete, versionBody("/a", -1)}}, 1, codeNotEmpty},
			"below ephemeral": {[]subOp{
				{OpCreate, createBody("/e", "", 1)}, {OpCreate, createBody("/e/x", "", 0)},
			}, 1, codeNoChildrenEphemerals},
		} {
			r := c.want(codeOK, OpMulti, multiBody(test.ops...))
			var errs []code
			for range test.ops {
				op, _, err := Op(r.body.int32()), r.body.bool(), code(r.body.int32())
				errs = append(errs, err)
				switch op {
				case OpCreate:
					r.body.string()
				case OpSetData:
					r.body.stat()
				case opError:
					r.body.int32()
				default: // a header alone
				}
			}
			for i, err := range errs {
				if want := map[bool]code{true: test.err}[i == test.fail]; err != want {
					t.Errorf("%s: errors %v, want %d at %d", name, errs, test.err, test.fail)
				}
			}
			wantMultiEnd(t, r.body)
		}
	})
}

func TestMultiRead(t *testing.T) {
	withRaw(t, func(t *testing.T, srv *Server, c *rawClient) {
		c.want(codeOK, OpCreate, createBody("/a", "data", 0))
		zxid := c.zxid
		r := c.want(codeOK, OpMultiRead, multiBody(
			subOp{OpGetData, watchBody("/a", true)},
			subOp{OpGetChildren, watchBody("/", false)},
			subOp{OpGetData, watchBody("/x", false)}))
		d := r.body
		if op, _, err := Op(d.int32()), d.bool(), d.int32(); op != OpGetData || err != 0 {
			t.Errorf("op %v, error %d", op, err)
		}
		if data, s := d.bytes(), d.stat(); string(data) != "data" || s.dataLength != 4 {
			t.Errorf("data %q, stat %+v", data, s)
		}
		if op, _, err := Op(d.int32()), d.bool(), d.int32(); op != OpGetChildren || err != 0 {
			t.Errorf("op %v, error %d", op, err)
		}
		if got := d.strings(); fmt.Sprint(got) != "[a zookeeper]" {
			t.Errorf("children %v", got)
		}
		if op, _, err, again := Op(d.int32()), d.bool(), code(d.int32()), code(d.int32()); op != opError || err != codeNoNode || again != codeNoNode {
			t.Errorf("op %v, errors %d and %d", op, err, again)
		}
		wantMultiEnd(t, d)
		if r.zxid != zxid || srv.Watches() != 0 {
			t.Errorf("zxid %d after %d, %d watches", r.zxid, zxid, srv.Watches())
		}
		c.want(codeMarshallingError, OpMultiRead, multiBody(subOp{OpDelete, versionBody("/a", -1)}))
	})
}

func TestReadsOfWhatIsNotThere(t *testing.T) {
	withRaw(t, func(t *testing.T, _ *Server, c *rawClient) {
		zxid := c.do(OpPing, nil).zxid
		for _, op := range []Op{OpExists, OpGetData, OpGetChildren, OpGetChildren2} {
			c.want(codeNoNode, op, watchBody("/x", false))
			c.want(codeMarshallingError, op, nil)
		}
		for _, op := range []Op{OpGetACL, OpGetAllChildrenNumber} {
			c.want(codeNoNode, op, pathBody("/x"))
			c.want(codeMarshallingError, op, nil)
		}
		c.want(codeBadArguments, OpExists, watchBody("/x\x00", false))
		if c.zxid != zxid {
			t.Errorf("zxid %d, was %d", c.zxid, zxid)
		}
	})
}

func TestCountsAndLists(t *testing.T) {
	withRaw(t, func(t *testing.T, _ *Server, c *rawClient) {
		for _, path := range []string{"/a", "/a/b", "/a/b/c", "/ab"} {
			c.want(codeOK, OpCreate, createBody(path, "", 0))
		}
		c.want(codeOK, OpCreate, createBody("/a/e", "", 1))
		c.want(codeOK, OpCreate, createBody("/f", "", 1))
		for path, want := range map[string]int32{"/": 9, "/a": 3, "/a/b": 1, "/ab": 0} {
			if got := c.want(codeOK, OpGetAllChildrenNumber, pathBody(path)).body.int32(); got != want {
				t.Errorf("%s has %d descendants, want %d", path, got, want)
			}
		}
		for prefix, want := range map[string]string{"": "[/a/e /f]", "/": "[/a/e /f]", "/a": "[/a/e]", "/x": "[]"} {
			if got := c.want(codeOK, OpGetEphemerals, pathBody(prefix)).body.strings(); fmt.Sprint(got) != want {
				t.Errorf("%q: ephemerals %v, want %s", prefix, got, want)
			}
		}
	})
}

func TestContainersAndTTLNodesGoAway(t *testing.T) {
	withRaw(t, func(t *testing.T, srv *Server, c *rawClient) {
		ttl := func(path string, d time.Duration, flags int32) {
			c.want(codeOK, OpCreateTTL, func(e *encoder) { createBody(path, "", flags)(e); e.int64(d.Milliseconds()) })
		}
		c.want(codeOK, OpCreateContainer, createBody("/used", "", 4))
		c.want(codeOK, OpCreate, createBody("/used/x", "", 0))
		c.want(codeOK, OpDelete, versionBody("/used/x", -1))
		c.want(codeOK, OpCreateContainer, createBody("/fresh", "", 4))
		c.want(codeOK, OpCreateContainer, createBody("/full", "", 4))
		c.want(codeOK, OpCreate, createBody("/full/x", "", 0))
		ttl("/short", time.Second, 5)
		ttl("/seq-", time.Second, 6)
		ttl("/long", time.Hour, 5)
		ttl("/parent", time.Second, 5)
		c.want(codeOK, OpCreate, createBody("/parent/x", "", 0))
		c.want(codeOK, OpExists, watchBody("/used", true))
		client := connect(t, srv, 10*time.Second) // keeps time passing for the watch
		for range 2*sweepInterval/20_000 + 1 {
			time.Sleep(20 * time.Second)
			c.do(OpPing, nil)
		}
		for path, want := range map[string]code{
			"/used": codeNoNode, "/fresh": codeOK, "/full": codeOK,
			"/short": codeNoNode, "/seq-0000000004": codeNoNode, "/long": codeOK, "/parent": codeOK,
		} {
			if got := c.do(OpExists, watchBody(path, false)).err; got != want {
				t.Errorf("%s: error %d, want %d", path, got, want)
			}
		}
		if events := c.takeEvents(); len(events) != 1 || events[0] != (rawEvent{nodeDeleted, "/used"}) {
			t.Errorf("events %v", events)
		}
		client.stop()
	})
}

func TestCheckOutsideAMulti(t *testing.T) {
	withRaw(t, func(t *testing.T, _ *Server, c *rawClient) {
		if c.release != ZooKeeper38 {
			c.want(codeUnimplemented, OpCheck, versionBody("/", 0))
			c.wantClosed()
			return
		}
		// It is answered only when it is refused.
		zxid := c.do(OpPing, nil).zxid
		c.request(OpCheck, versionBody("/", 0))
		if r := c.do(OpPing, nil); r.zxid != zxid+1 {
			t.Errorf("zxid %d, was %d", r.zxid, zxid)
		}
		c.want(codeBadVersion, OpCheck, versionBody("/", 1))
	})
}

func TestRareRequests(t *testing.T) {
	withRaw(t, func(t *testing.T, _ *Server, c *rawClient) {
		zxid := c.do(OpPing, nil).zxid
		if r := c.want(codeMarshallingError, OpReconfig, nil); r.zxid != zxid {
			t.Errorf("zxid %d, was %d", r.zxid, zxid)
		}
		null := func(e *encoder) { e.bytes(nil) }
		if r := c.want(codeOK, OpSync, null); r.body.int32() != -1 {
			t.Error("the null path of a sync is not given back")
		}
		if r := c.want(codeOK, OpSASL, null); r.zxid != 0 || r.body.int32() != -1 {
			t.Error("sasl is not answered with an empty token")
		}
	})
}

func TestUnknownOperationClosesTheConnection(t *testing.T) {
	for _, op := range []Op{OpNotification, 10, 99, 4711, -1} {
		withRaw(t, func(t *testing.T, _ *Server, c *rawClient) {
			if r := c.do(op, nil); r.err != codeUnimplemented || r.zxid != -1 {
				t.Errorf("%v: error %d, zxid %d", op, r.err, r.zxid)
			}
			c.wantClosed()
		})
	}
}

func TestSizeLimits(t *testing.T) {
	withRaw(t, func(t *testing.T, _ *Server, c *rawClient) {
		overhead := 8 + 4 + len("/a") + 4 + 4 + 4 + 4 + len("world") + 4 + len("anyone") + 4
		c.want(codeOK, OpCreate, createBody("/a", strings.Repeat("x", maxFrame-overhead), 0))
		if n := c.stat("/a").dataLength; int(n) != maxFrame-overhead {
			t.Errorf("%d bytes", n)
		}
		body := &encoder{}
		body.int32(maxFrame + 1)
		c.write(body.b)
		c.wantClosed()
	})
}

func TestMalformedFramesCloseOnlyTheirConnection(t *testing.T) {
	withRaw(t, func(t *testing.T, srv *Server, witness *rawClient) {
		for _, frame := range []string{"\xff\xff\xff\xff", "\x00\x00\x00\x04abcd", "\x7f\xff\xff\xff", "\x00\x00\x00\x00"} {
			first := newRaw(t, srv.Member(0))
			first.write([]byte(frame))
			first.wantClosed()
			later := openRaw(t, srv.Member(0), 4*time.Second)
			later.write([]byte(frame))
			later.wantClosed()
		}
		witness.do(OpPing, nil)
	})
}
