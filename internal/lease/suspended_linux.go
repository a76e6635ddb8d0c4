package lease

import (
	"syscall"
	"time"
	"unsafe"
)

// Clocks of clock_gettime(2).
const (
	clockMonotonic = 1
	clockBoottime  = 7 // as the one above, and it goes on while the machine is suspended
)

// suspendedFor bounds for how long the machine has been suspended since it was
// started; ok is false where that cannot be told. These are the machine's own
// clocks, also in a test in virtual time.
func suspendedFor() (least, most time.Duration, ok bool) {
	before, ok1 := clockGettime(clockMonotonic)
	boot, ok2 := clockGettime(clockBoottime)
	after, ok3 := clockGettime(clockMonotonic)
	return boot - after, boot - before, ok1 && ok2 && ok3
}

func clockGettime(id uintptr) (time.Duration, bool) {
	var ts syscall.Timespec
	// It never blocks, so the scheduler need not be told.
	_, _, errno := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, id, uintptr(unsafe.Pointer(&ts)), 0) //nolint:gosec // as the call wants it
	return time.Duration(ts.Nano()), errno == 0
}
