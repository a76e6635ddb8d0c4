// Command switchover shows leadership that moves on purpose: three database
// nodes, one of them the master, and an operator who moves the master to the
// one of his choice. One replica lags, and stands aside until it has caught up:
// moving the master to it fails, and it says why. A timeline tells what everybody
// did, and at which write. Without -servers it starts an in-process ZooKeeper.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/zkelection/election"
	"github.com/zkelection/election/testutil"
)

var (
	servers = flag.String("servers", "", "ZooKeeper servers, `HOST:PORT,...` (default: an in-process one)")
	timeout = flag.Duration("timeout", 4*time.Second, "session timeout")

	ctx      = context.Background()
	began    = time.Now()
	printing sync.Mutex
	db       = &database{nodes: []*node{{host: "dbhost1"}, {host: "dbhost2"}, {host: "dbhost3"}}}
)

func main() {
	flag.Parse()
	slog.SetLogLoggerLevel(slog.LevelError + 1) // the timeline says it all
	time.AfterFunc(time.Minute+10**timeout, func() { log.Fatal("switchover: it has not come to its end in all this time") })
	if *servers == "" {
		srv, err := testutil.NewServer(&testutil.ServerOptions{TickTime: 500 * time.Millisecond})
		check(err)
		defer srv.Close()
		*servers = srv.Addr()
	}
	session := connect()
	operator, err := election.NewCandidate(session, "switchover", nil) // who asks need not stand
	check(err)
	if taken, err := operator.LeaderAcked(ctx); err != nil || taken {
		log.Fatalf("switchover: the election is taken, try again in %v (%v)", *timeout, err)
	}
	go db.replicate()
	a, b, c := db.nodes[0], db.nodes[1], db.nodes[2]
	a.join()
	await(a.serves)
	b.join()
	c.join()
	await(b.follows(a), c.follows(a))
	former := ballotOf(operator, c)
	// A line that has stood for about a session timeout hears of requests at once.
	time.Sleep(*timeout * 3 / 2)

	db.setSlow(c, true)
	say("----", "the disk of %s is slow", c.host)
	await(func() bool { return c.candidate.Status().Absence != nil && c.candidate.VotePath() == "" })
	say(c.host, "STANDS ASIDE (%v)", c.candidate.Status().Absence)
	say("operator", "moves the master to %s", c.host)
	if err := operator.Transfer(ctx, former); !errors.Is(err, election.ErrTransferTargetGone) {
		log.Fatalf("switchover: it has moved to one that does not stand (%v)", err)
	}
	say("operator", "FAILS (%v)", election.ErrTransferTargetGone)
	say(c.host, "says why (%v)", c.candidate.Status().Absence) // as its health handler does

	summary := move(operator, a, b)
	await(a.follows(b))
	db.setSlow(c, false)
	say("----", "the disk of %s is well again", c.host)
	await(c.follows(b))
	say(c.host, "STANDS again")
	summary += move(operator, b, c)
	await(a.follows(c), b.follows(c))
	for _, n := range []*node{a, b, c} { // the master goes last
		check(n.candidate.Close())
		check(n.session.Close())
	}
	check(session.Close())
	fmt.Printf("\n%-18s  %9s  %s\n%s", "the master", "moved in", "of it without a master", summary)
}

// move has the operator move the master, and returns a line of the summary.
func move(operator *election.Candidate, from, to *node) string {
	asked := say("operator", "moves the master to %s", to.host)
	check(operator.Transfer(ctx, ballotOf(operator, to)))
	done := say("operator", "is DONE: %s is the master", to.host)
	db.mu.Lock()
	defer db.mu.Unlock()
	return fmt.Sprintf("%s -> %s  %6.1f ms  %6.1f ms\n", from.host, to.host, ms(done.Sub(asked)), ms(to.won.Sub(from.stopped)))
}

// ballotOf finds a node among those who stand.
func ballotOf(operator *election.Candidate, n *node) election.Ballot {
	ballots, err := operator.Ballots(ctx)
	check(err)
	for _, b := range ballots {
		if string(b.Data) == n.host {
			return b
		}
	}
	log.Fatalf("switchover: %s does not stand", n.host)
	return election.Ballot{}
}

func connect() *election.Session {
	s, err := election.Connect(strings.Split(*servers, ","), *timeout, nil)
	check(err)
	check(s.AwaitConnected(ctx))
	return s
}

func await(conditions ...func() bool) {
	for _, condition := range conditions {
		for !condition() {
			time.Sleep(time.Millisecond)
		}
	}
}

func say(who, format string, args ...any) time.Time {
	printing.Lock()
	defer printing.Unlock()
	now := time.Now()
	fmt.Printf("%8.3f s  %-8s %s\n", now.Sub(began).Seconds(), who, fmt.Sprintf(format, args...))
	return now
}

func ms(d time.Duration) float64 { return 1000 * d.Seconds() }

func check(err error) {
	if err != nil {
		log.Fatal("switchover: ", err)
	}
}
