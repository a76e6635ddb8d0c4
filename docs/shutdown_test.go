package docs_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election"
	"github.com/zkelection/election/testutil"
)

// untilTold runs a service until ctx ends, and then takes no longer than grace.
func untilTold(ctx context.Context, session *election.Session, run func(context.Context) error, grace time.Duration) error {
	var err error
	ended := make(chan struct{})
	go func() { defer close(ended); err = run(ctx) }()
	select {
	case <-ended:
		return errors.Join(err, session.Close())
	case <-ctx.Done():
	}
	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	told := session.Shutdown(bound)
	<-ended // the candidate is closed
	return told
}

func TestUntilTold(t *testing.T) {
	for _, away := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			srv, err := testutil.NewServer(&testutil.ServerOptions{NoListen: true})
			require.NoError(t, err)
			defer srv.Close()
			session, err := election.Connect(srv.Servers(), 10*time.Second, &election.SessionOptions{
				Dialer: srv.Dialer(), Logger: slog.New(slog.DiscardHandler),
			})
			require.NoError(t, err)
			defer session.Close()
			c, err := election.NewCandidate(session, "x", nil)
			require.NoError(t, err)
			ctx, stop := context.WithCancel(context.Background())
			defer stop()
			leads := make(chan struct{})
			told := make(chan error, 1)
			go func() {
				told <- untilTold(ctx, session, func(ctx context.Context) error {
					return c.Run(ctx, func(ctx context.Context, _ election.Term) error { close(leads); <-ctx.Done(); return nil })
				}, 3*time.Second)
			}()
			<-leads
			if away {
				srv.Stop()
			}
			began := time.Now()
			stop()
			err = <-told
			if !away {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, context.DeadlineExceeded)
			assert.LessOrEqual(t, time.Since(began), 4*time.Second)
		})
	}
}
