package election

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// ObserverOptions are the options of NewObserver. The zero value, and nil,
// mean the defaults.
type ObserverOptions struct {
	// Root is the node below which the election lives; DefaultRoot when empty.
	Root string
	// Logger gets what the observer sees. The default is the Session's.
	Logger *slog.Logger
}

// Observer is told of each new leader and of each leader's death, without
// standing in the election. Leaders that come and go between two reads may be
// skipped; the present one never is. Its methods may be called from any
// goroutine, and from inside its callbacks.
//
// Callbacks run one at a time, in order, on a goroutine of the observer's own.
// OnNewLeader and OnLeaderDeath strictly alternate.
type Observer struct {
	*Base

	onNewLeader   hooks[func(Leader)]
	onLeaderDeath hooks[func(Leader)]
	onLeaderData  hooks[func(Leader)]

	mu      sync.Mutex
	sub     *subscription // nil before Observe
	known   chan struct{} // closed once the first state is known
	refusal error         // why it cannot be, as of the last try
	refused chan struct{} // closed, and replaced, with each refusal

	// Owned by the ackWatcher's goroutine, which calls see.
	current *Leader
	began   bool

	alive atomic.Int32 // 0: not known, 1: alive, -1: not
}

// NewObserver makes an observer of the election called name. It does nothing
// on ZooKeeper until Observe. A nil opts means the defaults. The errors are
// ErrInvalidName, ErrInvalidPath (of the root) and, on a closed Session,
// ErrClosed.
func NewObserver(s *Session, name string, opts *ObserverOptions) (*Observer, error) {
	if opts == nil {
		opts = &ObserverOptions{}
	}
	base, err := newBase(s, name, opts.Root, opts.Logger)
	if err != nil {
		return nil, err
	}
	o := &Observer{Base: base, known: make(chan struct{}), refused: make(chan struct{})}
	if err := s.join(o); err != nil {
		return nil, err
	}
	return o, nil
}

// OnNewLeader registers fn for a leader that has acknowledged, the one that is
// there when observing begins included.
func (o *Observer) OnNewLeader(fn func(Leader)) (cancel func()) { return o.onNewLeader.add(fn) }

// OnLeaderDeath registers fn for the end of a leader's acknowledgement: it
// resigned, died, or was replaced. When observing begins and there is no
// leader, fn is called once, as in the gem, with the zero Leader.
func (o *Observer) OnLeaderDeath(fn func(Leader)) (cancel func()) { return o.onLeaderDeath.add(fn) }

// OnLeaderData registers fn for new data of the same leader (Proclaim).
func (o *Observer) OnLeaderData(fn func(Leader)) (cancel func()) { return o.onLeaderData.add(fn) }

// Observe begins to observe, and returns once the first state is known; the
// callbacks follow. Register callbacks before, or they miss that state. If ctx
// ends first Observe returns its error and observing goes on, until Close; so it
// does when ZooKeeper does not let this session read the acknowledgement
// (zk.ErrNoAuth), which Observe returns at once, and which is tried again about
// once in each session timeout; and when the Session cannot be used, since the credentials
// are refused or the owner of its connection has closed it, which Observe returns
// at once, too. Observe may be called again; it then only waits.
func (o *Observer) Observe(ctx context.Context) error {
	o.mu.Lock()
	if o.ctx.Err() != nil {
		o.mu.Unlock()
		return ErrClosed
	}
	if o.sub == nil {
		o.sub = &subscription{lasting: true, notify: o.see, refused: o.refuse}
		o.session.subscribe(o.LeaderAckPath(), o.sub)
	}
	last := o.sub.watcher.last
	o.mu.Unlock()
	for {
		o.mu.Lock()
		refusal, refused := o.refusal, o.refused
		o.mu.Unlock()
		view, changed, _ := o.session.roster.watch()
		select {
		case <-o.known:
			return nil
		default:
		}
		switch {
		case refusal != nil:
			return wrapf(refusal, "observe", o.path)
		case view.err != nil:
			return wrapf(view.err, "observe", o.path)
		}
		select {
		case <-o.known:
		case <-refused:
		case <-changed:
		case <-o.ctx.Done():
			return ErrClosed
		case <-ctx.Done():
			return wrapf(o.session.because(contextError(ctx), last), "observe", o.path)
		}
	}
}

// LeaderAlive reports whether a leader has acknowledged, as far as the
// observer has been told; known is false before the first state is known, and after Close. While
// the connection is down, or ZooKeeper does not let it be read, the last state known stays: see ConfirmedAt.
func (o *Observer) LeaderAlive() (alive, known bool) {
	if o.ctx.Err() != nil {
		return false, false
	}
	state := o.alive.Load()
	return state > 0, state != 0
}

// ConfirmedAt returns when what LeaderAlive says was last known to be so: now, while
// a watch on the present connection guards it; after that when the connection was
// lost, the watch has told of a change that has not been read yet, or it was found
// that it may not be read any more. It is the zero time before the first state is
// known. Where servers refuse to set the watches again after a reconnection, a
// throttled one for example, the death of a leader is noticed only when they do, or
// by the next recheck, after 1.25 session timeouts at most.
func (o *Observer) ConfirmedAt() time.Time {
	o.mu.Lock()
	sub := o.sub
	o.mu.Unlock()
	if sub == nil {
		return time.Time{}
	}
	return sub.watcher.confirmedAt()
}

// Close ends observing. Afterwards no callback runs, and Observe returns
// ErrClosed. ErrCallbackRunning tells that a callback has not returned within
// the session timeout, as it cannot when Close is called from inside it. A
// second Close waits for the first and returns the same.
func (o *Observer) Close() error {
	return o.closeOnce.do(func() error {
		o.stop(ErrClosed)
		o.mu.Lock()
		if o.sub != nil {
			o.sub.end()
		}
		o.mu.Unlock()
		o.session.leave(o)
		if limit := o.session.Timeout(); !o.queue.close(limit, true) {
			return fmt.Errorf("%w in %v", ErrCallbackRunning, limit)
		}
		return nil
	})
}

// refuse is called on the ackWatcher's goroutine.
func (o *Observer) refuse(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.refusal = err
	close(o.refused)
	o.refused = make(chan struct{})
}

// see compares what is with what was last told. Leaders are told apart by
// their acknowledgement's czxid: one may go and another come between two reads. What it
// logs is queued with the callbacks: a log that stands still must not keep others of this Session from being told.
func (o *Observer) see(view ackView) {
	o.mu.Lock()
	o.refusal = nil // also before anybody is told: who is told may ask
	o.mu.Unlock()
	former := o.current
	o.current = nil
	if view.leader != nil {
		leader := view.leader.leader()
		o.current = &leader
		o.alive.Store(1) // before anybody is told
	} else {
		o.alive.Store(-1)
	}
	same := former != nil && o.current != nil && former.Zxid == o.current.Zxid
	switch {
	case same && !bytes.Equal(former.Data, o.current.Data):
		o.call("OnLeaderData", &o.onLeaderData, *o.current)
	case same:
	default:
		if former != nil {
			o.queue.push(func() { o.logger.Info("election: leader gone", former.attrs()...) })
			o.call("OnLeaderDeath", &o.onLeaderDeath, *former)
		} else if !o.began && o.current == nil {
			o.call("OnLeaderDeath", &o.onLeaderDeath, Leader{})
		}
		if o.current != nil {
			current := *o.current
			o.queue.push(func() { o.logger.Info("election: new leader", current.attrs()...) })
			o.call("OnNewLeader", &o.onNewLeader, *o.current)
		}
	}
	if !o.began {
		o.began = true
		close(o.known)
	}
}

func (o *Observer) call(name string, registered *hooks[func(Leader)], leader Leader) {
	o.queue.push(func() {
		var turns []func()
		for _, fn := range registered.snapshot() {
			turns = append(turns, func() {
				_ = protect(o.logger, name, func() error { (*fn)(leader.copied()); return nil })
			})
		}
		inTurn(turns...)
	})
}

// wake makes the observer a member of its Session. What it needs to know its
// ackWatcher tells it.
func (o *Observer) wake() {}
