package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"time"
)

// A guard is a process between zkelect and the command, so that the command
// never outlives the leadership: it is the command's parent, and kills it when
// zkelect is gone or has not told of a longer lease in time. zkelect and the
// guard are connected by a pipe, on which zkelect writes one order a line:
//
//	lease SENT LEFT   the lease ends LEFT nanoseconds after SENT
//	stop GRACE        SIGTERM now, SIGKILL after GRACE nanoseconds
//
// The end of the pipe means that zkelect is gone. On a second pipe the guard tells
// the number of the command's process once it has started it, so that what guards
// the session can end the command's group where this guard is killed as well.
//
// It has a process group of its own, so that a signal to zkelect's whole group
// (kill -9, kill -STOP) leaves it to do its work: the command's own children are
// in the command's group. A guard that is killed without another that guards the
// session, or stopped, or a suspended machine, is what fencing tokens are for.

// guardArgument makes zkelect a guard: zkelect --guard GRACE COMMAND ARG...
const guardArgument = "--guard"

// guardMargin is how much longer than the grace time a guard may take.
const guardMargin = 2 * time.Second

// guarded is zkelect's side of a guard.
type guarded struct {
	process *exec.Cmd
	orders  *os.File
	tells   *os.File
	exited  chan struct{}
}

func startGuard(argv []string, grace time.Duration, environment []string) (*guarded, error) {
	self, err := executable()
	if err != nil {
		return nil, err
	}
	ours, theirs := (*os.File)(nil), (*os.File)(nil)
	if theirs, ours, err = os.Pipe(); err != nil {
		return nil, err
	}
	defer func() { _ = theirs.Close() }()
	tells, told, err := os.Pipe()
	if err != nil {
		_ = ours.Close()
		return nil, err
	}
	defer func() { _ = told.Close() }()
	cmd := exec.Command(self, append([]string{guardArgument, grace.String()}, argv...)...)
	cmd.Args[0] = "zkelect"
	cmd.Env = environment
	cmd.Stdin, cmd.Stdout, cmd.Stderr = input(), os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{theirs, told}
	cmd.SysProcAttr = apart()
	if err := cmd.Start(); err != nil {
		_ = ours.Close()
		_ = tells.Close()
		return nil, err
	}
	g := &guarded{process: cmd, orders: ours, tells: tells, exited: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // status tells
		_ = ours.Close()
		close(g.exited)
	}()
	return g, nil
}

// command waits until the guard has started the command, and returns its process,
// or 0 when it has ended without.
func (g *guarded) command() (pid int) {
	_, _ = fmt.Fscan(g.tells, &pid)
	_ = g.tells.Close()
	return pid
}

// allow lets the command begin, and go on, until the lease ends. It is false
// when there is no lease.
func (g *guarded) allow(until time.Time) bool {
	// In this order: were this process to be stopped in between, the guard sees
	// how old the message is.
	sent := time.Now()
	left := until.Sub(sent)
	if until.IsZero() || left <= 0 {
		return false
	}
	g.order("lease %d %d\n", sent.UnixNano(), left)
	return true
}

// stop ends the command, and returns when that is done.
func (g *guarded) stop(grace time.Duration) {
	g.order("stop %d\n", grace)
	late := time.NewTimer(grace + guardMargin)
	defer late.Stop()
	select {
	case <-g.exited:
	case <-late.C: // it has been stopped, or the machine is very slow
		_ = g.process.Process.Kill() // takes the command with it where the system can do that
		<-g.exited
	}
}

// order never waits for a guard that does not read.
func (g *guarded) order(format string, args ...any) {
	_ = g.orders.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = fmt.Fprintf(g.orders, format, args...) // a guard that is gone has exited
}

// status is the guard's, once it has exited: the command's own.
func (g *guarded) status() int { return statusOf(g.process.ProcessState) }

// notStarted is the status for a command that could not be started, as the
// shell has it.
func notStarted(err error) int {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return exitNotFound
	}
	return exitCannotExec
}

// input is the command's standard input: ours, unless it is a terminal, from
// which a process group in the background cannot read.
func input() *os.File {
	if info, err := os.Stdin.Stat(); err != nil || info.Mode()&os.ModeCharDevice != 0 {
		return nil
	}
	return os.Stdin
}

// parseOrder returns how long the command may go on, and whether it is to end.
func parseOrder(line string, now time.Time) (left time.Duration, stop bool, err error) {
	var sent, nanoseconds int64
	if _, err = fmt.Sscanf(line, "stop %d", &nanoseconds); err == nil {
		return time.Duration(nanoseconds), true, nil
	}
	if !strings.HasPrefix(line, "lease ") {
		return 0, false, fmt.Errorf("not an order: %q", line)
	}
	if _, err = fmt.Sscanf(line, "lease %d %d", &sent, &nanoseconds); err != nil {
		return 0, false, err
	}
	age := max(0, now.Sub(time.Unix(0, sent)))
	return time.Duration(nanoseconds) - age, false, nil
}
