package testutil

import (
	"net"
	"os"
	"time"
)

// Isolate lets nothing pass either way between the client of a session and the
// server, until heal is called: no request arrives, no answer and no event
// leaves, and neither side sees the connection close. New connections of the
// same session are let in and not answered. Healed, all arrives that was on its
// way, as TCP would repeat it; a connection that the server has ended meanwhile
// is found closed.
func (s *Server) Isolate(id int64) (heal func()) {
	return s.isolate(func() { s.isolated[id]++ }, func() {
		if s.isolated[id]--; s.isolated[id] == 0 {
			delete(s.isolated, id)
		}
	})
}

// IsolateAll is Isolate for all clients, those to come included: a Dialer then
// waits for its timeout, or for heal. (Over TCP a connection still comes about,
// and is not answered.)
func (s *Server) IsolateAll() (heal func()) {
	return s.isolate(func() { s.isolatedAll++ }, func() { s.isolatedAll-- })
}

func (s *Server) isolate(begin, end func()) (heal func()) {
	s.mu.Lock()
	defer s.unlock()
	begin()
	healed := false
	return func() {
		s.mu.Lock()
		defer s.unlock()
		if healed {
			return
		}
		healed = true
		end()
		s.reconnect()
		s.broadcast()
	}
}

// isolated reports whether nothing passes between client and server.
func (c *conn) isolated() bool {
	s := c.srv
	return s.isolatedAll > 0 ||
		c.session != 0 && s.isolated[c.session] > 0 || c.claimed != 0 && s.isolated[c.claimed] > 0
}

// reconnect lets the connections that are not isolated any more go on.
func (s *Server) reconnect() {
	for c := range s.conns {
		if c.isolated() {
			continue
		}
		if c.dead && !c.closing {
			_ = c.nc.Close()
		}
		c.poke()
		if !c.busy && !c.dead {
			c.busy = true
			s.spawn(c.drain)
		}
	}
}

// reach waits, for a dialer, until the server is not isolated from everybody. A
// timeout of 0 is none.
func (s *Server) reach(addr string, timeout time.Duration) error {
	var late <-chan time.Time
	if timeout > 0 {
		timer := time.NewTimer(timeout)
		defer timer.Stop()
		late = timer.C
	}
	for {
		s.mu.Lock()
		open, changed := s.isolatedAll == 0 || s.closed, s.changed
		s.unlock()
		if open {
			return nil
		}
		select {
		case <-changed:
		case <-s.done:
		case <-late:
			return &net.OpError{Op: "dial", Net: "mem", Addr: pipeAddr(addr), Err: os.ErrDeadlineExceeded}
		}
	}
}
