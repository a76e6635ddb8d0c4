package testutil

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// pipeBuffer is how much one side may write before the other has read, as the
// kernel's buffers let a socket do.
const pipeBuffer = 256 << 10

// newPipe makes a connection in memory: two ends, each buffered, with
// deadlines, and nothing that blocks other than on channels, so that it works
// in testing/synctest. What was written before a Close is still read.
func newPipe(client, server net.Addr) (clientEnd, serverEnd net.Conn) {
	up, down := new(stream), new(stream)
	return &pipeEnd{in: down, out: up, local: client, remote: server},
		&pipeEnd{in: up, out: down, local: server, remote: client}
}

// A pipeAddr names an end of a pipe.
type pipeAddr string

func (pipeAddr) Network() string  { return "mem" }
func (a pipeAddr) String() string { return string(a) }

// A stream is one direction of a pipe. Its mutex is held for moments only.
type stream struct {
	mu sync.Mutex
	// The fields below are guarded by mu.
	buf           []byte
	writerClosed  bool
	readerClosed  bool
	changed       chan struct{} // made by who waits, closed when anyone might go on
	readDeadline  time.Time
	writeDeadline time.Time
}

// wake lets every blocked reader and writer look again. The caller holds mu.
func (s *stream) wake() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// wait blocks until the stream has changed or the deadline is over. The caller
// holds mu, which is released meanwhile.
func (s *stream) wait(deadline time.Time) {
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	changed := s.changed
	s.mu.Unlock()
	defer s.mu.Lock()
	if deadline.IsZero() {
		<-changed
		return
	}
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	}
}

func over(deadline time.Time) bool {
	return !deadline.IsZero() && !time.Now().Before(deadline)
}

func (s *stream) read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.readerClosed:
			return 0, net.ErrClosed
		case over(s.readDeadline):
			return 0, os.ErrDeadlineExceeded
		case len(s.buf) > 0:
			n := copy(p, s.buf)
			s.buf = s.buf[n:]
			if len(s.buf) == 0 {
				s.buf = nil
			}
			s.wake()
			return n, nil
		case s.writerClosed:
			return 0, io.EOF
		case len(p) == 0:
			return 0, nil
		}
		s.wait(s.readDeadline)
	}
}

func (s *stream) write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	written := 0
	for {
		switch {
		case s.writerClosed:
			return written, net.ErrClosed
		case s.readerClosed:
			return written, io.ErrClosedPipe
		case over(s.writeDeadline):
			return written, os.ErrDeadlineExceeded
		}
		if n := min(len(p), pipeBuffer-len(s.buf)); n > 0 {
			s.buf = append(s.buf, p[:n]...)
			p = p[n:]
			written += n
			s.wake()
		}
		if len(p) == 0 {
			return written, nil
		}
		s.wait(s.writeDeadline)
	}
}

func (s *stream) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	s.wake()
}

type pipeEnd struct {
	in, out       *stream
	local, remote net.Addr
}

func (p *pipeEnd) Read(b []byte) (int, error) {
	n, err := p.in.read(b)
	return n, p.wrap("read", err)
}

func (p *pipeEnd) Write(b []byte) (int, error) {
	n, err := p.out.write(b)
	return n, p.wrap("write", err)
}

// wrap gives an error the form that a socket's has; io.EOF stays bare.
func (p *pipeEnd) wrap(op string, err error) error {
	if err == nil || err == io.EOF { //nolint:errorlint // made above, never wrapped
		return err
	}
	return &net.OpError{Op: op, Net: "mem", Source: p.local, Addr: p.remote, Err: err}
}

func (p *pipeEnd) Close() error {
	p.in.change(func() { p.in.readerClosed = true; p.in.buf = nil })
	p.closeWrite()
	return nil
}

// closeWrite ends what this end sends; it can still read.
func (p *pipeEnd) closeWrite() {
	p.out.change(func() { p.out.writerClosed = true })
}

func (p *pipeEnd) LocalAddr() net.Addr  { return p.local }
func (p *pipeEnd) RemoteAddr() net.Addr { return p.remote }

func (p *pipeEnd) SetDeadline(t time.Time) error {
	_ = p.SetReadDeadline(t)
	return p.SetWriteDeadline(t)
}

func (p *pipeEnd) SetReadDeadline(t time.Time) error {
	p.in.change(func() { p.in.readDeadline = t })
	return nil
}

func (p *pipeEnd) SetWriteDeadline(t time.Time) error {
	p.out.change(func() { p.out.writeDeadline = t })
	return nil
}
