package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// heldScript is an executable whose exec hangs, as it does on a file server that does not answer: the kernel has who opens a
// file wait for the holder of a lease on it (F_SETLEASE), for lease-break-time at most, which is 45 s.
type heldScript struct {
	path string
	file *os.File
}

func newHeldScript(t *testing.T, script string) *heldScript {
	t.Helper()
	h := &heldScript{path: filepath.Join(t.TempDir(), "script")}
	require.NoError(t, os.WriteFile(h.path, []byte("#!/bin/sh\n"+script+"\n"), 0o700)) //nolint:gosec // to be executed
	var err error
	h.file, err = os.Open(h.path)
	require.NoError(t, err)
	t.Cleanup(func() { _ = h.file.Close() })
	// Another test's child may have a copy of the descriptor that the file was written with, until its exec.
	until(t, "the lease on the script", func() bool {
		_, err = unix.FcntlInt(h.file.Fd(), unix.F_SETLEASE, unix.F_WRLCK)
		return err == nil || err != unix.EAGAIN //nolint:errorlint // a system call's
	})
	if err != nil {
		t.Skipf("no leases on files here: %v", err)
	}
	return h
}

// hangs waits until an exec does.
func (h *heldScript) hangs(t *testing.T) {
	t.Helper()
	until(t, "the exec", func() bool { return h.waitedFor(t) })
}

func (h *heldScript) waitedFor(t *testing.T) bool {
	t.Helper()
	kind, err := unix.FcntlInt(h.file.Fd(), unix.F_GETLEASE, 0)
	require.NoError(t, err)
	return kind != unix.F_WRLCK // what it is to become
}

// release lets the exec go on.
func (h *heldScript) release(t *testing.T) {
	t.Helper()
	_, err := unix.FcntlInt(h.file.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
	require.NoError(t, err)
}

// TestKeeperExecHangs: a command whose exec hangs is kept to the lease as one that runs.
func TestKeeperExecHangs(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		end    func(t *testing.T, k *testKeeper)
		status int
	}{
		"the lease ends":     {func(t *testing.T, k *testKeeper) { k.order(t, "lease NOW 1\n") }, 137},
		"told to stop":       {func(t *testing.T, k *testKeeper) { k.order(t, "stop 0\n") }, 137},
		"told to stop later": {func(t *testing.T, k *testKeeper) { k.order(t, "stop 60000000000\n") }, 143},
		"zkelect is gone":    {func(_ *testing.T, k *testKeeper) { _ = k.orders.Close() }, 137},
		"it goes on":         {nil, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := newJournal(t)
			script := newHeldScript(t, fmt.Sprintf("echo begins >>%q; exit 3", j.path))
			k := startTestKeeperOf(t, "0", script.path)
			k.order(t, "lease NOW 60000000000\n")
			script.hangs(t)
			if c.end == nil {
				script.release(t)
				assert.Equal(t, c.status, k.wait())
				assert.Equal(t, "begins\n", j.read())
				return
			}
			c.end(t, k)
			status := make(chan int, 1)
			go func() { status <- k.wait() }()
			select {
			case s := <-status:
				assert.Equal(t, c.status, s)
			case <-time.After(30 * time.Second):
				t.Error("nobody has ended it while its exec hung")
				script.release(t)
				<-status
			}
			assert.Empty(t, j.read(), "the command began")
		})
	}
}

// TestKeeperBeforeTheLease: the command has its process before it has a lease, and begins with that.
func TestKeeperBeforeTheLease(t *testing.T) {
	t.Parallel()
	for order, want := range map[string]struct {
		status  int
		journal string
	}{
		"stop 0\n":                {exitLost, ""},
		"lease NOW 60000000000\n": {3, "begins\n"},
		"lease NOW 60000000000\nsignal 10\nsignal 3\n": {3, "begins\n"}, // what is passed on is no harm before it is there
	} {
		t.Run(strings.TrimSpace(order), func(t *testing.T) {
			t.Parallel()
			j := newJournal(t)
			script := newHeldScript(t, fmt.Sprintf("echo begins >>%q; exit 3", j.path))
			k := startTestKeeperOf(t, "0", script.path)
			line, err := bufio.NewReader(k.said).ReadString('\n')
			require.NoError(t, err)
			var command int
			_, err = fmt.Sscanf(line, "started %d\n", &command)
			require.NoError(t, err, line)
			require.NoError(t, syscall.Kill(command, 0), "there is no such process")
			time.Sleep(200 * time.Millisecond) // for one that would not wait
			require.False(t, script.waitedFor(t), "the command begins without a lease")
			k.order(t, order)
			if want.journal != "" {
				script.hangs(t)
			}
			if strings.Contains(order, "signal") {
				// What has not been passed on, or taken, when the exec goes on comes to the command itself.
				k.order(t, fmt.Sprintf("signal %d\n", syscall.SIGSTOP))
				until(t, "the command to be stopped", func() bool { return processState(t, command) == "T" })
				require.NoError(t, syscall.Kill(command, syscall.SIGCONT))
				until(t, "the signals to be taken", func() bool { return processState(t, command) != "T" && !signalsWait(t, command) })
			}
			script.release(t)
			assert.Equal(t, want.status, k.wait())
			assert.Equal(t, want.journal, j.read())
		})
	}
}

// processState is a letter, as in /proc.
func processState(t *testing.T, pid int) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	require.NoError(t, err)
	_, behind, _ := strings.Cut(string(text), ") ")
	return behind[:1]
}

// signalsWait reports whether there are signals that no thread of a process has taken.
func signalsWait(t *testing.T, pid int) bool {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	require.NoError(t, err)
	for _, thread := range threads {
		text, err := os.ReadFile(thread)
		if err != nil {
			continue // it has ended
		}
		for line := range strings.Lines(string(text)) {
			name, set, _ := strings.Cut(line, ":")
			if (name == "SigPnd" || name == "ShdPnd") && strings.Trim(set, "0\t\n ") != "" {
				return true
			}
		}
	}
	return false
}

// TestCommandDiesWithItsKeeper: where there is nobody else to kill it the system does.
func TestCommandDiesWithItsKeeper(t *testing.T) {
	t.Parallel()
	j := newJournal(t)
	k := startTestKeeper(t, "0", fmt.Sprintf("echo $$ >>%q; exec sleep 600", j.path))
	k.order(t, "lease NOW 60000000000\n")
	j.has(t, "\n")
	var command group
	_, err := fmt.Sscan(j.read(), &command)
	require.NoError(t, err)
	require.True(t, command.alive())
	require.NoError(t, k.cmd.Process.Kill())
	until(t, "the end of the command", func() bool { return !command.alive() })
	assert.Equal(t, 137, k.wait())
}

// TestRunKilledEarly: who is killed when the command has only just begun leaves nothing of it behind: the keeper, which has had
// no time to say a word since, and both zkelect and the keeper.
func TestRunKilledEarly(t *testing.T) {
	for _, both := range []bool{false, true} {
		t.Run(fmt.Sprintf("both %v", both), func(t *testing.T) {
			if both {
				needsGroups(t)
			}
			onBoth(t, func(t *testing.T, servers string) {
				j := newJournal(t)
				script := newHeldScript(t, fmt.Sprintf("%q %s A %q & wait", os.Args[0], beatArgument, j.path))
				a := start(t, servers, "run", "--election", electionOf(t), "--timeout", "20s", "--", script.path)
				script.hangs(t)
				b := start(t, servers, append([]string{"run", "--election", electionOf(t), "--timeout", "20s", "--"}, j.beats("B")...)...)
				b.says(&b.stderr, "waiting")
				keeper := keeperOf(t, a)
				require.NoError(t, syscall.Kill(keeper, syscall.SIGSTOP))
				script.release(t)
				j.has(t, "A\n")
				if both {
					a.signal(syscall.SIGKILL)
				}
				require.NoError(t, syscall.Kill(keeper, syscall.SIGKILL))
				assert.Equal(t, 137, a.wait())
				until(t, "B to lead", func() bool { return strings.Count(j.read(), "B\n") >= 30 })
				assert.Empty(t, overlap(j.read()), "who went on while another led")
			})
		})
	}
}
