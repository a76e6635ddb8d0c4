package testutil_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zkelection/election/testutil"
)

// Clients that other people wrote use the in-process server here as they are: the programs say what they saw, and the
// tests what ZooKeeper would have shown them.

// missing skips the test for want of what it needs, or fails it where nothing may be missing.
func missing(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("ELECTION_REQUIRE_ZOOKEEPER") == "1" {
		t.Fatal(err)
	}
	t.Skip(err)
}

func clientsServer(t *testing.T) *testutil.Server {
	t.Helper()
	server, err := testutil.NewServer(nil)
	require.NoError(t, err)
	t.Cleanup(server.Close)
	return server
}

// runClient runs a program to its end, and returns what it wrote.
func runClient(t *testing.T, input, name string, args ...string) (stdout, stderr string) {
	t.Helper()
	program, err := exec.LookPath(name)
	if err != nil {
		missing(t, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = t.TempDir()
	cmd.Stdin = strings.NewReader(input)
	var out, faults bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &faults
	require.NoError(t, cmd.Run(), "%s\n%s\n%s", name, out.String(), faults.String())
	return out.String(), faults.String()
}

func javaClasses(t *testing.T, names ...string) string {
	t.Helper()
	var jars []string
	for _, name := range names {
		jar := filepath.Join("/usr/share/java", name+".jar")
		if _, err := os.Stat(jar); err != nil {
			missing(t, err)
		}
		jars = append(jars, jar)
	}
	return strings.Join(jars, string(os.PathListSeparator))
}

var javaClient = []string{
	"zookeeper", "zookeeper-jute", "slf4j-api", "slf4j-nop", "commons-cli", "netty-handler", "netty-transport",
	"netty-common", "netty-buffer", "netty-codec", "netty-resolver", "netty-transport-native-epoll", "netty-transport-native-unix-common",
}

func curatorClasses(t *testing.T) string {
	t.Helper()
	return javaClasses(t, append(slices.Clone(javaClient), "curator-client", "curator-framework", "curator-recipes", "guava",
		"jackson-core", "jackson-databind", "jackson-annotations")...)
}

func testdata(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("testdata", "otherclients", name))
	require.NoError(t, err)
	return path
}

// inOrder wants each of the lines in what was said, one after another.
func inOrder(t *testing.T, said string, lines ...string) {
	t.Helper()
	rest := "\n" + said
	for _, line := range lines {
		_, after, found := strings.Cut(rest, "\n"+line+"\n")
		require.True(t, found, "it did not say %q where it should have; all it said:\n%s", line, said)
		rest = "\n" + after
	}
}

func TestJavaShell(t *testing.T) {
	t.Parallel()
	server := clientsServer(t)
	commands := []string{
		"create /shell hello",
		"get /shell",
		"create -s -e /shell/n- x",
		"create -c /shell/container",
		"set -v 0 /shell changed",
		"set -v 0 /shell again",
		"get -s /shell",
		"ls /shell",
		"ls -R /shell",
		"addauth digest ann:secret",
		"create /shell/secret s auth::cdrwa",
		"getAcl /shell/secret",
		"getEphemerals",
		"getAllChildrenNumber /shell",
		"whoami",
		"sync /shell",
		"delete /shell",
		"deleteall /shell",
		"stat /shell",
		"ls /",
		"quit",
	}
	said, done := runClient(t, strings.Join(commands, "\n")+"\n", "java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-cp", javaClasses(t, javaClient...),
		"org.apache.zookeeper.ZooKeeperMain", "-waitforconnection", "-server", server.Addr())
	inOrder(t, said,
		"hello",
		"changed", "cversion = 2", "dataVersion = 1", "aclVersion = 0", "ephemeralOwner = 0x0", "dataLength = 7", "numChildren = 2",
		"[container, n-0000000000]",
		"/shell", "/shell/container", "/shell/n-0000000000",
		"'digest,'"+digestOf("ann", "secret"), ": cdrwa",
		"[/shell/n-0000000000]",
		"3",
		"digest: ann", "ip: 127.0.0.1", // in the order of a Java set
		"Sync is OK",
		"[zookeeper]",
	)
	inOrder(t, done,
		"Created /shell",
		"Created /shell/n-0000000000",
		"Created /shell/container",
		"version No is not valid : /shell",
		"Created /shell/secret",
		"Node not empty: /shell",
		"Node does not exist: /shell",
	)
	assert.NotContains(t, server.Dump(), "shell")
}

func TestCurator(t *testing.T) {
	t.Parallel()
	server := clientsServer(t)
	said, _ := runClient(t, "", "java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-cp", curatorClasses(t), testdata(t, "Curator.java"), server.Addr())
	want := `created /curator/nodes/_c_UUID-n-0000000000
data hello
transaction 3
cache create /curator/cached
cache create /curator/cached/x
cache create /curator/cached/x/y
cache change /curator/cached/x/y 2
cache delete /curator/cached/x/y
lock true false
lock true
leader first true false
leader true second
left []
`
	assert.Equal(t, want, said)
	assert.Empty(t, server.Sessions())
}

func TestKazoo(t *testing.T) {
	t.Parallel()
	server := clientsServer(t)
	const python = "/usr/bin/python3" // Debian's, which has Debian's modules
	if err := exec.Command(python, "-c", "import kazoo").Run(); err != nil {
		missing(t, fmt.Errorf("kazoo: %w", err))
	}
	said, _ := runClient(t, "", python, "-B", testdata(t, "kazoo_client.py"), server.Addr())
	want := `created /kazoo/n-0000000000
data hello 0 True 5
refused BadVersionError
refused NodeExistsError
refused NotEmptyError
transaction ['RolledBackError', 'RolledBackError', 'BadVersionError'] None
refused NoAuthError
data s
children []
children ['a']
leads first
contenders ['first', 'second'] True
leads second
children []
`
	head, left, _ := strings.Cut(said, "left ")
	assert.Equal(t, want, head)
	assert.NotContains(t, left, "n-0000000000")
	assert.Contains(t, left, "secret")
	assert.Empty(t, server.Sessions())
}

// TestCClient runs ZooKeeper's C client, which does one command in a session and ends.
func TestCClient(t *testing.T) {
	t.Parallel()
	const shell = "/usr/lib/zookeeper/bin/cli_mt"
	server := clientsServer(t)
	commands := []struct {
		command string
		want    []string
	}{
		{"create /c", []string{"name = /c"}},
		{"create /c", []string{"rc = -110"}},
		{"create +s /c/n-", []string{"name = /c/n-0000000000"}},
		{"create +s /c/n-", []string{"name = /c/n-0000000001"}},
		{"create +e /c/gone", []string{"name = /c/gone"}},
		{"create2 /c/x", []string{"name = /c/x", "version=0\taversion=0", "ephemeralOwner = 0"}},
		{"set /c hello", []string{"rc = 0", "version=1"}},
		{"get /c", []string{"value_len = 5", "hello", "version=1"}},
		{"sync /c", []string{"rc = 0"}},
		{"ls2 /c", []string{"n-0000000000", "n-0000000001", "x"}},
		{"get /none", []string{"rc = -101"}},
	}
	for _, c := range commands {
		said, faults := runClient(t, "", shell, "-h", server.Addr(), "-c", c.command)
		for _, want := range c.want {
			assert.Contains(t, said+faults, want, c.command)
		}
	}
	dump := server.Dump()
	assert.Contains(t, dump, "hello")
	assert.NotContains(t, dump, "gone")
}
