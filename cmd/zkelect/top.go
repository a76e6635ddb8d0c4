package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zkelection/election"
)

func topCommand(e *env) *cobra.Command {
	var once, wide bool
	var interval time.Duration
	c := &cobra.Command{
		Use:   "top [FLAGS]",
		Short: "show a live table of all elections",
		Long: `Shows all elections below the root, those without a leader first: since when
there is that leader, or none as far as that is known; how many stand in the
line, the leader included; what has changed last while this looked on; and the
leader's data. On a terminal the table stays in its place, in colours (unless
NO_COLOR is set), and ends with Ctrl-C; elsewhere it is printed anew when
something has changed. --once prints it once.

Exit status:

    0  it was interrupted, or with --once: each election has a leader
    1  ZooKeeper does not answer in --wait, or refuses; with --once: an election
       may not be read
    2  the command line is wrong
    3  with --once: an election has no leader`,
		Args:                  noArguments,
		DisableFlagsInUseLine: true,
	}
	o := &connection{env: e}
	c.Flags().BoolVar(&once, "once", false, "print the table once")
	durationFlag(c, &interval, "interval", time.Second, "look again after this `DURATION`")
	c.Flags().BoolVar(&wide, "wide", false, "do not cut data that is long")
	o.flags(c, defaultWait)
	c.RunE = func(c *cobra.Command, _ []string) error {
		if interval <= 0 {
			return usageError{fmt.Errorf("--interval %v: want a duration such as 1s", interval)}
		}
		s, closeAll, err := o.connect(c.Context())
		if err != nil {
			return interruptedOr(c.Context(), err)
		}
		defer closeAll()
		t := &top{connection: o, session: s, wide: wide, known: make(map[string]*topRow)}
		if once {
			return t.once(c.Context())
		}
		return t.live(c.Context(), interval)
	}
	return c
}

// top is the table, and what it remembers from one look to the next.
type top struct {
	*connection
	session *election.Session
	wide    bool
	known   map[string]*topRow
	looked  bool // at least once
}

// topRow is one election.
type topRow struct {
	name    string
	leader  *leaderJSON
	line    int
	trouble string    // why it cannot be read
	since   time.Time // when the leader acknowledged, or when there was none any more; zero when not known
	change  string    // what has changed last
	changed time.Time
}

// leaderless reports whether nobody leads, as far as can be seen. Of what cannot be read nothing is.
func (r *topRow) leaderless() bool { return r.leader == nil && r.trouble == "" }

func (r *topRow) unreadable() bool { return r.trouble != "" }

func (t *top) once(ctx context.Context) error {
	rows, err := t.look(ctx)
	if err != nil {
		return misuse(&exit{exitFailed, err})
	}
	if len(rows) == 0 {
		t.env.say("no elections below %s", t.root)
	}
	if err := t.table(rows, time.Now()).print(t.env.stdout); err != nil {
		return &exit{exitFailed, err}
	}
	if slices.ContainsFunc(rows, (*topRow).leaderless) {
		return &exit{status: exitNoLeader}
	}
	if i := slices.IndexFunc(rows, (*topRow).unreadable); i >= 0 {
		return &exit{exitFailed, fmt.Errorf("whether %s has a leader is not known: %s", rows[i].name, rows[i].trouble)}
	}
	return nil
}

// live looks again and again, until ctx ends. That no server answers for a while is shown, and is no end.
func (t *top) live(ctx context.Context, interval time.Duration) error {
	_, _, terminal := terminalSize(t.env.stdout)
	screen := &screen{env: t.env, terminal: terminal, colours: terminal && t.env.getenv("NO_COLOR") == ""}
	screen.begin()
	defer screen.end()
	resize := make(chan os.Signal, 1)
	if len(resized) > 0 {
		signal.Notify(resize, resized...)
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	var rows []*topRow
	for {
		found, err := t.look(ctx)
		if ctx.Err() != nil {
			return interruptedOr(ctx, context.Cause(ctx))
		}
		var usage usageError
		if err = misuse(err); errors.As(err, &usage) {
			return err
		}
		if err == nil {
			rows = found
		}
		for redraw := true; redraw; {
			if err := screen.draw(t, rows, err); err != nil {
				return &exit{exitFailed, err}
			}
			select {
			case <-resize:
			case <-ticker.C:
				redraw = false
			case <-ctx.Done():
				return interruptedOr(ctx, context.Cause(ctx))
			}
		}
	}
}

// look reads all elections, and notes what has changed. They are in the order in which they are shown.
func (t *top) look(ctx context.Context) (rows []*topRow, err error) {
	limit, cancel := t.limit(ctx)
	defer cancel()
	found, err := list(limit, t.session, t.root)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	present := make(map[string]*topRow)
	for _, f := range found {
		row := t.known[f.Election]
		if row == nil {
			row = &topRow{name: f.Election, line: f.Candidates, leader: f.Leader, trouble: f.Error}
			if t.looked {
				row.note("new election", now)
			}
			if f.Leader != nil {
				row.since = f.Leader.Since
			}
		}
		row.compare(f, now)
		present[f.Election] = row
		rows = append(rows, row)
	}
	t.known, t.looked = present, true
	slices.SortStableFunc(rows, func(a, b *topRow) int {
		return cmp.Or(cmp.Compare(attention(a), attention(b)), cmp.Compare(a.name, b.name))
	})
	return rows, nil
}

// attention is the order of what needs some: those without a leader first, and those of which that is not known.
func attention(r *topRow) int {
	if r.leaderless() || r.unreadable() {
		return 0
	}
	return 1
}

// compare notes what has changed since the last look.
func (r *topRow) compare(f listJSON, now time.Time) {
	former, line, readable := r.leader, r.line, r.trouble == ""
	if r.trouble = f.Error; f.Error != "" { // what was there when it could be read may be there still
		if readable {
			r.note("unreadable", now)
		}
		return
	}
	r.leader, r.line = f.Leader, f.Candidates
	switch {
	case former == nil && f.Leader != nil:
		r.since = f.Leader.Since
		r.note("leads", now)
	case former != nil && f.Leader == nil:
		r.since = now
		r.note("lost "+printable(former.bytes()), now)
	case former != nil && former.Zxid != f.Leader.Zxid:
		r.since = f.Leader.Since
		r.note("was "+printable(former.bytes()), now)
	case former != nil && printable(former.bytes()) != printable(f.Leader.bytes()):
		r.note("new data", now)
	case line != f.Candidates:
		r.note(fmt.Sprintf("line %+d", f.Candidates-line), now)
	case !readable:
		r.note("readable", now)
	}
}

func (r *topRow) note(change string, at time.Time) { r.change, r.changed = change, at }

// longestChange is how much of the last change is shown.
const longestChange = 20

func (t *top) table(rows []*topRow, now time.Time) *table {
	all := &table{limit: tableWidth(t.env, t.wide)}
	all.row("ELECTION", "SINCE", "LINE", "LAST CHANGE", "LEADER")
	for _, r := range rows {
		since, change, leader := "-", "-", "none"
		if !r.since.IsZero() {
			since = age(now.Sub(r.since))
		}
		if r.change != "" {
			change = cut(r.change, longestChange) + ", " + age(now.Sub(r.changed)) + " ago"
		}
		switch {
		case r.trouble != "":
			leader = "? (" + r.trouble + ")"
		case r.leader != nil:
			leader = printable(r.leader.bytes())
		case r.line > 0:
			leader = "none, one takes over"
		}
		all.row(r.name, since, strconv.Itoa(r.line), change, leader)
	}
	return all
}

// age is a time that has passed, in its two largest units.
func age(d time.Duration) string {
	d = max(0, d).Truncate(time.Second)
	const day = 24 * time.Hour
	switch {
	case d >= day:
		return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

// screen draws the table where it was before on a terminal, and below it elsewhere.
type screen struct {
	env      *env
	terminal bool
	colours  bool
	last     string // what was printed, elsewhere than on a terminal
}

// What a terminal understands.
const (
	otherScreen, ownScreen = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
	home, eraseLine, erase = "\x1b[H", "\x1b[K", "\x1b[J"
	bold, red, green       = "\x1b[1m", "\x1b[31m", "\x1b[32m"
	plain                  = "\x1b[0m"
)

func (s *screen) begin() { s.control(otherScreen) }

func (s *screen) end() { s.control(ownScreen) }

func (s *screen) control(text string) {
	if s.terminal {
		_, _ = fmt.Fprint(s.env.stdout, text)
	}
}

// draw shows the rows, or the last ones with what is wrong now.
func (s *screen) draw(t *top, rows []*topRow, trouble error) error {
	now := time.Now()
	lines := t.table(rows, now).lines()
	if !s.terminal {
		return s.append(rows, lines, trouble, now)
	}
	columns, height, ok := terminalSize(s.env.stdout)
	if !ok {
		columns, height = width, 24
	}
	missing := 0
	for _, r := range rows {
		if r.leaderless() {
			missing++
		}
	}
	title := fmt.Sprintf("%s  %s  %d elections, %d without a leader", now.Format(time.DateTime), t.root, len(rows), missing)
	if trouble != nil {
		title = fmt.Sprintf("%s  %v", now.Format(time.DateTime), trouble)
	}
	var b strings.Builder
	b.WriteString(home)
	s.line(&b, cut(title, columns), colourOf(trouble != nil, red))
	for i, line := range lines {
		if i+3 > height && i < len(lines)-1 { // the title, this line, and the next
			s.line(&b, fmt.Sprintf("... and %d more", len(lines)-i), "")
			break
		}
		colour := bold
		if i > 0 {
			colour = green
			if attention(rows[i-1]) == 0 {
				colour = red
			}
		}
		s.line(&b, cut(line, columns), colour)
	}
	b.WriteString(erase)
	_, err := fmt.Fprint(s.env.stdout, b.String())
	return err
}

func colourOf(condition bool, colour string) string {
	if condition {
		return colour
	}
	return ""
}

// line ends without a line break where that would make the terminal scroll: the break comes before the next line.
func (s *screen) line(b *strings.Builder, text, colour string) {
	if b.Len() > len(home) {
		b.WriteString("\r\n")
	}
	if s.colours && colour != "" {
		text = colour + text + plain
	}
	b.WriteString(text + eraseLine)
}

// append prints the table when it says something else than before; how long things are so is nothing else.
func (s *screen) append(rows []*topRow, lines []string, trouble error, now time.Time) error {
	var state strings.Builder
	state.WriteString("known\n") // so that an empty table is printed, too
	for _, r := range rows {
		zxid := int64(0)
		if r.leader != nil {
			zxid = r.leader.Zxid
		}
		fmt.Fprintf(&state, "%s %d %d %s %s %v\n", r.name, zxid, r.line, r.trouble, r.change, r.changed)
	}
	if trouble != nil {
		fmt.Fprintf(&state, "trouble\n")
	}
	if state.String() == s.last {
		return nil
	}
	s.last = state.String()
	text := now.Format(timeFormat) + "\n" + strings.Join(lines, "\n") + "\n\n"
	if trouble != nil {
		text = fmt.Sprintf("%s  %v\n\n", now.Format(timeFormat), trouble)
	}
	_, err := fmt.Fprint(s.env.stdout, text)
	return err
}
