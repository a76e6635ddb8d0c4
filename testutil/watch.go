package testutil

import "strings"

// A watchMode says how long a watch lasts and how far it reaches; several together
// are the watches that one connection has on one path.
type watchMode uint8

const (
	oneShot watchMode = 1 << iota
	persistentWatch
	recursiveWatch
	allWatches = oneShot | persistentWatch | recursiveWatch
)

// A watchTable holds the watches of one member, of data or of children, by path
// and by connection.
type watchTable struct {
	// single is how it was before 3.9: a connection has one watch on a path, and the
	// later decides the mode.
	single    bool
	byPath    map[string]map[*conn]watchMode
	byConn    map[*conn]map[string]struct{}
	recursive int
}

func newWatchTable(single bool) *watchTable {
	return &watchTable{
		single: single, byPath: make(map[string]map[*conn]watchMode), byConn: make(map[*conn]map[string]struct{}),
	}
}

func (w *watchTable) add(path string, c *conn, mode watchMode) {
	if c.dead {
		return
	}
	watchers := w.byPath[path]
	if watchers == nil {
		watchers = make(map[*conn]watchMode)
		w.byPath[path] = watchers
	}
	if !w.single {
		mode |= watchers[c]
	}
	w.set(path, c, mode)
	if w.byConn[c] == nil {
		w.byConn[c] = make(map[string]struct{})
	}
	w.byConn[c][path] = struct{}{}
}

// set changes the watches of a connection on a path that has watchers.
func (w *watchTable) set(path string, c *conn, mode watchMode) {
	if w.byPath[path][c]&recursiveWatch != 0 {
		w.recursive--
	}
	if mode&recursiveWatch != 0 {
		w.recursive++
	}
	w.byPath[path][c] = mode
}

// remove takes some of a connection's watches on a path away, and reports whether
// there was one of these.
func (w *watchTable) remove(path string, c *conn, which watchMode) bool {
	mode := w.byPath[path][c]
	if mode&which == 0 {
		return false
	}
	w.set(path, c, mode&^which)
	if mode&^which != 0 {
		return true
	}
	delete(w.byPath[path], c)
	if len(w.byPath[path]) == 0 {
		delete(w.byPath, path)
	}
	delete(w.byConn[c], path)
	if len(w.byConn[c]) == 0 && !w.single {
		delete(w.byConn, c)
	}
	return true
}

// use takes away a one-shot watch that has fired. The connection stays in byConn, as
// one that watches nothing, which the four-letter words show; before 3.9 so it does
// when its watches are removed.
func (w *watchTable) use(path string, c *conn) {
	w.remove(path, c, oneShot)
	if w.byConn[c] == nil {
		w.byConn[c] = make(map[string]struct{})
	}
}

func (w *watchTable) removeConn(c *conn) {
	for path := range w.byConn[c] {
		w.remove(path, c, allWatches)
	}
	delete(w.byConn, c)
}

// contains is the answer to checkWatches. That of ZooKeeper 3.8 is for any
// connection's watch on the path, of whatever mode, and it stumbles over a path
// of which it cannot tell the parent: it looks at that, and while there are recursive
// watches at those of the parent.
func (w *watchTable) contains(path string, c *conn, which watchMode) (found, stumbled bool) {
	if !w.single {
		return w.byPath[path][c]&which != 0, false
	}
	switch {
	case path == "":
		return false, false
	case path == nullText || !strings.Contains(path, "/"):
		return false, true
	case len(w.byPath[path]) > 0:
		return true, false
	}
	return false, w.recursive > 0 && path[0] != '/'
}

func (w *watchTable) size() int {
	n := 0
	for _, watchers := range w.byPath {
		n += len(watchers)
	}
	return n
}

// triggered collects who is to hear of an event, each once, and uses up the
// one-shot watches among theirs.
func (w *watchTable) triggered(e event) map[*conn]struct{} {
	var found map[*conn]struct{}
	note := func(c *conn) {
		if found == nil {
			found = make(map[*conn]struct{})
		}
		found[c] = struct{}{}
	}
	for c, mode := range w.byPath[e.path] {
		if mode == recursiveWatch && e.typ == nodeChildrenChanged {
			continue
		}
		note(c)
		w.use(e.path, c)
	}
	if w.recursive == 0 || e.typ == nodeChildrenChanged {
		return found
	}
	for path := e.path; path != "/" && path != ""; {
		parent, _, _ := splitPath(path)
		path = orRoot(parent)
		for c, mode := range w.byPath[path] {
			if mode&recursiveWatch != 0 {
				note(c)
			}
		}
	}
	return found
}

// A watches is all that the clients of one member wait for.
type watches struct {
	data, child *watchTable
}

func newWatches(release Release) *watches {
	single := !release.watchesStack()
	return &watches{newWatchTable(single), newWatchTable(single)}
}

// addLasting sets a watch that stays. A recursive one brings no events of children,
// and since 3.9 it is not in the table of these.
func (w *watches) addLasting(path string, c *conn, mode watchMode) {
	w.data.add(path, c, mode)
	if w.child.single || mode != recursiveWatch {
		w.child.add(path, c, mode)
	}
}

func (w *watches) size() int { return w.data.size() + w.child.size() }

func (w *watches) removeConn(c *conn) {
	w.data.removeConn(c)
	w.child.removeConn(c)
}

// fire sends an event to those who wait for it and may know of the node.
func (w *watches) fire(e event) {
	switch e.typ {
	case nodeCreated, nodeDataChanged:
		for c := range w.data.triggered(e) {
			c.notify(e)
		}
	case nodeChildrenChanged:
		for c := range w.child.triggered(e) {
			c.notify(e)
		}
	case nodeDeleted:
		// A connection that waits for data and children hears of it once.
		told := w.data.triggered(e)
		for c := range told {
			c.notify(e)
		}
		for c := range w.child.triggered(e) {
			if _, ok := told[c]; !ok {
				c.notify(e)
			}
		}
	}
}

// restore sets the watches that a client had before it reconnected, and tells
// it at once of those that have fired since. It gets as far as the first list that is
// null, or path that is where there can be no node.
func (w *watches) restore(t *tree, c *conn, since int64, data, exist, child, persistent, recursive []string) code {
	for _, each := range []struct {
		paths []string
		node  bool
		set   func(path string, n *znode)
	}{
		{data, true, func(path string, n *znode) {
			switch {
			case n == nil:
				c.notify(event{typ: nodeDeleted, path: path})
			case n.mzxid > since:
				c.notify(event{typ: nodeDataChanged, path: path})
			default:
				w.data.add(path, c, oneShot)
			}
		}},
		{exist, true, func(path string, n *znode) {
			if n != nil {
				c.notify(event{typ: nodeCreated, path: path})
			} else {
				w.data.add(path, c, oneShot)
			}
		}},
		{child, true, func(path string, n *znode) {
			switch {
			case n == nil:
				c.notify(event{typ: nodeDeleted, path: path})
			case n.pzxid > since:
				c.notify(event{typ: nodeChildrenChanged, path: path})
			default:
				w.child.add(path, c, oneShot)
			}
		}},
		{persistent, false, func(path string, _ *znode) { w.addLasting(path, c, persistentWatch) }},
		{recursive, false, func(path string, _ *znode) { w.addLasting(path, c, recursiveWatch) }},
	} {
		if each.paths == nil {
			return codeMarshallingError
		}
		for _, path := range each.paths {
			if each.node && path == nullText {
				return codeMarshallingError
			}
			each.set(path, t.nodes[path])
		}
	}
	return codeOK
}
