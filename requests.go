package election

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"
)

// How this package asks ZooKeeper. The client's calls take no context and can
// block for several session timeouts, so each is made on a goroutine that may
// wait: a helper of a loop, or one started for a public method.

var errUncertain = errors.New("election: the reply was lost")

// errNothingAsked is returned by a function given to Session.do that had
// nothing to ask of the server: no answer is a sign of life then.
var errNothingAsked = errors.New("election: nothing was asked")

// contextError is the error of a context that has ended: for errors.Is it is
// both ctx.Err() and the cause. Every error of this package that tells of the
// end of a caller's context is made by it.
func contextError(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if err == nil || errors.Is(cause, err) {
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}

// lastErrorKey is the context key of the lastError that requests are noted in.
type lastErrorKey struct{}

func withLastError(ctx context.Context, last *lastError) context.Context {
	return context.WithValue(ctx, lastErrorKey{}, last)
}

// do makes one call of the client, at most maxInFlight at a time. The error
// is the call's, or the context's when that ends before the call begins. A call
// without an error counts as an answer of the server. One that has asked nothing
// returns errNothingAsked, and do nil for it.
func (s *Session) do(ctx context.Context, call func(*zk.Conn) error) error {
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return contextError(ctx)
	}
	defer func() { <-s.slots }()
	if ctx.Err() != nil {
		return contextError(ctx)
	}
	on, sent := s.client.connection.Load(), s.clock.Now()
	err := named(call(s.client.conn.Load()))
	if errors.Is(err, errNothingAsked) {
		return nil
	}
	if last, ok := ctx.Value(lastErrorKey{}).(*lastError); ok {
		last.note(err)
	}
	if !s.owned && on != nil && (isDefinite(err) || errors.Is(err, zk.ErrNodeExists)) && s.client.connection.Load() == on {
		on.Heard(sent, s.clock.Now())
	}
	return err
}

// pipelines are the creations that another request is to follow on the same connection,
// without waiting for the answer, by their paths.
type pipelines struct {
	mu      sync.Mutex
	waiting map[string]chan struct{}
}

// begin returns a channel that is closed when the creation of path has been sent.
func (p *pipelines) begin(path string) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting == nil {
		p.waiting = make(map[string]chan struct{})
	}
	sent := make(chan struct{})
	p.waiting[path] = sent
	return sent
}

func (p *pipelines) end(path string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.waiting, path)
}

// sent is called just before a creation is sent.
func (p *pipelines) sent(path []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if sent, ok := p.waiting[string(path)]; ok {
		close(sent)
		delete(p.waiting, string(path))
	}
}

// createThen makes a call that creates path, which no other call does, and another call
// that is sent right behind it: ZooKeeper answers the requests of a connection in order,
// so the second sees what the first has done. The client itself orders nothing, since
// either call is made on a goroutine of its own: it is the connection that tells when
// the creation has been sent. On a caller's connection nobody does, so asked is false
// there, as it is when the creation came to nothing.
func (s *Session) createThen(ctx context.Context, path string, create, then func(*zk.Conn) error) (err error, asked bool, thenErr error) {
	if !s.owned {
		return s.do(ctx, create), false, nil
	}
	sent := s.client.pipelines.begin(path)
	defer s.client.pipelines.end(path)
	created := make(chan struct{})
	var both sync.WaitGroup
	both.Go(func() {
		select {
		case <-sent:
		case <-created:
			select {
			case <-sent:
			default:
				return // it has come to nothing
			}
		}
		asked, thenErr = true, s.do(ctx, then)
	})
	err = s.do(ctx, create)
	close(created)
	both.Wait()
	return err, asked, thenErr
}

// barrier waits until a heartbeat is answered on the present connection, and
// returns its session. What was sent on a former connection has then been
// applied, or never will be, and reads see it: a session that resumes on
// another server may at first read from before its own last writes.
func (s *Session) barrier(ctx context.Context) (*incarnation, error) {
	for wait := s.newBackoff(); ; wait.pause(ctx) {
		inc, err := s.await(ctx, true)
		if err != nil {
			return nil, err
		}
		on := s.client.connection.Load()
		err = s.do(ctx, func(conn *zk.Conn) error {
			err := heartbeat(conn)
			if conn.SessionID() != inc.id || s.client.connection.Load() != on {
				return errUncertain
			}
			return err
		})
		if on != nil && isDefinite(err) {
			return inc, nil
		}
		if isPermanent(err) {
			return nil, err
		}
	}
}

// retry repeats a call that may safely be made any number of times, until
// it is answered, the context ends, or it is refused for good. It is for what
// the Session's end has to wait for, too.
func (s *Session) retry(ctx context.Context, call func(*zk.Conn) error) error {
	return s.repeat(ctx, true, call)
}

// lookUp is retry for who only wants to know something: it does not wait for
// a Session that cannot be used.
func (s *Session) lookUp(ctx context.Context, call func(*zk.Conn) error) error {
	return s.repeat(ctx, false, call)
}

func (s *Session) repeat(ctx context.Context, cleaning bool, call func(*zk.Conn) error) error {
	for wait := s.newBackoff(); ; wait.pause(ctx) {
		if _, err := s.await(ctx, cleaning); err != nil {
			return err
		}
		err := s.do(ctx, call)
		if isSettled(err) {
			return err
		}
		if ctx.Err() != nil {
			return contextError(ctx)
		}
	}
}

// callAsync runs a call for a public method: it returns when the context ends,
// and leaves the call behind then.
func callAsync[T any](ctx context.Context, s *Session, call func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	var none T
	if ctx.Err() != nil {
		return none, contextError(ctx)
	}
	done := make(chan result, 1)
	if !s.goHelper(func() {
		value, err := call()
		done <- result{value, err}
	}) {
		return none, ErrClosed
	}
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		return none, contextError(ctx)
	}
}

// node is what one read tells of a znode.
type node struct {
	data []byte
	stat zk.Stat
}

// leader returns what the node tells of a leader, with a copy of its data.
func (n *node) leader() Leader {
	return Leader{
		Data:      slices.Clone(n.data),
		SessionID: n.stat.EphemeralOwner,
		Zxid:      n.stat.Czxid,
		Since:     time.UnixMilli(n.stat.Ctime),
	}
}

// readNode reads a znode; nil without an error means that there is none.
func readNode(conn *zk.Conn, path string) (*node, error) {
	data, stat, err := conn.Get(path)
	if errors.Is(err, zk.ErrNoNode) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &node{data, *stat}, nil
}

// backoff spaces repeated tries: the first few quickly, later ones up to an
// eighth of the session timeout apart, with jitter. It is for the loops of errands. A
// candidate's loop holds its steps back (holdBack), an ackWatcher its reads (readFailed).
type backoff struct{ next, most time.Duration }

func (s *Session) newBackoff() *backoff {
	return &backoff{5 * time.Millisecond, s.Timeout() / 8}
}

func (b *backoff) pause(ctx context.Context) {
	timer := time.NewTimer(jitter(b.next))
	defer timer.Stop()
	b.next = min(2*b.next, max(b.most, b.next))
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
