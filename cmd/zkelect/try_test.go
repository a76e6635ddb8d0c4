//go:build unix

package main

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
)

// TestRunTry: a job that others have begun is not run once more.
func TestRunTry(t *testing.T) {
	onBoth(t, func(t *testing.T, servers string) {
		try := func() (status int, stdout, stderr string) {
			return zkelect(t, servers, "run", "--try", "--election", electionOf(t), "--", "echo", "it runs")
		}
		if status, stdout, _ := try(); status != 0 || stdout != "it runs\n" {
			t.Errorf("nobody: status %d, %q", status, stdout)
		}
		j := newJournal(t)
		a := start(t, servers, append([]string{"run", "--data", "host a", "--election", electionOf(t), "--"}, j.beats("A")...)...)
		j.has(t, "A\n")
		status, stdout, stderr := try()
		if status != exitOther || stdout != "" || stderr != fmt.Sprintf("zkelect: \"host a\" leads %s: not running echo\n", electionOf(t)) {
			t.Errorf("A leads: status %d, %q, %q", status, stdout, stderr)
		}
		a.signal(syscall.SIGTERM)
		a.wait()
		if status, _, _ := try(); status != 0 {
			t.Errorf("after A: status %d", status)
		}
	})
}

// TestRunTryAtOnce: of those that cron begins in the same moment one runs, and the others do not.
func TestRunTryAtOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, servers string) {
		const hosts = 5
		j := newJournal(t)
		var all []*process
		for range hosts {
			// It goes on until the others have given up.
			all = append(all, start(t, servers, "run", "--try", "--election", electionOf(t), "--", "sh", "-c",
				fmt.Sprintf("echo begins >>%q; trap exit TERM; while :; do sleep 0.05; done", j.path)))
		}
		j.has(t, "begins\n")
		gaveUp := 0
		until(t, "all but one to give up", func() bool {
			gaveUp = 0
			for _, p := range all {
				select {
				case <-p.exited:
					gaveUp++
				default:
				}
			}
			return gaveUp == hosts-1
		})
		for _, p := range all {
			select {
			case <-p.exited:
				if status := statusOf(p.cmd.ProcessState); status != exitOther {
					t.Errorf("status %d, want %d", status, exitOther)
				}
			default:
				p.signal(syscall.SIGTERM)
				p.wait()
			}
		}
		if got := j.read(); got != "begins\n" {
			t.Errorf("the journal: %q", got)
		}
	})
}

// TestRunSaysWhoLeads: one that waits says for whom, and says it again when that changes.
func TestRunSaysWhoLeads(t *testing.T) {
	onBoth(t, func(t *testing.T, servers string) {
		j := newJournal(t)
		a, b := pair(t, servers, j)
		b.says(&b.stderr, fmt.Sprintf("zkelect: waiting: A leads %s\n", electionOf(t)))
		c := start(t, servers, append([]string{"run", "--election", electionOf(t), "--"}, j.beats("C")...)...)
		c.says(&c.stderr, "waiting: A leads")
		a.signal(syscall.SIGTERM)
		c.says(&c.stderr, "waiting: B leads")
		if n := strings.Count(b.stderr.String(), "waiting"); n != 1 {
			t.Errorf("B says it %d times", n)
		}
	})
}
