//go:build unix

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election"
)

// systemd is what listens to a service's messages in systemd's place.
type systemd struct {
	path string

	mu       sync.Mutex
	messages []string
}

func newSystemd(t *testing.T) *systemd {
	t.Helper()
	s := &systemd{path: filepath.Join(t.TempDir(), "notify")}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: s.path, Net: "unixgram"})
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		for buffer := make([]byte, 4096); ; {
			n, err := conn.Read(buffer)
			if err != nil {
				return
			}
			s.mu.Lock()
			s.messages = append(s.messages, string(buffer[:n]))
			s.mu.Unlock()
		}
	}()
	return s
}

// said returns the messages so far, without those to the watchdog, and how many of these there were.
func (s *systemd) said() (said []string, alive int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	said = slices.DeleteFunc(slices.Clone(s.messages), func(m string) bool { return m == "WATCHDOG=1" })
	return said, len(s.messages) - len(said)
}

func (s *systemd) has(t *testing.T, message string) {
	t.Helper()
	until(t, message, func() bool { said, _ := s.said(); return slices.Contains(said, message) })
}

// start is the package's, of a service of systemd's.
func (s *systemd) start(t *testing.T, servers string, environment []string, args ...string) *process {
	t.Helper()
	return startEnvironment(t, servers, append(environment, "NOTIFY_SOCKET="+s.path), args...)
}

// TestNotify: a service is ready once it stands, says whether it leads, and when it is about to end.
func TestNotify(t *testing.T) {
	onBoth(t, func(t *testing.T, servers string) {
		name := electionOf(t)
		sa, sb := newSystemd(t), newSystemd(t)
		a := sa.start(t, servers, nil, "run", "--data", "A", "--election", name, "--", "sh", "-c",
			`echo "$NOTIFY_SOCKET$WATCHDOG_USEC"; exec sleep 300`)
		sa.has(t, "READY=1")
		until(t, "A to lead", func() bool {
			said, _ := sa.said()
			return strings.Contains(strings.Join(said, " "), "STATUS=leads "+name)
		})
		b := sb.start(t, servers, nil, "run", "--data", "B", "--election", name, "--", "sleep", "300")
		sb.has(t, "READY=1") // though it does not lead: a standby is no service that does not come up
		sb.has(t, "STATUS=waits, A leads "+name)
		a.says(&a.stdout, "\n") // the status came before the command
		a.signal(syscall.SIGTERM)
		sa.has(t, "STOPPING=1")
		a.wait()
		assert.Equal(t, "\n", a.stdout.String(), "the command was told of systemd")
		until(t, "B to lead", func() bool {
			said, _ := sb.said()
			return strings.Contains(strings.Join(said, " "), "STATUS=leads "+name)
		})
		said, _ := sb.said()
		assert.NotContains(t, said, "STOPPING=1", "B is about to end")
		b.signal(syscall.SIGTERM)
		b.wait()
		sb.has(t, "STOPPING=1")
	})
}

// TestNotifyNoLongerLeads: a service that leads no more does not say that it does until another leads.
func TestNotifyNoLongerLeads(t *testing.T) {
	t.Parallel()
	servers := inProcess(t)
	t.Run("its command has ended", func(t *testing.T) {
		t.Parallel()
		s := newSystemd(t)
		s.start(t, servers, nil, "run", "--keep", "--pause", "10m", "--election", electionOf(t), "--", "true")
		s.has(t, "STATUS=no longer leads "+electionOf(t))
	})
	t.Run("it has lost", func(t *testing.T) {
		t.Parallel()
		s, lags := newSystemd(t), filepath.Join(t.TempDir(), "lags")
		p := s.start(t, servers, nil, "run", "--keep", "--election", electionOf(t), "--ready-every", "500ms",
			"--ready", fmt.Sprintf(`test -z "$NOTIFY_SOCKET" && ! test -e %q || { echo behind; exit 1; }`, lags), "--", "sleep", "300")
		p.says(&p.stderr, "leading ")
		require.NoError(t, os.WriteFile(lags, nil, 0o600))
		s.has(t, "STATUS=not ready for "+electionOf(t)+": exit status 1: behind")
		s.has(t, "STATUS=no longer leads "+electionOf(t))
	})
}

// TestNotifyLeaderGone: who waits does not go on saying that one leads who does not.
func TestNotifyLeaderGone(t *testing.T) {
	t.Parallel()
	servers := inProcess(t)
	stand := func(data string) *election.Candidate {
		s, err := election.Connect([]string{servers}, 10*time.Second, nil)
		require.NoError(t, err)
		t.Cleanup(func() { _ = s.Close() })
		c, err := election.NewCandidate(s, electionOf(t), &election.CandidateOptions{Data: []byte(data)})
		require.NoError(t, err)
		return c
	}
	a, b := stand("A"), stand("B")
	campaign(t, a)
	hold := make(chan struct{})
	t.Cleanup(sync.OnceFunc(func() { close(hold) }))
	b.OnWin(func(context.Context, election.Term) error { <-hold; return nil })
	require.NoError(t, b.Vote(t.Context()))
	s := newSystemd(t)
	s.start(t, servers, nil, "run", "--election", electionOf(t), "--", "true")
	s.has(t, "STATUS=waits, A leads "+electionOf(t))
	stopped := newSystemd(t)
	p := stopped.start(t, servers, nil, "run", "--election", electionOf(t), "--", "true")
	stopped.has(t, "STATUS=waits, A leads "+electionOf(t))
	p.signal(syscall.SIGTERM)
	p.wait()
	stopped.has(t, "STOPPING=1")
	said, _ := stopped.said()
	assert.NotContains(t, said, "STATUS=waits, nobody is known to lead "+electionOf(t), "A leads")
	require.NoError(t, a.Resign(t.Context()))
	s.has(t, "STATUS=waits, nobody is known to lead "+electionOf(t))
}

// TestNotifyNotReady: where no ZooKeeper answers a service is not ready.
func TestNotifyNotReady(t *testing.T) {
	t.Parallel()
	s := newSystemd(t)
	p := s.start(t, "127.0.0.1:1", nil, "run", "--wait", "2s", "--election", "e", "--", "true")
	assert.Equal(t, exitRunFailed, p.wait())
	s.has(t, "STOPPING=1")
	said, _ := s.said()
	assert.NotContains(t, said, "READY=1", "it was ready")
}

// TestNotifyWatchdog: the watchdog hears of a service that is well, and not of one that is stopped.
func TestNotifyWatchdog(t *testing.T) {
	t.Parallel()
	s := newSystemd(t)
	p := s.start(t, inProcess(t), []string{"WATCHDOG_USEC=300000"}, "run", "--election", "e", "--", "sleep", "300")
	until(t, "signs of life", func() bool { _, alive := s.said(); return alive > 10 })
	p.signal(syscall.SIGSTOP)
	until(t, "none for a second", func() bool {
		_, before := s.said()
		time.Sleep(time.Second)
		_, after := s.said()
		return before == after
	})
	p.signal(syscall.SIGCONT)
	p.signal(syscall.SIGTERM)
	p.wait()

	// That of another process is none of ours.
	other := newSystemd(t)
	p = other.start(t, inProcess(t), []string{"WATCHDOG_USEC=30000", "WATCHDOG_PID=1"}, "run", "--election", "e", "--", "sleep", "1")
	p.wait()
	_, alive := other.said()
	assert.Zero(t, alive, "signs of life")
}

// TestNotifyGuard: a guard is ready once its socket is there.
func TestNotifyGuard(t *testing.T) {
	t.Parallel()
	s := newSystemd(t)
	socket := filepath.Join(t.TempDir(), "guard")
	g := s.start(t, "", []string{"WATCHDOG_USEC=300000"}, "guard", "--listen", socket)
	until(t, "a guard or none", func() bool {
		said, _ := s.said()
		return len(said) > 0
	})
	if said, _ := s.said(); said[0] == "READY=1" {
		_, err := os.Stat(socket)
		assert.NoError(t, err, "ready without its socket")
		until(t, "signs of life", func() bool { _, alive := s.said(); return alive > 2 })
		g.signal(syscall.SIGTERM)
		g.wait()
	}
	s.has(t, "STOPPING=1")
}

// TestUnits: systemd takes the unit files as they are.
func TestUnits(t *testing.T) {
	t.Parallel()
	verify := checker(t, "systemd-analyze")
	units, err := filepath.Glob("../../contrib/systemd/*.service")
	require.NoError(t, err)
	require.Len(t, units, 2)
	dir := t.TempDir()
	for _, unit := range append(units, "") {
		text := []byte("[Service]\nExecStart=/bin/true\nKilMode=process\n") // must not pass, or nothing is checked
		name := "faulty.service"
		if unit != "" {
			text, err = os.ReadFile(unit)
			require.NoError(t, err)
			name = strings.Replace(filepath.Base(unit), "@.", "@scheduler.", 1)
		}
		text = []byte(strings.Replace(string(text), "/usr/bin/zkelect", "/bin/true", 1)) // what is not installed is a fault, too
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, text, 0o600))
		output, err := exec.CommandContext(t.Context(), verify, "verify", "--man=no", path).CombinedOutput() //nolint:gosec // a test's
		// What is said of other units of this system is no fault of these.
		faulty := err != nil || strings.Contains(string(output), name)
		assert.Equal(t, unit == "", faulty, "%s: %v\n%s", name, err, output)
	}
}
