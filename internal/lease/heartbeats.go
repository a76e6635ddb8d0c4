package lease

import "time"

// maxOverlapping is how many heartbeats of a session are under way at most.
const maxOverlapping = 8

// Heartbeats paces the heartbeats of one session, and says what each that was
// answered makes of its lease. One goroutine owns it; the zero value is ready.
type Heartbeats struct {
	pending int     // under way
	failed  bool    // the last one that ended had no answer that counts
	tried   Instant // when the last one was sent, answered or not
	jumps   int     // how often Forget was called

	last    heartbeat // the newest that was answered
	slowest slowest
	pace    pace    // on the connection of the last one
	steady  Instant // since when they have overlapped without a gap; nothing while they do not
}

// heartbeat is one that was answered.
type heartbeat struct {
	on             *Connection // nil: none counts
	sent, answered Instant
}

// Heartbeat is one that is under way.
type Heartbeat struct {
	// forerunner is the newest that had been answered when this one was sent. One that is
	// answered meanwhile would not do: docs/protocol.md, section 5, step 4.
	forerunner heartbeat
	jumps      int
}

// Due returns when the next heartbeat is to be sent on a connection, given until
// when the lease is valid; ok is false while enough are under way.
func (h *Heartbeats) Due(on *Connection, until, now Instant) (due Instant, ok bool) {
	if h.pace.overlaps && h.last.on == on {
		return h.tried + h.pace.pause, h.pending < maxOverlapping
	}
	if h.pending > 0 {
		return 0, false
	}
	due = on.next(on.heard, h.last.sent, h.last.answered, h.last.on == on, until, now)
	if h.failed {
		due = max(due, h.tried+on.Timeout/32)
	}
	return due, true
}

// Sent notes that a heartbeat is sent, and returns what Answered is to be given of it.
func (h *Heartbeats) Sent(now Instant) Heartbeat {
	if !h.pace.overlaps || now-h.tried > 2*h.pace.pause {
		h.steady = now
		if h.last.on != nil {
			h.last.on.unsteady()
		}
	}
	h.pending++
	h.tried = now
	return Heartbeat{h.last, h.jumps}
}

// Failed notes that one has ended without an answer that counts.
func (h *Heartbeats) Failed() {
	h.pending--
	h.failed = true
}

// Answered notes that one was answered, on the connection that it was sent on. It
// returns until when the session is sure to live by that; ok is false when that
// is not known: it takes two in a row.
func (h *Heartbeats) Answered(beat Heartbeat, on *Connection, sent, answered Instant) (until Instant, ok bool) {
	h.pending--
	h.failed = false
	if h.last.on != on {
		h.last, h.slowest = heartbeat{}, slowest{}
	}
	if h.last.on == nil || sent > h.last.sent {
		h.last = heartbeat{on, sent, answered}
	}
	delay := answered - sent
	slowest := h.slowest.of(delay, answered, on.Timeout)
	h.pace = on.pace(delay, slowest)
	if beat.forerunner.on == on && beat.jumps == h.jumps {
		until, ok = on.end(on.heard, beat.forerunner.sent)
	}
	on.paced(h.pace, slowest, ok && until-on.Duration() >= h.steady)
	return until, ok
}

// Forget makes the next one the first, and those that are under way, too.
func (h *Heartbeats) Forget() {
	h.last, h.pace = heartbeat{}, pace{}
	h.jumps++
}

// slowest is the delay of the slowest answers of late: in one session timeout, or two.
type slowest struct {
	before, now time.Duration // in the session timeout before, and since
	since       Instant
}

// of returns it after an answer that came at a time and took delay.
func (s *slowest) of(delay time.Duration, at Instant, timeout time.Duration) time.Duration {
	switch gone := at - s.since; {
	case gone > 2*timeout:
		*s = slowest{since: at}
	case gone > timeout:
		*s = slowest{before: s.now, since: at}
	}
	s.now = max(s.now, delay)
	return max(s.before, s.now)
}
