package testutil

import (
	"slices"
	"sync/atomic"
	"time"
)

// A Request is what a Control function is told of a request that has arrived
// and has not been applied.
type Request struct {
	Op Op
	// Path is the node it is about; "" when there is none, as in a ping.
	Path string
	// SessionID is the client's session: of OpConnect the one that it wants to
	// resume, 0 for a new one.
	SessionID int64
	// Xid is the client's own number for the request.
	Xid int32
	// Member is the index of the member that it came to; 0 without an ensemble.
	Member int
	// Data is what a create or setData carries. It must not be changed.
	Data []byte
	// Version is the expected version of a delete, setData, setACL or check.
	Version int32
	// Ops are the operations within a multi or a multiRead.
	Ops []Request
}

// An Action is what becomes of a request. The zero Action is Pass.
type Action struct {
	kind  actionKind
	err   error
	delay time.Duration
	hold  <-chan struct{}
}

type actionKind uint8

const (
	actPass actionKind = iota
	actLoseRequest
	actLoseReply
	actFail
	actWait
	actWaitReply
	actCutAfter
	actExpireBefore
	actExpireAfter
)

// The actions without parameters.
var (
	// Pass applies the request and answers it.
	Pass = Action{}
	// LoseRequest cuts the connection; the request is never applied.
	LoseRequest = Action{kind: actLoseRequest}
	// LoseReply applies the request and cuts the connection in place of the
	// answer, with everything else that was still to be sent on it.
	LoseReply = Action{kind: actLoseReply}
	// CutAfter applies and answers the request, then cuts the connection.
	CutAfter = Action{kind: actCutAfter}
	// ExpireBefore expires the client's session, as the ensemble would, just
	// before the request arrives: it is not applied, and the connection closes.
	// Of a new session's OpConnect it is the same as LoseRequest.
	ExpireBefore = Action{kind: actExpireBefore}
	// ExpireAfter applies and answers the request, then expires the session,
	// which closes the connection.
	ExpireAfter = Action{kind: actExpireAfter}
)

// Fail answers the request with an error and does not apply it. It takes
// ZooKeeper's errors (zk.ErrNoNode and the like, also wrapped) and an ErrorCode;
// any other is a system error (-1). A failed write consumes a zxid, as a refused
// one does. A failed OpConnect tells the client that its session has expired.
func Fail(err error) Action { return Action{kind: actFail, err: err} }

// Delay lets the request arrive later, and with it all that the same connection
// sends behind it. When the connection ends before, it never arrives.
func Delay(d time.Duration) Action { return Action{kind: actWait, delay: d} }

// Hold is a Delay that ends when ch is closed or gives a value.
func Hold(ch <-chan struct{}) Action { return Action{kind: actWait, hold: ch} }

// DelayReply applies the request at once and lets its answer leave later, with
// all that the server has to send on the same connection behind it.
func DelayReply(d time.Duration) Action { return Action{kind: actWaitReply, delay: d} }

// HoldReply is a DelayReply that ends when ch is closed or gives a value.
func HoldReply(ch <-chan struct{}) Action { return Action{kind: actWaitReply, hold: ch} }

// wait blocks until a delay or hold is over, or done closes; then it is false.
func (a Action) wait(done <-chan struct{}) bool {
	if a.hold != nil {
		select {
		case <-a.hold:
			return true
		case <-done:
			return false
		}
	}
	timer := time.NewTimer(a.delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-done:
		return false
	}
}

// Once is a control function that gives the action to the first request that it
// sees, and lets the others pass.
func Once(a Action) func(*Request) Action { return Nth(1, a) }

// Nth is a control function that gives the action to the n-th request that it
// sees, counted from 1, and lets the others pass.
func Nth(n int64, a Action) func(*Request) Action {
	var seen atomic.Int64
	return func(*Request) Action {
		if seen.Add(1) == n {
			return a
		}
		return Pass
	}
}

type control struct {
	op Op
	fn func(*Request) Action
}

// Control lets fn decide what becomes of every request of the given operation,
// or of all with AnyOp, from now until cancel is called. With several control
// functions each sees the request, in the order of registration, and the first
// Action that is not Pass counts. After cancel has returned, fn is not called
// for requests that arrive later; one that is running may still be.
//
// fn runs on a goroutine of the connection, which stands still meanwhile. It may
// call every method of the Server but Close: expire a session, stop the server,
// cancel itself. It must not block for something that needs the same connection:
// return Hold for that. Calls for different connections may overlap. (So what ZooKeeper
// answers although a request before it waits for the ensemble, auth and SASL, has to wait
// with it where a function is to see it.)
func (s *Server) Control(op Op, fn func(*Request) Action) (cancel func()) {
	k := &control{op, fn}
	s.mu.Lock()
	defer s.unlock()
	s.controls = append(slices.Clone(s.controls), k)
	return func() {
		s.mu.Lock()
		defer s.unlock()
		s.controls = slices.DeleteFunc(slices.Clone(s.controls), func(other *control) bool { return other == k })
	}
}

// Counts tells how many requests of each operation have arrived, those that a
// control function then lost or failed included. Operations that have not
// occurred are missing. OpNotification counts the watch events sent.
func (s *Server) Counts() map[Op]int64 {
	s.mu.Lock()
	defer s.unlock()
	counts := make(map[Op]int64, len(s.counts))
	for op, n := range s.counts {
		counts[op] = n
	}
	return counts
}

// ResetCounts begins counting at zero again.
func (s *Server) ResetCounts() {
	s.mu.Lock()
	defer s.unlock()
	clear(s.counts)
}

// controlsFor finds the control functions for an operation. The caller holds
// the lock.
func (s *Server) controlsFor(op Op) []*control {
	var matching []*control
	for _, k := range s.controls {
		if k.op == op || k.op == AnyOp {
			matching = append(matching, k)
		}
	}
	return matching
}

// shownPath is the path as a control function sees it, a null one as empty.
func (w write) shownPath() string {
	if w.path == nullText {
		return ""
	}
	return w.path
}

// describe decodes as much of a request as a control function wants to know. A
// malformed one is described as far as it goes.
func describe(release Release, op Op, xid int32, body []byte) *Request {
	r := &Request{Op: op, Xid: xid}
	d := &decoder{b: body}
	switch op {
	case OpCreate, OpCreate2, OpCreateContainer, OpCreateTTL, OpDelete, OpSetData, OpSetACL, OpCheck,
		OpExists, OpGetData, OpGetACL, OpGetChildren, OpGetChildren2, OpSync, OpGetAllChildrenNumber,
		OpGetEphemerals, OpAddWatch, OpCheckWatches, OpRemoveWatches:
		w := decodeWrite(op, d)
		r.Path, r.Data, r.Version = w.shownPath(), w.data, w.version
	case OpMulti, OpMultiRead:
		ops, _, _ := decodeMulti(release, d)
		for _, w := range ops {
			r.Ops = append(r.Ops, Request{Op: w.op, Xid: xid, Path: w.shownPath(), Data: w.data, Version: w.version})
		}
	default: // it is about no node
	}
	return r
}
