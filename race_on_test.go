//go:build race

package election

const RaceDetector = true
