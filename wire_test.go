package election

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
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

// wired is a wire whose other end the test plays.
type wired struct {
	*wire
	session *Session
	other   net.Conn
}

func newWired(t *testing.T) *wired {
	s := newSession(8 * time.Second)
	s.owned = true
	client, server := net.Pipe()
	t.Cleanup(func() { _ = client.Close(); _ = server.Close() })
	w := s.wrap(client, "zk1:2181")
	s.wire.Store(w)
	return &wired{w, s, server}
}

func TestWireHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const T = 8 * time.Second
		for _, c := range []struct {
			name            string
			former, session int64
			silence         time.Duration // since the last answer
			timeout         time.Duration
			counts, known   bool
		}{
			{"a new session", 0, 5, 0, 6 * time.Second, true, true},
			{"resumed at once", 5, 5, time.Second, 6 * time.Second, true, true},
			{"resumed after long", 5, 5, 4 * time.Second, 6 * time.Second, false, true},
			{"expired", 5, 0, time.Second, 6 * time.Second, false, false},
		} {
			w := newWired(t)
			time.Sleep(time.Second)
			w.session.answered(w.session.now())
			time.Sleep(c.silence)
			hello, answer := handshakeFrames(T, c.timeout, c.former, c.session)
			sent := w.session.now()
			w.note(hello)
			if w.session.unanswered.Load() != 1 {
				t.Fatalf("%s: the handshake is not noticed", c.name)
			}
			time.Sleep(100 * time.Millisecond)
			for i := range answer { // in as many pieces as there can be
				if err := w.feed(answer[i : i+1]); err != nil {
					t.Fatal(err)
				}
			}
			if w.session.unanswered.Load() != 0 {
				t.Fatalf("%s: its answer is not noticed", c.name)
			}
			conn := w.session.connection.Load()
			if (conn != nil) != c.known {
				t.Fatalf("%s: connection %v", c.name, conn)
			}
			if !c.known {
				if w.session.Timeout() != T {
					t.Fatalf("%s: timeout %v", c.name, w.session.Timeout())
				}
				continue
			}
			if w.session.Timeout() != c.timeout || conn.rule.timeout != c.timeout || conn.rule.tick != c.timeout/2 {
				t.Fatalf("%s: timeout %v, rule %+v", c.name, w.session.Timeout(), conn.rule)
			}
			if got, ok := conn.heard.surelyHeard(time.Hour); ok != c.counts || ok && got != sent {
				t.Fatalf("%s: heard at %v, %v; want %v, %v", c.name, got, ok, sent, c.counts)
			}
			_ = w.Close()
		}
	})
}

// A handshake that is not answered ends after T; one that is does not.
func TestWireHandshakeDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWired(t)
		hello, answer := handshakeFrames(8*time.Second, 8*time.Second, 0, 5)
		w.note(hello)
		require.NoError(t, w.feed(answer))
		time.Sleep(time.Minute)
		if err := w.SetDeadline(time.Time{}); err != nil {
			t.Fatal("an answered handshake was ended")
		}
		w = newWired(t)
		w.note(hello)
		time.Sleep(8*time.Second + 1)
		synctest.Wait()
		if err := w.SetDeadline(time.Time{}); err == nil {
			t.Fatal("a handshake without an answer goes on")
		}
	})
}

// What cannot be the answer to a handshake ends the connection, before the
// client makes room for it, and the reason is kept.
func TestWireStrangers(t *testing.T) {
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
			last := w.session.trouble.Load()
			if test.say == "" {
				require.NoError(t, err, test.name)
				require.Nil(t, last, test.name)
				_ = w.Close()
				continue
			}
			require.Error(t, err, test.name)
			require.NotNil(t, last, test.name)
			assert.Equal(t, "zk1:2181", last.server)
			require.ErrorContains(t, last.err, test.say, test.name)
			require.Nil(t, w.session.connection.Load(), test.name)
			require.Equal(t, int64(1), w.session.unanswered.Load(), test.name)
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

func TestWireContacts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const T = 8 * time.Second
		hello, answer := handshakeFrames(T, T, 5, 5)
		const opExists, opPing = 3, 11
		for _, c := range []struct {
			name  string
			send  []byte
			reply []byte
			want  bool
		}{
			{"a request", frame(9, 7, opExists), frame(70, 7, 0, 1, 0), true},
			{"an error is an answer", frame(9, 7, opExists), frame(0, 7, 0, 1, -101), true},
			{"a ping", frame(0, xidPing, opPing), frame(0, xidPing, 0, 1, 0), true},
			{"a watch event", frame(9, 7, opExists), frame(20, xidWatchEvent, 0, 1, 0), false},
			{"another's answer", frame(9, 7, opExists), frame(0, 8, 0, 1, 0), false},
			{"authentication", frame(20, 7, opAuth), frame(0, 7, 0, 1, 0), false},
			{"throttled", frame(9, 7, opExists), frame(0, 7, 0, 1, codeThrottled), false},
		} {
			w := newWired(t)
			w.note(hello)
			time.Sleep(T) // long after the last answer: the handshake does not count
			w.note(nil)   // no whole frame
			w.blind = false
			w.hello.sent = w.session.now()
			if err := w.feed(answer); err != nil {
				t.Fatal(err)
			}
			conn := w.session.connection.Load()
			conn.heard.counts = false
			time.Sleep(time.Second)
			sent := w.session.now()
			w.note(c.send)
			time.Sleep(time.Second)
			if err := w.feed(bytes.Clone(c.reply)); err != nil {
				t.Fatal(err)
			}
			got, ok := conn.heard.surelyHeard(time.Hour)
			if ok != c.want || ok && got != sent {
				t.Errorf("%s: %v, %v", c.name, got, ok)
			}
			_ = w.Close()
		}
		// What is no whole frame makes the wire blind: nothing is believed.
		w := newWired(t)
		w.note(hello)
		require.NoError(t, w.feed(answer))
		conn := w.session.connection.Load()
		conn.heard.counts = false
		w.note([]byte{0, 0, 0, 9, 1})
		w.note(frame(0, xidPing, opPing))
		require.NoError(t, w.feed(frame(0, xidPing, 0, 1, 0)))
		if _, ok := conn.heard.surelyHeard(time.Hour); ok {
			t.Error("a blind wire believes")
		}
		_ = w.Close()
	})
}

// Whatever comes in, in whatever pieces, does not disturb the wire; what it
// passes on it has not changed.
func FuzzWire(f *testing.F) {
	hello, answer := handshakeFrames(time.Second, time.Second, 0, 5)
	f.Add(append(bytes.Clone(answer), frame(0, xidPing, 0, 1, 0)...), 3)
	f.Add([]byte{255, 255, 255, 255, 0, 0, 0, 0}, 1)
	f.Fuzz(func(t *testing.T, data []byte, piece int) {
		s := newSession(time.Second)
		s.owned = true
		client, server := net.Pipe()
		defer func() { _, _ = client.Close(), server.Close() }()
		w := s.wrap(client, "zk1:2181")
		s.wire.Store(w)
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
		if !bytes.Equal(before, data) {
			t.Fatal("the wire changed what it read")
		}
	})
}

func TestHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := new(hosts)
		if err := h.Init(nil); err == nil {
			t.Fatal("no servers were taken")
		}
		if err := h.Init([]string{"a", "b", "c"}); err != nil || h.Len() != 3 {
			t.Fatal(err, h.Len())
		}
		next := func(wantPause bool) string {
			t.Helper()
			server, pause := h.Next()
			if pause != wantPause {
				t.Fatalf("pause %v before %s", pause, server)
			}
			return server
		}
		round := map[string]bool{next(false): true, next(false): true, next(false): true}
		if len(round) != 3 {
			t.Fatalf("a round of %v", round)
		}
		next(true) // a pause after each round
		next(false)
		next(false)
		next(true)
		h.Connected()
		next(true) // a connection that did not last
		h.Connected()
		time.Sleep(time.Minute)
		next(false) // one that did
		if err := h.Init([]string{"only"}); err != nil {
			t.Fatal(err)
		}
		next(false)
		next(false)
		next(true)
		next(true)
	})
}
