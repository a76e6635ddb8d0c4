package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// onlyZombies reports whether every process of the group has ended, as far as /proc tells. It looks twice: a process that
// forks and ends while it is looked shows its zombie, and not its child. What lives at the end of the first look has either
// been seen in the second, or has left another zombie by then.
func onlyZombies(g group) bool {
	before, dead := zombies(g)
	if !dead || len(before) == 0 {
		return false
	}
	after, dead := zombies(g)
	return dead && slices.Equal(before, after)
}

// zombies returns the processes of the group that have ended, and whether no other was seen.
func zombies(g group) (pids []string, only bool) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, false
	}
	for _, entry := range entries {
		if _, err := strconv.Atoi(entry.Name()); err != nil {
			continue
		}
		stat, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "stat"))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // it has gone
		}
		if err != nil {
			return nil, false
		}
		// "PID (COMMAND) STATE PARENT GROUP ...", and COMMAND may be anything.
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		if len(fields) < 3 || string(fields[2]) != strconv.Itoa(int(g)) {
			continue
		}
		if state := fields[0][0]; state != 'Z' && state != 'X' {
			return nil, false
		}
		pids = append(pids, entry.Name())
	}
	return pids, true
}
