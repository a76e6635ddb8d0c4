package docs_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	link    = regexp.MustCompile(`\]\(([^)#:]*)(?:#([^)]*))?\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
)

// anchors are the fragments that GitHub makes of a document's headings.
func anchors(document string) (all []string) {
	for _, m := range heading.FindAllStringSubmatch(document, -1) {
		dropped := regexp.MustCompile(`[^\p{L}\p{N}_ -]`).ReplaceAllString(strings.ToLower(m[1]), "")
		all = append(all, strings.ReplaceAll(dropped, " ", "-"))
	}
	return all
}

// generated are the documents and pictures that make targets write; one that was never made
// is no broken link.
var generated = []string{
	"../docs/chaos.md", "../docs/chaos-3.9.md", "../docs/mutations.md", "../docs/performance.md", "../docs/performance.svg",
}

// brokenLinks returns the links of a document that lead nowhere.
func brokenLinks(name, document string) (broken []string) {
	for _, m := range link.FindAllStringSubmatch(document, -1) {
		target := filepath.Join("..", filepath.Dir(name), m[1])
		if m[1] == "" {
			target = filepath.Join("..", name)
		}
		if _, err := os.Stat(target); errors.Is(err, os.ErrNotExist) {
			if slices.Contains(generated, target) {
				continue
			}
			broken = append(broken, fmt.Sprintf("%s links to %s, which is not there", name, m[1]))
			continue
		}
		if content, err := os.ReadFile(target); m[2] != "" && (err != nil || !slices.Contains(anchors(string(content)), m[2])) {
			broken = append(broken, fmt.Sprintf("%s links to %s#%s, which has no such heading", name, m[1], m[2]))
		}
	}
	return broken
}

func TestLinks(t *testing.T) {
	var broken []string
	for _, name := range documents {
		broken = append(broken, brokenLinks(name, read(t, name))...)
	}
	for _, planted := range []string{"[x](nothing.md)", "[x](docs/protocol.md#nothing)", "[x](#nothing)"} {
		report(t, nil, brokenLinks("README.md", planted))
	}
	for _, fault := range broken {
		t.Error(fault)
	}
}
