package guard

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// pidfdOf starts a process, and returns a pidfd and what ends it.
func pidfdOf(t *testing.T) (pidfd int, end func()) {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	require.NoError(t, cmd.Start())
	end = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	t.Cleanup(end)
	file, err := openPidfd(cmd.Process.Pid)
	require.NoError(t, err)
	defer func() { _ = file.Close() }()
	syscall.ForkLock.RLock() // or what another test starts has it for good
	pidfd, err = syscall.Dup(int(file.Fd()))
	syscall.CloseOnExec(pidfd)
	syscall.ForkLock.RUnlock()
	require.NoError(t, err)
	return pidfd, end
}

// readOf reads once. With a time limit on the socket the kernel does not begin a read again that a signal interrupted, and
// the scheduler of Go signals its threads.
func readOf(t *testing.T, conn, most int) string {
	t.Helper()
	buffer := make([]byte, most)
	for {
		n, err := syscall.Read(conn, buffer)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		require.NoError(t, err)
		return string(buffer[:n])
	}
}

// atWork is a guard that guards a process with one session, and the other end of their connection.
func atWork(t *testing.T, pidfd int, r *record) (s *serving, p *guarded, conn int, log *bytes.Buffer) {
	t.Helper()
	log = new(bytes.Buffer)
	s = &serving{logger: func(message) (*slog.Logger, func()) { return slog.New(slog.NewTextHandler(log, nil)), func() {} }}
	require.NoError(t, s.begin())
	t.Cleanup(s.end)
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = syscall.Close(pair[1]) })
	require.NoError(t, s.add(pair[0]))
	m, err := newMemory()
	require.NoError(t, err)
	require.NoError(t, new(page).put(m.mapped, r))
	require.NoError(t, syscall.Munmap(m.mapped))
	p = s.processes[0]
	p.pidfd, p.memory = pidfd, m.fd
	t.Cleanup(func() {
		for _, p := range s.processes {
			s.drop(p)
		}
	})
	return s, p, pair[1], log
}

// TestDiesWhileItsFilesAreRead: a process has said hello, and its TLS files take their time.
func TestDiesWhileItsFilesAreRead(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name         string
		dies, former bool
		closed       bool
	}{
		{"it dies", true, false, true},
		{"it has lost its connection, and will make another", false, false, false},
		{"it has made another", true, true, false}, // which may know of a process to wait for
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			goesOn := make(chan struct{})
			s := &serving{
				check:  func(*TLS) error { <-goesOn; return nil },
				logger: func(message) (*slog.Logger, func()) { return slog.New(slog.NewTextHandler(&log, nil)), func() {} },
			}
			require.NoError(t, s.begin())
			t.Cleanup(s.end)
			pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
			require.NoError(t, err)
			require.NoError(t, s.add(pair[0]))
			p := s.processes[0]
			address, _ := scripted(t, answers(1000, 0))
			m, err := newMemory()
			require.NoError(t, err)
			require.NoError(t, new(page).put(m.mapped, at(address)))
			pidfd, end := pidfdOf(t)
			text, err := json.Marshal(message{Kind: kindHello, Number: 1, TLS: &TLS{CAFile: "slow"}})
			require.NoError(t, err)
			require.NoError(t, syscall.Sendmsg(pair[1], text, syscall.UnixRights(pidfd, m.fd), nil, 0))
			s.listen(p)
			if c.former {
				s.processes = append(s.processes, &guarded{pidfd: pidfd, is: m.is})
			} else {
				defer func() { _ = syscall.Close(pidfd) }()
			}
			m.close()
			require.NoError(t, syscall.Close(pair[1]))
			// What another test starts has a copy of that end until it runs its program.
			for until := time.Now().Add(time.Minute); p.conn != 0 && time.Now().Before(until); time.Sleep(time.Millisecond) {
				s.listen(p)
			}
			require.Zero(t, p.conn, "its end has not been seen")
			require.Contains(t, s.processes, p, "forgotten before its files are read")
			if c.dies {
				end()
			}
			close(goesOn)
			until := time.Now().Add(time.Minute)
			for s.checking > 0 && time.Now().Before(until) {
				s.woken()
				time.Sleep(time.Millisecond)
			}
			if slices.Contains(s.processes, p) {
				s.judge(p)
			}
			s.closings.Wait()
			require.NotContains(t, s.processes, p)
			require.Equal(t, c.closed, strings.Contains(log.String(), "is closed"), log.String())
			for _, other := range s.processes {
				s.drop(other)
			}
		})
	}
}

// TestOutlived: a session that was not closed because of what was waited for is told of.
func TestOutlived(t *testing.T) {
	t.Parallel()
	pidfd, end := pidfdOf(t)
	s, p, _, log := atWork(t, pidfd, at("127.0.0.1:1"))
	child, _ := pidfdOf(t)
	p.awaits = append(p.awaits, newAwaited(nil, child))
	end()
	s.judge(p)
	require.Len(t, s.processes, 1)
	s.expire(p.dead.Add(time.Hour))
	require.Empty(t, s.processes)
	s.closings.Wait()
	require.Contains(t, log.String(), "the session of a dead process is not closed")
	require.Contains(t, log.String(), errOutlived.Error())
}

// TestLogComesLast: opening the log may take forever, which keeps no session from being closed. With nothing to write none is
// opened.
func TestLogComesLast(t *testing.T) {
	t.Parallel()
	address, asked := scripted(t, answers(1000, 0))
	opened := 0
	s := &serving{logger: func(message) (*slog.Logger, func()) {
		opened++
		assert.Equal(t, 1, asked(), "servers that were asked before the log was opened")
		return slog.New(slog.DiscardHandler), func() {}
	}}
	s.closeSessions(message{}, []*record{at(address)}, time.Now(), errors.New("of another page"))
	require.Equal(t, 1, opened)
	s.closeSessions(message{}, nil, time.Now(), nil)
	require.Equal(t, 1, opened)
}

// TestListenLeavesNothing: it may be called again and again.
func TestListenLeavesNothing(t *testing.T) {
	polls := func() (n int) {
		all, err := filepath.Glob("/proc/self/fd/*")
		require.NoError(t, err)
		for _, fd := range all {
			if what, _ := os.Readlink(fd); what == "anon_inode:[eventpoll]" {
				n++
			}
		}
		return n
	}
	before := polls()
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		require.NoError(t, Listen(ctx, filepath.Join(t.TempDir(), "guard"), &ListenOptions{
			Logger: slog.New(slog.DiscardHandler), Listening: cancel,
		}))
	}
	require.Equal(t, before, polls())
}

// TestAwaitNotHeard: a guard that has not got a process to wait for does not guard at all, for it would close the session
// while that process goes on.
func TestAwaitNotHeard(t *testing.T) {
	t.Parallel()
	text, err := json.Marshal(message{Kind: kindAwait, Number: 1})
	require.NoError(t, err)
	t.Run("truncated", func(t *testing.T) {
		t.Parallel()
		pidfd, _ := pidfdOf(t)
		s, p, conn, _ := atWork(t, pidfd, at())
		// The kernel drops descriptors that it has no room for, here because the sender's name comes first.
		require.NoError(t, syscall.SetsockoptInt(p.conn, syscall.SOL_SOCKET, syscall.SO_PASSCRED, 1))
		null, err := os.Open(os.DevNull)
		require.NoError(t, err)
		defer func() { _ = null.Close() }()
		many := make([]int, 253)
		for i := range many {
			many[i] = int(null.Fd())
		}
		require.NoError(t, syscall.Sendmsg(conn, text, syscall.UnixRights(many...), nil, 0))
		s.listen(p)
		require.Empty(t, s.processes)
	})
	t.Run("no pidfd", func(t *testing.T) {
		t.Parallel()
		pidfd, _ := pidfdOf(t)
		s, p, conn, _ := atWork(t, pidfd, at())
		require.NoError(t, syscall.Sendmsg(conn, text, nil, nil, 0))
		s.listen(p)
		require.Empty(t, s.processes)
		require.Contains(t, readOf(t, conn, 4096), "error", "it says so before")
	})
	t.Run("heard", func(t *testing.T) {
		t.Parallel()
		pidfd, _ := pidfdOf(t)
		awaited, _ := pidfdOf(t)
		defer func() { _ = syscall.Close(awaited) }()
		s, p, conn, _ := atWork(t, pidfd, at())
		require.NoError(t, syscall.Sendmsg(conn, text, syscall.UnixRights(awaited), nil, 0))
		s.listen(p)
		require.Len(t, s.processes, 1)
		require.Len(t, p.awaits, 1)
	})
}

// TestTimeCountsFromDeath: what is waited for after the death takes nothing away from the limit, and adds nothing to it.
func TestTimeCountsFromDeath(t *testing.T) {
	t.Parallel()
	for name, ago := range map[string]time.Duration{"in time": 0, "too late": time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address, _ := scripted(t, answers(1000, 0))
			pidfd, end := pidfdOf(t)
			s, p, _, log := atWork(t, pidfd, at(address))
			end()
			p.dead = time.Now().Add(-ago)
			s.judge(p)
			s.closings.Wait()
			if ago == 0 {
				require.Contains(t, log.String(), "is closed")
			} else {
				require.Contains(t, log.String(), "is not closed")
				require.Contains(t, log.String(), errTooLate.Error())
			}
		})
	}
}

// TestHungFiles: TLS files that one process names, and that take forever to be read, stop nothing for the others, and that
// process is forgotten after a while.
func TestHungFiles(t *testing.T) {
	t.Parallel()
	pipe := filepath.Join(t.TempDir(), "pipe")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	require.ErrorContains(t, (&TLS{CAFile: pipe}).check(), "not a file")
	require.ErrorContains(t, (&TLS{CertFile: pipe, KeyFile: pipe}).check(), "not a file")

	hangs := make(chan struct{})
	checked := make(chan struct{}, mostChecks)
	s := &serving{
		logger: func(message) (*slog.Logger, func()) { return slog.New(slog.DiscardHandler), func() {} },
		check:  func(*TLS) error { <-hangs; checked <- struct{}{}; return nil },
	}
	require.NoError(t, s.begin())
	ended := make(chan error, 1)
	hello := func(conn, pidfd int, tls *TLS) {
		t.Helper()
		m, err := newMemory()
		require.NoError(t, err)
		text, err := json.Marshal(message{Kind: kindHello, Number: 1, TLS: tls})
		require.NoError(t, err)
		require.NoError(t, syscall.Sendmsg(conn, text, syscall.UnixRights(pidfd, m.fd), nil, 0))
		m.close()
		_ = syscall.Close(pidfd)
	}
	// All processes are there before the first connection is: whoever says no hello in readyTimeout is forgotten, and starting
	// so many may take longer.
	var pidfds, conns []int
	for range mostChecks + 2 {
		pidfd, _ := pidfdOf(t)
		pidfds = append(pidfds, pidfd)
	}
	for range mostChecks + 2 {
		pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
		require.NoError(t, err)
		require.NoError(t, s.add(pair[0]))
		require.NoError(t, syscall.SetsockoptTimeval(pair[1], syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &syscall.Timeval{Sec: 30}))
		conns = append(conns, pair[1])
	}
	for _, p := range s.processes[mostChecks:] {
		p.since = p.since.Add(time.Minute) // the machine may stand still before these say hello
	}
	go func() { ended <- s.serve() }()
	for i := range mostChecks {
		hello(conns[i], pidfds[i], &TLS{CAFile: "hangs"})
	}
	hello(conns[mostChecks], pidfds[mostChecks], nil)
	require.Contains(t, readOf(t, conns[mostChecks], 4096), `"ready":true`, "another process waits for it")
	hello(conns[mostChecks+1], pidfds[mostChecks+1], &TLS{CAFile: "hangs"})
	require.Contains(t, readOf(t, conns[mostChecks+1], 4096), "too many", "threads without limit")
	// Those that hang are dropped, which is seen on the other side.
	for _, conn := range conns[:mostChecks] {
		require.Empty(t, readOf(t, conn, 1))
	}
	close(hangs)
	for range mostChecks {
		<-checked
	}
	text, err := json.Marshal(message{Kind: kindBye})
	require.NoError(t, err)
	require.NoError(t, syscall.Sendmsg(conns[mostChecks], text, nil, nil, 0))
	require.NoError(t, <-ended)
}

// TestAlive: the loop says that it lives while it goes round, and while what it has begun to close is waited for, and not
// where it hangs.
func TestAlive(t *testing.T) {
	t.Parallel()
	var turns atomic.Int64
	hangs, goesOn := make(chan struct{}), make(chan struct{})
	s := &serving{
		log:   slog.New(hangingHandler{slog.DiscardHandler, func() { close(hangs); <-goesOn }}),
		alive: func() { turns.Add(1) },
		every: 5 * time.Millisecond,
	}
	require.NoError(t, s.begin())
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = syscall.Close(pair[1]) })
	require.NoError(t, s.add(pair[0]))
	say := func(m message, descriptors ...int) {
		t.Helper()
		text, err := json.Marshal(m)
		require.NoError(t, err)
		require.NoError(t, syscall.Sendmsg(pair[1], text, syscall.UnixRights(descriptors...), nil, 0))
	}
	more := func(what string) {
		t.Helper()
		before := turns.Load()
		require.Eventually(t, func() bool { return turns.Load() > before+3 }, time.Minute, time.Millisecond, what)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.serve() }()
	more("while nothing happens")

	pidfd, _ := pidfdOf(t)
	defer func() { _ = syscall.Close(pidfd) }()
	m, err := newMemory()
	require.NoError(t, err)
	defer m.close()
	say(message{Kind: kindHello, Number: 1}, pidfd, m.fd)
	<-hangs
	before := turns.Load()
	time.Sleep(20 * s.every) // for a loop that would not hang
	require.Equal(t, before, turns.Load(), "while the loop hangs")
	close(goesOn)
	more("after that")

	s.post(func() { s.closings.Add(1) }) // on the loop, as those of its own
	say(message{Kind: kindBye})
	more("while a session is being closed")
	select {
	case err := <-ended:
		t.Fatal("it has ended before: ", err)
	default:
	}
	s.closings.Done()
	require.NoError(t, <-ended)
}

// hangingHandler calls a function for each line of a log.
type hangingHandler struct {
	slog.Handler
	called func()
}

func (h hangingHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h hangingHandler) Handle(context.Context, slog.Record) error {
	h.called()
	return nil
}

// TestHungFilesOfADeadProcess: the session is over by itself when they cannot be read.
func TestHungFilesOfADeadProcess(t *testing.T) {
	t.Parallel()
	r := at("127.0.0.1:1")
	r.Timeout, r.Tick = 200*time.Millisecond, 50*time.Millisecond
	hangs := make(chan struct{})
	read := make(chan struct{})
	ctx, cancel := context.WithTimeoutCause(t.Context(), r.lifetime(), errTooLate)
	defer cancel()
	_, err := within(ctx, func() ([]target, error) { defer close(read); <-hangs; return r.targets(nil) })
	require.ErrorIs(t, err, errTooLate)
	close(hangs)
	<-read
}

// TestGroupOfZombies: a process that has ended and that nobody reaps keeps its group's number, and nothing else.
func TestGroupOfZombies(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("sleep", "600")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, cmd.Start())
	file, err := openPidfd(cmd.Process.Pid)
	require.NoError(t, err)
	defer func() { _ = file.Close() }()
	pidfd := int(file.Fd())
	if errors.Is(signalGroup(pidfd, 0), syscall.EINVAL) {
		t.Skip("the kernel is too old")
	}
	require.Equal(t, cmd.Process.Pid, pidOf(pidfd))
	require.False(t, groupEnded(pidfd, cmd.Process.Pid))
	require.NoError(t, signalGroup(pidfd, syscall.SIGKILL))
	for over := false; !over; {
		over, err = ended(pidfd)
		require.NoError(t, err)
	}
	require.NoError(t, signalGroup(pidfd, 0), "the kernel has it still")
	// It is not sure while other processes end, of whatever group.
	require.Eventually(t, func() bool { return groupEnded(pidfd, cmd.Process.Pid) }, time.Minute, time.Millisecond)
	require.False(t, groupEnded(pidfd, 0), "where it cannot be seen")
	_ = cmd.Wait()
	require.True(t, groupEnded(pidfd, 0))
}

func TestIdentityHasTheDevice(t *testing.T) {
	t.Parallel()
	null, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer func() { _ = null.Close() }()
	is, err := identityOf(int(null.Fd()))
	require.NoError(t, err)
	var stat syscall.Stat_t
	require.NoError(t, syscall.Stat(os.DevNull, &stat))
	require.Equal(t, identity{uint64(stat.Dev), stat.Ino}, is) //nolint:unconvert // it has another type elsewhere
	require.NotEqual(t, identity{1, 2}, identity{2, 2})
}

// leftAlone waits until nobody listens on a socket that was closed: a child of another test's may hold it until it executes.
func leftAlone(t *testing.T, path string) {
	t.Helper()
	require.Eventually(t, func() bool {
		conn, err := net.Dial("unixpacket", path)
		if err == nil {
			_ = conn.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	}, time.Minute, time.Millisecond)
}

// TestListenAtTheSameMoment: of guards that find one and the same socket left behind, one listens.
func TestListenAtTheSameMoment(t *testing.T) {
	t.Parallel()
	for _, left := range []bool{false, true} {
		for range 20 {
			path := filepath.Join(t.TempDir(), "guard")
			if left {
				former, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
				require.NoError(t, err)
				former.SetUnlinkOnClose(false)
				require.NoError(t, former.Close())
				leftAlone(t, path)
			}
			listeners := make(chan *net.UnixListener, 8)
			var all sync.WaitGroup
			for range cap(listeners) {
				all.Go(func() {
					listener, err := listen(path, 0o600)
					if err == nil {
						listeners <- listener
						return
					}
					assert.ErrorContains(t, err, "a guard already")
				})
			}
			all.Wait()
			require.Len(t, listeners, 1, "left behind: %v", left)
			conn, err := net.Dial("unixpacket", path)
			require.NoError(t, err, "nobody listens there")
			_ = conn.Close()
			_ = (<-listeners).Close()
		}
	}
}
