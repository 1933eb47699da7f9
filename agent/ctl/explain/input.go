package explain

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/internal/entry"
	"github.com/istio-pod-network/controller/internal/invalid"
	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
)

// stdin is the name of standard input.
const stdin = "-"

// Input says where pods are read from. All commands about pods in manifests use it.
type Input struct {
	Files    []string // paths of manifests; - for standard input
	Injected bool     // Istio's injection is assumed
	Config   string   // path of the operator's settings; "" for the plugin's defaults
}

// Bind adds the flags to a command.
func (in *Input) Bind(c *cobra.Command) {
	f := c.Flags()
	f.StringArrayVarP(&in.Files, "filename", "f", nil, "`file` with a manifest, - for standard input; can be repeated")
	f.BoolVar(&in.Injected, "injected", false, "with -f: assume that Istio injects its sidecar")
	f.StringVar(&in.Config, "config", "", "`file` with the operator's settings: the plugin's entry, or a network "+
		"configuration list with that entry (default: the settings of the cluster; with -f, the plugin's defaults)")
}

// Offline is why flags about a cluster have no effect with -f.
const Offline = "with -f no cluster is asked"

// CheckBeside returns an error, with an exit status, if files are combined with pods of the cluster or with the agents'
// namespace. "" is no namespace.
func (in Input) CheckBeside(pods []string, agents string) error {
	first := slices.Index(in.Files, stdin)
	switch {
	case len(in.Files) == 0 && len(pods) == 0:
		return outcome.Misusef("there is no pod to look at; valid: names of pods, -f FILE, or -f - for standard input")
	case len(in.Files) > 0 && len(pods) > 0:
		return outcome.Misusef("the pod %q and -f exclude each other", pods[0])
	case in.Injected && len(pods) > 0:
		return outcome.Misusef("--injected is for -f alone: a pod of the cluster is as it is")
	case len(in.Files) > 0 && agents != "":
		return outcome.Misusef("--agents-namespace has no effect: " + Offline)
	case first >= 0 && slices.Contains(in.Files[first+1:], stdin):
		return outcome.Misuse(invalid.Text("--filename", stdin, "standard input can be read only once", "-f - once"))
	}
	return nil
}

// Read explains every pod in the files. Its error has an exit status.
func (in Input) Read(namespace string, from io.Reader) (List, error) {
	if err := in.CheckBeside(nil, ""); err != nil {
		return List{}, err
	}
	list, err := in.explain(cmp.Or(namespace, corev1.NamespaceDefault), from) // -n "" names none
	return list, outcome.Misuse(err)
}

// explain explains every pod in the files.
func (in Input) explain(namespace string, from io.Reader) (list List, err error) {
	list = List{Head: output.HeadOf("ExplanationList"), Operator: theDefaults}
	operator := DefaultOperator()
	settings, err := in.Settings()
	if err != nil {
		return list, err
	}
	if settings.file != "" {
		operator, list.Operator = settings.operator, settings.file
	}
	m := manifest{namespaces: map[string]map[string]string{}}
	for _, file := range in.Files {
		data, err := readManifest(file, from)
		if err != nil {
			return list, err
		}
		if err := m.read(sourceOf(file), data); err != nil {
			return list, err
		}
	}
	if list.NotLookedAt = m.sorted(); len(m.objects) == 0 {
		var sources []string
		for _, file := range in.Files {
			sources = append(sources, sourceOf(file))
		}
		others := ""
		if len(list.NotLookedAt) > 0 {
			others = "; not looked at: " + strings.Join(list.NotLookedAt, ", and ")
		}
		return list, fmt.Errorf("no pod, and nothing that makes pods, is in %s%s", strings.Join(sources, ", "), others)
	}
	for _, object := range m.objects {
		list.Items = append(list.Items, in.explainObject(operator, m, object, namespace))
	}
	return list, nil
}

func (in Input) explainObject(operator Operator, m manifest, object object, namespace string) Explanation {
	named(object.pod, namespace)
	assumed := ""
	if in.Injected {
		assumed = inject(object.pod)
	}
	e := operator.Of(object.pod, m.namespaces[object.pod.Namespace])
	e.Object, e.Source = object.kind, object.source
	if assumed != "" {
		e.Assumed = []string{assumed}
	}
	return e
}

// longest is the largest number of bytes that is read from a file: more than any manifest, and less than the memory. A
// device may have no end.
const longest = 64 << 20

// readFile reads the file of a flag.
func readFile(flag, name string) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, unreadable(flag, name, err)
	}
	defer file.Close()
	return readAll(flag, name, file)
}

// readAll reads everything up to longest. flag and name are for errors.
func readAll(flag, name string, from io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(from, longest+1))
	switch {
	case err != nil:
		return nil, unreadable(flag, name, err)
	case len(data) > longest:
		return nil, invalid.Text(flag, name, "longer than 64 MiB", "a file of up to 64 MiB")
	}
	return data, nil
}

// unreadable returns the error about a file, without the file's name, which is the flag's value.
func unreadable(flag, name string, err error) error {
	if path := new(fs.PathError); errors.As(err, &path) {
		err = path.Err
	}
	return invalid.Text(flag, name, err.Error(), "a file that can be read")
}

// readManifest reads a file, - for standard input.
func readManifest(name string, from io.Reader) ([]byte, error) {
	if name == stdin {
		return readAll("--filename", name, from)
	}
	return readFile("--filename", name)
}

func sourceOf(file string) string {
	if file == stdin {
		return "standard input"
	}
	return file
}

// theDefaults is the source of settings that nothing sets.
const theDefaults = "the plugin's defaults"

// Settings are the operator's settings from a file.
type Settings struct {
	file     string // "" for none
	operator Operator
}

// Settings reads the file, if there is one. It is called before any cluster is asked, because an invalid file is the
// user's mistake. Its error has an exit status.
func (in Input) Settings() (s Settings, err error) {
	if in.Config == "" {
		return s, nil
	}
	s.file = in.Config
	e, err := readEntry(in.Config)
	if err == nil {
		s.operator, err = OperatorOf(e)
	}
	return s, outcome.Misuse(err)
}

// readEntry reads the plugin's entry from a file: alone, or in a network configuration list.
func readEntry(file string) (entry.Entry, error) {
	data, err := readFile("--config", file)
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
