package report

import (
	"fmt"
	"html"
	"io"
	"math"

	"github.com/zkelection/election/internal/svg"
)

// Colours, told apart also without red and green, and signs, told apart without any.
var styles = map[string]struct{ colour, sign string }{
	Floor:   {"#000000", "circle"},
	Hot:     {"#0072b2", "square"},
	Cold:    {"#56b4e9", "diamond"},
	Curator: {"#d55e00", "up"},
	Kazoo:   {"#009e73", "down"},
}

// A Panel is one plot: rows of one thing, for several N.
type Panel struct {
	Title string
	Rows  []*Row
}

const (
	panelWidth, panelHeight = 430, 330
	panelLeft, panelTop     = 64, 84
	panelSpace              = 80
)

// Plot draws panels side by side, both axes in equal ratios, the medians joined by lines, with a stroke from the first
// quartile to the third.
func Plot(to io.Writer, title string, panels []Panel) error {
	d := svg.New(panelLeft+len(panels)*(panelWidth+panelSpace)-panelSpace+24, panelTop+panelHeight+50)
	d.Heading(panelLeft, title)
	x := float64(panelLeft)
	for _, c := range Contestants {
		mark(d, c, x+8, 48)
		d.F(`<text x="%.1f" y="52">%s</text>`, x+18, html.EscapeString(c))
		x += 40 + 6.4*float64(len(c))
	}
	for i, p := range panels {
		p.draw(d, float64(panelLeft+i*(panelWidth+panelSpace)))
	}
	_, err := d.WriteTo(to)
	return err
}

func (p Panel) draw(d *svg.Drawing, left float64) {
	least, greatest := math.Inf(1), math.Inf(-1)
	lowN, highN := math.MaxInt, 0
	for _, r := range p.Rows {
		lowN, highN = min(lowN, r.N), max(highN, r.N)
		for _, values := range r.Values {
			first, median, third := Quartiles(values)
			least, greatest = min(least, first, median), max(greatest, third, median)
		}
	}
	if highN == 0 || least <= 0 || math.IsInf(least, 1) {
		return
	}
	// Whole steps of 1, 2 and 5.
	least, greatest = step(least, -1), step(greatest, 1)
	share := func(v, from, to float64) float64 {
		if from == to {
			return 0.5
		}
		return math.Log(v/from) / math.Log(to/from)
	}
	atN := func(n int) float64 {
		return left + 16 + (panelWidth-32)*share(float64(n), float64(lowN), float64(highN))
	}
	atValue := func(v float64) float64 { return panelTop + panelHeight*(1-share(v, least, greatest)) }

	d.F(`<text x="%.1f" y="%d" font-weight="bold">%s</text>`, left, panelTop-8, html.EscapeString(p.Title))
	for v := least; v <= greatest*1.001; v = step(v*1.001, 1) {
		value, unit := inUnit(v * 1.0000001)
		d.F(`<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%[2]f" stroke="#e4e4e4"/>`, left, atValue(v), left+panelWidth)
		d.F(`<text x="%.1f" y="%.1f" text-anchor="end" fill="#555555">%s %s</text>`, left-6, atValue(v)+4, digits(math.Round(value)), unit)
	}
	for _, r := range p.Rows {
		d.F(`<text x="%.1f" y="%d" text-anchor="middle" fill="#555555">%d</text>`, atN(r.N), panelTop+panelHeight+18, r.N)
	}
	d.F(`<text x="%.1f" y="%d" text-anchor="middle" fill="#555555">candidates, each on a session of its own</text>`, left+panelWidth/2, panelTop+panelHeight+38)

	for i, c := range Contestants {
		// Beside one another where they would lie on one another.
		aside := 3 * (float64(i) - float64(len(Contestants)-1)/2)
		px, py := 0.0, 0.0
		for _, r := range p.Rows {
			median, ok := r.Median(c)
			if !ok {
				px = 0
				continue
			}
			first, _, third := Quartiles(r.Values[c])
			x, y := atN(r.N)+aside, atValue(median)
			if px != 0 {
				d.F(`<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" stroke-width="1.5"/>`, px, py, x, y, styles[c].colour)
			}
			d.F(`<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" stroke-width="3" stroke-opacity="0.4"><title>%s</title></line>`,
				x, atValue(first), x, atValue(third), styles[c].colour, html.EscapeString(fmt.Sprintf("%s, N = %d: %s", c, r.N, r.cell(c))))
			mark(d, c, x, y)
			px, py = x, y
		}
	}
}

// step is the nearest of 1, 2 and 5 times a power of ten that is not above a value (-1), or not below it (1).
func step(v float64, way int) float64 {
	power := math.Pow(10, math.Floor(math.Log10(v)))
	steps := []float64{1, 2, 5, 10}
	best := power
	for _, s := range steps {
		switch {
		case way < 0 && s*power <= v:
			best = s * power
		case way > 0 && s*power >= v:
			return s * power
		}
	}
	return best
}

func mark(d *svg.Drawing, contestant string, x, y float64) {
	s := styles[contestant]
	points := map[string][]float64{
		"square":  {-4, -4, 4, -4, 4, 4, -4, 4},
		"diamond": {0, -5, 5, 0, 0, 5, -5, 0},
		"up":      {0, -5, 5, 4, -5, 4},
		"down":    {0, 5, 5, -4, -5, -4},
	}[s.sign]
	if points == nil {
		d.F(`<circle cx="%.1f" cy="%.1f" r="4" fill="%s"/>`, x, y, s.colour)
		return
	}
	text := ""
	for i := 0; i < len(points); i += 2 {
		text += fmt.Sprintf("%.1f,%.1f ", x+points[i], y+points[i+1])
	}
	d.F(`<polygon points="%s" fill="%s"/>`, text[:len(text)-1], s.colour)
}
