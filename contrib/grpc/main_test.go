package grpc

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails when a goroutine is left, of a resolver that was closed for
// one.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
