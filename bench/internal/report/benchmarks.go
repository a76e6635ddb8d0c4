package report

import (
	"bufio"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Benchmarks are the metrics of lines that go test -bench prints, by name and unit; a benchmark that ran more than once
// has several values. The names are without "Benchmark" and the number of processors.
type Benchmarks struct {
	Names  []string
	values map[string]map[string][]float64
}

var processors = regexp.MustCompile(`-\d+$`)

// ParseBenchmarks reads what go test -bench prints. A failure in it is an error, and so is an output without results.
func ParseBenchmarks(from io.Reader) (*Benchmarks, error) {
	b := &Benchmarks{values: make(map[string]map[string][]float64)}
	lines := bufio.NewScanner(from)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		switch {
		case len(fields) == 0:
		case strings.HasPrefix(lines.Text(), "--- FAIL"), fields[0] == "FAIL", strings.HasPrefix(fields[0], "panic"):
			return nil, fmt.Errorf("a benchmark failed: %s", lines.Text())
		case strings.HasPrefix(fields[0], "Benchmark") && len(fields) >= 4:
			name := processors.ReplaceAllString(strings.TrimPrefix(fields[0], "Benchmark"), "")
			if b.values[name] == nil {
				b.Names = append(b.Names, name)
				b.values[name] = make(map[string][]float64)
			}
			for i := 2; i+1 < len(fields); i += 2 {
				value, err := strconv.ParseFloat(fields[i], 64)
				if err != nil {
					return nil, fmt.Errorf("%q: %w", lines.Text(), err)
				}
				b.values[name][fields[i+1]] = append(b.values[name][fields[i+1]], value)
			}
		}
	}
	if len(b.Names) == 0 {
		return nil, fmt.Errorf("no benchmark has run")
	}
	return b, lines.Err()
}

// A Column shows one metric of benchmarks.
type Column struct{ Head, Unit string }

// Table has a row for each benchmark whose name begins with prefix, with the rest of the name and the medians.
func (b *Benchmarks) Table(prefix string, columns ...Column) string {
	var s strings.Builder
	s.WriteString("| |")
	for _, c := range columns {
		s.WriteString(" " + c.Head + " |")
	}
	s.WriteString("\n|---|" + strings.Repeat("--:|", len(columns)) + "\n")
	for _, name := range b.Names {
		rest, ok := strings.CutPrefix(name, prefix)
		if !ok {
			continue
		}
		fmt.Fprintf(&s, "| %s |", rest)
		for _, c := range columns {
			if v := b.values[name][c.Unit]; v != nil {
				_, median, _ := Quartiles(v)
				fmt.Fprintf(&s, " %s |", digits(median))
			} else {
				s.WriteString(" – |")
			}
		}
		s.WriteString("\n")
	}
	return s.String()
}

// A Metric is a row of Compare: a unit of which several benchmarks have values, and a bound for those of the first.
type Metric struct {
	What, Unit string
	AtMost     float64 // 0: no goal
}

// Compare has a row for each metric and a column for each benchmark: the median, and the least and the greatest.
func (b *Benchmarks) Compare(metrics []Metric, columns ...Column) string {
	var s strings.Builder
	s.WriteString("| |")
	for _, c := range columns {
		s.WriteString(" " + c.Head + " |")
	}
	s.WriteString(" goal |\n|---|" + strings.Repeat("--:|", len(columns)) + "---|\n")
	for _, m := range metrics {
		fmt.Fprintf(&s, "| %s |", m.What)
		for _, c := range columns {
			v := b.values[c.Unit][m.Unit]
			if v == nil {
				s.WriteString(" – |")
				continue
			}
			_, median, _ := Quartiles(v)
			fmt.Fprintf(&s, " %s", digits(median))
			if least, greatest := slices.Min(v), slices.Max(v); digits(least) != digits(greatest) {
				fmt.Fprintf(&s, " (%s–%s)", digits(least), digits(greatest))
			}
			s.WriteString(" |")
		}
		fmt.Fprintf(&s, " %s |\n", m.verdict(b.values[columns[0].Unit][m.Unit]))
	}
	return s.String()
}

func (m Metric) verdict(values []float64) string {
	if m.AtMost == 0 {
		return ""
	}
	_, median, _ := Quartiles(values)
	switch {
	case len(values) == 0:
		return fmt.Sprintf("at most %s: not measured", digits(m.AtMost))
	case median <= m.AtMost:
		return fmt.Sprintf("at most %s: met", digits(m.AtMost))
	default:
		return fmt.Sprintf("at most %s: **missed by %s**", digits(m.AtMost), digits(median-m.AtMost))
	}
}

var (
	soakName   = regexp.MustCompile(`^=== RUN +TestSoak/(.*)$`)
	soakResult = regexp.MustCompile(`cycles in .*: goroutines (\d+), then (\d+); heap (\d+) KiB, then (\d+); client's watches (\d+), then (\d+); server's watches (\d+), then (\d+)$`)
)

// SoakTable reads what the soak logs: what was held before and after.
func SoakTable(from io.Reader) (string, error) {
	var s strings.Builder
	s.WriteString("| cycle | goroutines | heap, KiB | the client's watches | the server's watches |\n|---|--:|--:|--:|--:|\n")
	name, rows := "", 0
	lines := bufio.NewScanner(from)
	for lines.Scan() {
		if m := soakName.FindStringSubmatch(lines.Text()); m != nil {
			name = strings.ReplaceAll(m[1], "_", " ")
		}
		if m := soakResult.FindStringSubmatch(lines.Text()); m != nil {
			fmt.Fprintf(&s, "| %s | %s, %s | %s, %s | %s, %s | %s, %s |\n", name, m[1], m[2], m[3], m[4], m[5], m[6], m[7], m[8])
			rows++
		}
		if strings.HasPrefix(strings.TrimSpace(lines.Text()), "--- FAIL") {
			return "", fmt.Errorf("the soak failed: %s", lines.Text())
		}
	}
	if rows == 0 {
		return "", fmt.Errorf("the soak has logged nothing")
	}
	return s.String(), lines.Err()
}
