package election_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election"
	"github.com/zkelection/election/testutil"
)

// What the library may ask of ZooKeeper, counted by the server, in virtual time:
// nothing else happens in between, so every number is exact. Only the slow
// reconciliation is random, in its pace, and is bounded instead.

// costs are requests that a server has received, and the events it has sent.
// Pings are the client's own business.
type costs map[testutil.Op]int64

// spend does something, waits until all that follows from it at once has
// happened, and tells what it cost everybody together.
func (w *world) spend(do func()) costs {
	w.srv.ResetCounts()
	do()
	synctest.Wait()
	c := costs(w.srv.Counts())
	delete(c, testutil.OpPing)
	return c
}

// differs tells how costs are not what they may be; "" if they are.
func (c costs) differs(want costs) string {
	if maps.Equal(c, want) {
		return ""
	}
	return fmt.Sprintf("cost %v, want %v", c, want)
}

// requests is the sum, without the events.
func (c costs) requests() (sum int64) {
	for op, n := range c {
		if op != testutil.OpNotification {
			sum += n
		}
	}
	return sum
}

// meter records what one session sends, in order.
type meter struct {
	mu   sync.Mutex
	seen []arrival
}

type arrival struct {
	at   time.Time
	op   testutil.Op
	path string // of a multi its operations
}

// meter begins to record; every answer is held up for delay, so that requests
// that wait for one another's answers arrive at different times.
func (w *world) meter(session int64, delay time.Duration) *meter {
	m := &meter{}
	w.t.Cleanup(w.srv.Control(testutil.AnyOp, func(r *testutil.Request) testutil.Action {
		if r.SessionID != session || r.Op == testutil.OpPing {
			return testutil.Pass
		}
		path := r.Path
		for _, op := range r.Ops {
			path += op.Op.String() + " "
		}
		m.mu.Lock()
		m.seen = append(m.seen, arrival{at: time.Now(), op: r.Op, path: path})
		m.mu.Unlock()
		if delay > 0 {
			return testutil.DelayReply(delay)
		}
		return testutil.Pass
	}))
	return m
}

// take returns what has arrived since the last call.
func (m *meter) take() []arrival {
	m.mu.Lock()
	defer m.mu.Unlock()
	seen := m.seen
	m.seen = nil
	return seen
}

func (m *meter) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.seen)
}

// ops names the operations, in order.
func ops(seen []arrival) (names []string) {
	for _, a := range seen {
		name := a.op.String()
		if a.op == testutil.OpMulti {
			name += " " + a.path
		}
		names = append(names, name)
	}
	return names
}

// offBeat lets time pass to a point where no heartbeat is due.
func (w *world) offBeat() { time.Sleep(3*w.timeout() + w.timeout()/16) }

func nextNode(o *election.CandidateOptions)   { o.Follow = election.FollowNextNode }
func hotStandby(o *election.CandidateOptions) { o.HotStandby = true }

var joining = costs{
	testutil.OpCreate:       1,
	testutil.OpGetChildren2: 3, // the list, the own ballot's watch, the predecessor's watch
	testutil.OpGetData:      1, // the acknowledgement
}

// Joining costs five requests in two round trips, however many are in front.
func TestBudgetJoin(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		w.member("leader", j).lead()
		for in := 1; in <= 100; in++ {
			c := w.member("c", j, nextNode)
			if in%2 == 0 {
				c = w.member("c", j, followLeader)
			}
			synctest.Wait()
			if in != 50 {
				require.Equal(t, "", w.spend(func() { c.vote() }).differs(joining), "joining behind %d", in)
				continue
			}
			m := w.meter(c.node.ID(), 100*time.Millisecond)
			c.vote()
			time.Sleep(300 * time.Millisecond)
			var together []int
			var last time.Time
			for _, a := range m.take() {
				if !a.at.Equal(last) {
					together = append(together, 0)
				}
				last = a.at
				together[len(together)-1]++
			}
			if !slices.Equal(together, []int{2, 3}) {
				t.Fatalf("requests that were sent together: %v", together)
			}
		}
	})
}

// Waiting costs one read in about every session timeout, whatever happens in
// front, behind and around.
func TestBudgetWaiting(t *testing.T) {
	const rounds = 20
	for _, test := range []struct {
		name   string
		follow func(*election.CandidateOptions)
		// reads in each T: the candidate's, and of a session that follows the
		// leader one more for all its candidates, and two for each new leader.
		slow, changes int
	}{{"next node", nextNode, 1, 0}, {"leader", followLeader, 2, 2 * rounds}} {
		t.Run(test.name, func(t *testing.T) {
			virtually(t, func(t *testing.T, w *world) {
				j := &journal{}
				var front []*member
				for range rounds + 2 {
					front = append(front, w.member("front", j).vote())
				}
				c := w.member("c", j, test.follow).vote()
				behind := w.member("behind", j)
				synctest.Wait()
				m := w.meter(c.node.ID(), 0)
				began := time.Now()
				for i := range rounds {
					front[i].lead() // it does already, or is about to
					require.NoError(t, front[i].Proclaim(w.context(), []byte("news")))
					synctest.Wait()
					front[i].resign()
					behind.vote()
					time.Sleep(w.timeout())
					behind.resign()
				}
				elapsed := time.Since(began)
				reads := m.take()
				for _, r := range reads {
					if r.op != testutil.OpExists && r.op != testutil.OpGetData && r.op != testutil.OpGetChildren2 {
						t.Errorf("a candidate that waits sent %v %s", r.op, r.path)
					}
				}
				changes := 0
				if test.changes > 0 {
					changes = test.changes + rounds // and one for each proclamation
				}
				assert.Equal(t, "", pace(len(reads)-changes, test.slow, elapsed, w.timeout()))
			})
		})
	}
}

// pace reports whether n reads in a time are those of so many loops that each
// read about once in a period, a quarter less or more; "" if they are.
func pace(n, loops int, elapsed, period time.Duration) string {
	periods := float64(elapsed) / float64(period)
	least, most := float64(loops)*(periods/1.25-1), float64(loops)*(periods/0.75+1)
	if float64(n) >= least && float64(n) <= most {
		return ""
	}
	return fmt.Sprintf("%d reads in %.1f periods, want %.0f to %.0f", n, periods, least, most)
}

// With many candidates on a session the periodic rechecks become rarer for each, so
// that the session's do not grow beyond a hundred in each session timeout.
func TestBudgetWaitingMany(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		const many, periods = 500, 12 // two rounds of reads
		leaders, waiting := w.session(), w.session()
		for i := range many {
			name := fmt.Sprintf("e%d", i)
			w.inElection(leaders, name)
			w.inElection(waiting, name)
		}
		time.Sleep(w.timeout())
		m := w.meter(waiting.ID(), 0)
		time.Sleep(periods * w.timeout())
		assert.Equal(t, "", pace(m.count(), many, periods*w.timeout(), w.timeout()*(1+many/100)))
		assert.LessOrEqual(t, m.count()/periods, 134, "reads in a session timeout")
	})
}

// inElection votes in an election of that name.
func (w *world) inElection(n *node, name string) *election.Candidate {
	w.t.Helper()
	c, err := election.NewCandidate(n.Session, name, nil)
	require.NoError(w.t, err)
	require.NoError(w.t, c.Vote(w.context()))
	return c
}

const (
	heartbeats     = "multi check "
	acknowledgings = "multi check create setData "
)

// A takeover from the leader costs the heartbeats of a lease that is not there
// yet, and one write for the acknowledgement. Nothing is listed.
func TestBudgetTakeover(t *testing.T) {
	type options = []func(*election.CandidateOptions)
	cold, hot := []string{heartbeats, heartbeats}, []string(nil)
	for _, test := range []struct {
		name  string
		opts  options
		line  bool
		toWin []string
	}{
		{"hot", options{hotStandby}, false, hot},
		{"cold", nil, false, cold},
		{"hot in a line", options{hotStandby}, true, hot},
		{"cold in a line", nil, true, cold},
		{"hot following the leader", options{hotStandby, followLeader}, false, hot},
		{"cold following the leader", options{followLeader}, false, cold},
	} {
		t.Run(test.name, func(t *testing.T) {
			virtually(t, func(t *testing.T, w *world) {
				j := &journal{}
				a := w.member("a", j).lead()
				first := a
				if test.line {
					a = w.member("second", j).vote()
				}
				b := w.member("b", j, test.opts...).vote()
				w.member("c", j).vote()
				if test.line { // two were in front of b, and it is not told when the first goes
					first.resign()
				}
				m := w.meter(b.node.ID(), 0)
				var atWin []arrival
				b.OnWin(func(context.Context, election.Term) error {
					atWin = m.take()
					return nil
				})
				w.offBeat()
				m.take()
				a.resign()
				synctest.Wait()
				require.True(t, b.IsLeader(), "b does not lead")
				// A follower of the leader looks where that has gone, beside the takeover.
				following := func(a arrival) bool { return a.path == b.LeaderAckPath() && a.op != testutil.OpMulti }
				afterWin := m.take()
				reads := len(atWin) + len(afterWin)
				atWin, afterWin = slices.DeleteFunc(atWin, following), slices.DeleteFunc(afterWin, following)
				if reads -= len(atWin) + len(afterWin); reads > 0 && (len(test.opts) == 0 || reads > 2) {
					t.Errorf("%d reads of the acknowledgement", reads)
				}
				if got := ops(atWin); !slices.Equal(got, test.toWin) {
					t.Errorf("from the watch to OnWin %q, want %q", got, test.toWin)
				}
				if got, want := ops(afterWin), []string{acknowledgings}; !slices.Equal(got, want) {
					t.Errorf("from OnWin on %q, want %q", got, want)
				}
			})
		})
	}
}

// A leader that goes before it watches its acknowledgement withdraws in one request
// all the same: by the version it sees whether the one that stands may be its own. If it is
// another one, that is read, and left alone.
func TestBudgetResign(t *testing.T) {
	const withdrawing = "multi delete delete "
	replace := func(w *world, a *member, _ *zk.Conn) {
		stranger := w.client()
		_, err := stranger.Multi(
			&zk.DeleteRequest{Path: a.LeaderAckPath(), Version: -1},
			&zk.CreateRequest{Path: a.LeaderAckPath(), Data: []byte("stranger"), Acl: zk.WorldACL(zk.PermAll), Flags: zk.FlagEphemeral})
		require.NoError(w.t, err)
	}
	for _, test := range []struct {
		name   string
		before func(w *world, a *member, stranger *zk.Conn)
		cost   []string
		left   string // in the acknowledgement, once a is out
	}{
		{"at once", func(*world, *member, *zk.Conn) {}, []string{withdrawing}, ""},
		{"with new data", func(w *world, a *member, _ *zk.Conn) {
			require.NoError(w.t, a.Proclaim(w.context(), []byte("news")))
			require.NoError(w.t, a.Proclaim(w.context(), []byte("more")))
		}, []string{withdrawing}, ""},
		{"removed by hand", func(w *world, a *member, stranger *zk.Conn) {
			require.NoError(w.t, stranger.Delete(a.LeaderAckPath(), -1))
		}, []string{withdrawing, "getChildren2", "delete"}, ""},
		{"data changed by hand", func(w *world, a *member, stranger *zk.Conn) {
			_, err := stranger.Set(a.LeaderAckPath(), []byte("else"), -1)
			require.NoError(w.t, err)
		}, []string{withdrawing, "getData", withdrawing}, ""},
		{"replaced", replace, []string{withdrawing, "getData", "getChildren2", "delete"}, "stranger"},
		{"watched", func(w *world, _ *member, _ *zk.Conn) { w.offBeat() }, []string{withdrawing}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			virtually(t, func(t *testing.T, w *world) {
				a := w.member("a", &journal{})
				stranger := w.client()
				a.lead()
				test.before(w, a, stranger)
				synctest.Wait()
				m := w.meter(a.node.ID(), 0)
				a.resign()
				assert.Equal(t, test.cost, ops(m.take()))
				acked, err := a.LeaderData(w.context())
				if test.left == "" {
					require.ErrorIs(t, err, election.ErrNoLeader)
					return
				}
				require.NoError(t, err)
				assert.Equal(t, test.left, string(acked))
			})
		})
	}
}

// A failover costs the whole election of next-node followers the same, however
// many there are: the leader's withdrawal, two heartbeats, one acknowledgement.
func TestBudgetFailover(t *testing.T) {
	want := costs{testutil.OpMulti: 4, testutil.OpNotification: 3}
	sizes := []int{2, 10, 100, 1000}
	if testing.Short() || election.RaceDetector {
		sizes = sizes[:3]
	}
	for _, n := range sizes {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			virtually(t, func(t *testing.T, w *world) {
				j := &journal{}
				leader := w.member("leader", j).lead()
				next := w.member("next", j).vote()
				for range n - 2 {
					w.member("c", j).vote()
				}
				w.offBeat() // and the leader's watch on its acknowledgement is armed
				got := w.spend(func() {
					if err := leader.Close(); err != nil {
						t.Fatal(err)
					}
				})
				assert.Equal(t, "", got.differs(want))
				if acked, err := next.LeaderData(w.context()); err != nil || string(acked) != "next" {
					t.Errorf("the leader is %q, %v", acked, err)
				}
			})
		})
	}
}

// Failovers in a row, with no time in between: each costs the election five requests, the
// withdrawal, the acknowledgement, and for the one that becomes the next a list and the two heartbeats
// of its lease, so that it leads without a request when it is its turn. The list is saved where it has
// seen all in front by name.
func TestBudgetSeries(t *testing.T) {
	sizes := []int{3, 4, 5, 12, 100}
	if !testing.Short() && !election.RaceDetector {
		sizes = append(sizes, 1000)
	}
	for _, n := range sizes {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			virtually(t, func(t *testing.T, w *world) {
				j := &journal{}
				line := []*member{w.member("0", j, hotStandby).lead()}
				for i := 1; i < n; i++ {
					line = append(line, w.member(fmt.Sprint(i), j, hotStandby).vote())
				}
				time.Sleep(w.timeout() / 2) // nobody has looked anew, but the second in front is watched
				for i, next := range line[1:min(n, 30)] {
					want := costs{testutil.OpMulti: 4, testutil.OpGetChildren2: 1, testutil.OpNotification: 3}
					if i == 0 {
						delete(want, testutil.OpGetChildren2) // the one that becomes the next has seen two in front, and no more
					}
					if i+2 >= n {
						want = costs{testutil.OpMulti: 2, testutil.OpNotification: 2} // nobody becomes the next
					}
					m := w.meter(next.node.ID(), 0)
					got := w.spend(func() { require.NoError(t, line[i].Close()) })
					assert.Empty(t, got.differs(want), "failover %d", i)
					assert.Equal(t, []string{acknowledgings}, ops(m.take()), "failover %d: from the leader's end on", i)
					assert.True(t, next.IsLeader(), "failover %d", i)
				}
			})
		})
	}
}

// HotStandby costs one request more for whoever joins behind two or more, a moment later: the watch on the
// second in front. When that one goes without having led, up to four requests more are made than without: whoever
// is the second behind it begins to make a lease, since it may be the next, until its list shows that it is
// not, and watches another one.
func TestBudgetSecondInFront(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		line := []*member{w.member("leader", j).lead()}
		for i := range 10 {
			c := w.member(fmt.Sprint(i+1), j, hotStandby)
			synctest.Wait()
			want, more := maps.Clone(joining), costs{testutil.OpGetChildren2: 1}
			if i == 0 {
				want[testutil.OpMulti], more = 2, costs{} // it is the next, and makes its lease
			}
			assert.Empty(t, w.spend(func() { c.vote() }).differs(want), "joining behind %d", i+1)
			assert.Empty(t, w.spend(func() { time.Sleep(5 * time.Millisecond) }).differs(more), "behind %d, a moment later", i+1)
			line = append(line, c)
		}
		for _, test := range []struct {
			gone  int
			beats int64 // of the one that becomes the next
			want  costs
		}{
			// The one behind it lists and watches the one in front, by a watch that it has; it watches another
			// second, and reads the acknowledgement for OnLose.
			{5, 0, costs{testutil.OpDelete: 1, testutil.OpGetChildren2: 4, testutil.OpGetData: 1, testutil.OpNotification: 3}},
			{10, 0, costs{testutil.OpDelete: 1, testutil.OpNotification: 1}}, // the last
			// The one behind it needs no list, is the next, and makes a lease.
			{1, 2, costs{testutil.OpDelete: 1, testutil.OpGetChildren2: 2, testutil.OpGetData: 1, testutil.OpNotification: 3}},
		} {
			got := w.spend(func() {
				line[test.gone].resign()
				time.Sleep(5 * time.Millisecond)
			})
			beats := got[testutil.OpMulti]
			assert.True(t, beats >= test.beats && beats <= test.beats+2, "%d goes: %d heartbeats", test.gone, beats)
			delete(got, testutil.OpMulti)
			assert.Empty(t, got.differs(test.want), "%d goes", test.gone)
		}
	})
}

// Followers of the leader hear of its end and of the next one: two events and
// two reads for each session, not for each candidate.
func TestBudgetFollowLeader(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		const sessions, each = 10, 7
		j := &journal{}
		leader := w.member("leader", j).lead()
		taken := make(chan struct{})
		next := w.member("next", j).vote()
		next.OnWin(func(context.Context, election.Term) error { <-taken; return nil })
		for range sessions {
			n := w.session()
			for range each {
				w.memberOn(n, "c", j, followLeader).vote()
			}
		}
		w.offBeat()
		want := costs{
			testutil.OpMulti: 4, testutil.OpExists: sessions, testutil.OpGetData: sessions,
			testutil.OpNotification: 3 + 2*sessions,
		}
		// All look where the leader has gone before there is another: who looks
		// later finds that one, with the same reads, and needs no second event.
		got := w.spend(func() {
			leader.resign()
			synctest.Wait()
			close(taken)
		})
		assert.Equal(t, "", got.differs(want))
		assert.Equal(t, sessions*each, j.count("c lost to next"), "were told of the next leader")
	})
}

// A leader at rest: some seven heartbeats in each session timeout for the
// session, and the periodic rechecks.
func TestBudgetLeading(t *testing.T) {
	const periods = 16
	for _, elections := range []int{1, 10, 300} {
		t.Run(fmt.Sprint(elections), func(t *testing.T) {
			virtually(t, func(t *testing.T, w *world) {
				n := w.session()
				var leading atomic.Int64
				for i := range elections {
					c, err := election.NewCandidate(n.Session, fmt.Sprintf("e%d", i), nil)
					require.NoError(t, err)
					c.OnWin(func(context.Context, election.Term) error { leading.Add(1); return nil })
					require.NoError(t, c.Vote(w.context()))
				}
				w.offBeat()
				require.Equal(t, elections, int(leading.Load()), "%d lead", leading.Load())
				got := w.spend(func() { time.Sleep(periods * w.timeout()) })
				// One in each half of a ping period: 13/24 (T/4 + T/100).
				assert.InDelta(t, periods/(13./24*(1./4+1./100)), got[testutil.OpMulti], 1, "heartbeats in %d session timeouts", periods)
				reads := int(got.requests() - got[testutil.OpMulti])
				slow := w.timeout() * time.Duration(1+elections/100)
				assert.Equal(t, "", pace(reads, elections, periods*w.timeout(), slow))
			})
		})
	}
}

// While the work of a leader ends its ballot is rechecked as before, and its lease is kept.
func TestBudgetStepDown(t *testing.T) {
	const periods = 16
	virtually(t, func(t *testing.T, w *world) {
		a := w.member("a", &journal{}, func(o *election.CandidateOptions) { o.StepDownTimeout = time.Hour })
		defer a.hangs()()
		a.lead()
		go func() { _ = a.Resign(w.context()) }()
		w.offBeat()
		require.False(t, a.IsLeader())
		got := w.spend(func() { time.Sleep(periods * w.timeout()) })
		assert.InDelta(t, periods/(13./24*(1./4+1./100)), got[testutil.OpMulti], 1, "heartbeats")
		assert.Equal(t, "", pace(int(got.requests()-got[testutil.OpMulti]), 1, periods*w.timeout(), w.timeout()))
	})
}

// Many elections over one session cost each what it costs alone, and as many round trips as fit into the requests that a
// session may have under way: nothing grows with their number.
func TestBudgetElectionsOfOneSession(t *testing.T) {
	const n, window, latency = 640, 64, 5 * time.Millisecond
	virtually(t, func(t *testing.T, w *world) {
		node := w.session()
		w.inElection(node, "first") // the root is there, and a lease
		w.offBeat()
		candidates := make([]*election.Candidate, n)
		var led atomic.Int64
		for i := range candidates {
			c, err := election.NewCandidate(node.Session, fmt.Sprintf("e%d", i), &election.CandidateOptions{
				Metrics: &election.Metrics{TakenOver: func(string, time.Duration) { led.Add(1) }},
			})
			require.NoError(t, err)
			candidates[i] = c
		}
		vote := func() {
			for _, c := range candidates {
				go func() { assert.NoError(t, c.Vote(w.context())) }()
			}
		}
		again := costs{testutil.OpCreate: 1, testutil.OpGetChildren2: 2, testutil.OpMulti: 1}
		for _, test := range []struct {
			name      string
			begin     func()
			elections int64
			each      costs
			beats     int64 // heartbeats, at most
			lists     int64 // more than these, at most
			more      int   // round trips besides: those of the last, and of a new session
		}{
			// The node and the ballot in one request, since the first election was new as well; the watch on it and the list.
			{"new", vote, n, costs{testutil.OpGetChildren2: 2, testutil.OpMulti: 2}, 2, 0, 4},
			{"again", vote, n, again, 2, 0, 4},
			// Who hears of the end of its ballot before the connection ends asks why: none of them, or all. A moment after
			// a connection is made all is rechecked, by a list of those that are about to lead.
			{"after the end of the session", func() { require.True(t, w.srv.ExpireSession(node.ID())) }, n + 1, again, n + 1 + 2, window, 12 + n/window + 1},
		} {
			led.Store(0)
			release := w.srv.Control(testutil.AnyOp, func(r *testutil.Request) testutil.Action {
				if r.Op == testutil.OpPing {
					return testutil.Pass
				}
				return testutil.DelayReply(latency)
			})
			var took time.Duration
			got := w.spend(func() {
				began := time.Now()
				test.begin()
				for led.Load() < n {
					time.Sleep(latency / 5)
				}
				took = time.Since(began)
			})
			release()
			assert.Equal(t, test.each[testutil.OpCreate]*test.elections, got[testutil.OpCreate], test.name)
			lists := got[testutil.OpGetChildren2] - test.each[testutil.OpGetChildren2]*test.elections
			assert.True(t, lists >= 0 && lists <= test.lists, "%s: %d lists more", test.name, lists)
			beats := got[testutil.OpMulti] - test.each[testutil.OpMulti]*test.elections
			assert.True(t, beats >= 0 && beats <= test.beats, "%s: %d heartbeats", test.name, beats)
			assert.LessOrEqual(t, took, time.Duration(int(test.each.requests()*test.elections)/window+test.more)*latency, test.name)
			if test.name == "new" {
				for _, c := range candidates {
					require.NoError(t, c.Resign(w.context()))
				}
			}
			w.offBeat()
		}
	})
}

// A thousand observers of an election on one session: one watch, and one read
// for each change.
func TestBudgetObservers(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		const observers = 1000
		j := &journal{}
		leader := w.member("leader", j).lead()
		w.offBeat()
		watches := w.srv.Watches()
		n := w.session()
		var news, deaths, data atomic.Int64
		for range observers {
			o, err := election.NewObserver(n.Session, w.name(), nil)
			require.NoError(t, err)
			o.OnNewLeader(func(election.Leader) { news.Add(1) })
			o.OnLeaderDeath(func(election.Leader) { deaths.Add(1) })
			o.OnLeaderData(func(election.Leader) { data.Add(1) })
			require.NoError(t, o.Observe(w.context()))
		}
		require.Equal(t, 1, w.srv.Watches()-watches, "watches for %d observers", observers)
		m := w.meter(n.ID(), 0)
		for _, step := range []struct {
			name string
			do   func()
			told *atomic.Int64
			cost []string
		}{
			{"new data", func() {
				if err := leader.Proclaim(w.context(), []byte("news")); err != nil {
					t.Fatal(err)
				}
			}, &data, []string{"getData"}},
			{"death", leader.resign, &deaths, []string{"exists"}},
			{"new leader", func() { leader.lead() }, &news, []string{"getData"}},
		} {
			synctest.Wait()
			m.take()
			before := step.told.Load()
			step.do()
			synctest.Wait()
			if told := step.told.Load() - before; told != observers {
				t.Errorf("%s: %d observers were told", step.name, told)
			}
			if got := ops(m.take()); !slices.Equal(got, step.cost) {
				t.Errorf("%s cost %q, want %q", step.name, got, step.cost)
			}
		}
		w.offBeat() // and the new leader watches its acknowledgement, too
		assert.Equal(t, 1, w.srv.Watches()-watches, "watches for %d observers in the end", observers)
	})
}

// What the checks above rest on notices one request too many, and one too few.
func TestBudgetNotices(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		w.member("leader", j).lead()
		c := w.member("c", j)
		stranger := w.client()
		synctest.Wait()
		m := w.meter(c.node.ID(), 0)
		got := w.spend(func() {
			c.vote()
			if _, _, err := stranger.Exists("/"); err != nil {
				t.Fatal(err)
			}
		})
		assert.NotEqual(t, "", got.differs(joining), "one more than a join was not noticed: %v", got)
		if n := int64(m.count()); n != got.requests()-1 {
			t.Errorf("the session sent %d of %v", n, got)
		}
		delete(got, testutil.OpExists)
		assert.Equal(t, "", got.differs(joining))
		got[testutil.OpGetChildren2]--
		assert.NotEqual(t, "", got.differs(joining), "one less than a join was not noticed: %v", got)
	})
	for _, n := range []int{15, 16, 20, 27, 28} {
		assert.Equal(t, n >= 15 && n <= 27, pace(n, 1, 20*time.Second, time.Second) == "", "%d reads in 20 periods", n)
	}
}
