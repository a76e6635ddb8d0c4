package election_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
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

// Details of the public methods: whose leadership it is, whose acknowledgement,
// whose turn, and what is handed in and out.

// hookHandler calls a function when a message is logged.
type hookHandler struct {
	slog.Handler
	message string
	fn      func()
}

func (h hookHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == h.message {
		h.fn()
	}
	return h.Handler.Handle(ctx, r)
}

func (h hookHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	h.Handler = h.Handler.WithAttrs(attrs)
	return h
}

// Two Campaigns, and the context of the one ends in the moment of success: it
// takes nothing from the other.
func TestCampaignEndsAtItsSuccess(t *testing.T) {
	for range 20 {
		virtually(t, func(t *testing.T, w *world) {
			first, cancel := context.WithCancel(w.context())
			a := w.member("a", &journal{}, func(o *election.CandidateOptions) {
				o.Logger = slog.New(hookHandler{w.logger().Handler(), "election: leading", cancel})
			})
			both := make(chan struct{})
			a.OnWin(func(context.Context, election.Term) error { <-both; return nil })
			type result struct {
				term election.Term
				err  error
			}
			campaign := func(ctx context.Context) <-chan result {
				results := make(chan result, 1)
				go func() {
					term, err := a.Campaign(ctx)
					results <- result{term, err}
				}()
				synctest.Wait()
				return results
			}
			one := campaign(first) // it is this one that votes
			other := campaign(w.context())
			close(both)
			got, gotFirst := <-other, <-one
			require.NoError(t, got.err)
			time.Sleep(10 * w.timeout())
			assert.True(t, a.IsLeader(), "the first got %v", gotFirst)
			if gotFirst.err == nil {
				assert.Equal(t, got.term, gotFirst.term)
			} else {
				assert.ErrorIs(t, gotFirst.err, context.Canceled)
			}
		})
	}
}

// A callback that ends its goroutine, as a test's FailNow does, ends only its
// own turn.
func TestGoexitEndsOnlyItsTurn(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		a, b := w.member("a", j), w.member("b", j)
		turns := &journal{}
		exits := func(what string) { turns.add("%s exits", what); runtime.Goexit() }
		for _, m := range []*member{a, b} {
			m.OnTakeoverError(func(election.Term, error) { exits(m.id + " OnTakeoverError") })
			m.OnTakeoverError(func(election.Term, error) { turns.add("%s OnTakeoverError", m.id) })
			for range 2 {
				m.OnStepDown(func(context.Context, election.Term, error) { exits(m.id + " OnStepDown") })
			}
			m.OnStepDown(func(ctx context.Context, _ election.Term, _ error) {
				turns.add("%s OnStepDown, its context: %v", m.id, ctx.Err())
			})
			m.OnLose(func(context.Context, election.Leader) { exits(m.id + " OnLose") })
			m.OnLose(func(context.Context, election.Leader) { turns.add("%s OnLose", m.id) })
		}
		o := w.observer(w.session(), &journal{})
		o.OnNewLeader(func(election.Leader) { runtime.Goexit() })
		o.OnNewLeader(func(l election.Leader) { turns.add("OnNewLeader %s", l.Data) })
		o.OnLeaderDeath(func(election.Leader) { runtime.Goexit() })
		o.OnLeaderDeath(func(l election.Leader) { turns.add("OnLeaderDeath %s", l.Data) })
		o.OnLeaderData(func(election.Leader) { runtime.Goexit() })
		o.OnLeaderData(func(l election.Leader) { turns.add("OnLeaderData %s", l.Data) })
		require.NoError(t, o.Observe(w.context()))
		w.await(turns, "OnLeaderDeath ")
		a.OnLeaderAck(func(election.Leader) { runtime.Goexit() })
		a.OnLeaderAck(func(election.Leader) { turns.add("OnLeaderAck") })
		for range 2 {
			a.node.OnConnected(func() { turns.add("OnConnected"); runtime.Goexit() })
		}

		cancel := a.OnWin(func(context.Context, election.Term) error { runtime.Goexit(); return nil })
		require.ErrorIs(t, second(a.Campaign(w.context())), election.ErrTakeoverFailed)
		w.until("the withdrawal", func() bool { return !a.Voted() })
		cancel()
		failed := []string{
			"a OnTakeoverError exits", "a OnTakeoverError", "a OnStepDown exits", "a OnStepDown exits", "a OnStepDown, its context: <nil>",
		}
		w.same("turns of a failed takeover", without(turns.all(), "OnLeader", "OnConnected"), failed)
		a.lead()
		b.vote()
		w.await(turns, "b OnLose")
		w.until("the observer to have seen a", func() bool { return turns.count("OnNewLeader a") == 1 })
		require.NoError(t, a.Proclaim(w.context(), []byte("a2")))
		w.await(turns, "OnLeaderData a2")
		a.resign()
		b.lead()
		w.await(turns, "OnNewLeader b")
		assert.Equal(t, 2, turns.count("OnConnected"))
		assert.Equal(t, 1, turns.count("OnLeaderAck"))
		// Each owner has its own order.
		all := without(turns.all(), "OnConnected", "OnLeaderAck")
		w.same("turns of a", without(all, "b ", "OnLeader", "OnNewLeader"), slices.Concat(failed, failed[2:]))
		w.same("turns of b", without(all, "a ", "OnLeader", "OnNewLeader"), []string{"b OnLose exits", "b OnLose"})
		w.same("turns of the observer", without(all, "a ", "b "), []string{
			"OnLeaderDeath ", "OnNewLeader a", "OnLeaderData a2", "OnLeaderDeath a2", "OnNewLeader b",
		})
	})
}

// without leaves out what begins with one of the words.
func without(events []string, words ...string) []string {
	return slices.DeleteFunc(slices.Clone(events), func(e string) bool {
		return slices.ContainsFunc(words, func(word string) bool { return strings.HasPrefix(e, word) })
	})
}

// Two candidates of an election on one session, with the same data. The ballot
// of the leader is deleted by hand as soon as it has acknowledged: its clean-up
// leaves the acknowledgement of the other alone.
func TestSiblingKeepsItsAcknowledgement(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		oj := &journal{}
		n := w.session()
		same := func(o *election.CandidateOptions) { o.Data = []byte("same") }
		j := &journal{}
		a, b := w.memberOn(n, "a", j, same), w.memberOn(n, "b", j, same)
		operator := w.client()
		hold := make(chan struct{})
		a.OnStepDown(func(context.Context, election.Term, error) { <-hold })
		a.lead()
		b.vote()
		o := w.observer(w.session(), oj)
		require.NoError(t, o.Observe(w.context()))
		first, err := o.LeaderSync(w.context())
		require.NoError(t, err)
		require.NoError(t, operator.Delete(a.VotePath(), -1))
		var leader election.Leader
		w.until("b to acknowledge", func() bool {
			leader, err = b.LeaderSync(w.context())
			return err == nil && leader.Zxid > first.Zxid && b.IsLeader()
		})
		close(hold)
		w.until("a to stand again", func() bool { return a.Voted() && !a.IsLeader() })
		w.settle()
		last, err := b.LeaderSync(w.context())
		require.NoError(t, err)
		assert.Equal(t, leader.Zxid, last.Zxid, "the acknowledgement was taken away, or written again")
	})
}

// So it does when the other acknowledges between the look and the deletion of that clean-up. Somebody may have
// changed the data of what is to be deleted: it goes all the same.
func TestSuccessorKeepsItsAcknowledgement(t *testing.T) {
	for _, does := range []string{"acknowledges", "proclaimed", "changes the data", "acknowledges behind a lost answer"} {
		t.Run(does, func(t *testing.T) {
			virtually(t, func(t *testing.T, w *world) {
				j, oj := &journal{}, &journal{}
				a, b := w.member("a", j).lead(), w.member("b", j)
				wins := make(chan struct{})
				b.OnWin(func(context.Context, election.Term) error { <-wins; return nil })
				b.vote()
				o := w.observer(w.session(), oj)
				require.NoError(t, o.Observe(w.context()))
				if does == "proclaimed" {
					require.NoError(t, a.Proclaim(w.context(), []byte("a")))
				}
				first, err := o.LeaderSync(w.context())
				require.NoError(t, err)
				deletes := func(r *testutil.Request) bool {
					return r.Op == testutil.OpDelete && r.Path == a.LeaderAckPath() && r.SessionID == a.node.ID()
				}
				var held <-chan struct{}
				var release func()
				if does == "acknowledges behind a lost answer" {
					lost := make(chan struct{})
					held = lost
					cancel := w.srv.Control(testutil.OpDelete, func(r *testutil.Request) testutil.Action {
						if !deletes(r) {
							return testutil.Pass
						}
						select {
						case <-lost:
							return testutil.Pass
						default:
						}
						close(lost)
						a.link().setDown(true)
						return testutil.LoseReply
					})
					release = func() { cancel(); a.link().setDown(false) }
				} else {
					held, release = w.holding(deletes)
				}
				operator := w.client()
				require.NoError(t, operator.Delete(a.VotePath(), -1))
				<-held
				if does == "changes the data" {
					require.NoError(t, second(operator.Set(a.LeaderAckPath(), []byte("x"), -1)))
				} else {
					close(wins)
					w.until("b to acknowledge", func() bool { return !b.Status().AcknowledgedAt.IsZero() })
				}
				release()
				w.until("a to stand again", func() bool { return a.Voted() && !a.IsLeader() })
				last, err := o.LeaderSync(w.context())
				if does == "changes the data" {
					require.ErrorIs(t, err, election.ErrNoLeader, "what a left still stands")
					close(wins)
					w.until("b to acknowledge", func() bool { return !b.Status().AcknowledgedAt.IsZero() })
					return
				}
				require.NoError(t, err, "the acknowledgement was taken away")
				assert.Greater(t, last.Zxid, first.Zxid)
				assert.Equal(t, []byte("b"), last.Data)
				time.Sleep(3 * w.timeout())
				again, err := o.LeaderSync(w.context())
				require.NoError(t, err)
				assert.Equal(t, last.Zxid, again.Zxid, "the acknowledgement was written again")
			})
		})
	}
}

// A takeover costs no request more for that, and a resignation none either.
func TestCzxidComesWithTheAcknowledgement(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		a := w.member("a", &journal{})
		synctest.Wait()
		m := w.meter(a.node.ID(), 0)
		a.lead()
		seen := ops(m.take())
		assert.Equal(t, []string{acknowledgings}, seen[len(seen)-1:])
		w.offBeat()
		m.take()
		a.resign()
		assert.Equal(t, []string{"multi delete delete "}, ops(m.take()))
	})
}

// New data while OnWin runs, and then the lease lapses: ballot and
// acknowledgement agree again once this candidate leads.
func TestProclaimInOnWinThenLapse(t *testing.T) {
	for _, acknowledged := range []bool{false, true} {
		virtually(t, func(t *testing.T, w *world) {
			j := &journal{}
			a := w.member("a", j)
			b := w.member("b", &journal{})
			first := true
			a.OnWin(func(ctx context.Context, _ election.Term) error {
				if !first {
					return nil
				}
				first = false
				if err := a.Proclaim(ctx, []byte("news")); err != nil {
					return err
				}
				if !acknowledged {
					a.node.link.setDown(true)
					<-ctx.Done()
					a.node.link.setDown(false)
				}
				return nil
			})
			if acknowledged { // the ballot is what does not come through
				var cut sync.Once
				defer w.srv.Control(testutil.OpMulti, func(r *testutil.Request) testutil.Action {
					if !isProclamation(r) {
						return testutil.Pass
					}
					action := testutil.Pass
					cut.Do(func() {
						a.node.link.setDown(true)
						action = testutil.LoseRequest
					})
					return action
				})()
			}
			a.vote()
			if acknowledged {
				w.await(j, "a stepped down: lease lapsed")
				a.node.link.setDown(false)
			}
			w.until("a to have won twice", func() bool { return j.count("a won") == 2 && a.IsLeader() })
			b.vote()
			time.Sleep(10 * w.timeout())
			ballots, err := b.Ballots(w.context())
			require.NoError(t, err)
			require.NotEmpty(t, ballots)
			data, err := b.LeaderData(w.context())
			require.NoError(t, err)
			assert.Equal(t, "news", string(data))
			assert.Equal(t, "news", string(ballots[0].Data))
			assert.Equal(t, 1, j.count("a stepped down: lease lapsed"), "%q", j.all())
		})
	}
}

// Once Close has returned, every look-up ends with ErrClosed, and Close returns
// what it did the first time.
func TestClosed(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		n := w.session()
		w.memberOn(n, "leader", &journal{}).lead()
		for range 200 {
			a := w.memberOn(n, "a", &journal{})
			o := w.observer(n, &journal{})
			require.NoError(t, o.Observe(w.context()))
			require.NoError(t, errors.Join(a.Close(), o.Close()))
			ended, cancel := context.WithCancel(w.context())
			cancel()
			for _, ctx := range []context.Context{w.context(), ended} {
				for what, err := range map[string]error{
					"Leader": second(a.Leader(ctx)), "LeaderSync": second(a.LeaderSync(ctx)), "LeaderData": second(o.LeaderData(ctx)),
					"LeaderAcked": second(o.LeaderAcked(ctx)), "Ballots": second(a.Ballots(ctx)), "Ballots of the observer": second(o.Ballots(ctx)),
					"Observe": o.Observe(ctx), "Proclaim": a.Proclaim(ctx, nil), "Resign": a.Resign(ctx),
					"Vote": a.Vote(ctx), "Campaign": second(a.Campaign(ctx)),
					"Run":        a.Run(ctx, func(context.Context, election.Term) error { return nil }),
					"StandWhile": a.StandWhile(ctx, func(context.Context) error { return nil }, 0),
				} {
					require.ErrorIs(t, err, election.ErrClosed, what)
				}
			}
		}
		m := w.session()
		require.NoError(t, m.Close())
		ended, cancel := context.WithCancel(w.context())
		cancel()
		for range 200 {
			require.ErrorIs(t, m.AwaitConnected(ended), election.ErrClosed)
			require.NoError(t, m.Shutdown(ended), "it is shut down")
		}
	})
}

func TestSecondCloseReturnsTheSame(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		n := w.session()
		a, o := w.memberOn(n, "a", &journal{}), w.observer(n, &journal{})
		release := make(chan struct{})
		a.OnStepDown(func(context.Context, election.Term, error) { <-release })
		o.OnNewLeader(func(election.Leader) { <-release })
		n.OnConnected(func() { <-release })
		a.lead()
		require.NoError(t, o.Observe(w.context()))
		synctest.Wait()
		firsts := map[string]func() error{"candidate": a.Close, "observer": o.Close, "session": n.Close}
		said := make(map[string]error)
		for _, who := range []string{"candidate", "observer", "session"} {
			said[who] = firsts[who]()
			require.ErrorIs(t, said[who], election.ErrCallbackRunning, who)
		}
		close(release)
		synctest.Wait()
		for who, again := range firsts {
			assert.Equal(t, said[who], again(), who)
		}
	})
}

// No data given mean a node with empty data, also from Proclaim: the gem takes
// one without for no leader.
func TestNoDataIsEmptyData(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		c, err := election.NewCandidate(w.session().Session, w.name(), nil)
		require.NoError(t, err)
		conn := w.client()
		check := func(what string) {
			for _, path := range []string{"/_zkelection", c.RootVotePath(), c.LeaderAckPath(), c.VotePath()} {
				data, _, err := conn.Get(path)
				require.NoError(t, err, path)
				if path == "/_zkelection" || path == c.RootVotePath() {
					continue // another test may have made it
				}
				assert.NotNil(t, data, "%s: %s is null", what, path)
				assert.Empty(t, data)
			}
		}
		for range 2 {
			_, err = c.Campaign(w.context())
			require.NoError(t, err)
			check("after the vote")
			require.NoError(t, c.Proclaim(w.context(), []byte("x")))
			require.NoError(t, c.Proclaim(w.context(), nil))
			check("after Proclaim(nil)")
			require.NoError(t, c.Resign(w.context()))
		}
	})
}

// What is handed in is copied, and so is what is handed out.
func TestNothingIsShared(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		j := &journal{}
		data, acl := []byte("data"), zk.WorldACL(zk.PermAll)
		n := w.session()
		c, err := election.NewCandidate(n.Session, w.name(), &election.CandidateOptions{Data: data, ACL: acl})
		require.NoError(t, err)
		copy(data, "XXXX")
		acl[0].Perms = zk.PermRead
		spoil := func(what string) func(election.Leader) {
			return func(l election.Leader) {
				j.add("%s %s", what, l.Data)
				copy(l.Data, "YYYY")
			}
		}
		o, b := w.observer(n, &journal{}), w.memberOn(n, "b", &journal{}, followLeader)
		for range 2 {
			o.OnNewLeader(spoil("new"))
			o.OnLeaderDeath(spoil("dead"))
			o.OnLeaderAck(spoil("ack"))
			b.OnLose(func(_ context.Context, l election.Leader) { spoil("lost")(l) })
		}
		require.NoError(t, o.Observe(w.context()))
		_, err = c.Campaign(w.context())
		require.NoError(t, err)
		b.vote()
		synctest.Wait()
		proclaimed := []byte("news")
		require.NoError(t, c.Proclaim(w.context(), proclaimed))
		copy(proclaimed, "ZZZZ")
		synctest.Wait()
		require.NoError(t, w.client().Delete(c.LeaderAckPath(), -1)) // it is written again
		time.Sleep(3 * w.timeout())
		require.NoError(t, c.Resign(w.context()))
		synctest.Wait()
		for event, n := range map[string]int{"new data": 2, "ack data": 2, "lost data": 2, "new news": 2, "dead news": 4} {
			assert.Equal(t, n, j.count(event), "%s in %q", event, j.all())
		}
		for _, event := range j.all() {
			assert.NotRegexp(t, "[XYZ]", event)
		}
	})
}

// Many ballots are read together, and in their order.
func TestBallotsAreReadTogether(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		conn := w.client()
		o := w.observer(w.session(), &journal{})
		for _, path := range []string{"/_zkelection", o.RootVotePath()} {
			_, err := conn.Create(path, nil, 0, zk.WorldACL(zk.PermAll))
			require.NoError(t, err)
		}
		const many = 500
		for range many {
			_, err := conn.Create(o.RootVotePath()+"/ballot", []byte("x"), zk.FlagEphemeral|zk.FlagSequence, zk.WorldACL(zk.PermAll))
			require.NoError(t, err)
		}
		const answer = 20 * time.Millisecond
		defer w.srv.Control(testutil.OpGetData, func(*testutil.Request) testutil.Action { return testutil.DelayReply(answer) })()
		began := time.Now()
		ballots, err := o.Ballots(w.context())
		require.NoError(t, err)
		require.Len(t, ballots, many)
		for i, b := range ballots {
			require.Equal(t, int64(i), b.Sequence)
			require.NoError(t, b.Err)
			require.Equal(t, "x", string(b.Data))
		}
		assert.Less(t, time.Since(began), many/8*answer)
	})
}

// One ballot that may not be read says so, and keeps none of the others back.
func TestUnreadableBallot(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		a, b, c := w.member("a", j).lead(), w.member("b", j).vote(), w.member("c", j).vote()
		operator := w.client()
		require.NoError(t, operator.AddAuth("digest", []byte("operator:secret")))
		_, err := operator.SetACL(b.VotePath(), zk.DigestACL(zk.PermAll, "operator", "secret"), -1)
		require.NoError(t, err)
		ballots, err := a.Ballots(w.context())
		require.NoError(t, err)
		require.Len(t, ballots, 3)
		// Since 3.9 ZooKeeper says nothing at all of a node that may not be read.
		_, _, hidden := w.client().Exists(b.VotePath())
		for i, m := range []*member{a, b, c} {
			assert.Equal(t, m.VotePath(), ballots[i].Path)
			if m == b && errors.Is(hidden, zk.ErrNoAuth) {
				assert.Zero(t, ballots[i].SessionID)
				assert.Zero(t, ballots[i].Token)
				continue
			}
			assert.Equal(t, m.node.ID(), ballots[i].SessionID)
			assert.NotZero(t, ballots[i].Token)
		}
		require.ErrorIs(t, ballots[1].Err, zk.ErrNoAuth)
		assert.Empty(t, ballots[1].Data)
		for _, i := range []int{0, 2} {
			require.NoError(t, ballots[i].Err)
			assert.NotEmpty(t, ballots[i].Data)
		}
	})
}

// The longest name and root, the largest data that go with them, and a long ACL
// are taken by ZooKeeper in every request; a little more is refused here.
func TestLargestOfEverything(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		n := w.session()
		name := w.name() + strings.Repeat("n", election.MaxNameSize-len(w.name()))
		root := "/" + strings.Repeat("r", election.MaxNameSize-1)
		var acl []zk.ACL
		for i := range 100 {
			acl = append(acl, zk.DigestACL(zk.PermAll, fmt.Sprintf("user%d", i), "password")...)
		}
		acl = append(acl, zk.WorldACL(zk.PermAll)...)
		data := bytes.Repeat([]byte("x"), election.MaxDataSize)
		for _, wrong := range []struct {
			name string
			opts election.CandidateOptions
			err  error
		}{
			{name + "n", election.CandidateOptions{}, election.ErrInvalidName},
			{strings.Repeat("/", election.MaxNameSize/2+1), election.CandidateOptions{}, election.ErrInvalidName},
			{name, election.CandidateOptions{Root: root + "r"}, election.ErrInvalidPath},
			{name, election.CandidateOptions{Data: append(data, 'x')}, election.ErrDataTooLarge},
			{name, election.CandidateOptions{Data: data, ACL: slices.Repeat(acl, 40)}, election.ErrDataTooLarge},
		} {
			_, err := election.NewCandidate(n.Session, wrong.name, &wrong.opts)
			require.ErrorIs(t, err, wrong.err)
			assert.Less(t, len(err.Error()), 300)
		}
		c, err := election.NewCandidate(n.Session, name, &election.CandidateOptions{Root: root, Data: data, ACL: acl})
		require.NoError(t, err)
		sessionID := n.ID()
		_, err = c.Campaign(w.context())
		require.NoError(t, err)
		require.NoError(t, c.Proclaim(w.context(), bytes.Repeat([]byte("y"), election.MaxDataSize)))
		// The largest request of all replaces an acknowledgement.
		conn := w.client()
		_, err = conn.Multi(
			&zk.DeleteRequest{Path: c.LeaderAckPath(), Version: -1},
			&zk.CreateRequest{Path: c.LeaderAckPath(), Data: []byte("stranger"), Acl: zk.WorldACL(zk.PermAll), Flags: zk.FlagEphemeral},
		)
		require.NoError(t, err)
		w.until("the acknowledgement to be written again", func() bool {
			data, err := c.LeaderData(w.context())
			return err == nil && len(data) == election.MaxDataSize && data[0] == 'y'
		})
		require.ErrorIs(t, c.Proclaim(w.context(), append(data, 'x')), election.ErrDataTooLarge)
		require.NoError(t, c.Resign(w.context()))

		// With as large an ACL as is allowed the largest one passes leadership on.
		for len(acl) < 1000 {
			larger := append(acl, zk.DigestACL(zk.PermAll, fmt.Sprintf("user%d", len(acl)), "password")...)
			d, err := election.NewCandidate(n.Session, name, &election.CandidateOptions{Root: root, Data: data, ACL: larger})
			if err != nil {
				break
			}
			require.NoError(t, d.Close())
			acl = larger
		}
		other := name[:len(name)-1] + "o"
		var line []*election.Candidate
		for range 2 {
			d, err := election.NewCandidate(n.Session, other, &election.CandidateOptions{Root: root, Data: data, ACL: acl})
			require.NoError(t, err)
			require.NoError(t, d.Vote(w.context()))
			line = append(line, d)
		}
		w.until("the first to lead", func() bool { return !line[0].Status().AcknowledgedAt.IsZero() })
		ballots, err := line[0].Ballots(w.context())
		require.NoError(t, err)
		require.NoError(t, line[0].Transfer(w.context(), ballots[1]))
		for _, d := range line {
			require.NoError(t, d.Close())
		}
		if w.virtual() {
			assert.Equal(t, sessionID, n.ID())
			assert.Equal(t, int64(2), w.srv.Counts()[testutil.OpConnect], "a connection was closed for what was sent on it")
		}
	})
}

// memberWithoutWrite is a member whose ACL lets nobody write.
func (w *world) memberWithoutWrite(id string, j *journal) *member {
	n := w.session(func(o *election.SessionOptions) {
		o.Auth = []election.Auth{{Scheme: "digest", Credentials: []byte("user:password")}}
	})
	acl := zk.DigestACL(zk.PermRead|zk.PermCreate|zk.PermDelete, "user", "password")
	return w.memberOn(n, id, j, func(o *election.CandidateOptions) { o.ACL = acl })
}

// An ACL under which nobody may write: the acknowledgement is made with its data.
func TestACLWithoutWrite(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		j := &journal{}
		a := w.memberWithoutWrite("a", j)
		for range 2 {
			a.lead()
			data, err := a.LeaderData(w.context())
			require.NoError(t, err)
			assert.Equal(t, "a", string(data))
			require.ErrorIs(t, a.Proclaim(w.context(), []byte("x")), zk.ErrNoAuth)
			a.resign()
		}
		w.same("journal", j.all(), []string{"a won", "a stepped down: resigned", "a won", "a stepped down: resigned"})
		// In the place of somebody else's, which has the version of an acknowledgement that was created and written, or another one.
		conn := w.client()
		require.NoError(t, conn.AddAuth("digest", []byte("user:password")))
		for _, writes := range []int{1, 0, 2} {
			require.NoError(t, second(conn.Create(a.LeaderAckPath(), nil, 0, zk.WorldACL(zk.PermAll))))
			for range writes {
				require.NoError(t, second(conn.Set(a.LeaderAckPath(), []byte("old"), -1)))
			}
			a.lead()
			data, err := a.LeaderData(w.context())
			require.NoError(t, err)
			assert.Equal(t, "a", string(data), writes)
			a.resign()
		}
	})
}

// With such an ACL other data than those that the acknowledgement has are made with it anew.
func TestProclaimInOnWinWithAnACLWithoutWrite(t *testing.T) {
	virtually(t, func(_ *testing.T, w *world) {
		j := &journal{}
		a := w.memberWithoutWrite("a", j)
		wins := 0
		a.OnWin(func(ctx context.Context, _ election.Term) error {
			if wins++; wins == 1 {
				return nil
			}
			return a.Proclaim(ctx, fmt.Appendf(nil, "term %d", wins))
		})
		a.lead()
		for term := 2; term < 4; term++ {
			time.Sleep(3 * w.timeout()) // until a recheck has told which acknowledgement is its own
			a.link().setDown(true)
			w.until("the lease to lapse", func() bool { return !a.IsLeader() })
			a.link().setDown(false)
			w.until("it to lead with other data", func() bool {
				data, err := a.LeaderData(w.context())
				return err == nil && string(data) == fmt.Sprint("term ", term)
			})
		}
		w.same("journal", j.all(), []string{
			"a won", "a stepped down: lease lapsed", "a won", "a stepped down: lease lapsed", "a won",
		})
	})
}

// On 3.9 whoever may not read the root node is not told of its existence either. Nothing that is done there needs it.
func TestRootThatMayNotBeRead(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		operator := w.client()
		require.NoError(t, operator.AddAuth("digest", []byte("operator:secret")))
		require.NoError(t, second(operator.Create("/open", nil, 0, zk.WorldACL(zk.PermAll))))
		require.NoError(t, second(operator.SetACL("/", zk.DigestACL(zk.PermAll, "operator", "secret"), -1)))
		j := &journal{}
		for name, n := range map[string]*node{"owned": w.session(), "a caller's": w.onCallersConnection()} {
			in := func(o *election.CandidateOptions) { o.Root = "/open" }
			a := w.memberOn(n, name, j, in).lead()
			n.link.cut()
			time.Sleep(4 * w.timeout())
			assert.True(t, a.IsLeader(), name)
			a.resign()
		}
	})
}

// A node above the election that may be neither read nor created is taken for
// what it is: there.
func TestParentThatMayNotBeRead(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		operator := w.client()
		require.NoError(t, operator.AddAuth("digest", []byte("operator:secret")))
		all := zk.DigestACL(zk.PermAll, "operator", "secret")
		_, err := operator.Create("/hidden", nil, 0, append(zk.WorldACL(zk.PermCreate|zk.PermDelete), all...))
		require.NoError(t, err)
		_, err = operator.SetACL("/", append(zk.WorldACL(zk.PermRead), all...), -1)
		require.NoError(t, err)
		c, err := election.NewCandidate(w.session().Session, "a", &election.CandidateOptions{Root: "/hidden"})
		require.NoError(t, err)
		require.NoError(t, c.Vote(w.context()))
		require.NoError(t, c.Close())
	})
}

// standsStill is a log whose lines take until the channel is closed.
type standsStill chan struct{}

func (s standsStill) Enabled(context.Context, slog.Level) bool  { return true }
func (s standsStill) Handle(context.Context, slog.Record) error { <-s; return nil }
func (s standsStill) WithAttrs([]slog.Attr) slog.Handler        { return s }
func (s standsStill) WithGroup(string) slog.Handler             { return s }

// An observer whose log stands still keeps no other from being told.
func TestObserverWhoseLogStandsStill(t *testing.T) {
	virtually(t, func(t *testing.T, w *world) {
		n, j, log := w.session(), &journal{}, make(standsStill)
		defer close(log)
		still, err := election.NewObserver(n.Session, w.name(), &election.ObserverOptions{Logger: slog.New(log)})
		require.NoError(t, err)
		require.NoError(t, still.Observe(w.context()))
		o := w.observer(n, j)
		require.NoError(t, o.Observe(w.context()))
		a := w.member("a", &journal{}).lead()
		w.await(j, "new leader a")
		require.NoError(t, a.Resign(w.context()))
		w.await(j, "dead leader a")
	})
}
