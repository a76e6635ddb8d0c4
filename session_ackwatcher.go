package election

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
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

	// Guarded by audience.mu.
	after   int  // reads begun when it subscribed: none of those is fresh enough for it, unless a watch has guarded what it found
	told    bool // has been told of the present view
	warned  bool // has been told of the present refusal
	wasTold bool // not lasting, and has been told of a leader
}

// end ends the subscription. notify may still be running on the ackWatcher's
// goroutine when it returns.
func (sub *subscription) end() {
	sub.once.Do(func() { sub.watcher.unsubscribe(sub) })
}

// audience is who is interested in an acknowledgement. Whoever subscribes uses it, and the ackWatcher's goroutine.
type audience struct {
	mu    sync.Mutex
	subs  map[*subscription]struct{}
	begun int  // reads begun
	gone  bool // nobody is told anything any more. It is changed under roster.mu, so that nobody joins meanwhile
}

// join adds a subscription.
func (a *audience) join(sub *subscription) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.subs[sub] = struct{}{}
	sub.after = a.begun
}

// leave takes a subscription out, and reports whether that was the last one.
func (a *audience) leave(sub *subscription) (last bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.subs, sub)
	a.gone = a.gone || len(a.subs) == 0
	return len(a.subs) == 0
}

// dismiss is for the Session's end.
func (a *audience) dismiss() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.gone = true
}

func (a *audience) isGone() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.gone
}

// beginRead counts a read, and returns which one it is.
func (a *audience) beginRead() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.begun++
	return a.begun
}

// tellAll is for another view: nobody has been told of it.
func (a *audience) tellAll() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for sub := range a.subs {
		sub.told = false
	}
}

// warnAll is for a refusal, likewise.
func (a *audience) warnAll() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for sub := range a.subs {
		sub.warned = false
	}
}

// recipients are those of an audience who are to be told something now, and whether anybody is left to be told of changes.
type recipients struct {
	gone    bool            // nobody, ever
	tell    []*subscription // of the view
	warn    []*subscription // of the refusal
	guarded bool            // it is what there is
	stale   bool            // the view is too old for somebody
	lasting bool            // somebody is told of every change
	waiting bool            // somebody waits for a leader
}

// due returns who is to be told of what is known, and counts them as told. on tells which connection there is.
//
// The client delivers an event ahead of the answers that show the change. Whoever subscribes because of such an answer must not
// be told of before; so the watch is asked when nobody can join any more.
func (a *audience) due(known *ackKnown, on func() *connection) (r recipients) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.gone {
		return recipients{gone: true}
	}
	known.poll()
	r.guarded = known.guarded(on())
	for sub := range a.subs {
		if known.refusal != nil && sub.refused != nil && !sub.warned {
			r.warn = append(r.warn, sub)
			sub.warned = true
		}
		switch {
		case sub.told || sub.wasTold:
		case known.read > sub.after || r.guarded:
			r.tell = append(r.tell, sub)
			sub.told = true
			sub.wasTold = !sub.lasting && known.view.leader != nil
		default:
			r.stale = r.stale || known.read > 0
		}
		r.lasting = r.lasting || sub.lasting
		r.waiting = r.waiting || !sub.lasting && !sub.wasTold
	}
	return r
}

// ackWatcher watches one election's acknowledgement on behalf of all that are
// interested in it on one Session: with a thousand observers of an election
// there is one watch, and one read for each change. It lives as long as there
// is a subscription.
type ackWatcher struct {
	session  *Session
	path     string
	quiet    bool // no read without a reason: unless the last one was refused
	audience audience
	inbox    *inbox        // closed when its goroutine has ended
	last     *lastError    // of its reads
	done     chan struct{} // closed when it has left its watch behind

	// confirmed is when the view was last known to be what there is: nil for never, the zero time for now. Its goroutine writes it.
	confirmed atomic.Pointer[time.Time]

	// Owned by its goroutine.
	former  *ackWatcher // the one before, while it has not left its watch behind; or nil. It does not change when this one is over
	known   ackKnown
	reading ackReading
}

// ackKnown is what an ackWatcher knows of its acknowledgement.
type ackKnown struct {
	inc     *incarnation // that it is known on
	view    ackView
	read    int             // which read the view is from; 0: not known
	on      *connection     // that brought it; nil: not known
	watch   <-chan zk.Event // armed, or nil
	expect  bool            // a leader is expected to be there: read its data at once
	newest  int64           // czxid of the last acknowledgement seen
	refusal error           // the last read was refused
}

// enter forgets what was of another session, whose watch never fires for this one. What was seen stays: nobody is told of
// it again. expect is for whoever has left a session; before the first one it is known from the beginning.
func (k *ackKnown) enter(inc *incarnation, expect bool) {
	if k.inc == nil {
		expect = k.expect
	}
	*k = ackKnown{inc: inc, view: k.view, newest: k.newest, expect: expect}
}

// guarded reports whether the view is what there is, since no event has come on the present connection. The client
// restores its watches on a new connection beside the requests that wait for one, so a watch says nothing for as long
// of what has changed meanwhile. (That a caller's connection is a new one is seen at the loop's next look, and one that came and
// went between two looks is not: sessionsSeen.)
func (k *ackKnown) guarded(on *connection) bool {
	return k.read > 0 && k.watch != nil && k.on != nil && k.on == on
}

// poll takes the watch's event, if there is one.
func (k *ackKnown) poll() (fired bool) {
	select {
	case event := <-k.watch:
		k.fired(event)
		return true
	default:
		return false
	}
}

func (k *ackKnown) fired(event zk.Event) {
	k.watch, k.read = nil, 0
	k.expect = event.Type != zk.EventNodeDeleted
}

// learn takes what was read, and reports whether it is something else than before, or is to be told again.
func (k *ackKnown) learn(m ackRead, again bool) (changed bool) {
	k.refusal = nil
	if m.watch != nil {
		k.watch = m.watch
	}
	changed = again || !sameAck(k.view.leader, m.node)
	if changed && m.watch == nil && !k.poll() {
		// An event comes ahead of the answer that shows the change. This watch
		// has been silent, and would be again.
		k.watch, k.expect = nil, m.node != nil
	}
	k.view, k.read, k.on = ackView{m.node}, m.count, m.on
	if m.node != nil {
		k.newest = m.node.stat.Czxid
	}
	return changed
}

// ackReading is what an ackWatcher does about that.
type ackReading struct {
	busy       bool        // a helper reads
	again      bool        // read again, whatever the watch says
	backingOff bool        // the last read failed: not again before the timer
	timer      *time.Timer // until the next recheck, or the next try
	reconnects uint64      // of the Session, as it was last told
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
	if f == nil || f.audience.isGone() {
		f = &ackWatcher{
			session: s, path: path, quiet: sub.quiet, audience: audience{subs: make(map[*subscription]struct{})},
			inbox: newInbox(), last: &lastError{logger: s.logger}, done: make(chan struct{}),
			former: f, known: ackKnown{expect: !sub.quiet && !sub.unexpected},
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
	f.audience.join(sub)
	f.wake()
}

func (f *ackWatcher) unsubscribe(sub *subscription) {
	// In the order of subscribe, so that nobody joins an ackWatcher that is ending.
	f.session.roster.mu.Lock()
	defer f.session.roster.mu.Unlock()
	if last := f.audience.leave(sub); last {
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
	f.audience.dismiss()
	f.wake()
	return nil
}

func (f *ackWatcher) run() {
	defer f.end()
	if !f.awaitFormer() {
		return
	}
	f.reading.timer = time.NewTimer(f.recheckInterval())
	defer f.reading.timer.Stop()
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
			f.known.fired(event)
		case <-f.reading.timer.C:
			f.reading.again, f.reading.backingOff = true, false
			f.reading.timer.Reset(f.recheckInterval())
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
			if f.audience.isGone() {
				return false
			}
		}
	}
	return true
}

// end leaves the watch to whoever is interested next. A read that is under way may
// bring another one: then it is its end that is waited for.
func (f *ackWatcher) end() {
	f.confirm(false)
	f.leaveWatch(f.known.inc, f.known.watch)
	for _, message := range f.inbox.close() {
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
	if ended := !f.inbox.push(m); ended {
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

// step tells the subscribers what is known, and asks for what is not. It
// returns false when there is nothing left to do, ever.
func (f *ackWatcher) step(ctx context.Context) bool {
	view := f.session.currentView()
	if view.inc != f.known.inc {
		f.known.enter(view.inc, !f.quiet)
		f.reading.backingOff = false
	}
	if view.reconnects != f.reading.reconnects {
		f.reading.reconnects, f.reading.again, f.reading.backingOff = view.reconnects, f.reading.again || !f.quiet, false
	}

	who := f.inform(view.connected)
	if who.gone {
		return false
	}
	if f.known.watch == nil {
		f.known.read = 0 // nothing guards the view: it is not for those who come later
	}
	if view.inc == nil || !view.connected || f.reading.busy || f.reading.backingOff {
		return true
	}
	arm := f.known.watch == nil && f.known.refusal == nil
	if (arm || f.reading.again) && (who.lasting || who.waiting) {
		f.reading.busy, f.reading.again = true, false
		request := ackRequest{view.inc, f.audience.beginRead(), arm, who.lasting, f.known.expect, f.known.newest}
		if !f.session.goHelper(func() { f.readDone(request.ask(ctx, f.session, f.path)) }) {
			f.reading.busy = false // the Session is at its end
		}
	}
	return true
}

// inform tells the subscribers that do not know the view yet.
func (f *ackWatcher) inform(connected bool) recipients {
	who := f.audience.due(&f.known, f.session.client.connection.Load)
	f.confirm(who.guarded && connected) // before anybody is told
	f.reading.again = f.reading.again || who.stale
	for _, sub := range who.warn {
		sub.refused(f.known.refusal)
	}
	for _, sub := range who.tell {
		sub.notify(f.known.view)
	}
	return who
}

// confirm notes whether the view is what there is now.
func (f *ackWatcher) confirm(is bool) {
	switch at := f.confirmed.Load(); {
	case is && (at == nil || !at.IsZero()):
		f.confirmed.Store(new(time.Time))
	case !is && at != nil && at.IsZero():
		now := time.Now()
		f.confirmed.Store(&now)
	}
}

// confirmedAt is when the view was last known to be what there is; the zero time for never.
func (f *ackWatcher) confirmedAt() time.Time {
	switch at := f.confirmed.Load(); {
	case at == nil:
		return time.Time{}
	case at.IsZero():
		return time.Now()
	default:
		return *at
	}
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
	if m.inc != f.known.inc {
		return // of a session that is no more
	}
	if m.err != nil {
		f.readFailed(m)
		return
	}
	f.last.over()
	// Who was told that a request may not be read is told what there is now, also if that is
	// what there was before.
	again := f.quiet && f.known.refusal != nil
	if f.known.learn(m, again) {
		f.audience.tellAll()
	}
}

// readFailed takes that a read came to nothing: it is tried again soon, or, where the node may
// not be read, with the next recheck.
func (f *ackWatcher) readFailed(m ackRead) {
	f.reading.backingOff = true
	if !isPermanent(m.err) {
		f.leaveWatch(m.inc, m.watch) // the next read finds it there
		f.reading.timer.Reset(jitter(f.session.Timeout() / 16))
		return
	}
	first := f.last.first(fmt.Errorf("read: %w", m.err))
	// An event about a node that may not be read is kept back, and uses its watch up:
	// none that is there now can be relied on.
	f.known.watch = nil
	if f.quiet {
		f.reading.timer.Reset(f.session.recheckInterval()) // it has no recheck of its own, and the next request may be another's
		if first {
			f.session.logger.Error("election: cannot read requests for transfers", "path", f.path, "error", m.err)
		}
	} else if first {
		f.session.logger.Error("election: cannot read the acknowledgement", "path", f.path, "error", m.err)
	}
	f.known.refusal = m.err
	f.audience.warnAll()
}

func sameAck(a, b *node) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.stat.Czxid == b.stat.Czxid && a.stat.Mzxid == b.stat.Mzxid
}
