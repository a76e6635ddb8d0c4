//go:build !unix

package main

import (
	"os"
	"syscall"
)

var stopSignals = []syscall.Signal{syscall.SIGINT, syscall.SIGTERM}

var signalNames map[string]syscall.Signal // none can be passed on

const closedPipe = exitFailed

func isBrokenPipe(error) bool { return false }

func ignoreHarmless() {}

var resized []os.Signal
