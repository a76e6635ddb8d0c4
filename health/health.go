// Package health answers the probes of load balancers and orchestrators about
// a candidate over HTTP. It is a package of its own so that a service without
// HTTP links none.
package health

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/zkelection/election"
)

// DefaultTolerance is how long a leader's lease may go without renewal until
// /health fails, unless the request says otherwise.
const DefaultTolerance = 10 * time.Second

// Status is what every answer carries as JSON.
type Status struct {
	Election string `json:"election"`
	// Leader is Candidate.IsLeader at the time of the answer.
	Leader bool `json:"leader"`
	// Voted is whether the candidate stands in the election at all.
	Voted bool `json:"voted"`
	// Standing is whether it stands, or is about to: false after a resignation, a
	// failed takeover or a refused vote.
	Standing bool `json:"standing"`
	// Absence is why it does not stand.
	Absence string `json:"absence,omitempty"`
	// Ballot is the path of its ballot.
	Ballot string `json:"ballot,omitempty"`
	// Token is the leader's fencing token.
	Token int64 `json:"token,omitempty"`
	// LeaseUntil is until when the leader is sure to lead unless it renews.
	LeaseUntil *time.Time `json:"leaseUntil,omitempty"`
	Healthy    bool       `json:"healthy"`
	// Problem is why it is not healthy.
	Problem string `json:"problem,omitempty"`
}

// Handler returns a handler that tells how c stands:
//
//	GET /leader    200 while c leads, 503 otherwise
//	GET /follower  503 while c leads, 200 otherwise
//	GET /health    200 while c.Healthy has no objection, 503 otherwise
//	GET /          200
//
// Each answers with a Status. HEAD and OPTIONS do as GET, since some load
// balancers probe with these. A request may set the tolerance of c.Healthy, as
// in /health?tolerance=3s; the default is DefaultTolerance. No request asks
// ZooKeeper, so a probe costs nothing and never waits.
//
// A candidate leads from the moment it has won, while its OnWin functions take
// over: a service that cannot serve before these are done says so by itself.
// Mount the handler below a path with http.StripPrefix.
func Handler(c *election.Candidate) http.Handler {
	mux := http.NewServeMux()
	for path, good := range map[string]func(Status) bool{
		"/leader":   func(s Status) bool { return s.Leader },
		"/follower": func(s Status) bool { return !s.Leader },
		"/health":   func(s Status) bool { return s.Healthy },
		"/{$}":      func(Status) bool { return true },
	} {
		for _, method := range []string{http.MethodGet, http.MethodOptions} {
			mux.HandleFunc(method+" "+path, func(w http.ResponseWriter, r *http.Request) { answer(w, r, c, good) })
		}
	}
	return mux
}

func answer(w http.ResponseWriter, r *http.Request, c *election.Candidate, good func(Status) bool) {
	tolerance := DefaultTolerance
	if asked := r.URL.Query().Get("tolerance"); asked != "" {
		d, err := time.ParseDuration(asked)
		if err != nil || d <= 0 {
			http.Error(w, fmt.Sprintf("tolerance %q: want a positive duration such as 3s", asked), http.StatusBadRequest)
			return
		}
		tolerance = d
	}
	status := statusOf(c, tolerance)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if !good(status) {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(status) // a prober that has gone needs no answer
}

func statusOf(c *election.Candidate, tolerance time.Duration) Status {
	s := Status{Election: c.Name(), Voted: c.Voted(), Ballot: c.VotePath(), Healthy: true}
	picture := c.Status()
	s.Standing = picture.Standing
	if picture.Absence != nil {
		s.Absence = picture.Absence.Error()
	}
	if term, ok := c.Term(); ok {
		s.Leader, s.Token = true, term.Token
	}
	if until := c.LeaseUntil(); s.Leader && !until.IsZero() {
		until = until.UTC()
		s.LeaseUntil = &until
	}
	if err := c.Healthy(tolerance); err != nil {
		s.Healthy, s.Problem = false, err.Error()
	}
	return s
}
