// Package report writes what a chaos run has shown: tables, and a picture of
// who led when.
package report

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/zkelection/election/proof/chaos/internal/history"
)

// Phase is one part of a run: one set of processes in one election.
type Phase struct {
	Timeout     time.Duration // of the sessions
	Bound       time.Duration // that an election may take
	Run         history.Span
	Events      []history.Event
	Leaderships []history.Leadership
	Observers   time.Duration // the longest that observers took to know the leader, once all was settled

	Overlaps  []history.Overlap
	Disorders []history.Disorder
	TooLong   []history.Span
	StepDowns []string // only where there must be none

	Transfers      []history.Transfer
	BrokenPromises []string // what those who asked for one were told, and was not so
}

// Fault is one fault, from its strike to its end.
type Fault struct {
	history.Span
	Name, Target string
	// Paired: another one was under way meanwhile.
	Paired bool
	// Gaps is how long there was no acknowledged leader, each time that one
	// was lost between this strike and the next.
	Gaps []time.Duration
	// Quorum is the same without the time in which the quorum was lost.
	Quorum []time.Duration
	// Another: the acknowledged leader after it is not the one before it.
	Another bool
}

// Faults are those of a phase, in order.
func (p *Phase) Faults() []Fault {
	return slices.DeleteFunc(p.strikes(), func(f Fault) bool { return f.Name == transfer })
}

// Moves are the transfers of a phase, and what they cost.
func (p *Phase) Moves() []Fault {
	return slices.DeleteFunc(p.strikes(), func(f Fault) bool { return f.Name != transfer })
}

// slack: on a busy machine the last sample may be older than the strike that ended it, and no
// strike comes sooner than that after another fault's end.
const slack = int64(100 * time.Millisecond)

// transfer is no fault, but leadership is interrupted by it, too.
const transfer = "transfer"

func (p *Phase) strikes() []Fault {
	var all []Fault
	for _, t := range p.Transfers {
		all = append(all, Fault{Span: t.Span, Name: transfer, Target: t.Target})
	}
	open := make(map[string]int)
	for _, e := range p.Events {
		switch e.Kind {
		case history.Fault:
			open[e.Text+e.Target] = len(all)
			all = append(all, Fault{Span: history.Span{From: e.At, To: p.Run.To}, Name: e.Text, Target: e.Target})
		case history.FaultOver:
			all[open[e.Text+e.Target]].To = e.At
		default:
		}
	}
	slices.SortFunc(all, func(a, b Fault) int { return cmp.Compare(a.From, b.From) })
	for i := range all {
		for j := range all[:i] {
			to := all[j].To
			if all[j].Name == transfer {
				to += slack
			}
			if to > all[i].From {
				all[i].Paired, all[j].Paired = true, true
			}
		}
	}
	outages := history.Outages(p.Events, p.Run)
	for _, gap := range history.Leaderless(p.Leaderships, p.Run) {
		// It belongs to the last fault that had struck when it began.
		i, _ := slices.BinarySearchFunc(all, gap.From+slack, func(f Fault, at int64) int { return cmp.Compare(f.From, at) })
		if i == 0 {
			continue
		}
		f := &all[i-1]
		quorum := gap.Length()
		for _, o := range outages {
			if from, to := max(o.From, gap.From), min(o.To, gap.To); to > from {
				quorum -= time.Duration(to - from)
			}
		}
		f.Gaps, f.Quorum = append(f.Gaps, gap.Length()), append(f.Quorum, quorum)
		f.Another = f.Another || p.leaderAt(gap.From) != p.leaderAt(gap.To)
	}
	return all
}

// leaderAt is who led with an acknowledgement last before, or first after, a
// moment at which a gap begins or ends.
func (p *Phase) leaderAt(at int64) string {
	who, nearest := "", int64(1<<62)
	for _, l := range p.Leaderships {
		if l.Acked == 0 {
			continue
		}
		for _, edge := range []int64{max(l.From, l.Acked), l.Last} {
			if d := max(edge-at, at-edge); d < nearest {
				who, nearest = l.Who, d
			}
		}
	}
	return who
}

// Table writes the phase's faults, grouped by name, as a table in Markdown.
func (p *Phase) Table(to io.Writer) {
	type row struct {
		name             string
		times, lost, new int
		gaps, quorum     []time.Duration
	}
	byName := make(map[string]*row)
	total := &row{name: "**all**"}
	var rows []*row
	for _, f := range p.Faults() {
		name := f.Name
		if f.Paired {
			// Which of them cost the leadership cannot be told.
			name = "(two of these at once, or a transfer)"
		}
		r := byName[name]
		if r == nil {
			r = &row{name: name}
			byName[name] = r
			rows = append(rows, r)
		}
		for _, r := range []*row{r, total} {
			r.times++
			if len(f.Gaps) > 0 {
				r.lost++
			}
			if f.Another {
				r.new++
			}
			r.gaps, r.quorum = append(r.gaps, f.Gaps...), append(r.quorum, f.Quorum...)
		}
	}
	slices.SortFunc(rows, func(a, b *row) int { return cmp.Or(cmp.Compare(b.times, a.times), cmp.Compare(a.name, b.name)) })
	fmt.Fprintln(to, "| fault | times | leadership interrupted | passed on | without a leader: median | 99th percentile | longest | longest, with a quorum |")
	fmt.Fprintln(to, "|---|--:|--:|--:|--:|--:|--:|--:|")
	for _, r := range append(rows, total) {
		fmt.Fprintf(to, "| %s | %d | %d | %d | %s | %s | %s | %s |\n", r.name, r.times, r.lost, r.new,
			seconds(Percentile(r.gaps, 50)), seconds(Percentile(r.gaps, 99)), seconds(Percentile(r.gaps, 100)), seconds(Percentile(r.quorum, 100)))
	}
}

// TransferRows writes what became of the transfers as rows of the table of what was found.
func (p *Phase) TransferRows(to io.Writer) {
	outcomes := make(map[string]int)
	for _, t := range p.Transfers {
		outcomes[t.Outcome]++
	}
	var gaps []time.Duration
	for _, m := range p.Moves() {
		if !m.Paired {
			gaps = append(gaps, m.Gaps...)
		}
	}
	fmt.Fprintf(to, "| transfers asked for, between the faults and during them | %d: %d done, %d came to nothing, %d may have happened, %d whose asker was killed | |\n",
		len(p.Transfers), outcomes[history.Done], outcomes[history.Nothing], outcomes[history.MayHappen]+outcomes[history.NotKnown], outcomes[""])
	fmt.Fprintf(to, "| time without an acknowledged leader at a transfer, beside no fault | median %v, longest %v | |\n",
		Percentile(gaps, 50).Round(time.Millisecond), Percentile(gaps, 100).Round(time.Millisecond))
	fmt.Fprintf(to, "| transfers that were said to be done, or to have come to nothing, and it was not so | %d | 0 |\n", len(p.BrokenPromises))
}

// Percentile is the smallest of the values that at least that many of a hundred
// do not exceed; 0 when there are none.
func Percentile(values []time.Duration, percent int) time.Duration {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[max(0, (len(sorted)*percent+99)/100-1)]
}

func seconds(d time.Duration) string {
	if d == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}

// Led is for how much of a phase there was an acknowledged leader, of the time
// in which there was a quorum.
func (p *Phase) Led() float64 {
	without := time.Duration(0)
	for _, f := range p.strikes() {
		for _, g := range f.Quorum {
			without += g
		}
	}
	quorum := p.Run.Length()
	for _, o := range history.Outages(p.Events, p.Run) {
		quorum -= o.Length()
	}
	return 1 - without.Seconds()/quorum.Seconds()
}
