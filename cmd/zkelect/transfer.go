package main

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/spf13/cobra"

	"github.com/zkelection/election"
)

// exitNobody: there is no such candidate.
const exitNobody = exitNoLeader

func transferCommand(e *env) *cobra.Command {
	var name, to string
	var within time.Duration
	c := &cobra.Command{
		Use:   "transfer --election NAME --to DATA|BALLOT|SESSION [FLAGS]",
		Short: "pass leadership on to a candidate of your choice",
		Long: `Passes leadership on to one of the candidates, which zkelect status lists. Those
in front of it go to the end of the line; when it is next and could lead at
once, the leader steps down in order, and stands last. Until then nothing has
changed but places in line, and --within takes the request back. From then on
zkelect waits for what comes of it, however long the leader takes: the request
ends with zkelect, and the leader would have stepped down for nothing.

Exit status:

    0  it leads, and has acknowledged
    1  it came to nothing, or ZooKeeper does not answer or refuses
    2  the command line is wrong
    3  there is no such candidate, or more than one is called that`,
		Example:               "  zkelect transfer --election scheduler --to host-b:4567",
		Args:                  noArguments,
		DisableFlagsInUseLine: true,
	}
	o := &connection{env: e}
	o.electionFlag(c, &name)
	c.Flags().StringVar(&to, "to", "", "the candidate: its `DATA`, its ballot or its session, as zkelect status shows them")
	_ = c.RegisterFlagCompletionFunc("to", cobra.NoFileCompletions)
	durationFlag(c, &within, "within", 0, "take the request back when the leader has not begun to step down in this `DURATION` (default two session timeouts)")
	o.flags(c, defaultWait)
	prepare := c.PreRunE
	c.PreRunE = func(c *cobra.Command, args []string) error {
		switch {
		case to == "":
			return usageError{errors.New("to whom? use --to DATA, BALLOT or SESSION")}
		case within < 0:
			return usageError{fmt.Errorf("--within %v is negative", within)}
		}
		return prepare(c, args)
	}
	c.RunE = func(c *cobra.Command, _ []string) error { return transfer(c.Context(), o, name, to, within) }
	return c
}

func transfer(ctx context.Context, o *connection, name, to string, within time.Duration) error {
	s, closeAll, err := o.connect(ctx)
	if err != nil {
		return misuse(&exit{exitFailed, err})
	}
	defer closeAll()
	// It asks, and does not stand.
	asker, err := election.NewCandidate(s, name, &election.CandidateOptions{Root: o.root})
	if err != nil {
		return misuse(&exit{exitFailed, err})
	}
	target, leads, err := resolve(ctx, o, asker, to)
	if err != nil {
		return err
	}
	if leads {
		o.env.say("%s leads %s already", printable(target.Data), name)
		return nil
	}
	limit := ctx
	if within > 0 {
		var cancel context.CancelFunc
		limit, cancel = context.WithTimeout(ctx, within)
		defer cancel()
	}
	began := time.Now()
	err = passOn(ctx, limit, o, s, asker, target)
	if errors.Is(err, election.ErrTransferTargetGone) && !isBallotOf(target, to) {
		// It may have gone to the end of the line just then; what it is called is the same.
		if target, _, err = resolve(ctx, o, asker, to); err != nil {
			return err
		}
		err = passOn(ctx, limit, o, s, asker, target)
	}
	if err != nil {
		return &exit{exitFailed, err}
	}
	o.env.say("%s leads %s, after %v", printable(target.Data), name, time.Since(began).Round(time.Millisecond))
	return nil
}

// passOn asks for the transfer, and waits for what comes of it: beyond limit if that may still happen.
func passOn(ctx, limit context.Context, o *connection, s *election.Session, asker *election.Candidate, target election.Ballot) error {
	err := asker.Transfer(limit, target)
	if errors.Is(err, election.ErrTransferBlocked) && ctx.Err() == nil {
		return settled(ctx, o, s, asker, target, err)
	}
	return err
}

// settled waits until it is decided what comes of a transfer that was not done in time: it may still happen once the leader
// has begun to step down for it, unless the request goes before, as it does with this session. It returns nil if
// the target leads, and else blocked.
func settled(ctx context.Context, o *connection, s *election.Session, asker *election.Candidate, target election.Ballot, blocked error) error {
	const pause = 100 * time.Millisecond
	var passed time.Time // since when the target is the first, and the request is over
	looked := time.Now() // and seen
	waited := false
	for {
		limit, cancel := o.limit(ctx)
		ours, err := isOurs(limit, s, asker.RootVotePath()+"/transfer")
		var now *statusJSON
		if err == nil {
			now, err = lookAt(limit, s, asker.Name(), o.root) // begun later, so what the request has led to is there
		}
		cancel()
		var code election.ErrorCode
		if err != nil && time.Since(looked) < 2*s.Timeout() && !errors.Is(err, zk.ErrNoAuth) && !errors.As(err, &code) {
			// One answer that does not come decides nothing. After that time the request has gone with its session.
			select {
			case <-time.After(pause):
				continue
			case <-ctx.Done():
				return notWaitedFor(ctx, blocked)
			}
		}
		if err != nil {
			return blocked
		}
		looked = time.Now()
		first := len(now.Candidates) > 0 && now.Candidates[0].Ballot == target.Path
		if passed.IsZero() && first && !ours {
			passed = time.Now()
		}
		switch {
		case first && now.Candidates[0].Leads:
			return nil
		case !first && !ours && waited:
			return fmt.Errorf("%w; it was waited for, and has not happened", blocked)
		case !first && !ours:
			return blocked
		case !passed.IsZero() && time.Since(passed) > 2*s.Timeout():
			return fmt.Errorf("%w; it is the first now, and has not acknowledged", blocked)
		case !waited:
			waited = true
			o.env.say("not done yet, but it may still happen: waiting for what comes of it")
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return notWaitedFor(ctx, blocked)
		}
	}
}

func notWaitedFor(ctx context.Context, blocked error) error {
	return fmt.Errorf("%w; no longer waited for: %w", blocked, context.Cause(ctx))
}

// isOurs reports whether a node is there, and ends with this session.
func isOurs(ctx context.Context, s *election.Session, path string) (bool, error) {
	return ask(ctx, func() (bool, error) {
		there, stat, err := s.Conn().Exists(path)
		return err == nil && there && stat.EphemeralOwner == s.ID(), err
	})
}

// resolve finds the candidate that is meant, and whether that leads already: it is the first, and has acknowledged.
func resolve(ctx context.Context, o *connection, asker *election.Candidate, to string) (target election.Ballot, leads bool, err error) {
	limit, cancel := o.limit(ctx)
	defer cancel()
	leader, err := asker.LeaderSync(limit)
	if err != nil && !errors.Is(err, election.ErrNoLeader) {
		return election.Ballot{}, false, misuse(&exit{exitFailed, err})
	}
	ballots, err := asker.Ballots(limit)
	if err != nil {
		return election.Ballot{}, false, misuse(&exit{exitFailed, err})
	}
	var found, others []election.Ballot
	for _, b := range ballots {
		if isBallotOf(b, to) || sessionName(b.SessionID) == strings.ToLower(to) || b.Err == nil && string(b.Data) == to {
			found = append(found, b)
		} else {
			others = append(others, b)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], found[0].Path == ballots[0].Path && hasAcknowledged(found[0], leader), nil
	case len(found) > 1:
		return election.Ballot{}, false, &exit{exitNobody, fmt.Errorf("%d candidates of %s are called %q: give a ballot or a session (%s)",
			len(found), asker.Name(), to, names(found))}
	case len(others) == 0:
		return election.Ballot{}, false, &exit{exitNobody, fmt.Errorf("nobody stands in %s", asker.Name())}
	}
	return election.Ballot{}, false, &exit{exitNobody, fmt.Errorf("no candidate of %s is called %q; there are %s", asker.Name(), to, names(others))}
}

func isBallotOf(b election.Ballot, to string) bool { return b.Path == to || path.Base(b.Path) == to }

// names are what candidates can be told apart by, of as many as fit a line or two.
func names(ballots []election.Ballot) string {
	const most = 8
	var all []string
	for _, b := range ballots[:min(most, len(ballots))] {
		all = append(all, fmt.Sprintf("%s %s", sessionName(b.SessionID), printable(b.Data)))
	}
	if len(ballots) > most {
		all = append(all, fmt.Sprintf("%d more", len(ballots)-most))
	}
	return strings.Join(all, ", ")
}
