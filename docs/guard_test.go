package docs_test

import (
	"log/slog"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zkelection/election"
	"github.com/zkelection/election/guard"
	"github.com/zkelection/election/testutil"
)

// guarded connects with a guard, and without one where there is none to be had.
func guarded(servers []string, logger *slog.Logger) (*election.Session, error) {
	g, err := guard.Start(&guard.Options{Logger: logger})
	if err != nil {
		logger.Warn("no guard: a death costs the session timeout", "error", err)
	}
	return election.Connect(servers, 10*time.Second, &election.SessionOptions{Guard: g})
}

// TestGuarded: where there is no guard the session is as without one.
func TestGuarded(t *testing.T) {
	t.Setenv(guard.Environment, "/nowhere")
	srv, err := testutil.NewServer(nil)
	require.NoError(t, err)
	defer srv.Close()
	session, err := guarded(srv.Servers(), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer session.Close()
	require.NoError(t, session.AwaitConnected(t.Context()))
	_, err = guard.Start(&guard.Options{Wait: -1})
	if runtime.GOOS != "linux" {
		require.ErrorIs(t, err, guard.ErrUnsupported)
		return
	}
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, "ELECTION_GUARD names neither an executable nor the socket of a guard")
}
