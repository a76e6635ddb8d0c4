//go:build linux

package guard_test

import (
	"flag"
	"os"
	"runtime"
	"syscall"
)

var long = flag.Bool("guard.long", false, "every death fifty times, and a storm of 5,000 children")

// traceUntil stops a process as a debugger does, until release is closed or it is gone.
func traceUntil(pid int, stopped chan<- error, release <-chan struct{}) {
	runtime.LockOSThread() // what is traced belongs to a thread
	defer runtime.UnlockOSThread()
	if err := syscall.PtraceAttach(pid); err != nil {
		stopped <- os.NewSyscallError("ptrace", err)
		return
	}
	var status syscall.WaitStatus
	_, err := syscall.Wait4(pid, &status, syscall.WALL|syscall.WUNTRACED, nil)
	stopped <- os.NewSyscallError("wait", err)
	<-release
	_ = syscall.PtraceDetach(pid)
}

func getsid(pid int) (int, error) {
	id, _, errno := syscall.Syscall(syscall.SYS_GETSID, uintptr(pid), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(id), nil
}
