package guard

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/go-zookeeper/zk"
)

// How a session of a dead process is closed: a handshake with its id and password, its credentials, and closeSession, all
// in one write, to one server after the other until one of them has answered.

const (
	// retryAfter is how long a server may be silent before the next one is asked beside it, and how long a round of
	// tries takes at least.
	retryAfter = 200 * time.Millisecond
	// tryTimeout ends a try that nobody answers, so that the same server can be asked again.
	tryTimeout = 2 * time.Second

	// longestTimeout is the longest session timeout that is believed: a guard that serves many is not to try forever what
	// one of them asks for.
	longestTimeout = time.Hour

	opAuth         = 100
	opCloseSession = -11
	xidAuth        = -4
	xidClose       = 1
	codeAuthFailed = -115
	codeNeedsAuth  = -124 // with enforce.auth.enabled, of a session without credentials

	maxFrame = 1 << 20
)

var (
	errSessionOver  = errors.New("the server knows no such session")
	errSilence      = errors.New("no answer")
	errTooLate      = errors.New("the session is over by itself")
	errNothingToAsk = errors.New("no server to ask")
	// errClear: password and credentials would go to a TLS port in the clear.
	errClear = errors.New("the session's connection is TLS, and neither Options.TLS nor a dialer of Init says how to connect so")
)

// refusal is an answer that asking again cannot change.
type refusal struct{ code int32 }

func (r refusal) Error() string {
	switch r.code {
	case codeNeedsAuth:
		return "the server wants other credentials (-124)"
	case codeAuthFailed:
		return "the server refuses the credentials (-115)"
	}
	return fmt.Sprintf("the server refuses (%d)", r.code)
}

// target is one address of one server, and how to get there.
type target struct {
	name string // HOST:PORT, as the client had it
	dial func(timeout time.Duration) (net.Conn, error)
}

// targets are all addresses of a record's servers, in the order in which they are tried: of each server one, then the
// others. own is the service's own dialer, which is given the names.
func (r *record) targets(own zk.Dialer) ([]target, error) {
	if r.Encrypted && r.TLS == nil && own == nil {
		return nil, errClear
	}
	secure, err := r.TLS.dialer()
	if err != nil {
		return nil, err
	}
	var all []target
	most := 0
	for _, s := range r.Servers {
		most = max(most, len(s.Addresses))
		if own != nil {
			all = append(all, target{s.Name, func(timeout time.Duration) (net.Conn, error) { return own("tcp", s.Name, timeout) }})
		}
	}
	if own != nil {
		return all, nil
	}
	for i := range most {
		for _, s := range r.Servers {
			if i < len(s.Addresses) {
				address := s.Addresses[i]
				all = append(all, target{address, func(timeout time.Duration) (net.Conn, error) { return secure(s.Name, address, timeout) }})
			}
		}
	}
	return all, nil
}

// within is for what reads files: one that hangs is not waited for longer than the session lasts.
func within(ctx context.Context, read func() ([]target, error)) ([]target, error) {
	type result struct {
		targets []target
		err     error
	}
	done := make(chan result, 1)
	go func() {
		targets, err := read()
		done <- result{targets, err}
	}()
	select {
	case r := <-done:
		return r.targets, r.err
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: the TLS files cannot be read", context.Cause(ctx))
	}
}

// lifetime is how long the session lasts at most once nothing is heard of its process: the timeout, rounded up to a
// tick, and one more for what a follower has heard and not told.
func (r *record) lifetime() time.Duration {
	timeout := bounded(r.Timeout)
	return timeout + 2*cmp.Or(bounded(r.Tick), timeout/2)
}

// bounded takes a time as another process has given it.
func bounded(d time.Duration) time.Duration { return min(max(0, d), longestTimeout) }

// try is the end of one try, by the number of its target.
type try struct {
	target int
	err    error
}

// closing is the closing of one session. It belongs to the goroutine that calls run.
type closing struct {
	request []byte
	targets []target
	asked   []bool // a try is under way, by target
	results chan try

	// unanswered counts the tries that may have reached a server and were not answered. Then a server that knows no
	// such session proves nothing: it may be closing it, and an ensemble that loses its leader meanwhile may not.
	unanswered int
}

// closeSession closes a session. It returns nil when a server has said that it is closed, or that it was closed before,
// and an error when one refuses for good, or when the session must be over by itself.
func closeSession(ctx context.Context, r *record, own zk.Dialer) error {
	ctx, cancel := context.WithTimeoutCause(ctx, r.lifetime(), errTooLate)
	defer cancel()
	targets, err := within(ctx, func() ([]target, error) { return r.targets(own) })
	if err != nil {
		return err
	}
	if len(targets) == 0 {
		return errNothingToAsk
	}
	c := &closing{
		request: closeRequest(r),
		targets: targets,
		asked:   make([]bool, len(targets)),
		results: make(chan try, len(targets)),
	}
	return c.run(ctx)
}

// run asks one target after the other: the next one as soon as one has failed, or has been silent for retryAfter. A round
// over all of them takes at least retryAfter.
func (c *closing) run(ctx context.Context) error {
	ticker := time.NewTicker(retryAfter)
	defer ticker.Stop()
	next, last := 0, error(nil)
	for {
		if next < len(c.targets) {
			if !c.ask(ctx, next) {
				next++
				continue
			}
			next++
		}
		select {
		case t := <-c.results:
			c.asked[t.target] = false
			if done, err := c.judge(t.err); done {
				return err
			}
			last = fmt.Errorf("%s: %w", c.targets[t.target].name, t.err)
		case <-ticker.C:
			if next == len(c.targets) {
				next = 0
			}
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), last)
		}
	}
}

// judge reports whether the answer ends the closing, and how.
func (c *closing) judge(err error) (done bool, result error) {
	var refused refusal
	switch {
	case err == nil:
		return true, nil
	case errors.As(err, &refused):
		return true, err
	case errors.Is(err, errSessionOver):
		c.unanswered-- // this one was
		return c.unanswered == 0, nil
	case errors.Is(err, errSilence):
	default:
		c.unanswered-- // it has reached nobody
	}
	return false, nil
}

// ask begins a try, unless one is under way there.
func (c *closing) ask(ctx context.Context, i int) bool {
	if c.asked[i] {
		return false
	}
	c.asked[i] = true
	c.unanswered++
	go func() { c.results <- try{i, c.targets[i].try(ctx, c.request)} }()
	return true
}

// try asks one server. The error is errSilence when the request may have reached it.
func (t target) try(ctx context.Context, request []byte) error {
	conn, err := t.dial(tryTimeout)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	until := time.Now().Add(tryTimeout)
	if limit, ok := ctx.Deadline(); ok && limit.Before(until) {
		until = limit
	}
	if err := conn.SetDeadline(until); err != nil {
		return err
	}
	if late(ctx) {
		return errTooLate
	}
	if _, err := conn.Write(request); err != nil {
		return fmt.Errorf("%w: %w", errSilence, err)
	}
	return readAnswers(conn)
}

// late compares the deadline with the wall clock, too: the monotonic one stands still while the machine is suspended, and
// an id that is old enough may be another session's.
func late(ctx context.Context) bool {
	limit, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && time.Now().Round(0).After(limit.Round(0))
}

// readAnswers returns nil when closeSession was answered without an error.
func readAnswers(conn io.Reader) error {
	hello, err := readFrame(conn)
	if err != nil {
		return fmt.Errorf("%w: %w", errSilence, err)
	}
	if len(hello) < 16 {
		return fmt.Errorf("%w: a handshake of %d bytes", errSilence, len(hello))
	}
	if timeout := int32(binary.BigEndian.Uint32(hello[4:])); timeout <= 0 {
		return errSessionOver
	}
	for {
		reply, err := readFrame(conn)
		if err != nil {
			return fmt.Errorf("%w: %w", errSilence, err)
		}
		if len(reply) < 16 {
			return fmt.Errorf("%w: an answer of %d bytes", errSilence, len(reply))
		}
		xid, code := int32(binary.BigEndian.Uint32(reply)), int32(binary.BigEndian.Uint32(reply[12:]))
		switch {
		case code == codeNeedsAuth, xid == xidAuth && code == codeAuthFailed:
			return refusal{code}
		case xid == xidClose && code == 0:
			return nil
		case xid == xidClose:
			return fmt.Errorf("%w to closeSession but error %d", errSilence, code)
		}
	}
}

func readFrame(conn io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return nil, err
	}
	length := int32(binary.BigEndian.Uint32(head[:]))
	if length < 0 || length > maxFrame {
		return nil, fmt.Errorf("a frame of %d bytes", length)
	}
	frame := make([]byte, length)
	_, err := io.ReadFull(conn, frame)
	return frame, err
}

// closeRequest is all that a server is sent.
func closeRequest(r *record) []byte {
	hello := appendInt32(nil, 0)                    // protocol version
	hello = binary.BigEndian.AppendUint64(hello, 0) // last zxid seen: any server will do
	hello = appendInt32(hello, 1)                   // timeout in ms: what is asked for moves the expiry, so the least
	hello = binary.BigEndian.AppendUint64(hello, uint64(r.ID))
	hello = appendBuffer(hello, r.Password)
	hello = append(hello, 0) // not read-only
	request := appendBuffer(nil, hello)
	for _, a := range r.Auth {
		auth := appendInt32(nil, xidAuth)
		auth = appendInt32(auth, opAuth)
		auth = appendInt32(auth, 0) // type
		auth = appendBuffer(appendBuffer(auth, []byte(a.Scheme)), a.Credentials)
		request = appendBuffer(request, auth)
	}
	end := appendInt32(nil, xidClose)
	end = appendInt32(end, opCloseSession)
	return appendBuffer(request, end)
}

func appendInt32(to []byte, v int32) []byte { return binary.BigEndian.AppendUint32(to, uint32(v)) }

func appendBuffer(to, p []byte) []byte {
	return append(binary.BigEndian.AppendUint32(to, uint32(len(p))), p...)
}

// newRecord is a Session as it is written: with the servers' present addresses, the connected one first. resolve returns
// the addresses of a name, and may return none.
func newRecord(s *Session, tls *TLS, resolve func(host string) []string) *record {
	r := &record{ID: s.ID, Password: s.Password, Timeout: s.Timeout, Tick: s.Tick, Auth: s.Auth, TLS: tls, Encrypted: s.Encrypted}
	names := slices.Clone(s.Servers)
	// It is none of them where the client has resolved their names itself, or finds its servers elsewhere.
	if i := slices.Index(names, s.Connected); i >= 0 {
		names = slices.Delete(names, i, i+1)
	}
	if s.Connected != "" {
		names = slices.Insert(names, 0, s.Connected)
	}
	for _, name := range names {
		entry := server{Name: name}
		if name == s.Connected && s.Remote != "" {
			entry.Addresses = append(entry.Addresses, s.Remote)
		}
		host, port, err := net.SplitHostPort(name)
		if err == nil {
			for _, ip := range resolve(host) {
				if address := net.JoinHostPort(ip, port); !slices.Contains(entry.Addresses, address) {
					entry.Addresses = append(entry.Addresses, address)
				}
			}
		}
		r.Servers = append(r.Servers, entry)
	}
	return r
}

// literal resolves what needs no resolving.
func literal(host string) []string {
	if ip, _, _ := strings.Cut(host, "%"); net.ParseIP(ip) != nil {
		return []string{host}
	}
	return nil
}

// sessionName prints a session id as ZooKeeper does.
func sessionName(id int64) string { return fmt.Sprintf("0x%x", uint64(id)) }
