// What is started here may not outlive the test that starts it.

package child

import (
	"io"
	"os/exec"
	"runtime"
	"syscall"
)

// Start starts a command that the kernel kills when this process ends, and has read called with what it prints, on a
// goroutine of its own: read reads to the end, and then waits for the command. It may begin before Start returns.
func Start(cmd *exec.Cmd, read func(stdout io.Reader)) (stdin io.WriteCloser, err error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if stdin, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	started := make(chan error)
	go func() {
		// The kernel kills a child when the thread that started it ends.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			read(stdout)
		}
	}()
	return stdin, <-started
}
