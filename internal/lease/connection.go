package lease

import (
	"sync/atomic"
	"time"
)

// Connection is one connection of a session: the rule that holds on it, and which
// requests have been answered on it, and how quickly. Its methods may be called from any goroutine.
type Connection struct {
	Rule
	heard *contacts
	// bound is the end of every lease from before this connection: its
	// handshake may have granted a shorter timeout. 0 when that is not known.
	bound Instant
	// minToClaim is that where answers are slow; 0: as the Rule says.
	minToClaim atomic.Int64
}

// MinToClaim is how much of a lease must be left for leadership to be claimed under it
// on this connection.
func (c *Connection) MinToClaim() time.Duration {
	if slow := c.minToClaim.Load(); slow > 0 {
		return time.Duration(slow)
	}
	return c.Rule.MinToClaim()
}

// paced notes how much of a lease is enough, at a pace, while the slowest answers take slowest; steady says that heartbeats
// overlapped already when that was sent which the lease stands on. Then the next one to extend it is near, and
// less of a lease will do: slow answers do not leave more. Before it what was heard came one answer at a time, and
// the next lease can begin behind the end of this one, unless that lasts for as long as the heartbeats of the next take.
func (c *Connection) paced(p pace, slowest time.Duration, steady bool) {
	enough := time.Duration(0)
	switch {
	case !p.overlaps:
	case steady:
		enough = c.Timeout / 16
	case c.oneAtATime(slowest).age >= c.Duration():
		enough = p.age
	}
	c.minToClaim.Store(int64(enough))
}

// unsteady is for a pause in the heartbeats: the next ones are not near any more. What was asked for is never less
// after it, since nobody is told of that.
func (c *Connection) unsteady() {
	if c.MinToClaim() < c.Rule.MinToClaim() {
		c.minToClaim.Store(0)
	}
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
// handshake allows, and bear no more of the clocks than its timeout does. The lease may be nil.
func (c *Connection) Shorten(l *Lease) {
	if l == nil {
		return
	}
	l.bear(c.Timeout)
	if c.bound > 0 {
		l.shorten(c.bound)
	}
}
