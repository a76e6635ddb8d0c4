package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// terminal is a pseudo-terminal with an interactive shell in it, as a user has it.
type terminal struct {
	t      *testing.T
	master *os.File
	fd     int // of master
	shell  *exec.Cmd
	screen lines
	exited chan struct{}
}

// newTerminal starts a shell with job control. Its commands find zkelect as $Z, and the server.
func newTerminal(t *testing.T, servers string) *terminal {
	t.Helper()
	// Not blocking, so that it can be closed while it is read from.
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	master := os.NewFile(uintptr(fd), "terminal")
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	require.NoError(t, err)
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	require.NoError(t, err)
	defer func() { _ = slave.Close() }()
	x := &terminal{t: t, fd: fd, master: master, exited: make(chan struct{})}
	x.resize(24, 80)
	x.shell = exec.Command("bash", "--norc", "--noprofile", "-i")
	x.shell.Env = append(os.Environ(), asZkelect+"=1", "ZK_SERVERS="+servers, "Z="+os.Args[0], "PS1=", "TERM=dumb", "HISTFILE=")
	x.shell.Stdin, x.shell.Stdout, x.shell.Stderr = slave, slave, slave
	x.shell.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	require.NoError(t, x.shell.Start())
	go func() { // it ends when the master is closed
		buffer := make([]byte, 4096)
		for {
			n, err := master.Read(buffer)
			_, _ = x.screen.Write(buffer[:n])
			if err != nil && !errors.Is(err, syscall.EINTR) {
				return
			}
		}
	}()
	go func() {
		_ = x.shell.Wait()
		close(x.exited)
	}()
	t.Cleanup(func() {
		x.close()
		_ = x.shell.Process.Kill()
		<-x.exited
		if t.Failed() {
			t.Logf("the terminal:\n%s", &x.screen)
		}
	})
	x.types("stty -echo; echo ready-$((1))\n")
	x.shows("ready-1")
	return x
}

func (x *terminal) types(keys string) {
	x.t.Helper()
	_, err := x.master.WriteString(keys)
	require.NoError(x.t, err)
}

func (x *terminal) shows(text string) {
	x.t.Helper()
	until(x.t, fmt.Sprintf("%q on the terminal", text), func() bool { return strings.Contains(x.screen.String(), text) })
}

func (x *terminal) resize(rows, columns uint16) {
	x.t.Helper()
	require.NoError(x.t, unix.IoctlSetWinsize(x.fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}))
}

// close is what happens when the window is closed.
func (x *terminal) close() { _ = x.master.Close() }

// What a user types.
const (
	controlC         = "\x03"
	controlBackslash = "\x1c"
	controlZ         = "\x1a"
)

// runs types a zkelect run of a script.
func (x *terminal) runs(script string, flags ...string) {
	x.t.Helper()
	x.types(fmt.Sprintf("$Z run --election %s --timeout 20s %s -- sh -c %s\n", electionOf(x.t), strings.Join(flags, " "), shellQuoted(script)))
}

func shellQuoted(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// TestTerminalSuspend: Ctrl-Z stops zkelect, and its command does not go on beside the next leader. After fg it says so.
func TestTerminalSuspend(t *testing.T) {
	onBoth(t, func(t *testing.T, servers string) {
		j := newJournal(t)
		x := newTerminal(t, servers)
		x.runs(j.beats("A")[2], "--timeout", "12s")
		j.has(t, "A\n")
		b := start(t, servers, append([]string{"run", "--election", electionOf(t), "--"}, j.beats("B")...)...)
		b.says(&b.stderr, "waiting")
		x.types(controlZ)
		x.shows("Stopped")
		until(t, "B to lead", func() bool { return strings.Count(j.read(), "B\n") >= 30 })
		assert.Empty(t, overlap(j.read()), "who went on while another led")
		x.types("fg\n")
		x.shows("is lost")
		x.types("echo status-$?\n")
		x.shows("status-124")
	})
}

// TestTerminalResume: a Ctrl-Z and fg before the lease ends are no harm.
func TestTerminalResume(t *testing.T) {
	t.Parallel()
	j := newJournal(t)
	x := newTerminal(t, inProcess(t))
	x.runs(j.beats("A")[2], "--timeout", "40s")
	j.has(t, "A\n")
	x.types(controlZ)
	x.shows("Stopped")
	x.types("fg\n")
	before := strings.Count(j.read(), "A\n")
	until(t, "the command to go on", func() bool { return strings.Count(j.read(), "A\n") > before+50 })
	x.types(controlC)
	x.shows("has ended with status 143")
	assert.False(t, strings.Contains(x.screen.String(), "is lost"), "leadership was lost")
}

// TestTerminalKeys: Ctrl-C and Ctrl-\ give the command its grace time, the second one none; the terminal sends them to
// zkelect, and to it only.
func TestTerminalKeys(t *testing.T) {
	const script = `trap "echo asked; sleep 0.3; exit 5" TERM; trap "echo INT, QUIT or HUP; exit 6" INT QUIT HUP; echo be"gins"; while :; do sleep 0.05; done`
	for name, key := range map[string]string{"Ctrl-C": controlC, "Ctrl-backslash": controlBackslash} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := newTerminal(t, inProcess(t))
			x.runs(script)
			x.shows("begins")
			x.types(key)
			x.shows("asked")
			x.shows("has ended with status 5")
			x.types("echo status-$?\n")
			x.shows("status-5")
		})
		t.Run(name+" twice", func(t *testing.T) {
			t.Parallel()
			x := newTerminal(t, inProcess(t))
			x.runs(`trap "echo asked" TERM; echo be"gins"; while :; do sleep 0.05; done`, "--grace", "10m")
			x.shows("begins")
			x.types(key)
			x.shows("asked")
			x.types(key)
			x.types("echo status-$?\n")
			x.shows(map[string]string{controlC: "status-130", controlBackslash: "status-131"}[key])
		})
	}
}

// TestTerminalCloses: the end of the terminal ends zkelect in order, though it can say nothing any more.
func TestTerminalCloses(t *testing.T) {
	onBoth(t, func(t *testing.T, servers string) {
		j := newJournal(t)
		x := newTerminal(t, servers)
		x.runs(fmt.Sprintf(`exec >>%q; trap "sleep 0.3; echo A ends; exit" TERM HUP; echo A; while :; do sleep 0.01; done`, j.path))
		j.has(t, "A\n")
		b := start(t, servers, append([]string{"run", "--election", electionOf(t), "--"}, j.beats("B")...)...)
		b.says(&b.stderr, "waiting")
		x.close()
		j.has(t, "B\n")
		assert.Regexp(t, "^A\nA ends\nB\n", j.read(), "the journal")
	})
}

// TestTerminalResized: the command hears of that, though it has no terminal.
func TestTerminalResized(t *testing.T) {
	t.Parallel()
	x := newTerminal(t, inProcess(t))
	x.runs(`trap "echo resized; exit 3" WINCH; echo be"gins"; while :; do sleep 0.05; done`)
	x.shows("begins")
	x.resize(30, 100)
	x.shows("resized")
	x.shows("has ended with status 3")
}

// TestTerminalBackground: with "stty tostop" who writes in the background is stopped, and a zkelect is not, for a line.
func TestTerminalBackground(t *testing.T) {
	t.Parallel()
	x := newTerminal(t, inProcess(t))
	x.types("stty tostop\n")
	x.types(fmt.Sprintf("$Z run --election %s -- sh -c 'exec >/dev/null 2>&1; sleep 1' & wait; echo waited-$?\n", electionOf(t)))
	x.shows("waited-0")
}

// controlSequence takes no place on the screen.
var controlSequence = regexp.MustCompile(`\x1b\[[0-9;?]*[A-Za-z]`)

// TestTerminalTop: on a terminal the table stays in its place, in colours, fits the window, and leaves the terminal as it
// was.
func TestTerminalTop(t *testing.T) {
	t.Parallel()
	servers := inProcess(t)
	gone := leaderOfRoot(t, servers, "/top", "a", "gone")
	require.NoError(t, gone.Close())
	leaderOfRoot(t, servers, "/top", "b", strings.Repeat("long-", 40))
	x := newTerminal(t, servers)
	x.types("$Z top --root /top --interval 50ms\n")
	x.shows(otherScreen)
	x.shows("2 elections, 1 without a leader")
	x.shows(red + "a ")
	x.shows(green + "b ")
	var screen string // without the last table, which is perhaps not all there yet
	until(t, "another table", func() bool {
		screen = x.screen.String()
		screen = screen[:max(0, strings.LastIndex(screen, home))]
		return strings.Contains(screen, green+"b ")
	})
	tables := strings.ReplaceAll(screen, home, "\n") // the next one begins behind the last line of the one before
	for line := range strings.FieldsFuncSeq(tables, func(r rune) bool { return r == '\r' || r == '\n' }) {
		line = controlSequence.ReplaceAllString(line, "")
		assert.LessOrEqual(t, len(line), 80, "too long: %q", line)
	}
	x.resize(3, 40)
	x.shows("... and 2 more")
	x.types(controlC)
	x.types("echo status-$?\n")
	x.shows(ownScreen)
	x.shows("status-0")
	x.types("NO_COLOR=1 $Z top --root /top --interval 50ms\n")
	x.shows(home + time.Now().Format("2006-"))
	before := strings.Count(x.screen.String(), green)
	until(t, "some tables", func() bool { return strings.Count(x.screen.String(), home) > 20 })
	assert.LessOrEqual(t, strings.Count(x.screen.String(), green), before, "colours with NO_COLOR")
	x.types(controlC)
}
