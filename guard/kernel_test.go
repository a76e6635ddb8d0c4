//go:build linux

package guard_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

var long = flag.Bool("guard.long", false, "every death fifty times, at up to 100 MiB, and a storm of 5,000 children")

// together saves time and costs precision.
var together = flag.Bool("guard.together", false, "with -guard.long: the ways to die of TestSuccession at the same time")

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
	noGroup(t, "no control group can be frozen", "", frozenIn...)
	return nil
}

// frozenIn and limitedIn are where control groups are that can be frozen, and whose memory can be limited, of version 1
// and 2 each.
var (
	frozenIn  = []string{"/sys/fs/cgroup/freezer", "/sys/fs/cgroup"}
	limitedIn = []string{"/sys/fs/cgroup/memory", "/sys/fs/cgroup"}
)

// noGroup skips the test for want of a control group, or fails it where nothing may be missing and one could be made.
func noGroup(t *testing.T, what, controller string, roots ...string) {
	t.Helper()
	for _, root := range roots {
		if os.Getenv("ELECTION_REQUIRE_ZOOKEEPER") == "1" && makesGroups(root, controller) {
			t.Fatalf("%s, and yet %s is there, and may be written to", what, root)
		}
	}
	t.Skip(what)
}

// makesGroups reports whether this process may make groups in a directory that have a controller. Version 1 has a
// hierarchy for each, version 2 lists those that its children have.
func makesGroups(root, controller string) bool {
	const writable = 2
	if _, err := os.Stat(filepath.Join(root, "cgroup.procs")); err != nil || os.Getuid() != 0 || syscall.Access(root, writable) != nil {
		return false
	}
	has, err := os.ReadFile(filepath.Join(root, "cgroup.subtree_control"))
	return errors.Is(err, os.ErrNotExist) || err == nil && (controller == "" || slices.Contains(strings.Fields(string(has)), controller))
}

func TestMakesGroups(t *testing.T) {
	root := t.TempDir()
	write := func(file, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(root, file), []byte(text), 0o600))
	}
	require.False(t, makesGroups(root, ""), "no control groups at all")
	write("cgroup.procs", "")
	if os.Getuid() != 0 {
		require.False(t, makesGroups(root, ""))
		return
	}
	require.True(t, makesGroups(root, "memory"), "version 1")
	write("cgroup.subtree_control", "cpu pids\n")
	require.False(t, makesGroups(root, "memory"), "not handed on")
	require.True(t, makesGroups(root, ""))
	write("cgroup.subtree_control", "cpu memory pids\n")
	require.True(t, makesGroups(root, "memory"))
}

func getsid(pid int) (int, error) {
	id, _, errno := syscall.Syscall(syscall.SYS_GETSID, uintptr(pid), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(id), nil
}
