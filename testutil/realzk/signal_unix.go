//go:build unix

package realzk

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
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
	for end := time.Now().Add(limit); !stopped(process.Pid); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("process %d has not stopped in %v", process.Pid, limit)
		}
	}
	return nil
}

// stopped reports whether all threads of a process have stopped, or ended, as far as there is a /proc to tell.
func stopped(pid int) bool {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, thread := range threads {
		stat, err := os.ReadFile(thread)
		if err != nil {
			continue // it has ended
		}
		// "PID (NAME) STATE ...", and NAME may be anything.
		if after := stat[bytes.LastIndexByte(stat, ')')+1:]; len(after) < 2 || !bytes.ContainsRune([]byte("TtZX"), rune(after[1])) {
			return false
		}
	}
	return true
}
