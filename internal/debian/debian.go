// Package debian finds the election libraries that Debian has packages of, which this one is compared with.
package debian

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Python is Debian's, which has Debian's modules.
const Python = "/usr/bin/python3"

// curatorJars is Curator and what it needs.
var curatorJars = []string{
	"curator-client", "curator-framework", "curator-recipes", "zookeeper", "zookeeper-jute", "guava", "slf4j-api", "slf4j-nop",
	"jackson-core", "jackson-databind", "jackson-annotations", "netty-handler", "netty-transport", "netty-common", "netty-buffer",
	"netty-codec", "netty-resolver", "netty-transport-native-epoll", "netty-transport-native-unix-common",
}

// Curator returns Curator's class path and version.
func Curator() (classes, version string, err error) {
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

// Kazoo returns kazoo's version.
func Kazoo() (version string, err error) {
	output, err := exec.Command(Python, "-c", "import kazoo.version; print(kazoo.version.__version__)").Output()
	if err != nil {
		return "", fmt.Errorf("kazoo: %w", err)
	}
	return strings.TrimSpace(string(output)), nil
}
