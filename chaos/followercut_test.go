//go:build linux

package chaos

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/zkelection/election/chaos/internal/history"
	"github.com/zkelection/election/testutil"
)

// TestFollowerCutOff cuts the follower that the leader is connected to off
// from its peers. It goes on answering reads and pings for syncLimit ticks, so
// a leader that trusts its connection leads on beside its successor: that is
// the negative control, in the same run on the same node. The library's leader
// has stepped down before its successor begins.
func TestFollowerCutOff(t *testing.T) {
	net := newNetwork(t, 3)
	if net == nil {
		if os.Getuid() == 0 && os.Getenv("ELECTION_REQUIRE_ZOOKEEPER") == "1" {
			t.Fatal("root, and yet no network of its own")
		}
		t.Skip("needs root and iproute2")
	}
	const tick = 2 * time.Second // ZooKeeper's default, with syncLimit=5: 10 s
	zookeeper := testutil.StartZooKeeperWith(t, 3, testutil.EnsembleOptions{
		TickTime: tick, Hosts: net.hosts, Namespaces: net.namespaces,
	})
	// How long the control has two leaders depends on when in its ticks the
	// ensemble is cut: from most of a second to six. It must show what the cut
	// can do, the library must pass each.
	const most = 6
	worst := time.Duration(0)
	for round := 0; round < *flagCuts || worst < time.Second && round < most; round++ {
		if err := zookeeper.AwaitServing(time.Minute); err != nil {
			t.Fatal(err)
		}
		servers := zookeeper.Servers()
		follower := (zookeeper.Leader() + 1) % 3
		others := strings.Join(without(servers, follower), ",")
		name := fmt.Sprintf("cut%d", round)
		f := newFleet(t)
		start := func(who, mode, servers string) *agent {
			a := f.start(who, "-mode", mode, "-election", name, "-servers", servers, "-timeout", sessionTimeout.String())
			await(t, 30*time.Second, "ballot of "+who, f.describe, func() bool { return a.look().voted })
			return a
		}
		a, control := start("a", "candidate", servers[follower]), start("naive-a", "naive", servers[follower])
		await(t, 30*time.Second, "leaders on the follower", f.describe, func() bool {
			return a.look().leads() && a.look().acked && control.look().leads()
		})
		b, controlB := start("b", "candidate", others), start("naive-b", "naive", others)
		// The session's timeout restarts with each sign of life, so let the joining be over.
		time.Sleep(tick)

		cut := history.Now()
		heal := net.cutNode(follower)
		await(t, 30*time.Second, "leaders on the others", f.describe, func() bool {
			return b.look().leads() && b.look().acked && controlB.look().leads()
		})
		await(t, 30*time.Second, "end of both old leaders", f.describe, func() bool {
			return !a.look().leads() && !control.look().leads()
		})
		heal()
		for _, agent := range f.all() {
			agent.kill()
		}

		r := followerCut{}
		var ours, naive []history.Leadership
		for _, l := range history.Leaderships(f.history()) {
			switch l.Who {
			case "a", "b":
				ours = append(ours, l)
			default:
				naive = append(naive, l)
			}
			switch l.Who {
			case "b":
				r.until = first(r.until, time.Duration(l.From-cut))
			case "naive-b":
				r.naiveUntil = first(r.naiveUntil, time.Duration(l.From-cut))
			}
			if l.Who == "a" {
				r.steppedDown = time.Duration(l.To - cut)
			}
		}
		for _, o := range history.Overlaps(ours) {
			r.overlap += o.Length()
			t.Errorf("two leaders: %v", o)
		}
		for _, o := range history.Overlaps(naive) {
			r.naiveOverlap += o.Length()
		}
		for _, d := range history.TokensOutOfOrder(ours) {
			t.Error(d)
		}
		worst = max(worst, r.naiveOverlap)
		// Both wait for the expiry of a session, which a tick's bucket may set apart; ours then for two heartbeats.
		if r.until > r.naiveUntil+tick+time.Second {
			t.Errorf("led again after %v only, the naive one after %v", r.until, r.naiveUntil)
		}
		t.Logf("cut %d: the library stepped down after %v, led again after %v, overlap %v; naive led again after %v, overlap %v",
			round, r.steppedDown, r.until, r.overlap, r.naiveUntil, r.naiveOverlap)
		results.cuts = append(results.cuts, r)
	}
	if worst < time.Second {
		t.Errorf("the control, which trusts its connection, had two leaders for %v at most: the cuts prove nothing", worst)
	}
}

type followerCut struct {
	steppedDown, until, overlap time.Duration
	naiveUntil, naiveOverlap    time.Duration
}

func first(a, b time.Duration) time.Duration {
	if a != 0 {
		return a
	}
	return b
}
