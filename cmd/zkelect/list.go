package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/zkelection/election"
)

// defaultWait is the default of --wait where an answer is wanted now.
const defaultWait = 10 * time.Second

// lookers is how many elections are read at a time.
const lookers = 16

func listCommand() command {
	return command{
		name:      "list",
		arguments: "--servers HOST:PORT,... [FLAGS]",
		about: `
Lists the elections below the root, each with the number of its candidates and
its leader. One that may not be read is listed, and nothing more.`,
		exits: `
  0  they were listed, however many there are
  1  ZooKeeper does not answer in --wait, or refuses
  2  the command line is wrong`[1:],
		run: list,
	}
}

// listJSON is a line of list --json.
type listJSON struct {
	Election   string      `json:"election"`
	Candidates int         `json:"candidates"`
	Leader     *leaderJSON `json:"leader"`
	Error      string      `json:"error,omitempty"` // why the rest is not known
}

func list(ctx context.Context, e *env, args []string) (int, error) {
	o := newOptions(e, defaultWait)
	asJSON := o.Bool("json", false, `print one JSON object a line: "election", "candidates" (how many), "leader" (null when there is none) and, if it may not be read, "error"`)
	if err := o.parse(args); err != nil {
		return exitUsage, err
	}
	if err := o.noArguments(); err != nil {
		return exitUsage, err
	}
	s, closeAll, err := o.connect(ctx)
	if err != nil {
		return exitFailed, err
	}
	defer closeAll()
	limit, cancel := o.limit(ctx)
	defer cancel()
	names, err := elections(limit, s, o.root)
	if err != nil {
		return exitFailed, misuse(err)
	}
	results, err := lookAtAll(limit, s, names, o.root)
	if err != nil {
		return exitFailed, err
	}
	if len(results) == 0 {
		e.say("no elections below %s", o.root)
	}
	if err := printList(e, results, *asJSON); err != nil {
		return exitFailed, err
	}
	return exitOK, nil
}

func printList(e *env, results []listJSON, asJSON bool) error {
	if asJSON {
		for _, r := range results {
			if err := printJSON(e.stdout, r); err != nil {
				return err
			}
		}
		return nil
	}
	w := table(e.stdout)
	row := func(name, candidates, leader string) { _, _ = fmt.Fprintf(w, "%s\t%s\t%s\n", name, candidates, leader) } // Flush tells
	if len(results) > 0 {
		row("ELECTION", "CANDIDATES", "LEADER")
	}
	for _, r := range results {
		switch {
		case r.Error != "":
			row(r.Election, "?", "? ("+r.Error+")")
		case r.Leader == nil:
			row(r.Election, strconv.Itoa(r.Candidates), "-")
		default:
			row(r.Election, strconv.Itoa(r.Candidates), printable(r.Leader.bytes()))
		}
	}
	return w.Flush()
}

// elections returns the names of the elections in order.
func elections(ctx context.Context, s *election.Session, root string) ([]string, error) {
	// A name that is always good tells what is wrong with the root.
	probe, err := election.NewObserver(s, "probe", &election.ObserverOptions{Root: root})
	if err != nil {
		return nil, err
	}
	defer func() { _ = probe.Close() }()
	type answer struct {
		names []string
		err   error
	}
	answers := make(chan answer, 1)
	go func() { // the client's calls take no context
		names, _, err := s.Conn().Children(root)
		answers <- answer{names, err}
	}()
	select {
	case a := <-answers:
		if errors.Is(a.err, zk.ErrNoNode) {
			return nil, nil
		}
		if a.err != nil {
			return nil, fmt.Errorf("list %s: %w", root, a.err)
		}
		slices.Sort(a.names)
		return a.names, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("list %s: %w", root, context.Cause(ctx))
	}
}

// lookAtAll reads several elections at a time and returns them in order.
func lookAtAll(ctx context.Context, s *election.Session, names []string, root string) ([]listJSON, error) {
	results := make([]listJSON, len(names))
	errs := make([]error, len(names))
	var workers sync.WaitGroup
	next := make(chan int)
	for range min(lookers, len(names)) {
		workers.Go(func() {
			for i := range next {
				results[i].Election = names[i]
				r, err := lookAt(ctx, s, names[i], root)
				switch {
				case err == nil:
					results[i].Candidates, results[i].Leader = len(r.Candidates), r.Leader
				case errors.Is(err, zk.ErrNoAuth):
					results[i].Error = zk.ErrNoAuth.Error()
				default:
					errs[i] = err
				}
			}
		})
	}
	for i := range names {
		next <- i
	}
	close(next)
	workers.Wait()
	return results, errors.Join(errs...)
}
