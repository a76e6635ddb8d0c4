package chaos

// results is what the tests of this process have measured, for the report.
var results struct {
	cuts  []followerCut
	stops *stopResult
}
