package election

import (
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
//
// It also paces the attempts. The client knows only one pause, of a whole second,
// which a HostProvider asks for. Here the first round of servers begins at once,
// and those after it ever later, by a pause that the dialer makes (await). Only when
// it has grown to a second is it left to the client, which then also fails what was
// asked meanwhile. Where a round takes longer than that, since servers stand still, there is no pause, and
// what was asked waits for the next connection.
//
// The client's goroutine calls all of it but end, which whoever closes the client does.
type hosts struct {
	ended   chan struct{} // closed when the client is to end; made by Init
	endOnce sync.Once

	mu      sync.Mutex
	servers []string
	at      int       // index of the server that was given out last
	given   int       // how many were given out in this round
	begins  time.Time // the present round, and so the first attempt in it
	vain    int       // rounds in a row that brought no connection
	brief   int       // connections in a row that did not last
	expired bool      // the server given out last answers: it said that the session has expired
	since   time.Time // of the connection that there is, or was; zero when Next has counted it
}

var _ zk.HostProvider = (*hosts)(nil)

const (
	// lasting is for how long a connection stands that did not fail.
	lasting = time.Second
	// clientPause is the client's own.
	clientPause = time.Second
)

// pauses are how much later than the one before a round begins, by how many have
// come to nothing. Those beyond wait for the client's own pause, and a little more.
var pauses = [...]time.Duration{0, 25 * time.Millisecond, 100 * time.Millisecond, 400 * time.Millisecond}

func pauseAfter(failures int) time.Duration {
	if failures >= len(pauses) {
		return clientPause + rand.N(clientPause/4)
	}
	return jitter(pauses[failures])
}

// Init takes the servers.
func (h *hosts) Init(servers []string) error {
	if len(servers) == 0 {
		return errors.New("no servers given")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.servers = slices.Clone(servers)
	rand.Shuffle(len(servers), func(i, j int) { h.servers[i], h.servers[j] = h.servers[j], h.servers[i] })
	h.at, h.given, h.begins = -1, 0, time.Now()
	h.ended = make(chan struct{})
	return nil
}

// Len returns the number of servers.
func (h *hosts) Len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.servers)
}

// Next returns the next server. retryStart has the client pause for a second; once the
// client is to end it is always true, since that pause is the only place where a client
// that finds no server notices its end.
func (h *hosts) Next() (server string, retryStart bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.over() {
		return h.servers[max(0, h.at)], true
	}
	if h.expired {
		h.expired = false
		return h.servers[h.at], false // it answers, which of the next one nobody knows
	}
	now := time.Now()
	switch {
	case !h.since.IsZero():
		h.brief++
		if now.Sub(h.since) >= lasting {
			h.brief = 0
		}
		h.since, h.vain = time.Time{}, 0
		retryStart = h.beginRound(now, h.brief)
	case h.given == len(h.servers):
		h.vain++
		retryStart = h.beginRound(now, max(h.vain, h.brief))
	}
	h.at = (h.at + 1) % len(h.servers)
	h.given++
	return h.servers[h.at], retryStart
}

// beginRound begins a round of servers behind so many that came to nothing. What the
// one before took counts as pause: a server that does not answer has been one.
func (h *hosts) beginRound(now time.Time, failures int) (retryStart bool) {
	due := h.begins.Add(pauseAfter(failures))
	h.given, h.begins = 0, later(now, due)
	return due.Sub(now) >= clientPause
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// await makes the pause that is left before an attempt. It returns false when the
// client is to end.
func (h *hosts) await() bool {
	h.mu.Lock()
	wait := time.Until(h.begins)
	h.mu.Unlock()
	if wait <= 0 {
		return !h.over()
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-h.ended:
		return false
	}
}

// Connected notes that the server given out last has taken the session.
func (h *hosts) Connected() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.since = time.Now()
}

// sessionExpired notes that the server given out last has said that the session has
// expired. It is asked for a new one next, and without a pause: it can say so only
// once to each session that it, or another, has granted.
func (h *hosts) sessionExpired() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.expired = true
}

// end lets the client end, whatever it waits for. It is called before the client's
// Close.
func (h *hosts) end() { h.endOnce.Do(func() { close(h.ended) }) }

func (h *hosts) over() bool {
	select {
	case <-h.ended:
		return true
	default:
		return false
	}
}

// pacing returns h, also for types that embed it.
func (h *hosts) pacing() *hosts { return h }

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
