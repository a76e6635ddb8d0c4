// Package svg draws the pictures that reports show.
package svg

import (
	"bytes"
	"fmt"
	"html"
	"io"
)

// A Drawing is a picture on a white ground, in pixels from its upper left corner.
type Drawing struct{ text bytes.Buffer }

// New returns an empty picture.
func New(width, height int) *Drawing {
	d := &Drawing{}
	d.F(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="DejaVu Sans, Helvetica, Arial, sans-serif" font-size="11">`, width, height, width, height)
	d.F(`<rect width="100%%" height="100%%" fill="#ffffff"/>`)
	return d
}

// F adds elements as they are written in the file.
func (d *Drawing) F(format string, args ...any) { fmt.Fprintf(&d.text, format+"\n", args...) }

// Heading writes the picture's title, at its top.
func (d *Drawing) Heading(x int, title string) {
	d.F(`<text x="%d" y="24" font-size="17" font-weight="bold">%s</text>`, x, html.EscapeString(title))
}

// Rect draws a rectangle; a title, if it is not "", is shown when the pointer rests on it.
func (d *Drawing) Rect(x, y, w, h float64, colour, title string) {
	if title == "" {
		d.F(`<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>`, x, y, w, h, colour)
		return
	}
	d.F(`<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"><title>%s</title></rect>`, x, y, w, h, colour, html.EscapeString(title))
}

// WriteTo ends the picture and writes it.
func (d *Drawing) WriteTo(to io.Writer) (int64, error) {
	d.F(`</svg>`)
	return d.text.WriteTo(to)
}
