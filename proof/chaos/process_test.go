//go:build linux

package chaos

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

	"github.com/zkelection/election/internal/child"
	"github.com/zkelection/election/internal/monotonic"
	"github.com/zkelection/election/proof/chaos/internal/history"
)

// agentBinary builds the agent, once. It is removed by TestMain.
var (
	agentDir    string
	agentBinary = sync.OnceValues(func() (string, error) {
		path := filepath.Join(agentDir, "agent")
		output, err := exec.Command("go", "build", "-o", path, "./agent").CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("build the agent: %w: %s", err, output)
		}
		return path, nil
	})
)

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "chaos")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	agentDir = dir
	code := m.Run()
	if *flagReport != "" {
		if err := writeReport(*flagReport); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// fleet is the processes of a test and all that they have written. mu guards
// events and the agents' state; each agent's output is read by a goroutine of
// its own.
type fleet struct {
	tb testing.TB

	mu     sync.Mutex
	events []history.Event
	agents []*agent
}

func newFleet(tb testing.TB) *fleet {
	f := &fleet{tb: tb}
	tb.Cleanup(func() {
		for _, a := range f.all() {
			a.kill()
		}
	})
	return f
}

// agent is one process. Its name is that of the candidate, with the number of
// times that it has been started.
type agent struct {
	fleet   *fleet
	name    string
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	guarded bool
	log     *tail
	ended   chan struct{} // the process is gone and its output read

	// Guarded by fleet.mu.
	state   state
	killing bool
}

// state is what an agent's events come to.
type state struct {
	lastTrue int64 // its last true sample
	heard    int64 // when that was read: on a slow machine this process may be behind
	token    int64
	acked    bool
	voted    bool
	server   string
	leader   string // as an observer sees it
	answers  int    // to transfers that it was told to ask for
}

// start starts an agent; args are the flags besides the name.
func (f *fleet) start(name string, args ...string) *agent {
	f.tb.Helper()
	binary, err := agentBinary()
	require.NoError(f.tb, err)
	return f.startCommand(name, binary, append([]string{"-name", name}, args...)...)
}

// startCommand starts a program that writes a history as an agent does.
func (f *fleet) startCommand(name, program string, args ...string) *agent {
	f.tb.Helper()
	a := &agent{fleet: f, name: name, ended: make(chan struct{}), log: &tail{}}
	a.cmd = exec.Command(program, args...)
	a.guarded = slices.Contains(args, "-guard")
	a.cmd.Stderr = a.log
	var err error
	a.stdin, err = child.Start(a.cmd, a.read)
	require.NoError(f.tb, err)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.agents = append(f.agents, a)
	return a
}

func (a *agent) read(stdout io.Reader) {
	defer close(a.ended)
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		var e history.Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			continue // half a line: it was killed while it wrote
		}
		a.take(e)
	}
	err := a.cmd.Wait()
	a.fleet.mu.Lock()
	defer a.fleet.mu.Unlock()
	assert.True(a.fleet.tb, a.killing, "agent %s ended by itself: %v\n%s", a.name, err, a.log)
}

func (a *agent) take(e history.Event) {
	a.fleet.mu.Lock()
	defer a.fleet.mu.Unlock()
	a.fleet.events = append(a.fleet.events, e)
	s := &a.state
	switch e.Kind {
	case history.True:
		s.lastTrue, s.heard, s.token = e.At, monotonic.Now(), e.Token
	case history.False:
		s.lastTrue, s.acked = 0, false
	case history.StepDown:
		s.acked = false
	case history.Acked:
		s.acked = true
	case history.Voted:
		s.voted = true
	case history.Unvoted:
		s.voted = false
	case history.Server:
		s.server = e.Text
	case history.Answered:
		s.answers++
	case history.NewLeader:
		s.leader = e.Text
	case history.LeaderDeath:
		s.leader = ""
	default:
	}
}

// look returns the agent's state.
func (a *agent) look() state {
	a.fleet.mu.Lock()
	defer a.fleet.mu.Unlock()
	return a.state
}

// leads reports whether the agent has been heard to say so a moment ago. It is for what the
// test does next; what is proved goes by the times in the history.
func (s state) leads() bool {
	return s.lastTrue != 0 && monotonic.Now()-s.heard < int64(200*time.Millisecond)
}

// kill is kill -9. It returns when the process is gone and all that it had
// written is read.
func (a *agent) kill() {
	a.fleet.mu.Lock()
	already := a.killing
	a.killing = true
	a.fleet.mu.Unlock()
	before := monotonic.Now()
	if err := a.cmd.Process.Kill(); !errors.Is(err, os.ErrProcessDone) {
		assert.NoError(a.fleet.tb, err, "kill %s", a.name)
	}
	<-a.ended
	if !already && a.guarded {
		// No sooner than its last sign of life.
		a.fleet.note(history.Event{At: max(before, a.look().lastTrue+1), Who: a.name, Kind: history.Dead})
	}
	if !already {
		a.fleet.note(history.Event{Who: a.name, Kind: history.Killed})
	}
}

func (a *agent) lives() bool {
	select {
	case <-a.ended:
		return false
	default:
		return true
	}
}

func (a *agent) stop() { a.signal(syscall.SIGSTOP) }
func (a *agent) cont() { a.signal(syscall.SIGCONT) }

func (a *agent) signal(s syscall.Signal) {
	assert.NoError(a.fleet.tb, a.cmd.Process.Signal(s), "%v to %s", s, a.name)
}

// note adds an event of the harness.
func (f *fleet) note(e history.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e.At == 0 {
		e.At = monotonic.Now()
	}
	f.events = append(f.events, e)
}

// history returns what has been written by now.
func (f *fleet) history() []history.Event {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.events)
}

func (f *fleet) all() []*agent {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.agents)
}

// describe is for the message of a failed test.
func (f *fleet) describe() string {
	var b strings.Builder
	for _, a := range f.all() {
		select {
		case <-a.ended:
			continue
		default:
		}
		s := a.look()
		fmt.Fprintf(&b, "%s: leads %v, token %d, acked %v, voted %v, on %q, sees leader %q\n%s", a.name, s.leads(), s.token, s.acked, s.voted, s.server, s.leader, a.log)
	}
	return b.String()
}

// tail keeps the end of a process's log.
type tail struct {
	mu   sync.Mutex
	text []byte
}

func (t *tail) Write(p []byte) (int, error) {
	const most = 4 << 10
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if over := len(t.text) - most; over > 0 {
		t.text = append([]byte(nil), t.text[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := bytes.IndexByte(t.text, '\n'); len(t.text) >= 4<<10 && i >= 0 {
		return string(t.text[i+1:])
	}
	return string(t.text)
}

// await polls until ok; what is only used for the message.
func await(tb testing.TB, limit time.Duration, what string, describe func() string, ok func() bool) {
	tb.Helper()
	deadline := time.Now().Add(limit)
	for !ok() {
		if time.Now().After(deadline) {
			tb.Fatalf("no %s after %v\n%s", what, limit, describe())
		}
		time.Sleep(10 * time.Millisecond)
	}
}
