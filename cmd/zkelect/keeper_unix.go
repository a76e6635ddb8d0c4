//go:build unix

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"time"
)

// keeper is the keeper's side: the command's process group and how long it may go on. It belongs to the keeper's main
// goroutine.
type keeper struct {
	command group
	grace   time.Duration
	overlap time.Duration // beyond the lease
	orders  *orderPipe
	reports *os.File
	stderr  *lossyWriter

	leaseEnd time.Time
	lapsed   bool      // it has passed, and that was reported
	killAt   time.Time // once the command has been told to end, else zero
	killed   time.Time // since when it should be dead, or zero
	blocked  bool      // that was reported
}

// keep runs the command and returns its status.
func keep(args []string) int {
	// The signals are for zkelect, which tells what to do. Not ignored, because the command would inherit that.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT,
		syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM, syscall.SIGPIPE, syscall.SIGTSTP, syscall.SIGTTOU)
	// On Linux the command dies with the thread that has started it.
	runtime.LockOSThread()
	const ordersFD, reportsFD = 3, 4
	syscall.CloseOnExec(ordersFD)
	syscall.CloseOnExec(reportsFD)
	k := &keeper{reports: os.NewFile(reportsFD, "reports"), stderr: newLossyWriter(os.Stderr)}
	defer k.stderr.flush(time.Second)
	if len(args) < 3 {
		return k.fails(fmt.Errorf("%q", args))
	}
	var errGrace, errOverlap error
	k.grace, errGrace = time.ParseDuration(args[0])
	k.overlap, errOverlap = time.ParseDuration(args[1])
	if err := errors.Join(errGrace, errOverlap, adoptOrphans()); err != nil {
		return k.fails(err)
	}
	var err error
	if k.orders, err = newOrderPipe(ordersFD, k.say); err != nil {
		return k.fails(err)
	}
	word, err := k.start(args[2:])
	if err != nil {
		return k.fails(err)
	}
	k.report("started %d", k.command)
	exited := make(chan syscall.WaitStatus, 1)
	go reap(int(k.command), exited)
	first := k.orders.first()
	begins := first.kind == "lease" && time.Now().Before(first.until)
	if begins {
		k.leaseEnd = first.until
		_, _ = word.Write([]byte{0}) // who does not read it has ended
	} else {
		k.kill() // zkelect or its lease was gone before the command began
	}
	_ = word.Close()
	status := k.until(exited)
	k.report("ended")
	if !begins {
		return exitLost
	}
	return shellStatus(status)
}

// start starts the process that becomes the command when the word is given. It returns when that is ready for signals.
func (k *keeper) start(argv []string) (word *os.File, err error) {
	self, err := executable()
	if err != nil {
		return nil, err
	}
	theirs, word, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = theirs.Close() }()
	ready, theirReady, err := os.Pipe()
	if err != nil {
		_ = word.Close()
		return nil, err
	}
	defer func() { _ = ready.Close() }()
	cmd := exec.Command(self, append([]string{beginArgument}, argv...)...) //nolint:gosec // zkelect itself
	cmd.Args[0] = "zkelect"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{theirs, theirReady}
	cmd.SysProcAttr = groupOfItsOwn()
	err = cmd.Start()
	_ = theirReady.Close()
	if err != nil {
		_ = word.Close()
		return nil, err
	}
	_, _ = ready.Read(make([]byte, 1)) // it is closed there
	k.command = group(cmd.Process.Pid)
	return word, nil
}

// begin becomes the command when the keeper, its parent, says so. It returns a status when it does not.
func begin(argv []string) int {
	// The thread that executes is the one that lives on, and what it has asked for with it.
	runtime.LockOSThread()
	const wordFD, readyFD = 3, 4
	syscall.CloseOnExec(wordFD)
	for _, passedOn := range signalNames { // before the command is there they are nobody's, and must not end this, as SIGTERM does
		signal.Notify(make(chan os.Signal, 1), passedOn)
	}
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // a line that cannot be written is lost
	err := dieWithParent()
	_ = syscall.Close(readyFD)
	if n, _ := os.NewFile(wordFD, "word").Read(make([]byte, 1)); n == 0 {
		return exitLost // the keeper has ended
	}
	if err == nil {
		cmd := exec.Command(argv[0], argv[1:]...) //nolint:gosec // what the user wants run
		if err = cmd.Err; err == nil {
			err = &os.PathError{Op: "exec", Path: cmd.Path, Err: syscall.Exec(cmd.Path, cmd.Args, os.Environ())} //nolint:gosec // the same
		}
	}
	stderr := newLossyWriter(os.Stderr)
	defer stderr.flush(time.Second)
	fmt.Fprintln(stderr, "zkelect:", err)
	return notStarted(err)
}

// reap takes the end of every child, of those that it has been given by their parents' death as well, so that no zombie
// stays. It returns when there is none.
func reap(command int, exited chan<- syscall.WaitStatus) {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return
		case pid == command && (status.Exited() || status.Signaled()):
			exited <- status
		}
	}
}

// until obeys zkelect until the command has ended, and everything else in its group.
func (k *keeper) until(exited <-chan syscall.WaitStatus) (status syscall.WaitStatus) {
	var poll <-chan time.Time // while the command has ended, and its group perhaps not
	pause := groupPoll
	for {
		deadline := time.NewTimer(time.Until(k.deadline()))
		select {
		case status = <-exited:
			exited = nil
			if !k.command.alive() {
				return status
			}
			k.terminate(k.grace) // what the command has left behind
			poll = time.After(pause)
		case <-k.orders.arrived:
			k.obeyAll()
		case <-deadline.C:
			// On a slow machine a longer lease may have been ordered in time, and not been read: it counts.
			k.orders.read()
			k.obeyAll()
			if !time.Now().Before(k.deadline()) {
				k.late()
			}
		case <-poll:
			if !k.command.alive() {
				return status
			}
			pause = min(2*pause, longestGroupPoll)
			poll = time.After(pause)
		}
		deadline.Stop()
	}
}

// deadline is when something is to be done if nothing else happens.
func (k *keeper) deadline() time.Time {
	switch {
	case !k.killed.IsZero():
		return k.killed.Add(unkillable)
	case k.killAt.IsZero(), !k.lapsed && k.leaseEnd.Before(k.killAt):
		return k.leaseEnd
	default:
		return k.killAt
	}
}

// late does what is due at the deadline.
func (k *keeper) late() {
	now := time.Now()
	switch {
	case !k.killed.IsZero():
		k.signal(syscall.SIGKILL) // there may be new ones in the group
		k.killed = now
		k.block("process group %d, the command's, still runs though it was killed", k.command)
	case !k.lapsed && !now.Before(k.leaseEnd):
		k.lapsed = true
		k.report("lapsed")
		if k.overlap > 0 {
			k.terminate(k.overlap)
			return
		}
		k.kill()
	default:
		k.kill()
	}
}

// obeyAll obeys what has arrived.
func (k *keeper) obeyAll() {
	orders, over := k.orders.take()
	for _, o := range orders {
		k.obey(o)
	}
	if over { // zkelect is gone
		k.kill()
	}
}

func (k *keeper) obey(o order) {
	switch {
	case o.kind == "lease":
		k.leaseEnd = o.until
	case o.kind == "stop" && o.grace <= 0:
		k.kill()
	case o.kind == "stop":
		k.terminate(o.grace)
	case o.kind == "signal":
		k.signal(o.sig)
	}
}

// terminate asks the group to end, and sets the time at which it must, unless it must earlier.
func (k *keeper) terminate(grace time.Duration) {
	if k.killAt.IsZero() && grace > 0 {
		k.signal(syscall.SIGTERM)
		k.signal(syscall.SIGCONT) // one that was stopped would not hear it
	}
	if at := time.Now().Add(grace); k.killAt.IsZero() || at.Before(k.killAt) {
		k.killAt = at
	}
}

func (k *keeper) kill() {
	k.signal(syscall.SIGKILL)
	if k.killed.IsZero() {
		k.killed = time.Now()
		k.report("killed")
	}
}

// signal reaches the processes of the group that may be signalled; when there are only others it is said.
func (k *keeper) signal(s syscall.Signal) {
	if err := k.command.signal(s); errors.Is(err, syscall.EPERM) {
		k.block("process group %d, the command's, is another user's and cannot be signalled (%v)", k.command, err)
	}
}

func (k *keeper) block(format string, args ...any) {
	if !k.blocked {
		k.blocked = true
		k.report("blocked "+format, args...)
	}
}

func (k *keeper) report(format string, args ...any) {
	_, _ = fmt.Fprintf(k.reports, format+"\n", args...) // five lines at most: there is room in the pipe
}

func (k *keeper) say(format string, args ...any) {
	_, _ = fmt.Fprintf(k.stderr, "zkelect: "+format+"\n", args...)
}

func (k *keeper) fails(err error) int {
	k.say("the keeper of a command: %v", err)
	return exitRunFailed
}

// finish is called when the keeper has ended. One that was killed, for example, has left the command's group behind.
func (k *kept) finish() {
	if k.ended || k.command == 0 {
		return
	}
	if g := group(k.command); g.alive() {
		k.say("the keeper of the command has ended before it: killing the command")
		g.kill(k.say)
	}
}

// apart keeps from the keeper what is done to zkelect's process group and session.
func apart() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

// killApart kills what was started apart, and what that has started.
func killApart(p *os.Process) error { return group(p.Pid).signal(syscall.SIGKILL) }
