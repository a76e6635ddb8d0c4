package main

import (
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/zkelection/election/internal/monotonic"
	"github.com/zkelection/election/proof/chaos/internal/history"
)

// simple is a candidate as many a service has written it, after ZooKeeper's
// recipe: the lowest ballot leads, the others watch their predecessor. It is
// what the library is measured against, and what the checker must catch.
//
// As "naive" it leads while it is the lowest and the client says that it has a
// session. As "simple" it also wants a heartbeat of the quorum, and takes any
// answer as a lease of half the session timeout from the heartbeat's sending:
// a rule that looks right and is not.
//
// Its run goroutine owns what is not atomic.
type simple struct {
	options
	conn   *zk.Conn
	token  atomic.Int64 // of the ballot that is the lowest; 0 when none of ours is
	ballot atomic.Bool
	// owner is the session that the ballot belongs to, until is the lease of
	// the mode "simple".
	owner atomic.Int64
	until atomic.Int64
}

func newSimple(o options) (*simple, error) {
	conn, events, err := zk.Connect(o.servers, o.timeout, zk.WithDialer(o.dialer), zk.WithLogger(quiet{}))
	if err != nil {
		return nil, err
	}
	go func() {
		for range events {
		}
	}()
	s := &simple{options: o, conn: conn}
	go s.run()
	if o.mode == "simple" {
		go s.beat()
	}
	if o.poke != "" {
		go func() {
			for {
				for conn.State() != zk.StateHasSession {
					time.Sleep(10 * time.Millisecond)
				}
				watchPoke(conn, o.poke)
			}
		}()
	}
	return s, nil
}

func (s *simple) leads() (token, until int64, leads bool) {
	token = s.token.Load()
	if token == 0 || s.conn.SessionID() != s.owner.Load() {
		return 0, 0, false
	}
	if s.mode == "simple" {
		until = s.until.Load()
		return token, until, monotonic.Now() < until
	}
	return token, 0, s.conn.State() == zk.StateHasSession
}

func (s *simple) server() string {
	if s.conn.State() == zk.StateHasSession {
		return s.conn.Server()
	}
	return ""
}

func (s *simple) voted() bool { return s.ballot.Load() }
func (s *simple) resign()     {}
func (s *simple) vote()       {}
func (s *simple) close()      { s.conn.Close() }

func (s *simple) transfer(string) {}

func (s *simple) run() {
	for {
		err := s.contend()
		slog.Info("simple: contends again", "error", err)
		s.token.Store(0)
		s.ballot.Store(false)
		time.Sleep(50 * time.Millisecond)
	}
}

// contend casts a ballot, waits for its turn, leads until the session is
// another one, and returns why it does no more.
func (s *simple) contend() error {
	root := "/simple-" + s.election
	path, err := s.conn.Create(root+"/ballot-", []byte(s.name), zk.FlagEphemeral|zk.FlagSequence, zk.WorldACL(zk.PermAll))
	if errors.Is(err, zk.ErrNoNode) {
		if _, err := s.conn.Create(root, nil, 0, zk.WorldACL(zk.PermAll)); err != nil && !errors.Is(err, zk.ErrNodeExists) {
			return err
		}
		return err
	}
	if err != nil {
		return err
	}
	_, stat, own, err := s.conn.ExistsW(path)
	if err != nil {
		return err
	}
	s.owner.Store(stat.EphemeralOwner)
	s.ballot.Store(true)
	mine := strings.TrimPrefix(path, root+"/")
	for {
		children, _, err := s.conn.Children(root)
		if err != nil {
			return err
		}
		slices.Sort(children)
		place := slices.Index(children, mine)
		if place < 0 {
			return errors.New("the ballot is gone")
		}
		if place == 0 {
			break
		}
		exists, _, watch, err := s.conn.ExistsW(root + "/" + children[place-1])
		if err != nil {
			return err
		}
		if exists {
			<-watch
		}
	}
	s.token.Store(stat.Czxid)
	s.out.Write(history.Event{Kind: history.Win, Token: stat.Czxid})
	s.out.Write(history.Event{Kind: history.Acked, Token: stat.Czxid})
	<-own // deleted, or the session has ended
	return errors.New("led")
}

// beat keeps the lease of the mode "simple".
func (s *simple) beat() {
	for {
		session, sent := s.conn.SessionID(), monotonic.Now()
		_, err := s.conn.Multi(&zk.CheckVersionRequest{Path: "/", Version: -1})
		if err == nil && session == s.conn.SessionID() {
			s.until.Store(sent + int64(s.timeout/2))
		}
		time.Sleep(s.timeout / 8)
	}
}

type quiet struct{}

func (quiet) Printf(string, ...any) {}
