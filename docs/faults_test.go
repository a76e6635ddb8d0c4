package docs_test

import (
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/zkelection/election"
	"github.com/zkelection/election/testutil"
	"github.com/zkelection/election/testutil/virtualtime"
)

func overTCP(t *testing.T) *zk.Conn {
	srv, err := testutil.NewServer(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Close)
	conn, _, err := zk.Connect(srv.Servers(), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return conn
}

func TestOverTCP(t *testing.T) {
	if _, _, err := overTCP(t).Children("/"); err != nil {
		t.Error(err)
	}
}

func TestLostReply(t *testing.T) {
	virtualtime.Test(t, nil, func(t *testing.T, srv *testutil.Server) {
		session, err := election.Connect([]string{"mem"}, 10*time.Second,
			&election.SessionOptions{Dialer: srv.Dialer()})
		if err != nil {
			t.Fatal(err)
		}
		defer session.Close()
		c, err := election.NewCandidate(session, "database_election", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Campaign(t.Context()); err != nil { // the nodes above are there now
			t.Fatal(err)
		}
		if err := c.Resign(t.Context()); err != nil {
			t.Fatal(err)
		}

		defer srv.Control(testutil.OpCreate, testutil.Once(testutil.LoseReply))()
		if err := c.Vote(t.Context()); err != nil {
			t.Fatal(err)
		}
		ballots, err := c.Ballots(t.Context())
		if err != nil || len(ballots) != 1 || ballots[0].Path != c.VotePath() {
			t.Errorf("ballots %v, %v; ours is %s", ballots, err, c.VotePath())
		}
	})
}
