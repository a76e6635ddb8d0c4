//go:build linux

package guard_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zkelection/election"
	"github.com/zkelection/election/guard"
)

// serviceVariable holds the configuration of a service, in JSON.
const serviceVariable = "GUARD_TEST_SERVICE"

// configuration is what a service is to do.
type configuration struct {
	Servers   []string
	More      []string // servers that the guard knows besides
	Timeout   time.Duration
	Tick      time.Duration     // of the servers, if it is to be known
	Name      string            // of the election
	Sessions  int               // 0 means one
	Auth      string            // user:password
	Elsewhere map[string]string // where servers really are, for a dialer of the service's own

	NoGuard    bool
	Socket     string
	Executable string
	Wait       time.Duration // for the guard's socket
	LogFile    string
	NoInit     bool // Init is forgotten
	OwnDialer  bool // the guard has the dialer, too
	Ballast    int  // MiB of memory in use
}

func readConfiguration() (c configuration) {
	if err := json.Unmarshal([]byte(os.Getenv(serviceVariable)), &c); err != nil {
		panic(err)
	}
	return c
}

// serve is the service: it campaigns, says what happens, and does what it is told on its standard input.
func serve(c configuration) {
	say := func(format string, args ...any) { fmt.Printf(format+"\n", args...) }
	check := func(err error) {
		if err != nil {
			say("error %v", err)
			os.Exit(1)
		}
	}
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{Level: slog.LevelWarn}))
	debug.SetTraceback("none")
	// The lease that is renewed is there: a candidate that waits tells of it in no other way.
	leased := sync.OnceFunc(func() { say("leased") })
	opts := &election.SessionOptions{
		Logger: logger, TickTime: c.Tick, Metrics: &election.Metrics{LeaseRenewed: func(time.Duration) { leased() }},
	}
	if c.Elsewhere != nil {
		opts.Dialer = func(network, address string, timeout time.Duration) (net.Conn, error) {
			return net.DialTimeout(network, c.Elsewhere[address], timeout)
		}
	}
	if c.Auth != "" {
		opts.Auth = []election.Auth{{Scheme: "digest", Credentials: []byte(c.Auth)}}
	}
	ballast := make([]byte, c.Ballast<<20)
	for i := 0; i < len(ballast); i += 4096 {
		ballast[i] = 1
	}
	var g *guard.Guard
	var release func()
	if !c.NoGuard {
		began := time.Now()
		var err error
		g, err = guard.Start(&guard.Options{
			Socket: c.Socket, Executable: c.Executable, LogFile: c.LogFile, Wait: c.Wait,
			Logger: slog.New(slog.NewTextHandler(os.Stdout, nil)),
		})
		check(err)
		say("guard ready in %v", time.Since(began))
		opts.Guard = g
		if c.More != nil {
			opts.Guard = knowing{g, c.More}
		}
	}
	var sessions []*election.Session
	for i := range max(1, c.Sessions) {
		s, err := election.Connect(c.Servers, c.Timeout, opts)
		check(err)
		candidate, err := election.NewCandidate(s, fmt.Sprintf("%s%d", c.Name, i), &election.CandidateOptions{HotStandby: true})
		check(err)
		candidate.OnWin(func(context.Context, election.Term) error { say("won %d %d", i, time.Now().UnixNano()); return nil })
		check(candidate.Vote(context.Background()))
		sessions = append(sessions, s)
		say("session %d", s.ID())
	}
	say("stands")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		command, argument, _ := strings.Cut(lines.Text(), " ")
		switch command {
		case "close":
			check(sessions[0].Close())
			say("closed")
		case "quit":
			for _, s := range sessions {
				check(s.Close())
			}
			check(g.Close())
			os.Exit(0)
		case "await":
			child := exec.Command("sleep", "600")
			check(child.Start())
			var err error
			release, err = g.Await(child.Process.Pid)
			check(err)
			say("child %d", child.Process.Pid)
		case "release":
			release()
			release() // once more does nothing
			say("released")
		case "group":
			child := exec.Command("/bin/sh", "-c", "sleep 600 & echo $!; wait")
			child.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			out, err := child.StdoutPipe()
			check(err)
			check(child.Start())
			var grandchild int
			_, err = fmt.Fscan(out, &grandchild)
			check(err)
			if _, err := g.AwaitGroup(child.Process.Pid); errors.Is(err, guard.ErrUnsupported) {
				say("group %v", err)
			} else {
				check(err)
				say("group %d %d", child.Process.Pid, grandchild)
			}
		case "re-exec":
			check(sessions[0].Close())
			check(g.Close())
			check(syscall.Exec(os.Args[0], os.Args, os.Environ()))
		case "storm":
			var n int
			_, _ = fmt.Sscan(argument, &n)
			var several sync.WaitGroup
			for range 4 {
				several.Go(func() {
					for range n / 4 {
						check(exec.Command("/bin/true").Run())
					}
				})
			}
			several.Wait()
			say("storm over")
		case "close-descriptors": // as a library that makes daemons does
			check(closeForeign(func(null, fd int) error { return syscall.Dup3(null, fd, syscall.O_CLOEXEC) }))
			say("descriptors closed")
		case "shut-descriptors":
			check(closeForeign(func(_, fd int) error { _ = syscall.Shutdown(fd, syscall.SHUT_RDWR); return nil }))
			say("descriptors closed")
		case "end-main-thread":
			say("main thread ends")
			_, _, _ = syscall.RawSyscall(syscall.SYS_EXIT, 0, 0, 0)
		case "exec":
			check(os.Setenv(serviceVariable, ""))
			check(syscall.Exec("/bin/sh", []string{"sh", "-c", "echo image; exec cat"}, os.Environ()))
		case "core": // what a core dump would have of the memory that is shared
			say("core %v", flagsOfSharedMemory())
		default:
			die(lines.Text(), ballast)
		}
	}
	os.Exit(0) // the test has ended
}

// knowing is a guard that is told of more servers than the client has.
type knowing struct {
	*guard.Guard
	servers []string
}

func (k knowing) Hold(owner any, session *guard.Session) {
	if session != nil {
		session.Servers = k.servers
	}
	k.Guard.Hold(owner, session)
}

// die is each way to die but those that come from outside.
func die(how string, ballast []byte) {
	fmt.Printf("dies %d\n", time.Now().UnixNano())
	switch how {
	case "kill -9":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case "panic":
		go func() { panic("of another goroutine") }()
	case "os.Exit":
		os.Exit(3)
	case "SIGSEGV":
		_ = syscall.Kill(os.Getpid(), syscall.SIGSEGV)
	case "memory":
		for {
			more := make([]byte, 64<<20)
			for i := 0; i < len(more); i += 4096 {
				more[i] = 1
			}
			ballast = append(ballast, more...)
		}
	default:
		fmt.Println("error: what is", how)
	}
}

// closeForeign closes the sockets and memory files that it finds, and opens others under their numbers, or whatever end does.
func closeForeign(end func(null, fd int) error) error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, entry := range entries {
		var fd int
		_, _ = fmt.Sscan(entry.Name(), &fd)
		what, _ := os.Readlink("/proc/self/fd/" + entry.Name())
		var stat syscall.Stat_t
		_ = syscall.Fstat(fd, &stat)
		address, _ := syscall.Getpeername(fd)
		_, unix := address.(*syscall.SockaddrUnix)
		if fd > 2 && (unix || strings.HasPrefix(what, "/memfd:")) {
			null, err := syscall.Open("/dev/null", syscall.O_RDWR|syscall.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			if err := end(null, fd); err != nil {
				return err
			}
			_ = syscall.Close(null)
		}
	}
	return nil
}

// flagsOfSharedMemory are the kernel's for the mapping: "dd" is not to be dumped, "dc" not to be copied by fork.
func flagsOfSharedMemory() string {
	maps, _ := os.ReadFile("/proc/self/smaps")
	_, after, _ := strings.Cut(string(maps), "memfd:election-guard")
	_, after, _ = strings.Cut(after, "VmFlags:")
	flags, _, _ := strings.Cut(after, "\n")
	return flags
}

// service is a running service, as its test sees it.
type service struct {
	t       *testing.T
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	log     string // the guard's, of what it did after a death
	session int64  // the last that it has told of
	exited  chan struct{}

	mu    sync.Mutex
	lines []string
	more  chan struct{}
}

// start starts a service, and waits until it stands.
func start(t *testing.T, c configuration) *service {
	t.Helper()
	s := launch(t, c, nil)
	s.says("stands")
	_, err := fmt.Sscanf(s.says("session "), "session %d", &s.session)
	require.NoError(t, err)
	return s
}

func launch(t *testing.T, c configuration, change func(*exec.Cmd)) *service {
	t.Helper()
	s := &service{t: t, exited: make(chan struct{}), more: make(chan struct{})}
	if c.Timeout == 0 {
		c.Timeout = 30 * time.Second // what is closed sooner is closed by the guard
	}
	if c.Name == "" {
		c.Name = strings.ReplaceAll(t.Name(), "/", "-")
	}
	if c.LogFile == "" && c.Socket == "" {
		dir, err := os.MkdirTemp("", "guard") //nolint:usetesting // the guard may write to it after the test
		require.NoError(t, err)
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		c.LogFile = filepath.Join(dir, "log")
	}
	s.log = c.LogFile
	text, err := json.Marshal(c)
	require.NoError(t, err)
	s.cmd = exec.Command(os.Args[0])
	s.cmd.Env = append(os.Environ(), serviceVariable+"="+string(text))
	s.cmd.Stderr = io.Discard
	if change != nil {
		change(s.cmd)
	}
	s.stdin, err = s.cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := s.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, s.cmd.Start())
	go func() {
		defer close(s.exited)
		for scanner := bufio.NewScanner(stdout); scanner.Scan(); {
			s.mu.Lock()
			s.lines = append(s.lines, scanner.Text())
			close(s.more)
			s.more = make(chan struct{})
			s.mu.Unlock()
		}
		_ = s.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill()
		<-s.exited
		if t.Failed() {
			t.Logf("the service: %q\nits guard: %s", s.lines, s.guardLog())
		}
	})
	return s
}

// tells sends a command.
func (s *service) tell(command string) {
	s.t.Helper()
	_, err := fmt.Fprintln(s.stdin, command)
	require.NoError(s.t, err)
}

// says waits for a line, or a line of the log, with the beginning, and returns it.
func (s *service) says(beginning string) string {
	s.t.Helper()
	line, ok := s.saysWithin(beginning, time.Minute)
	require.True(s.t, ok, "the service does not say %q", beginning)
	return line
}

func (s *service) saysWithin(beginning string, limit time.Duration) (string, bool) {
	late := time.After(limit)
	for {
		s.mu.Lock()
		for _, line := range s.lines {
			if strings.HasPrefix(line, beginning) || strings.Contains(line, `msg="`+beginning) {
				s.mu.Unlock()
				return line, true
			}
		}
		more := s.more
		s.mu.Unlock()
		select {
		case <-more:
		case <-late:
			return "", false
		}
	}
}

// count is how many lines with the beginning the service has said.
func (s *service) count(beginning string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, line := range s.lines {
		if strings.HasPrefix(line, beginning) {
			n++
		}
	}
	return n
}

func (s *service) guardLog() string {
	text, _ := os.ReadFile(s.log)
	return string(text)
}

func (s *service) kill() {
	_ = s.cmd.Process.Kill()
	<-s.exited
}

// guards are the processes that guard the service: its children of that name.
func (s *service) guards() (pids []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, stat := range stats {
		text, err := os.ReadFile(stat)
		if err != nil {
			continue
		}
		var pid, parent int
		var state string
		head, tail, _ := strings.Cut(string(text), ") ")
		if !strings.HasSuffix(head, "(zk-guard") {
			continue
		}
		_, _ = fmt.Sscan(head, &pid)
		_, _ = fmt.Sscan(tail, &state, &parent)
		if parent == s.cmd.Process.Pid && state != "Z" {
			pids = append(pids, pid)
		}
	}
	return pids
}

// until polls for what tells of itself in no other way.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(2 * time.Millisecond) {
		require.True(t, time.Now().Before(deadline), "waited in vain for %s", what)
	}
}
