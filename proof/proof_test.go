// Package proof holds the proofs of the lease and of the election, and runs them: make prove. See README.md.
package proof

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A proof takes minutes and tools that Go does not bring, so it is asked for.
var prove = flag.String("prove", "", "run the proofs: short, or long for the larger models, too")

// needTools skips a test unless proofs were asked for. Then a tool that is missing is a failure, never a skip.
func needTools(t *testing.T, tools ...string) {
	switch *prove {
	case "":
		t.Skip("a proof: run make prove, or go test ./proof -prove=short")
	case "short", "long":
	default:
		t.Fatalf("-prove=%q: want short or long", *prove)
	}
	for _, tool := range tools {
		_, err := exec.LookPath(tool)
		require.NoError(t, err, "%s is missing: scripts/install-test-deps installs it", tool)
	}
}

// run runs a tool in dir and returns what it wrote.
func run(t *testing.T, dir, stdin, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	cmd.Stdin = strings.NewReader(stdin)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// TestUnlearnedExists checks, without any tool, that what the proofs un-learn is what mutations/ un-learns.
func TestUnlearnedExists(t *testing.T) {
	exists := func(mutation string) {
		_, err := os.Stat(filepath.Join("mutations", mutation+".txt"))
		assert.NoError(t, err)
	}
	for _, row := range leaseRows {
		for _, mutation := range row.unlearns {
			exists(mutation)
			assert.True(t, row.can, "%q un-learns %s and is proved all the same", row.name, mutation)
		}
	}
	for file, list := range map[string][]unlearned{"election.pml": electionUnlearned, "transfer.pml": transferUnlearned} {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		known := make(map[string]bool)
		for _, u := range list {
			known[u.macro] = true
			if u.design == "" {
				exists(u.mutation())
			}
		}
		used := make(map[string]bool)
		for line := range strings.Lines(string(text)) {
			if !strings.HasPrefix(line, "#if") {
				continue
			}
			for _, m := range regexp.MustCompile(`UNLEARN_(\w+)`).FindAllStringSubmatch(line, -1) {
				used[m[1]] = true
			}
		}
		assert.Equal(t, used, known, "what %s un-learns, and what the list has", file)
	}
}
