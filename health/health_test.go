package health

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zkelection/election"
	"github.com/zkelection/election/testutil"
)

// pair runs a test in virtual time with a leader and a follower.
func pair(t *testing.T, test func(t *testing.T, srv *testutil.Server, leader, follower *election.Candidate)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		srv, err := testutil.NewServer(&testutil.ServerOptions{NoListen: true})
		if err != nil {
			t.Fatal(err)
		}
		defer srv.Close()
		var candidates []*election.Candidate
		for range 2 {
			s, err := election.Connect(srv.Servers(), 10*time.Second, &election.SessionOptions{
				Dialer: srv.Dialer(), Logger: slog.New(slog.DiscardHandler),
			})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			c, err := election.NewCandidate(s, "probed", nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Vote(t.Context()); err != nil {
				t.Fatal(err)
			}
			candidates = append(candidates, c)
		}
		synctest.Wait()
		if !candidates[0].IsLeader() || candidates[1].IsLeader() {
			t.Fatal("the first to vote does not lead alone")
		}
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
		if err := json.Unmarshal(w.Body.Bytes(), &s); err != nil {
			t.Errorf("%s %s: %v: %s", method, target, err, w.Body)
		}
		if got := w.Header().Get("Cache-Control"); got != "no-store" {
			t.Errorf("%s %s: Cache-Control %q", method, target, got)
		}
	}
	return w.Code, s
}

// expect checks the codes for /leader, /follower and /health.
func expect(t *testing.T, what string, c *election.Candidate, leader, follower, health int) {
	t.Helper()
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodOptions} {
		for target, want := range map[string]int{"/leader": leader, "/follower": follower, "/health": health, "/": 200} {
			if got, _ := probe(t, c, method, target); got != want {
				t.Errorf("%s: %s %s answers %d, want %d", what, method, target, got, want)
			}
		}
	}
}

func TestHandler(t *testing.T) {
	pair(t, func(t *testing.T, _ *testutil.Server, leader, follower *election.Candidate) {
		expect(t, "the leader", leader, 200, 503, 200)
		expect(t, "the follower", follower, 503, 200, 200)

		term, _ := leader.Term()
		_, got := probe(t, leader, "GET", "/")
		if !got.Leader || !got.Voted || !got.Healthy || got.Election != "probed" || got.Ballot != term.Ballot || got.Token != term.Token {
			t.Errorf("the leader's status: %+v", got)
		}
		if !got.Standing || got.Absence != "" {
			t.Errorf("the leader does not stand: %+v", got)
		}
		if left := time.Until(*got.LeaseUntil); left <= 0 || left > 10*time.Second {
			t.Errorf("the lease ends in %v", left)
		}
		_, got = probe(t, follower, "GET", "/leader")
		if want := (Status{Election: "probed", Voted: true, Standing: true, Ballot: follower.VotePath(), Healthy: true}); got != want {
			t.Errorf("the follower's status: %+v, want %+v", got, want)
		}

		if err := leader.Close(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		expect(t, "the old leader", leader, 503, 200, 200)
		expect(t, "the new leader", follower, 200, 503, 200)
		if _, got := probe(t, leader, "GET", "/"); got != (Status{Election: "probed", Absence: election.ErrClosed.Error(), Healthy: true}) {
			t.Errorf("the old leader's status: %+v", got)
		}
	})
}

func TestRefused(t *testing.T) {
	pair(t, func(t *testing.T, _ *testutil.Server, c, _ *election.Candidate) {
		for target, want := range map[string]int{
			"/leader/": 404, "/nothing": 404, "/health?tolerance=soon": 400, "/health?tolerance=-1s": 400, "/leader?tolerance=0": 400,
		} {
			if got, _ := probe(t, c, "GET", target); got != want {
				t.Errorf("%s answers %d, want %d", target, got, want)
			}
		}
		if got, _ := probe(t, c, "POST", "/leader"); got != 405 {
			t.Errorf("POST answers %d", got)
		}
	})
}

// TestLeaseNotRenewed: a leader that is cut off is in bad health before it
// stops to lead, and the tolerance says how soon.
func TestLeaseNotRenewed(t *testing.T) {
	pair(t, func(t *testing.T, srv *testutil.Server, leader, follower *election.Candidate) {
		time.Sleep(5 * time.Second) // of virtual time
		srv.Stop()
		time.Sleep(4 * time.Second)
		if got, s := probe(t, leader, "GET", "/health?tolerance=3s"); got != 503 || !strings.Contains(s.Problem, "renewed") {
			t.Errorf("after 4 s without renewal: %d, %q", got, s.Problem)
		}
		expect(t, "with the default tolerance", leader, 200, 503, 200)
		time.Sleep(6 * time.Second)
		expect(t, "without a lease", leader, 503, 200, 200)
		expect(t, "the follower", follower, 503, 200, 200)
	})
}

// TestStuck: work that goes on after leadership is lost is bad health.
func TestStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, err := testutil.NewServer(&testutil.ServerOptions{NoListen: true})
		if err != nil {
			t.Fatal(err)
		}
		defer srv.Close()
		s, err := election.Connect(srv.Servers(), 10*time.Second, &election.SessionOptions{
			Dialer: srv.Dialer(), Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = s.Close() }()
		c, err := election.NewCandidate(s, "probed", &election.CandidateOptions{StepDownTimeout: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		release := make(chan struct{})
		c.OnStepDown(func(context.Context, election.Term, error) { <-release })
		if _, err := c.Campaign(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := c.Resign(t.Context()); err != nil {
			t.Fatal(err)
		}
		expect(t, "with a step-down that hangs", c, 503, 200, 503)
		close(release)
		synctest.Wait()
		expect(t, "afterwards", c, 503, 200, 200)
	})
}
