package realzk

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/zkelection/election/testutil"
)

// An installation is what is needed to run ZooKeeper: a Java and a class path.
type installation struct {
	version         string // "" if the names of the jars do not tell
	java, classpath string
}

// is reports whether the installation is of a release, which "" is of every one.
func (i installation) is(release testutil.Release) bool {
	return release == "" || i.version == string(release) || strings.HasPrefix(i.version, string(release)+".")
}

// debianJars are those of /usr/share/java that a server needs, TLS included; all but the first two are optional, since
// their names change between releases.
var debianJars = []string{
	"zookeeper", "zookeeper-jute", "slf4j-api", "slf4j-simple",
	"netty-handler", "netty-transport", "netty-common", "netty-buffer", "netty-codec", "netty-resolver",
	"netty-transport-native-epoll", "netty-transport-native-unix-common",
	"metrics-core", "snappy-java", "commons-cli", "log4j-1.2",
}

// findZooKeeper looks for a release: in ZOOKEEPER_HOME, among Debian's packages, and in the directories that
// ELECTION_ZOOKEEPER_HOMES lists.
func findZooKeeper(release testutil.Release) (installation, error) {
	java, err := findJava()
	if err != nil {
		return installation{}, fmt.Errorf("%w: %w", ErrNoZooKeeper, err)
	}
	var homes []string
	home := os.Getenv("ZOOKEEPER_HOME")
	if home != "" {
		homes = append(homes, home)
	}
	homes = append(homes, debian)
	homes = append(homes, filepath.SplitList(os.Getenv(furtherHomes))...)
	var reasons []string
	for _, dir := range homes {
		install, err := installedIn(dir)
		switch {
		case err != nil:
			reasons = append(reasons, err.Error())
		case install.is(release):
			install.java = java
			return install, nil
		default:
			reasons = append(reasons, dir+" has "+install.version)
		}
		if dir == home && release == "" {
			break // whoever names one wants no other
		}
	}
	return installation{}, fmt.Errorf("%w: of %q: %s", ErrNoZooKeeper, release, strings.Join(reasons, "; "))
}

// debian is where Debian's packages keep the jars, all of them without versions in their names, and links with them.
const debian = "/usr/share/java"

var versioned = regexp.MustCompile(`^zookeeper-([0-9].*)\.jar$`)

// versionIn reads the version of ZooKeeper from the names in a directory of jars.
func versionIn(dir string) (version string, found bool) {
	jars, err := filepath.Glob(filepath.Join(dir, "zookeeper-*.jar"))
	if err != nil {
		return "", false
	}
	for _, jar := range jars {
		if m := versioned.FindStringSubmatch(filepath.Base(jar)); m != nil {
			return m[1], true
		}
	}
	return "", false
}

func installedIn(dir string) (installation, error) {
	if dir != debian {
		version, found := versionIn(filepath.Join(dir, "lib"))
		if !found {
			return installation{}, fmt.Errorf("%s has no lib/zookeeper-*.jar", dir)
		}
		jars, err := filepath.Glob(filepath.Join(dir, "lib", "*.jar"))
		if err != nil {
			return installation{}, err
		}
		// ZooKeeper's own jar comes last: Debian's names those of the system in its manifest, of whatever release, and
		// what a manifest names comes before all that stands behind it.
		slices.SortFunc(jars, func(a, b string) int {
			return cmp.Or(boolToInt(versioned.MatchString(filepath.Base(a)))-boolToInt(versioned.MatchString(filepath.Base(b))), cmp.Compare(a, b))
		})
		classes := append([]string{filepath.Join(dir, "conf")}, jars...)
		return installation{version: version, classpath: strings.Join(classes, string(os.PathListSeparator))}, nil
	}
	var jars []string
	for i, name := range debianJars {
		jar := filepath.Join(dir, name+".jar")
		if _, err := os.Stat(jar); err == nil {
			jars = append(jars, jar)
		} else if i < 2 {
			return installation{}, err
		}
	}
	version, _ := versionIn(dir)
	return installation{version: version, classpath: strings.Join(jars, string(os.PathListSeparator))}, nil
}

func boolToInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func findJava() (string, error) {
	if home := os.Getenv("JAVA_HOME"); home != "" {
		return exec.LookPath(filepath.Join(home, "bin", "java"))
	}
	return exec.LookPath("java")
}
