//go:build unix

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// shellTests are what each shell is asked to complete, in its own way, after it has loaded the script $SCRIPT; the answers
// are lines. zsh completes on a terminal only, so there it is only looked whether the script loads.
var shellTests = map[string]string{
	"bash": `
_init_completion() { COMPREPLY=(); _get_comp_words_by_ref cur prev words cword; }
_get_comp_words_by_ref() { words=("${COMP_WORDS[@]}"); cword=$COMP_CWORD; cur=${words[cword]}; prev=${words[cword-1]}; }
__ltrim_colon_completions() { :; }
compopt() { :; }
. "$SCRIPT"
complete -p zkelect >/dev/null || exit 1
try() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}; COMP_TYPE=9; __start_zkelect; printf '%s\n' "${COMPREPLY[@]}"; }
try zkelect sta
try zkelect status --elec
try zkelect status --election TestComp`,
	"zsh": `
compdef() { print -r -- "$@"; }
. "$SCRIPT"
whence -f _zkelect >/dev/null || exit 1`,
	"fish": `
source $SCRIPT
complete -C "zkelect sta" | string split -f1 \t
complete -C "zkelect status --elec" | string split -f1 \t
complete -C "zkelect status --election TestComp" | string split -f1 \t
true`,
}

// TestCompletion: each shell completes commands, flags and the names of elections.
func TestCompletion(t *testing.T) {
	t.Parallel()
	servers := inProcess(t)
	_, c := member(t, servers, "x")
	campaign(t, c)
	dir := t.TempDir()
	link := filepath.Join(dir, "zkelect")
	require.NoError(t, os.Symlink(os.Args[0], link))
	for shell, test := range shellTests {
		t.Run(shell, func(t *testing.T) {
			t.Parallel()
			status, script, _ := zkelect(t, "", "completion", shell)
			require.Zero(t, status)
			path := filepath.Join(dir, shell)
			require.NoError(t, os.WriteFile(path, []byte(script), 0o600))
			program := checker(t, shell)
			cmd := exec.CommandContext(t.Context(), program, "-c", test) //nolint:gosec // a test's
			cmd.Env = append(os.Environ(), asZkelect+"=1", "ZK_SERVERS="+servers, "SCRIPT="+path, "PATH="+dir+":"+os.Getenv("PATH"), "HOME="+dir)
			output, err := cmd.CombinedOutput()
			require.NoError(t, err, "%s", output)
			wanted := []string{"status", "--election", "TestCompletion"}
			if shell == "zsh" {
				wanted = []string{"_zkelect zkelect"}
			}
			for _, want := range wanted {
				assert.Contains(t, string(output), want+"\n")
			}
		})
	}
}

// TestCompletionNames: what the scripts ask zkelect itself.
func TestCompletionNames(t *testing.T) {
	onBoth(t, func(t *testing.T, servers string) {
		_, c := member(t, servers, "x")
		campaign(t, c)
		for _, command := range []string{"run", "status", "watch"} {
			_, stdout, _ := zkelect(t, servers, "__complete", command, "--wait", "1m", "--election", "")
			assert.Contains(t, stdout, electionOf(t)+"\n", command)
		}
		_, stdout, _ := zkelect(t, "127.0.0.1:1", "__complete", "status", "--election", "")
		assert.True(t, strings.HasPrefix(stdout, ":"), "nobody answers")
	})
}
