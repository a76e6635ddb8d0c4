package election

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zkelection/election/internal/lease"
)

// Who uses a Session, and what they all see of it.

// member is who uses a Session: a candidate, an observer or an ackWatcher.
type member interface {
	// wake tells the member that the view or the lease has changed. It never blocks.
	wake()
	Close() error
}

// sessionView is what members see of a Session, never changed once published.
type sessionView struct {
	// inc is the ZooKeeper session that is ready for use, or nil.
	inc *incarnation
	// connected is whether it has a connection now.
	connected bool
	// reconnects counts the connections that there have been: after each everything
	// is looked at again, since a watch may have got lost.
	reconnects uint64
	// err is why the Session cannot be used: a server refuses the credentials,
	// or the owner of the connection has closed it.
	err error
}

// incarnation is one ZooKeeper session: a Session has one after another.
type incarnation struct {
	id int64
	// ctx ends, with the cause ErrSessionLost or ErrClosed, when this is known
	// to be the Session's no more.
	ctx    context.Context
	cancel context.CancelCauseFunc
	// lease is replaced by the Session's loop when one has lapsed and another
	// begins; nil before the first.
	lease atomic.Pointer[lease.Lease]
}

// roster is who uses a Session, and what the loop has published for them. mu guards
// all of it, but anybody reads the view without: each candidate does at each turn of its loop, and
// when a session ends they all turn at once.
type roster struct {
	mu           sync.Mutex
	view         atomic.Pointer[sessionView] // nil before the first
	changed      chan struct{}               // closed, and replaced, when view changes
	closing      bool                        // nobody joins any more
	members      map[member]struct{}
	observers    int                 // so many of the members
	leaseKeepers map[member]struct{} // members that need the lease
	ackWatchers  map[string]*ackWatcher
	hooks        []*connectedHook
}

func newRoster() roster {
	return roster{
		changed:      make(chan struct{}),
		members:      make(map[member]struct{}),
		leaseKeepers: make(map[member]struct{}),
		ackWatchers:  make(map[string]*ackWatcher),
	}
}

// publish replaces the view, and wakes those who wait for a connection; the caller
// holds mu.
func (r *roster) publish(v sessionView) {
	r.view.Store(&v)
	close(r.changed)
	r.changed = make(chan struct{})
}

// watch returns the view, and what is closed when there is another one.
func (r *roster) watch() (view sessionView, changed <-chan struct{}, closing bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.current(), r.changed, r.closing
}

// join registers a member, unless the Session is closed.
func (s *Session) join(m member) error {
	if s == nil {
		return errNoSession
	}
	s.roster.mu.Lock()
	defer s.roster.mu.Unlock()
	if s.roster.closing {
		return ErrClosed
	}
	s.roster.members[m] = struct{}{}
	if _, observes := m.(*Observer); observes {
		s.roster.observers++
	}
	return nil
}

func (s *Session) leave(m member) {
	s.roster.mu.Lock()
	defer s.roster.mu.Unlock()
	if _, observes := m.(*Observer); observes {
		s.roster.observers-- // it leaves once
	}
	delete(s.roster.members, m)
	delete(s.roster.leaseKeepers, m)
}

// keepLease notes that a member needs the lease, or no longer does. While one does, heartbeats
// keep it; the member is woken when a new one begins. It reports whether that
// holds from this call on, and did not before.
func (s *Session) keepLease(m member, need bool) (begins bool) {
	s.roster.mu.Lock()
	defer s.roster.mu.Unlock()
	if _, has := s.roster.leaseKeepers[m]; has == need {
		return false
	}
	if need {
		s.roster.leaseKeepers[m] = struct{}{}
		s.inbox.push(nil)
	} else {
		delete(s.roster.leaseKeepers, m)
	}
	return need
}

func (s *Session) needed() bool {
	s.roster.mu.Lock()
	defer s.roster.mu.Unlock()
	return len(s.roster.leaseKeepers) > 0
}

// currentView returns what the loop has published last. Members are woken after that, and one that joins
// meanwhile is woken as well or sees it: so each gets to see every change, or a later one.
func (s *Session) currentView() sessionView { return s.roster.current() }

func (r *roster) current() sessionView {
	if v := r.view.Load(); v != nil {
		return *v
	}
	return sessionView{}
}

// recheckInterval returns how long a member waits until it looks again for changes
// that no watch has told of: about T, less or more by a quarter, so that many
// do not ask at once; longer when there are so many candidates and watched
// acknowledgements that the reads would weigh on the servers.
func (s *Session) recheckInterval() time.Duration {
	s.roster.mu.Lock()
	many := (len(s.roster.members) - s.roster.observers) / 100 // observers leave looking to their ackWatcher
	s.roster.mu.Unlock()
	return jitter(s.Timeout() * time.Duration(1+many))
}

// await returns the session that is ready and connected, and waits for it. It
// does not wait when the Session cannot be used. While the Session is closing,
// and while a server refuses the credentials of a session that still lives, it
// waits for those who clean up, and not for the others.
func (s *Session) await(ctx context.Context, cleaning bool) (*incarnation, error) {
	for {
		view, changed, closing := s.roster.watch()
		switch {
		case !cleaning && s.ended(): // the context's end comes second
			return nil, ErrClosed
		case ctx.Err() != nil:
			return nil, contextError(ctx)
		case view.err != nil && !cleaning:
			return nil, view.err
		case view.inc != nil && view.connected:
			return view.inc, nil
		case closing && !cleaning:
			return nil, ErrClosed
		case view.err != nil && view.inc == nil:
			return nil, view.err
		}
		select {
		case <-changed:
		case <-s.done:
			return nil, ErrClosed
		case <-ctx.Done():
			return nil, contextError(ctx)
		}
	}
}

// ended reports whether the Session's loop has ended: it is closed.
func (s *Session) ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// connectedHook is one function given to OnConnected.
type connectedHook struct {
	fn      func()
	queue   callbackQueue
	pending atomic.Bool
	ended   atomic.Bool // it stays registered while fn runs, for Close
}

// OnConnected calls fn now, if there is a session, and again for each new
// session later; not for a mere reconnection within one. fn runs on a
// goroutine of its own, never twice at a time, and may block: it is the place
// to call Vote. However many sessions begin while fn runs, it is called once
// more. cancel ends this.
func (s *Session) OnConnected(fn func()) (cancel func()) {
	h := &connectedHook{fn: fn, queue: callbackQueue{logger: s.logger}}
	s.roster.mu.Lock()
	defer s.roster.mu.Unlock()
	if !s.roster.closing {
		s.roster.hooks = append(slices.DeleteFunc(s.roster.hooks, (*connectedHook).over), h)
		if s.roster.current().inc != nil {
			h.fire(s.logger)
		}
	}
	return func() {
		h.ended.Store(true)
		s.roster.mu.Lock()
		defer s.roster.mu.Unlock()
		s.roster.hooks = slices.DeleteFunc(s.roster.hooks, (*connectedHook).over)
	}
}

// over reports whether a hook is called no more, and does not run.
func (h *connectedHook) over() bool { return h.ended.Load() && h.queue.rests() }

func (h *connectedHook) fire(logger *slog.Logger) {
	if h.ended.Load() || h.pending.Swap(true) {
		return
	}
	h.queue.push(func() {
		h.pending.Store(false)
		if h.ended.Load() {
			return
		}
		_ = protect(logger, "OnConnected", func() error { h.fn(); return nil })
	})
}
