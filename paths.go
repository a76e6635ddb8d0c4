package election

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// DefaultRoot is the node below which elections live unless an option says
// otherwise: the Ruby zk gem's, so that its members can stand in the same one.
const DefaultRoot = "/_zkelection"

// MaxNameSize is the most bytes that an election's name may have, every slash
// counted as the two underscores that are written for it; its root may have as
// many. Every request carries the path, some up to six times, as do the
// watches that the client sends again on each connection. Within this bound what
// the paths take of a request is small beside what ZooKeeper lets one hold.
const MaxNameSize = 1_024

const (
	ballotPrefix   = "ballot"
	leaderAckName  = "leader_ack"
	transferName   = "transfer"
	sequenceDigits = 10
	tagDigits      = 16 // v0.1 writes 32

	// sequenceEnd is where ZooKeeper's 32-bit sequence counter stops: from
	// there on several ballots get one number and order means nothing.
	sequenceEnd = 1<<31 - 1
)

// electionPath returns the path of an election's node. Every slash of the
// name becomes two underscores, as in the gem, so a/b and a__b are the same
// election.
func electionPath(root, name string) (string, error) {
	if root == "" {
		root = DefaultRoot
	}
	if err := checkRoot(root); err != nil {
		return "", err
	}
	component := strings.ReplaceAll(name, "/", "__")
	if len(component) > MaxNameSize {
		return "", fmt.Errorf("%w: %.32q... has %d bytes, and at most %d may be", ErrInvalidName, name, len(component), MaxNameSize)
	}
	if why := componentFault(component); why != "" {
		return "", fmt.Errorf("%w: %q %s", ErrInvalidName, name, why)
	}
	return root + "/" + component, nil
}

func checkRoot(root string) error {
	switch {
	case len(root) > MaxNameSize:
		return fmt.Errorf("%w: root %.32q... has %d bytes, and at most %d may be", ErrInvalidPath, root, len(root), MaxNameSize)
	case !strings.HasPrefix(root, "/"):
		return fmt.Errorf("%w: root %q is not absolute", ErrInvalidPath, root)
	case root == "/":
		return fmt.Errorf("%w: root %q: give a path below it", ErrInvalidPath, root)
	case strings.HasSuffix(root, "/"):
		return fmt.Errorf("%w: root %q ends with a slash", ErrInvalidPath, root)
	}
	for component := range strings.SplitSeq(root[1:], "/") {
		if why := componentFault(component); why != "" {
			return fmt.Errorf("%w: a component of root %q %s", ErrInvalidPath, root, why)
		}
	}
	return nil
}

// componentFault says what ZooKeeper has against a path component, or nothing.
// Its rules look at UTF-16 units, which is why everything beyond the basic
// plane (emoji) is out: it is written with surrogates there.
func componentFault(component string) string {
	switch component {
	case "":
		return "is empty"
	case ".", "..":
		return "is a relative path component"
	}
	if !utf8.ValidString(component) {
		return "is not valid UTF-8"
	}
	for _, r := range component {
		switch {
		case r <= 0x1f, r >= 0x7f && r <= 0x9f:
			return fmt.Sprintf("holds the control character %U", r)
		case r >= 0xd800 && r <= 0xf8ff, r >= 0xfff0:
			return fmt.Sprintf("holds %U, which ZooKeeper does not take", r)
		}
	}
	return ""
}

// parents returns the paths from the first component of path down to path.
func parents(path string) []string {
	var all []string
	for i := 1; i < len(path); i++ {
		if path[i] == '/' {
			all = append(all, path[:i])
		}
	}
	return append(all, path)
}

// newTag returns the hex digits that tell our ballots from those of
// others when the reply to their creation was lost. They have to differ from those of
// the ballots beside them only, and are in every list: with ten thousand others in an
// election two are the same in one of 10^15 votes.
func newTag() string { return randomDigits(tagDigits) }

// newNonce returns 32 hex digits that are never the same twice.
func newNonce() string { return randomDigits(32) }

// randomDigits returns so many random hex digits, an even number.
func randomDigits(n int) string {
	random := make([]byte, n/2)
	_, _ = rand.Read(random) // never fails, as of Go 1.24
	return hex.EncodeToString(random)
}

// ballotStem is what a ballot is created as; ZooKeeper appends the number.
func ballotStem(electionPath, tag string, priority int) string {
	return electionPath + "/" + ballotPrefix + "-" + tag + "-" + priorityLetter(priority) + "-"
}

// child is a ballot as the list of children shows it.
type child struct {
	name     string
	sequence int64
}

// parseBallot reads a child's name. The gem takes every child whose name
// begins with "ballot" and orders by the digits at its end; a name without a
// full sequence number was not made by casting a vote.
func parseBallot(name string) (child, bool) {
	rest, ok := strings.CutPrefix(name, ballotPrefix)
	if !ok || len(rest) < sequenceDigits {
		return child{}, false
	}
	cut := len(rest) - sequenceDigits
	// A counter beyond its end is printed with a sign: as one of the ten
	// places, or before ten digits; there the separator stands in front.
	if strings.HasSuffix(rest[:cut], "--") {
		cut--
	}
	sequence, err := strconv.ParseInt(rest[cut:], 10, 64)
	if err != nil || sequence > sequenceEnd || rest[cut] == '+' {
		return child{}, false
	}
	return child{name, sequence}, true
}

// ballotsOf picks the ballots among children, in the order in which they lead.
func ballotsOf(children []string) []child {
	ballots := make([]child, 0, len(children))
	for _, name := range children {
		if b, ok := parseBallot(name); ok {
			ballots = append(ballots, b)
		}
	}
	slices.SortFunc(ballots, byNumber)
	return ballots
}

// byNumber is the order in which ballots lead: by number, not by name, so what stands
// before the number does not matter.
func byNumber(a, b child) int {
	if order := cmp.Compare(a.sequence, b.sequence); order != 0 {
		return order
	}
	return strings.Compare(a.name, b.name)
}

// tagPrefix is what the names of the ballots that carry a tag begin with.
func tagPrefix(tag string) string { return ballotPrefix + "-" + tag + "-" }

// tagged picks the ballots among children that carry our tag, in order.
func tagged(children []string, tag string) []child {
	var ours []string
	prefix := tagPrefix(tag)
	for _, name := range children {
		if strings.HasPrefix(name, prefix) {
			ours = append(ours, name)
		}
	}
	return ballotsOf(ours)
}

// isGemStyle reports whether a member of the Ruby gem has cast a ballot: its
// name has nothing between "ballot" and the number.
func isGemStyle(name string) bool { return len(name) == len(ballotPrefix)+sequenceDigits }

// standing is a ballot's place among the others.
type standing struct {
	ahead       int    // how many ballots are in front of ours
	predecessor string // the name of the next one in front; "" when there is none
	second      string // the name of the one in front of that; "" when there is none
	front       string // the name of the first; "" when that is ours
	givesWay    bool   // for one with a higher priority behind it
	transfer    bool   // the list shows a request for a transfer
	acked       bool   // the list shows an acknowledgement
}

// placeIn is standingOf for a list of all children. Each of N that join reads a list of
// up to N names, so it goes through them once, and puts them in order only if it has to.
func placeIn(children []string, name string) (place standing, ok bool) {
	return placeWithout(children, "", name)
}

// placeWithout is placeIn, but for other ballots of the same tag: they are about to go. With
// no tag all count.
func placeWithout(children []string, tag, name string) (place standing, ok bool) {
	own, isBallot := parseBallot(name)
	stands, outranked, others := false, false, tagPrefix(tag)
	var first, second, predecessor child
	for _, other := range children {
		switch {
		case other == name:
			stands = isBallot
			continue
		case other == transferName:
			place.transfer = true
			continue
		case other == leaderAckName:
			place.acked = true
			continue
		case tag != "" && strings.HasPrefix(other, others):
			continue
		}
		b, ok := parseBallot(other)
		if !ok {
			continue
		}
		if byNumber(b, own) > 0 {
			outranked = outranked || mayOutrank(b.name, name)
			continue
		}
		if place.ahead == 0 || byNumber(b, first) < 0 {
			first = b
		}
		switch {
		case place.ahead == 0 || byNumber(b, predecessor) > 0:
			second, predecessor = predecessor, b
		case place.ahead == 1 || byNumber(b, second) > 0:
			second = b
		}
		place.ahead++
	}
	if !stands {
		return standing{transfer: place.transfer, acked: place.acked}, false
	}
	place.predecessor, place.second, place.front = predecessor.name, second.name, first.name
	if outranked && place.ahead > 0 {
		if tag != "" {
			children = slices.DeleteFunc(slices.Clone(children), func(other string) bool {
				return other != name && strings.HasPrefix(other, others)
			})
		}
		place.givesWay = givesWay(ballotsOf(children), name)
	}
	return place, true
}

// standingOf finds our ballot's place; ok is false when it is not there.
func standingOf(ballots []child, name string) (place standing, ok bool) {
	for i, b := range ballots {
		if b.name == name {
			place.ahead = i
			if i > 0 {
				place.predecessor, place.front = ballots[i-1].name, ballots[0].name
			}
			if i > 1 {
				place.second = ballots[i-2].name
			}
			place.givesWay = givesWay(ballots, name)
			return place, true
		}
	}
	return standing{}, false
}

// isFront reports whether no other ballot is in front of ours. Beyond the end of the counter the order means nothing.
func isFront(ballots []child, name string) bool {
	return len(ballots) > 0 && ballots[0].name == name && ballots[0].sequence >= 0
}

// gemIsNext reports whether the ballot behind ours is one of the Ruby gem's.
func gemIsNext(ballots []child, name string) bool {
	i := slices.IndexFunc(ballots, func(b child) bool { return b.name == name })
	return i >= 0 && i+1 < len(ballots) && isGemStyle(ballots[i+1].name)
}
