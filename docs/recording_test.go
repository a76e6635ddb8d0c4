package docs_test

import (
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"html"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var record = flag.Bool("record", false, "run the failover example and write what it prints to failover.svg")

const recording = "failover.svg"

// TestRecording looks at the terminal that README.md shows. With -record it
// first makes it, from a run of the example.
func TestRecording(t *testing.T) {
	if *record {
		out, err := exec.CommandContext(t.Context(), "go", "run", "../examples/dbfailover").Output()
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(recording, terminal("go run ./examples/dbfailover", string(out)), 0o644))
	}
	picture, err := os.ReadFile(recording)
	require.NoError(t, err)
	var text strings.Builder
	for decoder := xml.NewDecoder(strings.NewReader(string(picture))); ; {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		if data, ok := token.(xml.CharData); ok {
			text.Write(data)
		}
	}
	for _, act := range []string{"resigns", "closes its session", "loses its session", "lease lapsed", "failover", "T, the session timeout", "unaware"} {
		assert.True(t, strings.Contains(text.String(), act), "the recording does not show %q", act)
	}
}

// terminal draws a terminal window with what a command has printed.
func terminal(command, output string) []byte {
	const advance, leading, margin, top = 8.4, 19, 16, 44
	lines := append([]string{"$ " + command}, strings.Split(strings.TrimRight(output, "\n"), "\n")...)
	columns := 0
	for _, line := range lines {
		columns = max(columns, len([]rune(line)))
	}
	width, height := 2*margin+int(advance*float64(columns)), top+leading*len(lines)+margin/2
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" `, width, height)
	b.WriteString(`font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace" font-size="14">` + "\n")
	fmt.Fprintf(&b, `<title>%s</title>`+"\n", html.EscapeString(command))
	b.WriteString(`<rect width="100%" height="100%" rx="8" fill="#1b1f24"/>` + "\n")
	for i, colour := range []string{"#ff5f57", "#febc2e", "#28c840"} {
		fmt.Fprintf(&b, `<circle cx="%d" cy="16" r="5" fill="%s"/>`+"\n", 20+i*18, colour)
	}
	for i, line := range lines {
		fmt.Fprintf(&b, `<text x="%d" y="%d" fill="%s" xml:space="preserve">%s</text>`+"\n",
			margin, top+leading*i, colourOf(i, line), html.EscapeString(line))
	}
	b.WriteString("</svg>\n")
	return []byte(b.String())
}

func colourOf(i int, line string) string {
	for _, mark := range []struct{ word, colour string }{
		{" ---- ", "#ffffff"},
		{" WINS ", "#7ee787"},
		{" STEPS DOWN ", "#ffa657"},
		{" RECONNECTS ", "#79c0ff"},
		{" CUT OFF", "#ff7b72"},
		{" has no master", "#ff7b72"},
	} {
		if strings.Contains(line, mark.word) {
			return mark.colour
		}
	}
	if i == 0 {
		return "#ffffff"
	}
	return "#b1bac4"
}
