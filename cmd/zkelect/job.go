package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/zkelection/election"
	"github.com/zkelection/election/guard"
)

// job is a command that runs while its candidate leads.
type job struct {
	*runOptions
	session   *election.Session
	candidate *election.Candidate
	guard     *guard.Guard
	systemd   *notifier
	argv      []string

	// Owned by the goroutine that calls Run.
	status int  // of the command's last run
	ran    bool // there was one
	lost   bool // and it ended with the loss of leadership
	cut    bool // and a signal came meanwhile

	ending atomic.Bool // the signal to end has come

	turn atomic.Int64 // when the loop of lead last went round, in Unix nanoseconds; 0 while it does not
}

// stint is one call of Candidate.Run. What ends it, a signal or the discovery that somebody else stands in front, does so
// at once while the command does not run. While it runs a signal stops the command first, under the lease.
type stint struct {
	cancel context.CancelCauseFunc

	mu      sync.Mutex
	running bool // the command does, or is about to
	over    bool
}

// end ends the stint, unless the command runs.
func (s *stint) end(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	if !s.running {
		s.cancel(cause)
	}
}

// begin reports whether the command may be run.
func (s *stint) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = !s.over
	return s.running
}

// rest is called when the command has ended; the stint ends with it if something has asked for that.
func (s *stint) rest() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = false
	if s.over {
		s.cancel(nil)
	}
}

func (j *job) run(parent context.Context) error {
	for {
		err := j.stand(parent)
		var x *exit
		if parent.Err() != nil || !j.keep || errors.As(err, &x) {
			return err
		}
		select { // then contend again
		case <-time.After(j.pause):
		case <-parent.Done():
		}
	}
}

// stand stands in the election until the command has been run. Its error is nil for the status 0.
func (j *job) stand(parent context.Context) error {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(parent))
	defer cancel(nil)
	s := &stint{cancel: cancel}
	defer context.AfterFunc(parent, func() {
		j.ending.Store(true)
		s.end(context.Cause(parent))
	})()
	if j.try {
		if err := j.somebodyStands(ctx); err != nil {
			return err
		}
	}
	watching, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		j.watchStanding(ctx, s, watching)
	}()
	if j.ready != "" {
		defer j.standWhileReady(ctx)()
	}
	ended, failure := false, error(nil)
	err := j.candidate.Run(ctx, func(ctx context.Context, term election.Term) error {
		if !s.begin() {
			return nil
		}
		failure = j.lead(ctx, parent, term)
		if failure != nil || j.ran && !j.keep {
			ended = true
			s.end(nil) // also when leadership was lost: one term is enough
		}
		s.rest()
		return failure
	})
	close(watching)
	<-watched
	var x *exit
	switch cause := context.Cause(ctx); {
	case failure != nil:
		return &exit{exitRunFailed, failure}
	case ended && j.lost:
		return &exit{status: exitLost}
	case ended, j.cut:
		return j.commandStatus()
	case errors.As(cause, &x):
		return x
	case parent.Err() != nil, err != nil:
		return misuse(signalledOr(parent, err))
	}
	return nil // --keep, and leadership was lost or the command has ended
}

func (j *job) commandStatus() error {
	if j.status == exitOK {
		return nil
	}
	return &exit{status: j.status}
}

// lead runs the command for one term, under the eyes of a keeper. ctx ends with the leadership, and parent by a signal.
func (j *job) lead(ctx, parent context.Context, term election.Term) error {
	j.env.say("leading %s (token %d): running %s", j.name, term.Token, j.argv[0])
	j.systemd.status("leads %s, token %d", j.name, term.Token)
	j.lost, j.cut = false, false
	defer func() {
		if !j.lost { // else that was said then, and perhaps who leads now since
			j.systemd.status("no longer leads %s", j.name)
		}
	}()
	k, err := startKeeper(j.env, j.argv, j.grace, j.overlap, j.commandEnvironment(term))
	if err != nil {
		return fmt.Errorf("start %s: %w", j.argv[0], err)
	}
	// When this process dies, the command's keeper kills the command, and the session is closed only after both have ended.
	release, err := j.guard.Await(k.process.Process.Pid)
	if err != nil {
		k.stop(0)
		<-k.finished
		return fmt.Errorf("start %s: %w", j.argv[0], err)
	}
	defer release()
	defer j.guardGroup(ctx, parent, k)()
	if ctx.Err() != nil || parent.Err() != nil || !j.begin(k, freshLease(j.session.Timeout(), j.candidate.LeaseUntil, ctx, parent)) {
		k.stop(0) // leadership has ended meanwhile, or a signal has come; the command was not begun
		<-k.finished
		return nil
	}
	j.ran = true
	j.attend(ctx, parent, k)
	j.status, j.cut = k.status(), parent.Err() != nil
	j.env.say("%s has ended with status %d", j.argv[0], j.status)
	return nil
}

// begin lets the command begin, which it does not without a lease. What was to be passed on before is nobody's; from the order on
// it is the command's, which may run, and be signalled, before this process goes on.
func (j *job) begin(k *kept, until time.Time) bool {
	j.env.signals.forget()
	return k.allow(until)
}

// freshLease is when the lease ends under which the command begins, or zero when there is none. Where a slow machine has left
// little of it, the next heartbeat's answer is waited for: a command that begins at the last moment ends at once.
func freshLease(timeout time.Duration, lease func() time.Time, done ...context.Context) time.Time {
	first := lease()
	ticker := time.NewTicker(timeout / 256)
	defer ticker.Stop()
	for until := first; until.Equal(first) && time.Until(until) < timeout/4; until = lease() {
		for _, ctx := range done {
			if ctx.Err() != nil {
				return time.Time{}
			}
		}
		<-ticker.C
	}
	return lease()
}

// guardGroup has the guard of the session end the command's group where the keeper is killed together with this process. The
// command, which has not begun yet, does not begin before that. It does not wait for a keeper that is of no use any more.
func (j *job) guardGroup(ctx, parent context.Context, k *kept) (release func()) {
	select {
	case <-k.started:
		if release, err := j.guard.AwaitGroup(k.command); err == nil { // or it has ended, or the kernel is too old
			return release
		}
	case <-k.finished:
	case <-ctx.Done():
	case <-parent.Done():
	}
	return func() {}
}

// attend renews the keeper's lease, and has it stop the command when a signal or a loss of leadership says so, until the
// command has ended. One that is given up to let others lead keeps them waiting until then.
func (j *job) attend(ctx, parent context.Context, k *kept) {
	// The lease is renewed about every seventh of the timeout, and where answers are slow every 32nd: then it leaves no
	// more than some 24th before it is renewed.
	ticker := time.NewTicker(j.session.Timeout() / 64)
	defer ticker.Stop()
	defer j.turn.Store(0)
	leading, signalled, blocked := ctx.Done(), parent.Done(), (<-chan struct{})(k.blocked)
	givenUp := false // leadership, with the command under way
	beside := false  // it has been said that others may lead
	for {
		j.turn.Store(time.Now().UnixNano())
		select {
		case <-k.finished:
			// When this process or the keeper stood still beyond the lease, the keeper has killed the command, and the context
			// may not have ended yet.
			if leading != nil && (k.lapsed || !j.candidate.IsLeader()) {
				j.noteLoss(ctx)
			}
			return
		case <-ticker.C:
			until := j.candidate.ExclusiveUntil()
			k.allow(until)
			if givenUp && until.IsZero() {
				givenUp = false
				beside = true
				j.env.say("%s: others may lead before it has ended", j.argv[0])
				k.stop(j.overlap)
			}
			if blocked == nil && !beside && until.IsZero() {
				beside = true
				j.env.say("%s: others may lead before it has ended", k.why)
			}
		case s := <-j.env.signals.forwarded:
			k.forward(s.(syscall.Signal)) // none but those of forward come
		case <-blocked:
			blocked = nil
			if !j.candidate.ExclusiveUntil().IsZero() { // else see above
				j.env.say("%s: leadership is not passed on before it has ended", k.why)
			}
		case <-signalled:
			signalled = nil
			j.env.say("stopping %s", j.argv[0])
			k.stop(j.grace)
			j.systemd.stopping() // which may take a moment
		case <-leading:
			leading = nil
			if givenUp = waitsForEnd(context.Cause(ctx)); givenUp {
				k.stop(j.grace) // the ballot stands until the command has ended
			} else {
				k.stop(j.overlap)
			}
			j.noteLoss(ctx)
		}
	}
}

func (j *job) noteLoss(ctx context.Context) {
	cause := context.Cause(ctx)
	if cause == nil {
		cause = election.ErrLeaseLapsed
	}
	j.lost = true
	j.systemd.status("no longer leads %s", j.name)
	if waitsForEnd(cause) {
		j.env.say("leadership of %s is given up (%v): stopping %s", j.name, cause, j.argv[0])
		return
	}
	j.env.say("leadership of %s is lost (%v): stopping %s", j.name, cause, j.argv[0])
}

// waitsForEnd reports whether the ballot stands until the command has ended: so it is where leadership was given up, and not lost.
func waitsForEnd(cause error) bool {
	return errors.Is(cause, election.ErrTransferred) || errors.Is(cause, election.ErrResigned)
}

// commandEnvironment is what the command is told.
func (j *job) commandEnvironment(term election.Term) []string {
	return append(j.childEnvironment(), fmt.Sprintf("ZKELECT_TOKEN=%d", term.Token))
}

// childEnvironment is this process's, with what every child is told. To systemd it has nothing to say.
func (j *job) childEnvironment() []string {
	inherited := slices.DeleteFunc(os.Environ(), func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		return slices.Contains(notifierVariables, name)
	})
	return append(inherited, "ZKELECT_ELECTION="+j.name, "ZKELECT_DATA="+j.data)
}
