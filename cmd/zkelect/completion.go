package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func completionCommand() *cobra.Command {
	shells := []string{"bash", "zsh", "fish"}
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "print a shell's completion script",
		Long: `Prints the script with which a shell completes zkelect's commands, its flags and
the names of elections. To load it in each new shell:

    bash  zkelect completion bash >/etc/bash_completion.d/zkelect
    zsh   zkelect completion zsh >"${fpath[1]}/_zkelect"
    fish  zkelect completion fish >~/.config/fish/completions/zkelect.fish`,
		Args:                  oneShell(shells),
		ValidArgs:             shells,
		DisableFlagsInUseLine: true,
		RunE: func(c *cobra.Command, args []string) error {
			var err error
			switch out := c.OutOrStdout(); args[0] {
			case "bash":
				err = c.Root().GenBashCompletionV2(out, true)
			case "zsh":
				err = c.Root().GenZshCompletion(out)
			case "fish":
				err = c.Root().GenFishCompletion(out, true)
			}
			return printed(0, err)
		},
	}
}

// oneShell says which shells there are where none, or another, is given.
func oneShell(shells []string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != 1 || !slices.Contains(shells, args[0]) {
			return usageError{fmt.Errorf("for which shell? want one of %s, got %q", strings.Join(shells, ", "), args)}
		}
		return nil
	}
}

// completionWait is how long a shell waits for the names of the elections, unless --wait is on the line.
const completionWait = 2 * time.Second

// completeElections completes --election with what is there.
func completeElections(o *connection) cobra.CompletionFunc {
	return func(c *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if !c.Flags().Changed("wait") || o.wait == 0 {
			o.wait = completionWait
		}
		ctx, cancel := context.WithTimeout(c.Context(), o.wait)
		defer cancel()
		if o.dev || o.check() != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		s, closeAll, err := o.connect(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer closeAll()
		names, _ := elections(ctx, s, o.root)
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
