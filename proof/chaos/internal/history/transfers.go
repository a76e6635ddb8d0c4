package history

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// What an asker was told of a transfer.
const (
	Done      = "done"
	Nothing   = "came to nothing"  // taken back, or the target is gone: nothing is lost but places
	MayHappen = "may still happen" // the leader had begun to step down for it
	NotKnown  = "not known"        // no server has answered
)

// Transfer is a request for leadership to move to one ballot.
type Transfer struct {
	Span
	Who     string // asks
	Target  string // whose ballot it is
	Token   int64  // of that ballot's terms
	Outcome string // what Who was told; "" when it was killed before
	Calm    bool   // no fault was under way meanwhile
}

// Transfers are those of a history, in the order in which they were asked for.
func Transfers(events []Event) []Transfer {
	events = slices.Clone(events)
	slices.SortStableFunc(events, func(a, b Event) int { return cmp.Compare(a.At, b.At) })
	var all []Transfer
	open := make(map[string]int) // by whoever asks: one at a time
	faults := 0
	for _, e := range events {
		switch e.Kind {
		case Asked:
			open[e.Who] = len(all)
			all = append(all, Transfer{Span: Span{e.At, 1 << 62}, Who: e.Who, Target: e.Text, Token: e.Token, Calm: faults == 0})
		case Answered, Killed:
			if i, ok := open[e.Who]; ok {
				all[i].To = e.At
				if delete(open, e.Who); e.Kind == Answered {
					all[i].Outcome = e.Text
				}
			}
		case Fault:
			faults++
			for _, i := range open {
				all[i].Calm = false
			}
		case FaultOver:
			faults--
		default:
		}
	}
	return all
}

// lingers is how long a request may be there that nobody knows the end of: its asker's
// session, and the leader's callbacks, are over by then.
const lingers = int64(20 * time.Second)

// BrokenPromises finds what askers were told that was not so: of success, though the
// target has not won with that ballot; of nothing, though the leader has passed leadership on for it.
func BrokenPromises(events []Event) []string {
	events = slices.Clone(events)
	slices.SortStableFunc(events, func(a, b Event) int { return cmp.Compare(a.At, b.At) })
	var found []string
	var before *Transfer // the last one that nobody knows the end of
	for _, t := range Transfers(events) {
		switch t.Outcome {
		case Done:
			if !slices.ContainsFunc(events, func(e Event) bool {
				return e.Kind == Win && e.Who == t.Target && e.Token == t.Token && e.At <= t.To
			}) {
				found = append(found, fmt.Sprintf("%s was told that %s leads, which has not won with token %d", t.Who, t.Target, t.Token))
			}
		case Nothing:
			if before != nil && t.From-before.To < lingers { // what is seen may be of that one
				if before.Token == t.Token {
					continue
				}
				t.Calm = false
			}
			if passed := passedOn(events, t); passed != "" {
				found = append(found, fmt.Sprintf("%s was told that its transfer to %s came to nothing, and %s", t.Who, t.Target, passed))
			}
		default:
			before = &t
		}
	}
	return found
}

// passedOn is how leadership was passed on for a transfer that came to nothing, or "".
// When a fault strikes, a leader may begin to pass it on for a request that is gone
// a moment later, with its asker's session, and the target may win since the leader dies
// of that fault.
func passedOn(events []Event, t Transfer) string {
	for i, e := range events {
		if e.Kind != PassesOn || e.At < t.From || e.At > t.To {
			continue
		}
		if t.Calm {
			return e.Who + " stepped down for it"
		}
		for _, next := range events[i:] {
			if next.Kind == Fault || next.Kind == Win && next.Token != t.Token {
				break
			}
			if next.Kind == Win {
				return next.Who + " leads after it"
			}
		}
	}
	return ""
}
