//go:build !race

package election_test

const raceFactor = 1
