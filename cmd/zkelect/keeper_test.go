//go:build unix

package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
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
		"no order":                       {"sleep 60", "0", []string{"frobnicate\n"}, true, exitLost, ""},
		"ends by itself":                 {"BEGIN; exit 3", "0", []string{lease(time.Minute)}, true, 3, begins},
		"the lease ends":                 {"BEGIN; sleep 60", "0", []string{lease(3 * time.Second)}, true, 137, begins},
		"the lease is not renewed":       {"BEGIN; sleep 60", "0", []string{lease(time.Minute), lease(100 * time.Millisecond)}, true, 137, begins},
		"zkelect is killed":              {"trap 'echo asked >>$0' TERM; BEGIN; while :; do sleep 0.01; done", "0", []string{lease(time.Minute)}, false, 137, begins},
		"stopped":                        {"trap 'exit 4' TERM; BEGIN; while :; do sleep 0.01; done", "0", []string{lease(time.Minute), "stop 60000000000\n"}, true, 4, begins},
		"stopped, and killed":            {"trap '' TERM; BEGIN; while :; do sleep 0.01; done", "0", []string{lease(time.Minute), "stop 300000000\n"}, true, 137, begins},
		"killed without grace":           {"trap 'exit 4' TERM; BEGIN; while :; do sleep 0.01; done", "0", []string{lease(time.Minute), "stop 0\n"}, true, 137, begins},
		"a lease does not unstop":        {"trap '' TERM; BEGIN; while :; do sleep 0.01; done", "0", []string{lease(time.Minute), "stop 300000000\n" + lease(time.Minute)}, true, 137, begins},
		"what it cannot understand":      {"BEGIN; sleep 0.5; exit 5", "0", []string{lease(time.Minute), "frobnicate\nstop soon\nlease 1\n"}, true, 5, begins},
		"stopped, the lease ends":        {"trap '' TERM; BEGIN; while :; do sleep 0.01; done", "0", []string{lease(time.Minute), "stop 60000000000\n" + lease(300*time.Millisecond)}, true, 137, begins},
		"the lease ends, and it may end": {"trap 'exit 6' TERM; BEGIN; while :; do sleep 0.01; done", "1m", []string{lease(time.Minute), lease(100 * time.Millisecond)}, true, 6, begins},
		"it may, and does not":           {"trap '' TERM; BEGIN; while :; do sleep 0.01; done", "300ms", []string{lease(time.Minute), lease(100 * time.Millisecond)}, true, 137, begins},
		"a signal":                       {"trap 'exit 7' USR1; BEGIN; while :; do sleep 0.01; done", "0", []string{lease(time.Minute), fmt.Sprintf("signal %d\n", syscall.SIGUSR1)}, true, 7, begins},
		"it is stopped, and told to end": {"trap 'exit 8' TERM; BEGIN; kill -STOP $$; while :; do sleep 0.01; done", "0", []string{lease(time.Minute), "stop 60000000000\n"}, true, 8, begins},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := newJournal(t)
			theirs, ours, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = ours.Close() }()
			reports, theirReports, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = reports.Close() }()
			cmd := exec.CommandContext(t.Context(), os.Args[0], keeperArgument, "1m", test.overlap, "sh", "-c", strings.Replace(test.command, "BEGIN", "echo begins >>$0", 1), j.path)
			cmd.Env = append(os.Environ(), asZkelect+"=1")
			cmd.ExtraFiles = []*os.File{theirs, theirReports}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			_, _ = theirs.Close(), theirReports.Close()
			for i, order := range test.orders {
				if i > 0 {
					j.has(t, begins)
				}
				if _, err := io.WriteString(ours, strings.ReplaceAll(order, "NOW", strconv.FormatInt(time.Now().UnixNano(), 10))); err != nil {
					t.Fatal(err)
				}
			}
			if !test.hold {
				if len(test.orders) > 0 {
					j.has(t, begins)
				}
				_ = ours.Close()
			}
			began := time.Now()
			_ = cmd.Wait() // statusOf tells
			if got := statusOf(cmd.ProcessState); got != test.status {
				t.Errorf("status %d, want %d", got, test.status)
			}
			if took := time.Since(began); took > 30*time.Second {
				t.Errorf("it took %v", took)
			}
			if got := j.read(); got != test.journal {
				t.Errorf("the journal: %q, want %q", got, test.journal)
			}
		})
	}
}

// TestParseOrder: the time that an order was under way is taken off.
func TestParseOrder(t *testing.T) {
	now := time.Unix(1000, 0)
	for line, want := range map[string]*order{
		"lease 1000000000000 5000000000": {kind: "lease", time: 5 * time.Second},
		"lease 998000000000 5000000000":  {kind: "lease", time: 3 * time.Second},
		"lease 900000000000 5000000000":  {kind: "lease", time: -95 * time.Second},
		"lease 1001000000000 5000000000": {kind: "lease", time: 5 * time.Second}, // a clock that was set back
		"stop 7000000000":                {kind: "stop", time: 7 * time.Second},
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
