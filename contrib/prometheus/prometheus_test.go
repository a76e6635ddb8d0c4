package prometheus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election"
	"github.com/zkelection/election/testutil"
)

// scrape is what Prometheus gets: value by series.
func scrape(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	w := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	require.Equal(t, 200, w.Code, "%s", w.Body)
	series := map[string]float64{}
	for line := range strings.Lines(w.Body.String()) {
		if m := regexp.MustCompile(`^(\S+) (\S+)\n$`).FindStringSubmatch(line); m != nil && line[0] != '#' {
			value, err := strconv.ParseFloat(m[2], 64)
			require.NoError(t, err)
			series[m[1]] = value
		}
	}
	return series
}

// want checks some series; -1 stands for one that must not be there.
func want(t *testing.T, what string, registry *prometheus.Registry, expected map[string]float64) {
	t.Helper()
	got := scrape(t, registry)
	for name, value := range expected {
		if v, ok := got[name]; !ok && value != -1 || ok && v != value {
			t.Errorf("%s: %s is %v (%v), want %v", what, name, v, ok, value)
		}
	}
}

type fleet struct {
	srv        *testutil.Server
	registries []*prometheus.Registry
	sessions   []*election.Session
	candidates []*election.Candidate
}

// start runs a test in virtual time with two members, as of two processes.
func start(t *testing.T, test func(t *testing.T, f *fleet)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		srv, err := testutil.NewServer(&testutil.ServerOptions{NoListen: true})
		require.NoError(t, err)
		defer srv.Close()
		f := &fleet{srv: srv}
		for range 2 {
			metrics, registry := New(), prometheus.NewPedanticRegistry()
			registry.MustRegister(metrics)
			s, err := election.Connect(srv.Servers(), 10*time.Second, &election.SessionOptions{
				Dialer: srv.Dialer(), Metrics: metrics.Hooks(), Logger: slog.New(slog.DiscardHandler),
			})
			require.NoError(t, err)
			defer func() { _ = s.Close() }()
			c, err := election.NewCandidate(s, "jobs", nil)
			require.NoError(t, err)
			f.registries = append(f.registries, registry)
			f.sessions = append(f.sessions, s)
			f.candidates = append(f.candidates, c)
		}
		test(t, f)
	})
}

func TestScrape(t *testing.T) {
	start(t, func(t *testing.T, f *fleet) {
		one, two := f.registries[0], f.registries[1]
		want(t, "at rest", one, map[string]float64{
			`election_leader{election="jobs"}`: -1, `election_session_losses_total`: 0, `election_lease_margin_seconds_count`: 0,
		})
		f.candidates[0].OnWin(func(context.Context, election.Term) error {
			time.Sleep(300 * time.Millisecond)
			since := time.Unix(0, int64(scrape(t, one)[`election_taking_over_since_seconds{election="jobs"}`]*1e9))
			assert.InDelta(t, 300*time.Millisecond, time.Since(since), float64(time.Millisecond), "taking over for 300 ms")
			return nil
		})
		_, err := f.candidates[0].Campaign(t.Context())
		require.NoError(t, err)
		require.NoError(t, f.candidates[1].Vote(t.Context()))
		time.Sleep(time.Minute)
		want(t, "the leader", one, map[string]float64{
			`election_standing{election="jobs"}`:                           1,
			`election_taking_over_since_seconds{election="jobs"}`:          0,
			`election_moved_to_end_total{election="jobs"}`:                 0,
			`election_leader{election="jobs"}`:                             1,
			`election_wins_total{election="jobs"}`:                         1,
			`election_losses_total{election="jobs"}`:                       0,
			`election_stepdowns_total{cause="resigned",election="jobs"}`:   0,
			`election_stepdowns_total{cause="other",election="jobs"}`:      -1,
			`election_takeover_seconds_count{election="jobs"}`:             1,
			`election_takeover_seconds_bucket{election="jobs",le="0.256"}`: 0,
			`election_takeover_seconds_bucket{election="jobs",le="1.024"}`: 1,
			`election_lease_margin_seconds_bucket{le="2"}`:                 0,
		})
		n := scrape(t, one)["election_lease_margin_seconds_count"]
		assert.GreaterOrEqual(t, n, 40.0, "renewals in a minute, at 8 in 10 s")
		assert.LessOrEqual(t, n, 55.0, "renewals in a minute, at 8 in 10 s")
		want(t, "the other", two, map[string]float64{
			`election_leader{election="jobs"}`: 0, `election_wins_total{election="jobs"}`: 0, `election_losses_total{election="jobs"}`: 1,
		})

		f.srv.ExpireSession(f.sessions[0].ID())
		time.Sleep(time.Minute)
		want(t, "the old leader", one, map[string]float64{
			`election_leader{election="jobs"}`:                               0,
			`election_stepdowns_total{cause="session_lost",election="jobs"}`: 1,
			`election_losses_total{election="jobs"}`:                         1,
			`election_session_losses_total`:                                  1,
		})
		want(t, "the new leader", two, map[string]float64{`election_leader{election="jobs"}`: 1, `election_session_losses_total`: 0})

		require.NoError(t, f.candidates[1].Resign(t.Context()))
		time.Sleep(time.Second)
		want(t, "resigned", two, map[string]float64{
			`election_leader{election="jobs"}`: 0, `election_stepdowns_total{cause="resigned",election="jobs"}`: 1,
			`election_standing{election="jobs"}`: 0,
		})
		want(t, "once more", one, map[string]float64{`election_leader{election="jobs"}`: 1, `election_wins_total{election="jobs"}`: 2})
	})
}

// TestConnected: a process knows that it has no connection, before its session
// is lost.
func TestConnected(t *testing.T) {
	start(t, func(t *testing.T, f *fleet) {
		connected := func(value float64) {
			t.Helper()
			synctest.Wait()
			want(t, "the connection", f.registries[0], map[string]float64{"election_connected": value, "election_session_losses_total": 0})
		}
		connected(1)
		f.srv.Stop()
		connected(0)
		require.NoError(t, f.srv.Start())
		time.Sleep(5 * time.Second)
		connected(1)
		require.NoError(t, f.sessions[0].Close())
		connected(0)
	})
}

func TestTakeoverFailed(t *testing.T) {
	start(t, func(t *testing.T, f *fleet) {
		f.candidates[0].OnWin(func(context.Context, election.Term) error { return election.ErrClosed })
		_, err := f.candidates[0].Campaign(t.Context())
		require.ErrorIs(t, err, election.ErrTakeoverFailed)
		want(t, "a failed takeover", f.registries[0], map[string]float64{
			`election_leader{election="jobs"}`:                                  0,
			`election_wins_total{election="jobs"}`:                              1,
			`election_takeover_seconds_count{election="jobs"}`:                  -1,
			`election_standing{election="jobs"}`:                                0,
			`election_taking_over_since_seconds{election="jobs"}`:               0,
			`election_stepdowns_total{cause="takeover_failed",election="jobs"}`: 1,
		})
	})
}

func TestCauseLabel(t *testing.T) {
	for cause, want := range map[error]string{
		election.ErrResigned:                                 "resigned",
		election.ErrClosed:                                   "closed",
		election.ErrTransferred:                              "transferred",
		election.ErrLeaseLapsed:                              "lease_lapsed",
		election.ErrSessionLost:                              "session_lost",
		election.ErrBallotDeleted:                            "ballot_deleted",
		fmt.Errorf("oh: %w", election.ErrTakeoverFailed):     "takeover_failed",
		errors.New("a number that is never the same: 40213"): "other",
	} {
		assert.Equal(t, want, causeLabel(cause), "%v", cause)
	}
}
