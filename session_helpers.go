package election

import (
	"fmt"
	"sync"
)

// maxInFlight bounds the requests that are under way for one Session, so that
// a heartbeat never waits behind thousands.
const maxInFlight = 64

// helpers are the goroutines of a Session that make calls of the client: each can
// block for several session timeouts, so no loop makes one itself.
type helpers struct {
	running sync.WaitGroup
	mu      sync.Mutex // guards ended, and running against a beginning during the end
	ended   bool       // none begins any more
}

// help runs fn, which calls the client, on a goroutine of its own. It reports
// false when the Session is at its end, and fn is not called.
func (s *Session) help(fn func()) bool {
	s.helpers.mu.Lock()
	defer s.helpers.mu.Unlock()
	if s.helpers.ended {
		return false
	}
	s.helpers.running.Go(fn)
	return true
}

// end lets none begin any more, and waits for those that have.
func (h *helpers) end() {
	h.mu.Lock()
	h.ended = true
	h.mu.Unlock()
	h.running.Wait()
}

// sessionName prints a session id as ZooKeeper does.
func sessionName(id int64) string { return fmt.Sprintf("0x%x", id) }
