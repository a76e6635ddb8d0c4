// Package monotonic reads the one clock that all processes of a machine share.
package monotonic

import (
	"syscall"
	"unsafe"
)

// Now reads CLOCK_MONOTONIC, in nanoseconds: one clock for all processes of
// the machine, which neither a stop of a process nor a change of the date moves.
func Now() int64 {
	const clockMonotonic = 1
	var now syscall.Timespec
	if _, _, errno := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, clockMonotonic, uintptr(unsafe.Pointer(&now)), 0); errno != 0 {
		panic(errno) // a kernel without this clock cannot run Go either
	}
	return now.Nano()
}
