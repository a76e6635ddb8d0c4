package lease

import "time"

// Connection is one connection of a session: the rule that holds on it, and which
// requests have been answered on it. Its methods may be called from any goroutine.
type Connection struct {
	Rule
	heard *contacts
	// bound is the end of every lease from before this connection: its
	// handshake may have granted a shorter timeout. 0 when that is not known.
	bound Instant
}

// NewConnection returns a connection with a session timeout, to servers with a
// tick, on which nothing has been heard.
func NewConnection(timeout, tick time.Duration) *Connection {
	return &Connection{Rule: NewRule(timeout, tick), heard: newContacts(timeout)}
}

// Establish notes the handshake that was sent then. It counts as a request that
// the ensemble's leader has heard if counts is true. It is called before anybody
// else knows the connection.
func (c *Connection) Establish(sent Instant, counts bool) {
	c.bound = sent + c.Duration()
	if counts {
		c.heard.establish(sent)
	}
}

// Heard notes a request that was sent no earlier and answered no later.
func (c *Connection) Heard(sent, answered Instant) { c.heard.add(sent, answered) }

// Forget drops what was sent before, answered or not: time has passed that the
// monotonic clock did not see.
func (c *Connection) Forget(before Instant) { c.heard.forget(before) }

// SurelyHeard returns when the newest request that had been answered by then, or
// the handshake, was sent; ok is false when there is none.
func (c *Connection) SurelyHeard(by Instant) (sent Instant, ok bool) { return c.heard.surelyHeard(by) }

// Shorten makes a lease from before this connection last no longer than its
// handshake allows. The lease may be nil.
func (c *Connection) Shorten(l *Lease) {
	if l != nil && c.bound > 0 {
		l.shorten(c.bound)
	}
}
