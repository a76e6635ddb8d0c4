// Package proc is what /proc tells of other processes: of Linux. Elsewhere there is none, and nothing is known.
package proc

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// GroupEnded reports whether each process of a group has ended and waits only to be reaped; over tells it of one, and may
// return syscall.ESRCH for one that is gone. Of a group without a process, or with one that cannot be seen, nothing is known.
//
// It looks twice: a process that forks and ends while it is looked shows that it has ended, and not its child. What lives at
// the end of the first look is either found in the second, itself or a child of it, or is among those that have ended by then.
// Or it is listed in the second, and reaped before it is looked at: so where one is gone then, whosever it was, nothing is known.
func GroupEnded(group int, over func(pid int) (bool, error)) bool {
	before, _, ok := endedOf(group, over)
	if !ok || len(before) == 0 {
		return false
	}
	for range looks {
		after, missed, ok := endedOf(group, over)
		if !ok || !missed {
			return ok && slices.Equal(before, after)
		}
	}
	return false
}

// looks is how often the second look is made where processes end meanwhile, whosever they are.
const looks = 5

// endedOf returns the processes of a group, and whether all of them have ended. It has missed those that were gone before it
// could be seen of which group they are, or whether they have ended.
func endedOf(group int, over func(pid int) (bool, error)) (pids []int, missed, ok bool) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, false, false
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		_, its, err := stat(filepath.Join("/proc", entry.Name(), "stat"))
		if err == nil && its == group {
			var ended bool
			if ended, err = over(pid); err == nil && !ended {
				return nil, false, false
			}
			if err == nil {
				pids = append(pids, pid)
			}
		}
		if err != nil && !gone(err) {
			return nil, false, false
		}
		missed = missed || err != nil
	}
	return pids, missed, true
}

// Ended reports whether a process has ended: whether each of its threads has. Its main thread may end long before the others,
// and the process shows as a zombie from then on.
func Ended(pid int) (bool, error) { return eachThread(pid, "ZX") }

// Stopped reports whether each thread of a process has stopped, or ended.
func Stopped(pid int) (bool, error) { return eachThread(pid, "TtZX") }

// eachThread reports whether each thread of a process is in one of the states.
func eachThread(pid int, states string) (bool, error) {
	tasks := fmt.Sprintf("/proc/%d/task", pid)
	threads, err := os.ReadDir(tasks)
	if err != nil {
		return false, err
	}
	for _, thread := range threads {
		state, _, err := stat(filepath.Join(tasks, thread.Name(), "stat"))
		switch {
		case gone(err):
		case err != nil:
			return false, err
		case !bytes.ContainsRune([]byte(states), rune(state)):
			return false, nil
		}
	}
	return true, nil
}

// stat reads the state and the process group of a process or thread.
func stat(file string) (state byte, group int, err error) {
	text, err := os.ReadFile(file) //nolint:gosec // of /proc
	if err != nil {
		return 0, 0, err
	}
	// "PID (NAME) STATE PARENT GROUP ...", and NAME may be anything.
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 3 {
		return 0, 0, fmt.Errorf("%s: %q", file, text)
	}
	group, err = strconv.Atoi(string(fields[2]))
	if err == nil && group < 0 { // Linux's do_task_stat says -1 of what is just being reaped
		err = syscall.ESRCH
	}
	return fields[0][0], group, err
}

// gone reports whether an error says that a process is not there any more.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) }
