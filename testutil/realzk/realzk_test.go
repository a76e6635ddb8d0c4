package realzk

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/zkelection/election/internal/zxid"
)

type silent struct{}

func (silent) Printf(string, ...any) {}

// connectReal returns a client with a session on one of the servers. Its session events end with the test.
func connectReal(t *testing.T, servers ...string) *zk.Conn {
	t.Helper()
	conn, events, err := zk.Connect(servers, 4*time.Second, zk.WithLogger(silent{}), zk.WithDialer(zxid.Dialer(nil)))
	if err != nil {
		t.Fatal(err)
	}
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
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("no %s after %v", what, patience)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestStandaloneZooKeeperKeepsItsDataThroughAKill(t *testing.T) {
	t.Parallel()
	zookeeper := StartZooKeeper(t, 1)
	if mode, leader := zookeeper.Mode(0), zookeeper.Leader(); mode != "standalone" || leader != 0 {
		t.Fatalf("mode %q, leader %d", mode, leader)
	}
	conn := connectReal(t, zookeeper.Servers()...)
	if _, err := conn.Create("/kept", []byte("before"), 0, zk.WorldACL(zk.PermAll)); err != nil {
		t.Fatal(err)
	}

	address := zookeeper.Servers()[0]
	zookeeper.Kill(0)
	if conn, err := net.Dial("tcp", address); err == nil {
		conn.Close()
		t.Fatal("a killed node accepts connections")
	}
	if zookeeper.Mode(0) != "" || zookeeper.Leader() != -1 {
		t.Fatal("a killed node answers")
	}
	zookeeper.Kill(0) // harmless
	zookeeper.Restart(0)
	if err := zookeeper.AwaitServing(time.Minute); err != nil {
		t.Fatal(err)
	}
	if zookeeper.Servers()[0] != address {
		t.Fatalf("restarted at %s, was at %s", zookeeper.Servers()[0], address)
	}
	data, _, err := connectReal(t, address).Get("/kept")
	if err != nil || string(data) != "before" {
		t.Fatalf("after the restart: %q, %v", data, err)
	}
}

func TestPausedZooKeeperAnswersAgainOnceResumed(t *testing.T) {
	t.Parallel()
	zookeeper := StartZooKeeper(t, 1)
	zookeeper.Pause(0)
	if answer, err := zookeeper.FourLetter(0, "ruok"); err == nil {
		t.Fatalf("a paused node answered %q", answer)
	}
	zookeeper.Resume(0)
	if answer, err := zookeeper.FourLetter(0, "ruok"); err != nil || answer != "imok" {
		t.Fatalf("a resumed node answered %q, %v", answer, err)
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
		if mode := zookeeper.Mode(i); mode != want {
			t.Fatalf("node %d is %q, want %q", i, mode, want)
		}
	}

	zookeeper.Kill(first)
	var second int
	awaitReal(t, time.Minute, "second leader", func() bool { second = zookeeper.Leader(); return second >= 0 })
	if second == first {
		t.Fatalf("node %d leads though it was killed", first)
	}
	if err := zookeeper.AwaitServing(time.Minute); err != nil {
		t.Fatalf("without node %d: %v", first, err)
	}
	if _, err := connectReal(t, zookeeper.Servers()...).Create("/by-two", nil, 0, zk.WorldACL(zk.PermAll)); err != nil {
		t.Fatal(err)
	}

	zookeeper.Restart(first)
	if err := zookeeper.AwaitServing(time.Minute); err != nil {
		t.Fatal(err)
	}
	if mode := zookeeper.Mode(first); mode != "follower" {
		t.Fatalf("the restarted node is %q", mode)
	}
	conn := connectReal(t, zookeeper.Servers()[first])
	if _, err := conn.Sync("/by-two"); err != nil {
		t.Fatal(err)
	}
	if found, _, err := conn.Exists("/by-two"); err != nil || !found {
		t.Fatalf("the restarted node lacks what the others wrote: %v, %v", found, err)
	}

	// Two of three lost: the last one answers, and serves nobody.
	zookeeper.Kill(first)
	zookeeper.Pause(second)
	last := 3 - first - second
	awaitReal(t, time.Minute, "end of service", func() bool { return zookeeper.Mode(last) == "" })
	zookeeper.Restart(last)
	if mode := zookeeper.Mode(last); mode != "" {
		t.Fatalf("alone, node %d is %q", last, mode)
	}
	if err := zookeeper.AwaitServing(200 * time.Millisecond); err == nil {
		t.Fatal("AwaitServing saw a leader without a quorum")
	}
	zookeeper.Resume(second)
	if err := zookeeper.AwaitServing(time.Minute); err != nil {
		t.Fatal(err)
	}
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
	if host, _, _ := net.SplitHostPort(zookeeper.Servers()[0]); host != "127.0.0.7" {
		t.Fatalf("serves at %s", zookeeper.Servers()[0])
	}
	conf, err := zookeeper.FourLetter(0, "conf")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"tickTime=300\n", "minSessionTimeout=1200\n", "maxSessionTimeout=9000\n", "maxClientCnxns=90\n"} {
		if !strings.Contains(conf, line) {
			t.Errorf("conf lacks %q:\n%s", line, conf)
		}
	}
	var log strings.Builder
	zookeeper.WriteLogs(&log, 0)
	if !strings.Contains(log.String(), "-XX:MaxHeapSize") {
		t.Errorf("the JVM did not get its option: %s", log.String())
	}
	pid := zookeeper.nodes[0].process.cmd.Process.Pid
	if env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)); err == nil && !strings.Contains(string(env), "ELECTION_TEST_ENV=there") {
		t.Error("the process lacks the environment given")
	}
	if args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && !strings.Contains(string(args), "-Delection.test=here") {
		t.Error("the process lacks the property given")
	}
}

func TestLaunchRefusesWhatCannotBeAnEnsemble(t *testing.T) {
	for _, nodes := range []int{-1, 0, 2} {
		if _, err := LaunchZooKeeper(t.TempDir(), nodes, EnsembleOptions{}); err == nil {
			t.Errorf("%d nodes: no error", nodes)
		}
	}
	if _, err := LaunchZooKeeper(t.TempDir(), 3, EnsembleOptions{Hosts: []string{"127.0.0.1"}}); err == nil {
		t.Error("three nodes on one of three hosts: no error")
	}
}

func TestWithoutZooKeeperTheErrorSaysWhatIsMissing(t *testing.T) {
	t.Setenv("ZOOKEEPER_HOME", t.TempDir())
	if _, err := LaunchZooKeeper(t.TempDir(), 1, EnsembleOptions{}); !errors.Is(err, ErrNoZooKeeper) || !strings.Contains(err.Error(), "ZOOKEEPER_HOME") {
		t.Errorf("an empty ZOOKEEPER_HOME: %v", err)
	}
	t.Setenv("JAVA_HOME", t.TempDir())
	if _, err := LaunchZooKeeper(t.TempDir(), 1, EnsembleOptions{}); !errors.Is(err, ErrNoZooKeeper) || !strings.Contains(err.Error(), "java") {
		t.Errorf("an empty JAVA_HOME: %v", err)
	}
}

// TestAPortIsClaimedUntilReleased is what keeps two test processes apart.
func TestAPortIsClaimedUntilReleased(t *testing.T) {
	first, err := newPort("127.0.0.1", 2181)
	if err != nil {
		t.Fatal(err)
	}
	defer first.release()
	if claim, err := net.ListenPacket("udp", first.address); err == nil {
		claim.Close()
		t.Fatal("claimed twice")
	}
	first.release()
	claim, err := net.ListenPacket("udp", first.address)
	if err != nil {
		t.Fatalf("not released: %v", err)
	}
	claim.Close()
}

// TestATakenPortIsNoticed lets a program that claims nothing hold the port of a node.
func TestATakenPortIsNoticed(t *testing.T) {
	t.Parallel()
	zookeeper := StartZooKeeper(t, 1)
	zookeeper.Kill(0)
	squatter, err := net.Listen("tcp", zookeeper.Servers()[0])
	if err != nil {
		t.Fatal(err)
	}
	defer squatter.Close()
	n := zookeeper.nodes[0]
	if err := n.start(); err != nil {
		t.Fatal(err)
	}
	err = n.await(time.Minute, func(answer string) bool { return answer != "" })
	if !errors.Is(err, errPortTaken) {
		t.Fatalf("got %v", err)
	}
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
	if pid == 0 {
		t.Fatalf("the child started no server:\n%s", output)
	}
	awaitReal(t, 10*time.Second, "end of the server", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || strings.Contains(string(stat), ") Z ")
	})
}
