//go:build linux

package chaos

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/internal/monotonic"
	"github.com/zkelection/election/proof/chaos/internal/history"
	"github.com/zkelection/election/testutil/realzk"
)

// TestFollowerCutOff cuts the follower that the leader is connected to off
// from its peers. It goes on answering reads and pings for syncLimit ticks, so
// a leader that trusts its connection leads on beside its successor: that is
// the negative control, in the same run on the same node. The library's leader
// has stepped down before its successor begins. With -chaos.peers what other
// libraries do is measured beside them.
func TestFollowerCutOff(t *testing.T) {
	net := newNetwork(t, 3)
	if net == nil {
		if os.Getuid() == 0 && os.Getenv("ELECTION_REQUIRE_ZOOKEEPER") == "1" {
			t.Fatal("root, and yet no network of its own")
		}
		t.Skip("needs root and iproute2")
	}
	contestants := []contestant{
		{"this library", agentIn("candidate")},
		{"the usual recipe on go-zookeeper", agentIn("naive")},
	}
	const library, control = 0, 1
	if *flagPeers {
		contestants = append(contestants, peers(t)...)
	}
	const tick = 2 * time.Second // ZooKeeper's default, with the syncLimit of its example: 10 s
	zookeeper := realzk.StartZooKeeperWith(t, 3, realzk.EnsembleOptions{
		TickTime: tick, Config: []string{"initLimit=10", "syncLimit=5"}, Hosts: net.hosts, Namespaces: net.namespaces,
	})
	// How long the control has two leaders depends on when in its ticks the
	// ensemble is cut: from most of a second to six. It must show what the cut
	// can do, the library must pass each.
	const most = 6
	worst := time.Duration(0)
	for round := 0; round < *flagCuts || worst < time.Second && round < most; round++ {
		require.NoError(t, zookeeper.AwaitServing(time.Minute))
		servers := zookeeper.Servers()
		follower := (zookeeper.Leader() + 1) % 3
		f := newFleet(t)
		// One candidate of each stands, before a second one does.
		stand := func(who, servers string) (agents []*agent) {
			for i, c := range contestants {
				a := c.start(f, fmt.Sprintf("%s%d", who, i), servers, fmt.Sprintf("cut%d-%d", round, i))
				await(t, time.Minute, "ballot of "+c.name, f.describe, func() bool { return a.look().voted })
				agents = append(agents, a)
			}
			return agents
		}
		all := func(agents []*agent, is func(state) bool) func() bool {
			return func() bool {
				for _, a := range agents {
					if !is(a.look()) {
						return false
					}
				}
				return true
			}
		}
		leads := func(s state) bool { return s.leads() && s.acked }
		former := stand("a", servers[follower])
		await(t, 30*time.Second, "leaders on the follower", f.describe, all(former, leads))
		// When the sessions of the old leaders end is seen from outside.
		ended := make([]func() int64, 2)
		for i, root := range []string{library: "/_zkelection/", control: "/simple-"} {
			ended[i] = endOfBallot(t, without(servers, follower), fmt.Sprintf("%scut%d-%d", root, round, i))
		}
		next := stand("b", strings.Join(without(servers, follower), ","))
		// The session's timeout restarts with each sign of life, so let the joining be over.
		time.Sleep(tick)

		cut := monotonic.Now()
		heal := net.cutNode(follower)
		await(t, 30*time.Second, "leaders on the others", f.describe, all(next, leads))
		await(t, 30*time.Second, "end of the old leaders", f.describe, all(former, func(s state) bool { return !s.leads() }))
		heal()
		for _, agent := range f.all() {
			agent.kill()
		}

		leaderships := history.Leaderships(f.history())
		r := make(followerCut, len(contestants))
		for i, c := range contestants {
			var own []history.Leadership
			for _, l := range leaderships {
				switch l.Who {
				case former[i].name:
					r[i].steppedDown = time.Duration(l.To - cut)
				case next[i].name:
					if r[i].until == 0 {
						r[i].until = time.Duration(l.From - cut)
					}
				default:
					continue
				}
				own = append(own, l)
			}
			for _, o := range history.Overlaps(own) {
				r[i].overlap += o.Length()
				if i == library {
					t.Errorf("two leaders: %v", o)
				}
			}
			if i == library {
				for _, d := range history.TokensOutOfOrder(own) {
					t.Error(d)
				}
			}
			t.Logf("cut %d: %s: stepped down after %v, led again after %v, two leaders for %v",
				round, c.name, r[i].steppedDown, r[i].until, r[i].overlap)
		}
		worst = max(worst, r[control].overlap)
		// Both wait for the expiry of a session, which a tick's bucket may set apart; ours then for two heartbeats. So what is
		// compared is how long after that they led.
		expired := []time.Duration{time.Duration(ended[library]() - cut), time.Duration(ended[control]() - cut)}
		t.Logf("cut %d: the sessions ended after %v, and the control's %v", round, expired[library], expired[control])
		assert.LessOrEqual(t, expired[library], expired[control]+tick+time.Second, "the end of its session; that of the control's after %v", expired[control])
		assert.LessOrEqual(t, r[library].until-expired[library], r[control].until-expired[control]+tick+time.Second,
			"how soon after that it led again; the control %v after", r[control].until-expired[control])
		results.cuts = append(results.cuts, r)
	}
	for _, c := range contestants {
		results.contestants = append(results.contestants, c.name)
	}
	assert.GreaterOrEqual(t, worst, time.Second, "the control, which trusts its connection, did not have two leaders for long: the cuts prove nothing")
}

// endOfBallot waits for an election's only ballot, and returns what waits for its end and tells when that was.
func endOfBallot(t *testing.T, servers []string, election string) (ended func() int64) {
	conn, events, err := zk.Connect(servers, 30*time.Second, zk.WithLogger(quiet{}))
	require.NoError(t, err)
	go func() {
		for range events {
		}
	}()
	t.Cleanup(conn.Close)
	var ballots []string
	await(t, 30*time.Second, "only ballot in "+election, func() string { return fmt.Sprint(ballots) }, func() bool {
		children, _, err := conn.Children(election)
		ballots = slices.DeleteFunc(children, func(child string) bool { return !strings.HasPrefix(child, "ballot") })
		return err == nil && len(ballots) == 1
	})
	there, _, gone, err := conn.ExistsW(election + "/" + ballots[0])
	require.NoError(t, err)
	require.True(t, there, "the ballot %s in %s", ballots[0], election)
	at := make(chan int64, 1)
	go func() {
		if event := <-gone; event.Type == zk.EventNodeDeleted {
			at <- monotonic.Now()
		}
	}()
	return func() int64 { return receive(t, at) }
}

// contestant is a kind of candidate, whose old leader is cut off.
type contestant struct {
	name  string
	start func(f *fleet, who, servers, election string) *agent
}

// agentIn is the agent in one of its modes.
func agentIn(mode string, more ...string) func(f *fleet, who, servers, election string) *agent {
	return func(f *fleet, who, servers, election string) *agent {
		return f.start(who, append([]string{
			"-mode", mode, "-election", election, "-servers", servers, "-timeout", sessionTimeout.String(),
		}, more...)...)
	}
}

// followerCut is what one cut has come to, for each contestant.
type followerCut []struct {
	steppedDown, until, overlap time.Duration
}
