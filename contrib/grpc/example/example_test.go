package main

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/testutil/realzk"
)

var printed = regexp.MustCompile(`^all clients are answered by alpha, which now resigns
all clients are answered by beta, which now is shut down
all clients are answered by gamma, which now loses its session
all clients are answered by alpha
\d+ calls, and not one has failed; the longest took \d+\.\d s
$`)

// TestExample runs it as a process, under the race detector if this test does.
// A call that fails ends it.
func TestExample(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "example")
	args := []string{"build", "-o", binary}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		args = append(args, "-race")
	}
	out, err := exec.CommandContext(t.Context(), "go", append(args, ".")...).CombinedOutput()
	require.NoError(t, err, string(out))
	run := func(t *testing.T, args ...string) {
		cmd := exec.CommandContext(t.Context(), binary, args...)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		require.NoError(t, cmd.Run(), "%s%s", &stdout, &stderr)
		assert.Regexp(t, printed, stdout.String())
		assert.Empty(t, stderr.String())
	}
	t.Run("in-process", func(t *testing.T) { run(t) })
	t.Run("ZooKeeper", func(t *testing.T) {
		run(t, "-servers", strings.Join(realzk.StartZooKeeper(t, 1).Servers(), ","))
	})
}

// TestPrinted is the negative control.
func TestPrinted(t *testing.T) {
	assert.NotRegexp(t, printed, "all clients are answered by alpha, which now resigns\n")
}
