package election

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestHooks(t *testing.T) {
	var h hooks[func() int]
	cancel := h.add(func() int { return 1 })
	h.add(func() int { return 2 })
	before := h.snapshot()
	cancel()
	cancel() // twice does no harm
	h.add(func() int { return 3 })
	var got []int
	for _, fn := range before {
		got = append(got, (*fn)())
	}
	for _, fn := range h.snapshot() {
		got = append(got, (*fn)())
	}
	if want := []int{1, 2, 2, 3}; len(got) != 4 || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] || got[3] != want[3] {
		t.Fatalf("%v, want %v", got, want)
	}
}

func TestCallbackQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &callbackQueue{logger: slog.New(slog.DiscardHandler)}
		var order []int
		for i := range 5 {
			q.push(func() { time.Sleep(time.Second); order = append(order, i) })
		}
		q.push(runtime.Goexit) // a test's FailNow within a callback
		q.push(func() { order = append(order, 5) })
		time.Sleep(time.Minute)
		synctest.Wait()
		for i, got := range order {
			require.Equal(t, got, i, "order %v", order)
		}
		require.Len(t, order, 6, "order")
		// Closing drops what has not begun, and waits for what has.
		ran := 0
		q.push(func() { time.Sleep(time.Second); ran++ })
		q.push(func() { ran += 100 })
		synctest.Wait()
		require.True(t, q.close(2*time.Second, true), "ran %d", ran)
		require.Equal(t, 1, ran, "ran")
		q.push(func() { ran += 100 })
		synctest.Wait()
		require.Equal(t, 1, ran, "ran after close")
		require.True(t, q.close(0, true), "ran %d after close", ran)
		stuck := &callbackQueue{logger: q.logger}
		release := make(chan struct{})
		stuck.push(func() { <-release })
		synctest.Wait() // until it has begun
		require.False(t, stuck.close(time.Second, false), "a running callback was not waited for")
		close(release)
	})
}

func TestProtect(t *testing.T) {
	var log strings.Builder
	logger := slog.New(slog.NewTextHandler(&log, nil))
	boom := errors.New("boom")
	if err := protect(logger, "OnWin", func() error { return boom }); !errors.Is(err, boom) || log.Len() > 0 {
		t.Fatal(err, log.String())
	}
	if err := protect(logger, "OnWin", func() error { panic(boom) }); !errors.Is(err, boom) || !strings.Contains(log.String(), "callbacks_test.go") {
		t.Fatalf("%v, or no stack in %q", err, log.String())
	}
	if err := protect(logger, "OnWin", func() error { panic(7) }); err == nil || !strings.Contains(err.Error(), "7") {
		t.Fatal(err)
	}
}

func TestCallbackContexts(t *testing.T) {
	type key struct{}
	owner := new(int)
	leader, cancel := context.WithCancelCause(context.WithValue(context.Background(), callbackOwner{}, owner))
	caller := context.WithValue(context.Background(), key{}, "value")
	both := valuesFrom{leader, caller}
	if both.Value(key{}) != "value" || !inCallbackOf(both, owner) || inCallbackOf(both, new(int)) || inCallbackOf(caller, owner) {
		t.Fatal("values are lost")
	}
	cancel(ErrResigned)
	if both.Err() == nil || !errors.Is(context.Cause(both), ErrResigned) {
		t.Fatalf("%v, %v", both.Err(), context.Cause(both))
	}
}
