// Command firstversion is a member of an election as v0.1.0 has it: the test that
// runs it builds it from that version's sources. It votes, prints what happens to it, and does what
// the lines of its standard input say, which is also how long it lives.
//
// While it leads it counts: it reads the counter once, and then writes it under the
// guard of its term, on the condition that it is as it left it. Somebody else's write
// while its ballot stands is a second leader.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/zkelection/election"
)

func main() {
	servers, timeout, name, data, counter := os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5]
	limit, err := time.ParseDuration(timeout)
	check(err)
	s, err := election.Connect(strings.Split(servers, ","), limit, &election.SessionOptions{Logger: slog.New(slog.DiscardHandler)})
	check(err)
	c, err := election.NewCandidate(s, name, &election.CandidateOptions{Data: []byte(data), Follow: election.FollowLeader, HotStandby: true})
	check(err)
	c.OnWin(func(ctx context.Context, term election.Term) error {
		say("won %d", term.Token)
		stat, err := read(s.Conn(), counter, term.Token)
		if err != nil {
			say("TWO LEAD: %v", err)
			return nil
		}
		go count(ctx, s.Conn(), counter, term, stat.Version)
		return nil
	})
	c.OnStepDown(func(context.Context, election.Term, error) { say("stepped down") })
	c.OnLose(func(_ context.Context, leader election.Leader) { say("lost to %s", leader.Data) })
	vote := func() {
		check(c.Vote(context.Background()))
		say("voted %s", c.VotePath())
	}
	vote()
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		switch lines.Text() {
		case "resign":
			check(c.Resign(context.Background()))
			say("resigned")
		case "vote":
			vote()
		}
	}
	check(s.Close())
	say("closed")
}

// read is the counter as this leader finds it: whoever led before had a lower token.
func read(conn *zk.Conn, counter string, token int64) (*zk.Stat, error) {
	data, stat, err := conn.Get(counter)
	if err != nil {
		return nil, err
	}
	if former, err := strconv.ParseInt(string(data), 10, 64); err != nil || former > token {
		return nil, fmt.Errorf("token %d after %s (%w)", token, data, err)
	}
	return stat, nil
}

func count(ctx context.Context, conn *zk.Conn, counter string, term election.Term, version int32) {
	for ; ctx.Err() == nil; version++ {
		_, err := conn.Multi(term.Guard(), &zk.SetDataRequest{Path: counter, Data: strconv.AppendInt(nil, term.Token, 10), Version: version})
		switch {
		case errors.Is(err, zk.ErrBadVersion):
			say("TWO LEAD: somebody has written beside %d", term.Token)
			return
		case err != nil:
			return // the ballot is gone, or the connection
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func say(format string, args ...any) { fmt.Printf(format+"\n", args...) }

func check(err error) {
	if err != nil {
		say("error %v", err)
		os.Exit(1)
	}
}
