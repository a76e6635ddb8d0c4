//go:build linux

package guard

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// TestHold looks at what a guard would find if this process died now.
func TestHold(t *testing.T) {
	t.Parallel()
	log := &lockedBuffer{}
	g, err := Start(&Options{Executable: os.Args[0], Logger: slog.New(slog.NewTextHandler(log, nil))})
	require.NoError(t, err)
	defer func() { require.NoError(t, g.Close()) }()
	found := func() []*record {
		records, err := sharedMemory(g.memory.fd)
		require.NoError(t, err)
		return records
	}
	require.Empty(t, found())

	// The names are resolved now, and not when it is too late to know what they meant.
	g.Hold("a", &Session{ID: 1, Servers: []string{"localhost:2181", "127.0.0.9:2181", "no.such.name.invalid:2181"}})
	require.Len(t, found(), 1)
	at := slices.IndexFunc(found()[0].Servers, func(s server) bool { return s.Name == "127.0.0.9:2181" })
	require.Equal(t, 1, at)
	require.Equal(t, []string{"127.0.0.9:2181"}, found()[0].Servers[at].Addresses, "an address needs no resolving")
	for deadline := time.Now().Add(time.Minute); !slices.Contains(found()[0].Servers[0].Addresses, "127.0.0.1:2181"); time.Sleep(5 * time.Millisecond) {
		require.True(t, time.Now().Before(deadline), "localhost is not resolved")
	}

	// What is found late is not written over what has come since.
	g.Hold("a", &Session{ID: 2, Servers: []string{"localhost:2181"}})
	g.Hold("a", nil)
	g.loops.Go(func() {}) // as a name that is resolved
	require.Empty(t, found())

	g.Hold("b", &Session{ID: 3})
	g.Hold("b", &Session{ID: 4, Auth: []Auth{{Credentials: make([]byte, slotSize)}}})
	require.Empty(t, found(), "what is too long leaves the session before it")
	require.Contains(t, log.String(), "this session is not guarded")

	for i := range maxSessions + 1 {
		g.Hold(i, &Session{ID: int64(100 + i)})
	}
	require.Len(t, found(), maxSessions-1, "one page is that of b")
	require.Contains(t, log.String(), "there are more than 64")
	g.Hold(7, nil)
	g.Hold("c", &Session{ID: 5})
	require.Len(t, found(), maxSessions-1, "a page that is free again is not used")
	for i := range maxSessions + 1 {
		g.Hold(i, nil)
	}
	require.Len(t, found(), 1)
	require.Equal(t, int64(5), found()[0].ID, fmt.Sprint(found()))
}

// TestLoggerMayCallTheGuard: no line is logged while something is locked that the guard's own methods need.
func TestLoggerMayCallTheGuard(t *testing.T) {
	t.Parallel()
	var g *Guard
	var calls atomic.Int32
	log := slog.New(calling{slog.DiscardHandler, func() {
		calls.Add(1)
		g.Hold("of the handler", nil)
		release, err := g.Await(os.Getppid())
		if assert.NoError(t, err) {
			release()
		}
	}})
	started, err := Start(&Options{Executable: os.Args[0], Logger: log})
	require.NoError(t, err)
	g = started
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		g.Hold("too long", &Session{ID: 1, Auth: []Auth{{Credentials: make([]byte, slotSize)}}})
		g.Hold("in the clear", &Session{ID: 2, Encrypted: true})
		g.Hold("a name", &Session{ID: 3, Servers: []string{"localhost:1"}, Auth: []Auth{{Credentials: make([]byte, slotSize)}}})
		for i := range maxSessions + 1 {
			g.Hold(i, &Session{ID: 4})
		}
	}()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatal("it has locked itself up")
	}
	require.GreaterOrEqual(t, calls.Load(), int32(4))
	require.NoError(t, g.Close())
}

// TestLoggerOfWhatAGuardSays: nor is one logged by what has to read the guard's next answer.
func TestLoggerOfWhatAGuardSays(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "guard")
	listener, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: socket, Net: "unixpacket"})
	require.NoError(t, err)
	defer func() { _ = listener.Close() }()
	go func() {
		conn, err := listener.AcceptUnix()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		buffer := make([]byte, 16<<10)
		for {
			n, err := conn.Read(buffer)
			var m message
			if err != nil || json.Unmarshal(buffer[:n], &m) != nil || m.Kind == kindBye {
				return
			}
			text, _ := json.Marshal(answer{Number: m.Number, Ready: true})
			switch m.Kind {
			case kindAwait:
				_, _ = conn.Write([]byte("of another version"))
				fallthrough
			case kindHello:
				_, _ = conn.Write(text)
			}
		}
	}()
	var g *Guard
	var once sync.Once
	called := make(chan struct{})
	log := slog.New(calling{slog.DiscardHandler, func() {
		once.Do(func() {
			defer close(called)
			release, err := g.Await(os.Getppid())
			if assert.NoError(t, err) {
				release()
			}
		})
	}})
	g, err = Start(&Options{Socket: socket, Logger: log})
	require.NoError(t, err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		release, err := g.Await(os.Getppid())
		if assert.NoError(t, err) {
			release()
		}
		<-called
		assert.NoError(t, g.Close())
	}()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatal("it has locked itself up")
	}
}

// TestClosesWhatIsItsOwn: what foreign code has put in the place of the guard's descriptors stays open.
func TestClosesWhatIsItsOwn(t *testing.T) {
	t.Parallel()
	g, err := Start(&Options{Executable: os.Args[0], Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	release, err := g.Await(os.Getppid())
	require.NoError(t, err)
	null, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer func() { _ = null.Close() }()
	is, err := identityOf(int(null.Fd()))
	require.NoError(t, err)
	others := []int{g.memory.fd}
	for pidfd := range g.awaits {
		others = append(others, int(pidfd.Fd()))
	}
	require.Len(t, others, 2)
	for _, fd := range others {
		require.NoError(t, syscall.Dup3(int(null.Fd()), fd, syscall.O_CLOEXEC))
	}
	release()
	require.NoError(t, g.Close())
	for _, fd := range others {
		now, err := identityOf(fd)
		require.NoError(t, err, "somebody else's descriptor is closed")
		require.Equal(t, is, now)
		require.NoError(t, syscall.Close(fd))
	}
}

// TestNothingIsLost: only a connection that foreign code has closed is kept from the garbage collector.
func TestNothingIsLost(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "guard")
	ctx, quit := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Listen(ctx, socket, &ListenOptions{Logger: slog.New(slog.DiscardHandler)}) }()
	g, err := Start(&Options{Socket: socket, Wait: time.Minute, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	conn := g.link.conn
	require.NoError(t, g.Close())
	_, kept := lost.Load(conn)
	require.False(t, kept)
	quit()
	require.NoError(t, <-done)
}

// TestAwaitMany: a guard that replaces another one hears of all that are to be waited for, and no more are taken.
func TestAwaitMany(t *testing.T) {
	t.Parallel()
	g, err := Start(&Options{Executable: os.Args[0], Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	var releases []func()
	for range maxAwaits {
		release, err := g.Await(os.Getppid())
		require.NoError(t, err)
		releases = append(releases, release)
	}
	_, err = g.Await(os.Getppid())
	require.ErrorIs(t, err, errManyAwaited)
	linked := func() *link {
		g.linking.Lock()
		defer g.linking.Unlock()
		return g.link
	}
	first := linked()
	first.drop()
	require.Eventually(t, func() bool { now := linked(); return now != nil && now != first }, time.Minute, time.Millisecond)
	releases[0]()
	release, err := g.Await(os.Getppid())
	require.NoError(t, err)
	for _, release := range append(releases, release) {
		release()
	}
	require.NoError(t, g.Close())
}

type calling struct {
	slog.Handler
	call func()
}

func (c calling) Enabled(context.Context, slog.Level) bool { return true }

func (c calling) Handle(context.Context, slog.Record) error {
	c.call()
	return nil
}
