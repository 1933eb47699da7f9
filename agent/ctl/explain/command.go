package explain

import (
	"fmt"
	"io"

	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/spf13/cobra"
)

const long = `Says whether the plugin redirects a pod's traffic through its sidecar, and why: the questions that
the decision asks, in their order, with the answer of each and where it was found, and the settings
that apply to the pod.

It is the plugin's own decision, made from a manifest by the same code. It needs no cluster and no
rights. Of a Deployment, StatefulSet, DaemonSet, ReplicaSet, Job or CronJob it explains the pods
that it makes; the annotations of a Namespace in the same files count for its pods. The plugin sees
a pod after admission: where Istio's injector adds the sidecar in the cluster, --injected assumes
what it would add. What other programs have written into a pod's network (foreign-rules) is seen on
the node alone.

Exit status: 0 if each pod can start, 1 if one is refused or its init wait would fail, 2 if a file
cannot be read.`

const example = `  # Why is this Deployment's pod not redirected?
  %[1]s explain -f deployment.yaml

  # As the cluster will see it, with Istio's sidecar and the operator's settings
  %[1]s explain -f deployment.yaml --injected --config network.json

  # In CI: fail if a pod of the chart would be refused
  helm template shop ./chart | %[1]s explain -f - --injected -n shop -o json`

// options are a command line's.
type options struct {
	Input
	output string
}

// Command returns the command. name is the program's, namespace that of the usual flag.
func Command(name string, namespace *string, stdin io.Reader, writer output.Writer) *cobra.Command {
	var o options
	c := &cobra.Command{
		Use: "explain -f FILE", Short: "Say whether a pod is redirected, and why",
		Long: long, Example: fmt.Sprintf(example, name), Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return o.run(*namespace, stdin, writer) },
	}
	o.Bind(c)
	output.Flag(c, &o.output)
	return c
}

func (o options) run(namespace string, stdin io.Reader, w output.Writer) (err error) {
	if w.Format, err = output.ParseFormat(o.output); err != nil {
		return err
	}
	list, err := o.Read(namespace, stdin)
	if err != nil {
		return err
	}
	if err := w.Object(list, list.write); err != nil {
		return outcome.Unasked(err)
	}
	for _, e := range list.Items {
		if !e.Well() {
			return outcome.ErrNotWell
		}
	}
	return nil
}
