package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/zkelection/election"
)

// library is a candidate of this library: of its public API, and nothing else.
type library struct {
	contest *contest
	i       int
	on      *election.Session
	opts    election.CandidateOptions
	c       *election.Candidate // nil while it does not stand
}

func newLibrary(c *contest, i int, servers []string, path string, timeout, tick time.Duration, hot bool) (candidate, error) {
	s, err := election.Connect(servers, timeout, &election.SessionOptions{TickTime: tick, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	opts := election.CandidateOptions{Root: path, HotStandby: hot, Data: fmt.Append(nil, i)}
	return &library{contest: c, i: i, on: s, opts: opts}, s.AwaitConnected(context.Background())
}

func (l *library) session() int64 { return l.on.ID() }

// join waits until the candidate knows the leader, which is more than the others wait for, or has acknowledged.
func (l *library) join() error {
	stands := make(chan struct{})
	standing := sync.OnceFunc(func() { close(stands) })
	opts := l.opts
	opts.Metrics = &election.Metrics{TakenOver: func(string, time.Duration) {
		l.contest.acknowledged()
		standing()
	}}
	c, err := election.NewCandidate(l.on, "bench", &opts)
	if err != nil {
		return err
	}
	c.OnWin(func(context.Context, election.Term) error { l.contest.leads(l.i); return nil })
	c.OnLose(func(context.Context, election.Leader) { standing() })
	l.c = c
	if err := c.Vote(context.Background()); err != nil {
		return err
	}
	l.contest.hasPlace()
	<-stands
	return nil
}

func (l *library) leave() error { return l.c.Close() }

func (l *library) disconnect() error { return l.on.Close() }
