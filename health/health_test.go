package health

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election"
	"github.com/zkelection/election/testutil"
)

// pair runs a test in virtual time with a leader and a follower.
func pair(t *testing.T, test func(t *testing.T, srv *testutil.Server, leader, follower *election.Candidate)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		srv, err := testutil.NewServer(&testutil.ServerOptions{NoListen: true})
		require.NoError(t, err)
		defer srv.Close()
		var candidates []*election.Candidate
		for range 2 {
			s, err := election.Connect(srv.Servers(), 10*time.Second, &election.SessionOptions{
				Dialer: srv.Dialer(), Logger: slog.New(slog.DiscardHandler),
			})
			require.NoError(t, err)
			defer func() { _ = s.Close() }()
			c, err := election.NewCandidate(s, "probed", nil)
			require.NoError(t, err)
			require.NoError(t, c.Vote(t.Context()))
			candidates = append(candidates, c)
		}
		synctest.Wait()
		require.True(t, candidates[0].IsLeader(), "the first to vote leads")
		require.False(t, candidates[1].IsLeader(), "and leads alone")
		test(t, srv, candidates[0], candidates[1])
	})
}

// probe asks the handler, and returns the answer's code and what it tells.
func probe(t *testing.T, c *election.Candidate, method, target string) (int, Status) {
	t.Helper()
	w := httptest.NewRecorder()
	Handler(c).ServeHTTP(w, httptest.NewRequest(method, target, nil))
	var s Status
	if w.Code == http.StatusOK || w.Code == http.StatusServiceUnavailable {
		assert.NoError(t, json.Unmarshal(w.Body.Bytes(), &s), "%s %s: %s", method, target, w.Body)
		assert.Equal(t, "no-store", w.Header().Get("Cache-Control"), "%s %s: Cache-Control", method, target)
	}
	return w.Code, s
}

// expect checks the codes for /leader, /follower and /health.
func expect(t *testing.T, what string, c *election.Candidate, leader, follower, health int) {
	t.Helper()
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodOptions} {
		for target, want := range map[string]int{"/leader": leader, "/follower": follower, "/health": health, "/": 200} {
			got, _ := probe(t, c, method, target)
			assert.Equal(t, want, got, "%s: %s %s", what, method, target)
		}
	}
}

func TestHandler(t *testing.T) {
	pair(t, func(t *testing.T, srv *testutil.Server, leader, follower *election.Candidate) {
		expect(t, "the leader", leader, 200, 503, 200)
		expect(t, "the follower", follower, 503, 200, 200)

		term, _ := leader.Term()
		_, got := probe(t, leader, "GET", "/")
		assert.True(t, got.Leader)
		assert.True(t, got.Voted)
		assert.True(t, got.Healthy)
		assert.Equal(t, "probed", got.Election)
		assert.Equal(t, term.Ballot, got.Ballot)
		assert.Equal(t, term.Token, got.Token)
		assert.True(t, got.Standing)
		assert.Empty(t, got.Absence)
		left := time.Until(got.LeaseUntil)
		assert.Positive(t, left, "until the lease ends")
		assert.LessOrEqual(t, left, 10*time.Second, "until the lease ends")
		_, got = probe(t, follower, "GET", "/leader")
		inFront := 1
		require.Equal(t, Status{
			Election: "probed", Phase: "waiting", Voted: true, Standing: true, Ballot: follower.VotePath(), InFront: &inFront,
			Connected: true, Server: srv.Addr(), ConnectionSince: got.ConnectionSince, Healthy: true,
		}, got)

		require.NoError(t, leader.Close())
		synctest.Wait()
		expect(t, "the old leader", leader, 503, 200, 200)
		expect(t, "the new leader", follower, 200, 503, 200)
		_, got = probe(t, leader, "GET", "/")
		require.Equal(t, Status{
			Election: "probed", Phase: "closed", Absence: election.ErrClosed.Error(), Connected: true, Server: srv.Addr(), ConnectionSince: got.ConnectionSince, Healthy: true,
		}, got)
	})
}

func TestRefused(t *testing.T) {
	pair(t, func(t *testing.T, _ *testutil.Server, c, _ *election.Candidate) {
		for target, want := range map[string]int{
			"/nothing": 404, "/leader/x": 404, "/elected": 501, "/elected/": 501, "/health?tolerance=soon": 400, "/health?tolerance=-1s": 400, "/leader?tolerance=0": 400,
		} {
			got, _ := probe(t, c, "GET", target)
			assert.Equal(t, want, got, target)
		}
		got, _ := probe(t, c, "POST", "/leader")
		assert.Equal(t, 405, got, "POST")
	})
}

// TestUncleanPaths: a probe whose path is not clean is answered, and not
// redirected, which a load balancer would take for good or for bad.
func TestUncleanPaths(t *testing.T) {
	pair(t, func(t *testing.T, _ *testutil.Server, leader, follower *election.Candidate) {
		for _, target := range []string{"//leader", "/leader/", "/leader//", "/./leader", "/leader/.", "/x/../leader", "///leader/./"} {
			for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodOptions} {
				got, _ := probe(t, leader, method, target)
				assert.Equal(t, 200, got, "%s %s of the leader", method, target)
				got, _ = probe(t, follower, method, target)
				assert.Equal(t, 503, got, "%s %s of the follower", method, target)
			}
		}
		// As it stands behind http.StripPrefix.
		for target, want := range map[string]int{"/election": 200, "/election/": 200, "/election/follower/": 503} {
			w := httptest.NewRecorder()
			http.StripPrefix("/election", Handler(leader)).ServeHTTP(w, httptest.NewRequest("GET", target, nil))
			assert.Equal(t, want, w.Code, target)
		}
	})
}

// alone starts one session in virtual time.
func alone(t *testing.T, test func(t *testing.T, srv *testutil.Server, s *election.Session)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		srv, err := testutil.NewServer(&testutil.ServerOptions{NoListen: true})
		require.NoError(t, err)
		defer srv.Close()
		s, err := election.Connect(srv.Servers(), 10*time.Second, &election.SessionOptions{
			Dialer: srv.Dialer(), Logger: slog.New(slog.DiscardHandler),
		})
		require.NoError(t, err)
		defer s.Close()
		test(t, srv, s)
	})
}

// TestTakingOver: until a leader has acknowledged it is no leader to send
// requests to, and no follower either; one that hangs there is in bad health.
func TestTakingOver(t *testing.T) {
	alone(t, func(t *testing.T, _ *testutil.Server, s *election.Session) {
		c, err := election.NewCandidate(s, "probed", nil)
		require.NoError(t, err)
		release := make(chan struct{})
		c.OnWin(func(context.Context, election.Term) error { <-release; return nil })
		require.NoError(t, c.Vote(t.Context()))
		synctest.Wait()
		began := time.Now()
		require.True(t, c.IsLeader())
		expect(t, "taking over", c, 503, 503, 200)
		_, got := probe(t, c, "GET", "/")
		assert.Equal(t, "taking over", got.Phase)
		assert.False(t, got.Leader)
		assert.WithinDuration(t, began, got.TakingOverSince, time.Second)
		assert.Zero(t, got.AcknowledgedAt)
		assert.NotZero(t, got.Token)
		assert.NotZero(t, got.LeaseUntil)

		time.Sleep(15 * time.Second) // more than the session timeout
		expect(t, "with an OnWin that hangs", c, 503, 503, 503)
		_, got = probe(t, c, "GET", "/health")
		assert.Contains(t, got.Problem, "OnWin")

		close(release)
		synctest.Wait()
		expect(t, "acknowledged", c, 200, 503, 200)
		_, got = probe(t, c, "GET", "/")
		assert.Equal(t, "leading", got.Phase)
		assert.True(t, got.Leader)
		assert.Zero(t, got.TakingOverSince)
		assert.WithinDuration(t, time.Now(), got.AcknowledgedAt, time.Second)
	})
}

// TestAbsent: why a candidate does not stand, when it comes back, and what went
// wrong last, are in every answer; so is a connection that is gone.
func TestAbsent(t *testing.T) {
	alone(t, func(t *testing.T, srv *testutil.Server, s *election.Session) {
		c, err := election.NewCandidate(s, "probed", nil)
		require.NoError(t, err)
		_, got := probe(t, c, "GET", "/")
		assert.False(t, got.Standing)
		assert.Contains(t, got.Absence, "asked for the vote")

		defer c.OnWin(func(context.Context, election.Term) error { return errors.New("the disk is full") })()
		require.NoError(t, c.Vote(t.Context()))
		synctest.Wait()
		_, got = probe(t, c, "GET", "/")
		assert.False(t, got.Standing)
		assert.Contains(t, got.Absence, "the disk is full")
		assert.Contains(t, got.LastError, "the disk is full")
		assert.WithinDuration(t, time.Now(), got.LastErrorAt, time.Second)
		assert.Greater(t, time.Until(got.RetryAt), time.Second)
		assert.True(t, got.Connected)
		assert.Equal(t, srv.Addr(), got.Server)

		srv.Stop()
		synctest.Wait()
		_, got = probe(t, c, "GET", "/")
		assert.False(t, got.Connected)
		assert.WithinDuration(t, time.Now(), got.ConnectionSince, time.Second)
	})
}

// TestElected: an observer's process, or a follower's that observes as well,
// answers whether there is a leader.
func TestElected(t *testing.T) {
	alone(t, func(t *testing.T, srv *testutil.Server, s *election.Session) {
		c, err := election.NewCandidate(s, "probed", nil)
		require.NoError(t, err)
		o, err := election.NewObserver(s, "probed", nil)
		require.NoError(t, err)
		ask := func(opts Options, target string) (code int, got Status) {
			w := httptest.NewRecorder()
			HandlerFor(opts).ServeHTTP(w, httptest.NewRequest("GET", target, nil))
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &got), w.Body.String())
			return w.Code, got
		}
		elected := func(what string, code int, want any) {
			t.Helper()
			for _, opts := range []Options{{Observer: o}, {Candidate: c, Observer: o}} {
				for target, want := range map[string]int{"/elected": code, "//elected/": code, "/": 200} {
					got, _ := ask(opts, target)
					assert.Equal(t, want, got, "%s: %s", what, target)
				}
				_, got := ask(opts, "/")
				if want == nil {
					assert.Nil(t, got.Elected, what)
				} else if assert.NotNil(t, got.Elected, what) {
					assert.Equal(t, want, *got.Elected, what)
				}
				assert.Equal(t, "probed", got.Election)
			}
		}
		elected("before it observes", 503, nil)
		require.NoError(t, o.Observe(t.Context()))
		elected("without a leader", 503, false)

		release := make(chan struct{})
		c.OnWin(func(context.Context, election.Term) error { <-release; return nil })
		require.NoError(t, c.Vote(t.Context()))
		synctest.Wait()
		elected("while it takes over", 503, false)
		close(release)
		synctest.Wait()
		elected("with a leader", 200, true)
		require.NoError(t, c.Resign(t.Context()))
		synctest.Wait()
		elected("after its resignation", 503, false)
		require.NoError(t, c.Vote(t.Context()))
		synctest.Wait()
		elected("with a leader again", 200, true)

		// Nobody knows who leads while ZooKeeper is away; a short outage changes
		// nothing.
		srv.Stop()
		time.Sleep(DefaultTolerance - time.Second)
		elected("soon after the loss of the connection", 200, true)
		_, got := ask(Options{Observer: o}, "/")
		assert.False(t, got.Connected)
		assert.Equal(t, srv.Addr(), got.Server)
		code, _ := ask(Options{Observer: o}, "/elected?tolerance=3s")
		assert.Equal(t, 503, code)
		time.Sleep(2 * time.Second)
		elected("without a connection for long", 503, nil)
		require.NoError(t, srv.Start())
		time.Sleep(30 * time.Second)
		elected("connected again", 200, true)

		// A process that only observes never leads.
		for target, want := range map[string]int{"/leader": 503, "/follower": 200, "/health": 200} {
			got, _ := ask(Options{Observer: o}, target)
			assert.Equal(t, want, got, target)
		}
		other, err := election.NewObserver(s, "another", nil)
		require.NoError(t, err)
		assert.Panics(t, func() { HandlerFor(Options{}) })
		assert.Panics(t, func() { HandlerFor(Options{Candidate: c, Observer: other}) })
	})
}

// observed is a leader, and who observes it on a session of its own.
func observed(t *testing.T, srv *testutil.Server, s *election.Session) (c *election.Candidate, observes *election.Session, o *election.Observer) {
	t.Helper()
	c, err := election.NewCandidate(s, "probed", nil)
	require.NoError(t, err)
	_, err = c.Campaign(t.Context())
	require.NoError(t, err)
	observes, err = election.Connect(srv.Servers(), 10*time.Second, &election.SessionOptions{
		Dialer: srv.Dialer(), Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	o, err = election.NewObserver(observes, "probed", nil)
	require.NoError(t, err)
	return c, observes, o
}

// TestElectedIsConfirmed: a connection alone does not tell that what was seen on another session is still so.
func TestElectedIsConfirmed(t *testing.T) {
	alone(t, func(t *testing.T, srv *testutil.Server, s *election.Session) {
		c, observes, o := observed(t, srv, s)
		defer observes.Close()
		require.Zero(t, o.ConfirmedAt())
		require.NoError(t, o.Observe(t.Context()))
		elected := func() (code int, elected *bool) {
			w := httptest.NewRecorder()
			HandlerFor(Options{Observer: o}).ServeHTTP(w, httptest.NewRequest("GET", "/elected", nil))
			var got Status
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &got), w.Body.String())
			return w.Code, got.Elected
		}
		code, _ := elected()
		require.Equal(t, http.StatusOK, code)
		time.Sleep(time.Hour)
		require.Equal(t, time.Now(), o.ConfirmedAt())

		cancel := srv.Control(testutil.OpSync, func(*testutil.Request) testutil.Action {
			return testutil.Fail(testutil.ErrorCode(-127)) // which the next session begins with
		})
		gone := time.Now()
		require.True(t, srv.ExpireSession(observes.ID()))
		require.NoError(t, c.Resign(t.Context()))
		time.Sleep(time.Hour)
		require.True(t, observes.Connection().Connected)
		require.WithinDuration(t, gone, o.ConfirmedAt(), 10*time.Second)
		code, is := elected()
		assert.Equal(t, http.StatusServiceUnavailable, code)
		assert.Nil(t, is)
		cancel()
		time.Sleep(time.Minute)
		code, is = elected()
		assert.Equal(t, http.StatusServiceUnavailable, code)
		require.NotNil(t, is)
		assert.False(t, *is)

		require.NoError(t, o.Close())
		time.Sleep(time.Second)
		code, is = elected()
		assert.Equal(t, http.StatusServiceUnavailable, code)
		assert.Nil(t, is, "a closed observer sees nothing")
	})
}

// TestElectedMayNotBeRead: nor does a watch on what may not be read any more, whose event would be kept back.
func TestElectedMayNotBeRead(t *testing.T) {
	alone(t, func(t *testing.T, srv *testutil.Server, s *election.Session) {
		c, observes, o := observed(t, srv, s)
		defer observes.Close()
		require.NoError(t, o.Observe(t.Context()))
		time.Sleep(time.Hour)
		require.Equal(t, time.Now(), o.ConfirmedAt())
		hidden := time.Now()
		_, err := s.Conn().SetACL(c.LeaderAckPath(), zk.DigestACL(zk.PermAll, "who", "knows"), -1)
		require.NoError(t, err)
		time.Sleep(time.Hour)
		assert.WithinDuration(t, hidden, o.ConfirmedAt(), 20*time.Second)
		w := httptest.NewRecorder()
		HandlerFor(Options{Observer: o}).ServeHTTP(w, httptest.NewRequest("GET", "/elected", nil))
		assert.Equal(t, http.StatusServiceUnavailable, w.Code)
	})
}

// TestElectedByCandidate: a candidate that follows the leader answers by itself
// whether there is one, in whatever role it is, and without a request. One that
// follows the next node cannot, and says what to write instead.
func TestElectedByCandidate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, err := testutil.NewServer(&testutil.ServerOptions{NoListen: true})
		require.NoError(t, err)
		defer srv.Close()
		stand := func(follow election.Follow) (*election.Candidate, *election.Session) {
			s, err := election.Connect(srv.Servers(), 10*time.Second, &election.SessionOptions{
				Dialer: srv.Dialer(), Logger: slog.New(slog.DiscardHandler),
			})
			require.NoError(t, err)
			c, err := election.NewCandidate(s, "probed", &election.CandidateOptions{Follow: follow})
			require.NoError(t, err)
			return c, s
		}
		elected := func(what string, c *election.Candidate, code int, want any) {
			t.Helper()
			got, _ := probe(t, c, "GET", "/elected")
			assert.Equal(t, code, got, what)
			_, all := probe(t, c, "GET", "/")
			if want == nil {
				assert.Nil(t, all.Elected, what)
			} else if assert.NotNil(t, all.Elected, what) {
				assert.Equal(t, want, *all.Elected, what)
			}
		}
		first, s1 := stand(election.FollowLeader)
		defer s1.Close()
		second, s2 := stand(election.FollowLeader)
		defer s2.Close()
		third, s3 := stand(election.FollowLeader)
		defer s3.Close()
		next, s4 := stand(election.FollowNextNode)
		defer s4.Close()

		elected("before the vote", first, 503, nil)
		release := make(chan struct{})
		first.OnWin(func(context.Context, election.Term) error { <-release; return nil })
		for _, c := range []*election.Candidate{first, second, third, next} {
			require.NoError(t, c.Vote(t.Context()))
		}
		synctest.Wait()
		elected("while it takes over", first, 503, false)
		elected("while another takes over", third, 503, false)
		close(release)
		synctest.Wait()
		elected("as the leader", first, 200, true)
		elected("behind the leader", second, 200, true)
		elected("far behind the leader", third, 200, true)
		elected("by the next node", next, 501, nil)

		// The last in line hears of a takeover that hangs far ahead.
		hangs := make(chan struct{})
		second.OnWin(func(context.Context, election.Term) error { <-hangs; return nil })
		require.NoError(t, first.Resign(t.Context()))
		synctest.Wait()
		require.True(t, second.IsLeader())
		elected("after its resignation", first, 503, nil)
		elected("while another one takes over", third, 503, false)
		close(hangs)
		synctest.Wait()
		elected("with another leader", third, 200, true)

		// Nobody knows who leads while ZooKeeper is away, but who leads under a lease.
		time.Sleep(30 * time.Second)
		srv.Stop()
		time.Sleep(2 * time.Second)
		elected("soon after the loss of the connection", third, 200, true)
		code, _ := probe(t, third, "GET", "/elected?tolerance=1s")
		assert.Equal(t, 503, code)
		code, _ = probe(t, second, "GET", "/elected?tolerance=1s")
		assert.Equal(t, 200, code, "the leader under its lease")
		time.Sleep(DefaultTolerance)
		elected("without a connection for long", third, 503, nil)
		elected("without a lease", second, 503, nil)
		require.NoError(t, srv.Start())
		time.Sleep(30 * time.Second)
		elected("connected again", third, 200, true)

		require.NoError(t, second.Close())
		require.NoError(t, third.Close())
		synctest.Wait()
		require.True(t, next.IsLeader())
		elected("as the leader, by the next node", next, 501, true)
		elected("closed", third, 503, nil)
	})
}

// TestLeaseNotRenewed: a leader that is cut off is in bad health before it
// stops to lead, and the tolerance says how soon.
func TestLeaseNotRenewed(t *testing.T) {
	pair(t, func(t *testing.T, srv *testutil.Server, leader, follower *election.Candidate) {
		time.Sleep(5 * time.Second) // of virtual time
		srv.Stop()
		time.Sleep(4 * time.Second)
		got, s := probe(t, leader, "GET", "/health?tolerance=3s")
		assert.Equal(t, 503, got, "after 4 s without renewal")
		assert.Contains(t, s.Problem, "renewed")
		expect(t, "with the default tolerance", leader, 200, 503, 200)
		time.Sleep(6 * time.Second)
		expect(t, "without a lease", leader, 503, 200, 200)
		expect(t, "the follower", follower, 503, 200, 200)
	})
}

// TestStuck: work that goes on after leadership is lost is bad health.
func TestStuck(t *testing.T) {
	alone(t, func(t *testing.T, _ *testutil.Server, s *election.Session) {
		c, err := election.NewCandidate(s, "probed", &election.CandidateOptions{StepDownTimeout: time.Second})
		require.NoError(t, err)
		release := make(chan struct{})
		c.OnStepDown(func(context.Context, election.Term, error) { <-release })
		_, err = c.Campaign(t.Context())
		require.NoError(t, err)
		require.NoError(t, c.Resign(t.Context()))
		expect(t, "with a step-down that hangs", c, 503, 200, 503)
		close(release)
		synctest.Wait()
		expect(t, "afterwards", c, 503, 200, 200)
	})
}
