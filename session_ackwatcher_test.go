package election

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/testutil"
)

// A read that failed behind its watch leaves the watch to the next read: the client
// cannot give it back, and it would be armed again with each try. Not so one on what may not be read: its event may be kept back,
// and none is armed until it may be read again.
func TestWatchOfFailedReadIsKept(t *testing.T) {
	s := newSession(4 * time.Second)
	inc := &incarnation{id: 1, ctx: context.Background()}
	f := &ackWatcher{session: s, path: "/e/leader_ack", inbox: newInbox(), last: &lastError{logger: s.logger}, known: ackKnown{inc: inc}, reading: ackReading{timer: time.NewTimer(time.Hour)}}
	defer f.reading.timer.Stop()
	watch := make(<-chan zk.Event)
	f.take(ackRead{ackRequest: ackRequest{inc: inc}, watch: watch, err: zk.ErrNoAuth})
	assert.Nil(t, s.watches.reuse(inc, f.path))
	f.take(ackRead{ackRequest: ackRequest{inc: inc}, watch: watch, err: zk.ErrConnectionClosed})
	assert.Equal(t, watch, s.watches.reuse(inc, f.path))
}

// Whoever subscribes because of an answer that shows a change is not told of what was before: the event, which the client
// delivers ahead of that answer, may come when the watch has been asked.
func TestToldOfNothingBefore(t *testing.T) {
	s := newSession(4 * time.Second)
	on, watch := &connection{}, make(chan zk.Event, 1)
	s.client.connection.Store(on)
	var f *ackWatcher
	told := func() (n int) {
		f = &ackWatcher{session: s, audience: audience{subs: make(map[*subscription]struct{}), begun: 1}}
		f.known = ackKnown{view: ackView{&node{}}, read: 1, on: on, watch: watch}
		f.audience.join(&subscription{notify: func(ackView) { n++ }})
		f.inform(true)
		return n
	}
	require.Zero(t, new(ackWatcher).confirmedAt())
	require.Equal(t, 1, told(), "the control: nothing has changed")
	require.WithinDuration(t, time.Now(), f.confirmedAt(), time.Minute)
	watch <- zk.Event{Type: zk.EventNodeDeleted}
	require.Zero(t, told())
	require.Zero(t, f.confirmedAt(), "that was never so")
}

// What is known on one session is of no use on another, but for what has been told. Whether a leader is expected on the
// first is known before it; on each one after that it is whatever enter is given.
func TestAnotherSessionForgetsTheFormer(t *testing.T) {
	first, second := &incarnation{id: 1}, &incarnation{id: 2}
	for _, expected := range []bool{false, true} {
		k := ackKnown{expect: expected}
		k.enter(first, !expected)
		assert.Equal(t, ackKnown{inc: first, expect: expected}, k)
		for _, next := range []*incarnation{nil, second} {
			watch := make(chan zk.Event, 1)
			k.inc, k.expect = first, expected
			require.True(t, k.learn(ackRead{ackRequest: ackRequest{count: 3}, node: &node{stat: zk.Stat{Czxid: 7}}, on: &connection{}, watch: watch}, false))
			k.refusal = zk.ErrNoAuth
			told := k.view
			k.enter(next, !expected)
			want := ackKnown{inc: next, view: told, newest: 7, expect: !expected}
			assert.Equal(t, want, k)
			if next == nil {
				k.enter(second, expected)
				want.inc = second
				assert.Equal(t, want, k, "there was none in between")
			}
			k.view = ackView{}
		}
	}
}

// Whoever loses interest while a read is under way, and comes back, does not leave
// a watch behind each time.
func TestWatchOfReadUnderWayIsKept(t *testing.T) {
	withSession(t, func(t *testing.T, w *trial, s *Session) {
		require.NoError(t, s.AwaitConnected(t.Context()))
		o, err := NewObserver(s, electionName, nil)
		require.NoError(t, err)
		synctest.Wait()
		w.srv.ResetCounts()
		release := make(chan struct{})
		cancel := w.srv.Control(testutil.OpExists, func(*testutil.Request) testutil.Action { return testutil.Hold(release) })
		for range 5 {
			end := o.OnLeaderAck(func(Leader) {})
			synctest.Wait() // its read is under way, or it waits for the one before
			end()
			synctest.Wait()
		}
		close(release)
		cancel()
		synctest.Wait()
		o.OnLeaderAck(func(Leader) {})
		synctest.Wait()
		assert.Equal(t, int64(1), w.srv.Counts()[testutil.OpExists], "watches that were armed")
		s.roster.mu.Lock()
		assert.Len(t, s.roster.ackWatchers, 1)
		s.roster.mu.Unlock()
	})
}

// As above, with some that end while they wait, and others that have joined before
// those have: who is left waits for the first all the same.
func TestReadUnderWayIsAwaitedAcrossEnds(t *testing.T) {
	withSession(t, func(t *testing.T, w *trial, s *Session) {
		o, err := NewObserver(s, electionName, nil)
		require.NoError(t, err)
		subscribe := func() *subscription {
			sub := &subscription{notify: func(ackView) {}}
			s.subscribe(o.LeaderAckPath(), sub)
			return sub
		}
		w.srv.ResetCounts()
		release := make(chan struct{})
		cancel := w.srv.Control(testutil.OpExists, func(*testutil.Request) testutil.Action { return testutil.Hold(release) })
		sub := subscribe()
		synctest.Wait() // its read is under way
		for range 10 {
			for range 4 {
				sub.end()
				sub = subscribe()
			}
			sub.end()
			synctest.Wait() // nobody is left, but for the read
			sub = subscribe()
		}
		synctest.Wait()
		close(release)
		cancel()
		synctest.Wait()
		assert.Equal(t, int64(1), w.srv.Counts()[testutil.OpExists], "watches that were armed")
		sub.end()
	})
}

// A Session closes although a read of an ackWatcher that has ended is under way,
// and another waits for that.
func TestCloseBesideReadUnderWay(t *testing.T) {
	withSession(t, func(t *testing.T, w *trial, s *Session) {
		require.NoError(t, s.AwaitConnected(t.Context()))
		o, err := NewObserver(s, electionName, nil)
		require.NoError(t, err)
		release := make(chan struct{})
		defer w.srv.Control(testutil.OpExists, func(*testutil.Request) testutil.Action { return testutil.Hold(release) })()
		end := o.OnLeaderAck(func(Leader) {})
		synctest.Wait()
		end()
		o.OnLeaderAck(func(Leader) {})
		synctest.Wait()
		began := time.Now()
		require.NoError(t, s.Close())
		assert.Less(t, time.Since(began), s.Timeout()/2) // the client itself takes a second
		close(release)
	})
}
