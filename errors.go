package election

import (
	"errors"
	"fmt"
	"strings"

	"github.com/go-zookeeper/zk"

	"github.com/zkelection/election/internal/lease"
)

// Errors that this package returns, and the causes that an OnStepDown callback
// and a leader's context are given; compare them with errors.Is. Errors that
// ZooKeeper answered are wrapped, so errors.Is(err, zk.ErrNoAuth) and the like
// hold as well.
var (
	// ErrClosed is returned by every method of a closed Session, Candidate or
	// Observer that waits for the servers, and is the cause of a step-down that
	// Close began.
	ErrClosed = errors.New("election: closed")

	// ErrResigned is the cause of a step-down that Resign began, and what a
	// Vote, Campaign or Run returns that Resign has ended.
	ErrResigned = errors.New("election: resigned")

	// ErrLeaseLapsed is the cause of a step-down when the quorum has not
	// confirmed the session in time: another candidate may lead soon. A jump of
	// the wall clock against the monotonic one counts as one.
	ErrLeaseLapsed = lease.ErrLapsed

	// ErrSessionLost is the cause of a step-down when the ZooKeeper session
	// has ended, or the leader's ballot has gone and its connection with it.
	ErrSessionLost = errors.New("election: session lost")

	// ErrTransferred is the cause of a step-down that a Transfer began: leadership
	// goes to the candidate that was chosen, and this one to the end of the line.
	ErrTransferred = errors.New("election: leadership is passed on")

	// ErrBallotDeleted is the cause of a step-down when somebody else deleted
	// the leader's ballot. The candidate votes again by itself.
	ErrBallotDeleted = errors.New("election: ballot deleted")

	// ErrTakeoverFailed is the cause of a step-down when an OnWin callback
	// returned an error, panicked, or exceeded TakeoverTimeout, and when the
	// acknowledgement was refused. The error that carries it also wraps the
	// callback's own. It is also what OnTakeoverError is told when OnWin could not
	// be called within StepDownTimeout, because the callback before it has not
	// returned: then the candidate votes again by itself once it has, if Vote or Run
	// has asked for its candidacy.
	ErrTakeoverFailed = errors.New("election: takeover failed")

	// ErrTickTime is returned by a vote on a session on which no lease can be had
	// that is worth leading under: SessionOptions.TickTime is too long for the
	// session timeout that the servers granted. Such a candidate would keep the
	// others from leading. Correct TickTime, or raise the timeout.
	ErrTickTime = errors.New("election: TickTime is too long for the session timeout")

	// ErrSequenceExhausted means that the election node's sequence counter is
	// at its end (2147483647), where the order of ballots means nothing. An
	// operator must delete the election node once it is empty; the counter
	// starts again with the new one.
	ErrSequenceExhausted = errors.New("election: the sequence counter is at its end: delete the empty election node to start it again")

	// ErrDataTooLarge is returned for data of more than MaxDataSize bytes, and for
	// data that makes a request too large for ZooKeeper together with the election's
	// path and ACL.
	ErrDataTooLarge = errors.New("election: data is too large for ZooKeeper")

	// ErrNoLeader is returned by a look-up while no leader has acknowledged.
	ErrNoLeader = errors.New("election: no leader has acknowledged")

	// ErrNotLeader is returned by Proclaim on a candidate that does not lead.
	ErrNotLeader = errors.New("election: not the leader")

	// ErrTransferUnderWay is returned by Transfer while another one is asked for. The
	// error says to whom, and by which session.
	ErrTransferUnderWay = errors.New("election: another transfer is under way")

	// ErrTransferBlocked is returned by Transfer when it has come to nothing in time.
	// The error says how far it came, and names the lowest ballot that has not
	// moved, with its session and data, if that was answered in time. It was taken back, and will not happen,
	// unless the error says otherwise. It is also returned for a target that cannot take part: a member of the
	// gem or of an earlier version.
	ErrTransferBlocked = errors.New("election: the transfer is blocked")

	// ErrTransferTargetGone is returned by Transfer when the ballot that it was to
	// go to does not stand any more: that candidate has withdrawn, or its session has
	// ended. Another ballot of the same candidate is another one.
	ErrTransferTargetGone = errors.New("election: the target of the transfer does not stand any more")

	// ErrInvalidName is returned for an election name that ZooKeeper could
	// not hold as one path component.
	ErrInvalidName = errors.New("election: invalid name")

	// ErrInvalidPath is returned for a root that is no absolute ZooKeeper path.
	ErrInvalidPath = errors.New("election: invalid path")

	// ErrOpenElection is returned when an ACL is given and the election node
	// already exists with one that lets others create or delete ballots.
	ErrOpenElection = errors.New("election: the existing election node is open to others")

	// ErrCallbackRunning is returned by a call that would have to wait for a
	// callback that does not return: in StepDownTimeout with a Candidate, in the
	// session timeout with an Observer or an OnConnected function, and at once by
	// a Campaign, Run, Transfer or StandWhile that is called from inside a callback.
	ErrCallbackRunning = errors.New("election: a callback has not returned")
)

// errNoSession is for who has ignored the error of Connect.
var errNoSession = errors.New("election: nil Session")

// isPermanent reports whether ZooKeeper refused a request for a reason that
// trying again does not change: only an operator or another argument can. Every
// error code that is not known to pass counts as one, also those that
// nobody has heard of yet: who asked has to be told, since repeating a request
// that is refused helps nobody.
func isPermanent(err error) bool {
	for _, refusal := range []error{
		zk.ErrNoAuth, zk.ErrInvalidACL, zk.ErrBadArguments, zk.ErrNoChildrenForEphemerals,
		zk.ErrNotEmpty, // of what we delete only what somebody else has put there has children
		zk.ErrAuthFailed, zk.ErrInvalidPath, zk.ErrInvalidFlags, zk.ErrAPIError, zk.ErrReconfigDisabled,
		ErrSequenceExhausted, ErrOpenElection, ErrDataTooLarge, ErrClosed, errOwnerClosed,
	} {
		if errors.Is(err, refusal) {
			return true
		}
	}
	var code ErrorCode
	return errors.As(err, &code) && !code.passes()
}

// isDefinite reports whether a write that ended with err was answered by the
// ensemble's leader after it had checked the session. Everything else leaves
// open whether the request was, or still will be, applied. An error code that
// is not known to be given behind that check is none: a lease must not stand on
// it.
func isDefinite(err error) bool {
	return err == nil || errors.Is(err, zk.ErrNoNode) || errors.Is(err, zk.ErrBadVersion) || errors.Is(err, zk.ErrNoAuth)
}

// isSettled reports whether repeating a request that ended with err is of no
// use: it was answered, or it is refused for good.
func isSettled(err error) bool {
	return isDefinite(err) || isPermanent(err) || errors.Is(err, zk.ErrNodeExists)
}

// errorf is fmt.Errorf for errors that tell of others. The text begins with the
// name of this package and has it nowhere else: what is wrapped may be an error of
// this package itself, and may wrap one.
func errorf(format string, args ...any) error { return &wrapped{fmt.Errorf(format, args...)} }

type wrapped struct{ err error }

// prefix is what the text of each error of this package begins with.
const prefix = "election: "

var withoutPrefix = strings.NewReplacer(": "+prefix, ": ", "("+prefix, "(", "\n"+prefix, "\n")

func (w *wrapped) Error() string {
	return prefix + withoutPrefix.Replace(strings.TrimPrefix(w.err.Error(), prefix))
}

func (w *wrapped) Unwrap() error { return w.err }

// wrapf adds operation and path to an error once, at the public boundary.
// Errors of our own and of the caller's context need no more than they say.
func wrapf(err error, operation, path string) error {
	if err == nil || errors.Is(err, ErrClosed) {
		return err
	}
	return errorf("%s %s: %w", operation, path, err)
}
