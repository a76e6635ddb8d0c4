//go:build !race

package election

const RaceDetector = false
