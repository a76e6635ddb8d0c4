package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"

	"github.com/go-zookeeper/zk"
	"github.com/spf13/cobra"

	"github.com/zkelection/election"
)

// lookers is how many elections are read at a time.
const lookers = 16

func listCommand(e *env) *cobra.Command {
	var asJSON, wide bool
	c := &cobra.Command{
		Use:   "list [FLAGS]",
		Short: "list the elections",
		Long: `Lists the elections below the root, each with the number of its candidates and
its leader. One that may not be read is listed, and nothing more.

Exit status:

    0  they were listed, however many there are
    1  ZooKeeper does not answer in --wait, or refuses
    2  the command line is wrong`,
		Args:                  noArguments,
		DisableFlagsInUseLine: true,
	}
	o := &connection{env: e}
	c.Flags().BoolVar(&asJSON, "json", false, `print one JSON object a line: "election", "candidates" (how many), "leader" (null when there is none) and, if it may not be read, "error"`)
	c.Flags().BoolVar(&wide, "wide", false, "do not cut data that is long")
	o.flags(c, defaultWait)
	c.RunE = func(c *cobra.Command, _ []string) error {
		s, closeAll, err := o.connect(c.Context())
		if err != nil {
			return misuse(&exit{exitFailed, err})
		}
		defer closeAll()
		limit, cancel := o.limit(c.Context())
		defer cancel()
		results, err := list(limit, s, o.root)
		if err != nil {
			return misuse(&exit{exitFailed, err})
		}
		if len(results) == 0 {
			e.say("no elections below %s", o.root)
		}
		if err := printList(e, results, asJSON, wide); err != nil {
			return &exit{exitFailed, err}
		}
		return nil
	}
	return c
}

// listJSON is a line of list --json.
type listJSON struct {
	Election   string      `json:"election"`
	Candidates int         `json:"candidates"`
	Leader     *leaderJSON `json:"leader"`
	Error      string      `json:"error,omitempty"` // why the rest is not known
}

func printList(e *env, results []listJSON, asJSON, wide bool) error {
	if asJSON {
		for _, r := range results {
			if err := printJSON(e.stdout, r); err != nil {
				return err
			}
		}
		return nil
	}
	t := &table{limit: tableWidth(e, wide)}
	if len(results) > 0 {
		t.row("ELECTION", "CANDIDATES", "LEADER")
	}
	for _, r := range results {
		switch {
		case r.Error != "":
			t.row(r.Election, "?", "? ("+r.Error+")")
		case r.Leader == nil:
			t.row(r.Election, strconv.Itoa(r.Candidates), "-")
		default:
			t.row(r.Election, strconv.Itoa(r.Candidates), printable(r.Leader.bytes()))
		}
	}
	return t.print(e.stdout)
}

// list reads all elections below root.
func list(ctx context.Context, s *election.Session, root string) ([]listJSON, error) {
	names, err := elections(ctx, s, root)
	if err != nil {
		return nil, err
	}
	return lookAtAll(ctx, s, names, root)
}

// elections returns the names of the elections in order.
func elections(ctx context.Context, s *election.Session, root string) ([]string, error) {
	// A name that is always good tells what is wrong with the root.
	probe, err := election.NewObserver(s, "probe", &election.ObserverOptions{Root: root})
	if err != nil {
		return nil, err
	}
	defer func() { _ = probe.Close() }()
	names, err := ask(ctx, func() ([]string, error) {
		names, _, err := s.Conn().Children(root)
		return names, err
	})
	if errors.Is(err, zk.ErrNoNode) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", root, err)
	}
	slices.Sort(names)
	return names, nil
}

// exists reports whether there is a node.
func exists(ctx context.Context, s *election.Session, path string) (bool, error) {
	there, err := ask(ctx, func() (bool, error) {
		there, _, err := s.Conn().Exists(path)
		return there, err
	})
	if err != nil {
		return false, fmt.Errorf("look at %s: %w", path, err)
	}
	return there, nil
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
