//go:build linux

package chaos

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Other libraries, from Debian's packages, in programs of a page each (peers/)
// that write the history that the agent writes.

// python is Debian's, which has Debian's modules.
const python = "/usr/bin/python3"

// curatorJars is Curator and what it needs.
var curatorJars = []string{
	"curator-client", "curator-framework", "curator-recipes", "zookeeper", "zookeeper-jute", "guava", "slf4j-api", "slf4j-nop",
	"jackson-core", "jackson-databind", "jackson-annotations", "netty-handler", "netty-transport", "netty-common", "netty-buffer",
	"netty-codec", "netty-resolver", "netty-transport-native-epoll", "netty-transport-native-unix-common",
}

func peers(t *testing.T) []contestant {
	t.Helper()
	classes, version, err := curator()
	if err != nil {
		t.Fatal(err)
	}
	kazoo, err := exec.Command(python, "-c", "import kazoo.version; print(kazoo.version.__version__)").Output()
	if err != nil {
		t.Fatalf("kazoo: %v", err)
	}
	return []contestant{
		{"Curator " + version + ", LeaderLatch", func(f *fleet, who, servers, election string) *agent {
			return f.startCommand(who, "java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-cp", classes, "peers/CuratorPeer.java",
				who, servers, "/curator-"+election, fmt.Sprint(sessionTimeout.Milliseconds()))
		}},
		{"kazoo " + strings.TrimSpace(string(kazoo)) + ", Election", func(f *fleet, who, servers, election string) *agent {
			return f.startCommand(who, python, "-B", "peers/kazoo_peer.py",
				who, servers, "/kazoo-"+election, fmt.Sprint(sessionTimeout.Seconds()))
		}},
	}
}

// curator returns Curator's class path and version.
func curator() (classes, version string, err error) {
	var jars []string
	for _, name := range curatorJars {
		jar := filepath.Join("/usr/share/java", name+".jar")
		if _, err := os.Stat(jar); err != nil {
			return "", "", err
		}
		jars = append(jars, jar)
	}
	const named = "/usr/share/java/curator-recipes-"
	versions, err := filepath.Glob(named + "*.jar")
	if err != nil || len(versions) != 1 {
		return "", "", fmt.Errorf("which version of Curator is one of %q?", versions)
	}
	version = strings.TrimSuffix(strings.TrimPrefix(versions[0], named), ".jar")
	return strings.Join(jars, string(os.PathListSeparator)), version, nil
}
