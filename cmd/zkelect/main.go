// Command zkelect holds elections on ZooKeeper from the shell: it runs a command
// only while it leads, watches leaders come and go, and shows who stands where.
//
//	zkelect run --servers zk1:2181,zk2:2181 --election nightly -- backup.sh
//
// "zkelect help" tells the rest.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	sessionguard "github.com/zkelection/election/guard"
)

// Exit codes. Those of run that are not the command's own are what env and
// timeout use.
const (
	exitOK         = 0
	exitFailed     = 1
	exitUsage      = 2
	exitNoLeader   = 3
	exitLost       = 124
	exitRunFailed  = 125
	exitCannotExec = 126
	exitNotFound   = 127
	exitSignal     = 128 // and the signal's number
)

const overview = `zkelect holds elections on ZooKeeper.

Usage: zkelect COMMAND [FLAGS]

Commands:
  run      run a command only while leading
  watch    print each leader, and each leader's death, as it happens
  status   show an election: its leader and its candidates in order
  list     list the elections
  guard    close the sessions of services that die, so that the next leads at once
  version  print the version

"zkelect COMMAND --help" tells the flags and exit codes of each.

The servers are given by --servers, or else by the environment variable
ZK_SERVERS, as HOST:PORT,HOST:PORT. To try things out without a ZooKeeper,
--dev starts one inside zkelect and tells its address.
`

// command is one of the subcommands.
type command struct {
	name, arguments, about string
	exits                  string
	run                    func(ctx context.Context, e *env, args []string) (int, error)
}

func commands() []command {
	return []command{runCommand(), watchCommand(), statusCommand(), listCommand(), guardCommand()}
}

// env is what a command has of the process.
type env struct {
	stdout, stderr io.Writer
	getenv         func(string) string
	command        command
}

func (e *env) say(format string, args ...any) {
	_, _ = fmt.Fprintf(e.stderr, "zkelect: "+format+"\n", args...)
}

// usageError is the user's mistake in the command line.
type usageError struct{ error }

// interrupted is the cause of the end of the context after a signal.
type interrupted struct{ signal syscall.Signal }

func (i interrupted) Error() string { return i.signal.String() }

func main() {
	sessionguard.Init(nil) // in a process that is to be the guard of another's sessions this does not return
	if len(os.Args) > 1 && os.Args[1] == guardArgument {
		os.Exit(guard(os.Args[2:]))
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		if s, ok := (<-signals).(syscall.Signal); ok {
			signal.Reset() // a second one ends the process at once
			cancel(interrupted{s})
		}
	}()
	os.Exit(dispatch(ctx, &env{stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv}, os.Args[1:]))
}

func dispatch(ctx context.Context, e *env, args []string) int {
	if len(args) == 0 {
		_, _ = io.WriteString(e.stderr, overview)
		return exitUsage
	}
	name, rest := args[0], args[1:]
	switch strings.TrimLeft(name, "-") {
	case "help", "h":
		if len(rest) == 0 {
			_, _ = io.WriteString(e.stdout, overview)
			return exitOK
		}
		name, rest = rest[0], []string{"--help"}
	}
	if strings.TrimLeft(name, "-") == "version" {
		_, _ = fmt.Fprintln(e.stdout, version())
		return exitOK
	}
	for _, c := range commands() {
		if c.name == name {
			e.command = c
			return execute(ctx, e, rest)
		}
	}
	e.say("there is no command %q; \"zkelect help\" lists them", name)
	return exitUsage
}

// version tells what this was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "zkelect, built without module information"
	}
	return fmt.Sprintf("zkelect %s, %s", info.Main.Version, info.GoVersion)
}

func execute(ctx context.Context, e *env, args []string) int {
	code, err := e.command.run(ctx, e, args)
	var usage usageError
	switch {
	case err == nil:
	case errors.Is(err, errHelp):
		return exitOK
	case errors.As(err, &usage):
		e.say("%v", err)
		e.say("\"zkelect %s --help\" tells what it takes", e.command.name)
		return exitUsage
	default:
		e.say("%v", err)
	}
	return code
}
