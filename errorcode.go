package election

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
)

// ErrorCode is an error that ZooKeeper answered with and that go-zookeeper has
// no variable for, by its number: -125 is an exceeded quota, for one. Compare it
// with errors.Is(err, election.ErrorCode(-125)). The errors that go-zookeeper
// does name stay what they are (zk.ErrNoAuth and the like).
type ErrorCode int32

// The numbers and their meanings are those of ZooKeeper's
// KeeperException.Code, as of 3.8.0.
var errorCodes = map[ErrorCode]string{
	-1:   "system error",
	-2:   "runtime inconsistency",
	-3:   "data inconsistency",
	-4:   "connection loss",
	-5:   "marshalling error",
	-6:   "unimplemented",
	-7:   "operation timeout",
	-12:  "unknown session",
	-13:  "no quorum of the new configuration",
	-14:  "reconfiguration in progress",
	-113: "invalid callback",
	-119: "not a read-only request",
	-120: "ephemeral node on a local session",
	-121: "no such watcher",
	-122: "request timeout",
	-124: "session closed: SASL authentication is required",
	-125: "quota exceeded",
	-127: "request throttled",
}

// Error gives the meaning and the number: "quota exceeded (-125)".
func (c ErrorCode) Error() string {
	if meaning, ok := errorCodes[c]; ok {
		return fmt.Sprintf("%s (%d)", meaning, int32(c))
	}
	return fmt.Sprintf("ZooKeeper error %d", int32(c))
}

// passes reports whether the same request may well succeed a moment later: the
// connection, the session, the server or its load stood in its way.
func (c ErrorCode) passes() bool {
	switch c {
	case -4, -7, -12, -119, -122, -127:
		return true
	}
	return false
}

// named gives an error of the client a type where it has none: as of v1.0.4 a
// code that the client does not know is nothing but its number in a text.
func named(err error) error {
	if err == nil {
		return nil
	}
	number, ok := strings.CutPrefix(err.Error(), "unknown error: ")
	if !ok {
		return err
	}
	code, parseErr := strconv.ParseInt(number, 10, 32)
	if parseErr != nil {
		return err
	}
	return ErrorCode(code)
}

// lastError is what last stood in the way of somebody's requests: a candidate's,
// a look-up's. A wait that its context ends gives it as the reason. It may be
// used from any goroutine.
type lastError struct {
	logger *slog.Logger // nil: who asked is told, so it is not logged

	mu   sync.Mutex
	err  error // nil: nothing
	said map[string]bool
}

// note records how a request ended. Codes that the client does not name are
// logged, once each: they are rare, and an operator should know of them also
// where repeating the request helps.
func (l *lastError) note(err error) {
	if l == nil || err == nil {
		return
	}
	var code ErrorCode
	coded := errors.As(err, &code)
	if !coded && isDefinite(err) && !isPermanent(err) {
		return // an answer like any other: a node is not there
	}
	l.mu.Lock()
	l.err = err
	l.mu.Unlock()
	if coded && l.logger != nil && l.first(code) {
		l.logger.Warn("election: ZooKeeper answered with an error code of its own", "error", code)
	}
}

// first reports whether an error is the first of its kind, and so worth a line in
// the log: repeating the request would repeat it.
func (l *lastError) first(err error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	kind := err.Error()
	if l.said[kind] {
		return false
	}
	if l.said == nil {
		l.said = make(map[string]bool)
	}
	l.said[kind] = true
	return true
}

// over: what it was in the way of has been done.
func (l *lastError) over() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = nil
}

// explain adds it to the error of a wait that its context ended.
func (l *lastError) explain(err error) error {
	if !endsWait(err) {
		return err
	}
	return l.after(err)
}

// endsWait reports whether err is of a wait that was given up: by the caller, or by this
// package after a time of its own.
func endsWait(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || errors.Is(err, errNoAnswer)
}

// after adds it to the error of a wait that was given up.
func (l *lastError) after(err error) error {
	if l == nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil || errors.Is(err, l.err) {
		return err
	}
	return errorf("%w (last answer: %w)", err, l.err)
}

// because adds to the error of a wait that its context ended what stood in the
// way: no server was reached, the session was not made ready, a request failed.
func (s *Session) because(err error, last *lastError) error {
	return last.explain(s.last.explain(s.unreached(err)))
}
