package testutil

// A watchMode tells how long a watch lasts and how far it reaches.
type watchMode uint8

const (
	oneShot watchMode = iota
	persistentWatch
	recursiveWatch
)

// A watchTable holds the watches of one member, of data or of children, by path
// and by connection. A connection has at most one watch on a path in it: the
// later one decides the mode.
type watchTable struct {
	byPath    map[string]map[*conn]watchMode
	byConn    map[*conn]map[string]struct{}
	recursive int
}

func newWatchTable() *watchTable {
	return &watchTable{byPath: make(map[string]map[*conn]watchMode), byConn: make(map[*conn]map[string]struct{})}
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
	if watchers[c] == recursiveWatch {
		w.recursive--
	}
	if mode == recursiveWatch {
		w.recursive++
	}
	watchers[c] = mode
	if w.byConn[c] == nil {
		w.byConn[c] = make(map[string]struct{})
	}
	w.byConn[c][path] = struct{}{}
}

func (w *watchTable) remove(path string, c *conn) bool {
	mode, ok := w.byPath[path][c]
	if !ok {
		return false
	}
	if mode == recursiveWatch {
		w.recursive--
	}
	delete(w.byPath[path], c)
	if len(w.byPath[path]) == 0 {
		delete(w.byPath, path)
	}
	delete(w.byConn[c], path)
	if len(w.byConn[c]) == 0 {
		delete(w.byConn, c)
	}
	return true
}

func (w *watchTable) removeConn(c *conn) {
	for path := range w.byConn[c] {
		w.remove(path, c)
	}
}

// contains answers checkWatches as ZooKeeper 3.8 does: for any connection's
// watch on the path.
func (w *watchTable) contains(path string) bool {
	return len(w.byPath[path]) > 0
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
		if mode == recursiveWatch {
			if e.typ != nodeChildrenChanged {
				note(c)
			}
			continue
		}
		note(c)
		if mode == oneShot {
			w.remove(e.path, c)
		}
	}
	if w.recursive == 0 || e.typ == nodeChildrenChanged {
		return found
	}
	for path := e.path; path != "/" && path != ""; {
		parent, _, _ := splitPath(path)
		path = orRoot(parent)
		for c, mode := range w.byPath[path] {
			if mode == recursiveWatch {
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

func newWatches() *watches { return &watches{newWatchTable(), newWatchTable()} }

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
// it at once of those that have fired since.
func (w *watches) restore(t *tree, c *conn, since int64, data, exist, child, persistent, recursive []string) {
	for _, path := range data {
		switch n := t.nodes[path]; {
		case n == nil:
			c.notify(event{typ: nodeDeleted, path: path})
		case n.mzxid > since:
			c.notify(event{typ: nodeDataChanged, path: path})
		default:
			w.data.add(path, c, oneShot)
		}
	}
	for _, path := range exist {
		if t.nodes[path] != nil {
			c.notify(event{typ: nodeCreated, path: path})
		} else {
			w.data.add(path, c, oneShot)
		}
	}
	for _, path := range child {
		switch n := t.nodes[path]; {
		case n == nil:
			c.notify(event{typ: nodeDeleted, path: path})
		case n.pzxid > since:
			c.notify(event{typ: nodeChildrenChanged, path: path})
		default:
			w.child.add(path, c, oneShot)
		}
	}
	for _, path := range persistent {
		w.child.add(path, c, persistentWatch)
		w.data.add(path, c, persistentWatch)
	}
	for _, path := range recursive {
		w.child.add(path, c, recursiveWatch)
		w.data.add(path, c, recursiveWatch)
	}
}
