package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestRunWaitsForTheCommand: the command's keeper stands still in a debugger, and the guard of the session, which is on a
// socket, may not end the command: so that goes on when zkelect is killed. The next one does not lead before it has ended.
func TestRunWaitsForTheCommand(t *testing.T) {
	onBoth(t, func(t *testing.T, servers string) {
		j := newJournal(t)
		socket := filepath.Join(t.TempDir(), "guard")
		g := start(t, "", "guard", "--listen", socket)
		g.says(&g.stderr, "listening")
		a, _ := successors(t, servers, j, "--guard", socket)
		keeper := keeperOf(t, a)
		release := trace(t, keeper)
		a.signal(syscall.SIGKILL)
		before := strings.Count(j.read(), "A\n")
		until(t, "a second of the command's life", func() bool { return strings.Count(j.read(), "A\n") > before+50 })
		assert.False(t, strings.Contains(j.read(), "B\n"), "B leads while A's command goes on")
		release()
		leadsSoon(t, j)
	})
}

// TestRunEndsTheCommand: where the command's keeper stands still, the guard of the session ends the command.
func TestRunEndsTheCommand(t *testing.T) {
	needsGroups(t)
	onBoth(t, func(t *testing.T, servers string) {
		j := newJournal(t)
		a, _ := successors(t, servers, j)
		keeper := keeperOf(t, a)
		command := children(t, keeper)[0]
		release := trace(t, keeper)
		a.signal(syscall.SIGKILL)
		until(t, "the end of the command", func() bool {
			stat := (journal{fmt.Sprintf("/proc/%d/stat", command)}).read()
			return stat == "" || strings.Contains(stat, ") Z ")
		})
		release()
		leadsSoon(t, j)
	})
}

// needsGroups skips the test before Linux 6.9, which has signals for the group of a pidfd.
func needsGroups(t *testing.T) {
	t.Helper()
	var major, minor int
	_, err := fmt.Sscanf((journal{"/proc/sys/kernel/osrelease"}).read(), "%d.%d", &major, &minor)
	require.NoError(t, err)
	if major < 6 || major == 6 && minor < 9 {
		t.Skip("the kernel is too old")
	}
}

// keeperOf is the process that holds the command.
func keeperOf(t *testing.T, a *process) int {
	t.Helper()
	for _, child := range children(t, a.cmd.Process.Pid) {
		if len(children(t, child)) > 0 {
			return child
		}
	}
	t.Fatal("the command has no keeper")
	return 0
}

// TestRunKilledWithTheKeeper: zkelect and its command's keeper are killed by their numbers, at the same time. What the command
// has started is ended all the same, before the next one leads.
func TestRunKilledWithTheKeeper(t *testing.T) {
	needsGroups(t)
	onBoth(t, func(t *testing.T, servers string) {
		j := newJournal(t)
		a, _ := successors(t, servers, j)
		var keeper, command int
		for _, child := range children(t, a.cmd.Process.Pid) {
			if its := children(t, child); len(its) > 0 {
				keeper, command = child, its[0]
			}
		}
		require.NotZero(t, keeper, "the command has no keeper")
		require.NotEmpty(t, children(t, command), "the command has no children")
		require.NoError(t, syscall.Kill(keeper, syscall.SIGSTOP)) // or it may end the command, and itself, in between
		for _, pid := range []int{a.cmd.Process.Pid, keeper} {
			require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
		}
		leadsSoon(t, j)
		until(t, "the end of the command's group", func() bool { return syscall.Kill(-command, 0) != nil })
	})
}

// heldWriter takes nothing while mu is locked.
type heldWriter struct {
	waiting atomic.Int32
	mu      sync.Mutex
}

func (h *heldWriter) Write(p []byte) (int, error) {
	h.waiting.Add(1)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.waiting.Add(-1)
	return len(p), nil
}

// TestNotifyGuardHangs: the watchdog does not hear of a guard that hangs, which is here one whose log takes no line.
func TestNotifyGuardHangs(t *testing.T) {
	t.Parallel()
	s := newSystemd(t)
	log := new(heldWriter)
	socket := filepath.Join(t.TempDir(), "guard")
	e := &env{stdout: io.Discard, stderr: log, getenv: func(name string) string {
		return map[string]string{"NOTIFY_SOCKET": s.path, "WATCHDOG_USEC": "300000"}[name]
	}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() { ended <- execute(ctx, e, []string{"guard", "--listen", socket}) }()
	alive := func() {
		t.Helper()
		_, before := s.said()
		until(t, "signs of life", func() bool { _, now := s.said(); return now > before+3 })
	}
	alive()
	log.mu.Lock()
	a := start(t, inProcess(t), "run", "--guard", socket, "--election", "e", "--", "sleep", "600")
	until(t, "the guard to hang", func() bool { return log.waiting.Load() > 0 })
	until(t, "no sign of life for a second", func() bool {
		_, before := s.said()
		time.Sleep(time.Second)
		_, after := s.said()
		return before == after
	})
	log.mu.Unlock()
	alive()
	_ = a.cmd.Process.Signal(syscall.SIGTERM) // after some seconds it has given this guard up, and ended by itself
	a.wait()
	cancel()
	assert.Equal(t, exitOK, <-ended)
}

// trace stops a process as a debugger does, all of its threads, until release is called.
func trace(t *testing.T, pid int) (release func()) {
	t.Helper()
	stopped, over := make(chan error), make(chan struct{})
	var tracing sync.WaitGroup
	tracing.Go(func() {
		runtime.LockOSThread() // what is traced belongs to a thread
		defer runtime.UnlockOSThread()
		traced := map[int]bool{}
		err := attach(pid, traced)
		stopped <- err
		<-over
		// The threads that go on first may end the process. What has died traced nobody else reaps, and the process has not
		// ended before: the main thread is the last.
		for thread := range traced {
			if thread != pid && syscall.PtraceDetach(thread) != nil {
				_, _ = syscall.Wait4(thread, nil, syscall.WALL, nil)
			}
		}
		if syscall.PtraceDetach(pid) != nil {
			_, _ = syscall.Wait4(pid, nil, syscall.WALL, nil)
		}
		// A thread may have stopped for another signal, as Go's runtime sends them, with the attachment's SIGSTOP still to come.
		_ = syscall.Kill(pid, syscall.SIGCONT)
	})
	release = sync.OnceFunc(func() { close(over); tracing.Wait() })
	t.Cleanup(release)
	require.NoError(t, <-stopped)
	return release
}

// attach goes on until there is no thread that is not traced: those that are cannot make others.
func attach(pid int, traced map[int]bool) error {
	for {
		threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			return err
		}
		before := len(traced)
		for _, entry := range threads {
			thread, err := strconv.Atoi(entry.Name())
			if err != nil || traced[thread] {
				continue
			}
			if err := syscall.PtraceAttach(thread); err != nil {
				return os.NewSyscallError("ptrace", err)
			}
			traced[thread] = true
			var status syscall.WaitStatus
			if _, err := syscall.Wait4(thread, &status, syscall.WALL|syscall.WUNTRACED, nil); err != nil {
				return os.NewSyscallError("wait", err)
			}
		}
		if len(traced) == before {
			return nil
		}
	}
}
