//go:build !linux

// Package monotonic reads a clock that no change of the date moves.
package monotonic

import "time"

var started = time.Now()

// Now is good for one process only: what compares processes runs on Linux.
func Now() int64 { return int64(time.Since(started)) }
