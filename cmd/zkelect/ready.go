package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// standWhileReady waits until the command of --ready succeeds, and from then on has the candidate stand aside while it
// fails. done ends that, and waits for its end.
func (j *job) standWhileReady(ctx context.Context) (done func()) {
	ctx, cancel := context.WithCancel(ctx)
	r := &readiness{job: j}
	for r.ask(ctx) != nil && ctx.Err() == nil {
		select {
		case <-time.After(j.every):
		case <-ctx.Done():
		}
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		// What ends it ends Candidate.Run as well, which says why.
		_ = j.candidate.StandWhile(ctx, r.ask, j.every)
	}()
	return func() {
		cancel()
		<-ended
	}
}

// readiness says what has changed, and nothing twice.
type readiness struct {
	*job
	reason string // why it is not ready, as was said last; "" while it is
}

func (r *readiness) ask(ctx context.Context) error {
	err := r.isReady(ctx)
	switch {
	case err == nil && r.reason != "":
		r.env.say("ready for %s again", r.name)
		r.systemd.status("ready for %s", r.name)
		r.reason = ""
	case err != nil && !errors.Is(err, context.Canceled) && err.Error() != r.reason:
		r.reason = err.Error()
		r.env.say("not ready for %s: %s", r.name, r.reason)
		r.systemd.status("not ready for %s: %s", r.name, r.reason)
	}
	return err
}

// isReady runs the command of --ready once, for as long as --ready-every at most. The error has the first line that it wrote.
func (j *job) isReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, j.every)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", j.ready) //nolint:gosec // whoever calls zkelect says what to run
	cmd.Env = j.childEnvironment()
	cmd.SysProcAttr = apart()
	cmd.Cancel = func() error { return killApart(cmd.Process) }
	cmd.WaitDelay = time.Second // what it has left behind may hold its output open
	output, err := cmd.CombinedOutput()
	if err == nil || errors.Is(err, exec.ErrWaitDelay) {
		return nil
	}
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return ctx.Err()
	case ctx.Err() != nil:
		err = fmt.Errorf("no answer in %v", j.every)
	}
	if line, _, _ := strings.Cut(strings.TrimSpace(string(output)), "\n"); line != "" {
		return fmt.Errorf("%w: %s", err, printable([]byte(line)))
	}
	return err
}
