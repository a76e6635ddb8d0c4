package election

import "time"

// Metrics is told what a service's dashboards want to know. A nil function is
// skipped, so set those that are of interest. The functions are called on this
// library's own goroutines, must not block, and may be called from several at a
// time. The name is the election's. (Prometheus's are in contrib/prometheus, whose tests compare them with its
// dashboard and with docs/operations.md.)
type Metrics struct {
	// Standing is told when a candidate begins to stand in the election (Vote,
	// Campaign or Run asked for it; the ballot may not be cast yet) and when it
	// ceases to: it resigned or closed, stands aside (StandWhile), its takeover
	// failed, its ballot was refused, or a callback of a lost term hangs. It tells
	// true again when such a candidate comes back. A lost session changes nothing.
	// Candidate.Status tells why.
	Standing func(name string, stands bool)
	// Leading is told when a candidate begins to lead, from the moment that
	// IsLeader is true, and when it ends: an is-leader gauge.
	Leading func(name string, leads bool)
	// TakingOver is told when a takeover begins, which is when the candidate
	// begins to lead, and with the zero Time when it has ended, by the
	// acknowledgement or by the loss of leadership. One that goes on and on is an
	// OnWin that hangs.
	TakingOver func(name string, since time.Time)
	// TakenOver is told when a new leader has acknowledged, how long that took
	// since it won: its OnWin functions and one write.
	TakenOver func(name string, took time.Duration)
	// SteppedDown is told of each end of a leadership; cause is as for
	// OnStepDown.
	SteppedDown func(name string, cause error)
	// Lost is told each time that OnLose is.
	Lost func(name string)
	// MovedToEnd is told when a candidate went to the end of the line because it
	// was the first in it and could get, or keep, no lease.
	MovedToEnd func(name string)
	// LeaseRenewed is told, at each renewal of a Session's lease, how much of
	// the lease was left. Alert when it comes near zero.
	LeaseRenewed func(margin time.Duration)
	// SessionLost is told of each ZooKeeper session that was lost.
	SessionLost func()
	// Connected is told when a Session has got a connection to a server, and when
	// it has lost it, Close included: each true is followed by one false.
	Connected func(connected bool)
}

// filled returns a copy with functions that do nothing in the place of nil
// ones. m may be nil.
func (m *Metrics) filled() *Metrics {
	var f Metrics
	if m != nil {
		f = *m
	}
	if f.Standing == nil {
		f.Standing = func(string, bool) {}
	}
	if f.Leading == nil {
		f.Leading = func(string, bool) {}
	}
	if f.TakingOver == nil {
		f.TakingOver = func(string, time.Time) {}
	}
	if f.TakenOver == nil {
		f.TakenOver = func(string, time.Duration) {}
	}
	if f.SteppedDown == nil {
		f.SteppedDown = func(string, error) {}
	}
	if f.Lost == nil {
		f.Lost = func(string) {}
	}
	if f.MovedToEnd == nil {
		f.MovedToEnd = func(string) {}
	}
	if f.LeaseRenewed == nil {
		f.LeaseRenewed = func(time.Duration) {}
	}
	if f.SessionLost == nil {
		f.SessionLost = func() {}
	}
	if f.Connected == nil {
		f.Connected = func(bool) {}
	}
	return &f
}
