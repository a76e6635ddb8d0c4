package election

import "sync"

// maxInFlight bounds the requests that are under way for one Session, so that
// a heartbeat never waits behind thousands.
const maxInFlight = 64

// helpers are the goroutines of a Session that make calls of the client: each can
// block for several session timeouts, so no loop makes one itself.
type helpers struct {
	running sync.WaitGroup
	mu      sync.RWMutex // guards closed, and running against a beginning during the end: those that begin share it
	closed  bool         // none begins any more
}

// goHelper runs fn, which calls the client, on a goroutine of its own. It reports
// false when the Session is at its end, and fn is not called.
func (s *Session) goHelper(fn func()) bool {
	s.helpers.mu.RLock()
	defer s.helpers.mu.RUnlock()
	if s.helpers.closed {
		return false
	}
	s.helpers.running.Go(fn)
	return true
}

// close lets none begin any more, and waits for those that have.
func (h *helpers) close() {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.running.Wait()
}
