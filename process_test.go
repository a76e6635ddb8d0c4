package election

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zkelection/election/testutil"
)

const (
	stoppedCandidateEnv = "ELECTION_TEST_CANDIDATE"
	stoppedTimeout      = 2 * time.Second
)

// stoppedCandidate is the process that is stopped: a candidate that prints
// what happens to it, and samples itself.
func stoppedCandidate(server string) {
	say := func(format string, args ...any) { fmt.Printf(format+"\n", args...) }
	fail := func(err error) {
		if err != nil {
			say("error %v", err)
			os.Exit(1)
		}
	}
	s, err := Connect([]string{server}, stoppedTimeout, &SessionOptions{Logger: slog.New(slog.DiscardHandler)})
	fail(err)
	c, err := NewCandidate(s, "stopped", nil)
	fail(err)
	leaders := make(chan context.Context, 1)
	c.OnWin(func(ctx context.Context, _ Term) error {
		leaders <- ctx
		say("won")
		return nil
	})
	c.OnStepDown(func(_ context.Context, _ Term, cause error) { say("stepped down: %v", cause) })
	_, err = c.Campaign(context.Background())
	fail(err)
	leader := <-leaders
	say("leading")
	go func() { // the parent's end is ours
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	for last := time.Now(); ; time.Sleep(time.Millisecond) {
		leads := c.IsLeader()
		ended := leader.Err() != nil
		if now := time.Now(); now.Sub(last) > stoppedTimeout/2 {
			say("went on: leads %v, context ended %v", leads, ended)
		}
		last = time.Now()
	}
}

// A candidate whose process is stopped for longer than its lease is no leader
// at its first instruction after it goes on, learns of it once, and competes
// again by itself.
func TestStoppedProcess(t *testing.T) {
	ensemble := testutil.StartZooKeeper(t, 1)
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
	s, err := Connect([]string{server}, stoppedTimeout, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	other, err := NewCandidate(s, "stopped", nil)
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
