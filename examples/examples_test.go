// Package examples_test builds the examples and runs each as a process, on the
// in-process server and on a real ZooKeeper.
package examples_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/testutil/realzk"
)

// binaries is the directory of the built examples.
var binaries string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "examples")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer func() { _ = os.RemoveAll(dir) }()
		binaries = dir
		args := []string{"build", "-o", dir + "/"}
		if raceEnabled() {
			args = append(args, "-race")
		}
		build := exec.Command("go", append(args, "./...")...)
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "go %s: %v\n%s", strings.Join(build.Args[1:], " "), err, out)
			return 1
		}
		defer func() {
			if zooKeeper.started != nil {
				zooKeeper.started.Close()
			}
		}()
		return m.Run()
	}())
}

// raceEnabled reports whether this test was built with the race detector; the
// examples then are, too.
func raceEnabled() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// lasting is for examples in which a session that lapses by itself is no part
// of the story. They wait for as long, so it is not their default.
const lasting = "-timeout=10s"

// zooKeeper is one real server for all examples.
var zooKeeper struct {
	once    sync.Once
	started *realzk.Ensemble
	err     error
}

func realServers(t *testing.T) string {
	t.Helper()
	zooKeeper.once.Do(func() {
		zooKeeper.started, zooKeeper.err = realzk.LaunchZooKeeper(binaries, 1, realzk.EnsembleOptions{})
	})
	if errors.Is(zooKeeper.err, realzk.ErrNoZooKeeper) && os.Getenv("ELECTION_REQUIRE_ZOOKEEPER") != "1" {
		t.Skip(zooKeeper.err)
	}
	require.NoError(t, zooKeeper.err)
	return strings.Join(zooKeeper.started.Servers(), ",")
}

// onBoth runs an example, and again with -servers on a real ZooKeeper, and gives
// what it printed to check.
func onBoth(t *testing.T, name string, check func(output string) error, flags ...string) {
	t.Helper()
	t.Run("in-process", func(t *testing.T) {
		t.Parallel()
		runExample(t, check, name, flags...)
	})
	t.Run("ZooKeeper", func(t *testing.T) {
		t.Parallel()
		runExample(t, check, name, append(slices.Clone(flags), "-servers", realServers(t))...)
	})
}

func runExample(t *testing.T, check func(output string) error, name string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(binaries, name), args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	began := time.Now()
	err := cmd.Run()
	t.Logf("%s %s: %v\n%s%s", name, strings.Join(args, " "), time.Since(began).Round(time.Millisecond), &stdout, &stderr)
	require.NoError(t, err)
	assert.Zero(t, stderr.Len(), "it wrote to standard error")
	assert.NoError(t, check(stdout.String()))
}

// TestLength keeps the examples short enough to be read.
func TestLength(t *testing.T) {
	sources, err := filepath.Glob("*/*.go")
	require.NoError(t, err)
	require.NotEmpty(t, sources)
	for _, path := range sources {
		source, err := os.ReadFile(path)
		require.NoError(t, err)
		assert.LessOrEqual(t, bytes.Count(source, []byte("\n")), 150, "the lines of %s", path)
	}
}

// TestFailure: an example that cannot go on says why.
func TestFailure(t *testing.T) {
	t.Parallel()
	sources, err := filepath.Glob("*/main.go")
	require.NoError(t, err)
	require.NotEmpty(t, sources)
	for _, source := range sources {
		name := filepath.Dir(source)
		out, err := exec.CommandContext(t.Context(), filepath.Join(binaries, name), "-servers", ",").CombinedOutput()
		var code *exec.ExitError
		require.ErrorAs(t, err, &code, "%s with an empty address", name)
		assert.Equal(t, 1, code.ExitCode(), "%s with an empty address", name)
		assert.Contains(t, string(out), `server 1 of 2, "": it is empty`, "%s with an empty address", name)
	}
}
