package docs_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election"
	"github.com/zkelection/election/testutil"
)

// What README.md and the documents show stands in the files of this package,
// word for word: TestCode compares. The tests among it check by hand, so that
// who copies one needs no module for it.

// work runs job on one of all processes that call it, until ctx ends or job returns.
func work(ctx context.Context, servers []string, job func(ctx context.Context, token int64) error) error {
	session, err := election.Connect(servers, 10*time.Second, nil)
	if err != nil {
		return err
	}
	defer session.Close() // steps down, withdraws the ballot, disconnects
	reach, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := session.AwaitConnected(reach); err != nil {
		return err // which says why: a wrong address, a TLS port, refused credentials
	}
	c, err := election.NewCandidate(session, "reports", nil)
	if err != nil {
		return err
	}
	return c.Run(ctx, func(ctx context.Context, term election.Term) error {
		return job(ctx, term.Token) // ctx ends the moment that leadership is lost
	})
}

// stand makes db a candidate: from now on it is the master or a replica.
func stand(ctx context.Context, session *election.Session, db *database) error {
	c, err := election.NewCandidate(session, "database_election", &election.CandidateOptions{
		Data:   []byte(db.address), // what the others are told of the leader
		Follow: election.FollowLeader,
	})
	if err != nil {
		return err
	}
	c.OnWin(func(ctx context.Context, term election.Term) error {
		return db.becomeMaster(ctx, term.Token)
	})
	c.OnLose(func(ctx context.Context, leader election.Leader) {
		db.replicateFrom(ctx, string(leader.Data))
	})
	c.OnStepDown(func(ctx context.Context, _ election.Term, cause error) {
		db.stopServing(ctx, cause)
	})
	return c.Vote(ctx)
}

// database stands for a service of the reader's.
type database struct {
	address string

	mu     sync.Mutex
	token  int64
	master string // whom it replicates from: its own address on the master
}

func (db *database) becomeMaster(_ context.Context, token int64) error {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.token, db.master = token, db.address
	return nil
}

func (db *database) replicateFrom(_ context.Context, master string) {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.master = master
}

func (db *database) stopServing(context.Context, error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.master = ""
}

func (db *database) masterSeen() string {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.master
}

func TestReplicaTakesOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // time is virtual from here on
		srv, err := testutil.NewServer(&testutil.ServerOptions{NoListen: true})
		if err != nil {
			t.Fatal(err)
		}
		defer srv.Close()
		start := func(db *database) *election.Session {
			session, err := election.Connect([]string{"mem"}, 10*time.Second,
				&election.SessionOptions{Dialer: srv.Dialer()})
			if err != nil {
				t.Fatal(err)
			}
			if err := stand(t.Context(), session, db); err != nil {
				t.Fatal(err)
			}
			return session
		}
		a, b := &database{address: "a:4567"}, &database{address: "b:4567"}
		sessionA := start(a)
		defer sessionA.Close()
		defer start(b).Close()

		time.Sleep(time.Hour)
		if a.masterSeen() != "a:4567" || b.masterSeen() != "a:4567" {
			t.Fatalf("a replicates from %q, b from %q", a.masterSeen(), b.masterSeen())
		}

		heal := srv.Isolate(sessionA.ID()) // nothing passes between a and the server
		time.Sleep(15 * time.Second)       // the session timeout, and some
		if a.masterSeen() != "" || b.masterSeen() != "b:4567" {
			t.Fatalf("cut off, a replicates from %q, b from %q", a.masterSeen(), b.masterSeen())
		}

		heal()
		time.Sleep(15 * time.Second)
		if a.masterSeen() != "b:4567" {
			t.Fatalf("back again, a replicates from %q", a.masterSeen())
		}
	})
}

// TestWork runs the first example as it is, over TCP: of two processes one
// works, and the other when that has returned.
func TestWork(t *testing.T) {
	srv, err := testutil.NewServer(nil)
	require.NoError(t, err)
	defer srv.Close()
	type turn struct {
		token int64
		end   chan struct{}
	}
	turns, ended := make(chan turn, 2), make(chan error, 2)
	for range 2 {
		go func() {
			ended <- work(t.Context(), srv.Servers(), func(_ context.Context, token int64) error {
				end := make(chan struct{})
				turns <- turn{token, end}
				<-end
				return nil
			})
		}()
	}
	first := <-turns
	assert.Empty(t, turns)
	close(first.end)
	require.NoError(t, <-ended)
	second := <-turns
	assert.Greater(t, second.token, first.token)
	close(second.end)
	require.NoError(t, <-ended)
}

// TestWorkElsewhere: where no ZooKeeper is, it says so within its deadline.
func TestWorkElsewhere(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, work(ctx, []string{"127.0.0.1:1"}, nil), context.DeadlineExceeded)
}

// TestObserve runs the other two: a client is told who serves, and that nobody
// does any more.
func TestObserve(t *testing.T) {
	srv, err := testutil.NewServer(nil)
	require.NoError(t, err)
	defer srv.Close()
	connect := func() *election.Session {
		session, err := election.Connect(srv.Servers(), 10*time.Second, nil)
		require.NoError(t, err)
		t.Cleanup(func() { _ = session.Close() })
		return session
	}
	service := connect()
	require.NoError(t, stand(t.Context(), service, &database{address: "dbhost1:4567"}))
	seen := make(chan string, 3)
	require.NoError(t, observe(t.Context(), connect(), func(address string) { seen <- address }, func() { seen <- "nobody" }))
	address := <-seen
	if address == "nobody" { // before the master had acknowledged
		address = <-seen
	}
	assert.Equal(t, "dbhost1:4567", address)
	require.NoError(t, service.Close())
	assert.Equal(t, "nobody", <-seen)
}

// observe follows the election as a client of the service does.
func observe(ctx context.Context, session *election.Session, reconnect func(address string), pause func()) error {
	o, err := election.NewObserver(session, "database_election", nil)
	if err != nil {
		return err
	}
	o.OnNewLeader(func(leader election.Leader) { reconnect(string(leader.Data)) })
	o.OnLeaderDeath(func(election.Leader) { pause() })
	return o.Observe(ctx)
}
