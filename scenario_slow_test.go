package election_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election"
	"github.com/zkelection/election/testutil"
)

// upTo are delays between half of the most and the most, the same ones each time.
func upTo(most time.Duration) func() time.Duration {
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(3, uint64(most)))
	return func() time.Duration {
		mu.Lock()
		defer mu.Unlock()
		return most - time.Duration(random.Int64N(int64(most/2)))
	}
}

// A client whose answers are slow sends its heartbeats the sooner, at last without
// waiting for the one before, and leads without a lapse as long as the rule of the
// lease can be kept: up to a sixth of T, and beyond it when the servers' tick is
// short and known.
func TestSlowAnswers(t *testing.T) {
	const T = 12 * time.Second
	for _, c := range []struct {
		tick  time.Duration // of the servers, and given
		parts float64       // answers take T/parts
	}{
		{6 * time.Second, 32},
		{6 * time.Second, 20},
		{6 * time.Second, 16},
		{6 * time.Second, 12},
		{6 * time.Second, 8},
		{6 * time.Second, 7},
		{6 * time.Second, 6.5},
		{6 * time.Second, 6},
		{2 * time.Second, 32},
		{2 * time.Second, 12},
		{2 * time.Second, 8},
		{2 * time.Second, 6},
		{2 * time.Second, 5},
	} {
		for _, varies := range []bool{false, true} {
			t.Run(fmt.Sprintf("tick %v, T over %v, varies %v", c.tick, c.parts, varies), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					w := inProcess(t, &testutil.ServerOptions{TickTime: c.tick})
					delay := func() time.Duration { return time.Duration(float64(T) / c.parts) }
					if varies {
						delay = upTo(delay())
					}
					session, err := election.Connect(w.servers, T,
						&election.SessionOptions{Dialer: election.Far(w.dial, delay), TickTime: c.tick, Logger: w.logger()})
					require.NoError(t, err)
					defer time.Sleep(T) // until what was on the way has arrived
					defer session.Close()
					candidate, err := election.NewCandidate(session, "slow", nil)
					require.NoError(t, err)
					var lapses atomic.Int64
					candidate.OnStepDown(func(_ context.Context, _ election.Term, _ error) { lapses.Add(1) })
					_, err = candidate.Campaign(w.context())
					require.NoError(t, err)
					// The slowest that there may be for an hour, the others for a while.
					if c.parts > 8 {
						time.Sleep(10 * time.Minute)
					} else {
						time.Sleep(time.Hour)
					}
					assert.Zero(t, lapses.Load())
					assert.True(t, candidate.IsLeader())
				})
			})
		}
	}
}

// One slow answer makes heartbeats overlap for a while, and what is enough of a lease change. That keeps nobody who
// can lead from it.
func TestOneSlowAnswerDelaysNoTakeover(t *testing.T) {
	const T, quick = 12 * time.Second, 300 * time.Millisecond
	// A lease that is enough is made of heartbeats behind the slow answer: one, one that is sent a ping's period after its answer, and
	// the one that this vouches for, each T/32 later than it could be.
	const most = (T/4+T/100)*13/12 + 3*(quick+T/32)
	// With the first the heartbeats overlap before there is another answer.
	for _, slow := range []time.Duration{T * 4 / 25, T * 2 / 5} {
		for since := time.Duration(0); since < T/2; since += T / 48 {
			t.Run(fmt.Sprintf("%v, %v since", slow, since), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					t.Cleanup(func() { time.Sleep(T) }) // until what was on the way has arrived
					w := inProcess(t, &testutil.ServerOptions{TickTime: T / 2})
					var delay atomic.Int64
					delay.Store(int64(quick))
					next := func(dial zk.Dialer, hot bool) *election.Candidate {
						s, err := election.Connect(w.servers, T, &election.SessionOptions{Dialer: dial, Logger: w.logger()})
						require.NoError(t, err)
						t.Cleanup(func() { assert.NoError(t, s.Close()) })
						c, err := election.NewCandidate(s, "slow", &election.CandidateOptions{HotStandby: hot})
						require.NoError(t, err)
						require.NoError(t, c.Vote(w.context()))
						return c
					}
					leader := next(w.dial, false)
					standby := next(election.Far(w.dial, func() time.Duration { return time.Duration(delay.Load()) }), true)
					time.Sleep(5 * T)
					delay.Store(int64(slow))
					time.Sleep(T / 7) // a heartbeat is sent in that time
					delay.Store(int64(quick))
					time.Sleep(since)
					began := time.Now()
					require.NoError(t, leader.Resign(w.context()))
					w.until("the standby leads", standby.IsLeader)
					assert.LessOrEqual(t, time.Since(began), most)
				})
			})
		}
	}
}
