package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync/atomic"

	"github.com/spf13/cobra"

	"github.com/zkelection/election/guard"
)

// The guard of sessions (package guard) closes the session of a process that has died: of zkelect itself in run, of any
// service in the command guard. It is not the keeper of a command (keeper.go), which kills that when zkelect has lost its
// lease or is gone. In run the guard waits for the end of the keeper, so that the next candidate does not lead before the
// command has ended.

func guardCommand(e *env) *cobra.Command {
	var socket, mode string
	c := &cobra.Command{
		Use:   "guard --listen SOCKET [FLAGS]",
		Short: "close the sessions of services that die",
		Long: `Closes the ZooKeeper sessions of services that die (kill -9, a panic, the memory
killer), so that the next candidate leads within milliseconds and not after the
session timeout. Services connect to SOCKET with the library's package guard, by
its options or by the environment variable ELECTION_GUARD. It ends by SIGTERM
when no service is connected any more; a second one ends it at once. To systemd
it reports that it is ready once it listens.

Without --listen it is what the library starts as a helper, by itself.

Exit status:

    0      a signal ended it
    1      it cannot listen, or the system has no way to tell of a death
    2      the command line is wrong
    128+N  a second signal N ended it at once`,
		Example:               "  zkelect guard --listen /run/election-guard/socket --mode 0660",
		Args:                  noArguments,
		DisableFlagsInUseLine: true,
		RunE: func(c *cobra.Command, _ []string) error {
			permissions, err := strconv.ParseUint(mode, 8, 9)
			if err != nil || permissions == 0 {
				return usageError{fmt.Errorf("--mode %s: want octal permissions, such as 0660", mode)}
			}
			if socket == "" {
				return usageError{errors.New("no --listen: only the library starts a guard without it")}
			}
			systemd := newNotifier(e.getenv)
			defer systemd.stopping()
			// The watchdog hears of a loop that has gone round since it heard the last time.
			var alive atomic.Bool
			defer systemd.watch(func() bool { return alive.Swap(false) })()
			err = guard.Listen(c.Context(), socket, &guard.ListenOptions{
				Mode: os.FileMode(permissions), Logger: slog.New(slog.NewTextHandler(e.stderr, nil)), Listening: systemd.ready,
				Alive: func() { alive.Store(true) }, AliveEvery: systemd.interval / 2,
			})
			if err != nil {
				return &exit{exitFailed, err}
			}
			return nil
		},
	}
	c.Flags().StringVar(&socket, "listen", "", "the unix `SOCKET` to serve on; one that is left of an earlier guard is replaced")
	c.Flags().StringVar(&mode, "mode", "0600", "the socket's permissions, `OCTAL`: who may write to it may be guarded")
	return c
}

// startSessionGuard starts what run --guard says. A system that cannot have a guard goes without, as long as none was named.
func startSessionGuard(o *connection, which string) (*guard.Guard, error) {
	opts := &guard.Options{Logger: o.logger(slog.LevelWarn), TLS: o.tls.forGuard()}
	switch {
	case which == "off", o.dev: // the server of --dev dies with this process
		return nil, nil
	case which == "own":
		opts.Executable = ownExecutable
	default:
		opts.Socket = which
	}
	g, err := guard.Start(opts)
	if err != nil && which == "own" {
		if !errors.Is(err, guard.ErrUnsupported) {
			o.env.say("%v; if zkelect is killed, the next candidate leads after the session timeout", err)
		}
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("--guard %s: want own, off, or the socket of a zkelect guard: %w", which, err)
	}
	return g, nil
}

// ownExecutable is this program, on the one system that has guards.
const ownExecutable = "/proc/self/exe"
