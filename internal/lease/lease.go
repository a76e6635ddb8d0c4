package lease

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// ErrLapsed is why a lease has ended that was not renewed in time.
var ErrLapsed = errors.New("election: lease lapsed")

// Lease is one uninterrupted stretch of certainty. Once it has lapsed, for any
// reader, it stays lapsed for all: a later certainty is another lease. Its methods
// may be called from any goroutine.
type Lease struct {
	clock   *Clock
	until   atomic.Int64 // nanoseconds since the clock's beginning; 0 once lapsed
	renewed atomic.Int64 // when an answer was last taken for it, likewise
	// tolerance is by how many nanoseconds the wall clock may move beside the monotonic one.
	tolerance atomic.Int64
	jumps     int64 // of the clock, before the lease began
	ctx       context.Context
	cancel    context.CancelCauseFunc
	// timer ends ctx with the lease when nobody asks, whatever the owner is held up by: a log that stands still with the
	// network, for one.
	timer *time.Timer
}

// New returns a lease that is valid until then, or until the wall clock moves by
// more than a lease under rule can bear. Whoever asks first after a suspension
// is told by that, before any Watch has looked.
func New(clock *Clock, rule Rule, until Instant) *Lease {
	l := &Lease{clock: clock, jumps: clock.jumps.Load()}
	l.tolerance.Store(int64(rule.Timeout / driftParts))
	l.until.Store(int64(until))
	l.renewed.Store(int64(clock.Now()))
	l.ctx, l.cancel = context.WithCancelCause(context.Background())
	l.timer = time.AfterFunc(time.Hour, func() {
		if l.Valid() {
			l.setTimer() // it has been extended
		}
	})
	l.setTimer()
	return l
}

// setTimer sets the timer to the end of the lease.
func (l *Lease) setTimer() {
	for until := l.until.Load(); until != 0; {
		l.timer.Reset(max(0, Instant(until)-l.clock.Now()))
		now := l.until.Load()
		if now >= until {
			return
		}
		until = now // it was shortened in this moment, and that may have been overtaken here
	}
}

// Context ends when the lease is known to have ended, and has the reason as its
// cause: nobody may have asked yet.
func (l *Lease) Context() context.Context { return l.ctx }

// Valid compares the clocks, both of one reading. It takes no lock and
// allocates nothing.
func (l *Lease) Valid() bool {
	until := l.until.Load()
	now := time.Now()
	since := now.Sub(l.clock.base)
	if until != 0 && !l.clock.inOrder(now, since, time.Duration(l.tolerance.Load())) {
		l.Revoke(ErrLapsed)
		return false
	}
	// Behind a jump that a Watch has found the clocks are in order again.
	if until != 0 && l.clock.jumps.Load() != l.jumps {
		l.Revoke(ErrLapsed)
		return false
	}
	return int64(since) < until || !l.lapse(until)
}

// lapse ends a lease whose end was read as until and has passed, unless it
// was extended in the same moment; it reports whether the lease has lapsed.
// Without it a reader could see the lease end and then, once its owner
// has stored a later end, see it valid again.
func (l *Lease) lapse(until int64) bool {
	for until != 0 && int64(l.clock.Now()) >= until {
		if l.until.CompareAndSwap(until, 0) {
			l.cancel(ErrLapsed)
			return true
		}
		until = l.until.Load()
	}
	return until == 0
}

// Extend moves the end to until, if that is later, and reports whether the lease
// still holds.
func (l *Lease) Extend(until Instant) bool {
	for {
		current := l.until.Load()
		now := int64(l.clock.Now())
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
func (l *Lease) shorten(until Instant) {
	for {
		current := l.until.Load()
		if current <= int64(until) {
			return
		}
		if l.until.CompareAndSwap(current, max(1, int64(until))) {
			l.setTimer()
			return
		}
	}
}

// bear lowers the tolerance to what a session timeout leaves, if it is higher.
func (l *Lease) bear(timeout time.Duration) {
	for {
		current, least := l.tolerance.Load(), int64(timeout/driftParts)
		if current <= least || l.tolerance.CompareAndSwap(current, least) {
			return
		}
	}
}

// Revoke ends the lease before its time.
func (l *Lease) Revoke(cause error) {
	l.until.Store(0)
	l.cancel(cause)
}

// Until returns when the lease ends unless it is extended, without a look at the
// clock; 0 once it has lapsed, and of a nil lease.
func (l *Lease) Until() Instant {
	if l == nil {
		return 0
	}
	return Instant(l.until.Load())
}

// Deadline is Until as a time; the zero Time once the lease has lapsed.
func (l *Lease) Deadline() time.Time {
	until := l.Until()
	if until == 0 {
		return time.Time{}
	}
	return l.clock.Time(until)
}

// Remaining is how much of the lease is left, or zero. l may be nil.
func (l *Lease) Remaining() time.Duration {
	if l == nil {
		return 0
	}
	now := l.clock.Now() // first: whoever extends the lease later finds it as short as this, and wakes us
	return max(0, l.Until()-now)
}

// Age is how long ago an answer was last taken for the lease, whether it moved the end or not.
func (l *Lease) Age() time.Duration { return l.clock.Now() - Instant(l.renewed.Load()) }
