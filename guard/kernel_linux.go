package guard

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"github.com/zkelection/election/internal/proc"
)

// What the standard library does not have of the kernel.

const (
	mfdCloexec     = 0x1
	mfdNoExecSeal  = 0x8
	fGetSeals      = 1034
	madvDontFork   = 10
	madvDontDump   = 16
	prSetDumpable  = 4
	pollIn         = 0x1
	statusDirectly = 0 // no flags
	pidfdGroup     = 4 // the signal is for the process group that the process leads; since Linux 6.9
)

// identity tells open files apart: inode numbers are those of a device.
type identity struct{ device, inode uint64 }

// systemCalls are the numbers of pidfd_open, pidfd_send_signal and memfd_create.
func systemCalls() (pidfdOpen, pidfdSendSignal, memfdCreate uintptr, known bool) {
	pidfdOpen, pidfdSendSignal = 434, 424
	switch runtime.GOARCH {
	case "amd64":
		memfdCreate = 319
	case "386":
		memfdCreate = 356
	case "arm":
		memfdCreate = 385
	case "arm64", "riscv64", "loong64":
		memfdCreate = 279
	case "ppc64", "ppc64le":
		memfdCreate = 360
	case "s390x":
		memfdCreate = 350
	case "mips", "mipsle":
		pidfdOpen, pidfdSendSignal, memfdCreate = 4434, 4424, 4354
	case "mips64", "mips64le":
		pidfdOpen, pidfdSendSignal, memfdCreate = 5434, 5424, 5314
	default:
		return 0, 0, 0, false
	}
	return pidfdOpen, pidfdSendSignal, memfdCreate, true
}

// openPidfd returns a pidfd of a process: of the process, not of its main thread alone.
func openPidfd(pid int) (*os.File, error) {
	number, _, _, known := systemCalls()
	if !known {
		return nil, ErrUnsupported
	}
	fd, _, errno := syscall.Syscall(number, uintptr(pid), statusDirectly, 0) // close-on-exec is always set
	switch {
	case errno == syscall.ENOSYS:
		return nil, ErrUnsupported
	case errno != 0:
		return nil, os.NewSyscallError("pidfd_open", errno)
	}
	return os.NewFile(fd, "pidfd"), nil
}

// isPidfd refuses whatever else somebody may have handed over. A signal of 0 is sent to nobody; a directory of /proc is
// taken for a pidfd there, and always ready to be read.
func isPidfd(fd int) bool {
	var stat syscall.Stat_t
	if err := syscall.Fstat(fd, &stat); err != nil || stat.Mode&syscall.S_IFMT == syscall.S_IFDIR {
		return false
	}
	_, number, _, known := systemCalls()
	if !known {
		return false
	}
	_, _, errno := syscall.Syscall6(number, uintptr(fd), 0, 0, 0, 0, 0)
	// ESRCH: it has ended. EPERM, EINVAL: it is another user's, or in another PID namespace.
	return errno == 0 || errno == syscall.ESRCH || errno == syscall.EPERM || errno == syscall.EINVAL
}

// ended reports whether the process of a pidfd has ended: its last thread has run its last instruction.
func ended(fd int) (bool, error) {
	poll := struct {
		fd      int32
		events  int16
		revents int16
	}{fd: int32(fd), events: pollIn}
	var zero syscall.Timespec
	for {
		n, _, errno := syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&poll)), 1, uintptr(unsafe.Pointer(&zero)), 0, 0, 0)
		if errno == syscall.EINTR {
			continue
		}
		if errno != 0 {
			return false, os.NewSyscallError("ppoll", errno)
		}
		return n == 1 && poll.revents&pollIn != 0, nil
	}
}

// signalGroup signals the process group that the process of a pidfd leads, or led: as long as one of its members is there,
// dead and not reaped even, it is that group and no other of its number. A signal of 0 is sent to nobody; ESRCH is that
// there is no such group any more, and EINVAL that the kernel cannot do it.
func signalGroup(pidfd int, signal syscall.Signal) error {
	_, number, _, known := systemCalls()
	if !known {
		return syscall.EINVAL
	}
	if _, _, errno := syscall.Syscall6(number, uintptr(pidfd), uintptr(signal), 0, pidfdGroup, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// pidOf is the number of a pidfd's process where this process sees it, and 0 where it does not: in another PID namespace, or
// when it is gone.
func pidOf(pidfd int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", pidfd))
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(text), "\nPid:")
	var pid int
	_, _ = fmt.Sscan(after, &pid)
	return max(0, pid)
}

// groupEnded reports whether all processes of a group have ended: the group that the process of pidfd leads, which has the
// number group here, 0 if that is not known.
func groupEnded(pidfd, group int) bool {
	err := signalGroup(pidfd, 0)
	if errors.Is(err, syscall.ESRCH) {
		return true
	}
	if err != nil && !errors.Is(err, syscall.EPERM) || group == 0 {
		return false
	}
	return proc.GroupEnded(group, func(pid int) (bool, error) {
		member, err := openPidfd(pid)
		if err != nil {
			return false, err
		}
		defer func() { _ = member.Close() }()
		return ended(int(member.Fd()))
	})
}

// memory is what a process shares with its guard.
type memory struct {
	fd     int      // no os.File: that would close whatever is under this number in the end
	is     identity // what fd is, while nobody else has closed it
	mapped []byte
}

func newMemory() (*memory, error) {
	_, _, number, known := systemCalls()
	if !known {
		return nil, ErrUnsupported
	}
	name, err := syscall.BytePtrFromString("election-guard")
	if err != nil {
		return nil, err
	}
	fd, _, errno := syscall.Syscall(number, uintptr(unsafe.Pointer(name)), mfdCloexec|mfdNoExecSeal, 0)
	if errno == syscall.EINVAL { // before Linux 6.3
		fd, _, errno = syscall.Syscall(number, uintptr(unsafe.Pointer(name)), mfdCloexec, 0)
	}
	if errno != 0 {
		return nil, os.NewSyscallError("memfd_create", errno)
	}
	m := &memory{fd: int(fd)}
	if m.is, err = identityOf(m.fd); err != nil {
		_ = syscall.Close(m.fd)
		return nil, fmt.Errorf("guard: shared memory: %w", err)
	}
	if err := m.mapFile(); err != nil {
		m.close()
		return nil, fmt.Errorf("guard: shared memory: %w", err)
	}
	return m, nil
}

func (m *memory) mapFile() (err error) {
	if err := syscall.Ftruncate(m.fd, memorySize); err != nil {
		return err
	}
	m.mapped, err = syscall.Mmap(m.fd, 0, memorySize, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return err
	}
	// There are credentials in it: they are not for core dumps, nor for children.
	return errors.Join(syscall.Madvise(m.mapped, madvDontDump), syscall.Madvise(m.mapped, madvDontFork))
}

// intact reports whether fd is still what it was: foreign code may have closed its descriptor, and opened another
// file under the same number.
func (m *memory) intact() bool {
	now, err := identityOf(m.fd)
	return err == nil && now == m.is
}

func (m *memory) close() {
	if m.mapped != nil {
		_ = syscall.Munmap(m.mapped)
		m.mapped = nil
	}
	if m.intact() {
		_ = syscall.Close(m.fd)
	}
}

func identityOf(fd int) (identity, error) {
	var stat syscall.Stat_t
	if err := syscall.Fstat(fd, &stat); err != nil {
		return identity{}, err
	}
	return identity{uint64(stat.Dev), stat.Ino}, nil //nolint:unconvert // it has another type elsewhere
}

// isMemory reports whether a descriptor is what newMemory makes: a file of memory, which cannot block whoever reads it.
func isMemory(fd int) bool {
	_, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), fGetSeals, 0)
	return errno == 0
}

// sharedMemory returns what the dead process has left in the memory that it shared.
func sharedMemory(fd int) (records []*record, err error) {
	buffer := make([]byte, pageSize)
	for i := range maxSessions {
		n, readErr := syscall.Pread(fd, buffer, int64(i*pageSize))
		if readErr != nil || n < pageSize {
			return records, errors.Join(err, os.NewSyscallError("pread", readErr))
		}
		r, readErr := readPage(buffer)
		err = errors.Join(err, readErr)
		if r != nil {
			records = append(records, r)
		}
	}
	return records, err
}

// leaveNothingOpen lets go of every descriptor but the standard ones, keep and those of Go's own runtime: whatever this
// process was started with besides would be held for as long as it lives, a listening socket for example. The numbers
// stay taken, by /dev/null: an os.File that main had opened closes its number again when it is collected, and that must
// not be another file's by then.
func leaveNothingOpen(keep int) error {
	null, err := syscall.Open("/dev/null", syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = syscall.Close(null) }()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, entry := range entries {
		var fd int
		if _, err := fmt.Sscan(entry.Name(), &fd); err != nil || fd <= 2 || fd == keep {
			continue
		}
		what, err := os.Readlink("/proc/self/fd/" + entry.Name())
		if err != nil || strings.HasPrefix(what, "anon_inode:[event") || strings.HasPrefix(what, "/sys/fs/cgroup/") {
			continue // gone by now, as the directory itself, or of the runtime: its poller, and what limits its processors
		}
		_ = syscall.Dup3(null, fd, syscall.O_CLOEXEC)
	}
	return nil
}

// notDumpable keeps what a guard knows out of core dumps and from other processes of the same user.
func notDumpable() {
	_, _, _ = syscall.Syscall(syscall.SYS_PRCTL, prSetDumpable, 0, 0)
}
