// Command shards spreads 1,000 shards over a fleet of four members: each shard
// is an election of its own, and each member stands in all of them over one
// ZooKeeper session. Members vote first where they come first in the shard's
// order of preference, so that the shards are spread evenly, also after a
// member has gone. Without -servers it starts an in-process ZooKeeper.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"hash/fnv"
	"log"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zkelection/election"
	"github.com/zkelection/election/testutil"
)

const shards = 1000

var (
	names = []string{"north", "east", "south", "west"}
	won   = make(chan struct{}, 1) // a shard has a new leader
)

// member is one process of the fleet.
type member struct {
	name       string
	session    *election.Session
	candidates [shards]*election.Candidate
	leads      atomic.Int32
}

func newMember(servers []string, name string) *member {
	session, err := election.Connect(servers, 10*time.Second, nil)
	check(err)
	m := &member{name: name, session: session}
	for shard := range shards {
		c, err := election.NewCandidate(session, fmt.Sprintf("shard-%03d", shard), &election.CandidateOptions{
			Root: "/shards", Data: []byte(name),
		})
		check(err)
		c.OnWin(func(context.Context, election.Term) error { // load the shard here
			m.leads.Add(1)
			select {
			case won <- struct{}{}:
			default: // it has been said
			}
			return nil
		})
		c.OnStepDown(func(context.Context, election.Term, error) { m.leads.Add(-1) }) // and let it go here
		m.candidates[shard] = c
	}
	return m
}

// preference is a shard's order of the members: rendezvous hashing. When one
// is gone the others' order stays as it is.
func preference(shard int) []string {
	weight := func(name string) uint64 {
		h := fnv.New64a()
		_, _ = fmt.Fprintf(h, "%d of %s", shard, name)
		x := h.Sum64() // whose high bits differ little for names that do
		x ^= x >> 32
		return x * 0x9e3779b97f4a7c15
	}
	return slices.SortedFunc(slices.Values(names), func(a, b string) int { return cmp.Compare(weight(a), weight(b)) })
}

// vote stands in the shards in whose order this member has the given rank.
// Separate processes would let some seconds pass between one rank and the next.
func (m *member) vote(rank int) {
	var votes sync.WaitGroup
	for shard, c := range m.candidates {
		if preference(shard)[rank] == m.name {
			votes.Go(func() { check(c.Vote(context.Background())) })
		}
	}
	votes.Wait()
}

// await waits until the fleet leads all shards, and shows how many each of it leads.
func await(what string, began time.Time, fleet []*member) {
	for {
		all, each := 0, ""
		for _, m := range fleet {
			leads := int(m.leads.Load())
			all += leads
			each += fmt.Sprintf("  %-5s leads %4d shards\n", m.name, leads)
		}
		if all == shards {
			fmt.Printf("%s in %v:\n%s", what, time.Since(began).Round(time.Millisecond), each)
			return
		}
		select { // one may be led anew before all are: the lease of its session has lapsed
		case <-won:
		case <-time.After(time.Minute):
			log.Fatal("shards: some shards have no leader")
		}
	}
}

func main() {
	list := flag.String("servers", "", "ZooKeeper servers, `HOST:PORT,...` (default: an in-process one)")
	flag.Parse()
	slog.SetLogLoggerLevel(slog.LevelError + 1) // what the library logs
	servers := strings.Split(*list, ",")
	if *list == "" {
		srv, err := testutil.NewServer(nil)
		check(err)
		defer srv.Close()
		servers = srv.Servers()
	}
	var fleet []*member
	for _, name := range names {
		fleet = append(fleet, newMember(servers, name))
	}
	began := time.Now()
	for rank := range names {
		var members sync.WaitGroup
		for _, m := range fleet {
			members.Go(func() { m.vote(rank) })
		}
		members.Wait()
		if rank == 0 {
			await("all shards led", began, fleet)
		}
	}
	for len(fleet) > 1 {
		gone := fleet[0]
		fleet = fleet[1:]
		began = time.Now()
		check(gone.session.Close())
		await(gone.name+" has left, its shards taken over", began, fleet)
	}
	check(fleet[0].session.Close())
}

func check(err error) {
	if err != nil {
		log.Fatal("shards: ", err)
	}
}
