package examples_test

import (
	"fmt"
	"regexp"
	"runtime"
	"strconv"
	"testing"
)

var crashOutput = regexp.MustCompile(`(?s)^ +---- without a guard
 *[\d.]+ s  alpha  serves
 *[\d.]+ s  beta   stands by
 *[\d.]+ s  alpha  PANICS
 *[\d.]+ s  beta   serves
 +---- with a guard
 *[\d.]+ s  alpha  serves
 *[\d.]+ s  beta   stands by
 *[\d.]+ s  alpha  PANICS
 *[\d.]+ s  beta   serves

until the next one served: ([\d.]+) s without a guard, ([\d.]+) s with one
$`)

// TestCrash: without a guard the session of the dead one lasts for most of 10 s, and with one it does not.
func TestCrash(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("there are no guards here")
	}
	onBoth(t, "crash", func(output string) error {
		m := crashOutput.FindStringSubmatch(output)
		if m == nil {
			return fmt.Errorf("want this output:\n%s", crashOutput)
		}
		without, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			return err
		}
		with, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			return err
		}
		if without < 6 || with > 6 {
			return fmt.Errorf("%v s without, %v s with", without, with)
		}
		return nil
	}, lasting)
}
