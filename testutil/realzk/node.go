package realzk

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/zkelection/election/internal/port"
)

// logTail is how much of a node's log a failed test prints.
const logTail = 8 << 10

// longAnswer is how long a node that runs may take to answer a four-letter word.
const longAnswer = 30 * time.Second

// errPortTaken marks a node that did not come up because another program holds its port.
var errPortTaken = errors.New("realzk: a port of ZooKeeper was taken by another program")

var errNotServing = errors.New("it does not serve")

// A node is one ZooKeeper process, or what is needed to start it again.
//
// Who owns what: everything above mu is written before the node is shared. mu guards process; it is held while a process
// is started or killed, so that two callers never start two. exited is closed by the goroutine that waits for the process.
type node struct {
	number       int // from 0; ZooKeeper's id is one more
	dir          string
	namespace    string
	host         string
	client       port.Port
	secure       port.Port // zero without TLS
	peer         port.Port // zero for a node that stands alone
	vote         port.Port
	install      installation
	options      []string
	env          []string
	startTimeout time.Duration

	mu      sync.Mutex
	process *process
}

type process struct {
	cmd    *exec.Cmd
	exited chan struct{}
	paused bool // guarded by node.mu
}

func newNode(dir string, number int, opts EnsembleOptions, install installation) (_ *node, err error) {
	if err := os.MkdirAll(filepath.Join(dir, "data"), 0o700); err != nil {
		return nil, err
	}
	n := &node{number: number, dir: dir, host: "127.0.0.1", install: install, env: opts.Env, startTimeout: opts.StartTimeout}
	if opts.Hosts != nil {
		n.host = opts.Hosts[number]
	}
	if opts.Namespaces != nil {
		n.namespace = opts.Namespaces[number]
	}
	n.options = []string{
		"-Xmx256m", "-Xshare:auto", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData",
		"-Djava.net.preferIPv4Stack=true",
		"-Dzookeeper.forceSync=no",
		"-Dzookeeper.extendedTypesEnabled=true",
		"-Dorg.slf4j.simpleLogger.showDateTime=true",
		"-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
	}
	if strings.Contains(n.host, ":") {
		n.options = append(n.options, "-Djava.net.preferIPv4Stack=false")
	}
	if opts.SecurePort {
		n.options = append(n.options, "-Dzookeeper.serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory")
	}
	for _, property := range opts.Properties {
		n.options = append(n.options, "-D"+property)
	}
	n.options = append(n.options, opts.JavaOptions...)

	defer func() {
		if err != nil {
			n.releasePorts()
		}
	}()
	wanted := []struct {
		port  *port.Port
		usual int
		want  bool
	}{
		{&n.client, 2181, true},
		{&n.secure, 2281, opts.SecurePort},
		{&n.peer, 2888, true},
		{&n.vote, 3888, true},
	}
	for _, w := range wanted {
		if !w.want {
			continue
		}
		if *w.port, err = port.Claim(n.host, w.usual); err != nil {
			return nil, fmt.Errorf("realzk: %w", err)
		}
	}
	return n, nil
}

// writeConfig writes zoo.cfg and myid; the nodes of an ensemble must know each other's ports.
func (n *node) writeConfig(nodes []*node, opts EnsembleOptions) error {
	lines := []string{
		fmt.Sprintf("tickTime=%d", opts.TickTime.Milliseconds()),
		// ZooKeeper's example has 10 and 5, for ticks of 2 s. With ticks as short as these, a JVM that a busy machine holds up
		// for 2.5 s would lose its peers, and drop its clients.
		"initLimit=30",
		"syncLimit=20",
		"dataDir=" + filepath.Join(n.dir, "data"),
		"clientPortAddress=" + n.host,
		fmt.Sprintf("clientPort=%d", n.client.Number),
		"maxClientCnxns=0",
		fmt.Sprintf("minSessionTimeout=%d", opts.MinSessionTimeout.Milliseconds()),
		fmt.Sprintf("maxSessionTimeout=%d", opts.MaxSessionTimeout.Milliseconds()),
		"4lw.commands.whitelist=*",
		"admin.enableServer=false",
	}
	if opts.SecurePort {
		lines = append(lines, "secureClientPortAddress="+n.host, fmt.Sprintf("secureClientPort=%d", n.secure.Number))
	}
	if len(nodes) > 1 {
		for _, other := range nodes {
			lines = append(lines, fmt.Sprintf("server.%d=%s:%d:%d", other.number+1, bracketed(other.host), other.peer.Number, other.vote.Number))
		}
	}
	// A properties file keeps the last of two equal keys.
	lines = append(lines, opts.Config...)
	if opts.NodeConfig != nil {
		lines = append(lines, opts.NodeConfig(n.number)...)
	}
	if err := os.WriteFile(filepath.Join(n.dir, "zoo.cfg"), []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(n.dir, "data", "myid"), fmt.Appendln(nil, n.number+1), 0o600)
}

func bracketed(host string) string {
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}

// start starts the process; the caller waits for its answer. It does nothing when the process runs.
func (n *node) start() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process != nil {
		return nil
	}
	log, err := os.OpenFile(n.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the process has its own descriptor

	args := append([]string{n.install.java}, n.options...)
	args = append(args, "-cp", n.install.classpath, "org.apache.zookeeper.server.quorum.QuorumPeerMain", filepath.Join(n.dir, "zoo.cfg"))
	if n.namespace != "" {
		args = append([]string{"ip", "netns", "exec", n.namespace}, args...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = n.dir
	cmd.Env = append(os.Environ(), n.env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = dieWithParent()

	p := &process{cmd: cmd, exited: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The kernel kills the child when the THREAD that started it ends, so this goroutine keeps its thread
		// for as long as the child lives.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is in its log
			close(p.exited)
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	n.process = p
	return nil
}

func (n *node) kill() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process == nil {
		return
	}
	_ = n.process.cmd.Process.Kill() // fails only when the process is gone, and then exited tells
	<-n.process.exited
	n.process = nil
}

func (n *node) pause(stop bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process == nil {
		return errors.New("it does not run")
	}
	if err := stopOrContinue(n.process.cmd.Process, stop); err != nil {
		return err
	}
	n.process.paused = stop
	return nil
}

// running reports whether the node was started, and neither killed nor paused since. One that ended by itself counts, so
// that waiting for it fails with its log.
func (n *node) running() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.process != nil && !n.process.paused
}

// ask is fourLetter that asks again, while the node runs, when it brings no answer, or one that is not sound: on a busy machine a
// JVM may be held up for seconds, and one that ceases to serve closes the connection on which it is being asked. That the
// node accepts no connection is an answer.
func (n *node) ask(word string, sound func(answer string) bool) (answer string, err error) {
	for deadline := time.Now().Add(longAnswer); ; time.Sleep(10 * time.Millisecond) {
		answer, err = fourLetter(n.client.Address, word)
		if err == nil && sound(answer) || errors.Is(err, syscall.ECONNREFUSED) || !n.running() || time.Now().After(deadline) {
			return answer, err
		}
	}
}

// await asks the node for "srvr" until ok says yes to the answer ("" for none).
func (n *node) await(timeout time.Duration, ok func(answer string) bool) error {
	n.mu.Lock()
	p := n.process
	n.mu.Unlock()
	if p == nil {
		return fmt.Errorf("realzk: ZooKeeper node %d does not run", n.number)
	}
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		answer, err := fourLetter(n.client.Address, "srvr")
		if err != nil {
			answer = ""
		} else {
			err = errNotServing
		}
		if ok(answer) {
			return nil
		}
		// A node of an ensemble goes on after it failed to bind the port for elections, so the log is looked at.
		if n.lacksPort() {
			return fmt.Errorf("node %d: %w", n.number, errPortTaken)
		}
		select {
		case <-p.exited:
			if n.lacksPort() { // said since
				return fmt.Errorf("node %d: %w", n.number, errPortTaken)
			}
			return fmt.Errorf("realzk: ZooKeeper node %d ended: %v", n.number, p.cmd.ProcessState)
		case <-deadline.C:
			return fmt.Errorf("realzk: ZooKeeper node %d at %s, after %v, last answered %q: %w", n.number, n.client.Address, timeout, answer, err)
		case <-poll.C:
		}
	}
}

// lacksPort reports whether the node has said that another program has one of its ports.
func (n *node) lacksPort() bool {
	return bytes.Contains(n.log(logTail), []byte("Address already in use"))
}

func (n *node) logPath() string { return filepath.Join(n.dir, "log") }

// log returns the end of the log, from the start of a line.
func (n *node) log(limit int) []byte {
	log, err := os.ReadFile(n.logPath())
	if err != nil {
		return fmt.Appendln(nil, err)
	}
	if limit == 0 || len(log) <= limit {
		return log
	}
	log = log[len(log)-limit:]
	if _, rest, found := bytes.Cut(log, []byte("\n")); found {
		return rest
	}
	return log
}

func (n *node) releasePorts() {
	for _, p := range []*port.Port{&n.client, &n.secure, &n.peer, &n.vote} {
		p.Release()
	}
}
