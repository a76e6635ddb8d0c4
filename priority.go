package election

import "strings"

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
	const tagDigits = 32
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
