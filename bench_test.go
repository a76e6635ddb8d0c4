package election_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election"
	"github.com/zkelection/election/testutil"
	"github.com/zkelection/election/testutil/realzk"
)

// Benchmarks, on the in-process ZooKeeper and on a real one. Times on a busy
// machine say little by themselves, so each iteration does the same with the
// floor as well, and the ratio is reported: the floor is the barest recipe on the
// same client (internal/floor). All times are medians over the iterations, in
// microseconds. docs/performance.md has results.

// field is a backend for one benchmark, with what it has connected.
type field struct {
	b       *testing.B
	servers []string
	dial    zk.Dialer
	timeout time.Duration
	root    string // of this benchmark's elections
}

const everyone = zk.FlagEphemeral | zk.FlagSequence

// onBoth runs a benchmark on both backends.
func onBoth(b *testing.B, timeout time.Duration, run func(b *testing.B, start func(b *testing.B) *field)) {
	b.Run("inprocess", func(b *testing.B) {
		run(b, func(b *testing.B) *field {
			srv, err := testutil.NewServer(&testutil.ServerOptions{NoListen: true, TickTime: timeout / 2})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(srv.Close)
			return &field{b: b, servers: []string{"mem"}, dial: srv.Dialer(), timeout: timeout}
		})
	})
	b.Run("zookeeper", func(b *testing.B) {
		// As in production, with the compiler that runs fast.
		ensemble := realzk.StartZooKeeperWith(b, 1, realzk.EnsembleOptions{
			TickTime: timeout / 2, JavaOptions: []string{"-XX:TieredStopAtLevel=4", "-Xmx1g"},
		})
		var count atomic.Int64
		run(b, func(b *testing.B) *field {
			f := &field{b: b, servers: ensemble.Servers(), dial: net.DialTimeout, timeout: timeout}
			f.root = fmt.Sprintf("/bench%d", count.Add(1))
			return f
		})
	})
}

func (f *field) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	f.b.Cleanup(cancel)
	return ctx
}

func (f *field) session(set ...func(*election.SessionOptions)) *election.Session {
	f.b.Helper()
	opts := &election.SessionOptions{Dialer: f.dial, Logger: slog.New(slog.DiscardHandler)}
	for _, s := range set {
		s(opts)
	}
	s, err := election.Connect(f.servers, f.timeout, opts)
	require.NoError(f.b, err)
	f.b.Cleanup(func() { _ = s.Close() })
	require.NoError(f.b, s.AwaitConnected(f.ctx()))
	return s
}

// client is a connection for the floor, which does not survive the loss of one,
// so it is given the time that a busy machine may take.
func (f *field) client() *zk.Conn {
	f.b.Helper()
	conn, events, err := zk.Connect([]string{"127.0.0.1:1"}, 5*f.timeout, zk.WithLogger(silent{}),
		zk.WithDialer(func(network, _ string, timeout time.Duration) (net.Conn, error) {
			return f.dial(network, f.servers[0], timeout)
		}))
	require.NoError(f.b, err)
	f.b.Cleanup(conn.Close)
	ready := make(chan struct{})
	go func() {
		for e := range events {
			if e.State == zk.StateHasSession && ready != nil {
				close(ready)
				ready = nil
			}
		}
	}()
	<-ready
	return conn
}

func (f *field) must(err error) {
	f.b.Helper()
	require.NoError(f.b, err)
}

// sharing spreads n candidates over no more than so many sessions: each has
// buffers of three megabytes in the client.
func sharing(n int) int { return min(n, 50) }

// samples are measurements by name, in the order in which they came up.
type samples struct {
	names  []string
	values map[string][]float64
}

func (s *samples) add(name string, value float64) {
	if s.values == nil {
		s.values = make(map[string][]float64)
	}
	if s.values[name] == nil {
		s.names = append(s.names, name)
	}
	s.values[name] = append(s.values[name], value)
}

func (s *samples) took(name string, d time.Duration) { s.add(name, float64(d.Nanoseconds())/1e3) }

func (s *samples) median(name string) float64 {
	v := slices.Sorted(slices.Values(s.values[name]))
	if len(v) == 0 {
		return 0
	}
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// report gives the medians, and for each that the floor has too the ratio.
func (s *samples) report(b *testing.B) {
	b.ReportMetric(0, "ns/op")
	for _, name := range s.names {
		b.ReportMetric(s.median(name), name+"-µs")
		if floor := s.median("floor-" + name); floor > 0 {
			b.ReportMetric(s.median(name)/floor, name+"/floor")
		}
	}
}

// --- failover

// moments are when things happened after the leader had begun to close.
type moments struct{ won, acked, observed time.Time }

// line is an election's candidates, the leader first, in one implementation.
type line interface {
	// failover closes the leader, and returns when the next one has been
	// observed; the closed one is then again at the end of the line.
	failover() (began time.Time, m moments)
}

// BenchmarkFailover measures from the leader's Close to the next one's OnWin, to
// its acknowledgement, and until an observer has been told.
func BenchmarkFailover(b *testing.B) {
	onBoth(b, 2*time.Second, func(b *testing.B, start func(*testing.B) *field) {
		for _, n := range []int{2, 10, 100, 1000} {
			for _, kind := range []string{"hot", "cold"} {
				b.Run(fmt.Sprintf("n=%d/%s", n, kind), func(b *testing.B) {
					f := start(b)
					library, floor := newLibraryLine(f, n, kind == "hot"), newFloorLine(f, n)
					var s samples
					measure := func(prefix string, l line) {
						began, m := l.failover()
						s.took(prefix+"win", m.won.Sub(began))
						s.took(prefix+"ack", m.acked.Sub(began))
						s.took(prefix+"told", m.observed.Sub(began))
					}
					for i := 0; b.Loop(); i++ {
						library.settle() // an idle moment for both
						s.took("write", floor.write())
						if i%2 == 0 {
							measure("", library)
							measure("floor-", floor)
						} else {
							measure("floor-", floor)
							measure("", library)
						}
					}
					s.report(b)
					// Takeovers are made of writes: how many more these are worth.
					for _, name := range []string{"win", "ack"} {
						more := s.median(name) - s.median("floor-"+name)
						b.ReportMetric(more/s.median("write"), name+"-writes-more")
					}
				})
			}
		}
	})
}

type libraryLine struct {
	*field
	opts     *election.CandidateOptions
	line     []*libraryMember
	told     chan time.Time
	expected atomic.Pointer[string]
}

type libraryMember struct {
	*election.Candidate
	session   *election.Session
	renewed   *renewals
	id        string
	won, told chan time.Time
}

// renewals counts those of a session's lease: one that is renewed is warm.
type renewals struct {
	count atomic.Int64
	lost  atomic.Int64
}

func (r *renewals) metrics() *election.Metrics {
	return &election.Metrics{
		LeaseRenewed: func(time.Duration) { r.count.Add(1) },
		SessionLost:  func() { r.lost.Store(time.Now().UnixNano()) },
	}
}

const benchElection = "bench"

func newLibraryLine(f *field, n int, hot bool) *libraryLine {
	l := &libraryLine{field: f, told: make(chan time.Time, 1)}
	l.opts = &election.CandidateOptions{Root: f.root, HotStandby: hot}
	var sessions []*election.Session
	var counts []*renewals
	for range sharing(n) {
		r := &renewals{}
		counts = append(counts, r)
		sessions = append(sessions, f.session(func(o *election.SessionOptions) {
			o.Metrics, o.TickTime = r.metrics(), f.timeout/2
		}))
	}
	for i := range n {
		l.join(sessions[i%len(sessions)], counts[i%len(sessions)], fmt.Sprint(i))
		if i == 0 {
			<-l.line[0].told
		}
	}
	o, err := election.NewObserver(f.session(), benchElection, &election.ObserverOptions{Root: f.root})
	f.must(err)
	o.OnNewLeader(func(leader election.Leader) {
		if want := l.expected.Load(); want != nil && string(leader.Data) == *want {
			l.told <- time.Now()
		}
	})
	f.must(o.Observe(f.ctx()))
	return l
}

func (l *libraryLine) join(s *election.Session, r *renewals, id string) {
	m := &libraryMember{session: s, renewed: r, id: id, won: make(chan time.Time, 1), told: make(chan time.Time, 1)}
	opts := *l.opts
	opts.Data = []byte(id)
	opts.Metrics = &election.Metrics{TakenOver: func(string, time.Duration) { m.told <- time.Now() }}
	var err error
	m.Candidate, err = election.NewCandidate(s, benchElection, &opts)
	l.must(err)
	m.OnWin(func(context.Context, election.Term) error { m.won <- time.Now(); return nil })
	l.must(m.Vote(l.ctx()))
	l.line = append(l.line, m)
}

// settle waits until the next in line stands by hot; or, if nobody does, until
// what is left of a lease from an earlier term is over and it knows that it is next.
func (l *libraryLine) settle() {
	if !l.opts.HotStandby {
		time.Sleep(3 * l.timeout / 2)
		return
	}
	next := l.line[1].renewed
	for before := next.count.Load(); next.count.Load() == before; {
		time.Sleep(time.Millisecond)
	}
}

func (l *libraryLine) failover() (began time.Time, m moments) {
	leader, next := l.line[0], l.line[1]
	l.line = l.line[1:]
	l.expected.Store(&next.id)
	began = time.Now()
	l.must(leader.Close())
	m = moments{<-next.won, <-next.told, <-l.told}
	l.join(leader.session, leader.renewed, leader.id+"'")
	return began, m
}

// --- joining

// BenchmarkJoin measures N candidates that join behind a leader, one after
// another and all at once, until the last one waits and knows the leader.
func BenchmarkJoin(b *testing.B) {
	onBoth(b, 10*time.Second, func(b *testing.B, start func(*testing.B) *field) {
		for _, n := range []int{10, 100, 1000} {
			for _, atOnce := range []int{1, n} {
				b.Run(fmt.Sprintf("n=%d/at-once=%d", n, atOnce), func(b *testing.B) {
					f := start(b)
					library, floor := newLibraryJoin(f, n), newFloorJoin(f, n)
					var s samples
					for i := 0; b.Loop(); i++ {
						for _, first := range []bool{i%2 == 0, i%2 != 0} {
							if first {
								voted, joined := library(atOnce)
								s.took("voted", voted)
								s.took("joined", joined)
							} else {
								s.took("floor-joined", floor(atOnce))
							}
						}
					}
					s.report(b)
				})
			}
		}
	})
}

// each calls fn for every index, so many at a time.
func each(n, atOnce int, fn func(i int)) {
	var next atomic.Int64
	var all sync.WaitGroup
	for range min(n, atOnce) {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				fn(i)
			}
		})
	}
	all.Wait()
}

func newLibraryJoin(f *field, n int) func(atOnce int) (voted, joined time.Duration) {
	opts := &election.CandidateOptions{Root: f.root}
	leader, err := election.NewCandidate(f.session(), benchElection, opts)
	f.must(err)
	_, err = leader.Campaign(f.ctx())
	f.must(err)
	var sessions []*election.Session
	for range sharing(n) {
		sessions = append(sessions, f.session())
	}
	return func(atOnce int) (voted, joined time.Duration) {
		candidates := make([]*election.Candidate, n)
		ctx := f.ctx()
		var votes atomic.Int64
		began := time.Now()
		each(n, atOnce, func(i int) {
			c, err := election.NewCandidate(sessions[i%len(sessions)], benchElection, opts)
			if err != nil {
				f.b.Error(err)
				return
			}
			candidates[i] = c
			lost := make(chan struct{})
			c.OnLose(func(context.Context, election.Leader) { close(lost) })
			if err := c.Vote(ctx); err != nil {
				f.b.Error(err)
				return
			}
			if votes.Add(1) == int64(n) {
				voted = time.Since(began)
			}
			<-lost
		})
		joined = time.Since(began)
		// The last first, so that nobody has to look for a new predecessor.
		ballots := func(i int) string {
			return candidates[i].VotePath()[strings.LastIndexByte(candidates[i].VotePath(), '-'):]
		}
		order := make([]int, n)
		for i := range order {
			order[i] = i
		}
		slices.SortFunc(order, func(i, j int) int { return strings.Compare(ballots(j), ballots(i)) })
		for _, i := range order {
			f.must(candidates[i].Close())
		}
		return voted, joined
	}
}

// --- ten thousand elections over one session

// BenchmarkElections leads ten thousand elections over one session, and waits in
// as many over another. Memory on the in-process backend holds the server's, too.
func BenchmarkElections(b *testing.B) {
	const elections = 10_000
	onBoth(b, 10*time.Second, func(b *testing.B, start func(*testing.B) *field) {
		f := start(b)
		for b.Loop() {
			manyElections(f, elections)
		}
	})
}

func manyElections(f *field, elections int) {
	b := f.b
	r := &renewals{}
	network := newLink(f.dial)
	network.forgets = true
	leading := f.session(func(o *election.SessionOptions) { o.Metrics, o.Dialer = r.metrics(), network.Dial })
	waiting := f.session(func(o *election.SessionOptions) { o.Metrics = r.metrics() })

	ctx := f.ctx()
	var steppedDown sync.WaitGroup
	var last atomic.Int64
	steppedDown.Add(elections)
	candidates := make([]*election.Candidate, 2*elections)
	before := weigh()
	began := time.Now()
	each(elections, 256, func(i int) {
		c, err := election.NewCandidate(leading, fmt.Sprintf("e%d", i), &election.CandidateOptions{Root: f.root})
		if err == nil {
			candidates[i] = c
			var once sync.Once
			c.OnStepDown(func(context.Context, election.Term, error) {
				once.Do(func() { last.Store(time.Now().UnixNano()); steppedDown.Done() })
			})
			_, err = c.Campaign(ctx)
		}
		assert.NoError(b, err)
	})
	b.ReportMetric(time.Since(began).Seconds(), "s-to-lead")
	if b.Failed() {
		b.FailNow()
	}
	time.Sleep(f.timeout / 4)
	weigh().report(b, before, elections, "leading")

	// At rest, for two session timeouts.
	beats := r.count.Load()
	began = time.Now()
	time.Sleep(2 * f.timeout)
	b.ReportMetric(float64(r.count.Load()-beats)/time.Since(began).Seconds(), "heartbeats/s")
	for i, c := range candidates[:elections] {
		if !c.IsLeader() {
			b.Fatalf("candidate %d does not lead", i)
		}
	}

	before = weigh()
	began = time.Now()
	each(elections, 256, func(i int) {
		c, err := election.NewCandidate(waiting, fmt.Sprintf("e%d", i), &election.CandidateOptions{Root: f.root})
		if err == nil {
			candidates[elections+i] = c
			err = c.Vote(ctx)
		}
		assert.NoError(b, err)
	})
	b.ReportMetric(time.Since(began).Seconds(), "s-to-wait")
	time.Sleep(f.timeout / 4)
	weigh().report(b, before, elections, "waiting")
	each(elections, 256, func(i int) { _ = candidates[elections+i].Close() })

	f.must(network.expire())
	steppedDown.Wait()
	b.ReportMetric(float64(last.Load()-r.lost.Load())/1e6, "ms-to-step-down")
	runtime.KeepAlive(candidates)
}

// weight is what the process holds.
type weight struct {
	goroutines int
	bytes      uint64 // heap and stacks
}

func weigh() weight {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return weight{runtime.NumGoroutine(), m.HeapAlloc + m.StackInuse}
}

func (w weight) report(b *testing.B, before weight, n int, name string) {
	b.ReportMetric(float64(w.goroutines-before.goroutines)/float64(n), "goroutines/"+name)
	b.ReportMetric(float64(int64(w.bytes)-int64(before.bytes))/float64(n), "B/"+name)
}

// --- IsLeader

// BenchmarkIsLeader compares with time.Since, the least that looking at the
// clock can cost: in turns, so that both see the same machine.
func BenchmarkIsLeader(b *testing.B) {
	c := benchLeader(b)
	base := time.Now()
	var s samples
	const calls = 100_000
	var sink bool
	turn := func(name string, fn func()) {
		began := time.Now()
		for range calls {
			fn()
		}
		s.add(name, float64(time.Since(began).Nanoseconds())/calls)
	}
	for b.Loop() {
		turn("since", func() { sink = time.Since(base) > 0 })
		turn("isleader", func() { sink = c.IsLeader() })
	}
	require.True(b, sink, "it does not lead")
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(s.median("since"), "ns/since")
	b.ReportMetric(s.median("isleader"), "ns/isleader")
	b.ReportMetric(s.median("isleader")-s.median("since"), "ns/more")
	b.ReportMetric(testing.AllocsPerRun(1000, func() { c.IsLeader() }), "allocs/op")
}

// BenchmarkIsLeaderParallel asks from 16 goroutines for each processor at once:
// without contention a call takes what it takes alone, shared by the processors.
func BenchmarkIsLeaderParallel(b *testing.B) {
	c := benchLeader(b)
	base := time.Now()
	run := func(name string, fn func() bool) {
		b.Run(name, func(b *testing.B) {
			b.SetParallelism(16)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if !fn() {
						b.Error("no")
						return
					}
				}
			})
		})
	}
	run("since", func() bool { return time.Since(base) > 0 })
	run("isleader", c.IsLeader)
}

// TestIsLeaderAllocates: nothing.
func TestIsLeaderAllocates(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		m := w.member("a", &journal{}).lead()
		if n := testing.AllocsPerRun(1000, func() { m.IsLeader() }); n != 0 {
			t.Errorf("%v allocations in a call of IsLeader", n)
		}
	})
}

func benchLeader(b *testing.B) *election.Candidate {
	srv, err := testutil.NewServer(&testutil.ServerOptions{NoListen: true})
	require.NoError(b, err)
	b.Cleanup(srv.Close)
	f := &field{b: b, servers: []string{"mem"}, dial: srv.Dialer(), timeout: 30 * time.Second}
	c, err := election.NewCandidate(f.session(), benchElection, nil)
	f.must(err)
	_, err = c.Campaign(f.ctx())
	f.must(err)
	return c
}
