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
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
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
			if !ok {
				t.Fatalf("the candidate ended after %q", seen)
			}
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
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	other, err := election.NewCandidate(s, "stopped", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Vote(t.Context()); err != nil {
		t.Fatal(err)
	}
	seen = nil
	if err := child.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Campaign(t.Context()); err != nil { // the other one leads meanwhile
		t.Fatal(err)
	}
	if err := child.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	// The sample and the callback come from different goroutines.
	first, second := next(), next()
	if strings.HasPrefix(second, "went on") {
		first, second = second, first
	}
	if !strings.HasPrefix(first, "went on: leads false") {
		t.Fatalf("%q", seen)
	}
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
	if err := other.Resign(t.Context()); err != nil {
		t.Fatal(err)
	}
	if line := next(); line != "won" {
		t.Fatalf("%q", seen)
	}
}
