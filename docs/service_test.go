package docs_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zkelection/election"
	"github.com/zkelection/election/testutil"
)

// What README.md and the documents show stands in the files of this package,
// word for word: TestCode compares.

// serve takes part in the election until ctx ends.
func serve(ctx context.Context, servers []string, db *database) error {
	session, err := election.Connect(servers, 10*time.Second, nil)
	if err != nil {
		return err
	}
	defer session.Close() // steps down, withdraws the ballot, disconnects
	if err := stand(ctx, session, db); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// stand makes db a candidate: from now on it is the master or a replica.
func stand(ctx context.Context, session *election.Session, db *database) error {
	c, err := election.NewCandidate(session, "database_election", &election.CandidateOptions{
		Data:   []byte(db.address),
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

// TestServe runs the first example as it is, over TCP.
func TestServe(t *testing.T) {
	srv, err := testutil.NewServer(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- serve(ctx, srv.Servers(), &database{address: "dbhost1:4567"}) }()

	session, err := election.Connect(srv.Servers(), 10*time.Second, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	seen := make(chan string, 1)
	if err := observe(t.Context(), session, func(address string) { seen <- address }, func() {}); err != nil {
		t.Fatal(err)
	}
	if address := <-seen; address != "dbhost1:4567" {
		t.Errorf("the client talks to %q", address)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
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
