package testutil

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// An installation is what is needed to run ZooKeeper: a Java and a class path.
type installation struct {
	java, classpath string
}

// debianJars are those of /usr/share/java that a server needs, TLS included; all but the first two are optional, since
// their names change between releases.
var debianJars = []string{
	"zookeeper", "zookeeper-jute", "slf4j-api", "slf4j-simple",
	"netty-handler", "netty-transport", "netty-common", "netty-buffer", "netty-codec", "netty-resolver",
	"netty-transport-native-epoll", "netty-transport-native-unix-common",
	"metrics-core", "snappy-java", "commons-cli", "log4j-1.2",
}

func findZooKeeper() (installation, error) {
	java, err := findJava()
	if err != nil {
		return installation{}, fmt.Errorf("%w: %w", ErrNoZooKeeper, err)
	}
	if home := os.Getenv("ZOOKEEPER_HOME"); home != "" {
		jars, err := filepath.Glob(filepath.Join(home, "lib", "zookeeper-*.jar"))
		if err != nil || len(jars) == 0 {
			return installation{}, fmt.Errorf("%w: ZOOKEEPER_HOME=%s has no lib/zookeeper-*.jar", ErrNoZooKeeper, home)
		}
		return installation{java, strings.Join([]string{filepath.Join(home, "conf"), filepath.Join(home, "lib", "*")}, string(os.PathListSeparator))}, nil
	}
	var jars []string
	for i, name := range debianJars {
		jar := filepath.Join("/usr/share/java", name+".jar")
		if _, err := os.Stat(jar); err == nil {
			jars = append(jars, jar)
		} else if i < 2 {
			return installation{}, fmt.Errorf("%w: %w", ErrNoZooKeeper, err)
		}
	}
	return installation{java, strings.Join(jars, string(os.PathListSeparator))}, nil
}

func findJava() (string, error) {
	if home := os.Getenv("JAVA_HOME"); home != "" {
		return exec.LookPath(filepath.Join(home, "bin", "java"))
	}
	return exec.LookPath("java")
}
