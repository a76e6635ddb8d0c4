package election

import (
	"time"

	"github.com/go-zookeeper/zk"
)

// ballot is a ballot of ours that is known to exist. It does not change.
type ballot struct {
	path     string
	name     string
	sequence int64
	token    int64 // its czxid
	inc      *incarnation
}

// ballotState is the life of one ballot, from the beginning of the vote that
// casts it until it is known to be gone. It is made and dropped as a whole: what
// is said here of one ballot cannot be left over for the next one. A ballot that
// moves to the end of the line is another one from then on.
type ballotState struct {
	node  *ballot // nil while it is being cast
	watch <-chan zk.Event

	data    []byte // what it carries, as far as is known
	catchUp bool   // it is to be given the data that the acknowledgement has

	withdraw bool // it goes, when what is under way has ended
	verify   bool // no claim before a recheck has found that it still stands
	deleted  bool // its end was seen while it was being moved

	line     line
	recheck  recheck
	ack      acknowledgement
	losing   *losing // only while it waits, is cast to wait, or moves from there
	demotion demotion
	rank     rank
	handover *transferRequest // leadership is being passed on for it
}

// own returns the ballot that is known to exist; nil when there is none.
func (c *candidacy) own() *ballot {
	if c.ballot == nil {
		return nil
	}
	return c.ballot.node
}

// line is a ballot's place in the line. While it is known, those whom place counts and names
// are all who can be in front: a list has shown them, and whoever has been taken out since is gone
// (docs/protocol.md, section 4). One is taken out only where all that are left are named, so that
// the end of a ballot cannot count for that of another one.
type line struct {
	known    bool // place is, and the predecessor is watched
	nextSoon bool // the second has gone while the place was known: it was the leader, as a rule
	place    standing
	watch    <-chan zk.Event // on the predecessor's end

	second   <-chan zk.Event // on the end of the one in front of that; nil: not watched (HotStandby)
	secondAt time.Time       // when it is to be watched
}

// secondPerPlace is for how long a candidate that has come puts off watching the second in front,
// for each that is in front: the line does not move up faster, and those who join together do not
// all ask in the same moment.
const secondPerPlace = 250 * time.Microsecond

// placeAt makes a place known that a list has shown. The watches on those that stay
// where they were go on.
func (l *line) placeAt(place standing, watch <-chan zk.Event, now time.Time) {
	former := *l
	*l = line{known: true, place: place, watch: watch, secondAt: now.Add(time.Duration(place.ahead) * secondPerPlace)}
	if former.known && place.second == former.place.second {
		l.second, l.secondAt = former.second, former.secondAt
	}
}

// listed takes what a recheck has found, the predecessor being the same. An old list is true as well,
// since those in front only become fewer, but may show some who are known to be gone.
func (l *line) listed(place standing, now time.Time) {
	if place.ahead <= l.place.ahead {
		l.placeAt(place, l.watch, now)
	}
}

// first reports whether nobody is in front.
func (l *line) first() bool { return l.known && l.place.ahead == 0 }

// next reports whether nobody but the predecessor is in front.
func (l *line) next() bool { return l.known && l.place.ahead == 1 }

// lacksSecond reports whether the second in front is not watched.
func (l *line) lacksSecond() bool { return l.known && l.place.second != "" && l.second == nil }

// predecessorGone takes the predecessor out. If it was the only one, nobody is in
// front now: numbers only grow, so nobody can have come in between. If there was but one
// more, that one is the predecessor, and watched already.
func (l *line) predecessorGone() {
	switch {
	case l.next():
		*l = line{known: true}
	case l.place.ahead == 2 && l.second != nil:
		place := l.place
		place.ahead, place.predecessor, place.second = 1, place.second, ""
		*l = line{known: true, place: place, watch: l.second}
	default:
		l.forgetPlace()
	}
}

// secondGone takes the second in front out. If there was nobody before it, the
// predecessor leads now.
func (l *line) secondGone() {
	if l.place.ahead == 2 {
		l.place.ahead, l.place.second, l.place.front = 1, "", l.place.predecessor
		l.second = nil
		return
	}
	l.forgetPlace()
	l.nextSoon = true
}

// forgetPlace makes the place unknown. How many were in front stays as it was, for
// Status, and who the first was, which a move is conditional on.
func (l *line) forgetPlace() {
	*l = line{place: standing{ahead: l.place.ahead, front: l.place.front}}
}

// recheck is when the nodes that are watched are read all the same, in case a
// watch was lost.
type recheck struct {
	at   time.Time // the next periodic recheck, at one node
	turn int       // whose turn it is then
	all  bool      // all nodes, as soon as can be
}

// acknowledgement is what a ballot has acknowledged. It outlives a term: after a
// lapse the acknowledgement stands as the ballot does.
type acknowledgement struct {
	ackRecord
	missing bool            // it has to be written again
	watch   <-chan zk.Event // on its end
}

// ackRecord is what is known of an acknowledgement, for those who have to find
// out whether the one that stands is ours. Errands are given a copy.
type ackRecord struct {
	czxid    int64    // of it; 0 when that is not known
	version  int32    // of its data, as we have left them; 0 when that is not known
	possible bool     // there may be one
	unsure   bool     // it has been asked for, and no reply has come
	data     [][]byte // it carries one of these
}

// nextBallot is what the next ballot is cast with, and outlives the one that there is.
type nextBallot struct {
	data     []byte // what it, and the next acknowledgement, carry
	priority priority
	stray    stray
	stood    bool // there has been a ballot, so the election's node is there
}

// voteOrder is the next vote, or another try of the one that has come to nothing.
func (n *nextBallot) voteOrder(placed func(standing)) castOrder {
	if n.stray.tag == "" {
		n.stray.tag = newTag()
	}
	return castOrder{stray: n.stray, data: n.data, priority: n.priority.now(), again: n.stood, placed: placed}
}

// voteDone: a vote has come to its one ballot, and the next one is another.
func (n *nextBallot) voteDone() { n.stray, n.stood = stray{}, true }

// stray is a ballot that may exist though the reply to its creation was lost, or
// that is known to and has no ballotState. It can outlive a session, since the
// client sends a request that was queued under one session on the next. The next
// vote looks for it first.
type stray struct {
	tag      string // that the vote under way, or the last one, casts with; "" for none
	possible bool   // a ballot with the tag may exist
	name     string // of it, if that is known: then there is no other
}
