package election

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/go-zookeeper/zk"
)

// Follow is whom a losing candidate follows.
type Follow int

const (
	// FollowNextNode is the default and the gem's behaviour: OnLose is called
	// when the candidate loses, and again when its predecessor changes. It
	// costs nothing when the leader changes far ahead.
	FollowNextNode Follow = iota
	// FollowLeader makes OnLose be called for each new leader that acknowledges, so
	// that replicas can follow the new master. Every such candidate hears of
	// every change of leader.
	FollowLeader
)

// CandidateOptions are the options of NewCandidate. The zero value, and nil,
// mean the defaults.
type CandidateOptions struct {
	// Data is what the candidate's ballot and acknowledgement carry: usually
	// its address. At most MaxDataSize bytes. Proclaim changes it.
	Data []byte
	// Root is the node below which the election lives; DefaultRoot when empty.
	Root string
	// Follow is whom the candidate follows while it loses.
	Follow Follow
	// ACL is for the election's node, if this candidate creates it, for its
	// ballots and its acknowledgement. The default is open to everybody. With
	// an ACL an existing election node that is open to others is an error. The
	// root, and what is above it, is created open: give it an ACL of its own
	// where strangers could otherwise replace an empty election node.
	ACL []zk.ACL
	// HotStandby makes the candidate that is next in line keep the lease warm,
	// at the cost of eight small writes in each session timeout (twelve, and at last 32,
	// while answers are slow): it then leads at once when its predecessor goes, two writes sooner.
	// One that joins behind several watches the one in front of its predecessor, too, so that it
	// is ready also when leaders go one right after another: one read more.
	HotStandby bool
	// TakeoverTimeout is how long the OnWin callbacks may take together, from when
	// the first is called; a takeover that takes longer has failed. The default is
	// no limit.
	TakeoverTimeout time.Duration
	// Retry is for how long the candidate stays out after a takeover of its own
	// has failed, if Vote has asked for its candidacy: then it votes again by
	// itself, at the end of the line. Each further failure in a row doubles the
	// pause, up to 32 times the first; it is jittered by a quarter. Zero means the
	// session timeout, a negative value that the candidate stays out until Vote.
	// Campaign and Run return ErrTakeoverFailed, and what they alone have asked for
	// ends with that; StandWhile does where this is negative. Vote ends the pause, Resign and Close end the candidacy.
	Retry time.Duration
	// StepDownTimeout is how long callbacks may go on after leadership is lost
	// before the ballot is withdrawn regardless, so that a candidate that hangs
	// does not keep others from leading. The default is the session timeout.
	StepDownTimeout time.Duration
	// Priority is who should be next, of those who wait: from -9 to 9, higher is
	// preferred. A candidate goes to the end of the line for a better one behind
	// it, once it has seen that one for a while; a leader is never unseated, which
	// is what Transfer is for. Best effort, and no part of who leads: the order of
	// the line is all that counts. Who was to go to the end of the line for want of a
	// lease (where nobody stands behind it, it stays), and who comes back after a takeover
	// that failed, shows the lowest with its next ballot, until it has held a lease for a
	// session timeout, or SetPriority is called. Members of the
	// gem and of earlier versions have none, and take no part in it.
	Priority int
	// Metrics is told of this candidate's leadership. The default is the Session's.
	Metrics *Metrics
	// Logger gets the candidate's transitions. The default is the Session's, and
	// what is said there of its handler holds here, too.
	Logger *slog.Logger
}

// Candidate stands in an election: it casts a ballot, waits, leads, and
// votes again after its session was lost, until Resign or Close. Its methods
// may be called from any goroutine, and from inside its callbacks.
//
// Callbacks run one at a time, in order, on a goroutine of the candidate's
// own. OnWin and OnStepDown strictly alternate. A call of a blocking method
// from inside a callback should be given the callback's own context: Vote and
// Resign then begin their work and return, since waiting for its end would be
// waiting for the callback itself.
type Candidate struct {
	*Base
	settings
	registered
	published

	errands  errands
	inbox    *inbox
	last     lastError     // of its requests
	done     chan struct{} // closed when the loop has ended
	closeErr error         // written before done is closed
}

// settings are the options that the loop goes by.
type settings struct {
	metrics         *Metrics
	follow          Follow
	hotStandby      bool
	takeoverTimeout time.Duration
	retry           time.Duration
	stepDownTimeout time.Duration
}

// registered are the callbacks.
type registered struct {
	onWin           hooks[func(context.Context, Term) error]
	onLose          hooks[func(context.Context, Leader)]
	onStepDown      hooks[func(context.Context, Term, error)]
	onTakeoverError hooks[func(Term, error)]
}

// published is what the loop tells readers, who may be on any goroutine.
type published struct {
	leader   atomic.Pointer[leadership] // nil when not leading
	stepping atomic.Pointer[stepDown]   // nil but for a leader of the past whose ballot stands until its work is over
	live     atomic.Pointer[ballot]     // nil when no ballot of ours is known
	stuck    atomic.Bool                // callbacks of a lost term have outlived StepDownTimeout
	hung     atomic.Bool                // OnWin has been reported to hang
	picture  atomic.Pointer[picture]    // for Status
}

// NewCandidate makes a candidate in the election called name. It does nothing
// on ZooKeeper until Vote. A nil opts means the defaults. The errors are
// ErrInvalidName, ErrInvalidPath (of the root), ErrDataTooLarge and, on a
// closed Session, ErrClosed; a Follow that is none, a Priority beyond -9 to 9 and a nil Session are errors, too.
func NewCandidate(s *Session, name string, opts *CandidateOptions) (*Candidate, error) {
	if opts == nil {
		opts = &CandidateOptions{}
	}
	base, err := newBase(s, name, opts.Root, opts.Logger)
	if err != nil {
		return nil, err
	}
	c := &Candidate{
		Base: base,
		settings: settings{
			metrics:         s.metricsFor(opts.Metrics),
			follow:          opts.Follow,
			hotStandby:      opts.HotStandby,
			takeoverTimeout: opts.TakeoverTimeout,
			retry:           opts.Retry,
			stepDownTimeout: opts.StepDownTimeout,
		},
		errands: errands{session: s, path: base.path, acl: slices.Clone(opts.ACL)},
		inbox:   newInbox(),
		last:    lastError{logger: base.logger},
		done:    make(chan struct{}),
	}
	if c.follow != FollowNextNode && c.follow != FollowLeader {
		return nil, errorf("unknown Follow %d", c.follow)
	}
	if err := checkPriority(opts.Priority); err != nil {
		return nil, err
	}
	if err := c.checkRequest(opts.Data); err != nil {
		return nil, err
	}
	if err := s.join(c); err != nil {
		return nil, err
	}
	loop := newCandidacy(c, cloneData(opts.Data))
	loop.priority.wanted = opts.Priority
	loop.publish()
	go loop.run()
	return c, nil
}

// OnWin registers fn for the moment when this candidate wins: the place to
// take over. fn's context ends the moment that leadership is lost. When all
// OnWin functions have returned nil the candidate acknowledges, and losers and
// observers are told. One that returns an error, or panics, makes the takeover
// fail: the candidate steps down and stays out for a while (CandidateOptions.Retry).
func (c *Candidate) OnWin(fn func(ctx context.Context, term Term) error) (cancel func()) {
	return c.onWin.add(fn)
}

// OnLose registers fn for losing. It is called once the leader has
// acknowledged, never before: with FollowLeader once for each leader, with
// FollowNextNode when the candidate loses, and again when its predecessor
// changes, though the leader may be the same. fn's context ends when that
// is no longer true: the predecessor changed (FollowNextNode), that leader is
// gone (FollowLeader), or this candidate is the next to lead, withdraws or loses
// its ballot.
func (c *Candidate) OnLose(fn func(ctx context.Context, leader Leader)) (cancel func()) {
	return c.onLose.add(fn)
}

// OnStepDown registers fn for the loss of leadership: it is called exactly
// once for each OnWin, after that has returned. Stop work when OnWin's context
// ends: it ends at once, while fn may have to wait for its turn. The cause is, for
// errors.Is, ErrResigned, ErrClosed, ErrTransferred, ErrLeaseLapsed, ErrSessionLost,
// ErrBallotDeleted or ErrTakeoverFailed. fn's context ends StepDownTimeout after the loss.
func (c *Candidate) OnStepDown(fn func(ctx context.Context, term Term, cause error)) (cancel func()) {
	return c.onStepDown.add(fn)
}

// OnTakeoverError registers fn for a takeover that failed; err wraps the
// callback's error. It is called before OnStepDown.
func (c *Candidate) OnTakeoverError(fn func(term Term, err error)) (cancel func()) {
	return c.onTakeoverError.add(fn)
}

// Vote casts a ballot, and returns once it is cast; the callbacks follow on
// their own goroutine. While a ballot is live Vote does nothing, so it may be
// called any number of times, from an OnConnected hook for one; during a
// withdrawal it waits for its end and casts a new one, or returns why ZooKeeper refuses it. When its session or its
// ballot is lost the candidate votes again by itself.
//
// If ctx ends first, Vote returns its error, and the candidate goes on
// voting: there is then no ballot, or one that is served. Resign ends that. An
// error that ZooKeeper answered (zk.ErrNoAuth), ErrSequenceExhausted,
// ErrOpenElection or ErrTickTime means that none will be cast, and that there is no ballot, or that the one
// that has been made is withdrawn in the background: an ErrorCode need not say whether there is one.
func (c *Candidate) Vote(ctx context.Context) error {
	if err := c.begins(ctx); err != nil {
		return c.explain(err, "vote in")
	}
	inside := inCallbackOf(ctx, c)
	reply := make(chan error, 1)
	c.inbox.push(voteCommand{reply: reply})
	if inside && c.running() {
		return nil
	}
	err := c.wait(ctx, reply)
	return c.explain(err, "vote in")
}

// Campaign votes and blocks until this candidate leads: its OnWin functions
// have succeeded and the acknowledgement is written. It returns the term, or
// ErrTakeoverFailed (OnTakeoverError and OnStepDown follow, and then the
// ballot's withdrawal), ErrResigned, ErrClosed, or what Vote returns. If ctx
// ends before this candidate leads, Campaign returns its error and, if nothing else has asked for the
// vote, withdraws the ballot in the background. From inside a callback it
// returns ErrCallbackRunning, since it would wait for that callback.
func (c *Candidate) Campaign(ctx context.Context) (Term, error) {
	if inCallbackOf(ctx, c) {
		return Term{}, fmt.Errorf("%w: Campaign was called from it", ErrCallbackRunning)
	}
	if err := c.begins(ctx); err != nil {
		return Term{}, c.explain(err, "campaign in")
	}
	reply := make(chan campaignResult, 1)
	command := &campaignCommand{reply: reply}
	c.inbox.push(command)
	select {
	case r := <-reply:
		return r.term, c.explain(r.err, "campaign in")
	case <-ctx.Done():
	case <-c.done:
		return Term{}, ErrClosed
	}
	// Before the ballot goes: once it has, nothing stands in its way any more, and the
	// caller would not be told what did.
	ended := c.explain(contextError(ctx), "campaign in")
	// The loop decides which came first, the end of ctx or the success: a term
	// that it has given to this call is not given up behind the caller's back.
	taken := make(chan struct{})
	c.inbox.push(abandonCommand{command, taken})
	select {
	case <-taken:
	case <-c.done:
	}
	select {
	case r := <-reply:
		return r.term, c.explain(r.err, "campaign in")
	default:
		return Term{}, ended
	}
}

// Resign steps down, if this candidate leads, and withdraws its ballot. In
// this order: IsLeader is false and the leader's context ends; the OnStepDown
// functions and the function given to Run return, or StepDownTimeout passes;
// then the ballot goes and the next candidate may lead. Resign returns when
// the server has confirmed that, or the session is gone. If ctx ends first,
// Resign returns its error and the withdrawal goes on; IsLeader is false then,
// too. Vote brings the candidate back; so does a hook that votes at the next new
// session.
func (c *Candidate) Resign(ctx context.Context) error {
	inside := inCallbackOf(ctx, c)
	reply := make(chan error, 1)
	taken := make(chan struct{})
	c.inbox.push(resignCommand{cause: ErrResigned, reply: reply, taken: taken})
	// The loop waits for nobody, so this is at once, whatever ctx is.
	select {
	case <-taken:
	case <-c.done:
	}
	if inside && c.running() {
		return nil
	}
	return c.explain(c.wait(ctx, reply), "resign from")
}

// Close resigns, for good. When it returns nil no callback runs any more and no
// goroutine of the candidate is left; in any case every method that waits for
// the servers returns ErrClosed from now on. When no server answers for two
// session timeouts Close gives up with an error; the ballot then ends with the
// session, or when a server answers while the Session still lives.
// ErrCallbackRunning tells that a callback has not returned in StepDownTimeout,
// as it cannot when Close is called from inside it. A second Close waits for
// the first and returns the same.
func (c *Candidate) Close() error {
	return c.closeOnce.do(func() error {
		c.inbox.push(resignCommand{cause: ErrClosed})
		<-c.done
		c.stop(ErrClosed)
		c.session.leave(c)
		limit := c.callbackTimeout()
		if c.stuck.Load() {
			limit = 0 // that long it has been waited for already
		}
		// What a win still owes its OnStepDown is not dropped.
		if !c.queue.close(limit, false) {
			return errors.Join(c.closeErr, fmt.Errorf("%w in %v", ErrCallbackRunning, c.callbackTimeout()))
		}
		return c.closeErr
	})
}

// Proclaim changes the candidate's data, in its ballot and in the
// acknowledgement, where observers see it. It returns ErrNotLeader when this
// candidate does not lead, and ErrDataTooLarge. If ctx ends first the change
// may or may not be made. While OnWin runs it returns at once, and the data is
// written with the acknowledgement.
func (c *Candidate) Proclaim(ctx context.Context, data []byte) error {
	if err := c.checkRequest(data); err != nil {
		return err
	}
	reply := make(chan error, 1)
	c.inbox.push(&proclaimCommand{cloneData(data), reply})
	return c.explain(c.wait(ctx, reply), "proclaim in")
}

// IsLeader reports whether this candidate leads at this instant: it has won,
// and its lease has not ended by the local clock. It takes no lock and
// allocates nothing. What is done after it has been asked can still come too
// late, if the process is stopped in between: see Term.Token.
func (c *Candidate) IsLeader() bool {
	l := c.leader.Load()
	return l != nil && l.lease.Valid()
}

// Term returns the present term, if this candidate leads.
func (c *Candidate) Term() (Term, bool) {
	l := c.leader.Load()
	if l == nil || !l.lease.Valid() {
		return Term{}, false
	}
	return l.term, true
}

// Follow is whom this candidate follows while it loses, CandidateOptions.Follow.
func (c *Candidate) Follow() Follow { return c.follow }

// Voted reports whether this candidate has a live ballot, as far as it knows.
func (c *Candidate) Voted() bool { return c.live.Load() != nil }

// VotePath returns the path of the live ballot, or "" when there is none.
func (c *Candidate) VotePath() string {
	if b := c.live.Load(); b != nil {
		return b.path
	}
	return ""
}

// LeaseUntil returns until when leadership is certain unless it is renewed;
// the zero Time when this candidate does not lead.
func (c *Candidate) LeaseUntil() time.Time {
	l := c.leader.Load()
	if l == nil || !l.lease.Valid() {
		return time.Time{}
	}
	return l.lease.Deadline() // zero again if it has just ended
}

// ExclusiveUntil returns until when certainly nobody else leads: while this
// candidate leads, and after that, while it gives leadership up (ErrResigned,
// ErrTransferred, ErrClosed) and OnStepDown functions or the function given to Run
// have not returned. It is LeaseUntil, which is renewed all that time, but never
// later than StepDownTimeout from now or, then, from the loss. It is for work that
// takes longer to end than a lease lasts, and that others watch over, such as a
// database server that shuts down. The zero Time means: no longer, or never; so it
// does when leadership was lost. A Session.Shutdown whose context ends takes back
// what was told before; give it the time that OnStepDown takes.
func (c *Candidate) ExclusiveUntil() time.Time {
	now := time.Now() // before the look: who has been seen to lead then waits for that long from now on, or longer (quit)
	if until := c.LeaseUntil(); !until.IsZero() {
		if limit := now.Add(c.callbackTimeout()); limit.Before(until) {
			return limit
		}
		return until
	}
	if s := c.stepping.Load(); s != nil && s.lead.lease.Valid() {
		if until := s.lead.lease.Deadline(); until.Before(s.limit) || until.IsZero() {
			return until
		}
		if time.Now().Before(s.limit) {
			return s.limit
		}
	}
	return time.Time{}
}

// Healthy returns an error when this candidate leads and its lease has not
// been renewed for longer than tolerance, and when callbacks of a term that it
// has lost go on beyond StepDownTimeout, and when OnWin goes on for longer than
// the session timeout. It is for health checks: a leader in good health renews
// at least every sixth of the session timeout.
func (c *Candidate) Healthy(tolerance time.Duration) error {
	if c.stuck.Load() {
		return fmt.Errorf("%w in %v after leadership was lost", ErrCallbackRunning, c.callbackTimeout())
	}
	if run := c.inside.Load(); run != nil && c.hung.Load() {
		return fmt.Errorf("%w in %v: %v", ErrCallbackRunning, time.Since(run.since).Round(time.Millisecond), run)
	}
	if l := c.leader.Load(); l != nil {
		if age := l.lease.Age(); age > tolerance {
			return errorf("the lease was last renewed %v ago", age.Round(time.Millisecond))
		}
	}
	return nil
}

// callbackTimeout is the limit for callbacks after a loss.
func (c *Candidate) callbackTimeout() time.Duration {
	if c.stepDownTimeout > 0 {
		return c.stepDownTimeout
	}
	return c.session.Timeout()
}

// closeTimeout is how long Close waits for a server that does not answer.
func (c *Candidate) closeTimeout() time.Duration { return 2 * c.session.Timeout() }

func (c *Candidate) running() bool {
	select {
	case <-c.done:
		return false
	default:
		return true
	}
}

// begins is asked first by what does nothing when ctx has ended already: a closed candidate says
// that it is closed, whatever ctx is.
func (c *Candidate) begins(ctx context.Context) error {
	if !c.running() {
		return ErrClosed
	}
	if ctx.Err() != nil {
		return contextError(ctx)
	}
	return nil
}

func (c *Candidate) wait(ctx context.Context, reply <-chan error) error {
	select {
	case err := <-reply:
		return err
	case <-ctx.Done():
		if c.running() {
			return contextError(ctx)
		}
	case <-c.done:
	}
	select {
	case err := <-reply: // it may have been the last thing done
		return err
	default:
		return ErrClosed
	}
}

// explain wraps an error for the caller; our own say enough by themselves.
func (c *Candidate) explain(err error, operation string) error {
	for _, own := range []error{errAside, ErrResigned, ErrTakeoverFailed, ErrNotLeader, ErrCallbackRunning} {
		if errors.Is(err, own) {
			return err
		}
	}
	return wrapf(c.session.because(err, &c.last), operation, c.path)
}

// wake makes the candidate a member of its Session.
func (c *Candidate) wake() { c.inbox.push(nil) }
