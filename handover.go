package election

import (
	"context"
	"errors"
	"time"

	"github.com/go-zookeeper/zk"
)

// Handing over: what a candidate does about a request for a transfer. Whoever stands
// between the leader and the target goes to the end of the line; the target says that
// it is ready; the leader says that it passes leadership on, steps down, and goes to the
// end of the line in the transaction that says that it is done.

// transferTimeouts: a leader removes a request that nothing has come of for so many
// session timeouts.
const transferTimeouts = 4

// transferDoublings: the longest pause is half a session timeout.
const transferDoublings = 4

// transfers is a candidate's interest in requests for transfers: from its first
// periodic recheck on, or when a list shows one, until it stands in line no more.
type transfers struct {
	sub   *subscription    // nil: not yet
	seen  *transferRequest // what there is, as far as is known
	other bool             // something is there that this version cannot read: nobody acts on it
	since time.Time        // it has been as it is

	notBefore time.Time // nothing is written before, since that failed
	failures  int       // so often in a row

	// refused is one that leadership could not be passed on for: its target is gone, or it is
	// another one by now, which will be heard. That is not tried again, so it is removed in time.
	refused *transferRequest
}

// requestSeen is what the subscription has told.
type requestSeen struct {
	sub     *subscription
	view    ackView
	refused bool // what is there may not be read
}

// underWay reports whether somebody has asked for a transfer.
func (t *transfers) underWay() bool { return t.seen != nil || t.other }

func (t *transfers) end() {
	if t.sub != nil {
		t.sub.end()
	}
	*t = transfers{}
}

func (t *transfers) readAgain() {
	if t.sub != nil {
		t.sub.readAgain()
	}
}

// followTransfers begins to follow requests for transfers; false if that has begun.
// It is one read for each session, election and ZooKeeper session, when a periodic
// recheck is due, and one for each change of a request.
func (c *candidacy) followTransfers() bool {
	if c.transfers.sub != nil || c.phase != waiting && c.phase != leading {
		return false
	}
	sub := &subscription{lasting: true, quiet: true}
	inbox := c.inbox
	sub.notify = func(view ackView) { inbox.push(requestSeen{sub: sub, view: view}) }
	sub.refused = func(error) { inbox.push(requestSeen{sub: sub, refused: true}) }
	c.transfers.sub = sub
	c.session.subscribe(c.errands.transferPath(), sub)
	return true
}

func (c *candidacy) requestSeen(m requestSeen) {
	t := &c.transfers
	if m.sub != t.sub {
		return
	}
	before := t.seen
	t.seen, t.other = nil, m.refused
	if m.view.leader != nil {
		t.seen = parseTransfer(m.view.leader)
		t.other = t.seen == nil
	}
	if t.seen != nil && (before == nil || before.czxid != t.seen.czxid || before.state != t.seen.state) {
		t.since, t.failures = c.now, 0
		c.logger.Debug("election: a transfer is asked for", "target", t.seen.target, "state", t.seen.state)
	}
}

// lineSeen takes what a list shows besides the place.
func (c *candidacy) lineSeen(place standing) {
	if c.phase != waiting {
		return
	}
	c.ballot.rank.seen(place.givesWay, c.now, c.session.Timeout())
	if place.transfer != c.transfers.underWay() && !c.followTransfers() {
		c.transfers.readAgain() // the watch tells of it, unless it was lost
	}
}

// isTarget reports whether leadership is to be passed to this candidate, which
// keeps its lease warm then.
func (c *candidacy) isTarget() bool {
	t := c.transfers.seen
	return t != nil && t.target == c.own().name && t.state != transferDone
}

// transferDuties is what the request asks of this candidate.
func (c *candidacy) transferDuties() (sayReady, makeWay, pass, remove bool) {
	t, own := c.transfers.seen, c.own()
	if t == nil || own == nil || c.now.Before(c.transfers.notBefore) {
		return false, false, false, false
	}
	switch c.phase {
	case waiting:
		sayReady = t.state == transferAsked && t.target == own.name && c.ballot.line.place.ahead == 1
		makeWay = t.state == transferAsked && standsBetween(own.sequence, t.target)
	case leading:
		pass = t.state == transferReady && t != c.transfers.refused && standsBetween(own.sequence, t.target)
		remove = !c.now.Before(c.removeDue())
	case idle, casting, claiming, moving, winning, acking, leaving, withdrawing, ended:
	}
	return sayReady, makeWay, pass, remove
}

// removeDue is when a leader removes a request that nothing has come of.
func (c *candidacy) removeDue() time.Time {
	if c.phase != leading || c.transfers.seen == nil {
		return time.Time{}
	}
	if c.transfers.seen.state == transferPassing {
		// In this phase nobody is passing: whoever wrote it was this leader, and could
		// not, or is gone. Or it is "done" by now, which is about to be heard.
		return c.transfers.since.Add(c.session.Timeout() / 4)
	}
	return c.transfers.since.Add(transferTimeouts * c.session.Timeout())
}

// beginRequest writes the request's next state; "" removes it.
func (c *candidacy) beginRequest(next transferState) {
	c.begin(requestOrder{ballot: c.own(), request: c.transfers.seen, next: next})
}

func (c *candidacy) requestDone(r requestDone) {
	c.errandDone()
	t := &c.transfers
	current := t.seen == r.request // nothing else has been heard meanwhile
	switch {
	case r.ballot != c.own() || t.sub == nil:
	case r.written == nil && r.next != "":
		if r.next == transferPassing && r.err != nil && isDefinite(r.err) {
			t.refused = r.request
		}
		c.transferFailed("write the request for a transfer", r.err)
	case r.next == "" && r.err != nil:
		c.transferFailed("remove the request for a transfer", r.err)
	case r.next == "":
		if current {
			t.seen = nil
		}
	case t.seen == nil || t.seen.czxid != r.request.czxid:
		// It was written, and is gone by now. Who steps down for it steps down for nothing. Should
		// this be an old view, then it is found in that state a moment later, and removed.
		t.readAgain()
	default:
		if current {
			t.seen, t.since = r.written, c.now
		}
		if r.next == transferPassing && c.phase == leading {
			c.logger.Info("election: passing leadership on", "ballot", r.ballot.name, "to", r.request.target)
			c.ballot.handover = r.written
			c.leave(ErrTransferred)
		}
	}
}

// transferFailed pauses what is done about a request, and has it read again before
// anything else. Other errands are not held up by that. Each failure in a row doubles the
// pause: while nobody has acknowledged, each move is refused, and that may last.
func (c *candidacy) transferFailed(what string, err error) {
	pause := jitter(c.session.Timeout() / 32 << min(c.transfers.failures, transferDoublings))
	c.transfers.failures++
	if isPermanent(err) {
		pause = c.session.recheckInterval()
		c.failed(err)
		if c.last.first(errorf("%s: %w", what, err)) {
			c.logger.Warn("election: cannot do what a transfer or a priority asks for", "what", what, "error", err)
		}
	}
	c.transfers.notBefore = c.now.Add(pause)
	c.transfers.readAgain()
}

// requestOrder asks for another state of a request, on the condition that both the
// ballot and that very request are there, or for its removal.
type requestOrder struct {
	ballot  *ballot
	request *transferRequest
	next    transferState
}

func (o requestOrder) run(ctx context.Context, e errands) any { return e.writeRequest(ctx, o) }

// requestDone is what that came to.
type requestDone struct {
	requestOrder
	written *transferRequest // nil: it is not there any more in that state, or the request was removed
	err     error
}

// writeRequest writes the next state of a request. When the reply is lost it finds
// out behind a barrier.
func (e errands) writeRequest(ctx context.Context, o requestOrder) (r requestDone) {
	r.requestOrder = o
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(o.ballot.inc.ctx, func() { cancel(ErrSessionLost) })()
	ops := append([]any{&zk.CheckVersionRequest{Path: o.ballot.path, Version: -1}}, e.changeRequest(o.request, o.next)...)
	if o.next == transferPassing { // nobody steps down for one that is gone
		ops = append(ops, &zk.CheckVersionRequest{Path: e.path + "/" + o.request.target, Version: -1})
	}
	results, err := e.guarded(ctx, o.ballot, ops...)
	r.err = err
	switch {
	case o.next == "" && failedAt(results, 2, zk.ErrNoNode):
		r.err = e.removeUnmarked(ctx, o.request)
		return r
	case r.err == nil:
		if o.next != "" {
			r.written = o.request.in(o.next)
		}
		return r
	case isDefinite(r.err) || isPermanent(r.err), ctx.Err() != nil:
		if o.next == "" && errors.Is(r.err, zk.ErrNoNode) {
			r.err = nil // or the ballot is gone, of which its watch tells
		}
		return r
	}
	if _, r.err = e.session.barrier(ctx); r.err != nil {
		return r
	}
	var found *node
	r.err = e.session.retry(ctx, func(conn *zk.Conn) (err error) {
		found, err = readNode(conn, e.transferPath())
		return err
	})
	if r.err == nil && found != nil {
		switch now := parseTransfer(found); {
		case now == nil || now.nonce != o.request.nonce:
		case now.state == o.next:
			r.written = now
		case o.next == "":
			r.err = errUncertain // it was not removed: whoever takes that for done forgets it
		}
	}
	return r
}
