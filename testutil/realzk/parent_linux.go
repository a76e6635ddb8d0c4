package realzk

import "syscall"

// dieWithParent makes the kernel kill a child whose test died without cleaning up (a timeout's panic, kill -9).
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
