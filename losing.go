package election

import "context"

// Losing: following the acknowledgement, to tell OnLose of it.

// placeInLine begins to follow, or goes on if what OnLose is told of is the same
// as before: a candidate that has moved may still lose to the same.
func (c *candidacy) placeInLine() {
	if (c.sub != nil || c.loseCancel != nil) && (c.follow == FollowLeader || c.losingTo == c.place.predecessor) {
		return
	}
	c.stopLosing()
	c.startLosing()
}

// startLosing waits for the leader's acknowledgement, to tell OnLose of it.
func (c *candidacy) startLosing() {
	sub := &subscription{lasting: c.follow == FollowLeader}
	sub.notify = func(view ackView) { c.inbox.push(leaderSeen{sub, view}) }
	c.sub, c.losingTo, c.told = sub, c.place.predecessor, 0
	c.session.subscribe(c.LeaderAckPath(), sub)
}

func (c *candidacy) stopLosing() {
	if c.sub != nil {
		c.sub.end()
		c.sub = nil
	}
	c.endLoss()
}

func (c *candidacy) endLoss() {
	if c.loseCancel != nil {
		c.loseCancel()
		c.loseCancel = nil
	}
}

func (c *candidacy) leaderSeen(m leaderSeen) {
	if m.sub != c.sub {
		return
	}
	if m.view.leader == nil {
		c.endLoss()
		c.told = 0
		return
	}
	if !m.sub.lasting {
		m.sub.end() // it has told all that it ever will: no follower need live for it
		c.sub = nil
	}
	leader := m.view.leader.leader()
	if leader.Zxid == c.told {
		return
	}
	c.endLoss()
	c.told = leader.Zxid
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), callbackOwner{}, c.Candidate))
	c.loseCancel = cancel
	c.metrics.Lost(c.name)
	c.logger.Info("election: lost", "ballot", c.ballot.name, "leader", sessionName(leader.SessionID))
	c.queue.push(func() {
		var turns []func()
		for i, fn := range c.onLose.snapshot() {
			turns = append(turns, func() {
				if ctx.Err() != nil {
					return // true no more
				}
				_ = c.call("OnLose", i, *fn, func() error { (*fn)(ctx, leader.copied()); return nil })
			})
		}
		inTurn(turns...)
	})
}
