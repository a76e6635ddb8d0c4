package docs_test

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const crashPicture = "crash.svg"

var crashLine = regexp.MustCompile(`(?m)^ *([\d.]+) s  (alpha|beta) +(serves|PANICS)$`)

// TestCrashPicture looks at the two timelines that README.md shows. With -record it first makes them, from a run of the
// example.
func TestCrashPicture(t *testing.T) {
	if *record {
		out, err := exec.CommandContext(t.Context(), "go", "run", "../examples/crash").Output()
		require.NoError(t, err)
		picture, err := drawCrash(string(out))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(crashPicture, picture, 0o644))
	}
	picture, err := os.ReadFile(crashPicture)
	require.NoError(t, err)
	for _, text := range []string{"without a guard", "with a guard", "alpha serves", "nobody for ", "beta serves"} {
		assert.True(t, strings.Contains(string(picture), text), "the picture does not say %q", text)
	}
	_, err = drawCrash("nonsense")
	assert.Error(t, err, "nonsense is drawn")
}

// drawCrash draws who served when, in both acts, on one scale.
func drawCrash(output string) ([]byte, error) {
	const left, perSecond, before = 130.0, 110.0, 1.0 // of the picture; seconds before the death
	var b strings.Builder
	b.WriteString(`<svg xmlns="http://www.w3.org/2000/svg" width="800" height="150" viewBox="0 0 800 150" font-family="DejaVu Sans, Helvetica, Arial, sans-serif" font-size="13">` + "\n")
	b.WriteString("<title>A leader panics: who serves, without a guard and with one</title>\n" + `<rect width="100%" height="100%" fill="#ffffff"/>` + "\n")
	acts := strings.Split(output, "---- ")[1:]
	if len(acts) != 2 {
		return nil, fmt.Errorf("%d acts", len(acts))
	}
	for i, act := range acts {
		name, _, _ := strings.Cut(act, "\n")
		at := make(map[string]float64)
		for _, m := range crashLine.FindAllStringSubmatch(act, -1) {
			seconds, err := strconv.ParseFloat(m[1], 64)
			if err != nil {
				return nil, err
			}
			at[m[2]+" "+m[3]] = seconds
		}
		gap := at["beta serves"] - at["alpha PANICS"]
		if at["alpha PANICS"] == 0 || gap < 0 {
			return nil, fmt.Errorf("no death, or nobody after it, in %q", act)
		}
		y := 20 + 55*i
		died, next, end := left+before*perSecond, left+(before+gap)*perSecond, 790.0
		bar := func(from, to float64, colour, text, ink string) {
			fmt.Fprintf(&b, `<rect x="%.1f" y="%d" width="%.1f" height="34" fill="%s"/>`+"\n", from, y, max(1, to-from), colour)
			if text != "" {
				fmt.Fprintf(&b, `<text x="%.1f" y="%d" fill="%s">%s</text>`+"\n", from+8, y+22, ink, text)
			}
		}
		fmt.Fprintf(&b, `<text x="8" y="%d" fill="#24292f">%s</text>`+"\n", y+22, name)
		bar(left, died, "#2da44e", "alpha serves", "#ffffff")
		nobody := fmt.Sprintf("nobody for %.3f s", gap)
		if next-died > 120 {
			bar(died, next, "#ffd7d5", nobody, "#a40e26")
			bar(next, end, "#0969da", "beta serves", "#ffffff")
		} else {
			bar(died, next, "#a40e26", "", "")
			bar(next, end, "#0969da", "beta serves; "+nobody, "#ffffff")
		}
	}
	fmt.Fprintf(&b, `<text x="%.1f" y="142" fill="#57606a">alpha panics</text>`+"\n", left+before*perSecond+4)
	fmt.Fprintf(&b, `<line x1="%.1f" y1="12" x2="%[1]f" y2="146" stroke="#24292f" stroke-dasharray="3 3"/>`+"\n</svg>\n", left+before*perSecond)
	return []byte(b.String()), nil
}
