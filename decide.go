package election

// situation is what the decision about the next step depends on.
type situation struct {
	phase phase

	// What callers want, and whether it stands for that now.
	want, closing bool
	votePaused    bool // a vote was refused, or a takeover failed, a moment ago
	aside         bool // it is not ready to lead, and stands aside

	// What can be asked.
	ready      bool // the Session has a session, connected
	authFailed bool // the servers refuse its credentials
	hopeless   bool // no lease can be had on this session
	lease      bool // there is one, worth claiming under
	busy       bool // an errand is under way
	stray      bool // a ballot may exist though no reply has said so
	ballot     bool // one is known to exist
	withdraw   bool // it is to be withdrawn
	placed     bool // its place is known, and the predecessor watched
	first      bool // nobody is in front
	second     bool // the second in front is to be watched
	verify     bool // no claim before a recheck has found that it still stands
	check      bool // a recheck is due
	lacks      bool // no lease has been had for too long
	flaps      bool // the lease has lapsed too often
	movePaused bool // a move was not possible a moment ago
	ackMissing bool // the acknowledgement has to be written again
	proclaim   bool // there are new data

	heldBack [stepCount]bool // steps that are not tried again yet, since they failed

	// What a request for a transfer asks of it.
	makeWay       bool // it waits, and is to go to the end of the line: also for its priority
	sayReady      bool // it is the target and next, and has not said that it is ready
	pass          bool // it leads, and is to pass leadership on
	handover      bool // it has stepped down for that
	removeRequest bool // a request that nothing comes of is to be removed

	// The term that has ended.
	draining     bool // its callbacks, or Run's function, go on
	overdue      bool // and have gone on for too long
	causePending bool // why it ended is not known yet
	exclusive    bool // readers are told meanwhile that nobody else leads
}

// mayAsk reports whether the errand of a step may begin, which needs a connection.
func (s situation) mayAsk(next step) bool { return s.ready && s.free(next) }

// free reports whether the errand of a step may begin.
func (s situation) free(next step) bool { return !s.busy && !s.heldBack[next] }

// step is what a candidate does next.
type step int

const (
	rest step = iota
	stepEnd
	stepRefused
	stepCast
	stepFindPlace
	stepWatchSecond
	stepClaim
	stepReachFront // claim when there is a lease
	stepMove       // go to the end of the line
	stepAcknowledge
	stepProclaim
	stepRecheck
	stepSayReady      // to have leadership passed to it
	stepPass          // say that leadership is being passed on, and then leave
	stepRemoveRequest // a request for a transfer that nothing comes of
	stepAskCause
	stepWithdraw // go on to withdrawing
	stepDelete   // begin the errand of withdrawing
	stepContend  // a term is over, the ballot still stands
	stepIdle     // a term is over, and so is the ballot
)

// stepCount is how many there are.
const stepCount = int(stepIdle) + 1

// decide is the candidate's policy: what to do in a situation.
func decide(s situation) step {
	switch s.phase {
	case idle:
		return decideIdle(s)
	case waiting:
		return decideWaiting(s)
	case claiming:
		return decideClaiming(s)
	case acking:
		if s.mayAsk(stepAcknowledge) {
			return stepAcknowledge
		}
	case leading:
		return decideLeading(s)
	case leaving:
		return decideLeaving(s)
	case withdrawing:
		return decideWithdrawing(s)
	case winning:
		if s.check && s.mayAsk(stepRecheck) {
			return stepRecheck // OnWin may run for long
		}
	case casting, moving, ended:
	}
	return rest
}

func decideIdle(s situation) step {
	switch {
	case s.busy || s.draining && !s.overdue:
	case s.closing:
		return stepEnd
	case s.votePaused, s.aside:
	case s.want && (s.authFailed || s.hopeless):
		return stepRefused
	case s.want && s.mayAsk(stepCast) && !s.draining:
		return stepCast
	}
	return rest
}

func decideWaiting(s situation) step {
	switch {
	case s.withdraw || s.hopeless:
		return stepWithdraw
	case s.placed && s.first:
		return stepReachFront
	case s.makeWay && s.mayAsk(stepMove):
		return stepMove // its present place need not be known for that
	case !s.placed:
		if s.mayAsk(stepFindPlace) {
			return stepFindPlace
		}
	case s.sayReady && s.lease && s.mayAsk(stepSayReady):
		return stepSayReady
	case s.second && s.mayAsk(stepWatchSecond):
		return stepWatchSecond
	case s.check && s.mayAsk(stepRecheck):
		return stepRecheck
	}
	return rest
}

func decideClaiming(s situation) step {
	switch {
	case s.withdraw || s.hopeless:
		return stepWithdraw
	case !s.movePaused && (s.flaps || s.lacks && !s.lease):
		if s.mayAsk(stepMove) {
			return stepMove // which looks at the own ballot, too
		}
	case s.verify:
		if s.mayAsk(stepRecheck) {
			return stepRecheck
		}
	case s.lease:
		return stepClaim
	case s.check && s.mayAsk(stepRecheck):
		return stepRecheck
	}
	return rest
}

func decideLeading(s situation) step {
	switch {
	case s.ackMissing && s.mayAsk(stepAcknowledge):
		return stepAcknowledge
	case s.proclaim && !s.ackMissing && s.mayAsk(stepProclaim):
		return stepProclaim // in the acknowledgement, which has to be there
	case s.pass && s.mayAsk(stepPass):
		return stepPass
	case s.removeRequest && s.mayAsk(stepRemoveRequest):
		return stepRemoveRequest
	case s.check && s.mayAsk(stepRecheck):
		return stepRecheck
	}
	return rest
}

func decideLeaving(s situation) step {
	switch {
	case s.causePending:
		if s.mayAsk(stepAskCause) {
			return stepAskCause
		}
		return rest
	case s.draining && !s.overdue:
		if s.exclusive && s.check && s.mayAsk(stepRecheck) {
			return stepRecheck
		}
		return rest
	case s.draining || s.withdraw:
		return stepWithdraw
	case !s.ballot:
		return stepIdle
	case s.handover:
		if s.mayAsk(stepMove) {
			return stepMove
		}
		return rest
	}
	return stepContend
}

func decideWithdrawing(s situation) step {
	switch {
	case s.busy:
		return rest
	case !s.ballot && !s.stray:
		return stepIdle
	case !s.free(stepDelete):
		return rest
	}
	return stepDelete
}
