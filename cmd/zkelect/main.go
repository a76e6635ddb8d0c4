// Command zkelect holds elections on ZooKeeper from the shell: it runs a command only while it leads, watches leaders come
// and go, and shows who stands where.
//
//	zkelect run --servers zk1:2181,zk2:2181 --election scheduler -- scheduler --foreground
//
// "zkelect help" tells the rest.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/zkelection/election/guard"
)

// Exit statuses. Those of run that are not the command's own are what env and timeout use, and lockf for exitOther.
const (
	exitOK         = 0
	exitFailed     = 1
	exitUsage      = 2
	exitNoLeader   = 3
	exitOther      = 75 // with run --try: somebody else stands in front
	exitLost       = 124
	exitRunFailed  = 125
	exitCannotExec = 126
	exitNotFound   = 127
	exitSignal     = 128 // and the signal's number
)

func main() {
	guard.Init(nil) // in a process that is to be the guard of another's sessions this does not return
	switch {
	case os.Getpid() == 1:
		os.Exit(beFirstProcess())
	case len(os.Args) > 1 && os.Args[1] == keeperArgument:
		os.Exit(keep(os.Args[2:]))
	case len(os.Args) > 2 && os.Args[1] == beginArgument:
		os.Exit(begin(os.Args[2:]))
	}
	inOrder := endsInOrder()
	stderr := newLossyWriter(os.Stderr)
	e := &env{stdout: output{os.Stdout}, stderr: stderr, getenv: os.Getenv}
	ctx := handleSignals(e)
	status := execute(ctx, e, os.Args[1:])
	stderr.flush(time.Second)
	inOrder()
	os.Exit(status)
}

// env is what a command has of the process.
type env struct {
	stdout, stderr io.Writer
	getenv         func(string) string
	signals        *signals
}

func (e *env) say(format string, args ...any) {
	_, _ = fmt.Fprintf(e.stderr, "zkelect: "+format+"\n", args...)
}

// usageError is the user's mistake in the command line.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

// exit is how a command ends otherwise than well: with a status, and with an error that is still to be said, or nil.
type exit struct {
	status int
	err    error
}

func (x *exit) Error() string {
	if x.err == nil {
		return fmt.Sprintf("exit status %d", x.status)
	}
	return x.err.Error()
}

func (x *exit) Unwrap() error { return x.err }

// execute runs the command line and returns the exit status.
func execute(ctx context.Context, e *env, args []string) int {
	root := rootCommand(e)
	root.SetArgs(args)
	command, err := root.ExecuteContextC(ctx)
	var x *exit
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errOutputClosed):
		return closedPipe // as anybody who writes to a pipe that nobody reads; there is nothing to be said
	case errors.As(err, &usage), !errors.As(err, &x): // the second is what the command-line library found
		e.say("%v", err)
		e.say("\"%s --help\" tells what it takes", command.CommandPath())
		return exitUsage
	case x.err != nil:
		e.say("%v", x.err)
		if errors.Is(x.err, zk.ErrNoAuth) {
			e.say("that election is not open to everybody: --auth says who you are")
		}
	}
	return x.status
}
