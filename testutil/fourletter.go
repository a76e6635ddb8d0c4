package testutil

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The four-letter words: commands that an operator sends in place of a
// handshake. The answer is text, and the connection ends with it.
var fourLetterWords = map[string]func(*member, *strings.Builder){
	"ruok": func(_ *member, w *strings.Builder) { w.WriteString("imok") },
	"isro": func(_ *member, w *strings.Builder) { w.WriteString("rw") },
	"conf": (*member).wordConf,
	"crst": (*member).wordCrst,
	"srst": (*member).wordSrst,
	"wchc": (*member).wordWchc,
	"srvr": (*member).wordSrvr,
	"stat": (*member).wordStat,
	"mntr": (*member).wordMntr,
	"cons": (*member).wordCons,
	"wchs": (*member).wordWchs,
	"wchp": (*member).wordWchp,
	"dump": (*member).wordDump,
	"envi": (*member).wordEnvi,
}

func isFourLetterWord(word string) bool {
	_, ok := fourLetterWords[word]
	return ok
}

// answerWord sends the answer to a four-letter word and ends the connection.
func (c *conn) answerWord(word string) {
	s := c.srv
	s.mu.Lock()
	defer s.unlock()
	c.countReceived()
	var w strings.Builder
	switch {
	case !c.m.serving() && word == "isro":
		w.WriteString("null")
	case !c.m.serving() && word != "ruok" && word != "envi":
		w.WriteString("This ZooKeeper instance is not currently serving requests\n")
	default:
		fourLetterWords[word](c.m, &w)
	}
	if w.Len() > 0 {
		c.send([]byte(w.String()))
	}
	c.kill(true)
}

func (m *member) mode() string {
	switch {
	case len(m.srv.members) == 1:
		return "standalone"
	case m == m.srv.leader:
		return "leader"
	}
	return "follower"
}

// connections lists the clients of the member by address.
func (m *member) connections() []*conn {
	list := make([]*conn, 0, len(m.clients))
	for c := range m.clients {
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b *conn) int { return strings.Compare(a.remote, b.remote) })
	return list
}

func (m *member) wordSrvr(w *strings.Builder) {
	fmt.Fprintf(w, "Zookeeper version: %s\n", m.srv.release.version())
	m.summary(w)
}

func (m *member) wordStat(w *strings.Builder) {
	fmt.Fprintf(w, "Zookeeper version: %s\nClients:\n", m.srv.release.version())
	for _, c := range m.connections() {
		fmt.Fprintf(w, " %s)\n", c.brief())
	}
	w.WriteByte('\n')
	m.summary(w)
}

func (m *member) summary(w *strings.Builder) {
	fmt.Fprintf(w, "Latency min/avg/max: 0/0.0/0\nReceived: %d\nSent: %d\nConnections: %d\nOutstanding: %d\n",
		m.packets.received, m.packets.sent, len(m.clients), m.outstanding())
	fmt.Fprintf(w, "Zxid: 0x%x\nMode: %s\nNode count: %d\n", m.zxid(), m.mode(), m.tree.count())
	if m == m.srv.leader && len(m.srv.members) > 1 {
		w.WriteString("Proposal sizes last/min/max: -1/-1/-1\n")
	}
}

// outstanding counts the requests that have arrived and are not answered.
func (m *member) outstanding() int {
	n := 0
	for c := range m.clients {
		n += len(c.inbox)
		if c.parked {
			n++
		}
	}
	return n
}

// count is the number of nodes as ZooKeeper tells it, the root counted twice.
func (t *tree) count() int { return len(t.nodes) }

func (m *member) wordMntr(w *strings.Builder) {
	line := func(name string, value any) { fmt.Fprintf(w, "zk_%s\t%v\n", name, value) }
	ephemerals, size := 0, 0
	for _, paths := range m.tree.ephemerals {
		ephemerals += paths.len()
	}
	for path, n := range m.tree.nodes {
		size += len(path) + len(n.data)
	}
	leads := m == m.srv.leader
	line("version", m.srv.release.version())
	line("server_state", m.mode())
	if len(m.srv.members) > 1 {
		line("peer_state", map[bool]string{true: "leading", false: "following"}[leads]+" - broadcast")
		line("quorum_size", len(m.srv.members))
	}
	line("uptime", m.srv.now()-m.upAt)
	// Latencies, in milliseconds: an answer is made in none.
	line("min_latency", 0)
	line("avg_latency", "0.0")
	line("max_latency", 0)
	line("packets_received", m.packets.received)
	line("packets_sent", m.packets.sent)
	line("num_alive_connections", len(m.clients))
	line("outstanding_requests", m.outstanding())
	line("znode_count", m.tree.count())
	line("watch_count", m.watches.size())
	line("ephemerals_count", ephemerals)
	line("approximate_data_size", size)
	line("global_sessions", len(m.srv.sessions))
	line("local_sessions", 0)
	line("connection_drop_probability", "0.0")
	if leads && len(m.srv.members) > 1 {
		line("leader_uptime", m.srv.now()-m.upAt)
		line("learners", m.srv.connected()-1)
		line("synced_followers", m.srv.connected()-1)
		line("synced_non_voting_followers", 0)
		line("synced_observers", 0)
		line("pending_syncs", 0)
	}
}

// wordConf writes the configuration, without directories, of which there are none.
func (m *member) wordConf(w *strings.Builder) {
	s := m.srv
	port := 0
	if _, p, err := net.SplitHostPort(m.addr); err == nil {
		port, _ = strconv.Atoi(p)
	}
	fmt.Fprintf(w, "clientPort=%d\nsecureClientPort=-1\ntickTime=%d\nmaxClientCnxns=0\n", port, s.tick.Milliseconds())
	fmt.Fprintf(w, "minSessionTimeout=%d\nmaxSessionTimeout=%d\nclientPortListenBacklog=-1\n", s.minTimeout, s.maxTimeout)
	if len(s.members) == 1 {
		w.WriteString("serverId=0\n")
		return
	}
	fmt.Fprintf(w, "serverId=%d\ninitLimit=10\nsyncLimit=%d\nelectionAlg=3\nelectionPort=%d\nquorumPort=%d\npeerType=0\n",
		m.index+1, syncLimit, electionPort+m.index, quorumPort+m.index)
	fmt.Fprintf(w, "membership: \n%s", s.config())
}

func (m *member) wordCrst(w *strings.Builder) {
	for c := range m.clients {
		c.resetStats()
	}
	w.WriteString("Connection stats reset.\n")
}

// wordSrst leaves what there is of the connections alone, as crst does the member's.
func (m *member) wordSrst(w *strings.Builder) {
	m.packets = packetCount{}
	w.WriteString("Server stats reset.\n")
}

// brief is how the words name a connection: the number in brackets is 0 while they are
// being read from it, before there is a session.
func (c *conn) brief() string {
	interested := 1
	if c.session == 0 {
		interested = 0
	}
	return fmt.Sprintf("/%s[%d](queued=%d,recved=%d,sent=%d", c.remote, interested, c.queued, c.stats.received, c.stats.sent)
}

func (m *member) wordCons(w *strings.Builder) {
	for _, c := range m.connections() {
		fmt.Fprintf(w, " %s", c.brief())
		if c.session != 0 {
			fmt.Fprintf(w, ",sid=0x%x,lop=%s,est=%d,to=%d", c.session, c.stats.lastOp, c.began.UnixMilli(), c.timeout)
			if c.stats.lastXid >= 0 {
				fmt.Fprintf(w, ",lcxid=0x%x", c.stats.lastXid)
			}
			fmt.Fprintf(w, ",lzxid=0x%x,lresp=%d,llat=0,minlat=0,avglat=0,maxlat=0", uint64(c.stats.lastZxid), c.stats.lastReply)
		}
		w.WriteString(")\n")
	}
	w.WriteByte('\n')
}

func (m *member) wordWchs(w *strings.Builder) {
	data := m.watches.data
	fmt.Fprintf(w, "%d connections watching %d paths\nTotal watches:%d\n", len(data.byConn), len(data.byPath), data.size())
}

func (m *member) wordWchp(w *strings.Builder) {
	for _, path := range sortedKeys(m.watches.data.byPath) {
		fmt.Fprintf(w, "%s\n", path)
		var sessions []int64
		for c := range m.watches.data.byPath[path] {
			sessions = append(sessions, c.session)
		}
		slices.Sort(sessions)
		for _, id := range sessions {
			fmt.Fprintf(w, "\t0x%x\n", id)
		}
	}
	w.WriteByte('\n')
}

func (m *member) wordWchc(w *strings.Builder) {
	paths := make(map[int64][]string)
	for c, watched := range m.watches.data.byConn {
		paths[c.session] = append(paths[c.session], sortedKeys(watched)...)
	}
	for _, id := range sortedKeys(paths) {
		fmt.Fprintf(w, "0x%x\n", id)
		for _, path := range paths[id] {
			fmt.Fprintf(w, "\t%s\n", path)
		}
	}
	w.WriteByte('\n')
}

// expiryForm is that of Java's Date.
const expiryForm = "Mon Jan 02 15:04:05 MST 2006"

// wordDump writes the sessions by the time at which they expire, which only the leader
// knows.
func (m *member) wordDump(w *strings.Builder) {
	infos := m.srv.sessionInfos()
	w.WriteString("SessionTracker dump:\n")
	if m == m.srv.leader {
		sets := make(map[time.Duration][]int64)
		for _, info := range infos {
			sets[info.ExpiresIn] = append(sets[info.ExpiresIn], info.ID)
		}
		fmt.Fprintf(w, "Session Sets (%d)/(%d):\n", len(sets), len(infos))
		for _, in := range sortedKeys(sets) {
			fmt.Fprintf(w, "%d expire at %s:\n", len(sets[in]), time.Now().Add(in).Format(expiryForm))
			for _, id := range sets[in] {
				fmt.Fprintf(w, "\t0x%x\n", id)
			}
		}
	} else {
		fmt.Fprintf(w, "Global Sessions(%d):\n", len(infos))
		for _, info := range infos {
			fmt.Fprintf(w, "0x%x\t%dms\n", info.ID, info.Timeout.Milliseconds())
		}
	}
	fmt.Fprintf(w, "ephemeral nodes dump:\nSessions with Ephemerals (%d):\n", len(m.tree.ephemerals))
	for _, id := range sortedKeys(m.tree.ephemerals) {
		fmt.Fprintf(w, "0x%x:\n", id)
		for _, path := range m.tree.ephemerals[id].strings() {
			fmt.Fprintf(w, "\t%s\n", path)
		}
	}
	// The real one has them in sets, by the time at which it would close those that were silent.
	fmt.Fprintf(w, "Connections dump:\nConnections Sets (%d)/(%d):\n", len(m.clients), len(m.clients))
	for _, c := range m.connections() {
		fmt.Fprintf(w, "\tip: /%s sessionId: 0x%x\n", c.remote, c.session)
	}
}

func (m *member) wordEnvi(w *strings.Builder) {
	host, _ := os.Hostname()
	fmt.Fprintf(w, "Environment:\nzookeeper.version=%s\nhost.name=%s\n", m.srv.release.version(), host)
	fmt.Fprintf(w, "os.name=%s\nos.arch=%s\ngo.version=%s\n", runtime.GOOS, runtime.GOARCH, runtime.Version())
}
