package lease

import (
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSlept(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		wall, monotonic time.Duration
		want            bool
	}{
		{time.Second, time.Second, false},
		{time.Second, 1100 * time.Millisecond, false},
		{time.Minute, time.Second, true},  // suspended
		{-time.Minute, time.Second, true}, // somebody set the clock
	} {
		before := reading{at, time.Hour}
		after := reading{at.Add(c.wall), time.Hour + c.monotonic}
		assert.Equal(t, c.want, after.slept(before, 500*time.Millisecond), "wall %v, monotonic %v", c.wall, c.monotonic)
	}
}

// Stops too short to be noticed one by one add up.
func TestShortSuspensionsAddUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const T = 12 * time.Second
		clock := NewClock()
		wall := time.Now().Round(0)
		w := NewWatch(clock)
		found := false
		for i := range 100 {
			time.Sleep(time.Second)
			found = found || w.compare(reading{wall.Add(clock.Now() + time.Duration(i)*time.Millisecond), clock.Now()}, T)
		}
		require.False(t, found, "a slow drift was taken for a suspension")
		require.Zero(t, clock.Jumped())
		for i := range 10 {
			time.Sleep(time.Second)
			found = found || w.compare(reading{wall.Add(clock.Now() + 100*time.Millisecond + time.Duration(i)*300*time.Millisecond), clock.Now()}, T)
		}
		require.True(t, found, "suspensions of three seconds together went unnoticed")
		require.NotZero(t, clock.Jumped())
	})
}

// What the kernel says of suspensions counts, though the wall clock shows
// nothing; a reading that was interrupted does not.
func TestSuspensionNoted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const T = 10 * time.Second
		clock := NewClock()
		w := NewWatch(clock)
		look := func(least, most time.Duration) time.Duration {
			time.Sleep(time.Second)
			return w.compareKernel(clock.read(), least, most, T)
		}
		const ever = 5 * time.Hour // it was suspended before, too
		for _, reading := range []struct{ least, most time.Duration }{
			{ever - time.Second, ever + time.Second}, // interrupted for two seconds
			{ever - time.Minute, ever},
			{ever, ever + time.Minute},
			{ever + 100*time.Millisecond, ever + time.Second}, // a hundredth of T
		} {
			require.Zero(t, look(reading.least, reading.most), "%v", reading)
			require.Zero(t, clock.Jumped(), "%v", reading)
		}
		require.Equal(t, 101*time.Millisecond, look(ever+101*time.Millisecond, ever+101*time.Millisecond))
		assert.Equal(t, clock.Now(), clock.Jumped(), "what was heard before is not believed")
		assert.Zero(t, look(ever+101*time.Millisecond, ever+102*time.Millisecond), "each suspension is noted once")
	})
}

// The kernel is asked at most every sixteenth of the session timeout, where it can tell.
func TestKernelAskedNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const T = 16 * time.Second
		clock := NewClock()
		w := NewWatch(clock)
		time.Sleep(T)
		require.False(t, w.Look(T).Found())
		asked := w.asked
		if _, _, ok := suspendedFor(); !ok {
			require.Zero(t, asked)
			return
		}
		require.Equal(t, clock.Now(), asked)
		time.Sleep(T/16 - 1)
		w.Look(T)
		require.Equal(t, asked, w.asked)
		w.LookClosely(T)
		require.Equal(t, clock.Now(), w.asked)
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
