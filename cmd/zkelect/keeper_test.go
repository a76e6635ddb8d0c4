//go:build unix

package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestKeeper gives orders to a keeper, without a zkelect.
func TestKeeper(t *testing.T) {
	t.Parallel()
	lease := func(left time.Duration) string { return fmt.Sprintf("lease NOW %d\n", left) }
	const begins = "begins\n"
	for name, test := range map[string]struct {
		command string
		overlap string
		orders  []string // each after the first when the command has begun
		hold    bool     // the pipe stays open: zkelect lives
		status  int
		journal string
	}{
		"gone before it began":           {"sleep 60", "0", nil, false, exitLost, ""},
		"stopped before it began":        {"sleep 60", "0", []string{"stop 60000000000\n"}, true, exitLost, ""},
		"no lease":                       {"sleep 60", "0", []string{"lease 1 60000000000\n"}, true, exitLost, ""},
		"slow to begin":                  {"BEGIN; exit 3", "0", []string{"lease NOW 1\nsignal 28\n" + lease(time.Minute)}, true, 3, begins},
		"slow to begin, and stopped":     {"sleep 60", "0", []string{"lease NOW 1\nstop 0\n" + lease(time.Minute)}, true, exitLost, ""},
		"no order":                       {"sleep 60", "0", []string{"frobnicate\n"}, true, exitLost, ""},
		"ends by itself":                 {"BEGIN; exit 3", "0", []string{lease(time.Minute)}, true, 3, begins},
		"the lease ends":                 {"BEGIN; sleep 60", "0", []string{lease(10 * time.Second)}, true, 137, begins},
		"the lease is not renewed":       {"BEGIN; sleep 60", "0", []string{lease(time.Minute), lease(100 * time.Millisecond)}, true, 137, begins},
		"zkelect is killed":              {"trap 'echo asked >>$0' TERM; BEGIN; while :; do sleep 0.05; done", "0", []string{lease(time.Minute)}, false, 137, begins},
		"stopped":                        {"trap 'exit 4' TERM; BEGIN; while :; do sleep 0.05; done", "0", []string{lease(time.Minute), "stop 60000000000\n"}, true, 4, begins},
		"stopped, and killed":            {"trap '' TERM; BEGIN; while :; do sleep 0.05; done", "0", []string{lease(time.Minute), "stop 300000000\n"}, true, 137, begins},
		"killed without grace":           {"trap 'exit 4' TERM; BEGIN; while :; do sleep 0.05; done", "0", []string{lease(time.Minute), "stop 0\n"}, true, 137, begins},
		"a lease does not unstop":        {"trap '' TERM; BEGIN; while :; do sleep 0.05; done", "0", []string{lease(time.Minute), "stop 300000000\n" + lease(time.Minute)}, true, 137, begins},
		"what it cannot understand":      {"trap 'sleep 1; exit 5' USR1; BEGIN; while :; do sleep 0.05; done", "0", []string{lease(time.Minute), fmt.Sprintf("frobnicate\nstop soon\nlease 1\nsignal %d\n", syscall.SIGUSR1)}, true, 5, begins},
		"stopped, the lease ends":        {"trap '' TERM; BEGIN; while :; do sleep 0.05; done", "0", []string{lease(time.Minute), "stop 60000000000\n" + lease(300*time.Millisecond)}, true, 137, begins},
		"the lease ends, and it may end": {"trap 'exit 6' TERM; BEGIN; while :; do sleep 0.05; done", "1m", []string{lease(time.Minute), lease(100 * time.Millisecond)}, true, 6, begins},
		"it may, and does not":           {"trap '' TERM; BEGIN; while :; do sleep 0.05; done", "300ms", []string{lease(time.Minute), lease(100 * time.Millisecond)}, true, 137, begins},
		"a signal":                       {"trap 'exit 7' USR1; BEGIN; while :; do sleep 0.05; done", "0", []string{lease(time.Minute), fmt.Sprintf("signal %d\n", syscall.SIGUSR1)}, true, 7, begins},
		"it is stopped, and told to end": {"trap 'exit 8' TERM; BEGIN; kill -STOP $$; while :; do sleep 0.05; done", "0", []string{lease(time.Minute), "stop 60000000000\n"}, true, 8, begins},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := newJournal(t)
			k := startTestKeeper(t, test.overlap, strings.Replace(test.command, "BEGIN", "echo begins >>$0", 1), j.path)
			for i, order := range test.orders {
				if i > 0 {
					j.has(t, begins)
				}
				k.order(t, order)
			}
			if !test.hold {
				if len(test.orders) > 0 {
					j.has(t, begins)
				}
				_ = k.orders.Close()
			}
			began := time.Now()
			assert.Equal(t, test.status, k.wait())
			assert.LessOrEqual(t, time.Since(began), 30*time.Second)
			assert.Equal(t, test.journal, j.read(), "the journal")
		})
	}
}

// testKeeper is a keeper whose zkelect is the test.
type testKeeper struct {
	cmd    *exec.Cmd
	orders *os.File
	said   *os.File
}

func startTestKeeper(t *testing.T, overlap, script string, args ...string) *testKeeper {
	t.Helper()
	return startTestKeeperOf(t, overlap, append([]string{"sh", "-c", script}, args...)...)
}

func startTestKeeperOf(t *testing.T, overlap string, command ...string) *testKeeper {
	t.Helper()
	return startTestKeeperSaying(t, nil, overlap, command...)
}

func startTestKeeperSaying(t *testing.T, stderr *os.File, overlap string, command ...string) *testKeeper {
	t.Helper()
	theirs, orders, err := os.Pipe()
	require.NoError(t, err)
	said, theirReports, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() { _, _ = orders.Close(), said.Close() })
	cmd := exec.CommandContext(t.Context(), os.Args[0], append([]string{keeperArgument, "1m", overlap}, command...)...)
	cmd.Env = append(os.Environ(), asZkelect+"=1")
	cmd.ExtraFiles = []*os.File{theirs, theirReports}
	if stderr != nil {
		cmd.Stderr = stderr
	}
	require.NoError(t, cmd.Start())
	_, _ = theirs.Close(), theirReports.Close()
	return &testKeeper{cmd, orders, said}
}

// order writes orders that are sent NOW.
func (k *testKeeper) order(t *testing.T, orders string) {
	t.Helper()
	_, err := io.WriteString(k.orders, strings.ReplaceAll(orders, "NOW", strconv.FormatInt(time.Now().UnixNano(), 10)))
	require.NoError(t, err)
}

// wait returns the exit status.
func (k *testKeeper) wait() int {
	_ = k.cmd.Wait() // statusOf tells
	return statusOf(k.cmd.ProcessState)
}

// reports are those of a keeper that has ended.
func (k *testKeeper) reports(t *testing.T) []string {
	t.Helper()
	all, err := io.ReadAll(k.said)
	require.NoError(t, err)
	// On a slow machine a killed command may take a moment to end, which is said.
	return slices.DeleteFunc(strings.Split(strings.TrimSpace(string(all)), "\n"), func(report string) bool {
		return strings.HasPrefix(report, "blocked ")
	})
}

// TestKeeperStoodStill: an order that lies in the pipe when a keeper that has stood still beyond the lease goes on counts.
func TestKeeperStoodStill(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		order   string
		status  int
		reports []string
	}{
		"renewed in time":             {fmt.Sprintf("lease NOW 60000000000\nsignal %d\n", syscall.SIGUSR1), 7, []string{"ended"}},
		"renewed too late for itself": {"lease NOW 1\n", 137, []string{"lapsed", "killed", "ended"}},
		"nothing":                     {"", 137, []string{"lapsed", "killed", "ended"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j, end := newJournal(t), newJournal(t)
			k := startTestKeeper(t, "0", fmt.Sprintf(`trap 'echo heard >>%q' USR1; echo begins >>%[1]q; until [ -e %[2]q ]; do sleep 0.05; done; exit 7`, j.path, end.path))
			k.order(t, "lease NOW 60000000000\n")
			j.has(t, "begins\n")
			const short = 5 * time.Second
			ends := time.Now().Add(short)
			k.order(t, fmt.Sprintf("lease NOW %d\nsignal %d\n", short, syscall.SIGUSR1))
			j.has(t, "heard\n") // so the keeper knows of the short lease
			require.NoError(t, k.cmd.Process.Signal(syscall.SIGSTOP))
			k.order(t, strings.Repeat("lease NOW 1\n", 20)+test.order)
			time.Sleep(time.Until(ends.Add(100 * time.Millisecond)))
			require.NoError(t, k.cmd.Process.Signal(syscall.SIGCONT))
			release := func() { _ = os.WriteFile(end.path, nil, 0o600) }
			if test.status == 137 {
				defer time.AfterFunc(time.Minute, release).Stop() // one that is not killed ends, too
			} else {
				j.has(t, "heard\nheard\n") // so the keeper has been over the end of the short lease, and has not killed
				release()
			}
			assert.Equal(t, test.status, k.wait())
			assert.Equal(t, test.reports, k.reports(t)[1:])
		})
	}
}

// TestParseOrder: the time that an order was under way is taken off.
func TestParseOrder(t *testing.T) {
	now := time.Unix(1000, 0)
	for line, want := range map[string]*order{
		"lease 1000000000000 5000000000": {kind: "lease", until: now.Add(5 * time.Second)},
		"lease 998000000000 5000000000":  {kind: "lease", until: now.Add(3 * time.Second)},
		"lease 900000000000 5000000000":  {kind: "lease", until: now.Add(-95 * time.Second)},
		"lease 1001000000000 5000000000": {kind: "lease", until: now.Add(5 * time.Second)}, // a clock that was set back
		"stop 7000000000":                {kind: "stop", grace: 7 * time.Second},
		"signal 10":                      {kind: "signal", sig: 10},
		"":                               nil,
		"lease":                          nil,
		"lease 1":                        nil,
		"lease 1 x":                      nil,
		"stop":                           nil,
		"signal":                         nil,
		"release 1 1":                    nil,
	} {
		got, err := parseOrder(line, now)
		if (err == nil) != (want != nil) || want != nil && got != *want {
			t.Errorf("%q: %+v, %v", line, got, err)
		}
	}
}

// TestKeeperUnheard: what a command that cannot be executed is reported by is its status, whether anybody reads the line or not.
func TestKeeperUnheard(t *testing.T) {
	t.Parallel()
	script := filepath.Join(t.TempDir(), "script")
	require.NoError(t, os.WriteFile(script, []byte("#!/no/such/interpreter\n"), 0o700)) //nolint:gosec // to be executed
	for _, full := range []bool{false, true} {
		reads, stderr, err := os.Pipe()
		require.NoError(t, err)
		if full { // and nobody reads
			require.NoError(t, stderr.SetWriteDeadline(time.Now().Add(100*time.Millisecond)))
			for err == nil {
				_, err = stderr.Write(make([]byte, 4096))
			}
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		} else {
			_ = reads.Close()
		}
		k := startTestKeeperSaying(t, stderr, "0", script)
		k.order(t, "lease NOW 60000000000\n")
		assert.Equal(t, 127, k.wait(), "full: %v", full)
		_, _ = reads.Close(), stderr.Close()
	}
}
