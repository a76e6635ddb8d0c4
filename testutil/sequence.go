package testutil

import "github.com/go-zookeeper/zk"

// SetSequence makes next the number of the node's next sequential child, to
// reach the end of the counter in a test: at 2147483647 it sticks, as
// ZooKeeper's does, so that children that are created later get the same number
// again. The node's cversion follows. It fails with zk.ErrNoNode.
func (s *Server) SetSequence(path string, next int32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.tree.nodes[path]
	if n == nil {
		return zk.ErrNoNode
	}
	n.created = next
	if decided := s.newest().nodes[path]; decided != nil {
		decided.created = next
	}
	return nil
}
