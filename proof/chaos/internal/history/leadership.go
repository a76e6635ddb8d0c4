package history

import (
	"cmp"
	"slices"
	"time"
)

// What a sample is worth. A process that was stopped inside a sample may have
// been told anything before the stop, so a wide sample proves nothing. Between
// two samples that are close to each other nothing can have happened that
// matters; over a longer gap the process was stopped, or killed.
const (
	wide = int64(20 * time.Millisecond)
	near = int64(60 * time.Millisecond)
)

// Leadership is one stretch in which a process claimed to lead: every time
// that it was asked, and by its lease while it could not be asked.
type Leadership struct {
	Who   string
	Token int64
	From  int64 // the first time that it said so
	Last  int64 // the last time
	// To is when the claim ended. It is later than Last when the process was
	// stopped or killed: then it is the end of the lease. A stopped process
	// does not know that it is stopped, so the lease it has is a claim.
	To    int64
	Acked int64 // when the acknowledgement was written; 0 when it was not
}

// Leaderships finds the stretches in a history, ordered by their beginning.
func Leaderships(events []Event) []Leadership {
	byWho := make(map[string][]Event)
	for _, e := range events {
		byWho[e.Who] = append(byWho[e.Who], e)
	}
	var all []Leadership
	for _, own := range byWho {
		slices.SortStableFunc(own, func(a, b Event) int { return cmp.Compare(a.At, b.At) })
		all = append(all, stretches(own)...)
	}
	slices.SortFunc(all, func(a, b Leadership) int { return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.Token, b.Token)) })
	return all
}

// stretches are those of one process.
func stretches(events []Event) []Leadership {
	var (
		all      []Leadership
		open     *Leadership
		until    int64           // of the lease, as the last true sample told
		released int64           // when it gave leadership up by itself
		acked    map[int64]int64 // by token, not yet used
	)
	acked = make(map[int64]int64)
	// end closes the open stretch; it is known to have ended by at, or not at
	// all when at is 0.
	end := func(at int64) {
		if open == nil {
			return
		}
		switch {
		case at != 0 && at-open.Last <= near:
			open.To = open.Last
		case at != 0:
			open.To = max(open.Last, min(until, at))
		default:
			open.To = max(open.Last, until)
		}
		if released > open.Last {
			open.To = min(open.To, released)
		}
		all = append(all, *open)
		open = nil
	}
	for _, e := range events {
		switch e.Kind {
		case True:
			if e.After-e.At > wide {
				continue
			}
			if open != nil && open.Token != e.Token {
				end(e.At)
			}
			if open == nil {
				open = &Leadership{Who: e.Who, Token: e.Token, From: e.After, Acked: acked[e.Token]}
				delete(acked, e.Token)
				released = 0
			}
			open.Last, until = e.At, e.Until
		case False:
			// It was false at e.After at the latest, and stays so until it wins.
			end(e.After)
		case Dead:
			end(e.At) // what is dead does not act, whatever is left of its lease
		case Acked:
			if open != nil && open.Token == e.Token && open.Acked == 0 {
				open.Acked = e.At
			} else {
				acked[e.Token] = e.At // written before the next sample
			}
		case StepDown:
			delete(acked, e.Token)
		case Release:
			released = e.At
		default:
		}
	}
	end(0)
	return all
}
