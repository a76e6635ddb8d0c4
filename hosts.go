package election

import (
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"
)

// hosts is the default zk.HostProvider: it goes round the servers in random
// order and leaves their names to the dialer, so that they are resolved anew
// for each connection. The client's own resolves them once, for ever.
type hosts struct {
	mu      sync.Mutex
	servers []string
	next    int       // index of the server to give out next
	tries   int       // how many were given out since the last connection
	since   time.Time // of the last connection
}

var _ zk.HostProvider = (*hosts)(nil)

// Init takes the servers.
func (h *hosts) Init(servers []string) error {
	if len(servers) == 0 {
		return errors.New("election: no servers given")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.servers = slices.Clone(servers)
	rand.Shuffle(len(servers), func(i, j int) { h.servers[i], h.servers[j] = h.servers[j], h.servers[i] })
	h.next, h.tries = 0, 0
	return nil
}

// Len returns the number of servers.
func (h *hosts) Len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.servers)
}

// Next returns the next server. retryStart is true when the round is complete
// since the last connection, and when a connection has lasted for less than a
// second; the client then pauses for a second. With a single
// server it may be asked twice in a row before that: once to hear that the
// session has expired, and once for a new one.
func (h *hosts) Next() (server string, retryStart bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	server = h.servers[h.next]
	h.next = (h.next + 1) % len(h.servers)
	h.tries++
	hasty := h.tries == 1 && time.Since(h.since) < time.Second
	return server, hasty || h.tries > 2 && (h.tries-1)%len(h.servers) == 0
}

// Connected notes that the server given out last has taken the session.
func (h *hosts) Connected() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tries, h.since = 0, time.Now()
}
