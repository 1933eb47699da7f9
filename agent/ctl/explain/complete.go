package explain

import (
	"context"
	"strings"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	"github.com/spf13/cobra"
)

// CompletePods completes names of pods: NAME in the namespace of the command line or the kubeconfig's context. If the
// command line has no namespace, it also completes NAMESPACE/ and NAMESPACE/NAME.
func CompletePods(flags cluster.Flags, said *string) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		in, err := namespaceOf(c, flags, *said)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return completed(c, flags, in, !c.Flags().Changed("namespace"), begun, args)
	}
}

// completed returns completions for a pod: in the namespace in, and if others is true, in all.
func completed(
	c *cobra.Command, flags cluster.Flags, in string, others bool, begun string, args []string,
) (names []string, how cobra.ShellCompDirective) {
	prefix := ""
	if namespace, _, has := strings.Cut(begun, "/"); has {
		in, prefix, others = namespace, namespace+"/", false
	}
	how = cobra.ShellCompDirectiveError
	_ = flags.ForShell(c.Context(), func(ctx context.Context, from *cluster.Cluster) error {
		if pods, err := from.PodNames(ctx, in); err == nil {
			names, how = cluster.Offered(pods, prefix, "", begun, args), cobra.ShellCompDirectiveNoFileComp
		}
		if !others {
			return nil
		}
		if namespaces, err := from.NamespaceNames(ctx); err == nil {
			how = cobra.ShellCompDirectiveNoFileComp
			if more := cluster.Offered(namespaces, "", "/", begun, nil); len(more) > 0 {
				names, how = append(names, more...), how|cobra.ShellCompDirectiveNoSpace
			}
		}
		return nil
	})
	return names, how
}
