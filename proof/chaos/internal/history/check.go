package history

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Overlap is a time during which two processes claimed to lead.
type Overlap struct{ A, B Leadership }

// Length is how long both did.
func (o Overlap) Length() time.Duration {
	return time.Duration(min(o.A.To, o.B.To) - max(o.A.From, o.B.From))
}

func (o Overlap) String() string {
	return fmt.Sprintf("%s (token %d) and %s (token %d) for %v", o.A.Who, o.A.Token, o.B.Who, o.B.Token, o.Length())
}

// Overlaps finds all pairs of leaderships, of whatever processes, that share
// an instant. all is ordered by From.
func Overlaps(all []Leadership) []Overlap {
	var found []Overlap
	for i, a := range all {
		for _, b := range all[i+1:] {
			if b.From > a.To {
				break
			}
			found = append(found, Overlap{a, b})
		}
	}
	return found
}

// Disorder is a token that did not grow from one leader to the next.
type Disorder struct{ Before, After Leadership }

func (d Disorder) String() string {
	return fmt.Sprintf("%s led with token %d after %s had led with %d", d.After.Who, d.After.Token, d.Before.Who, d.Before.Token)
}

// TokensOutOfOrder finds leaders whose token is not above all earlier ones. It
// may be equal when the same process leads again with nobody in between.
func TokensOutOfOrder(all []Leadership) []Disorder {
	var found []Disorder
	var highest Leadership
	for i, l := range all {
		again := i > 0 && all[i-1].Who == l.Who && all[i-1].Token == l.Token
		if i > 0 && l.Token <= highest.Token && !again {
			found = append(found, Disorder{highest, l})
		}
		if l.Token > highest.Token {
			highest = l
		}
	}
	return found
}

// Span is a stretch of time.
type Span struct{ From, To int64 }

// Length is its length.
func (s Span) Length() time.Duration { return time.Duration(s.To - s.From) }

func (s Span) String() string { return s.Length().Round(time.Millisecond).String() }

// Leaderless are the spans of a run in which no process led with its
// acknowledgement written. What a process claimed while it was stopped does not
// count as leading.
func Leaderless(all []Leadership, run Span) []Span {
	var led []Span
	for _, l := range all {
		if l.Acked != 0 && l.Acked <= l.Last {
			led = append(led, Span{max(l.From, l.Acked), l.Last})
		}
	}
	return without(run, led)
}

// maxWriteGap is how far apart answered writes may be while the ensemble is said
// to have a quorum. The probes are far closer than that.
const maxWriteGap = int64(time.Second)

// Outages are the spans of a run in which no write was answered.
func Outages(events []Event, run Span) []Span {
	var commits []int64
	for _, e := range events {
		if e.Kind == Commit && e.At >= run.From && e.At <= run.To {
			commits = append(commits, e.At)
		}
	}
	slices.Sort(commits)
	var found []Span
	last := run.From
	for _, at := range append(commits, run.To) {
		if at-last > maxWriteGap {
			found = append(found, Span{last, at})
		}
		last = at
	}
	return found
}

// LongestPause is the longest time in a run between two answered writes: about
// the probes' interval when the quorum was never lost.
func LongestPause(events []Event, run Span) time.Duration {
	longest, last := int64(0), run.From
	for _, e := range events {
		if e.Kind == Commit && e.At >= run.From && e.At <= run.To {
			longest, last = max(longest, e.At-last), e.At
		}
	}
	return time.Duration(max(longest, run.To-last))
}

// without returns what is left of a span when others are taken out.
func without(run Span, others []Span) []Span {
	slices.SortFunc(others, func(a, b Span) int { return cmp.Compare(a.From, b.From) })
	var left []Span
	at := run.From
	for _, o := range others {
		if o.From > at {
			left = append(left, Span{at, min(o.From, run.To)})
		}
		if at = max(at, o.To); at >= run.To {
			return left
		}
	}
	return append(left, Span{at, run.To})
}

// TooLong finds the elections that took longer than bound while the ensemble
// had a quorum: time without a leader, counted from when the last one was
// lost, the quorum came back, the last fault struck, or a server that was stopped
// or cut off went on, whichever was latest. (It then reads what its clients have sent
// meanwhile, and takes it for a sign of life of those that are dead by now: their
// sessions end a session timeout after that.)
// A candidate that lives is there at all times: the nemesis sees to it.
func TooLong(all []Leadership, events []Event, run Span, bound time.Duration) []Span {
	var strikes []int64
	for _, e := range events {
		if e.Kind == Fault || e.Kind == Resumed {
			strikes = append(strikes, e.At)
		}
	}
	outages := Outages(events, run)
	var found []Span
	for _, gap := range Leaderless(all, run) {
		for _, part := range without(gap, slices.Clone(outages)) {
			cut := []int64{part.From}
			for _, at := range strikes {
				if at > part.From && at < part.To {
					cut = append(cut, at)
				}
			}
			slices.Sort(cut)
			for i, from := range cut {
				to := part.To
				if i+1 < len(cut) {
					to = cut[i+1]
				}
				if s := (Span{from, to}); s.Length() > bound {
					found = append(found, s)
				}
			}
		}
	}
	return found
}

// StepDowns are the step-downs in a span, and the leaderships that ended
// in it without one.
func StepDowns(all []Leadership, events []Event, run Span) []string {
	var found []string
	for _, e := range events {
		if e.Kind == StepDown && e.At >= run.From && e.At <= run.To {
			found = append(found, fmt.Sprintf("%s stepped down: %s", e.Who, e.Text))
		}
	}
	for _, l := range all {
		if l.Last >= run.From && l.Last < run.To-near {
			found = append(found, fmt.Sprintf("%s led no more %v before the end", l.Who, time.Duration(run.To-l.Last).Round(time.Millisecond)))
		}
	}
	return found
}
