package election

import (
	"encoding/binary"
	"time"
)

// Setting watches again. The client does that on each new connection of its
// session, and as of v1.0.4 ignores a refusal (a server that has too
// much to do refuses anything): it sends no more of its watches, and they are
// silent as long as the connection lasts. So the wire takes a refusal upon
// itself: the client reads a success and goes on, and the request is repeated
// until the server takes it. It says up to where the client had seen, so what
// changes meanwhile is told as well.

// xidRewatch is the xid of a repeated request, the one that ZooKeeper's own
// clients use for it. go-zookeeper counts from 1 up, and ignores an answer to
// this one.
const xidRewatch = -8

// codeAt is where the error code begins in a frame with its length.
const codeAt = 4 + 12

// rewatch holds the requests that were refused. The wire's mu guards it.
type rewatch struct {
	frames [][]byte
	timer  *time.Timer // set while there are frames
	wait   time.Duration
	ended  bool
}

// watchesAnswered takes the answer to a request that sets watches again; mu is
// held.
func (w *wire) watchesAnswered(frame []byte, code int32) {
	r := &w.rewatch
	if r.ended {
		return
	}
	if code == 0 {
		r.wait = 0
		return
	}
	timeout := w.conn.rule.timeout
	if r.wait == 0 {
		r.wait = timeout / 64
		w.session.inbox.push(watchesRefused{code})
	}
	xid := int32(xidRewatch)
	binary.BigEndian.PutUint32(frame[4:], uint32(xid))
	r.frames = append(r.frames, frame)
	if r.timer == nil {
		r.timer = time.AfterFunc(jitter(r.wait), w.setWatchesAgain)
		r.wait = min(2*r.wait, timeout/8)
	}
}

func (w *wire) setWatchesAgain() {
	w.mu.Lock()
	frames := w.rewatch.frames
	w.rewatch.frames, w.rewatch.timer = nil, nil
	w.mu.Unlock()
	for _, frame := range frames {
		_, _ = w.Write(frame)
	}
}

func (r *rewatch) stop() {
	r.ended, r.frames = true, nil
	if r.timer != nil {
		r.timer.Stop()
	}
}

// hideRefusal makes a success of the answer that the client is about to read,
// if it refuses watches: p is the part of its head that has just been copied.
func (w *wire) hideRefusal(p []byte) {
	from, to := max(0, codeAt-w.filled), min(len(p), codeAt+4-w.filled)
	if from < to && w.shaken && w.awaitsWatches() {
		clear(p[from:to])
	}
}

// awaitsWatches reports whether the frame whose head is being read answers a
// request that sets watches again.
func (w *wire) awaitsWatches() bool {
	xid := int32(binary.BigEndian.Uint32(w.head[4:]))
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, request := range w.outgoing {
		if request.xid == xid {
			return request.op == opSetWatches
		}
	}
	return false
}
