//go:build linux

package chaos

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/testutil/realzk"
)

// TestKilledWhileCutOff: what the members of a real ensemble see of one that is cut off from them and then killed is
// nothing: the network does not carry the end of its connections either. The leader's followers elect another one when
// they have heard nothing for syncLimit ticks. testutil's Member.Stop is modelled on this.
func TestKilledWhileCutOff(t *testing.T) {
	if *flagCuts < 2 {
		t.Skip("of the long run: -chaos.cuts=2")
	}
	net := newNetwork(t, 3)
	if net == nil {
		if os.Getuid() == 0 && os.Getenv("ELECTION_REQUIRE_ZOOKEEPER") == "1" {
			t.Fatal("root, and yet no network of its own")
		}
		t.Skip("no network of our own can be made here")
	}
	const tick = time.Second
	const silence = 5 * tick
	zookeeper := realzk.StartZooKeeperWith(t, 3, realzk.EnsembleOptions{
		TickTime: tick, Config: []string{"syncLimit=5", "initLimit=30"}, Hosts: net.hosts, Namespaces: net.namespaces,
	})
	quietly := func() string { return "" }
	led := func() int {
		leader := -1
		await(t, time.Minute, "ZooKeeper leader", quietly, func() bool { leader = zookeeper.Leader(); return leader >= 0 })
		return leader
	}
	succeeded := func(former int, since time.Time) time.Duration {
		await(t, time.Minute, "another ZooKeeper leader", quietly, func() bool {
			for i := range 3 {
				if i != former && zookeeper.Mode(i) == "leader" {
					return true
				}
			}
			return false
		})
		return time.Since(since)
	}

	former := led()
	began := time.Now()
	zookeeper.Kill(former)
	plain := succeeded(former, began)
	zookeeper.Restart(former)
	require.NoError(t, zookeeper.AwaitServing(time.Minute))

	former = led()
	began = time.Now()
	heal := net.cutNode(former)
	time.Sleep(tick / 2)
	zookeeper.Kill(former)
	cut := succeeded(former, began)
	heal()
	t.Logf("succeeded: killed %v after the end, killed when cut off %v after the cut; %v is the limit", plain, cut, silence)
	if plain > silence/2 {
		t.Logf("on a machine as slow as this, any leader is succeeded late: it shows less here")
	}
	assert.GreaterOrEqual(t, cut, silence-tick, "the others saw the end of a leader that was cut off from them")

	zookeeper.Restart(former)
	require.NoError(t, zookeeper.AwaitServing(time.Minute))
	former = led()
	began = time.Now()
	heal = net.cutNode(former)
	time.Sleep(tick / 2)
	zookeeper.Kill(former)
	heal()
	t.Logf("healed at once, succeeded %v after the cut", succeeded(former, began))
}
