//go:build linux

package chaos

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/proof/chaos/internal/history"
	"github.com/zkelection/election/testutil/realzk"
)

// TestStoppedLeaderWithUnreadData stops leaders (SIGSTOP) for about the session
// timeout, with an unread watch event in their sockets, so that the client goes
// on as if nothing had happened when it is let go. A rule that takes every
// answered heartbeat for a lease of half the session timeout has two leaders
// then, now and then: it is the negative control, in the same run. Every
// candidate knows one address, that of a follower (a load balancer's would do),
// so that it learns late of its session's end, and none gives its connection up
// by itself: the hardest case there is.
func TestStoppedLeaderWithUnreadData(t *testing.T) {
	const (
		elections = 8
		most      = 30 // rounds
	)
	zookeeper := realzk.StartZooKeeperWith(t, 3, realzk.EnsembleOptions{TickTime: 2 * time.Second})
	servers := zookeeper.Servers()
	followers := without(servers, zookeeper.Leader())
	conn, events, err := zk.Connect(servers, 10*time.Second, zk.WithLogger(quiet{}))
	require.NoError(t, err)
	defer func() {
		conn.Close()
		for range events {
		}
	}()
	mustCreate(t, conn, "/poke")

	f := newFleet(t)
	type pair struct {
		name   string
		simple bool
		agents [2]*agent
	}
	var pairs []*pair
	for i := range elections {
		for _, mode := range []string{"candidate", "simple"} {
			p := &pair{name: fmt.Sprintf("%s%d", mode, i), simple: mode == "simple"}
			for j := range p.agents {
				who := fmt.Sprintf("%s-%c", p.name, 'a'+j)
				p.agents[j] = f.start(who, "-mode", mode, "-election", p.name, "-servers", followers[(i+j)%2], "-patient",
					"-timeout", sessionTimeout.String(), "-poke", "/poke/"+who, "-every", "5ms")
			}
			pairs = append(pairs, p)
		}
	}

	// leader waits until one of a pair leads, both having voted.
	leader := func(p *pair) (leader *agent) {
		await(t, 30*time.Second, "leader of "+p.name, f.describe, func() bool {
			leader = nil
			for _, a := range p.agents {
				if a.look().leads() {
					leader = a
				}
			}
			return leader != nil && p.agents[0].look().voted && p.agents[1].look().voted
		})
		return leader
	}
	seed := *flagSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	r := stopResult{}
	for round := 0; round < *flagStops || r.simpleOverlaps == 0 && round < most; round++ {
		var all sync.WaitGroup
		for i, p := range pairs {
			a := leader(p)
			rng := rand.New(rand.NewPCG(seed, uint64(round*len(pairs)+i)))
			all.Go(func() {
				time.Sleep(time.Duration(rng.Float64() * float64(time.Second)))
				a.stop()
				from := time.Now()
				time.Sleep(time.Second)
				poke(conn, "/poke/"+a.name)
				time.Sleep(3900*time.Millisecond + time.Duration(rng.Float64()*float64(2600*time.Millisecond)) - time.Since(from))
				a.cont()
				// Long enough for a lease that is wrong to be seen, and for the next round to find both.
				time.Sleep(3 * time.Second)
			})
			if p.simple {
				r.simpleStops++
			} else {
				r.stops++
			}
		}
		all.Wait()
		r.overlaps, r.longest = nil, 0
		r.simpleOverlaps, r.simpleLongest = 0, 0
		byElection := make(map[string][]history.Event)
		for _, e := range f.history() {
			name, _, _ := strings.Cut(e.Who, "-")
			byElection[name] = append(byElection[name], e)
		}
		for _, p := range pairs {
			for _, o := range history.Overlaps(history.Leaderships(byElection[p.name])) {
				if p.simple {
					r.simpleOverlaps++
					r.simpleLongest = max(r.simpleLongest, o.Length())
				} else {
					r.overlaps = append(r.overlaps, o)
					r.longest = max(r.longest, o.Length())
				}
			}
		}
	}
	for _, o := range r.overlaps {
		t.Errorf("two leaders: %v", o)
	}
	assert.NotZero(t, r.simpleOverlaps, "the control, a lease that is wrong, passed %d stops: they prove nothing", r.simpleStops)
	t.Logf("%d stops of the library's leader: %d overlaps; %d stops of the simpler rule's: %d, at most %v",
		r.stops, len(r.overlaps), r.simpleStops, r.simpleOverlaps, r.simpleLongest)
	results.stops = &r
}

type stopResult struct {
	stops    int
	overlaps []history.Overlap
	longest  time.Duration

	simpleStops    int
	simpleOverlaps int
	simpleLongest  time.Duration
}

// poke fires the watch that an agent has on a node: creates it, or deletes it.
func poke(conn *zk.Conn, path string) {
	if err := conn.Delete(path, -1); err == nil {
		return
	}
	_, _ = conn.Create(path, nil, 0, zk.WorldACL(zk.PermAll)) // during an outage nobody is poked
}

func mustCreate(t *testing.T, conn *zk.Conn, path string) {
	t.Helper()
	_, err := conn.Create(path, nil, 0, zk.WorldACL(zk.PermAll))
	require.NoError(t, err)
}

type quiet struct{}

func (quiet) Printf(string, ...any) {}
