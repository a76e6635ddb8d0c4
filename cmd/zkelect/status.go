package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/zkelection/election"
)

func statusCommand() command {
	return command{
		name:      "status",
		arguments: "--servers HOST:PORT,... --election NAME [FLAGS]",
		about: `
Shows an election: the leader that has acknowledged, with its fencing token and
since when, and all candidates in the order in which they would lead, with their
sessions and data. It asks the ensemble's leader first, so it is no older than
the call.`,
		exits: `
  0  a leader has acknowledged
  1  ZooKeeper does not answer in --wait, or refuses
  2  the command line is wrong
  3  no leader has acknowledged`[1:],
		run: status,
	}
}

// statusJSON is what status --json prints. The leader's token is absent while
// its ballot is not to be seen any more.
type statusJSON struct {
	Election   string          `json:"election"`
	Path       string          `json:"path"`
	Leader     *leaderJSON     `json:"leader"`
	Token      int64           `json:"token,omitempty"`
	Candidates []candidateJSON `json:"candidates"`
}

type candidateJSON struct {
	payload
	Position int    `json:"position"` // 1 leads
	Leads    bool   `json:"leads"`    // and has acknowledged
	Session  string `json:"session"`
	Token    int64  `json:"token"`
	Sequence int64  `json:"sequence"`
	Ballot   string `json:"ballot"`
	Error    string `json:"error,omitempty"` // why it could not be read
}

func status(ctx context.Context, e *env, args []string) (int, error) {
	o := newOptions(e, defaultWait)
	name := o.String("election", "", "the election's `NAME`")
	asJSON := o.Bool("json", false, `print one JSON object: "election", "path", "leader" (null when there is none), "token", "candidates"`)
	if err := o.parse(args); err != nil {
		return exitUsage, err
	}
	if err := errors.Join(o.noArguments(), electionName(*name)); err != nil {
		return exitUsage, err
	}
	s, closeAll, err := o.connect(ctx)
	if err != nil {
		return exitFailed, err
	}
	defer closeAll()
	limit, cancel := o.limit(ctx)
	defer cancel()
	result, err := lookAt(limit, s, *name, o.root)
	if err != nil {
		return exitFailed, misuse(err)
	}
	if *asJSON {
		err = printJSON(e.stdout, result)
	} else {
		err = printStatus(e, result)
	}
	if err != nil {
		return exitFailed, err
	}
	if result.Leader == nil {
		return exitNoLeader, nil
	}
	return exitOK, nil
}

// lookAt reads one election.
func lookAt(ctx context.Context, s *election.Session, name, root string) (*statusJSON, error) {
	observer, err := election.NewObserver(s, name, &election.ObserverOptions{Root: root})
	if err != nil {
		return nil, err
	}
	defer func() { _ = observer.Close() }() // it has no callbacks to wait for
	result := &statusJSON{Election: name, Path: observer.RootVotePath(), Candidates: []candidateJSON{}}
	leader, err := observer.LeaderSync(ctx)
	if err != nil && !errors.Is(err, election.ErrNoLeader) {
		return nil, err
	}
	if err == nil {
		result.Leader = leaderOf(leader)
	}
	ballots, err := observer.Ballots(ctx)
	if err != nil {
		return nil, err
	}
	for i, b := range ballots {
		// The first in line leads once it has acknowledged. Somebody else's
		// acknowledgement there is one that is about to be replaced.
		leads := i == 0 && result.Leader != nil && leader.SessionID == b.SessionID
		if leads {
			result.Token = b.Token
		}
		candidate := candidateJSON{
			payload: payloadOf(b.Data), Position: i + 1, Leads: leads, Session: sessionName(b.SessionID),
			Token: b.Token, Sequence: b.Sequence, Ballot: b.Path,
		}
		if b.Err != nil {
			candidate.Error = b.Err.Error()
		}
		result.Candidates = append(result.Candidates, candidate)
	}
	return result, nil
}

func printStatus(e *env, r *statusJSON) error {
	w := table(e.stdout)
	row := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) } // Flush tells
	row("election\t%s", r.Election)
	row("path\t%s", r.Path)
	if r.Leader == nil {
		row("leader\tnone has acknowledged")
	} else {
		row("leader\t%s", printable(r.Leader.bytes()))
		row("session\t%s", r.Leader.Session)
		row("since\t%s", r.Leader.Since.Local().Format(timeFormat))
		if r.Token != 0 {
			row("token\t%d", r.Token)
		}
	}
	if len(r.Candidates) == 0 {
		row("candidates\tnone")
		return w.Flush()
	}
	row("candidates\t%d", len(r.Candidates))
	if err := w.Flush(); err != nil {
		return err
	}
	w = table(e.stdout)
	row("\n\tSTATE\tDATA\tSESSION\tTOKEN\tSEQUENCE")
	for _, c := range r.Candidates {
		state := "waits"
		switch {
		case c.Leads:
			state = "leads"
		case c.Position == 1:
			state = "takes over"
		}
		data := printable(c.bytes())
		if c.Error != "" {
			data = "(" + c.Error + ")"
		}
		row("%d\t%s\t%s\t%s\t%d\t%d", c.Position, state, data, c.Session, c.Token, c.Sequence)
	}
	return w.Flush()
}
