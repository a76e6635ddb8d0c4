//go:build unix

package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"time"
)

// stragglerPoll is how often the guard looks whether the command's group is
// empty.
const stragglerPoll = 10 * time.Millisecond

// watched is the guard's side: the command's process group and how long it may
// go on. It belongs to the guard's main goroutine.
type watched struct {
	command  *exec.Cmd
	grace    time.Duration
	orders   <-chan string // closed when zkelect is gone
	deadline *time.Timer
	stopping bool // SIGTERM has been sent; leases count no more
}

// guard runs the command and returns its status.
func guard(args []string) int {
	// The signals are for zkelect, which tells what to do; a terminal sends them
	// to both. Not ignored, because the command would inherit that.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	// On Linux the command dies with the thread that has started it.
	runtime.LockOSThread()
	const pipe, tells = 3, 4
	syscall.CloseOnExec(pipe)
	var kind syscall.Stat_t
	isTold := syscall.Fstat(tells, &kind) == nil && kind.Mode&syscall.S_IFMT == syscall.S_IFIFO
	if isTold {
		syscall.CloseOnExec(tells)
	}
	grace, err := time.ParseDuration(args[0])
	if err != nil {
		return guardFails(err)
	}
	orders := make(chan string)
	go func() {
		defer close(orders)
		for lines := bufio.NewScanner(os.NewFile(pipe, "orders")); lines.Scan(); {
			orders <- lines.Text()
		}
	}()
	first, ok := <-orders
	left, stop, err := parseOrder(first, time.Now())
	if !ok || err != nil || stop || left <= 0 {
		return exitLost // zkelect or its lease was gone before the command began
	}
	cmd := exec.Command(args[1], args[2:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = groupOfItsOwn()
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "zkelect:", err)
		return notStarted(err)
	}
	if isTold {
		_, _ = syscall.Write(tells, fmt.Appendln(nil, cmd.Process.Pid))
		_ = syscall.Close(tells)
	}
	w := &watched{command: cmd, grace: grace, orders: orders, deadline: time.NewTimer(left)}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait() // ProcessState tells
		close(exited)
	}()
	w.until(exited)
	w.stragglers()
	return statusOf(cmd.ProcessState)
}

// until obeys zkelect until the command has exited.
func (w *watched) until(exited <-chan struct{}) {
	for {
		select {
		case <-exited:
			return
		case <-w.deadline.C:
			w.signal(syscall.SIGKILL)
		case line, ok := <-w.orders:
			w.obey(line, ok)
		}
	}
}

func (w *watched) obey(line string, ok bool) {
	if !ok {
		w.orders = nil
		w.signal(syscall.SIGKILL)
		return
	}
	left, stop, err := parseOrder(line, time.Now())
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "zkelect: guard:", err)
	case stop:
		w.terminate(left)
	case !w.stopping:
		w.deadline.Reset(left)
	}
}

// terminate asks the group to end, and sets the time until it must.
func (w *watched) terminate(grace time.Duration) {
	if !w.stopping && grace > 0 {
		w.signal(syscall.SIGTERM)
	}
	w.stopping = true
	w.deadline.Reset(grace)
}

// stragglers ends what the command has left running in its group.
func (w *watched) stragglers() {
	if !w.signal(0) {
		return
	}
	if !w.stopping {
		w.signal(syscall.SIGTERM)
	}
	grace := time.NewTimer(w.grace)
	defer grace.Stop()
	poll := time.NewTicker(stragglerPoll)
	defer poll.Stop()
	for w.signal(0) {
		select {
		case <-grace.C:
			w.signal(syscall.SIGKILL)
			return
		case <-w.deadline.C:
			w.signal(syscall.SIGKILL)
			return
		case line, ok := <-w.orders:
			w.obey(line, ok)
		case <-poll.C:
		}
	}
}

// signal reaches every process of the group, and reports whether there is one.
func (w *watched) signal(s syscall.Signal) (reached bool) {
	return syscall.Kill(-w.command.Process.Pid, s) == nil
}

func guardFails(err error) int {
	fmt.Fprintln(os.Stderr, "zkelect: guard:", err)
	return exitRunFailed
}

// apart keeps the signals to zkelect's process group from its guard.
func apart() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// statusOf is a process's exit status as a shell tells it.
func statusOf(state *os.ProcessState) int {
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return exitSignal + int(status.Signal())
	}
	return state.ExitCode()
}
