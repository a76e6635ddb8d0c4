//go:build unix

package election_test

import (
	"bufio"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zkelection/election"
	"github.com/zkelection/election/testutil/realzk"
)

// A candidate whose process is stopped for longer than its lease is no leader
// at its first instruction after it goes on, learns of it once, and competes
// again by itself.
func TestStoppedProcess(t *testing.T) {
	ensemble := realzk.StartZooKeeper(t, 1)
	server := ensemble.Servers()[0]
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), stoppedCandidateEnv+"="+server)
	child.Stderr = os.Stderr
	stdin, err := child.StdinPipe()
	require.NoError(t, err)
	stdout, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	lines := make(chan string, 64)
	go func() {
		defer close(lines)
		for scanner := bufio.NewScanner(stdout); scanner.Scan(); {
			lines <- scanner.Text()
		}
	}()
	defer func() {
		_ = stdin.Close()
		for range lines {
		}
		_ = child.Wait()
	}()
	var seen []string
	next := func() string {
		t.Helper()
		select {
		case line, ok := <-lines:
			require.True(t, ok, "the candidate ended after %q", seen)
			seen = append(seen, line)
			return line
		case <-time.After(time.Minute):
			t.Fatalf("nothing more after %q", seen)
			return ""
		}
	}
	for line := next(); line != "leading"; {
		line = next()
	}
	s, err := election.Connect([]string{server}, stoppedTimeout, nil)
	require.NoError(t, err)
	defer s.Close()
	other, err := election.NewCandidate(s, "stopped", nil)
	require.NoError(t, err)
	require.NoError(t, other.Vote(t.Context()))
	seen = nil
	require.NoError(t, child.Process.Signal(syscall.SIGSTOP))
	require.NoError(t, second(other.Campaign(t.Context()))) // the other one leads meanwhile
	require.NoError(t, child.Process.Signal(syscall.SIGCONT))
	// The sample and the callback come from different goroutines.
	first, second := next(), next()
	if strings.HasPrefix(second, "went on") {
		first, second = second, first
	}
	require.True(t, strings.HasPrefix(first, "went on: leads false"), "%q", seen)
	if want := "stepped down: "; !strings.HasPrefix(second, want) || !strings.Contains(second, "lapsed") && !strings.Contains(second, "session lost") {
		t.Fatalf("%q", seen)
	}
	// It stands again behind the other one, and leads once that is gone.
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		ballots, err := other.Ballots(t.Context())
		if err == nil && len(ballots) == 2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("ballots %v, %v", ballots, err)
		}
	}
	require.NoError(t, other.Resign(t.Context()))
	require.Equal(t, "won", next(), "%q", seen)
}
