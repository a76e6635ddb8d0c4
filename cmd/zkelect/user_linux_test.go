package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/testutil"
)

// TestOtherUser: a command that runs as another user cannot be signalled. That is said, and leadership is not passed on
// while it works.
func TestOtherUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can start a command as another user")
	}
	onBoth(t, func(t *testing.T, servers string) { otherUser(t, servers, `exec %[1]s`, 9) })
}

// TestOtherUserLeftBehind: the same of what the command leaves behind.
func TestOtherUserLeftBehind(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can start a command as another user")
	}
	onBoth(t, func(t *testing.T, servers string) {
		otherUser(t, servers, `%[1]s & until [ -s %[2]q ]; do sleep 0.01; done; exit 3`, 3)
	})
}

// TestOtherUserLost: where leadership is lost, others may lead beside such a command. That is said, and nothing else.
func TestOtherUserLost(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root can start a command as another user")
	}
	srv, err := testutil.NewServer(&testutil.ServerOptions{TickTime: 500 * time.Millisecond, MaxSessionTimeout: 12 * time.Second})
	require.NoError(t, err)
	t.Cleanup(srv.Close)
	stop := newJournal(t)
	require.NoError(t, errors.Join(os.Chmod(filepath.Dir(stop.path), 0o777), os.Chmod(filepath.Dir(filepath.Dir(stop.path)), 0o777))) //nolint:gosec // the other user looks there
	script := "exec setpriv --reuid 65534 --clear-groups sh -c " + shellQuoted(fmt.Sprintf(`echo begins; while [ -d %q ] && [ ! -e %q ]; do sleep 0.05; done`, filepath.Dir(stop.path), stop.path))
	run := append([]string{"--bounding-set", "-kill", os.Args[0]}, atEase(t, "--", "sh", "-c", script)...)
	a := startCommand(t, exec.Command("setpriv", run...), srv.Addr()) //nolint:gosec // a test's
	a.says(&a.stdout, "begins")
	isolateLeader(t, srv)
	a.says(&a.stderr, "others may lead before it has ended")
	assert.NotContains(t, a.stderr.String(), "is not passed on")
	require.NoError(t, os.WriteFile(stop.path, nil, 0o600))
	a.wait()
}

// otherUser runs a command as root without the right to signal others' processes, as a user with sudo is. form is the
// command, with a process of another user in it, and status what it is to end with.
func otherUser(t *testing.T, servers, form string, status int) {
	t.Helper()
	j := newJournal(t)
	require.NoError(t, os.WriteFile(j.path, nil, 0o600))
	require.NoError(t, errors.Join(os.Chmod(j.path, 0o666), os.Chmod(filepath.Dir(j.path), 0o777), os.Chmod(filepath.Dir(filepath.Dir(j.path)), 0o777))) //nolint:gosec // the other user writes there
	stop := newJournal(t)
	require.NoError(t, os.Chmod(filepath.Dir(stop.path), 0o777)) //nolint:gosec // and looks there
	work := fmt.Sprintf(`while [ ! -e %q ]; do echo A >>%q; sleep 0.01; done; exit 9`, stop.path, j.path)
	script := fmt.Sprintf(form, "setpriv --reuid 65534 --clear-groups sh -c "+shellQuoted(work), j.path)
	run := append([]string{"--bounding-set", "-kill", os.Args[0]}, atEase(t, "--grace", "100ms", "--", "sh", "-c", script)...)
	a := startCommand(t, exec.Command("setpriv", run...), servers) //nolint:gosec // a test's
	j.has(t, "A\n")
	b := start(t, servers, append([]string{"run", "--election", electionOf(t), "--"}, j.beats("B")...)...)
	b.says(&b.stderr, "waiting")
	if form[0] == 'e' { // the other one has ended by itself
		a.signal(syscall.SIGTERM)
	}
	a.says(&a.stderr, "leadership is not passed on before it has ended")
	// Longer than a keeper that does not answer is given.
	goesOn(t, 2*keeperMargin, func() int { return strings.Count(j.read(), "A\n") })
	assert.False(t, strings.Contains(j.read(), "B\n"), "B leads while A's command goes on")
	require.NoError(t, os.WriteFile(stop.path, nil, 0o600))
	assert.Equal(t, status, a.wait(), "the command's status")
	j.has(t, "B\n")
	assert.Empty(t, overlap(j.read()), "who went on while another led")
}
