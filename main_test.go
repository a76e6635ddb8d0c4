package election

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails on goroutines that any test has left behind.
func TestMain(m *testing.M) {
	if run := os.Getenv(stoppedCandidateEnv); run != "" {
		stoppedCandidate(run)
		return
	}
	goleak.VerifyTestMain(m)
}
