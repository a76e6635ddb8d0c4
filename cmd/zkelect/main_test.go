package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/guard"
	"github.com/zkelection/election/testutil"
	"github.com/zkelection/election/testutil/realzk"
)

// asZkelect in the environment makes the test's own binary zkelect, so that
// the tests run it as a process, with the race detector when they have it.
const asZkelect = "ZKELECT_TEST_AS_ZKELECT"

func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == beatArgument {
		beat(os.Args[2], os.Args[3])
	}
	guard.Init(nil)
	if os.Getenv(asZkelect) != "" {
		main()
	}
	// Under nohup SIGHUP is ignored, which what is started here would inherit.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	slog.SetDefault(slog.New(slog.DiscardHandler)) // the members within this process
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "zkelect")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer func() { _ = os.RemoveAll(dir) }()
		zooKeeper.dir = dir
		defer func() {
			if zooKeeper.started != nil {
				zooKeeper.started.Close()
			}
		}()
		return m.Run()
	}())
}

// zooKeeper is one real server for all tests.
var zooKeeper struct {
	dir     string
	once    sync.Once
	started *realzk.Ensemble
	err     error
}

// onBoth runs a test on an in-process server and on a real ZooKeeper.
func onBoth(t *testing.T, test func(t *testing.T, servers string)) {
	t.Helper()
	t.Parallel()
	t.Run("in-process", func(t *testing.T) {
		t.Parallel()
		test(t, inProcess(t))
	})
	t.Run("ZooKeeper", func(t *testing.T) {
		t.Parallel()
		zooKeeper.once.Do(func() {
			zooKeeper.started, zooKeeper.err = realzk.LaunchZooKeeper(zooKeeper.dir, 1, realzk.EnsembleOptions{})
		})
		if errors.Is(zooKeeper.err, realzk.ErrNoZooKeeper) && os.Getenv("ELECTION_REQUIRE_ZOOKEEPER") != "1" {
			t.Skip(zooKeeper.err)
		}
		require.NoError(t, zooKeeper.err)
		test(t, strings.Join(zooKeeper.started.Servers(), ","))
	})
}

func inProcess(t *testing.T) string {
	t.Helper()
	srv, err := testutil.NewServer(&testutil.ServerOptions{TickTime: 500 * time.Millisecond, MaxSessionTimeout: time.Minute})
	require.NoError(t, err)
	t.Cleanup(srv.Close)
	return srv.Addr()
}

// electionOf is a name that no other test has.
func electionOf(t *testing.T) string { return strings.ReplaceAll(t.Name(), "/", "-") }

// process is a running zkelect.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdout lines
	stderr lines
	exited chan struct{}
}

// lines collects output; it may be read while it is written.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// start runs zkelect with ZK_SERVERS set to servers.
func start(t *testing.T, servers string, args ...string) *process {
	t.Helper()
	return startWith(t, servers, nil, args...)
}

func startWith(t *testing.T, servers string, stdin io.Reader, args ...string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Stdin = stdin
	return startCommand(t, cmd, servers)
}

// startEnvironment runs zkelect with more in its environment.
func startEnvironment(t *testing.T, servers string, environment []string, args ...string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = environment
	return startCommand(t, cmd, servers)
}

// startCommand starts a command that is zkelect, or becomes it.
func startCommand(t *testing.T, cmd *exec.Cmd, servers string) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd, exited: make(chan struct{})}
	p.cmd.Env = append(append(os.Environ(), asZkelect+"=1", "ZK_SERVERS="+servers), cmd.Env...)
	if cmd.Stdout == nil {
		cmd.Stdout = &p.stdout
	}
	if cmd.Stderr == nil {
		cmd.Stderr = &p.stderr
	}
	if p.cmd.SysProcAttr == nil {
		p.cmd.SysProcAttr = apart() // so that a test can signal its whole group, and not this one's
	}
	// A command that is left over would keep the pipes open: that is found
	// otherwise, and must not hang the test. What was written is lost after
	// this, so it is longer than this process may be held off.
	p.cmd.WaitDelay = 20 * time.Second
	require.NoError(t, p.cmd.Start())
	go func() {
		_ = p.cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.exited
		if t.Failed() {
			t.Logf("%s: %v\n%s%s", strings.Join(p.cmd.Args, " "), p.cmd.ProcessState, &p.stdout, &p.stderr)
		}
	})
	return p
}

// wait returns the exit status.
func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(time.Minute):
		p.t.Fatal("zkelect goes on and on")
	}
	return statusOf(p.cmd.ProcessState)
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	require.NoError(p.t, p.cmd.Process.Signal(s))
}

// goesOn waits for so long, and until what is counted still grows.
func goesOn(t *testing.T, long time.Duration, count func() int) {
	t.Helper()
	time.Sleep(long)
	before := count()
	until(t, "it to go on", func() bool { return count() > before+10 })
}

// until polls for a condition on processes and files, which tell of themselves
// in no other way.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// says waits until the output has the text.
func (p *process) says(l *lines, text string) {
	p.t.Helper()
	until(p.t, fmt.Sprintf("%q", text), func() bool { return strings.Contains(l.String(), text) })
}

// atEase is a run whose lease is not lost while the machine stands still for some seconds: it knows the tick that all servers
// here have. What it is given goes behind that.
func atEase(t *testing.T, args ...string) []string {
	t.Helper()
	return append([]string{"run", "--election", electionOf(t), "--timeout", "12s", "--tick", "500ms"}, args...)
}

// unhurried leaves out what zkelect says when the connection takes long, as on a slow machine.
func unhurried(stderr string) string {
	var said strings.Builder
	for line := range strings.Lines(stderr) {
		if !strings.HasPrefix(line, "zkelect: waiting for ZooKeeper at ") {
			said.WriteString(line)
		}
	}
	return said.String()
}

// zkelect runs it to its end.
func zkelect(t *testing.T, servers string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	p := start(t, servers, args...)
	status = p.wait()
	return status, p.stdout.String(), p.stderr.String()
}

// beatArgument makes the test's binary write its name, given next, to a file, without end.
const beatArgument = "--beat"

func beat(name, path string) {
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	for ; err == nil; time.Sleep(10 * time.Millisecond) {
		_, err = file.WriteString(name + "\n")
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
