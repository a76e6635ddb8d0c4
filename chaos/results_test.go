package chaos

import "github.com/zkelection/election/chaos/internal/report"

// results is what the tests of this process have measured, for the report.
// The tests write it one after the other, TestMain reads it after them.
var results struct {
	seed         uint64
	cutsPossible bool
	main         *report.Phase
	rolling      *report.Phase
	cuts         []followerCut
	stops        *stopResult
}
