package main

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// groupOfItsOwn also lets the command die with its keeper.
func groupOfItsOwn() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// dieWithParent is what groupOfItsOwn asks for, for the thread that calls it: no other than the first one of a process has it.
func dieWithParent() error {
	return os.NewSyscallError("prctl", unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0, 0, 0))
}

// adoptOrphans gives this process the children of its children that die: whose parent has died is reaped here, and not by
// a process 1 that may not do it.
func adoptOrphans() error {
	return os.NewSyscallError("prctl", unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
}

// executable is this program even after its file has been replaced.
func executable() (string, error) {
	if _, err := os.Stat("/proc/self/exe"); err == nil {
		return "/proc/self/exe", nil
	}
	return os.Executable()
}
