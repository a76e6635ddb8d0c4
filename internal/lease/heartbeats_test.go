package lease

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A lease takes two heartbeats in a row on one connection; one that failed is
// repeated a little later, and while one is under way none is due.
func TestHeartbeats(t *testing.T) {
	const T, second = 12 * time.Second, time.Second
	var h Heartbeats
	on := NewConnection(T, 0)
	on.Establish(second, true)
	due := func(now Instant) Instant {
		t.Helper()
		at, ok := h.Due(on, 0, now)
		require.True(t, ok)
		return at
	}
	require.Equal(t, 5*second, due(5*second), "the first, at once")
	h.Sent(5 * second)
	_, ok := h.Due(on, 0, 5*second)
	require.False(t, ok, "one is under way")
	h.Failed()
	require.Equal(t, 5*second+T/32, due(5*second), "after a failure a little later")

	h.Sent(6 * second)
	_, ok = h.Answered(on, 6*second, 6*second)
	require.False(t, ok, "one alone makes no lease")
	h.Sent(7 * second)
	until, ok := h.Answered(on, 7*second, 7*second)
	require.True(t, ok)
	assert.Equal(t, 12*second, until, "11/12 T from the handshake on")

	other := NewConnection(T, 0)
	other.Establish(7*second, true)
	_, ok = h.Answered(other, 8*second, 8*second)
	assert.False(t, ok, "the first on another connection")
	h.Forget()
	_, ok = h.Answered(other, 12*second, 12*second)
	assert.False(t, ok, "the first after time that nobody saw")
	_, ok = h.Answered(other, 13*second, 13*second)
	assert.True(t, ok)
}

// The handshake of a later connection may have granted less.
func TestConnectionShortens(t *testing.T) {
	l := New(NewClock(), NewRule(time.Hour, 0), time.Hour)
	NewConnection(time.Minute, 0).Shorten(l)
	assert.Equal(t, time.Hour, l.Until(), "its handshake was not seen")
	c := NewConnection(time.Minute, 0)
	c.Establish(0, false)
	c.Shorten(nil)
	c.Shorten(l)
	assert.Equal(t, 55*time.Second, l.Until())
	_, ok := c.SurelyHeard(time.Hour)
	assert.False(t, ok, "the handshake does not count")
}
