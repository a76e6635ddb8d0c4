package docs_test

import (
	"testing"
	"time"

	"github.com/zkelection/election"
	"github.com/zkelection/election/testutil"
	"github.com/zkelection/election/testutil/virtualtime"
)

// TestServerLostAndBack kills the server that the leader is connected to: its
// session moves to another, and it goes on leading. Then a second one dies, and
// no majority is left: it steps down, and wins again when one comes back.
func TestServerLostAndBack(t *testing.T) {
	virtualtime.Test(t, &testutil.ServerOptions{Members: 3}, func(t *testing.T, srv *testutil.Server) {
		session, err := election.Connect(srv.Servers(), 10*time.Second, &election.SessionOptions{Dialer: srv.Dialer()})
		if err != nil {
			t.Fatal(err)
		}
		defer session.Close()
		c, err := election.NewCandidate(session, "database_election", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Campaign(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)

		first := srv.Sessions()[0].Member
		srv.Member(first).Stop()
		for range 60 {
			time.Sleep(time.Second)
			if !c.IsLeader() {
				t.Fatal("it does not lead any more")
			}
		}
		second := srv.Sessions()[0].Member
		if second == first {
			t.Fatal("its session has not moved")
		}

		srv.Member(second).Stop()
		time.Sleep(time.Minute)
		if c.IsLeader() {
			t.Fatal("it leads without a majority of the ensemble")
		}
		if err := srv.Member(first).Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if !c.IsLeader() {
			t.Error("it does not lead again")
		}
	})
}
