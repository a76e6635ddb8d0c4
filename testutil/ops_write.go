package testutil

import "fmt"

// A write is a decoded request to change the tree.
type write struct {
	op      Op
	path    string
	data    []byte
	acl     []acl
	nullACL bool // acl was null, which is else as good as empty
	flags   int32
	ttl     int64
	version int32
}

// decodeWrite reads one request as its operation code says.
func decodeWrite(op Op, d *decoder) write {
	w := write{op: op, path: d.string(), ttl: -1}
	switch op {
	case OpCreate, OpCreate2, OpCreateContainer, OpCreateTTL:
		w.data = d.bytes()
		w.nullACL = d.isNull()
		w.acl = d.acls()
		w.flags = d.int32()
		if op == OpCreateTTL {
			w.ttl = d.int64()
		}
	case OpSetData:
		w.data = d.bytes()
		w.version = d.int32()
	case OpSetACL:
		w.acl = d.acls()
		w.version = d.int32()
	case OpDelete, OpCheck:
		w.version = d.int32()
	default: // a read, or nothing but its path counts
	}
	return w
}

// A createMode is what the flags of a create ask for.
type createMode struct {
	ephemeral, sequential, ttl bool
}

// containerFlag is what the flags of a create say of a container.
const containerFlag = 4

func modeOfFlags(flags int32) (createMode, bool) {
	switch flags {
	case 0, containerFlag:
		return createMode{}, true
	case 1:
		return createMode{ephemeral: true}, true
	case 2:
		return createMode{sequential: true}, true
	case 3:
		return createMode{ephemeral: true, sequential: true}, true
	case 5:
		return createMode{ttl: true}, true
	case 6:
		return createMode{sequential: true, ttl: true}, true
	}
	return createMode{}, false
}

// A record is what the checks need to know of a node.
type record struct {
	kind              kind
	version, aversion int32
	created           int32
	children          int
	acl               []acl
}

// A preparer decides whether a write may be done and what exactly it does. It
// changes nothing but its own notes: within a multi, each operation sees what
// the ones before it would leave.
type preparer struct {
	release Release
	tree    *tree
	who     []identity
	session int64
	zxid    int64
	now     int64
	// leaving is how many children each node has besides those in the tree.
	leaving map[string]int
	// check reports whether the session may write through where it is connected.
	check func() code
	// pending holds the nodes as the operations so far leave them, nil for one
	// that is deleted. The map itself is nil outside a multi.
	pending map[string]*record
}

func (p *preparer) record(path string) *record {
	if r, ok := p.pending[path]; ok {
		return r
	}
	n := p.tree.nodes[path]
	if n == nil {
		return nil
	}
	return &record{n.kind, n.version, n.aversion, n.created, n.children.len() + p.leaving[path], n.acl}
}

func (p *preparer) note(path string, r *record) {
	if p.pending != nil {
		p.pending[path] = r
	}
}

func (p *preparer) failed(err code) *txn {
	return &txn{op: opError, zxid: p.zxid, time: p.now, session: p.session, err: err}
}

// prepare turns a write into a transaction, a failed one if it may not be done.
// The order of the checks decides which error a client sees.
func (p *preparer) prepare(w write) *txn {
	x := &txn{op: w.op, zxid: p.zxid, time: p.now, session: p.session, path: w.path}
	var err code
	switch w.op {
	case OpCreate, OpCreate2, OpCreateContainer, OpCreateTTL:
		err = p.create(w, x)
	case OpDelete:
		err = p.remove(w)
	case OpSetData:
		err = p.setData(w, x)
	case OpSetACL:
		err = p.setACL(w, x)
	case OpCheck:
		err = p.checkVersion(w)
	case OpDeleteContainer:
		err = p.removeContainer(w)
	default:
		err = codeMarshallingError
	}
	if err != codeOK {
		return p.failed(err)
	}
	return x
}

func (p *preparer) create(w write, x *txn) code {
	mode, ok := modeOfFlags(w.flags)
	if !ok {
		return codeBadArguments
	}
	if mode.ttl && (w.ttl <= 0 || w.ttl > maxTTL) || !mode.ttl && w.ttl >= 0 {
		return codeBadArguments
	}
	if w.op == OpCreateTTL && !mode.ttl {
		return codeBadArguments // ZooKeeper 3.8 takes it, and dies of it
	}
	if err := p.check(); err != codeOK {
		return err
	}
	if w.path == nullText {
		return codeMarshallingError
	}
	parentPath, _, ok := splitPath(w.path)
	if !ok {
		return codeBadArguments
	}
	list, err := fixACL(w.acl, p.who)
	if err != codeOK {
		return err
	}
	parent := p.record(parentPath)
	if parent == nil {
		return codeNoNode
	}
	if !allowed(parent.acl, permCreate, p.who) {
		return codeNoAuth
	}
	path := w.path
	if mode.sequential {
		path += fmt.Sprintf("%010d", parent.created)
	}
	if !validPath(path) {
		return codeBadArguments
	}
	if p.record(path) != nil {
		return codeNodeExists
	}
	if parent.kind == ephemeral {
		return codeNoChildrenEphemerals
	}
	x.path, x.data, x.acl = path, w.data, list
	x.version = parent.created + 1
	switch {
	case w.op == OpCreateContainer:
		x.kind = container
	case w.op == OpCreateTTL:
		x.kind, x.ttl = withTTL, w.ttl
	case mode.ephemeral:
		x.kind = ephemeral
	}
	parent.created++
	parent.children++
	p.note(parentPath, parent)
	noted := x.kind
	if mode.ephemeral {
		// For the rest of a multi it counts as what its flags say, also where the operation makes something else of it.
		noted = ephemeral
	}
	p.note(path, &record{kind: noted, acl: list})
	return codeOK
}

func (p *preparer) remove(w write) code {
	if err := p.check(); err != codeOK {
		return err
	}
	if w.path == nullText {
		return codeMarshallingError
	}
	parentPath, _, ok := splitPath(w.path)
	if !ok || isSystemPath(w.path) {
		return codeBadArguments
	}
	parent := p.record(parentPath)
	if parent == nil {
		return codeNoNode
	}
	if !allowed(parent.acl, permDelete, p.who) {
		return codeNoAuth
	}
	n := p.record(w.path)
	switch {
	case n == nil:
		return codeNoNode
	case w.version != -1 && w.version != n.version:
		return codeBadVersion
	case n.children > 0:
		return codeNotEmpty
	}
	parent.children--
	p.note(parentPath, parent)
	p.note(w.path, nil)
	return codeOK
}

// removeContainer is the server's own way to delete a container: no session is asked
// for, and no right, and any node will do that has no children and is not ephemeral.
func (p *preparer) removeContainer(w write) code {
	parentPath, _, ok := splitPath(w.path)
	if !ok || isSystemPath(w.path) {
		return codeBadArguments
	}
	n := p.record(w.path)
	switch {
	case n == nil:
		return codeNoNode
	case n.children > 0:
		return codeNotEmpty
	case n.kind == ephemeral:
		return codeBadVersion
	case p.record(parentPath) == nil:
		return codeNoNode
	}
	return codeOK
}

// existing finds the node of a write that needs one, and its permission.
func (p *preparer) existing(path string, perm int32) (*record, code) {
	n := p.record(path)
	if n == nil {
		return nil, codeNoNode
	}
	if !allowed(n.acl, perm, p.who) {
		return nil, codeNoAuth
	}
	return n, codeOK
}

func (p *preparer) setData(w write, x *txn) code {
	if err := p.check(); err != codeOK {
		return err
	}
	if !validPath(w.path) {
		return codeBadArguments
	}
	n, err := p.existing(w.path, permWrite)
	if err != codeOK {
		return err
	}
	if w.version != -1 && w.version != n.version {
		return codeBadVersion
	}
	n.version++
	x.data, x.version = w.data, n.version
	p.note(w.path, n)
	return codeOK
}

func (p *preparer) setACL(w write, x *txn) code {
	if err := p.check(); err != codeOK {
		return err
	}
	if !validPath(w.path) {
		return codeBadArguments
	}
	list, err := fixACL(w.acl, p.who)
	if err != codeOK {
		return err
	}
	n, err := p.existing(w.path, permAdmin)
	if err != codeOK {
		return err
	}
	if w.version != -1 && w.version != n.aversion {
		return codeBadVersion
	}
	x.acl, x.version = list, n.aversion+1
	return codeOK
}

func (p *preparer) checkVersion(w write) code {
	if err := p.check(); err != codeOK {
		return err
	}
	if !validPath(w.path) {
		return codeBadArguments
	}
	n, err := p.existing(w.path, permRead)
	if err != codeOK {
		return err
	}
	if w.version != -1 && w.version != n.version {
		return codeBadVersion
	}
	return codeOK
}
