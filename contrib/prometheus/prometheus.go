// Package prometheus shows an election's metrics to Prometheus. It is a module
// of its own, so that the library depends on no metrics system.
//
//	metrics := prometheus.New()
//	registry.MustRegister(metrics)
//	session, err := election.Connect(servers, timeout, &election.SessionOptions{Metrics: metrics.Hooks()})
//
// The candidates of a session inherit its metrics.
//
// One Metrics serves any number of sessions and candidates of a process. It
// collects:
//
//	election_standing{election}            how many candidates of this process stand in it: 0 after a resignation, a
//	                                       failed takeover or a refused ballot, while it stands
//	                                       aside, and while a callback of a lost term hangs
//	election_leader{election}              how many candidates of this process lead it now: 0 or 1
//	election_wins_total{election}          leaderships begun
//	election_losses_total{election}        acknowledged leaders that a candidate has lost to
//	election_stepdowns_total{election,cause}  leaderships ended: resigned, closed, transferred, lease_lapsed,
//	                                       session_lost, ballot_deleted, takeover_failed or other
//	election_taking_over_since_seconds{election}  when the takeover that is under way began, as Unix time; 0 when none is
//	election_takeover_seconds{election}    histogram: from winning to the acknowledgement
//	election_moved_to_end_total{election}  times that a candidate went to the end of the line for want of a lease
//	election_lease_margin_seconds          histogram: what was left of the lease at each renewal
//	election_session_losses_total          ZooKeeper sessions lost
//	election_connected                     how many sessions of this process have a connection to ZooKeeper
//
// An election's gauges and counters are there, and 0, from the first vote on,
// but for the cause other; its histogram is from the first acknowledgement on.
// alerts.yml has alert rules for all of this, and dashboard.json a dashboard for
// Grafana.
package prometheus

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/zkelection/election"
)

// Metrics is a prometheus.Collector to register; its Hooks are for
// SessionOptions or CandidateOptions. Make it with New.
type Metrics struct {
	standing      *prometheus.GaugeVec
	leader        *prometheus.GaugeVec
	takingOver    *prometheus.GaugeVec
	movedToEnd    *prometheus.CounterVec
	wins          *prometheus.CounterVec
	losses        *prometheus.CounterVec
	stepDowns     *prometheus.CounterVec
	takeover      *prometheus.HistogramVec
	leaseMargin   prometheus.Histogram
	sessionLosses prometheus.Counter
	connected     prometheus.Gauge
}

var _ prometheus.Collector = (*Metrics)(nil)

// New makes a Metrics that has seen nothing yet. An election appears with its
// first vote.
func New() *Metrics {
	perElection := []string{"election"}
	counter := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Namespace: "election", Name: name, Help: help}
	}
	return &Metrics{
		standing: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: "election", Name: "standing", Help: "How many candidates of this process stand in the election.",
		}, perElection),
		takingOver: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: "election", Name: "taking_over_since_seconds",
			Help: "When the takeover that is under way began, as Unix time; 0 when none is.",
		}, perElection),
		movedToEnd: prometheus.NewCounterVec(counter("moved_to_end_total",
			"Times that a candidate went to the end of the line for want of a lease."), perElection),
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
		connected: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: "election", Name: "connected", Help: "How many sessions of this process have a connection to ZooKeeper.",
		}),
	}
}

func (m *Metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{
		m.standing, m.leader, m.wins, m.losses, m.stepDowns, m.takingOver, m.takeover, m.movedToEnd, m.leaseMargin, m.sessionLosses,
		m.connected,
	}
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

// Hooks is what to give to SessionOptions.Metrics, or CandidateOptions.Metrics.
func (m *Metrics) Hooks() *election.Metrics {
	return &election.Metrics{
		Standing: m.stands,
		Leading:  m.leads,
		TakingOver: func(name string, since time.Time) {
			at := 0.0
			if !since.IsZero() {
				at = float64(since.UnixNano()) / 1e9
			}
			m.takingOver.WithLabelValues(name).Set(at)
		},
		TakenOver: func(name string, took time.Duration) { m.takeover.WithLabelValues(name).Observe(took.Seconds()) },
		SteppedDown: func(name string, cause error) {
			m.stepDowns.WithLabelValues(name, causeLabel(cause)).Inc()
		},
		Lost:         func(name string) { m.losses.WithLabelValues(name).Inc() },
		MovedToEnd:   func(name string) { m.movedToEnd.WithLabelValues(name).Inc() },
		LeaseRenewed: func(margin time.Duration) { m.leaseMargin.Observe(margin.Seconds()) },
		SessionLost:  m.sessionLosses.Inc,
		Connected: func(connected bool) {
			// Counted, since a process may have several sessions.
			if connected {
				m.connected.Inc()
			} else {
				m.connected.Dec()
			}
		},
	}
}

// stands also makes the election's other series known, so that they are 0 where
// nothing has happened yet, and not absent: a counter that appears with 1 has
// not grown, as Prometheus sees it.
func (m *Metrics) stands(name string, stands bool) {
	m.leader.WithLabelValues(name).Add(0)
	m.takingOver.WithLabelValues(name).Add(0)
	for _, c := range []*prometheus.CounterVec{m.movedToEnd, m.wins, m.losses} {
		c.WithLabelValues(name).Add(0)
	}
	for _, cause := range causes {
		m.stepDowns.WithLabelValues(name, cause.label).Add(0)
	}
	// Counted, since two candidates of one process may stand in one election.
	if stands {
		m.standing.WithLabelValues(name).Inc()
	} else {
		m.standing.WithLabelValues(name).Dec()
	}
}

func (m *Metrics) leads(name string, leads bool) {
	// Counted, since two candidates of one process may stand in one election.
	if leads {
		m.leader.WithLabelValues(name).Inc()
		m.wins.WithLabelValues(name).Inc()
	} else {
		m.leader.WithLabelValues(name).Dec()
	}
}

// causes are the labels that causeLabel gives, but for "other".
var causes = []struct {
	err   error
	label string
}{
	// A failed takeover first: its cause may wrap anything.
	{election.ErrTakeoverFailed, "takeover_failed"},
	{election.ErrTransferred, "transferred"},
	{election.ErrResigned, "resigned"},
	{election.ErrClosed, "closed"},
	{election.ErrLeaseLapsed, "lease_lapsed"},
	{election.ErrSessionLost, "session_lost"},
	{election.ErrBallotDeleted, "ballot_deleted"},
}

// causeLabel keeps the number of causes, and so of time series, small.
func causeLabel(cause error) string {
	for _, known := range causes {
		if errors.Is(cause, known.err) {
			return known.label
		}
	}
	return "other"
}
