package election

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/internal/lease"
)

// Whoever is told of something, by an answer, a callback, a context that ends or a metric, may ask at once, and finds it so.

// TestObserverIsUpToDate: LeaderAlive has what a callback is about to be told.
func TestObserverIsUpToDate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o *Observer
		told := map[string]bool{}
		logger := slog.New(logFunc(func(record slog.Record) { // the callback is queued behind it
			told[record.Message], _ = o.LeaderAlive()
		}))
		o, err := NewObserver(newSession(time.Minute), "e", &ObserverOptions{Logger: logger})
		require.NoError(t, err)
		o.see(ackView{leader: &node{stat: zk.Stat{Czxid: 1}}})
		synctest.Wait()
		assert.Equal(t, map[string]bool{"election: new leader": true}, told)
		o.see(ackView{})
		synctest.Wait()
		assert.Equal(t, map[string]bool{"election: new leader": true, "election: leader gone": false}, told)
	})
}

// TestLoserIsUpToDate: Status knows the leader whom OnLose is about to be told of, and no longer knows it when the context of
// OnLose ends.
func TestLoserIsUpToDate(t *testing.T) {
	for name, end := range map[string]func(c *candidacy, sub *subscription){
		"nobody leads": func(c *candidacy, sub *subscription) { c.leaderSeen(leaderSeen{sub, ackView{}}) },
		"another leads": func(c *candidacy, sub *subscription) {
			c.leaderSeen(leaderSeen{sub, ackView{leader: &node{stat: zk.Stat{Czxid: 2}}}})
		},
		"it is its turn":     func(c *candidacy, _ *subscription) { c.setPhase(claiming) },
		"it withdraws":       func(c *candidacy, _ *subscription) { c.setPhase(withdrawing) },
		"its ballot is gone": func(c *candidacy, _ *subscription) { c.ballotLost(ErrBallotDeleted) },
	} {
		t.Run(name, func(t *testing.T) {
			c := inPhase(t, waiting)
			sub := &subscription{lasting: true}
			sub.once.Do(func() {}) // it has no watcher to leave
			c.ballot.losing = &losing{sub: sub}
			c.live.Store(c.ballot.node)
			c.publish()
			lost := 0
			c.metrics.Lost = func(string) { // OnLose is queued behind it
				lost++
				assert.True(t, c.Status().LeaderAlive)
			}
			c.leaderSeen(leaderSeen{sub, ackView{leader: &node{stat: zk.Stat{Czxid: 1}}}})
			require.Equal(t, 1, lost)
			ended := false
			c.ballot.losing.cancel = func() {
				ended = true
				s := c.Status()
				assert.Equal(t, name == "another leads", s.LeaderAlive)
				assert.Equal(t, name == "another leads" || name == "nobody leads", s.LeaderKnown)
			}
			end(c, sub)
			assert.True(t, ended)
		})
	}
}

// TestLeaderIsUpToDate: Status says that a candidate leads when its metrics are told.
func TestLeaderIsUpToDate(t *testing.T) {
	c := inPhase(t, claiming)
	told := 0
	c.metrics.Leading = func(string, bool) { told++; assert.True(t, c.Status().Leads, "Leading") }
	c.metrics.TakingOver = func(string, time.Time) { told++; assert.True(t, c.Status().Leads, "TakingOver") }
	c.claim(lease.New(c.session.clock, c.session.rule(), c.session.clock.Now()+30*time.Second))
	assert.Equal(t, 2, told)
	c.term.lead.lease.Revoke(ErrLeaseLapsed)
}

// TestAnswersComeLast: who waits is answered when it is done with, and Status shows it. The loop of this test waits in each
// answer until that has been looked at.
func TestAnswersComeLast(t *testing.T) {
	campaigns := func(c *candidacy) func() {
		reply := make(chan campaignResult)
		c.campaigns = []*campaignCommand{{reply: reply}}
		return func() { <-reply }
	}
	stands := func(c *candidacy) func() {
		ended := make(chan error)
		c.stander = stander{handle: &standHandle{ended: ended}, answered: true, voted: true}
		return func() { <-ended } //nolint:errcheck // when, and not what
	}
	waits := func(list func(c *candidacy) *[]chan error) func(c *candidacy) func() {
		return func(c *candidacy) func() {
			reply := make(chan error)
			*list(c) = []chan error{reply}
			return func() { <-reply } //nolint:errcheck // when, and not what
		}
	}
	leads := func(t *testing.T, c *candidacy) {
		assert.False(t, c.IsLeader())
		assert.False(t, c.Status().Leads)
		assert.Error(t, c.term.lead.ctx.Err(), "the leader's context")
	}
	for name, test := range map[string]struct {
		in    phase
		waits func(c *candidacy) (answered func())
		act   func(c *candidacy)
		done  func(t *testing.T, c *candidacy)
	}{
		"Campaign, by Resign":                  {winning, campaigns, func(c *candidacy) { c.resign(resignCommand{cause: ErrResigned}) }, leads},
		"StandWhile, by Resign":                {leading, stands, func(c *candidacy) { c.resign(resignCommand{cause: ErrResigned}) }, leads},
		"Campaign, by a takeover that fails":   {winning, campaigns, func(c *candidacy) { c.takeoverFailed(assert.AnError) }, leads},
		"StandWhile, by a takeover that fails": {winning, stands, func(c *candidacy) { c.takeoverFailed(assert.AnError) }, leads},
		"StandWhile, refused": {idle, stands, func(c *candidacy) { c.refused(assert.AnError) }, func(t *testing.T, c *candidacy) {
			s := c.Status()
			assert.False(t, s.Standing)
			assert.ErrorIs(t, s.Absence, assert.AnError)
		}},
		"SetPriority": {idle, waits(func(c *candidacy) *[]chan error { return &c.priority.waiters }), func(c *candidacy) {
			c.want, c.priority.wanted, c.priority.relabel = false, 7, true
			c.advance()
		}, func(t *testing.T, c *candidacy) { assert.Equal(t, 7, c.Status().Priority) }},
		"Resign, refused": {
			withdrawing, waits(func(c *candidacy) *[]chan error { return &c.resigners }),
			func(c *candidacy) { c.withdrawDone(zk.ErrNoAuth) },
			func(t *testing.T, c *candidacy) { assert.ErrorIs(t, c.Status().LastError, zk.ErrNoAuth) },
		},
		"Proclaim, refused": {
			leading, func(c *candidacy) func() {
				reply := make(chan error)
				c.proclaims = []*proclaimCommand{{reply: reply}}
				return func() { <-reply } //nolint:errcheck // when, and not what
			}, func(c *candidacy) { c.ackDone(ackDone{lead: c.term.lead, err: zk.ErrNoAuth}) },
			func(t *testing.T, c *candidacy) { assert.ErrorIs(t, c.Status().LastError, zk.ErrNoAuth) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := inPhase(t, test.in)
				c.retry = -1
				if test.in.leads() {
					under := lease.New(c.session.clock, c.session.rule(), c.session.clock.Now()+30*time.Second)
					defer under.Revoke(ErrLeaseLapsed)
					c.term.lead.lease = under
					c.term.lead.ctx, c.term.lead.cancel = context.WithCancelCause(context.Background())
					c.leader.Store(c.term.lead)
				}
				c.publish()
				require.Equal(t, test.in.leads(), c.Status().Leads)
				answered := test.waits(c)
				go test.act(c)
				synctest.Wait()
				test.done(t, c)
				answered()
			})
		})
	}
}
