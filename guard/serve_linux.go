package guard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-zookeeper/zk"
)

// The side of the guard: one loop that waits for what processes say and for their ends, with nothing to do in between.
// The loop's goroutine owns everything but the closing of sessions, which has a goroutine for each process that has died.

// initiated is whether Init has run in this process, and hasDialer whether it was given a dialer.
var initiated, hasDialer atomic.Bool

// Init makes the service's own executable fit to be the guard. Call it in main after the flags have been read and before
// anything else is begun. In a process that Start has started as a guard it does not return: that process guards its
// parent, and exits. In others it only notes that it has run.
//
// dialer returns what connects to ZooKeeper in the guard, for TLS for example; nil, or a nil Dialer, for TCP. It is called
// in the guard only. The guard is started with the arguments and the environment of its parent.
func Init(dialer func() (zk.Dialer, error)) {
	mark := os.Getenv(markEnvironment)
	if mark == "" {
		hasDialer.Store(dialer != nil)
		initiated.Store(true)
		return
	}
	if err := serveParent(mark, dialer); err != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

// serveParent guards the process that has started this one.
func serveParent(mark string, dialer func() (zk.Dialer, error)) error {
	fd, err := strconv.Atoi(mark)
	if err != nil {
		return err
	}
	// Those are for the process that is guarded, which decides what becomes of it.
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	syscall.CloseOnExec(fd)
	s := &serving{logger: func(h message) (*slog.Logger, func()) { return fileLogger(h.LogFile) }}
	if err := leaveNothingOpen(fd); err != nil {
		return err
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	_ = os.WriteFile("/proc/self/comm", []byte("zk-guard"), 0) // what kills the service by its name is not for the guard
	if s.dialer, err = callDialer(dialer); err != nil {
		s.fault = err
	}
	notDumpable()
	if err := s.begin(); err != nil {
		return err
	}
	if err := s.add(fd); err != nil {
		return err
	}
	return s.serve()
}

func callDialer(dialer func() (zk.Dialer, error)) (zk.Dialer, error) {
	if dialer == nil {
		return nil, nil
	}
	return dialer()
}

// fileLogger opens a log for what happens after a death. A pipe is not waited for until somebody reads it.
func fileLogger(path string) (*slog.Logger, func()) {
	if path == "" {
		return slog.New(slog.DiscardHandler), func() {}
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return slog.New(slog.DiscardHandler), func() {}
	}
	return slog.New(slog.NewTextHandler(file, nil)), func() { _ = file.Close() }
}

// ListenOptions are the options of Listen. The zero value, and nil, mean the defaults.
type ListenOptions struct {
	// Mode is the permission of the socket: who may write to it may be guarded. The default is 0600.
	Mode os.FileMode
	// Logger gets a line for each process that is guarded, and for what is done when it has died. The default is
	// slog.Default().
	Logger *slog.Logger
	// Listening is called once the socket is there, before the first process is served: for READY=1 to systemd, say. The
	// default is to call nothing.
	Listening func()
	// Alive is called again and again, for a watchdog, by the goroutine that guards: where that hangs it is not called any
	// more. It must return at once, since nobody is guarded meanwhile. The default is to call nothing.
	Alive func()
	// AliveEvery is the longest pause between two calls of Alive while all is well. 0, the default, means no calls.
	AliveEvery time.Duration
}

// Listen guards any number of processes that connect to a unix socket. A socket that is left there of an earlier guard is
// replaced. It returns when ctx has ended and no process is guarded any more. "zkelect guard --listen PATH" does it.
func Listen(ctx context.Context, path string, opts *ListenOptions) error {
	var o ListenOptions
	if opts != nil {
		o = *opts
	}
	if o.Mode == 0 {
		o.Mode = 0o600
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	listener, err := listen(path, o.Mode)
	if err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	defer func() { _ = listener.Close() }()
	file, err := listener.File()
	if err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	defer func() { _ = file.Close() }()
	fd := int(file.Fd())
	if err := syscall.SetNonblock(fd, true); err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	notDumpable()
	s := &serving{
		listener: fd,
		log:      o.Logger,
		alive:    o.Alive,
		every:    o.AliveEvery,
		logger: func(h message) (*slog.Logger, func()) {
			return o.Logger.With("process", h.Name, "pid", h.PID), func() {}
		},
	}
	defer s.end()
	if err := s.begin(); err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	if err := s.watch(s.listener); err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	defer context.AfterFunc(ctx, s.quit)()
	o.Logger.Info("guard: listening", "socket", path)
	if o.Listening != nil {
		o.Listening()
	}
	if err := s.serve(); err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	return nil
}

// listen makes the socket. One that nobody listens on is left of a guard that was killed.
func listen(path string, mode os.FileMode) (*net.UnixListener, error) {
	// One at a time: a second one would put its socket in the place of the first one's.
	place, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer func() { _ = place.Close() }()
	for err = syscall.EINTR; errors.Is(err, syscall.EINTR); {
		err = syscall.Flock(int(place.Fd()), syscall.LOCK_EX)
	}
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", filepath.Dir(path), err)
	}
	if conn, err := net.Dial("unixpacket", path); err == nil {
		_ = conn.Close()
		return nil, fmt.Errorf("listen %s: there is a guard already", path)
	} else if info, statErr := os.Lstat(path); statErr == nil && info.Mode()&os.ModeSocket == 0 {
		return nil, fmt.Errorf("listen %s: it is there, and no socket", path)
	} else if errors.Is(err, syscall.ECONNREFUSED) {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	} else if !errors.Is(err, syscall.ENOENT) {
		return nil, err // somebody else's: of another type, or not for us to dial
	}
	// Made under another name, so that nobody can connect before it has its mode.
	dir, err := os.MkdirTemp(filepath.Dir(path), ".guard-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	made := filepath.Join(dir, "s")
	listener, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: made, Net: "unixpacket"})
	if err != nil {
		return nil, err
	}
	listener.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(made, mode), os.Rename(made, path)); err != nil {
		_ = listener.Close()
		return nil, err
	}
	return listener, nil
}

// guarded is one process, as its guard knows it. A descriptor of 0 is none.
type guarded struct {
	conn     int
	pidfd    int
	memory   int
	checking bool     // its TLS files are being read
	is       identity // of the memory
	awaits   []awaited
	hello    message
	since    time.Time // of the connection
	dead     time.Time // since when its end is known
}

// awaited is a process to wait for, or a process group.
type awaited struct {
	await
	pidfd int
	pid   int // of its process here; 0 where that is not to be seen
}

// over reports whether it has ended.
func (a *awaited) over() bool {
	over, err := ended(a.pidfd)
	return err == nil && over && (!a.Group || groupEnded(a.pidfd, a.pid))
}

// serving is a guard at work.
type serving struct {
	check    func(*TLS) error                           // reads the files; nil means TLS.check
	logger   func(hello message) (*slog.Logger, func()) // for one process that has died
	log      *slog.Logger                               // nil for a helper
	dialer   zk.Dialer
	fault    error // why this guard is of no use
	listener int   // 0 for a helper
	alive    func()
	every    time.Duration // how often at least alive is called; 0 for not at all

	epoll     int
	wake      [2]int // a pipe, by which post ends the sleep
	processes []*guarded
	checking  int // how many processes' TLS files are being read
	closings  sync.WaitGroup
	quitting  bool

	mu     sync.Mutex
	posted []func() // for the loop to call
	over   bool     // the pipe is closed
}

// mostChecks limits the threads that may hang in files that cannot be read.
const mostChecks = 16

func (s *serving) begin() (err error) {
	if s.epoll, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		return os.NewSyscallError("epoll_create", err)
	}
	if err := syscall.Pipe2(s.wake[:], syscall.O_CLOEXEC|syscall.O_NONBLOCK); err != nil {
		return os.NewSyscallError("pipe", err)
	}
	return s.watch(s.wake[0])
}

// quit makes the guard end when no process is guarded any more. It is called on other goroutines.
func (s *serving) quit() { _ = s.post(s.quits) }

// end closes what begin has opened.
func (s *serving) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	for _, fd := range []int{s.epoll, s.wake[0], s.wake[1]} {
		if fd > 0 {
			_ = syscall.Close(fd)
		}
	}
}

// post has the loop call f, and reports whether there is a loop still. It is called on other goroutines.
func (s *serving) post(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return false
	}
	s.posted = append(s.posted, f)
	_, _ = syscall.Write(s.wake[1], []byte{0}) // one byte is enough, so that none is lost when it is full
	return true
}

func (s *serving) watch(fd int) error {
	return os.NewSyscallError("epoll_ctl", syscall.EpollCtl(s.epoll, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(fd)}))
}

func (s *serving) unwatch(fd int) {
	_ = syscall.EpollCtl(s.epoll, syscall.EPOLL_CTL_DEL, fd, &syscall.EpollEvent{})
}

// add begins with a process, from its connection.
func (s *serving) add(conn int) error {
	if err := s.watch(conn); err != nil {
		return err
	}
	s.processes = append(s.processes, &guarded{conn: conn, since: time.Now()})
	return nil
}

// serve is the loop. A helper's ends when there is no process any more; what is being closed then is waited for.
func (s *serving) serve() error {
	events := make([]syscall.EpollEvent, 16)
	for len(s.processes) > 0 || s.listener != 0 && !s.quitting {
		s.isAlive()
		n, err := syscall.EpollWait(s.epoll, events, s.untilNext(time.Now()))
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return os.NewSyscallError("epoll_wait", err)
		}
		for _, event := range events[:max(n, 0)] {
			switch fd := int(event.Fd); fd {
			case s.wake[0]:
				s.woken()
			case s.listener:
				s.accept()
			default:
				s.handle(fd)
			}
		}
		for _, p := range slices.Clone(s.processes) {
			if p.awaitsGroup() {
				s.judge(p)
			}
		}
		s.expire(time.Now())
	}
	closed := make(chan struct{})
	go func() {
		s.closings.Wait()
		close(closed)
	}()
	for {
		s.isAlive()
		var again <-chan time.Time
		if s.every > 0 {
			again = time.After(s.every)
		}
		select {
		case <-closed:
			return nil
		case <-again:
		}
	}
}

// isAlive says that the loop goes round.
func (s *serving) isAlive() {
	if s.alive != nil && s.every > 0 {
		s.alive()
	}
}

// woken calls what has been posted.
func (s *serving) woken() {
	var buffer [16]byte
	_, _ = syscall.Read(s.wake[0], buffer[:])
	s.mu.Lock()
	posted := s.posted
	s.posted = nil
	s.mu.Unlock()
	for _, f := range posted {
		f()
	}
}

func (s *serving) quits() {
	s.quitting = true
	if len(s.processes) > 0 && s.log != nil {
		s.log.Info("guard: ending when no process is guarded any more", "processes", len(s.processes))
	}
}

func (s *serving) accept() {
	conn, _, err := syscall.Accept4(s.listener, syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK)
	if err != nil {
		time.Sleep(10 * time.Millisecond) // with no descriptor left it would be tried without end
		return
	}
	if err := s.add(conn); err != nil {
		_ = syscall.Close(conn)
	}
}

// untilNext is how long the loop may sleep, in ms; -1 is until something happens.
func (s *serving) untilNext(now time.Time) int {
	until := time.Duration(-1)
	if s.every > 0 {
		until = max(s.every, time.Millisecond)
	}
	for _, p := range s.processes {
		if p.awaitsGroup() {
			return int(groupPoll / time.Millisecond)
		}
		if at, ok := p.deadline(); ok {
			if left := max(0, at.Sub(now)) + time.Millisecond; until < 0 || left < until {
				until = left
			}
		}
	}
	if until < 0 {
		return -1
	}
	return int(until / time.Millisecond)
}

// groupPoll is the pause between two looks at a process group, of whose end nothing tells.
const groupPoll = 5 * time.Millisecond

// awaitsGroup reports whether the process has died and a group is to end before its sessions are closed.
func (p *guarded) awaitsGroup() bool {
	return !p.dead.IsZero() && slices.ContainsFunc(p.awaits, func(a awaited) bool { return a.Group })
}

// deadline is when nothing more is expected of a process that says no hello, or waits for others to end.
func (p *guarded) deadline() (time.Time, bool) {
	switch {
	case p.pidfd == 0:
		return p.since.Add(readyTimeout), true
	case !p.dead.IsZero():
		return p.dead.Add(p.lifetime()), true
	}
	return time.Time{}, false
}

// lifetime is when the last of its sessions is over by itself, counted from its death.
func (p *guarded) lifetime() (longest time.Duration) {
	records, _ := sharedMemory(p.memory)
	for _, r := range records {
		longest = max(longest, r.lifetime())
	}
	return longest
}

func (s *serving) expire(now time.Time) {
	for _, p := range slices.Clone(s.processes) {
		if at, ok := p.deadline(); ok && !now.Before(at) {
			if !p.dead.IsZero() {
				s.outlived(p)
			}
			s.drop(p)
		}
	}
}

var errOutlived = errors.New("a process that had to be waited for has outlived it")

// outlived says that a dead process's sessions were not closed because of what was waited for.
func (s *serving) outlived(p *guarded) {
	records, _ := sharedMemory(p.memory)
	hello := p.hello
	s.closings.Go(func() {
		logger, closeLog := s.logger(hello)
		defer closeLog()
		for _, r := range records {
			logger.Warn("guard: the session of a dead process is not closed", "session", sessionName(r.ID), "error", errOutlived)
		}
	})
}

// drop forgets a process.
func (s *serving) drop(p *guarded) {
	for _, fd := range []int{p.conn, p.pidfd, p.memory} {
		s.letGo(fd)
	}
	for _, a := range p.awaits {
		s.letGo(a.pidfd)
	}
	s.processes = slices.DeleteFunc(s.processes, func(other *guarded) bool { return other == p })
}

func (s *serving) letGo(fd int) {
	if fd > 0 {
		s.unwatch(fd) // closing is not enough while the process has a copy
		_ = syscall.Close(fd)
	}
}

// handle acts on a descriptor that is ready.
func (s *serving) handle(fd int) {
	for _, p := range s.processes {
		switch {
		case fd == p.conn:
			s.listen(p)
			return
		case fd == p.pidfd, slices.ContainsFunc(p.awaits, func(a awaited) bool { return a.pidfd == fd }):
			s.judge(p)
			return
		}
	}
	s.unwatch(fd) // dropped while events were handled
}

// listen takes what a process says. The end of its connection says nothing: foreign code may have closed it.
func (s *serving) listen(p *guarded) {
	for p.conn > 0 {
		m, descriptors, err := receive(p.conn)
		switch {
		case errors.Is(err, syscall.EAGAIN):
			return
		case err != nil:
			closeAll(descriptors)
			_ = syscall.Close(p.conn)
			// One whose TLS files are being read has said hello, and may have died since.
			if p.conn = 0; p.pidfd == 0 && !p.checking || errors.Is(err, errTruncated) {
				s.drop(p)
			}
			return
		case m.Kind == kindBye:
			closeAll(descriptors)
			s.drop(p)
			return
		case m.Kind == kindRelease:
			closeAll(descriptors)
			s.release(p, m.Await)
			continue
		}
		err = s.obey(p, m, descriptors)
		if errors.Is(err, errLater) {
			continue
		}
		p.answer(m, err)
		if err != nil && m.Kind == kindAwait && !errors.Is(err, errUnseen) {
			s.drop(p) // it would not wait: better no guard than that one
			return
		}
	}
}

// errLater is that the answer will be given later.
var errLater = errors.New("guard: not yet")

func (p *guarded) answer(m message, err error) {
	if p.conn == 0 {
		return
	}
	a := answer{Number: m.Number, Ready: err == nil, Unseen: errors.Is(err, errUnseen)}
	if err != nil {
		a.Error = err.Error()
	}
	text, _ := json.Marshal(a)
	_ = syscall.Sendmsg(p.conn, text, nil, nil, syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL)
}

// release forgets a process that was waited for.
func (s *serving) release(p *guarded, which *await) {
	if which == nil {
		return
	}
	p.awaits = slices.DeleteFunc(p.awaits, func(a awaited) bool {
		released := a.Number == which.Number
		if released {
			s.letGo(a.pidfd)
		}
		return released
	})
}

// newAwaited takes a pidfd. which is what its process has said of it, nil if it is of a version that says nothing.
func newAwaited(which *await, pidfd int) awaited {
	a := awaited{pidfd: pidfd, pid: pidOf(pidfd)}
	if which != nil {
		a.await = *which
	}
	return a
}

// obey takes the descriptors, or closes them, unless it is errLater: then that will be done.
func (s *serving) obey(p *guarded, m message, descriptors []int) (err error) {
	defer func() {
		if err != nil && !errors.Is(err, errLater) {
			closeAll(descriptors)
		}
	}()
	switch {
	case m.Kind == kindAwait && len(descriptors) == 1 && isPidfd(descriptors[0]):
		if m.Await != nil && m.Await.Group && errors.Is(signalGroup(descriptors[0], 0), syscall.EINVAL) {
			return errUnseen
		}
		p.awaits = slices.DeleteFunc(p.awaits, func(a awaited) bool {
			over := a.over()
			if over {
				s.letGo(a.pidfd)
			}
			return over
		})
		p.awaits = append(p.awaits, newAwaited(m.Await, descriptors[0]))
		return nil
	case m.Kind != kindHello || p.pidfd != 0 || p.checking:
		return fmt.Errorf("a guard does not understand %q", m.Kind)
	case s.fault != nil:
		return s.fault
	case len(descriptors) < 2 || !isMemory(descriptors[1]):
		return errors.New("no memory handed over")
	case slices.ContainsFunc(slices.Delete(slices.Clone(descriptors), 1, 2), func(fd int) bool { return !isPidfd(fd) }):
		return errors.New("no pidfd handed over")
	}
	if m.TLS == nil {
		return s.take(p, m, descriptors)
	}
	if s.checking == mostChecks {
		return errors.New("the guard waits for too many TLS files already")
	}
	// Files of somebody else's may be where reading them takes forever. This guard serves others meanwhile, and forgets
	// this process if it takes too long.
	s.checking++
	p.checking = true
	check := s.check
	if check == nil {
		check = (*TLS).check
	}
	go func() {
		err := check(m.TLS)
		if !s.post(func() { s.checked(p, m, descriptors, err) }) {
			closeAll(descriptors)
		}
	}()
	return errLater
}

// checked goes on with a process whose TLS files have been read.
func (s *serving) checked(p *guarded, m message, descriptors []int, err error) {
	s.checking--
	p.checking = false
	if !slices.Contains(s.processes, p) {
		closeAll(descriptors)
		return
	}
	if err == nil && p.conn == 0 {
		err = s.isLeft(descriptors)
	}
	if err == nil {
		err = s.take(p, m, descriptors)
	}
	if err != nil {
		closeAll(descriptors)
	}
	p.answer(m, err)
	if p.conn == 0 && err != nil {
		s.drop(p)
	}
}

var errSaysMore = errors.New("guard: the process will say more than this connection has")

// isLeft returns nil where a process that has lost its connection is dead and had made no other, on which it may have said more.
func (s *serving) isLeft(descriptors []int) error {
	is, err := identityOf(descriptors[1])
	if err != nil {
		return err
	}
	if slices.ContainsFunc(s.processes, func(other *guarded) bool { return other.pidfd != 0 && other.is == is }) {
		return errSaysMore
	}
	if over, err := ended(descriptors[0]); err != nil || !over {
		return errors.Join(err, errSaysMore)
	}
	return nil
}

// take begins to guard a process. With an error its descriptors are the caller's still.
func (s *serving) take(p *guarded, m message, descriptors []int) error {
	is, err := identityOf(descriptors[1])
	if err != nil {
		return err
	}
	// The same process once more: it has lost its connection, and made another.
	for _, former := range slices.Clone(s.processes) {
		if former != p && former.pidfd != 0 && former.is == is && former.dead.IsZero() {
			s.drop(former)
		}
	}
	if err := s.watch(descriptors[0]); err != nil {
		return err
	}
	p.hello, p.pidfd, p.memory, p.is = m, descriptors[0], descriptors[1], is
	for i, pidfd := range descriptors[2:] {
		var which *await
		if i < len(m.Awaits) {
			which = &m.Awaits[i]
		}
		p.awaits = append(p.awaits, newAwaited(which, pidfd))
	}
	if s.log != nil {
		s.log.Info("guard: guarding", "process", m.Name, "pid", m.PID)
	}
	return nil
}

// judge looks whether a process has died, and all that were to be waited for with it, and then has its sessions closed.
func (s *serving) judge(p *guarded) {
	if over, err := ended(p.pidfd); err != nil || !over {
		return
	}
	if p.dead.IsZero() {
		p.dead = time.Now()
		s.unwatch(p.pidfd)
		before := len(s.processes)
		s.listen(p) // what it said at the last, whom to wait for, and perhaps that it has gone properly
		if len(s.processes) != before {
			return
		}
		for _, a := range p.awaits {
			if a.Group && s.listener == 0 {
				_ = signalGroup(a.pidfd, syscall.SIGKILL)
			}
			_ = s.watch(a.pidfd)
		}
	}
	waiting := false
	for _, a := range p.awaits {
		if over, err := ended(a.pidfd); over && err == nil {
			s.unwatch(a.pidfd) // or it would be ready all the time, while others are waited for
		}
		waiting = waiting || !a.over()
	}
	if waiting {
		return
	}
	records, err := sharedMemory(p.memory)
	hello, dead := p.hello, p.dead
	s.closings.Go(func() { s.closeSessions(hello, records, dead, err) })
	s.drop(p)
}

// closeSessions closes what a dead process has left, all at the same time. The time counts from its death, however long
// others have been waited for since.
func (s *serving) closeSessions(hello message, records []*record, dead time.Time, unread error) {
	// Opened when there is something to write, which is when it is done: the file may be where opening it takes forever.
	open := sync.OnceValues(func() (*slog.Logger, func()) { return s.logger(hello) })
	var all sync.WaitGroup
	for _, r := range records {
		all.Go(func() {
			began := time.Now()
			ctx, cancel := context.WithDeadlineCause(context.Background(), dead.Add(r.lifetime()), errTooLate)
			defer cancel()
			err := closeSession(ctx, r, s.dialer)
			took := time.Since(began)
			logger, _ := open()
			if err != nil {
				logger.Warn("guard: the session of a dead process is not closed", "session", sessionName(r.ID), "error", err)
				return
			}
			logger.Info("guard: the session of a dead process is closed", "session", sessionName(r.ID), "took", took)
		})
	}
	all.Wait()
	if unread == nil && len(records) == 0 {
		return
	}
	logger, closeLog := open()
	if unread != nil {
		logger.Warn("guard: the sessions of a dead process cannot be read", "error", unread)
	}
	closeLog()
}

// errTruncated is that a message has not come whole: with no number left for a descriptor the kernel drops it, and that may
// be a process to wait for.
var errTruncated = errors.New("guard: a message without all of its descriptors")

// receive takes one message, without waiting for it.
func receive(conn int) (m message, descriptors []int, err error) {
	text, rights := make([]byte, 16<<10), make([]byte, syscall.CmsgSpace(4*253))
	var n, m2, flags int
	for {
		n, m2, flags, _, err = syscall.Recvmsg(conn, text, rights, syscall.MSG_DONTWAIT|syscall.MSG_CMSG_CLOEXEC)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		return m, nil, err
	}
	controls, err := syscall.ParseSocketControlMessage(rights[:m2])
	if err != nil {
		return m, nil, err
	}
	for _, control := range controls {
		if fds, err := syscall.ParseUnixRights(&control); err == nil {
			descriptors = append(descriptors, fds...)
		}
	}
	if flags&(syscall.MSG_CTRUNC|syscall.MSG_TRUNC) != 0 {
		return m, descriptors, errTruncated
	}
	if n == 0 {
		return m, descriptors, net.ErrClosed
	}
	if err := json.Unmarshal(text[:n], &m); err != nil {
		return m, descriptors, err
	}
	return m, descriptors, nil
}

func closeAll(descriptors []int) {
	for _, fd := range descriptors {
		_ = syscall.Close(fd)
	}
}
