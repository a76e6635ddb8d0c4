package report

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/zkelection/election/internal/svg"
	"github.com/zkelection/election/proof/chaos/internal/history"
)

// The picture is cut into strips, one below the other, each with a lane for
// every candidate and every node.
const (
	strip      = 5 * time.Minute
	left       = 44 // of the lanes, for their names
	width      = 1400
	lane       = 15 // from one to the next
	bar        = 11
	thin       = 4 // of a fault below its lane's leadership
	top        = 84
	stripSpace = 30
)

// Colours, told apart also without red and green.
const (
	colourLeads  = "#0072b2"
	colourClaims = "#a6cbe3"
	colourKill   = "#000000"
	colourStop   = "#e69f00"
	colourCut    = "#cc3311"
	colourOutage = "#e4e4e4"
	colourLane   = "#f4f4f4"
)

// kind of a fault, by the first word of its name.
func colourOf(fault string) string {
	switch verb, _, _ := strings.Cut(fault, " "); strings.TrimSuffix(verb, ",") {
	case "kill", "restart":
		return colourKill
	case "stop":
		return colourStop
	default:
		return colourCut
	}
}

// Picture writes a timeline of a phase as SVG: who led when, and what was
// done to whom.
func (p *Phase) Picture(to io.Writer, title string) error {
	lanes := lanesOf(p)
	at := make(map[string]int, len(lanes))
	for i, name := range lanes {
		at[name] = i
	}
	length := min(strip, p.Run.Length())
	strips := max(1, int((p.Run.Length()+strip-1)/strip))
	stripHeight := len(lanes)*lane + stripSpace
	height := top + strips*stripHeight

	d := drawing{svg.New(left+width+16, height)}
	d.Heading(left, title)
	d.legend()

	for s := range strips {
		from := p.Run.From + int64(s)*int64(strip)
		y := top + s*stripHeight
		view := window{from, min(from+int64(length), p.Run.To), float64(width) / float64(length), y}
		for i, name := range lanes {
			d.Rect(left, float64(y+i*lane), width, bar, colourLane, "")
			d.F(`<text x="%d" y="%d" text-anchor="end">%s</text>`, left-6, y+i*lane+bar-2, name)
		}
		for _, o := range history.Outages(p.Events, p.Run) {
			d.span(view, o.From, o.To, 0, len(lanes)*lane-(lane-bar), colourOutage, "no quorum for "+o.String())
		}
		for _, l := range p.Leaderships {
			i, ok := at[seat(l.Who)]
			if !ok {
				continue
			}
			d.span(view, l.From, l.To, i*lane, bar, colourClaims, "")
			if l.Acked != 0 {
				d.span(view, max(l.From, l.Acked), l.Last, i*lane, bar, colourLeads,
					fmt.Sprintf("%s leads, token %d, for %v", l.Who, l.Token, history.Span{From: l.From, To: l.Last}))
			}
		}
		for _, f := range p.Faults() {
			i, ok := at[f.Target]
			if !ok {
				continue
			}
			y, h := i*lane, bar
			if strings.HasPrefix(f.Target, "c") {
				y, h = i*lane+bar-thin, thin+2
			}
			// What is shorter than two pixels is drawn that long.
			to := max(f.To, f.From+2*int64(length)/width)
			d.span(view, f.From, to, y, h, colourOf(f.Name), fmt.Sprintf("%s (%s) for %v", f.Name, f.Target, f.Span))
		}
		d.axis(view, p.Run.From, length, y+len(lanes)*lane)
	}
	_, err := d.WriteTo(to)
	return err
}

// seat is the candidate's name without the number of its start.
func seat(who string) string {
	name, _, _ := strings.Cut(who, ".")
	return name
}

func lanesOf(p *Phase) []string {
	var seats, nodes []string
	add := func(list *[]string, name string) {
		if !slices.Contains(*list, name) {
			*list = append(*list, name)
		}
	}
	for _, e := range p.Events {
		switch {
		case e.Kind == history.Start && strings.HasPrefix(e.Who, "c"):
			add(&seats, seat(e.Who))
		case e.Kind == history.Fault && strings.HasPrefix(e.Target, "zk"):
			add(&nodes, e.Target)
		}
	}
	slices.Sort(seats)
	slices.Sort(nodes)
	return append(seats, nodes...)
}

// window is the part of a run that a strip shows, and where.
type window struct {
	from, to int64
	scale    float64 // pixels a nanosecond
	y        int
}

type drawing struct{ *svg.Drawing }

// span draws what of a stretch of time falls into the window.
func (d drawing) span(w window, from, to int64, y, height int, colour, title string) {
	from, to = max(from, w.from), min(to, w.to)
	if from >= to {
		return
	}
	d.Rect(left+float64(from-w.from)*w.scale, float64(w.y+y), float64(to-from)*w.scale, float64(height), colour, title)
}

func (d drawing) axis(w window, start int64, length time.Duration, y int) {
	step := 30 * time.Second
	if length < 2*time.Minute {
		step = 10 * time.Second
	}
	for at := time.Duration(0); at <= length; at += step {
		x := left + float64(width)*at.Seconds()/length.Seconds()
		since := time.Duration(w.from-start) + at
		d.F(`<text x="%.1f" y="%d" text-anchor="middle" fill="#555555" font-size="10">%d:%02d</text>`, x, y+9, int(since.Minutes()), int(since.Seconds())%60)
	}
}

func (d drawing) legend() {
	x := float64(left)
	for _, entry := range []struct{ colour, text string }{
		{colourLeads, "leads, acknowledged"},
		{colourClaims, "has won, or its lease goes on while it is stopped or dead"},
		{colourKill, "killed (-9), until restarted"},
		{colourStop, "stopped (SIGSTOP)"},
		{colourCut, "cut off"},
		{colourOutage, "no quorum"},
	} {
		d.Rect(x, 42, 22, bar, entry.colour, "")
		d.F(`<text x="%.1f" y="%d">%s</text>`, x+28, 52, entry.text)
		x += 28 + float64(len(entry.text))*6.6 + 26
	}
	d.F(`<text x="%d" y="70" fill="#555555">c1 to c5: candidates · zk1 to zk3: ZooKeeper nodes · minutes and seconds since the start</text>`, left)
}
