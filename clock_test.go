package election

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A machine that was suspended: the monotonic clock has stood still, and the
// wall clock has not. Whoever asks first is told, before the loop has run.
func TestLeaseBesideWallClock(t *testing.T) {
	for _, test := range []struct {
		moved time.Duration
		valid bool
	}{
		{0, true},
		{time.Second, true},
		{-time.Second, true},
		{time.Second + time.Millisecond, false},
		{-time.Second - time.Millisecond, false},
		{8 * time.Hour, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			base := time.Now()
			time.Sleep(time.Hour)
			var ahead atomic.Int64
			ahead.Store(int64(wallAhead(time.Now(), time.Since(base)) - test.moved))
			l := newLease(base, 2*time.Hour).beside(&ahead, time.Second)
			require.Equal(t, test.valid, l.valid(), "%v", test.moved)
			if !test.valid {
				require.ErrorIs(t, context.Cause(l.ctx), ErrLeaseLapsed)
			}
			ahead.Add(int64(test.moved))
			require.Equal(t, test.valid, l.valid(), "once lapsed it stays so: %v", test.moved)
		})
	}
}

// The same through a candidate, and without what the loop would find.
func TestIsLeaderAfterSuspension(t *testing.T) {
	withSession(t, func(t *testing.T, _ *trial, s *Session) {
		c, err := NewCandidate(s, electionName, nil)
		require.NoError(t, err)
		causes := make(chan error, 1)
		c.OnStepDown(func(_ context.Context, _ Term, cause error) { causes <- cause })
		_, err = c.Campaign(t.Context())
		require.NoError(t, err)
		require.True(t, c.IsLeader())
		s.ahead.Add(-int64(time.Hour)) // as if the wall clock had gone on for an hour
		require.False(t, c.IsLeader())
		_, leads := c.Term()
		assert.False(t, leads)
		require.ErrorIs(t, <-causes, ErrLeaseLapsed)
	})
}

// What the kernel says of suspensions ends the lease, though the wall clock
// shows nothing; a reading that was interrupted does not.
func TestSuspensionNoted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSession(10 * time.Second)
		l := &sessionLoop{Session: s, inc: &incarnation{}}
		l.clocks = [2]clockReading{s.readClock(), s.readClock()}
		begin := func() *lease {
			lease := newLease(s.base, time.Hour)
			l.inc.lease.Store(lease)
			return lease
		}
		lease := begin()
		const ever = 5 * time.Hour // it was suspended before, too
		for _, reading := range []struct{ least, most time.Duration }{
			{ever - time.Second, ever + time.Second}, // interrupted for two seconds
			{ever - time.Minute, ever},
			{ever, ever + time.Minute},
			{ever + 100*time.Millisecond, ever + time.Second}, // a hundredth of T
		} {
			time.Sleep(time.Second)
			l.noteSuspension(s.readClock(), reading.least, reading.most)
			require.True(t, lease.valid(), "%v", reading)
		}
		time.Sleep(time.Second)
		l.noteSuspension(s.readClock(), ever+101*time.Millisecond, ever+101*time.Millisecond)
		require.False(t, lease.valid())
		assert.Equal(t, s.now(), instant(s.awake.Load()), "what was heard before is not believed")
		lease = begin()
		l.noteSuspension(s.readClock(), ever+101*time.Millisecond, ever+102*time.Millisecond)
		assert.True(t, lease.valid(), "each suspension is noted once")
	})
}

// The two bounds lie one above the other, and do not move while the machine is up.
func TestSuspendedFor(t *testing.T) {
	least, most, ok := suspendedFor()
	require.Equal(t, runtime.GOOS == "linux", ok)
	for range 1000 {
		l, m, _ := suspendedFor()
		require.LessOrEqual(t, l, m)
		least, most = max(least, l), min(most, m)
	}
	assert.LessOrEqual(t, least, most)
}

// The machine was suspended during a handshake, and the loop has noted it before
// there was a connection whose past it could have dropped.
func TestHandshakeBesideSuspension(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSession(10 * time.Second)
		s.owned = true
		conn := newConnection(10*time.Second, 0)
		sent := s.now()
		conn.heard.establish(sent)
		time.Sleep(time.Second)
		s.awake.Store(int64(s.now()))
		s.handshakeAnswered(conn, sent)
		_, ok := conn.heard.surelyHeard(s.now())
		assert.False(t, ok)
	})
}
