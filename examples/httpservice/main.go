// Command httpservice runs three instances of an HTTP service behind a load
// balancer that sends requests only to the leader: it probes each instance's
// /election/leader, as HAProxy would. (It is no readiness probe for Kubernetes:
// only one pod would ever be ready.) The leader is shut down, and the balancer
// finds the next one. Without -servers it starts an in-process ZooKeeper.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/zkelection/election"
	"github.com/zkelection/election/health"
	"github.com/zkelection/election/testutil"
)

// instance is one process of the service.
type instance struct {
	name    string
	session *election.Session
	web     *httptest.Server
}

func startInstance(servers []string, name string) *instance {
	session, err := election.Connect(servers, 10*time.Second, nil)
	check(err)
	candidate, err := election.NewCandidate(session, "http-service", &election.CandidateOptions{Data: []byte(name)})
	check(err)

	mux := http.NewServeMux()
	mux.Handle("/election/", http.StripPrefix("/election", health.Handler(candidate)))
	mux.HandleFunc("GET /hello", func(w http.ResponseWriter, _ *http.Request) {
		if !candidate.IsLeader() { // the balancer may be a moment behind
			http.Error(w, "not the leader", http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintf(w, "hello from %s", name)
	})
	i := &instance{name: name, session: session, web: httptest.NewServer(mux)}
	check(candidate.Vote(context.Background()))
	return i
}

// stop takes the instance down: leadership goes first, then the web server.
func (i *instance) stop() {
	check(i.session.Close())
	i.web.Close()
}

// balancer sends requests to whoever says that it leads.
type balancer struct {
	backends []string
	probes   int
}

func (b *balancer) get(path string) (string, error) {
	for _, backend := range b.backends {
		b.probes++
		if code, _, err := fetch(backend + "/election/leader"); err != nil || code != http.StatusOK {
			continue
		}
		if code, body, err := fetch(backend + path); err == nil && code == http.StatusOK {
			return body, nil
		}
	}
	return "", errors.New("no leader is up")
}

func fetch(url string) (code int, body string, err error) {
	answer, err := http.Get(url)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	return answer.StatusCode, string(text), err
}

func main() {
	list := flag.String("servers", "", "ZooKeeper servers, `HOST:PORT,...` (default: an in-process one)")
	flag.Parse()
	slog.SetLogLoggerLevel(slog.LevelError + 1) // what the library logs
	servers := strings.Split(*list, ",")
	if *list == "" {
		srv, err := testutil.NewServer(nil)
		check(err)
		defer srv.Close()
		servers = srv.Servers()
	}
	var instances []*instance
	lb := &balancer{}
	for _, name := range []string{"alpha", "beta", "gamma"} {
		i := startInstance(servers, name)
		instances = append(instances, i)
		lb.backends = append(lb.backends, i.web.URL)
	}
	for _, down := range instances {
		answer, err := lb.get("/hello")
		for began := time.Now(); err != nil && time.Since(began) < 30*time.Second; answer, err = lb.get("/hello") {
			time.Sleep(5 * time.Millisecond) // the pace of the probes
		}
		check(err)
		fmt.Printf("the balancer gets %q\n", answer)
		for _, i := range instances {
			code, _, err := fetch(i.web.URL + "/election/leader")
			if err != nil {
				fmt.Printf("  %-5s is down\n", i.name)
				continue
			}
			fmt.Printf("  %-5s /election/leader %d\n", i.name, code)
		}
		fmt.Printf("%s is shut down\n", down.name)
		down.stop()
	}
	_, err := lb.get("/hello")
	fmt.Printf("the balancer says: %v\n", err)
}

func check(err error) {
	if err != nil {
		log.Fatal("httpservice: ", err)
	}
}
