package testutil

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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
		assert.Equal(t, "/a", r.body.string())
		want := stat{
			czxid: r.zxid, mzxid: r.zxid, pzxid: r.zxid, ctime: now, mtime: now,
			ephemeralOwner: c.session, dataLength: 4,
		}
		assert.Equal(t, want, r.body.stat())
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
		assert.Equal(t, want, set)
	})
}

func TestRootBegins(t *testing.T) {
	withRaw(t, func(t *testing.T, _ *Server, c *rawClient) {
		assert.Equal(t, stat{cversion: -1, numChildren: 1}, c.stat("/"))
		r := c.want(codeOK, OpGetChildren, watchBody("/zookeeper", false))
		assert.Equal(t, []string{"config", "quota"}, r.body.strings())
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
	{"deleteContainer of the server's own", OpDeleteContainer, pathBody("/zookeeper/quota"), codeBadArguments},
	{"delete null path", OpDelete, func(e *encoder) { e.bytes(nil); e.int32(-1) }, codeMarshallingError},
	{"delete truncated", OpDelete, pathBody("/a"), codeMarshallingError},
	{"set null path", OpSetData, func(e *encoder) { e.bytes(nil); e.bytes(nil); e.int32(-1) }, codeBadArguments},
	{"setACL null path", OpSetACL, func(e *encoder) { e.bytes(nil); e.acls(openACL); e.int32(-1) }, codeBadArguments},
	{"create null path and unknown flags", OpCreate, func(e *encoder) { e.bytes(nil); e.bytes(nil); e.acls(openACL); e.int32(7) }, codeBadArguments},
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
			if test.want != codeMarshallingError || test.op == OpMulti || strings.Contains(test.name, "null") || c.release == ZooKeeper38 {
				zxid++ // since 3.9 what cannot be read takes none
			}
			r := c.do(test.op, test.body)
			assert.Equal(t, test.want, r.err, test.name)
			assert.Equal(t, zxid, r.zxid, test.name)
			assert.Empty(t, r.body.b, test.name)
		}
		srv.mu.Lock()
		defer srv.mu.Unlock()
		assert.Equal(t, dumpTree(before), dumpTree(srv.tree), "the tree has changed")
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
		assert.Equal(t, dumpTree(srv.tree), dumpTree(clone), "the clone differs")
		before := dumpTree(clone)
		srv.mu.Unlock()
		c.want(codeOK, OpSetData, setBody("/a", "y", -1))
		c.want(codeOK, OpCreate, createBody("/a/b", "", 0))
		c.want(codeOK, OpDelete, versionBody("/e", -1))
		assert.Equal(t, before, dumpTree(clone), "the clone changed with the tree")
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
		assert.Equal(t, want, got)
	})
}

func TestSequenceCounterSticksAtItsEnd(t *testing.T) {
	withRaw(t, func(t *testing.T, srv *Server, c *rawClient) {
		sequence := func() rawReply { return c.do(OpCreate, createBody("/p/n-", "", 2)) }
		c.want(codeOK, OpCreate, createBody("/p", "", 0))
		require.NoError(t, srv.SetSequence("/p", 2147483646))
		assert.Error(t, srv.SetSequence("/none", 1), "set the counter of a node that does not exist")
		assert.Equal(t, "/p/n-2147483646", sequence().body.string())
		before := c.stat("/p").pzxid
		assert.Equal(t, "/p/n-2147483647", sequence().body.string())
		assert.Equal(t, before, c.stat("/p").pzxid, "pzxid")
		assert.Equal(t, codeNodeExists, sequence().err)
		assert.Equal(t, "/p/m-2147483647", c.want(codeOK, OpCreate, createBody("/p/m-", "", 2)).body.string())
		// Within a multi the second one sees the counter past its end.
		r := c.want(codeOK, OpMulti, multiBody(
			subOp{OpCreate, createBody("/p/o-", "", 2)}, subOp{OpCreate, createBody("/p/o-", "", 2)}))
		var paths []string
		for range 2 {
			r.body.take(9)
			paths = append(paths, r.body.string())
		}
		assert.Equal(t, []string{"/p/o-2147483647", "/p/o--2147483648"}, paths)
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
			got := []any{Op(r.body.int32()), r.body.bool(), code(r.body.int32()), code(r.body.int32())}
			assert.Equal(t, []any{opError, false, want, want}, got, "result %d: operation, done, error, error again", i)
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
		assert.Equal(t, zxid+1, r.zxid)
		d := r.body
		header := func(want Op) {
			t.Helper()
			assert.Equal(t, []any{want, false, codeOK}, []any{Op(d.int32()), d.bool(), code(d.int32())}, "operation, done, error")
		}
		header(OpCreate)
		assert.Equal(t, "/b", d.string())
		second := OpCreate // before 3.9 a create2 within a multi is answered like a create
		if c.release != ZooKeeper38 {
			second = OpCreate2
		}
		header(second)
		assert.Equal(t, "/b/c-0000000000", d.string())
		if second == OpCreate2 {
			assert.Equal(t, r.zxid, d.stat().czxid)
		}
		header(OpCheck)
		header(OpSetData)
		got := d.stat()
		assert.Equal(t, int32(1), got.version)
		assert.Equal(t, int32(1), got.numChildren)
		assert.Equal(t, r.zxid, got.mzxid)
		header(OpDelete)
		for _, path := range []string{"/k", "/t"} {
			header(OpCreate2)
			assert.Equal(t, path, d.string())
			got := d.stat()
			assert.Equal(t, r.zxid, got.czxid)
			assert.Zero(t, got.ephemeralOwner)
		}
		wantMultiEnd(t, d)
		wantMultiEnd(t, c.want(codeOK, OpMulti, multiBody()).body)
	})
}

func wantMultiEnd(t *testing.T, d *decoder) {
	t.Helper()
	assert.Equal(t, []any{opError, true, int32(-1)}, []any{Op(d.int32()), d.bool(), d.int32()}, "the end's operation, done, error")
	assert.NoError(t, d.err)
	assert.Empty(t, d.b)
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
				assert.Equal(t, map[bool]code{true: test.err}[i == test.fail], err, "%s: operation %d", name, i)
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
		header := func(op Op, err code) {
			t.Helper()
			got, _, failed := Op(d.int32()), d.bool(), code(d.int32())
			assert.Equal(t, []any{op, err}, []any{got, failed}, "operation, error")
		}
		header(OpGetData, codeOK)
		data, s := d.bytes(), d.stat()
		assert.Equal(t, "data", string(data))
		assert.Equal(t, int32(4), s.dataLength)
		header(OpGetChildren, codeOK)
		assert.Equal(t, []string{"a", "zookeeper"}, d.strings())
		header(opError, codeNoNode)
		assert.Equal(t, codeNoNode, code(d.int32()), "the error again")
		wantMultiEnd(t, d)
		assert.Equal(t, zxid, r.zxid)
		assert.Zero(t, srv.Watches())
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
		assert.Equal(t, zxid, c.zxid)
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
			assert.Equal(t, want, c.want(codeOK, OpGetAllChildrenNumber, pathBody(path)).body.int32(), "descendants of %s", path)
		}
		for prefix, want := range map[string][]string{"": {"/a/e", "/f"}, "/": {"/a/e", "/f"}, "/a": {"/a/e"}, "/x": {}} {
			assert.Equal(t, want, c.want(codeOK, OpGetEphemerals, pathBody(prefix)).body.strings(), "ephemerals below %q", prefix)
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
			assert.Equal(t, want, c.do(OpExists, watchBody(path, false)).err, path)
		}
		assert.Equal(t, []rawEvent{{nodeDeleted, "/used"}}, c.takeEvents())
		client.stop()
	})
}

// TestSweepsCountFromTheLeadersBeginning: of an ensemble's next leader, and of a server that was started again.
func TestSweepsCountFromTheLeadersBeginning(t *testing.T) {
	for _, test := range []struct {
		members     int
		stop, start time.Duration
		goneAt      time.Duration
	}{
		{3, 90 * time.Second, 0, 150 * time.Second},
		{1, 50 * time.Second, 70 * time.Second, 130 * time.Second},
		{1, 10 * time.Second, 30 * time.Second, 90 * time.Second},
	} {
		inMemory(t, ServerOptions{Members: test.members, MaxSessionTimeout: time.Hour}, func(t *testing.T, srv *Server) {
			began := time.Now()
			c := openRaw(t, srv.Member(test.members-1), time.Hour)
			if test.members > 1 {
				time.Sleep(61 * time.Second)
			}
			c.want(codeOK, OpCreateContainer, createBody("/k", "", 4))
			c.want(codeOK, OpCreate, createBody("/k/x", "", 0))
			if test.members == 1 {
				c.want(codeOK, OpDelete, versionBody("/k/x", -1))
			}
			time.Sleep(time.Until(began.Add(test.stop)))
			srv.Member(0).Stop()
			if test.start > 0 {
				time.Sleep(time.Until(began.Add(test.start)))
				require.NoError(t, srv.Member(0).Start())
			}
			c = c.again(srv.Member(test.members - 1))
			if test.members > 1 {
				c.want(codeOK, OpDelete, versionBody("/k/x", -1))
			}
			time.Sleep(time.Until(began.Add(test.goneAt - time.Second)))
			c.want(codeOK, OpExists, watchBody("/k", false))
			time.Sleep(2 * time.Second)
			c.want(codeNoNode, OpExists, watchBody("/k", false))
		})
	}
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
		assert.Equal(t, zxid+1, c.do(OpPing, nil).zxid)
		c.want(codeBadVersion, OpCheck, versionBody("/", 1))
	})
}

// A client can delete a container, or any other node without children that is not
// ephemeral, as the server does: without the right to.
func TestDeleteContainerOfAClient(t *testing.T) {
	withRaw(t, func(_ *testing.T, _ *Server, c *rawClient) {
		c.want(codeOK, OpCreateContainer, func(e *encoder) {
			e.string("/k")
			e.bytes(nil)
			e.acls(readOnly)
			e.int32(containerFlag)
		})
		c.want(codeOK, OpCreate, createBody("/e", "", 1))
		if c.release == ZooKeeper38 {
			c.want(codeBadArguments, OpDeleteContainer, pathBody("/k"))
			return
		}
		c.want(codeBadVersion, OpDeleteContainer, pathBody("/e"))
		c.want(codeNoNode, OpDeleteContainer, pathBody("/none"))
		c.want(codeOK, OpDeleteContainer, pathBody("/k"))
		c.want(codeNoNode, OpExists, watchBody("/k", false))
	})
}

func TestRareRequests(t *testing.T) {
	withRaw(t, func(t *testing.T, _ *Server, c *rawClient) {
		zxid := c.do(OpPing, nil).zxid
		assert.Equal(t, zxid, c.want(codeMarshallingError, OpReconfig, nil).zxid)
		null := func(e *encoder) { e.bytes(nil) }
		assert.Equal(t, int32(-1), c.want(codeOK, OpSync, null).body.int32(), "the null path of a sync is not given back")
		r := c.want(codeOK, OpSASL, pathBody("token"))
		assert.Zero(t, r.zxid)
		assert.Equal(t, int32(-1), r.body.int32(), "sasl is answered with an empty token")
		c.request(OpSASL, null)
		c.wantClosed()
	})
}

func TestUnknownOperationClosesTheConnection(t *testing.T) {
	for _, op := range []Op{OpNotification, 10, 99, 4711, -1} {
		withRaw(t, func(t *testing.T, _ *Server, c *rawClient) {
			r := c.do(op, nil)
			assert.Equal(t, codeUnimplemented, r.err, op)
			assert.Equal(t, int64(-1), r.zxid, op)
			c.wantClosed()
		})
	}
}

func TestSizeLimits(t *testing.T) {
	withRaw(t, func(t *testing.T, _ *Server, c *rawClient) {
		overhead := 8 + 4 + len("/a") + 4 + 4 + 4 + 4 + len("world") + 4 + len("anyone") + 4
		c.want(codeOK, OpCreate, createBody("/a", strings.Repeat("x", maxFrame-overhead), 0))
		assert.Equal(t, maxFrame-overhead, int(c.stat("/a").dataLength), "bytes")
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

// TestNodesWithATimeToLiveGoInTime: the clock learns of the first one, though it would sleep for longer.
func TestNodesWithATimeToLiveGoInTime(t *testing.T) {
	inMemory(t, ServerOptions{MaxSessionTimeout: 10 * time.Minute}, func(t *testing.T, srv *Server) {
		began := time.Now()
		c := openRaw(t, srv.Member(0), 10*time.Minute)
		withTTL := func(path string) func(*encoder) {
			return func(e *encoder) { createBody(path, "", 5)(e); e.int64(1000) }
		}
		c.want(codeOK, OpAddWatch, versionBody("/", 1))
		for _, at := range []time.Duration{time.Second, 130 * time.Second} {
			time.Sleep(at - time.Since(began))
			c.want(codeOK, OpCreateTTL, withTTL("/t"))
			_, err := c.frame() // the event
			require.NoError(t, err)
			assert.Equal(t, (at/time.Minute+1)*time.Minute, time.Since(began), "made after %v, it is deleted after", at)
		}
	})
}
