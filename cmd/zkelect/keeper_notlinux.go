//go:build unix && !linux

package main

import (
	"os"
	"syscall"
)

func groupOfItsOwn() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func dieWithParent() error { return nil }

func adoptOrphans() error { return nil }

func executable() (string, error) { return os.Executable() }
