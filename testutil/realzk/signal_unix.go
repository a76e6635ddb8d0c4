//go:build unix

package realzk

import (
	"os"
	"syscall"
)

func stopOrContinue(process *os.Process, stop bool) error {
	if stop {
		return process.Signal(syscall.SIGSTOP)
	}
	return process.Signal(syscall.SIGCONT)
}
