package testutil

import (
	"math"
	"slices"
	"strings"
)

// A stat is what a client sees of a node besides its data.
type stat struct {
	czxid, mzxid            int64
	ctime, mtime            int64
	version, cversion       int32
	aversion                int32
	ephemeralOwner          int64
	dataLength, numChildren int32
	pzxid                   int64
}

// A kind tells when a node goes away by itself.
type kind uint8

const (
	persistent kind = iota
	ephemeral       // with its session
	container       // some time after its last child
	withTTL         // some time after its last change, once it has no children
)

// A znode is one node of the tree. Data and acl are replaced, never written to,
// so that a copy of the tree may share them.
type znode struct {
	data                []byte
	acl                 []acl
	kind                kind
	owner               int64 // the session of an ephemeral node
	ttl                 int64 // milliseconds
	czxid, mzxid, pzxid int64
	ctime, mtime        int64
	version, aversion   int32
	// created counts the children ever created: the source of sequence numbers.
	// A client sees it as cversion, which also counts the children deleted.
	created  int32
	children *javaSet // nil before the first
}

func (n *znode) stat() stat {
	s := stat{
		czxid: n.czxid, mzxid: n.mzxid, pzxid: n.pzxid, ctime: n.ctime, mtime: n.mtime,
		version: n.version, aversion: n.aversion,
		dataLength: int32(len(n.data)), numChildren: int32(n.children.len()),
		cversion: n.created*2 - int32(n.children.len()),
	}
	if n.kind == ephemeral {
		s.ephemeralOwner = n.owner
	}
	return s
}

// childNames gives the children's names in the order in which ZooKeeper does. The
// caller must not change it.
func (n *znode) childNames() []string { return n.children.strings() }

func (n *znode) addChild(name string) {
	if n.children == nil {
		n.children = newJavaSet(childrenTable)
	}
	n.children.add(name)
}

// A tree is the state that transactions change: the nodes, and which of them
// belong to which session. It does no I/O, knows no clock and decides nothing:
// whoever holds it guards it.
type tree struct {
	// nodes holds the root under "/" and under "", the parent of "/a".
	nodes      map[string]*znode
	ephemerals map[int64]*javaSet
	// transient holds the containers and the nodes with a time to live.
	transient map[string]struct{}
	lastZxid  int64
}

func newTree() *tree {
	root := &znode{acl: openACL}
	t := &tree{
		nodes:      map[string]*znode{"": root, "/": root},
		ephemerals: make(map[int64]*javaSet),
		transient:  make(map[string]struct{}),
	}
	for _, path := range []string{"/zookeeper", "/zookeeper/quota", "/zookeeper/config"} {
		parent, name, _ := splitPath(path)
		t.nodes[parent].addChild(name)
		t.nodes[path] = &znode{acl: openACL, data: []byte{}}
	}
	root.data = []byte{}
	config := t.nodes["/zookeeper/config"]
	config.acl, config.aversion = readOnly, -1
	return t
}

// isSystemPath tells which nodes nobody can delete.
func isSystemPath(path string) bool {
	return path == "/" || path == "/zookeeper" || path == "/zookeeper/quota" || path == "/zookeeper/config"
}

// clone copies the tree for a member that stops following it.
func (t *tree) clone() *tree {
	c := &tree{
		nodes:      make(map[string]*znode, len(t.nodes)),
		ephemerals: make(map[int64]*javaSet, len(t.ephemerals)),
		transient:  make(map[string]struct{}, len(t.transient)),
		lastZxid:   t.lastZxid,
	}
	for path, n := range t.nodes {
		if path == "" {
			continue
		}
		copied := *n
		copied.children = n.children.clone()
		c.nodes[path] = &copied
	}
	c.nodes[""] = c.nodes["/"]
	for id, paths := range t.ephemerals {
		c.ephemerals[id] = paths.clone()
	}
	for path := range t.transient {
		c.transient[path] = struct{}{}
	}
	return c
}

// ephemeralsOf gives the paths of a session's ephemeral nodes in the order in which
// ZooKeeper lists them, and deletes them at the session's end: that of a copy of its
// set. The caller must not change it.
func (t *tree) ephemeralsOf(session int64) []string { return t.ephemerals[session].copied() }

// descendants counts the nodes below a path.
func (t *tree) descendants(path string) int32 {
	if path == "/" {
		return int32(len(t.nodes) - 2)
	}
	var n int32
	for p := range t.nodes {
		if strings.HasPrefix(p, path+"/") {
			n++
		}
	}
	return n
}

// A txn is a decided change, the same for every member that applies it. One
// that failed changes nothing and still advances the zxid.
type txn struct {
	op      Op // OpConnect and OpClose: a session begins, ends
	zxid    int64
	time    int64 // milliseconds since 1970
	session int64
	path    string
	data    []byte
	acl     []acl
	kind    kind
	ttl     int64
	timeout int32 // of a session that begins
	version int32 // of data or acl after the change; of create: the parent's count
	err     code
	ops     []*txn // of a multi
}

// A result is what a client learns of a transaction.
type result struct {
	op   Op
	err  code
	path string
	stat stat
	ops  []result
}

// An eventType is the type of a watch event as the wire has it.
type eventType int32

const (
	nodeCreated         eventType = 1
	nodeDeleted         eventType = 2
	nodeDataChanged     eventType = 3
	nodeChildrenChanged eventType = 4
)

// An event is a change that watches may wait for. The acl decides who may hear
// of it. One that is made up for a client that was away has no zxid.
type event struct {
	typ  eventType
	path string
	acl  []acl
	zxid int64
}

// apply makes a transaction true in this tree. It tells each change to fire, in
// the order in which clients must see them.
func (t *tree) apply(x *txn, fire func(event)) result {
	r := t.change(x, fire)
	t.lastZxid = max(t.lastZxid, x.zxid)
	return r
}

func (t *tree) change(x *txn, fire func(event)) result {
	r := result{op: x.op, err: x.err, path: x.path}
	if x.err != codeOK {
		return r
	}
	switch x.op {
	case OpCreate, OpCreate2, OpCreateContainer, OpCreateTTL:
		r.stat = t.create(x, fire)
	case OpDelete, OpDeleteContainer:
		t.remove(x.path, x.zxid, fire)
	case OpSetData:
		n := t.nodes[x.path]
		n.data, n.version, n.mtime, n.mzxid = x.data, x.version, x.time, x.zxid
		r.stat = n.stat()
		fire(event{nodeDataChanged, x.path, n.acl, x.zxid})
	case OpSetACL:
		n := t.nodes[x.path]
		n.acl, n.aversion = x.acl, x.version
		r.stat = n.stat()
	case OpClose:
		for _, path := range t.ephemeralsOf(x.session) {
			t.remove(path, x.zxid, fire)
		}
		delete(t.ephemerals, x.session)
	case OpMulti:
		for _, sub := range x.ops {
			r.ops = append(r.ops, t.change(sub, fire))
		}
	default: // a check, a session that begins
	}
	return r
}

func (t *tree) create(x *txn, fire func(event)) stat {
	parentPath, name, _ := splitPath(x.path)
	parent := t.nodes[parentPath]
	// At the end of the counter the next count is negative, so the counter
	// stays, and with it the parent's pzxid: as ZooKeeper 3.6 to 3.9 do.
	if x.version > parent.created {
		parent.created = x.version
		parent.pzxid = x.zxid
	}
	n := &znode{
		data: x.data, acl: x.acl, kind: x.kind, ttl: x.ttl,
		czxid: x.zxid, mzxid: x.zxid, pzxid: x.zxid, ctime: x.time, mtime: x.time,
	}
	parent.addChild(name)
	t.nodes[x.path] = n
	switch x.kind {
	case persistent:
	case ephemeral:
		n.owner = x.session
		if t.ephemerals[x.session] == nil {
			t.ephemerals[x.session] = newJavaSet(plainTable)
		}
		t.ephemerals[x.session].add(x.path)
	case container, withTTL:
		t.transient[x.path] = struct{}{}
	}
	s := n.stat()
	fire(event{nodeCreated, x.path, n.acl, x.zxid})
	fire(event{nodeChildrenChanged, orRoot(parentPath), parent.acl, x.zxid})
	return s
}

func (t *tree) remove(path string, zxid int64, fire func(event)) {
	parentPath, name, _ := splitPath(path)
	n, parent := t.nodes[path], t.nodes[parentPath]
	parent.children.remove(name)
	parent.pzxid = max(parent.pzxid, zxid)
	delete(t.nodes, path)
	switch n.kind {
	case persistent:
	case ephemeral:
		t.ephemerals[n.owner].remove(path) // until the session ends the set stays, though it be empty, and as large as it was
	case container, withTTL:
		delete(t.transient, path)
	}
	fire(event{nodeDeleted, path, n.acl, zxid})
	fire(event{nodeChildrenChanged, orRoot(parentPath), parent.acl, zxid})
}

func orRoot(parent string) string {
	if parent == "" {
		return "/"
	}
	return parent
}

// overdue lists the transient nodes that are due to be deleted: containers that
// have had children and have none, and childless nodes past their time to live.
func (t *tree) overdue(now int64) []string {
	var due []string
	for path := range t.transient {
		n := t.nodes[path]
		if n.children.len() > 0 {
			continue
		}
		if n.kind == container && n.created > 0 || n.kind == withTTL && now-n.mtime > n.ttl {
			due = append(due, path)
		}
	}
	slices.Sort(due)
	return due
}

const maxTTL = math.MaxInt64 >> 23 // 40 bits of milliseconds
