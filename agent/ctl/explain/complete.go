package explain

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	"github.com/spf13/cobra"
)

// completeWithin bounds how long a shell waits for names.
const completeWithin = 3 * time.Second

// CompletePods offers a shell the names of the cluster's pods: NAME of the namespace that the command line or the
// kubeconfig's context says, NAMESPACE/ where the command line says none, and NAMESPACE/NAME behind that.
func CompletePods(flags cluster.Flags, said *string) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		in, err := namespaceOf(c, flags, *said)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return completed(c, flags, in, !c.Flags().Changed("namespace"), begun, args)
	}
}

// completed is what a shell is offered for a pod: of the namespace in, and if others, of any.
func completed(
	c *cobra.Command, flags cluster.Flags, in string, others bool, begun string, args []string,
) (names []string, how cobra.ShellCompDirective) {
	from, err := flags.Connect()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	ctx, cancel := context.WithTimeout(c.Context(), completeWithin)
	defer cancel()
	prefix := ""
	if namespace, _, has := strings.Cut(begun, "/"); has {
		in, prefix, others = namespace, namespace+"/", false
	}
	how = cobra.ShellCompDirectiveError
	if pods, err := from.PodNames(ctx, in); err == nil {
		names, how = offered(pods, prefix, "", begun, args), cobra.ShellCompDirectiveNoFileComp
	}
	if !others {
		return names, how
	}
	if namespaces, err := from.NamespaceNames(ctx); err == nil {
		how = cobra.ShellCompDirectiveNoFileComp
		if more := offered(namespaces, "", "/", begun, nil); len(more) > 0 {
			names, how = append(names, more...), how|cobra.ShellCompDirectiveNoSpace
		}
	}
	return names, how
}

// offered are the names, between a prefix and a suffix, that go on as the user has begun, without those that are there.
func offered(names []string, prefix, suffix, begun string, args []string) (all []string) {
	for _, name := range names {
		if name = prefix + name + suffix; strings.HasPrefix(name, begun) && !slices.Contains(args, name) {
			all = append(all, name)
		}
	}
	return all
}
