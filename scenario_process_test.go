package election_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/zkelection/election"
)

const (
	stoppedCandidateEnv = "ELECTION_TEST_CANDIDATE"
	stoppedTimeout      = 12 * time.Second
)

// stoppedCandidate is the process that is stopped: a candidate that prints
// what happens to it, and samples itself.
func stoppedCandidate(server string) {
	say := func(format string, args ...any) { fmt.Printf(format+"\n", args...) }
	fail := func(err error) {
		if err != nil {
			say("error %v", err)
			os.Exit(1)
		}
	}
	s, err := election.Connect([]string{server}, stoppedTimeout, &election.SessionOptions{Logger: slog.New(slog.DiscardHandler)})
	fail(err)
	c, err := election.NewCandidate(s, "stopped", nil)
	fail(err)
	leaders := make(chan context.Context, 1)
	c.OnWin(func(ctx context.Context, _ election.Term) error {
		leaders <- ctx
		say("won")
		return nil
	})
	c.OnStepDown(func(_ context.Context, _ election.Term, cause error) { say("stepped down: %v", cause) })
	_, err = c.Campaign(context.Background())
	fail(err)
	leader := <-leaders
	say("leading")
	go func() { // the parent's end is ours
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	for last := time.Now(); ; time.Sleep(time.Millisecond) {
		now := time.Now() // before the samples: a stop between the two is told of by the next ones
		leads := c.IsLeader()
		ended := leader.Err() != nil
		if now.Sub(last) > stoppedTimeout/2 {
			say("went on: leads %v, context ended %v", leads, ended)
		}
		last = now
	}
}
