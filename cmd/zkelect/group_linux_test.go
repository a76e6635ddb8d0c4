package main

import (
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// TestGroupOfAChain: as long as a process of a group lives the group does, though each that is looked at may have ended.
func TestGroupOfAChain(t *testing.T) {
	t.Parallel()
	last := filepath.Join(t.TempDir(), "last")
	cmd := exec.Command(os.Args[0], chainArgument, "300", last)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, cmd.Start())
	g := group(cmd.Process.Pid)
	defer func() { _ = g.signal(syscall.SIGKILL) }()
	require.NoError(t, cmd.Wait())
	until(t, "the last of the chain", func() bool {
		for look := range 20 {
			require.True(t, g.alive(), "look %d", look)
		}
		_, err := os.Stat(last)
		return err == nil
	})
	require.NoError(t, g.signal(syscall.SIGKILL))
	until(t, "the end of the chain", func() bool { return !g.alive() })
}

// chainArgument makes the test's binary a chain: a process that forks and ends, so many times, one after another. The last one
// makes a file, and stays until it is killed, or for some minutes.
const chainArgument = "--chain"

func init() {
	if len(os.Args) == 4 && os.Args[1] == chainArgument {
		chain(os.Args[2], os.Args[3])
	}
}

func chain(forks, path string) {
	signal.Ignore(syscall.SIGTERM)
	name, err := syscall.BytePtrFromString(path)
	n, errNumber := strconv.Atoi(forks)
	if err != nil || errNumber != nil {
		os.Exit(2)
	}
	stay := syscall.Timespec{Sec: 300}
	links(n, name, &stay)
}

// links forks behind the back of Go's runtime, so that nothing but system calls can follow.
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
