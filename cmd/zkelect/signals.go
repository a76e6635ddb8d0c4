package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// signals is what is done with each signal that comes. Those of stopSignals end zkelect in order, the second one at once;
// with forward, run passes some on to its command instead. It never dies of a SIGPIPE.
//
// What finds no room in a channel is lost, so each signal that ends zkelect has a channel of its own: no flood of others, such as
// those that are passed on, takes its room.
type signals struct {
	stops     map[syscall.Signal]chan os.Signal
	forwarded chan os.Signal // what is to be passed on
}

// interrupted is the cause of the end of the context after a signal.
type interrupted struct{ signal syscall.Signal }

func (i interrupted) Error() string { return i.signal.String() }

// handleSignals returns a context that a signal ends.
func handleSignals(e *env) context.Context {
	e.signals = newSignals()
	return e.signals.end(e.stderr)
}

func newSignals() *signals {
	s := &signals{stops: make(map[syscall.Signal]chan os.Signal), forwarded: make(chan os.Signal, 16)}
	ignoreHarmless()
	for _, stop := range stopSignals {
		if !signal.Ignored(stop) { // what nohup has begun is not to end by SIGHUP
			s.stops[stop] = make(chan os.Signal, 2) // a first and a second one
			signal.Notify(s.stops[stop], stop)
		}
	}
	return s
}

// end returns a context that one of stopSignals ends.
func (s *signals) end(stderr io.Writer) context.Context {
	ctx, cancel := context.WithCancelCause(context.Background())
	received := make(chan syscall.Signal)
	for stop, incoming := range s.stops {
		go func() {
			for range incoming {
				received <- stop
			}
		}()
	}
	go func() {
		for asked := false; ; {
			stop := <-received
			if asked && stop != syscall.SIGHUP {
				if w, ok := stderr.(*lossyWriter); ok {
					w.flush(100 * time.Millisecond)
				}
				os.Exit(exitSignal + int(stop))
			}
			// With a SIGHUP nobody insists, in whatever order they come: when a terminal closes the kernel sends one and the shell
			// another, and systemd sends one with its SIGTERM (SendSIGHUP=), which may be handled before that.
			asked = asked || stop != syscall.SIGHUP
			cancel(interrupted{stop})
		}
	}()
	return ctx
}

// forward has these signals passed on from now on.
func (s *signals) forward(all []syscall.Signal) {
	for _, one := range all {
		signal.Notify(s.forwarded, one) // first, so that it is handled all the time
		if incoming := s.stops[one]; incoming != nil {
			signal.Stop(incoming)
		}
	}
}

// forget drops what was to be passed on to a command that did not run.
func (s *signals) forget() {
	for {
		select {
		case <-s.forwarded:
		default:
			return
		}
	}
}
