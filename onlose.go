package election

import "context"

// What a candidate that waits is told of the leader: OnLose. The loss of leadership is another thing: leaving.go.

// losing is how a candidate in the phase waiting follows the acknowledgement, to
// call OnLose. It begins with that phase, or while the ballot is being cast, and ends with
// that phase; nobody is told of anything before it. With FollowNextNode it begins anew with each
// predecessor.
type losing struct {
	sub  *subscription // nil once it has reported all that it ever will
	to   string        // the predecessor that it began with
	told int64         // czxid of the leader that OnLose was last queued for; 0: nobody has acknowledged
	held *leaderSeen   // what came before the ballot was confirmed; nil: nothing
	seen bool          // told is what there is, and with FollowLeader stays so

	cancel context.CancelFunc // ends the context of the last OnLose; nil when that has ended
}

// startLosing waits for the leader's acknowledgement, to tell OnLose of it. expected is whether
// there is one, as far as is known.
func (c *candidacy) startLosing(expected bool) {
	sub := &subscription{lasting: c.follow == FollowLeader, unexpected: !expected}
	inbox := c.inbox
	sub.notify = func(view ackView) { inbox.push(leaderSeen{sub, view}) }
	c.ballot.losing = &losing{sub: sub, to: c.ballot.line.place.predecessor}
	c.session.subscribe(c.LeaderAckPath(), sub)
}

// goOnLosing begins it, or goes on after a move that has led nowhere else: what
// OnLose was told is true still, unless there is another predecessor to follow.
func (c *candidacy) goOnLosing() {
	if l := c.ballot.losing; l != nil {
		if held := l.held; held != nil {
			l.held = nil
			defer c.leaderSeen(*held) // is dropped if it ends here
		}
		now := c.ballot.line.place.predecessor // "" while it is looked up
		if c.follow == FollowLeader || now == "" || now == l.to {
			return
		}
		c.stopLosing()
	}
	c.startLosing(true)
}

func (c *candidacy) stopLosing() {
	l := c.ballot.losing
	l.unsubscribe()
	if l.cancel != nil {
		c.publish() // it is not known any more who leads
		l.endLoss()
	}
	c.ballot.losing = nil
}

func (l *losing) unsubscribe() {
	if l.sub != nil {
		l.sub.end()
		l.sub = nil
	}
}

// endLoss ends what OnLose was last told.
func (l *losing) endLoss() {
	if l.cancel != nil {
		l.cancel()
		l.cancel = nil
	}
}

// alive reports whether a leader has acknowledged; known is false where this does not follow each of them. Who follows
// the next node only is told once, and does not hear when that leader is replaced far ahead.
func (l *losing) alive() (alive, known bool) {
	if l == nil || !l.seen || l.sub == nil || !l.sub.lasting {
		return false, false
	}
	return l.told != 0, true
}

// leaderSeen is what a subscription has told.
type leaderSeen struct {
	sub  *subscription
	view ackView
}

func (c *candidacy) leaderSeen(m leaderSeen) {
	if c.ballot == nil || c.ballot.losing == nil || m.sub != c.ballot.losing.sub {
		return
	}
	l := c.ballot.losing
	if c.phase == casting {
		l.held = &m
		return
	}
	l.seen = true
	if m.view.leader == nil {
		l.told = 0
		c.publish()
		l.endLoss()
		return
	}
	if !m.sub.lasting {
		l.unsubscribe() // no follower need live for it
	}
	leader := m.view.leader.leader()
	if leader.Zxid == l.told {
		return
	}
	l.told = leader.Zxid
	c.publish()
	l.endLoss()
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), callbackOwner{}, c.Candidate))
	l.cancel = cancel
	c.metrics.Lost(c.name)
	c.logger.Info("election: lost", append([]any{"ballot", c.own().name}, leader.attrs()...)...)
	c.queue.push(func() { c.callLose(ctx, leader) })
}

// callLose runs on the callback goroutine.
func (c *Candidate) callLose(ctx context.Context, leader Leader) {
	var turns []func()
	for i, fn := range c.onLose.snapshot() {
		turns = append(turns, func() {
			if ctx.Err() != nil {
				return // that is no longer true
			}
			_ = c.call("OnLose", i, *fn, func() error { (*fn)(ctx, leader.copied()); return nil })
		})
	}
	inTurn(turns...)
}
