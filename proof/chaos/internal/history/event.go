// Package history is what the processes of a chaos run write down, and the
// checker that reads it.
package history

import (
	"encoding/json"
	"io"
	"sync"

	"github.com/zkelection/election/internal/monotonic"
)

// Kind is what an Event tells.
type Kind string

// Events of candidates. A sample is one call of IsLeader: the true ones are
// all written, of the false ones the first after a true one.
const (
	Start    Kind = "start"
	Voted    Kind = "voted"    // a ballot is live
	Unvoted  Kind = "unvoted"  // none is any more
	True     Kind = "true"     // IsLeader was true, with this token and lease
	False    Kind = "false"    // IsLeader was false
	Win      Kind = "win"      // OnWin was called
	Acked    Kind = "acked"    // the acknowledgement is written
	StepDown Kind = "stepdown" // OnStepDown was called
	Release  Kind = "release"  // Resign or Close is about to be called
	Killed   Kind = "killed"   // nothing follows: the nemesis killed it
	Dead     Kind = "dead"     // it was killed after this, and has a guard: it claims nothing any more
	Server   Kind = "server"   // the ZooKeeper node that it is connected to
	PassesOn Kind = "passeson" // OnStepDown was called for a transfer
	Asked    Kind = "asked"    // Transfer is about to be called, to Text's ballot with this token
	Answered Kind = "answered" // it has returned: Text is Done, Nothing, MayHappen or NotKnown
)

// Events of observers.
const (
	NewLeader   Kind = "newleader"
	LeaderDeath Kind = "leaderdeath"
)

// Events of the harness.
const (
	Commit    Kind = "commit" // a write was answered: the ensemble has a quorum
	Fault     Kind = "fault"  // begins
	FaultOver Kind = "over"
	Resumed   Kind = "resumed" // a ZooKeeper node that was stopped or cut off goes on
)

// Event is one line of a history.
type Event struct {
	// At is when, by Now. Of a sample it is before the call, and After is after
	// it: the process may have been stopped in between.
	At    int64  `json:"t"`
	After int64  `json:"a,omitempty"`
	Who   string `json:"w"`
	Kind  Kind   `json:"k"`
	Token int64  `json:"n,omitempty"`
	// Until is the end of the lease that a true sample was under; 0 when the
	// candidate claims none.
	Until int64 `json:"u,omitempty"`
	// Text is a cause, an address, a leader's data, the name of a fault.
	Text string `json:"x,omitempty"`
	// Target is what a fault is done to.
	Target string `json:"y,omitempty"`
}

// Writer writes events as lines of JSON, each in one write, so that what a
// process has written survives its kill.
type Writer struct {
	who string

	mu sync.Mutex
	to io.Writer
}

// NewWriter returns a Writer for the process called who.
func NewWriter(to io.Writer, who string) *Writer { return &Writer{who: who, to: to} }

// Write adds who, and the time unless it is given.
func (w *Writer) Write(e Event) {
	e.Who = w.who
	w.mu.Lock()
	defer w.mu.Unlock()
	if e.At == 0 {
		e.At = monotonic.Now()
	}
	line, err := json.Marshal(e)
	if err != nil {
		panic(err) // there is nothing in an Event that JSON cannot hold
	}
	_, _ = w.to.Write(append(line, '\n')) // nobody is left to tell
}
