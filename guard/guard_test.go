//go:build linux

package guard_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/guard"
	"github.com/zkelection/election/testutil"
)

func newServer(t *testing.T) *testutil.Server {
	t.Helper()
	srv, err := testutil.NewServer(nil)
	require.NoError(t, err)
	t.Cleanup(srv.Close)
	return srv
}

func has(srv *testutil.Server, session int64) bool {
	return slices.ContainsFunc(srv.Sessions(), func(s testutil.SessionInfo) bool { return s.ID == session })
}

// closed waits until the session is gone. It lasts for half a minute by itself.
func closed(t *testing.T, srv *testutil.Server, session int64) {
	t.Helper()
	began := time.Now()
	until(t, "the end of the session", func() bool { return !has(srv, session) })
	require.Less(t, time.Since(began), 20*time.Second, "it has ended by itself")
}

// listening is a guard on a socket, in this process.
func listening(t *testing.T) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "guard")
	listenOn(t, socket)
	return socket
}

func listenOn(t *testing.T, socket string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		done <- guard.Listen(ctx, socket, &guard.ListenOptions{Logger: slog.New(slog.DiscardHandler)})
	}()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-done)
	})
	until(t, "the socket", func() bool { _, err := os.Stat(socket); return err == nil })
}

// carriers are the ways to have a guard.
var carriers = map[string]func(t *testing.T, c *configuration){
	"helper": func(_ *testing.T, c *configuration) { c.Executable = os.Args[0] },
	"own":    func(*testing.T, *configuration) {},
	"socket": func(t *testing.T, c *configuration) { c.Socket = listening(t) },
}

// TestDeaths: whatever a process dies of, with whatever guard, its session is closed.
func TestDeaths(t *testing.T) {
	t.Parallel()
	for name, carrier := range carriers {
		for _, how := range []string{"kill -9", "panic", "os.Exit", "SIGSEGV"} {
			t.Run(name+"/"+how, func(t *testing.T) {
				t.Parallel()
				srv := newServer(t)
				c := configuration{Servers: srv.Servers()}
				carrier(t, &c)
				s := start(t, c)
				require.True(t, has(srv, s.session))
				guards := s.guards()
				require.Equal(t, c.Socket == "", len(guards) == 1)
				s.tell(how)
				closed(t, srv, s.session)
				for _, pid := range guards {
					until(t, "the end of the guard", func() bool { return syscall.Kill(pid, 0) != nil })
					require.Contains(t, s.guardLog(), "is closed")
				}
			})
		}
	}
}

// TestProperEnd: a service that closes its session and its guard leaves nothing to do, and no process.
func TestProperEnd(t *testing.T) {
	t.Parallel()
	for name, carrier := range carriers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := newServer(t)
			c := configuration{Servers: srv.Servers()}
			carrier(t, &c)
			s := start(t, c)
			guards := s.guards()
			s.tell("quit")
			<-s.exited
			require.True(t, s.cmd.ProcessState.Success())
			require.False(t, has(srv, s.session))
			for _, pid := range guards {
				until(t, "the end of the guard", func() bool { return syscall.Kill(pid, 0) != nil })
			}
			require.Empty(t, s.guardLog())
		})
	}
}

// TestTwoSessions: all sessions of a process are closed, and of one that has closed one, the other.
func TestTwoSessions(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	s := start(t, configuration{Servers: srv.Servers(), Sessions: 2})
	require.Len(t, srv.Sessions(), 2)
	s.kill()
	until(t, "the end of both sessions", func() bool { return len(srv.Sessions()) == 0 })

	s = start(t, configuration{Servers: srv.Servers(), Sessions: 2})
	s.tell("close")
	s.says("closed")
	require.Len(t, srv.Sessions(), 1)
	guards := s.guards()
	require.Len(t, guards, 1)
	s.kill()
	until(t, "the end of the other session", func() bool { return len(srv.Sessions()) == 0 })
	until(t, "the end of the guard, which has said all by then", func() bool { return syscall.Kill(guards[0], 0) != nil })
	require.Equal(t, 1, strings.Count(s.guardLog(), "\n"))
}

// lives looks that a guard has done nothing to a service, and still does when that dies.
func lives(t *testing.T, srv *testutil.Server, s *service, still time.Duration) {
	t.Helper()
	for end := time.Now().Add(still); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		require.True(t, has(srv, s.session), "the session of a living process was closed")
	}
	require.Empty(t, s.guardLog(), "the guard has acted on a living process")
	s.kill()
	closed(t, srv, s.session)
}

// The following tests are of living processes. Whatever looks like a death to other kinds of evidence, the guard keeps
// still, and is awake.

func TestNeverStopped(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	s := start(t, configuration{Servers: srv.Servers()})
	require.NoError(t, s.cmd.Process.Signal(syscall.SIGSTOP))
	lives(t, srv, s, time.Second)
}

// A process that is stopped beyond its session's timeout loses it to the servers, and its guard has nothing to do with it.
func TestNeverStoppedBeyondTimeout(t *testing.T) {
	t.Parallel()
	srv, err := testutil.NewServer(&testutil.ServerOptions{TickTime: 250 * time.Millisecond})
	require.NoError(t, err)
	t.Cleanup(srv.Close)
	s := start(t, configuration{Servers: srv.Servers(), Timeout: 5 * time.Second}) // so that a slow machine loses none
	s.says("won ")
	require.NoError(t, s.cmd.Process.Signal(syscall.SIGSTOP))
	until(t, "the end of the session, or of another that it has by now", func() bool { return len(srv.Sessions()) == 0 })
	require.Empty(t, s.guardLog())
	before := s.count("won ") // on a slow machine it may have won more than once
	require.NoError(t, s.cmd.Process.Signal(syscall.SIGCONT))
	// The server has the other session a moment before the guard hears of it: what is sure is that it leads only then.
	until(t, "the leader of another session", func() bool { return s.count("won ") > before })
	require.Empty(t, s.guardLog())
	s.kill()
	until(t, "the end of the other session", func() bool { return strings.Contains(s.guardLog(), "is closed") })
}

func TestNeverStorm(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	s := start(t, configuration{Servers: srv.Servers()})
	n := 200
	if *long {
		n = 5000
	}
	s.tell(fmt.Sprintf("storm %d", n))
	_, over := s.saysWithin("storm over", 10*time.Minute)
	require.True(t, over, "the storm has no end")
	lives(t, srv, s, 0)
}

// Foreign code closes the connection to the guard, and the memory's descriptor.
func TestNeverDescriptorsClosed(t *testing.T) {
	t.Parallel()
	for name, carrier := range carriers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := newServer(t)
			c := configuration{Servers: srv.Servers()}
			carrier(t, &c)
			s := start(t, c)
			s.tell("close-descriptors")
			s.says("descriptors closed")
			lives(t, srv, s, time.Second)
		})
	}
}

// The guard ends after foreign code has closed the descriptors: the next one is given other memory.
func TestGuardKilledAfterDescriptorsClosed(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	s := start(t, configuration{Servers: srv.Servers()})
	s.tell("close-descriptors")
	s.says("descriptors closed")
	replaced(t, s)
	lives(t, srv, s, 0)
}

// replaced kills the guard of a service and waits for another.
func replaced(t *testing.T, s *service) {
	t.Helper()
	before := s.guards()
	require.Len(t, before, 1)
	require.NoError(t, syscall.Kill(before[0], syscall.SIGKILL))
	s.says("guard: the guard has ended")
	s.says("guard: there is a guard again")
	after := s.guards()
	require.Len(t, after, 1)
	require.NotEqual(t, before, after)
}

func TestNeverGuardKilled(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	s := start(t, configuration{Servers: srv.Servers()})
	replaced(t, s)
	lives(t, srv, s, 100*time.Millisecond)
}

func TestNeverMainThreadEnded(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	s := start(t, configuration{Servers: srv.Servers()})
	s.tell("end-main-thread")
	s.says("main thread ends")
	until(t, "the end of the main thread", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
		return err == nil && strings.Contains(string(stat), ") Z ")
	})
	lives(t, srv, s, time.Second)
}

// A process is frozen as a container is that is paused.
func TestNeverFrozen(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	s := start(t, configuration{Servers: srv.Servers()})
	thaw := freeze(t, s.cmd.Process.Pid)
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		require.True(t, has(srv, s.session))
	}
	thaw()
	lives(t, srv, s, 100*time.Millisecond)
}

func TestNeverNewImage(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	s := start(t, configuration{Servers: srv.Servers()})
	s.tell("exec")
	s.says("image")
	lives(t, srv, s, time.Second)
}

func TestNeverUnderDebugger(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	s := start(t, configuration{Servers: srv.Servers()})
	stopped := make(chan error)
	release := make(chan struct{})
	go traceUntil(s.cmd.Process.Pid, stopped, release)
	require.NoError(t, <-stopped)
	defer close(release)
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		require.True(t, has(srv, s.session))
	}
	require.Empty(t, s.guardLog())
	require.NoError(t, s.cmd.Process.Kill()) // under the debugger
	closed(t, srv, s.session)
}

// TestCloseAtTheSameMoment kills services while they close their sessions.
func TestCloseAtTheSameMoment(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	for i := range 20 {
		s := start(t, configuration{Servers: srv.Servers()})
		s.tell("close")
		time.Sleep(time.Duration(i) * 500 * time.Microsecond)
		s.kill()
		closed(t, srv, s.session)
		require.NotContains(t, s.guardLog(), "not closed")
	}
}

// TestMoved: a session that has moved to another server is closed there.
func TestMoved(t *testing.T) {
	t.Parallel()
	srv, err := testutil.NewServer(&testutil.ServerOptions{Members: 3})
	require.NoError(t, err)
	t.Cleanup(srv.Close)
	s := start(t, configuration{Servers: srv.Servers()})
	session := func() testutil.SessionInfo {
		for _, info := range srv.Sessions() {
			if info.ID == s.session {
				return info
			}
		}
		return testutil.SessionInfo{}
	}
	before := session().Addr
	srv.DropConnections()
	until(t, "another connection", func() bool { now := session().Addr; return now != "" && now != before })
	require.Empty(t, s.guardLog())
	s.kill()
	closed(t, srv, s.session)
}

// TestAwait: what is to be waited for has ended before the session is closed.
func TestAwait(t *testing.T) {
	t.Parallel()
	for name, carrier := range carriers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := newServer(t)
			c := configuration{Servers: srv.Servers()}
			carrier(t, &c)
			s := start(t, c)
			s.tell("await")
			var child int
			_, err := fmt.Sscanf(s.says("child "), "child %d", &child)
			require.NoError(t, err)
			if name == "helper" {
				replaced(t, s) // the next guard knows of it, too
			}
			require.NoError(t, s.cmd.Process.Kill())
			for range 50 {
				require.True(t, has(srv, s.session), "closed while what is to be waited for lives")
				time.Sleep(10 * time.Millisecond)
			}
			require.NoError(t, syscall.Kill(child, syscall.SIGKILL))
			closed(t, srv, s.session)
		})
	}
}

// TestAwaitUnheard: a guard on a socket goes on guarding when its connection is lost. One that has not heard of what is to be
// waited for must have nothing to close.
func TestAwaitUnheard(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"close-descriptors", "shut-descriptors"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			srv := newServer(t)
			socket := listening(t)
			s := start(t, configuration{Servers: srv.Servers(), Socket: socket})
			require.NoError(t, os.Remove(socket)) // there is no other guard to be told
			s.tell(how)
			s.says("descriptors closed")
			if how == "shut-descriptors" {
				s.says("guard: the guard has ended")
			}
			s.tell("await")
			var child int
			_, err := fmt.Sscanf(s.says("child "), "child %d", &child)
			require.NoError(t, err)
			defer func() { _ = syscall.Kill(child, syscall.SIGKILL) }()
			require.NoError(t, s.cmd.Process.Kill())
			for range 50 {
				require.True(t, has(srv, s.session), "closed while what is to be waited for lives")
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
}

// TestAwaitReleased: what was to be waited for and is not any more may go on.
func TestAwaitReleased(t *testing.T) {
	t.Parallel()
	for name, carrier := range carriers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := newServer(t)
			c := configuration{Servers: srv.Servers()}
			carrier(t, &c)
			s := start(t, c)
			s.tell("await")
			var child int
			_, err := fmt.Sscanf(s.says("child "), "child %d", &child)
			require.NoError(t, err)
			defer func() { _ = syscall.Kill(child, syscall.SIGKILL) }()
			s.tell("release")
			s.says("released")
			if name == "helper" {
				replaced(t, s) // the next guard does not know of it
			}
			s.kill()
			closed(t, srv, s.session)
			require.NoError(t, syscall.Kill(child, 0), "it has ended: this proves nothing")
		})
	}
}

// TestAwaitGroup: a process is killed together with the child that leads a process group. What that has started is ended by
// the guard, before the session is closed; one on a socket has no right to, and waits.
func TestAwaitGroup(t *testing.T) {
	t.Parallel()
	for name, carrier := range carriers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := newServer(t)
			c := configuration{Servers: srv.Servers()}
			carrier(t, &c)
			s := start(t, c)
			s.tell("group")
			if strings.Contains(s.says("group "), guard.ErrUnsupported.Error()) {
				t.Skip("the kernel is too old")
			}
			var child, grandchild int
			_, err := fmt.Sscanf(s.says("group "), "group %d %d", &child, &grandchild)
			require.NoError(t, err)
			defer func() { _ = syscall.Kill(-child, syscall.SIGKILL) }()
			if name == "own" {
				replaced(t, s) // the next guard knows of it, too
			}
			require.NoError(t, s.cmd.Process.Kill())
			// A guard that may end the group may have been first.
			if err := syscall.Kill(child, syscall.SIGKILL); name == "socket" || !errors.Is(err, syscall.ESRCH) {
				require.NoError(t, err)
			}
			if name == "socket" {
				for range 50 {
					require.True(t, has(srv, s.session), "closed while what is to be waited for lives")
					time.Sleep(10 * time.Millisecond)
				}
				require.True(t, runs(grandchild), "a guard on a socket has killed it")
				require.NoError(t, syscall.Kill(-child, syscall.SIGKILL))
			}
			closed(t, srv, s.session)
			require.False(t, runs(grandchild), "it goes on, and the session is closed")
		})
	}
}

// runs is for a process that nobody may reap.
func runs(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ") && !strings.Contains(string(stat), ") X ")
}

// TestSocketThatIsLate: a guard on a socket may be started at the same time as the service.
func TestSocketThatIsLate(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "guard")
	started := make(chan *guard.Guard, 1)
	go func() {
		g, err := guard.Start(&guard.Options{Socket: socket, Wait: time.Minute})
		assert.NoError(t, err)
		started <- g
	}()
	time.Sleep(200 * time.Millisecond) // nothing tells that it waits; what comes too soon may come later than this
	require.Empty(t, started)
	ctx, quit := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- guard.Listen(ctx, socket, &guard.ListenOptions{Logger: slog.New(slog.DiscardHandler)})
	}()
	require.NoError(t, (<-started).Close())
	quit()
	require.NoError(t, <-done)
}

// TestExecOfItself: a service that execs itself closes its guard before, which leaves one guard, that of the new image.
func TestExecOfItself(t *testing.T) {
	t.Parallel()
	for name, carrier := range carriers {
		if name == "socket" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := newServer(t)
			c := configuration{Servers: srv.Servers()}
			carrier(t, &c)
			s := start(t, c)
			before := s.guards()
			s.tell("re-exec")
			until(t, "the new image", func() bool { return s.count("stands") == 2 })
			after := s.guards()
			require.Len(t, after, 1, "guards, of the one before: %v", before)
			require.NotEqual(t, before, after)
			s.kill()
			until(t, "the end of both sessions", func() bool { return len(srv.Sessions()) == 0 })
		})
	}
}

// TestStart is of the mistakes that there are to be made.
func TestStart(t *testing.T) {
	t.Parallel()
	t.Run("Init is forgotten", func(t *testing.T) {
		t.Parallel()
		for _, c := range []configuration{{NoInit: true, Executable: os.Args[0]}, {NoInit: true, Executable: "/proc/self/exe"}} {
			s := launch(t, c, nil)
			require.Contains(t, s.says("error "), guard.ErrNoInit.Error())
		}
		s := launch(t, configuration{NoInit: true}, func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "PATH=/nowhere") })
		require.Contains(t, s.says("error "), "Init has not been called")
	})
	t.Run("in a guard", func(t *testing.T) {
		t.Parallel()
		s := launch(t, configuration{NoInit: true}, func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "ELECTION_GUARD_PROCESS=3") })
		require.Contains(t, s.says("error "), guard.ErrIsGuard.Error())
	})
	t.Run("no guard", func(t *testing.T) {
		t.Parallel()
		_, err := guard.Start(&guard.Options{Executable: "/bin/cat"}) // ends by itself: there is no such file
		require.ErrorContains(t, err, "ended before it was ready", "and this is not what it says when it has waited in vain")
		_, err = guard.Start(&guard.Options{Executable: "/nowhere"})
		require.ErrorIs(t, err, os.ErrNotExist)
		_, err = guard.Start(&guard.Options{Socket: "/nowhere", Wait: -1})
		require.ErrorIs(t, err, os.ErrNotExist)
		began := time.Now()
		_, err = guard.Start(&guard.Options{Socket: "/nowhere", Wait: 100 * time.Millisecond})
		require.ErrorIs(t, err, os.ErrNotExist)
		require.GreaterOrEqual(t, time.Since(began), 100*time.Millisecond)
		_, err = guard.Start(&guard.Options{Socket: "/x", Executable: "/y"})
		require.ErrorContains(t, err, "exclude")
		_, err = guard.Start(&guard.Options{TLS: &guard.TLS{CAFile: "/nowhere"}})
		require.ErrorContains(t, err, "/nowhere")
	})
	t.Run("silent", func(t *testing.T) {
		t.Parallel()
		silent := filepath.Join(t.TempDir(), "silent")
		require.NoError(t, os.WriteFile(silent, []byte("#!/bin/sh\nexec sleep 600\n"), 0o700))
		var err error
		for until := time.Now().Add(time.Minute); time.Now().Before(until); time.Sleep(time.Millisecond) {
			// What another test starts has a copy of what the script was written with until it runs its program.
			if _, err = guard.Start(&guard.Options{Executable: silent}); !errors.Is(err, syscall.ETXTBSY) {
				break
			}
		}
		require.ErrorContains(t, err, "not ready in 5s")
	})
	t.Run("nil", func(t *testing.T) {
		t.Parallel()
		var g *guard.Guard
		g.Hold(t, &guard.Session{})
		release, err := g.Await(1)
		require.NoError(t, err)
		release()
		require.NoError(t, g.Close())
	})
}

// TestEnvironment: an operator names the guard.
func TestEnvironment(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	for name, value := range map[string]string{"executable": os.Args[0], "socket": listening(t)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := launch(t, configuration{Servers: srv.Servers()}, func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, guard.Environment+"="+value) })
			s.says("stands")
			require.Equal(t, name == "executable", len(s.guards()) == 1)
			_, err := fmt.Sscanf(s.says("session "), "session %d", &s.session)
			require.NoError(t, err)
			s.kill()
			closed(t, srv, s.session)
		})
	}
}

// TestEnvironmentOfASocketThatIsLate: nor has a socket that the environment names to be there when the service starts.
func TestEnvironmentOfASocketThatIsLate(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	socket := filepath.Join(t.TempDir(), "guard")
	s := launch(t, configuration{Servers: srv.Servers(), Wait: time.Minute}, func(cmd *exec.Cmd) {
		cmd.Env = append(cmd.Env, guard.Environment+"="+socket)
	})
	time.Sleep(200 * time.Millisecond) // nothing tells that it waits; what comes too soon may come later than this
	listenOn(t, socket)
	s.says("stands")
	_, err := fmt.Sscanf(s.says("session "), "session %d", &s.session)
	require.NoError(t, err)
	s.kill()
	closed(t, srv, s.session)
}

// TestEnvironmentOfAName: a name is looked for in the PATH, and not in the directory where the service runs.
func TestEnvironmentOfAName(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	dir := t.TempDir()
	require.NoError(t, os.Symlink(os.Args[0], filepath.Join(dir, "a-guard")))
	s := launch(t, configuration{Servers: srv.Servers()}, func(cmd *exec.Cmd) {
		cmd.Env = append(cmd.Env, guard.Environment+"=a-guard", "PATH="+dir)
	})
	s.says("stands")
	require.Len(t, s.guards(), 1)
}

// TestOwnDialer: with the service's own executable the guard has its dialer.
func TestOwnDialer(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	s := start(t, configuration{
		Servers: []string{"elsewhere:1"}, Elsewhere: map[string]string{"elsewhere:1": srv.Addr()}, OwnDialer: true,
	})
	s.kill()
	closed(t, srv, s.session)
}

// descriptors are what a process has open, by their numbers.
func descriptors(t *testing.T, pid int) map[string]string {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	open := make(map[string]string)
	for _, entry := range entries {
		open[entry.Name()], _ = os.Readlink(filepath.Join(dir, entry.Name())) // it may be closed by now
	}
	return open
}

// TestNothingLeaks: a guard holds none of the descriptors that the service has, whether it was given them or not, so that
// the port of one that has died is free while its guard still lives; and whoever waits for the end of a service's output
// does not wait for its guard.
func TestNothingLeaks(t *testing.T) {
	t.Parallel()
	for name, carrier := range carriers {
		if name == "socket" {
			continue // that has no parent
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := newServer(t)
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			file, err := listener.(*net.TCPListener).File()
			require.NoError(t, err)
			c := configuration{Servers: srv.Servers()}
			carrier(t, &c)
			s := launch(t, c, func(cmd *exec.Cmd) { cmd.ExtraFiles = []*os.File{file, file, file} })
			s.says("stands")
			what := descriptors(t, os.Getpid())[fmt.Sprint(file.Fd())]
			require.Contains(t, what, "socket:")
			require.NoError(t, errors.Join(file.Close(), listener.Close()))
			require.Contains(t, slices.Collect(maps.Values(descriptors(t, s.cmd.Process.Pid))), what, "the service has it not: this proves nothing")
			guards := s.guards()
			require.Len(t, guards, 1)
			holdsNothing := func() {
				t.Helper()
				held := descriptors(t, guards[0])
				for _, standard := range []string{"0", "1", "2"} {
					require.Equal(t, "/dev/null", held[standard])
				}
				require.NotContains(t, slices.Collect(maps.Values(held)), what, "the guard holds the service's port")
			}
			holdsNothing()
			srv.Stop() // so that the guard goes on trying
			s.kill()
			select {
			case <-s.exited: // its output has ended
			case <-time.After(10 * time.Second):
				t.Fatal("whoever waits for the service waits for its guard")
			}
			require.NoError(t, syscall.Kill(guards[0], 0), "the guard has ended already: this proves nothing")
			holdsNothing()
			// Whether it can be listened on again does not tell: others may have taken the number.
			inode := strings.Trim(what, "socket:[]")
			until(t, "the end of the socket: a child of another test's may hold it until it executes", func() bool {
				sockets, err := os.ReadFile("/proc/self/net/tcp")
				require.NoError(t, err)
				return !slices.Contains(strings.Fields(string(sockets)), inode)
			})
			require.NoError(t, syscall.Kill(guards[0], 0), "the guard has ended already: this proves nothing")
			require.NoError(t, srv.Start())
		})
	}
}

// TestSignals: those that a terminal or a supervisor sends to all are not for the guard.
func TestSignals(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	s := start(t, configuration{Servers: srv.Servers()})
	guards := s.guards()
	require.Len(t, guards, 1)
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		require.NoError(t, syscall.Kill(guards[0], signal))
	}
	session, err := getsid(guards[0])
	require.NoError(t, err)
	require.Equal(t, guards[0], session, "it is in the service's session")
	lives(t, srv, s, 100*time.Millisecond)
	_, again := s.saysWithin("guard: the guard has ended", 0)
	require.False(t, again, "the guard has ended")
}

// TestNoSecrets: the credentials are in the memory, and nowhere else.
func TestNoSecrets(t *testing.T) {
	t.Parallel()
	for name, carrier := range carriers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := newServer(t)
			const secret = "sEcReT-credential"
			c := configuration{Servers: srv.Servers(), Auth: "user:" + secret}
			carrier(t, &c)
			s := start(t, c)
			s.tell("core")
			flags := strings.Fields(strings.TrimPrefix(s.says("core "), "core "))
			require.Contains(t, flags, "dd", "the shared memory would be dumped")
			require.Contains(t, flags, "dc", "the shared memory would be copied by fork")
			for _, pid := range s.guards() {
				files := []string{"cmdline"}
				if name == "helper" {
					files = append(files, "environ") // its own executable needs the service's
				}
				for _, file := range files {
					text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
					require.NoError(t, err)
					require.NotContains(t, string(text), secret, file)
					if file == "environ" {
						require.NotContains(t, string(text), serviceVariable)
					}
				}
			}
			s.kill()
			closed(t, srv, s.session)
			require.NotContains(t, s.guardLog(), secret)
			require.NotContains(t, strings.Join(s.lines, "\n"), secret)
		})
	}
}

// TestListen is of the socket.
func TestListen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	require.NoError(t, os.WriteFile(plain, nil, 0o600))
	require.ErrorContains(t, guard.Listen(t.Context(), plain, nil), "no socket")

	others := filepath.Join(dir, "others")
	other, err := net.Listen("unix", others)
	require.NoError(t, err)
	defer func() { _ = other.Close() }()
	elsewhere, quitElsewhere := context.WithTimeout(t.Context(), time.Second) // it listens in vain where this is not refused
	defer quitElsewhere()
	require.ErrorContains(t, guard.Listen(elsewhere, others, nil), "wrong type", "the socket of another program")
	conn, err := net.Dial("unix", others)
	require.NoError(t, err, "it is still there")
	require.NoError(t, conn.Close())

	left := filepath.Join(dir, "left")
	former, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: left, Net: "unixpacket"})
	require.NoError(t, err)
	require.ErrorContains(t, guard.Listen(t.Context(), left, nil), "a guard already")
	former.SetUnlinkOnClose(false)
	require.NoError(t, former.Close())
	until(t, "nobody to listen: a child of another test's may hold the socket until it executes", func() bool {
		conn, err := net.Dial("unixpacket", left)
		if err == nil {
			_ = conn.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
	ctx, quit := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- guard.Listen(ctx, left, &guard.ListenOptions{Mode: 0o660, Logger: slog.New(slog.DiscardHandler)})
	}()
	until(t, "the socket's mode", func() bool {
		info, err := os.Stat(left)
		return err == nil && info.Mode().Perm() == 0o660
	})
	g, err := guard.Start(&guard.Options{Socket: left})
	require.NoError(t, err)
	quit()
	select {
	case err := <-done:
		t.Fatal("it has ended while this process is guarded: ", err)
	case <-time.After(100 * time.Millisecond):
	}
	require.NoError(t, g.Close())
	require.NoError(t, <-done)
}
