package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

const manualFile = "zkelect.1"

// TestManual: the manual page in the repository is what the help says now, and the formatter takes it without a warning.
func TestManual(t *testing.T) {
	page := manualPage(rootCommand(&env{getenv: func(string) string { return "" }}))
	file, err := os.ReadFile(manualFile)
	if err != nil {
		t.Fatal(err)
	}
	if string(file) != page {
		t.Error("zkelect.1 is not up to date: run make man")
	}
	for _, part := range []string{".SS zkelect run ", ".SS zkelect top ", ".B \\-\\-try\n", "ZK_TLS_CA", "with \\-\\-try: somebody else", ".B \\-\\-servers HOST:PORT,...\n"} {
		if !strings.Contains(page, part) {
			t.Errorf("no %q", part)
		}
	}
	cmd := exec.CommandContext(t.Context(), checker(t, "groff"), "-man", "-ww", "-Tutf8", "-z", manualFile) //nolint:gosec // a test's
	if output, err := cmd.CombinedOutput(); err != nil || len(output) > 0 {
		t.Errorf("%v: %s", err, output)
	}
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
