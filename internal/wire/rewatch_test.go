package wire

import (
	"bytes"
	"encoding/binary"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// TestRewatch plays a server that refuses watches, in as few and in as many
// pieces as there can be.
func TestRewatch(t *testing.T) {
	const opExists, refusal = 3, codeThrottled
	T := 8 * time.Second
	hello, handshake := handshakeFrames(T, T, 0, 5)
	for _, piece := range []int{1, 7, 1000} {
		synctest.Test(t, func(t *testing.T) {
			w := newWired(t)
			w.note(hello)
			require.NoError(t, w.feed(handshake))
			read := func(answer []byte) []byte {
				shown := bytes.Clone(answer)
				for rest := shown; len(rest) > 0; {
					n := min(piece, len(rest))
					require.NoError(t, w.feed(rest[:n]))
					rest = rest[n:]
				}
				return shown
			}
			server := make(chan []byte) // what it gets after the handshake
			stop := make(chan struct{})
			defer close(stop)
			go func() {
				for {
					length := make([]byte, 4)
					if _, err := io.ReadFull(w.other, length); err != nil {
						return
					}
					body := make([]byte, binary.BigEndian.Uint32(length))
					if _, err := io.ReadFull(w.other, body); err != nil {
						return
					}
					select {
					case server <- append(length, body...):
					case <-stop:
						return
					}
				}
			}()
			first, second, other := frame(9, 7, opSetWatches), frame(5, 8, opSetWatches), frame(9, 9, opExists)
			for _, request := range [][]byte{first, second, other} {
				if _, err := w.Write(request); err != nil {
					t.Fatal(err)
				}
				if got := <-server; !bytes.Equal(got, request) {
					t.Fatalf("the server got %v for %v", got, request)
				}
			}
			for _, xid := range []int32{7, 8} {
				if got, want := read(frame(0, xid, 0, 1, refusal)), frame(0, xid, 0, 1, 0); !bytes.Equal(got, want) {
					t.Errorf("the client reads %v, want %v", got, want)
				}
			}
			if answer := frame(0, 9, 0, 1, refusal); !bytes.Equal(read(answer), answer) {
				t.Error("the refusal of another request is hidden")
			}
			if len(w.told.refused) != 1 || w.told.refused[0] != refusal {
				t.Errorf("told of %v", w.told.refused)
			}
			// Refused again, until it is less of an effort to take them.
			again := func(request []byte) []byte {
				request = bytes.Clone(request)
				xid := int32(xidRewatch)
				binary.BigEndian.PutUint32(request[4:], uint32(xid))
				return request
			}
			last := time.Now()
			var longest time.Duration
			for range 8 {
				for _, request := range [][]byte{first, second} {
					if got, want := <-server, again(request); !bytes.Equal(got, want) {
						t.Fatalf("the server got %v, want %v", got, want)
					}
				}
				longest = max(longest, time.Since(last))
				last = time.Now()
				read(frame(0, xidRewatch, 0, 1, refusal))
				read(frame(0, xidRewatch, 0, 1, refusal))
			}
			if longest < T/16 || longest > T/8*5/4 {
				t.Errorf("asked every %v in the end, want about %v", longest, T/8)
			}
			for range 2 {
				<-server
			}
			read(frame(0, xidRewatch, 0, 1, 0))
			read(frame(0, xidRewatch, 0, 1, 0))
			time.Sleep(T)
			synctest.Wait()
			select {
			case got := <-server:
				t.Errorf("after a success the server got %v", got)
			default:
			}
			if _, err := w.Write(first); err != nil {
				t.Fatal(err)
			}
			<-server
			read(frame(0, 7, 0, 1, refusal))
			_ = w.Close()
			time.Sleep(T) // a timer that went on would write
		})
	}
}
