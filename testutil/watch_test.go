package testutil

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestWatchesFire(t *testing.T) {
	// Each row: a watch on a tree that holds /a and /a/b, what another client
	// does, and the events that the watcher gets.
	exists := func(path string) subOp { return subOp{OpExists, watchBody(path, true)} }
	data := func(path string) subOp { return subOp{OpGetData, watchBody(path, true)} }
	children := func(path string) subOp { return subOp{OpGetChildren2, watchBody(path, true)} }
	add := func(path string, mode int32) subOp { return subOp{OpAddWatch, versionBody(path, mode)} }
	create := func(path string) subOp { return subOp{OpCreate, createBody(path, "", 0)} }
	set := func(path string) subOp { return subOp{OpSetData, setBody(path, "", -1)} }
	remove := func(path string) subOp { return subOp{OpDelete, versionBody(path, -1)} }
	const persistentMode, recursiveMode = 0, 1
	for _, test := range []struct {
		name    string
		watches []subOp
		changes []subOp
		want    []rawEvent
		only    Release // "" for all
	}{
		{"created", []subOp{exists("/x")}, []subOp{create("/x"), set("/x")}, []rawEvent{{nodeCreated, "/x"}}, ""},
		{"exists sees data", []subOp{exists("/a")}, []subOp{set("/a"), set("/a")}, []rawEvent{{nodeDataChanged, "/a"}}, ""},
		{"data", []subOp{data("/a")}, []subOp{set("/a"), set("/a")}, []rawEvent{{nodeDataChanged, "/a"}}, ""},
		{"data not children", []subOp{data("/a")}, []subOp{create("/a/x")}, nil, ""},
		{"data deleted", []subOp{data("/a/b")}, []subOp{remove("/a/b"), create("/a/b")}, []rawEvent{{nodeDeleted, "/a/b"}}, ""},
		{"children", []subOp{children("/a")}, []subOp{create("/a/x"), create("/a/y")}, []rawEvent{{nodeChildrenChanged, "/a"}}, ""},
		{"children not data", []subOp{children("/a")}, []subOp{set("/a")}, nil, ""},
		{"children not grandchildren", []subOp{children("/a")}, []subOp{create("/a/b/x")}, nil, ""},
		{"children of root", []subOp{children("/")}, []subOp{create("/x")}, []rawEvent{{nodeChildrenChanged, "/"}}, ""},
		{"children deleted", []subOp{children("/a/b")}, []subOp{remove("/a/b")}, []rawEvent{{nodeDeleted, "/a/b"}}, ""},
		{
			"both deleted is told once",
			[]subOp{children("/a/b"), data("/a/b"), exists("/a/b")},
			[]subOp{remove("/a/b")},
			[]rawEvent{{nodeDeleted, "/a/b"}},
			"",
		},
		{
			"node before parent",
			[]subOp{exists("/a/b"), children("/a")},
			[]subOp{remove("/a/b")},
			[]rawEvent{{nodeDeleted, "/a/b"}, {nodeChildrenChanged, "/a"}},
			"",
		},
		{
			"persistent",
			[]subOp{add("/a", persistentMode)},
			[]subOp{set("/a"), set("/a"), create("/a/x"), remove("/a/x"), create("/a/b/x")},
			[]rawEvent{{nodeDataChanged, "/a"}, {nodeDataChanged, "/a"}, {nodeChildrenChanged, "/a"}, {nodeChildrenChanged, "/a"}},
			"",
		},
		{
			"persistent survives the node",
			[]subOp{add("/a/b", persistentMode)},
			[]subOp{remove("/a/b"), create("/a/b")},
			[]rawEvent{{nodeDeleted, "/a/b"}, {nodeCreated, "/a/b"}},
			"",
		},
		{
			"recursive",
			[]subOp{add("/a", recursiveMode)},
			[]subOp{set("/a"), create("/a/b/x"), set("/a/b/x"), remove("/a/b/x"), create("/ab")},
			[]rawEvent{{nodeDataChanged, "/a"}, {nodeCreated, "/a/b/x"}, {nodeDataChanged, "/a/b/x"}, {nodeDeleted, "/a/b/x"}},
			"",
		},
		{"recursive from root", []subOp{add("/", recursiveMode)}, []subOp{create("/x"), remove("/a/b")}, []rawEvent{{nodeCreated, "/x"}, {nodeDeleted, "/a/b"}}, ""},
		{
			"recursive above one-shot is told once",
			[]subOp{add("/a", recursiveMode), data("/a/b")},
			[]subOp{set("/a/b"), set("/a/b")},
			[]rawEvent{{nodeDataChanged, "/a/b"}, {nodeDataChanged, "/a/b"}},
			"",
		},
		{
			"one-shot replaces persistent",
			[]subOp{add("/a", persistentMode), data("/a")},
			[]subOp{set("/a"), set("/a")},
			[]rawEvent{{nodeDataChanged, "/a"}},
			ZooKeeper38,
		},
		{
			"one-shot stands beside persistent",
			[]subOp{add("/a", persistentMode), data("/a")},
			[]subOp{set("/a"), set("/a")},
			[]rawEvent{{nodeDataChanged, "/a"}, {nodeDataChanged, "/a"}},
			ZooKeeper39,
		},
		{
			"one of three modes removed",
			[]subOp{add("/a", persistentMode), add("/a", recursiveMode), data("/a"), {OpRemoveWatches, versionBody("/a", watcherPersistent)}},
			[]subOp{set("/a"), set("/a"), create("/a/x")},
			[]rawEvent{{nodeDataChanged, "/a"}, {nodeDataChanged, "/a"}, {nodeCreated, "/a/x"}},
			ZooKeeper39,
		},
		{
			"two of three modes removed",
			[]subOp{
				add("/a", persistentMode), add("/a", recursiveMode), data("/a"),
				{OpRemoveWatches, versionBody("/a", watcherRecursive)},
				{OpRemoveWatches, versionBody("/a", watcherPersistent)},
			},
			[]subOp{set("/a"), set("/a"), create("/a/x")},
			[]rawEvent{{nodeDataChanged, "/a"}},
			ZooKeeper39,
		},
		{
			"removed",
			[]subOp{data("/a"), children("/a"), {OpRemoveWatches, versionBody("/a", watcherData)}},
			[]subOp{set("/a"), create("/a/x")},
			[]rawEvent{{nodeChildrenChanged, "/a"}},
			"",
		},
		{
			"all removed",
			[]subOp{data("/a"), children("/a"), {OpRemoveWatches, versionBody("/a", watcherAny)}},
			[]subOp{set("/a"), create("/a/x")},
			nil,
			"",
		},
		{
			"recursive removed",
			[]subOp{add("/a", recursiveMode), {OpRemoveWatches, versionBody("/a", watcherAny)}},
			[]subOp{set("/a"), create("/a/x")},
			nil,
			"",
		},
		{
			"a multi's events in order",
			[]subOp{exists("/x"), children("/a"), exists("/x/y")},
			[]subOp{{OpMulti, multiBody(create("/x"), create("/a/x"), create("/x/y"))}},
			[]rawEvent{{nodeCreated, "/x"}, {nodeChildrenChanged, "/a"}, {nodeCreated, "/x/y"}},
			"",
		},
		{"a failed multi's none", []subOp{exists("/x")}, []subOp{{OpMulti, multiBody(create("/x"), remove("/none"))}}, nil, ""},
		{"acl is no change", []subOp{data("/a")}, []subOp{{OpSetACL, func(e *encoder) { e.string("/a"); e.acls(openACL); e.int32(-1) }}}, nil, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			withRaw(t, func(t *testing.T, srv *Server, c *rawClient) {
				if test.only != "" && test.only != c.release {
					return
				}
				other := openRaw(t, srv.Member(0), 40*time.Second)
				c.want(codeOK, OpCreate, createBody("/a", "", 0))
				c.want(codeOK, OpCreate, createBody("/a/b", "", 0))
				for _, w := range test.watches {
					c.do(w.op, w.body)
				}
				for _, change := range test.changes {
					other.want(codeOK, change.op, change.body)
				}
				assert.Equal(t, test.want, c.takeEvents())
			})
		})
	}
}

func TestEventComesBeforeWhatFollowsTheChange(t *testing.T) {
	withRaw(t, func(t *testing.T, _ *Server, c *rawClient) {
		c.want(codeOK, OpCreate, createBody("/a", "0", 0))
		for range 100 {
			c.want(codeOK, OpGetData, watchBody("/a", true))
			// The own write's event is before its answer.
			c.want(codeOK, OpSetData, setBody("/a", "1", -1))
			require.Len(t, c.events, 1, "events before the answer")
			c.events = nil
		}
	})
}

func TestFailedReadSetsNoWatch(t *testing.T) {
	withRaw(t, func(t *testing.T, srv *Server, c *rawClient) {
		c.want(codeNoNode, OpGetData, watchBody("/x", true))
		c.want(codeNoNode, OpGetChildren, watchBody("/x", true))
		assert.Zero(t, srv.Watches(), "watches")
		c.want(codeNoNode, OpExists, watchBody("/x", true))
		c.want(codeNoNode, OpExists, watchBody("/x", true))
		assert.Equal(t, 1, srv.Watches(), "watches")
		c.close()
		openRaw(t, srv.Member(0), time.Second)
		for srv.Watches() != 0 {
			time.Sleep(time.Millisecond)
		}
	})
}

func setWatchesBody(since int64, lists ...[]string) func(*encoder) {
	return func(e *encoder) {
		e.int64(since)
		for _, list := range lists {
			e.strings(list)
		}
	}
}

func TestSetWatchesTellsWhatWasMissed(t *testing.T) {
	withRaw(t, func(t *testing.T, srv *Server, c *rawClient) {
		other := openRaw(t, srv.Member(0), 40*time.Second)
		for _, path := range []string{"/same", "/changed", "/gone", "/kids", "/quiet"} {
			other.want(codeOK, OpCreate, createBody(path, "", 0))
		}
		since := other.zxid
		other.want(codeOK, OpSetData, setBody("/changed", "", -1))
		other.want(codeOK, OpDelete, versionBody("/gone", -1))
		other.want(codeOK, OpCreate, createBody("/kids/x", "", 0))
		other.want(codeOK, OpCreate, createBody("/born", "", 0))
		c.want(codeOK, OpSetWatches, setWatchesBody(since,
			[]string{"/same", "/changed", "/gone"}, []string{"/born", "/unborn"}, []string{"/kids", "/quiet", "/gone"}))
		want := []rawEvent{
			{nodeDataChanged, "/changed"},
			{nodeDeleted, "/gone"},
			{nodeCreated, "/born"},
			{nodeChildrenChanged, "/kids"},
			{nodeDeleted, "/gone"},
		}
		assert.Equal(t, want, c.events)
		c.events = nil
		other.want(codeOK, OpSetData, setBody("/same", "", -1))
		other.want(codeOK, OpCreate, createBody("/unborn", "", 0))
		other.want(codeOK, OpCreate, createBody("/quiet/x", "", 0))
		other.want(codeOK, OpSetData, setBody("/changed", "", -1))
		want = []rawEvent{{nodeDataChanged, "/same"}, {nodeCreated, "/unborn"}, {nodeChildrenChanged, "/quiet"}}
		assert.Equal(t, want, c.takeEvents())
		c.want(codeOK, OpSetWatches2, setWatchesBody(since, nil, nil, nil, []string{"/p"}, []string{"/r"}))
		for _, path := range []string{"/p", "/r", "/r/x"} {
			other.want(codeOK, OpCreate, createBody(path, "", 0))
		}
		want = []rawEvent{{nodeCreated, "/p"}, {nodeCreated, "/r"}, {nodeCreated, "/r/x"}}
		assert.Equal(t, want, c.takeEvents())
		c.want(codeMarshallingError, OpSetWatches2, setWatchesBody(since, nil, nil, nil))
	})
}

func TestCheckAndRemoveWatches(t *testing.T) {
	withRaw(t, func(t *testing.T, srv *Server, c *rawClient) {
		for _, op := range []Op{OpCheckWatches, OpRemoveWatches} {
			c.want(codeNoWatcher, op, versionBody("/", watcherAny))
			c.want(codeMarshallingError, op, versionBody("/", 9))
			c.want(codeMarshallingError, op, pathBody("/"))
		}
		c.want(codeMarshallingError, OpAddWatch, versionBody("/", 2))
		c.want(codeOK, OpGetChildren, watchBody("/", true))
		c.want(codeOK, OpCheckWatches, versionBody("/", watcherChildren))
		c.want(codeOK, OpCheckWatches, versionBody("/", watcherAny))
		c.want(codeNoWatcher, OpCheckWatches, versionBody("/", watcherData))
		c.want(codeNoWatcher, OpRemoveWatches, versionBody("/", watcherData))
		c.want(codeOK, OpRemoveWatches, versionBody("/", watcherAny))
		c.want(codeNoWatcher, OpRemoveWatches, versionBody("/", watcherAny))
		r := c.want(codeOK, OpAddWatch, versionBody("/", 0))
		assert.Zero(t, r.body.int32(), "addWatch is answered with a zero")
		assert.Empty(t, r.body.b)
		assert.Equal(t, 2, srv.Watches(), "watches")
	})
}

func TestEventsAreForThoseWhoMayRead(t *testing.T) {
	withRaw(t, func(t *testing.T, srv *Server, c *rawClient) {
		stranger := openRaw(t, srv.Member(0), 40*time.Second)
		c.want(codeOK, OpAuth, authBody("digest", "me:secret"))
		stranger.want(codeOK, OpAddWatch, versionBody("/", 1))
		c.want(codeOK, OpAddWatch, versionBody("/", 1))
		c.want(codeOK, OpCreate, func(e *encoder) {
			e.string("/mine")
			e.bytes(nil)
			e.acls([]acl{{permAll, identity{"auth", ""}}})
			e.int32(0)
		})
		c.want(codeOK, OpCreate, createBody("/all", "", 0))
		assert.Equal(t, []rawEvent{{nodeCreated, "/all"}}, stranger.takeEvents(), "stranger")
		assert.Equal(t, []rawEvent{{nodeCreated, "/mine"}, {nodeCreated, "/all"}}, c.takeEvents(), "owner")
	})
}

// TestWordsCountWhoHasWatched: a connection whose watch has fired is counted until it
// ends, one that has removed its watch in 3.8 alone.
func TestWordsCountWhoHasWatched(t *testing.T) {
	withRaw(t, func(t *testing.T, srv *Server, c *rawClient) {
		connections := func() string {
			var w strings.Builder
			srv.mu.Lock()
			defer srv.unlock()
			srv.members[0].wordWchs(&w)
			said, _, _ := strings.Cut(w.String(), "\n")
			return said
		}
		assert.Equal(t, "0 connections watching 0 paths", connections())
		c.want(codeOK, OpGetData, watchBody("/", true))
		c.want(codeOK, OpRemoveWatches, func(e *encoder) { e.string("/"); e.int32(watcherAny) })
		assert.Equal(t, map[Release]string{
			ZooKeeper38: "1 connections watching 0 paths", ZooKeeper39: "0 connections watching 0 paths",
		}[c.release], connections())
		c.want(codeOK, OpGetData, watchBody("/", true))
		assert.Equal(t, "1 connections watching 1 paths", connections())
		c.want(codeOK, OpSetData, setBody("/", "x", -1))
		assert.Equal(t, "1 connections watching 0 paths", connections())
		c.close()
		synctest.Wait()
		assert.Equal(t, "0 connections watching 0 paths", connections())
	})
}
