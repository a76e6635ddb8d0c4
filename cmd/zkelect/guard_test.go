//go:build linux

package main

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/guard"
)

// successionTimeout is a session timeout that no test waits for.
const successionTimeout = 40 * time.Second

// successors starts A, which leads, and B, which waits, under sessions that last long by themselves.
func successors(t *testing.T, servers string, j journal, flags ...string) (a, b *process) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip(guard.ErrUnsupported)
	}
	return pair(t, servers, j, append([]string{"--timeout", successionTimeout.String()}, flags...)...)
}

func leadsSoon(t *testing.T, j journal) {
	t.Helper()
	began := time.Now()
	until(t, "B to lead", func() bool { return strings.Count(j.read(), "B\n") >= 3 })
	assert.LessOrEqual(t, time.Since(began), successionTimeout/2, "until B led: the session has ended by itself")
	assert.Empty(t, overlap(j.read()), "who went on while another led")
}

// TestRunSucceeded: a zkelect that is killed is succeeded at once, with the guard of its own and with one on a socket, and
// its command has ended by then.
func TestRunSucceeded(t *testing.T) {
	t.Run("own", func(t *testing.T) {
		onBoth(t, func(t *testing.T, servers string) {
			j := newJournal(t)
			a, _ := successors(t, servers, j)
			a.signal(syscall.SIGKILL)
			leadsSoon(t, j)
		})
	})
	t.Run("socket", func(t *testing.T) {
		onBoth(t, func(t *testing.T, servers string) {
			j := newJournal(t)
			socket := filepath.Join(t.TempDir(), "guard")
			g := start(t, "", "guard", "--listen", socket)
			g.says(&g.stderr, "listening")
			a, b := successors(t, servers, j, "--guard", socket)
			a.signal(syscall.SIGKILL)
			leadsSoon(t, j)
			g.says(&g.stderr, "is closed")
			g.signal(syscall.SIGTERM)
			g.says(&g.stderr, "ending when no process is guarded any more")
			b.signal(syscall.SIGTERM)
			b.wait()
			assert.Equal(t, exitOK, g.wait(), "the guard's status")
		})
	})
}

// TestRunGroupKilled: kill -9 of zkelect's whole process group, as supervisors and shells do, leaves the command's keeper to
// end the command's children, and the next one leads after that.
func TestRunGroupKilled(t *testing.T) {
	onBoth(t, func(t *testing.T, servers string) {
		j := newJournal(t)
		a, _ := successors(t, servers, j)
		require.NoError(t, syscall.Kill(-a.cmd.Process.Pid, syscall.SIGKILL))
		leadsSoon(t, j)
	})
}

// children are the processes that a process has started.
func children(t *testing.T, parent int) (pids []int) {
	t.Helper()
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", parent))
	require.NoError(t, err)
	for _, path := range stats {
		for _, field := range strings.Fields((journal{path}).read()) {
			var pid int
			if _, err := fmt.Sscan(field, &pid); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}
