package election

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Standing aside: a candidate that is not ready to lead, for now.

// errAside is what a Vote is told meanwhile.
var errAside = errors.New("election: the candidate stands aside until it is ready")

// failuresToStandAside: one refusal may be a hiccup.
const failuresToStandAside = 2

// stander is what the loop knows of a StandWhile under way; zero for none.
type stander struct {
	handle   *standHandle
	answered bool  // the function has, or has taken too long
	voted    bool  // it was ready once
	reason   error // why it stands aside; nil while it does not
}

// standHandle is a StandWhile under way.
type standHandle struct {
	ended chan error // has room for one: somebody has ended the candidacy
}

func (s *stander) aside() bool { return s.reason != nil }

// undecided reports whether it is not known yet whether the candidate is ready: it casts
// no ballot then, whoever asks for that.
func (s *stander) undecided() bool { return s.handle != nil && !s.answered }

// end is for the end of the candidacy. What it returns is to be told of that.
func (s *stander) end() *standHandle {
	handle := s.handle
	*s = stander{}
	return handle
}

// tell makes StandWhile return, if there is one.
func (h *standHandle) tell(err error) {
	if h != nil {
		h.ended <- err
	}
}

type (
	standCommand struct {
		handle *standHandle
		reply  chan error
	}
	unstandCommand   struct{ handle *standHandle }
	readinessCommand struct {
		handle   *standHandle
		err      error // nil: ready
		failures int   // in a row
	}
)

// StandWhile votes while ready returns nil, and stands aside while it does not: a
// replica that lags, a host in maintenance. ready is called at once and then in every
// so long (the session timeout when every is 0), one call at a time, on a goroutine of its own, with a context
// that ends then. After it has failed twice in a row, or once if there is no ballot yet, the
// candidate withdraws, a leader in order: OnStepDown is told ErrResigned and the reason. When
// ready returns nil again, the candidate votes again, at the end of the line. A panic
// is a failure, and so is a call that has not returned within every. Meanwhile Status.Absence tells
// why it stands aside, Vote returns that, and Campaign and Run wait, as they do for the first answer.
//
// StandWhile returns when ctx ends, with its error, when Resign or Close is called
// (ErrResigned, ErrClosed), when the ballot is refused, as Vote does, or when a takeover has failed
// (ErrTakeoverFailed) and CandidateOptions.Retry is negative. It resigns then, as Run
// does, and waits for ready to return. One StandWhile at a time. From inside a callback it returns
// ErrCallbackRunning.
func (c *Candidate) StandWhile(ctx context.Context, ready func(ctx context.Context) error, every time.Duration) error {
	if inCallbackOf(ctx, c) {
		return fmt.Errorf("%w: StandWhile was called from it", ErrCallbackRunning)
	}
	if err := c.begins(ctx); err != nil {
		return c.explain(err, "stand in")
	}
	switch {
	case every < 0:
		return errorf("stand in %s: every %v is negative", c.path, every)
	case every == 0:
		every = c.session.Timeout()
	}
	handle := &standHandle{ended: make(chan error, 1)}
	reply := make(chan error, 1)
	c.inbox.push(standCommand{handle, reply})
	if err := c.wait(context.WithoutCancel(ctx), reply); err != nil { // at once
		return c.explain(err, "stand in")
	}
	checks := &readiness{ready: ready, every: every, answers: make(chan error, 1), candidate: c}
	checks.ctx, checks.cancel = context.WithCancel(ctx)
	err, resign := c.standWhile(ctx, handle, checks)
	checks.cancel()
	if resign {
		c.endRun(ctx) // which ends the standing aside, too: between the two it would vote
	}
	c.inbox.push(unstandCommand{handle})
	if checks.asking {
		<-checks.answers //nolint:errcheck // it counts for nothing any more
	}
	return err
}

func (c *Candidate) standWhile(ctx context.Context, handle *standHandle, checks *readiness) (err error, resign bool) { //nolint:revive // the error is what is returned
	checks.tick = time.NewTicker(checks.every)
	defer checks.tick.Stop()
	checks.ask()
	for {
		var err error
		select {
		case err = <-checks.answers:
			checks.asking = false
			if err != nil && checks.late {
				continue // that was one failure already
			}
		case <-checks.tick.C:
			if !checks.due() {
				continue
			}
			checks.late = true
			err = errorf("the function given to StandWhile has not returned in %v", checks.every)
		case err := <-handle.ended:
			if ctx.Err() != nil {
				err = contextError(ctx)
			}
			return c.explain(err, "stand in"), false
		case <-ctx.Done():
			return c.explain(contextError(ctx), "stand in"), true
		case <-c.done:
			return ErrClosed, false
		}
		if ctx.Err() != nil {
			continue // it may have failed for that
		}
		if checks.failures++; err == nil {
			checks.failures = 0
		}
		c.inbox.push(readinessCommand{handle, err, checks.failures})
	}
}

// readiness asks a user's function, of one StandWhile. It is of that call's goroutine.
type readiness struct {
	ready     func(context.Context) error
	every     time.Duration
	candidate *Candidate
	tick      *time.Ticker
	ctx       context.Context //nolint:containedctx // of the call
	cancel    context.CancelFunc
	answers   chan error // has room for one
	asking    bool
	late      bool // it has not returned in time, which has been counted
	failures  int  // in a row
}

// due is called when a call should have returned, and the next one begins. It reports whether one is still under way. One that
// has returned is not, though nobody has taken its answer yet, as after the whole process stood still.
func (r *readiness) due() (overdue bool) {
	if !r.asking {
		r.ask()
		return false
	}
	return len(r.answers) == 0
}

func (r *readiness) ask() {
	r.asking, r.late = true, false
	r.tick.Reset(r.every) // where the last tick came late, this call has all of its time as well
	go func() {
		err := errors.New("election: the function given to StandWhile ended its goroutine")
		defer func() { r.answers <- err }()
		ctx, cancel := context.WithTimeout(r.ctx, r.every)
		defer cancel()
		err = protect(r.candidate.logger, "the function given to StandWhile", func() error { return r.ready(ctx) })
	}()
}

func (c *candidacy) startStanding(m standCommand) {
	switch {
	case c.closing:
		m.reply <- ErrClosed
		return
	case c.stander.handle != nil:
		m.reply <- errors.New("election: StandWhile is already running")
		return
	}
	c.stander = stander{handle: m.handle}
	m.reply <- nil
}

// endStanding: what follows is a resignation.
func (c *candidacy) endStanding(m unstandCommand) {
	if c.stander.handle == m.handle {
		c.stander = stander{}
	}
}

// readiness takes what the function has returned.
func (c *candidacy) readiness(m readinessCommand) {
	s := &c.stander
	switch {
	case m.handle != s.handle:
		return
	}
	s.answered = true
	switch {
	case m.err == nil:
		if s.aside() {
			c.logger.Info("election: ready again")
		}
		if back := s.aside() || !s.voted; back {
			s.voted, s.reason = true, nil
			c.asked = true
			c.stand()
		}
		return
	case m.failures < failuresToStandAside && (c.ballot != nil || c.phase == leaving):
		return // it stands
	}
	cause := errorf("%w, since it is not ready: %w", ErrResigned, m.err)
	if !s.aside() {
		c.logger.Warn("election: stands aside", "reason", m.err)
	}
	again := s.aside()
	s.reason, c.absence.cause = cause, cause
	c.failVotersAside()
	if !again {
		c.giveUpBallot(cause)
	}
}

// failVotersAside answers those who would wait until the candidate is ready.
func (c *candidacy) failVotersAside() {
	c.replyAll(&c.voters, errorf("%w: %w; the vote will be cast when it is", errAside, c.stander.reason))
}
