package chart

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/apiserver"
	"github.com/istio-pod-network/controller/conformance/internal/build"
	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

// patience limits a wait for something that has to happen. No test passes or fails because of its duration.
const patience = 5 * time.Minute

// admin is the path of a kubeconfig with all rights, for the API server of all tests.
var admin string

// run starts the API server before the tests and stops it after them.
type run struct{ m *testing.M }

func (r run) Run() int {
	dir, err := os.MkdirTemp("", "istio-pod-network-chart-")
	var server *apiserver.Server
	if err == nil {
		defer os.RemoveAll(dir)
		server, err = apiserver.Start(isolated.BinDir(), dir, apiserver.WithoutControllers)
	}
	if err == nil {
		defer server.Stop()
		admin = filepath.Join(dir, "kubeconfig")
		err = server.KubeconfigOf(admin, "admin", "system:masters")
	}
	if err == nil {
		err = furnish()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "starting the API server:", err)
		return 1
	}
	return r.m.Run()
}

// furnish creates what the API server needs before it accepts the manifests: their namespace, and the kinds of
// Prometheus, Multus and OpenShift.
func furnish() error {
	for _, step := range []struct {
		stdin string
		args  []string
	}{
		{namespaces, []string{"apply", "-f", "-"}},
		{kindOfPrometheus("PodMonitor") + "---\n" + kindOfPrometheus("PrometheusRule"), []string{"apply", "-f", "-"}},
		{"", []string{"apply", "--server-side", "-f", filepath.Join(build.Root(), "conformance", "openshift")}},
		{"", []string{"wait", "--for=condition=Established", "--timeout=5m", "crd", "--all"}},
	} {
		if _, errs, err := program([]byte(step.stdin), "kubectl", step.args...); err != nil {
			return fmt.Errorf("kubectl %q: %w %s", step.args, err, errs)
		}
	}
	return nil
}

// namespaces is the namespace of the chart's objects.
const namespaces = "apiVersion: v1\nkind: Namespace\nmetadata: {name: " + system + "}\n"

// kindOfPrometheus returns a minimal definition of a kind of the Prometheus operator.
func kindOfPrometheus(kind string) string {
	plural := strings.ToLower(kind) + "s"
	return `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: ` + plural + `.monitoring.coreos.com}
spec:
  group: monitoring.coreos.com
  names: {kind: ` + kind + `, plural: ` + plural + `}
  scope: Namespaced
  versions:
  - {name: v1, served: true, storage: true,
     schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
`
}

func TestMain(m *testing.M) { os.Exit(isolated.Main(run{m}, prepare)) }

func prepare(bin string) error {
	programs := append([]string{"kubectl", "kube-controller-manager"}, apiserver.Programs...)
	if err := build.Link(bin, programs...); err != nil {
		return err
	}
	if err := build.Helm(bin); err != nil {
		return err
	}
	if err := build.IstioCharts(bin); err != nil {
		return err
	}
	return build.Product(bin, "./plugin/istio-pod-network", "./agent/istio-pod-network-agent")
}

const (
	name   = "istio-pod-network-controller"
	system = name // the namespace in the commands of README.md
)

func dir() string { return filepath.Join(build.Root(), "chart", name) }

// version returns the chart's version, which is also the tag of its images.
func version() string {
	text, err := os.ReadFile(filepath.Join(dir(), "Chart.yaml"))
	if err != nil {
		panic(err)
	}
	for line := range strings.Lines(string(text)) {
		if v, is := strings.CutPrefix(line, "appVersion: "); is {
			return strings.Trim(strings.TrimSpace(v), `"`)
		}
	}
	panic("Chart.yaml has no appVersion")
}

// program runs a program that may use the API server with all rights.
func program(stdin []byte, name string, args ...string) (stdout, stderr string, err error) {
	cmd := exec.Command(filepath.Join(isolated.BinDir(), name), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+admin)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// both runs a test with each Helm.
func both(t *testing.T, test func(t *testing.T, helm string)) {
	t.Helper()
	for _, helm := range []string{"helm3", "helm4"} {
		t.Run(helm, func(t *testing.T) { test(t, helm) })
	}
}

// template returns the output of `helm template` with the usual namespace.
func template(t testing.TB, helm string, values ...string) string {
	t.Helper()
	out, errs, err := program(nil, helm, append([]string{"template", "-n", system, dir()}, set(values)...)...)
	if err != nil {
		t.Fatalf("%s template %q: %v %s", helm, values, err, errs)
	}
	return out
}

func set(values []string) (flags []string) {
	for _, v := range values {
		flags = append(flags, "--set="+v)
	}
	return flags
}

// objects parses manifests.
func objects(t testing.TB, manifests string) (all []unstructured.Unstructured) {
	t.Helper()
	for _, document := range strings.Split("\n"+manifests, "\n---\n") {
		var o unstructured.Unstructured
		if err := yaml.Unmarshal([]byte(document), &o.Object); err != nil {
			t.Fatalf("%v in\n%s", err, document)
		}
		if len(o.Object) > 0 {
			all = append(all, o)
		}
	}
	return all
}

// find reads the object of a kind and name into a variable, and reports whether it exists.
func find(t testing.TB, manifests, kind, name string, into any) bool {
	t.Helper()
	for _, o := range objects(t, manifests) {
		if o.GetKind() == kind && o.GetName() == name {
			if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(o.Object, into, true); err != nil {
				t.Fatalf("%s %s: %v", kind, name, err)
			}
			return true
		}
	}
	return false
}

// taken fails the test unless the API server accepts all manifests (server-side dry run).
func taken(t testing.TB, manifests string) {
	t.Helper()
	_, errs, err := program([]byte(manifests), "kubectl", "apply", "--server-side", "--dry-run=server",
		"--validate=strict", "-f", "-")
	if err != nil {
		t.Errorf("the API server refuses: %v %s", err, errs)
	}
}

// apply creates objects.
func apply(t testing.TB, manifests string) {
	t.Helper()
	if out, errs, err := program([]byte(manifests), "kubectl", "apply", "-f", "-"); err != nil {
		t.Fatalf("%v %s %s", err, out, errs)
	}
}

// applied creates the rendered objects until the end of the test. The namespace is created first and stays, because no
// controller here finishes its deletion. The test may delete objects itself.
func applied(t testing.TB, manifests string) {
	t.Helper()
	apply(t, manifests)
	if strings.Contains(manifests, "\nkind: Namespace\n") {
		_, manifests, _ = strings.Cut(manifests, "\n---\n")
	}
	t.Cleanup(func() {
		out, errs, err := program([]byte(manifests), "kubectl", "delete", "--ignore-not-found", "--wait=false", "-f", "-")
		if err != nil {
			t.Errorf("%v %s %s", err, out, errs)
		}
	})
}
