//go:build linux

package guard_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/testutil/realzk"
)

// TestSuccession: on a real ensemble of three, from each kind of death of the leader to OnWin of the next one. With
// -guard.long each is done fifty times, on a machine that has nothing else to do, and what is promised is asked for.
// Otherwise it is done five times, and what is asked for bears a machine, or an ensemble, that stands still for some seconds:
// no session has ended by itself, and all but one were closed within three seconds. A guard that does nothing would take more
// than three quarters of the session timeout each time, and one that is late would be so more than once.
func TestSuccession(t *testing.T) {
	if !*long {
		t.Parallel()
	}
	zookeeper := realzk.StartZooKeeper(t, 3)
	rounds, timeout, tick := 5, 30*time.Second, 500*time.Millisecond // that is the servers': with it there is soon a lease
	if *long {
		rounds, timeout, tick = 50, 6*time.Second, 0
	}
	for _, test := range []struct {
		how     string
		ballast int // MiB
		group   int // MiB that its control group may have; 0 for none
		long    bool
	}{
		{"kill -9", 0, 0, false},
		{"kill -9", 64, 0, false},
		{"kill -9", 100, 0, true},
		{"panic", 0, 0, false},
		{"panic", 64, 0, true},
		{"panic", 100, 0, true},
		{"os.Exit", 0, 0, false},
		{"os.Exit", 64, 0, true},
		{"os.Exit", 100, 0, true},
		{"SIGSEGV", 0, 0, false},
		{"SIGSEGV", 64, 0, true},
		{"SIGSEGV", 100, 0, true},
		{"memory", 0, 64, true},
		{"memory", 0, 100, false},
	} {
		if test.long && !*long {
			continue
		}
		name := test.how
		if size := max(test.ballast, test.group); size > 0 {
			name = fmt.Sprintf("%s, %d MiB", test.how, size)
		}
		t.Run(name, func(t *testing.T) {
			if !*long || *together {
				t.Parallel()
			}
			c := configuration{Servers: zookeeper.Servers(), Timeout: timeout, Tick: tick, Ballast: test.ballast}
			var change func(*exec.Cmd)
			if test.group > 0 {
				change = inGroup(t, test.group)
			}
			stand := func() *service {
				s := launch(t, c, change)
				s.says("stands")
				return s
			}
			leader := stand()
			leader.says("won ")
			var all []time.Duration
			for range rounds {
				next := stand()
				next.says("leased")
				leader.tell(test.how)
				died := died(t, leader, test.how)
				var won int64
				_, err := fmt.Sscanf(next.says("won "), "won 0 %d", &won)
				require.NoError(t, err)
				<-leader.exited
				all = append(all, time.Duration(won-died))
				leader = next
			}
			slices.Sort(all)
			median, longest := all[len(all)/2], all[len(all)-1]
			t.Logf("%s: %d deaths: median %.1f ms, longest %.1f ms, shortest %.1f ms; the machine's load: %s",
				name, len(all), ms(median), ms(longest), ms(all[0]), load())
			require.Less(t, longest, timeout/2, "the session has ended by itself")
			require.Less(t, all[len(all)-2], 3*time.Second, "the guard is late") // not once, as beside a machine that stands still
			if *long {
				require.LessOrEqual(t, median, 50*time.Millisecond)
				require.LessOrEqual(t, longest, 500*time.Millisecond)
			}
		})
	}
}

// load is what else the machine does: times are to be read with it.
func load() string {
	text, _ := os.ReadFile("/proc/loadavg")
	return strings.TrimSpace(string(text))
}

func ms(d time.Duration) float64 { return float64(d) / 1e6 }

// died is when the leader began to die. What the memory killer does is known from its parent's being told of the end, a
// moment late.
func died(t *testing.T, s *service, how string) (at int64) {
	t.Helper()
	if how == "memory" {
		<-s.exited
		return time.Now().UnixNano()
	}
	_, err := fmt.Sscanf(s.says("dies "), "dies %d", &at)
	require.NoError(t, err)
	return at
}

// inGroup has a service run in a control group with so much memory, its guard with it.
func inGroup(t *testing.T, megabytes int) func(*exec.Cmd) {
	t.Helper()
	for root, limit := range map[string]string{"/sys/fs/cgroup/memory": "memory.limit_in_bytes", "/sys/fs/cgroup": "memory.max"} {
		group, made := controlGroup(t, root, os.Getpid()*1000+megabytes, limit)
		if !made || os.WriteFile(filepath.Join(group, limit), []byte(fmt.Sprint(megabytes<<20)), 0) != nil {
			continue
		}
		return func(cmd *exec.Cmd) {
			cmd.Path = "/bin/sh"
			cmd.Args = []string{"sh", "-c", `echo $$ > "$0" && exec "$1"`, filepath.Join(group, "cgroup.procs"), os.Args[0]}
		}
	}
	noGroup(t, "no control group with a limit of memory can be made", "memory", limitedIn...)
	return nil
}

// TestEnforceAuth: a server that wants sessions to have credentials refuses to close one without. The guard has them; and
// one that had not would leave the session its time, and no more.
func TestEnforceAuth(t *testing.T) {
	t.Parallel()
	zookeeper := realzk.StartZooKeeperWith(t, 1, realzk.EnsembleOptions{
		Properties: []string{"zookeeper.enforce.auth.enabled=true", "zookeeper.enforce.auth.schemes=digest"},
	})
	c := configuration{Servers: zookeeper.Servers(), Auth: "user:password"}
	s := start(t, c)
	s.says("won ")
	s.kill()
	until(t, "the guard's word of it", func() bool { return s.guardLog() != "" })
	require.Contains(t, s.guardLog(), "is closed")
}

// TestQuorumLost: the ensemble loses its quorum when the leader dies. The guard goes on until there is one again.
func TestQuorumLost(t *testing.T) {
	t.Parallel()
	zookeeper := realzk.StartZooKeeper(t, 3)
	s := start(t, configuration{Servers: zookeeper.Servers(), Timeout: 20 * time.Second})
	s.says("won ")
	followers := slices.DeleteFunc([]int{0, 1, 2}, func(i int) bool { return i == zookeeper.Leader() })
	for _, i := range followers {
		zookeeper.Pause(i)
	}
	s.kill()
	time.Sleep(500 * time.Millisecond) // some tries
	require.NotContains(t, s.guardLog(), "is closed")
	for _, i := range followers {
		zookeeper.Resume(i)
	}
	until(t, "the guard's word of it", func() bool { return s.guardLog() != "" })
	require.Contains(t, s.guardLog(), "is closed")
	until(t, "the end of the session", func() bool {
		dump, err := zookeeper.FourLetter(max(0, zookeeper.Leader()), "dump")
		return err == nil && !strings.Contains(dump, fmt.Sprintf("0x%x", s.session))
	})
}

// TestFirstMemberHangs: the server that the session is connected to stops at the moment of the death.
func TestFirstMemberHangs(t *testing.T) {
	t.Parallel()
	zookeeper := realzk.StartZooKeeper(t, 3)
	follower := (zookeeper.Leader() + 1) % 3
	servers := zookeeper.Servers()
	// The client takes the servers in random order: with the one first, and then all, it would not be known which.
	s := start(t, configuration{Servers: servers[follower : follower+1], More: servers})
	s.says("won ")
	zookeeper.Pause(follower)
	began := time.Now()
	s.kill()
	until(t, "the guard's word of it", func() bool { return s.guardLog() != "" })
	require.Contains(t, s.guardLog(), "is closed")
	require.Less(t, time.Since(began), 10*time.Second)
	zookeeper.Resume(follower)
}

// TestCost measures what a guard takes.
func TestCost(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	for name, c := range map[string]configuration{"helper": {Executable: os.Args[0]}, "own": {}} {
		c.Servers = srv.Servers()
		s := start(t, c)
		pid := s.guards()[0]
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		require.NoError(t, err)
		stat := func() string {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			require.NoError(t, err)
			fields := strings.Fields(string(text))
			return strings.Join(fields[13:15], " ") // the ticks that it has run
		}
		descriptors, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		require.NoError(t, err)
		until(t, "two seconds in which it does nothing, after its beginning", func() bool {
			before := stat()
			time.Sleep(2 * time.Second)
			return before == stat()
		})
		require.LessOrEqual(t, len(descriptors), 16)
		for line := range strings.Lines(string(status)) {
			if key, _, _ := strings.Cut(line, ":"); slices.Contains([]string{"VmRSS", "RssAnon", "Threads"}, key) {
				t.Logf("%s: %s", name, strings.Join(strings.Fields(line), " "))
			}
		}
		t.Logf("%s: %d descriptors, %s", name, len(descriptors), s.says("guard ready"))
		s.kill()
	}
}
