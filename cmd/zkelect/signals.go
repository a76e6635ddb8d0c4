package main

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// signals is what is done with each signal that comes. Those of stopSignals end zkelect in order, the second one at once;
// with forward, run passes some on to its command instead. It never dies of a SIGPIPE.
type signals struct {
	incoming  chan os.Signal
	forwarded chan syscall.Signal // what is to be passed on; one that finds no room is lost

	mu        sync.Mutex
	passingOn map[syscall.Signal]bool
}

// interrupted is the cause of the end of the context after a signal.
type interrupted struct{ signal syscall.Signal }

func (i interrupted) Error() string { return i.signal.String() }

// handleSignals returns a context that a signal ends.
func handleSignals(e *env) context.Context {
	s := &signals{incoming: make(chan os.Signal, 16), forwarded: make(chan syscall.Signal, 16)}
	e.signals = s
	ignoreHarmless()
	for _, stop := range stopSignals {
		if !signal.Ignored(stop) { // what nohup has begun is not to end by SIGHUP
			signal.Notify(s.incoming, stop)
		}
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	go func() {
		for stopping := false; ; {
			received, ok := (<-s.incoming).(syscall.Signal)
			switch {
			case !ok:
			case s.passesOn(received):
				select {
				case s.forwarded <- received:
				default:
				}
			case stopping && received == syscall.SIGHUP:
				// Nobody insists: when a terminal closes the kernel sends one and the shell another, and systemd sends one
				// after its SIGTERM (SendSIGHUP=).
			case stopping:
				if w, ok := e.stderr.(*lossyWriter); ok {
					w.flush(100 * time.Millisecond)
				}
				os.Exit(exitSignal + int(received))
			default:
				stopping = true
				cancel(interrupted{received})
			}
		}
	}()
	return ctx
}

// forward has these signals passed on from now on.
func (s *signals) forward(all []syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.passingOn = make(map[syscall.Signal]bool)
	for _, one := range all {
		s.passingOn[one] = true
		signal.Notify(s.incoming, one)
	}
}

func (s *signals) passesOn(one syscall.Signal) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.passingOn[one]
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
