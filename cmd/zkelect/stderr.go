package main

import (
	"io"
	"time"
)

// lossyWriter passes lines on to a writer, and never fails or blocks: to standard error may be connected a pipe that nobody
// reads any more, and what zkelect has to do matters more than what it has to say. Lines for which there is no room are lost.
type lossyWriter struct {
	lines   chan []byte
	flushes chan chan struct{}
}

func newLossyWriter(to io.Writer) *lossyWriter {
	w := &lossyWriter{lines: make(chan []byte, 256), flushes: make(chan chan struct{})}
	go func() {
		for {
			select {
			case line := <-w.lines:
				_, _ = to.Write(line)
			case flushed := <-w.flushes:
				for len(w.lines) > 0 {
					_, _ = to.Write(<-w.lines)
				}
				close(flushed)
			}
		}
	}()
	return w
}

func (w *lossyWriter) Write(p []byte) (int, error) {
	select {
	case w.lines <- append([]byte(nil), p...):
	default:
	}
	return len(p), nil
}

// flush waits until what was written before has been passed on, but no longer than limit.
func (w *lossyWriter) flush(limit time.Duration) {
	late := time.NewTimer(limit)
	defer late.Stop()
	flushed := make(chan struct{})
	select {
	case w.flushes <- flushed:
	case <-late.C:
		return
	}
	select {
	case <-flushed:
	case <-late.C:
	}
}
