package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/zkelection/election"
)

func statusCommand(e *env) *cobra.Command {
	var name string
	var asJSON, wide bool
	c := &cobra.Command{
		Use:   "status --election NAME [FLAGS]",
		Short: "show an election: its leader and its candidates in order",
		Long: `Shows an election: the leader that has acknowledged, with its fencing token and
since when, and all candidates in the order in which they would lead, with their
sessions and data. It asks the ensemble's leader first, so it is no older than
the call. A leader that has died, or lost its lease, is shown as leading until
its session has ended: its own /health knows better.

--wide and --json have each candidate's priority, too: 0 for a member of v0.1 or
of the Ruby gem. Whoever stands aside (zkelect run --ready, StandWhile) has no
ballot, so it is not to be seen here: zkelect run says that and why on standard
error, a service in its /health, and the metric election_standing that it is so.

Exit status:

    0  a leader has acknowledged
    1  ZooKeeper does not answer in --wait, or refuses
    2  the command line is wrong
    3  no leader has acknowledged, or there is no such election`,
		Example:               "  zkelect status --election scheduler",
		Args:                  noArguments,
		DisableFlagsInUseLine: true,
	}
	o := &connection{env: e}
	o.electionFlag(c, &name)
	c.Flags().BoolVar(&asJSON, "json", false, `print one JSON object: "election", "path", "leader" (null when there is none), "token", "candidates" and, if there is no such election, "error"`)
	c.Flags().BoolVar(&wide, "wide", false, "do not cut data that is long, and show priorities")
	o.flags(c, defaultWait)
	c.RunE = func(c *cobra.Command, _ []string) error { return status(c.Context(), o, name, asJSON, wide) }
	return c
}

// statusJSON is what status --json prints. The leader's token is absent while its ballot is not to be seen any more.
type statusJSON struct {
	Election   string          `json:"election"`
	Path       string          `json:"path"`
	Leader     *leaderJSON     `json:"leader"`
	Token      int64           `json:"token,omitempty"`
	Candidates []candidateJSON `json:"candidates"`
	Error      string          `json:"error,omitempty"`
}

type candidateJSON struct {
	payload
	Position int    `json:"position"` // 1 leads
	Leads    bool   `json:"leads"`    // and has acknowledged
	Session  string `json:"session"`
	Token    int64  `json:"token"`
	Sequence int64  `json:"sequence"`
	Priority int    `json:"priority"`
	Ballot   string `json:"ballot"`
	Error    string `json:"error,omitempty"` // why it could not be read
}

func status(ctx context.Context, o *connection, name string, asJSON, wide bool) error {
	s, closeAll, err := o.connect(ctx)
	if err != nil {
		return misuse(&exit{exitFailed, err})
	}
	defer closeAll()
	limit, cancel := o.limit(ctx)
	defer cancel()
	result, err := lookAt(limit, s, name, o.root)
	if err != nil {
		return misuse(&exit{exitFailed, err})
	}
	if result.Leader == nil && len(result.Candidates) == 0 {
		there, err := exists(limit, s, result.Path)
		if err != nil {
			return &exit{exitFailed, err}
		}
		if !there {
			return noSuchElection(limit, s, o, result, asJSON)
		}
	}
	if asJSON {
		err = printJSON(o.env.stdout, result)
	} else {
		err = printStatus(o.env, result, wide)
	}
	if err != nil {
		return &exit{exitFailed, err}
	}
	if result.Leader == nil {
		return &exit{status: exitNoLeader}
	}
	return nil
}

// noSuchElection says so, and which there are that are called alike.
func noSuchElection(ctx context.Context, s *election.Session, o *connection, result *statusJSON, asJSON bool) error {
	if asJSON {
		result.Error = "no such election"
		if err := printJSON(o.env.stdout, result); err != nil {
			return &exit{exitFailed, err}
		}
	}
	hint := ""
	if names, err := elections(ctx, s, o.root); err == nil { // without the right to list there is no hint
		if similar := mostSimilar(result.Election, names); similar != "" {
			hint = fmt.Sprintf("; there is %s", similar)
		}
	}
	return &exit{exitNoLeader, fmt.Errorf("no such election: %s below %s%s", result.Election, o.root, hint)}
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
		// Somebody else's acknowledgement is one that is about to be replaced.
		leads := i == 0 && hasAcknowledged(b, leader)
		if leads {
			result.Token = b.Token
		}
		candidate := candidateJSON{
			payload: payloadOf(b.Data), Position: i + 1, Leads: leads, Session: sessionName(b.SessionID),
			Token: b.Token, Sequence: b.Sequence, Priority: b.Priority, Ballot: b.Path,
		}
		if b.Err != nil {
			candidate.Error = b.Err.Error()
		}
		result.Candidates = append(result.Candidates, candidate)
	}
	return result, nil
}

func printStatus(e *env, r *statusJSON, wide bool) error {
	limit := tableWidth(e, wide)
	head := &table{limit: limit}
	head.row("election", r.Election)
	head.row("path", r.Path)
	if r.Leader == nil {
		head.row("leader", "none has acknowledged")
	} else {
		head.row("leader", printable(r.Leader.bytes()))
		head.row("session", r.Leader.Session)
		head.row("since", r.Leader.Since.Local().Format(timeFormat))
		if r.Token != 0 {
			head.row("token", strconv.FormatInt(r.Token, 10))
		}
	}
	if len(r.Candidates) == 0 {
		head.row("candidates", "none")
		return head.print(e.stdout)
	}
	head.row("candidates", strconv.Itoa(len(r.Candidates)))
	head.row("")
	if err := head.print(e.stdout); err != nil {
		return err
	}
	line := &table{limit: limit}
	columns := []string{"", "STATE", "SESSION", "TOKEN", "SEQUENCE"}
	if wide {
		columns = append(columns, "PRIORITY")
	}
	line.row(append(columns, "DATA")...)
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
		cells := []string{strconv.Itoa(c.Position), state, c.Session, strconv.FormatInt(c.Token, 10), strconv.FormatInt(c.Sequence, 10)}
		if wide {
			cells = append(cells, strconv.Itoa(c.Priority))
		}
		line.row(append(cells, data)...)
	}
	return line.print(e.stdout)
}

// hasAcknowledged reports whether leader, which is empty when nobody has acknowledged, is the first in line. Two candidates of a program may
// share a session, so that does not tell alone; an acknowledgement is younger than the ballot that it was made for.
func hasAcknowledged(first election.Ballot, leader election.Leader) bool {
	return leader.SessionID == first.SessionID && leader.Zxid > first.Token
}
