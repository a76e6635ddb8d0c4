package testutil_test

import (
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/testutil"
	"github.com/zkelection/election/testutil/realzk"
)

func ask(t *testing.T, addr, word string) string {
	t.Helper()
	answer, err := tryAsk(addr, word)
	require.NoError(t, err)
	return answer
}

func tryAsk(addr, word string) (string, error) {
	nc, err := net.DialTimeout("tcp", addr, wireTimeout)
	if err != nil {
		return "", err
	}
	defer nc.Close()
	if err := nc.SetDeadline(time.Now().Add(wireTimeout)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(nc, word); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(nc)
	return string(answer), err
}

// shapes are what differs between two servers that say the same: versions as they were built, times, numbers, what is
// kept in directories.
var shapes = []struct{ pattern, becomes string }{
	{`(?m)^(?:dataDir|dataLogDir|dataDirSize|dataLogSize)=.*\n`, ""},
	{`(\d+\.\d+\.\d+)-[^,]*, built on \d{4}-\d\d-\d\d \d\d:\d\d UTC`, "${1}-HASH, built on DATE"},
	{`[A-Z][a-z]{2} [A-Z][a-z]{2} \d\d \d\d:\d\d:\d\d [A-Z]+ \d{4}`, "TIME"},
	{`;[0-9.:]+`, ""}, // an address for clients, which the real one's configuration leaves out
	{`(server\.\d+)=[0-9.]+:\d+:\d+`, "$1=PORTS"},
	{`(Proposal sizes last/min/max): .*`, "$1"},
	{`0x[0-9a-f]+`, "0xN"},
	{`\d+\.\d+\.\d+\.\d+:\d+`, "ADDR"},
	{`(queued|recved|sent|est|lcxid|lzxid|lresp|llat|minlat|avglat|maxlat)=[0-9a-fxN]+`, "$1=N"},
	{`(Received|Sent|Outstanding|Connections|clientPort|electionPort|quorumPort|serverId): ?=?\d+`, "$1: N"},
	{`(clientPort|electionPort|quorumPort|serverId)=\d+`, "$1=N"},
	{`Latency min/avg/max: .*`, "Latency"},
}

func shapeOf(answer string) string {
	for _, s := range shapes {
		answer = regexp.MustCompile(s.pattern).ReplaceAllString(answer, s.becomes)
	}
	return answer
}

// wordsWanted are compared in full, the lines in any order where the real one has none.
var wordsWanted = []string{"ruok", "isro", "srvr", "conf", "wchs", "wchp", "wchc", "crst", "srst"}

// TestWordsAsTheRealOneSaysThem compares the four-letter words with those of a real server, alone and in an ensemble.
func TestWordsAsTheRealOneSaysThem(t *testing.T) {
	for _, release := range releases {
		for _, members := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s/members=%d", release, members), func(t *testing.T) {
				t.Parallel()
				// The limits, which conf shows, are those of the in-process server; with its usual tick no member loses another.
				const tick = 2 * time.Second
				theirs := realzk.StartZooKeeperWith(t, members, realzk.EnsembleOptions{
					Release: release, TickTime: tick, Config: []string{"initLimit=10", "syncLimit=5"},
				})
				ours, err := testutil.NewServer(&testutil.ServerOptions{
					Release: release, TickTime: tick, MaxSessionTimeout: time.Minute, Members: members,
				})
				require.NoError(t, err)
				t.Cleanup(ours.Close)
				leader := theirs.Leader()
				require.GreaterOrEqual(t, leader, 0, "no leader")
				for _, role := range []struct {
					name          string
					theirs, ours  string
					onlyIfMembers int
				}{
					{"leader", theirs.Servers()[leader], ours.Servers()[0], 1},
					{"follower", theirs.Servers()[(leader+1)%members], ours.Servers()[1%members], 3},
				} {
					if members < role.onlyIfMembers {
						continue
					}
					conns := make(map[string]func(step))
					path := "/" + role.name
					for _, addr := range []string{role.theirs, role.ours} {
						request := openWire(t, addr)
						conns[addr] = request
						request(step{Op: "create", Path: path, Data: "data", Flags: 1, ACL: openACL})
						request(step{Op: "getData", Path: path, Watch: true})
						request(step{Op: "setData", Path: path, Data: "data", Version: -1}) // the watch fires before its answer
					}
					for _, word := range []string{"wchs", "wchp", "wchc"} {
						compareShapes(t, word+" of the "+role.name+" once a watch has fired", ask(t, role.theirs, word), ask(t, role.ours, word))
					}
					for _, addr := range []string{role.theirs, role.ours} {
						conns[addr](step{Op: "getData", Path: path, Watch: true})
					}
					compareFields(t, ask(t, role.theirs, "mntr"), ask(t, role.ours, "mntr"))
					compareConnections(t, "lop=GETD,", ask(t, role.theirs, "cons"), ask(t, role.ours, "cons"))
					for _, word := range wordsWanted {
						compareShapes(t, word+" of the "+role.name, ask(t, role.theirs, word), ask(t, role.ours, word))
					}
					compareConnections(t, "lop=NA,", ask(t, role.theirs, "cons"), ask(t, role.ours, "cons")) // after crst
					compareDumps(t, wholeDump(t, role.theirs), wholeDump(t, role.ours))
				}
				if members > 1 {
					compareConfigs(t, dialZK(t, theirs.Servers()[0]), dialZK(t, ours.Servers()[0]))
				}
			})
		}
	}
}

// openWire opens a session that says nothing by itself, so that its last operation is the last request, and returns what makes
// one. go-zookeeper pings, and after connecting sets again the watches that it finds, which may be behind the first requests.
func openWire(t *testing.T, addr string) (request func(step)) {
	t.Helper()
	conn, err := tcp(addr)()
	require.NoError(t, err)
	w := &wire{conn: conn}
	t.Cleanup(func() { _ = conn.Close() })
	a, err := w.handshake(0, int32(time.Minute.Milliseconds()), 0, make([]byte, 16))
	require.NoError(t, err)
	require.NotZero(t, a.id, "no session")
	xid := int32(0)
	return func(st step) {
		t.Helper()
		xid++
		require.NoError(t, w.write(requestOf(xid, st)))
		p := packet{xid: eventXid}
		for p.xid == eventXid {
			p, err = w.readPacket()
			require.NoError(t, err)
		}
		require.Equal(t, xid, p.xid)
		require.Zero(t, p.err, "%s", st)
	}
}

// TestWordsCountAsTheRealOneDoes: what cons, srvr and dump tell after each of these steps, numbers and all.
func TestWordsCountAsTheRealOneDoes(t *testing.T) {
	for _, release := range releases {
		t.Run(string(release), func(t *testing.T) {
			t.Parallel()
			theirs := realzk.StartZooKeeperWith(t, 1, realzk.EnsembleOptions{Release: release, TickTime: 2 * time.Second})
			ours, err := testutil.NewServer(&testutil.ServerOptions{Release: release, MaxSessionTimeout: time.Minute})
			require.NoError(t, err)
			t.Cleanup(ours.Close)
			want := wordsCounted(t, ours.Addr(), nil)
			assert.Equal(t, wordsCounted(t, theirs.Servers()[0], want), want)
		})
	}
}

// wordsCounted asks again where the answer is not what is awaited: the real one counts a packet when it has been sent, and as
// answered a little later.
func wordsCounted(t *testing.T, addr string, awaited []string) (told []string) {
	t.Helper()
	asked := 0 // since srst
	word := func(word string) string {
		asked++
		return ask(t, addr, word)
	}
	tell := func(after string, what func() string) {
		t.Helper()
		// In tries, and not for a time: whoever stands still for that would take an answer of before.
		for tries := 0; ; tries++ {
			line := after + ": " + what()
			if n := len(told); n >= len(awaited) || awaited[n] == line || tries == 200 {
				told = append(told, line)
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	conn, err := tcp(addr)()
	require.NoError(t, err)
	w := &wire{conn: conn}
	t.Cleanup(func() { _ = w.conn.Close() })
	a, err := w.handshake(0, int32(time.Minute.Milliseconds()), 0, make([]byte, 16))
	require.NoError(t, err)
	session := fmt.Sprintf("0x%x", a.id)
	hide := strings.NewReplacer(session, "SESSION")
	note := func(after string) {
		t.Helper()
		tell(after, func() string {
			for line := range strings.Lines(word("cons")) {
				if _, of, _ := strings.Cut(line, "("); strings.Contains(of, session) {
					return hide.Replace(regexp.MustCompile(`(est|llat|minlat|avglat|maxlat)=\d+|(lresp)=[1-9]\d*`).ReplaceAllString(of, "$1$2=N"))
				}
			}
			return "none"
		})
	}
	note("handshake")
	xid := int32(0)
	request := func(st step) {
		xid++
		number := xid
		if fixed, ok := fixedXids[st.Op]; ok {
			number = fixed
		}
		require.NoError(t, w.write(requestOf(number, st)))
		p := packet{xid: eventXid}
		for p.xid == eventXid {
			p, err = w.readPacket()
			require.NoError(t, err, "%s", st)
		}
		note(st.String())
	}
	sums := func(after string) {
		t.Helper()
		tell(after, func() string {
			summary := word("srvr") // its own answer has not been sent yet
			number := func(name string) int {
				_, rest, _ := strings.Cut(summary, "\n"+name+": ")
				rest, _, _ = strings.Cut(rest, "\n")
				n, err := strconv.Atoi(rest)
				require.NoError(t, err, "%s of %s", name, summary)
				return n
			}
			return fmt.Sprintf("received %d, sent %d", number("Received")-asked, number("Sent")-(asked-1))
		})
	}
	ephemerals := func(after string) {
		t.Helper()
		tell(after, func() string {
			_, dump, _ := strings.Cut(word("dump"), "ephemeral nodes dump:")
			dump, _, _ = strings.Cut(dump, "Connections dump:")
			return hide.Replace(dump)
		})
	}
	reset := func(name string) {
		t.Helper()
		told = append(told, word(name))
		if name == "srst" {
			asked = 0
		}
		note("after " + name)
		sums("after " + name)
	}
	ephemeral := func(path string) { request(step{Op: "create", Path: path, Flags: 1, ACL: openACL}) }
	reset("srst")
	request(step{Op: "create", Path: "/a", ACL: openACL})
	request(step{Op: "create", Path: "/a", ACL: openACL}) // refused
	request(step{Op: "exists", Path: "/none"})
	request(step{Op: "ping"})
	request(step{Op: "auth", Scheme: "digest", Auth: "ann:secret"})
	request(step{Op: "setWatches", Paths: [][]string{{"/a"}, {}, {}}})
	request(step{Op: "setWatches2", Paths: [][]string{{"/a"}, {}, {}, {}, {}}})
	request(step{Op: "checkWatches", Path: "/a", Type: 3})
	request(step{Op: "removeWatches", Path: "/a", Type: 3})
	request(step{Op: "addWatch", Path: "/a"})
	request(step{Op: "setData", Path: "/a", Version: -1}) // its event is a packet, too
	request(step{Op: "whoAmI"})
	request(step{Op: "getAllChildrenNumber", Path: "/a"})
	request(step{Op: "getEphemerals", Path: "/a"})
	request(step{Op: "multi", Ops: []step{{Op: "delete", Path: "/none"}}})
	request(step{Op: "multi", Ops: []step{{Op: "create", Path: "/q", Flags: 9, ACL: openACL}}})
	request(step{Op: "multiRead", Ops: []step{{Op: "getData", Path: "/a"}}})
	request(step{Op: "sync", Path: "/a"})
	sums("so far")
	reset("crst")
	reset("srst")
	request(step{Op: "ping"})
	ephemerals("no ephemeral nodes")
	for i := range 14 {
		ephemeral(fmt.Sprintf("/e%d", i))
	}
	ephemerals("fourteen")
	for i := range 14 {
		request(step{Op: "delete", Path: fmt.Sprintf("/e%d", i), Version: -1})
	}
	ephemerals("none any more")
	for _, path := range []string{"/c", "/b", "/s", "/r"} {
		ephemeral(path)
	}
	ephemerals("four")
	request(step{Op: "sync", Path: "/"})
	sums("before the client is gone")

	old := w.conn
	conn, err = tcp(addr)()
	require.NoError(t, err)
	w = &wire{conn: conn}
	again, err := w.handshake(0, int32(time.Minute.Milliseconds()), a.id, a.password)
	require.NoError(t, err)
	require.Equal(t, a.id, again.id)
	_ = old.Close()
	note("resumed")
	request(step{Op: "exists", Path: "/a"})
	sums("resumed")
	return told
}

func dialZK(t *testing.T, addr string) *zk.Conn {
	t.Helper()
	conn, events, err := zk.Connect([]string{addr}, 30*time.Second, zk.WithLogger(silent{}), zk.WithLogInfo(false))
	require.NoError(t, err)
	t.Cleanup(func() {
		conn.Close()
		for range events {
		}
	})
	_, _, err = conn.Exists("/")
	require.NoError(t, err)
	return conn
}

func compareShapes(t require.TestingT, what, theirs, ours string) {
	assert.Equal(t, shapeOf(theirs), shapeOf(ours), what)
}

// compareFields wants each field of ours among theirs, with the same value where it is no measurement.
func compareFields(t require.TestingT, theirs, ours string) {
	fields := func(text string) map[string]string {
		m := make(map[string]string)
		for line := range strings.Lines(text) {
			name, value, found := strings.Cut(strings.TrimSpace(line), "\t")
			require.True(t, found || line == "\n", "%q", line)
			m[name] = value
		}
		return m
	}
	there := fields(theirs)
	for name, value := range fields(ours) {
		switch name {
		case "zk_version", "zk_uptime", "zk_leader_uptime", "zk_packets_received", "zk_packets_sent", "zk_num_alive_connections",
			"zk_min_latency", "zk_avg_latency", "zk_max_latency", "zk_approximate_data_size", "zk_znode_count":
			assert.Contains(t, there, name)
		default:
			assert.Equal(t, there[name], value, name)
		}
	}
	for _, name := range []string{"zk_peer_state", "zk_quorum_size", "zk_pending_syncs", "zk_synced_followers", "zk_uptime"} {
		_, theirsHas := there[name]
		_, oursHas := fields(ours)[name]
		assert.Equal(t, theirsHas, oursHas, name)
	}
}

// compareConnections wants the line of the client's connection, last operation and all; the other is that of who asks.
func compareConnections(t require.TestingT, operation, theirs, ours string) {
	session := func(text string) string {
		for line := range strings.Lines(text) {
			if strings.Contains(line, "sid=") {
				return shapeOf(line)
			}
		}
		return ""
	}
	assert.Equal(t, session(theirs), session(ours))
	assert.Contains(t, ours, operation)
}

// wholeDump asks for a dump that does not contradict itself. The real one prints the size of a set of sessions and lists
// them a moment later, and a session that has been heard of goes from one set to another meanwhile.
func wholeDump(t *testing.T, addr string) string {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		dump := ask(t, addr, "dump")
		if isWholeDump(dump) {
			return dump
		}
		require.True(t, time.Now().Before(end), "no whole dump in a minute: %s", dump)
	}
}

// isWholeDump reports whether the sets have as many sessions as are listed, and as there are in all. A follower
// lists them without sets.
func isWholeDump(dump string) bool {
	total := regexp.MustCompile(`Session Sets \(\d+\)/\((\d+)\):\n`).FindStringSubmatchIndex(dump)
	if total == nil {
		return true
	}
	number := func(text string) int {
		n, _ := strconv.Atoi(text)
		return n
	}
	sets, _, _ := strings.Cut(dump[total[1]:], "ephemeral nodes dump:")
	inSets := 0
	for _, size := range regexp.MustCompile(`(?m)^(\d+) expire at`).FindAllStringSubmatch(sets, -1) {
		inSets += number(size[1])
	}
	listed := len(regexp.MustCompile(`(?m)^\s+0x`).FindAllString(sets, -1))
	return listed == inSets && listed == number(dump[total[2]:total[3]])
}

func TestIsWholeDump(t *testing.T) {
	const head, tail = "SessionTracker dump:\nSession Sets (2)/(1):\n", "ephemeral nodes dump:\nSessions with Ephemerals (1):\n0x1000:\n\t/e\n"
	for text, whole := range map[string]bool{
		"0 expire at A:\n1 expire at B:\n\t0x1000\n":           true,
		"0 expire at A:\n1 expire at B:\n":                     false, // it has gone to the next set
		"0 expire at A:\n0 expire at B:\n":                     false,
		"1 expire at A:\n\t0x1000\n1 expire at B:\n\t0x1000\n": false,
		"1 expire at A:\n\t0x1000\n0 expire at B:\n":           true,
	} {
		assert.Equal(t, whole, isWholeDump(head+text+tail), text)
	}
	assert.True(t, isWholeDump("SessionTracker dump:\nGlobal Sessions(1):\n0x1000\t60000ms\n"+tail))
}

func compareDumps(t require.TestingT, theirs, ours string) {
	sessions := func(text string) []string {
		head, _, found := strings.Cut(text, "Connections dump:")
		assert.True(t, found)
		// The real one keeps sets that have become empty, and orders sessions by their hash.
		lines := strings.Split(regexp.MustCompile(`(?m)^0 expire at TIME:\n|\(\d+\)/`).ReplaceAllString(shapeOf(head), ""), "\n")
		slices.Sort(lines)
		return lines
	}
	assert.Equal(t, sessions(theirs), sessions(ours))
}

// compareConfigs compares what clients learn of the members. Ours has the addresses for clients too.
func compareConfigs(t *testing.T, theirs, ours *zk.Conn) {
	t.Helper()
	read := func(conn *zk.Conn) (string, zk.Stat) {
		data, stat, err := conn.Get("/zookeeper/config")
		require.NoError(t, err)
		return string(data), *stat
	}
	a, statA := read(theirs)
	b, statB := read(ours)
	compareConfig(t, a, b, statA, statB)
}

func compareConfig(t require.TestingT, theirs, ours string, statA, statB zk.Stat) {
	assert.Equal(t, shapeOf(theirs), shapeOf(ours))
	statA.Mtime, statB.Mtime, statA.DataLength, statB.DataLength = 0, 0, 0, 0
	assert.Equal(t, statA, statB)
	assert.Equal(t, 3, strings.Count(ours, ":participant;127.0.0.1:"))
}

// A complaint notes whether a comparison has found a difference.
type complaint struct{ made bool }

func (c *complaint) Errorf(string, ...any) { c.made = true }
func (c *complaint) FailNow()              { c.made = true }

// TestWordsSeePlantedDifferences: what the comparison leaves out hides none of these.
func TestWordsSeePlantedDifferences(t *testing.T) {
	srv, err := testutil.NewServer(&testutil.ServerOptions{Members: 3})
	require.NoError(t, err)
	t.Cleanup(srv.Close)
	request := openWire(t, srv.Servers()[0])
	request(step{Op: "create", Path: "/e", Data: "data", Flags: 1, ACL: openACL})
	request(step{Op: "getData", Path: "/e", Watch: true})
	shapes := func(c *complaint, sound, faulty string) { compareShapes(c, "", sound, faulty) }
	connections := func(c *complaint, sound, faulty string) { compareConnections(c, "lop=GETD,", sound, faulty) }
	fields := func(c *complaint, sound, faulty string) { compareFields(c, sound, faulty) }
	dumps := func(c *complaint, sound, faulty string) { compareDumps(c, sound, faulty) }
	for _, planted := range []struct {
		name, word   string
		before, then string // what is there, and what stands in its place
		compare      func(c *complaint, sound, faulty string)
	}{
		{"the version line is that of 3.4", "srvr", ", built on", "--1, built on:", shapes},
		{"another release", "srvr", "3.9.3", "3.8.0", shapes},
		{"another mode", "srvr", "Mode: leader", "Mode: standalone", shapes},
		{"a node too many", "srvr", "Node count: 6", "Node count: 7", shapes},
		{"no sizes of proposals", "srvr", "Proposal sizes last/min/max", "Proposals", shapes},
		{"read-only", "isro", "rw", "ro", shapes},
		{"not all right", "ruok", "imok", "", shapes},
		{"a setting is missing", "conf", "maxClientCnxns=", "most=", shapes},
		{"another setting", "conf", "tickTime=2000", "tickTime=3000", shapes},
		{"a member that observes", "conf", ":participant", ":observer", shapes},
		{"a watch that is not there", "wchs", "Total watches:1", "Total watches:2", shapes},
		{"a watch of another path", "wchp", "/e\n", "/f\n", shapes},
		{"a session that is not watching", "wchc", "\t/e\n", "", shapes},
		{"another last operation", "cons", "lop=GETD", "lop=PING", connections},
		{"no timeout", "cons", ",to=", ",t=", connections},
		{"a field is missing", "mntr", "zk_peer_state\tleading - broadcast\n", "", fields},
		{"a field is unknown", "mntr", "zk_watch_count\t", "zk_watches\t", fields},
		{"another state", "mntr", "zk_server_state\tleader", "zk_server_state\tfollower", fields},
		{"another number", "mntr", "zk_ephemerals_count\t1", "zk_ephemerals_count\t2", fields},
		{"followers are not in step", "mntr", "zk_synced_followers\t2", "zk_synced_followers\t1", fields},
		{"expiry in another form", "dump", "expire at", "expires at", dumps},
		{"no ephemeral nodes", "dump", "\t/e\n", "", dumps},
	} {
		sound := ask(t, srv.Addr(), planted.word)
		require.Contains(t, sound, planted.before, "nothing is planted: %s", planted.name)
		var c complaint
		planted.compare(&c, sound, sound)
		assert.False(t, c.made, "%s: a difference to itself:\n%s", planted.word, sound)
		planted.compare(&c, sound, strings.Replace(sound, planted.before, planted.then, 1))
		assert.True(t, c.made, "not seen: %s", planted.name)
	}

	data, stat, err := dialZK(t, srv.Servers()[0]).Get("/zookeeper/config")
	require.NoError(t, err)
	config, first := string(data), *stat
	for name, plant := range map[string]func(config string, stat zk.Stat) (string, zk.Stat){
		"it is empty":          func(_ string, stat zk.Stat) (string, zk.Stat) { return "", stat },
		"no version":           func(c string, stat zk.Stat) (string, zk.Stat) { return strings.Replace(c, "version=", "v=", 1), stat },
		"a member too few":     func(c string, stat zk.Stat) (string, zk.Stat) { return c[strings.Index(c, "\n")+1:], stat },
		"the version is a set": func(c string, stat zk.Stat) (string, zk.Stat) { stat.Version++; return c, stat },
	} {
		var c complaint
		compareConfig(&c, config, config, first, first)
		assert.False(t, c.made)
		faulty, then := plant(config, first)
		compareConfig(&c, config, faulty, first, then)
		assert.True(t, c.made, "not seen: %s", name)
	}
}
