package main

import (
	"errors"
	"time"

	"github.com/spf13/cobra"
)

// duration is the value of a flag; its errors say what a duration looks like.
type duration struct{ to *time.Duration }

func (d duration) String() string {
	if d.to == nil || *d.to == 0 {
		return "" // so that the help tells of no default
	}
	return d.to.String()
}

func (d duration) Set(text string) error {
	parsed, err := time.ParseDuration(text)
	if err != nil {
		return errors.New("want a duration such as 10s, 500ms or 1m30s")
	}
	*d.to = parsed
	return nil
}

func (d duration) Type() string { return "duration" }

func durationFlag(c *cobra.Command, to *time.Duration, name string, value time.Duration, usage string) {
	*to = value
	c.Flags().Var(duration{to}, name, usage)
	_ = c.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
}
