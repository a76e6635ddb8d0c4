package proc_test

import (
	"errors"
	"fmt"
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
	reaperArgument   = "--reaper"        // FORKS FILE: see reaper
	parentArgument   = "--parent"        // FORKS FILE: starts a chain, tells its number, and leaves it a zombie
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
	case len(os.Args) == 4 && os.Args[1] == reaperArgument:
		reaper(os.Args[2], os.Args[3])
	case len(os.Args) == 4 && os.Args[1] == parentArgument:
		chain := exec.Command(os.Args[0], chainArgument, os.Args[2], os.Args[3])
		chain.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if chain.Start() != nil {
			os.Exit(2)
		}
		_, _ = fmt.Println(chain.Process.Pid)
		time.Sleep(5 * time.Minute)
		os.Exit(0)
	case len(os.Args) == 2 && os.Args[1] == threadedArgument:
		go func() {
			time.Sleep(5 * time.Minute)
			os.Exit(0)
		}()
		_, _, _ = syscall.RawSyscall(syscall.SYS_EXIT, 0, 0, 0)
	}
}

// reaper has a child start a chain, whose links become its own children when their parent ends: it reaps each at once, as the
// first process of a machine or a container does. The first link is that child's, and nobody reaps it.
func reaper(forks, path string) {
	const setChildSubreaper = 36
	_, _, errno := syscall.Syscall(syscall.SYS_PRCTL, setChildSubreaper, 1, 0)
	parent := exec.Command(os.Args[0], parentArgument, forks, path)
	parent.Stdout = os.Stdout
	if errno != 0 || parent.Start() != nil {
		os.Exit(2)
	}
	for {
		if _, err := syscall.Wait4(-1, nil, 0, nil); err != nil && !errors.Is(err, syscall.EINTR) {
			os.Exit(2) // none is left
		}
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
	return startWith(t, nil, arguments...)
}

// startWith starts it with that standard output.
func startWith(t *testing.T, stdout *os.File, arguments ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], arguments...)
	if stdout != nil {
		cmd.Stdout = stdout
	}
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
	goesOn(t, group, last)
	require.NoError(t, syscall.Kill(-group, syscall.SIGKILL))
	until(t, "the end of the chain", func() bool { return proc.GroupEnded(group, proc.Ended) })
	require.NoError(t, cmd.Wait())
	until(t, "nobody is left, of whom something is known", func() bool { return !proc.GroupEnded(group, proc.Ended) })
}

// TestGroupOfAReapedChain: the same where each process is reaped as soon as it has ended, but for the first: all that is seen
// of the group is that one, at each look.
func TestGroupOfAReapedChain(t *testing.T) {
	t.Parallel()
	last := filepath.Join(t.TempDir(), "last")
	out, in, err := os.Pipe()
	require.NoError(t, err)
	defer func() { _ = out.Close() }()
	startWith(t, in, reaperArgument, "1000", last)
	_ = in.Close()
	var group int
	_, err = fmt.Fscan(out, &group)
	require.NoError(t, err)
	defer func() { _ = syscall.Kill(-group, syscall.SIGKILL) }()
	goesOn(t, group, last)
	require.NoError(t, syscall.Kill(-group, syscall.SIGKILL))
	until(t, "the end of the chain", func() bool { return proc.GroupEnded(group, proc.Ended) })
}

// goesOn looks at the group of a chain until that has made its file.
func goesOn(t *testing.T, group int, last string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		for look := range 20 {
			require.False(t, proc.GroupEnded(group, proc.Ended), "look %d", look)
		}
		if _, err := os.Stat(last); err == nil {
			return
		}
		require.True(t, time.Now().Before(end), "the chain has no end")
	}
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
	until(t, "the end of the group", func() bool { return proc.GroupEnded(pid, proc.Ended) })
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
