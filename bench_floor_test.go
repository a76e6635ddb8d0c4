package election_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"

	"github.com/zkelection/election/internal/floor"
)

// floorMember is a candidate of the floor, what the library's times are compared with.
type floorMember struct {
	*floor.Candidate // once it has joined
	conn             *zk.Conn
	path             string
	ballot           string
	won              time.Time
	acked            chan time.Time
}

func (m *floorMember) join() (err error) {
	if m.Candidate, err = floor.Join(m.conn, m.path); err == nil {
		m.ballot = m.Ballot()
	}
	return err
}

// lead waits until it leads, and acknowledges.
func (m *floorMember) lead() error {
	err := m.Lead(func() { m.won = time.Now() })
	if err == nil {
		m.acked <- time.Now()
	}
	return err
}

func (m *floorMember) leave() error { return m.Resign() }

type floorLine struct {
	*field
	line     []*floorMember
	expected atomic.Pointer[string]
	told     chan time.Time
}

func (f *field) floorPath() string {
	conn := f.client()
	path := "/floor" + strings.ReplaceAll(f.root, "/", "-")
	_, err := conn.Create(path, nil, 0, zk.WorldACL(zk.PermAll))
	f.must(err)
	return path
}

func newFloorLine(f *field, n int) *floorLine {
	path := f.floorPath()
	l := &floorLine{field: f, told: make(chan time.Time, 1)}
	var conns []*zk.Conn
	for range sharing(n) {
		conns = append(conns, f.client())
	}
	for i := range n {
		m := &floorMember{conn: conns[i%len(conns)], path: path, acked: make(chan time.Time, 1)}
		f.must(m.join())
		l.line = append(l.line, m)
	}
	f.must(l.line[0].lead())
	<-l.line[0].acked
	l.await(l.line[1])
	observer := f.client()
	go l.observe(observer, path+"/leader")
	return l
}

// await lets the next in line wait to lead.
func (l *floorLine) await(m *floorMember) {
	go func() {
		if err := m.lead(); err != nil && !errors.Is(err, zk.ErrClosing) && !errors.Is(err, zk.ErrConnectionClosed) {
			l.b.Error(err)
		}
	}()
}

// write is how long one write takes that changes nothing: the second of two, for
// a connection that is awake.
func (l *floorLine) write() (took time.Duration) {
	for range 2 {
		began := time.Now()
		_, err := l.line[0].conn.Multi(&zk.CheckVersionRequest{Path: "/", Version: -1})
		l.must(err)
		took = time.Since(began)
	}
	return took
}

func (l *floorLine) failover() (began time.Time, m moments) {
	leader, next := l.line[0], l.line[1]
	l.line = l.line[1:]
	l.expected.Store(&next.ballot)
	began = time.Now()
	l.must(leader.leave())
	m.acked = <-next.acked
	m.won = next.won
	m.observed = <-l.told
	again := &floorMember{conn: leader.conn, path: leader.path, acked: make(chan time.Time, 1)}
	l.must(again.join())
	l.line = append(l.line, again)
	l.await(l.line[1])
	return began, m
}

// observe is the barest observer: it reads whenever something has changed.
func (l *floorLine) observe(conn *zk.Conn, path string) {
	for {
		exists, _, watch, err := conn.ExistsW(path)
		if err != nil {
			return
		}
		if exists {
			data, _, changed, err := conn.GetW(path)
			if err == nil {
				if want := l.expected.Load(); want != nil && *want == string(data) {
					l.expected.Store(nil)
					l.told <- time.Now()
				}
				watch = changed
			} else if !errors.Is(err, zk.ErrNoNode) {
				return
			}
		}
		if event := <-watch; event.Err != nil {
			return
		}
	}
}

// newFloorJoin joins until the last one watches the one in front.
func newFloorJoin(f *field, n int) func(atOnce int) time.Duration {
	path := f.floorPath()
	leader := &floorMember{conn: f.client(), path: path, acked: make(chan time.Time, 1)}
	f.must(leader.join())
	f.must(leader.lead())
	var conns []*zk.Conn
	for range sharing(n) {
		conns = append(conns, f.client())
	}
	return func(atOnce int) time.Duration {
		members := make([]*floorMember, n)
		began := time.Now()
		each(n, atOnce, func(i int) {
			members[i] = &floorMember{conn: conns[i%len(conns)], path: path}
			assert.NoError(f.b, members[i].join())
		})
		took := time.Since(began)
		for _, m := range members {
			f.must(m.conn.Delete(m.ballot, -1))
		}
		return took
	}
}
