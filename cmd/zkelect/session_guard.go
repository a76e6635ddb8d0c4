package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"

	sessionguard "github.com/zkelection/election/guard"
)

// There are two kinds of guards here, both processes. The guard of a command
// (guard.go) is the command's parent, and kills it when zkelect has lost its
// lease or is gone. The guard of sessions (package guard) closes the session of
// a process that has died: of zkelect itself in run, of any service in the
// command guard. In run the second waits for the end of the first, so that the
// next candidate does not lead before the command has ended.

func guardCommand() command {
	return command{
		name:      "guard",
		arguments: "--listen SOCKET [FLAGS]",
		about: `
Closes the ZooKeeper sessions of services that die (kill -9, a panic, the memory
killer), so that the next candidate leads within milliseconds and not after the
session timeout. Services connect to SOCKET with the library's package guard, by
its options or by the environment variable ELECTION_GUARD. It ends by SIGTERM
when no service is connected any more; a second one ends it at once.

Without --listen it is what the library starts as a helper, by itself.`,
		exits: `
  0  a signal ended it
  1  it cannot listen, or the system has no way to tell of a death
  2  the command line is wrong`[1:],
		run: guardSessions,
	}
}

func guardSessions(ctx context.Context, e *env, args []string) (int, error) {
	o := &options{FlagSet: flag.NewFlagSet(e.command.name, flag.ContinueOnError), env: e}
	o.SetOutput(io.Discard)
	socket := o.String("listen", "", "the unix `SOCKET` to serve on; one that is left of an earlier guard is replaced")
	mode := o.String("mode", "0600", "the socket's permissions, `OCTAL`: who may write to it may be guarded")
	switch err := o.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		o.help()
		return exitOK, errHelp
	case err != nil:
		return exitUsage, usageError{err}
	}
	if err := o.noArguments(); err != nil {
		return exitUsage, err
	}
	permissions, err := strconv.ParseUint(*mode, 8, 9)
	if err != nil || permissions == 0 {
		return exitUsage, usageError{fmt.Errorf("--mode wants octal permissions, not %q", *mode)}
	}
	if *socket == "" {
		return exitUsage, usageError{errors.New("no --listen: only the library starts a guard without it")}
	}
	err = sessionguard.Listen(ctx, *socket, &sessionguard.ListenOptions{
		Mode: os.FileMode(permissions), Logger: slog.New(slog.NewTextHandler(e.stderr, nil)),
	})
	if err != nil {
		return exitFailed, err
	}
	return exitOK, nil
}

// startSessionGuard starts what --guard says. A system that cannot have a guard
// goes without, as long as none was named.
func startSessionGuard(o *options, which string) (*sessionguard.Guard, error) {
	level := slog.LevelWarn
	if o.verbose {
		level = slog.LevelDebug
	}
	opts := &sessionguard.Options{Logger: slog.New(slog.NewTextHandler(o.env.stderr, &slog.HandlerOptions{Level: level}))}
	switch {
	case which == "off", o.dev: // the server of --dev dies with this process
		return nil, nil
	case which == "own":
		opts.Executable = ownExecutable
	default:
		opts.Socket = which
	}
	g, err := sessionguard.Start(opts)
	if err != nil && which == "own" {
		if !errors.Is(err, sessionguard.ErrUnsupported) {
			o.env.say("%v; if zkelect is killed, the next candidate leads after the session timeout", err)
		}
		return nil, nil
	}
	return g, err
}

// ownExecutable is this program, on the one system that has guards.
const ownExecutable = "/proc/self/exe"
