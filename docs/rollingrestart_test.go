package docs_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zkelection/election"
	"github.com/zkelection/election/testutil"
	"github.com/zkelection/election/testutil/virtualtime"
)

// TestRollingRestart restarts the servers of the ensemble one after the other,
// as its maintenance does: nobody wins or steps down for it.
func TestRollingRestart(t *testing.T) {
	virtualtime.Test(t, &testutil.ServerOptions{Members: 3}, func(t *testing.T, srv *testutil.Server) {
		var wins, losses atomic.Int32
		for range 2 {
			session, err := election.Connect(srv.Servers(), 10*time.Second, &election.SessionOptions{Dialer: srv.Dialer()})
			if err != nil {
				t.Fatal(err)
			}
			defer session.Close()
			c, err := election.NewCandidate(session, "database_election", nil)
			if err != nil {
				t.Fatal(err)
			}
			c.OnWin(func(context.Context, election.Term) error { wins.Add(1); return nil })
			c.OnStepDown(func(context.Context, election.Term, error) { losses.Add(1) })
			if err := c.Vote(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)

		for i := range srv.Servers() {
			srv.Member(i).Stop() // its clients are cut, and so are all when it led the ensemble
			time.Sleep(2 * time.Second)
			if err := srv.Member(i).Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute) // it is back in the quorum before the next
		}
		if wins.Load() != 1 || losses.Load() != 0 {
			t.Errorf("%d won and %d stepped down", wins.Load(), losses.Load())
		}
	})
}
