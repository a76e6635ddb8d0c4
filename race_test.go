//go:build race

package election_test

// raceFactor is what the race detector costs, on a busy machine.
const raceFactor = 20
