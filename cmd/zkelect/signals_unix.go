//go:build unix

package main

import (
	"errors"
	"os"
	"os/signal"
	"syscall"
)

// stopSignals end zkelect in order: what a shell, a terminal, a supervisor, systemd or a container sends to end a process.
var stopSignals = []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT}

// signalNames are those that run can pass on, by their names.
var signalNames = map[string]syscall.Signal{
	"HUP": syscall.SIGHUP, "INT": syscall.SIGINT, "QUIT": syscall.SIGQUIT, "USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2,
	"ALRM": syscall.SIGALRM, "WINCH": syscall.SIGWINCH,
}

// closedPipe is the status of a process that a SIGPIPE ends.
const closedPipe = exitSignal + int(syscall.SIGPIPE)

func isBrokenPipe(err error) bool { return errors.Is(err, syscall.EPIPE) }

// ignoreHarmless: a line that cannot be written is lost, and a terminal's "stty tostop" does not stop who writes one in
// the background. The first is not ignored, but has a handler, since the children would inherit the former.
func ignoreHarmless() {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	signal.Ignore(syscall.SIGTTOU)
}

// resized are the signals that a terminal sends when its size has changed.
var resized = []os.Signal{syscall.SIGWINCH}
