package election

import "time"

// timer is a point in time at which a candidate's loop has something to do
// without being told.
type timer struct {
	name string
	at   func(*candidacy) time.Time // zero: not set
	// due is called once that time has come. nil means that the loop only decides
	// anew: something was held back until then.
	due func(*candidacy)
}

// timers are all of them, in the order in which they are looked at.
var timers = []timer{
	{"the takeover takes too long", (*candidacy).takeoverDue, (*candidacy).takeoverTooLong},
	{"OnWin cannot be called", (*candidacy).callDue, (*candidacy).stalled},
	{"nothing has told the cause of the loss", (*candidacy).causeDue, func(c *candidacy) { c.tellStepDown(ErrBallotDeleted) }},
	{"callbacks of a lost term are late", (*candidacy).drainDue, (*candidacy).callbacksLate},
	{"a callback hangs", (*candidacy).hangDue, (*candidacy).reportHang},
	{"a transfer may be tried again", func(c *candidacy) time.Time { return c.transfers.notBefore }, nil},
	{"nothing has come of a transfer", (*candidacy).removeDue, nil},
	{"Close gives up", (*candidacy).closeDue, (*candidacy).giveUpClosing},

	{"a step may be tried again", func(c *candidacy) time.Time { return c.helper.retryDue(c.now) }, nil},
	{"a vote may be tried again", func(c *candidacy) time.Time { return c.absence.until }, nil},
	{"the periodic recheck", ballotTime(func(b *ballotState) time.Time { return b.recheck.at }), nil},
	{"the second in front is to be watched", (*candidacy).secondDue, nil},
	{"a move may be tried again", ballotTime(func(b *ballotState) time.Time { return b.demotion.notBefore }), nil},
	{"no lease for too long", func(c *candidacy) time.Time {
		if c.ballot == nil {
			return time.Time{}
		}
		return c.ballot.demotion.lackDue(c.session.Timeout())
	}, nil},
}

// ballotTime is for a time that there is while there is a ballot.
func ballotTime(at func(*ballotState) time.Time) func(*candidacy) time.Time {
	return func(c *candidacy) time.Time {
		if c.ballot == nil {
			return time.Time{}
		}
		return at(c.ballot)
	}
}

// nextTimer returns when the loop has to wake up.
func (c *candidacy) nextTimer() time.Time {
	next := c.now.Add(time.Hour)
	for _, t := range timers {
		at := t.at(c)
		if at.IsZero() || !at.Before(next) {
			continue
		}
		if t.due == nil && !at.After(c.now) {
			continue // the decision that ended this turn has taken it into account
		}
		next = at
	}
	return next
}

// fireTimers does what is due.
func (c *candidacy) fireTimers() {
	for _, t := range timers {
		if at := t.at(c); t.due != nil && !at.IsZero() && !c.now.Before(at) {
			t.due(c)
		}
	}
}
