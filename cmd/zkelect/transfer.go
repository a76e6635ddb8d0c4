package main

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
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
ends with zkelect, and the leader would have stepped down for nothing. The
request has the access rights of the election's node.

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
	durationFlag(c, &within, "within", 0, "take the request back when the leader has not begun to step down in this `DURATION` (default two of the --timeout of zkelect itself; give more where that of the services is longer)")
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
	looker, err := election.NewObserver(s, name, &election.ObserverOptions{Root: o.root})
	if err != nil {
		return misuse(&exit{exitFailed, err})
	}
	acl, err := requestACL(ctx, o, s, looker.RootVotePath())
	if err != nil {
		return &exit{exitFailed, err}
	}
	// It asks, and does not stand.
	asker, err := election.NewCandidate(s, name, &election.CandidateOptions{Root: o.root, ACL: acl})
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

// requestACL is what the request is to be made with: whoever can write to it says who is to lead, so it is as closed as the
// election's node. It is nil where there is no such node, or that may not be read: whatever comes next says so.
func requestACL(ctx context.Context, o *connection, s *election.Session, node string) ([]zk.ACL, error) {
	// The session is taken up again, or the next one is.
	passing := []error{zk.ErrConnectionClosed, zk.ErrNoServer, zk.ErrSessionExpired, zk.ErrSessionMoved}
	limit, cancel := o.limit(ctx)
	defer cancel()
	acl, err := ask(limit, func() (acl []zk.ACL, err error) {
		for {
			acl, _, err = s.Conn().GetACL(node)
			if limit.Err() != nil || !slices.ContainsFunc(passing, func(e error) bool { return errors.Is(err, e) }) {
				return acl, err
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
	switch {
	case errors.Is(err, zk.ErrNoNode), errors.Is(err, zk.ErrNoAuth):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("the access rights of %s are not known: %w", node, err)
	}
	scheme, credentials, _ := strings.Cut(o.auth, ":")
	user, password, _ := strings.Cut(credentials, ":")
	own := 0
	for i, entry := range acl {
		// What the server shows to those who may not administer the node.
		if hidden := entry.Scheme == "digest" && strings.HasSuffix(entry.ID, ":x"); hidden {
			if own++; own > 1 || scheme != "digest" || entry.ID != user+":x" {
				return nil, fmt.Errorf("%s lets %s in, whose digest it shows only to those who may administer it: give such credentials by --auth", node, strings.TrimSuffix(entry.ID, ":x"))
			}
			acl[i].ID = zk.DigestACL(entry.Perms, user, password)[0].ID
		}
		if entry.Perms&zk.PermCreate != 0 {
			acl[i].Perms = zk.PermAll // they may stand, so they have to be able to write to it
		}
	}
	return acl, nil
}

// passOn asks for the transfer, and waits for what comes of it: beyond limit if that may still happen.
func passOn(ctx, limit context.Context, o *connection, s *election.Session, asker *election.Candidate, target election.Ballot) error {
	err := asker.Transfer(limit, target)
	if errors.Is(err, election.ErrTransferBlocked) && ctx.Err() == nil {
		return awaitOutcome(ctx, o, s, asker, target, err)
	}
	return err
}

// awaitOutcome waits until it is decided what comes of a transfer that was not done in time: it may still happen once the leader
// has begun to step down for it, unless the request goes before, as it does with this session. It returns nil if
// the target leads, and else blocked.
func awaitOutcome(ctx context.Context, o *connection, s *election.Session, asker *election.Candidate, target election.Ballot, blocked error) error {
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
