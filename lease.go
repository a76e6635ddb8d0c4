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
	// interval is from the answer to a heartbeat to the next one, while answers
	// come quickly.
	interval time.Duration
	// between is how many intervals lie between an answer and the first
	// heartbeat that it vouches for.
	between int
}

func newLeaseRule(timeout, tick time.Duration) leaseRule {
	if tick <= 0 {
		// A server grants no session less than two of its ticks unless it is
		// told to, so this is never less than the true tick.
		tick = timeout / 2
	}
	r := leaseRule{timeout: timeout, tick: tick}
	// A heartbeat stands on an answer that is pingPeriod old, so it pays to divide
	// that without a rest. The division that leaves the most of the lease is taken,
	// of those that ask no more than eight times in a session timeout.
	for n := 1; n <= 8; n++ {
		interval := max((r.pingPeriod()+time.Duration(n-1))/time.Duration(n), timeout/8)
		if r.between == 0 || r.age(n, interval) < r.age(r.between, r.interval) {
			r.between, r.interval = n, interval
		}
	}
	return r
}

// age is how old what a lease stands on has become when it is renewed, if
// answers take no time: between intervals until it vouches for a heartbeat, one
// more until the next that completes the pair, and one until that is repeated.
func (r leaseRule) age(between int, interval time.Duration) time.Duration {
	return time.Duration(between+2) * interval
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
// under it, when heartbeats are sent that far apart. Less would end before the
// second next heartbeat had a chance.
func (r leaseRule) minToClaim(spacing time.Duration) time.Duration {
	return min(r.timeout/6, 2*spacing)
}

// feasible reports whether heartbeats can keep a lease at all: not when the
// servers' tick is longer than the timeout.
func (r leaseRule) feasible() bool {
	return r.duration()-r.age(r.between, r.interval) >= r.timeout/16
}

// end returns until when the lease is valid once a heartbeat has been
// answered that was sent after the answer to another one, which was sent at
// previous: T, less the margin, after the sending of the newest request that had
// been answered one ping period before that. The server that answered it has told
// the ensemble's leader of it since, ahead of the heartbeat.
func (r leaseRule) end(heard *contacts, previous instant) (until instant, ok bool) {
	sent, ok := heard.surelyHeard(previous - r.pingPeriod())
	return sent + r.duration(), ok
}

// maxUnderWay is how many heartbeats may be under way on a connection whose
// answers are slow.
const maxUnderWay = 6

// heartbeats is what the schedule of heartbeats on one connection depends on.
type heartbeats struct {
	answered       bool    // one has been
	sent, answerAt instant // when the newest answered one was sent, and answered
	underWay       int
	oldest         instant // when the oldest that is under way was sent
	newest         instant // when the newest was, answered or not
}

// delay is how long answers take, as far as is known.
func (b heartbeats) delay(now instant) time.Duration {
	var delay time.Duration
	if b.answered {
		delay = b.answerAt - b.sent
	}
	if b.underWay > 0 {
		delay = max(delay, now-b.oldest)
	}
	return delay
}

// spacing is how far apart heartbeats are sent when answers take delay. What
// the lease stands on ages by three delays, whatever is done. So the slower the
// answers, the more often one is sent, without waiting for the one before: up
// to a delay of T/6 the lease can be kept.
func (r leaseRule) spacing(delay time.Duration) time.Duration {
	if delay <= r.timeout/32 {
		return r.interval
	}
	for _, parts := range []time.Duration{8, 12, 16} {
		spacing := r.timeout / parts
		waits := roundUp(delay, spacing) + roundUp(r.pingPeriod()+delay, spacing)
		if waits+2*spacing+delay <= r.timeout*3/4 {
			return spacing
		}
	}
	return r.timeout / 24
}

func roundUp(d, unit time.Duration) time.Duration { return (d + unit - 1) / unit * unit }

// next returns when the next heartbeat is due, given those of this connection
// and until when the lease is valid.
func (r leaseRule) next(heard *contacts, b heartbeats, until, now instant) instant {
	spacing := r.spacing(b.delay(now))
	switch {
	case b.underWay >= maxUnderWay:
		return now + time.Hour // the next answer decides anew
	case b.underWay > 0:
		return b.newest + spacing
	case !b.answered:
		return now
	}
	if delay := b.answerAt - b.sent; delay > r.timeout/32 {
		return b.newest + spacing
	}
	if until-now >= r.minToClaim(spacing) {
		// Counted from the answer, or an answer would miss being old enough by its
		// delay.
		return b.answerAt + r.interval
	}
	if end, ok := r.end(heard, b.sent); ok && end-now >= r.minToClaim(spacing) {
		return now // one more answer makes the lease
	}
	// No answer is old enough to stand on, so wait until one is. A pair of
	// heartbeats follows: this one, and at once the one that it vouches for.
	if answered, ok := heard.firstAnsweredAfter(b.sent - r.pingPeriod()); ok {
		return max(answered+r.pingPeriod(), now)
	}
	return now
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
	toClaim atomic.Int64 // how much of it must be left for a claim, in nanoseconds
	ctx     context.Context
	cancel  context.CancelCauseFunc
}

func newLease(base time.Time, until instant, minToClaim time.Duration) *lease {
	l := &lease{base: base}
	l.until.Store(int64(until))
	l.toClaim.Store(int64(minToClaim))
	l.renewed.Store(int64(time.Since(base)))
	l.ctx, l.cancel = context.WithCancelCause(context.Background())
	return l
}

// valid compares the clock. It takes no lock and allocates nothing.
func (l *lease) valid() bool {
	until := l.until.Load()
	return int64(time.Since(l.base)) < until || !l.lapse(until)
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

// claimable reports whether enough of the lease is left to claim leadership
// under it.
func (l *lease) claimable() bool {
	// In this order: whoever extends the lease after the first line finds it as
	// short as this, and wakes us.
	remaining := l.remaining()
	return remaining > 0 && remaining >= time.Duration(l.toClaim.Load())
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
