package election

import (
	"errors"
	"time"
)

// stance is whether a candidate is to stand for election, and why it does not: what callers want of it, what has come of
// that, and what a StandWhile says.
type stance struct {
	want     bool      // somebody has asked for the vote, and nothing has ended that
	asked    bool      // by Vote, and not by Campaign or Run alone, whose end would end it
	closing  bool      // Close was called
	giveUpAt time.Time // when Close, or Shutdown, waits no longer for a server
	absence  absence
	stander  stander
}

// absence is why a candidate does not stand for election, and for how long.
type absence struct {
	cause    error     // nil while it stands
	former   error     // what a callback that hangs has taken the place of
	until    time.Time // no vote before, since one was refused or a takeover failed
	failures int       // takeovers that failed in a row
}

// letStand is for whoever wants the candidate to stand. What has kept it from that does no longer, unless it stands aside.
func (s *stance) letStand() {
	s.want, s.absence.cause, s.absence.until = true, s.stander.reason, time.Time{}
}

// endAbsence is for when there is a ballot: then it is nothing but a StandWhile that keeps a candidate from standing.
func (s *stance) endAbsence() {
	if !s.stander.aside() {
		s.absence.cause = nil
	}
}

// hangs is for a callback that keeps the candidate from standing.
func (s *stance) hangs(cause error) {
	s.absence.cause, s.absence.former = cause, s.absence.cause
}

// endHanging is for when it has returned. What kept the candidate from standing before may still do so.
func (s *stance) endHanging(now time.Time) {
	former := s.absence.former
	s.absence.former = nil
	switch {
	case !s.want || !errors.Is(s.absence.cause, ErrCallbackRunning):
	case !now.Before(s.absence.until):
		s.absence.cause = s.stander.reason
	case former != nil:
		s.absence.cause = former
	}
}

// endAsking ends whatever anybody has asked for. What it returns is to be told, as all who wait, when the rest has been done.
func (s *stance) endAsking(cause error) *standHandle {
	s.want, s.asked, s.absence.cause = false, false, cause
	return s.stander.end()
}

// setBack is for a takeover that has failed. The candidate goes on if Vote has asked for its candidacy, and it retries.
// A StandWhile that would stand by and never vote is ended, and to be told.
func (s *stance) setBack(cause error, retries bool) (goesOn bool, ended *standHandle) {
	s.absence.cause = cause
	goesOn = s.asked && retries
	s.want, s.asked = goesOn, goesOn
	if s.stander.voted && !goesOn {
		ended = s.stander.end()
	}
	return goesOn, ended
}

// stands reports whether the candidate stands, or is about to.
func (s *stance) stands() bool { return s.want && !s.closing && s.absence.cause == nil }

// standsAgainAt is when one that does not stands again by itself; zero if it does not.
func (s *stance) standsAgainAt() time.Time {
	if s.want && !s.closing {
		return s.absence.until
	}
	return time.Time{}
}
