package testutil

import (
	"slices"
	"strings"
)

// read answers a request that changes nothing, from the tree of the member that
// the client is connected to. body writes what follows the header; it is nil
// when nothing does.
func (k *call) read(d *decoder) (err code, body func(*encoder)) {
	c := k.c
	t, w, op := c.m.tree, c.m.watches, k.op
	switch op {
	case OpExists:
		path, watch := d.string(), d.bool()
		if d.err != nil || path == nullText {
			break
		}
		if strings.IndexByte(path, 0) >= 0 {
			return codeBadArguments, nil
		}
		n := t.nodes[path]
		if n != nil && c.srv.release.existsIsARight() && !allowed(n.acl, permRead, k.who) {
			return codeNoAuth, nil
		}
		if watch {
			w.data.add(path, c, oneShot)
		}
		if n == nil {
			return codeNoNode, nil
		}
		s := n.stat()
		return codeOK, func(e *encoder) { e.stat(&s) }
	case OpGetData:
		path, watch := d.string(), d.bool()
		n, err := k.readable(path, permRead, d)
		if err != codeOK {
			return err, nil
		}
		if watch {
			w.data.add(path, c, oneShot)
		}
		return codeOK, func(e *encoder) { e.data(n) }
	case OpGetChildren, OpGetChildren2:
		path, watch := d.string(), d.bool()
		n, err := k.readable(path, permRead, d)
		if err != codeOK {
			return err, nil
		}
		if watch {
			w.child.add(path, c, oneShot)
		}
		return codeOK, func(e *encoder) {
			e.strings(n.childNames())
			if op == OpGetChildren2 {
				s := n.stat()
				e.stat(&s)
			}
		}
	case OpGetACL:
		path := d.string()
		n, err := k.readable(path, permRead|permAdmin, d)
		if err != codeOK {
			return err, nil
		}
		list := n.acl
		if !allowed(list, permAdmin, k.who) {
			list = maskDigests(list)
		}
		s := n.stat()
		return codeOK, func(e *encoder) { e.acls(list); e.stat(&s) }
	case OpGetAllChildrenNumber:
		path := d.string()
		if _, err := k.readable(path, permRead, d); err != codeOK {
			return err, nil
		}
		return codeOK, func(e *encoder) { e.int32(t.descendants(path)) }
	case OpGetEphemerals:
		prefix := d.nullableString()
		if d.err != nil {
			break
		}
		// Java trims everything up to the space, and nothing else.
		trimmed := strings.TrimFunc(prefix, func(r rune) bool { return r <= ' ' })
		all := trimmed == "" || trimmed == "/"
		var paths []string
		for _, path := range t.ephemeralsOf(c.session) {
			if all || strings.HasPrefix(path, prefix) {
				paths = append(paths, path)
			}
		}
		return codeOK, func(e *encoder) { e.strings(paths) }
	case OpWhoAmI:
		who := k.who
		return codeOK, func(e *encoder) {
			e.int32(int32(len(who)))
			for _, id := range who {
				e.string(id.scheme)
				if id.scheme == "digest" {
					id.id, _, _ = strings.Cut(id.id, ":")
				}
				e.string(id.id)
			}
		}
	case OpSync:
		path := d.bytes()
		if d.err != nil {
			break
		}
		return codeOK, func(e *encoder) {
			if path == nil {
				e.bytes(nil) // null is given back as null
			} else {
				e.string(asText(path))
			}
		}
	case OpMultiRead:
		return k.multiRead(d)
	case OpSetWatches, OpSetWatches2, OpAddWatch, OpCheckWatches, OpRemoveWatches:
		return c.watchOp(op, d)
	default: // no other is a read
	}
	return codeMarshallingError, nil
}

func (e *encoder) data(n *znode) {
	e.bytes(n.data)
	s := n.stat()
	e.stat(&s)
}

// readable finds a node and checks the permission to read it.
func (k *call) readable(path string, perm int32, d *decoder) (*znode, code) {
	if d.err != nil || path == nullText {
		return nil, codeMarshallingError
	}
	n := k.c.m.tree.nodes[path]
	if n == nil {
		return nil, codeNoNode
	}
	if !allowed(n.acl, perm, k.who) {
		return nil, codeNoAuth
	}
	return n, codeOK
}

func (k *call) multiRead(d *decoder) (code, func(*encoder)) {
	ops, reads, failed := decodeMulti(k.c.srv.release, d)
	switch {
	case failed != nil:
		return codeMarshallingError, nil
	case len(ops) > 0 && !reads:
		return codeMarshallingError, func(e *encoder) { e.multiResults(nil) }
	}
	err := codeOK
	if i := slices.IndexFunc(ops, func(w write) bool { return w.path == nullText }); i >= 0 {
		// ZooKeeper stumbles over a null path, and answers with what it had by then.
		ops, err = ops[:i], codeMarshallingError
	}
	return err, func(e *encoder) {
		for _, op := range ops {
			n, err := k.readable(op.path, permRead, d)
			switch {
			case err != codeOK:
				e.multiHeader(opError, false, err)
				e.int32(int32(err))
			case op.op == OpGetData:
				e.multiHeader(OpGetData, false, codeOK)
				e.data(n)
			default:
				e.multiHeader(OpGetChildren, false, codeOK)
				e.strings(n.childNames())
			}
		}
		e.multiHeader(opError, true, -1)
	}
}

// The kinds of watches that checkWatches and removeWatches name.
const (
	watcherChildren   = 1
	watcherData       = 2
	watcherAny        = 3
	watcherPersistent = 4
	watcherRecursive  = 5
)

// A watcherKind is what checkWatches and removeWatches name: which of a connection's
// watches on data, and which of those on children.
type watcherKind struct{ data, child watchMode }

// kindOf reads a kind; ZooKeeper 3.8 knows the first three, and no difference between
// watches that last and those that do not.
func (r Release) kindOf(which int32) (watcherKind, bool) {
	if !r.watchesStack() {
		switch which {
		case watcherChildren:
			return watcherKind{child: allWatches}, true
		case watcherData:
			return watcherKind{data: allWatches}, true
		case watcherAny:
			return watcherKind{allWatches, allWatches}, true
		}
		return watcherKind{}, false
	}
	switch which {
	case watcherChildren:
		return watcherKind{child: oneShot}, true
	case watcherData:
		return watcherKind{data: oneShot}, true
	case watcherAny:
		return watcherKind{allWatches, allWatches}, true
	case watcherPersistent:
		return watcherKind{persistentWatch, persistentWatch}, true
	case watcherRecursive:
		return watcherKind{data: recursiveWatch}, true
	}
	return watcherKind{}, false
}

func (c *conn) watchOp(op Op, d *decoder) (code, func(*encoder)) {
	w := c.m.watches
	switch op {
	case OpSetWatches, OpSetWatches2:
		since := d.int64()
		data, exist, child := d.strings(), d.strings(), d.strings()
		var persistent, recursive []string
		if op == OpSetWatches2 {
			persistent, recursive = d.strings(), d.strings()
		}
		if d.err != nil {
			return codeMarshallingError, nil
		}
		if op == OpSetWatches {
			persistent, recursive = []string{}, []string{}
		}
		return w.restore(c.m.tree, c, since, data, exist, child, persistent, recursive), nil
	case OpAddWatch:
		path, mode := d.string(), d.int32()
		if d.err != nil || mode < 0 || mode > 1 {
			return codeMarshallingError, nil
		}
		lasting := persistentWatch
		if mode == 1 {
			lasting = recursiveWatch
		}
		w.addLasting(path, c, lasting)
		return codeOK, func(e *encoder) { e.int32(0) }
	default: // checkWatches or removeWatches, below
	}
	path, which := d.string(), d.int32()
	kind, ok := c.srv.release.kindOf(which)
	if d.err != nil || !ok {
		return codeMarshallingError, nil
	}
	found := false
	for _, in := range []struct {
		table *watchTable
		which watchMode
	}{{w.child, kind.child}, {w.data, kind.data}} {
		switch {
		case in.which == 0:
		case op == OpRemoveWatches:
			found = in.table.remove(path, c, in.which) || found
		default:
			here, stumbled := in.table.contains(path, c, in.which)
			if stumbled {
				return codeMarshallingError, nil
			}
			found = found || here
		}
	}
	if !found {
		return codeNoWatcher, nil
	}
	return codeOK, nil
}
