package election_test

import (
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-zookeeper/zk"
)

// The floor: leader election as ZooKeeper's documentation has it, in as few
// requests as it takes, on the same client, and with none of what makes it safe
// to use. It loses its way at the first lost reply, and leads as long as it likes.

type floorMember struct {
	conn   *zk.Conn
	path   string
	ballot string
	ahead  <-chan zk.Event // the predecessor's end; nil: it leads
	won    time.Time
	acked  chan time.Time
}

// join creates a ballot, lists, and watches the one in front.
func (m *floorMember) join() error {
	ballot, err := m.conn.Create(m.path+"/n-", nil, everyone, zk.WorldACL(zk.PermAll))
	if err != nil {
		return err
	}
	m.ballot = ballot
	return m.look()
}

func (m *floorMember) look() error {
	for {
		names, _, err := m.conn.Children(m.path)
		if err != nil {
			return err
		}
		names = slices.DeleteFunc(names, func(name string) bool { return !strings.HasPrefix(name, "n-") })
		slices.Sort(names)
		i := slices.Index(names, m.ballot[len(m.path)+1:])
		if i <= 0 {
			m.ahead = nil
			return nil
		}
		exists, _, watch, err := m.conn.ExistsW(m.path + "/" + names[i-1])
		if err != nil {
			return err
		}
		if exists {
			m.ahead = watch
			return nil
		}
	}
}

// lead waits until it leads, and acknowledges.
func (m *floorMember) lead() error {
	for m.ahead != nil {
		<-m.ahead
		if err := m.look(); err != nil {
			return err
		}
	}
	m.won = time.Now()
	if _, err := m.conn.Create(m.path+"/leader", []byte(m.ballot), zk.FlagEphemeral, zk.WorldACL(zk.PermAll)); err != nil {
		return err
	}
	m.acked <- time.Now()
	return nil
}

func (m *floorMember) leave() error {
	_, err := m.conn.Multi(&zk.DeleteRequest{Path: m.path + "/leader", Version: -1}, &zk.DeleteRequest{Path: m.ballot, Version: -1})
	return err
}

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
			if err := members[i].join(); err != nil {
				f.b.Error(err)
			}
		})
		took := time.Since(began)
		for _, m := range members {
			f.must(m.conn.Delete(m.ballot, -1))
		}
		return took
	}
}
