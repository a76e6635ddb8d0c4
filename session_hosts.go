package election

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/go-zookeeper/zk"
)

// hosts is the default zk.HostProvider: it goes round the servers in random
// order and leaves their names to the dialer, so that they are resolved anew
// for each connection. The client's own resolves them once, forever.
type hosts struct {
	mu      sync.Mutex
	servers []string
	next    int       // index of the server to give out next
	tries   int       // how many were given out since the last connection
	since   time.Time // of the last connection
}

var _ zk.HostProvider = (*hosts)(nil)

// Init takes the servers.
func (h *hosts) Init(servers []string) error {
	if len(servers) == 0 {
		return errors.New("no servers given")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.servers = slices.Clone(servers)
	rand.Shuffle(len(servers), func(i, j int) { h.servers[i], h.servers[j] = h.servers[j], h.servers[i] })
	h.next, h.tries = 0, 0
	return nil
}

// Len returns the number of servers.
func (h *hosts) Len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.servers)
}

// Next returns the next server. retryStart is true when the round is complete
// since the last connection, and when a connection has lasted for less than a
// second; the client then pauses for a second. With a single
// server it may be asked twice in a row before that: once to hear that the
// session has expired, and once for a new one.
func (h *hosts) Next() (server string, retryStart bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	server = h.servers[h.next]
	h.next = (h.next + 1) % len(h.servers)
	h.tries++
	hasty := h.tries == 1 && time.Since(h.since) < time.Second
	return server, hasty || h.tries > 2 && (h.tries-1)%len(h.servers) == 0
}

// Connected notes that the server given out last has taken the session.
func (h *hosts) Connected() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tries, h.since = 0, time.Now()
}

// checkServers returns the servers without the spaces around them, and an
// error that says what to write instead for one that could never be reached.
func checkServers(servers []string) ([]string, error) {
	if len(servers) == 0 {
		return nil, errors.New("no servers given")
	}
	checked := make([]string, len(servers))
	for i, server := range servers {
		var err error
		if checked[i], err = checkServer(strings.TrimSpace(server)); err != nil {
			return nil, fmt.Errorf("server %d of %d, %q: %w", i+1, len(servers), server, err)
		}
	}
	return checked, nil
}

// checkServer returns the server, with its port if that has to be named here: the
// client adds the default port only where there is no colon.
func checkServer(server string) (string, error) {
	switch {
	case server == "":
		return "", errors.New(`it is empty: write "host:port"`)
	case strings.ContainsAny(server, ",;"):
		return "", errors.New("give each server as an element of its own")
	case strings.Contains(server, "://"):
		return "", errors.New(`it is a URL: write "host:port", and for TLS set SessionOptions.Dialer`)
	case strings.Contains(server, "/"):
		return "", errors.New(`a path does not belong here: write "host:port", and for a chroot set Root in CandidateOptions and ObserverOptions`)
	case strings.Contains(server, "@"):
		return "", errors.New(`a user does not belong here: write "host:port", and give credentials in SessionOptions.Auth`)
	case strings.ContainsFunc(server, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }):
		return "", errors.New(`there is a space in it: write "host:port"`)
	case strings.HasPrefix(server, "[") && strings.HasSuffix(server, "]"):
		server = net.JoinHostPort(server[1:len(server)-1], strconv.Itoa(zk.DefaultPort))
	case isNumber(server):
		return "", errors.New(`it is a port without a host: write "host:port"`)
	case !strings.Contains(server, ":"):
		return server, checkCharacters(server) // the port is 2181
	}
	host, port, err := net.SplitHostPort(server)
	switch {
	case err != nil:
		return "", fmt.Errorf(`%w: write "host:port", and "[address]:port" for an IPv6 address`, err)
	case host == "":
		return "", errors.New(`there is no host before the colon: write "host:port"`)
	case port == "":
		return "", errors.New(`there is no port behind the colon: write "host:port"`)
	}
	if strings.Contains(host, ":") {
		if _, err := netip.ParseAddr(host); err != nil {
			return "", errors.New("what stands in brackets is no IPv6 address")
		}
	} else if err := checkCharacters(host); err != nil {
		return "", err
	}
	// A name of a port is left to the dialer.
	if number, err := strconv.Atoi(port); !errors.Is(err, strconv.ErrSyntax) && (number < 1 || number > 65535) {
		return "", errors.New(`write "host:port" with a port from 1 to 65535`)
	}
	return server, checkCharacters(port)
}

// isNumber reports whether s is made of digits.
func isNumber(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < '0' || r > '9' })
}

// checkCharacters refuses what no name of a host or port has in it. Names that are
// not ASCII are left to the dialer.
func checkCharacters(name string) error {
	wrong := strings.IndexFunc(name, func(r rune) bool {
		return r != '-' && r != '.' && r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.IsMark(r)
	})
	if wrong >= 0 {
		return fmt.Errorf(`%.1q does not belong here: write "host:port"`, name[wrong:])
	}
	return nil
}

// rounds is the default dialer. A name with several addresses is gone round:
// net.Dial would begin each time with the first one that takes a connection,
// also if nothing good ever comes of it.
type rounds struct {
	lookup func(ctx context.Context, host string) ([]string, error)

	mu   sync.Mutex
	next map[string]int // by host: how many times it was dialed
}

func newRounds() *rounds {
	return &rounds{lookup: net.DefaultResolver.LookupHost, next: make(map[string]int)}
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
		if addresses, err = r.lookup(ctx, host); err != nil {
			return nil, err
		}
		slices.Sort(addresses) // a resolver may turn them round by itself
		addresses = slices.Compact(addresses)
	}
	r.mu.Lock()
	first := r.next[host]
	r.next[host]++
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
