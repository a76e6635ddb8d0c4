package election

import "time"

// Metrics is told what a service's dashboards want to know. Its methods are
// called on this library's own goroutines, must not block, and may be called
// from several at a time. The name is the election's.
type Metrics interface {
	// Leading is told when a candidate begins to lead, from the moment that
	// IsLeader is true, and when it ends: an is-leader gauge.
	Leading(name string, leads bool)
	// TakenOver is told when a new leader has acknowledged, how long that took
	// since it won: its OnWin functions and one write.
	TakenOver(name string, took time.Duration)
	// SteppedDown is told of each end of a leadership; cause is as for
	// OnStepDown.
	SteppedDown(name string, cause error)
	// Lost is told each time that OnLose is.
	Lost(name string)
	// LeaseRenewed is told, at each renewal of a Session's lease, how much of
	// the lease was left. Alert when it comes near zero.
	LeaseRenewed(margin time.Duration)
	// SessionLost is told of each ZooKeeper session that was lost.
	SessionLost()
}

// noMetrics is the default.
type noMetrics struct{}

func (noMetrics) Leading(string, bool)            {}
func (noMetrics) TakenOver(string, time.Duration) {}
func (noMetrics) SteppedDown(string, error)       {}
func (noMetrics) Lost(string)                     {}
func (noMetrics) LeaseRenewed(time.Duration)      {}
func (noMetrics) SessionLost()                    {}

func orNoMetrics(m Metrics) Metrics {
	if m == nil {
		return noMetrics{}
	}
	return m
}
