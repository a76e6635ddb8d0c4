package main

import (
	"io"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
)

// A table has aligned columns. The last one is what may be long, a candidate's data: it is cut where the line would be
// wider than limit, unless that is 0.
type table struct {
	rows  [][]string
	limit int
}

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

// leastOfLast is how much is left of the last column, however wide the others are.
const leastOfLast = 8

func (t *table) lines() (lines []string) {
	var widths []int
	for _, row := range t.rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			if i < len(row)-1 || i == len(widths)-1 && i == 0 {
				widths[i] = max(widths[i], utf8.RuneCountInString(cell))
			}
		}
	}
	for _, row := range t.rows {
		var line strings.Builder
		used := 0
		for i, cell := range row {
			if i == len(row)-1 {
				if t.limit > 0 {
					cell = cut(cell, max(leastOfLast, t.limit-used))
				}
				line.WriteString(cell)
				break
			}
			line.WriteString(cell)
			line.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2))
			used += widths[i] + 2
		}
		lines = append(lines, strings.TrimRight(line.String(), " "))
	}
	return lines
}

func (t *table) print(w io.Writer) error {
	var all strings.Builder
	for _, line := range t.lines() {
		all.WriteString(line + "\n")
	}
	_, err := io.WriteString(w, all.String())
	return err
}

// cut shortens text to so many characters. Where there is no room for the dots it leaves them out.
func cut(text string, most int) string {
	runes := []rune(text)
	switch {
	case len(runes) <= most:
		return text
	case most < 3:
		return string(runes[:max(0, most)])
	}
	return string(runes[:most-3]) + "..."
}

// terminalSize returns the size of the terminal that w is; ok is false when it is none.
func terminalSize(w io.Writer) (columns, lines int, ok bool) {
	if o, is := w.(output); is {
		w = o.Writer
	}
	f, is := w.(*os.File)
	if !is || !term.IsTerminal(int(f.Fd())) {
		return 0, 0, false
	}
	columns, lines, err := term.GetSize(int(f.Fd()))
	return columns, lines, err == nil && columns > 0 && lines > 0
}

// tableWidth is how wide a table may be: as wide as the terminal, or as the environment says where there is none.
func tableWidth(e *env, wide bool) int {
	if wide {
		return 0
	}
	if columns, _, ok := terminalSize(e.stdout); ok {
		return columns
	}
	if columns, err := strconv.Atoi(e.getenv("COLUMNS")); err == nil && columns > 0 {
		return columns
	}
	return width
}
