package election_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election"
)

// Transfers, priority and standing aside in corners where they went wrong.

// One call of ready that takes too long is one failure: not a second one when it returns.
func TestOneSlowAnswerIsForgiven(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.member("a", j)
		ctx, cancel := context.WithCancel(context.Background())
		calls := 0
		done := make(chan error, 1)
		go func() {
			done <- a.StandWhile(ctx, func(ctx context.Context) error {
				if calls++; calls%3 == 2 {
					<-ctx.Done()
					return ctx.Err()
				}
				return nil
			}, time.Second)
		}()
		w.await(j, "a won")
		time.Sleep(20 * time.Second)
		w.same("journal", j.all(), []string{"a won"})
		assert.True(t, a.IsLeader())
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
	})
}

// The lease that a takeover was held under before it failed does not end the demotion.
func TestLongTakeoverThatFailsIsDemoted(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.member("a", j, withPriority(5))
		fails := true
		a.OnWin(func(context.Context, election.Term) error {
			if !fails {
				return nil
			}
			fails = false
			time.Sleep(2 * w.timeout())
			return errors.New("not today")
		})
		first := a.vote().VotePath()
		w.until("another ballot", func() bool { return a.VotePath() != "" && a.VotePath() != first })
		assert.Equal(t, -9, a.Status().Priority)
	})
}

// A priority that is the candidate's already costs it no place.
func TestSamePriorityMovesNobody(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		line := w.settledLine(j, 3)
		b := line[1]
		w.heard()
		before := b.VotePath()
		require.NoError(t, b.SetPriority(w.context(), 0))
		assert.Equal(t, before, b.VotePath())
	})
}
