// Package health answers the probes of load balancers and orchestrators about
// an election over HTTP. It is a package of its own so that a service without
// HTTP links none.
package health

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path"
	"time"

	"github.com/zkelection/election"
)

// DefaultTolerance is how long a leader's lease may go without renewal until
// /health fails, and how long ago an Observer may have been sure of a leader
// (Observer.ConfirmedAt) until /elected does, unless the request says otherwise.
const DefaultTolerance = 10 * time.Second

// Options say whom a handler answers about: a candidate, an observer, or both
// of one election.
type Options struct {
	// Candidate is asked for everything, and for Elected only without an Observer.
	// Without a Candidate the process never leads.
	Candidate *election.Candidate
	// Observer is asked whether a leader is known. It must observe already, or
	// nothing is known. Beside a Candidate it is needed where that one has
	// FollowNextNode, or is to be asked while it does not stand; on the same
	// Session as one with FollowLeader it costs ZooKeeper nothing.
	Observer *election.Observer
}

// Status is what every answer carries as JSON. All of it that is about the
// candidate is of one moment, that of one call of Candidate.Status; only
// Healthy and Problem are asked for by themselves.
type Status struct {
	Election string `json:"election"`
	// Phase is what the candidate is doing, in words, as election.Status has it.
	Phase string `json:"phase,omitempty"`
	// Leader is whether the candidate leads and has acknowledged. Before that
	// TakingOverSince is set.
	Leader bool `json:"leader"`
	// TakingOverSince is when the takeover that is under way began: the candidate
	// has won, and its OnWin functions have not finished.
	TakingOverSince time.Time `json:"takingOverSince,omitzero"`
	// AcknowledgedAt is when the leader had taken over.
	AcknowledgedAt time.Time `json:"acknowledgedAt,omitzero"`
	// LeaseUntil is until when the candidate is sure to lead unless it renews.
	LeaseUntil time.Time `json:"leaseUntil,omitzero"`
	// Token is the fencing token of a candidate that leads or takes over.
	Token int64 `json:"token,omitempty"`
	// Elected is whether a leader has acknowledged, and absent when that is not
	// known: the Observer has seen nothing yet, or has not been sure of it for
	// longer than the tolerance (election.Observer.ConfirmedAt), since there is no connection, or ZooKeeper does not let it be read. Without an Observer it is the Candidate's
	// election.Status.LeaderAlive, and absent without LeaderKnown.
	Elected *bool `json:"elected,omitempty"`
	// Voted is whether the candidate has a ballot, and Ballot the ballot's path.
	Voted  bool   `json:"voted"`
	Ballot string `json:"ballot,omitempty"`
	// InFront is how many ballots are in front of it, as far as is known.
	InFront *int `json:"inFront,omitempty"`
	// Standing is whether the candidate stands, or is about to: false after a
	// resignation, a failed takeover or a refused vote. Absence is then why, and
	// RetryAt when it tries again by itself, if it does.
	Standing bool      `json:"standing"`
	Absence  string    `json:"absence,omitempty"`
	RetryAt  time.Time `json:"retryAt,omitzero"`
	// Connected is whether there is a connection to ZooKeeper, Server the server of
	// that connection, or the one that was tried last, and ConnectionSince since
	// when that is so.
	Connected       bool      `json:"connected"`
	Server          string    `json:"server,omitempty"`
	ConnectionSince time.Time `json:"connectionSince,omitzero"`
	// LastError is what last went wrong, and LastErrorAt when; it stays until the
	// next.
	LastError   string    `json:"lastError,omitempty"`
	LastErrorAt time.Time `json:"lastErrorAt,omitzero"`
	// Healthy is Candidate.Healthy, and Problem its objection.
	Healthy bool   `json:"healthy"`
	Problem string `json:"problem,omitempty"`
}

// Handler is HandlerFor a candidate alone. It answers /elected if the candidate
// follows the leader (CandidateOptions.Follow: election.FollowLeader), as long
// as that waits or leads, and has had a connection within the tolerance. One that
// follows the next node does not hear who leads: /elected answers 501, in whatever
// role it is. Give HandlerFor an Observer then.
func Handler(c *election.Candidate) http.Handler {
	return HandlerFor(Options{Candidate: c})
}

// HandlerFor returns a handler that answers:
//
//	/leader    200 while the candidate leads and has acknowledged
//	/follower  200 while it neither leads nor takes over
//	/elected   200 while the Observer knows of a leader; without an Observer,
//	           while the candidate does, and 501 if it has FollowNextNode
//	/health    200 while Candidate.Healthy has no objection
//	/          200
//
// and 503 otherwise. So while the candidate takes over, between the win and the
// acknowledgement, both /leader and /follower fail.
//
// Each answers with a Status. HEAD and OPTIONS do as GET, since some load
// balancers probe with these, and /leader/ or //leader as /leader, without a
// redirection, which they would take for an answer. (An http.ServeMux in front
// redirects by itself what is not clean before it calls this handler.) A request
// may set the tolerance of Candidate.Healthy and of /elected, as in
// /health?tolerance=3s; the default is DefaultTolerance. No request asks ZooKeeper, so a probe costs
// nothing and never waits.
//
// Mount the handler below a path with http.StripPrefix. HandlerFor panics when
// it is given neither a candidate nor an observer, or those of two elections.
func HandlerFor(opts Options) http.Handler {
	c, o := opts.Candidate, opts.Observer
	switch {
	case c == nil && o == nil:
		panic("health: neither a Candidate nor an Observer is given")
	case c != nil && o != nil && c.RootVotePath() != o.RootVotePath():
		panic(fmt.Sprintf("health: the Candidate is of the election %s, the Observer of %s", c.RootVotePath(), o.RootVotePath()))
	}
	return handler{opts}
}

type handler struct{ Options }

// answers are the paths, and what makes them answer 200.
var answers = map[string]func(Status) bool{
	"/leader":   func(s Status) bool { return s.Leader },
	"/follower": func(s Status) bool { return !s.Leader && s.TakingOverSince.IsZero() },
	"/elected":  func(s Status) bool { return s.Elected != nil && *s.Elected },
	"/health":   func(s Status) bool { return s.Healthy },
	"/":         func(Status) bool { return true },
}

func (h handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	asked := path.Clean("/" + r.URL.Path)
	good := answers[asked]
	if good == nil {
		http.NotFound(w, r)
		return
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
	default:
		w.Header().Set("Allow", "GET, HEAD, OPTIONS")
		http.Error(w, "only GET, HEAD and OPTIONS are answered", http.StatusMethodNotAllowed)
		return
	}
	if asked == "/elected" && h.Observer == nil && h.Candidate.Follow() != election.FollowLeader {
		http.Error(w, "this candidate follows the next node and does not hear who leads: give health.Options an Observer, "+
			"or CandidateOptions FollowLeader", http.StatusNotImplemented)
		return
	}
	tolerance := DefaultTolerance
	if asked := r.URL.Query().Get("tolerance"); asked != "" {
		d, err := time.ParseDuration(asked)
		if err != nil || d <= 0 {
			http.Error(w, fmt.Sprintf("tolerance %q: want a positive duration such as 3s", asked), http.StatusBadRequest)
			return
		}
		tolerance = d
	}
	status := h.status(tolerance)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if !good(status) {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(status) // a prober that has gone needs no answer
}

func (h handler) status(tolerance time.Duration) Status {
	s := Status{Healthy: true}
	if h.Observer != nil {
		s.Election = h.Observer.Name()
		link := h.Observer.Session().Connection()
		s.Connected, s.Server, s.ConnectionSince = link.Connected, link.Server, link.Since.UTC()
		alive, known := h.Observer.LeaderAlive()
		if known && time.Since(h.Observer.ConfirmedAt()) <= tolerance {
			s.Elected = &alive
		}
	}
	c := h.Candidate
	if c == nil {
		return s
	}
	now := c.Status()
	s.Election, s.Phase = c.Name(), now.Phase
	s.Leader = now.Leads && !now.AcknowledgedAt.IsZero()
	s.TakingOverSince, s.AcknowledgedAt = now.TakingOverSince.UTC(), now.AcknowledgedAt.UTC()
	s.LeaseUntil, s.Token = now.LeaseUntil.UTC(), now.Term.Token
	s.Voted, s.Ballot = now.Ballot != "", now.Ballot
	if now.InFront >= 0 {
		s.InFront = &now.InFront
	}
	s.Standing, s.RetryAt = now.Standing, now.RetryAt.UTC()
	s.Connected, s.Server, s.ConnectionSince = now.Connected, now.Server, now.ConnectionSince.UTC()
	s.LastErrorAt = now.LastErrorAt.UTC()
	if h.Observer == nil && now.LeaderKnown && (now.Leads || recent(now.Connected, now.ConnectionSince, tolerance)) {
		s.Elected = &now.LeaderAlive
	}
	if now.Absence != nil {
		s.Absence = now.Absence.Error()
	}
	if now.LastError != nil {
		s.LastError = now.LastError.Error()
	}
	if err := c.Healthy(tolerance); err != nil {
		s.Healthy, s.Problem = false, err.Error()
	}
	return s
}

// recent reports whether what was last heard counts: there is a connection, or there was one not long ago.
func recent(connected bool, since time.Time, tolerance time.Duration) bool {
	return connected || time.Since(since) <= tolerance
}
