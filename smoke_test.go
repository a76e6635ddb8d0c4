package election

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zkelection/election/testutil"
)

func TestSmoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, err := testutil.NewServer(&testutil.ServerOptions{NoListen: true})
		if err != nil {
			t.Fatal(err)
		}
		defer srv.Close()
		log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
		start := time.Now()
		var sess []*Session
		var cands []*Candidate
		say := func(f string, a ...any) { fmt.Println(time.Since(start), fmt.Sprintf(f, a...)) }
		for i := range 3 {
			s, err := Connect([]string{"mem"}, 10*time.Second, &SessionOptions{Dialer: srv.Dialer(), Logger: log.With("s", i)})
			if err != nil {
				t.Fatal(err)
			}
			sess = append(sess, s)
			c, err := NewCandidate(s, "db", &CandidateOptions{Data: fmt.Appendf(nil, "host%d", i), Follow: FollowLeader})
			if err != nil {
				t.Fatal(err)
			}
			c.OnWin(func(ctx context.Context, term Term) error { say("%d wins %v", i, term); return nil })
			c.OnLose(func(ctx context.Context, l Leader) { say("%d loses to %s", i, l.Data) })
			c.OnStepDown(func(ctx context.Context, _ Term, cause error) { say("%d steps down: %v", i, cause) })
			if err := c.Vote(t.Context()); err != nil {
				t.Fatal(err)
			}
			cands = append(cands, c)
			synctest.Wait()
		}
		o, _ := NewObserver(sess[2], "db", nil)
		o.OnNewLeader(func(l Leader) { say("new leader %s", l.Data) })
		o.OnLeaderDeath(func(l Leader) { say("dead leader %s", l.Data) })
		if err := o.Observe(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if err := cands[0].Resign(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if err := cands[0].Vote(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		srv.ExpireSession(sess[1].ID())
		time.Sleep(30 * time.Second)
		say("leaders %v %v %v", cands[0].IsLeader(), cands[1].IsLeader(), cands[2].IsLeader())
		fmt.Println(srv.Dump())
		for _, s := range sess {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}
