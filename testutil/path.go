package testutil

import "strings"

// validPath reports whether ZooKeeper takes the path in a write. It looks at
// characters as Java does, in UTF-16, where everything beyond U+FFFF is a pair
// of surrogates and so refused; bytes that are no UTF-8 read as U+FFFD, refused
// as well.
func validPath(path string) bool {
	if path == "/" {
		return true
	}
	if path == "" || path[0] != '/' || path[len(path)-1] == '/' {
		return false
	}
	for name := range strings.SplitSeq(path[1:], "/") {
		if name == "" || name == "." || name == ".." {
			return false
		}
	}
	for _, r := range path {
		if r <= 0x1f || r >= 0x7f && r <= 0x9f || r >= 0xd800 && r <= 0xf8ff || r >= 0xfff0 {
			return false
		}
	}
	return true
}

// splitPath separates a path at its last slash; ok is false without one. The
// parent of a node below the root is "", another name of the root.
func splitPath(path string) (parent, name string, ok bool) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 || strings.IndexByte(path, 0) >= 0 {
		return "", "", false
	}
	return path[:i], path[i+1:], true
}
