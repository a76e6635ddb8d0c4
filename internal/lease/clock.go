package lease

import (
	"sync/atomic"
	"time"
)

// Clock is the local monotonic clock, from its own beginning on, and what the wall
// clock says of it. Its methods may be called from any goroutine.
//
// The monotonic clock of a machine that is suspended stands still, and a lease
// with it. The wall clock goes on, so the two are compared: by a Watch every now
// and then, and by each lease whenever it is asked.
type Clock struct {
	base time.Time
	// ahead is how far the wall clock was ahead of the monotonic one when the two
	// were last found to be in order.
	ahead  atomic.Int64
	jumped atomic.Int64 // when it last jumped; 0: never
	jumps  atomic.Int64 // how often it has
}

// NewClock returns a clock that begins now.
func NewClock() *Clock {
	c := &Clock{base: time.Now()}
	c.ahead.Store(int64(c.read().ahead()))
	return c
}

// Now returns the time since the clock's beginning.
func (c *Clock) Now() Instant { return time.Since(c.base) }

// Instant converts a reading of time.Now.
func (c *Clock) Instant(t time.Time) Instant { return t.Sub(c.base) }

// Time converts back.
func (c *Clock) Time(i Instant) time.Time { return c.base.Add(i) }

// Jumped returns when time was last found to have passed that this clock did not
// see; 0 when that has not happened. Points in time before it are not comparable
// with later ones.
func (c *Clock) Jumped() Instant { return Instant(c.jumped.Load()) }

// Skew makes the wall clock seem to have moved by so much beside this one, for
// tests of a suspension that nobody has noticed.
func (c *Clock) Skew(by time.Duration) { c.ahead.Add(-int64(by)) }

// Jump notes that time has passed which this clock did not see. A Watch that finds
// it does so; others do in tests.
func (c *Clock) Jump() { c.jump(c.read()) }

func (c *Clock) jump(now reading) {
	c.jumped.Store(int64(now.monotonic))
	c.jumps.Add(1) // before ahead: whoever finds the clocks in order again finds the jump, too
	c.ahead.Store(int64(now.ahead()))
}

// inOrder reports whether the wall clock of a reading has moved by no more than
// tolerance beside the monotonic one.
func (c *Clock) inOrder(now time.Time, monotonic Instant, tolerance time.Duration) bool {
	return (wallAhead(now, monotonic) - time.Duration(c.ahead.Load())).Abs() <= tolerance
}

// wallAhead is how far the wall clock of a reading is ahead of the monotonic one.
func wallAhead(now time.Time, monotonic Instant) time.Duration {
	return time.Duration(now.UnixNano()) - monotonic
}

// reading is both clocks at one moment.
type reading struct {
	wall      time.Time // without a monotonic reading
	monotonic Instant
}

func (c *Clock) read() reading {
	now := time.Now()
	return reading{now.Round(0), now.Sub(c.base)}
}

// slept reports whether the wall clock has moved by other than the monotonic
// one since an earlier reading, by more than tolerance: the machine was
// suspended, or somebody set the clock, which looks the same.
func (r reading) slept(earlier reading, tolerance time.Duration) bool {
	return (r.wall.Sub(earlier.wall) - (r.monotonic - earlier.monotonic)).Abs() > tolerance
}

// ahead is how far the wall clock is ahead of the monotonic one.
func (r reading) ahead() time.Duration { return wallAhead(r.wall, r.monotonic) }

// Watch finds out whether time has passed that a Clock did not see. One goroutine
// owns it.
type Watch struct {
	clock     *Clock
	readings  [2]reading    // an older one and a newer one
	suspended time.Duration // for how long the machine has been, at most, when the kernel was last asked
	asked     Instant       // which was then; 0: never, or it cannot tell
}

// NewWatch returns a Watch of a clock, which from now on is taken to be in order.
func NewWatch(c *Clock) *Watch {
	now := c.read()
	c.ahead.Store(int64(now.ahead()))
	return &Watch{clock: c, readings: [2]reading{now, now}}
}

// Jump is what a Watch has found.
type Jump struct {
	Wall      bool          // the wall clock has jumped beside the monotonic one
	Suspended time.Duration // the kernel tells of a suspension that lasted so long
}

// Found reports whether anything was.
func (j Jump) Found() bool { return j != Jump{} }

// Look compares the clocks, and the kernel's if it has not been asked for a
// sixteenth of the session timeout: that takes a system call.
func (w *Watch) Look(timeout time.Duration) Jump {
	if w.clock.Now()-w.asked >= timeout/16 {
		return w.LookClosely(timeout)
	}
	return Jump{Wall: w.compare(w.clock.read(), timeout)}
}

// LookClosely is Look with the kernel asked in any case. On Linux it tells of
// suspensions that the wall clock does not show, or not yet, and of shorter ones.
func (w *Watch) LookClosely(timeout time.Duration) (found Jump) {
	now := w.clock.read()
	found.Wall = w.compare(now, timeout)
	if least, most, ok := suspendedFor(); ok {
		found.Suspended = w.compareKernel(now, least, most, timeout)
	}
	return found
}

// compare takes a difference between the two clocks for a jump. It looks back for
// one session timeout or more, up to four where nothing else has it look, so that short
// stops add up: nothing older bears on a lease.
func (w *Watch) compare(now reading, timeout time.Duration) (jumped bool) {
	if now.slept(w.readings[0], timeout/driftParts) {
		w.stoodStill(now)
		return true
	}
	if now.monotonic-w.readings[1].monotonic > timeout {
		w.readings = [2]reading{w.readings[1], now}
		w.clock.ahead.Store(int64(w.readings[0].ahead()))
	}
	return false
}

// compareKernel takes for how long the machine has been suspended, in all, and
// returns how much of that is new, if it is more than a clock may be wrong by.
func (w *Watch) compareKernel(now reading, least, most, timeout time.Duration) time.Duration {
	first := w.asked == 0
	w.asked = max(1, now.monotonic)
	if first {
		w.suspended = most
		return 0
	}
	more := least - w.suspended
	if more <= timeout/100 {
		w.suspended = min(w.suspended, most) // the closer of two upper bounds
		return 0
	}
	w.suspended = most
	w.stoodStill(now)
	return more
}

// stoodStill begins anew behind a jump.
func (w *Watch) stoodStill(now reading) {
	w.readings = [2]reading{now, now}
	w.clock.jump(now)
}
