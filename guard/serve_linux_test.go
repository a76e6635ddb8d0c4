package guard

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

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
	pidfd, err = syscall.Dup(int(file.Fd()))
	require.NoError(t, err)
	return pidfd, end
}

// atWork is a guard that guards a process with one session, and the other end of their connection.
func atWork(t *testing.T, pidfd int, r *record) (s *serving, p *guarded, conn int, log *bytes.Buffer) {
	t.Helper()
	log = new(bytes.Buffer)
	s = &serving{logger: func(message) (*slog.Logger, func()) { return slog.New(slog.NewTextHandler(log, nil)), func() {} }}
	require.NoError(t, s.begin())
	t.Cleanup(func() {
		for _, fd := range []int{s.epoll, s.wake[0], s.wake[1]} {
			_ = syscall.Close(fd)
		}
	})
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
		buffer := make([]byte, 4096)
		n, err := syscall.Read(conn, buffer)
		require.NoError(t, err)
		require.Contains(t, string(buffer[:n]), "error", "it says so before")
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
