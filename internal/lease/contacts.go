package lease

import (
	"slices"
	"sync"
	"time"
)

// contact is one request of the session that a server has answered: sent no
// earlier, answered no later.
type contact struct{ sent, answered Instant }

// contacts remembers answered requests of one connection, oldest first. It is
// written by the goroutines that use the connection and read by the Session's
// loop. Forgetting is always safe: it can only make the lease shorter.
type contacts struct {
	mu  sync.Mutex
	log []contact
	// established is when the handshake was sent, if the handshake itself
	// reached the ensemble's leader.
	established Instant
	counts      bool
	// apart is how far apart contacts are kept; keep is for how long.
	apart, keep time.Duration
	since       Instant // what was sent before is not believed
}

func newContacts(timeout time.Duration) *contacts {
	return &contacts{apart: timeout / 64, keep: timeout}
}

func (c *contacts) add(sent, answered Instant) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// After a pause many answers come at once: the newest request says the most.
	if n := len(c.log); n > 0 && answered-c.log[n-1].answered < c.apart && sent-c.log[n-1].sent < c.apart {
		return
	}
	if n := len(c.log); sent < c.since || n > 0 && sent < c.log[n-1].sent {
		return // (calls that overlapped; the later answer says less)
	}
	old := 0
	for old < len(c.log) && c.log[old].sent < answered-c.keep {
		old++
	}
	c.log = append(slices.Delete(c.log, 0, old), contact{sent, answered})
}

// establish notes that the handshake sent then was heard by the leader.
func (c *contacts) establish(sent Instant) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.established, c.counts = sent, true
}

// surelyHeard returns the sending time of the newest request answered no
// later than by, or of the handshake.
func (c *contacts) surelyHeard(by Instant) (sent Instant, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	sent, ok = c.established, c.counts
	for _, contact := range c.log {
		if contact.answered > by {
			break
		}
		if !ok || contact.sent > sent {
			sent, ok = contact.sent, true
		}
	}
	return sent, ok
}

func (c *contacts) firstAnsweredAfter(t Instant) (answered Instant, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, contact := range c.log {
		if contact.answered > t {
			return contact.answered, true
		}
	}
	return 0, false
}

// forget drops what was sent before at, answered or not: time has passed that
// the monotonic clock did not see.
func (c *contacts) forget(at Instant) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.log, c.counts, c.since = nil, false, at
}
