package explain

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/internal/entry"
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
	files    []string
	injected bool
	config   string
	output   string
}

// Command returns the command. name is the program's, namespace that of the usual flag.
func Command(name string, namespace *string, stdin io.Reader, writer output.Writer) *cobra.Command {
	var o options
	c := &cobra.Command{
		Use: "explain -f FILE", Short: "Say whether a pod is redirected, and why",
		Long: long, Example: fmt.Sprintf(example, name), Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return o.run(*namespace, stdin, writer) },
	}
	f := c.Flags()
	f.StringArrayVarP(&o.files, "filename", "f", nil, "`file` with a manifest, - for standard input; may be repeated")
	f.BoolVar(&o.injected, "injected", false, "assume that Istio injects its sidecar")
	f.StringVar(&o.config, "config", "", "`file` with the operator's settings: the plugin's entry, or a network "+
		"configuration list that has it (default: the plugin's defaults)")
	output.Flag(c, &o.output)
	return c
}

func (o options) run(namespace string, stdin io.Reader, w output.Writer) (err error) {
	if w.Format, err = output.ParseFormat(o.output); err != nil {
		return err
	}
	if len(o.files) == 0 {
		return outcome.Misusef("there is nothing to explain; valid: -f FILE, or -f - for standard input")
	}
	list, err := o.explain(namespace, stdin)
	if err != nil {
		return outcome.Misuse(err)
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

// explain explains every pod of the files.
func (o options) explain(namespace string, stdin io.Reader) (list List, err error) {
	list = List{Head: output.HeadOf("ExplanationList"), Operator: "the plugin's defaults"}
	e := entry.Default()
	if o.config != "" {
		list.Operator = o.config
		if e, err = readEntry(o.config); err != nil {
			return list, err
		}
	}
	operator, err := OperatorOf(e)
	if err != nil {
		return list, err
	}
	m := manifest{namespaces: map[string]map[string]string{}}
	for _, file := range o.files {
		data, err := readFile(file, stdin)
		if err != nil {
			return list, err
		}
		if err := m.read(sourceOf(file), data); err != nil {
			return list, err
		}
	}
	if list.NotLookedAt = m.sorted(); len(m.objects) == 0 {
		return list, fmt.Errorf("no pod, and nothing that makes pods, is in %s", sourceOf(o.files[0]))
	}
	for _, object := range m.objects {
		list.Items = append(list.Items, o.explainObject(operator, m, object, namespace))
	}
	return list, nil
}

func (o options) explainObject(operator Operator, m manifest, object object, namespace string) Explanation {
	named(object.pod, namespace)
	assumed := ""
	if o.injected {
		assumed = inject(object.pod)
	}
	e := operator.Of(object.pod, m.namespaces[object.pod.Namespace])
	e.Object, e.Source = object.kind, object.source
	if assumed != "" {
		e.Assumed = []string{assumed}
	}
	return e
}

func readFile(name string, stdin io.Reader) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(stdin)
	}
	return os.ReadFile(name)
}

func sourceOf(file string) string {
	if file == "-" {
		return "standard input"
	}
	return file
}

// readEntry reads the plugin's entry from a file: alone, or in a network configuration list.
func readEntry(file string) (entry.Entry, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return entry.Entry{}, err
	}
	keys, err := entry.Decode(data)
	if err != nil {
		return entry.Entry{}, fmt.Errorf("%s: %w", file, err)
	}
	var plugins []json.RawMessage
	if err := keys.Into("plugins", &plugins, "a list of plugins' configurations"); err != nil {
		return entry.Entry{}, fmt.Errorf("%s: %w", file, err)
	}
	for _, plugin := range plugins {
		if entry.TypeOf(plugin) == entry.Type {
			data = plugin
		}
	}
	e, err := entry.Parse(data)
	if err != nil {
		return e, fmt.Errorf("%s: %w", file, err)
	}
	return e, nil
}
