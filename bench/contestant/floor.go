package main

import (
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/zkelection/election/internal/floor"
)

// barest is a candidate of the floor.
type barest struct {
	contest *contest
	i       int
	conn    *zk.Conn
	path    string
	c       *floor.Candidate // nil while it does not stand
	leading chan error       // what Lead has returned
}

func newFloor(c *contest, i int, servers []string, path string, timeout time.Duration) (candidate, error) {
	conn, events, err := zk.Connect(servers, timeout, zk.WithLogger(silent{}))
	if err != nil {
		return nil, err
	}
	for e := range events {
		if e.State == zk.StateHasSession {
			break
		}
	}
	go func() {
		for range events {
		}
	}()
	made.Do(func() { err = makeNodes(conn, path) })
	return &barest{contest: c, i: i, conn: conn, path: path}, err
}

// made is the election's node, by whoever connects first.
var made sync.Once

func makeNodes(conn *zk.Conn, path string) error {
	node := ""
	for part := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
		node += "/" + part
		if _, err := conn.Create(node, nil, 0, zk.WorldACL(zk.PermAll)); err != nil && !errors.Is(err, zk.ErrNodeExists) {
			return err
		}
	}
	return nil
}

func (b *barest) session() int64 { return b.conn.SessionID() }

func (b *barest) join() error {
	c, err := floor.Join(b.conn, b.path)
	if err != nil {
		return err
	}
	b.contest.hasPlace()
	waits, leading := !c.Leads(), make(chan error, 1)
	b.c, b.leading = c, leading
	go func() {
		err := c.Lead(func() { b.contest.leads(b.i) })
		if err == nil {
			b.contest.acknowledged()
		} else if waits && !errors.Is(err, floor.ErrLeft) {
			fail(err)
		}
		leading <- err
	}()
	if waits {
		return nil
	}
	err = <-leading
	leading <- err // for leave
	return err
}

// leave withdraws one that waits. That may have come to lead meanwhile, and to have acknowledged, or be about to.
func (b *barest) leave() error {
	select {
	case err := <-b.leading:
		if err != nil {
			return err
		}
		return b.c.Resign()
	default:
	}
	if err := b.c.Withdraw(); err != nil {
		return err
	}
	if err := <-b.leading; err == nil {
		return b.conn.Delete(b.path+"/leader", -1)
	}
	return nil
}

func (b *barest) disconnect() error {
	b.conn.Close()
	return nil
}

type silent struct{}

func (silent) Printf(string, ...any) {}
