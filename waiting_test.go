package election

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/require"
)

var shrinkingLines = flag.Int("line.n", 5000, "how many schedules TestLineNeverTooShort tries")

// A candidate waits behind others, who go in any order. Its lists come from servers that lag,
// its watches fire late and in any order, one may be lost, and what errands have found arrives when
// something else has been heard already. Whatever comes when: who is in front in truth, it never takes
// to be gone. And in the end, when all are, it knows that.
func TestLineNeverTooShort(t *testing.T) {
	met := make(map[string]int)
	for seed := range *shrinkingLines {
		w := newShrinkingLine(t, uint64(seed), met)
		for range 60 {
			w.event()
			w.check()
		}
		w.settle()
	}
	for _, situation := range []string{
		"first by the predecessor's end", "next by the second's end", "second moved up", "second gone, place unknown", "list older than an event",
		"second found gone", "recheck moves up",
	} {
		require.Greater(t, met[situation], *shrinkingLines/500, "%s: hardly met, in %v", situation, met)
	}
	require.NotZero(t, met["list older than the predecessor's place"], "of %d schedules", *shrinkingLines)
}

// shrinkingLine is a candidate, and those in front of it at each moment.
type shrinkingLine struct {
	t       *testing.T
	seed    uint64
	rng     *rand.Rand
	c       *candidacy
	met     map[string]int
	history [][]string // who stood in front, after so many ends
	seen    int        // up to which of these the session has seen
	answers []any      // of the errand that is under way, before it is handed on
	at      int        // and which moment that answer is of
	watched map[<-chan zk.Event]string
	lost    string // the watch on this one never fires
	trace   []string
}

func newShrinkingLine(t *testing.T, seed uint64, met map[string]int) *shrinkingLine {
	s := newSession(time.Minute)
	s.roster.closing, s.helpers.closed = true, true
	s.roster.publish(sessionView{inc: &incarnation{id: 1, ctx: t.Context()}, connected: true})
	w := &shrinkingLine{
		t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 7)), met: met,
		c: onSession(t, s, waiting), watched: make(map[<-chan zk.Event]string),
	}
	w.c.hotStandby = true
	if seed%2 == 0 {
		w.c.follow = FollowLeader
	}
	var front []string
	for i := range 1 + w.rng.IntN(5) {
		front = append(front, fmt.Sprintf("ballot-%d-%010d", i, i))
	}
	w.history = [][]string{front}
	w.c.own().name, w.c.own().sequence = "ballot-own-0000000099", 99
	if w.rng.IntN(4) == 0 {
		w.lost = front[w.rng.IntN(len(front))]
	}
	return w
}

func (w *shrinkingLine) note(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf(format, args...))
}

// now is who is in front in truth.
func (w *shrinkingLine) now() []string { return w.history[len(w.history)-1] }

// read is what the session is shown next: of no earlier moment than what it has seen.
func (w *shrinkingLine) read() []string {
	w.seen += w.rng.IntN(len(w.history) - w.seen)
	return w.history[w.seen]
}

func (w *shrinkingLine) list() standing {
	var all []child
	for _, name := range append(slices.Clone(w.read()), w.c.own().name) {
		b, ok := parseBallot(name)
		require.True(w.t, ok, name)
		all = append(all, b)
	}
	place, ok := standingOf(all, w.c.own().name)
	require.True(w.t, ok)
	return place
}

// watch arms a watch; nil if its ballot is gone already.
func (w *shrinkingLine) watch(name string) <-chan zk.Event {
	if !slices.Contains(w.read(), name) {
		return nil
	}
	watch := make(chan zk.Event, 1)
	w.watched[watch] = name
	return watch
}

func (w *shrinkingLine) event() {
	c := w.c
	switch n := w.rng.IntN(10); {
	case n < 2:
		w.end()
	case n < 4 && c.phase == waiting && len(w.answers) == 0:
		w.ask()
	case n < 6:
		w.answer()
	case n < 8:
		w.fire(c.ballot.line.watch, c.predecessorChanged)
	default:
		w.fire(c.ballot.line.second, c.secondChanged)
	}
	c.now = c.now.Add(time.Millisecond)
}

// end ends a ballot in front.
func (w *shrinkingLine) end() {
	front := slices.Clone(w.now())
	if len(front) == 0 {
		return
	}
	i := 0
	if w.rng.IntN(2) == 0 {
		i = w.rng.IntN(len(front))
	}
	w.note("%s ends", front[i])
	w.history = append(w.history, slices.Delete(front, i, i+1))
}

// ask does what the candidate would: the answer is of this moment, or of one before.
func (w *shrinkingLine) ask() {
	l, own := &w.c.ballot.line, w.c.own()
	switch {
	case l.first():
		return
	case !l.known:
		r := placeResult{ballot: own}
		for r.place = w.list(); r.place.ahead > 0; r.place = w.list() {
			if r.watch = w.watch(r.place.predecessor); r.watch != nil {
				break
			}
			if r.place.ahead == 1 {
				r.place = standing{}
				break
			}
		}
		w.answers = append(w.answers, r)
	case l.lacksSecond() && w.rng.IntN(2) == 0:
		r := secondResult{secondOrder: secondOrder{own, l.place.second}, watch: w.watch(l.place.second)}
		r.gone = r.watch == nil
		w.answers = append(w.answers, r)
	default:
		r := recheckResult{recheckOrder: recheckOrder{ballot: own, predecessor: l.place.predecessor, list: w.rng.IntN(2) == 0}}
		if r.list {
			r.takeList(append(slices.Clone(w.read()), own.name))
			if r.place.predecessor != r.predecessor && !r.predecessorGone {
				w.met["list older than the predecessor's place"]++
			}
		} else {
			r.predecessorGone = !slices.Contains(w.read(), r.predecessor)
		}
		w.answers = append(w.answers, r)
	}
	w.at = w.seen
	w.note("asked: %+v", w.answers[0])
}

// answer hands on what the errand has found.
func (w *shrinkingLine) answer() {
	if len(w.answers) == 0 {
		return
	}
	before := w.c.ballot.line
	answer := w.answers[0]
	w.answers = nil
	w.note("answered")
	w.c.handle(answer)
	after := w.c.ballot.line
	if w.at < w.seen {
		w.met["list older than an event"]++
	}
	switch r := answer.(type) {
	case secondResult:
		if r.gone && before.lacksSecond() && !after.lacksSecond() {
			w.met["second found gone"]++
		}
	case recheckResult:
		if before.second != nil && after.known && before.second == after.watch {
			w.met["recheck moves up"]++
		}
	}
}

// fire brings the event of a watch, if its ballot has gone.
func (w *shrinkingLine) fire(watch <-chan zk.Event, changed func(zk.Event)) {
	name := w.watched[watch]
	if watch == nil || name == w.lost || slices.Contains(w.now(), name) {
		return
	}
	moves := w.rng.IntN(2) == 0 // to a server that lags: an event does not tell the client how far it has seen
	for !moves && slices.Contains(w.history[w.seen], name) {
		w.seen++ // an event comes ahead of what was read later
	}
	w.note("the end of %s is seen", name)
	before := w.c.ballot.line
	changed(zk.Event{Type: zk.EventNodeDeleted})
	switch after := w.c.ballot.line; {
	case after.first():
		w.met["first by the predecessor's end"]++
	case before.second == watch && after.next():
		w.met["next by the second's end"]++
	case before.second == watch && !after.known:
		w.met["second gone, place unknown"]++
	case after.known && before.second == after.watch:
		w.met["second moved up"]++
	}
}

// check compares what the candidate knows with the truth.
func (w *shrinkingLine) check() {
	l, front := &w.c.ballot.line, w.now()
	if !l.known {
		return
	}
	must := func(ok bool, what string) {
		if !ok {
			w.t.Fatalf("schedule %d: %s: in front are %q, known is %+v, by\n%q", w.seed, what, front, *l, w.trace)
		}
	}
	must(len(front) <= l.place.ahead, "one that stands is taken to be gone")
	for i, name := range front {
		switch {
		case l.place.ahead <= 2:
			must(name == l.place.predecessor || name == l.place.second, "one that stands is not known")
		case i == len(front)-1:
			must(name <= l.place.predecessor, "it does not watch the next one")
		}
	}
	must((l.place.ahead > 1) == (l.place.second != ""), "the second")
	must((l.place.ahead > 0) == (l.watch != nil), "the watch")
	must(l.watch == nil || w.watched[l.watch] == l.place.predecessor, "the predecessor's watch is on another one")
	must(l.second == nil || w.watched[l.second] == l.place.second, "the second's watch is on another one")
}

// settle lets all in front go, and the candidate hear of it.
func (w *shrinkingLine) settle() {
	for len(w.now()) > 0 {
		w.end()
	}
	for range 400 {
		if w.c.ballot.line.first() {
			return
		}
		w.event()
		w.check()
	}
	w.t.Fatalf("schedule %d: all are gone, known is %+v, by\n%q", w.seed, w.c.ballot.line, w.trace)
}

// A second in front that no time is set for is watched at once, and not never.
func TestSecondInFrontWithoutATime(t *testing.T) {
	c := inPhase(t, waiting)
	c.hotStandby = true
	c.ballot.line = line{known: true, place: standing{ahead: 2, predecessor: "p", second: "s"}}
	require.True(t, c.situation(c.session.currentView()).second)
	c.ballot.line.secondAt = c.now.Add(1)
	require.False(t, c.situation(c.session.currentView()).second, "before its time")
	c.ballot.line.secondAt = c.now
	require.True(t, c.situation(c.session.currentView()).second)
	c.hotStandby = false
	require.False(t, c.situation(c.session.currentView()).second, "of a candidate that is no hot standby")
}
