package lease

import (
	"context"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A lease that somebody has seen end stays ended, whatever is renewed after.
func TestLeaseStaysLapsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(NewClock(), NewRule(time.Hour, 0), time.Second)
		require.True(t, l.Valid())
		require.True(t, l.Extend(2*time.Second))
		require.Equal(t, 2*time.Second, l.Remaining())
		require.True(t, l.Extend(time.Second))
		require.Equal(t, 2*time.Second, l.Remaining(), "a lease was shortened")
		time.Sleep(2*time.Second - time.Nanosecond)
		require.True(t, l.Valid())
		require.NoError(t, l.Context().Err())
		time.Sleep(time.Nanosecond)
		require.False(t, l.Valid())
		require.False(t, l.Extend(time.Hour))
		require.False(t, l.Valid(), "a lapsed lease came back")
		require.ErrorIs(t, context.Cause(l.Context()), ErrLapsed)
		l = New(NewClock(), NewRule(time.Hour, 0), time.Hour)
		l.Revoke(io.EOF)
		require.False(t, l.Valid())
		require.False(t, l.Extend(2*time.Hour))
		require.ErrorIs(t, context.Cause(l.Context()), io.EOF)
	})
}

// Readers and the renewing goroutine never disagree about a lapse: once a
// reader has seen the lease invalid, no later reader sees it valid.
func TestLeaseUnderContention(t *testing.T) {
	for range 200 {
		clock := NewClock()
		l := New(clock, NewRule(time.Hour, 0), 50*time.Microsecond)
		var readers sync.WaitGroup
		for range 4 {
			readers.Go(func() {
				lapsed := false
				for range 400 {
					valid := l.Valid()
					if lapsed && valid {
						t.Error("a lease came back")
						return
					}
					lapsed = lapsed || !valid
				}
			})
		}
		for range 20 {
			if !l.Extend(clock.Now() + 50*time.Microsecond) {
				break
			}
		}
		readers.Wait()
	}
}

// A machine that was suspended: the monotonic clock has stood still, and the
// wall clock has not. Whoever asks first is told, before a Watch has looked.
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
			clock := NewClock()
			time.Sleep(time.Hour)
			clock.Skew(test.moved)
			l := New(clock, NewRule(12*time.Second, 0), 2*time.Hour) // a twelfth is a second
			require.Equal(t, test.valid, l.Valid(), "%v", test.moved)
			if !test.valid {
				require.ErrorIs(t, context.Cause(l.Context()), ErrLapsed)
			}
			clock.Skew(-test.moved)
			require.Equal(t, test.valid, l.Valid(), "once lapsed it stays so: %v", test.moved)
		})
	}
}

// A resumption that grants less leaves less for the clocks, too.
func TestLeaseBearsLessOfLess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, granted := range []time.Duration{12 * time.Second, 6 * time.Second} {
			clock := NewClock()
			l := New(clock, NewRule(12*time.Second, 0), 10*time.Second)
			for _, timeout := range []time.Duration{granted, 24 * time.Second} { // one that grants more changes nothing
				c := NewConnection(timeout, 0)
				c.Establish(clock.Now(), true)
				c.Shorten(l)
			}
			require.True(t, l.Valid())
			clock.Skew(time.Second)
			require.Equal(t, granted == 12*time.Second, l.Valid(), "%v granted", granted)
		}
	})
}

// A Watch that finds a jump ends the leases from before it by that alone: their
// owner may be held up before it revokes them. A later lease is not touched.
func TestJumpEndsLeaseBeforeItIsRevoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clock := NewClock()
		time.Sleep(time.Hour)
		before := New(clock, NewRule(12*time.Second, 0), 2*time.Hour)
		require.True(t, before.Valid())
		clock.Skew(8 * time.Hour) // the machine was suspended, and nobody has asked the lease since
		clock.Jump()              // a Watch has found it
		require.False(t, before.Valid())
		require.ErrorIs(t, context.Cause(before.Context()), ErrLapsed)
		require.True(t, New(clock, NewRule(12*time.Second, 0), 2*time.Hour).Valid())
	})
}

// The context ends with the lease though nobody asks whether it is valid: not before what it was extended to, and not after
// what it was shortened to.
func TestContextEndsUnasked(t *testing.T) {
	for name, change := range map[string]func(*Lease){
		"neither":                  func(*Lease) {},
		"extended":                 func(l *Lease) { l.Extend(l.Until() + time.Second) },
		"shortened":                func(l *Lease) { l.shorten(l.Until() - time.Second) },
		"extended, then shortened": func(l *Lease) { l.Extend(l.Until() + time.Second); l.shorten(l.Until() - 3*time.Second) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				clock := NewClock()
				l := New(clock, NewRule(12*time.Second, 0), clock.Now()+8*time.Second)
				time.Sleep(time.Second)
				change(l)
				time.Sleep(l.Until() - clock.Now() - 1)
				synctest.Wait()
				require.NoError(t, l.Context().Err())
				time.Sleep(time.Nanosecond)
				synctest.Wait()
				require.ErrorIs(t, context.Cause(l.Context()), ErrLapsed)
			})
		})
	}
}
