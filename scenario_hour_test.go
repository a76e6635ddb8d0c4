package election_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// An hour with three candidates, an observer and a failover a minute, on the
// in-process server: it takes a second or so, which is for a reader to see. How
// fast the machine is would be no fault.
func TestHour(t *testing.T) {
	began := time.Now()
	events := 0
	virtually(t, func(t *testing.T, w *world) {
		j, oj := &journal{}, &journal{}
		members := make(map[string]*member)
		for i := range 3 {
			id := fmt.Sprint("db", i)
			members[id] = w.member(id, j, followLeader).vote()
		}
		o := w.observer(w.session(), oj)
		require.NoError(t, o.Observe(w.context()))
		start := time.Now()
		for minute := range 60 {
			time.Sleep(time.Until(start.Add(time.Duration(minute+1) * time.Minute)))
			var leader *member
			for _, m := range members {
				if m.IsLeader() {
					require.Nil(t, leader, "two leaders")
					leader = m
				}
			}
			require.NotNil(t, leader, "minute %d: nobody leads", minute)
			switch minute % 3 {
			case 0:
				leader.resign()
				leader.vote()
			case 1:
				w.srv.ExpireSession(leader.node.ID())
			case 2:
				heal := w.srv.Isolate(leader.node.ID())
				time.Sleep(2 * w.timeout())
				heal()
			}
		}
		time.Sleep(time.Minute)
		events = len(oj.all())
	})
	took := time.Since(began)
	t.Logf("an hour took %v; the observer was told of %d events", took, events)
	require.GreaterOrEqual(t, events, 2*60+1, "the observer was told of %d events in 60 failovers", events)
}
