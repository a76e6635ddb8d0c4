package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"sync"
	"time"

	"github.com/zkelection/election"
)

// mostBehind is how many writes a node that stands may lack.
const mostBehind = 100

// database is what the nodes have written. mu guards it, and each node's fields
// but the first three.
type database struct {
	mu    sync.Mutex
	nodes []*node
}

// node is one database server.
type node struct {
	host      string
	session   *election.Session
	candidate *election.Candidate

	master       bool   // it takes writes
	source       string // whom it replicates from
	slow         bool   // its disk
	write        int    // the last one that it has
	won, stopped time.Time
}

func (n *node) join() {
	n.session = connect()
	c, err := election.NewCandidate(n.session, "switchover", &election.CandidateOptions{
		Data: []byte(n.host), Follow: election.FollowLeader, HotStandby: true,
	})
	check(err)
	n.candidate = c
	c.OnWin(func(_ context.Context, term election.Term) error {
		n.becomeMaster(term)
		return nil
	})
	c.OnStepDown(func(_ context.Context, _ election.Term, cause error) { n.stopWriting(cause) })
	c.OnLose(func(_ context.Context, leader election.Leader) {
		say(n.host, "replicates from %s", leader.Data)
		db.mu.Lock()
		defer db.mu.Unlock()
		if n.source == "" { // it begins with a copy
			n.write = db.last()
		}
		n.source = string(leader.Data)
	})
	say(n.host, "joins")
	go func() {
		if err := c.StandWhile(ctx, n.ready, 250*time.Millisecond); !errors.Is(err, election.ErrClosed) {
			log.Fatal("switchover: ", err)
		}
	}()
}

// ready reports why the node must not be the master now. One that replicates
// from nobody yet is not behind: only who stands learns whom to replicate from.
func (n *node) ready(context.Context) error {
	db.mu.Lock()
	defer db.mu.Unlock()
	if behind := db.last() - n.write; n.source != "" && behind > mostBehind {
		return fmt.Errorf("%d writes behind", behind)
	}
	return nil
}

// becomeMaster begins with everything that the former master has taken: that one
// has stopped, and lives.
func (n *node) becomeMaster(term election.Term) {
	db.mu.Lock()
	defer db.mu.Unlock()
	n.write = db.last()
	n.master, n.source = true, ""
	n.won = say(n.host, "WINS and is the master from write %d on (fencing token %d)", n.write+1, term.Token)
}

// stopWriting: when OnStepDown returns, the master takes no write any more. Only then does
// another node win.
func (n *node) stopWriting(cause error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	n.master = false
	n.stopped = say(n.host, "STEPS DOWN after write %d (%v)", n.write, cause)
}

// replicate has the master take a write every 2 ms, and the others follow.
func (d *database) replicate() {
	for turn := 0; ; turn++ {
		d.mu.Lock()
		for _, n := range d.nodes {
			if n.master {
				n.write++
			}
		}
		for _, n := range d.nodes {
			switch {
			case n.source == "":
			case !n.slow:
				n.write = d.last()
			case turn%10 == 0:
				n.write++
			}
		}
		d.mu.Unlock()
		time.Sleep(2 * time.Millisecond)
	}
}

// last is the last write that was taken. mu is held.
func (d *database) last() (write int) {
	for _, n := range d.nodes {
		write = max(write, n.write)
	}
	return write
}

func (d *database) setSlow(n *node, slow bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n.slow = slow
}

func (n *node) serves() bool {
	db.mu.Lock()
	defer db.mu.Unlock()
	return n.master
}

func (n *node) follows(master *node) func() bool {
	return func() bool {
		db.mu.Lock()
		defer db.mu.Unlock()
		return master.master && n.source == master.host && n.candidate.Voted()
	}
}
