package prometheus_test

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/zkelection/election"
	electionprom "github.com/zkelection/election/contrib/prometheus"
	"github.com/zkelection/election/testutil"
)

func Example() {
	srv, err := testutil.NewServer(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()

	metrics, registry := electionprom.New(), prometheus.NewRegistry()
	registry.MustRegister(metrics)
	session, err := election.Connect([]string{srv.Addr()}, 10*time.Second,
		&election.SessionOptions{Metrics: metrics.Hooks(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = session.Close() }()
	candidate, err := election.NewCandidate(session, "reports", nil)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := candidate.Campaign(context.Background()); err != nil {
		log.Fatal(err)
	}

	web := httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	defer web.Close()
	answer, err := http.Get(web.URL)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
		if line := lines.Text(); strings.HasPrefix(line, "election_") && strings.Contains(line, "reports") && !strings.HasPrefix(line, "election_takeover_seconds") {
			fmt.Println(line)
		}
	}
	// Output:
	// election_leader{election="reports"} 1
	// election_losses_total{election="reports"} 0
	// election_moved_to_end_total{election="reports"} 0
	// election_standing{election="reports"} 1
	// election_stepdowns_total{cause="ballot_deleted",election="reports"} 0
	// election_stepdowns_total{cause="closed",election="reports"} 0
	// election_stepdowns_total{cause="lease_lapsed",election="reports"} 0
	// election_stepdowns_total{cause="resigned",election="reports"} 0
	// election_stepdowns_total{cause="session_lost",election="reports"} 0
	// election_stepdowns_total{cause="takeover_failed",election="reports"} 0
	// election_stepdowns_total{cause="transferred",election="reports"} 0
	// election_taking_over_since_seconds{election="reports"} 0
	// election_wins_total{election="reports"} 1
}
