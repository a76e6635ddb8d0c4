package election

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/testutil"
)

// The ensemble's leader pings its followers half a tick apart and a little, never
// at exactly half a tick. A candidate on a caller's connection takes over on two
// heartbeats that are as close together as the rule of the lease allows; when the
// first comes to its follower just behind a ping, the next ping may be later than
// the second. Cut off then, with its follower, it must have stopped leading when its
// successor begins.
func TestTakeoverBetweenTwoLatePings(t *testing.T) {
	const timeout, tick = 6 * time.Second, time.Second
	// As late as is allowed for, by a clock that is as slow as is allowed for.
	latest := (tick/2+timeout/100)*13/12 - tick/2
	takeovers := 0
	for _, late := range []time.Duration{time.Millisecond, 20 * time.Millisecond, latest} {
		for _, behind := range []time.Duration{0, late / 3} {
			for waits := range 24 {
				takeovers += takeOverBetweenPings(t, timeout, tick, late, behind, time.Duration(waits)*tick/4)
			}
		}
	}
	assert.GreaterOrEqual(t, takeovers, 100, "only %d have taken over and were succeeded", takeovers)
}

// takeOverBetweenPings has the leader resign that long behind a ping, once its
// successor has waited for a while. It returns 1 when the successor has led and,
// cut off, was succeeded in turn.
func takeOverBetweenPings(t *testing.T, timeout, tick, late, behind, waits time.Duration) (succeeded int) {
	defer bound(fmt.Sprintf("TestTakeoverBetweenTwoLatePings, %v late, %v behind, after %v", late, behind, waits))()
	synctest.Test(t, func(t *testing.T) {
		pinged := make(chan struct{}, 1)
		s := &stage{trial: newTrial(t, testutil.ServerOptions{
			TickTime: tick, Members: 3, MinSessionTimeout: timeout, MaxSessionTimeout: timeout,
			PingDelay: func() time.Duration {
				select {
				case pinged <- struct{}{}:
				default:
				}
				return late
			},
		}, timeout)}
		actorOn := func(p *process, name string) *actor {
			a := s.newActor(p, name, nil)
			require.NoError(t, a.vote(timeout))
			return a
		}
		a := actorOn(s.newProcess("a's session", tick, 0), "a")
		s.awaitLeader(timeout, nil)
		b := actorOn(s.newCallersProcess("b's session", tick, 1), "b")
		synctest.Wait()
		c := actorOn(s.newProcess("c's session", tick, 2), "c")
		synctest.Wait()

		var isolated atomic.Pointer[func()]
		s.onClaim = func(by *actor, session int64) {
			if by == b {
				s.srv.Member(1).CutOff()
				heal := s.srv.Isolate(session)
				isolated.Store(&heal)
			}
		}
		time.Sleep(timeout + waits)
		<-pinged // one of before
		<-pinged
		time.Sleep(behind)
		resigned := make(chan error, 1)
		go func() { resigned <- a.resign(timeout) }()
		for range 1000 {
			time.Sleep(2 * timeout / 1000)
			s.sample()
		}
		if isolated.Load() != nil && c.IsLeader() {
			succeeded = 1
		}
		if heal := isolated.Load(); heal != nil {
			(*heal)()
		}
		s.srv.Member(1).Heal()
		assert.NoError(t, <-resigned)
		s.awaitLeader(2*timeout, nil)
		s.finish()
	})
	return succeeded
}
