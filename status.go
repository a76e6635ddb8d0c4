package election

import (
	"errors"
	"time"
)

// Status is one consistent picture of a candidate at one moment, for health
// checks, tools and dashboards.
type Status struct {
	// Phase is what the candidate is doing, in words for people: "idle" (no
	// ballot), "casting", "waiting", "claiming" (the first in line, without a
	// lease), "moving" (to the end of the line), "taking over" (OnWin runs),
	// "acknowledging", "leading", "stepping down" (OnStepDown runs),
	// "withdrawing" or "closed".
	Phase string
	// Standing is whether the candidate stands in the election, or is about to:
	// somebody has asked for the vote, and nothing has ended that.
	Standing bool
	// Absence is why it does not stand, nil when it does: for errors.Is
	// ErrResigned, ErrClosed, ErrTakeoverFailed, ErrTickTime, ErrCallbackRunning,
	// while it stands aside what the function given to StandWhile has returned,
	// or what ZooKeeper refused the ballot with. Before the first vote it says
	// that.
	Absence error
	// RetryAt is when a candidate that does not stand tries again by itself; zero
	// when it waits for Vote, or for a callback that has not returned.
	RetryAt time.Time
	// Ballot is the path of the live ballot, "" when there is none.
	Ballot string
	// Priority is what the ballot shows, or without one what the next one will: see
	// CandidateOptions.Priority.
	Priority int
	// InFront is how many ballots are in front of it, as far as was seen last; -1
	// without a ballot, and while that is not known.
	InFront int
	// Leads is Candidate.IsLeader, and Term the present term if it leads.
	Leads bool
	Term  Term
	// LeaseUntil is until when leadership is certain unless it is renewed; zero
	// when the candidate does not lead.
	LeaseUntil time.Time
	// TakingOverSince is when the takeover that is under way began, and
	// AcknowledgedAt when the leader had acknowledged. At most one is set.
	TakingOverSince time.Time
	AcknowledgedAt  time.Time
	// LeaderAlive is whether a leader has acknowledged, this candidate or another
	// one, as far as it has been told: without a connection the last state known
	// stays. LeaderKnown is false while it cannot tell: it neither leads nor waits,
	// or it waits and does not follow the leader, but the next node
	// (CandidateOptions.Follow). An Observer can always tell.
	LeaderAlive bool
	LeaderKnown bool
	// Connected is whether the Session has a connection to a server, Server the
	// address of that one, or of the one that was tried last, and ConnectionSince
	// since when that is so: as Session.Connection has it.
	Connected       bool
	Server          string
	ConnectionSince time.Time
	// LastError is what last went wrong: a loss of leadership that nobody asked
	// for, a takeover that failed, a request that was refused or not answered. It
	// stays until another one comes, so LastErrorAt tells when that was.
	LastError   error
	LastErrorAt time.Time
}

var errNotVoted = errors.New("election: nobody has asked for the vote yet")

// picture is what the loop publishes of itself for Status. It does not change. It is kept for each candidate, so it has nothing
// that Status finds out when it is called.
type picture struct {
	phase                    phase
	standing                 bool
	leaderAlive, leaderKnown bool
	absence                  error
	retryAt                  time.Time
	ballot                   *ballot
	priority, inFront        int
	takingOverSince, ackedAt time.Time
	failure                  failure
	lead                     *leadership // while it leads, as far as the loop knows
}

// Status returns the present state of the candidate. It takes no lock of the
// candidate's and asks no server.
func (c *Candidate) Status() Status {
	p := c.picture.Load()
	s := Status{
		Phase: p.phase.words(), Standing: p.standing, Absence: p.absence, RetryAt: p.retryAt,
		Priority: p.priority, InFront: p.inFront, TakingOverSince: p.takingOverSince, AcknowledgedAt: p.ackedAt,
		LeaderAlive: p.leaderAlive, LeaderKnown: p.leaderKnown, LastError: p.failure.err, LastErrorAt: p.failure.at,
	}
	if p.ballot != nil {
		s.Ballot = p.ballot.path
	}
	if l := p.lead; l != nil {
		if until := l.lease.Deadline(); c.leader.Load() == l && l.lease.Valid() && !until.IsZero() {
			s.Leads, s.Term, s.LeaseUntil = true, l.term, until
		} else {
			// The loop is about to notice, or has and is about to say so.
			s.Phase, s.TakingOverSince, s.AcknowledgedAt = leaving.words(), time.Time{}, time.Time{}
			s.LeaderAlive, s.LeaderKnown = false, false
		}
	}
	link := c.session.Connection()
	s.Connected, s.Server, s.ConnectionSince = link.Connected, link.Server, link.Since
	return s
}

// words names a phase for people.
func (p phase) words() string {
	switch p {
	case winning:
		return "taking over"
	case acking:
		return "acknowledging"
	case leaving:
		return "stepping down"
	case ended:
		return "closed"
	case idle, casting, waiting, claiming, moving, leading, withdrawing:
	}
	return p.String()
}

// publish makes the present state known to Status, and a change of standing to
// the metrics. It comes before anybody else hears of that state.
func (c *candidacy) publish() {
	p := &picture{phase: c.phase, standing: c.stands(), inFront: -1, priority: c.priority.now(), failure: c.failure}
	if !p.standing {
		p.absence, p.retryAt = c.absence.cause, c.standsAgainAt()
	}
	if b := c.live.Load(); b != nil {
		p.ballot = b
		p.priority, _ = priorityOf(b.name)
		switch {
		case c.phase.leads(), c.phase == claiming, c.phase == moving && c.ballot.losing == nil:
			p.inFront = 0
		case c.phase == waiting, c.phase == moving:
			p.inFront = c.ballot.line.place.ahead
		}
	}
	switch c.phase {
	case winning, acking:
		p.lead, p.takingOverSince = c.term.lead, c.term.claimedAt
		p.leaderKnown = true
	case leading:
		p.lead, p.ackedAt = c.term.lead, c.term.ackedAt
		p.leaderAlive, p.leaderKnown = true, true
	case waiting, moving:
		p.leaderAlive, p.leaderKnown = c.ballot.losing.alive()
	default:
	}
	before := c.picture.Swap(p)
	if stood := before != nil && before.standing; p.standing != stood {
		c.metrics.Standing(c.name, p.standing)
	}
}

// failed notes what went wrong, for Status.
func (c *candidacy) failed(err error) {
	if err != nil {
		c.failure = failure{err, c.now}
	}
}
