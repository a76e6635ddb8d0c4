//go:build unix && !linux

package main

import (
	"os"
	"syscall"
)

func groupOfItsOwn() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func adoptOrphans() error { return nil }

func executable() (string, error) { return os.Executable() }
