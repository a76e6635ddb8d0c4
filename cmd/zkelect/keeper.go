package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// A keeper is a process between zkelect and the command, so that the command never outlives the leadership: it is the
// command's parent, and kills it when zkelect is gone or has not told of a longer lease in time. (A guard is something else:
// see guard.go.) zkelect and the keeper are connected by two pipes. On the one zkelect writes an order a line:
//
//	lease SENT LEFT   the lease ends LEFT nanoseconds after SENT
//	stop GRACE        SIGTERM now, SIGKILL after GRACE nanoseconds, and at the lease's end in any case
//	signal NUMBER     a signal to pass on
//
// The end of that pipe means that zkelect is gone. On the other the keeper reports:
//
//	started PID       the process that is to be the command waits for its lease, in a process group of its own
//	blocked REASON    the command cannot be killed
//	lapsed            the lease has ended, and the command is made to end for that reason
//	killed            the command has been sent SIGKILL
//	ended             it has ended, and everything in its group
//
// That process is zkelect once more (begin), which executes the command when the keeper says so. Everybody knows of it before,
// so that the command is never without somebody who ends it, and the keeper does not wait for an exec, which hangs where a file
// server does not answer.
//
// The keeper has a session of its own, so that what is done to zkelect's whole process group (kill -9, Ctrl-Z in a
// terminal) leaves it to do its work: the command's own children are in the command's group, and nothing else would end
// them. If the keeper is killed zkelect kills the group. If both are killed the guard of the session does (guard.go), where it may:
// a guard on a socket kills nobody, and before Linux 6.9 none can. The kernel then ends the command, and not its children.
// That, and a suspended machine, is what fencing tokens are for.

// keeperArgument makes zkelect a keeper: zkelect --keeper GRACE OVERLAP COMMAND ARG...
const keeperArgument = "--keeper"

// beginArgument makes zkelect wait for its parent's word and then become a command: zkelect --begin COMMAND ARG...
const beginArgument = "--begin"

const (
	// keeperMargin is how much longer than the grace time a keeper may take before it counts as gone.
	keeperMargin = 2 * time.Second
	// killMargin is the same for one that is to kill the command at once: another leads in a moment.
	killMargin = 100 * time.Millisecond
	// unkillable is how long after a SIGKILL a command that still runs counts as one that cannot be killed.
	unkillable = time.Second
)

// kept is zkelect's side of a keeper.
type kept struct {
	say      func(format string, args ...any)
	process  *exec.Cmd
	orders   orderWriter
	finished chan struct{} // closed when the keeper, and with it the command, has ended

	blocked chan struct{} // closed when the keeper says that it cannot kill the command
	why     string        // it is so; written before
	killed  chan struct{} // closed when the keeper says that it has killed the command
	started chan struct{} // closed when the keeper says which process is to be the command
	command int           // that one; written before, 0 when there was none
	ended   bool          // the keeper says so; not to be read before finish
	lapsed  bool          // and this; not to be read before finished is closed
}

// orderWriter is this process's end of the pipe for orders.
type orderWriter interface {
	io.WriteCloser
	SetWriteDeadline(time.Time) error
}

func startKeeper(e *env, argv []string, grace, overlap time.Duration, environment []string) (*kept, error) {
	self, err := executable()
	if err != nil {
		return nil, err
	}
	theirOrders, orders, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = theirOrders.Close() }()
	reports, theirReports, err := os.Pipe()
	if err != nil {
		_ = orders.Close()
		return nil, err
	}
	defer func() { _ = theirReports.Close() }()
	cmd := exec.Command(self, append([]string{keeperArgument, grace.String(), overlap.String()}, argv...)...) //nolint:gosec // zkelect itself
	cmd.Args[0] = "zkelect"
	cmd.Env = environment
	cmd.Stdin, cmd.Stdout, cmd.Stderr = input(), os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{theirOrders, theirReports}
	cmd.SysProcAttr = apart()
	if err := cmd.Start(); err != nil {
		_, _ = orders.Close(), reports.Close()
		return nil, err
	}
	k := &kept{
		say: e.say, process: cmd, orders: orders,
		finished: make(chan struct{}), blocked: make(chan struct{}), killed: make(chan struct{}), started: make(chan struct{}),
	}
	reported := make(chan struct{})
	go func() {
		defer close(reported)
		k.read(reports)
		_ = reports.Close()
	}()
	go func() {
		_ = cmd.Wait() // status tells
		<-reported
		_ = orders.Close()
		k.finish()
		close(k.finished)
	}()
	return k, nil
}

// read takes the keeper's reports, until it has ended.
func (k *kept) read(reports io.Reader) {
	for lines := bufio.NewScanner(reports); lines.Scan(); {
		kind, rest, _ := strings.Cut(lines.Text(), " ")
		switch kind {
		case "started": // comes once, too
			if n, _ := fmt.Sscan(rest, &k.command); n == 1 {
				close(k.started)
			}
		case "blocked":
			k.why = rest
			close(k.blocked)
		case "killed":
			close(k.killed)
		case "lapsed":
			k.lapsed = true
		case "ended":
			k.ended = true
		}
	}
}

// allow lets the command begin, and go on, until the lease ends. It is false when there is no lease.
func (k *kept) allow(until time.Time) bool {
	// In this order: were this process to be stopped in between, the keeper sees how old the message is.
	sent := time.Now()
	left := until.Sub(sent)
	if until.IsZero() || left <= 0 {
		return false
	}
	k.order("lease %d %d\n", sent.UnixNano(), left)
	return true
}

// stop asks the keeper to end the command; finished is closed when it has. That comes in any case: after a keeper that
// does not do it in time zkelect does.
func (k *kept) stop(grace time.Duration) {
	margin := keeperMargin
	if grace <= 0 {
		margin = killMargin
	}
	go func() {
		late := time.NewTimer(grace + margin)
		defer late.Stop()
		for killed := k.killed; ; {
			select {
			case <-k.finished:
				return
			case <-k.blocked: // it works, and can do no more
				return
			case <-killed: // so it works
				killed = nil
				late.Reset(keeperMargin)
			case <-late.C: // it has been stopped, or the machine is very slow
				_ = k.process.Process.Kill() // finish does the rest
				return
			}
		}
	}()
	k.order("stop %d\n", grace) // last: it may wait for a moment where the keeper does not read
}

// forward passes a signal on to the command.
func (k *kept) forward(s syscall.Signal) { k.order("signal %d\n", int(s)) }

// order never waits for a keeper that does not read.
func (k *kept) order(format string, args ...any) {
	_ = k.orders.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = fmt.Fprintf(k.orders, format, args...) // a keeper that is gone has finished
}

// status is the keeper's, once it has finished: the command's own.
func (k *kept) status() int { return statusOf(k.process.ProcessState) }

// notStarted is the status for a command that could not be started, as the shell has it.
func notStarted(err error) int {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return exitNotFound
	}
	return exitCannotExec
}

// input is the command's standard input: ours, unless it is a terminal, from which another session cannot read.
func input() *os.File {
	if info, err := os.Stdin.Stat(); err != nil || info.Mode()&os.ModeCharDevice != 0 {
		return nil
	}
	return os.Stdin
}

// order is a line of zkelect's, as the keeper understands it.
type order struct {
	kind  string
	until time.Time      // of lease: its end, whenever the order is obeyed
	grace time.Duration  // of stop
	sig   syscall.Signal // of signal
}

func parseOrder(line string, now time.Time) (o order, err error) {
	var number int64
	o.kind, _, _ = strings.Cut(line, " ")
	switch o.kind {
	case "lease":
		var sent int64
		_, err = fmt.Sscanf(line, "lease %d %d", &sent, &number)
		age := max(0, now.Sub(time.Unix(0, sent)))
		o.until = now.Add(time.Duration(number) - age)
	case "stop":
		_, err = fmt.Sscanf(line, "stop %d", &number)
		o.grace = time.Duration(number)
	case "signal":
		_, err = fmt.Sscanf(line, "signal %d", &number)
		o.sig = syscall.Signal(number)
	default:
		err = fmt.Errorf("not an order: %q", line)
	}
	return o, err
}
