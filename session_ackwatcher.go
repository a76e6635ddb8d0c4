package election

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"
)

// ackView is what is known of an election's acknowledgement.
type ackView struct {
	leader *node // nil: nobody has acknowledged
}

// subscription is one interest in an election's acknowledgement.
type subscription struct {
	// lasting subscriptions are told of every change until they end. The
	// others wait for a leader, are told once there is one, and need no watch
	// after that.
	lasting bool
	// quiet subscriptions are told what there is once, and then what the watch tells
	// of, or readAgain: those of requests for transfers, which lists show. All for one path
	// are, or none.
	quiet bool
	// unexpected: nobody had acknowledged a moment ago. It is asked for the node's existence then, with a watch, and
	// not for data that are not there. That it has come meanwhile costs a read.
	unexpected bool
	// notify is called on the ackWatcher's goroutine, after subscribing and then
	// for each change; it must not block. A state that lies between two others
	// may be left out.
	notify func(ackView)
	// refused, if there is one, is called likewise with an error when ZooKeeper
	// does not let this session read the acknowledgement.
	refused func(error)

	watcher *ackWatcher
	once    sync.Once

	// after counts the reads begun when it subscribed: none of those is fresh
	// enough for it, unless a watch has guarded what it found. Guarded by
	// ackWatcher.mu.
	after int

	// Owned by the ackWatcher's goroutine.
	told    bool // has been told of the present view
	warned  bool // has been told of the present refusal
	settled bool // not lasting, and has been told of a leader
}

// end ends the subscription. notify may still be running on the ackWatcher's
// goroutine when it returns.
func (sub *subscription) end() {
	sub.once.Do(func() { sub.watcher.unsubscribe(sub) })
}

// ackWatcher watches one election's acknowledgement on behalf of all that are
// interested in it on one Session: with a thousand observers of an election
// there is one watch, and one read for each change. It lives as long as there
// is a subscription.
type ackWatcher struct {
	session *Session
	path    string
	quiet   bool // no read without a reason: unless the last one was refused
	// unexpected is what it was begun with. Owned by its goroutine.
	unexpected bool
	inbox      *inbox
	last       *lastError    // of its reads
	done       chan struct{} // closed when it has left its watch behind

	// Owned by its goroutine.
	former     *ackWatcher // the one before, while it has not left its watch behind; or nil. It does not change when this one is over
	inc        *incarnation
	reconnects uint64 // as it was last told
	known      ackKnown
	reading    ackReading
	timer      *time.Timer

	mu    sync.Mutex
	subs  map[*subscription]struct{}
	begun int  // reads begun
	ended bool // its goroutine has
	gone  bool // it ends; guarded by roster.mu as well: it takes both to change it
}

// ackKnown is what an ackWatcher knows of its acknowledgement.
type ackKnown struct {
	view    ackView
	read    int             // which read the view is from; 0: not known
	on      *connection     // that brought it; nil: not known
	watch   <-chan zk.Event // armed, or nil
	expect  bool            // a leader is expected to be there: read its data at once
	newest  int64           // czxid of the last acknowledgement seen
	refusal error           // the last read was refused
}

// ackReading is what an ackWatcher does about that.
type ackReading struct {
	busy       bool // a helper reads
	again      bool // read again, whatever the watch says
	backingOff bool // the last read failed: not again before the timer
}

// ackRequest is what a helper is to read. It does not change.
type ackRequest struct {
	inc     *incarnation
	count   int  // which read this is
	arm     bool // a watch is to be armed
	lasting bool // and stay when there is a leader
	expect  bool // a leader is expected
	newest  int64
}

// ackRead is what it has read.
type ackRead struct {
	ackRequest
	node  *node
	on    *connection     // that the answer came on; nil: it may be one of two
	watch <-chan zk.Event // newly armed, or nil; it may be there beside an error
	err   error
}

// subscribe adds a subscription; on a closed Session it is never told anything.
func (s *Session) subscribe(path string, sub *subscription) {
	s.roster.mu.Lock()
	defer s.roster.mu.Unlock()
	f := s.roster.ackWatchers[path]
	if f == nil || f.gone {
		f = &ackWatcher{
			session: s, path: path, quiet: sub.quiet, unexpected: sub.unexpected, inbox: newInbox(), last: &lastError{logger: s.logger},
			former: f, done: make(chan struct{}), subs: make(map[*subscription]struct{}),
		}
		if !s.roster.closing {
			s.roster.ackWatchers[path] = f
			s.roster.members[f] = struct{}{}
			if f.quiet {
				s.roster.observers++
			}
			s.closing.loops.Go(f.run)
		}
	}
	sub.watcher = f
	f.mu.Lock()
	f.subs[sub] = struct{}{}
	sub.after = f.begun
	f.mu.Unlock()
	f.wake()
}

func (f *ackWatcher) unsubscribe(sub *subscription) {
	// In the order of subscribe, so that nobody joins an ackWatcher that is ending.
	f.session.roster.mu.Lock()
	defer f.session.roster.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.subs, sub)
	if len(f.subs) == 0 {
		f.gone = true
		if _, member := f.session.roster.members[f]; member && f.quiet {
			f.session.roster.observers--
		}
		delete(f.session.roster.members, f)
	}
	f.wake()
}

// readAgain asks for a read, though no watch has told of a change.
func (sub *subscription) readAgain() { sub.watcher.inbox.push(readAgain{}) }

// readAgain is that as a message.
type readAgain struct{}

// wake and Close make the ackWatcher a member of its Session.
func (f *ackWatcher) wake() { f.inbox.push(nil) }

// Close is for the Session's end: nobody is told anything after it.
func (f *ackWatcher) Close() error {
	f.session.roster.mu.Lock()
	defer f.session.roster.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gone = true
	f.wake()
	return nil
}

func (f *ackWatcher) run() {
	defer f.end()
	if !f.awaitFormer() {
		return
	}
	f.timer = time.NewTimer(f.recheckInterval())
	defer f.timer.Stop()
	ctx, cancel := context.WithCancel(withLastError(context.Background(), f.last))
	defer cancel()
	for f.step(ctx) {
		select {
		case <-f.inbox.signal:
			for _, message := range f.inbox.take() {
				if m, ok := message.(ackRead); ok {
					f.reading.busy = false
					f.take(m)
				} else {
					f.reading.again = true
				}
			}
		case event := <-f.known.watch:
			f.fired(event)
		case <-f.timer.C:
			f.reading.again, f.reading.backingOff = true, false
			f.timer.Reset(f.recheckInterval())
		}
	}
}

// recheckInterval is how long to wait until the next read without a reason.
func (f *ackWatcher) recheckInterval() time.Duration {
	if f.quiet {
		return math.MaxInt64
	}
	return f.session.recheckInterval()
}

// awaitFormer waits until the one before has left its watch, or it would be armed a
// second time. It reports whether this one is still needed then.
func (f *ackWatcher) awaitFormer() bool {
	for f.former != nil {
		select {
		case <-f.former.done:
			f.former = f.former.former // it may have ended while it waited for that one
		case <-f.inbox.signal:
			f.mu.Lock()
			gone := f.gone
			f.mu.Unlock()
			if gone {
				return false
			}
		}
	}
	return true
}

// end leaves the watch to whoever is interested next. A read that is under way may
// bring another one: then it is its end that is waited for.
func (f *ackWatcher) end() {
	f.leaveWatch(f.inc, f.known.watch)
	f.mu.Lock()
	f.ended = true
	f.mu.Unlock()
	for _, message := range f.inbox.take() {
		if m, ok := message.(ackRead); ok {
			f.reading.busy = false
			f.leaveWatch(m.inc, m.watch)
		}
	}
	if !f.reading.busy {
		f.over()
	}
}

// readDone takes the end of a read to the loop, or does what is left to do behind
// its end.
func (f *ackWatcher) readDone(m ackRead) {
	f.mu.Lock()
	ended := f.ended
	if !ended {
		f.inbox.push(m)
	}
	f.mu.Unlock()
	if ended {
		f.leaveWatch(m.inc, m.watch)
		f.over()
	}
}

// leaveWatch keeps a watch that this one has no use for now: the client cannot give
// it back.
func (f *ackWatcher) leaveWatch(inc *incarnation, watch <-chan zk.Event) {
	if watch != nil {
		f.session.watches.add(inc, f.path, watch)
	}
}

// over lets the next one begin, or has it wait for the one before this.
func (f *ackWatcher) over() {
	f.session.roster.mu.Lock()
	defer f.session.roster.mu.Unlock()
	if all := f.session.roster.ackWatchers; all[f.path] == f {
		delete(all, f.path)
		for former := f.former; former != nil; former = former.former {
			if !former.isOver() {
				all[f.path] = former
				break
			}
		}
	}
	close(f.done)
}

func (f *ackWatcher) isOver() bool {
	select {
	case <-f.done:
		return true
	default:
		return false
	}
}

func (f *ackWatcher) fired(event zk.Event) {
	f.known.watch, f.known.read = nil, 0
	f.known.expect = event.Type != zk.EventNodeDeleted
}

// step tells the subscribers what is known, and asks for what is not. It
// returns false when there is nothing left to do, ever.
func (f *ackWatcher) step(ctx context.Context) bool {
	// The client delivers an event ahead of the answers that show the change.
	// Whoever subscribes because of such an answer must not be told of before.
	select {
	case event := <-f.known.watch:
		f.fired(event)
	default:
	}
	view := f.session.currentView()
	if view.inc != f.inc {
		// A watch of another session never fires for this one.
		f.inc, f.known.watch, f.known.read, f.known.expect, f.reading.backingOff = view.inc, nil, 0, !f.quiet, false
		if f.unexpected {
			f.known.expect, f.unexpected = false, false // that was of the first session
		}
		f.known.refusal = nil
	}
	if view.reconnects != f.reconnects {
		f.reconnects, f.reading.again, f.reading.backingOff = view.reconnects, f.reading.again || !f.quiet, false
	}

	lasting, waiting, gone := f.inform()
	if gone {
		return false
	}
	if f.known.watch == nil {
		f.known.read = 0 // nothing guards the view: it is not for those who come later
	}
	if view.inc == nil || !view.connected || f.reading.busy || f.reading.backingOff {
		return true
	}
	arm := f.known.watch == nil && (!f.quiet || f.known.refusal == nil)
	if (arm || f.reading.again) && (lasting || waiting) {
		f.reading.busy, f.reading.again = true, false
		f.mu.Lock()
		f.begun++
		count := f.begun
		f.mu.Unlock()
		request := ackRequest{view.inc, count, arm, lasting, f.known.expect, f.known.newest}
		if !f.session.goHelper(func() { f.readDone(request.ask(ctx, f.session, f.path)) }) {
			f.reading.busy = false // the Session is at its end
		}
	}
	return true
}

// inform tells the subscribers that do not know the view yet, and returns who
// is left to be told of changes.
func (f *ackWatcher) inform() (lasting, waiting, gone bool) {
	// The client restores its watches on a new connection beside the requests that wait for one. So a watch says nothing
	// for as long of what has changed meanwhile. (That a caller's connection is a new one is known a moment later, by the
	// client's event.)
	on := f.session.client.connection.Load()
	guarded := f.known.read > 0 && f.known.watch != nil && f.known.on != nil && f.known.on == on
	stale := false
	f.mu.Lock()
	var due, warn []*subscription
	for sub := range f.subs {
		if f.known.refusal != nil && sub.refused != nil && !sub.warned {
			warn = append(warn, sub)
			sub.warned = true
		}
		switch {
		case sub.told || sub.settled:
		case f.known.read > sub.after || guarded:
			due = append(due, sub)
			sub.told = true
			sub.settled = !sub.lasting && f.known.view.leader != nil
		default:
			stale = stale || f.known.read > 0
		}
		lasting = lasting || sub.lasting
		waiting = waiting || !sub.lasting && !sub.settled
	}
	gone = f.gone
	f.mu.Unlock()
	if gone {
		return false, false, true
	}
	f.reading.again = f.reading.again || stale
	for _, sub := range warn {
		sub.refused(f.known.refusal)
	}
	for _, sub := range due {
		sub.notify(f.known.view)
	}
	return lasting, waiting, false
}

// ask reads the acknowledgement. It arms a watch if it is asked to, in as few
// requests as there can be: a present node is watched by reading it, an absent
// one by asking whether it exists; a read of an absent node leaves no watch.
// Those who wait for one leader only need a watch while there is none.
func (r ackRequest) ask(ctx context.Context, s *Session, path string) (result ackRead) {
	result.ackRequest = r
	on := s.client.connection.Load()
	defer func() {
		if s.client.connection.Load() == on {
			result.on = on
		}
	}()
	result.err = s.do(ctx, func(conn *zk.Conn) (err error) {
		arm := r.arm
		if arm {
			// An ackWatcher before this one may have left its watch.
			if watch := s.watches.reuse(r.inc, path); watch != nil {
				s.watches.remove(path)
				result.watch, arm = watch, false
			}
		}
		var armed <-chan zk.Event
		result.node, armed, err = readAck(conn, path, arm, r.lasting, r.expect)
		if armed != nil {
			result.watch = armed
		}
		if err == nil && result.node != nil && result.node.stat.Czxid < r.newest {
			// A server that lags behind: the node has been replaced since.
			if _, err := conn.Sync(path); err != nil {
				return err
			}
			result.node, err = readNode(conn, path)
		}
		if err == nil && conn.SessionID() != r.inc.id {
			return errUncertain
		}
		return err
	})
	return result
}

func readAck(conn *zk.Conn, path string, arm, lasting, expect bool) (*node, <-chan zk.Event, error) {
	if !arm {
		found, err := readNode(conn, path)
		return found, nil, err
	}
	for ; ; expect = false {
		if expect {
			if found, watch, err := readExpected(conn, path, lasting); found != nil || err != nil {
				return found, watch, err
			}
		}
		exists, _, watch, err := conn.ExistsW(path)
		if err != nil || !exists {
			return nil, watch, err
		}
		// It came in between: the watch is there, its data is not.
		if found, err := readNode(conn, path); found != nil || err != nil {
			return found, watch, err
		}
		// And it went again; that watch has fired.
	}
}

// readExpected reads a node, with a watch if it is to last; nil without an error
// means that there is none, and no watch.
func readExpected(conn *zk.Conn, path string, lasting bool) (*node, <-chan zk.Event, error) {
	if !lasting {
		found, err := readNode(conn, path)
		return found, nil, err
	}
	data, stat, watch, err := conn.GetW(path)
	if errors.Is(err, zk.ErrNoNode) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	return &node{data, *stat}, watch, nil
}

// take accepts what was read; step tells those who have not been told of it.
func (f *ackWatcher) take(m ackRead) {
	if m.inc != f.inc {
		return // of a session that is no more
	}
	if m.err != nil {
		f.readFailed(m)
		return
	}
	f.last.over()
	refused := f.known.refusal != nil
	f.known.refusal = nil
	if m.watch != nil {
		f.known.watch = m.watch
	}
	// Who was told that a request may not be read is told what there is now, also if that is
	// what there was before.
	changed := !sameAck(f.known.view.leader, m.node) || f.quiet && refused
	if changed && m.watch == nil {
		// An event comes ahead of the answer that shows the change. This watch
		// has been silent, and would be again.
		select {
		case event := <-f.known.watch:
			f.fired(event)
		default:
			f.known.watch, f.known.expect = nil, m.node != nil
		}
	}
	f.known.view, f.known.read, f.known.on = ackView{m.node}, m.count, m.on
	if m.node != nil {
		f.known.newest = m.node.stat.Czxid
	}
	if !changed {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for sub := range f.subs {
		sub.told = false
	}
}

// readFailed takes that a read came to nothing: it is tried again soon, or, where the node may
// not be read, with the next recheck.
func (f *ackWatcher) readFailed(m ackRead) {
	f.reading.backingOff = true
	if !isPermanent(m.err) {
		f.leaveWatch(m.inc, m.watch) // the next read finds it there
		f.timer.Reset(jitter(f.session.Timeout() / 16))
		return
	}
	first := f.last.first(fmt.Errorf("read: %w", m.err))
	if f.quiet {
		// An event about a node that may not be read is kept back, and uses its watch up:
		// none that is there now can be relied on.
		f.known.watch = nil
		f.timer.Reset(f.session.recheckInterval()) // it has no recheck of its own, and the next request may be another's
		if first {
			f.session.logger.Error("election: cannot read requests for transfers", "path", f.path, "error", m.err)
		}
	} else {
		f.leaveWatch(m.inc, m.watch)
		if first {
			f.session.logger.Error("election: cannot read the acknowledgement", "path", f.path, "error", m.err)
		}
	}
	f.known.refusal = m.err
	f.mu.Lock()
	defer f.mu.Unlock()
	for sub := range f.subs {
		sub.warned = false
	}
}

func sameAck(a, b *node) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.stat.Czxid == b.stat.Czxid && a.stat.Mzxid == b.stat.Mzxid
}
