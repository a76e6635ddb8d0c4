package election_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election"
	"github.com/zkelection/election/testutil"
)

// Joining in two round trips: what may come in between, and that nothing is claimed or
// told before the end of the second.

// trips counts the requests of a session that arrive together, each time.
func trips(seen []arrival) (together []int) {
	var last time.Time
	for _, a := range seen {
		if !a.at.Equal(last) {
			together = append(together, 0)
		}
		last = a.at
		together[len(together)-1]++
	}
	return together
}

// trip is how long a round trip takes where it is measured.
const trip = 100 * time.Millisecond

// Many that join at once cost what they cost one after another.
func TestJoinAllAtOnce(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		const many = 50
		j := &journal{}
		w.member("leader", j).lead()
		all := make([]*member, many)
		for i := range all {
			all[i] = w.member("c", j)
		}
		w.offBeat()
		want := make(costs)
		for op, n := range joining {
			want[op] = many * n
		}
		got := w.spend(func() { each(many, many, func(i int) { all[i].vote() }) })
		assert.Empty(t, got.differs(want))
		assert.Equal(t, many, j.count("c lost to leader"))
	})
}

// Who joins while nobody has acknowledged is told of the leader for one request more: the list shows that there is no
// acknowledgement, so it is watched for and not read.
func TestJoinBeforeTheAcknowledgement(t *testing.T) {
	for _, follow := range []func(*election.CandidateOptions){nextNode, followLeader} {
		virtually(t, func(t *testing.T, w *world) {
			j := &journal{}
			leader, takesOver := w.member("leader", j), make(chan struct{})
			leader.OnWin(func(context.Context, election.Term) error { <-takesOver; return nil })
			leader.vote()
			c := w.member("c", j, follow)
			w.offBeat()
			got := w.spend(func() { c.vote() })
			delete(got, testutil.OpMulti) // heartbeats of the leader
			assert.Empty(t, got.differs(costs{testutil.OpCreate: 1, testutil.OpGetChildren2: 3, testutil.OpExists: 1}))
			assert.False(t, j.has("c lost to leader"))
			got = w.spend(func() { close(takesOver) })
			assert.Equal(t, int64(1), got[testutil.OpGetData])
			assert.True(t, j.has("c lost to leader"))
		})
	}
}

// The own ballot is watched as soon as its name is known, also while the list is on its way.
func TestJoinWatchesItsBallotBeforeTheList(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		w.member("leader", j).lead()
		c := w.member("c", j)
		synctest.Wait()
		m := w.meter(c.node.ID(), 0)
		c.node.link.next(lateReply, func(r request) bool { return r.op == opChildren2 && r.path == c.RootVotePath() })
		began := time.Now()
		c.vote()
		assert.Equal(t, lateBy, time.Since(began))
		synctest.Wait()
		assert.Equal(t, []int{3, 2}, trips(m.take()), "the creation, the list and the watch; the predecessor's watch and the acknowledgement")
		assert.True(t, j.has("c lost to leader"))
	})
}

// Whoever joins first has the lease made beside the confirmation, and leads a round trip
// after that.
func TestJoinFirst(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		w.member("before", j).lead().resign() // the election's node is there
		a := w.member("a", j)
		at := leadsAt(a)
		synctest.Wait()
		m := w.meter(a.node.ID(), trip)
		began := time.Now()
		a.lead()
		assert.Equal(t, 3*trip, at().Sub(began))
		seen := m.take()
		asked := ops(seen)[:6]
		slices.Sort(asked[2:4]) // these are sent at once
		assert.Equal(t, []string{"create", "getChildren2", "getChildren2", "multi check ", "multi check ", acknowledgings}, asked)
		assert.Equal(t, []int{2, 2, 1}, trips(seen)[:3])
	})
}

// The first vote of an election finds no node to create its ballot below, and makes both in one request, or what is
// missing from below. The session's next new election is taken to have none either, which costs one request if it has.
func TestJoinNewElection(t *testing.T) {
	for _, root := range []bool{true, false} {
		t.Run(fmt.Sprintf("root %v", root), func(t *testing.T) {
			virtually(t, func(t *testing.T, w *world) {
				if root {
					w.inElection(w.session(), "another")
				}
				a := w.member("a", &journal{})
				synctest.Wait()
				m := w.meter(a.node.ID(), trip)
				a.lead()
				const both = "create create "
				var paths []string
				for _, a := range m.take() {
					switch {
					case a.op == testutil.OpCreate:
						path, _, _ := strings.Cut(a.path, "-")
						paths = append(paths, path)
					case a.path == both:
						paths = append(paths, both)
					}
				}
				node := a.RootVotePath()
				want := []string{node + "/ballot", both}
				if !root {
					want = []string{node + "/ballot", both, node, election.DefaultRoot, node, node + "/ballot"}
				}
				assert.Equal(t, want, paths)

				asked := func() []string {
					time.Sleep(5 * trip)
					return slices.DeleteFunc(ops(m.take()), func(op string) bool { return op == "multi check " })
				}
				asked()
				next := w.inElection(a.node, "next")
				assert.Equal(t, []string{"multi " + both, "getChildren2", "getChildren2", acknowledgings}, asked(), "a new election after a new one")
				require.NoError(t, next.Resign(w.context()))
				asked()
				require.NoError(t, next.Vote(w.context()))
				assert.Equal(t, []string{"create", "getChildren2", "getChildren2", acknowledgings}, asked(), "the same once more")
				for _, name := range []string{"there", "there as well"} {
					w.inElection(w.session(), name)
					w.inElection(a.node, name)
					want := []string{"create", "getChildren2"}
					if name == "there" {
						want = append([]string{"multi " + both}, want...)
					}
					assert.Equal(t, want, asked()[:len(want)], name)
				}
			})
		})
	}
}

// On a caller's connection nobody tells when the creation has been sent, so the list
// waits for its answer.
func TestJoinOnCallersConnection(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		w.member("leader", j).lead()
		s, err := election.NewSession(w.client(), w.timeout(), nil)
		require.NoError(t, err)
		defer s.Close()
		require.NoError(t, s.AwaitConnected(w.context()))
		c := w.memberOn(&node{Session: s}, "c", j)
		synctest.Wait()
		m := w.meter(s.ID(), trip)
		c.vote()
		time.Sleep(2 * trip)
		assert.Equal(t, []int{1, 2, 2}, trips(m.take()))
		assert.True(t, j.has("c lost to leader"))
	})
}

// A process's first session has nothing to catch up with: it has seen nothing. Each
// later one has.
func TestFirstSessionAsksNothing(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		w.srv.ResetCounts()
		n := w.session()
		synctest.Wait()
		counts := costs(w.srv.Counts())
		assert.Equal(t, costs{testutil.OpConnect: 1}, counts)
		for range 3 {
			w.srv.ResetCounts()
			time.Sleep(w.timeout())
			w.renewed(n.Session)
			require.NoError(t, n.AwaitConnected(w.context()))
			assert.Equal(t, int64(1), w.srv.Counts()[testutil.OpSync])
		}
	})
}

// The list that comes with the creation is worth nothing: it is asked for again, beside the
// watch on the own ballot.
func TestListBehindCreationFails(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		w.member("leader", j).lead()
		c := w.member("c", j)
		synctest.Wait()
		asked := 0
		defer w.srv.Control(testutil.OpGetChildren2, func(*testutil.Request) testutil.Action {
			if asked++; asked == 1 {
				return testutil.Fail(throttled)
			}
			return testutil.Pass
		})()
		m := w.meter(c.node.ID(), trip)
		c.vote()
		time.Sleep(2 * trip)
		assert.Equal(t, []int{2, 2, 2}, trips(m.take()))
		assert.True(t, j.has("c lost to leader"))
	})
}

// isWatchOn reports whether a request watches a ballot.
func isWatchOn(ballot func(path string) bool) func(*testutil.Request) bool {
	return func(r *testutil.Request) bool {
		return r.Op == testutil.OpGetChildren2 && strings.Contains(r.Path, "/ballot-") && ballot(r.Path)
	}
}

// holding holds the first request that matches back until release is called; held is
// closed when it is there.
func (w *world) holding(match func(*testutil.Request) bool) (held <-chan struct{}, release func()) {
	arrived, released := make(chan struct{}), make(chan struct{})
	var first sync.Once
	cancel := w.srv.Control(testutil.AnyOp, func(r *testutil.Request) (action testutil.Action) { // on the goroutine of each connection
		if match(r) {
			first.Do(func() {
				close(arrived)
				action = testutil.Hold(released)
			})
		}
		return action
	})
	return arrived, func() {
		cancel()
		close(released)
	}
}

// Until the own ballot is known to be there, and this session's, nobody leads with it or
// is told that it lost, though everything else is known by then.
func TestNothingBeforeTheConfirmation(t *testing.T) {
	for _, behind := range []bool{false, true} {
		t.Run(fmt.Sprintf("behind %v", behind), func(t *testing.T) {
			for _, deleted := range []bool{false, true} {
				t.Run(fmt.Sprintf("deleted %v", deleted), func(t *testing.T) {
					virtually(t, func(t *testing.T, w *world) {
						j := &journal{}
						leader := w.member("leader", j).lead()
						front := leader.VotePath()
						if !behind {
							leader.resign()
						}
						other := w.client()
						c := w.member("c", j, followLeader)
						// An observer of the same session knows the leader, and no answer has to come for it.
						require.NoError(t, w.observer(c.node, &journal{}).Observe(w.context()))
						synctest.Wait()
						var own string
						confirm := make(chan struct{})
						cancel := w.srv.Control(testutil.OpGetChildren2, func(r *testutil.Request) testutil.Action {
							if r.SessionID == c.node.ID() && isWatchOn(func(p string) bool { return p != front })(r) && own == "" {
								own = r.Path
								if deleted {
									return testutil.LoseReply
								}
								return testutil.HoldReply(confirm)
							}
							return testutil.Pass
						})
						voted := make(chan error, 1)
						ctx := w.context()
						go func() { voted <- c.Vote(ctx) }()
						synctest.Wait()
						cancel()
						if deleted {
							// The connection is gone with the answer, and so is the ballot before there is another.
							require.NoError(t, other.Delete(own, -1))
						} else {
							time.Sleep(w.timeout() / 4)
						}
						assert.False(t, j.has("c won"))
						assert.False(t, j.has("c lost to leader"))
						assert.False(t, c.IsLeader())
						assert.Empty(t, c.VotePath())
						close(confirm)
						require.NoError(t, <-voted)
						assert.Equal(t, deleted, own != c.VotePath() && !strings.HasSuffix(own, c.VotePath()))
						if behind {
							w.await(j, "c lost to leader")
							assert.Equal(t, 1, j.count("c lost to leader"))
						} else {
							w.await(j, "c won")
						}
					})
				})
			}
		})
	}
}

// The one in front goes between the list and the watch on it.
func TestPredecessorGoesDuringJoin(t *testing.T) {
	for _, front := range []int{1, 2, 3} {
		t.Run(fmt.Sprint(front), func(t *testing.T) {
			virtually(t, func(t *testing.T, w *world) {
				j := &journal{}
				var line []*member
				for i := range front {
					line = append(line, w.member(fmt.Sprint("before ", i), j).vote())
				}
				line[0].lead()
				last := line[front-1]
				path := last.VotePath()
				c := w.member("c", j)
				held, release := w.holding(isWatchOn(func(p string) bool { return p == path }))
				voted := make(chan error, 1)
				ctx := w.context()
				go func() { voted <- c.Vote(ctx) }()
				<-held
				last.resign()
				m := w.meter(c.node.ID(), 0)
				release()
				require.NoError(t, <-voted)
				if front == 1 {
					w.await(j, "c won")
					assert.False(t, slices.ContainsFunc(m.take(), func(a arrival) bool {
						return a.op == testutil.OpGetChildren2 && !strings.Contains(a.path, "/ballot-")
					}), "numbers only grow, so there is nothing to list")
					return
				}
				synctest.Wait()
				assert.False(t, j.has("c won"))
				lists := 0
				for _, a := range m.take() {
					if a.op == testutil.OpGetChildren2 && !strings.Contains(a.path, "/ballot-") {
						lists++
					}
				}
				assert.Equal(t, 1, lists, "who is the next one in front")
				for _, m := range line[:front-1] {
					m.resign()
				}
				w.await(j, "c won")
			})
		})
	}
}

// A ballot with the same tag, from a try whose reply was lost: the list of the creation shows
// it, nobody counts it, and it is gone before anything is claimed.
func TestAnotherBallotOfTheTag(t *testing.T) {
	for _, behind := range []bool{false, true} {
		t.Run(fmt.Sprint(behind), func(t *testing.T) {
			virtually(t, func(t *testing.T, w *world) {
				j := &journal{}
				leader := w.member("leader", j).lead()
				if !behind {
					leader.resign()
				}
				other := w.client()
				c := w.member("c", j)
				synctest.Wait()
				held, release := w.holding(isBallotCreation)
				var stem string
				defer w.srv.Control(testutil.OpCreate, func(r *testutil.Request) testutil.Action {
					if r.SessionID == c.node.ID() && isBallotCreation(r) {
						stem = r.Path
					}
					return testutil.Pass
				})()
				voted := make(chan error, 1)
				ctx := w.context()
				go func() { voted <- c.Vote(ctx) }()
				<-held
				synctest.Wait()
				extra, err := other.Create(stem, nil, everyone, zk.WorldACL(zk.PermAll))
				require.NoError(t, err)
				atWin := make(chan bool, 1)
				c.OnWin(func(context.Context, election.Term) error {
					there, _, err := other.Exists(extra)
					atWin <- there
					return err
				})
				release()
				require.NoError(t, <-voted)
				there, _, err := other.Exists(extra)
				require.NoError(t, err)
				assert.False(t, there, "when Vote returns")
				if behind {
					w.await(j, "c lost to leader")
					leader.resign()
				}
				assert.False(t, <-atWin, "when it wins")
			})
		})
	}
}

// The answer that confirms the ballot is lost with the connection, and when that is back another
// one leads: who was read as the leader beside the lost answer is not who this candidate lost to.
func TestLeaderChangesDuringJoin(t *testing.T) {
	for range 50 { // the client restores its watches beside the requests that wait for the connection
		virtually(t, leaderChangesDuringJoin)
	}
}

func leaderChangesDuringJoin(t *testing.T, w *world) {
	j := &journal{}
	leader := w.member("leader", j).lead()
	w.member("next", j).vote()
	c := w.member("c", j)
	// An observer of the same session knows the leader, and no answer has to come for it.
	require.NoError(t, w.observer(c.node, &journal{}).Observe(w.context()))
	synctest.Wait()
	confirm := make(chan struct{})
	defer close(confirm)
	cancel := w.srv.Control(testutil.OpGetChildren2, func(r *testutil.Request) testutil.Action {
		if r.SessionID == c.node.ID() && isWatchOn(func(string) bool { return true })(r) {
			return testutil.HoldReply(confirm)
		}
		return testutil.Pass
	})
	voted := make(chan error, 1)
	ctx := w.context()
	go func() { voted <- c.Vote(ctx) }()
	synctest.Wait()
	c.node.link.setDown(true)
	cancel()
	leader.resign()
	w.await(j, "next won")
	synctest.Wait()
	c.node.link.setDown(false)
	require.NoError(t, <-voted)
	w.await(j, "c lost to next")
	assert.False(t, j.has("c lost to leader"))
}

// BenchmarkJoining measures N candidates that join behind a leader, one after another
// and all at once, on sessions of their own and on one for all, until the last one waits
// and knows the leader; and beside it the floor, in turns.
func BenchmarkJoining(b *testing.B) {
	onBoth(b, 10*time.Second, func(b *testing.B, start func(*testing.B) *field) {
		for _, n := range []int{2, 10, 100, 1000} {
			for _, sessions := range []int{1, n} {
				for _, atOnce := range []int{1, n} {
					b.Run(fmt.Sprintf("n=%d/sessions=%d/at-once=%d", n, sessions, atOnce), func(b *testing.B) {
						f := start(b)
						library, floor := joinLibrary(f, n, sessions), joinFloor(f, n, sessions)
						var s samples
						for i := 0; b.Loop(); i++ {
							for _, first := range []bool{i%2 == 0, i%2 != 0} {
								if first {
									s.took("joined", library(atOnce))
								} else {
									s.took("floor-joined", floor(atOnce))
								}
							}
						}
						s.report(b)
					})
				}
			}
		}
	})
}

func joinLibrary(f *field, n, sessions int) func(atOnce int) time.Duration {
	opts := &election.CandidateOptions{Root: f.root}
	leader, err := election.NewCandidate(f.session(), benchElection, opts)
	f.must(err)
	_, err = leader.Campaign(f.ctx())
	f.must(err)
	var all []*election.Session
	for range sessions {
		all = append(all, f.session())
	}
	return func(atOnce int) (joined time.Duration) {
		candidates := make([]*election.Candidate, n)
		ctx := f.ctx()
		began := time.Now()
		each(n, atOnce, func(i int) {
			c, err := election.NewCandidate(all[i%sessions], benchElection, opts)
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
			<-lost
		})
		joined = time.Since(began)
		// The last first, so that nobody has to look for a new predecessor.
		number := func(c *election.Candidate) string { return c.VotePath()[strings.LastIndexByte(c.VotePath(), '-'):] }
		slices.SortFunc(candidates, func(a, b *election.Candidate) int { return strings.Compare(number(b), number(a)) })
		for _, c := range candidates {
			f.must(c.Close())
		}
		return joined
	}
}

func joinFloor(f *field, n, sessions int) func(atOnce int) time.Duration {
	path := f.floorPath()
	leader := &floorMember{conn: f.client(), path: path, acked: make(chan time.Time, 1)}
	f.must(leader.join())
	f.must(leader.lead())
	var conns []*zk.Conn
	for range sessions {
		conns = append(conns, f.client())
	}
	return func(atOnce int) time.Duration {
		members := make([]*floorMember, n)
		began := time.Now()
		each(n, atOnce, func(i int) {
			members[i] = &floorMember{conn: conns[i%sessions], path: path}
			assert.NoError(f.b, members[i].join())
		})
		took := time.Since(began)
		for _, m := range members {
			f.must(m.conn.Delete(m.ballot, -1))
		}
		return took
	}
}
