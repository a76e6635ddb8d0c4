//go:build linux

package chaos

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election"
	"github.com/zkelection/election/internal/monotonic"
	"github.com/zkelection/election/testutil/realzk"
)

// The clients of TestClientsOfObservers.
const (
	observerTimeout = 20 * time.Second
	observerTick    = 2 * time.Second
	observerRounds  = 30 // at most
	observersEach   = 6  // at each place, half of them on a caller's connection
	// What the rule of the lease takes for a ping's period: an answer counts when a heartbeat is sent so much later.
	observerPing = (observerTick/2 + observerTimeout/100) * 13 / 12
)

// clientOf is a candidate that takes over on one of the servers, which is cut off then.
//
// Who owns what: the goroutines that follow it write lastTrue and ended before they end; the test reads them then.
type clientOf struct {
	place     int
	owned     bool
	election  string
	conn      *zk.Conn // the caller's, or nil
	session   *election.Session
	candidate *election.Candidate
	led       chan struct{} // closed when it has been seen to lead
	lastTrue  int64         // when IsLeader was asked and said yes for the last time; 0: never
	ended     int64         // when its ballot, so its session, was seen to be gone
}

// observed is what the cuts have come to at one place, for one kind of connection.
type observed struct {
	takeovers int
	outlasted int           // leases that were longer than the session
	closest   time.Duration // the least from a lease's end to that of the session; negative if one has outlasted it
}

// TestClientsOfObservers lets candidates take over on an observer that follows the ensemble's leader, on a follower, and on
// an observer behind that follower (observerMasterPort), and cuts the first two servers off from their peers in that
// moment. No session of the first two may end before the lease. On the third some must, whose last sign of life the follower
// has and has not passed on: docs/protocol.md, section 5, says that its clients must not be candidates, and this is why.
func TestClientsOfObservers(t *testing.T) {
	if *flagObservers == 0 {
		t.Skip("of the long run: -chaos.observers")
	}
	const follower, direct, behind = 0, 1, 2
	const nodeDirect, nodeBehind = 3, 4
	net := newNetwork(t, 5)
	if net == nil {
		if os.Getuid() == 0 && os.Getenv("ELECTION_REQUIRE_ZOOKEEPER") == "1" {
			t.Fatal("root, and yet no network of its own")
		}
		t.Skip("needs root and iproute2")
	}
	// A follower that is cut off keeps its observer until the sessions are over: elsewhere it would tell of them.
	config := []string{"initLimit=10", "syncLimit=20"}
	for _, i := range []int{nodeDirect, nodeBehind} {
		config = append(config, fmt.Sprintf("server.%d=%s:2888:3888:observer", i+1, net.hosts[i]))
	}
	zookeeper := realzk.StartZooKeeperWith(t, 5, realzk.EnsembleOptions{
		TickTime: observerTick, Config: config, Hosts: net.hosts, Namespaces: net.namespaces,
		NodeConfig: func(i int) (lines []string) {
			if i == nodeDirect || i == nodeBehind {
				lines = append(lines, "peerType=observer")
			}
			if i != nodeDirect {
				lines = append(lines, "observerMasterPort=2191")
			}
			return lines
		},
	})
	r := &observerResult{}
	for ; r.rounds < *flagObservers || r.outlasted(behind) == 0 && r.rounds < observerRounds; r.rounds++ {
		require.NoError(t, zookeeper.AwaitServing(time.Minute))
		leader := zookeeper.Leader()
		// The followers are started anew each time, since how the pings that one sends lie between those that it gets depends on
		// when it began; the observer's master last, so that the observer goes to the other one.
		former := masterOf(t, zookeeper, nodeBehind)
		for _, i := range []int{3 - leader - former, former} {
			zookeeper.Restart(i)
			require.NoError(t, zookeeper.AwaitServing(time.Minute))
		}
		require.Equal(t, leader, zookeeper.Leader(), "the restart of a follower has changed the leader")
		master := masterOf(t, zookeeper, nodeBehind)
		require.Equal(t, leader, masterOf(t, zookeeper, nodeDirect), "whom the observer without observerMasterPort follows")
		require.NotEqual(t, leader, master, "whom the one with it follows")
		nodes := [places]int{follower: master, direct: nodeDirect, behind: nodeBehind}
		cuts := [places]int{follower: master, direct: nodeDirect, behind: master}
		clients := takeOverAndCut(t, zookeeper, net, nodes, cuts, leader, r.rounds)
		for _, c := range clients {
			if c.lastTrue == 0 {
				continue // its lease was not there when it was cut off
			}
			o := &r.at[c.place][connectionKind(c.owned)]
			left := time.Duration(c.ended - c.lastTrue)
			if left < 0 {
				o.outlasted++
			}
			if o.takeovers == 0 || left < o.closest {
				o.closest = left
			}
			o.takeovers++
			if c.place != behind {
				assert.GreaterOrEqual(t, left, time.Duration(0), "round %d, %s: from the last yes of IsLeader to the end of the session", r.rounds, placeNames[c.place])
			}
		}
		for place, name := range placeNames {
			for kind, o := range r.at[place] {
				t.Logf("round %d: %s, %s: %+v", r.rounds, name, kindNames[kind], o)
			}
		}
	}
	for place, name := range placeNames {
		for kind, o := range r.at[place] {
			assert.NotZero(t, o.takeovers, "takeovers on %s, %s: it was not tried", name, kindNames[kind])
		}
	}
	assert.NotZero(t, r.outlasted(behind), "the control, %s, kept every session for longer than its lease: the cuts prove nothing", placeNames[behind])
	results.observers = r
}

// outlasted is how many leases did so at a place.
func (r *observerResult) outlasted(place int) int {
	return r.at[place][0].outlasted + r.at[place][1].outlasted
}

const places = 3

var (
	placeNames = [places]string{"a follower", "an observer that follows the leader", "an observer behind a follower"}
	kindNames  = [2]string{"a caller's connection", "its own connection"}
)

func connectionKind(owned bool) int {
	if owned {
		return 1
	}
	return 0
}

type observerResult struct {
	rounds int
	at     [places][2]observed
}

// masterOf is the node that an observer says that it follows.
func masterOf(t *testing.T, zookeeper *realzk.Ensemble, observer int) (master int) {
	t.Helper()
	var last string
	await(t, time.Minute, "master of an observer", func() string { return last }, func() bool {
		answer, err := zookeeper.FourLetter(observer, "mntr")
		last = fmt.Sprint(answer, err)
		for line := range strings.Lines(answer) {
			fields := strings.Fields(line)
			if len(fields) == 2 && fields[0] == "zk_observer_master_id" {
				id, err := strconv.Atoi(fields[1])
				master = id - 1
				return err == nil && id > 0
			}
		}
		return false
	})
	return master
}

// takeOverAndCut has candidates vote on the nodes, each in an election that somebody on the ensemble's leader leads, ends that
// one as soon as the answers to the votes count, and cuts nodes off as soon as clients of each place lead. So a lease
// stands on an answer of which the ensemble's leader has just been told, or has not been. It returns when all sessions are over.
func takeOverAndCut(t *testing.T, zookeeper *realzk.Ensemble, net *network, nodes, cuts [places]int, leader, round int) []*clientOf {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	servers := zookeeper.Servers()
	// Whoever leads at first ends with the connection, all in the same moment.
	led, watcher := connectTo(t, servers[leader]), connectTo(t, servers[leader])
	former, err := election.NewSession(led, observerTimeout, &election.SessionOptions{TickTime: observerTick, Logger: quietLogger})
	require.NoError(t, err)
	require.NoError(t, former.AwaitConnected(ctx))

	var clients []*clientOf
	for place := range nodes {
		for i := range observersEach {
			clients = append(clients, &clientOf{
				place: place, owned: i%2 == 1, election: fmt.Sprintf("observers%d-%d-%d", round, place, i), led: make(chan struct{}),
			})
		}
	}
	each := func(do func(c *clientOf)) {
		var all sync.WaitGroup
		for _, c := range clients {
			all.Go(func() { do(c) })
		}
		all.Wait()
		require.False(t, t.Failed(), "it is not what it should be, already")
	}
	each(func(c *clientOf) {
		first, err := election.NewCandidate(former, c.election, nil)
		if assert.NoError(t, err) {
			_, err = first.Campaign(ctx)
			assert.NoError(t, err)
		}
	})
	// The sign of life before the vote is to be as old as it can be: the client's first ping comes a third of the timeout
	// after the connection.
	connected := time.Now()
	each(func(c *clientOf) { c.connect(ctx, t, servers[nodes[c.place]]) })
	time.Sleep(observerTimeout/3 - time.Second/4 - time.Since(connected))
	each(func(c *clientOf) { assert.NoError(t, c.candidate.Vote(ctx)) })
	voted := time.Now()
	var leading, ending sync.WaitGroup
	for _, c := range clients {
		there, _, gone, err := watcher.ExistsW(c.candidate.VotePath())
		require.NoError(t, err)
		require.True(t, there)
		ending.Go(func() {
			select {
			case event := <-gone:
				c.ended = monotonic.Now()
				assert.Equal(t, zk.EventNodeDeleted, event.Type, "what was seen of a ballot")
			case <-ctx.Done():
				t.Error("a session does not end")
			}
		})
	}

	over := make(chan struct{})
	for _, c := range clients {
		leading.Go(func() { c.follow(over) })
	}
	// The last requests of a vote come behind it.
	time.Sleep(observerPing + 20*time.Millisecond - time.Since(voted))
	go led.Close()                // it waits for the answer
	heals := make(map[int]func()) // by the node that is cut off
	await(t, time.Minute, "takeover at each place", func() string { return fmt.Sprintf("of %d places", len(nodes)) }, func() bool {
		var leads [places]bool
		for _, c := range clients {
			leads[c.place] = leads[c.place] || c.leads()
		}
		for _, node := range cuts {
			ready := heals[node] == nil
			for place := range cuts {
				ready = ready && (cuts[place] != node || leads[place])
			}
			if ready {
				heals[node] = net.cutNode(node)
			}
		}
		return !slices.Contains(leads[:], false)
	})
	ending.Wait()
	_ = former.Close()
	watcher.Close()
	close(over)
	leading.Wait()
	for _, heal := range heals {
		heal()
	}
	each((*clientOf).close)
	return clients
}

// connectTo makes a connection to one server. It may be closed again.
func connectTo(t *testing.T, server string) *zk.Conn {
	conn, events, err := zk.Connect([]string{server}, observerTimeout, zk.WithLogger(quiet{}))
	if err != nil {
		panic(err) // only of a list of servers that is empty
	}
	t.Cleanup(conn.Close)
	go func() {
		for range events {
		}
	}()
	return conn
}

// connect makes a candidate that is connected to one server.
func (c *clientOf) connect(ctx context.Context, t *testing.T, server string) {
	if c.owned {
		session, err := election.Connect([]string{server}, observerTimeout, &election.SessionOptions{TickTime: observerTick, Logger: quietLogger})
		if !assert.NoError(t, err) {
			return
		}
		c.session = session
	} else {
		c.conn = connectTo(t, server)
		session, err := election.NewSession(c.conn, observerTimeout, &election.SessionOptions{TickTime: observerTick, Logger: quietLogger})
		if !assert.NoError(t, err) {
			return
		}
		c.session = session
	}
	candidate, err := election.NewCandidate(c.session, c.election, nil)
	if !assert.NoError(t, err) {
		return
	}
	c.candidate = candidate
	assert.NoError(t, c.session.AwaitConnected(ctx))
}

func (c *clientOf) leads() bool {
	select {
	case <-c.led:
		return true
	default:
		return false
	}
}

// close closes what is left once the session is over.
func (c *clientOf) close() {
	_ = c.session.Close() // its server may still be looking for the others
	if c.conn != nil {
		c.conn.Close()
	}
}

// follow asks the candidate whether it leads, until its first leadership is over, or over says that there will be none.
func (c *clientOf) follow(over <-chan struct{}) {
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for ; ; <-ticker.C {
		at := monotonic.Now()
		if c.candidate.IsLeader() {
			c.lastTrue = at
			if !c.leads() {
				close(c.led)
			}
			continue
		}
		if c.leads() {
			return
		}
		select {
		case <-over:
			return
		default:
		}
	}
}
