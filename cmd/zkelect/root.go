package main

import (
	"errors"
	"fmt"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// The tree of commands, from which the help, the completions and the manual pages come.

// width is that of the narrowest terminal that the help is for.
const width = 80

const overview = `zkelect holds elections on ZooKeeper.

The servers are given by --servers, or else by the environment variable
ZK_SERVERS, as HOST:PORT,HOST:PORT. To try things out without a ZooKeeper,
--dev starts one inside zkelect and tells its address.`

// helpTemplate is a command's help; usageTemplate the part of it after the text.
const (
	helpTemplate  = `{{with (or .Long .Short)}}{{. | trimTrailingWhitespaces}}{{end}}` + "\n\n" + `{{.UsageString}}`
	usageTemplate = `Usage: {{.UseLine}}{{if .HasAvailableSubCommands}}

Commands:{{range .Commands}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}{{if .HasExample}}

Examples:
{{.Example}}{{end}}{{if .HasAvailableLocalFlags}}

Flags:
{{flags .}}{{end}}{{if .HasAvailableSubCommands}}

"{{.CommandPath}} COMMAND --help" tells the flags and exit statuses of each.{{end}}
`
)

func init() {
	cobra.AddTemplateFunc("flags", func(c *cobra.Command) string {
		return strings.TrimRight(c.LocalFlags().FlagUsagesWrapped(width), "\n")
	})
}

func rootCommand(e *env) *cobra.Command {
	root := &cobra.Command{
		Use:           "zkelect COMMAND",
		Short:         "hold elections on ZooKeeper",
		Long:          overview,
		Version:       version(),
		SilenceErrors: true, // execute says them
		SilenceUsage:  true,

		DisableFlagsInUseLine: true,
		RunE: func(c *cobra.Command, _ []string) error {
			c.SetOut(e.stderr)
			_ = c.Help()
			return &exit{status: exitUsage}
		},
	}
	root.SetOut(e.stdout)
	root.SetErr(e.stderr)
	root.SetHelpTemplate(helpTemplate)
	root.SetUsageTemplate(usageTemplate)
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{plainly(err)} })
	root.SetHelpCommand(helpCommand())
	root.CompletionOptions.DisableDefaultCmd = true // completionCommand is in its place
	root.AddCommand(
		runCommand(e), transferCommand(e), statusCommand(e), listCommand(e), topCommand(e), watchCommand(e), guardCommand(e),
		versionCommand(), completionCommand(), manCommand(),
	)
	return root
}

// plainly says what a flag's value is to be, where strconv says what it could not parse.
func plainly(err error) error {
	var invalid *pflag.InvalidValueError
	var parse *strconv.NumError
	if !errors.As(err, &invalid) || !errors.As(err, &parse) {
		return err
	}
	want := "a whole number"
	if parse.Func == "ParseBool" {
		want = "true or false"
	}
	return fmt.Errorf("invalid argument %q for \"--%s\" flag: want %s", invalid.GetValue(), invalid.GetFlag().Name, want)
}

// helpCommand fails for what is no command, where the library's own would not.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "help [COMMAND]",
		Short:             "tell about a command",
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: completeCommands,
		RunE: func(c *cobra.Command, args []string) error {
			found, _, err := c.Root().Find(args)
			if err != nil {
				return err
			}
			found.InitDefaultHelpFlag()
			return found.Help()
		},
	}
}

func completeCommands(c *cobra.Command, args []string, _ string) (names []cobra.Completion, _ cobra.ShellCompDirective) {
	if len(args) == 0 {
		for _, command := range c.Root().Commands() {
			if command.IsAvailableCommand() {
				names = append(names, cobra.CompletionWithDesc(command.Name(), command.Short))
			}
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "print the version",
		Args:  noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			return printed(fmt.Fprintln(c.OutOrStdout(), version()))
		},
	}
}

// version tells what this was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "zkelect, built without module information"
	}
	return fmt.Sprintf("zkelect %s, %s", info.Main.Version, info.GoVersion)
}

// noArguments refuses what a command does not take.
func noArguments(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%s takes no argument %q", c.Name(), args[0])}
	}
	return nil
}

// printed is the end of a command that has nothing to do but to print.
func printed(_ int, err error) error {
	if err != nil {
		return &exit{exitFailed, err}
	}
	return nil
}
