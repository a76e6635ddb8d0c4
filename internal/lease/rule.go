// Package lease says until when a session of ZooKeeper is sure to live, and so
// until when its client may lead: the rule and what it stands on, the clocks, and
// the lease itself, which whoever leads compares the clock with at each use.
//
// It is arithmetic on points in time. It asks no server, and knows neither
// sessions nor elections. docs/protocol.md argues the rule in section 5, and
// proof/lease.smt2 proves it.
package lease

import "time"

// Instant is a point in time: local monotonic time since the beginning of a
// Clock. Wall-clock time never enters the rule.
type Instant = time.Duration

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

// Rule holds what the rule depends on: the session timeout T negotiated
// on this very connection, and the tick of the servers.
type Rule struct {
	Timeout time.Duration
	Tick    time.Duration
}

// NewRule returns the rule for a session timeout and the servers' tick, 0 if that
// is not known.
func NewRule(timeout, tick time.Duration) Rule {
	if tick <= 0 {
		// A server grants no session less than two of its ticks unless it is
		// told to, so this is never less than the true tick.
		tick = timeout / 2
	}
	return Rule{timeout, tick}
}

// Duration is how long after the session was last surely heard of the lease
// ends. What T is shorter by is for clocks that run at different rates.
func (r Rule) Duration() time.Duration { return r.Timeout / driftParts * (driftParts - 1) }

// pingPeriod is the longest time, by our clock, between two pings that the
// ensemble's leader sends to a server. Half a tick alone is not enough: its
// clock may be slower than ours, and its pings late.
func (r Rule) pingPeriod() time.Duration {
	return (r.Tick/2 + r.Timeout/lateParts) / driftParts * (driftParts + 1)
}

// MinToClaim is how much of a lease must be left for leadership to be claimed
// under it. Less would end before the second next heartbeat had a chance.
func (r Rule) MinToClaim() time.Duration { return r.Timeout / 6 }

// pace is when heartbeats are sent.
type pace struct {
	// pause is how long after an answer the next one is sent; while they overlap, after
	// the heartbeat before, whether that has been answered or not.
	pause    time.Duration
	overlaps bool
	// age is how old, at this pace, what the lease stands on has become by the time it
	// is renewed.
	age time.Duration
}

// pace returns the pace after an answer that took delay, when the slowest of late took
// slowest. One heartbeat at a time is the rule. Where that could leave less than a twelfth of T, or
// nothing, of the lease, they overlap, as long as that leaves anything: where the network is
// what is slow, that is up to 0.17 T with the default tick, and longer with a shorter one. (Where it is the server, the answers take the longer the
// more is asked.)
func (r Rule) pace(delay, slowest time.Duration) pace {
	if r.oneAtATime(slowest).age > r.Duration()-r.Timeout/12 {
		if p := r.overlapping(delay); p.age <= r.Duration()-r.Timeout/32 {
			return p
		}
	}
	return r.oneAtATime(delay)
}

// overlapping is the pace of heartbeats of which each is sent T/32 after the one before.
func (r Rule) overlapping(delay time.Duration) pace {
	apart := r.Timeout / 32
	// The answer that the lease stands on, the heartbeat that had been answered when the last
	// one was sent, and the last one: each takes delay, and is up to apart older than it could be.
	return pace{pause: apart, overlaps: true, age: r.pingPeriod() + 3*(delay+apart)}
}

// oneAtATime is the pace of heartbeats of which each is sent when the one before has been
// answered. An answer vouches for a heartbeat that is sent a ping period later, so it
// pays to divide that period into whole cycles; of the divisions the one that leaves the
// most of the lease is taken, with at most eight heartbeats in each session timeout, or
// twelve while answers are slow. The slower they are, the sooner the next one is sent, at
// last without a pause.
func (r Rule) oneAtATime(delay time.Duration) pace {
	// From an answer to the heartbeat that it vouches for there are cycles pauses,
	// and one answer less. These may come a little sooner than the last one, and
	// when they come quickly no part of them can be counted on.
	surely, cycle := delay*9/10, r.Timeout/12
	if delay <= r.Timeout/32 {
		surely, cycle = 0, r.Timeout/8
	}
	var best pace
	for cycles := time.Duration(1); cycles <= 8; cycles++ {
		p := (r.pingPeriod() - (cycles-1)*surely + cycles - 1) / cycles
		p = max(p, 0, cycle-delay)
		// The cycles until an answer counts, the one of the heartbeat that completes
		// the pair, the one until that is repeated, and the answer to that.
		if age := (cycles+2)*(p+delay) + delay; cycles == 1 || age < best.age {
			best = pace{pause: p, age: age}
		}
	}
	return best
}

// Feasible reports whether heartbeats can keep a lease at all: not when the
// servers' tick is longer than the timeout.
func (r Rule) Feasible() bool {
	return r.Duration()-r.oneAtATime(0).age >= r.Timeout/16
}

// end returns until when the lease is valid once a heartbeat has been
// answered whose forerunner, answered too, was sent at previous: T, less the
// margin, after the sending of the newest request that had been answered a ping
// period before that. The server that answered it has told the ensemble's
// leader of it since, ahead of the heartbeat.
func (r Rule) end(heard *contacts, previous Instant) (until Instant, ok bool) {
	sent, ok := heard.surelyHeard(previous - r.pingPeriod())
	return sent + r.Duration(), ok
}

// next returns when the next heartbeat is due while one goes out at a time, given when
// the last answered one was sent (previous) and answered (ok is false when there is none
// on this connection) and until when the lease is valid.
func (r Rule) next(heard *contacts, previous, answered Instant, ok bool, until, now Instant) Instant {
	if !ok {
		return now
	}
	paced := answered + r.oneAtATime(answered-previous).pause
	if until-now >= r.MinToClaim() {
		return paced
	}
	if end, ok := r.end(heard, previous); ok && end-now >= r.MinToClaim() {
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
