// Command fencedstore shows what fencing tokens are for. A leader's write is
// under way, as in a slow network or a long garbage collection, while its
// session ends and another leads. When the write arrives at last, the store
// refuses it by its token; in ZooKeeper itself Term.Guard does the same. Without
// -servers it starts an in-process ZooKeeper.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/zkelection/election"
	"github.com/zkelection/election/testutil"
)

// store is a database, somewhere else. It needs no connection to ZooKeeper:
// all it does for fencing is to remember the highest token it has seen.
type store struct {
	mu      sync.Mutex
	highest int64
	value   string
}

var errFenced = errors.New("refused: a newer leader has written")

func (s *store) write(token int64, value string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if token < s.highest {
		return errFenced
	}
	s.highest, s.value = token, value
	return nil
}

// cable is a network that can be cut.
type cable struct {
	cut  atomic.Bool
	conn atomic.Pointer[net.Conn]
}

func (c *cable) dial(network, address string, timeout time.Duration) (net.Conn, error) {
	if c.cut.Load() {
		return nil, errors.New("the cable is cut")
	}
	conn, err := net.DialTimeout(network, address, timeout)
	c.conn.Store(&conn)
	return conn, err
}

func (c *cable) unplug() { c.cut.Store(true); check((*c.conn.Load()).Close()) }

func member(servers []string, timeout time.Duration, dial zk.Dialer, name string) (*election.Session, *election.Candidate) {
	session, err := election.Connect(servers, timeout, &election.SessionOptions{Dialer: dial})
	check(err)
	candidate, err := election.NewCandidate(session, "fenced-store", &election.CandidateOptions{Data: []byte(name)})
	check(err)
	return session, candidate
}

func main() {
	list := flag.String("servers", "", "ZooKeeper servers, `HOST:PORT,...` (default: an in-process one)")
	timeout := flag.Duration("timeout", 4*time.Second, "session timeout")
	flag.Parse()
	slog.SetLogLoggerLevel(slog.LevelError + 1) // what the library logs
	servers := strings.Split(*list, ",")
	if *list == "" {
		srv, err := testutil.NewServer(&testutil.ServerOptions{TickTime: 500 * time.Millisecond})
		check(err)
		defer srv.Close()
		servers = srv.Servers()
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var db store

	var network cable
	oldSession, old := member(servers, *timeout, network.dial, "old")
	oldTerm, err := old.Campaign(ctx)
	check(err)
	check(db.write(oldTerm.Token, "written by the old leader"))
	fmt.Printf("the old leader writes with token %d\n", oldTerm.Token)

	// It has just looked whether it leads, and sends another write ...
	if !old.IsLeader() {
		log.Fatal("fencedstore: it does not lead")
	}
	arrives, late := make(chan struct{}), make(chan error)
	go func() {
		<-arrives
		late <- db.write(oldTerm.Token, "written too late")
	}()
	fmt.Println("its next write is under way, and its network is cut")
	network.unplug()

	session, next := member(servers, *timeout, nil, "new")
	term, err := next.Campaign(ctx)
	check(err)
	fmt.Printf("the new leader has token %d, the old one leads: %v\n", term.Token, old.IsLeader())
	check(db.write(term.Token, "written by the new leader"))

	close(arrives)
	fmt.Printf("the old write arrives: %v\n", <-late)
	fmt.Printf("the store has: %s\n", db.value)

	// Data in ZooKeeper needs no such store: the write is guarded by the ballot.
	const path = "/fenced-store-data"
	guarded := func(t election.Term, value string) error {
		_, err := session.Conn().Multi(t.Guard(), &zk.SetDataRequest{Path: path, Data: []byte(value), Version: -1})
		return err
	}
	_, err = session.Conn().Create(path, nil, 0, zk.WorldACL(zk.PermAll))
	if !errors.Is(err, zk.ErrNodeExists) {
		check(err)
	}
	fmt.Printf("a guarded write under the old term: %v\n", guarded(oldTerm, "too late"))
	fmt.Printf("a guarded write under the new term: %v\n", guarded(term, "in time"))

	network.cut.Store(false)
	check(session.Conn().Delete(path, -1))
	check(session.Close())
	check(oldSession.Close())
}

func check(err error) {
	if err != nil {
		log.Fatal("fencedstore: ", err)
	}
}
