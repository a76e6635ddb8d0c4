package proc_test

import (
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/internal/proc"
)

// What this program is as the process of a test, by its first argument.
const (
	chainArgument    = "--chain"         // FORKS FILE: see links
	threadedArgument = "--threads-alone" // its main thread ends, and others go on
)

// The main goroutine is on the main thread here, and nowhere else for sure.
func init() {
	switch {
	case len(os.Args) == 4 && os.Args[1] == chainArgument:
		signal.Ignore(syscall.SIGTERM)
		forks, errForks := strconv.Atoi(os.Args[2])
		path, errPath := syscall.BytePtrFromString(os.Args[3])
		if errForks != nil || errPath != nil {
			os.Exit(2)
		}
		links(forks, path, &syscall.Timespec{Sec: 300})
	case len(os.Args) == 2 && os.Args[1] == threadedArgument:
		go func() {
			time.Sleep(5 * time.Minute)
			os.Exit(0)
		}()
		_, _, _ = syscall.RawSyscall(syscall.SYS_EXIT, 0, 0, 0)
	}
}

// links is a chain: a process that forks and ends, so many times, one after another. The last one makes a file, and stays until
// it is killed, or for some minutes. It forks behind the back of Go's runtime, so that nothing but system calls can follow.
//
//go:nosplit
//go:norace
func links(n int, path *byte, stay *syscall.Timespec) {
	for ; n > 0; n-- {
		if pid, _, _ := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0); pid != 0 {
			_, _, _ = syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
	here := -100 // AT_FDCWD
	_, _, _ = syscall.RawSyscall6(syscall.SYS_OPENAT, uintptr(here), uintptr(unsafe.Pointer(path)), syscall.O_CREAT|syscall.O_WRONLY, 0o600, 0, 0)
	_, _, _ = syscall.RawSyscall6(syscall.SYS_PPOLL, 0, 0, uintptr(unsafe.Pointer(stay)), 0, 0, 0)
	_, _, _ = syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
}

// start starts this program in a process group of its own.
func start(t *testing.T, arguments ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], arguments...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	})
	return cmd
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, time.Minute, time.Millisecond, what)
}

// TestGroupOfAChain: as long as a process of a group lives the group does, though each that is looked at may have ended.
func TestGroupOfAChain(t *testing.T) {
	t.Parallel()
	last := filepath.Join(t.TempDir(), "last")
	cmd := start(t, chainArgument, "300", last)
	group := cmd.Process.Pid
	for end := time.Now().Add(time.Minute); ; {
		for look := range 20 {
			require.False(t, proc.GroupEnded(group, proc.Ended), "look %d", look)
		}
		if _, err := os.Stat(last); err == nil {
			break
		}
		require.True(t, time.Now().Before(end), "the chain has no end")
	}
	require.NoError(t, syscall.Kill(-group, syscall.SIGKILL))
	until(t, "the end of the chain", func() bool { return proc.GroupEnded(group, proc.Ended) })
	require.NoError(t, cmd.Wait())
	until(t, "nobody is left, of whom something is known", func() bool { return !proc.GroupEnded(group, proc.Ended) })
}

// TestThreadsWithoutTheMainOne: a process whose main thread has ended shows as a zombie, and works.
func TestThreadsWithoutTheMainOne(t *testing.T) {
	t.Parallel()
	cmd := start(t, threadedArgument)
	pid := cmd.Process.Pid
	until(t, "the end of the main thread", func() bool {
		stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
		require.NoError(t, err)
		return strings.Contains(string(stat), ") Z ")
	})
	over, err := proc.Ended(pid)
	require.NoError(t, err)
	require.False(t, over)
	require.False(t, proc.GroupEnded(pid, proc.Ended))
	require.NoError(t, cmd.Process.Kill())
	until(t, "the end of all", func() bool { over, err := proc.Ended(pid); return err == nil && over })
	require.True(t, proc.GroupEnded(pid, proc.Ended))
}

func TestStopped(t *testing.T) {
	t.Parallel()
	cmd := start(t, threadedArgument)
	stopped := func() bool {
		all, err := proc.Stopped(cmd.Process.Pid)
		require.NoError(t, err)
		return all
	}
	require.False(t, stopped())
	require.NoError(t, cmd.Process.Signal(syscall.SIGSTOP))
	until(t, "the stop of all threads", stopped)
	require.NoError(t, cmd.Process.Signal(syscall.SIGCONT))
	until(t, "that they go on", func() bool { return !stopped() })
	_, err := proc.Stopped(1 << 30)
	require.ErrorIs(t, err, os.ErrNotExist)
}
