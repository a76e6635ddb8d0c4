package testutil_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/testutil"
	"github.com/zkelection/election/testutil/realzk"
)

// What other people's clients say of the in-process server is compared, line by line, with what they say of a real one of
// the same release.

func sameOnBoth(t *testing.T, client func(t *testing.T, addr string) string) {
	for _, release := range releases {
		t.Run(string(release), func(t *testing.T) {
			t.Parallel()
			theirs := realzk.StartZooKeeperWith(t, 1, realzk.EnsembleOptions{Release: release})
			ours, err := testutil.NewServer(&testutil.ServerOptions{Release: release})
			require.NoError(t, err)
			t.Cleanup(ours.Close)
			want := neutral(client(t, theirs.Servers()[0]))
			assert.Greater(t, strings.Count(want, "\n"), 20, "it said too little to be compared:\n%s", want)
			assert.Equal(t, want, neutral(client(t, ours.Addr())))
		})
	}
}

// neutral leaves out what differs from one run to the next.
func neutral(said string) string {
	for _, s := range []struct{ pattern, becomes string }{
		{`127\.0\.0\.1:\d+`, "ADDR"},
		{`(?m)^(ctime|mtime) = .*$`, "$1"},
		{`ephemeralOwner = 0x[1-9a-f][0-9a-f]*`, "ephemeralOwner"},
		{`[0-9a-f]{32}`, "UUID"},
		// A thread of its own says that the client has closed, whenever it comes to that, or not at all.
		{`\nWATCHER::\n(.*\n)??\nWatchedEvent state:Closed type:None path:null\n`, "$1"},
		{`(?m)^(ZooKeeper CLI version|Zookeeper version).*$`, "$1"},
	} {
		said = regexp.MustCompile(s.pattern).ReplaceAllString(said, s.becomes)
	}
	return said
}

var shellCommands = []string{
	"create /shell hello", "create /shell again", "create /none/x", "create -s /shell/n- x", "create -s -e /shell/n- x",
	"create -c /shell/container", "create -t 100000 /shell/ttl x", "create -s -t 100000 /shell/ttl- x", "create /shell/",
	"create /shell/a/../b", "create -e /shell/eph x", "create /shell/eph/x",
	"ls /", "ls /shell", "ls -s /shell", "ls -R /shell", "ls /none", "ls2 /shell",
	"get /shell", "get -s /shell", "get /none", "stat /shell", "stat /none", "stat /shell/container", "stat /shell/eph",
	"set /shell changed", "set -v 0 /shell x", "set -v 1 /shell x", "set -s /shell y", "set /none x",
	"getAcl /shell", "getAcl -s /shell", "setAcl /shell world:anyone:crwa", "setAcl -v 7 /shell world:anyone:cdrwa",
	"setAcl -s /shell world:anyone:cdrwa", "setAcl /shell nonsense:x:r", "setAcl /shell ip:10.0.0.1:r,world:anyone:cdrwa", "getAcl /shell",
	"addauth digest ann:secret", "create /shell/secret s auth::cdrwa", "getAcl /shell/secret", "whoami",
	"addauth digest bob:secret", "create /shell/both s auth::r", "getAcl /shell/both", "whoami",
	"getEphemerals", "getEphemerals /shell/e", "getEphemerals /none", "getAllChildrenNumber /shell", "getAllChildrenNumber /", "sync /shell", "sync /none",
	"config", "config -s", "get -s /zookeeper/config", "getAcl /zookeeper/config", "set /zookeeper/config x", "delete /zookeeper/config",
	"reconfig -remove 1", "listquota /shell",
	"delete -v 3 /shell/n-0000000000", "delete /shell/n-0000000000", "delete /none", "delete /shell", "delete /",
	"addWatch -m PERSISTENT /quiet", "removewatches /quiet", "removewatches /quiet", "removewatches /shell -d",
	"deleteall /shell", "ls /shell", "stat /", "close", "quit",
}

func TestJavaShellSaysTheSame(t *testing.T) {
	sameOnBoth(t, func(t *testing.T, addr string) string {
		said, done := runClient(t, strings.Join(shellCommands, "\n")+"\n", "java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-cp", javaClasses(t, javaClient...),
			"org.apache.zookeeper.ZooKeeperMain", "-waitforconnection", "-server", addr)
		return said + done
	})
}

func TestKazooSaysTheSame(t *testing.T) {
	sameOnBoth(t, func(t *testing.T, addr string) string {
		const python = "/usr/bin/python3"
		if err := exec.Command(python, "-c", "import kazoo").Run(); err != nil {
			missing(t, fmt.Errorf("kazoo: %w", err))
		}
		said, _ := runClient(t, "", python, "-B", testdata(t, "kazoo_more.py"), addr)
		return said
	})
}

func TestCuratorSaysTheSame(t *testing.T) {
	sameOnBoth(t, func(t *testing.T, addr string) string {
		said, _ := runClient(t, "", "java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-cp", curatorClasses(t), testdata(t, "CuratorMore.java"), addr)
		return said
	})
}

// npmClients is where the clients of npm are: scripts/install-npm-clients puts them there.
func npmClients(t *testing.T) (directory string) {
	t.Helper()
	directory = os.Getenv("ELECTION_NPM_CLIENTS")
	if directory == "none" {
		t.Skip("the clients of npm cannot be fetched")
	}
	if _, err := os.Stat(filepath.Join(directory, "complete")); err != nil {
		missing(t, fmt.Errorf("the clients of npm, where ELECTION_NPM_CLIENTS says: %w", err))
	}
	return directory
}

func TestNpmClientsSayTheSame(t *testing.T) {
	for _, program := range []string{"node_zookeeper_client.js", "zookeeper.js"} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			modules := filepath.Join(npmClients(t), "node_modules")
			sameOnBoth(t, func(t *testing.T, addr string) string {
				said, _ := runClient(t, "", "env", "NODE_PATH="+modules, "node", testdata(t, program), addr)
				return said
			})
		})
	}
}

// cCommands are run by ZooKeeper's C client, each in a session of its own.
var cCommands = []string{
	"create /c", "create /c", "create +s /c/n-", "create +es /c/n-", "create +e /c/gone", "create2 /c/x", "create +c /c/k", "create /c/none/x",
	"set /c hello", "set /none x", "get /c", "get /none", "ls /c", "ls2 /c", "sync /c", "delete /c", "delete /c/x", "ls /c",
}

func TestCClientSaysTheSame(t *testing.T) {
	unsteady := regexp.MustCompile(`(?m)^.*(ZOO_INFO|Client environment|ctime|mtime|session id|Watcher |time = ).*\n|0x[0-9a-f]{9,}|pid=\d+`)
	sameOnBoth(t, func(t *testing.T, addr string) string {
		var all strings.Builder
		for _, command := range cCommands {
			said, faults := runClient(t, "", "/usr/lib/zookeeper/bin/cli_mt", "-h", addr, "-c", command)
			fmt.Fprintf(&all, "== %s\n%s", command, unsteady.ReplaceAllString(said+faults, ""))
		}
		return all.String()
	})
}
