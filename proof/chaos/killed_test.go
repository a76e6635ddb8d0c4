//go:build linux

package chaos

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/zkelection/election/internal/monotonic"
	"github.com/zkelection/election/proof/chaos/internal/history"
	"github.com/zkelection/election/testutil/realzk"
)

// TestKilledLeader kills leaders (kill -9), all at the same moment, and waits for the next ones. Without a guard that is
// the session timeout and up to a tick, with every library.
func TestKilledLeader(t *testing.T) {
	timeout, more := sessionTimeout, []string(nil)
	if *flagKills == 1 && *flagReport == "" {
		// Nothing is measured, and half of the timeout is to be longer than a busy machine, or its servers, stand still. With
		// the tick a lease is there as soon.
		timeout = 20 * time.Second
		more = []string{"-timeout", timeout.String(), "-tick", tick.String()}
	}
	contestants := []contestant{
		{"this library, with a guard", agentIn("candidate", append([]string{"-hot", "-guard"}, more...)...)},
		{"this library, without", agentIn("candidate", append([]string{"-hot"}, more...)...)},
		{"the usual recipe on go-zookeeper", agentIn("naive", more...)},
	}
	const guarded, control = 0, 1
	if *flagPeers {
		contestants = append(contestants, peers(t)...)
	}
	zookeeper := realzk.StartZooKeeperWith(t, 3, realzk.EnsembleOptions{TickTime: tick})
	servers := strings.Join(zookeeper.Servers(), ",")
	for round := range *flagKills {
		f := newFleet(t)
		stand := func(who string) (agents []*agent) {
			for i, c := range contestants {
				a := c.start(f, fmt.Sprintf("%s%d", who, i), servers, fmt.Sprintf("killed%d-%d", round, i))
				await(t, time.Minute, "ballot of "+c.name, f.describe, func() bool { return a.look().voted })
				agents = append(agents, a)
			}
			return agents
		}
		leads := func(s state) bool { return s.leads() && s.acked }
		all := func(agents []*agent) func() bool {
			return func() bool { return !slices.ContainsFunc(agents, func(a *agent) bool { return !leads(a.look()) }) }
		}
		former := stand("a")
		await(t, 30*time.Second, "leaders", f.describe, all(former))
		next := stand("b")
		time.Sleep(sessionTimeout / 2) // for the hot ones to have a lease

		took := make(leaderKilled, len(contestants))
		killed := make([]int64, len(contestants))
		var killing sync.WaitGroup
		for i, a := range former {
			killing.Go(func() {
				killed[i] = monotonic.Now()
				a.kill()
			})
		}
		killing.Wait()
		await(t, time.Minute, "next leaders", f.describe, all(next))
		for _, l := range history.Leaderships(f.history()) {
			for i, a := range next {
				if l.Who == a.name && took[i] == 0 {
					took[i] = time.Duration(l.From - killed[i])
				}
			}
		}
		for _, a := range f.all() {
			a.kill()
		}
		leaderships := history.Leaderships(f.history())
		for i, c := range contestants {
			own := slices.DeleteFunc(slices.Clone(leaderships), func(l history.Leadership) bool {
				return l.Who != former[i].name && l.Who != next[i].name
			})
			for _, o := range history.Overlaps(own) {
				t.Errorf("%s: two leaders: %v", c.name, o)
			}
			t.Logf("kill %d: %s: the next led after %v", round, c.name, took[i])
		}
		// How much sooner depends on the machine; that it does not wait for the session's end does not.
		assert.LessOrEqual(t, took[guarded], timeout/2, "until the next led, with a guard")
		assert.GreaterOrEqual(t, took[control], timeout/2, "until the next led, without a guard: the comparison proves nothing")
		results.kills = append(results.kills, took)
	}
	for _, c := range contestants {
		results.killContestants = append(results.killContestants, c.name)
	}
}

// leaderKilled is how long it took until the next led, for each contestant.
type leaderKilled []time.Duration
