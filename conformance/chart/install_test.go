package chart

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/isolated"
)

// `helm template` renders the namespace, but no hooks and tests. `helm install` does the opposite. Values change both.
func TestWhoRenders(t *testing.T) {
	both(t, func(t *testing.T, helm string) {
		dryRun := func(values ...string) string {
			out, errs, err := program(nil, helm,
				append([]string{"install", name, dir(), "-n", "mesh-" + helm, "--create-namespace", "--dry-run=server"},
					set(values)...)...)
			if err != nil {
				t.Fatalf("%v %s", err, errs)
			}
			return out
		}
		for _, c := range []struct {
			what             string
			manifests        string
			namespace, hooks bool
		}{
			{"a client-side render", template(t, helm), true, false},
			{"an installation", dryRun(), false, true},
			{"an installation that is to bring the namespace", dryRun("namespace.create=true"), true, true},
			{"an installation without hooks", dryRun("hooks=false"), false, false},
			{"a client-side render without the namespace", template(t, helm, "namespace.create=false"), false, false},
			{"a client-side render with hooks", template(t, helm, "hooks=true"), true, true},
		} {
			pod := strings.Contains(c.manifests, "pod-security.kubernetes.io/enforce: privileged")
			if hooks := strings.Contains(c.manifests, "helm.sh/hook: pre-delete") &&
				strings.Contains(c.manifests, "helm.sh/hook: test"); hooks != c.hooks || pod != c.namespace {
				t.Errorf("%s: namespace %v, hooks %v", c.what, pod, hooks)
			}
		}
	})
}

// A namespace that exists in every cluster keeps its labels.
func TestNamespaceOfEveryCluster(t *testing.T) {
	both(t, func(t *testing.T, helm string) {
		for _, args := range [][]string{nil, {"-n", "kube-system"}, {"-n", system, "--set=Namespace=default"}} {
			out, errs, err := program(nil, helm, append([]string{"template", dir()}, args...)...)
			if err != nil || strings.Contains(out, "kind: Namespace\n") {
				t.Errorf("%q: %v %s", args, err, errs)
			}
		}
	})
}

// The notes after an installation name the values without effect, and no others.
func TestNotes(t *testing.T) {
	ignored := map[string]string{"containerRuntime": "=crio", "crioSocket": "=/run/x.sock", "runcRoot": "=/run/runc",
		"image.runAsUser": "=0", "ingress": ".enabled=true"}
	both(t, func(t *testing.T, helm string) {
		notes := func(values ...string) string {
			out, errs, err := program(nil, helm, append([]string{"install", name, dir(), "-n", "mesh", "--dry-run=server"},
				set(values)...)...)
			if err != nil {
				t.Fatalf("%v %s", err, errs)
			}
			_, text, _ := strings.Cut(out, "\nNOTES:\n")
			return text
		}
		for what, words := range map[string][]string{
			notes(): {"/opt/cni/bin", "/etc/cni/net.d", "(Kubernetes)", "istio-pod-network-plugin:" + version(),
				"helm test " + name + " -n mesh", "--timeout 720s"},
			notes("kubernetesDistribution=openshift", "image.registry=r.example.com"): {"/etc/cni/multus/net.d", "(OpenShift)",
				"r.example.com/istio-pod-network-plugin", "the network default/istio-cni in",
				"names it with pilot.cni.provider=multus"},
			notes("kubernetesDistribution=openshift", "openshift.networkName=mesh"): {"the network default/mesh in",
				"does not name it"},
			notes("cni.mode=aux", "Namespace=other"): {"vendor-cni-chain", "-n other rollout", "-n mesh"},
			notes("uninstall=true"):                  {"take the plugin out"},
		} {
			for _, word := range words {
				if !strings.Contains(what, word) {
					t.Errorf("no %q in\n%s", word, what)
				}
			}
			if strings.Contains(what, "no effect") {
				t.Errorf("nothing was set that is ignored:\n%s", what)
			}
		}
		pasted := 0
		for line := range strings.Lines(notes()) {
			if command := strings.TrimSpace(line); strings.HasPrefix(command, "kubectl get ") {
				paste(t, command)
				pasted++
			}
		}
		if pasted == 0 {
			t.Error("no command to see marks with")
		}
		for value, set := range ignored {
			if text := notes(value + set); strings.Count(text, "no effect") != 1 ||
				!strings.Contains(text, "NOTE: "+value+" has no effect any more") {
				t.Errorf("%s: %s", value, text)
			}
		}
		for _, set := range [][]string{{"openshift.networkName=mesh"}, {"openshift.networkNamespace=mesh"},
			{"cni.auxDir=/var/run/mesh"}, {"openshift.networkName=mesh", "cni.mode=aux"}} {
			value, _, _ := strings.Cut(set[0], "=")
			if text := notes(set...); strings.Count(text, "NOTE: "+value+" has no effect where") != 1 {
				t.Errorf("%s: %s", set, text)
			}
			if text := notes("kubernetesDistribution=OpenShift", set[0]); strings.Contains(text, "no effect") {
				t.Errorf("%s: %s", set[0], text)
			}
		}
	})
}

// paste runs a line in a shell.
func paste(t testing.TB, line string) {
	t.Helper()
	cmd := exec.Command("sh", "-c", line)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+admin, "PATH="+isolated.BinDir()+":"+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v %s", line, err, out)
	}
}

// The command of the article of 2018 works in a cluster without the namespace.
func TestArticle(t *testing.T) {
	for _, distribution := range []string{"Kubernetes", "OpenShift"} {
		both(t, func(t *testing.T, helm string) {
			vanish(t, system)
			manifests, errs, err := program(nil, helm, "template", "-n", system, "--set", "kubernetesDistribution="+distribution,
				dir())
			if err != nil {
				t.Fatal(errs)
			}
			applied(t, manifests)
		})
	}
}

// vanish deletes a namespace if it exists, as a cluster with its controllers would.
func vanish(t testing.TB, namespace string) {
	t.Helper()
	if _, _, err := program(nil, "kubectl", "get", "namespace", namespace); err != nil {
		return
	}
	finalized := `{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "` + namespace +
		`"}, "spec": {"finalizers": []}}`
	for _, args := range [][]string{
		{"delete", "namespace", namespace, "--wait=false"},
		{"replace", "--raw", "/api/v1/namespaces/" + namespace + "/finalize", "-f", "-"},
	} {
		if out, errs, err := program([]byte(finalized), "kubectl", args...); err != nil {
			t.Fatalf("%q: %v %s %s", args, err, out, errs)
		}
	}
	if _, _, err := program(nil, "kubectl", "get", "namespace", namespace); err == nil {
		t.Fatalf("the namespace %s is still there", namespace)
	}
}

// A cluster has one installation, whatever the release's name. Only a label has that name.
func TestReleaseName(t *testing.T) {
	render := func(release string) string {
		out, errs, err := program(nil, "helm4", "template", release, dir(), "-n", system, "--set=hooks=true")
		if err != nil {
			t.Fatal(errs)
		}
		const instance = "app.kubernetes.io/instance: "
		if !strings.Contains(out, instance+release+"\n") {
			t.Errorf("no object says that it is of %s", release)
		}
		return strings.ReplaceAll(out, instance+release+"\n", "")
	}
	if a, b := render("one"), render("another"); a != b {
		t.Errorf("the release's name matters:\n%s\n%s", a, b)
	}
}
