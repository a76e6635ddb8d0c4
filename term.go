package election

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/zkelection/election/internal/lease"
)

// leadership is what readers and callbacks know of a term: one stretch of leading
// under one lease. It does not change, but for win.
type leadership struct {
	term   Term
	lease  *lease.Lease
	ballot *ballot
	ctx    context.Context // ends with the lease, or when the candidate steps down
	cancel context.CancelCauseFunc
	win    atomic.Int32 // whether OnWin is called: decided once, by the callback goroutine or by the loop, which gives it up
}

// lost reports whether leadership has ended, or is to: the loop may not have noticed.
func (l *leadership) lost() bool { return l.ctx.Err() != nil || !l.lease.Valid() }

// Whether OnWin is called in a term, and OnStepDown therefore after it.
const (
	winAwaited int32 = iota
	winCalled
	winGivenUp
)

// stepDown is what readers know of a leader that gives leadership up, while its
// ballot waits for its work to end.
type stepDown struct {
	lead  *leadership
	limit time.Time // the ballot waits no longer
}

// termState is the life of one term, from the claim until the last of its
// callbacks has returned. It outlives the ballot when callbacks hang: the ballot
// is withdrawn then, and the next vote waits for them. So there is at most one.
type termState struct {
	lead *leadership

	// The takeover.
	claimedAt time.Time
	begunAt   time.Time // OnWin was called; zero before
	ackedAt   time.Time // it was acknowledged

	// Its end.
	draining     bool      // OnStepDown functions have not returned; since it was lost
	running      bool      // Run's function has been given the term, and has not returned
	over         bool      // nothing but callbacks that hang is left of it
	causePending bool      // OnStepDown waits for the cause of the loss
	causeBy      time.Time // but no longer than this
	overdueAt    time.Time // draining and running are late from then on

	hangAt time.Time // when to report next that a callback hangs; zero for never
}

// drains reports whether callbacks of the term, or Run's function, go on.
func (t *termState) drains() bool { return t != nil && (t.draining || t.running) }

// is reports whether this is the term that a message is about.
func (t *termState) is(l *leadership) bool { return t != nil && t.lead == l }

// endTerm is called when the term's ballot is gone, or contends for another one.
func (c *candidacy) endTerm() {
	if c.term != nil {
		c.term.over = true
		c.callbackReturned()
	}
}

// callbackReturned notes that OnStepDown functions or Run's function have
// returned. When that was the last of a term that is over, so is its life.
func (c *candidacy) callbackReturned() {
	if c.term == nil || c.term.drains() {
		return
	}
	if c.stuck.Swap(false) {
		c.term.hangAt = time.Time{}
		c.endHanging(c.now)
	}
	if c.term.over {
		c.term = nil
	}
}

// runReturned notes that Run's function has returned, or is not waited for.
func (c *candidacy) runReturned() {
	if c.term != nil {
		c.term.running = false
		c.callbackReturned()
	}
}

// causeDue is when OnStepDown is called without an answer to what the cause was.
func (c *candidacy) causeDue() time.Time {
	if c.phase == leaving && c.term.causePending {
		return c.term.causeBy
	}
	return time.Time{}
}

// drainDue is when the callbacks of a term that was lost are late.
func (c *candidacy) drainDue() time.Time {
	if c.phase == leaving && c.term.drains() && !c.stuck.Load() {
		return c.term.overdueAt
	}
	return time.Time{}
}

// hangDue is when a callback that hangs is reported next.
func (c *candidacy) hangDue() time.Time {
	if c.term == nil {
		return time.Time{}
	}
	return c.term.hangAt
}
