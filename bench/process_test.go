//go:build linux

package bench

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/bench/internal/report"
	"github.com/zkelection/election/internal/child"
	"github.com/zkelection/election/internal/debian"
)

// tick is the servers' tickTime.
const tick = 500 * time.Millisecond

// contestants starts processes of the five.
type contestants struct {
	binary   string // of the Go ones
	classes  string // the class path of Curator's
	versions []string
}

// prepare builds what is to be compared. Without Debian's packages the test is skipped, or fails where nothing may be.
func prepare(t *testing.T) *contestants {
	dir := t.TempDir()
	c := &contestants{binary: filepath.Join(dir, "contestant")}
	output, err := exec.Command("go", "build", "-o", c.binary, "./contestant").CombinedOutput()
	require.NoError(t, err, "build the contestant: %s", output)
	jars, curator, err := debian.Curator()
	kazoo, errKazoo := debian.Kazoo()
	_, errJavac := exec.LookPath("javac")
	if err := errors.Join(err, errKazoo, errJavac); err != nil {
		if os.Getenv("ELECTION_REQUIRE_ZOOKEEPER") != "1" {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	output, err = exec.Command("javac", "-cp", jars, "-d", dir, "peers/CuratorContestant.java").CombinedOutput()
	require.NoError(t, err, "compile Curator's contestant: %s", output)
	c.classes = jars + string(os.PathListSeparator) + dir
	java, err := exec.Command("java", "--version").Output()
	require.NoError(t, err)
	release, _, _ := strings.Cut(string(java), "\n")
	c.versions = []string{"Curator " + curator, "kazoo " + kazoo, runtime.Version(), strings.TrimSpace(release)}
	return c
}

func (c *contestants) command(name, servers, path string, timeout time.Duration, n int) *exec.Cmd {
	path += "/" + strings.NewReplacer(" ", "-", ",", "").Replace(name)
	switch name {
	case report.Curator:
		return exec.Command("java", "-Xshare:auto", "-XX:-UsePerfData", "-Xss512k", "-Xmx1g", "-cp", c.classes, "CuratorContestant",
			servers, path, fmt.Sprint(timeout.Milliseconds()), fmt.Sprint(n))
	case report.Kazoo:
		return exec.Command(debian.Python, "-B", "peers/kazoo_contestant.py", servers, path, fmt.Sprint(timeout.Seconds()), fmt.Sprint(n))
	default:
		kind := map[string]string{report.Floor: "floor", report.Hot: "hot", report.Cold: "cold"}[name]
		return exec.Command(c.binary, "-kind", kind, "-servers", servers, "-path", path, "-timeout", timeout.String(), "-tick", tick.String(), "-n", fmt.Sprint(n))
	}
}

// process is one that runs. A goroutine of its own reads what it writes: mu guards leads, answers has the other lines.
type process struct {
	name    string
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	answers chan string // closed at the end of its output
	log     bytes.Buffer
	ended   chan struct{}

	mu    sync.Mutex
	leads []lead
}

var errNobodyLeads = errors.New("nobody has begun to lead")

// lead is a beginning of leadership.
type lead struct{ at, session int64 }

// start starts a process, and returns when its sessions are connected.
func (c *contestants) start(name, servers, path string, timeout time.Duration, n int) (*process, error) {
	p := &process{name: name, cmd: c.command(name, servers, path, timeout, n), answers: make(chan string, 16), ended: make(chan struct{})}
	p.cmd.Stderr = &p.log
	var err error
	if p.stdin, err = child.Start(p.cmd, p.read); err != nil {
		return nil, err
	}
	if _, err := p.answer("ready", 2*time.Minute); err != nil {
		p.kill()
		return nil, err
	}
	return p, nil
}

func (p *process) read(stdout io.Reader) {
	defer close(p.ended)
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		var l lead
		if _, err := fmt.Sscanf(lines.Text(), "leads %d %d", &l.at, &l.session); err == nil {
			p.mu.Lock()
			p.leads = append(p.leads, l)
			p.mu.Unlock()
			continue
		}
		p.answers <- lines.Text()
	}
	_ = p.cmd.Wait() // killed, mostly
	close(p.answers)
}

// answer waits for a line that begins with a word, and returns the numbers that follow.
func (p *process) answer(word string, limit time.Duration) (numbers []int64, err error) {
	select {
	case line, ok := <-p.answers:
		fields := strings.Fields(line)
		if !ok || len(fields) == 0 || fields[0] != word {
			p.kill()
			return nil, fmt.Errorf("%s says %q, not %q: %s", p.name, line, word, p.log.String())
		}
		for _, field := range fields[1:] {
			number, err := strconv.ParseInt(field, 10, 64)
			if err != nil {
				return nil, err
			}
			numbers = append(numbers, number)
		}
		return numbers, nil
	case <-time.After(limit):
		p.kill()
		return nil, fmt.Errorf("%s has not %s after %v: %s", p.name, word, limit, p.log.String())
	}
}

// ask gives a command and waits for its answer.
func (p *process) ask(command, word string) ([]int64, error) {
	if _, err := io.WriteString(p.stdin, command+"\n"); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", p.name, err, p.log.String())
	}
	return p.answer(word, 2*time.Minute)
}

// join returns how long it took until all that had not joined before have, and until all had their places, 0 if that is
// not told apart.
func (p *process) join() (seconds, placed float64, err error) {
	numbers, err := p.ask("join", "joined")
	if err != nil {
		return 0, 0, err
	}
	if len(numbers) > 1 {
		placed = float64(numbers[1]) / 1e9
	}
	return float64(numbers[0]) / 1e9, placed, nil
}

// resign returns how long it took until the next one led, and until it had acknowledged, 0 if there is no such thing.
func (p *process) resign() (led, acked float64, err error) {
	numbers, err := p.ask("resign", "led")
	if err != nil {
		return 0, 0, err
	}
	return float64(numbers[0]) / 1e9, max(0, float64(numbers[1])/1e9), nil
}

func (p *process) leave() error {
	_, err := p.ask("leave", "left")
	return err
}

// renew gives those that do not stand a new session each.
func (p *process) renew() error {
	_, err := p.ask("renew", "renewed")
	return err
}

// leadAfter waits until a candidate has begun to lead after that moment.
func (p *process) leadAfter(at int64, limit time.Duration) (lead, error) {
	for deadline := time.Now().Add(limit); ; time.Sleep(5 * time.Millisecond) {
		p.mu.Lock()
		i := slices.IndexFunc(p.leads, func(l lead) bool { return l.at > at })
		var found lead
		if i >= 0 {
			found = p.leads[i]
		}
		p.mu.Unlock()
		if i >= 0 {
			return found, nil
		}
		if time.Now().After(deadline) {
			p.kill()
			return lead{}, fmt.Errorf("%s: %w in %v: %s", p.name, errNobodyLeads, limit, p.log.String())
		}
	}
}

// kill is kill -9. It returns when the process is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // fails only when it is gone
	<-p.ended
}

// end withdraws all and closes the sessions, so that they do not end in the middle of what is measured next.
func (p *process) end() error {
	defer p.kill()
	if err := p.leave(); err != nil {
		return err
	}
	if err := p.stdin.Close(); err != nil {
		return err
	}
	select {
	case <-p.ended:
		return nil
	case <-time.After(time.Minute):
		return fmt.Errorf("%s does not end: %s", p.name, p.log.String())
	}
}

func killAll(all []*process) {
	for _, p := range all {
		p.kill()
	}
}
