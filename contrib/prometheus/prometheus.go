// Package prometheus shows an election's metrics to Prometheus. It is a module
// of its own, so that the library depends on no metrics system.
//
//	metrics := prometheus.New()
//	registry.MustRegister(metrics)
//	session, err := election.Connect(servers, timeout, &election.SessionOptions{Metrics: metrics})
//	candidate, err := election.NewCandidate(session, name, &election.CandidateOptions{Metrics: metrics})
//
// One Metrics serves any number of sessions and candidates of a process. It
// collects:
//
//	election_leader{election}              how many candidates of this process lead it now: 0 or 1
//	election_wins_total{election}          leaderships begun
//	election_losses_total{election}        acknowledged leaders that a candidate has lost to
//	election_stepdowns_total{election,cause}  leaderships ended: resigned, closed, lease_lapsed, session_lost,
//	                                       ballot_deleted, takeover_failed or other
//	election_takeover_seconds{election}    histogram: from winning to the acknowledgement
//	election_lease_margin_seconds          histogram: what was left of the lease at each renewal
//	election_session_losses_total          ZooKeeper sessions lost
//
// Worth an alert: sum by (election) (election_leader) == 0 for longer than a
// failover takes; a lease margin near zero.
package prometheus

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/zkelection/election"
)

// Metrics is an election.Metrics for CandidateOptions and SessionOptions, and
// a prometheus.Collector to register. Make it with New.
type Metrics struct {
	leader        *prometheus.GaugeVec
	wins          *prometheus.CounterVec
	losses        *prometheus.CounterVec
	stepDowns     *prometheus.CounterVec
	takeover      *prometheus.HistogramVec
	leaseMargin   prometheus.Histogram
	sessionLosses prometheus.Counter
}

var (
	_ election.Metrics     = (*Metrics)(nil)
	_ prometheus.Collector = (*Metrics)(nil)
)

// New makes a Metrics that has seen nothing yet. An election appears with its
// first event.
func New() *Metrics {
	perElection := []string{"election"}
	counter := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Namespace: "election", Name: name, Help: help}
	}
	return &Metrics{
		leader: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: "election", Name: "leader", Help: "How many candidates of this process lead the election.",
		}, perElection),
		wins:      prometheus.NewCounterVec(counter("wins_total", "Leaderships begun."), perElection),
		losses:    prometheus.NewCounterVec(counter("losses_total", "Acknowledged leaders that a candidate has lost to."), perElection),
		stepDowns: prometheus.NewCounterVec(counter("stepdowns_total", "Leaderships ended, by cause."), []string{"election", "cause"}),
		takeover: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "election", Name: "takeover_seconds", Help: "Time from winning to the acknowledgement.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 9), // to 65 s
		}, perElection),
		leaseMargin: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "election", Name: "lease_margin_seconds", Help: "What was left of the lease when it was renewed.",
			Buckets: []float64{0.1, 0.25, 0.5, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48},
		}),
		sessionLosses: prometheus.NewCounter(counter("session_losses_total", "ZooKeeper sessions lost.")),
	}
}

func (m *Metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.leader, m.wins, m.losses, m.stepDowns, m.takeover, m.leaseMargin, m.sessionLosses}
}

// Describe is for the registry.
func (m *Metrics) Describe(descriptions chan<- *prometheus.Desc) {
	for _, c := range m.collectors() {
		c.Describe(descriptions)
	}
}

// Collect is for the registry.
func (m *Metrics) Collect(metrics chan<- prometheus.Metric) {
	for _, c := range m.collectors() {
		c.Collect(metrics)
	}
}

// Leading is called by the candidate.
func (m *Metrics) Leading(name string, leads bool) {
	// Counted, since two candidates of one process may stand in one election.
	if leads {
		m.leader.WithLabelValues(name).Inc()
		m.wins.WithLabelValues(name).Inc()
	} else {
		m.leader.WithLabelValues(name).Dec()
	}
}

// TakenOver is called by the candidate.
func (m *Metrics) TakenOver(name string, took time.Duration) {
	m.takeover.WithLabelValues(name).Observe(took.Seconds())
}

// SteppedDown is called by the candidate.
func (m *Metrics) SteppedDown(name string, cause error) {
	m.stepDowns.WithLabelValues(name, causeLabel(cause)).Inc()
}

// Lost is called by the candidate. It also makes an election known that this
// process has never led: its gauge is 0, not absent.
func (m *Metrics) Lost(name string) {
	m.leader.WithLabelValues(name).Add(0)
	m.losses.WithLabelValues(name).Inc()
}

// LeaseRenewed is called by the session.
func (m *Metrics) LeaseRenewed(margin time.Duration) { m.leaseMargin.Observe(margin.Seconds()) }

// SessionLost is called by the session.
func (m *Metrics) SessionLost() { m.sessionLosses.Inc() }

// causeLabel keeps the number of causes, and so of time series, small.
func causeLabel(cause error) string {
	for _, known := range []struct {
		err   error
		label string
	}{
		// A failed takeover first: its cause may wrap anything.
		{election.ErrTakeoverFailed, "takeover_failed"},
		{election.ErrResigned, "resigned"},
		{election.ErrClosed, "closed"},
		{election.ErrLeaseLapsed, "lease_lapsed"},
		{election.ErrSessionLost, "session_lost"},
		{election.ErrBallotDeleted, "ballot_deleted"},
	} {
		if errors.Is(cause, known.err) {
			return known.label
		}
	}
	return "other"
}
