package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/zkelection/election"
)

// What a candidate that does not lead has to say: to people, to systemd, and with --try to itself.

// standingPoll is how often it is looked what the candidate does. That asks no server.
const standingPoll = 50 * time.Millisecond

// sayWhoLeads is told of each leader while this candidate waits. ctx ends when it is not known any more that this one leads.
func (j *job) sayWhoLeads(ctx context.Context, leader election.Leader) {
	j.env.say("waiting: %s leads %s", printable(leader.Data), j.name)
	said := fmt.Sprintf("waits, %s leads %s", printable(leader.Data), j.name)
	j.systemd.status("%s", said)
	context.AfterFunc(ctx, func() {
		if !j.ending.Load() { // else it is this one that waits no longer
			j.systemd.statusAfter(said, "waits, nobody is known to lead %s", j.name)
		}
	})
}

// watchStanding reports to systemd that the candidate stands. With --try it ends the stint when that is not to lead. It
// returns when done is closed.
func (j *job) watchStanding(ctx context.Context, s *stint, done <-chan struct{}) {
	poll := time.NewTicker(standingPoll)
	defer poll.Stop()
	var late <-chan time.Time
	if j.try && j.wait > 0 {
		late = time.After(j.wait)
	}
	for {
		status := j.candidate.Status()
		if status.Ballot != "" {
			j.systemd.ready()
		}
		if j.try && status.InFront > 0 {
			if err := j.somebodyStands(ctx); err != nil {
				s.end(err)
			}
		}
		select {
		case <-done:
			return
		case <-late:
			if !status.Leads {
				s.end(&exit{exitRunFailed, fmt.Errorf("no leadership in %v, and nobody stands in front: ZooKeeper does not answer", j.wait)})
			}
		case <-poll.C:
		}
	}
}

// alive is what the watchdog of systemd is told: the process goes on, and so does the loop that keeps a running command
// under its lease.
func (j *job) alive() bool {
	turn := j.turn.Load()
	return turn == 0 || time.Since(time.Unix(0, turn)) < j.session.Timeout()
}

// somebodyStands returns the exit of --try when there is somebody else's ballot in front.
func (j *job) somebodyStands(ctx context.Context) error {
	limit, cancel := j.limit(ctx)
	defer cancel()
	ballots, err := j.candidate.Ballots(limit)
	if err != nil {
		return misuse(signalledOr(ctx, err))
	}
	if len(ballots) == 0 || ballots[0].SessionID == j.session.ID() {
		return nil
	}
	who := printable(ballots[0].Data)
	verb := "takes over"
	if leader, err := j.candidate.Leader(limit); err == nil && hasAcknowledged(ballots[0], leader) {
		verb = "leads"
	} else if err != nil && !errors.Is(err, election.ErrNoLeader) {
		return misuse(signalledOr(ctx, err))
	}
	j.env.say("%s %s %s: not running %s", who, verb, j.name, j.argv[0])
	return &exit{status: exitOther}
}
