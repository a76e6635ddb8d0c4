package child

import (
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"unsafe"
)

// chainArgument makes a test's binary a chain.
const chainArgument = "--chain-of-processes"

// Chain returns what makes a chain of this program, in a process group of its own: a process that forks and ends, so many times,
// one after another. The last one makes a file, and stays until it is killed, or for some minutes. BeChain must be called in it.
func Chain(forks int, path string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], chainArgument, strconv.Itoa(forks), path) //nolint:gosec // a test's
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// BeChain does not return in a process that is to be a chain. Call it in an init function.
func BeChain() {
	if len(os.Args) != 4 || os.Args[1] != chainArgument {
		return
	}
	signal.Ignore(syscall.SIGTERM)
	forks, errForks := strconv.Atoi(os.Args[2])
	path, errPath := syscall.BytePtrFromString(os.Args[3])
	if errForks != nil || errPath != nil {
		os.Exit(2)
	}
	links(forks, path, &syscall.Timespec{Sec: 300})
}

// links forks behind the back of Go's runtime, so that nothing but system calls can follow.
//
//go:nosplit
//go:norace
func links(n int, path *byte, stay *syscall.Timespec) {
	for ; n > 0; n-- {
		if pid, _, _ := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0); pid != 0 {
			_, _, _ = syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
	here := -100 // AT_FDCWD
	_, _, _ = syscall.RawSyscall6(syscall.SYS_OPENAT, uintptr(here), uintptr(unsafe.Pointer(path)), syscall.O_CREAT|syscall.O_WRONLY, 0o600, 0, 0)
	_, _, _ = syscall.RawSyscall6(syscall.SYS_PPOLL, 0, 0, uintptr(unsafe.Pointer(stay)), 0, 0, 0)
	_, _, _ = syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
}
