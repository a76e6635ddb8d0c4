// Package realzk starts a real ZooKeeper for a test: a single server or an ensemble, on loopback, from a local
// installation of Java and ZooKeeper. A test that runs on the in-process server of package testutil can run on it too.
package realzk

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zkelection/election/testutil"
)

// ErrNoZooKeeper is the error of [LaunchZooKeeper] on a machine without Java or without ZooKeeper's jars, or without those
// of the release that is wanted.
var ErrNoZooKeeper = errors.New("realzk: no ZooKeeper installed (wanted: java, and Debian's package zookeeper or ZOOKEEPER_HOME)")

// The environment variables.
const (
	// requireZooKeeper turns the skip of a test without ZooKeeper into its failure, so that a CI run cannot pass by not
	// testing.
	requireZooKeeper = "ELECTION_REQUIRE_ZOOKEEPER"
	// withoutReleases lists the releases, with commas between them, whose absence is a skip all the same.
	withoutReleases = "ELECTION_WITHOUT_ZOOKEEPER"
	// defaultRelease is the release of those tests that name none.
	defaultRelease = "ELECTION_ZOOKEEPER_RELEASE"
	// furtherHomes lists directories like ZOOKEEPER_HOME, in the manner of PATH, in which other releases are looked for.
	furtherHomes = "ELECTION_ZOOKEEPER_HOMES"
)

// EnsembleOptions says how the real ZooKeeper of a test is set up. The zero value means the documented defaults.
type EnsembleOptions struct {
	// Release is the one to start. It is looked for in ZOOKEEPER_HOME, among Debian's packages, and in the directories
	// listed in ELECTION_ZOOKEEPER_HOMES. Default: that of the environment variable ELECTION_ZOOKEEPER_RELEASE, or
	// whichever is found first.
	Release testutil.Release

	// TickTime is ZooKeeper's tickTime. Default 500 ms, so that sessions may be as short as 1 s; production
	// systems mostly have 2 s.
	TickTime time.Duration

	// MinSessionTimeout and MaxSessionTimeout bound what a client can negotiate. Defaults: ZooKeeper's 2 ticks, and
	// 60 s (ZooKeeper's own default is 20 ticks, so 10 s here).
	MinSessionTimeout, MaxSessionTimeout time.Duration

	// Config holds further lines of zoo.cfg for every node. A key given here replaces the one this package writes.
	Config []string

	// NodeConfig, if not nil, returns further lines of zoo.cfg for node i alone.
	NodeConfig func(i int) []string

	// Properties are Java system properties, "name=value" each: ZooKeeper reads many settings only there.
	Properties []string

	// JavaOptions are put after this package's own, so that they win. Those make a JVM start fast, not run fast:
	// for a benchmark give -XX:TieredStopAtLevel=4.
	JavaOptions []string

	// Env is added to the environment of the nodes' processes, "NAME=value" each.
	Env []string

	// Hosts gives each node an IP address of its own. The ports then are ZooKeeper's usual ones (2181, 2281 for TLS,
	// 2888, 3888) unless the address is a loopback one. Default: 127.0.0.1 for all.
	Hosts []string

	// Namespaces names for each node a network namespace that exists (ip netns add), in which its process is
	// started; it takes root. The test itself must be able to reach Hosts[i]. Default: the test's own namespace.
	Namespaces []string

	// SecurePort gives each node a port for TLS besides the plain one (see [Ensemble.SecureServers]). The key and
	// trust stores are the caller's to name, in Config (ssl.keyStore.location=… and so on).
	SecurePort bool

	// StartTimeout bounds how long the ensemble may take until it serves. Default one minute: a busy CI machine with
	// three JVMs is slow.
	StartTimeout time.Duration
}

// StartZooKeeper starts a real ZooKeeper for the test, and returns when every node serves: one node alone, or an
// ensemble of three or more. It takes ZooKeeper from Debian's package, or from the directory that ZOOKEEPER_HOME names; see
// [EnsembleOptions] for several releases.
//
// Without an installation the test is skipped; with ELECTION_REQUIRE_ZOOKEEPER=1 in the environment it fails instead
// (unless ELECTION_WITHOUT_ZOOKEEPER lists the release). At the end of the test the processes are killed and their files
// removed; the end of their logs is printed if it failed.
func StartZooKeeper(tb testing.TB, nodes int) *Ensemble {
	tb.Helper()
	return StartZooKeeperWith(tb, nodes, EnsembleOptions{})
}

// StartZooKeeperWith is [StartZooKeeper] with options.
func StartZooKeeperWith(tb testing.TB, nodes int, opts EnsembleOptions) *Ensemble {
	tb.Helper()
	ensemble, err := LaunchZooKeeper(tb.TempDir(), nodes, opts)
	if errors.Is(err, ErrNoZooKeeper) && !required(opts.Release) {
		tb.Skip(err)
	}
	if err != nil {
		tb.Fatal(err)
	}
	// Errorf, not Fatalf: a fault may be injected from any goroutine.
	ensemble.failed = tb.Errorf
	tb.Cleanup(func() {
		ensemble.Close()
		if tb.Failed() {
			var logs strings.Builder
			ensemble.WriteLogs(&logs, logTail)
			tb.Log(logs.String())
		}
	})
	return ensemble
}

func (opts EnsembleOptions) release() testutil.Release {
	if opts.Release != "" {
		return opts.Release
	}
	return testutil.Release(os.Getenv(defaultRelease))
}

// required reports whether a test must not be skipped for want of the release.
func required(release testutil.Release) bool {
	return os.Getenv(requireZooKeeper) == "1" &&
		(release == "" || !slices.Contains(strings.Split(os.Getenv(withoutReleases), ","), string(release)))
}

// LaunchZooKeeper is [StartZooKeeper] for what is not one test: a server shared by the tests of a package, a benchmark
// program. It keeps its files in dir, which must exist; the caller calls Close. A fault that cannot be injected panics.
func LaunchZooKeeper(dir string, nodes int, opts EnsembleOptions) (*Ensemble, error) {
	if nodes < 1 || nodes == 2 {
		return nil, fmt.Errorf("realzk: an ensemble of %d nodes: want 1, 3 or more", nodes)
	}
	for _, list := range [][]string{opts.Hosts, opts.Namespaces} {
		if len(list) != 0 && len(list) != nodes {
			return nil, fmt.Errorf("realzk: %d hosts or namespaces for %d nodes", len(list), nodes)
		}
	}
	opts.Release = opts.release()
	install, err := findZooKeeper(opts.Release)
	if err != nil {
		return nil, err
	}
	if opts.TickTime == 0 {
		opts.TickTime = 500 * time.Millisecond
	}
	if opts.MinSessionTimeout == 0 {
		opts.MinSessionTimeout = 2 * opts.TickTime
	}
	if opts.MaxSessionTimeout == 0 {
		opts.MaxSessionTimeout = max(time.Minute, opts.MinSessionTimeout)
	}
	if opts.StartTimeout == 0 {
		opts.StartTimeout = time.Minute
	}

	// A port that was free a moment ago can be taken by a program that claims none. A node says so in its log, and then
	// other ports are tried: the only failure that is.
	for try := 0; ; try++ {
		attempt := filepath.Join(dir, fmt.Sprintf("zookeeper-%d", try))
		ensemble, err := launchOnce(attempt, nodes, opts, install)
		if err == nil {
			return ensemble, nil
		}
		if !errors.Is(err, errPortTaken) || try == 4 {
			return nil, err
		}
	}
}

// An Ensemble is a running ZooKeeper of one or more nodes, counted from 0. Its methods may be called from any goroutine;
// those that change the same node wait for each other.
type Ensemble struct {
	nodes   []*node
	version string
	failed  func(format string, args ...any)
}

func launchOnce(dir string, nodes int, opts EnsembleOptions, install installation) (_ *Ensemble, err error) {
	ensemble := &Ensemble{version: install.version, failed: func(format string, args ...any) { panic(fmt.Sprintf("realzk: "+format, args...)) }}
	defer func() {
		if err != nil {
			ensemble.Close()
		}
	}()
	for i := range nodes {
		n, err := newNode(filepath.Join(dir, fmt.Sprint(i)), i, opts, install)
		if err != nil {
			return nil, err
		}
		ensemble.nodes = append(ensemble.nodes, n)
	}
	for _, n := range ensemble.nodes {
		if err := n.writeConfig(ensemble.nodes, opts); err != nil {
			return nil, err
		}
	}
	for _, n := range ensemble.nodes {
		if err := n.start(); err != nil {
			return nil, err
		}
	}
	if err := ensemble.AwaitServing(opts.StartTimeout); err != nil {
		var logs strings.Builder
		ensemble.WriteLogs(&logs, logTail)
		return nil, fmt.Errorf("%w\n%s", err, logs.String())
	}
	return ensemble, nil
}

// Version is that of the installation, such as "3.9.3"; "" if it does not tell.
func (e *Ensemble) Version() string { return e.version }

// Len is the number of nodes.
func (e *Ensemble) Len() int { return len(e.nodes) }

// Servers are the addresses of the nodes, each as HOST:PORT, dead ones included.
func (e *Ensemble) Servers() []string {
	servers := make([]string, len(e.nodes))
	for i, n := range e.nodes {
		servers[i] = n.client.Address
	}
	return servers
}

// SecureServers are the addresses at which the nodes speak TLS, nil without [EnsembleOptions.SecurePort].
func (e *Ensemble) SecureServers() []string {
	var servers []string
	for _, n := range e.nodes {
		if n.secure.Address != "" {
			servers = append(servers, n.secure.Address)
		}
	}
	return servers
}

// Kill ends node i as a power failure would (SIGKILL); it returns when the process is gone. A dead node stays dead.
func (e *Ensemble) Kill(i int) { e.nodes[i].kill() }

// Restart starts node i on its old address with its old data, killing it first if it runs. It returns when the node
// answers at that address, which does not mean that it serves clients: a node without a quorum answers too.
func (e *Ensemble) Restart(i int) {
	n := e.nodes[i]
	n.kill()
	if err := n.start(); err != nil {
		e.failed("restart ZooKeeper node %d: %v", i, err)
		return
	}
	if err := n.await(n.startTimeout, func(answer string) bool { return answer != "" }); err != nil {
		e.failed("restart ZooKeeper node %d: %v", i, err)
	}
}

// Pause stops node i as a long garbage collection would (SIGSTOP): its connections stay open and nothing is answered
// once it returns.
func (e *Ensemble) Pause(i int) {
	if err := e.nodes[i].pause(true); err != nil {
		e.failed("pause ZooKeeper node %d: %v", i, err)
	}
}

// Resume lets a paused node go on (SIGCONT). A leader that was paused for longer than its followers wait for it first proposes
// the end of the sessions whose time is over, which nobody else has; to have such a proposal taken over may cost ZooKeeper its
// initLimit several times, which is 15 s with the default TickTime.
func (e *Ensemble) Resume(i int) {
	if err := e.nodes[i].pause(false); err != nil {
		e.failed("resume ZooKeeper node %d: %v", i, err)
	}
}

// Mode is what node i says of itself: "standalone", "leader", "follower", or "" while it does not serve. A node that runs is
// given 30 s to say it.
func (e *Ensemble) Mode(i int) string {
	answer, err := e.nodes[i].ask("srvr", func(answer string) bool { return answer != "" })
	if err != nil {
		return ""
	}
	return modeOf(answer)
}

// Leader is the number of the node that leads the ensemble (or stands alone), and -1 while none does. It asks as
// [Ensemble.Mode] does, so that one that is slow to answer is not taken for none.
func (e *Ensemble) Leader() int {
	for i := range e.nodes {
		switch e.Mode(i) {
		case "leader", "standalone":
			return i
		}
	}
	return -1
}

// FourLetter sends a four-letter word ("mntr", "cons", "wchp") to node i, and returns its answer. A node that is dead or paused
// is given two seconds; one that runs is asked again when it has not answered by then, for 30 s.
func (e *Ensemble) FourLetter(i int, word string) (string, error) {
	return e.nodes[i].ask(word, func(string) bool { return true })
}

func fourLetter(address, word string) (string, error) {
	const answerTimeout = 2 * time.Second
	conn, err := net.DialTimeout("tcp", address, answerTimeout)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(conn, word); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(conn)
	return string(answer), err
}

// AwaitServing returns nil once every node that is neither dead nor paused serves clients, and one of them leads (or
// stands alone). It gives up after the timeout.
func (e *Ensemble) AwaitServing(timeout time.Duration) error {
	deadline := time.Now().Add(timeout)
	leads := false
	for _, n := range e.nodes {
		if !n.running() {
			continue
		}
		err := n.await(time.Until(deadline), func(answer string) bool {
			mode := modeOf(answer)
			leads = leads || mode == "leader" || mode == "standalone"
			return mode != ""
		})
		if err != nil {
			return err
		}
	}
	if !leads {
		return errors.New("realzk: no ZooKeeper node leads")
	}
	return nil
}

func modeOf(srvr string) string {
	for line := range strings.Lines(srvr) {
		if mode, found := strings.CutPrefix(line, "Mode: "); found {
			return strings.TrimSpace(mode)
		}
	}
	return ""
}

// WriteLogs writes the end of each node's log, at most limit bytes a node, all of it if limit is 0.
func (e *Ensemble) WriteLogs(w io.Writer, limit int) {
	for i, n := range e.nodes {
		fmt.Fprintf(w, "--- log of ZooKeeper node %d (%s)\n%s", i, n.client.Address, n.log(limit))
	}
}

// Close kills all nodes and gives their ports back. The files stay, and so do the logs for WriteLogs.
func (e *Ensemble) Close() {
	for _, n := range e.nodes {
		n.kill()
		n.releasePorts()
	}
}
