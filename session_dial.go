package election

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// rounds is the default dialer. A name with several addresses is gone round:
// net.Dial would begin each time with the first one that takes a connection,
// also if nothing good ever comes of it.
//
// A look-up may take longer than the client allows for a dial: five seconds, as a rule, where
// the first of two name servers is down. So it goes on behind the dial, and the next one
// finds what came of it. Where name servers do not answer, or fail, a name keeps the
// addresses that it had last: the ensemble is not to be lost with them.
type rounds struct {
	lookup func(ctx context.Context, host string) ([]string, error)
	begin  func(fn func()) bool // has a goroutine do it; false: the Session is at its end
	ctx    context.Context      // of look-ups; ends with the Session
	end    context.CancelFunc

	mu      sync.Mutex
	next    map[string]int         // by host: how many times it was dialed
	known   map[string][]string    // by host: the addresses that it had last
	pending map[string]*resolution // by host: the look-up that is under way
}

// resolution is one look-up. The rest is written before done is closed.
type resolution struct {
	done      chan struct{}
	addresses []string
	err       error
}

func newRounds(begin func(fn func()) bool) *rounds {
	r := &rounds{
		lookup: net.DefaultResolver.LookupHost, begin: begin,
		next: make(map[string]int), known: make(map[string][]string), pending: make(map[string]*resolution),
	}
	r.ctx, r.end = context.WithCancel(context.Background())
	return r
}

// resolve returns the addresses of a host. It waits for no more than a part of the dial's
// time where others will do.
func (r *rounds) resolve(ctx context.Context, host string) ([]string, error) {
	r.mu.Lock()
	known, current := r.known[host], r.pending[host]
	mine := current == nil
	if mine {
		current = &resolution{done: make(chan struct{})}
		r.pending[host] = current
	}
	r.mu.Unlock()
	if mine && !r.begin(func() {
		addresses, err := r.lookup(r.ctx, host)
		r.resolved(host, current, addresses, err)
	}) {
		r.resolved(host, current, nil, net.ErrClosed)
	}
	if len(known) > 0 {
		now := time.Now()
		end, _ := ctx.Deadline()
		part, cancel := context.WithDeadline(ctx, now.Add(end.Sub(now)/4))
		defer cancel()
		ctx = part
	}
	select {
	case <-current.done:
		var answer *net.DNSError
		if len(known) == 0 || current.err == nil || errors.As(current.err, &answer) && answer.IsNotFound {
			return current.addresses, current.err
		}
	case <-ctx.Done():
		if len(known) == 0 {
			return nil, &net.DNSError{Err: "no name server has answered yet", Name: host, IsTimeout: true}
		}
	}
	return known, nil
}

func (r *rounds) resolved(host string, current *resolution, addresses []string, err error) {
	slices.Sort(addresses) // a resolver may turn them round by itself
	current.addresses, current.err = slices.Compact(addresses), err
	r.mu.Lock()
	delete(r.pending, host)
	if err == nil {
		r.known[host] = current.addresses
	}
	r.mu.Unlock()
	close(current.done)
}

// dial connects to one of the addresses of a host: to the next one in turn, and
// if that fails to those after it.
func (r *rounds) dial(network, server string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	host, port, err := net.SplitHostPort(server)
	if err != nil {
		return nil, err
	}
	addresses := []string{host}
	if _, err := netip.ParseAddr(host); err != nil {
		if addresses, err = r.resolve(ctx, host); err != nil {
			return nil, err
		}
	}
	r.mu.Lock()
	first := r.next[server] // of the server: with two ports of a name in turn each would begin with the same address
	r.next[server]++
	r.mu.Unlock()
	var errs []error
	for i := range addresses {
		// Each gets its share of the time that is left.
		share, cancel := ctx, func() {}
		if now, left := time.Now(), len(addresses)-i; left > 1 {
			end, _ := ctx.Deadline()
			share, cancel = context.WithDeadline(ctx, now.Add(end.Sub(now)/time.Duration(left)))
		}
		c, err := (&net.Dialer{}).DialContext(share, network, net.JoinHostPort(addresses[(first+i)%len(addresses)], port))
		cancel()
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}
