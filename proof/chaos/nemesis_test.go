//go:build linux

package chaos

import (
	"fmt"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/zkelection/election/proof/chaos/internal/history"
)

// fault is one thing that the nemesis does.
type fault struct {
	name   string
	weight int  // how often, next to the others
	cuts   bool // needs a network of its own
	node   bool // done to a node; of two faults at a time at most one is, so that a quorum can live
	// begin strikes, and returns for how long and what ends it.
	begin func(w *world) (hold time.Duration, heal func())
}

var faults = []fault{
	{name: "kill the leader", weight: 12, begin: func(w *world) (time.Duration, func()) {
		return w.killCandidate("kill the leader", w.known)
	}},
	{name: "kill a loser", weight: 6, begin: func(w *world) (time.Duration, func()) {
		return w.killCandidate("kill a loser", w.loser())
	}},
	{name: "stop the leader briefly", weight: 10, begin: func(w *world) (time.Duration, func()) {
		return w.stopCandidate("stop the leader briefly", w.known, w.between(200*time.Millisecond, 3200*time.Millisecond))
	}},
	{name: "stop the leader for about T, data unread", weight: 16, begin: func(w *world) (time.Duration, func()) {
		return w.stopCandidate("stop the leader for about T, data unread", w.known, w.between(3400*time.Millisecond, 5700*time.Millisecond))
	}},
	{name: "stop the leader for long", weight: 8, begin: func(w *world) (time.Duration, func()) {
		return w.stopCandidate("stop the leader for long", w.known, w.between(6*time.Second, 9*time.Second))
	}},
	{name: "stop a loser", weight: 6, begin: func(w *world) (time.Duration, func()) {
		return w.stopCandidate("stop a loser", w.loser(), w.between(time.Second, 6*time.Second))
	}},
	{name: "cut the leader off from all nodes", weight: 8, cuts: true, begin: func(w *world) (time.Duration, func()) {
		c := w.known
		return w.between(time.Second, 7*time.Second), w.strike("cut the leader off from all nodes", c.seat(), func() func() {
			return w.net.cutClient(c.address)
		})
	}},
	{name: "kill a ZooKeeper follower", weight: 6, node: true, begin: func(w *world) (time.Duration, func()) {
		return w.killNode("kill a ZooKeeper follower", (w.zkLeader()+1+w.rng.IntN(2))%3)
	}},
	{name: "kill the leader's node", weight: 8, node: true, begin: func(w *world) (time.Duration, func()) {
		return w.killNode("kill the leader's node", max(0, w.nodeOf(w.known)))
	}},
	{name: "kill the ZooKeeper leader", weight: 8, node: true, begin: func(w *world) (time.Duration, func()) {
		return w.killNode("kill the ZooKeeper leader", w.zkLeader())
	}},
	{name: "stop the leader's node", weight: 8, node: true, begin: func(w *world) (time.Duration, func()) {
		return w.stopNode("stop the leader's node", max(0, w.nodeOf(w.known)), w.between(500*time.Millisecond, 6*time.Second))
	}},
	{name: "stop the ZooKeeper leader briefly", weight: 6, node: true, begin: func(w *world) (time.Duration, func()) {
		return w.stopNode("stop the ZooKeeper leader briefly", w.zkLeader(), w.between(500*time.Millisecond, 5*time.Second))
	}},
	{name: "stop the ZooKeeper leader for long", weight: 2, node: true, begin: func(w *world) (time.Duration, func()) {
		return w.stopNode("stop the ZooKeeper leader for long", w.zkLeader(), w.between(9*time.Second, 11*time.Second))
	}},
	{name: "cut the leader's follower off from its peers", weight: 10, node: true, cuts: true, begin: func(w *world) (time.Duration, func()) {
		return w.cutNode("cut the leader's follower off from its peers", w.leadersFollower(), w.between(5*time.Second, 9*time.Second))
	}},
	{name: "cut the ZooKeeper leader off from its peers", weight: 3, node: true, cuts: true, begin: func(w *world) (time.Duration, func()) {
		return w.cutNode("cut the ZooKeeper leader off from its peers", w.zkLeader(), w.between(9*time.Second, 11*time.Second))
	}},
}

func (w *world) killCandidate(name string, c *candidate) (time.Duration, func()) {
	return w.between(100*time.Millisecond, 6*time.Second), w.strike(name, c.seat(), func() func() {
		c.kill()
		return func() { w.startCandidate(c) }
	})
}

// stopCandidate also leaves an event in the socket, early in the stop.
func (w *world) stopCandidate(name string, c *candidate, hold time.Duration) (time.Duration, func()) {
	early := min(hold/4, time.Second)
	heal := w.strike(name, c.seat(), func() func() {
		c.stop()
		time.Sleep(early)
		go poke(w.conn, "/poke/"+c.seat()) // on its own, for there may be no quorum
		return c.cont
	})
	return hold - early, heal
}

func (w *world) killNode(name string, i int) (time.Duration, func()) {
	return w.between(200*time.Millisecond, 4*time.Second), w.strike(name, node(i), func() func() {
		w.zookeeper.Kill(i)
		return func() { w.zookeeper.Restart(i) }
	})
}

func (w *world) stopNode(name string, i int, hold time.Duration) (time.Duration, func()) {
	return hold, w.strike(name, node(i), func() func() {
		w.zookeeper.Pause(i)
		return func() {
			w.zookeeper.Resume(i)
			w.resumed(i)
		}
	})
}

func (w *world) cutNode(name string, i int, hold time.Duration) (time.Duration, func()) {
	return hold, w.strike(name, node(i), func() func() {
		heal := w.net.cutNode(i)
		return func() {
			heal()
			w.resumed(i)
		}
	})
}

// transfer has a candidate ask for leadership to move to another one, or to itself, and
// returns what waits until it has been told what has become of that, or is dead.
func (w *world) transfer() (wait func()) {
	asker, to := w.loser().agent, w.loser() // the seat may be another's by the time of the answer
	for w.rng.IntN(5) == 0 || !asker.lives() {
		asker = w.candidates[w.rng.IntN(len(w.candidates))].agent
	}
	before := asker.look().answers
	_, err := fmt.Fprintln(asker.stdin, "transfer", to.name)
	assert.NoError(w.t, err, "tell %s", asker.name)
	return func() {
		// Two session timeouts and what it takes to read what came of it.
		await(w.t, time.Minute, "answer to a transfer", w.fleet.describe, func() bool {
			return !asker.lives() || asker.look().answers > before
		})
	}
}

func (w *world) resumed(i int) {
	w.fleet.note(history.Event{Who: "nemesis", Kind: history.Resumed, Target: node(i)})
}

// zkLeader is the node that leads the ensemble. There is one when a fault
// begins, but a busy machine may take a moment to say so.
func (w *world) zkLeader() (leader int) {
	await(w.t, time.Minute, "ZooKeeper leader", w.fleet.describe, func() bool {
		leader = w.zookeeper.Leader()
		return leader >= 0
	})
	return leader
}

// leadersFollower is the ZooKeeper follower that the leader is connected to.
// When it is connected to ZooKeeper's leader, that is killed first, which is a
// fault like another, until it is not.
func (w *world) leadersFollower() int {
	for {
		at := w.nodeOf(w.known)
		if leads := w.zkLeader(); at >= 0 && at != leads {
			return at
		}
		_, heal := w.killNode("kill the ZooKeeper leader", w.zkLeader())
		time.Sleep(time.Second)
		heal()
		w.settle()
	}
}

// pick chooses a fault that ok allows.
func (w *world) pick(ok func(fault) bool) fault {
	total := 0
	for _, f := range faults {
		if ok(f) {
			total += f.weight
		}
	}
	at := w.rng.IntN(total)
	for _, f := range faults {
		if !ok(f) {
			continue
		}
		if at -= f.weight; at < 0 {
			return f
		}
	}
	panic("unreachable: the weights were added up")
}
