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

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// startFirst starts zkelect as process 1 of a namespace of its own, as in a container.
func startFirst(t *testing.T, servers string, args ...string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	attributes := apart()
	attributes.Cloneflags = syscall.CLONE_NEWPID
	if os.Getuid() != 0 {
		attributes.Cloneflags |= syscall.CLONE_NEWUSER
	}
	cmd.SysProcAttr = attributes
	if probe := exec.Command("true"); true {
		probe.SysProcAttr = &syscall.SysProcAttr{Cloneflags: attributes.Cloneflags}
		if err := probe.Run(); errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) {
			t.Skipf("no namespace can be made here: %v", err)
		}
	}
	return startCommand(t, cmd, servers)
}

// descendants are the processes below one, by their states, as /proc has them here.
func descendants(t *testing.T, pid int) (states []string) {
	t.Helper()
	for _, child := range children(t, pid) {
		stat := (journal{fmt.Sprintf("/proc/%d/stat", child)}).read()
		if _, rest, ok := strings.Cut(stat, ") "); ok {
			states = append(states, rest[:1])
		}
		states = append(states, descendants(t, child)...)
	}
	return states
}

// TestFirstStragglers: what the command leaves behind is ended, is not waited for when it is a zombie, and is reaped.
func TestFirstStragglers(t *testing.T) {
	onBoth(t, func(t *testing.T, servers string) {
		p := startFirst(t, servers, "run", "--election", electionOf(t), "--grace", "10m", "--", "sh", "-c", "sleep 300 & exit 3")
		assert.Equal(t, 3, p.wait(), "the command's status")
	})
}

// TestFirstReaps: orphans that have left the command's group become children of process 1 at last, and none stays.
func TestFirstReaps(t *testing.T) {
	t.Parallel()
	j := newJournal(t)
	// Each setsid starts a process whose parent does not wait for it.
	p := startFirst(t, inProcess(t), "run", "--keep", "--pause", "10ms", "--election", electionOf(t), "--", "sh", "-c",
		fmt.Sprintf(`for i in 1 2 3; do (setsid sh -c 'sleep 0.05' &); done; echo turn >>%q`, j.path))
	until(t, "some turns", func() bool { return strings.Count(j.read(), "turn\n") >= 5 })
	until(t, "a moment without zombies", func() bool {
		return !strings.Contains(strings.Join(descendants(t, p.cmd.Process.Pid), ""), "Z")
	})
	p.signal(syscall.SIGTERM)
	p.wait()
}

// TestFirstSignals: those that come to process 1 reach zkelect.
func TestFirstSignals(t *testing.T) {
	t.Parallel()
	p := startFirst(t, inProcess(t), "run", "--election", electionOf(t), "--", "sh", "-c",
		"trap 'echo hello' USR1; trap 'echo ends; exit 5' TERM; echo begins; while :; do sleep 0.05; done")
	p.says(&p.stdout, "begins\n")
	p.signal(syscall.SIGUSR1)
	p.says(&p.stdout, "hello\n")
	p.signal(syscall.SIGTERM)
	assert.Equal(t, 5, p.wait())
}

// TestFirstSucceeded: when zkelect ends in a container and not in order, its command does, too, and the session is closed, before
// process 1 ends and everything with it.
func TestFirstSucceeded(t *testing.T) {
	for name, test := range map[string]struct {
		end    func(t *testing.T, a *process, inside int)
		status int
	}{
		"killed": {func(t *testing.T, _ *process, inside int) {
			t.Helper()
			require.NoError(t, syscall.Kill(inside, syscall.SIGKILL))
		}, 137},
		"told twice": {func(_ *testing.T, a *process, _ int) {
			a.signal(syscall.SIGTERM)
			a.says(&a.stderr, "stopping sh")
			a.signal(syscall.SIGTERM)
		}, 143},
	} {
		t.Run(name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, servers string) {
				j := newJournal(t)
				args := func(command ...string) []string {
					return append([]string{"run", "--election", electionOf(t), "--grace", "10m", "--timeout", successionTimeout.String(), "--"}, command...)
				}
				deaf := fmt.Sprintf("trap '' TERM; while :; do echo A >>%q; sleep 0.01; done", j.path)
				a := startFirst(t, servers, args("sh", "-c", deaf)...)
				j.has(t, "A\n")
				b := start(t, servers, args(j.beats("B")...)...)
				b.says(&b.stderr, "waiting")
				inside := children(t, a.cmd.Process.Pid)
				require.Len(t, inside, 1, "children of process 1")
				test.end(t, a, inside[0])
				leadsSoon(t, j)
				assert.Equal(t, test.status, a.wait())
			})
		})
	}
}

// TestFirstGuard: the guard of others in a container of its own.
func TestFirstGuard(t *testing.T) {
	t.Parallel()
	servers := inProcess(t)
	j := newJournal(t)
	socket := filepath.Join(t.TempDir(), "guard")
	g := startFirst(t, "", "guard", "--listen", socket)
	g.says(&g.stderr, "listening")
	a, _ := successors(t, servers, j, "--guard", socket)
	a.signal(syscall.SIGKILL)
	leadsSoon(t, j)
}
