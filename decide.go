package election

// situation is what the decision about the next step depends on.
type situation struct {
	phase                  phase
	want, closing          bool
	ready                  bool // the Session has a session, connected
	authFailed             bool // the servers refuse its credentials
	hopeless               bool // no lease can be had on this session
	busy, backingOff       bool // an errand is under way; none may begin yet
	votePaused             bool // a vote was refused, or a takeover failed, a moment ago
	draining               bool // callbacks of the last term, or Run's function, go on
	overdue                bool // and have gone on for too long
	withdraw, causePending bool
	ballot, stray          bool
	placed, first          bool
	lease                  bool // worth claiming under
	lacks, flaps           bool // none has been had for too long; it has lapsed too often
	movePaused             bool // a move was tried a moment ago
	ackMissing, proclaim   bool
	check, verify          bool // a periodic recheck is due; and comes before a claim
}

// step is what a candidate does next.
type step int

const (
	rest step = iota
	stepEnd
	stepRefused
	stepCast
	stepLook
	stepClaim
	stepReachFront // claim when there is a lease
	stepMove       // go to the end of the line
	stepAcknowledge
	stepProclaim
	stepCheck
	stepAskCause
	stepWithdraw // go on to withdrawing
	stepDelete   // begin the errand of withdrawing
	stepContend  // a term is over, the ballot still stands
	stepIdle     // a term is over, and so is the ballot
)

// decide is the candidate's policy: what to do in a situation.
func decide(s situation) step {
	errand := !s.busy && !s.backingOff
	switch s.phase {
	case idle:
		switch {
		case s.busy || s.draining && !s.overdue:
		case s.closing:
			return stepEnd
		case s.votePaused:
		case s.want && (s.authFailed || s.hopeless):
			return stepRefused
		case s.want && s.ready && errand && !s.draining:
			return stepCast
		}
	case waiting, claiming:
		switch {
		case s.withdraw || s.hopeless:
			return stepWithdraw
		case s.phase == claiming && !s.movePaused && (s.flaps || s.lacks && !s.lease):
			if s.ready && errand {
				return stepMove // which looks at the own ballot, too
			}
		case s.phase == claiming && s.verify:
			if s.ready && errand {
				return stepCheck
			}
		case s.phase == claiming && s.lease:
			return stepClaim
		case s.phase == waiting && s.placed && s.first:
			return stepReachFront // no more: it is our turn
		case !s.placed && s.ready && errand:
			return stepLook
		case s.check && s.ready && errand:
			return stepCheck
		}
	case acking:
		if s.ready && errand {
			return stepAcknowledge
		}
	case leading:
		switch {
		case !s.ready || !errand:
		case s.ackMissing:
			return stepAcknowledge
		case s.proclaim:
			return stepProclaim
		case s.check:
			return stepCheck
		}
	case leaving:
		switch {
		case s.causePending:
			if s.ready && errand {
				return stepAskCause
			}
		case s.draining && !s.overdue:
		case s.draining || s.withdraw:
			return stepWithdraw
		case !s.ballot:
			return stepIdle
		default:
			return stepContend
		}
	case withdrawing:
		switch {
		case !errand:
		case !s.ballot && !s.stray:
			return stepIdle
		default:
			return stepDelete
		}
	case casting, moving, winning, ended:
	}
	return rest
}
