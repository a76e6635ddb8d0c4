package election

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-zookeeper/zk"
)

// Transfer: leadership passes to the candidate that somebody has chosen. What the
// candidates do about a request is in handover.go.

// transferState is how far a request for a transfer has come.
type transferState string

const (
	transferAsked   transferState = "asked"   // by whoever created it
	transferReady   transferState = "ready"   // the target is next, and could lead at once
	transferPassing transferState = "passing" // the leader steps down for it
	transferDone    transferState = "done"    // the leader has left the target the first place
)

// transferRequest is a request for a transfer as a read has shown it. It does not
// change.
type transferRequest struct {
	target string // the name of a ballot
	nonce  string // 32 hex digits: which request it is
	state  transferState

	version int32
	czxid   int64
	mzxid   int64
}

// transferContent is what the node holds.
type transferContent struct {
	Target string        `json:"target"`
	Nonce  string        `json:"nonce"`
	State  transferState `json:"state"`
}

func (r *transferRequest) encode(state transferState) []byte {
	text, _ := json.Marshal(transferContent{r.target, r.nonce, state}) // strings only
	return text
}

// in is the request in its next state.
func (r *transferRequest) in(state transferState) *transferRequest {
	next := *r
	next.state = state
	next.version++
	return &next
}

// parseTransfer reads a request; nil if it is none that this version understands.
// Nobody acts on such a one, and nobody removes it.
func parseTransfer(n *node) *transferRequest {
	var content transferContent
	decoder := json.NewDecoder(bytes.NewReader(n.data))
	if decoder.Decode(&content) != nil {
		return nil
	}
	switch content.State {
	case transferAsked, transferReady, transferPassing, transferDone:
	default:
		return nil
	}
	nonce, err := hex.DecodeString(content.Nonce)
	_, isBallot := parseBallot(content.Target)
	if err != nil || len(nonce) != 16 || !isBallot || strings.Contains(content.Target, "/") {
		return nil
	}
	return &transferRequest{
		target: content.Target, nonce: content.Nonce, state: content.State,
		version: n.stat.Version, czxid: n.stat.Czxid, mzxid: n.stat.Mzxid,
	}
}

// standsBetween reports whether a ballot of that number is in front of the target.
func standsBetween(sequence int64, target string) bool {
	b, ok := parseBallot(target)
	return ok && sequence < b.sequence
}

func (e errands) transferPath() string { return e.path + "/" + transferName }

// markPath is the node that stands for one request, beside the one that all watch. A
// version tells nothing of which node it is the version of: each begins with 0, and a
// request that was taken back and another one that came in its place can have the same.
func (e errands) markPath(nonce string) string { return e.transferPath() + "-" + nonce }

// checkRequested is the condition that a request is there, in whatever state.
func (e errands) checkRequested(r *transferRequest) *zk.CheckVersionRequest {
	return &zk.CheckVersionRequest{Path: e.markPath(r.nonce), Version: -1}
}

// changeRequest are the operations that write a request's next state, or remove it
// if that is "", on the condition that it is the same request in the same state.
func (e errands) changeRequest(r *transferRequest, next transferState) []any {
	if next == "" {
		return []any{
			&zk.DeleteRequest{Path: e.transferPath(), Version: r.version},
			&zk.DeleteRequest{Path: e.markPath(r.nonce), Version: -1},
		}
	}
	return []any{e.checkRequested(r), &zk.SetDataRequest{Path: e.transferPath(), Data: r.encode(next), Version: r.version}}
}

// --- who asks

// Transfer passes leadership to the candidate whose ballot that is, one of Ballots.
// Whoever stands between it and the leader goes to the end of the line; once it is
// next and could lead at once, the leader steps down, in order (OnStepDown is told
// ErrTransferred), and goes to the end of the line itself. Any candidate of the
// election may ask, one that does not stand, the leader or the target, too. Transfer returns nil
// once the target has acknowledged: if it leads already, at once. (If somebody has deleted the ballot of a leader that shares the
// target's Session, it may return nil too early: until that leader hears of it, its acknowledgement stands.)
//
// It is the ballot that is meant, and no other of the same candidate. If it is gone, the
// error is ErrTransferTargetGone; while another transfer is asked for, it is
// ErrTransferUnderWay. If it comes to nothing before ctx ends, or in two session timeouts when
// ctx has no deadline, the request is taken back, and the error is
// ErrTransferBlocked: it says how far it came, and who has not moved. Nothing is lost then but places
// in line. Once the leader has begun to step down for it, which the error says, it
// can no longer be taken back and may still happen, as long as this Session lives: with it the
// request goes, and then the leader has stepped down for nothing. Of a request that others have removed, or that has gone
// with the Session, it is not known how far it came, once the target was next: the error says that it may still happen. After a deadline the error is
// also context.DeadlineExceeded. A request that nothing has come of for four session
// timeouts is removed by the leader, however late ctx ends. If ctx is cancelled Transfer returns at once, and the
// request is taken back in the background; until that is done it may still happen. Called from inside a callback, with its context, or the function
// given to Run it returns ErrCallbackRunning, since it could wait for that one.
func (c *Candidate) Transfer(ctx context.Context, to Ballot) error {
	if inCallbackOf(ctx, c) {
		return fmt.Errorf("%w: Transfer was called from it", ErrCallbackRunning)
	}
	name, inElection := strings.CutPrefix(to.Path, c.path+"/")
	target, isBallot := parseBallot(name)
	if !inElection || !isBallot || strings.Contains(name, "/") {
		return fmt.Errorf("%w: %q is no ballot in %s", ErrInvalidPath, to.Path, c.path)
	}
	if _, ok := priorityOf(name); !ok {
		return fmt.Errorf("%w: the candidate of %s is of an earlier version, or a member of the gem, and cannot say that it is ready", ErrTransferBlocked, name)
	}
	bounded, release, err := c.bound(ctx)
	if err != nil {
		return err
	}
	defer release()
	switch ended := c.fail(bounded, contextError(ctx), "transfer leadership in", c.path); {
	case errors.Is(ended, context.DeadlineExceeded):
		return errorf("%w: the time was over before anything was asked: %w", ErrTransferBlocked, ended)
	case ended != nil:
		return ended
	}
	a := &asker{
		errands: c.errands, base: c.Base, target: target,
		request: &transferRequest{target: name, nonce: newNonce(), state: transferAsked},
		wake:    make(chan struct{}, 1),
	}
	var cancel context.CancelFunc
	a.limit, a.byCaller = askUntil(ctx, c.session.Timeout())
	bounded, cancel = context.WithDeadline(bounded, a.limit.Add(c.session.Timeout()/8))
	defer cancel()
	_, err = callAsync(bounded, c.session, func() (struct{}, error) { return struct{}{}, a.run(bounded) })
	if verdict := a.verdict.Load(); verdict != nil {
		return *verdict
	}
	if errors.Is(bounded.Err(), context.DeadlineExceeded) {
		if !a.byCaller {
			err = errNoAnswer // it is no deadline of the caller's
		}
		err = c.because(bounded, err)
		what := "no server has answered in time, so it may still happen"
		switch code := ErrorCode(0); {
		case !a.sent.Load():
			what = "no server has answered in time, and nothing was asked"
		case a.withdrawn.Load():
			what = "it has been taken back; who has not moved was not answered in time"
		case errors.As(err, &code):
			what = "its removal was not confirmed in time, so it may still happen"
		}
		err = errorf("%w: %s: %w", ErrTransferBlocked, what, err)
	} else {
		err = c.fail(bounded, err, "transfer leadership in", c.path)
	}
	if bounded.Err() != nil && a.passing.Load() {
		err = fmt.Errorf("%w; the leader has begun to step down for it, so it may still happen", err)
	}
	return err
}

// errNoAnswer ends a Transfer without a deadline.
var errNoAnswer = errors.New("two session timeouts have passed")

// askUntil is until when a transfer is waited for: so long before the context's
// deadline that the request can be taken back.
func askUntil(ctx context.Context, timeout time.Duration) (limit time.Time, byCaller bool) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return time.Now().Add(2 * timeout), false
	}
	return deadline.Add(-min(timeout/8, time.Until(deadline)/4)), true
}

// asker is one Transfer under way.
type asker struct {
	errands
	base     *Base
	target   child
	request  *transferRequest // as it was last seen
	asked    bool             // it has been created, and may still be there
	inc      *incarnation     // by this session
	owner    int64            // the target's session, once that is known
	behind   int64            // zxid by which the target was not the first, or was not there yet
	limit    time.Time
	byCaller bool
	wake     chan struct{}
	removing bool        // a removal of this one's own may be why it is gone
	passing  atomic.Bool // the leader has begun to step down

	sent      atomic.Bool           // it has been asked for
	withdrawn atomic.Bool           // the request has been taken back
	verdict   atomic.Pointer[error] // what has come of it, as far as that is known
	elsewhere atomic.Bool           // something was read on another session than inc
}

// saw notes how far the request has come.
func (a *asker) saw(r *transferRequest) {
	a.request = r
	if r.state == transferPassing || r.state == transferDone {
		a.passing.Store(true)
	}
}

// run asks, waits for what comes of it, and tidies up.
func (a *asker) run(ctx context.Context) error {
	err := a.ask(ctx)
	if err == nil {
		err = a.follow(ctx)
	}
	if err == nil || errors.Is(err, ErrTransferUnderWay) || errors.Is(err, ErrTransferBlocked) || errors.Is(err, ErrTransferTargetGone) {
		a.verdict.Store(&err)
	}
	if a.asked && !a.tidy(ctx, err == nil) && isPermanent(err) && !errors.Is(err, ErrClosed) && !errors.Is(err, errOwnerClosed) {
		err = errorf("%w: %w; and its request may stand, so it may still happen", ErrTransferBlocked, a.base.because(ctx, err))
		if a.byCaller && !time.Now().Before(a.limit) {
			err = fmt.Errorf("%w: %w", err, context.DeadlineExceeded)
		}
		a.verdict.Store(&err)
	}
	return err
}

// ask creates the request, if the target is there. Whatever this session reads behind
// the answer to that is no older.
func (a *asker) ask(ctx context.Context) error {
	target := &zk.CheckVersionRequest{Path: a.path + "/" + a.target.name, Version: -1}
	transfer := &zk.CreateRequest{Path: a.transferPath(), Data: a.request.encode(transferAsked), Acl: a.nodeACL(), Flags: zk.FlagEphemeral}
	mark := &zk.CreateRequest{Path: a.markPath(a.request.nonce), Data: []byte{}, Acl: a.nodeACL(), Flags: zk.FlagEphemeral}
	for wait := a.session.newBackoff(); ; wait.pause(ctx) {
		inc, err := a.session.await(ctx, true)
		if err != nil {
			return err
		}
		a.inc = inc
		var results []zk.MultiResponse
		a.sent.Store(true)
		err = a.session.do(ctx, func(conn *zk.Conn) (err error) {
			results, err = conn.Multi(target, transfer, mark)
			if err == nil && conn.SessionID() != a.inc.id {
				return errUncertain
			}
			return err
		})
		switch {
		case err == nil:
			a.asked = true
			return nil
		case failedAt(results, 1, zk.ErrNodeExists):
		case failedAt(results, 0, zk.ErrNoNode):
			return a.targetGone()
		case isPermanent(err):
			var code ErrorCode
			a.asked = errors.As(err, &code) // what such a code says of the request nobody knows
			return err
		default:
			// It may be there all the same: whoever tidies up looks for it.
			a.asked = true
			inc, err := a.session.barrier(ctx)
			if err != nil {
				return err
			}
			a.inc = inc
		}
		found, err := a.readRequest(ctx)
		if err != nil {
			return err
		}
		a.asked = false
		if found == nil {
			continue
		}
		r := parseTransfer(found)
		switch {
		case r != nil && r.nonce == a.request.nonce:
			a.asked, a.request = true, r
			return nil
		case r == nil:
			return fmt.Errorf("%w: and what %s says of it is not understood", ErrTransferUnderWay, a.transferPath())
		default:
			return fmt.Errorf("%w: to %s, asked for by session %s, in state %q", ErrTransferUnderWay, r.target, sessionName(found.stat.EphemeralOwner), r.state)
		}
	}
}

// follow waits for what comes of the request.
func (a *asker) follow(ctx context.Context) error {
	defer a.beWoken(a.transferPath())()
	defer a.beWoken(a.ackPath())()
	poll := time.NewTimer(0)
	defer poll.Stop()
	over := time.NewTimer(time.Until(a.limit))
	defer over.Stop()
	for {
		view, err := a.look(ctx)
		switch {
		case ctx.Err() != nil:
			return contextError(ctx)
		case err != nil:
			return err
		}
		switch view.conclude(a) {
		case transferSucceeded:
			return nil
		case transferGone:
			return a.targetGone()
		case transferRemoved:
			return a.nothing(ctx, view, requestGone, false)
		case transferPending:
		}
		poll.Reset(jitter(a.session.Timeout() / 8))
		select {
		case <-ctx.Done():
			return contextError(ctx)
		case <-over.C:
			return a.giveUp(ctx, view)
		case <-a.wake:
		case <-poll.C:
		}
	}
}

// beWoken has changes of a node wake the asker, until end is called.
func (a *asker) beWoken(path string) (end func()) {
	sub := &subscription{lasting: true, quiet: path == a.transferPath(), notify: func(ackView) {
		select {
		case a.wake <- struct{}{}:
		default:
		}
	}}
	a.session.subscribe(path, sub)
	return sub.end
}

// transferView is what an asker sees.
type transferView struct {
	request *transferRequest // its own; nil when that is not there
	ballots []child
	ack     *node // while the target is the first: read then
}

// transferVerdict is what follows from it.
type transferVerdict int

const (
	transferPending   transferVerdict = iota // go on waiting
	transferSucceeded                        // the target leads, and has acknowledged
	transferGone                             // the target's ballot is gone
	transferRemoved                          // the request is, and nothing will come of it
)

// conclude: the target leads if it is the first and somebody of its session has
// acknowledged since, and since "done". When the request is in another state whoever led is gone, and what that one
// had acknowledged with it: an acknowledgement stands beside the ballot that it was
// made for, and that would be the first. Only of a leader whose ballot somebody has deleted it stands for a while. That is
// known by another session, or by being older than the target's ballot. By nothing else: the ballot that it was made for is gone.
func (v transferView) conclude(a *asker) transferVerdict {
	place, ok := standingOf(v.ballots, a.target.name)
	switch {
	case !ok:
		return transferGone
	case place.ahead > 0 && v.request == nil:
		return transferRemoved
	case place.ahead > 0, v.ack == nil, v.ack.stat.EphemeralOwner != a.owner, v.ack.stat.Czxid <= a.behind:
		return transferPending
	case v.request != nil && v.request.state == transferDone && v.ack.stat.Czxid < v.request.mzxid:
		return transferPending
	}
	return transferSucceeded
}

// look reads what an asker has to see, all of it on one session. On another one the
// server catches up first.
func (a *asker) look(ctx context.Context) (v transferView, err error) {
	for {
		if a.elsewhere.Swap(false) || a.session.currentView().inc != a.inc {
			// Its request went with its session. A server that lags would not show what
			// has become of it before.
			inc, err := a.session.barrier(ctx)
			if err != nil {
				return v, err
			}
			a.inc = inc
		}
		if v, err = a.lookOnce(ctx); err != nil || !a.elsewhere.Load() {
			return v, err
		}
	}
}

func (a *asker) lookOnce(ctx context.Context) (v transferView, err error) {
	var found *node
	var requestErr, listErr error
	var both sync.WaitGroup
	both.Go(func() { found, requestErr = a.readRequest(ctx) })
	v.ballots, listErr = a.list(ctx)
	both.Wait()
	if err := errors.Join(requestErr, listErr); err != nil {
		return v, err
	}
	if found != nil {
		if r := parseTransfer(found); r != nil && r.nonce == a.request.nonce {
			v.request = r
			a.saw(r)
		}
	}
	if v.request == nil {
		// What has become of it is to be seen in a list that is no older.
		if v.ballots, err = a.list(ctx); err != nil {
			return v, err
		}
	}
	if place, ok := standingOf(v.ballots, a.target.name); !ok || place.ahead > 0 {
		return v, nil
	}
	if err := a.read(ctx, func(conn *zk.Conn) (err error) {
		v.ack, err = readNode(conn, a.ackPath())
		return err
	}); err != nil || v.ack == nil {
		return v, err
	}
	// Nobody comes before the first: if it still stands, it was the first when the
	// acknowledgement was read. Another candidate of the same session could have
	// acknowledged after it.
	err = a.read(ctx, func(conn *zk.Conn) error {
		exists, stat, err := conn.Exists(a.path + "/" + a.target.name)
		if err == nil && exists {
			a.owner, a.behind = stat.EphemeralOwner, max(a.behind, stat.Czxid)
		} else if err == nil {
			v.ballots = v.ballots[1:]
		}
		return err
	})
	return v, err
}

// read is retry for what is put together of several reads. It notes what was answered on another
// session than a.inc.
func (a *asker) read(ctx context.Context, call func(*zk.Conn) error) error {
	return a.session.retry(ctx, func(conn *zk.Conn) error {
		err := call(conn)
		if conn.SessionID() != a.inc.id {
			a.elsewhere.Store(true)
		}
		return err
	})
}

func (a *asker) list(ctx context.Context) (ballots []child, err error) {
	err = a.read(ctx, func(conn *zk.Conn) error {
		children, stat, err := conn.Children(a.path)
		ballots = ballotsOf(children)
		if place, ok := standingOf(ballots, a.target.name); ok && place.ahead > 0 {
			a.behind = max(a.behind, stat.Pzxid)
		}
		return err
	})
	if errors.Is(err, zk.ErrNoNode) {
		err = nil // the election is gone, and all that was in it
	}
	return ballots, err
}

func (a *asker) readRequest(ctx context.Context) (found *node, err error) {
	return a.errands.readRequest(ctx, a.read)
}

// readRequest reads what is asked for, in one of the ways in which a call is repeated.
func (e errands) readRequest(ctx context.Context, retry func(context.Context, func(*zk.Conn) error) error) (found *node, err error) {
	err = retry(ctx, func(conn *zk.Conn) (err error) {
		found, err = readNode(conn, e.transferPath())
		return err
	})
	return found, err
}

func (a *asker) targetGone() error {
	if a.passing.Load() {
		return fmt.Errorf("%w: %s/%s, and the leader had begun to step down for it", ErrTransferTargetGone, a.path, a.target.name)
	}
	return fmt.Errorf("%w: %s/%s", ErrTransferTargetGone, a.path, a.target.name)
}

// A requestEnd is what has become of a request that was to be taken back.
type requestEnd int

const (
	requestTakenBack requestEnd = iota // nothing will come of it any more
	requestPassing                     // it cannot be: the leader has begun to step down for it
	requestGone                        // it was not there, in whatever state it went
)

// giveUp takes the request back, unless leadership is being passed, and looks once more. Who has not moved is asked for
// meanwhile: where answers are slow there is not much more time than one of them takes.
func (a *asker) giveUp(ctx context.Context, v transferView) error {
	var asked sync.WaitGroup
	var who string
	var gone bool
	state := a.request.state
	asked.Go(func() { who, gone = a.whoBlocks(ctx, v, state) })
	end, err := a.takeBack(ctx)
	a.withdrawn.Store(end == requestTakenBack && !a.asked)
	asked.Wait()
	if err != nil {
		return err
	}
	// What is known is the verdict if nothing more is answered in time.
	told := func(why, who string) {
		verdict := a.blocked(why, who, a.byCaller)
		a.verdict.Store(&verdict)
	}
	before, last := a.cameTo(v, end)
	if last != state || gone {
		who = ""
	}
	told(before, who)
	name := nameAt(v.ballots, blocking(v.ballots, a.target.name, last))
	if v, err = a.look(ctx); err != nil {
		return err
	}
	switch v.conclude(a) {
	case transferSucceeded:
		return nil
	case transferGone:
		if end == requestTakenBack { // which is why: the target may have waited for that to change its ballot
			return errorf("%w: %w", a.blocked("", "", a.byCaller), a.targetGone())
		}
		return a.targetGone()
	case transferPending, transferRemoved:
	}
	if why, state := a.cameTo(v, end); why != before || nameAt(v.ballots, blocking(v.ballots, a.target.name, state)) != name {
		told(why, "")
	}
	return a.nothing(ctx, v, end, a.byCaller)
}

// nothing is the error of a transfer that has not happened. deadline is whether the caller's has come.
func (a *asker) nothing(ctx context.Context, v transferView, end requestEnd, deadline bool) error {
	why, state := a.cameTo(v, end)
	who, _ := a.whoBlocks(ctx, v, state)
	return a.blocked(why, who, deadline)
}

// cameTo says of a transfer that has not happened whether it still may, and in which state the request was at the end as far as
// that matters to who has not moved.
//
// The state in which a request was last seen need not be the one in which it went: once the target is next the leader may
// have begun to step down for it. While another ballot stands between it has not, since nobody comes between.
func (a *asker) cameTo(v transferView, end requestEnd) (why string, state transferState) {
	state = a.request.state
	place, ok := standingOf(v.ballots, a.target.name)
	switch {
	case ok && place.ahead == 0:
		return "the target is the first, so it may still happen", state
	case end == requestTakenBack:
		return "", state
	case end == requestPassing:
		return "the leader has begun to step down for it, so it may still happen", state
	case state == transferPassing:
		return "it was removed after the leader had begun to step down for it, so it may still happen", state
	case ok && place.ahead > 1:
		return "it was removed", state
	}
	return "and may have come farther before it was removed, so it may still happen", transferPassing
}

// takeBack removes the request if it is asked or ready.
func (a *asker) takeBack(ctx context.Context) (requestEnd, error) {
	for wait := a.session.newBackoff(); ; wait.pause(ctx) {
		found, err := a.readRequest(ctx)
		if err != nil {
			return requestGone, err
		}
		var r *transferRequest
		if found != nil {
			r = parseTransfer(found)
		}
		switch {
		case r == nil || r.nonce != a.request.nonce:
			// With another session it may have gone before the removal arrived.
			if a.removing && !a.elsewhere.Load() {
				return requestTakenBack, nil
			}
			return requestGone, nil
		case r.state != transferAsked && r.state != transferReady:
			a.saw(r)
			return requestPassing, nil
		}
		a.saw(r)
		err = a.removeRequest(ctx, r)
		switch {
		case err == nil:
			a.asked = false // there is nothing to tidy up
			return requestTakenBack, nil
		case ctx.Err() != nil:
			return requestGone, contextError(ctx)
		case isPermanent(err):
			return requestGone, err
		}
	}
}

// removeRequest removes the request in the state in which it was seen. Of one that
// somebody has deleted one node of it removes the other.
func (a *asker) removeRequest(ctx context.Context, r *transferRequest) error {
	var results []zk.MultiResponse
	err := a.session.retry(ctx, func(conn *zk.Conn) (err error) {
		results, err = conn.Multi(a.changeRequest(r, "")...)
		switch {
		case err != nil && !isDefinite(err):
			a.removing = true
		case failedAt(results, 0, zk.ErrBadVersion):
			a.removing = false
		}
		return err
	})
	switch {
	case failedAt(results, 0, zk.ErrNoNode):
		a.removeMark(ctx)
	case failedAt(results, 1, zk.ErrNoNode):
		return a.removeUnmarked(ctx, r)
	}
	return err
}

// removeMark removes the node with the nonce, when the other is gone.
func (a *asker) removeMark(ctx context.Context) {
	_ = a.session.retry(ctx, func(conn *zk.Conn) error { return conn.Delete(a.markPath(a.request.nonce), -1) }) // it ends with the session
}

// removeUnmarked removes a request whose node with the nonce somebody has deleted. What
// its version says of which request it is does not suffice, so it is read first.
func (e errands) removeUnmarked(ctx context.Context, r *transferRequest) error {
	found, err := e.readRequest(ctx, e.session.retry)
	if err != nil {
		return err
	}
	if found == nil {
		return nil
	}
	if now := parseTransfer(found); now == nil || now.nonce != r.nonce {
		return nil // another one is there
	}
	return e.session.retry(ctx, func(conn *zk.Conn) error { return conn.Delete(e.transferPath(), r.version) })
}

// blocked is the error of a transfer that came to nothing. deadline is whether the caller's has come.
func (a *asker) blocked(why, who string, deadline bool) error {
	text := fmt.Sprintf("it came to the state %q", a.request.state)
	if why != "" {
		text += ", " + why
	}
	if who != "" {
		text += "; " + who
	}
	if deadline {
		return fmt.Errorf("%w: %s: %w", ErrTransferBlocked, text, context.DeadlineExceeded)
	}
	return fmt.Errorf("%w: %s", ErrTransferBlocked, text)
}

// whoBlocks names the lowest ballot that has not moved for a request in a state; "" if there is none. gone reports whether
// it is known not to stand any more.
func (a *asker) whoBlocks(ctx context.Context, v transferView, state transferState) (who string, gone bool) {
	i := blocking(v.ballots, a.target.name, state)
	if i < 0 {
		return "", false
	}
	b := v.ballots[i]
	ballot, err := a.base.readBallot(ctx, b)
	gone = ballot == nil && err == nil
	if err != nil {
		ballot = nil
	}
	what := "has not moved"
	switch {
	case b.name == a.target.name && i == 0:
		what = "has not acknowledged"
	case b.name == a.target.name:
		what = "has not said that it is ready"
	case i == 0 && state == transferPassing:
		what = "has not left the first place yet"
	case i == 0 && a.takesOver(ctx, ballot):
		what = "takes over, and has not acknowledged"
	case i == 0:
		what = "leads, and has not stepped down"
	}
	if ballot == nil {
		return b.name + " " + what, gone
	}
	return fmt.Sprintf("%s %s (session %s, data %.64q)", b.name, what, sessionName(ballot.SessionID), ballot.Data), false
}

// takesOver reports whether the first in line is known to have acknowledged nothing.
func (a *asker) takesOver(ctx context.Context, first *Ballot) bool {
	var ack *node
	err := a.read(ctx, func(conn *zk.Conn) (err error) {
		ack, err = readNode(conn, a.ackPath())
		return err
	})
	return err == nil && first != nil && (ack == nil || ack.stat.EphemeralOwner != first.SessionID)
}

// blocking returns which ballot a transfer waits for: the lowest that has not moved, or
// else the target, until that is ready, or the leader.
func blocking(ballots []child, target string, state transferState) int {
	place, ok := standingOf(ballots, target)
	switch {
	case len(ballots) == 0:
		return -1
	case !ok, place.ahead == 0:
		return 0
	case state == transferAsked:
		return 1 // the target itself, if it is next
	}
	return 0
}

// nameAt is the name of one of the ballots, "" for none.
func nameAt(ballots []child, i int) string {
	if i < 0 {
		return ""
	}
	return ballots[i].name
}

// tidy removes the request once it is settled, and reports whether it is known to be gone. If that cannot be done at once it
// goes on in the background, as long as the session that the request belongs to lives.
func (a *asker) tidy(ctx context.Context, succeeded bool) (gone bool) {
	if ctx.Err() == nil {
		if succeeded && a.removeRequest(ctx, a.request) == nil {
			return true
		}
		if gone, refused := a.tidyOnce(ctx); gone || refused {
			return gone
		}
	}
	inc := a.inc
	a.session.goHelper(func() {
		defer a.beWoken(a.transferPath())()
		for {
			if gone, refused := a.tidyOnce(inc.ctx); gone || refused {
				return
			}
			pause := time.NewTimer(jitter(a.session.Timeout()))
			select {
			case <-inc.ctx.Done():
				pause.Stop()
				return
			case <-a.wake: // it is in another state
				pause.Stop()
			case <-pause.C:
			}
		}
	})
	return false
}

// tidyOnce reports whether the request is gone, or may not be removed by this session. While leadership is being passed on
// it stays, until the leader has written "done", or removes it, or is gone.
func (a *asker) tidyOnce(ctx context.Context) (gone, refused bool) {
	view, err := a.look(ctx)
	switch {
	case isPermanent(err): // it may be removed all the same, as it was seen last
		return a.removeRequest(ctx, a.request) == nil, true
	case err != nil:
		return false, false
	case view.request == nil:
		a.removeMark(ctx)
		return true, false
	case view.request.state == transferPassing && view.conclude(a) != transferSucceeded:
		return false, false
	}
	err = a.removeRequest(ctx, view.request)
	return err == nil, isPermanent(err)
}
