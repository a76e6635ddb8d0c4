package testutil

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestJavaSetIsOrderedAsJavaDoes compares with Java's own sets: testdata/javaset/Order.java does
// the same and says what comes of it.
func TestJavaSetIsOrderedAsJavaDoes(t *testing.T) {
	java, err := exec.LookPath("java")
	if err != nil {
		if os.Getenv("ELECTION_REQUIRE_ZOOKEEPER") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	cmd := exec.Command(java, "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-Dstdout.encoding=UTF-8", "-Dfile.encoding=UTF-8", "testdata/javaset/Order.java")
	var faults bytes.Buffer
	cmd.Stderr = &faults
	said, err := cmd.Output()
	require.NoError(t, err, faults.String())
	theirs := strings.Split(strings.TrimSpace(string(said)), "\n")

	var ours []string
	say := func(name string, list []string) { ours = append(ours, name+" "+strings.Join(list, ",")) }
	ballot := func(i int) string { return fmt.Sprintf("ballot-%010d", i) }
	for _, n := range []int{1, 5, 6, 7, 12, 13, 24, 25, 48, 49, 100, 1000, 20000} {
		ballots, numbers, strange := newJavaSet(childrenTable), newJavaSet(plainTable), newJavaSet(childrenTable)
		for i := range n {
			ballots.add(ballot(i))
			numbers.add(fmt.Sprintf("n%d", i*7919))
			strange.add(fmt.Sprintf("\u00e4\U0001F600%d%s%s", i, strings.Repeat("Aa", i%5), strings.Repeat("BB", i%3)))
		}
		say("ballots", ballots.strings())
		say("numbers", numbers.strings())
		say("strange", strange.strings())
		for i := 0; i < n; i += 2 {
			ballots.remove(ballot(i))
		}
		for i := n; i < n+n/4; i++ {
			ballots.add(ballot(i))
		}
		for i := 0; i < n; i += 4 {
			ballots.add(ballot(i))
		}
		say("changed", ballots.strings())
		say("copied", ballots.copied())
	}
	full := newJavaSet(childrenTable)
	for i := range 9 {
		text := ""
		for bit := range 4 {
			text += []string{"Aa", "BB"}[i>>bit&1]
		}
		full.add(text)
		full.add(fmt.Sprint("x", i))
	}
	say("full bucket", full.strings())

	require.Len(t, theirs, len(ours))
	for i := range ours {
		if ours[i] != theirs[i] { // the lines are long
			t.Errorf("line %d:\nours   %.200s\ntheirs %.200s", i, ours[i], theirs[i])
		}
	}
}

func TestJavaSet(t *testing.T) {
	var none *javaSet
	assert.Zero(t, none.len())
	assert.Empty(t, none.strings())
	assert.Empty(t, none.copied())
	assert.Nil(t, none.clone())

	s := newJavaSet(childrenTable)
	s.add("a")
	s.add("b")
	c := s.clone()
	s.remove("a")
	s.remove("never there")
	assert.Equal(t, 1, s.len())
	assert.Equal(t, []string{"b"}, s.strings())
	assert.Equal(t, []string{"a", "b"}, slices.Sorted(slices.Values(c.strings())))
	c.remove("b")
	assert.Equal(t, []string{"b"}, s.strings())
}
