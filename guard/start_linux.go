package guard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// The side of the process that is guarded.
//
// Who owns what: mu guards the pages, the processes to wait for, and which guard there is. One goroutine, run, starts
// guards one after the other; each has a goroutine that reads what it says, and a helper one that waits for its end.

const (
	readyTimeout   = 5 * time.Second // for a guard to say that it is ready
	byeTimeout     = time.Second     // for a helper to end when it is told to
	firstPause     = 100 * time.Millisecond
	longestPause   = 10 * time.Second
	resolveTimeout = 10 * time.Second
	steadyAfter    = time.Minute // a guard that has lived for so long is followed by another at once

	// markEnvironment makes Init in a process that was started as a guard serve on this descriptor.
	markEnvironment = "ELECTION_GUARD_PROCESS"
	markDescriptor  = 3
)

// Guard is a guard of this process. Give it to as many Sessions as there are, as election.SessionOptions.Guard. All
// methods may be called from any goroutine, and of a nil Guard do nothing.
type Guard struct {
	opts   Options
	logger *slog.Logger
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	loops  sync.WaitGroup
	ended  chan struct{} // run has returned

	// linking is for whoever makes a guard, or tells it of a process to await; both may take seconds. It is taken
	// before mu, and guards awaits and link.
	linking sync.Mutex
	awaits  map[*os.File]struct{}
	link    *link // nil while there is no guard

	// mu is held for moments only.
	mu     sync.Mutex
	closed bool
	memory *memory
	holds  map[any]*hold
	free   []*page
	unused int // pages from here on have never been used
}

// hold is one session that is guarded.
type hold struct {
	page *page
	made int // counts Hold, so that addresses found late do not bring back what was before
}

// link is one guard process, or one connection to a guard on a socket.
type link struct {
	conn    *net.UnixConn
	inode   uint64        // of conn, while nobody else has closed it
	process *exec.Cmd     // nil for a guard on a socket
	gone    chan struct{} // it has ended
	answers chan answer   // to what was asked

	asked int // counts messages; asking is for whoever holds Guard.linking
}

// message is what a process tells its guard. The descriptors go with it.
type message struct {
	Kind   string `json:"kind"` // hello, await or bye
	Number int    `json:"number,omitempty"`

	// Of hello; its descriptors are a pidfd, the memory, and the pidfds of processes to await.
	Name    string `json:"name,omitempty"`
	PID     int    `json:"pid,omitempty"` // in the process's own namespace: for people
	LogFile string `json:"logFile,omitempty"`
	TLS     *TLS   `json:"tls,omitempty"` // only to be looked at: the records have it
}

const (
	kindHello = "hello"
	kindAwait = "await"
	kindBye   = "bye"
)

// answer is what a guard says, to each message but bye.
type answer struct {
	Number int    `json:"number,omitempty"`
	Ready  bool   `json:"ready,omitempty"`
	Error  string `json:"error,omitempty"`
}

// Start starts a guard for this process, and returns when it is ready, after 5 s at most. Call it once, and give the
// Guard to all Sessions. A guard that dies is started again, with a Warn line.
func Start(opts *Options) (*Guard, error) {
	if os.Getenv(markEnvironment) != "" {
		return nil, ErrIsGuard
	}
	g := &Guard{holds: make(map[any]*hold), awaits: make(map[*os.File]struct{}), ended: make(chan struct{})}
	if opts != nil {
		g.opts = *opts
	}
	if g.logger = g.opts.Logger; g.logger == nil {
		g.logger = slog.Default()
	}
	var err error
	if g.opts, err = g.opts.resolved(); err != nil {
		return nil, err
	}
	if g.memory, err = newMemory(); err != nil {
		return nil, err
	}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	l, err := g.connect()
	if err != nil {
		g.memory.close()
		g.cancel()
		return nil, err
	}
	go g.run(l)
	return g, nil
}

// resolved fills in which guard it is to be.
func (o Options) resolved() (Options, error) {
	if o.Socket != "" && o.Executable != "" {
		return o, errors.New("guard: Socket and Executable exclude each other")
	}
	var err error
	if o.TLS, err = o.TLS.absolute(); err != nil {
		return o, err
	}
	if o.LogFile != "" {
		if o.LogFile, err = filepath.Abs(o.LogFile); err != nil {
			return o, err
		}
	}
	if named := os.Getenv(Environment); o.Socket == "" && o.Executable == "" && named != "" {
		info, err := os.Stat(named)
		if err != nil {
			return o, fmt.Errorf("guard: %s: %w", Environment, err)
		}
		if info.Mode()&os.ModeSocket != 0 {
			o.Socket = named
		} else {
			o.Executable = named
		}
	}
	switch {
	case o.Socket != "", o.Executable == "" && initiated.Load():
		return o, nil
	case o.Executable == "":
		if o.Executable, err = exec.LookPath("zkelect"); err != nil {
			return o, fmt.Errorf("guard: no guard to start: no Socket, Executable or %s is given, Init has not been called, and %w", Environment, err)
		}
	}
	if !strings.Contains(o.Executable, "/") {
		if o.Executable, err = exec.LookPath(o.Executable); err != nil {
			return o, fmt.Errorf("guard: %w", err)
		}
	}
	if o.Executable, err = filepath.Abs(o.Executable); err != nil {
		return o, err
	}
	own, err := os.Stat(ownExecutable)
	if err != nil {
		return o, err
	}
	named, err := os.Stat(o.Executable)
	if err != nil {
		return o, fmt.Errorf("guard: %w", err)
	}
	if os.SameFile(own, named) && !initiated.Load() {
		return o, ErrNoInit // it would not become a guard, but do once more what this process does
	}
	return o, nil
}

// ownExecutable is this program even after its file has been replaced by another version.
const ownExecutable = "/proc/self/exe"

// connect makes a guard, and waits until it is ready.
func (g *Guard) connect() (l *link, err error) {
	g.linking.Lock()
	defer g.linking.Unlock()
	if g.opts.Socket != "" {
		l, err = dialGuard(g.opts.Socket)
	} else {
		l, err = startGuard(g.opts.Executable)
	}
	if err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	g.loops.Go(func() { l.follow(g.logger) })
	if err := g.hello(l); err != nil {
		l.drop()
		return nil, fmt.Errorf("guard: %w", err)
	}
	g.link = l
	return l, nil
}

func dialGuard(socket string) (*link, error) {
	conn, err := net.DialTimeout("unixpacket", socket, readyTimeout)
	if err != nil {
		return nil, err
	}
	return newLink(conn.(*net.UnixConn), nil), nil
}

func newLink(conn *net.UnixConn, process *exec.Cmd) *link {
	l := &link{conn: conn, process: process, gone: make(chan struct{}), answers: make(chan answer, 1)}
	l.inode = l.inodeNow()
	return l
}

func (l *link) inodeNow() (inode uint64) {
	raw, err := l.conn.SyscallConn()
	if err == nil {
		_ = raw.Control(func(fd uintptr) { inode, _ = inodeOf(int(fd)) })
	}
	return inode
}

// lost keeps connections whose descriptors foreign code has closed from being closed by the garbage collector: what has
// their numbers now is somebody else's.
var lost sync.Map

// close ends the connection, and the wait for what it says.
func (l *link) close() {
	if l.inodeNow() == l.inode {
		_ = l.conn.Close()
		return
	}
	lost.Store(l.conn, nil)
	_ = l.conn.SetReadDeadline(time.Now())
}

// startGuard starts a helper, "" for this process's own executable.
func startGuard(executable string) (*link, error) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "guard"), os.NewFile(uintptr(pair[1]), "guard")
	defer func() { _, _ = ours.Close(), theirs.Close() }()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, err
	}
	mark := fmt.Sprintf("%s=%d", markEnvironment, markDescriptor)
	var cmd *exec.Cmd
	if executable == "" {
		cmd = exec.Command(ownExecutable)
		cmd.Args = os.Args // for what its main does before Init: parse flags, most of all
		cmd.Env = append(os.Environ(), mark)
	} else {
		// Of the environment only what a resolver, TLS and Go's runtime read: nothing that may be secret.
		cmd = exec.Command(executable, "guard")
		cmd.Env = append(slices.DeleteFunc(os.Environ(), notForHelpers), mark)
		cmd.Dir = "/"
	}
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // signals to this process's group are not for it
	if err := cmd.Start(); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return newLink(conn.(*net.UnixConn), cmd), nil
}

func notForHelpers(variable string) bool {
	name, _, _ := strings.Cut(variable, "=")
	return !slices.Contains([]string{"GODEBUG", "GOTRACEBACK", "SSL_CERT_FILE", "SSL_CERT_DIR", "TZ"}, name)
}

// follow takes what a guard says until it is gone. Of a process the end is its own, and not that of the connection:
// foreign code may have closed this side of it.
func (l *link) follow(logger *slog.Logger) {
	defer close(l.gone)
	if l.process == nil {
		l.read(logger)
		l.close()
		return
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		l.read(logger)
	}()
	_ = l.process.Wait()
	l.close()
	<-read
}

func (l *link) read(logger *slog.Logger) {
	buffer := make([]byte, 4096)
	for {
		n, err := l.conn.Read(buffer)
		if err != nil || n == 0 {
			return
		}
		var a answer
		if err := json.Unmarshal(buffer[:n], &a); err != nil {
			logger.Warn("guard: the guard says what nobody understands", "error", err)
			continue
		}
		select {
		case l.answers <- a:
		default:
			logger.Warn("guard: the guard says what nobody has asked", "error", a.Error)
		}
	}
}

// ask sends a message with descriptors, and waits for its answer.
func (l *link) ask(m message, descriptors ...int) error {
	if l.inodeNow() != l.inode {
		return errors.New("something in this process has closed the connection to the guard")
	}
	l.asked++
	m.Number = l.asked
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	_ = l.conn.SetWriteDeadline(time.Now().Add(readyTimeout))
	if _, _, err := l.conn.WriteMsgUnix(text, syscall.UnixRights(descriptors...), nil); err != nil {
		return err
	}
	late := time.NewTimer(readyTimeout)
	defer late.Stop()
	for {
		select {
		case a := <-l.answers:
			if a.Number != m.Number {
				continue // to a question that was given up
			}
			if a.Error != "" {
				return errors.New(a.Error)
			}
			return nil
		case <-l.gone:
			return errors.New("the guard has ended before it was ready")
		case <-late.C:
			return fmt.Errorf("the guard is not ready in %v: does its main call guard.Init?", readyTimeout)
		}
	}
}

// drop ends a guard that does not work.
func (l *link) drop() {
	if l.process != nil {
		_ = l.process.Process.Kill()
	} else {
		l.close()
	}
	<-l.gone
}

// dismiss ends a guard that is no longer needed. That it loses its connection would not tell it so.
func (l *link) dismiss() {
	_ = l.conn.SetWriteDeadline(time.Now().Add(byeTimeout))
	if text, err := json.Marshal(message{Kind: kindBye}); err == nil && l.inodeNow() == l.inode {
		_, _ = l.conn.Write(text)
	}
	if l.process == nil {
		l.close()
	} else {
		late := time.AfterFunc(byeTimeout, func() { _ = l.process.Process.Kill() })
		defer late.Stop()
	}
	<-l.gone
}

// hello hands over what a guard needs: the pidfd of this process, which it has opened itself, the memory, and whom else to
// wait for. The caller holds linking.
func (g *Guard) hello(l *link) error {
	self, err := openPidfd(os.Getpid())
	if err != nil {
		return err
	}
	defer func() { _ = self.Close() }()
	fd, err := g.memoryToShare()
	if err != nil {
		return err
	}
	descriptors := []int{int(self.Fd()), fd}
	for await := range g.awaits {
		descriptors = append(descriptors, int(await.Fd()))
	}
	return l.ask(message{
		Kind: kindHello, Name: filepath.Base(os.Args[0]), PID: os.Getpid(), LogFile: g.opts.LogFile, TLS: g.opts.TLS,
	}, descriptors...)
}

// memoryToShare returns the memory's descriptor. When foreign code has closed that, everything moves to new memory, and a
// guard that has the old one finds nothing to close there.
func (g *Guard) memoryToShare() (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.memory.intact() {
		return g.memory.fd, nil
	}
	renewed, err := newMemory()
	if err != nil {
		return 0, err
	}
	copy(renewed.mapped, g.memory.mapped)
	clear(g.memory.mapped)
	_ = syscall.Munmap(g.memory.mapped)
	g.memory = renewed
	return renewed.fd, nil
}

// run starts another guard whenever one has ended.
func (g *Guard) run(l *link) {
	defer close(g.ended)
	for pause := firstPause; ; {
		began := time.Now()
		select {
		case <-l.gone:
		case <-g.ctx.Done():
			l.dismiss()
			return
		}
		g.linking.Lock()
		g.link = nil
		g.linking.Unlock()
		if time.Since(began) > steadyAfter {
			pause = firstPause
		}
		g.logger.Warn("guard: the guard has ended; until there is another, a death costs the session timeout")
		for l = nil; l == nil; pause = min(2*pause, longestPause) {
			select {
			case <-time.After(pause):
			case <-g.ctx.Done():
				return
			}
			var err error
			if l, err = g.connect(); err != nil {
				g.logger.Warn("guard: cannot start another guard; trying again", "error", err)
			}
		}
		g.logger.Info("guard: there is a guard again")
	}
}

// Hold says what the present session of owner is, or nil when it has none to be closed: never, any more, or because it was
// closed properly. An election.Session calls it, as the owner. It does not block: it writes to memory,
// and has the servers' names resolved in the background.
func (g *Guard) Hold(owner any, session *Session) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return
	}
	h := g.holds[owner]
	if session == nil {
		if h != nil {
			g.put(h, nil)
			g.free = append(g.free, h.page)
			delete(g.holds, owner)
		}
		return
	}
	if h == nil {
		p := g.takePage()
		if p == nil {
			g.logger.Warn("guard: too many sessions: this one is not guarded", "most", maxSessions)
			return
		}
		h = &hold{page: p}
		g.holds[owner] = h
	}
	h.made++
	if own := g.opts.Socket == "" && g.opts.Executable == "" && hasDialer.Load(); session.Encrypted && g.opts.TLS == nil && !own {
		g.logger.Warn("guard: this session is not guarded", "error", errClear)
		_ = h.page.put(g.memory.mapped, nil)
		return
	}
	g.put(h, newRecord(session, g.opts.TLS, literal))
	if slices.ContainsFunc(session.Servers, named) {
		own, made := *session, h.made
		g.loops.Go(func() { g.addAddresses(owner, h, made, &own) })
	}
}

func (g *Guard) takePage() *page {
	if n := len(g.free); n > 0 {
		p := g.free[n-1]
		g.free = g.free[:n-1]
		return p
	}
	if g.unused == maxSessions {
		return nil
	}
	g.unused++
	return &page{number: g.unused - 1}
}

// put writes a record, or nothing at all when it is too long: never what was before.
func (g *Guard) put(h *hold, r *record) {
	err := h.page.put(g.memory.mapped, r)
	if err == nil {
		return
	}
	g.logger.Warn("guard: this session is not guarded", "error", err)
	_ = h.page.put(g.memory.mapped, nil)
}

func named(server string) bool {
	host, _, err := net.SplitHostPort(server)
	return err == nil && len(literal(host)) == 0
}

// addAddresses resolves the servers' names, and writes what it has found.
func (g *Guard) addAddresses(owner any, h *hold, made int, session *Session) {
	r := newRecord(session, g.opts.TLS, func(host string) []string {
		if ip := literal(host); ip != nil {
			return ip
		}
		ctx, cancel := context.WithTimeout(g.ctx, resolveTimeout)
		defer cancel()
		addresses, err := net.DefaultResolver.LookupHost(ctx, host)
		if err != nil {
			g.logger.Debug("guard: no address of a server", "error", err)
		}
		return addresses
	})
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed && g.holds[owner] == h && h.made == made {
		g.put(h, r)
	}
}

// Await makes the guard wait for another process, too: when this one has died, the sessions are closed only once that has
// ended as well. It is for a child that does the leader's work, and does not end with its parent at once. Call release
// when that process has ended; it may be called more than once. A guard that knows of a process that goes on waits for it
// all the same. The session timeout limits the wait: after that there is nothing to close.
func (g *Guard) Await(pid int) (release func(), err error) {
	if g == nil {
		return func() {}, nil
	}
	pidfd, err := openPidfd(pid)
	if err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	g.linking.Lock()
	defer g.linking.Unlock()
	g.awaits[pidfd] = struct{}{}
	release = func() {
		g.linking.Lock()
		defer g.linking.Unlock()
		delete(g.awaits, pidfd)
		_ = pidfd.Close()
	}
	if g.link != nil {
		if err := g.link.ask(message{Kind: kindAwait}, int(pidfd.Fd())); err != nil {
			// It would not wait: better no guard than that one. The next one hears of it at once.
			g.logger.Warn("guard: the guard has not heard of a process to wait for; replacing it", "error", err)
			g.link.drop()
		}
	}
	return release, nil
}

// Close ends the guard. The sessions that it holds are guarded no more, so close them before.
func (g *Guard) Close() error {
	if g == nil {
		return nil
	}
	g.mu.Lock()
	if !g.closed {
		g.closed = true
		clear(g.memory.mapped)
	}
	g.mu.Unlock()
	g.cancel()
	<-g.ended
	g.loops.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.memory != nil {
		g.memory.close()
		g.memory = nil
	}
	return nil
}
