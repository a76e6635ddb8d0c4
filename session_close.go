package election

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// sessionClosing is how far Close has come.
type sessionClosing struct {
	loops  sync.WaitGroup // ackWatchers
	closed chan struct{}  // closed when Close is through
	err    error          // its result, written before

	mu   sync.Mutex
	left []withdrawalLeft
}

// withdrawalLeft is what a Shutdown whose time is over has left under way.
type withdrawalLeft struct {
	over  <-chan struct{} // closed when it has come to its end
	until time.Time       // Close would not wait for longer
}

func (c *sessionClosing) leave(w withdrawalLeft) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left = append(c.left, w)
}

// awaitLeft waits for those withdrawals.
func (c *sessionClosing) awaitLeft() {
	c.mu.Lock()
	left := c.left
	c.mu.Unlock()
	for _, w := range left {
		timer := time.NewTimer(time.Until(w.until))
		select {
		case <-w.over:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// Close steps down and closes the Session's candidates and observers, then
// the connection, if the Session owns it. It returns the errors of those, and
// ErrCallbackRunning when an OnConnected function has not returned within the
// session timeout. When it returns nil no callback runs any more and, with an
// owned connection, no goroutine is left. It waits for two
// session timeouts at most where no server answers, twice StepDownTimeout, or a session timeout for an observer's, where
// callbacks do not return, one more session timeout for OnConnected functions, and some seconds for the
// connection; Shutdown has a bound of yours. A second Close waits for the first
// and returns the same.
func (s *Session) Close() error { return s.Shutdown(context.Background()) }

// Shutdown is Close within ctx, one bound for all of it. Call it when the
// process is told to end, beside Run: that returns when its candidate is
// closed, which is within ctx as well, and its function has returned. No
// candidate leads any more before anything is waited for.
//
// If ctx ends first, Shutdown returns its error at once. A connection that the
// Session owns is closed then all the same, and its session with it if a server
// can be told: ballots are gone, and others may lead, though callbacks of the
// last term may not have returned. What is still under way goes on in the
// background, for no longer than Close would; a Close or Shutdown after that
// waits for it.
func (s *Session) Shutdown(ctx context.Context) error {
	s.roster.mu.Lock()
	if !s.roster.closing {
		s.roster.closing = true
		s.roster.publish(s.roster.current()) // wakes those who wait for a connection
		go s.closeAll()
	}
	s.roster.mu.Unlock()
	select {
	case <-s.closing.closed:
		return s.closing.err
	case <-ctx.Done():
	}
	select {
	case <-s.closing.closed:
		return s.closing.err // both have ended, and this says more
	default:
	}
	s.roster.mu.Lock()
	hurried := make(map[*Candidate]chan struct{})
	for m := range s.roster.members {
		if c, ok := m.(*Candidate); ok {
			hurried[c] = make(chan struct{})
			c.inbox.push(hurryCommand{hurried[c]})
		}
	}
	s.roster.mu.Unlock()
	// The session must not end before they have heard: others may lead from then on.
	// Their loops wait for nobody, so this is at once.
	for c, taken := range hurried {
		select {
		case <-taken:
		case <-c.done:
		}
	}
	if s.owned {
		s.client.takeNoMore()
		s.goHelper(s.client.close)
	}
	return errorf("shut down: %w", s.because(contextError(ctx), nil))
}

// closeAll is what Close and Shutdown wait for.
func (s *Session) closeAll() {
	defer close(s.closing.closed)
	s.roster.mu.Lock()
	members := make([]member, 0, len(s.roster.members))
	for m := range s.roster.members {
		members = append(members, m)
	}
	hooks := s.roster.hooks
	s.roster.hooks = nil
	s.roster.mu.Unlock()

	var errs []error
	results := make(chan error, len(members))
	for _, m := range members {
		go func() { results <- m.Close() }()
	}
	for range members {
		errs = append(errs, <-results)
	}
	s.closing.loops.Wait()
	if !s.owned {
		s.closing.awaitLeft() // the session goes on, and the ballots with it, which would keep others from leading
	}
	s.inbox.push(sessionQuit{})
	<-s.done
	limit := s.Timeout()
	for _, h := range hooks {
		go func() {
			if h.queue.close(limit, true) {
				results <- nil
			} else {
				results <- fmt.Errorf("%w in %v: OnConnected", ErrCallbackRunning, limit)
			}
		}()
	}
	for range hooks {
		errs = append(errs, <-results)
	}
	if err := s.currentView().err; errors.Is(err, errOwnerClosed) {
		errs = append(errs, err)
	}
	if s.owned {
		s.client.takeNoMore()
		s.client.close()
		s.unguard()
		s.helpers.close()
	}
	s.closing.err = errors.Join(errs...)
}
