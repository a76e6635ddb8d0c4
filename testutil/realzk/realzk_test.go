package realzk

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/internal/zxid"
)

type silent struct{}

func (silent) Printf(string, ...any) {}

// connectReal returns a client with a session on one of the servers. Its session events end with the test.
func connectReal(t *testing.T, servers ...string) *zk.Conn {
	t.Helper()
	conn, events, err := zk.Connect(servers, 20*time.Second, zk.WithLogger(silent{}), zk.WithDialer(zxid.Dialer(nil)))
	require.NoError(t, err)
	t.Cleanup(func() {
		conn.Close()
		for range events {
			// The client's goroutines have ended when the channel is closed.
		}
	})
	awaitReal(t, 20*time.Second, "a session", func() bool { return conn.State() == zk.StateHasSession })
	return conn
}

// awaitReal polls: a real server's doings cannot be waited for in any other way.
func awaitReal(t *testing.T, patience time.Duration, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, patience, 10*time.Millisecond, "no %s after %v", what, patience)
}

func TestStandaloneZooKeeperKeepsItsDataThroughAKill(t *testing.T) {
	t.Parallel()
	zookeeper := StartZooKeeper(t, 1)
	require.Equal(t, "standalone", zookeeper.Mode(0))
	require.Equal(t, 0, zookeeper.Leader())
	conn := connectReal(t, zookeeper.Servers()...)
	_, err := conn.Create("/kept", []byte("before"), 0, zk.WorldACL(zk.PermAll))
	require.NoError(t, err)

	address := zookeeper.Servers()[0]
	zookeeper.Kill(0)
	_, err = net.Dial("tcp", address)
	require.Error(t, err, "a killed node accepts connections")
	require.Empty(t, zookeeper.Mode(0), "a killed node answers")
	require.Equal(t, -1, zookeeper.Leader())
	zookeeper.Kill(0) // harmless
	zookeeper.Restart(0)
	require.NoError(t, zookeeper.AwaitServing(time.Minute))
	require.Equal(t, address, zookeeper.Servers()[0])
	data, _, err := connectReal(t, address).Get("/kept")
	require.NoError(t, err)
	require.Equal(t, "before", string(data))
}

func TestPausedZooKeeperAnswersAgainOnceResumed(t *testing.T) {
	t.Parallel()
	zookeeper := StartZooKeeper(t, 1)
	zookeeper.Pause(0)
	answer, err := zookeeper.FourLetter(0, "ruok")
	require.Error(t, err, "a paused node answered %q", answer)
	zookeeper.Resume(0)
	answer, err = zookeeper.FourLetter(0, "ruok")
	require.NoError(t, err)
	require.Equal(t, "imok", answer)
}

// TestSlowZooKeeperIsAskedAgain holds the process up behind the ensemble's back, as a busy machine does, for longer than one
// question is given.
func TestSlowZooKeeperIsAskedAgain(t *testing.T) {
	t.Parallel()
	zookeeper := StartZooKeeper(t, 1)
	process := zookeeper.nodes[0].process.cmd.Process
	for what, answered := range map[string]func() bool{
		"Leader":     func() bool { return zookeeper.Leader() == 0 },
		"FourLetter": func() bool { answer, err := zookeeper.FourLetter(0, "ruok"); return err == nil && answer == "imok" },
	} {
		require.NoError(t, stopOrContinue(process, true))
		resumed := make(chan error, 1)
		time.AfterFunc(3*time.Second, func() { resumed <- stopOrContinue(process, false) })
		assert.True(t, answered(), what)
		require.NoError(t, <-resumed)
	}
}

func TestEnsembleElectsAnotherLeaderAndTakesTheOldOneBack(t *testing.T) {
	t.Parallel()
	zookeeper := StartZooKeeper(t, 3)
	first := zookeeper.Leader()
	for i := range zookeeper.Len() {
		want := "follower"
		if i == first {
			want = "leader"
		}
		require.Equal(t, want, zookeeper.Mode(i), "node %d", i)
	}

	zookeeper.Kill(first)
	var second int
	awaitReal(t, time.Minute, "second leader", func() bool { second = zookeeper.Leader(); return second >= 0 })
	require.NotEqual(t, first, second, "who was killed leads")
	require.NoError(t, zookeeper.AwaitServing(time.Minute), "without node %d", first)
	by := connectReal(t, zookeeper.Servers()...)
	_, err := by.Create("/by-two", nil, 0, zk.WorldACL(zk.PermAll))
	require.NoError(t, err)

	zookeeper.Restart(first)
	require.NoError(t, zookeeper.AwaitServing(time.Minute))
	require.Equal(t, "follower", zookeeper.Mode(first), "the restarted node")
	conn := connectReal(t, zookeeper.Servers()[first])
	_, err = conn.Sync("/by-two")
	require.NoError(t, err)
	found, _, err := conn.Exists("/by-two")
	require.NoError(t, err)
	require.True(t, found, "the restarted node lacks what the others wrote")

	// Two of three lost: the last one answers, and serves nobody. No session is left whose end the leader would propose when it
	// goes on: of a follower that lacks a proposal ZooKeeper at times takes the acknowledgement of that one for the one of
	// NEWLEADER ("is from a different epoch"), and begins anew after initLimit, as often as that comes.
	by.Close()
	conn.Close()
	zookeeper.Kill(first)
	zookeeper.Pause(second)
	last := 3 - first - second
	awaitReal(t, time.Minute, "end of service", func() bool { return zookeeper.Mode(last) == "" })
	zookeeper.Restart(last)
	require.Empty(t, zookeeper.Mode(last), "alone, node %d", last)
	require.Error(t, zookeeper.AwaitServing(200*time.Millisecond), "AwaitServing saw a leader without a quorum")
	zookeeper.Resume(second)
	require.NoError(t, zookeeper.AwaitServing(time.Minute))
}

func TestEnsembleOptionsReachTheServer(t *testing.T) {
	t.Parallel()
	zookeeper := StartZooKeeperWith(t, 1, EnsembleOptions{
		TickTime:          300 * time.Millisecond,
		MinSessionTimeout: 1200 * time.Millisecond,
		MaxSessionTimeout: 9 * time.Second,
		Hosts:             []string{"127.0.0.7"},
		Config:            []string{"syncLimit=7", "maxClientCnxns=123"},
		NodeConfig:        func(i int) []string { return []string{fmt.Sprintf("maxClientCnxns=%d", 90+i)} },
		Properties:        []string{"election.test=here"},
		JavaOptions:       []string{"-XX:+PrintCommandLineFlags"},
		Env:               []string{"ELECTION_TEST_ENV=there"},
	})
	host, _, _ := net.SplitHostPort(zookeeper.Servers()[0])
	require.Equal(t, "127.0.0.7", host)
	conf, err := zookeeper.FourLetter(0, "conf")
	require.NoError(t, err)
	for _, line := range []string{"tickTime=300\n", "minSessionTimeout=1200\n", "maxSessionTimeout=9000\n", "maxClientCnxns=90\n"} {
		assert.Contains(t, conf, line)
	}
	var log strings.Builder
	zookeeper.WriteLogs(&log, 0)
	assert.Contains(t, log.String(), "-XX:MaxHeapSize", "the JVM did not get its option")
	pid := zookeeper.nodes[0].process.cmd.Process.Pid
	if runtime.GOOS != "linux" {
		return
	}
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	require.NoError(t, err)
	assert.Contains(t, string(env), "ELECTION_TEST_ENV=there")
	args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	require.NoError(t, err)
	assert.Contains(t, string(args), "-Delection.test=here")
}

func TestLaunchRefusesWhatCannotBeAnEnsemble(t *testing.T) {
	for _, nodes := range []int{-1, 0, 2} {
		_, err := LaunchZooKeeper(t.TempDir(), nodes, EnsembleOptions{})
		assert.Error(t, err, "%d nodes", nodes)
	}
	_, err := LaunchZooKeeper(t.TempDir(), 3, EnsembleOptions{Hosts: []string{"127.0.0.1"}})
	assert.Error(t, err, "three nodes on one of three hosts: no error")
}

func TestWithoutZooKeeperTheErrorSaysWhatIsMissing(t *testing.T) {
	t.Setenv("ZOOKEEPER_HOME", t.TempDir())
	_, err := LaunchZooKeeper(t.TempDir(), 1, EnsembleOptions{})
	assert.ErrorIs(t, err, ErrNoZooKeeper)
	assert.ErrorContains(t, err, "ZOOKEEPER_HOME")
	t.Setenv("JAVA_HOME", t.TempDir())
	_, err = LaunchZooKeeper(t.TempDir(), 1, EnsembleOptions{})
	assert.ErrorIs(t, err, ErrNoZooKeeper)
	assert.ErrorContains(t, err, "java")
}

// TestATakenPortIsNoticed lets a program that claims nothing hold the port of a node.
func TestATakenPortIsNoticed(t *testing.T) {
	t.Parallel()
	zookeeper := StartZooKeeper(t, 1)
	zookeeper.Kill(0)
	squatter, err := net.Listen("tcp", zookeeper.Servers()[0])
	require.NoError(t, err)
	defer squatter.Close()
	n := zookeeper.nodes[0]
	require.NoError(t, n.start())
	err = n.await(time.Minute, func(answer string) bool { return answer != "" })
	require.ErrorIs(t, err, errPortTaken)
}

// TestNoZooKeeperOutlivesItsTest runs this test binary again, as a test that is killed, and looks for its server.
func TestNoZooKeeperOutlivesItsTest(t *testing.T) {
	t.Parallel()
	const child = "ELECTION_TEST_CHILD"
	if os.Getenv(child) != "" {
		zookeeper := StartZooKeeper(t, 1)
		fmt.Printf("pid=%d\n", zookeeper.nodes[0].process.cmd.Process.Pid)
		self, err := os.FindProcess(os.Getpid())
		if err == nil {
			err = self.Kill()
		}
		t.Fatal("lives on: ", err)
	}
	if _, err := findZooKeeper(""); err != nil && os.Getenv(requireZooKeeper) != "1" {
		t.Skip(err)
	}
	if dieWithParent() == nil {
		t.Skip("only on Linux")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), child+"=1", "TMPDIR="+t.TempDir())
	output, _ := cmd.CombinedOutput()
	var pid int
	for line := range strings.Lines(string(output)) {
		if _, err := fmt.Sscanf(line, "pid=%d", &pid); err == nil {
			break
		}
	}
	require.NotZero(t, pid, "the child started no server:\n%s", output)
	awaitReal(t, 10*time.Second, "end of the server", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || strings.Contains(string(stat), ") Z ")
	})
}
