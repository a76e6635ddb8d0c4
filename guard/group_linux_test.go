package guard

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/internal/child"
)

func init() { child.BeChain() }

// TestGroupOfAChain: as long as a process of a group lives the group does, though each that is looked at may have ended.
func TestGroupOfAChain(t *testing.T) {
	t.Parallel()
	last := filepath.Join(t.TempDir(), "last")
	cmd := child.Chain(300, last)
	require.NoError(t, cmd.Start())
	defer func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }()
	file, err := openPidfd(cmd.Process.Pid)
	require.NoError(t, err)
	defer func() { _ = file.Close() }()
	pidfd := int(file.Fd())
	require.NoError(t, cmd.Wait())
	if errors.Is(signalGroup(pidfd, 0), syscall.EINVAL) {
		t.Skip("the kernel is too old")
	}
	for end := time.Now().Add(time.Minute); ; {
		for look := range 20 {
			require.False(t, groupEnded(pidfd, cmd.Process.Pid), "look %d", look)
		}
		if _, err := os.Stat(last); err == nil {
			break
		}
		require.True(t, time.Now().Before(end), "the chain has no end")
	}
	require.NoError(t, signalGroup(pidfd, syscall.SIGKILL))
	require.Eventually(t, func() bool { return groupEnded(pidfd, cmd.Process.Pid) }, time.Minute, time.Millisecond)
}
