//go:build unix

package main

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
)

// TestRunTry: a job that others have begun is not run once more.
func TestRunTry(t *testing.T) {
	onBoth(t, func(t *testing.T, servers string) {
		try := func() (status int, stdout, stderr string) {
			return zkelect(t, servers, "run", "--try", "--election", electionOf(t), "--", "echo", "it runs")
		}
		status, stdout, _ := try()
		assert.Zero(t, status, "nobody leads")
		assert.Equal(t, "it runs\n", stdout, "nobody leads")
		j := newJournal(t)
		a := start(t, servers, append([]string{"run", "--data", "host a", "--election", electionOf(t), "--"}, j.beats("A")...)...)
		j.has(t, "A\n")
		status, stdout, stderr := try()
		assert.Equal(t, exitOther, status, "A leads")
		assert.Empty(t, stdout, "A leads")
		assert.Equal(t, fmt.Sprintf("zkelect: \"host a\" leads %s: not running echo\n", electionOf(t)), unhurried(stderr), "A leads")
		a.signal(syscall.SIGTERM)
		a.wait()
		status, _, _ = try()
		assert.Zero(t, status, "after A")
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
				assert.Equal(t, exitOther, statusOf(p.cmd.ProcessState))
			default:
				p.signal(syscall.SIGTERM)
				p.wait()
			}
		}
		assert.Equal(t, "begins\n", j.read(), "the journal")
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
		assert.Equal(t, 1, strings.Count(unhurried(b.stderr.String()), "waiting"), "how often B says it")
	})
}
