package election_test

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"reflect"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election"
	"github.com/zkelection/election/testutil"
)

// A process that votes and resigns, observes and stops, loses sessions and gets
// new ones, ten thousand times, holds afterwards what it held before.

var soakCycles = flag.Int("soak.cycles", 200, "cycles of each kind in TestSoak")

// soak is one process on the in-process server, in virtual time.
type soak struct {
	t    *testing.T
	srv  *testutil.Server
	s    *election.Session
	ctx  context.Context
	kept []any // by the negative controls
}

// holdings are what could leak.
type holdings struct {
	goroutines    int
	heap          int64
	clientWatches int // in the client: channels that wait for an event
	serverWatches int
	nodes         int // lines of the server's dump: znodes, sessions, watches
}

func (s *soak) weigh() holdings {
	time.Sleep(61 * time.Minute) // the runtime keeps stopped timers until their time would have come
	synctest.Wait()
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return holdings{
		goroutines:    runtime.NumGoroutine(),
		heap:          int64(m.HeapAlloc),
		clientWatches: s.clientWatches(),
		serverWatches: s.srv.Watches(),
		nodes:         len(s.srv.Sessions()[0].Ephemerals),
	}
}

// clientWatches counts what the client does not tell of.
func (s *soak) clientWatches() (n int) {
	watchers := reflect.ValueOf(s.s.Conn()).Elem().FieldByName("watchers")
	for entries := watchers.MapRange(); entries.Next(); {
		n += entries.Value().Len()
	}
	return n
}

// grown tells what is more than it was; "" if nothing is. The heap may move a
// little: caches fill, and maps do not shrink. stray is how many more of the
// client's watches are no leak.
func (h holdings) grown(before holdings, stray int) (what string) {
	more := func(name string, now, then, allowed int64) {
		if now-then > allowed {
			what += fmt.Sprintf("%s grew from %d to %d; ", name, then, now)
		}
	}
	more("goroutines", int64(h.goroutines), int64(before.goroutines), 0)
	more("the client's watches", int64(h.clientWatches), int64(before.clientWatches), int64(stray))
	more("the server's watches", int64(h.serverWatches), int64(before.serverWatches), 0)
	more("ephemeral nodes", int64(h.nodes), int64(before.nodes), 0)
	more("the heap", h.heap, before.heap, 128<<10)
	return what
}

// run does a cycle many times, and returns what is held before and after. The
// first few fill what stays.
func (s *soak) run(cycles int, cycle func(i int)) (before, after holdings) {
	for i := range 50 {
		cycle(i)
	}
	before = s.weigh()
	for i := range cycles {
		cycle(50 + i)
	}
	return before, s.weigh()
}

func soaking(t *testing.T, run func(s *soak)) {
	synctest.Test(t, func(t *testing.T) {
		srv, err := testutil.NewServer(&testutil.ServerOptions{NoListen: true})
		require.NoError(t, err)
		t.Cleanup(srv.Close)
		s := &soak{t: t, srv: srv, ctx: context.Background()}
		s.s = s.session()
		run(s)
	})
}

func (s *soak) session() *election.Session {
	session, err := election.Connect([]string{"mem"}, 4*time.Second, &election.SessionOptions{
		Dialer: s.srv.Dialer(), Logger: slog.New(slog.DiscardHandler),
	})
	s.must(err)
	s.t.Cleanup(func() { _ = session.Close() })
	s.must(session.AwaitConnected(s.ctx))
	return session
}

func (s *soak) must(err error) {
	s.t.Helper()
	require.NoError(s.t, err)
}

func (s *soak) candidate(on *election.Session, name string, opts *election.CandidateOptions) *election.Candidate {
	c, err := election.NewCandidate(on, name, opts)
	s.must(err)
	return c
}

// leader leads an election of that name, on another session.
func (s *soak) leader(name string) {
	c := s.candidate(s.session(), name, nil)
	_, err := c.Campaign(s.ctx)
	s.must(err)
	time.Sleep(20 * time.Second) // its periodic recheck has armed what it arms
}

var soaks = []struct {
	name string
	// stray: a request that was on its way when its session ended can arm a
	// second watch on the next one, of its own ballot or an acknowledgement, and
	// that goes with that session.
	stray int
	cycle func(s *soak) func(i int)
}{
	{"vote and resign", 0, func(s *soak) func(int) {
		c := s.candidate(s.s, "vote", nil)
		return func(int) {
			s.must(c.Vote(s.ctx))
			synctest.Wait()
			if !c.IsLeader() {
				s.t.Fatal("it does not lead")
			}
			s.must(c.Resign(s.ctx))
		}
	}},
	{"vote and resign behind a leader", 0, func(s *soak) func(int) {
		s.leader("behind")
		c := s.candidate(s.s, "behind", nil)
		return func(int) {
			s.must(c.Vote(s.ctx))
			synctest.Wait()
			s.must(c.Resign(s.ctx))
		}
	}},
	{"follow the leader and close", 0, func(s *soak) func(int) {
		s.leader("follow")
		return func(int) {
			c := s.candidate(s.s, "follow", &election.CandidateOptions{Follow: election.FollowLeader})
			s.must(c.Vote(s.ctx))
			synctest.Wait()
			s.must(c.Close())
		}
	}},
	{"a failover and back", 0, func(s *soak) func(int) {
		a, b := s.candidate(s.s, "failover", nil), s.candidate(s.session(), "failover", nil)
		s.must(a.Vote(s.ctx))
		return func(int) {
			s.must(b.Vote(s.ctx))
			synctest.Wait()
			s.must(a.Resign(s.ctx))
			synctest.Wait()
			if !b.IsLeader() {
				s.t.Fatal("b does not lead")
			}
			a, b = b, a
		}
	}},
	{"observe and close", 0, func(s *soak) func(int) {
		s.leader("observe")
		return func(int) { s.observe("observe") }
	}},
	{"observe nobody and close", 0, func(s *soak) func(int) {
		return func(int) { s.observe("nobody") }
	}},
	{"wait for an acknowledgement and give up", 0, func(s *soak) func(int) {
		o, err := election.NewObserver(s.s, "ack", nil)
		s.must(err)
		return func(int) {
			cancel := o.OnLeaderAck(func(election.Leader) { s.t.Error("there is a leader") })
			synctest.Wait()
			cancel()
			synctest.Wait()
		}
	}},
	{"session lost and renewed", 2, func(s *soak) func(int) {
		s.leader("waits")
		leads, waits := s.candidate(s.s, "leads", nil), s.candidate(s.s, "waits", nil)
		s.must(leads.Vote(s.ctx))
		s.must(waits.Vote(s.ctx))
		o, err := election.NewObserver(s.s, "waits", nil)
		s.must(err)
		s.must(o.Observe(s.ctx))
		return func(int) {
			former := s.s.ID()
			if !s.srv.ExpireSession(former) {
				s.t.Fatal("no session to expire")
			}
			for s.s.ID() == former || !leads.IsLeader() || !waits.Voted() {
				time.Sleep(100 * time.Millisecond)
			}
			time.Sleep(10 * time.Second) // the periodic recheck has armed what it arms
		}
	}},
}

func (s *soak) observe(name string) {
	o, err := election.NewObserver(s.s, name, nil)
	s.must(err)
	s.must(o.Observe(s.ctx))
	s.must(o.Close())
}

func TestSoak(t *testing.T) {
	for _, test := range soaks {
		t.Run(test.name, func(t *testing.T) {
			soaking(t, func(s *soak) {
				began := time.Now()
				before, after := s.run(*soakCycles, test.cycle(s))
				if grown := after.grown(before, test.stray); grown != "" {
					t.Errorf("after %d cycles: %s", *soakCycles, grown)
				}
				t.Logf("%d cycles in %v of virtual time: goroutines %d, then %d; heap %d KiB, then %d; client's watches %d, then %d; server's watches %d, then %d",
					*soakCycles, time.Since(began).Round(time.Second), before.goroutines, after.goroutines, before.heap>>10, after.heap>>10,
					before.clientWatches, after.clientWatches, before.serverWatches, after.serverWatches)
			})
		})
	}
}

// Each kind of leak is noticed.
func TestSoakNotices(t *testing.T) {
	for _, test := range []struct {
		name  string
		cycle func(s *soak) func(i int)
	}{
		{"goroutines", func(s *soak) func(int) {
			ctx, cancel := context.WithCancel(s.ctx)
			s.t.Cleanup(cancel)
			return func(int) { go func() { <-ctx.Done() }() }
		}},
		{"heap", func(s *soak) func(int) {
			return func(int) { s.kept = append(s.kept, make([]byte, 4096)) }
		}},
		{"the client's watches on one node", func(s *soak) func(int) {
			return func(int) {
				_, _, _, err := s.s.Conn().ExistsW("/")
				s.must(err)
			}
		}},
		{"watches on many nodes", func(s *soak) func(int) {
			return func(i int) {
				_, _, _, err := s.s.Conn().ExistsW(fmt.Sprintf("/none%d", i))
				s.must(err)
			}
		}},
		{"observers that are not closed", func(s *soak) func(int) {
			return func(i int) {
				o, err := election.NewObserver(s.s, fmt.Sprint(i), nil)
				s.must(err)
				s.must(o.Observe(s.ctx))
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			soaking(t, func(s *soak) {
				before, after := s.run(200, test.cycle(s))
				assert.NotEqual(t, "", after.grown(before, 0), "a leak was not noticed")
			})
		})
	}
}
