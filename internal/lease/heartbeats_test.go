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

	answered := func(on *Connection, at Instant) (until Instant, ok bool) {
		return h.Answered(h.Sent(at), on, at, at)
	}
	_, ok = answered(on, 6*second)
	require.False(t, ok, "one alone makes no lease")
	until, ok := answered(on, 7*second)
	require.True(t, ok)
	assert.Equal(t, 12*second, until, "11/12 T from the handshake on")

	other := NewConnection(T, 0)
	other.Establish(7*second, true)
	_, ok = answered(other, 8*second)
	assert.False(t, ok, "the first on another connection")
	h.Forget()
	_, ok = answered(other, 12*second)
	assert.False(t, ok, "the first after time that nobody saw")
	_, ok = answered(other, 13*second)
	assert.True(t, ok)

	beat := h.Sent(14 * second)
	h.Forget()
	_, ok = h.Answered(beat, other, 14*second, 14*second)
	assert.False(t, ok, "its forerunner was before time that nobody saw")
}

// While answers are slow heartbeats overlap, and each is vouched for by what had been answered when
// it was sent, not by what has been answered since.
func TestHeartbeatsOverlap(t *testing.T) {
	const T, second, delay = 32 * time.Second, time.Second, 5 * time.Second
	var h Heartbeats
	on := NewConnection(T, 0)
	beats := make(map[Instant]Heartbeat)
	answered := func(sent, at Instant) (until Instant, ok bool) {
		on.Heard(sent, at)
		return h.Answered(beats[sent], on, sent, at)
	}
	for at := Instant(0); at <= 60*second; at += second {
		if beat := at - delay; beat == 0 || beat >= delay {
			until, ok := answered(beat, at)
			// The first was answered at 5 s. Old enough for it is what was sent at 5 s + h = 14.013 s, or later: at 15 s,
			// answered at 20 s. What was sent then is the first that is vouched for. From then on it is so every
			// second, but that nothing was sent between 0 and 5 s.
			want, lease := Instant(0), at >= 25*second
			if at >= 30*second {
				want = at - 25*second
			}
			require.Equal(t, lease, ok, "at %v", at)
			if ok {
				require.Equal(t, want+on.Duration(), until, "at %v", at)
			}
			// The lease before 30 s could end before the next, unless it lasts as long as that takes.
			require.Equal(t, at >= 30*second, on.MinToClaim() == T/16, "at %v", at)
			require.Equal(t, at < 30*second, on.MinToClaim() == on.overlapping(delay).age, "at %v", at)
		}
		if at == 0 || at >= delay {
			due, ok := h.Due(on, 0, at)
			require.True(t, ok, "at %v", at)
			require.LessOrEqual(t, due, at)
			beats[at] = h.Sent(at)
			if at > 0 {
				due, ok = h.Due(on, 0, at)
				require.True(t, ok)
				require.Equal(t, at+T/32, due, "whether the one before has been answered or not")
			}
		}
	}

	// Five are under way.
	for at := 61 * second; at < 64*second; at += second {
		beats[at] = h.Sent(at)
	}
	_, ok := h.Due(on, 0, 64*second)
	require.False(t, ok, "eight are")
	_, ok = answered(58*second, 65*second)
	require.True(t, ok)
	_, ok = answered(57*second, 65*second)
	require.True(t, ok, "an older one may be noted after a newer")
	require.Equal(t, 58*second, h.last.sent)

	// Quick answers end it, after a while.
	for at := 70 * second; at < 140*second; at += second {
		beats[at] = h.Sent(at)
		_, _ = answered(at, at+second/10)
		if at-65*second <= T {
			require.True(t, h.pace.overlaps, "at %v", at)
		}
		if at-65*second > 2*T {
			require.False(t, h.pace.overlaps, "at %v", at)
		}
	}
	require.Equal(t, T/6, on.MinToClaim())
	h.Sent(140 * second)
	_, ok = h.Due(on, 0, 200*second)
	require.False(t, ok, "one at a time")
}

// After a pause in them the next heartbeats are not near: as much of a lease is enough as else. But never less than
// before, since whoever waits is not told.
func TestPauseInHeartbeats(t *testing.T) {
	const T = 32 * time.Second
	on := NewConnection(T, 0)
	h := Heartbeats{last: heartbeat{on: on}, pace: on.overlapping(T / 6)}
	for _, c := range []struct{ at, before, after Instant }{
		{T / 32, T / 16, T / 16},
		{T, T / 16, T / 6},
		{2 * T, T / 2, T / 2},
	} {
		on.minToClaim.Store(int64(c.before))
		h.Sent(c.at)
		assert.Equal(t, c.after, on.MinToClaim(), "%v", c)
	}
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
