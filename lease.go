package election

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// The lease is what makes two leaders impossible: leadership is claimed only
// while the quorum is known to keep the session alive. docs/protocol.md
// section 5 argues the rule; leaseRule is that rule, pure, and lease is the
// clock that everybody reads.

// instant is local monotonic time, since the Session was made. Wall-clock
// time never enters the lease.
type instant = time.Duration

// What the argument for the lease assumes of the world, in one place.
// proof/lease.smt2 proves the rule under these, and refutes it without them.
const (
	// driftParts: two clocks differ by at most one part in so many, in each
	// session timeout.
	driftParts = 12
	// lateParts: the ensemble's leader sends a ping at most T/lateParts later
	// than half a tick after the one before. ZooKeeper waits half a tick and
	// then works, so its period is always a little longer.
	lateParts = 100
)

// leaseRule holds what the rule depends on: the session timeout T negotiated
// on this very connection, and the tick of the servers.
type leaseRule struct {
	timeout time.Duration
	tick    time.Duration
}

func newLeaseRule(timeout, tick time.Duration) leaseRule {
	if tick <= 0 {
		// A server grants no session less than two of its ticks unless it is
		// told to, so this is never less than the true tick.
		tick = timeout / 2
	}
	return leaseRule{timeout, tick}
}

// duration is how long after the session was last surely heard of the lease
// ends. What T is shorter by is for clocks that run at different rates.
func (r leaseRule) duration() time.Duration { return r.timeout / driftParts * (driftParts - 1) }

// pingPeriod is the longest time, by our clock, between two pings that the
// ensemble's leader sends to a server. Half a tick alone is not enough: its
// clock may be slower than ours, and its pings late.
func (r leaseRule) pingPeriod() time.Duration {
	return (r.tick/2 + r.timeout/lateParts) / driftParts * (driftParts + 1)
}

// minToClaim is how much of a lease must be left for leadership to be claimed
// under it. Less would end before the second next heartbeat had a chance.
func (r leaseRule) minToClaim() time.Duration { return r.timeout / 6 }

// pace returns how long after an answer the next heartbeat is sent when answers
// take delay, and how old, at that pace, what the lease stands on has become by
// the time it is renewed. An answer vouches for a heartbeat that is sent a ping
// period later, so it pays to divide that period into whole cycles; of the
// divisions the one that leaves the most of the lease is taken, with at most
// eight heartbeats in each session timeout, or twelve while answers are slow. The
// slower they are, the sooner the next one is sent, at last without a pause.
func (r leaseRule) pace(delay time.Duration) (pause, age time.Duration) {
	// From an answer to the heartbeat that it vouches for there are cycles pauses,
	// and one answer less. These may come a little sooner than the last one, and
	// when they come quickly no part of them can be counted on.
	surely, cycle := delay*9/10, r.timeout/12
	if delay <= r.timeout/32 {
		surely, cycle = 0, r.timeout/8
	}
	for cycles := time.Duration(1); cycles <= 8; cycles++ {
		p := (r.pingPeriod() - (cycles-1)*surely + cycles - 1) / cycles
		p = max(p, 0, cycle-delay)
		// The cycles until an answer counts, the one of the heartbeat that completes
		// the pair, the one until that is repeated, and the answer to that.
		if a := (cycles+2)*(p+delay) + delay; cycles == 1 || a < age {
			pause, age = p, a
		}
	}
	return pause, age
}

// feasible reports whether heartbeats can keep a lease at all: not when the
// servers' tick is longer than the timeout.
func (r leaseRule) feasible() bool {
	_, age := r.pace(0)
	return r.duration()-age >= r.timeout/16
}

// end returns until when the lease is valid once a heartbeat has been
// answered whose forerunner, answered too, was sent at previous: T, less the
// margin, after the sending of the newest request that had been answered a ping
// period before that. The server that answered it has told the ensemble's
// leader of it since, ahead of the heartbeat.
func (r leaseRule) end(heard *contacts, previous instant) (until instant, ok bool) {
	sent, ok := heard.surelyHeard(previous - r.pingPeriod())
	return sent + r.duration(), ok
}

// next returns when the next heartbeat is due, given when the last answered
// one was sent (previous) and answered (ok is false when there is none on this
// connection) and until when the lease is valid.
func (r leaseRule) next(heard *contacts, previous, answered instant, ok bool, until, now instant) instant {
	if !ok {
		return now
	}
	pause, _ := r.pace(answered - previous)
	paced := answered + pause
	if until-now >= r.minToClaim() {
		return paced
	}
	if end, ok := r.end(heard, previous); ok && end-now >= r.minToClaim() {
		return now // one more answer makes the lease
	}
	// No answer is old enough to stand on, so wait until one is. A pair of
	// heartbeats follows: this one, and at once the one that it vouches for.
	due := now
	if first, ok := heard.firstAnsweredAfter(previous - r.pingPeriod()); ok {
		due = max(first+r.pingPeriod(), now)
	}
	if until > now {
		// There is a lease, and not much of it: slow answers leave no more.
		due = min(due, max(paced, now))
	}
	return due
}

// contact is one request of the session that a server has answered: sent no
// earlier, answered no later.
type contact struct{ sent, answered instant }

// contacts remembers answered requests of one connection, oldest first. It is
// written by the goroutines that use the connection and read by the Session's
// loop. Forgetting is always safe: it can only make the lease shorter.
type contacts struct {
	mu  sync.Mutex
	log []contact
	// established is when the handshake was sent, if the handshake itself
	// reached the ensemble's leader.
	established instant
	counts      bool
	// apart is how far apart contacts are kept; keep is for how long.
	apart, keep time.Duration
	since       instant // what was sent before is not believed
}

func newContacts(timeout time.Duration) *contacts {
	return &contacts{apart: timeout / 64, keep: timeout}
}

func (c *contacts) add(sent, answered instant) {
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
func (c *contacts) establish(sent instant) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.established, c.counts = sent, true
}

// surelyHeard returns the sending time of the newest request answered no
// later than by, or of the handshake.
func (c *contacts) surelyHeard(by instant) (sent instant, ok bool) {
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

func (c *contacts) firstAnsweredAfter(t instant) (answered instant, ok bool) {
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
func (c *contacts) forget(at instant) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.log, c.counts, c.since = nil, false, at
}

// lease is one uninterrupted stretch of certainty. Once it has lapsed, for any
// reader, it stays lapsed for all: a later certainty is another lease.
type lease struct {
	base    time.Time
	until   atomic.Int64 // nanoseconds since base; 0 once lapsed
	renewed atomic.Int64 // when it was last extended, likewise
	// ahead is how far the wall clock was ahead of the monotonic one when that
	// was last found to be in order, and drift is how much it may have moved
	// since. A suspended machine's monotonic clock stands still, and so would
	// the lease: whoever asks first after it goes on is told by the wall clock.
	ahead  *atomic.Int64 // nil: nobody keeps it
	drift  time.Duration
	ctx    context.Context
	cancel context.CancelCauseFunc
}

func newLease(base time.Time, until instant) *lease {
	l := &lease{base: base}
	l.until.Store(int64(until))
	l.renewed.Store(int64(time.Since(base)))
	l.ctx, l.cancel = context.WithCancelCause(context.Background())
	return l
}

// beside makes the lease end, too, when the wall clock jumps.
func (l *lease) beside(ahead *atomic.Int64, drift time.Duration) *lease {
	l.ahead, l.drift = ahead, drift
	return l
}

// valid compares the clocks, both of one reading. It takes no lock and
// allocates nothing.
func (l *lease) valid() bool {
	until := l.until.Load()
	now := time.Now()
	since := now.Sub(l.base)
	if until != 0 && l.ahead != nil && (wallAhead(now, since)-time.Duration(l.ahead.Load())).Abs() > l.drift {
		l.revoke(ErrLeaseLapsed)
		return false
	}
	return int64(since) < until || !l.lapse(until)
}

// wallAhead is how far the wall clock of a reading is ahead of the monotonic one.
func wallAhead(now time.Time, monotonic instant) time.Duration {
	return time.Duration(now.UnixNano()) - monotonic
}

// lapse ends a lease whose end was read as until and has passed, unless it
// was extended in the same moment; it reports whether the lease has lapsed.
// Without it a reader could see the lease end and then, once the Session's
// loop has stored a later end, see it valid again.
func (l *lease) lapse(until int64) bool {
	for until != 0 && int64(time.Since(l.base)) >= until {
		if l.until.CompareAndSwap(until, 0) {
			l.cancel(ErrLeaseLapsed)
			return true
		}
		until = l.until.Load()
	}
	return until == 0
}

// extend moves the end to until, if that is later and the lease still holds.
func (l *lease) extend(until instant) bool {
	for {
		current := l.until.Load()
		now := int64(time.Since(l.base))
		if now >= current {
			return !l.lapse(current)
		}
		if int64(until) <= current || l.until.CompareAndSwap(current, int64(until)) {
			l.renewed.Store(now)
			return true
		}
	}
}

// shorten moves the end to until, if that is sooner.
func (l *lease) shorten(until instant) {
	for {
		current := l.until.Load()
		if current <= int64(until) || l.until.CompareAndSwap(current, max(1, int64(until))) {
			return
		}
	}
}

// revoke ends the lease before its time.
func (l *lease) revoke(cause error) {
	l.until.Store(0)
	l.cancel(cause)
}

// remaining is how much of the lease is left, or zero.
func (l *lease) remaining() time.Duration {
	if l == nil {
		return 0
	}
	now := time.Since(l.base) // first: whoever extends the lease later finds it as short as this, and wakes us
	return max(0, time.Duration(l.until.Load())-now)
}

// clockReading is both clocks at one moment.
type clockReading struct {
	wall      time.Time // without a monotonic reading
	monotonic instant
}

// slept reports whether the wall clock has moved by other than the monotonic
// one since an earlier reading, by more than tolerance: the machine was
// suspended, or somebody set the clock, which looks the same.
func (r clockReading) slept(earlier clockReading, tolerance time.Duration) bool {
	return (r.wall.Sub(earlier.wall) - (r.monotonic - earlier.monotonic)).Abs() > tolerance
}

// ahead is how far the wall clock is ahead of the monotonic one.
func (r clockReading) ahead() time.Duration { return wallAhead(r.wall, r.monotonic) }
