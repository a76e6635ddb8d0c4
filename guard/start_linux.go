package guard

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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
	socketPause    = 50 * time.Millisecond // before another look for a socket that is not there
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
	awaits  map[*os.File]await
	awaited int   // counts them
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

// await is a process that the guard waits for, or the process group that it leads.
type await struct {
	Number int  `json:"number"`
	Group  bool `json:"group,omitempty"` // all of the group, and it is killed first
}

// link is one guard process, or one connection to a guard on a socket.
type link struct {
	conn    *net.UnixConn
	is      identity      // what conn is, while nobody else has closed it
	process *exec.Cmd     // nil for a guard on a socket
	gone    chan struct{} // it has ended
	ended   atomic.Bool   // the same, before this side of the connection is closed for it
	answers chan answer   // to what was asked
	closing sync.Once

	asked int // counts messages; asking is for whoever holds Guard.linking
}

// message is what a process tells its guard. The descriptors go with it.
type message struct {
	Kind   string `json:"kind"` // hello, await, release or bye
	Number int    `json:"number,omitempty"`

	// Of await, whose descriptor is a pidfd, and of release.
	Await *await `json:"await,omitempty"`

	// Of hello; its descriptors are a pidfd, the memory, and the pidfds of processes to await.
	Name    string  `json:"name,omitempty"`
	PID     int     `json:"pid,omitempty"` // in the process's own namespace: for people
	LogFile string  `json:"logFile,omitempty"`
	TLS     *TLS    `json:"tls,omitempty"`    // only to be looked at: the records have it
	Awaits  []await `json:"awaits,omitempty"` // whose pidfds they are
}

const (
	kindHello   = "hello"
	kindAwait   = "await"
	kindRelease = "release"
	kindBye     = "bye"
)

// answer is what a guard says, to each message but release and bye.
type answer struct {
	Number int    `json:"number,omitempty"`
	Ready  bool   `json:"ready,omitempty"`
	Error  string `json:"error,omitempty"`
	Unseen bool   `json:"unseen,omitempty"` // the error is errUnseen
}

// errUnseen is that a guard in another PID namespace cannot see whether a process group has ended.
var errUnseen = errors.New("guard: it is in another PID namespace")

// Start starts a guard for this process, and returns when it is ready, after 5 s at most; Options.Wait is how long it waits
// for a socket that is not there yet. Call it once, and give the Guard to all Sessions. A guard that dies is started
// again, with a Warn line.
func Start(opts *Options) (*Guard, error) {
	if os.Getenv(markEnvironment) != "" {
		return nil, ErrIsGuard
	}
	g := &Guard{holds: make(map[any]*hold), awaits: make(map[*os.File]await), ended: make(chan struct{})}
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
	l, err := g.connectFirst()
	if err != nil {
		g.memory.close()
		g.cancel()
		if errors.Is(err, fs.ErrNotExist) && g.opts.Socket == os.Getenv(Environment) {
			err = fmt.Errorf("%w: %s names neither an executable nor the socket of a guard", err, Environment)
		}
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
		switch info, err := os.Stat(named); {
		case !strings.Contains(named, "/"):
			o.Executable = named
		case errors.Is(err, fs.ErrNotExist):
			o.Socket = named // which is waited for: that guard may be starting
		case err != nil:
			return o, fmt.Errorf("guard: %s: %w", Environment, err)
		case info.Mode()&os.ModeSocket != 0:
			o.Socket = named
		default:
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

// connectFirst is connect, and waits for a socket that nobody listens on yet: a guard that is started at the same moment.
func (g *Guard) connectFirst() (*link, error) {
	deadline := time.Now().Add(cmp.Or(g.opts.Wait, readyTimeout))
	for {
		l, err := g.connect()
		absent := errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED)
		if !absent || g.opts.Socket == "" || !time.Now().Before(deadline) {
			return l, err
		}
		time.Sleep(socketPause)
	}
}

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
	g.loops.Go(func() { l.follow(g.logger, g.loops.Go) })
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
	l.is = l.isNow()
	return l
}

func (l *link) isNow() (is identity) {
	raw, err := l.conn.SyscallConn()
	if err == nil {
		_ = raw.Control(func(fd uintptr) { is, _ = identityOf(int(fd)) })
	}
	return is
}

// lost keeps connections and pidfds whose descriptors foreign code has closed from being closed by the garbage collector: what
// has their numbers now is somebody else's.
var lost sync.Map

// close ends the connection, and the wait for what it says. It may be called more than once.
func (l *link) close() {
	l.closing.Do(func() {
		if l.isNow() == l.is {
			_ = l.conn.Close()
			return
		}
		lost.Store(l.conn, nil)
		_ = l.conn.SetReadDeadline(time.Now())
	})
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
func (l *link) follow(logger *slog.Logger, later func(func())) {
	defer close(l.gone)
	if l.process == nil {
		l.read(logger, later)
		l.ended.Store(true)
		l.close()
		return
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		l.read(logger, later)
	}()
	_ = l.process.Wait()
	l.ended.Store(true)
	l.close()
	<-read
}

// read does not log itself: the logger's handler is the service's own, and may be about to tell the guard something, whose answer
// has to be read.
func (l *link) read(logger *slog.Logger, later func(func())) {
	buffer := make([]byte, 4096)
	for {
		n, err := l.conn.Read(buffer)
		if err != nil || n == 0 {
			return
		}
		var a answer
		if err := json.Unmarshal(buffer[:n], &a); err != nil {
			later(func() { logger.Warn("guard: the guard says what nobody understands", "error", err) })
			continue
		}
		select {
		case l.answers <- a:
		default:
			later(func() { logger.Warn("guard: the guard says what nobody has asked", "error", a.Error) })
		}
	}
}

var errNotReady = errors.New("the guard has ended before it was ready")

// ask sends a message with descriptors, and waits for its answer.
func (l *link) ask(m message, descriptors ...int) error {
	if l.isNow() != l.is {
		if l.ended.Load() {
			return errNotReady
		}
		return errors.New("something in this process has closed the connection to the guard")
	}
	l.asked++
	m.Number = l.asked
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	_ = l.conn.SetWriteDeadline(time.Now().Add(readyTimeout))
	_, _, err = l.conn.WriteMsgUnix(text, syscall.UnixRights(descriptors...), nil)
	switch {
	case errors.Is(err, net.ErrClosed), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET):
		return errNotReady // whoever reads has seen its end first, or is about to
	case err != nil:
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
			switch {
			case a.Unseen:
				return errUnseen
			case a.Error != "":
				return errors.New(a.Error)
			}
			return nil
		case <-l.gone:
			return errNotReady
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

// tell sends a message that has no answer.
func (l *link) tell(m message) {
	_ = l.conn.SetWriteDeadline(time.Now().Add(byeTimeout))
	if text, err := json.Marshal(m); err == nil && l.isNow() == l.is {
		_, _ = l.conn.Write(text)
	}
}

// dismiss ends a guard that is no longer needed. That it loses its connection would not tell it so.
func (l *link) dismiss() {
	l.tell(message{Kind: kindBye})
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
	var awaits []await
	for pidfd, a := range g.awaits {
		descriptors, awaits = append(descriptors, int(pidfd.Fd())), append(awaits, a)
	}
	return l.ask(message{
		Kind: kindHello, Name: filepath.Base(os.Args[0]), PID: os.Getpid(), LogFile: g.opts.LogFile, TLS: g.opts.TLS, Awaits: awaits,
	}, descriptors...)
}

// memoryToShare returns the memory's descriptor, of new memory when foreign code has closed that.
func (g *Guard) memoryToShare() (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.memory.intact() {
		if err := g.renewMemory(); err != nil {
			return 0, err
		}
	}
	return g.memory.fd, nil
}

// renewMemory moves everything to new memory: a guard that has the old one finds nothing to close there. The caller holds mu.
func (g *Guard) renewMemory() error {
	renewed, err := newMemory()
	if err != nil {
		return err
	}
	copy(renewed.mapped, g.memory.mapped)
	clear(g.memory.mapped)
	g.memory.close()
	g.memory = renewed
	return nil
}

// forsake leaves a guard to which there is no connection with nothing to close. One on a socket takes the end of its connection for
// nothing, and goes on guarding.
func (g *Guard) forsake() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opts.Socket == "" || g.closed {
		return
	}
	if err := g.renewMemory(); err != nil {
		clear(g.memory.mapped) // until their servers change, the sessions are not guarded
	}
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
	if failure := g.hold(owner, session); failure != nil {
		g.logger.Warn("guard: this session is not guarded", "error", failure)
	}
}

// hold returns why a session is not guarded. It does not log: mu is not to be held by code that is not the guard's own.
func (g *Guard) hold(owner any, session *Session) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil
	}
	h := g.holds[owner]
	if session == nil {
		if h != nil {
			_ = g.put(h, nil)
			g.free = append(g.free, h.page)
			delete(g.holds, owner)
		}
		return nil
	}
	if h == nil {
		p := g.takePage()
		if p == nil {
			return errTooMany
		}
		h = &hold{page: p}
		g.holds[owner] = h
	}
	h.made++
	if own := g.opts.Socket == "" && g.opts.Executable == "" && hasDialer.Load(); session.Encrypted && g.opts.TLS == nil && !own {
		_ = h.page.put(g.memory.mapped, nil)
		return errClear
	}
	if slices.ContainsFunc(session.Servers, named) || named(session.Connected) {
		own, made := *session, h.made
		g.loops.Go(func() { g.addAddresses(owner, h, made, &own) })
	}
	return g.put(h, newRecord(session, g.opts.TLS, literal))
}

var errTooMany = fmt.Errorf("there are more than %d in this process", maxSessions)

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
func (g *Guard) put(h *hold, r *record) error {
	err := h.page.put(g.memory.mapped, r)
	if err != nil {
		_ = h.page.put(g.memory.mapped, nil)
	}
	return err
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
	if failure := g.replace(owner, h, made, r); failure != nil {
		g.logger.Warn("guard: this session is not guarded", "error", failure)
	}
}

func (g *Guard) replace(owner any, h *hold, made int, r *record) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || g.holds[owner] != h || h.made != made {
		return nil
	}
	return g.put(h, r)
}

// Await makes the guard wait for another process, too: when this one has died, the sessions are closed only once that has
// ended as well. It is for a child that does the leader's work, and does not end with its parent at once. After release
// it is not waited for any more; release may be called more than once. The session timeout limits the wait: after that
// there is nothing to close.
func (g *Guard) Await(pid int) (release func(), err error) {
	if g == nil {
		return func() {}, nil
	}
	return g.await(pid, false)
}

// AwaitGroup is Await for all of the process group that a child leads (SysProcAttr.Setpgid): the child, and what that has
// started. When this process has died the guard kills the group first. A guard on a socket does not, since it may have
// other rights than this process; it only waits. The error is ErrUnsupported before Linux 6.9, and from a guard on a socket
// that is in another PID namespace, as in a container of its own: there the group cannot be seen, and is not waited for.
func (g *Guard) AwaitGroup(pid int) (release func(), err error) {
	if g == nil {
		return func() {}, nil
	}
	return g.await(pid, true)
}

func (g *Guard) await(pid int, group bool) (release func(), err error) {
	pidfd, err := openPidfd(pid)
	if err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	if group {
		if err := signalGroup(int(pidfd.Fd()), 0); err != nil {
			_ = pidfd.Close()
			if errors.Is(err, syscall.EINVAL) {
				err = ErrUnsupported
			}
			return nil, fmt.Errorf("guard: process group %d: %w", pid, err)
		}
	}
	number, failure := g.addAwait(pidfd, group)
	if errors.Is(failure, errUnseen) {
		_ = pidfd.Close()
		return nil, fmt.Errorf("guard: process group %d: %w", pid, ErrUnsupported)
	}
	if errors.Is(failure, errManyAwaited) {
		_ = pidfd.Close()
		return nil, fmt.Errorf("guard: process %d: %w", pid, failure)
	}
	if failure != nil {
		g.logger.Warn("guard: the guard has not heard of a process to wait for; replacing it", "error", failure)
	}
	return sync.OnceFunc(func() { g.endAwait(pidfd, number) }), nil
}

// maxAwaits is how many processes are waited for at a time: a guard that replaces another one hears of all in one
// message, in which the kernel carries 253 descriptors.
const maxAwaits = 200

var errManyAwaited = fmt.Errorf("%d processes are waited for already", maxAwaits)

// addAwait tells the guard that there is of a process to wait for. With a failure there is none any more.
func (g *Guard) addAwait(pidfd *os.File, group bool) (a await, failure error) {
	g.linking.Lock()
	defer g.linking.Unlock()
	if len(g.awaits) >= maxAwaits {
		return a, errManyAwaited
	}
	g.awaited++
	a = await{g.awaited, group}
	g.awaits[pidfd] = a
	if g.link != nil {
		failure = g.link.ask(message{Kind: kindAwait, Await: &a}, int(pidfd.Fd()))
		if errors.Is(failure, errUnseen) {
			delete(g.awaits, pidfd)
		}
		if failure == nil || errors.Is(failure, errUnseen) {
			return a, failure
		}
		g.link.drop()
	}
	// It would not wait: better no guard than that one. The next one hears of it at once.
	g.forsake()
	return a, failure
}

func (g *Guard) endAwait(pidfd *os.File, a await) {
	g.linking.Lock()
	defer g.linking.Unlock()
	delete(g.awaits, pidfd)
	if isPidfd(int(pidfd.Fd())) {
		_ = pidfd.Close()
	} else {
		lost.Store(pidfd, nil)
	}
	if g.link != nil {
		g.link.tell(message{Kind: kindRelease, Await: &a})
	}
}

// Close ends the guard. The sessions that it holds are guarded no more, so close them before. Call it before this process
// execs another program, or itself anew: that is still the same process to its guard, which would stay until it ends,
// beside the one that the new program starts.
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
