package main

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

var (
	start    = time.Now()
	printing sync.Mutex
	colours  = onTerminal() && os.Getenv("NO_COLOR") == ""
)

// onTerminal reports whether a person reads along, on something that knows
// colours.
func onTerminal() bool {
	stat, err := os.Stdout.Stat()
	term := os.Getenv("TERM")
	return err == nil && stat.Mode()&os.ModeCharDevice != 0 && term != "" && term != "dumb"
}

// paceOfReader is the default of -pace.
func paceOfReader() time.Duration {
	if onTerminal() {
		return 3 * time.Second
	}
	return 0
}

// say prints a line of the timeline, and returns its time.
func say(who, format string, args ...any) time.Time {
	printing.Lock()
	defer printing.Unlock()
	now := time.Now()
	line := fmt.Sprintf("%8.3f s  %-8s %s", now.Sub(start).Seconds(), who, fmt.Sprintf(format, args...))
	if colour := colourOf(line); colour != "" && colours {
		line = "\x1b[" + colour + "m" + line + "\x1b[0m"
	}
	fmt.Println(line)
	return now
}

func colourOf(line string) string {
	for _, mark := range []struct{ word, colour string }{
		{" ---- ", "1"},
		{" WINS ", "32"},
		{" STEPS DOWN ", "33"},
		{" RECONNECTS ", "36"},
		{" CUT OFF", "31"},
		{" has no master", "31"},
	} {
		if strings.Contains(line, mark.word) {
			return mark.colour
		}
	}
	return ""
}

func ms(d time.Duration) float64 { return 1000 * d.Seconds() }
