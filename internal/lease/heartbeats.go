package lease

// Heartbeats paces the heartbeats of one session, and says what each that was
// answered makes of its lease. One goroutine owns it; the zero value is ready.
type Heartbeats struct {
	pending bool    // one is under way
	failed  bool    // the last one had no answer that counts
	tried   Instant // when the last one was sent, answered or not

	// The last one that was answered.
	on             *Connection // nil: none counts
	sent, answered Instant
}

// Due returns when the next heartbeat is to be sent on a connection, given until
// when the lease is valid; ok is false while one is under way.
func (h *Heartbeats) Due(on *Connection, until, now Instant) (due Instant, ok bool) {
	if h.pending {
		return 0, false
	}
	due = on.next(on.heard, h.sent, h.answered, h.on == on, until, now)
	if h.failed {
		due = max(due, h.tried+on.Timeout/32)
	}
	return due, true
}

// Sent notes that a heartbeat is sent.
func (h *Heartbeats) Sent(now Instant) { h.pending, h.tried = true, now }

// Failed notes that it has ended without an answer that counts.
func (h *Heartbeats) Failed() { h.pending, h.failed = false, true }

// Answered notes that it was answered, on the connection that it was sent on. It
// returns until when the session is sure to live by that; ok is false when that
// is not known: it takes two in a row.
func (h *Heartbeats) Answered(on *Connection, sent, answered Instant) (until Instant, ok bool) {
	previous, paired := h.sent, h.on == on
	h.pending, h.failed = false, false
	h.on, h.sent, h.answered = on, sent, answered
	if !paired {
		return 0, false
	}
	return on.end(on.heard, previous)
}

// Forget makes the next one the first.
func (h *Heartbeats) Forget() { h.on = nil }
