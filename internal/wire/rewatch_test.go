package wire

import (
	"bytes"
	"encoding/binary"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
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
				_, err := w.Write(request)
				require.NoError(t, err)
				require.Equal(t, request, <-server)
			}
			for _, xid := range []int32{7, 8} {
				assert.Equal(t, frame(0, xid, 0, 1, 0), read(frame(0, xid, 0, 1, refusal)), "what the client reads")
			}
			answer := frame(0, 9, 0, 1, refusal)
			assert.Equal(t, answer, read(answer), "the refusal of another request")
			assert.Equal(t, []int32{refusal}, w.told.refused)
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
					require.Equal(t, again(request), <-server)
				}
				longest = max(longest, time.Since(last))
				last = time.Now()
				read(frame(0, xidRewatch, 0, 1, refusal))
				read(frame(0, xidRewatch, 0, 1, refusal))
			}
			assert.GreaterOrEqual(t, longest, T/16, "asked in the end every")
			assert.LessOrEqual(t, longest, T/8*5/4, "asked in the end every")
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
			_, err := w.Write(first)
			require.NoError(t, err)
			<-server
			read(frame(0, 7, 0, 1, refusal))
			_ = w.Close()
			time.Sleep(T) // a timer that went on would write
		})
	}
}
