package wire

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// frame makes a frame of 32-bit words and a padding.
func frame(padding int, words ...int32) []byte {
	var body []byte
	for _, w := range words {
		body = binary.BigEndian.AppendUint32(body, uint32(w))
	}
	body = append(body, make([]byte, padding)...)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

// handshakeFrames are a client's hello and a server's answer.
func handshakeFrames(asked, granted time.Duration, former, session int64) (hello, answer []byte) {
	hello = frame(20, 0, 0, 0, int32(asked.Milliseconds()), int32(former>>32), int32(former))
	answer = frame(20, 0, int32(granted.Milliseconds()), int32(session>>32), int32(session))
	return hello, answer
}

// events keeps what a Conn tells.
type events struct {
	mu        sync.Mutex
	limit     time.Duration // for handshakes
	hellos    []time.Time
	shakes    []Handshake
	answers   []Answer
	created   []string
	refused   []int32
	failed    []error
	strangers int
}

func (e *events) HandshakeSent(at time.Time) time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.hellos = append(e.hellos, at)
	return e.limit
}

func (e *events) HandshakeAnswered(h Handshake) (time.Duration, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.shakes = append(e.shakes, h)
	return h.Timeout, h.Session != 0
}

func (e *events) Creating(path []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.created = append(e.created, string(path))
}

func (e *events) Answered(a Answer) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.answers = append(e.answers, a)
}

func (e *events) WatchesRefused(code int32) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.refused = append(e.refused, code)
}

func (e *events) Failed(err error, stranger bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.failed = append(e.failed, err)
	if stranger {
		e.strangers++
	}
}

// wired is a Conn whose other end the test plays.
type wired struct {
	*Conn
	told  *events
	other net.Conn
}

func newWired(t *testing.T) *wired {
	client, server := net.Pipe()
	t.Cleanup(func() { _ = client.Close(); _ = server.Close() })
	told := &events{limit: 8 * time.Second}
	return &wired{New(client, told), told, server}
}

// What both sides say in a handshake is told, whatever pieces it comes in.
func TestHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			name            string
			former, session int64
		}{
			{"a new session", 0, 5},
			{"resumed", 5, 5},
			{"expired", 5, 0},
		} {
			w := newWired(t)
			time.Sleep(time.Second)
			sent := time.Now()
			hello, answer := handshakeFrames(8*time.Second, 6*time.Second, c.former, c.session)
			w.note(hello)
			require.Equal(t, []time.Time{sent}, w.told.hellos, c.name)
			time.Sleep(100 * time.Millisecond)
			for i := range answer { // in as many pieces as there can be
				require.Empty(t, w.told.shakes, c.name)
				require.NoError(t, w.feed(answer[i:i+1]), c.name)
			}
			require.Equal(t, []Handshake{{Sent: sent, Former: c.former, Session: c.session, Timeout: 6 * time.Second, Whole: true}}, w.told.shakes, c.name)
			_ = w.Close()
		}
	})
}

// The password is told, if it is one; what was not a whole frame is noticed.
func TestHandshakePassword(t *testing.T) {
	for size, want := range map[int32][]byte{0: nil, 15: nil, 16: []byte("0123456789abcdef")} {
		w := newWired(t)
		hello, _ := handshakeFrames(time.Second, time.Second, 0, 5)
		w.note(hello)
		w.note([]byte{0, 0, 0, 9, 1})
		answer := frame(17, 0, 1000, 0, 5, size)
		copy(answer[4+helloHead:], "0123456789abcdef")
		require.NoError(t, w.feed(answer))
		require.Len(t, w.told.shakes, 1)
		assert.Equal(t, want, w.told.shakes[0].Password)
		assert.False(t, w.told.shakes[0].Whole)
		_ = w.Close()
	}
}

// A handshake that is not answered ends after T; one that is does not.
func TestHandshakeDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWired(t)
		hello, answer := handshakeFrames(8*time.Second, 8*time.Second, 0, 5)
		w.note(hello)
		require.NoError(t, w.feed(answer))
		time.Sleep(time.Minute)
		require.NoError(t, w.SetDeadline(time.Time{}), "an answered handshake was ended")
		w = newWired(t)
		w.note(hello)
		time.Sleep(8*time.Second + 1)
		synctest.Wait()
		require.Error(t, w.SetDeadline(time.Time{}), "a handshake without an answer goes on")
	})
}

// What cannot be the answer to a handshake ends the connection, before the
// client makes room for it, and the reason is kept.
func TestStrangers(t *testing.T) {
	record := func(kind byte) []byte { return []byte{kind, 3, 3, 0, 2, 2, 70} }
	_, expired := handshakeFrames(0, 0, 5, 0)
	_, sound := handshakeFrames(0, time.Second, 5, 5)
	_, untimed := handshakeFrames(0, 0, 5, 5)
	_, negative := handshakeFrames(0, -time.Second, 5, 5)
	password := bytes.Clone(sound)
	binary.BigEndian.PutUint32(password[4+16:], 1<<30)
	for _, test := range []struct {
		name   string
		answer []byte
		say    string // none: it is sound
	}{
		{"sound", sound, ""},
		{"expired", expired, ""},
		{"read-only byte", frame(21, 0, 1000, 0, 5), ""},
		{"HTTP", []byte("HTTP/1.1 400 Bad Request\r\n"), `not a ZooKeeper server: its answer to the handshake begins with "HTTP"`},
		{"a TLS alert", record(0x15), "a TLS port? see SessionOptions.Dialer"},
		{"a TLS handshake", record(0x16), "a TLS port? see SessionOptions.Dialer"},
		{"length -1", []byte{255, 255, 255, 255, 0}, "not a ZooKeeper server"},
		{"the most negative length", []byte{128, 0, 0, 0}, "not a ZooKeeper server"},
		{"a length of 0", []byte{0, 0, 0, 0}, "not a ZooKeeper server"},
		{"too short", frame(3, 0, 1000, 0, 5), "not a ZooKeeper server"},
		{"too long", frame(helloMost-15, 0, 1000, 0, 5), "not a ZooKeeper server"},
		{"no timeout", untimed, "a session timeout of 0 ms"},
		{"a negative timeout", negative, "a session timeout of -1000 ms"},
		{"a long password", password, "a password of"},
		{"nothing", nil, "has not answered the handshake: EOF"},
		{"half of it", sound[:9], "has not answered the handshake: EOF"},
	} {
		for _, piece := range []int{1, 4, 100} {
			w := newWired(t)
			hello, _ := handshakeFrames(time.Second, 0, 5, 5)
			w.note(hello)
			go func() {
				for rest := test.answer; len(rest) > 0; {
					n := min(piece, len(rest))
					if _, err := w.other.Write(rest[:n]); err != nil {
						return
					}
					rest = rest[n:]
				}
				_ = w.other.Close()
			}()
			// As the client reads: the length, then so much.
			got := make([]byte, 4)
			_, err := io.ReadFull(w, got)
			if err == nil {
				length := int32(binary.BigEndian.Uint32(got))
				require.LessOrEqual(t, length, int32(helloMost), "%s: the client would make room for it", test.name)
				require.GreaterOrEqual(t, length, int32(0), "%s: the client would make room for it", test.name)
				_, err = io.ReadFull(w, make([]byte, length))
			}
			if test.say == "" {
				require.NoError(t, err, test.name)
				require.Empty(t, w.told.failed, test.name)
				require.Len(t, w.told.shakes, 1, test.name)
				_ = w.Close()
				continue
			}
			require.Error(t, err, test.name)
			require.Len(t, w.told.failed, 1, test.name)
			require.ErrorContains(t, w.told.failed[0], test.say, test.name)
			stranger := 1
			if strings.Contains(test.say, "has not answered") {
				stranger = 0
			}
			require.Equal(t, stranger, w.told.strangers, test.name)
			require.Empty(t, w.told.shakes, test.name)
			_ = w.Close()
		}
	}
	// Later, too.
	w := newWired(t)
	hello, answer := handshakeFrames(time.Second, time.Second, 5, 5)
	w.note(hello)
	require.NoError(t, w.feed(answer))
	require.NoError(t, w.feed(frame(0, 7, 0, 1, 0)))
	require.Error(t, w.feed([]byte{255, 255, 255, 255}))
	_ = w.Close()
}

func TestAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const T = 8 * time.Second
		hello, answer := handshakeFrames(T, T, 5, 5)
		const opExists, opPing = 3, 11
		for _, c := range []struct {
			name        string
			send, reply []byte
			op, code    int32 // op 0: nothing is told
			alive       bool
		}{
			{"a request", frame(9, 7, opExists), frame(70, 7, 0, 1, 0), opExists, 0, true},
			{"an error is an answer", frame(9, 7, opExists), frame(0, 7, 0, 1, -101), opExists, -101, true},
			{"a ping", frame(0, xidPing, opPing), frame(0, xidPing, 0, 1, 0), opPing, 0, true},
			{"a watch event", frame(9, 7, opExists), frame(20, xidWatchEvent, 0, 1, 0), 0, 0, false},
			{"another's answer", frame(9, 7, opExists), frame(0, 8, 0, 1, 0), 0, 0, false},
			{"authentication", frame(20, 7, OpAuth), frame(0, 7, 0, 1, 0), OpAuth, 0, false},
			{"authentication that is refused", frame(20, 7, OpAuth), frame(0, 7, 0, 1, -115), OpAuth, -115, false},
			{"throttled", frame(9, 7, opExists), frame(0, 7, 0, 1, codeThrottled), opExists, codeThrottled, false},
		} {
			w := newWired(t)
			w.note(hello)
			require.NoError(t, w.feed(answer))
			time.Sleep(time.Second)
			sent := time.Now()
			w.note(c.send)
			time.Sleep(time.Second)
			require.NoError(t, w.feed(bytes.Clone(c.reply)))
			if c.op == 0 {
				require.Empty(t, w.told.answers, c.name)
			} else {
				want := Answer{Op: c.op, Code: c.code, Sent: sent, Answered: time.Now(), SignOfLife: c.alive}
				require.Equal(t, []Answer{want}, w.told.answers, c.name)
			}
			_ = w.Close()
		}
		// What is no whole frame makes the Conn blind: nothing is believed.
		w := newWired(t)
		w.note(hello)
		require.NoError(t, w.feed(answer))
		w.note([]byte{0, 0, 0, 9, 1})
		w.note(frame(0, xidPing, opPing))
		require.NoError(t, w.feed(frame(0, xidPing, 0, 1, 0)))
		require.Len(t, w.told.answers, 1)
		assert.False(t, w.told.answers[0].SignOfLife, "a blind Conn believes")
		_ = w.Close()
	})
}

// Whatever comes in, in whatever pieces, does not disturb the Conn; what it
// passes on it has not changed.
func FuzzConn(f *testing.F) {
	hello, answer := handshakeFrames(time.Second, time.Second, 0, 5)
	f.Add(append(bytes.Clone(answer), frame(0, xidPing, 0, 1, 0)...), 3)
	f.Add([]byte{255, 255, 255, 255, 0, 0, 0, 0}, 1)
	f.Fuzz(func(t *testing.T, data []byte, piece int) {
		client, server := net.Pipe()
		defer func() { _, _ = client.Close(), server.Close() }()
		w := New(client, &events{limit: time.Second})
		w.note(hello)
		defer w.deadline.Stop()
		w.note(frame(0, xidPing, 11))
		before := bytes.Clone(data)
		for rest := data; len(rest) > 0; {
			n := min(max(1, piece&7), len(rest))
			if w.feed(rest[:n]) != nil {
				break // the connection ends
			}
			rest = rest[n:]
		}
		require.Equal(t, before, data, "the Conn changed what it read")
	})
}
