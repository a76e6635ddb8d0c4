package election

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestTimers: each timer of the table wakes the loop when it should, and only
// then, and does what it is for.
func TestTimers(t *testing.T) {
	const after = time.Minute / 3
	cases := map[string]struct {
		phase phase
		set   func(c *candidacy, at time.Time)
		done  func(c *candidacy) bool // nil: the loop decides anew, and no more
	}{
		"the takeover takes too long": {winning, func(c *candidacy, at time.Time) {
			c.takeoverTimeout, c.term.begunAt = after, at.Add(-after)
			c.term.lead.win.Store(winCalled)
		}, func(c *candidacy) bool { return c.phase == leaving && c.ballot.withdraw && !c.stuck.Load() }},
		"OnWin cannot be called": {winning, func(c *candidacy, at time.Time) {
			c.term.claimedAt = at.Add(-c.callbackTimeout())
		}, func(c *candidacy) bool { return c.phase == leaving && c.ballot.withdraw && c.stuck.Load() }},
		"nothing has told the cause of the loss": {leaving, func(c *candidacy, at time.Time) {
			c.term.causePending, c.term.causeBy = true, at
		}, func(c *candidacy) bool { return !c.term.causePending }},
		"callbacks of a lost term are late": {leaving, func(c *candidacy, at time.Time) {
			c.term.draining, c.term.overdueAt = true, at
		}, func(c *candidacy) bool { return c.stuck.Load() }},
		"a callback hangs": {winning, func(c *candidacy, at time.Time) {
			c.term.lead.win.Store(winCalled)
			c.term.begunAt, c.term.hangAt = c.now, at
		}, func(c *candidacy) bool { return c.hung.Load() }},
		"Close gives up": {withdrawing, func(c *candidacy, at time.Time) {
			c.closing, c.giveUpAt, c.helper.over = true, at, make(chan struct{})
		}, func(c *candidacy) bool { return c.phase == ended && c.closeErr != nil }},
		"a transfer may be tried again": {waiting, func(c *candidacy, at time.Time) { c.transfers.notBefore = at }, nil},
		"nothing has come of a transfer": {leading, func(c *candidacy, at time.Time) {
			c.transfers.seen, c.transfers.since = &transferRequest{}, at.Add(-transferTimeouts*c.session.Timeout())
		}, nil},
		"a step may be tried again": {idle, func(c *candidacy, at time.Time) { c.helper.holdBack(stepCast, at) }, nil},
		"a vote may be tried again": {idle, func(c *candidacy, at time.Time) { c.absence.until = at }, nil},
		"the periodic recheck":      {waiting, func(c *candidacy, at time.Time) { c.ballot.recheck.at = at }, nil},
		"the second in front is to be watched": {waiting, func(c *candidacy, at time.Time) {
			c.hotStandby = true
			c.ballot.line = line{known: true, place: standing{ahead: 2, predecessor: "p", second: "s"}, secondAt: at}
		}, nil},
		"a move may be tried again": {claiming, func(c *candidacy, at time.Time) { c.ballot.demotion.notBefore = at }, nil},
		"no lease for too long": {claiming, func(c *candidacy, at time.Time) {
			c.ballot.demotion.lackingSince = at.Add(-lackTimeouts * c.session.Timeout())
		}, nil},
	}
	require.Len(t, cases, len(timers))
	for _, timer := range timers {
		test, ok := cases[timer.name]
		require.True(t, ok, timer.name)
		c := inPhase(t, test.phase)
		if c.term != nil {
			c.term.claimedAt = c.now.Add(time.Hour) // OnWin need not be called before
		}
		assert.Equal(t, c.now.Add(time.Hour), c.nextTimer(), "%s: before it is set", timer.name)
		at := c.now.Add(after)
		test.set(c, at)
		assert.Equal(t, at, c.nextTimer(), timer.name)
		assert.Equal(t, timer.due == nil, test.done == nil, timer.name)
		if test.done == nil {
			c.now = at
			assert.NotEqual(t, at, c.nextTimer(), "%s: decided with it, it is over", timer.name)
			continue
		}
		c.now = at.Add(-1)
		c.fireTimers()
		assert.False(t, test.done(c), "%s: too early", timer.name)
		c.now = at
		c.fireTimers()
		assert.True(t, test.done(c), timer.name)
	}
}
