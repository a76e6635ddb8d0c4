package testutil

import (
	"context"
	"log/slog"
	"time"
)

// What the server has to say is collected under its mutex and told to the Logger
// once that is free, in order, by whoever releases it: the handler is the test's
// code, and may ask the server something.

func (s *Server) logInfo(message string, args ...any) { s.note(slog.LevelInfo, message, args) }

func (s *Server) logWarn(message string, args ...any) { s.note(slog.LevelWarn, message, args) }

// note is called with the lock held.
func (s *Server) note(level slog.Level, message string, args []any) {
	if s.log == nil {
		return
	}
	line := slog.NewRecord(time.Now(), level, message, 0)
	line.Add(args...)
	s.lines = append(s.lines, line)
}

// unlock releases the mutex, and tells what has been noted under it, unless
// somebody does already: then that is who goes on.
func (s *Server) unlock() {
	if len(s.lines) == 0 || s.telling != nil {
		s.mu.Unlock()
		return
	}
	s.telling = make(chan struct{})
	for len(s.lines) > 0 {
		line := s.lines[0]
		s.lines = s.lines[1:]
		s.mu.Unlock()
		s.tell(line)
		s.mu.Lock()
	}
	s.told()
	s.mu.Unlock()
}

func (s *Server) told() {
	close(s.telling)
	s.telling = nil
}

// tell is called without the lock.
func (s *Server) tell(line slog.Record) {
	done := false
	defer func() {
		if !done { // a handler that panics, or ends the goroutine: others go on
			s.mu.Lock()
			s.told()
			s.mu.Unlock()
		}
	}()
	if ctx, handler := context.Background(), s.log.Handler(); handler.Enabled(ctx, line.Level) {
		_ = handler.Handle(ctx, line)
	}
	done = true
}
