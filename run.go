package election

import (
	"context"
	"errors"
	"fmt"
)

// Run campaigns and calls lead each time that this candidate leads, its
// acknowledgement written, with a context that ends when leadership is lost
// or ctx ends. When lead returns after such a loss, the candidate contends
// again; when lead returns while leading, Run resigns and returns lead's
// error; a panic is one. When ctx ends Run resigns and returns its error. Two
// leads never overlap, and leadership passes on only after lead has returned,
// or StepDownTimeout later. The context has the values of ctx. Run returns when the ballot is
// withdrawn, or two session timeouts later, when OnStepDown may still run: Close waits for it. Run also ends
// when Resign is called (ErrResigned), when a takeover fails and for what
// Vote returns.
//
// lead runs on the goroutine that called Run. One Run at a time.
func (c *Candidate) Run(ctx context.Context, lead func(ctx context.Context, term Term) error) (err error) {
	if inCallbackOf(ctx, c) {
		return fmt.Errorf("%w: Run was called from it", ErrCallbackRunning)
	}
	if err := c.begins(ctx); err != nil {
		return c.explain(err, "run in")
	}
	r := &runner{terms: make(chan *leadership, 1), ended: make(chan error, 1)}
	reply := make(chan error, 1)
	c.inbox.push(runCommand{r, reply})
	if err := c.wait(context.WithoutCancel(ctx), reply); err != nil { // at once
		return c.explain(err, "run in")
	}
	resign := true
	defer func() {
		// However Run ends, by runtime.Goexit in lead for one, the candidate
		// does not go on leading for nobody.
		c.inbox.push(unrunCommand{r})
		if resign {
			c.endRun(ctx)
		}
	}()
	for {
		select {
		case l := <-r.terms:
			returned, err := c.lead(ctx, r, l, lead)
			if returned {
				return err
			}
		case err := <-r.ended:
			if ctx.Err() != nil {
				return c.explain(contextError(ctx), "run in")
			}
			resign = false
			return c.explain(err, "run in")
		case <-ctx.Done():
			return c.explain(contextError(ctx), "run in")
		case <-c.done:
			resign = false
			return ErrClosed
		}
	}
}

// lead calls the function given to Run. It reports whether that has returned
// while leading.
func (c *Candidate) lead(ctx context.Context, r *runner, l *leadership, fn func(context.Context, Term) error) (returned bool, err error) {
	resigned := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(resigned)
		c.inbox.push(resignCommand{cause: ErrResigned})
	})
	defer func() {
		if !stop() {
			<-resigned // or it would come when Run has returned, and undo what is asked for then
		}
	}()
	defer c.inbox.push(runDone{r, l})
	err = protect(c.logger, "the function given to Run", func() error {
		return fn(valuesFrom{l.ctx, ctx}, l.term)
	})
	return c.leader.Load() == l && l.lease.Valid() && l.ctx.Err() == nil && ctx.Err() == nil, err
}

// endRun resigns, and gives that the time that an unreachable ensemble takes.
func (c *Candidate) endRun(ctx context.Context) {
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.closeTimeout())
	defer cancel()
	if err := c.Resign(limit); err != nil && !errors.Is(err, ErrClosed) {
		c.logger.Warn("election: resignation goes on in the background", "error", err)
	}
}
