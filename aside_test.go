package election

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

// A process that stands still for longer than a check may take finds both at once: the answer, and that the time is over.
func TestReturnedIsNotLate(t *testing.T) {
	r := &readiness{asking: true, answers: make(chan error, 1)}
	assert.True(t, r.due(), "a call that has not returned")
	r.answers <- nil
	assert.False(t, r.due(), "a call that has returned")
}

// And a call that begins late, since it stood still, has as long as any other.
func TestLateCallHasItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const every = 400 * time.Millisecond
		r := &readiness{
			ready: func(context.Context) error { return nil }, every: every, answers: make(chan error, 1),
			candidate: &Candidate{Base: new(Base)}, tick: time.NewTicker(every), ctx: t.Context(),
		}
		defer r.tick.Stop()
		time.Sleep(every * 7 / 4)
		<-r.tick.C
		assert.False(t, r.due(), "none was under way")
		began := time.Now()
		<-r.tick.C
		assert.GreaterOrEqual(t, time.Since(began), every)
		synctest.Wait()
	})
}
