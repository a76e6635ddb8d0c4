package election

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/go-zookeeper/zk"
)

// MaxDataSize is the most data, in bytes, that a candidate may have.
// ZooKeeper answers a larger request by closing the connection, which looks
// like a lost reply and would be tried again forever.
const MaxDataSize = 1_000_000

// maxRequestSize is the largest request that a server takes as ZooKeeper is
// configured by default: jute.maxbuffer is 0xfffff. A kilobyte is left for what
// the servers put around a request when they pass it to one another.
const maxRequestSize = 0xfffff - 1024

// Leader is a leader that has acknowledged, as its leader_ack node tells.
type Leader struct {
	// Data is the leader's data. It is a copy: whoever is given it may change it.
	Data []byte
	// SessionID is the leader's ZooKeeper session.
	SessionID int64
	// Zxid identifies this acknowledgement and grows from leader to leader.
	// It is not comparable with Term.Token.
	Zxid int64
	// Since is when it acknowledged, by the clock of the servers.
	Since time.Time
}

// copied returns a copy for one callback: none sees what another does to it.
func (l Leader) copied() Leader {
	l.Data = slices.Clone(l.Data)
	return l
}

// attrs are what the log says of a leader: its session and, as far as they fit
// into a line, its data.
func (l Leader) attrs() []any {
	return []any{"leader", sessionName(l.SessionID), "data", printable(l.Data)}
}

// printable returns at most 64 bytes of data, with what cannot be printed
// written as in Go.
func printable(data []byte) string {
	const most = 64
	more := ""
	if len(data) > most {
		cut := most
		for cut > most-utf8.UTFMax && !utf8.RuneStart(data[cut]) {
			cut-- // not in the middle of a character
		}
		data, more = data[:cut], "..."
	}
	quoted := strconv.Quote(string(data))
	return quoted[1:len(quoted)-1] + more
}

// Term is one stretch of leadership of one ballot.
type Term struct {
	// Token is the fencing token: the czxid of the leader's ballot. Along the
	// line of leaders of an election it only grows; it is equal when the same
	// candidate leads again with nobody in between. A store that remembers
	// the highest token it has seen can refuse a leader of the past.
	Token int64
	// Ballot is the path of the leader's ballot.
	Ballot string
}

// Guard returns an operation to put first in a zk.Conn.Multi: the multi then
// fails, with zk.ErrNoNode, once this term's ballot is gone. It protects data
// that lives in the same ZooKeeper from a leader of the past.
func (t Term) Guard() *zk.CheckVersionRequest {
	return &zk.CheckVersionRequest{Path: t.Ballot, Version: -1}
}

// Ballot is one candidate's ballot.
type Ballot struct {
	Path      string
	Sequence  int64  // the lowest leads
	Data      []byte // the candidate's data
	SessionID int64  // the candidate's ZooKeeper session
	Token     int64  // the fencing token of its terms

	// Priority is what the ballot shows of its candidate's: CandidateOptions.Priority, or
	// the lowest while the candidate is demoted. It is 0 for ballots that show none, those
	// of v0.1 and of members of the gem, whom no priority moves.
	Priority int

	// Err is nil, or why ZooKeeper does not let this session read the ballot:
	// zk.ErrNoAuth, mostly. There is no Data then; the rest is known all the same,
	// unless ZooKeeper refuses that, too, and SessionID and Token are 0.
	Err error
}

// Base is what Candidate and Observer share: it looks at an election without
// taking part. Its methods may be called from any goroutine, callbacks included.
type Base struct {
	session *Session
	logger  *slog.Logger
	name    string
	path    string
	queue   callbackQueue
	inside  atomic.Pointer[callbackRun] // the callback that runs, of a candidate; nil when none does

	closeOnce closer
	ctx       context.Context // ends, with the cause ErrClosed, on Close
	stop      context.CancelCauseFunc
}

func newBase(s *Session, name, root string, logger *slog.Logger) (*Base, error) {
	path, err := electionPath(root, name)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return nil, errNoSession
	}
	if logger == nil {
		logger = s.logger
	}
	b := &Base{session: s, logger: logger.With("election", name), name: name, path: path}
	b.queue.logger = b.logger
	b.ctx, b.stop = context.WithCancelCause(context.Background())
	return b, nil
}

// Session returns the Session that this was made on.
func (b *Base) Session() *Session { return b.session }

// Name returns the election's name, as it was given.
func (b *Base) Name() string { return b.name }

// RootVotePath returns the path of the election's node, below which the
// ballots are.
func (b *Base) RootVotePath() string { return b.path }

// LeaderAckPath returns the path of the leader's acknowledgement.
func (b *Base) LeaderAckPath() string { return b.path + "/" + leaderAckName }

// LeaderAcked reports whether a leader has acknowledged.
func (b *Base) LeaderAcked(ctx context.Context) (bool, error) {
	_, err := b.Leader(ctx)
	if errors.Is(err, ErrNoLeader) {
		return false, nil
	}
	return err == nil, err
}

// LeaderData returns the data of the leader that has acknowledged, or
// ErrNoLeader.
func (b *Base) LeaderData(ctx context.Context) ([]byte, error) {
	leader, err := b.Leader(ctx)
	return leader.Data, err
}

// Leader returns the leader that has acknowledged, or ErrNoLeader. The answer
// is as fresh as the server that gives it, which may lag behind the others;
// LeaderSync is fresher. While no server is connected Leader waits, until ctx
// ends.
func (b *Base) Leader(ctx context.Context) (Leader, error) {
	return b.lookup(ctx, false)
}

// LeaderSync is Leader after a write that a quorum has taken, and the server
// has heard of: a leader that had acknowledged before the call is seen. ZooKeeper's own sync
// needs no quorum, so it would not do: a server that leads no more, and does not know it yet, answers that
// by what it has.
func (b *Base) LeaderSync(ctx context.Context) (Leader, error) {
	return b.lookup(ctx, true)
}

func (b *Base) lookup(ctx context.Context, fresh bool) (Leader, error) {
	path := b.LeaderAckPath()
	ctx, release, err := b.bound(ctx)
	if err != nil {
		return Leader{}, err
	}
	defer release()
	found, err := callAsync(ctx, b.session, func() (*node, error) {
		var found *node
		err := b.session.lookUp(ctx, func(conn *zk.Conn) (err error) {
			id := conn.SessionID()
			if fresh {
				if err := heartbeat(conn); !isDefinite(err) {
					return err
				}
			}
			found, err = readNode(conn, path)
			if fresh && err == nil && conn.SessionID() != id {
				return errUncertain // another session may be on a server that has not caught up
			}
			return err
		})
		return found, err
	})
	if err != nil {
		return Leader{}, b.fail(ctx, err, "look up the leader of", b.path)
	}
	if found == nil {
		return Leader{}, ErrNoLeader
	}
	return found.leader(), nil
}

// readers is how many reads of ballots Ballots has under way at a time. It is a
// small part of maxInFlight, so that a candidate of the session need not wait.
const readers = 16

// Ballots returns the ballots in the order in which they would lead, the
// leader's first. A ballot that goes while they are read is left out; one that
// ZooKeeper does not let this session read has an Err. An election that nobody
// has voted in yet has none.
func (b *Base) Ballots(ctx context.Context) ([]Ballot, error) {
	ctx, release, err := b.bound(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	ballots, err := callAsync(ctx, b.session, func() ([]Ballot, error) { return b.readBallots(ctx) })
	return ballots, b.fail(ctx, err, "list the ballots of", b.path)
}

func (b *Base) readBallots(ctx context.Context) ([]Ballot, error) {
	var names []string
	err := b.session.lookUp(ctx, func(conn *zk.Conn) (err error) {
		names, _, err = conn.Children(b.path)
		return err
	})
	if errors.Is(err, zk.ErrNoNode) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	children := ballotsOf(names)
	found := make([]*Ballot, len(children))
	failures := make([]error, len(children))
	var next atomic.Int64
	var all sync.WaitGroup
	for range min(readers, len(children)) {
		all.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(children) {
					return
				}
				found[i], failures[i] = b.readBallot(ctx, children[i])
			}
		})
	}
	all.Wait()
	var ballots []Ballot
	for i := range children {
		if failures[i] != nil {
			return nil, failures[i]
		}
		if found[i] != nil {
			ballots = append(ballots, *found[i])
		}
	}
	return ballots, nil
}

// readBallot reads one ballot; nil without an error means that it is gone. The
// error is that of a wait that came to its end.
func (b *Base) readBallot(ctx context.Context, child child) (*Ballot, error) {
	ballot := &Ballot{Path: b.path + "/" + child.name, Sequence: child.sequence}
	if priority, shown := priorityOf(child.name); shown {
		ballot.Priority = priority
	}
	gone := false
	var answer error // of the node: what else ends a look-up tells nothing of it
	read := func(conn *zk.Conn) error {
		found, err := readNode(conn, ballot.Path)
		answer = named(err)
		if found != nil {
			ballot.Data, ballot.SessionID, ballot.Token = found.data, found.stat.EphemeralOwner, found.stat.Czxid
		}
		gone = found == nil && err == nil
		return err
	}
	err := b.session.lookUp(ctx, read)
	if isPermanent(answer) && errors.Is(err, answer) {
		// Whoever may not read a node may still see that it is there.
		ballot.Err = err
		err = b.session.lookUp(ctx, func(conn *zk.Conn) error {
			exists, stat, err := conn.Exists(ballot.Path)
			answer = named(err)
			if gone = err == nil && !exists; err == nil && exists {
				ballot.SessionID, ballot.Token = stat.EphemeralOwner, stat.Czxid
			}
			return err
		})
		if isPermanent(answer) && errors.Is(err, answer) {
			err = nil
		}
	}
	if gone || err != nil {
		return nil, err
	}
	return ballot, nil
}

// OnLeaderAck calls fn once, as a callback like the others: now if a leader has
// acknowledged, else when one does. It needs neither a vote nor an Observe.
// cancel, or closing the candidate or observer, ends the wait.
func (b *Base) OnLeaderAck(fn func(Leader)) (cancel func()) {
	ctx, cancel := context.WithCancel(b.ctx)
	sub := &subscription{}
	sub.notify = func(view ackView) {
		if view.leader == nil || ctx.Err() != nil {
			return
		}
		cancel()                       // once
		leader := view.leader.leader() // a copy of its own
		b.queue.push(func() {
			if b.ctx.Err() == nil {
				_ = b.call("OnLeaderAck", 0, fn, func() error { fn(leader); return nil })
			}
		})
	}
	b.session.subscribe(b.LeaderAckPath(), sub)
	context.AfterFunc(ctx, sub.end)
	return cancel
}

// closer lets the first Close do the work; the others wait for it and return
// the same. It is no sync.Once: who waits for that is blocked on a mutex, and in
// testing/synctest time stands still then.
type closer struct {
	mu   sync.Mutex    // not held while anything waits
	done chan struct{} // nil before the first; closed when that is through
	err  error         // written before
}

func (c *closer) do(work func() error) error {
	c.mu.Lock()
	done := c.done
	if done == nil {
		c.done = make(chan struct{})
	}
	c.mu.Unlock()
	if done != nil {
		<-done
		return c.err
	}
	defer close(c.done)
	c.err = work()
	return c.err
}

// bound derives a context that also ends when the candidate or observer is
// closed, and in which the errors of its requests are noted. When it is closed
// already the error is ErrClosed.
func (b *Base) bound(ctx context.Context) (context.Context, func(), error) {
	if b.ctx.Err() != nil {
		return nil, nil, ErrClosed
	}
	bounded, cancel := context.WithCancelCause(withLastError(ctx, &lastError{}))
	stop := context.AfterFunc(b.ctx, func() { cancel(ErrClosed) })
	return bounded, func() { stop(); cancel(nil) }, nil
}

// fail wraps an error for the caller. ctx is from bound.
func (b *Base) fail(ctx context.Context, err error, operation, path string) error {
	if err != nil && ctx.Err() != nil {
		err = contextError(ctx)
		if b.ctx.Err() != nil {
			err = ErrClosed // it was not the caller's context that ended
		}
	}
	return wrapf(b.because(ctx, err), operation, path)
}

// because adds to the error of a wait what stood in the way. ctx is from bound, or derived of it.
func (b *Base) because(ctx context.Context, err error) error {
	last, _ := ctx.Value(lastErrorKey{}).(*lastError)
	return b.session.because(err, last)
}

// checkRequest refuses what ZooKeeper could not take: the largest requests that
// a candidate with these data makes are those that pass leadership on, and that move a ballot
// and wake a member of the gem. The bound holds for a request that would do both.
func (c *Candidate) checkRequest(data []byte) error {
	if len(data) > MaxDataSize {
		return fmt.Errorf("%w: %d bytes, and at most %d may be", ErrDataTooLarge, len(data), MaxDataSize)
	}
	const (
		fixed    = 256                                         // headers, flags, versions and lengths
		ballot   = len("/ballot--j-") + 32 + len("2147483647") // below the election's node
		perEntry = 4 + 4 + 4                                   // permissions and two lengths
		paths    = 6                                           // a handover: two of the request, the target, the acknowledgement, two ballots
		request  = 256                                         // for a transfer, as it is written
		acls     = 2                                           // that of the acknowledgement for the gem, and the ballot's
	)
	size := fixed + paths*(len(c.path)+ballot) + request + len(data)
	for _, entry := range c.errands.nodeACL() {
		size += acls * (perEntry + len(entry.Scheme) + len(entry.ID))
	}
	if size > maxRequestSize {
		return fmt.Errorf("%w: with the election's path and the ACL a request would have %d bytes, and ZooKeeper takes %d",
			ErrDataTooLarge, size, maxRequestSize)
	}
	return nil
}

// cloneData copies data, and makes no data empty ones: ZooKeeper tells a node
// without data from one whose data is empty, and the gem's leader_data takes the
// former for no leader.
func cloneData(data []byte) []byte { return append([]byte{}, data...) }
