package election_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/zkelection/election"
)

// BenchmarkSeries measures failovers in a row, as in a rolling restart: each leader closes
// as soon as it has acknowledged, or 50 ms after the one before. Nobody waits until the next
// candidate has learned that it is the next, as BenchmarkFailover does; "waiting" does, for comparison. Each candidate
// has a session of its own, up to a hundred, and beyond that none that its neighbours in the line have. Packets are
// counted from each Close to the acknowledgement, and for 10 ms from the Close on where there is a pause: without those
// who join meanwhile, but with all that waiting costs in that time, and with heartbeats. TestBudgetSeries has the exact
// numbers.
func BenchmarkSeries(b *testing.B) {
	const failovers = 10 // in a row
	onBoth(b, 2*time.Second, func(b *testing.B, start func(*testing.B) *field) {
		for _, n := range []int{2, 3, 10, 100, 1000} {
			for _, pace := range []struct {
				name string
				gap  time.Duration
			}{{"no-pause", 0}, {"50ms", 50 * time.Millisecond}, {"waiting", -1}} {
				b.Run(fmt.Sprintf("n=%d/%s", n, pace.name), func(b *testing.B) {
					f := start(b)
					library, floor := newSeries(f, n, libraryRunner), newSeries(f, n, floorRunner)
					var s samples
					for i := 0; b.Loop(); i++ {
						library.settle()
						for _, first := range []bool{i%2 == 0, i%2 != 0} {
							if first {
								library.run(&s, "", failovers, pace.gap)
							} else {
								floor.run(&s, "floor-", failovers, pace.gap)
							}
						}
					}
					s.report(b)
					b.ReportMetric(s.median("packets"), "packets")
					b.ReportMetric(s.median("floor-packets"), "floor-packets")
				})
			}
		}
	})
}

// runner is one that stands in a series' line.
type runner interface {
	// join stands in line, at its end.
	join()
	// leave gives up leadership.
	leave()
	// leads returns when it has won and acknowledged, once it has.
	leads() (won, acked time.Time)
	// ready waits until it could lead without a delay, being the next.
	ready()
}

// series is an election whose leaders go one after another, the leader first.
type series struct {
	*field
	packets atomic.Int64
	line    []runner
}

func newSeries(f *field, n int, runs func(s *series) func() runner) *series {
	s := &series{field: f}
	counted := *f
	counted.dial = func(network, address string, timeout time.Duration) (net.Conn, error) {
		conn, err := f.dial(network, address, timeout)
		return &countingConn{Conn: conn, frames: &s.packets}, err
	}
	s.field = &counted
	runners := runs(s)
	for i := range n {
		r := runners()
		r.join()
		s.line = append(s.line, r)
		if i == 0 {
			r.leads()
		}
	}
	return s
}

// settle lets the next one become ready.
func (s *series) settle() { s.line[1].ready() }

// run lets so many leaders go. Those who have gone join again at the end, or as soon as the line
// would be too short.
func (s *series) run(into *samples, prefix string, failovers int, gap time.Duration) {
	const counted = 10 * time.Millisecond
	short := min(3, len(s.line))
	var gone []runner
	var packets int64
	for range failovers {
		began, before := time.Now(), s.packets.Load()
		s.line[0].leave()
		won, acked := s.line[1].leads()
		gone, s.line = append(gone, s.line[0]), s.line[1:]
		packets += s.packets.Load() - before
		into.took(prefix+"win", won.Sub(began))
		into.took(prefix+"ack", acked.Sub(began))
		if len(s.line) < short {
			gone[0].join()
			s.line, gone = append(s.line, gone[0]), gone[1:]
		}
		switch {
		case gap > 0:
			before = s.packets.Load()
			time.Sleep(max(0, counted-time.Since(began)))
			packets += s.packets.Load() - before
			time.Sleep(max(0, gap-time.Since(began)))
		case gap < 0:
			s.settle()
		}
	}
	into.add(prefix+"packets", float64(packets)/float64(failovers))
	for _, r := range gone {
		r.join()
		s.line = append(s.line, r)
	}
}

// countingConn counts the frames that are written to it, but for pings.
type countingConn struct {
	net.Conn
	frames *atomic.Int64
	begun  []byte // of a frame that is being written, up to where its kind is told
	rest   int    // bytes of it to come
}

func (c *countingConn) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		if c.rest > 0 {
			n := min(c.rest, len(rest))
			c.rest, rest = c.rest-n, rest[n:]
			continue
		}
		n := min(12-len(c.begun), len(rest)) // length, number, kind: any request has as much
		c.begun, rest = append(c.begun, rest[:n]...), rest[n:]
		if len(c.begun) < 12 {
			break
		}
		const ping = 11
		if binary.BigEndian.Uint32(c.begun[8:]) != ping {
			c.frames.Add(1)
		}
		c.rest, c.begun = int(binary.BigEndian.Uint32(c.begun))-8, c.begun[:0]
	}
	return c.Conn.Write(p)
}

// libraryRun is a candidate of this library, hot.
type libraryRun struct {
	*election.Candidate
	s          *series
	session    *election.Session
	renewed    *renewals
	won, acked chan time.Time
}

const mostSessions = 100

func libraryRunner(s *series) func() runner {
	var sessions []*libraryRun
	i := -1
	return func() runner {
		if i++; i < mostSessions {
			renewed := &renewals{}
			sessions = append(sessions, &libraryRun{session: s.session(func(o *election.SessionOptions) {
				o.Metrics, o.TickTime = renewed.metrics(), s.timeout/2
			}), renewed: renewed})
		}
		on := sessions[i%len(sessions)]
		return &libraryRun{s: s, session: on.session, renewed: on.renewed, won: make(chan time.Time, 1), acked: make(chan time.Time, 1)}
	}
}

func (r *libraryRun) join() {
	var err error
	r.Candidate, err = election.NewCandidate(r.session, "series", &election.CandidateOptions{
		Root: r.s.root, HotStandby: true,
		Metrics: &election.Metrics{TakenOver: func(string, time.Duration) { r.acked <- time.Now() }},
	})
	r.s.must(err)
	r.OnWin(func(context.Context, election.Term) error { r.won <- time.Now(); return nil })
	r.s.must(r.Vote(r.s.ctx()))
}

func (r *libraryRun) leave() { r.s.must(r.Close()) }

func (r *libraryRun) leads() (won, acked time.Time) { return <-r.won, <-r.acked }

func (r *libraryRun) ready() {
	for before := r.renewed.count.Load(); r.renewed.count.Load() == before; {
		time.Sleep(time.Millisecond)
	}
}

// floorRun is one by the barest recipe.
type floorRun struct {
	*floorMember
	s *series
}

func floorRunner(s *series) func() runner {
	path := s.floorPath()
	var conns []*zk.Conn
	i := -1
	return func() runner {
		if i++; i < mostSessions {
			conns = append(conns, s.client())
		}
		return &floorRun{&floorMember{conn: conns[i%len(conns)], path: path, acked: make(chan time.Time, 1)}, s}
	}
}

func (r *floorRun) join() {
	r.s.must(r.floorMember.join())
	go func() { _ = r.lead() }() // until the connection is closed
}

func (r *floorRun) leave() { r.s.must(r.floorMember.leave()) }

func (r *floorRun) leads() (won, acked time.Time) {
	acked = <-r.acked
	return r.won, acked
}

func (r *floorRun) ready() {}

// BenchmarkAcknowledge measures what the check of the ballot, and the second operation that brings the
// czxid and the version, add to the creation of an acknowledgement: on the server, and by one client alone.
func BenchmarkAcknowledge(b *testing.B) {
	onBoth(b, 10*time.Second, func(b *testing.B, start func(*testing.B) *field) {
		f := start(b)
		conn, path := f.client(), f.floorPath()
		ballot, err := conn.Create(path+"/ballot", nil, zk.FlagEphemeral, zk.WorldACL(zk.PermAll))
		f.must(err)
		ack, data, acl := path+"/leader", []byte(ballot), zk.WorldACL(zk.PermAll)
		check := &zk.CheckVersionRequest{Path: ballot, Version: -1}
		multi := func(ops ...any) func() error {
			return func() error { _, err := conn.Multi(ops...); return err }
		}
		ways := []struct {
			name string
			ask  func() error
		}{
			{"create", func() error { _, err := conn.Create(ack, data, zk.FlagEphemeral, acl); return err }},
			{"check-create", multi(check, &zk.CreateRequest{Path: ack, Data: data, Acl: acl, Flags: zk.FlagEphemeral})},
			{"check-create-set", multi(check, &zk.CreateRequest{Path: ack, Data: []byte{}, Acl: acl, Flags: zk.FlagEphemeral},
				&zk.SetDataRequest{Path: ack, Data: data, Version: -1})},
		}
		var s samples
		for i := 0; b.Loop(); i++ {
			for j := range ways {
				way := ways[(i+j)%len(ways)]
				began := time.Now()
				f.must(way.ask())
				s.took(way.name, time.Since(began))
				f.must(conn.Delete(ack, -1))
			}
		}
		s.report(b)
		for _, way := range ways[1:] {
			b.ReportMetric(s.median(way.name)/s.median("create"), way.name+"/create")
		}
	})
}
