package testutil

import "time"

// sweepInterval is how often containers and nodes with a time to live are looked
// for, in milliseconds.
const sweepInterval = 60_000

// runClock does what time brings about: sessions expire, followers pass on whom
// they heard, members are given up, transient nodes go.
func (s *Server) runClock() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-s.done:
			return
		case <-s.wake:
		case <-timer.C:
		}
		s.mu.Lock()
		next := s.advance()
		for s.pulseUnknown() {
			s.unlock()
			delay := s.pingDelay()
			s.mu.Lock()
			s.delayPulse(delay)
			next = s.advance()
		}
		s.unlock()
		timer.Stop()
		if next >= 0 {
			timer.Reset(time.Duration(next)*time.Millisecond - time.Since(s.began))
		}
	}
}

// advance does what is due and gives the time of what comes next, -1 for never.
func (s *Server) advance() int64 {
	now := s.now()
	s.pulseIfDue(now)
	s.giveUpMembers(now)
	if s.leader != nil {
		s.expire(now) // without a majority, too
	}
	if s.canCommit() {
		s.sweepIfDue(now)
	}
	next := int64(-1)
	at := func(t int64) {
		if next < 0 || t < next {
			next = t
		}
	}
	if s.leader != nil {
		for _, x := range s.sessions {
			if !x.closing {
				at(x.expireAt)
			}
		}
	}
	if s.canCommit() {
		if len(s.tree.transient) > 0 {
			at(s.nextSweep)
		}
	}
	s.membersDue(at)
	return next
}

// sweepIfDue deletes containers that are empty again and nodes that have
// outlived their time, at the pace of ZooKeeper's own task.
func (s *Server) sweepIfDue(now int64) {
	if now < s.nextSweep {
		return
	}
	s.setSweep()
	for _, path := range s.tree.overdue(s.wallTime()) {
		s.commit(&txn{op: OpDeleteContainer, zxid: s.nextZxid(), time: s.wallTime(), path: path})
	}
}

// setSweep says when the next sweep is due: the intervals are counted from when the leader
// began to lead. While there is nothing to sweep nobody looks.
func (s *Server) setSweep() {
	s.nextSweep = s.sweepsFrom + ((s.now()-s.sweepsFrom)/sweepInterval+1)*sweepInterval
}
