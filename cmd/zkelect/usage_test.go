package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestUsage(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args   string
		status int
		says   string
	}{
		{"", 2, "Usage: zkelect COMMAND"},
		{"help", 0, "Usage: zkelect COMMAND"},
		{"--help", 0, "Usage: zkelect COMMAND"},
		{"help run", 0, "Usage: zkelect run"},
		{"run --help", 0, "Exit status:"},
		{"watch -h", 0, "Usage: zkelect watch"},
		{"status --help", 0, "Usage: zkelect status"},
		{"list --help", 0, "Usage: zkelect list"},
		{"top --help", 0, "Usage: zkelect top"},
		{"rum", 2, `unknown command "rum"`},
		{"rum", 2, "Did you mean this?\n\trun\n"},
		{"stauts --election e", 2, "Did you mean this?\n\tstatus\n"},
		{"help rum", 2, `unknown command "rum"`},
		{"frobnicate", 2, `unknown command "frobnicate"`},
		{"version", 0, "zkelect "},
		{"help version", 0, "Usage: zkelect version"},
		{"--version", 0, ", go1."},
		{"version more", 2, `"more"`},
		{"run --election e", 2, "no servers given"},
		{"run --servers x:1", 2, "no election given"},
		{"run --servers x:1 --election e", 2, "no command given"},
		{"run --servers x:1 --election e --grace -1s -- true", 2, "--grace -1s is negative"},
		{"run --servers x:1 --election e --overlap -1s -- true", 2, "--overlap -1s is negative"},
		{"run --servers x:1 --election e --pause -1s -- true", 2, "--pause -1s is negative"},
		{"run --servers x:1 --election e --ready-every 0 -- true", 2, "--ready-every 0s: want a duration above zero"},
		{"run --servers x:1 --election e --ready= -- true", 2, "--ready is empty"},
		{"run --servers x:1 --election e --priority high -- true", 2, `invalid argument "high" for "--priority" flag: want a whole number` + "\n"},
		{"run --servers x:1 --election e --try=perhaps -- true", 2, `invalid argument "perhaps" for "--try" flag: want true or false` + "\n"},
		{"run --servers x:1 --election e --grace soon -- true", 2, "a duration such as 10s"},
		{"run --servers x:1 --election e --timeout 10 -- true", 2, `invalid argument "10" for "--timeout" flag: want a duration such as 10s`},
		{"run --servers x:1 --election e --timeout 0 -- true", 2, "--timeout 0s"},
		{"run --servers x:1 --election e --timeout -4s -- true", 2, "--timeout -4s"},
		{"run --servers x:1 --election e --timeout 720h -- true", 2, "more than ZooKeeper can count"},
		{"run --servers x:1 --election e --tick -5s -- true", 2, "--tick -5s"},
		{"run --servers x:1 --election e --tick 20s -- true", 2, "--tick 20s is more than the session timeout"},
		{"run --servers x:1 --election e --tick 1us -- true", 2, "--tick 1µs is less than a millisecond: give the servers' tickTime"},
		{"status --servers http://x:1 --election e", 2, "for TLS give --tls\n"},
		{"status --servers u@x:1 --election e", 2, "give credentials by --auth\n"},
		{"status --servers= --election e", 2, "--servers is empty"},
		{"status --servers x:1 --election e --tick -5s", 2, "--tick -5s"},
		{"list --servers x:1 --timeout 0", 2, "--timeout 0s"},
		{"watch --servers x:1 --election e --wait -1s", 2, "--wait -1s"},
		{"top --servers x:1 --interval 0", 2, "--interval"},
		{"run --servers x:1 --election e --private -- true", 2, "--private needs --auth"},
		{"run --servers x:1 --election e --try --keep -- true", 2, "--try and --keep"},
		{"run --servers x:1 --election e --forward KILL -- true", 2, "--forward KILL"},
		{"run --servers x:1 --election e -- no-such-command-here", 127, "no-such-command-here"},
		{"run --servers x:1 --election e -- /etc/passwd", 126, "permission denied"},
		{"run --servers x:1 --election e no-such-command-here --frobnicate", 127, "no-such-command-here"},
		{"run --dev --servers x:1 --election e -- true", 2, "exclude each other"},
		{"run --dev --election .. -- true", 2, "invalid name"},
		{"run --dev --election e --root relative -- true", 2, "not absolute"},
		{"run --dev --election e --frobnicate -- true", 2, "frobnicate"},
		{"watch --servers x:1", 2, "no election given"},
		{"watch --servers x:1 --election e more", 2, `"more"`},
		{"watch --dev --election a\x01b", 2, "control character"},
		{"status --servers x:1,,y:2 --election e", 2, "want HOST:PORT"},
		{"status --servers x:1/chroot --election e", 2, "for a chroot give --root\n"},
		{"status --servers x:1 --auth secret --election e", 2, "SCHEME:CREDENTIALS"},
		{"status --servers x:1 --tls-cert /nowhere --election e", 2, "belong together"},
		{"status --servers x:1 --tls-ca /nowhere --election e", 2, "--tls-ca: open /nowhere"},
		{"status --servers x:1 --tls-ca /etc/passwd --election e", 2, "no certificate in /etc/passwd"},
		{"status --dev --tls --election e", 2, "--dev has no TLS"},
		{"status --dev --root / --election e", 2, "invalid path"},
		{"status --servers 127.0.0.1:1 --wait 10s --election e", 1, "no ZooKeeper answers at 127.0.0.1:1 in 10s (dial tcp 127.0.0.1:1: connect"},
		{"list --servers 127.0.0.1:1 --wait 300ms", 1, "no ZooKeeper answers"},
		{"top --servers 127.0.0.1:1 --wait 300ms", 1, "no ZooKeeper answers"},
		{"watch --servers 127.0.0.1:1 --wait 300ms --election e", 1, "no ZooKeeper answers"},
		{"run --servers 127.0.0.1:1 --wait 300ms --election e -- true", 125, "no ZooKeeper answers"},
		{"list --servers x:1 more", 2, `"more"`},
		{"guard --help", 0, "--listen"},
		{"guard", 2, "--listen"},
		{"guard --listen /nowhere/at/all more", 2, `"more"`},
		{"guard --listen /nowhere/at/all --mode 9", 2, "--mode 9: want octal permissions, such as 0660"},
		{"guard --listen /nowhere/at/all", 1, "no such file"},
		{"run --servers x:1 --election e --guard /nowhere/at/all -- true", 125, "--guard /nowhere/at/all: want own, off, or the socket of a zkelect guard: "},
		{"list --dev --root relative", 2, "not absolute"},
		{"completion", 2, "want one of bash, zsh, fish"},
		{"completion csh", 2, "want one of bash, zsh, fish, got [\"csh\"]"},
	} {
		t.Run(test.args, func(t *testing.T) {
			t.Parallel()
			status, stdout, stderr := zkelect(t, "", strings.Fields(test.args)...)
			assert.Equal(t, test.status, status)
			told, silent := stderr, stdout
			if test.status == 0 {
				told, silent = stdout, stderr
			}
			assert.True(t, strings.Contains(told, test.says), "it does not say %q", test.says)
			assert.Empty(t, silent, "on the wrong stream")
		})
	}
}

// TestServersWithSpaces: the second server is used, too.
func TestServersWithSpaces(t *testing.T) {
	t.Parallel()
	servers := inProcess(t)
	for _, list := range []string{"127.0.0.1:1, " + servers, " " + servers + " ,127.0.0.1:1 "} {
		status, _, _ := zkelect(t, "", "list", "--servers", list)
		assert.Zero(t, status, "%q", list)
	}
}

// help is what a command prints for --help.
func help(t *testing.T, command ...string) string {
	t.Helper()
	var out, errors lines
	e := &env{stdout: &out, stderr: &errors, getenv: func(string) string { return "" }}
	assert.Equal(t, exitOK, execute(t.Context(), e, append(command, "--help")), "%v: %s", command, &errors)
	return out.String()
}

// TestHelp: the help of each command tells every flag and the exit statuses, and fits a narrow terminal.
func TestHelp(t *testing.T) {
	root := rootCommand(&env{getenv: func(string) string { return "" }})
	commands := append(slices.Clone(root.Commands()), root)
	require.GreaterOrEqual(t, len(commands), 9, "commands")
	for _, c := range commands {
		text := help(t, strings.Fields(c.CommandPath())[1:]...)
		for line := range strings.Lines(text) {
			line = strings.TrimSuffix(line, "\n")
			assert.LessOrEqual(t, len(line), 80, "%s: too long: %s", c.Name(), line)
			assert.Equal(t, line, strings.TrimRight(line, " \t"), "%s: a space at the end", c.Name())
		}
		if !asks(c) {
			continue
		}
		for _, flag := range []string{"servers", "dev", "root", "timeout", "tick", "auth", "tls", "tls-ca", "tls-cert", "tls-key", "tls-server-name", "wait", "verbose"} {
			assert.True(t, strings.Contains(text, " --"+flag+" "), "%s: no word of --%s", c.Name(), flag)
		}
		assert.True(t, strings.Contains(text, "\n    2 "), "%s: no word of the exit status 2", c.Name())
	}
}

// asks reports whether a command asks ZooKeeper.
func asks(c *cobra.Command) bool {
	return slices.Contains([]string{"run", "status", "list", "top", "watch"}, c.Name())
}
