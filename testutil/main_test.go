package testutil

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails on goroutines that any test has left behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
