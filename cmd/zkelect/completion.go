package main

import (
	"context"
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
		Args:                  usageArgs(cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs)),
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

// usageArgs makes what the check of the arguments finds the user's mistake.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return usageError{err}
		}
		return nil
	}
}

// completionWait is how long a shell waits for the names of the elections.
const completionWait = 2 * time.Second

// completeElections completes --election with what is there.
func completeElections(o *connection) cobra.CompletionFunc {
	return func(c *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		o.wait = completionWait
		ctx, cancel := context.WithTimeout(c.Context(), completionWait)
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
