//go:build linux

package guard_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

var long = flag.Bool("guard.long", false, "every death fifty times, and a storm of 5,000 children")

// traceUntil stops a process as a debugger does, until release is closed or it is gone.
func traceUntil(pid int, stopped chan<- error, release <-chan struct{}) {
	runtime.LockOSThread() // what is traced belongs to a thread
	defer runtime.UnlockOSThread()
	if err := syscall.PtraceAttach(pid); err != nil {
		stopped <- os.NewSyscallError("ptrace", err)
		return
	}
	var status syscall.WaitStatus
	_, err := syscall.Wait4(pid, &status, syscall.WALL|syscall.WUNTRACED, nil)
	stopped <- os.NewSyscallError("wait", err)
	<-release
	_ = syscall.PtraceDetach(pid)
}

// controlGroup makes a group, which has a file of that name if it is one and no mere directory.
func controlGroup(t *testing.T, root string, number int, file string) (path string, made bool) {
	t.Helper()
	group := filepath.Join(root, fmt.Sprintf("election-guard-%d", number))
	if os.Mkdir(group, 0o755) != nil {
		return "", false
	}
	t.Cleanup(func() {
		until(t, "an empty control group", func() bool { return syscall.Rmdir(group) == nil })
	})
	_, err := os.Stat(filepath.Join(group, file))
	return group, err == nil
}

// freeze puts a process into a control group that is frozen.
func freeze(t *testing.T, pid int) (thaw func()) {
	t.Helper()
	for root, words := range map[string][3]string{
		"/sys/fs/cgroup/freezer": {"freezer.state", "FROZEN", "THAWED"}, "/sys/fs/cgroup": {"cgroup.freeze", "1", "0"},
	} {
		group, made := controlGroup(t, root, pid, words[0])
		if !made {
			continue
		}
		write := func(file, text string) error { return os.WriteFile(filepath.Join(group, file), []byte(text), 0) }
		t.Cleanup(func() { _ = write(words[0], words[2]) })
		if write("cgroup.procs", fmt.Sprint(pid)) == nil && write(words[0], words[1]) == nil {
			return func() { require.NoError(t, write(words[0], words[2])) }
		}
	}
	t.Skip("no control group can be frozen here")
	return nil
}

func getsid(pid int) (int, error) {
	id, _, errno := syscall.Syscall(syscall.SYS_GETSID, uintptr(pid), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(id), nil
}
