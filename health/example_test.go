package health_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/zkelection/election"
	"github.com/zkelection/election/health"
	"github.com/zkelection/election/testutil"
)

func ExampleHandler() {
	srv, err := testutil.NewServer(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	opts := &election.SessionOptions{Logger: slog.New(slog.DiscardHandler)}
	session, err := election.Connect([]string{srv.Addr()}, 10*time.Second, opts)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = session.Close() }()
	candidate, err := election.NewCandidate(session, "service", nil)
	if err != nil {
		log.Fatal(err)
	}

	mux := http.NewServeMux()
	mux.Handle("/election/", http.StripPrefix("/election", health.Handler(candidate)))
	web := httptest.NewServer(mux)
	defer web.Close()

	probe := func() {
		for _, path := range []string{"leader", "follower", "health"} {
			answer, err := http.Get(web.URL + "/election/" + path)
			if err != nil {
				log.Fatal(err)
			}
			_ = answer.Body.Close()
			fmt.Print(path, " ", answer.StatusCode, "\n")
		}
	}
	probe()
	if _, err := candidate.Campaign(context.Background()); err != nil {
		log.Fatal(err)
	}
	probe()
	// Output:
	// leader 503
	// follower 200
	// health 200
	// leader 200
	// follower 503
	// health 200
}
