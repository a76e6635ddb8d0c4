//go:build !unix

package main

import (
	"errors"
	"os"
	"syscall"
)

// Process groups and signals are what run is made of.
var errNotUnix = errors.New("run needs a Unix system")

func executable() (string, error) { return "", errNotUnix }

func apart() *syscall.SysProcAttr { return nil }

func killApart(p *os.Process) error { return p.Kill() }

func keep([]string) int { return exitRunFailed }

func begin([]string) int { return exitRunFailed }

func (k *kept) finish() {}

func statusOf(state *os.ProcessState) int { return state.ExitCode() }

func beFirstProcess() int { return exitRunFailed } // there is no process 1

func endsInOrder() func() { return func() {} }
