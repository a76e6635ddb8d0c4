//go:build unix

package main

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election"
	"github.com/zkelection/election/testutil"
)

// cutOff starts A, which leads, and B, which waits, and then lets nothing pass between A and the server. The commands write
// their names all the time, A's when it is asked to end, too, and does not.
func cutOff(t *testing.T, j journal, flags ...string) (a *process) {
	t.Helper()
	// A twelfth of the timeout lies between the ends of the lease and of the session: on a busy machine that is little.
	srv, err := testutil.NewServer(&testutil.ServerOptions{TickTime: 500 * time.Millisecond, MaxSessionTimeout: 12 * time.Second})
	require.NoError(t, err)
	t.Cleanup(srv.Close)
	run := func(name string) *process {
		script := fmt.Sprintf(`exec >>%q; trap 'echo %[2]s, asked' TERM; while :; do echo %[2]s; sleep 0.01; done`, j.path, name)
		args := append([]string{"run", "--election", electionOf(t), "--timeout", "12s"}, flags...)
		return start(t, srv.Addr(), append(args, "--", "sh", "-c", script)...)
	}
	a = run("A")
	j.has(t, "A\n")
	b := run("B")
	b.says(&b.stderr, "waiting")
	isolateLeader(t, srv)
	until(t, "B to lead", func() bool { return strings.Count(j.read(), "B\n") >= 30 })
	return a
}

// TestRunLosesLease: a command that is not done with SIGTERM in time does not go on beside the next leader's.
func TestRunLosesLease(t *testing.T) {
	t.Parallel()
	j := newJournal(t)
	a := cutOff(t, j)
	assert.Equal(t, exitLost, a.wait())
	assert.Empty(t, overlap(j.read()), "who went on while another led")
	assert.False(t, strings.Contains(j.read(), "asked"), "it was asked to end when there was no time for that")
}

// TestRunLosesLeaseWhileStopping: the grace time ends with the lease.
func TestRunLosesLeaseWhileStopping(t *testing.T) {
	t.Parallel()
	srv, err := testutil.NewServer(&testutil.ServerOptions{TickTime: 500 * time.Millisecond, MaxSessionTimeout: 12 * time.Second})
	require.NoError(t, err)
	t.Cleanup(srv.Close)
	j := newJournal(t)
	a := start(t, srv.Addr(), "run", "--election", electionOf(t), "--timeout", "12s", "--grace", "10m", "--", "sh", "-c",
		fmt.Sprintf(`exec >>%q; trap 'echo A, asked' TERM; while :; do echo A; sleep 0.01; done`, j.path))
	j.has(t, "A\n")
	b := start(t, srv.Addr(), append([]string{"run", "--election", electionOf(t), "--timeout", "12s", "--"}, j.beats("B")...)...)
	b.says(&b.stderr, "waiting")
	a.signal(stopSignals[0])
	j.has(t, "A, asked\n")
	// The lease, which lasts less than the session timeout, is renewed meanwhile.
	goesOn(t, 12*time.Second, func() int { return strings.Count(j.read(), "A\n") })
	isolateLeader(t, srv)
	until(t, "B to lead", func() bool { return strings.Count(j.read(), "B\n") >= 30 })
	assert.Equal(t, exitLost, a.wait())
	assert.Empty(t, overlap(strings.ReplaceAll(j.read(), "A, asked\n", "")), "who went on while another led")
}

// TestRunLosesLeaseWithoutKeeper: the keeper of the command is stopped when the lease is lost, and zkelect ends both.
func TestRunLosesLeaseWithoutKeeper(t *testing.T) {
	t.Parallel()
	// A twelfth of the timeout lies between the ends of the lease and of the session.
	srv, err := testutil.NewServer(&testutil.ServerOptions{TickTime: 500 * time.Millisecond, MaxSessionTimeout: 12 * time.Second})
	require.NoError(t, err)
	t.Cleanup(srv.Close)
	j, keeper := newJournal(t), newJournal(t)
	a := start(t, srv.Addr(), "run", "--election", electionOf(t), "--timeout", "12s", "--", "sh", "-c",
		fmt.Sprintf(`echo $PPID >%q; exec >>%q; while :; do echo A; sleep 0.01; done`, keeper.path, j.path))
	j.has(t, "A\n")
	b := start(t, srv.Addr(), append([]string{"run", "--election", electionOf(t), "--timeout", "12s", "--standby", "--"}, j.beats("B")...)...)
	b.says(&b.stderr, "waiting")
	var pid int
	_, err = fmt.Sscan(keeper.read(), &pid)
	require.NoError(t, err, "the keeper's number: %q", keeper.read())
	require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
	isolateLeader(t, srv)
	until(t, "B to lead", func() bool { return strings.Count(j.read(), "B\n") >= 30 })
	a.says(&a.stderr, "has ended with status 137")
	assert.Empty(t, overlap(j.read()), "who went on while another led")
}

// TestRunOverlap: who wants it has time to end, beside the next leader.
func TestRunOverlap(t *testing.T) {
	t.Parallel()
	j := newJournal(t)
	a := cutOff(t, j, "--overlap", "10m")
	j.has(t, "A, asked\n")
	assert.Equal(t, "A", overlap(strings.ReplaceAll(j.read(), "A, asked\n", "")), "A was killed")
	a.signal(stopSignals[0])
	a.signal(stopSignals[1]) // at once
	a.wait()
}

// isolateLeader lets nothing pass any more between the leader and the server.
func isolateLeader(t *testing.T, srv *testutil.Server) {
	t.Helper()
	s, err := election.Connect(srv.Servers(), 4*time.Second, nil)
	require.NoError(t, err)
	defer func() { _ = s.Close() }()
	o, err := election.NewObserver(s, electionOf(t), nil)
	require.NoError(t, err)
	leader, err := o.Leader(t.Context())
	require.NoError(t, err)
	srv.Isolate(leader.SessionID)
}
