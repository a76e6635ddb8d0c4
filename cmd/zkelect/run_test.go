//go:build unix

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election"
)

func TestRunTellsTheCommand(t *testing.T) {
	onBoth(t, func(t *testing.T, servers string) {
		p := start(t, servers, atEase(t, "--data", "some data", "--",
			"sh", "-c", `echo "$ZKELECT_ELECTION/$ZKELECT_DATA/$ZKELECT_TOKEN"; echo oops >&2; exit 7`)...)
		assert.Equal(t, 7, p.wait(), "the command's status")
		var token int64
		want := electionOf(t) + "/some data/%d\n"
		_, err := fmt.Sscanf(strings.ReplaceAll(p.stdout.String(), " ", "_"), strings.ReplaceAll(want, " ", "_"), &token)
		assert.NoError(t, err, "the environment")
		assert.Greater(t, token, int64(0), "the environment")
		assert.Contains(t, p.stderr.String(), "oops\n", "standard error")
	})
}

func TestRunPassesStatusOn(t *testing.T) {
	t.Parallel()
	servers := inProcess(t)
	for command, want := range map[string]int{
		"exit 0": 0, "exit 124": 124, "kill -TERM $$": 143, "kill -KILL $$": 137, "exit 255": 255,
	} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			status, _, _ := zkelect(t, servers, "run", "--election", electionOf(t), "--", "sh", "-c", command)
			assert.Equal(t, want, status)
		})
	}
	status, _, _ := zkelect(t, "", "run", "--dev", "--election", "e", "--", "true")
	assert.Zero(t, status, "--dev")
}

func TestRunPassesInputOn(t *testing.T) {
	t.Parallel()
	p := startWith(t, inProcess(t), strings.NewReader("a line\n"), "run", "--election", "e", "--", "cat")
	assert.Zero(t, p.wait())
	assert.Equal(t, "a line\n", p.stdout.String())
}

// journal is a file that commands append to: its lines are in the order in
// which they were written, whoever wrote them.
type journal struct{ path string }

func newJournal(t *testing.T) journal { return journal{filepath.Join(t.TempDir(), "journal")} }

func (j journal) read() string {
	text, _ := os.ReadFile(j.path) // there is none before the first line
	return string(text)
}

func (j journal) has(t *testing.T, text string) {
	t.Helper()
	until(t, "the journal to have "+text, func() bool { return strings.Contains(j.read(), text) })
}

// beats is a command that writes its name all the time, from a child of its own.
func (j journal) beats(name string) []string {
	// This program, since a loop of the shell's would start a process for each line.
	return []string{"sh", "-c", fmt.Sprintf("%q %s %s %q & wait", os.Args[0], beatArgument, name, j.path)}
}

// overlap returns a name that occurs again after another has begun.
func overlap(journal string) string {
	ended := map[string]bool{}
	var current string
	for line := range strings.Lines(journal) {
		name := strings.TrimSpace(line)
		if name == current {
			continue
		}
		if ended[name] {
			return name
		}
		ended[current] = true
		current = name
	}
	return ""
}

func TestOverlap(t *testing.T) {
	for text, want := range map[string]string{"": "", "A\nA\nB\nB\n": "", "A\nB\nA\n": "A", "A\nB\nC\nB\n": "B"} {
		assert.Equal(t, want, overlap(text), "%q", text)
	}
}

// pair starts A, which leads, and B, which waits.
func pair(t *testing.T, servers string, j journal, flags ...string) (a, b *process) {
	t.Helper()
	begin := func(name string) *process {
		args := atEase(t, append([]string{"--data", name}, flags...)...)
		return start(t, servers, append(append(args, "--"), j.beats(name)...)...)
	}
	a = begin("A")
	j.has(t, "A\n")
	b = begin("B")
	until(t, "both to be candidates", func() bool {
		_, stdout, _ := zkelect(t, servers, "status", "--election", electionOf(t))
		return strings.Contains(stdout, "candidates  2\n")
	})
	return a, b
}

// TestRunSurvivors: however A ends, B's command begins after A's last sign of
// life, grandchildren included.
func TestRunSurvivors(t *testing.T) {
	for name, end := range map[string]struct {
		signal   syscall.Signal
		status   int
		resumes  bool
		contends bool
	}{
		"SIGTERM": {syscall.SIGTERM, 143, false, false},
		"SIGINT":  {syscall.SIGINT, 143, false, false},
		"SIGKILL": {syscall.SIGKILL, 137, false, false},
		"SIGSTOP": {syscall.SIGSTOP, 124, true, false},
		"keep":    {syscall.SIGSTOP, 0, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, servers string) {
				j := newJournal(t)
				var flags []string
				if end.contends {
					flags = append(flags, "--keep")
				}
				a, b := pair(t, servers, j, flags...)
				a.signal(end.signal)
				// Long enough for a sign of life of A's.
				until(t, "B to lead", func() bool { return strings.Count(j.read(), "B\n") >= 30 })
				if end.resumes {
					// A's command was killed while zkelect stood still.
					a.signal(syscall.SIGCONT)
					a.says(&a.stderr, "is lost")
				}
				if end.contends {
					b.signal(syscall.SIGTERM)
					b.wait()
					j.has(t, "B\nA\n") // A leads again
					text := j.read()
					assert.Empty(t, overlap(text[:strings.LastIndex(text, "B\n")+2]), "who went on while another led")
					return
				}
				assert.Equal(t, end.status, a.wait())
				assert.Empty(t, overlap(j.read()), "who went on while another led")
			})
		})
	}
}

// TestRunKeeperKilled: with its keeper the command dies, and the command's children, and leadership passes on after that.
func TestRunKeeperKilled(t *testing.T) {
	onBoth(t, func(t *testing.T, servers string) {
		j, keeper := newJournal(t), newJournal(t)
		a := start(t, servers, atEase(t, "--", "sh", "-c", fmt.Sprintf(
			`echo $PPID >%q; (trap '' TERM HUP; while :; do echo A >>%q; sleep 0.01; done) & wait`, keeper.path, j.path))...)
		j.has(t, "A\n")
		b := start(t, servers, append([]string{"run", "--election", electionOf(t), "--"}, j.beats("B")...)...)
		b.says(&b.stderr, "waiting")
		var pid int
		_, err := fmt.Sscan(keeper.read(), &pid)
		require.NoError(t, err, "the keeper's number: %q", keeper.read())
		require.NotEqual(t, a.cmd.Process.Pid, pid, "the keeper's number")
		require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
		assert.Equal(t, 137, a.wait())
		until(t, "B to lead", func() bool { return strings.Count(j.read(), "B\n") >= 30 })
		assert.Empty(t, overlap(j.read()), "who went on while another led")
	})
}

// TestRunGrace: the old leader's command has its time, and the next begins
// only after it; one that does not end is killed.
func TestRunGrace(t *testing.T) {
	onBoth(t, func(t *testing.T, servers string) {
		j := newJournal(t)
		run := func(name, grace, script string) *process {
			return start(t, servers, atEase(t, "--grace", grace, "--",
				"sh", "-c", fmt.Sprintf("exec >>%q; echo %s; %s", j.path, name, script))...)
		}
		a := run("A", "1m", "trap 'sleep 0.3; echo A ends; exit 5' TERM; while :; do sleep 0.05; done")
		j.has(t, "A\n")
		b := run("B", "1s", "trap '' TERM; while :; do sleep 0.05; done")
		a.signal(syscall.SIGTERM)
		assert.Equal(t, 5, a.wait(), "the command's status")
		j.has(t, "B\n")
		told := time.Now()
		b.signal(syscall.SIGTERM)
		assert.Equal(t, 137, b.wait(), "SIGKILL")
		assert.GreaterOrEqual(t, time.Since(told), time.Second, "killed before its grace time was over")
		assert.Equal(t, "A\nA ends\nB\n", j.read(), "the journal")
	})
}

// TestRunStragglers: what the command leaves behind does not outlive the
// leadership.
func TestRunStragglers(t *testing.T) {
	onBoth(t, func(t *testing.T, servers string) {
		j := newJournal(t)
		script := fmt.Sprintf(`trap '' TERM; (while :; do echo A >>%[1]q; sleep 0.01; done) & until [ -s %[1]q ]; do sleep 0.01; done; exit 3`, j.path)
		args := []string{"run", "--election", electionOf(t), "--grace", "300ms", "--", "sh", "-c"}
		status, _, _ := zkelect(t, servers, append(args, script)...)
		assert.Equal(t, 3, status, "the command's status")
		status, _, _ = zkelect(t, servers, append(args, fmt.Sprintf("for i in 1 2 3 4 5 6 7 8 9; do echo B >>%q; sleep 0.02; done", j.path))...)
		assert.Zero(t, status, "the next one")
		assert.Empty(t, overlap(j.read()), "who went on while another led")
		assert.Regexp(t, "^A\n", j.read())
	})
}

// TestRunLost: an operator deletes the leader's ballot.
func TestRunLost(t *testing.T) {
	onBoth(t, func(t *testing.T, servers string) {
		s, err := election.Connect([]string{servers}, 20*time.Second, nil)
		require.NoError(t, err)
		defer func() { _ = s.Close() }()
		o, err := election.NewObserver(s, electionOf(t), nil)
		require.NoError(t, err)
		deleteBallot := func() {
			t.Helper()
			ballots, err := o.Ballots(t.Context())
			require.NoError(t, err)
			require.Len(t, ballots, 1)
			require.NoError(t, s.Conn().Delete(ballots[0].Path, -1))
		}
		j := newJournal(t)
		a := start(t, servers, append([]string{"run", "--election", electionOf(t), "--"}, j.beats("A")...)...)
		j.has(t, "A\n")
		deleteBallot()
		assert.Equal(t, exitLost, a.wait())
		a.says(&a.stderr, "ballot deleted")

		b := start(t, servers, append([]string{"run", "--keep", "--election", electionOf(t), "--"}, j.beats("B")...)...)
		j.has(t, "B\n")
		deleteBallot()
		until(t, "B to lead again", func() bool { return strings.Count(b.stderr.String(), "leading ") == 2 })
		b.signal(syscall.SIGTERM)
		assert.Equal(t, 143, b.wait())
	})
}

// TestRunKeep: two that contend forever take turns.
func TestRunKeep(t *testing.T) {
	onBoth(t, func(t *testing.T, servers string) {
		j := newJournal(t)
		run := func(name string) *process {
			return start(t, servers, atEase(t, "--keep", "--pause", "100ms", "--",
				"sh", "-c", fmt.Sprintf("echo %s $ZKELECT_TOKEN begins >>%q; sleep 0.02; echo %s $ZKELECT_TOKEN ends >>%q; exit 9", name, j.path, name, j.path))...)
		}
		a, b := run("A"), run("B")
		until(t, "five turns each", func() bool {
			return strings.Count(j.read(), "A") >= 10 && strings.Count(j.read(), "B") >= 10
		})
		journal := j.read()
		for _, p := range []*process{a, b} {
			p.signal(syscall.SIGTERM)
			assert.Contains(t, []int{9, 143}, p.wait(), "the command's if that was running, or the signal's")
		}
		last, open := int64(0), ""
		for line := range strings.Lines(journal) {
			var name, what string
			var token int64
			_, err := fmt.Sscanf(line, "%s %d %s", &name, &token, &what)
			require.NoError(t, err)
			if what == "begins" && (open != "" || token <= last) || what == "ends" && (open != name || token != last) {
				t.Fatalf("%q after token %d of %q", line, last, open)
			}
			last, open = token, name
			if what == "ends" {
				open = ""
			}
		}
	})
}

// TestRunInterruptedBetweenRuns: the status is the signal's, and not that of a run that is over.
func TestRunInterruptedBetweenRuns(t *testing.T) {
	t.Parallel()
	p := start(t, inProcess(t), "run", "--keep", "--pause", "10m", "--election", electionOf(t), "--", "sh", "-c", "exit 9")
	p.says(&p.stderr, "has ended with status 9")
	p.signal(syscall.SIGTERM)
	assert.Equal(t, 143, p.wait())
}

// TestRunInterruptedEarly: a signal that comes while another leads, and a
// second one that does not wait for the grace time.
func TestRunInterruptedEarly(t *testing.T) {
	onBoth(t, func(t *testing.T, servers string) {
		j := newJournal(t)
		a, b := pair(t, servers, j)
		b.signal(syscall.SIGTERM)
		assert.Equal(t, 143, b.wait())
		a.signal(syscall.SIGINT)
		a.wait()

		id := newJournal(t)
		c := start(t, servers, "run", "--election", electionOf(t), "--grace", "10m", "--", "sh", "-c",
			fmt.Sprintf("trap '' TERM; echo $$ >%q; while :; do echo C >>%q; sleep 0.01; done", id.path, j.path))
		j.has(t, "C\n")
		c.signal(syscall.SIGTERM)
		c.says(&c.stderr, "stopping sh")
		c.signal(syscall.SIGTERM)
		assert.Equal(t, 143, c.wait())
		var command group
		_, err := fmt.Sscan(id.read(), &command)
		require.NoError(t, err)
		until(t, "the command to be dead", func() bool { return !command.alive() })
	})
}

// TestRunPrivate: with --private a stranger sees no data.
func TestRunPrivate(t *testing.T) {
	onBoth(t, func(t *testing.T, servers string) {
		j := newJournal(t)
		name := electionOf(t)
		a := start(t, servers, append([]string{"run", "--auth", "digest:me:secret", "--private", "--data", "hidden", "--election", name, "--"}, j.beats("A")...)...)
		j.has(t, "A\n")
		status, stdout, stderr := zkelect(t, servers, "status", "--election", name)
		assert.Equal(t, exitFailed, status, "a stranger")
		assert.NotContains(t, stdout, "hidden", "a stranger")
		assert.Contains(t, stderr, zk.ErrNoAuth.Error(), "a stranger")
		assert.Contains(t, stderr, "--auth says who you are")
		status, stdout, _ = zkelect(t, servers, "status", "--auth", "digest:me:secret", "--election", name)
		assert.Equal(t, exitOK, status, "with credentials")
		assert.Contains(t, stdout, "hidden", "with credentials")
		a.signal(syscall.SIGTERM)
		a.wait()
	})
}
