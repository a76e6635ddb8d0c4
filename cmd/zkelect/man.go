package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// manCommand prints the manual page, which is made of what the help is made of. It is for packagers and for make man, and
// hidden.
func manCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "man",
		Short:  "print the manual page",
		Long:   "Prints the manual page, zkelect.1.",
		Hidden: true,
		Args:   noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			return printed(io.WriteString(c.OutOrStdout(), manualPage(c.Root())))
		},
	}
}

// manualPage is the page of all commands, in the language of man(7).
func manualPage(root *cobra.Command) string {
	var b strings.Builder
	b.WriteString(".\\\" Made by \"zkelect man\" (make man): change the help instead.\n")
	fmt.Fprintf(&b, ".TH ZKELECT 1 \"\" zkelect \"User Commands\"\n.SH NAME\nzkelect \\- %s\n.SH SYNOPSIS\n", roff(root.Short))
	for _, c := range root.Commands() {
		if c.IsAvailableCommand() {
			fmt.Fprintf(&b, ".B %s\n.br\n", roff(c.UseLine()))
		}
	}
	b.WriteString(".SH DESCRIPTION\n")
	manText(&b, root.Long)
	asking := &cobra.Command{}
	new(connection).flags(asking, defaultWait)
	common := asking.Flags()
	b.WriteString(".SH COMMANDS\n")
	for _, c := range root.Commands() {
		if !c.IsAvailableCommand() {
			continue
		}
		text := c.Long
		if text == "" {
			text = strings.ToUpper(c.Short[:1]) + c.Short[1:] + "."
		}
		fmt.Fprintf(&b, ".SS %s\n", roff(c.UseLine()))
		manText(&b, text)
		if c.HasExample() {
			b.WriteString(".PP\nExamples:\n")
			manText(&b, c.Example)
		}
		reaches := false
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if same := common.Lookup(f.Name); same != nil && same.DefValue == f.DefValue {
				reaches = true
			} else if f.Name != "help" {
				manFlag(&b, f)
			}
		})
		if reaches {
			b.WriteString(".PP\nThe flags under CONNECTION, too.\n")
		}
	}
	b.WriteString(".SH CONNECTION\nFlags of all commands that ask ZooKeeper:\n")
	common.VisitAll(func(f *pflag.Flag) { manFlag(&b, f) })
	b.WriteString(".SH ENVIRONMENT\n")
	for _, v := range environment {
		fmt.Fprintf(&b, ".TP\n.B %s\n%s\n", v.name, roff(v.about))
	}
	return b.String()
}

func manFlag(b *strings.Builder, f *pflag.Flag) {
	value, usage := pflag.UnquoteUsage(f)
	fmt.Fprintf(b, ".TP\n.B %s\n%s", roff(strings.TrimRight("--"+f.Name+" "+value, " ")), roff(usage))
	if f.DefValue != "" && f.DefValue != "false" {
		fmt.Fprintf(b, " (default %s)", roff(f.DefValue))
	}
	b.WriteByte('\n')
}

// manText writes paragraphs, and what is indented as it is.
func manText(b *strings.Builder, text string) {
	verbatim := false
	for line := range strings.Lines(strings.Trim(text, "\n") + "\n") {
		line = strings.TrimRight(line, "\n")
		indented := strings.HasPrefix(line, "  ")
		switch {
		case line == "" && !verbatim:
			b.WriteString(".PP\n")
			continue
		case indented && !verbatim:
			b.WriteString(".RS\n.nf\n")
		case !indented && verbatim:
			b.WriteString(".fi\n.RE\n")
		}
		verbatim = indented
		if line == "" {
			b.WriteString(".PP\n")
			continue
		}
		b.WriteString(roff(strings.TrimPrefix(strings.TrimPrefix(line, "  "), "  ")) + "\n")
	}
	if verbatim {
		b.WriteString(".fi\n.RE\n")
	}
}

// roff escapes what the formatter would take for its own.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		text = `\&` + text
	}
	return text
}
