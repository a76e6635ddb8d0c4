// Command dbfailover shows the election that this library is for: three
// database nodes, one of them the master, and a client that always talks to the
// master. The master goes in three ways (it resigns, it closes its session, its
// network is cut until its session has expired), and a timeline tells what
// everybody did, in colours on a terminal. Without -servers it starts an
// in-process ZooKeeper.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/zkelection/election"
	"github.com/zkelection/election/testutil"
)

var (
	servers = flag.String("servers", "", "ZooKeeper servers, `HOST:PORT,...` (default: an in-process one)")
	timeout = flag.Duration("timeout", 4*time.Second, "session timeout")
	pace    = flag.Duration("pace", paceOfReader(), "pause before each act, to follow it")

	ctx        = context.Background()
	replicates = make(chan *node, 16) // a node follows the master
	connected  = make(chan *node, 16) // the client talks to this one
	killed     atomic.Value           // when the last act began
	nodes      = []*node{{host: "dbhost1"}, {host: "dbhost2"}, {host: "dbhost3"}}
)

// node is one database server, with a ZooKeeper session of its own.
type node struct {
	host      string
	session   *election.Session
	candidate *election.Candidate
	cut       atomic.Bool // its network cable
	conn      atomic.Pointer[net.Conn]
}

func (n *node) address() string { return n.host + ".fqdn.tld:4567" }

func (n *node) join() {
	s, err := election.Connect(strings.Split(*servers, ","), *timeout, &election.SessionOptions{Dialer: n.dial})
	check(err)
	opts := &election.CandidateOptions{Data: []byte(n.address()), Follow: election.FollowLeader, HotStandby: true}
	c, err := election.NewCandidate(s, "database_election", opts)
	check(err)
	c.OnWin(func(_ context.Context, term election.Term) error {
		say(n.host, "WINS and becomes the master (fencing token %d)", term.Token)
		return nil
	})
	c.OnLose(func(_ context.Context, leader election.Leader) {
		say(n.host, "replicates from %s", leader.Data)
		replicates <- n
	})
	c.OnStepDown(func(_ context.Context, _ election.Term, cause error) { say(n.host, "STEPS DOWN (%v)", cause) })
	n.session, n.candidate = s, c
	say(n.host, "joins")
	check(c.Vote(ctx))
}

func (n *node) dial(network, address string, timeout time.Duration) (net.Conn, error) {
	if n.cut.Load() {
		return nil, errors.New("the cable is cut")
	}
	conn, err := net.DialTimeout(network, address, timeout)
	n.conn.Store(&conn)
	return conn, err
}

func (n *node) unplug() {
	say(n.host, "is CUT OFF, and nobody knows it yet")
	n.cut.Store(true)
	check((*n.conn.Load()).Close())
}
func (n *node) plugIn() { n.cut.Store(false) } // the library votes again by itself

// acts are the ways to lose a master.
var acts = []struct {
	title        string
	kill, revive func(*node)
}{
	{"resigns", func(n *node) { check(n.candidate.Resign(ctx)) }, func(n *node) { check(n.candidate.Vote(ctx)) }},
	{"closes its session", func(n *node) { check(n.session.Close()) }, (*node).join},
	{"loses its session", (*node).unplug, (*node).plugIn},
}

func main() {
	flag.Parse()
	slog.SetLogLoggerLevel(slog.LevelError + 1) // the timeline says it all
	time.AfterFunc(time.Minute+10*(*timeout+*pace), func() { log.Fatal("dbfailover: no master in all this time") })
	killed.Store(start)
	if *servers == "" {
		srv, err := testutil.NewServer(&testutil.ServerOptions{TickTime: 500 * time.Millisecond})
		check(err)
		*servers = srv.Addr()
	}
	client, err := election.Connect(strings.Split(*servers, ","), *timeout, nil)
	check(err)
	o, err := election.NewObserver(client, "database_election", nil)
	check(err)
	// How long the client took for the master one that was gone, and how long it knew of none.
	told, unaware, without := start, 0.0, 0.0
	o.OnLeaderDeath(func(election.Leader) { told = say("client", "has no master") })
	o.OnNewLeader(func(leader election.Leader) {
		unaware, without = ms(told.Sub(killed.Load().(time.Time))), ms(time.Since(told))
		say("client", "RECONNECTS to %s (%.1f ms unaware, %.1f ms without a master)", leader.Data, unaware, without)
		connected <- nodes[slices.IndexFunc(nodes, func(n *node) bool { return n.address() == string(leader.Data) })]
	})
	if taken, err := o.LeaderAcked(ctx); err != nil || taken {
		log.Fatalf("dbfailover: the election is taken, try again in %v (%v)", *timeout, err)
	}
	say("", "T, the session timeout, is %v; ZooKeeper is %s", client.Timeout(), *servers)
	check(o.Observe(ctx))
	for _, n := range nodes {
		n.join()
	}
	summary := fmt.Sprintf("\n%-18s  %-18s  %11s = %11s + %11s\n", "the master", "the next", "failover", "unaware", "without")
	master := <-connected
	for _, act := range acts {
		_, _ = <-replicates, <-replicates // now everybody follows this master
		time.Sleep(*pace)
		old := master
		killed.Store(say("----", "%s, the master, %s", old.host, act.title))
		act.kill(old)
		master = <-connected
		summary += fmt.Sprintf("%-18s  %s -> %s  %8.1f ms = %8.1f ms + %8.1f ms\n", act.title, old.host, master.host, unaware+without, unaware, without)
		act.revive(old)
	}
	_, _ = <-replicates, <-replicates
	check(client.Close())
	for _, n := range append(nodes[1:], nodes[0]) { // the master is the first one again, and goes last
		check(n.session.Close())
	}
	fmt.Print(summary)
}

func check(err error) {
	if err != nil {
		log.Fatal("dbfailover: ", err)
	}
}
