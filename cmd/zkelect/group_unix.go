//go:build unix

package main

import (
	"errors"
	"os"
	"syscall"
	"time"

	"github.com/zkelection/election/internal/proc"
)

// group is a process group: a command and what it has started. It is known by the command's process id.
type group int

// signal reaches every process of the group that may be signalled.
func (g group) signal(s syscall.Signal) error { return syscall.Kill(-int(g), s) }

// alive reports whether a process of the group still runs. One that may not be signalled does, and a zombie does not: it is
// for its parent to reap.
func (g group) alive() bool {
	return !errors.Is(g.signal(0), syscall.ESRCH) && !proc.GroupEnded(int(g), proc.Ended)
}

// kill ends the group, and returns when it has ended. What cannot be killed is waited for, and said.
func (g group) kill(say func(format string, args ...any)) {
	for pause, said := groupPoll, false; g.alive(); pause = min(2*pause, longestGroupPoll) {
		if err := g.signal(syscall.SIGKILL); errors.Is(err, syscall.EPERM) && !said {
			said = true
			say("process group %d cannot be killed (%v): waiting until it has ended", int(g), err)
		}
		time.Sleep(pause)
	}
}

// groupPoll is how soon, and longestGroupPoll how late, it is looked again whether a group has ended: the system does not
// tell of that.
const (
	groupPoll        = 10 * time.Millisecond
	longestGroupPoll = 200 * time.Millisecond
)

// statusOf is a process's exit status as a shell tells it.
func statusOf(state *os.ProcessState) int {
	if status, ok := state.Sys().(syscall.WaitStatus); ok {
		return shellStatus(status)
	}
	return state.ExitCode()
}

func shellStatus(status syscall.WaitStatus) int {
	if status.Signaled() {
		return exitSignal + int(status.Signal())
	}
	return status.ExitStatus()
}
