package ctl

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/internal/invalid"
	"github.com/spf13/cobra"
)

const completionLong = `Prints the script with which your shell completes commands, flags and their values. It also
completes names of pods, namespaces and nodes from the cluster, and contexts from the kubeconfig. If
you may not list names, it offers none.

As a plugin of kubectl the tool needs no script: kubectl runs kubectl_complete-istio_pod_network.

Exit status: 0, or 2 for an unknown shell.`

const completionExample = `  # bash (it needs the package bash-completion): for this shell, and for every new one
  source <(%[1]s completion bash)
  %[1]s completion bash > /etc/bash_completion.d/%[1]s

  # zsh
  source <(%[1]s completion zsh)
  %[1]s completion zsh > "${fpath[1]}/_%[1]s"

  # fish
  %[1]s completion fish | source
  %[1]s completion fish > ~/.config/fish/completions/%[1]s.fish

  # PowerShell
  %[1]s completion powershell | Out-String | Invoke-Expression
  %[1]s completion powershell >> $PROFILE`

// shells are the shells with completion, each with the function that writes its script.
var shells = map[string]func(root *cobra.Command, out io.Writer, described bool) error{
	"bash": (*cobra.Command).GenBashCompletionV2,
	"fish": (*cobra.Command).GenFishCompletion,
	"powershell": func(root *cobra.Command, out io.Writer, described bool) error {
		if described {
			return root.GenPowerShellCompletionWithDesc(out)
		}
		return root.GenPowerShellCompletion(out)
	},
	"zsh": func(root *cobra.Command, out io.Writer, described bool) error {
		if described {
			return root.GenZshCompletion(out)
		}
		return root.GenZshCompletionNoDesc(out)
	},
}

// completion returns the command that prints a shell's script. It replaces cobra's, which succeeds for any shell's
// name.
func completion(flags cluster.Flags) *cobra.Command {
	names := []string{"bash", "fish", "powershell", "zsh"}
	var bare bool
	c := &cobra.Command{
		Use: "completion SHELL", Short: "Print the completion script of a shell", Long: completionLong,
		Example: fmt.Sprintf(completionExample, own), ValidArgs: names, DisableFlagsInUseLine: true,
		Args: func(_ *cobra.Command, args []string) error {
			valid := strings.Join(names, ", ")
			switch {
			case len(args) == 0:
				return outcome.Misusef("SHELL is missing; valid: %s", valid)
			case len(args) > 1:
				return outcome.Misuse(invalid.Text("SHELL", strings.Join(args, " "), "more than one", valid))
			case shells[args[0]] == nil:
				return outcome.Misuse(invalid.Text("SHELL", args[0], "unknown shell", valid))
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkUnused(c, flags); err != nil {
				return err
			}
			return outcome.Unasked(shells[args[0]](c.Root(), c.OutOrStdout(), !bare))
		},
	}
	c.Flags().BoolVar(&bare, "no-descriptions", false, "leave out the descriptions of commands and flags")
	return c
}

const helpLong = `Prints the help of a command, like the flag --help of that command.

Exit status: 0, or 2 for an unknown command.`

// help returns the command that prints the help of another command. It replaces cobra's, which succeeds for any name.
func help(name string, flags cluster.Flags) *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]", Short: "Print the help of a command", Long: helpLong,
		Example: fmt.Sprintf("  %[1]s help explain", name),
		ValidArgsFunction: func(c *cobra.Command, args []string, _ string) (names []string, _ cobra.ShellCompDirective) {
			for _, other := range c.Root().Commands() {
				if len(args) == 0 && other.IsAvailableCommand() {
					names = append(names, other.Name())
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkUnused(c, flags); err != nil {
				return err
			}
			about, rest, err := c.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return outcome.Misuse(invalid.Text("COMMAND", strings.Join(args, " "), "unknown command",
					"one of those that the program's --help lists"))
			}
			about.InitDefaultHelpFlag()
			return about.Help()
		},
	}
}

// checkUnused returns an error if the command line of a command that asks no cluster has flags about one.
func checkUnused(c *cobra.Command, flags cluster.Flags) error {
	because := c.Name() + " asks no cluster"
	return cmp.Or(flags.CheckUnused(because), cluster.CheckUnused(c.Flags(), because, "namespace"))
}

// complete adds completion to the flags of all commands whose values come from a cluster or a kubeconfig.
func complete(root *cobra.Command, flags cluster.Flags) {
	namespaces := names(flags, (*cluster.Cluster).NamespaceNames)
	known := func(which func(contexts, clusters, users []string) []string) cobra.CompletionFunc {
		return func(_ *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
			contexts, clusters, users, err := flags.Known()
			if err != nil {
				return nil, cobra.ShellCompDirectiveError
			}
			return cluster.Offered(which(contexts, clusters, users), "", "", begun, nil), cobra.ShellCompDirectiveNoFileComp
		}
	}
	of := map[string]cobra.CompletionFunc{
		"namespace": namespaces, "agents-namespace": namespaces,
		"nodes":   listed(names(flags, (*cluster.Cluster).NodeNames)),
		"context": known(func(contexts, _, _ []string) []string { return contexts }),
		"cluster": known(func(_, clusters, _ []string) []string { return clusters }),
		"user":    known(func(_, _, users []string) []string { return users }),
	}
	for _, c := range append(root.Commands(), root) {
		for name, completes := range of {
			if c.Flags().Lookup(name) != nil || c.PersistentFlags().Lookup(name) != nil {
				_ = c.RegisterFlagCompletionFunc(name, completes)
			}
		}
	}
}

// names completes with names in the cluster.
func names(
	flags cluster.Flags, all func(*cluster.Cluster, context.Context) ([]string, error),
) cobra.CompletionFunc {
	return func(c *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		var has []string
		err := flags.ForShell(c.Context(), func(ctx context.Context, from *cluster.Cluster) (err error) {
			has, err = all(from, ctx)
			return err
		})
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return cluster.Offered(has, "", "", begun, nil), cobra.ShellCompDirectiveNoFileComp
	}
}

// listed completes the last item of a list with commas, and offers each name once.
func listed(one cobra.CompletionFunc) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		last := strings.LastIndexByte(begun, ',') + 1
		before := begun[:last]
		has, directive := one(c, args, begun[last:])
		has = slices.DeleteFunc(slices.Clone(has), func(name string) bool {
			return slices.Contains(strings.Split(before, ","), name)
		})
		return cluster.Offered(has, before, "", begun, nil), directive
	}
}
