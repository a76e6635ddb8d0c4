//go:build linux

package chaos

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/proof/chaos/internal/history"
	"github.com/zkelection/election/testutil/realzk"
)

// tick is the ensemble's tickTime, and syncTicks its syncLimit: a node that is
// cut off goes on serving for 8 s, twice the session timeout.
const (
	tick      = 500 * time.Millisecond
	syncTicks = 16
)

// world is what the nemesis does its work on. Only the test's goroutine
// touches it.
type world struct {
	t          *testing.T
	rng        *rand.Rand
	zookeeper  *realzk.Ensemble
	net        *network // nil: nothing can be cut off
	fleet      *fleet
	conn       *zk.Conn
	candidates []*candidate
	observers  []*agent
	strikes    int           // faults so far
	known      *candidate    // the leader, when the world was last settled
	lag        time.Duration // the longest that observers were behind then
}

// candidate is a seat in the election: agents follow one another in it.
type candidate struct {
	*agent
	number  int
	address string
	args    []string
	starts  int
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 0)), net: newNetwork(t, 3)}
	opts := realzk.EnsembleOptions{
		TickTime: tick,
		Config:   []string{fmt.Sprintf("syncLimit=%d", syncTicks), "initLimit=30"},
	}
	if w.net != nil {
		opts.Hosts, opts.Namespaces = w.net.hosts, w.net.namespaces
	}
	w.zookeeper = realzk.StartZooKeeperWith(t, 3, opts)
	conn, events, err := zk.Connect(w.zookeeper.Servers(), 10*time.Second, zk.WithLogger(quiet{}))
	require.NoError(t, err)
	t.Cleanup(func() {
		conn.Close()
		for range events {
		}
	})
	w.conn = conn
	mustCreate(t, conn, "/poke")
	return w
}

// populate starts five candidates, as unlike each other as the options make
// them, and two observers, in an election of their own.
func (w *world) populate(election string, timeout time.Duration, tickGiven bool) {
	w.fleet = newFleet(w.t)
	w.candidates, w.observers = nil, nil
	servers := strings.Join(w.zookeeper.Servers(), ",")
	args := func(number int) (address string, all []string) {
		all = []string{"-election", election, "-servers", servers, "-timeout", timeout.String()}
		if w.net != nil {
			address = w.net.address(number)
			all = append(all, "-local", address)
		}
		return address, all
	}
	for i := range 5 {
		c := &candidate{number: i + 1}
		c.address, c.args = args(c.number)
		c.args = append(c.args, "-poke", "/poke/"+c.seat())
		if i == 0 || i == 3 || tickGiven {
			c.args = append(c.args, "-tick", tick.String())
		}
		if i <= 1 {
			c.args = append(c.args, "-hot")
		}
		if i >= 2 {
			c.args = append(c.args, "-follow-leader")
		}
		if *flagGuard {
			c.args = append(c.args, "-guard")
		}
		w.candidates = append(w.candidates, c)
		w.startCandidate(c)
	}
	for i := range 2 {
		_, observerArgs := args(11 + i)
		w.observers = append(w.observers, w.fleet.start(fmt.Sprintf("o%d", i+1), append(observerArgs, "-mode", "observer")...))
	}
}

func (c *candidate) seat() string { return fmt.Sprintf("c%d", c.number) }

func (w *world) startCandidate(c *candidate) {
	c.starts++
	c.agent = w.fleet.start(fmt.Sprintf("%s.%d", c.seat(), c.starts), c.args...)
}

// leader is the candidate that leads and has acknowledged, or nil.
func (w *world) leader() *candidate {
	for _, c := range w.candidates {
		if s := c.look(); s.leads() && s.acked {
			return c
		}
	}
	return nil
}

// loser is a candidate that did not lead when the world was last settled.
func (w *world) loser() *candidate {
	for {
		if c := w.candidates[w.rng.IntN(len(w.candidates))]; c != w.known {
			return c
		}
	}
}

// nodeOf is the ZooKeeper node that a candidate is connected to, or -1.
func (w *world) nodeOf(c *candidate) int {
	return slices.Index(w.zookeeper.Servers(), c.look().server)
}

// settle waits until all is as if nothing had been done to it: every node
// serves, every candidate has voted, one leads, and both observers know it.
func (w *world) settle() {
	w.t.Helper()
	require.NoError(w.t, w.zookeeper.AwaitServing(time.Minute))
	await(w.t, 30*time.Second, "acknowledged leader, with every ballot cast", w.fleet.describe, func() bool {
		for _, c := range w.candidates {
			if !c.look().voted {
				return false
			}
		}
		return w.leader() != nil
	})
	from := time.Now()
	await(w.t, 30*time.Second, "observers that know the leader", w.fleet.describe, func() bool {
		leader := w.leader()
		return leader != nil && !slices.ContainsFunc(w.observers, func(o *agent) bool { return o.look().leader != leader.name })
	})
	w.lag = max(w.lag, time.Since(from))
	w.known = w.leader()
}

func (w *world) between(from, to time.Duration) time.Duration {
	return from + time.Duration(w.rng.Float64()*float64(to-from))
}

// strike notes a fault, does it, and returns what ends it.
func (w *world) strike(name, target string, do func() (heal func())) (heal func()) {
	w.strikes++
	w.fleet.note(history.Event{Who: "nemesis", Kind: history.Fault, Text: name, Target: target})
	undo := do()
	return func() {
		undo()
		w.fleet.note(history.Event{Who: "nemesis", Kind: history.FaultOver, Text: name, Target: target})
	}
}

func node(i int) string { return fmt.Sprintf("zk%d", i+1) }
