package explain

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/internal/golden"
	"github.com/istio-pod-network/controller/internal/invalid"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"github.com/spf13/pflag"
)

// explained runs the command, and returns its output and exit status.
func explained(t *testing.T, stdin string, args ...string) (string, int, error) {
	t.Helper()
	var out bytes.Buffer
	namespace := "default"
	reach := cluster.NewFlags(pflag.NewFlagSet("", pflag.ContinueOnError))
	c := Command("ctl", &namespace, reach, strings.NewReader(stdin), output.Writer{Out: &out})
	c.SetArgs(append([]string{}, args...)) // cobra would use the process's arguments instead of nil
	c.SilenceErrors, c.SilenceUsage = true, true
	err := c.Execute()
	return out.String(), outcome.StatusOf(err), err
}

func TestGolden(t *testing.T) {
	for name, test := range map[string]struct {
		args   []string
		status int
	}{
		"kinds.txt":              {[]string{"-f", "testdata/kinds.yaml"}, outcome.NotWell},
		"kinds-injected.txt":     {[]string{"-f", "testdata/kinds.yaml", "--injected"}, outcome.NotWell},
		"own-proxy-injected.txt": {[]string{"-f", "testdata/own-proxy.yaml", "--injected"}, outcome.Well},
		"kinds-annotated.txt": {[]string{"-f", "testdata/kinds.yaml", "--config", "testdata/network.conflist"},
			outcome.NotWell},
		"injected.txt":         {[]string{"-f", "testdata/injected.yaml"}, outcome.Well},
		"injected-picture.txt": {[]string{"-f", "testdata/injected.yaml", "--picture"}, outcome.Well},
		"injected.svg":         {[]string{"-f", "testdata/injected.yaml", "--picture=svg"}, outcome.Well},
		"kinds-picture.txt":    {[]string{"-f", "testdata/kinds.yaml", "--picture"}, outcome.NotWell},
		"injected-wide.txt":    {[]string{"-f", "testdata/injected.yaml", "-o", "wide"}, outcome.Well},
		"injected.json":        {[]string{"-f", "testdata/injected.yaml", "-o", "json"}, outcome.Well},
		"injected-output.yaml": {[]string{"-f", "testdata/injected.yaml", "-o", "yaml"}, outcome.Well},
	} {
		t.Run(name, func(t *testing.T) {
			got, status, err := explained(t, "", test.args...)
			if status != test.status {
				t.Errorf("status %d: %v", status, err)
			}
			golden.Compare(t, filepath.Join("testdata", name), got)
			if strings.HasSuffix(name, ".txt") {
				golden.Fits(t, name, got, output.Width)
			}
		})
	}
}

// Standard input is read like a file.
func TestStandardInput(t *testing.T) {
	manifest, err := os.ReadFile("testdata/injected.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got, status, err := explained(t, string(manifest), "-f", "-", "-o", "json")
	want, _, _ := explained(t, "", "-f", "testdata/injected.yaml", "-o", "json")
	if want = strings.ReplaceAll(want, "testdata/injected.yaml", "standard input"); status != 0 || got != want {
		t.Errorf("%d, %v: %s", status, err, got)
	}
}

// An empty namespace, for example from an unset variable of a script, counts as none.
func TestNoNamespace(t *testing.T) {
	list, err := (Input{Files: []string{"testdata/kinds.yaml"}}).Read("", strings.NewReader(""))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list.Items {
		if e.Namespace == "" || e.Reason == "not-kubernetes" {
			t.Errorf("%+v", e)
		}
	}
}

// An error about input names its file and document, and is misuse.
func TestUnusable(t *testing.T) {
	for manifest, want := range map[string]string{
		"":                              "no pod, and nothing that makes pods, is in standard input",
		"kind: Service\napiVersion: v1": "no pod, and nothing that makes pods",
		"kind: Service\napiVersion: v1\n---\n{a: [": "standard input: document 2 is neither YAML nor JSON",
		"kind: Pod\napiVersion: v1\nspec: 5":        "standard input: document 1: ",
		"{apiVersion: v1, kind: Pod, metadata: {}, spec: {containers: [{name: app}]}}": "" +
			`document 1: metadata.name of Pod: invalid value "": it has no name; valid: a name, or metadata.generateName`,
		"{apiVersion: v1, kind: Pod, metadata: {name: cart}}": "" +
			"spec.containers of Pod cart: invalid value []: it has no container; valid: a list",
		"{apiVersion: v1, kind: Pod, metadata: {name: cart}, spec: {contaners: []}}": `unknown field "spec.contaners"`,
		"{apiVersion: apps/v1, kind: Deployment, metadata: {name: cart}}": "" +
			"spec.template of Deployment cart: invalid value {}: it has no pod; valid: a template with spec.containers",
		"{apiVersion: v1, kind: ReplicationController, metadata: {name: cart}}": "" +
			"spec.template of ReplicationController cart",
		"{apiVersion: batch/v1, kind: CronJob, metadata: {name: a}, spec: {jobTemplate: {spec: {template: {spec: " +
			"{hostNetwork: true}}}}}}": "spec.jobTemplate.spec.template.spec.containers of CronJob a: invalid value []",
		"{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: My_Shop}, spec: {containers: [{name: app}]}}": "" +
			`metadata.namespace of Pod a: invalid value "My_Shop": no name of a namespace; valid: 1 to 63 characters`,
		`{apiVersion: v1, kind: Pod, metadata: {name: "a\e[31m"}, spec: {containers: [{name: app}]}}`: "" +
			`metadata.name of Pod: invalid value "a\x1b[31m": no name of an object; valid: 1 to 253 characters`,
		"{apiVersion: v1, kind: Pod, metadata: {generateName: cart_}, spec: {containers: [{name: app}]}}": "" +
			`metadata.generateName of Pod: invalid value "cart_": no name of an object`,
		"{apiVersion: v1, kind: Namespace, metadata: {name: a.b}}":        `metadata.name of Namespace: invalid value "a.b"`,
		"{apiVersion: v1, kind: PodList, items: [{metadata: {name: a}}]}": "items[0]: spec.containers of Pod a",
		"metadata: {name: a}\nkind: Pod\nmetadata: {name: b}": "" +
			`document 1 has a key twice: line 3: key "metadata" already set in map; valid: each key once`,
		"a: &a {name: x}\nkind: Pod\nmetadata: {<<: *a, name: b, name: c}": `line 3: key "name" already set in map`,
		"just: this": "standard input: document 1: ",
		"{apiVersion: batch/v1, kind: Job, metadata: {name: a}, spec: {template: {spec: {containers: [{name: app, " +
			"ports: [{containerPort: 70000}]}]}}}}": "spec.template.spec.containers[0].ports[0].containerPort of Job a",
		"{apiVersion: extensions/v1beta1, kind: Deployment, metadata: {name: a}}": "" +
			"no pod, and nothing that makes pods, is in standard input; not looked at: Deployment a of extensions/v1beta1 in " +
			"standard input, whose API version is not known here; valid: apps/v1",
		"{apiVersion: example.com/v1, kind: Job, metadata: {name: a}}\n---\n{apiVersion: v2, kind: Pod}": "" +
			"not looked at: Job of example.com/v1 in standard input, which is not known here, and Pod of v2 in standard " +
			"input, whose API version is not known here; valid: v1",
		"apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: Pod, spec: 5}]": "document 1: items[0]: ",
	} {
		if out, status, err := explained(t, manifest, "-f", "-"); status != outcome.Misused || out != "" ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%q: %d, %v, %q", manifest, status, err, out)
		}
	}
	entry := filepath.Join(t.TempDir(), "entry")
	if err := os.WriteFile(entry, []byte(`{"type": "istio-pod-network", "selection": "all"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	const pod = "testdata/injected.yaml"
	for want, args := range map[string][]string{
		"there is no pod to look at": nil,
		`--filename: invalid value "testdata/absent": no such file or directory; valid: a file that can`: {
			"-f", "testdata/absent"},
		`--filename: invalid value "testdata": is a directory; valid: a file`: {"-f", "testdata"},
		`invalid value "all"`:                                   {"-f", pod, "--config", entry},
		"it must be a JSON object of type":                      {"-f", pod, "--config", "testdata/injected.json"},
		"not a JSON object":                                     {"-f", pod, "--config", pod},
		"valid: table, wide, json, yaml":                        {"-f", pod, "-o", "xml"},
		"valid: --picture=svg, or ":                             {"--picture", "svg", "-f", pod},
		"valid: --picture=text, or ":                            {"cart-0", "--picture", "text"},
		`--picture: invalid value "svg"`:                        {"cart-0", "--picture", "svg"},
		"unknown flag: --filenames":                             {"--filenames", pod},
		`the pod "cart-0" and -f exclude`:                       {"cart-0", "-f", pod},
		"--injected is for -f alone":                            {"cart-0", "--injected"},
		`--config: invalid value "testdata/none": no such file`: {"-f", pod, "--config", "testdata/none"},
		"unknown shorthand flag: 'z' in -zf":                    {"-zf"},
	} {
		if out, status, err := explained(t, "", args...); status != outcome.Misused || out != "" ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%q: %d, %v, %q", args, status, err, out)
		}
	}
}

// endless is a device without an end.
type endless struct{ read int }

func (e *endless) Read(into []byte) (int, error) {
	if e.read += len(into); e.read > 2*longest {
		return 0, errors.New("it goes on without an end")
	}
	return len(into), nil
}

// A file without an end is an error, before memory is full.
func TestEndless(t *testing.T) {
	if _, err := readManifest("-", &endless{}); !invalid.Is(err) ||
		!strings.Contains(err.Error(), `--filename: invalid value "-": longer than 64 MiB`) {
		t.Errorf("%v", err)
	}
}

// A misspelt field is reported: without it the answer would be about another pod than the intended one.
func TestUnknownFields(t *testing.T) {
	const pod = "{apiVersion: v1, kind: Pod, metadata: {name: cart}, spec: {containers: [{name: app}], restart: no}}"
	const job = "{apiVersion: batch/v1, kind: Job, metadata: {name: once, annotation: {}}, " +
		"spec: {template: {spec: {containers: [{name: app}]}}}}"
	for manifest, want := range map[string]string{
		pod: `Not looked at: unknown field "spec.restart" of Pod cart in standard input.`,
		"{apiVersion: v1, kind: List, items: [" + job + ", " + pod + "]}": "" +
			"Not looked at: unknown field \"metadata.annotation\" of Job once in standard input.\n" +
			`Not looked at: unknown field "spec.restart" of Pod cart in standard input.`,
		"{apiVersion: v1, kind: PodList, items: [" + pod + "]}": "" +
			`Not looked at: unknown field "items[0].spec.restart" of PodList in standard input.`,
		pod + "\n---\n{apiVersion: v1, kind: Service, spec: {prts: []}}": "" +
			`Not looked at: unknown field "spec.restart" of Pod cart in standard input.`,
	} {
		out, status, err := explained(t, manifest, "-f", "-")
		_, notes, _ := strings.Cut(out, "Operator's settings: the plugin's defaults.\n")
		if strings.TrimSuffix(notes, "\n") != want || status != outcome.Well {
			t.Errorf("%s: %d, %v: %s", manifest, status, err, out)
		}
	}
	if out, _, err := explained(t, "", "-f", "testdata/injected.yaml"); err != nil || strings.Contains(out, "unknown") {
		t.Errorf("%v: %s", err, out)
	}
}

// Everything that the plugin can decide has words here, and nothing else has.
func TestEveryReasonHasWords(t *testing.T) {
	// The pod's object has the answers. The last two are known on the node alone.
	unasked := []redirect.Reason{redirect.ReasonInjected, redirect.ReasonOptedIn, redirect.ReasonIncomplete,
		redirect.ReasonForeignRules, redirect.ReasonAgentAway}
	for _, reason := range redirect.Reasons {
		if meanings[reason].is == "" {
			t.Errorf("%s has no meaning", reason)
		}
		if _, put := asks[reason]; put == slices.Contains(unasked, reason) {
			t.Errorf("%s is asked: %t", reason, put)
		}
	}
	if len(meanings) != len(redirect.Reasons)+1 || len(asks) != len(redirect.Reasons)-len(unasked) {
		t.Errorf("%d meanings, %d questions, %d reasons", len(meanings), len(asks), len(redirect.Reasons))
	}
	for reason, m := range meanings {
		if strings.Contains(m.next, "docs/") {
			continue
		}
		if m.next != "" && !strings.HasPrefix(m.next, "To have") && !strings.HasPrefix(m.next, "See") &&
			!strings.HasPrefix(m.next, "Look") {
			t.Errorf("%s: the next step is %q", reason, m.next)
		}
	}
}
