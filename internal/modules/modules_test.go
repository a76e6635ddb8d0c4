// Package modules_test does what users of this repository's modules do: it installs the command and gets the libraries from
// a module proxy that serves the working tree as the versions that are to be tagged.
package modules_test

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	module  = "github.com/zkelection/election"
	top     = "../.." // the repository
	command = "cmd/zkelect"
)

// nested are the directories of the modules within the root's.
var nested = []string{command, "contrib/grpc", "contrib/prometheus"}

var required = regexp.MustCompile(`(?m)^\s+` + regexp.QuoteMeta(module) + ` (v\S+)$`)

// toBeTagged is the version of the root's module that another requires.
func toBeTagged(t *testing.T, dir string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(top, dir, "go.mod"))
	require.NoError(t, err)
	require.NotContains(t, string(text), "replace", "%s: go install would refuse it", dir)
	found := required.FindSubmatch(text)
	require.NotNil(t, found, "%s requires no version of %s", dir, module)
	return string(found[1])
}

// TestVersions: the modules are tagged together, so they require the same version of the root's; and the workspace takes
// that for the working tree.
func TestVersions(t *testing.T) {
	version := toBeTagged(t, command)
	workspace, err := os.ReadFile(filepath.Join(top, "go.work"))
	require.NoError(t, err)
	for _, dir := range nested {
		require.Equal(t, version, toBeTagged(t, dir), dir)
		require.Contains(t, string(workspace), "\t./"+dir+"\n")
	}
	require.Contains(t, string(workspace), fmt.Sprintf("replace %s %s => ./\n", module, version))
	changes, err := os.ReadFile(filepath.Join(top, "CHANGELOG.md"))
	require.NoError(t, err)
	if strings.Contains(string(changes), "\n## Unreleased\n") {
		require.NotContains(t, string(changes), "\n## "+version+"\n", "a version that was, and is something else")
	}
	inTree, err := filepath.Glob(filepath.Join(top, "*", "*", "go.mod"))
	require.NoError(t, err)
	require.Len(t, inTree, len(nested), "a module that is not listed here")
}

// TestBare: the root's module needs, to be used, nothing but the client and the standard library.
func TestBare(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(top, "go.mod"))
	require.NoError(t, err)
	for _, stranger := range []string{"cobra", "pflag", "prometheus", "golang.org/x/sys", "golang.org/x/term"} {
		require.NotContains(t, string(text), stranger)
	}
}

// proxy is a directory that serves modules: see "go help goproxy".
type proxy struct{ dir string }

// serve adds the module in dir, a version of it.
func (p proxy) serve(t *testing.T, dir, version string) {
	t.Helper()
	path := module
	if dir != "." {
		path += "/" + dir
	}
	at := filepath.Join(p.dir, filepath.FromSlash(path), "@v")
	require.NoError(t, os.MkdirAll(at, 0o755))
	source, err := os.ReadFile(filepath.Join(top, dir, "go.mod"))
	require.NoError(t, err)
	for name, content := range map[string][]byte{
		"list":            []byte(version + "\n"),
		version + ".info": fmt.Appendf(nil, `{"Version":%q,"Time":"2026-01-01T00:00:00Z"}`, version),
		version + ".mod":  source,
		version + ".zip":  zipped(t, filepath.Join(top, dir), path+"@"+version),
	} {
		require.NoError(t, os.WriteFile(filepath.Join(at, name), content, 0o600))
	}
}

// zipped packs a module's files: those of its directory without the modules in it.
func zipped(t *testing.T, dir, prefix string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			_, err := os.Stat(filepath.Join(path, "go.mod"))
			if path != dir && (err == nil || slices.Contains([]string{".git", ".cache", "bin"}, entry.Name())) {
				return filepath.SkipDir
			}
			return nil
		}
		if !entry.Type().IsRegular() || entry.Name() == ".git" {
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		file, err := w.Create(prefix + "/" + filepath.ToSlash(name))
		if err != nil {
			return err
		}
		_, err = file.Write(content)
		return err
	})
	require.NoError(t, errors.Join(err, w.Close()))
	return b.Bytes()
}

// consumer is a directory of somebody else's, whose go command knows the proxy.
type consumer struct {
	dir         string
	environment []string
}

// newConsumer serves all modules. What they depend on comes from where it comes from otherwise; the cache is one of its own,
// so that the versions that are made here do not stay in the user's.
func newConsumer(t *testing.T, version string) consumer {
	t.Helper()
	if testing.Short() {
		t.Skip("it builds a lot")
	}
	p := proxy{t.TempDir()}
	p.serve(t, ".", version)
	for _, dir := range nested {
		p.serve(t, dir, version)
	}
	env := func(name string) string {
		value, err := exec.CommandContext(t.Context(), "go", "env", name).Output()
		require.NoError(t, err)
		return strings.TrimSpace(string(value))
	}
	sources := []string{"file://" + p.dir, "file://" + env("GOMODCACHE") + "/cache/download"}
	for source := range strings.FieldsFuncSeq(env("GOPROXY"), func(r rune) bool { return r == ',' || r == '|' }) {
		if source != "direct" { // nobody is to be asked for a repository that these modules' names would be of
			sources = append(sources, source)
		}
	}
	dir := t.TempDir()
	return consumer{dir, append(os.Environ(),
		"GOPROXY="+strings.Join(sources, ","), "GOSUMDB=off", "GOMODCACHE="+t.TempDir(), "GOBIN="+dir,
		"GOWORK=off", "GOFLAGS=-modcacherw -trimpath", "GOTOOLCHAIN=local")}
}

// run runs a command there and returns its output.
func (c consumer) run(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir, cmd.Env = c.dir, c.environment
	output, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s %s: %s", name, strings.Join(args, " "), output)
	return string(output)
}

func (c consumer) write(t *testing.T, name, content string) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(c.dir, name), []byte(content), 0o600))
}

// TestInstallCommand: "go install …/cmd/zkelect@latest" works.
func TestInstallCommand(t *testing.T) {
	t.Parallel()
	version := toBeTagged(t, command)
	c := newConsumer(t, version)
	c.run(t, "go", "install", module+"/"+command+"@latest")
	require.Contains(t, c.run(t, filepath.Join(c.dir, "zkelect"), "version"), "zkelect "+version+", go1.")
	output := c.run(t, filepath.Join(c.dir, "zkelect"), "run", "--dev", "--election", "e", "--", "echo", "it works")
	require.Contains(t, output, "it works\n")
}

// TestGetAdapters: "go get …/contrib/prometheus" alone brings all that a service needs, and no command-line library; and so
// for gRPC.
func TestGetAdapters(t *testing.T) {
	t.Parallel()
	c := newConsumer(t, toBeTagged(t, command))
	for dir, service := range map[string]struct{ alias, value string }{
		"contrib/prometheus": {"metrics", "metrics.New()"},
		"contrib/grpc":       {"health", "health.NewHealthServer(nil)"},
	} {
		c.run(t, "go", "mod", "init", "example.com/service")
		c.write(t, "main.go", fmt.Sprintf(`package main

import (
	"fmt"

	"github.com/zkelection/election"
	%s %q
)

func main() { fmt.Println(election.DefaultRoot, %s != nil) }
`, service.alias, module+"/"+dir, service.value))
		c.run(t, "go", "get", module+"/"+dir)
		require.Equal(t, "/_zkelection true\n", c.run(t, "go", "run", "."))
		require.NotContains(t, c.run(t, "go", "list", "-m", "all"), "cobra")
		require.NoError(t, os.Remove(filepath.Join(c.dir, "go.mod")))
	}
}

// TestGetLibrary: the library by itself brings the client, and nothing else into a program.
func TestGetLibrary(t *testing.T) {
	t.Parallel()
	c := newConsumer(t, toBeTagged(t, command))
	c.run(t, "go", "mod", "init", "example.com/service")
	c.write(t, "main.go", `package main

import "github.com/zkelection/election"

func main() { println(election.DefaultRoot) }
`)
	c.run(t, "go", "get", module)
	deps := c.run(t, "go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", ".")
	found := slices.Compact(slices.Sorted(slices.Values(strings.Fields(deps))))
	require.Equal(t, []string{"example.com/service", "github.com/go-zookeeper/zk", module}, found)
}
