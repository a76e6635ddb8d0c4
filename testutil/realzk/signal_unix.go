//go:build unix

package realzk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/zkelection/election/internal/proc"
)

// stopOrContinue returns when a process that is to stop has: the signal reaches each of its threads at the next turn that
// it has, and until then that may answer.
func stopOrContinue(process *os.Process, stop bool) error {
	if !stop {
		return process.Signal(syscall.SIGCONT)
	}
	if err := process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	const limit = 30 * time.Second
	for end := time.Now().Add(limit); ; time.Sleep(time.Millisecond) {
		switch stopped, err := proc.Stopped(process.Pid); {
		case stopped, errors.Is(err, fs.ErrNotExist): // without a /proc nothing tells
			return nil
		case err != nil:
			return err
		case time.Now().After(end):
			return fmt.Errorf("process %d has not stopped in %v", process.Pid, limit)
		}
	}
}
