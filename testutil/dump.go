package testutil

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Dump is the server's state in words for a person, and for a failing test's
// log: members, sessions, watches, and the tree as the leader has it. Its form
// may change.
func (s *Server) Dump() string {
	s.mu.Lock()
	defer s.unlock()
	var w strings.Builder
	fmt.Fprintf(&w, "zxid 0x%x, %d nodes, %d sessions\n", s.tree.lastZxid, s.tree.count()-1, len(s.sessions))
	if s.isolatedAll > 0 {
		w.WriteString("isolated from all clients\n")
	}
	if len(s.members) == 1 && s.members[0].down() {
		w.WriteString("stopped\n")
	}
	if len(s.members) > 1 {
		for _, m := range s.members {
			fmt.Fprintf(&w, "member %d: %s\n", m.index, m.describe())
		}
	}
	for _, info := range s.sessionInfos() {
		fmt.Fprintf(&w, "session 0x%x: timeout %v, expires in %v", info.ID, info.Timeout, info.ExpiresIn)
		switch {
		case !info.Connected():
			w.WriteString(", not connected")
		default:
			fmt.Fprintf(&w, ", connected from %s", info.Addr)
		}
		if len(s.members) > 1 {
			fmt.Fprintf(&w, " to member %d", info.Member)
		}
		if s.isolated[info.ID] > 0 {
			w.WriteString(", isolated")
		}
		w.WriteByte('\n')
	}
	for _, m := range s.members {
		m.watches.data.dump(&w, m, "data")
		m.watches.child.dump(&w, m, "children")
	}
	for _, path := range sortedKeys(s.tree.nodes) {
		if path != "" {
			s.tree.nodes[path].dump(&w, path)
		}
	}
	return w.String()
}

func (m *member) describe() string {
	words := []string{m.mode(), m.addr}
	if m.down() {
		words[0] = "stopped"
	}
	if m.cutAt >= 0 {
		words = append(words, "cut off")
	}
	if m.lagging {
		words = append(words, "lagging")
	}
	if m.refuses && !m.down() {
		words = append(words, "refusing clients")
	}
	return strings.Join(words, ", ")
}

func (w *watchTable) dump(out *strings.Builder, m *member, what string) {
	for _, path := range sortedKeys(w.byPath) {
		var lines []string
		for c, mode := range w.byPath[path] {
			line := fmt.Sprintf("watch on %s of %s: session 0x%x", what, path, c.session)
			if mode&persistentWatch != 0 {
				line += ", persistent"
			}
			if mode&recursiveWatch != 0 {
				line += ", recursive"
			}
			if len(m.srv.members) > 1 {
				line += fmt.Sprintf(", member %d", m.index)
			}
			lines = append(lines, line+"\n")
		}
		slices.Sort(lines)
		out.WriteString(strings.Join(lines, ""))
	}
}

// shownData is how much of a node's data Dump shows.
const shownData = 60

func (n *znode) dump(w *strings.Builder, path string) {
	data, more := n.data, ""
	if len(data) > shownData {
		data, more = data[:shownData], fmt.Sprintf("... (%d bytes)", len(n.data))
	}
	fmt.Fprintf(w, "%s version %d, czxid 0x%x, mzxid 0x%x, %q%s", path, n.version, n.czxid, n.mzxid, data, more)
	switch n.kind {
	case persistent:
	case ephemeral:
		fmt.Fprintf(w, ", ephemeral of 0x%x", n.owner)
	case container:
		w.WriteString(", container")
	case withTTL:
		fmt.Fprintf(w, ", ttl %d ms", n.ttl)
	}
	if len(n.acl) != 1 || n.acl[0] != openACL[0] {
		for _, a := range n.acl {
			fmt.Fprintf(w, ", %s:%s may %s", a.id.scheme, a.id.id, permNames(a.perms))
		}
	}
	w.WriteByte('\n')
}

// permNames writes permissions as ZooKeeper's shell does.
func permNames(perms int32) string {
	names := ""
	for i, letter := range []string{"r", "w", "c", "d", "a"} {
		if perms&(1<<i) != 0 {
			names += letter
		}
	}
	return names
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	return slices.Sorted(maps.Keys(m))
}
