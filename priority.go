package election

import (
	"context"
	"strings"
	"time"

	"github.com/zkelection/election/internal/lease"
)

// Priority: who should be next, of those who wait. It stands in a ballot's name as a
// letter, so that every list shows it; the order stays that of the numbers. Who has a
// better one behind it goes to the end of the line, and that is all.

// The priorities that there are. The letter of the lowest is a, that of 0 is j.
const (
	lowestPriority  = -9
	highestPriority = 9
)

func checkPriority(priority int) error {
	if priority < lowestPriority || priority > highestPriority {
		return errorf("priority %d: it is from %d to %d", priority, lowestPriority, highestPriority)
	}
	return nil
}

func priorityLetter(priority int) string { return string(rune('a' + priority - lowestPriority)) }

// priorityOf returns the priority that a ballot's name shows. Names of the gem and of
// versions before this one show none; their members take no part in moves.
func priorityOf(name string) (priority int, ok bool) {
	rest, ok := strings.CutPrefix(name, ballotPrefix+"-")
	if !ok || len(rest) < tagDigits+len("-j-")+sequenceDigits || strings.Trim(rest[:tagDigits], "0123456789abcdef") != "" {
		return 0, false
	}
	rest = rest[tagDigits:]
	priority = int(rest[1]) - 'a' + lowestPriority
	if rest[0] != '-' || rest[2] != '-' || checkPriority(priority) != nil {
		return 0, false
	}
	// What is left is the number and nothing else: beyond the counter's end it has a sign.
	number := strings.TrimPrefix(rest[3:], "-")
	return priority, strings.Trim(number, "0123456789") == "" && len(number) >= sequenceDigits-1 && len(number) <= sequenceDigits
}

// mayOutrank reports whether a ballot's name may show a higher priority than another one's. It
// looks at nothing but the letters, which is enough to pass over nearly all of a long list.
func mayOutrank(name, other string) bool {
	const letter = len(ballotPrefix+"-") + tagDigits + len("-")
	return len(name) > letter && len(other) > letter && name[letter] > other[letter]
}

// givesWay reports whether the ballot of that name is to go to the end of a line for one
// with a higher priority behind it. The first, which leads, and ballots that show no
// priority are not counted. It goes only while those that are better than itself
// stand in order among themselves: then at most n-1 moves, in whatever order they come,
// bring n into order, where otherwise up to 2^(n-1)-1 would.
func givesWay(ballots []child, name string) bool {
	own, shown := priorityOf(name)
	if !shown || len(ballots) == 0 || ballots[0].name == name {
		return false
	}
	passed, behind := false, false
	least := highestPriority + 1 // of the better ones so far
	for _, b := range ballots[1:] {
		passed = passed || b.name == name
		priority, shown := priorityOf(b.name)
		if !shown || priority <= own {
			continue
		}
		if priority > least {
			return false
		}
		least = priority
		behind = behind || passed
	}
	return behind
}

// priority is what a candidate's loop knows of its own.
type priority struct {
	wanted  int  // by the option, or the last SetPriority
	demoted bool // it went to the end for want of a lease, or its takeover failed
	relabel bool // SetPriority was called, and the ballot may show another one

	// The lease that it holds, and since when, as far as its turns have seen.
	lease *lease.Lease
	since time.Time

	waiters []chan error // of SetPriority
}

// now is what the next ballot shows.
func (p *priority) now() int {
	if p.demoted {
		return lowestPriority
	}
	return p.wanted
}

// demote is for who has shown that it cannot lead now. What lease it held before says
// nothing to the contrary.
func (p *priority) demote() { p.demoted, p.lease = true, nil }

// countLease ends a demotion when a lease has been held for a session timeout.
func (p *priority) countLease(now time.Time, view sessionView, needed bool, timeout time.Duration) {
	var held *lease.Lease
	if needed && view.inc != nil {
		if l := view.inc.lease.Load(); l != nil && l.Valid() {
			held = l
		}
	}
	switch {
	case held != p.lease:
		p.lease, p.since = held, now
	case held != nil && p.demoted && now.Sub(p.since) >= timeout:
		p.demoted = false
	}
}

// rank is what lists have shown of those behind a ballot that waits.
type rank struct {
	since     time.Time // a better one has stood behind it; zero if none has
	notBefore time.Time // no move before
	givesWay  bool      // in two lists, far enough apart
}

// seen takes what a list shows.
func (r *rank) seen(gives bool, now time.Time, timeout time.Duration) {
	switch {
	case !gives:
		r.since, r.givesWay = time.Time{}, false
	case r.since.IsZero():
		r.since = now
	default:
		r.givesWay = now.Sub(r.since) >= timeout/2 && !now.Before(r.notBefore)
	}
}

// SetPriority changes CandidateOptions.Priority. A candidate that waits gives its
// place in line up for it: it goes to the end, once a leader has acknowledged, and
// those behind it that are worse give way to it in time. One that leads, or is about
// to, goes on, and its next ballot has the new priority. What ZooKeeper refuses the
// move with is returned; then, and if ctx ends first, the change is made all the same as
// soon as it can be.
func (c *Candidate) SetPriority(ctx context.Context, priority int) error {
	if err := checkPriority(priority); err != nil {
		return err
	}
	inside := inCallbackOf(ctx, c)
	reply := make(chan error, 1)
	c.inbox.push(priorityCommand{priority, reply})
	if inside && c.running() {
		return nil
	}
	return c.explain(c.wait(ctx, reply), "set the priority in")
}

type priorityCommand struct {
	priority int
	reply    chan error
}

func (c *candidacy) setPriority(m priorityCommand) {
	if c.closing {
		m.reply <- ErrClosed
		return
	}
	c.priority.wanted, c.priority.demoted = m.priority, false
	c.priority.waiters = append(c.priority.waiters, m.reply)
	c.priority.relabel = true
	c.transfers.notBefore = time.Time{} // for whoever asks now
}

// mustRelabel reports whether SetPriority was called, and the ballot shows another one.
func (c *candidacy) mustRelabel() bool {
	if !c.priority.relabel || c.own() == nil {
		return false
	}
	shown, ok := priorityOf(c.own().name)
	return ok && shown != c.priority.now()
}

// settlePriority answers those whose change is made: the ballot shows it, or there
// is none that has to.
func (c *candidacy) settlePriority() {
	p := &c.priority
	if !p.relabel {
		return
	}
	switch c.phase {
	case casting, moving:
		return
	case waiting:
		if c.mustRelabel() {
			return
		}
	case idle, claiming, winning, acking, leading, leaving, withdrawing, ended:
	}
	p.relabel = false
	c.replyAll(&p.waiters, nil)
}
