//go:build unix

package main

import (
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Process 1, of a container mostly, has two duties that zkelect would mix up with its own: it reaps every process whose
// parent has died, and everything ends with it. So there it starts itself once more, does nothing but that, and passes the
// signals on.

// lastMoments is how long, after a zkelect that has not ended in order, its guard and the keeper of its command have to do
// their work before the end of process 1 ends them.
const lastMoments = 10 * time.Second

// firstEnvironment names the descriptor on which zkelect tells process 1 that it ends in order: after it was killed, a second
// signal or a panic, its guard and keeper have work to do, and its status does not tell.
const firstEnvironment = "ZKELECT_FIRST_PROCESS"

// notPassedOn are the signals that are about this process itself.
var notPassedOn = []os.Signal{syscall.SIGCHLD, syscall.SIGURG, syscall.SIGPIPE, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGTSTP}

// beFirstProcess returns the status that zkelect ended with.
func beFirstProcess() int {
	incoming := make(chan os.Signal, 64)
	signal.Notify(incoming)
	signal.Reset(notPassedOn...)
	signal.Ignore(syscall.SIGTTOU) // it hands the terminal over below
	self, err := executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, "zkelect:", err)
		return exitRunFailed
	}
	word, theirs, err := os.Pipe()
	if err != nil {
		fmt.Fprintln(os.Stderr, "zkelect:", err)
		return exitRunFailed
	}
	child, err := os.StartProcess(self, os.Args, &os.ProcAttr{
		Env: append(os.Environ(), firstEnvironment+"=3"), Files: []*os.File{os.Stdin, os.Stdout, os.Stderr, theirs}, Sys: foreground(),
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "zkelect:", err)
		return exitRunFailed
	}
	_ = theirs.Close()
	ended := make(chan syscall.WaitStatus, 1)
	alone := make(chan struct{}) // closed when there is no child left
	go func() {
		reap(child.Pid, ended)
		close(alone)
	}()
	for {
		select {
		case s := <-incoming:
			if number, ok := s.(syscall.Signal); ok {
				_ = syscall.Kill(child.Pid, number)
			}
		case status := <-ended:
			if n, _ := word.Read(make([]byte, 1)); n == 0 {
				select {
				case <-alone:
				case <-time.After(lastMoments):
				}
			}
			return shellStatus(status)
		}
	}
}

// endsInOrder returns what tells process 1, if that has started this one, that nothing is left to be waited for.
func endsInOrder() (tell func()) {
	fd, err := strconv.Atoi(os.Getenv(firstEnvironment))
	if err != nil {
		return func() {}
	}
	_ = os.Unsetenv(firstEnvironment) // it is nobody else's
	syscall.CloseOnExec(fd)
	return func() { _, _ = syscall.Write(fd, []byte{0}) }
}

// foreground is a process group of its own, so that a terminal's signals come once; it has the terminal if there is one.
func foreground() *syscall.SysProcAttr {
	attributes := &syscall.SysProcAttr{Setpgid: true}
	if group, err := unix.IoctlGetInt(int(os.Stdin.Fd()), unix.TIOCGPGRP); err == nil && group == unix.Getpgrp() {
		attributes.Foreground = true
		attributes.Ctty = int(os.Stdin.Fd())
	}
	return attributes
}
