package testutil

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
)

// fourLetterVersion is what the words tell for a version: the ZooKeeper whose
// behaviour this server has.
const fourLetterVersion = "3.8.0-testutil, built on 02/25/2022 08:49 UTC"

// The four-letter words: commands that an operator sends in place of a
// handshake. The answer is text, and the connection ends with it.
var fourLetterWords = map[string]func(*member, *strings.Builder){
	"ruok": func(_ *member, w *strings.Builder) { w.WriteString("imok") },
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
	defer s.mu.Unlock()
	var w strings.Builder
	if !c.m.serving() && word != "ruok" && word != "envi" {
		w.WriteString("This ZooKeeper instance is not currently serving requests\n")
	} else {
		fourLetterWords[word](c.m, &w)
	}
	if !c.dead {
		c.out = append(c.out, w.String()...)
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

// packets sums what the present clients have sent and been sent.
func (m *member) packets() (received, sent int64) {
	for c := range m.clients {
		received += c.stats.received
		sent += c.stats.sent
	}
	return received, sent
}

func (m *member) wordSrvr(w *strings.Builder) {
	fmt.Fprintf(w, "Zookeeper version: %s\n", fourLetterVersion)
	m.summary(w)
}

func (m *member) wordStat(w *strings.Builder) {
	fmt.Fprintf(w, "Zookeeper version: %s\nClients:\n", fourLetterVersion)
	for _, c := range m.connections() {
		fmt.Fprintf(w, " /%s[1](queued=%d,recved=%d,sent=%d)\n", c.remote, len(c.inbox), c.stats.received, c.stats.sent)
	}
	w.WriteByte('\n')
	m.summary(w)
}

func (m *member) summary(w *strings.Builder) {
	received, sent := m.packets()
	fmt.Fprintf(w, "Latency min/avg/max: 0/0.0/0\nReceived: %d\nSent: %d\nConnections: %d\nOutstanding: %d\n",
		received, sent, len(m.clients), m.outstanding())
	fmt.Fprintf(w, "Zxid: 0x%x\nMode: %s\nNode count: %d\n", m.tree.lastZxid, m.mode(), m.tree.count())
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
	received, sent := m.packets()
	ephemerals, size := 0, 0
	for _, paths := range m.tree.ephemerals {
		ephemerals += paths.len()
	}
	for path, n := range m.tree.nodes {
		size += len(path) + len(n.data)
	}
	line("version", fourLetterVersion)
	line("server_state", m.mode())
	line("peer_state", map[bool]string{true: "leading", false: "following"}[m == m.srv.leader]+" - broadcast")
	line("packets_received", received)
	line("packets_sent", sent)
	line("num_alive_connections", len(m.clients))
	line("outstanding_requests", m.outstanding())
	line("znode_count", m.tree.count())
	line("watch_count", m.watches.size())
	line("ephemerals_count", ephemerals)
	line("approximate_data_size", size)
	line("global_sessions", len(m.srv.sessions))
	if m == m.srv.leader && len(m.srv.members) > 1 {
		line("learners", m.srv.connected()-1)
		line("synced_followers", m.srv.connected()-1)
	}
}

func (m *member) wordCons(w *strings.Builder) {
	for _, c := range m.connections() {
		fmt.Fprintf(w, " /%s[1](queued=%d,recved=%d,sent=%d", c.remote, len(c.inbox), c.stats.received, c.stats.sent)
		if c.session != 0 {
			fmt.Fprintf(w, ",sid=0x%x,lop=%s,est=%d,to=%d,lcxid=0x%x,lzxid=0x%x,lresp=%d,llat=0,minlat=0,avglat=0,maxlat=0",
				c.session, c.stats.lastOp, c.began.UnixMilli(), c.timeout, uint32(c.stats.lastXid), uint64(c.stats.lastZxid),
				c.stats.lastReply.UnixMilli())
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

func (m *member) wordDump(w *strings.Builder) {
	infos := m.srv.sessionInfos()
	fmt.Fprintf(w, "SessionTracker dump:\nSession Sets (%d)/(%d):\n", len(infos), len(infos))
	for _, info := range infos {
		fmt.Fprintf(w, "1 expire in %v:\n\t0x%x\n", info.ExpiresIn, info.ID)
	}
	fmt.Fprintf(w, "ephemeral nodes dump:\nSessions with Ephemerals (%d):\n", len(m.tree.ephemerals))
	for _, id := range sortedKeys(m.tree.ephemerals) {
		fmt.Fprintf(w, "0x%x:\n", id)
		for _, path := range m.tree.ephemeralsOf(id) {
			fmt.Fprintf(w, "\t%s\n", path)
		}
	}
	fmt.Fprintf(w, "Connections dump:\nConnections Sets (%d)/(%d):\n", len(m.clients), len(m.clients))
	for _, c := range m.connections() {
		fmt.Fprintf(w, "\tip: /%s sessionId: 0x%x\n", c.remote, c.session)
	}
}

func (m *member) wordEnvi(w *strings.Builder) {
	host, _ := os.Hostname()
	fmt.Fprintf(w, "Environment:\nzookeeper.version=%s\nhost.name=%s\n", fourLetterVersion, host)
	fmt.Fprintf(w, "os.name=%s\nos.arch=%s\ngo.version=%s\n", runtime.GOOS, runtime.GOARCH, runtime.Version())
}
