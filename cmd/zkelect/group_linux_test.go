package main

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

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
