//go:build unix

package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestGuard gives orders to a guard, without a zkelect.
func TestGuard(t *testing.T) {
	t.Parallel()
	lease := func(left time.Duration) string { return fmt.Sprintf("lease NOW %d\n", left) }
	const begins = "begins\n"
	for name, test := range map[string]struct {
		command string
		orders  []string // each after the first when the command has begun
		hold    bool     // the pipe stays open: zkelect lives
		status  int
		journal string
	}{
		"gone before it began":      {"sleep 60", nil, false, exitLost, ""},
		"stopped before it began":   {"sleep 60", []string{"stop 60000000000\n"}, true, exitLost, ""},
		"no lease":                  {"sleep 60", []string{"lease 1 60000000000\n"}, true, exitLost, ""},
		"no order":                  {"sleep 60", []string{"frobnicate\n"}, true, exitLost, ""},
		"ends by itself":            {"exit 3", []string{lease(time.Minute)}, true, 3, begins},
		"the lease ends":            {"sleep 60", []string{lease(3 * time.Second)}, true, 137, begins},
		"the lease is not renewed":  {"sleep 60", []string{lease(time.Minute), lease(100 * time.Millisecond)}, true, 137, begins},
		"zkelect is killed":         {"trap 'echo asked >>$0' TERM; while :; do sleep 0.01; done", []string{lease(time.Minute)}, false, 137, begins},
		"stopped":                   {"trap 'exit 4' TERM; while :; do sleep 0.01; done", []string{lease(time.Minute), "stop 60000000000\n"}, true, 4, begins},
		"stopped, and killed":       {"trap '' TERM; while :; do sleep 0.01; done", []string{lease(time.Minute), "stop 300000000\n"}, true, 137, begins},
		"killed without grace":      {"trap 'exit 4' TERM; while :; do sleep 0.01; done", []string{lease(time.Minute), "stop 0\n"}, true, 137, begins},
		"a lease does not unstop":   {"trap '' TERM; while :; do sleep 0.01; done", []string{lease(time.Minute), "stop 300000000\n" + lease(time.Minute)}, true, 137, begins},
		"what it cannot understand": {"sleep 0.5; exit 5", []string{lease(time.Minute), "frobnicate\n"}, true, 5, begins},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := newJournal(t)
			theirs, ours, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = ours.Close() }()
			cmd := exec.CommandContext(t.Context(), os.Args[0], guardArgument, "1m", "sh", "-c", "echo begins >>$0; "+test.command, j.path)
			cmd.Env = append(os.Environ(), asZkelect+"=1")
			cmd.ExtraFiles = []*os.File{theirs}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			_ = theirs.Close()
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
	for _, test := range []struct {
		line string
		left time.Duration
		stop bool
		ok   bool
	}{
		{"lease 1000000000000 5000000000", 5 * time.Second, false, true},
		{"lease 998000000000 5000000000", 3 * time.Second, false, true},
		{"lease 900000000000 5000000000", -95 * time.Second, false, true},
		{"lease 1001000000000 5000000000", 5 * time.Second, false, true}, // a clock that was set back
		{"stop 7000000000", 7 * time.Second, true, true},
		{"", 0, false, false},
		{"lease", 0, false, false},
		{"lease 1", 0, false, false},
		{"lease 1 x", 0, false, false},
		{"stop", 0, false, false},
		{"release 1 1", 0, false, false},
	} {
		left, stop, err := parseOrder(test.line, now)
		if (err == nil) != test.ok || test.ok && (left != test.left || stop != test.stop) {
			t.Errorf("%q: %v, %v, %v", test.line, left, stop, err)
		}
	}
}
