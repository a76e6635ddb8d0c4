package election_test

import (
	"flag"
	"fmt"
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
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given { // what runs beside others are scenarios on real servers, which wait more than they work
		if err := flag.Set("test.parallel", "6"); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(withZooKeepers{m})
}

// withZooKeepers are the tests, behind which the ZooKeepers that they have shared
// are ended.
type withZooKeepers struct{ tests *testing.M }

func (w withZooKeepers) Run() int {
	code := w.tests.Run()
	for _, z := range zooKeepers {
		if err := z.close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	return code
}
