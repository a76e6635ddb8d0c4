package election

import "testing"

func TestDecide(t *testing.T) {
	for _, c := range []struct {
		name string
		in   situation
		want step
	}{
		{"nothing wanted", situation{phase: idle, ready: true}, rest},
		{"a vote", situation{phase: idle, want: true, ready: true}, stepCast},
		{"not connected", situation{phase: idle, want: true}, rest},
		{"credentials refused", situation{phase: idle, want: true, barred: true}, stepRefused},
		{"refused a moment ago", situation{phase: idle, want: true, barred: true, refused: true}, rest},
		{"an errand is under way", situation{phase: idle, want: true, ready: true, busy: true}, rest},
		{"callbacks of the last term go on", situation{phase: idle, want: true, ready: true, draining: true}, rest},
		{"and for too long", situation{phase: idle, want: true, ready: true, draining: true, overdue: true}, rest},
		{"closing", situation{phase: idle, want: true, ready: true, closing: true}, stepEnd},
		{"closing waits for callbacks", situation{phase: idle, closing: true, draining: true}, rest},
		{"but not for ever", situation{phase: idle, closing: true, draining: true, overdue: true}, stepEnd},
		{"closing waits for an errand", situation{phase: idle, closing: true, busy: true}, rest},

		{"place unknown", situation{phase: waiting, ready: true, ballot: true}, stepLook},
		{"place unknown, not connected", situation{phase: waiting, ballot: true}, rest},
		{"behind", situation{phase: waiting, ready: true, ballot: true, placed: true}, rest},
		{"first", situation{phase: waiting, ready: true, ballot: true, placed: true, first: true}, stepWait},
		{"first, not connected", situation{phase: waiting, ballot: true, placed: true, first: true}, stepWait},
		{"a look is due", situation{phase: waiting, ready: true, ballot: true, placed: true, check: true}, stepCheck},
		{"resigning", situation{phase: waiting, ready: true, ballot: true, placed: true, withdraw: true}, stepWithdraw},

		{"no lease", situation{phase: claiming, ready: true, ballot: true, placed: true, first: true}, rest},
		{"a lease", situation{phase: claiming, ready: true, ballot: true, placed: true, first: true, lease: true}, stepClaim},
		{"a lease, after a lapse", situation{phase: claiming, ready: true, ballot: true, placed: true, lease: true, verify: true}, stepCheck},
		{"a lease, after a lapse, not connected", situation{phase: claiming, ballot: true, placed: true, lease: true, verify: true}, rest},
		{"resigning before the lease", situation{phase: claiming, ballot: true, lease: true, withdraw: true}, stepWithdraw},

		{"OnWin runs", situation{phase: winning, ready: true, ballot: true, proclaim: true, check: true}, rest},
		{"OnWin has returned", situation{phase: acking, ready: true, ballot: true}, stepAcknowledge},
		{"acknowledging", situation{phase: acking, ready: true, ballot: true, busy: true}, rest},
		{"leading", situation{phase: leading, ready: true, ballot: true}, rest},
		{"the acknowledgement is gone", situation{phase: leading, ready: true, ballot: true, reack: true, proclaim: true, check: true}, stepAcknowledge},
		{"new data", situation{phase: leading, ready: true, ballot: true, proclaim: true, check: true}, stepProclaim},
		{"new data, not connected", situation{phase: leading, ballot: true, proclaim: true}, rest},

		{"why is the ballot gone", situation{phase: leaving, ready: true, untold: true, draining: true}, stepAskCause},
		{"why is the ballot gone, not connected", situation{phase: leaving, untold: true, draining: true, overdue: true, withdraw: true}, rest},
		{"OnStepDown runs", situation{phase: leaving, ready: true, ballot: true, draining: true, withdraw: true}, rest},
		{"OnStepDown hangs", situation{phase: leaving, ready: true, ballot: true, draining: true, overdue: true}, stepWithdraw},
		{"resigned", situation{phase: leaving, ready: true, ballot: true, withdraw: true}, stepWithdraw},
		{"the session is lost", situation{phase: leaving}, stepIdle},
		{"the lease lapsed, the ballot stands", situation{phase: leaving, ballot: true}, stepContend},

		{"withdrawing", situation{phase: withdrawing, ballot: true}, stepDelete},
		{"a deletion failed a moment ago", situation{phase: withdrawing, ballot: true, held: true}, rest},
		{"a ballot may exist", situation{phase: withdrawing, uncertain: true}, stepDelete},
		{"under way", situation{phase: withdrawing, ballot: true, busy: true}, rest},
		{"withdrawn", situation{phase: withdrawing}, stepIdle},
		{"the end", situation{phase: ended, want: true, ready: true}, rest},
	} {
		if got := decide(c.in); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
