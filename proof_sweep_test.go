package election

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/testutil"
)

// The fault sweep. Each scenario is run once without a fault, to count the
// requests that it makes; then once for each of these requests and each fault,
// with that fault at that request; then with two faults, the second at one of the
// requests that follow the first. The invariants hold in every case, and in the
// end somebody leads.

var (
	sweepPairs = flag.Int("sweep.pairs", 1500, "how many cases with two faults TestSweep samples; -1 for all there are")
	failLimit  = flag.Int("proof.failures", 3, "after how many failing cases TestSweep and TestSimulate stop")
	patient    = flag.Duration("proof.patience", 2*time.Minute, "how long one case of TestSweep or TestSimulate may take")
	sweepCase  = flag.String("sweep.case", "", "run one case of TestSweep only, as its failure names it")
)

const (
	sweepTimeout = 4 * time.Second
	// sweepRaceShare: one of so many cases is tried under the race detector.
	sweepRaceShare = 40
	sweepTick      = 500 * time.Millisecond
)

// sweepScenario is something that an election does.
type sweepScenario struct {
	name string
	// before prepares, without faults; its requests do not count.
	before func(s *stage)
	// act is what faults are tried on. It must not fail because of one: what it
	// calls may end with an error, which the invariants bear out.
	act func(s *stage)
	// moves is how many moves to the end of the line it asks for without a fault.
	moves int
}

// stage is a trial with the usual cast.
type stage struct {
	*trial
	a, b, c *actor
	o       *witness
	others  []*actor // a longer line, in order
	feed    func()   // ends what starve began
}

// candidate makes a candidate on a session of its own.
func (s *stage) candidate(name string, opts *CandidateOptions) *actor {
	return s.newActor(s.newProcess(name+"'s session", 0, 0), name, opts)
}

// leader makes a candidate that leads.
func (s *stage) leader(name string) *actor {
	a := s.candidate(name, nil)
	require.NoError(s.t, a.vote(sweepTimeout))
	s.awaitLeader(sweepTimeout, nil)
	return a
}

// follower makes a candidate that waits.
func (s *stage) follower(name string, opts *CandidateOptions) *actor {
	a := s.candidate(name, opts)
	require.NoError(s.t, a.vote(sweepTimeout))
	synctest.Wait()
	return a
}

// enough is how long a call of act may wait: beyond every fault.
const enough = 4 * sweepTimeout

var sweepScenarios = []sweepScenario{
	{"join first", func(*stage) {}, func(s *stage) {
		s.a = s.candidate("a", nil)
		_ = s.a.vote(enough)
	}, 0},
	{"join behind", func(s *stage) { s.a = s.leader("a") }, func(s *stage) {
		s.b = s.candidate("b", nil)
		_ = s.b.vote(enough)
	}, 0},
	{"join behind two", func(s *stage) { s.a, s.b = s.leader("a"), s.follower("b", nil) }, func(s *stage) {
		s.c = s.candidate("c", &CandidateOptions{Follow: FollowLeader})
		_ = s.c.vote(enough)
		_ = s.b.resign(enough) // c's predecessor, not the leader
	}, 0},
	{"take over", func(s *stage) {
		s.a, s.b, s.c = s.leader("a"), s.follower("b", nil), s.follower("c", &CandidateOptions{Follow: FollowLeader})
	}, func(s *stage) {
		// The process stops for longer than its session lasts.
		s.a.p.gate.shut()
		time.Sleep(sweepTimeout + sweepTimeout/2)
		s.a.p.gate.open()
	}, 0},
	{"take over from the dead", func(s *stage) { s.a, s.b = s.leader("a"), s.follower("b", nil) }, func(s *stage) {
		s.expire(s.a.p.session.ID())
	}, 0},
	{"stand by hot", func(s *stage) {
		s.a, s.b = s.leader("a"), s.follower("b", &CandidateOptions{HotStandby: true})
		time.Sleep(2 * sweepTimeout)
	}, func(s *stage) {
		_ = s.a.resign(enough)
	}, 0},
	{"a series, from the front", hotLine, func(s *stage) {
		for _, a := range s.others[:3] {
			a.close(false) // each leads by then, or is about to
		}
	}, 0},
	{"a series, from the back", hotLine, func(s *stage) {
		for _, a := range slices.Backward(s.others[:3]) {
			a.close(false)
			time.Sleep(10 * time.Millisecond) // who is behind watches two in front again
		}
	}, 0},
	{"a series, in disorder", hotLine, func(s *stage) {
		for _, i := range []int{1, 3, 0} {
			s.expire(s.others[i].p.session.ID())
		}
		s.others[2].close(false)
	}, 0},
	{"a series, all at once", hotLine, func(s *stage) {
		for _, a := range s.others[:3] {
			s.expire(a.p.session.ID())
		}
	}, 0},
	{"acknowledge", func(s *stage) {
		s.a = s.candidate("a", nil)
		s.b = s.candidate("b", nil)
		hold := make(chan struct{})
		s.a.win = func(context.Context) error { <-hold; return nil }
		_ = s.a.vote(enough)
		_ = s.b.vote(enough)
		synctest.Wait()
		time.AfterFunc(time.Second, func() { close(hold) })
	}, func(*stage) {
		time.Sleep(time.Second + time.Millisecond)
	}, 0},
	{"fail to take over", func(s *stage) {
		s.a, s.b = s.candidate("a", nil), s.candidate("b", nil)
		s.a.win = func(context.Context) error { return errors.New("cannot take over") }
	}, func(s *stage) {
		_ = s.a.vote(enough)
		_ = s.b.vote(enough)
	}, 0},
	{"resign", func(s *stage) { s.a, s.b = s.leader("a"), s.follower("b", nil) }, func(s *stage) {
		_ = s.a.resign(enough)
	}, 0},
	{"resign and vote", func(s *stage) { s.a, s.b = s.leader("a"), s.follower("b", nil) }, func(s *stage) {
		_ = s.a.resign(enough)
		_ = s.a.vote(enough)
		_ = s.b.resign(enough)
	}, 0},
	{"close", func(s *stage) { s.a, s.b = s.leader("a"), s.follower("b", nil) }, func(s *stage) {
		s.a.close(false)
	}, 0},
	{"close while voting", func(s *stage) { s.b = s.leader("b"); s.a = s.candidate("a", nil) }, func(s *stage) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		voted := make(chan struct{})
		go func() { defer close(voted); _ = s.a.Vote(ctx) }()
		s.a.close(false)
		<-voted
	}, 0},
	{"close amid a vote", func(s *stage) { s.b = s.leader("b"); s.a = s.candidate("a", nil) }, func(s *stage) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		voted := make(chan struct{})
		go func() { defer close(voted); _ = s.a.Vote(ctx) }()
		time.Sleep(sweepTimeout / 8) // a fault may hold the vote up until then
		s.a.close(false)
		<-voted
	}, 0},
	{"proclaim", func(s *stage) { s.a, s.b = s.leader("a"), s.follower("b", nil) }, func(s *stage) {
		ctx, cancel := context.WithTimeout(context.Background(), enough)
		defer cancel()
		s.mu.Lock()
		s.asked["a|new"] = true
		s.mu.Unlock()
		if err := s.a.Proclaim(ctx, []byte("a|new")); err == nil {
			s.proclaimed("a|new")
		}
	}, 0},
	{"observe", func(s *stage) { s.a = s.leader("a") }, func(s *stage) {
		p := s.newProcess("o's session", 0, 0)
		s.o = s.newWitness(p, "o")
		heard := make(chan struct{})
		cancel := s.o.OnLeaderAck(func(Leader) { close(heard) })
		defer cancel()
		_ = s.o.watch(enough)
		ctx, stop := context.WithTimeout(context.Background(), enough)
		defer stop()
		_, _ = s.o.LeaderSync(ctx)
		_, _ = s.o.Ballots(ctx)
		select {
		case <-heard:
		case <-ctx.Done():
			s.violated("OnLeaderAck", "was not told in %v", enough)
		}
	}, 0},
	{"session of the leader renewed", func(s *stage) { s.a, s.b = s.leader("a"), s.follower("b", nil) }, func(s *stage) {
		s.expire(s.a.p.session.ID())
		time.Sleep(2 * sweepTimeout)
	}, 0},
	{"session of the loser renewed", func(s *stage) {
		s.a, s.b, s.c = s.leader("a"), s.follower("b", nil), s.follower("c", nil)
	}, func(s *stage) {
		s.expire(s.b.p.session.ID())
		time.Sleep(sweepTimeout)
	}, 0},
	{"two on one session", func(s *stage) {
		p := s.newProcess("both's session", 0, 0)
		s.a, s.b = s.newActor(p, "a", nil), s.newActor(p, "b", nil)
	}, func(s *stage) {
		_ = s.a.vote(enough)
		_ = s.b.vote(enough)
		_ = s.a.resign(enough)
		_ = s.a.vote(enough)
	}, 0},
	{"ballot deleted by hand", func(s *stage) { s.a, s.b = s.leader("a"), s.follower("b", nil) }, func(s *stage) {
		s.deleteBallot(s.b)
		time.Sleep(sweepTimeout)
	}, 0},
	{"lead", func(s *stage) { s.a, s.b = s.leader("a"), s.follower("b", nil) }, func(*stage) {
		time.Sleep(sweepTimeout)
	}, 0},
	{"run", func(s *stage) { s.b = s.candidate("b", nil) }, func(s *stage) {
		s.a = s.candidate("a", nil)
		ctx, cancel := context.WithTimeout(context.Background(), 2*sweepTimeout)
		defer cancel()
		_ = s.b.vote(enough)
		_ = s.a.run(ctx, sweepTimeout/8)
	}, 0},
	{"make way", func(s *stage) {
		s.a, s.b = s.candidate("a", nil), s.candidate("b", &CandidateOptions{Follow: FollowLeader})
		s.starve(s.a)
		_ = s.a.vote(sweepTimeout)
		_ = s.b.vote(sweepTimeout)
		time.Sleep(2*sweepTimeout - sweepTimeout/16)
	}, func(s *stage) {
		time.Sleep(sweepTimeout)
		s.feed()
	}, 1},
	{"make way after lapses", afterLapses, func(s *stage) {
		s.feed()
		time.Sleep(sweepTimeout)
	}, 1},
	{"make way and resign", afterLapses, func(s *stage) {
		hold := make(chan struct{})
		defer s.srv.Control(testutil.OpMulti, func(r *testutil.Request) testutil.Action {
			if isMove(r) {
				return testutil.HoldReply(hold)
			}
			return testutil.Pass
		})()
		time.AfterFunc(sweepTimeout/8, func() { close(hold) })
		s.feed()
		time.Sleep(sweepTimeout / 16)
		_ = s.a.resign(enough)
	}, 1},
	{"make way, deleted by hand", afterLapses, func(s *stage) {
		hold := make(chan struct{})
		defer s.srv.Control(testutil.OpMulti, func(r *testutil.Request) testutil.Action {
			if isMove(r) {
				return testutil.Hold(hold)
			}
			return testutil.Pass
		})()
		s.feed()
		time.Sleep(sweepTimeout / 16)
		s.deleteBallotBy(s.b, s.a)
		close(hold)
		time.Sleep(sweepTimeout)
	}, 1},
	{"transfer", transferLine, func(s *stage) { s.pass(s.b, s.c) }, 2},
	{"transfer to the next, by the leader", transferLine, func(s *stage) { s.pass(s.a, s.b) }, 1},
	{"transfer, and the target dies", transferLine, func(s *stage) {
		id := s.c.p.session.ID()
		s.a.stepDown = func(context.Context) { s.expire(id) }
		s.pass(s.b, s.c)
	}, 2},
	{"transfer cancelled", transferLine, func(s *stage) {
		ctx, cancel := context.WithCancel(context.Background())
		s.a.stepDown = func(context.Context) { cancel() }
		_ = s.b.transfer(ctx, s.c)
		time.Sleep(sweepTimeout)
	}, 2},
	{"set the priority", transferLine, func(s *stage) {
		ctx, cancel := context.WithTimeout(context.Background(), enough)
		defer cancel()
		_ = s.b.SetPriority(ctx, 5)
	}, 1},
	{"give way for a better one", func(s *stage) {
		s.a, s.b = s.leader("a"), s.follower("b", nil)
		s.c = s.follower("c", &CandidateOptions{Priority: 3, Follow: FollowLeader})
		time.Sleep(sweepTimeout + sweepTimeout/2) // b has begun to follow requests; two lists are still to come
	}, func(*stage) { time.Sleep(3 * sweepTimeout) }, 1},
	{"stand aside and come back", func(s *stage) { s.a, s.b = s.leader("a"), s.follower("b", nil) }, func(s *stage) {
		ctx, cancel := context.WithTimeout(context.Background(), enough)
		defer cancel()
		calls := 0
		_ = s.a.standWhile(ctx, sweepTimeout/2, func() bool { calls++; return calls == 2 || calls == 3 })
		_ = s.a.vote(enough)
	}, 0},
}

// hotLine is a leader and four that stand by hot, who watch two in front but have not listed
// since they came.
func hotLine(s *stage) {
	s.others = []*actor{s.leader("a")}
	for _, name := range []string{"b", "c", "d", "e"} {
		s.others = append(s.others, s.follower(name, &CandidateOptions{HotStandby: true}))
	}
	time.Sleep(sweepTimeout / 4)
}

// transferLine is a leader and two that wait, who have heard all there is to hear.
func transferLine(s *stage) {
	s.a, s.b, s.c = s.leader("a"), s.follower("b", nil), s.follower("c", &CandidateOptions{Follow: FollowLeader})
	time.Sleep(2 * sweepTimeout)
}

// pass asks for a transfer, for as long as there is.
func (s *stage) pass(by, to *actor) {
	ctx, cancel := context.WithTimeout(context.Background(), enough)
	defer cancel()
	_ = by.transfer(ctx, to)
}

// afterLapses: a has lost the lease three times, and is about to make way for b.
func afterLapses(s *stage) {
	s.a, s.b = s.leader("a"), s.follower("b", nil)
	returns := make(chan struct{})
	s.a.stepDown = func(context.Context) {
		if s.a.steppedDown() == lapsesToMove {
			<-returns
		}
	}
	for range lapsesToMove {
		s.starve(s.a)
		for s.a.IsLeader() {
			time.Sleep(sweepTimeout / 32)
		}
		synctest.Wait()
		s.feed()
		if s.a.steppedDown() < lapsesToMove {
			s.awaitLeader(2*sweepTimeout, nil)
		}
	}
	s.feed = func() { close(returns) }
}

// starve keeps a candidate's session from getting a lease, until feed is called
// or it has asked to move.
func (s *stage) starve(a *actor) {
	require.NoError(s.t, a.p.session.AwaitConnected(s.t.Context()))
	id := a.p.session.ID()
	var over atomic.Bool
	cancel := s.srv.Control(testutil.OpMulti, func(r *testutil.Request) testutil.Action {
		if isMove(r) {
			over.Store(true)
		}
		if r.SessionID == id && !over.Load() && len(r.Ops) == 1 && r.Ops[0].Op == testutil.OpCheck {
			return throttled
		}
		return testutil.Pass
	})
	s.feed = func() { over.Store(true); cancel() }
}

// isMove reports whether a request moves a ballot.
func isMove(r *testutil.Request) bool {
	n := len(r.Ops)
	return n >= 2 && r.Ops[n-2].Op == testutil.OpDelete && r.Ops[n-1].Op == testutil.OpCreate &&
		strings.Contains(r.Ops[n-1].Path, "/ballot-")
}

// expire ends a session on the server, before its time.
func (s *stage) expire(id int64) {
	s.excuse(id)
	s.srv.ExpireSession(id)
	s.note("session %s expired", sessionName(id))
}

// deleteBallot does what an operator may do: it deletes a ballot.
func (s *stage) deleteBallot(a *actor) { s.deleteBallotBy(s.a, a) }

// deleteBallotBy does it on another one's session.
func (s *stage) deleteBallotBy(by, a *actor) {
	path := a.VotePath()
	s.mu.Lock()
	s.tampered = true // it may be the leader's, by the time that it is deleted
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), enough)
	defer cancel()
	_ = by.p.session.retry(ctx, deleteNode(path))
	s.note("ballot %s deleted by hand", path)
}

// proclaimed requires that the observer hears of new data, unless its leader is
// no more: data that was confirmed may not be lost while the leader leads on.
func (s *stage) proclaimed(data string) {
	l := s.a.leader.Load()
	if l == nil {
		return
	}
	deadline := time.Now().Add(sweepTimeout + 2*time.Second)
	for s.a.leader.Load() == l {
		s.mu.Lock()
		heard := s.o.current != nil && string(s.o.current.Data) == data
		s.mu.Unlock()
		if heard {
			return
		}
		if time.Now().After(deadline) && s.a.leader.Load() == l {
			s.violated("proclaimed data", "the observer has not heard of %q", data)
			return
		}
		time.Sleep(sweepTimeout / 32)
	}
}

// deleteNode is a call that deletes a node.
func deleteNode(path string) func(*zk.Conn) error {
	return func(conn *zk.Conn) error { return conn.Delete(path, -1) }
}

// sweepFault is something that happens at a request.
type sweepFault struct {
	name string
	// lasts is until when after the request it is at work.
	lasts time.Duration
	at    func(s *stage, r *testutil.Request) testutil.Action
}

func always(a testutil.Action) func(*stage, *testutil.Request) testutil.Action {
	return func(*stage, *testutil.Request) testutil.Action { return a }
}

// beyondLease is longer than a lease, and shorter than a session and a tick.
const beyondLease = sweepTimeout

var sweepFaults = []sweepFault{
	{"request lost", 0, always(testutil.LoseRequest)},
	{"reply lost", 0, always(testutil.LoseReply)},
	{"connection cut", 0, always(testutil.CutAfter)},
	{"expired before", 0, func(s *stage, r *testutil.Request) testutil.Action {
		s.excuse(r.SessionID)
		return testutil.ExpireBefore
	}},
	{"expired after", 0, func(s *stage, r *testutil.Request) testutil.Action {
		s.excuse(r.SessionID)
		return testutil.ExpireAfter
	}},
	{"throttled", 0, func(_ *stage, r *testutil.Request) testutil.Action {
		if r.Op == testutil.OpConnect {
			return testutil.Pass // it would say that the session has expired
		}
		return throttled
	}},
	{"request delayed", beyondLease, always(testutil.Delay(beyondLease))},
	{"reply delayed", beyondLease, always(testutil.DelayReply(beyondLease))},
	{"server restarted", 300 * time.Millisecond, restart(300 * time.Millisecond)},
	{"server down", 2 * sweepTimeout, restart(2 * sweepTimeout)},
	{"isolated", sweepTimeout + 2*sweepTick, func(s *stage, r *testutil.Request) testutil.Action {
		heal := s.srv.Isolate(r.SessionID)
		time.AfterFunc(sweepTimeout+2*sweepTick, heal)
		return testutil.Pass
	}},
}

func restart(after time.Duration) func(*stage, *testutil.Request) testutil.Action {
	return func(s *stage, _ *testutil.Request) testutil.Action {
		s.mu.Lock()
		down := s.stopped
		s.mu.Unlock()
		if down {
			return testutil.Pass
		}
		s.stop()
		time.AfterFunc(after, s.start)
		return testutil.Pass
	}
}

// sweepStep is one fault of a case: at the after-th request since the one
// before it, or since the beginning of act.
type sweepStep struct {
	fault int
	after int
}

// sweepRun is one case: a scenario and its faults, none for counting.
type sweepRun struct {
	scenario *sweepScenario
	steps    []sweepStep
}

func (r sweepRun) String() string {
	var b strings.Builder
	b.WriteString(r.scenario.name)
	for _, step := range r.steps {
		fmt.Fprintf(&b, "/%s@%d", sweepFaults[step.fault].name, step.after)
	}
	return b.String()
}

// play runs a case in a bubble. It returns how many requests act made in all
// and how many of the faults were reached.
func (r sweepRun) play(t *testing.T) (requests, reached int, ok bool) {
	ok = true
	defer bound(fmt.Sprintf("TestSweep -sweep.case=%q", r))()
	synctest.Test(t, func(t *testing.T) {
		s := &stage{trial: newTrial(t, testutil.ServerOptions{TickTime: sweepTick, MinSessionTimeout: sweepTimeout}, sweepTimeout)}
		s.o = s.newWitness(s.newProcess("watcher", 0, 0), "watcher")
		require.NoError(t, s.o.watch(sweepTimeout))
		r.scenario.before(s)

		var mu sync.Mutex
		counting, since := true, 0
		var until time.Time
		cancel := s.srv.Control(testutil.AnyOp, func(q *testutil.Request) testutil.Action {
			mu.Lock()
			defer mu.Unlock()
			if counting {
				requests++
			}
			if reached == len(r.steps) {
				return testutil.Pass
			}
			since++
			step := r.steps[reached]
			if since <= step.after {
				return testutil.Pass
			}
			reached, since = reached+1, 0
			fault := sweepFaults[step.fault]
			s.note("FAULT: %s at %v %s of %s", fault.name, q.Op, q.Path, sessionName(q.SessionID))
			if end := time.Now().Add(fault.lasts); end.After(until) {
				until = end
			}
			return fault.at(s, q)
		})
		r.scenario.act(s)
		synctest.Wait()
		mu.Lock()
		counting = false
		mu.Unlock()
		// What is still to be reached is reached while things settle.
		s.awaitLeader(sweepTimeout+2*time.Second, func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			return until
		})
		cancel()
		if n := s.moves.Load(); len(r.steps) == 0 && int(n) != r.scenario.moves {
			s.violated("blind", "%d moves without a fault, want %d", n, r.scenario.moves)
		}
		s.finish()
		ok = !s.hasFailed()
		if !ok {
			t.Logf("replay: go test -run TestSweep -sweep.case=%q", r)
		}
	})
	return requests, reached, ok
}

func TestSweep(t *testing.T) {
	if *sweepCase != "" {
		r, err := parseSweepCase(*sweepCase)
		require.NoError(t, err)
		r.play(t)
		return
	}
	tuneGC(t)
	var singles []sweepRun
	var pairs pairSpace
	for i := range sweepScenarios {
		s := &sweepScenarios[i]
		n, _, ok := sweepRun{scenario: s}.play(t)
		require.True(t, ok, "%s fails without a fault", s.name)
		for k := range n {
			for f := range sweepFaults {
				singles = append(singles, sweepRun{s, []sweepStep{{f, k}}})
			}
			// Recovery makes more requests, which the second fault is tried on.
			pairs.add(s, k, n-k+sweepRecovery)
		}
	}
	two, second := pairs.size(), pairs.at
	n := *sweepPairs
	if testing.Short() && n > 0 {
		n /= 10
	}
	if n >= 0 && n < two {
		// The same ones each time, so that a failure is no matter of luck.
		rng := rand.New(rand.NewPCG(1, 2))
		two, second = n, func(int) sweepRun { return pairs.at(rng.IntN(pairs.size())) }
	}
	if RaceDetector && n >= 0 {
		// It makes a case five times as long and shows races, which do not depend on the
		// case. make test runs all of them without it.
		i := 0
		singles = slices.DeleteFunc(singles, func(sweepRun) bool { i++; return i%sweepRaceShare != 0 })
		two /= sweepRaceShare
	}
	start := time.Now()
	missed := playAll(t, len(singles), func(i int) sweepRun { return singles[i] })
	one := time.Since(start)
	missedPairs := playAll(t, two, second)
	t.Logf("%d scenarios, %d faults: %d cases with one fault (%d never came to it) in %v, %d of %d with two (%d) in %v",
		len(sweepScenarios), len(sweepFaults), len(singles), missed, one.Round(time.Millisecond),
		two, pairs.size(), missedPairs, (time.Since(start) - one).Round(time.Millisecond))
	assert.LessOrEqual(t, missed, len(singles)/10, "%d of %d cases never came to their fault: the sweep is blind", missed, len(singles))
}

// bound names the case when its bubble deadlocks, or does not end: in virtual
// time a wait without end is an endless run.
func bound(name string) (done func()) {
	dog := time.AfterFunc(*patient, func() {
		panic(fmt.Sprintf("no end in %v: go test -run %s", *patient, name))
	})
	return func() {
		dog.Stop()
		if p := recover(); p != nil {
			fmt.Fprintf(os.Stderr, "go test -run %s\n", name)
			panic(p)
		}
	}
}

// tuneGC lets the collector run less often: each client of ZooKeeper has
// buffers of megabytes, and lives for milliseconds here.
func tuneGC(t *testing.T) {
	former := debug.SetGCPercent(400)
	t.Cleanup(func() { debug.SetGCPercent(former) })
}

// pairSpace is all cases with two faults, without making them.
type pairSpace struct {
	blocks []pairBlock
	total  int
}

// pairBlock is the cases with the first fault at one request.
type pairBlock struct {
	scenario *sweepScenario
	first    int // index of the first case
	request  int
	seconds  int // how many requests the second fault is tried on
}

func (p *pairSpace) add(s *sweepScenario, request, seconds int) {
	p.blocks = append(p.blocks, pairBlock{s, p.total, request, seconds})
	p.total += seconds * len(sweepFaults) * len(sweepFaults)
}

func (p *pairSpace) size() int { return p.total }

func (p *pairSpace) at(i int) sweepRun {
	n, found := slices.BinarySearchFunc(p.blocks, i, func(b pairBlock, i int) int { return b.first - i })
	if !found {
		n--
	}
	b := p.blocks[n]
	i -= b.first
	f := len(sweepFaults)
	return sweepRun{b.scenario, []sweepStep{{i % f, b.request}, {i / f % f, i / f / f}}}
}

// sweepRecovery is how many requests after those of the undisturbed scenario the
// second fault is tried on.
const sweepRecovery = 8

// playAll runs cases on all processors, until a few have failed, and returns how
// many did not come to all their faults.
func playAll(t *testing.T, n int, at func(int) sweepRun) (missed int) {
	var mu sync.Mutex
	var workers sync.WaitGroup
	next, failures := 0, 0
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for {
				mu.Lock()
				if failures >= *failLimit || next >= n {
					mu.Unlock()
					return
				}
				r := at(next)
				next++
				mu.Unlock()
				_, reached, ok := r.play(t)
				mu.Lock()
				if !ok {
					failures++
				}
				if reached < len(r.steps) {
					missed++
				}
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	return missed
}

func parseSweepCase(text string) (r sweepRun, err error) {
	parts := strings.Split(text, "/")
	for i := range sweepScenarios {
		if sweepScenarios[i].name == parts[0] {
			r.scenario = &sweepScenarios[i]
		}
	}
	if r.scenario == nil {
		return r, fmt.Errorf("no scenario %q", parts[0])
	}
	for _, part := range parts[1:] {
		name, after, _ := strings.Cut(part, "@")
		step := sweepStep{fault: -1}
		for i, f := range sweepFaults {
			if f.name == name {
				step.fault = i
			}
		}
		if _, err := fmt.Sscan(after, &step.after); err != nil || step.fault < 0 {
			return r, fmt.Errorf("no fault %q", part)
		}
		r.steps = append(r.steps, step)
	}
	return r, nil
}
