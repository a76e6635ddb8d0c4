package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/zkelection/election"
)

func watchCommand(e *env) *cobra.Command {
	var name string
	var asJSON bool
	c := &cobra.Command{
		Use:   "watch --election NAME [FLAGS]",
		Short: "print each leader, and each leader's death, as it happens",
		Long: `Prints a line for each leader that has acknowledged, for new data of the same
leader, and for each leader's death, as it happens, until it is interrupted. It
begins with the state that it finds.

Exit status:

    0  it was interrupted
    1  ZooKeeper does not answer in --wait, or refuses
    2  the command line is wrong`,
		Args:                  noArguments,
		DisableFlagsInUseLine: true,
	}
	o := &connection{env: e}
	o.electionFlag(c, &name)
	c.Flags().BoolVar(&asJSON, "json", false, `print one JSON object a line: "time", "event" ("leader", "data", "death") and "leader"`)
	o.flags(c, 0)
	c.RunE = func(c *cobra.Command, _ []string) error { return watch(c.Context(), o, name, asJSON) }
	return c
}

// watchEvent is a line of watch --json.
type watchEvent struct {
	Time   time.Time   `json:"time"`
	Event  string      `json:"event"` // leader, data or death
	Leader *leaderJSON `json:"leader,omitempty"`
}

func watch(ctx context.Context, o *connection, name string, asJSON bool) error {
	s, closeAll, err := o.connect(ctx)
	if err != nil {
		return interruptedOr(ctx, err)
	}
	defer closeAll()
	observer, err := election.NewObserver(s, name, &election.ObserverOptions{Root: o.root})
	if err != nil {
		return misuse(&exit{exitFailed, err})
	}
	if there, err := exists(ctx, s, observer.RootVotePath()); err == nil && !there { // an error comes again
		o.env.say("no such election yet: %s below %s", name, o.root)
	}

	// A reader that is gone (a closed pipe) ends the watch.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var once sync.Once
	show := func(event string, l election.Leader) {
		err := printWatch(o.env, asJSON, watchEvent{Time: time.Now(), Event: event}, l)
		if err != nil {
			once.Do(func() { cancel(err) })
		}
	}
	observer.OnNewLeader(func(l election.Leader) { show("leader", l) })
	observer.OnLeaderData(func(l election.Leader) { show("data", l) })
	observer.OnLeaderDeath(func(l election.Leader) { show("death", l) })
	if err := observer.Observe(ctx); err != nil {
		return interruptedOr(ctx, err)
	}
	<-ctx.Done()
	return interruptedOr(ctx, context.Cause(ctx))
}

func printWatch(e *env, asJSON bool, event watchEvent, l election.Leader) error {
	known := l.Zxid != 0 // not so when there was no leader to begin with
	if asJSON {
		event.Time = event.Time.UTC()
		if known {
			event.Leader = leaderOf(l)
		}
		return printJSON(e.stdout, event)
	}
	at := event.Time.Format(timeFormat)
	var err error
	switch {
	case !known:
		_, err = fmt.Fprintf(e.stdout, "%s  death   no leader\n", at)
	default:
		_, err = fmt.Fprintf(e.stdout, "%s  %-6s  %s  session %s  since %s\n", at, event.Event, printable(l.Data),
			sessionName(l.SessionID), l.Since.Local().Format(timeFormat))
	}
	return err
}

// interruptedOr tells a signal, which ends a command well, from a failure.
func interruptedOr(ctx context.Context, err error) error {
	var by interrupted
	if errors.As(context.Cause(ctx), &by) {
		return nil
	}
	return misuse(&exit{exitFailed, err})
}
