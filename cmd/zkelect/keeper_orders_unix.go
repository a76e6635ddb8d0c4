//go:build unix

package main

import (
	"bytes"
	"errors"
	"os"
	"sync"
	"syscall"
	"time"
)

// orderPipe is the keeper's end of the pipe on which zkelect writes its orders. A goroutine reads it; the keeper reads it,
// too, before it ends a command, so that an order which lies in the pipe counts even where that goroutine got no processor.
type orderPipe struct {
	conn    syscall.RawConn
	say     func(format string, args ...any)
	arrived chan struct{} // has an element when there is something to take, or the pipe has ended

	mu      sync.Mutex
	line    []byte // the beginning of one
	waiting []order
	over    bool // the pipe has ended
}

func newOrderPipe(fd int, say func(format string, args ...any)) (*orderPipe, error) {
	// A pipe that does not block can be waited for, and looked into without waiting.
	if err := syscall.SetNonblock(fd, true); err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	conn, err := os.NewFile(uintptr(fd), "orders").SyscallConn()
	if err != nil {
		return nil, err
	}
	p := &orderPipe{conn: conn, say: say, arrived: make(chan struct{}, 1)}
	go p.follow()
	return p, nil
}

// follow reads until the pipe ends.
func (p *orderPipe) follow() {
	for over := false; !over; {
		err := p.conn.Read(func(fd uintptr) (done bool) {
			done, over = p.drain(fd)
			return done || over
		})
		if err != nil {
			p.end()
			over = true
		}
		p.tell()
	}
}

func (p *orderPipe) tell() {
	select {
	case p.arrived <- struct{}{}:
	default:
	}
}

// read takes in what lies in the pipe, without waiting.
func (p *orderPipe) read() {
	if err := p.conn.Control(func(fd uintptr) { p.drain(fd) }); err != nil {
		p.end()
	}
}

func (p *orderPipe) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
}

// drain reads until there is no more, and parses what is whole.
func (p *orderPipe) drain(fd uintptr) (news, over bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var buffer [4096]byte
	for !p.over {
		n, err := syscall.Read(int(fd), buffer[:])
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EAGAIN):
			return news, false
		case err != nil || n == 0:
			p.over = true
		default:
			news = true
			p.line = append(p.line, buffer[:n]...)
			p.parse()
		}
	}
	return news, true
}

// parse moves whole lines to the waiting orders. What it does not understand it says; that is nothing to obey.
func (p *orderPipe) parse() {
	for {
		line, rest, whole := bytes.Cut(p.line, []byte("\n"))
		if !whole {
			return
		}
		p.line = rest
		o, err := parseOrder(string(line), time.Now())
		if err != nil {
			p.say("the keeper of a command: %v", err)
			o = order{}
		}
		p.waiting = append(p.waiting, o)
	}
}

// take returns the orders that wait, and whether there are no more to come.
func (p *orderPipe) take() (orders []order, over bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	orders, p.waiting = p.waiting, nil
	return orders, p.over
}

// first waits for the first order, and leaves the others where they are. A lease that it begins with is as long as the last one
// that has arrived by then: to a keeper that was slow to begin the first one may be over. It is empty when the pipe has ended.
func (p *orderPipe) first() order {
	for {
		<-p.arrived
		p.read()
		orders, over := p.take()
		if over {
			return order{}
		}
		if len(orders) == 0 {
			continue
		}
		first := orders[0]
		for _, o := range orders[1:] {
			if first.kind != "lease" || o.kind == "stop" {
				break
			}
			if o.kind == "lease" {
				first.until = o.until
			}
		}
		p.mu.Lock()
		p.waiting = append(orders[1:], p.waiting...)
		p.mu.Unlock()
		p.tell()
		return first
	}
}
