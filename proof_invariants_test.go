package election

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/testutil"
)

// The invariants of docs/protocol.md, checked while an election runs in a
// synctest bubble: a trial is one such run, with its server, candidates and
// observers. Nothing here asks the library how it works; what it says (IsLeader,
// LeaseUntil, callbacks) is held against what the others say and against what is
// true on the server.
//
// trial.mu guards the fields below it and is held for moments only. Checks run
// on whatever goroutine brings the event: the candidates' loops (through
// Metrics), their callbacks, the server's connections (through Control).
type trial struct {
	closing atomic.Int64 // Closes of candidates under way
	moves   atomic.Int64 // requests to move a ballot
	t       *testing.T
	srv     *testutil.Server
	timeout time.Duration
	tick    time.Duration
	far     bool // processes can be far away
	began   time.Time
	path    string // of the election's node
	logger  *slog.Logger

	actors atomic.Pointer[[]*actor] // every candidate there ever was

	// Set before anybody votes.
	onClaim func(a *actor, session int64) // called, on the candidate's loop, when one begins to lead
	atRest  func()                        // called by finish when all candidates are closed, and no session

	mu        sync.Mutex
	witnesses []*witness
	processes []*process
	history   []happening
	broken    map[string]bool   // what has been reported already
	tags      map[string]*actor // who casts with a tag, by the data of the ballot
	forced    map[int64]bool    // sessions that ended early, against ZooKeeper's promise
	tampered  bool              // somebody deleted nodes by hand
	mistaken  map[string]bool   // ballots that a deleted one's acknowledgement may be taken for
	stopped   bool              // time stands still for the sessions
	met       map[string]int    // situations of simSituations, and how often each was met
	asked     map[string]bool   // data that an acknowledgement has been asked for with
	token     int64             // of the last claim
	claimant  *actor
	claims    int
	stepDowns int
	excused   int // overlaps that an early expiry explains
	failed    bool
	control   bool // violations are wanted: they fail nothing, and are in broken
}

// electionName is the election that all trials hold.
const electionName = "db"

// happening is one line of a trial's history.
type happening struct {
	at   time.Duration
	text func() string
}

// newTrial makes the server and the checks on it. The trial ends with finish.
func newTrial(t *testing.T, opts testutil.ServerOptions, timeout time.Duration) *trial {
	opts.NoListen = true
	w := &trial{
		t: t, timeout: timeout, tick: opts.TickTime, began: time.Now(), path: DefaultRoot + "/" + electionName,
		broken: make(map[string]bool), tags: make(map[string]*actor),
		forced: make(map[int64]bool), mistaken: make(map[string]bool), asked: make(map[string]bool), met: make(map[string]int),
	}
	w.actors.Store(new([]*actor))
	w.logger = slog.New(&historian{w, ""})
	srv, err := testutil.NewServer(&opts)
	require.NoError(t, err)
	w.srv = srv
	srv.Control(testutil.AnyOp, w.observe)
	return w
}

// note adds a line to the history.
func (w *trial) note(format string, args ...any) {
	w.happened(func() string { return fmt.Sprintf(format, args...) })
}

func (w *trial) happened(text func() string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.history = append(w.history, happening{time.Since(w.began), text})
}

// violated reports a broken invariant, each kind once in a trial.
func (w *trial) violated(kind, format string, args ...any) {
	w.mu.Lock()
	again, wanted := w.broken[kind], w.control
	w.broken[kind], w.failed = true, true
	w.mu.Unlock()
	if again {
		return
	}
	message := fmt.Sprintf(format, args...)
	w.note("VIOLATION: %s: %s", kind, message)
	if !wanted {
		w.t.Errorf("%v: %s: %s", time.Since(w.began), kind, message)
	}
}

// meets counts a situation that the trial is in.
func (w *trial) meets(situation string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.met[situation]++
}

func (w *trial) hasFailed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failed
}

// tell prints the history of a trial that has failed.
func (w *trial) tell() {
	w.mu.Lock()
	lines := w.history
	w.mu.Unlock()
	var b strings.Builder
	if extra := len(lines) - 400; extra > 0 {
		fmt.Fprintf(&b, "(%d lines before)\n", extra)
		lines = lines[extra:]
	}
	for _, h := range lines {
		fmt.Fprintf(&b, "%9.4f %s\n", h.at.Seconds(), h.text())
	}
	w.t.Logf("history (seconds of virtual time):\n%s%s", b.String(), w.srv.Dump())
}

// excuse says that a session was ended early: until its owner knows, two may
// lead, because ZooKeeper's promise was broken, not ours.
func (w *trial) excuse(session int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if session != 0 {
		w.forced[session] = true
	}
}

func (w *trial) isExcused(session int64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.forced[session] || w.tampered
}

// mistake says that a ballot is about to be deleted by hand: until its owner knows, Transfer may take its acknowledgement for that of
// another ballot on its session, if that stood already, as its comment says.
func (w *trial) mistake(deleted seenBallot, ballots []seenBallot) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, b := range ballots {
		if b.path != deleted.path && b.session == deleted.session {
			w.mistaken[b.path] = true
		}
	}
}

func (w *trial) isMistakable(ballot string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mistaken[ballot]
}

// stop and start are the server's; the sessions' time stands still in between.
func (w *trial) stop() {
	w.mu.Lock()
	w.stopped = true
	w.mu.Unlock()
	w.srv.Stop()
	w.note("server stopped")
}

func (w *trial) start() {
	assert.NoError(w.t, w.srv.Start(), "start the server")
	w.mu.Lock()
	w.stopped = false
	w.mu.Unlock()
	w.note("server started")
}

// --- what is true on the server

// seen is the election as the server has it.
type seen struct {
	ballots []seenBallot // the lowest first
	ack     int64        // the session that owns leader_ack; 0 for none
	request int64        // the session that has asked for a transfer; 0 for none
}

type seenBallot struct {
	path     string
	tag      string
	sequence int64
	session  int64
}

func (w *trial) look() (s seen, sessions []testutil.SessionInfo) {
	sessions = w.srv.Sessions()
	for _, info := range sessions {
		for _, path := range info.Ephemerals {
			name, ok := strings.CutPrefix(path, w.path+"/")
			switch {
			case !ok:
			case name == "leader_ack":
				s.ack = info.ID
			case name == transferName:
				s.request = info.ID
			case strings.HasPrefix(name, "ballot"):
				number, err := strconv.ParseInt(name[len(name)-10:], 10, 64)
				if err != nil {
					w.violated("ballot's name", "%s", path)
				}
				s.ballots = append(s.ballots, seenBallot{path, strings.TrimSuffix(name, name[len(name)-10:]), number, info.ID})
			}
		}
	}
	slices.SortFunc(s.ballots, func(a, b seenBallot) int { return int(a.sequence - b.sequence) })
	return s, sessions
}

// observe is told of every request when it arrives, and so sees what all
// requests before it have done.
func (w *trial) observe(r *testutil.Request) testutil.Action {
	switch r.Op {
	case testutil.OpCreate:
		w.learnTag(r)
	case testutil.OpDelete:
	case testutil.OpMulti:
		if len(r.Ops) == 1 && r.Ops[0].Op == testutil.OpCheck {
			w.sample()
			return testutil.Pass // a heartbeat
		}
		if isMove(r) {
			w.moves.Add(1)
		}
		for _, op := range r.Ops {
			w.learnTag(&op)
			if op.Op == testutil.OpSetData && op.Path == w.path+"/leader_ack" {
				w.mu.Lock()
				w.asked[string(op.Data)] = true
				w.mu.Unlock()
			}
		}
	default:
		return testutil.Pass
	}
	w.sample()
	w.checkNodes()
	return testutil.Pass
}

// learnTag remembers whose ballot a create, alone or in a multi, may make.
func (w *trial) learnTag(r *testutil.Request) {
	tag, ok := strings.CutPrefix(r.Path, w.path+"/")
	if r.Op != testutil.OpCreate || !ok || !strings.HasPrefix(tag, "ballot") {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range *w.actors.Load() {
		if dataOf(r.Data) == a.name {
			w.tags[tag] = a
		}
	}
}

// checkNodes: an acknowledgement stands only beside the ballot of the leader,
// and that is the lowest.
func (w *trial) checkNodes() {
	s, _ := w.look()
	if s.ack == 0 || w.isExcused(s.ack) {
		return
	}
	if len(s.ballots) == 0 || s.ballots[0].session != s.ack {
		w.violated("acknowledgement without a leader", "session %s acknowledged; ballots %v", sessionName(s.ack), s.ballots)
	}
}

// --- two leaders

// excludes returns the term in which a candidate says that nobody else leads: it
// does itself, or gives leadership up and has not ended its work.
func (a *actor) excludes() *leadership {
	if l := a.leader.Load(); l != nil && a.IsLeader() {
		return l
	}
	if s := a.stepping.Load(); s != nil && !a.ExclusiveUntil().IsZero() {
		return s.lead
	}
	return nil
}

// sample looks whether two candidates exclude each other at one moment. The first is looked
// at again after the second: both do at the moment of that, if the first has
// without interruption.
func (w *trial) sample() {
	var first *actor
	var held *leadership
	for _, a := range *w.actors.Load() {
		l := a.excludes()
		if l == nil {
			continue
		}
		if first == nil {
			first, held = a, l
			continue
		}
		if first.excludes() != held || a.excludes() != l {
			first, held = a, l
			continue
		}
		if w.isExcused(held.ballot.inc.id) || w.isExcused(l.ballot.inc.id) {
			w.mu.Lock()
			w.excused++
			w.mu.Unlock()
			continue
		}
		w.violated("two leaders", "%s (leads: %t, until %.4f) and %s (leads: %t, until %.4f)",
			first.name, first.IsLeader(), first.ExclusiveUntil().Sub(w.began).Seconds(),
			a.name, a.IsLeader(), a.ExclusiveUntil().Sub(w.began).Seconds())
	}
}

// checkLease: the lease ends before the server may expire the session.
func (w *trial) checkLease(a *actor) {
	until := a.LeaseUntil()
	if until.IsZero() {
		return
	}
	l := a.leader.Load()
	if l == nil {
		return
	}
	id := l.ballot.inc.id
	w.mu.Lock()
	stopped := w.stopped
	w.mu.Unlock()
	if stopped || w.isExcused(id) || w.srv.Leader() < 0 {
		return
	}
	_, sessions := w.look()
	i := slices.IndexFunc(sessions, func(s testutil.SessionInfo) bool { return s.ID == id })
	if i < 0 {
		if a.leader.Load() == l && a.IsLeader() && !w.isExcused(id) { // which may have come meanwhile
			w.violated("lease without a session", "%s leads; session %s is no more", a.name, sessionName(id))
		}
		return
	}
	if left := time.Until(until); left > sessions[i].ExpiresIn+2*time.Millisecond {
		w.mu.Lock()
		stopped = w.stopped
		w.mu.Unlock()
		if !stopped {
			w.violated("lease longer than the session", "%s: %v left of the lease, %v of the session", a.name, left, sessions[i].ExpiresIn)
		}
	}
}

// claimed is called the moment that a candidate begins to lead.
func (w *trial) claimed(a *actor) {
	w.sample()
	l := a.leader.Load()
	if l == nil {
		return
	}
	w.note("%s claims, token %x, lease until %.4f", a.name, l.term.Token, l.lease.Deadline().Sub(w.began).Seconds())
	excused := w.isExcused(l.ballot.inc.id)
	if w.onClaim != nil {
		w.onClaim(a, l.ballot.inc.id)
	}
	w.mu.Lock()
	w.claims++
	last, by := w.token, w.claimant
	if !excused {
		w.token, w.claimant = l.term.Token, a
	}
	w.mu.Unlock()
	if excused {
		return
	}
	if l.term.Token < last || l.term.Token == last && by != a {
		w.violated("token order", "%s claims with %x after %s with %x", a.name, l.term.Token, by.name, last)
	}
	w.checkLease(a)
	s, _ := w.look()
	if w.isExcused(l.ballot.inc.id) {
		return // meanwhile
	}
	if len(s.ballots) == 0 || s.ballots[0].path != l.term.Ballot {
		w.violated("claim without the lowest ballot", "%s claims with %s; ballots %v", a.name, l.term.Ballot, s.ballots)
	}
	w.checkBallots(s, a)
}

// checkBallots: a candidate has one ballot at most.
func (w *trial) checkBallots(s seen, a *actor) {
	if own := w.ballotsOf(s, a); len(own) > 1 {
		w.violated("two ballots", "of %s: %v", a.name, own)
	}
}

func (w *trial) ballotsOf(s seen, a *actor) (own []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, b := range s.ballots {
		if w.tags[b.tag] == a {
			own = append(own, b.path)
		}
	}
	return own
}

// --- calm

// settled says what is missing for the election to be as it should: somebody
// leads, has acknowledged, every observer knows it, and whoever stands has a
// ballot, and one.
func (w *trial) settled() string {
	s, _ := w.look()
	if s.ack == 0 {
		return "no acknowledgement"
	}
	var leader *actor
	for _, a := range *w.actors.Load() {
		if l := a.leader.Load(); l != nil && a.IsLeader() && l.ballot.inc.id == s.ack {
			leader = a
		}
	}
	if leader == nil {
		return "an acknowledgement, and nobody leads"
	}
	leader.mu.Lock()
	failing := leader.failing && leader.won != nil
	leader.mu.Unlock()
	if failing {
		return leader.name + " leads though its takeover has failed"
	}
	for _, a := range *w.actors.Load() {
		if n := len(w.ballotsOf(s, a)); n != 1 && a.stands() {
			return fmt.Sprintf("%s stands with %d ballots", a.name, n)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, o := range w.witnesses {
		if alive, known := o.LeaderAlive(); o.p.closing || known && alive && o.current != nil && o.current.SessionID == s.ack {
			continue
		}
		return o.name + " does not know of the leader"
	}
	return ""
}

// awaitLeader requires the election to be settled within limit after the faults
// have ended: now, or when since says, which may become later meanwhile. It
// returns how long that took. Of an election that nobody stands in it asks
// nothing.
func (w *trial) awaitLeader(limit time.Duration, since func() time.Time) time.Duration {
	start := time.Now()
	for {
		if since != nil && since().After(start) {
			start = since()
		}
		missing := ""
		if w.hopeful() {
			missing = w.settled()
		}
		took := time.Since(start)
		if missing == "" && took >= 0 {
			return took
		}
		if took > limit {
			w.violated("no leader", "%v after the faults: %s", limit, missing)
			return took
		}
		time.Sleep(limit / 200)
	}
}

// hopeful reports whether somebody stands in the election.
func (w *trial) hopeful() bool {
	for _, a := range *w.actors.Load() {
		if a.stands() {
			return true
		}
	}
	return false
}

// awaitCalm gives a session the time to come back: whose handshake has lost its answer as the last thing that happened, the
// client waits for that as for any other.
func (w *trial) awaitCalm(p *process) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*w.timeout)
	defer cancel()
	if err := p.session.AwaitConnected(ctx); err != nil && !p.isClosing() {
		w.violated("calm", "%s has no connection: %v", p.name, err)
	}
}

// finish closes everything and requires that nothing is left. It must be
// called once all faults have ended.
func (w *trial) finish() {
	for _, a := range *w.actors.Load() {
		if !a.gaveUp() {
			w.awaitCalm(a.p)
			a.close(true)
		}
	}
	if w.atRest != nil {
		w.atRest()
	}
	w.mu.Lock()
	processes := w.processes
	w.mu.Unlock()
	if slices.ContainsFunc(processes, (*process).isClosing) {
		time.Sleep((w.timeout + 2*w.tick) * 13 / 12) // what Close could not withdraw ends with its session
	}
	if s, _ := w.look(); len(s.ballots) > 0 || s.ack != 0 {
		w.violated("left after Close", "ballots %v, acknowledgement of %x", s.ballots, s.ack)
	}
	for _, p := range processes {
		if err := p.end(); err != nil && !p.isClosing() { // else it is what the first came to
			w.violated("close of a session", "%s: %v", p.name, err)
		}
	}
	for _, a := range *w.actors.Load() {
		a.ended()
	}
	if n := w.srv.Watches(); n > 0 {
		w.violated("watches left", "%d after all sessions have closed", n)
	}
	if w.hasFailed() && !w.control {
		w.tell()
	}
	w.srv.Close()
}

// historian keeps what the library logs, unformatted.
type historian struct {
	w      *trial
	prefix string
}

func (h *historian) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }
func (h *historian) WithGroup(string) slog.Handler                    { return h }

func (h *historian) WithAttrs(attrs []slog.Attr) slog.Handler {
	for _, a := range attrs {
		if a.Key == "as" {
			return &historian{h.w, a.Value.String()}
		}
	}
	return h
}

func (h *historian) Handle(_ context.Context, r slog.Record) error {
	h.w.happened(func() string {
		var b strings.Builder
		fmt.Fprintf(&b, "%s: %s", h.prefix, r.Message)
		r.Attrs(func(a slog.Attr) bool {
			if a.Key != "stack" {
				fmt.Fprintf(&b, " %s=%v", a.Key, a.Value)
			}
			return true
		})
		return b.String()
	})
	return nil
}
