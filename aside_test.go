package election

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

// A process that stands still for longer than a check may take finds both at once: the answer, and that the time is over.
func TestReturnedIsNotLate(t *testing.T) {
	r := &readiness{asking: true, answers: make(chan error, 1)}
	assert.True(t, r.due(), "a call that has not returned")
	r.answers <- nil
	assert.False(t, r.due(), "a call that has returned")
}
