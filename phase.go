package election

import (
	"bytes"
	"fmt"
	"time"
)

// phase is where a candidate is in an election. The way through it, and what
// may come in between:
//
//	     +------------------------ idle <--------------------------------------+
//	     |                          |                                          |
//	     v                          | a ballot may exist                       |
//	  casting --------------------->+-------------------------------+          |
//	   |   |                                                        |          |
//	   |   | others are in front                                    |          |
//	   |   v                                                        |          |
//	   | waiting <-------------+                                    |          |
//	   |   |  |  makes way     | moved, others are in front         |          |
//	   |   |  +------------+   | or not moved, and waits as before  |          |
//	   |   | nobody is in  v   |                                    v          |
//	   |   | front any more  moving --- unknown what stands --> withdrawing ---+
//	   v   v                 ^  |                                   ^    ballot is gone
//	  claiming --------------+  |                                   |
//	   ^   |   ^    no lease    |                                   |
//	   |   |   +----------------+                                   |
//	   |   |       not moved                                        |
//	   |   | a lease                                                |
//	   |   v                                                        |
//	   | winning ---> acking ---> leading                           |
//	   |   |             |           |                              |
//	   |   +-------------+-----------+                              |
//	   |                 | leadership is lost or given up           |
//	   |                 v                                          |
//	   +------------- leaving --------------------------------------+
//	the ballot stands         resigned, takeover failed, callbacks hang
//	(or passed on: moving)
//
// Besides: who resigns goes to withdrawing from wherever there is, or may be, a
// ballot, by way of leaving if it leads; a vote that comes to nothing and a ballot
// that is lost lead to idle, from casting, waiting, claiming, moving and leaving;
// and a Close whose time is over leads to ended from each phase that does not lead.
// The table is edges.
type phase int

const (
	// idle: there is no ballot. The candidate waits for somebody to ask for the
	// vote, for a session, for the end of a pause, or for callbacks of its last
	// term. An earlier try to cast may have left a ballot (candidacy.stray), which
	// the next vote looks for.
	idle phase = iota

	// casting: an errand casts a ballot. It ends when there is exactly one, or it
	// is refused; whatever callers want meanwhile is done when it has ended. Once its place
	// is known what it will need there is asked for, and nothing is done with that yet.
	casting

	// waiting: others are in front. The predecessor is watched, the place is looked
	// up again when that has gone, and OnLose is told of leaders.
	waiting

	// claiming: nobody is in front. The candidate waits for a lease to lead under;
	// after a lapse it looks first whether its ballot still stands.
	claiming

	// moving: an errand puts the ballot at the end of the line: since this candidate
	// is the first and gets no lease, makes way for others, has another priority, or
	// passes leadership on. The end of the own ballot is only
	// noted, and nothing is claimed: which ballot there is the errand will tell.
	moving

	// winning: it leads, and OnWin runs. IsLeader is true from here on.
	winning

	// acking: it leads, OnWin has succeeded, and the acknowledgement is being written.
	acking

	// leading: it leads and has acknowledged.
	leading

	// leaving: it has led. OnStepDown and the function given to Run may still run,
	// and the ballot stands until they have returned, or hang.
	leaving

	// withdrawing: an errand deletes the ballot and what it has acknowledged, and
	// ballots that may exist, until that is known to be done.
	withdrawing

	// ended: closed. The loop ends.
	ended
)

var phaseNames = [...]string{"idle", "casting", "waiting", "claiming", "moving", "winning", "acking", "leading", "leaving", "withdrawing", "ended"}

func (p phase) String() string { return phaseNames[p] }

// leads reports whether IsLeader may be true in this phase.
func (p phase) leads() bool { return p == winning || p == acking || p == leading }

// takesOver reports whether a takeover is under way.
func (p phase) takesOver() bool { return p == winning || p == acking }

// edges are the transitions that there are, and what each means.
var edges = [...]map[phase]string{
	idle: {
		casting:     "a vote is begun",
		withdrawing: "a ballot may exist, and nobody wants one",
		ended:       "closed",
	},
	casting: {
		waiting:     "cast, and others are in front",
		claiming:    "cast, and nobody is in front",
		withdrawing: "cast, or possibly, and no longer wanted",
		idle:        "not cast, or its session has ended",
		ended:       "the time to close is over",
	},
	waiting: {
		claiming:    "nobody is in front any more",
		moving:      "makes way for others, or has another priority",
		withdrawing: "resigned, or no lease can be had",
		idle:        "the ballot is lost",
		ended:       "the time to close is over",
	},
	claiming: {
		winning:     "a lease",
		moving:      "no lease for too long, or too many lapses",
		withdrawing: "resigned, or no lease can be had, or what a lost ballot has acknowledged is left",
		idle:        "the ballot is lost",
		ended:       "the time to close is over",
	},
	moving: {
		waiting:     "moved, and others are in front; or not moved, and they still are",
		claiming:    "not moved, or nobody is in front all the same",
		withdrawing: "resigned, or nothing tells which ballot stands",
		idle:        "the ballot is lost",
		ended:       "the time to close is over",
	},
	winning: {
		acking:  "OnWin has succeeded",
		leaving: "leadership is lost or given up",
	},
	acking: {
		leading: "acknowledged",
		leaving: "leadership is lost or given up",
	},
	leading: {
		leaving: "leadership is lost or given up",
	},
	leaving: {
		claiming:    "the lease has lapsed, and the ballot stands",
		moving:      "leadership is passed on",
		withdrawing: "resigned, the takeover failed, or callbacks hang",
		idle:        "the ballot is lost",
		ended:       "the time to shut down is over",
	},
	withdrawing: {
		idle:  "the ballot is gone",
		ended: "closing, and the withdrawal is refused or takes too long",
	},
	ended: nil,
}

// setPhase is where every transition passes, with all that belongs to leaving
// one phase and entering another, so that no transition can skip a part of it.
func (c *candidacy) setPhase(to phase) {
	from := c.phase
	if _, legal := edges[from][to]; !legal {
		panic(fmt.Sprintf("election: a candidate cannot go from %v to %v", from, to))
	}
	ballot := c.VotePath()
	c.exit(from, to)
	c.phase = to
	c.publish() // before anybody is told
	c.logger.Debug("election: candidate", "from", from, "to", to, "ballot", ballot)
	if to.leads() != from.leads() {
		c.metrics.Leading(c.name, to.leads())
	}
	if to.takesOver() != from.takesOver() {
		var since time.Time
		if to.takesOver() {
			since = c.term.claimedAt
		}
		c.metrics.TakingOver(c.name, since)
	}
	c.enter(to)
}

// exit does what belongs to the end of a phase.
func (c *candidacy) exit(from, to phase) {
	switch from {
	case waiting:
		if to != moving {
			c.stopLosing()
		}
	case casting, moving:
		if to != waiting && c.ballot.losing != nil {
			c.stopLosing()
		}
	case claiming:
		if to != moving {
			c.ballot.demotion.endLack()
		}
	case winning:
		c.hung.Store(false)
		c.term.hangAt = time.Time{}
	case leaving:
		c.stepping.Store(nil) // before the ballot goes
	case idle, acking, leading, withdrawing, ended:
	}
	if to == idle {
		c.ballot, c.retreat = nil, retreat{}
		c.live.Store(nil)
		c.transfers.end()
	}
}

// enter does what belongs to the beginning of a phase.
func (c *candidacy) enter(p phase) {
	switch p {
	case waiting:
		c.ballot.recheck.at = c.now.Add(c.session.recheckInterval())
		c.goOnLosing()
	case claiming, winning:
		c.ballot.recheck.at = c.now.Add(c.session.recheckInterval())
	case leading:
		c.ballot.recheck.at = c.now.Add(c.session.recheckInterval())
		// What was proclaimed while OnWin ran, or just before a lapse.
		c.ballot.catchUp = !bytes.Equal(c.ballot.data, c.data)
		c.succeed()
	case acking:
		delete(c.helper.heldBack, stepAcknowledge) // what was refused before was of another term
	case withdrawing:
		c.retreat.since = c.now
		delete(c.helper.heldBack, stepDelete) // what was refused before was another withdrawal
	case idle, casting, moving, leaving, ended:
	}
}
