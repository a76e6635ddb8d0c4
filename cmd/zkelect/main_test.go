package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	sessionguard "github.com/zkelection/election/guard"
	"github.com/zkelection/election/testutil"
	"github.com/zkelection/election/testutil/realzk"
)

// asZkelect in the environment makes the test's own binary zkelect, so that
// the tests run it as a process, with the race detector when they have it.
const asZkelect = "ZKELECT_TEST_AS_ZKELECT"

func TestMain(m *testing.M) {
	sessionguard.Init(nil)
	if os.Getenv(asZkelect) != "" {
		main()
	}
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
		if zooKeeper.err != nil {
			t.Fatal(zooKeeper.err)
		}
		test(t, strings.Join(zooKeeper.started.Servers(), ","))
	})
}

func inProcess(t *testing.T) string {
	t.Helper()
	srv, err := testutil.NewServer(&testutil.ServerOptions{TickTime: 500 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
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
	p := &process{t: t, cmd: exec.Command(os.Args[0], args...), exited: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), asZkelect+"=1", "ZK_SERVERS="+servers)
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = stdin, &p.stdout, &p.stderr
	p.cmd.SysProcAttr = apart() // so that a test can signal its whole group
	// A command that is left over would keep the pipes open: that is found
	// otherwise, and must not hang the test.
	p.cmd.WaitDelay = time.Second
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.exited
		if t.Failed() {
			t.Logf("zkelect %s: %v\n%s%s", strings.Join(args, " "), p.cmd.ProcessState, &p.stdout, &p.stderr)
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
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
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

// zkelect runs it to its end.
func zkelect(t *testing.T, servers string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	p := start(t, servers, args...)
	status = p.wait()
	return status, p.stdout.String(), p.stderr.String()
}

func TestUsage(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args   string
		status int
		says   string
	}{
		{"", 2, "Usage: zkelect COMMAND"},
		{"help", 0, "Usage: zkelect COMMAND"},
		{"--help", 0, "Usage: zkelect COMMAND"},
		{"help run", 0, "Usage: zkelect run"},
		{"run --help", 0, "Exit codes:"},
		{"watch -h", 0, "Usage: zkelect watch"},
		{"status -help", 0, "Usage: zkelect status"},
		{"list --help", 0, "Usage: zkelect list"},
		{"rum", 2, `no command "rum"`},
		{"help rum", 2, `no command "rum"`},
		{"version", 0, "zkelect "},
		{"help version", 0, "zkelect "},
		{"--version", 0, ", go1."},
		{"run", 2, "no servers given"},
		{"run --servers x:1", 2, "no election given"},
		{"run --servers x:1 --election e", 2, "no command given"},
		{"run --servers x:1 --election e --grace -1s -- true", 2, "negative"},
		{"run --servers x:1 --election e --grace soon -- true", 2, "invalid value"},
		{"run --servers x:1 --election e --private -- true", 2, "--private needs --auth"},
		{"run --servers x:1 --election e -- no-such-command-here", 127, "no-such-command-here"},
		{"run --servers x:1 --election e -- /etc/passwd", 126, "permission denied"},
		{"run --dev --servers x:1 --election e -- true", 2, "exclude each other"},
		{"run --dev --election .. -- true", 2, "invalid name"},
		{"run --dev --election e --root relative -- true", 2, "not absolute"},
		{"run --dev --election e --frobnicate -- true", 2, "frobnicate"},
		{"watch --servers x:1", 2, "no election given"},
		{"watch --servers x:1 --election e more", 2, `"more"`},
		{"watch --dev --election a\x01b", 2, "control character"},
		{"status --servers x:1,,y:2 --election e", 2, "want HOST:PORT"},
		{"status --servers x:1 --auth secret --election e", 2, "SCHEME:CREDENTIALS"},
		{"status --dev --root / --election e", 2, "invalid path"},
		{"status --servers 127.0.0.1:1 --wait 300ms --election e", 1, "no ZooKeeper answers at 127.0.0.1:1 in 300ms (dial tcp 127.0.0.1:1: connect"},
		{"list --servers 127.0.0.1:1 --wait 300ms", 1, "no ZooKeeper answers"},
		{"watch --servers 127.0.0.1:1 --wait 300ms --election e", 1, "no ZooKeeper answers"},
		{"run --servers 127.0.0.1:1 --wait 300ms --election e -- true", 125, "no ZooKeeper answers"},
		{"list --servers x:1 more", 2, `"more"`},
		{"guard --help", 0, "--listen"},
		{"guard", 2, "--listen"},
		{"guard --listen /nowhere/at/all more", 2, `"more"`},
		{"guard --listen /nowhere/at/all --mode 9", 2, "octal"},
		{"guard --listen /nowhere/at/all", 1, "no such file"},
		{"run --servers x:1 --election e --guard /nowhere/at/all -- true", 125, "no such file"},
		{"list --dev --root relative", 2, "not absolute"},
	} {
		t.Run(test.args, func(t *testing.T) {
			t.Parallel()
			status, stdout, stderr := zkelect(t, "", strings.Fields(test.args)...)
			if status != test.status {
				t.Errorf("status %d, want %d", status, test.status)
			}
			told, silent := stderr, stdout
			if test.status == 0 {
				told, silent = stdout, stderr
			}
			if !strings.Contains(told, test.says) {
				t.Errorf("it does not say %q", test.says)
			}
			if silent != "" {
				t.Errorf("on the wrong stream: %q", silent)
			}
		})
	}
}

// TestHelpTellsEveryFlag also keeps the help narrow.
func TestHelpTellsEveryFlag(t *testing.T) {
	for _, c := range commands() {
		e := &env{command: c, stdout: &lines{}, getenv: func(string) string { return "" }}
		if _, err := c.run(t.Context(), e, []string{"--help"}); !errors.Is(err, errHelp) {
			t.Errorf("%s: %v", c.name, err)
		}
		help := e.stdout.(*lines).String()
		if c.name == "guard" {
			if !strings.Contains(help, "\n  --listen") {
				t.Error("guard: no word of --listen")
			}
			continue // it has none of the common ones
		}
		for _, flag := range []string{"servers", "dev", "root", "timeout", "tick", "auth", "wait", "verbose"} {
			if !strings.Contains(help, "\n  --"+flag) {
				t.Errorf("%s: no word of --%s", c.name, flag)
			}
		}
		for line := range strings.Lines(help) {
			if len(line) > 89 {
				t.Errorf("%s: too long: %s", c.name, line)
			}
		}
	}
}
