package election

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

// hooks is a list of registered callbacks, in the order of registration.
// It may be used from any goroutine.
type hooks[F any] struct {
	mu   sync.Mutex
	list []*F
}

// add registers fn for the events from now on.
func (h *hooks[F]) add(fn F) (cancel func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	entry := &fn
	// A new slice each time, so that a snapshot taken earlier stays as it was.
	h.list = append(slices.Clip(h.list), entry)
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.list = slices.DeleteFunc(slices.Clone(h.list), func(e *F) bool { return e == entry })
	}
}

// none reports whether nothing is registered.
func (h *hooks[F]) none() bool { return len(h.snapshot()) == 0 }

func (h *hooks[F]) snapshot() []*F {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.list
}

// callbackQueue runs functions one at a time, in order, on a goroutine of its
// own that lives only while there is something to run. It is unbounded: a slow
// callback delays later callbacks and never whoever queues them.
type callbackQueue struct {
	logger *slog.Logger

	mu      sync.Mutex
	pending []func()
	running bool
	closed  bool
	idle    chan struct{} // closed when the queue next falls idle; nil when nobody waits
}

// push queues fn; after close it does nothing.
func (q *callbackQueue) push(fn func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	q.pending = append(q.pending, fn)
	if !q.running {
		q.running = true
		go q.drain()
	}
}

func (q *callbackQueue) drain() {
	done := false
	defer func() {
		if !done { // a callback ended the goroutine (runtime.Goexit)
			go q.drain()
		}
	}()
	for {
		q.mu.Lock()
		if len(q.pending) == 0 {
			q.pending = nil
			q.running = false
			if q.idle != nil {
				close(q.idle)
				q.idle = nil
			}
			q.mu.Unlock()
			done = true
			return
		}
		fn := q.pending[0]
		q.pending = q.pending[1:]
		q.mu.Unlock()
		fn()
	}
}

// rests reports whether nothing runs or waits to.
func (q *callbackQueue) rests() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return !q.running
}

// close takes nothing more, drops what has not begun if it is told to, and
// waits for the rest, for at most limit. It reports whether nothing runs any more.
func (q *callbackQueue) close(limit time.Duration, drop bool) bool {
	q.mu.Lock()
	q.closed = true
	if drop {
		q.pending = nil
	}
	if !q.running {
		q.mu.Unlock()
		return true
	}
	if q.idle == nil {
		q.idle = make(chan struct{})
	}
	idle := q.idle
	q.mu.Unlock()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-idle:
		return true
	case <-timer.C:
		return false
	}
}

// protect calls a user's function. A panic is logged with its stack and
// returned as an error, so that it harms no other callback.
func protect(logger *slog.Logger, name string, fn func() error) (err error) {
	returned := false
	defer func() {
		if returned {
			return
		}
		// Also reached by runtime.Goexit (a test's FailNow), where recover
		// gives nil.
		p := recover()
		if p == nil {
			err = errorf("%s ended its goroutine", name)
		} else if cause, ok := p.(error); ok {
			err = errorf("%s panicked: %w", name, cause)
		} else {
			err = errorf("%s panicked: %v", name, p)
		}
		logger.Error("election: callback panicked", "callback", name, "error", err, "stack", string(debug.Stack()))
	}()
	err = fn()
	returned = true
	return err
}

// callbackRun is one call of a function that a user has registered.
type callbackRun struct {
	kind  string
	index int // in the order of registration
	fn    any
	since time.Time
}

func (r *callbackRun) String() string {
	return fmt.Sprintf("%s function %d (%s)", r.kind, r.index, runtime.FuncForPC(reflect.ValueOf(r.fn).Pointer()).Name())
}

// call calls one function of a user's, and notes meanwhile which it is.
func (b *Base) call(kind string, index int, fn any, call func() error) error {
	b.inside.Store(&callbackRun{kind, index, fn, time.Now()})
	defer b.inside.Store(nil)
	return protect(b.logger, kind, call)
}

// inTurn calls functions one after another. One that ends its goroutine
// (runtime.Goexit, as a test's FailNow does) ends only its own turn: the others
// are called while the goroutine unwinds.
func inTurn(fns ...func()) {
	for i, fn := range fns {
		func() {
			returned := false
			defer func() {
				if !returned {
					inTurn(fns[i+1:]...)
				}
			}()
			fn()
			returned = true
		}()
	}
}

// callbackOwner is the context key under which the contexts given to a
// candidate's callbacks name that candidate: it is how a method called from
// inside one knows that waiting for the callbacks would be waiting for itself.
type callbackOwner struct{}

func inCallbackOf(ctx context.Context, owner any) bool {
	return ctx.Value(callbackOwner{}) == owner
}

// valuesFrom is a context that ends with the first and looks values up in
// both: a leader's context for a function that was started with another.
type valuesFrom struct {
	context.Context
	values context.Context
}

func (c valuesFrom) Value(key any) any {
	if v := c.Context.Value(key); v != nil {
		return v
	}
	return c.values.Value(key)
}
