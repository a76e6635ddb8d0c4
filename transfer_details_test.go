package election_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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
