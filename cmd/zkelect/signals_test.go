//go:build unix

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestSignals: what each signal does to a zkelect whose command runs.
func TestSignals(t *testing.T) {
	for name, test := range map[string]struct {
		signal  syscall.Signal
		flags   []string
		status  int
		journal string
	}{
		"INT":              {syscall.SIGINT, nil, 5, "TERM\n"},
		"TERM":             {syscall.SIGTERM, nil, 5, "TERM\n"},
		"HUP":              {syscall.SIGHUP, nil, 5, "TERM\n"},
		"QUIT":             {syscall.SIGQUIT, nil, 5, "TERM\n"},
		"USR1":             {syscall.SIGUSR1, nil, 6, "USR1\n"},
		"USR2":             {syscall.SIGUSR2, nil, 6, "USR2\n"},
		"WINCH":            {syscall.SIGWINCH, nil, 6, "WINCH\n"},
		"HUP, passed on":   {syscall.SIGHUP, []string{"--forward", "HUP"}, 6, "HUP\n"},
		"INT, passed on":   {syscall.SIGINT, []string{"--forward", "SIGINT,quit"}, 6, "INT\n"},
		"TERM, and others": {syscall.SIGTERM, []string{"--forward", "HUP,USR1"}, 5, "TERM\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := newJournal(t)
			var script strings.Builder
			fmt.Fprintf(&script, "exec >>%q; trap 'echo TERM; exit 5' TERM; ", j.path)
			for _, s := range []string{"INT", "HUP", "QUIT", "USR1", "USR2", "WINCH"} {
				fmt.Fprintf(&script, "trap 'echo %s; exit 6' %[1]s; ", s)
			}
			script.WriteString("echo begins >&2; while :; do sleep 0.05; done")
			args := append([]string{"run", "--election", electionOf(t)}, test.flags...)
			p := start(t, inProcess(t), append(args, "--", "sh", "-c", script.String())...)
			p.says(&p.stderr, "begins")
			p.signal(test.signal)
			assert.Equal(t, test.status, p.wait())
			assert.Equal(t, test.journal, j.read(), "the command got")
		})
	}
}

// TestSignalsFlood: signals that are passed on, and that nobody has had the time to take, push out none that ends zkelect.
func TestSignalsFlood(t *testing.T) {
	s := newSignals()
	flood := []syscall.Signal{syscall.SIGUSR1, syscall.SIGINT}
	s.forward(flood)
	handled := make(chan os.Signal, 1)
	t.Cleanup(func() {
		signal.Reset(syscall.SIGTTOU) // which is ignored by now, and would be by what other tests start
		signal.Stop(handled)
		signal.Stop(s.forwarded)
		for _, incoming := range s.stops {
			signal.Stop(incoming)
		}
	})
	send := func(one syscall.Signal) {
		signal.Notify(handled, one)
		require.NoError(t, syscall.Kill(os.Getpid(), one))
		<-handled // it is where it goes, or lost, when the next one comes
	}
	for range 2 * cap(s.forwarded) {
		for _, one := range flood {
			send(one)
		}
	}
	assert.Len(t, s.forwarded, cap(s.forwarded))
	send(syscall.SIGTERM)
	send(syscall.SIGUSR1)
	ctx := s.end(io.Discard)
	select {
	case <-ctx.Done():
		assert.Equal(t, interrupted{syscall.SIGTERM}, context.Cause(ctx))
	case <-time.After(time.Minute):
		t.Error("the SIGTERM is lost")
	}
}

// TestHangupDoesNotInsist: a SIGHUP and a SIGTERM, as systemd sends both at once, are one request, whichever is handled first.
// Two others are two.
func TestHangupDoesNotInsist(t *testing.T) {
	for name, test := range map[string]struct {
		signals []syscall.Signal
		status  []int
	}{
		"HUP, TERM":       {[]syscall.Signal{syscall.SIGHUP, syscall.SIGTERM}, []int{5}},
		"TERM, HUP":       {[]syscall.Signal{syscall.SIGTERM, syscall.SIGHUP}, []int{5}},
		"TERM, HUP, TERM": {[]syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGTERM}, []int{143}},
		"HUP, TERM, INT":  {[]syscall.Signal{syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT}, []int{143, 130}}, // in any order
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			end := newJournal(t)
			p := start(t, inProcess(t), "run", "--election", electionOf(t), "--grace", "10m", "--", "sh", "-c",
				fmt.Sprintf("trap 'until [ -e %q ]; do sleep 0.05; done; exit 5' TERM; echo begins >&2; while :; do sleep 0.05; done", end.path))
			p.says(&p.stderr, "begins")
			for i, s := range test.signals {
				p.signal(s)
				if i == 0 {
					p.says(&p.stderr, "stopping sh")
				}
			}
			if test.status[0] == 5 {
				select {
				case <-p.exited:
				case <-time.After(200 * time.Millisecond): // for one that takes it for insistence
				}
				require.NoError(t, os.WriteFile(end.path, nil, 0o600))
			}
			assert.Contains(t, test.status, p.wait())
		})
	}
}

// TestSignalsWhileWaiting: those that would be passed on are no harm to a candidate that waits, and the others end it.
func TestSignalsWhileWaiting(t *testing.T) {
	t.Parallel()
	servers := inProcess(t)
	j := newJournal(t)
	a, b := pair(t, servers, j)
	b.says(&b.stderr, "waiting: A leads")
	for _, s := range []syscall.Signal{syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH, syscall.SIGPIPE, syscall.SIGCONT} {
		b.signal(s)
	}
	a.signal(syscall.SIGTERM)
	j.has(t, "B\n")
	b.signal(syscall.SIGQUIT)
	assert.Equal(t, 143, b.wait(), "the command's status")
	assert.Equal(t, 143, a.wait(), "the command's status")
}

// TestStopAndContinue: SIGTSTP and SIGCONT, as job control sends them, within the lease.
func TestStopAndContinue(t *testing.T) {
	t.Parallel()
	j := newJournal(t)
	p := start(t, inProcess(t), append([]string{"run", "--timeout", "40s", "--election", "e", "--"}, j.beats("A")...)...)
	j.has(t, "A\n")
	p.signal(syscall.SIGTSTP)
	p.signal(syscall.SIGCONT)
	before := strings.Count(j.read(), "A\n")
	until(t, "the command to go on", func() bool { return strings.Count(j.read(), "A\n") > before+50 })
	p.signal(syscall.SIGTERM)
	assert.Equal(t, 143, p.wait())
	assert.NotContains(t, p.stderr.String(), "is lost")
}

// TestNohup: a SIGHUP that was ignored when zkelect began is no reason to end.
func TestNohup(t *testing.T) {
	t.Parallel()
	j := newJournal(t)
	p := startCommand(t, exec.Command("sh", append([]string{"-c", `trap '' HUP; exec "$0" "$@"`, os.Args[0], "run", "--election", "e", "--"}, //nolint:gosec // a test's
		j.beats("A")...)...), inProcess(t))
	j.has(t, "A\n")
	p.signal(syscall.SIGHUP)
	before := strings.Count(j.read(), "A\n")
	until(t, "the command to go on", func() bool { return strings.Count(j.read(), "A\n") > before+50 })
	p.signal(syscall.SIGTERM)
	assert.Equal(t, 143, p.wait())
	assert.NotContains(t, p.stderr.String(), "hangup")
}

// TestStandardErrorGone: a line that nobody takes costs nothing: the command goes on, has its grace time, and its status
// comes back.
func TestStandardErrorGone(t *testing.T) {
	for _, name := range []string{"closed", "full"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			servers := inProcess(t)
			r, w, err := os.Pipe()
			require.NoError(t, err)
			defer func() { _ = r.Close() }()
			if name == "full" {
				fill(t, w) // nobody reads, and who writes waits
			}
			j := newJournal(t)
			cmd := exec.Command(os.Args[0], atEase(t, "--verbose", "--", "sh", "-c", //nolint:gosec // a test's
				fmt.Sprintf(`exec 2>/dev/null >>%q; trap 'sleep 0.5; echo ends; exit 5' TERM; while :; do echo .; sleep 0.05; done`, j.path))...)
			cmd.Stderr = w
			p := startCommand(t, cmd, servers)
			_ = w.Close()
			j.has(t, ".\n")
			if name == "closed" {
				_ = r.Close()
			}
			// Longer than the lease would last if the keeper were not told of another.
			goesOn(t, 13*time.Second, func() int { return strings.Count(j.read(), ".\n") })
			p.signal(syscall.SIGTERM)
			assert.Equal(t, 5, p.wait())
			assert.True(t, strings.HasSuffix(j.read(), ".\nends\n"), "the command was not asked to end")
		})
	}
}

// fill writes into a pipe until there is no room.
func fill(t *testing.T, w *os.File) {
	t.Helper()
	require.NoError(t, w.SetWriteDeadline(time.Now().Add(time.Second)))
	for {
		if _, err := io.WriteString(w, "."); err != nil {
			return
		}
	}
}

// TestOutputClosed: a reader of standard output that goes ends a command quietly, as SIGPIPE does.
func TestOutputClosed(t *testing.T) {
	t.Parallel()
	servers := inProcess(t)
	_, c := member(t, servers, "x")
	campaign(t, c)
	for _, args := range [][]string{{"list"}, {"status", "--election", electionOf(t)}, {"version"}, {"man"}, {"completion", "bash"}, {"top", "--once"}} {
		r, w, err := os.Pipe()
		require.NoError(t, err)
		_ = r.Close()
		cmd := exec.Command(os.Args[0], args...)
		cmd.Stdout = w
		p := startCommand(t, cmd, servers)
		_ = w.Close()
		assert.Equal(t, closedPipe, p.wait(), "%v", args)
		assert.Empty(t, unhurried(p.stderr.String()), "%v", args)
	}
}
