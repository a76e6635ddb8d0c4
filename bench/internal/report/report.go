// Package report writes what a benchmark has measured: tables in Markdown, a plot, and both into a document.
package report

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Contestants are what is compared, in the order of the columns. The first is what the others are set in relation to.
const (
	Floor   = "floor"
	Hot     = "this library, hot"
	Cold    = "this library, cold"
	Curator = "Curator"
	Kazoo   = "kazoo"
)

// Contestants lists them.
var Contestants = []string{Floor, Hot, Cold, Curator, Kazoo}

// A Unit is what a row's values are.
type Unit int

// Seconds are shown with their ratio to the floor's, where that has any. Timeouts are multiples of the session timeout.
const (
	Seconds Unit = iota
	Packets
	Timeouts
)

// A Row is what was measured of one thing, in turns.
type Row struct {
	What   string
	N      int // candidates
	Unit   Unit
	Values map[string][]float64 // by contestant
	Goals  []Goal
	Load   Load // of the machine meanwhile
}

// A Goal bounds a contestant's median: by an absolute value, or by so many times the floor's.
type Goal struct {
	Of      string // the contestant
	AtMost  float64
	ToFloor bool
}

// Load is the least and the greatest load average, over one minute, that was seen.
type Load struct{ Least, Greatest float64 }

// See takes one more value in.
func (l *Load) See(average float64) {
	if *l == (Load{}) {
		*l = Load{average, average}
	}
	l.Least, l.Greatest = min(l.Least, average), max(l.Greatest, average)
}

func (l Load) String() string {
	if math.Round(l.Least*10) == math.Round(l.Greatest*10) {
		return fmt.Sprintf("%.1f", l.Least)
	}
	return fmt.Sprintf("%.1f–%.1f", l.Least, l.Greatest)
}

// Add notes a contestant's value.
func (r *Row) Add(contestant string, value float64) {
	if r.Values == nil {
		r.Values = make(map[string][]float64)
	}
	r.Values[contestant] = append(r.Values[contestant], value)
}

// Quartiles returns the first quartile, the median and the third, between neighbours in proportion; zeros of nothing.
func Quartiles(values []float64) (first, median, third float64) {
	if len(values) == 0 {
		return 0, 0, 0
	}
	sorted := slices.Sorted(slices.Values(values))
	at := func(share float64) float64 {
		i := share * float64(len(sorted)-1)
		below := int(i)
		above := min(below+1, len(sorted)-1)
		return sorted[below] + (i-float64(below))*(sorted[above]-sorted[below])
	}
	return at(0.25), at(0.5), at(0.75)
}

// Median is that of a contestant; ok is false when it was not measured.
func (r *Row) Median(contestant string) (median float64, ok bool) {
	_, median, _ = Quartiles(r.Values[contestant])
	return median, len(r.Values[contestant]) > 0
}

// cell shows a contestant's values: the median, and the quartiles in brackets.
func (r *Row) cell(contestant string) string {
	values := r.Values[contestant]
	if len(values) == 0 {
		return "–"
	}
	first, median, third := Quartiles(values)
	switch r.Unit {
	case Seconds:
		// One unit for all three, that of the median.
		shown, unit := inUnit(median)
		scale := shown / median
		if median == 0 {
			scale = 0
		}
		text := fmt.Sprintf("%s %s (%s–%s)", digits(shown), unit, digits(first*scale), digits(third*scale))
		if floor, ok := r.Median(Floor); ok {
			return fmt.Sprintf("**%.2f** · %s", median/floor, text)
		}
		return text
	case Packets:
		if first == third {
			return digits(median)
		}
		return fmt.Sprintf("%s (%s–%s)", digits(median), digits(first), digits(third))
	case Timeouts:
		return fmt.Sprintf("%.2f T (%.2f–%.2f)", median, first, third)
	}
	panic("no such unit")
}

func inUnit(seconds float64) (value float64, unit string) {
	switch {
	case seconds >= 1:
		return seconds, "s"
	case seconds >= 1e-3:
		return seconds * 1e3, "ms"
	default:
		return seconds * 1e6, "µs"
	}
}

// digits writes three digits that count, no more than two after the point, and none that is only a zero after it.
func digits(v float64) string {
	after := 2
	switch {
	case v >= 100:
		after = 0
	case v >= 10:
		after = 1
	}
	text := fmt.Sprintf("%.*f", after, v)
	if strings.Contains(text, ".") {
		text = strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
	}
	return text
}

// verdict says of each goal whether it is met, or by how much it is not.
func (r *Row) verdict() string {
	if len(r.Goals) == 0 {
		return ""
	}
	var all []string
	for _, g := range r.Goals {
		median, ok := r.Median(g.Of)
		of := strings.TrimPrefix(g.Of, "this library, ")
		bound, goal := g.AtMost, fmt.Sprintf("%s at most %s", of, r.shown(g.AtMost))
		if g.ToFloor {
			floor, there := r.Median(Floor)
			ok = ok && there
			bound, goal = g.AtMost*floor, fmt.Sprintf("%s at most %.2f", of, g.AtMost)
		}
		switch {
		case !ok:
			all = append(all, goal+": not measured")
		case median <= bound:
			all = append(all, goal+": met")
		case g.ToFloor:
			all = append(all, fmt.Sprintf("%s: **missed by %s, %.0f %%**", goal, r.shown(median-bound), 100*(median/bound-1)))
		default:
			all = append(all, fmt.Sprintf("%s: **missed by %s**", goal, r.shown(median-bound)))
		}
	}
	return strings.Join(all, "; ")
}

// shown is one value in the row's unit.
func (r *Row) shown(v float64) string {
	switch r.Unit {
	case Seconds:
		value, unit := inUnit(v)
		return digits(value) + " " + unit
	case Packets:
		return digits(v)
	case Timeouts:
		return fmt.Sprintf("%.2f T", v)
	}
	panic("no such unit")
}

// Table writes rows in Markdown. Those of the same name follow one another.
func Table(rows []*Row) string {
	var b strings.Builder
	b.WriteString("| | N | " + strings.Join(Contestants, " | ") + " | goal | load |\n")
	b.WriteString("|---|--:|" + strings.Repeat("--:|", len(Contestants)) + "---|--:|\n")
	last := ""
	for _, r := range rows {
		what := r.What
		if what == last {
			what = ""
		}
		last = r.What
		fmt.Fprintf(&b, "| %s | %d |", what, r.N)
		for _, c := range Contestants {
			fmt.Fprintf(&b, " %s |", r.cell(c))
		}
		fmt.Fprintf(&b, " %s | %v |\n", r.verdict(), r.Load)
	}
	return b.String()
}

// Machine is where a run was done, and when.
type Machine struct {
	Began      time.Time
	Took       time.Duration
	Processors int
	Model      string
	Versions   []string // of what took part, as in "ZooKeeper 3.8.0"
	Before     float64  // the load average before the run began
	During     Load
}

// String is a paragraph of Markdown.
func (m Machine) String() string {
	return fmt.Sprintf("One run, on %s, %.0f minutes; %d processors (%s). Load average before it %.1f, during it %v, its own included. %s.\n",
		m.Began.UTC().Format("2006-01-02 15:04 UTC"), m.Took.Minutes(), m.Processors, m.Model, m.Before, m.During, strings.Join(m.Versions, ", "))
}

// Insert puts text between the markers of a name, which stand on lines of their own in the document:
//
//	<!-- bench: NAME -->
//	<!-- end -->
func Insert(document, name, text string) (string, error) {
	begin, end := "<!-- bench: "+name+" -->\n", "<!-- end -->\n"
	before, rest, found := strings.Cut(document, begin)
	if !found {
		return "", fmt.Errorf("the document has no marker %q", strings.TrimSpace(begin))
	}
	_, after, found := strings.Cut(rest, end)
	if !found {
		return "", fmt.Errorf("nothing ends what %q begins", strings.TrimSpace(begin))
	}
	return before + begin + "\n" + strings.TrimSpace(text) + "\n\n" + end + after, nil
}
