package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const manualFile = "zkelect.1"

// TestManual: the manual page in the repository is what the help says now, and the formatter takes it without a warning.
func TestManual(t *testing.T) {
	page := manualPage(rootCommand(&env{getenv: func(string) string { return "" }}))
	file, err := os.ReadFile(manualFile)
	require.NoError(t, err)
	assert.True(t, string(file) == page, "zkelect.1 is not up to date: run make man")
	for _, part := range []string{".SS zkelect run ", ".SS zkelect top ", ".B \\-\\-try\n", "ZK_TLS_CA", "with \\-\\-try: somebody else", ".B \\-\\-servers HOST:PORT,...\n"} {
		assert.True(t, strings.Contains(page, part), "no %q", part)
	}
	cmd := exec.CommandContext(t.Context(), checker(t, "groff"), "-man", "-ww", "-Tutf8", "-z", manualFile) //nolint:gosec // a test's
	output, err := cmd.CombinedOutput()
	assert.NoError(t, err)
	assert.Empty(t, string(output))
}

// checker is a program that checks what zkelect prints. Where there is none the test is skipped, but not in CI.
func checker(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil && os.Getenv("ELECTION_REQUIRE_CHECKERS") == "1" {
		t.Fatal(err)
	}
	if err != nil {
		t.Skip(err)
	}
	return path
}
