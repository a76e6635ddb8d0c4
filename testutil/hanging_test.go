package testutil_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/testutil"
	"github.com/zkelection/election/testutil/realzk"
)

// A party is an ensemble whose members can be kept from each other for a while: the real ones stand still.
type party struct {
	servers    []string
	leader     int
	cut, heal  func(i int)
	kill       func(i int) // while it is cut off
	start      func(i int)
	awaitAgain func() (leader int)

	// awaitTaken waits until member i has noted who has taken up a session. ZooKeeper closes the connection of before, and only then
	// notes the new one; who takes it up in between would not have that closed. Ours does both at once.
	awaitTaken func(t *testing.T, i int, session int64)
}

// TestWhatHangsIsThatOfTheRealOne has requests hang at the leader and at a follower, and compares every answer: what is decided,
// in which order, and what clients that have gone leave behind.
func TestWhatHangsIsThatOfTheRealOne(t *testing.T) {
	for _, release := range releases {
		t.Run(string(release), func(t *testing.T) {
			t.Parallel()
			const tick = 2 * time.Second // a member is given up after thirty of them: it stands still for less
			zookeeper := realzk.StartZooKeeperWith(t, 3, realzk.EnsembleOptions{
				Release: release, TickTime: tick, Config: []string{"initLimit=10", "syncLimit=30"},
			})
			theirs := &party{
				servers: zookeeper.Servers(), leader: zookeeper.Leader(), cut: zookeeper.Pause, heal: zookeeper.Resume,
				kill: zookeeper.Kill, start: zookeeper.Restart, awaitAgain: func() int {
					assert.NoError(t, zookeeper.AwaitServing(3*time.Minute)) // 3.8 has taken 40 s
					return zookeeper.Leader()
				},
				awaitTaken: func(t *testing.T, i int, session int64) {
					require.Eventually(t, func() bool {
						answer, err := tryAsk(zookeeper.Servers()[i], "cons")
						return err == nil && strings.Contains(answer, fmt.Sprintf("sid=0x%x,", session))
					}, wireTimeout, time.Millisecond)
				},
			}
			require.GreaterOrEqual(t, theirs.leader, 0, "no leader")
			srv, err := testutil.NewServer(&testutil.ServerOptions{Release: release, TickTime: tick, MaxSessionTimeout: time.Minute, Members: 3})
			require.NoError(t, err)
			t.Cleanup(srv.Close)
			ours := &party{
				servers: srv.Servers(), cut: func(i int) { srv.Member(i).CutOff() }, heal: func(i int) { srv.Member(i).Heal() },
				kill: func(i int) { srv.Member(i).Stop(); srv.Member(i).Heal() }, start: func(i int) { assert.NoError(t, srv.Member(i).Start()) },
				awaitAgain: srv.Leader, awaitTaken: func(*testing.T, int, int64) {},
			}
			want := theirs.hang(t)
			assert.Equal(t, want, ours.hang(t))
			assert.NotEmpty(t, want)
		})
	}
}

// A hanger is a client that notes its answers as those of the run.
type hanger struct {
	*client
	t       *testing.T
	ops     map[int32]string // requests by number
	waiting int              // answers
}

func (p *party) open(t *testing.T, member int, of *hanger) *hanger {
	t.Helper()
	conn, err := tcp(p.servers[member])()
	require.NoError(t, err)
	h := &hanger{client: &client{wire: &wire{conn: conn}}, t: t, ops: map[int32]string{}}
	t.Cleanup(func() { _ = conn.Close() })
	id, password := int64(0), make([]byte, 16)
	if of != nil {
		id, password = of.id, of.password
	}
	a, err := h.handshake(0, int32(time.Minute.Milliseconds()), id, password)
	require.NoError(t, err)
	h.id, h.password = a.id, a.password
	return h
}

// post sends requests.
func (h *hanger) post(steps ...step) {
	h.t.Helper()
	for _, st := range steps {
		xid, fixed := fixedXids[st.Op]
		if !fixed {
			h.xid++
			xid = h.xid
		}
		h.ops[xid] = st.Op
		require.NoError(h.t, h.write(requestOf(xid, st)))
		h.waiting++
	}
}

// requestOf is a step as it is sent, with the paths that it names.
func requestOf(xid int32, st step) []byte {
	var e encoder
	e.int(xid)
	e.int(opcodes[st.Op])
	return append(e.bytes, encodeRequest(st, func(path string) string { return path }, 0)...)
}

// postBehind posts what hangs, and waits until the server has it: it answers auth at once.
func (h *hanger) postBehind(steps ...step) {
	h.t.Helper()
	h.post(append(steps, step{Op: "auth", Scheme: "digest", Auth: "ann:secret"})...)
	p, err := h.readPacket()
	require.NoError(h.t, err)
	require.Equal(h.t, fixedXids["auth"], p.xid, "auth is not answered at once")
	h.waiting--
}

// answers notes all that is awaited, and the events before it.
func (h *hanger) answers(name string, base int64) (told []string) {
	h.t.Helper()
	r := &describer{base: base, sessions: map[int64]string{}}
	for h.waiting > 0 {
		p, err := h.readPacket()
		if err != nil {
			return append(told, fmt.Sprintf("%s: %v", name, err))
		}
		if p.xid == eventXid {
			told = append(told, name+": "+r.event(p))
			continue
		}
		h.waiting--
		told = append(told, fmt.Sprintf("%s: %d %s: %s", name, p.xid, h.ops[p.xid], r.reply(h.ops[p.xid], p)))
	}
	return told
}

func (p *party) hang(t *testing.T) (told []string) {
	t.Helper()
	for _, far := range []bool{false, true} {
		member, root := p.leader, fmt.Sprintf("/far-%v", far)
		cut := []int{(p.leader + 1) % 3, (p.leader + 2) % 3}
		if far {
			member, cut = cut[0], []int{p.leader}
		}
		one, other, gone := p.open(t, member, nil), p.open(t, member, nil), p.open(t, member, nil)
		made := one.make(root)
		for _, i := range cut {
			p.cut(i)
		}
		sequential := step{Op: "create", Path: root + "/n-", Flags: 2, ACL: openACL}
		list, watched := step{Op: "getChildren", Path: root}, step{Op: "getChildren", Path: root, Watch: true}
		ninth := step{Op: "create", Path: root + "/n-0000000009", ACL: openACL}
		one.postBehind(sequential, watched, step{Op: "sync", Path: root})
		if !far {
			other.post(step{Op: "sync", Path: root}) // which waits for nobody
			told = append(told, other.answers("a sync", made)...)
		}
		other.postBehind(sequential)
		one.postBehind(list, step{Op: "multi", Ops: []step{{Op: "delete", Path: root + "/n-0000000001"}, sequential}}, sequential, step{Op: "ping"}, list)
		gone.postBehind(sequential, list, ninth)
		_ = gone.conn.Close()
		other.postBehind(ninth, step{Op: "delete", Path: root, Version: -1}, list)
		for _, i := range cut {
			p.heal(i)
		}
		told = append(told, one.answers("one", made)...)
		told = append(told, other.answers("other", made)...)
	}

	told = append(append(told, p.alone(t)...), p.without(t)...)

	// What the leader has decided, and nobody else knows, becomes true when it leads again.
	c, late := p.open(t, p.leader, nil), p.open(t, p.leader, nil)
	c.make("/again")
	followers := []int{(p.leader + 1) % 3, (p.leader + 2) % 3}
	for _, i := range followers {
		p.cut(i)
	}
	c.postBehind(step{Op: "setData", Path: "/again", Data: "y", Version: -1})
	for _, i := range followers {
		p.kill(i)
	}
	told = append(told, c.answers("alone", 0)...)
	p.start(followers[1])
	told = append(told, fmt.Sprintf("the same leads: %v", p.awaitAgain() == p.leader))
	again := p.open(t, p.leader, late)
	again.post(step{Op: "getData", Path: "/again"})
	q, err := again.readPacket()
	require.NoError(t, err)
	d := &decoder{bytes: q.body}
	// How many elections it takes is left to the real one.
	return append(told, fmt.Sprintf("zxid in its epoch %d: %s", uint32(q.zxid), quoteData(d.buffer())))
}

// alone has the leader judge, without its followers, what is not a creation, and answer who comes back for what hangs.
func (p *party) alone(t *testing.T) (told []string) {
	one, other, strange, back := p.open(t, p.leader, nil), p.open(t, p.leader, nil), p.open(t, p.leader, nil), p.open(t, p.leader, nil)
	made := one.make("/alone")
	for _, path := range []string{"/alone/rights", "/alone/parent", "/alone/data"} {
		one.make(path)
	}
	other.post(step{Op: "create", Path: "/alone/parent/e", Flags: 1, ACL: openACL})
	told = append(told, other.answers("an ephemeral node", made)...)
	followers := []int{(p.leader + 1) % 3, (p.leader + 2) % 3}
	for _, i := range followers {
		p.cut(i)
	}
	one.postBehind(
		step{Op: "setACL", Path: "/alone/rights", ACL: []scriptACL{{1, "world", "anyone"}}, Version: -1},
		step{Op: "setData", Path: "/alone/rights", Data: "x", Version: -1})
	other.postBehind(step{Op: "closeSession"})
	one.postBehind(step{Op: "delete", Path: "/alone/parent/e", Version: -1}, step{Op: "delete", Path: "/alone/parent", Version: -1})
	strange.postBehind(step{Op: "setData", Path: "/alone/data", Data: "a", Version: -1})
	strange.post(step{Op: "an operation that there is not"})
	told = append(told, strange.answers("strange", made)...)
	back.postBehind(step{Op: "setData", Path: "/alone/data", Data: "b", Version: -1})
	_ = back.conn.Close()
	again := p.open(t, p.leader, back)
	told = append(told, fmt.Sprintf("taken up at once: %v", again.id == back.id))
	again.post(step{Op: "ping"}, step{Op: "getData", Path: "/alone/data"})
	again.postBehind(step{Op: "setData", Path: "/alone/data", Data: "c", Version: -1})
	for _, i := range followers {
		p.heal(i)
	}
	told = append(told, one.answers("one", made)...)
	told = append(told, other.answers("other", made)...)
	return append(told, again.answers("again", made)...)
}

// without has a follower decide handshakes without its leader.
func (p *party) without(t *testing.T) (told []string) {
	follower := (p.leader + 1) % 3
	one, other := p.open(t, follower, nil), p.open(t, follower, nil)
	made := one.make("/without")
	p.cut(p.leader)
	knock := func(of *hanger, zxid int64, password []byte) *hanger {
		conn, err := tcp(p.servers[follower])()
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		h := &hanger{client: &client{wire: &wire{conn: conn}}, t: t, ops: map[int32]string{}}
		require.NoError(t, h.greet(zxid, int32(time.Minute.Milliseconds()), of.id, password))
		return h
	}
	closed := func(name string, h *hanger) {
		_, err := h.readPacket()
		told = append(told, fmt.Sprintf("%s: %v", name, err))
	}
	wrong := knock(one, 0, make([]byte, 16))
	a, err := wrong.readConnectAnswer()
	told = append(told, fmt.Sprintf("a wrong password: session %d, timeout %d, %v", a.id, a.timeout, err))
	closed("a wrong password", wrong)
	closed("the session that it was for", one)
	closed("one that has seen more", knock(one, made+1<<20, one.password))
	first := knock(other, 0, other.password)
	closed("one that is taken up again", other)
	p.awaitTaken(t, follower, other.id)
	second := knock(other, 0, other.password)
	closed("the first to take it up", first)
	p.heal(p.leader)
	a, err = second.readConnectAnswer()
	told = append(told, fmt.Sprintf("the second: its session %v, %v", a.id == other.id, err))
	second.post(step{Op: "exists", Path: "/without"})
	return append(told, second.answers("the second", made)...)
}

// make makes a node, and returns its zxid.
func (h *hanger) make(path string) int64 {
	h.t.Helper()
	h.post(step{Op: "create", Path: path, ACL: openACL})
	h.waiting--
	p, err := h.readPacket()
	require.NoError(h.t, err)
	return p.zxid
}
