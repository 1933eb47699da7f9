package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/build"
	"github.com/istio-pod-network/controller/conformance/internal/cluster"
	"github.com/istio-pod-network/controller/plugin/record"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// network is what Istio's injector adds to the annotation networks with pilot.cni.provider=multus.
const (
	network  = "default/istio-cni"
	networks = "k8s.v1.cni.cncf.io/networks"
)

// TestOpenShift runs the scenarios of an OpenShift node one after the other, on one node per kind of Multus. Most do
// not depend on the kind, and run only with the thick Multus of OpenShift since 4.14.
func TestOpenShift(t *testing.T) {
	type scenario struct {
		name string
		run  func(*rig)
	}
	each := []scenario{{"nad", openShiftNAD}, {"uninstall", openShiftUninstall}}
	once := []scenario{
		{"missing", openShiftMissing}, {"multus-away", openShiftMultusAway}, {"aux", openShiftAux},
		{"aux-fail-open", openShiftAuxFailOpen},
		{"mode-changed", openShiftModeChanged}, {"istio", openShiftIstio}, {"mesh", openShiftMesh},
		{"newcomer", openShiftNewcomer},
	}
	for kind, these := range map[string][]scenario{"thin": each, "thick": slices.Concat(once, each)} {
		t.Run(kind, func(t *testing.T) {
			node := openShift(t, kind == "thick")
			for _, s := range these {
				t.Run(s.name, func(t *testing.T) {
					r := newRig(t)
					r.node = node
					s.run(r)
				})
			}
		})
	}
}

// openShift adds a node like OpenShift's, with Multus in front of the primary CNI. The chart's agents run only there
// until the end of the test.
func openShift(t *testing.T, thick bool) *cluster.Node {
	t.Helper()
	r := newRig(t)
	r.uninstalled()
	for _, crd := range []string{"networkattachmentdefinitions", "securitycontextconstraints"} {
		file := filepath.Join(build.Root(), "conformance", "openshift", crd+".yaml")
		r.Cleanup(func() { r.output(kubectl("delete", "--ignore-not-found", "-f", file)) })
		r.output(kubectl("apply", "--server-side", "-f", file))
		r.output(kubectl("wait", "--for=condition=Established", waits(), "-f", file))
	}
	n, err := nodes.Add(cluster.OpenShift)
	r.Cleanup(func() { must(r, nodes.Remove(n)) })
	must(r, err)
	must(r, importImages(n))
	if thick {
		must(r, n.ThickMultus())
	}
	must(r, remember(n))
	r.Cleanup(func() { agentNodes = nil })
	r.Cleanup(r.uninstalled)
	agentNodes = []*cluster.Node{n}
	return n
}

func (r *rig) installedOnOpenShift(values ...string) {
	r.Helper()
	r.installed(append([]string{"kubernetesDistribution=OpenShift", `nodeSelector.kubernetes\.io/hostname=` + r.node.Name},
		values...)...)
}

// attached returns a mesh pod with a list of Multus networks.
func (r *rig) attached(name, names string) *corev1.Pod {
	pod := r.meshPod(name)
	pod.Annotations[networks] = names
	return pod
}

// openShiftNAD tests mode nad. Multus calls the plugin for pods that name its network, with any interface name and
// without a previous result. The whole pod is redirected once, and the files of other projects do not change.
func openShiftNAD(r *rig) {
	r.installedOnOpenShift()
	owned := []string{cluster.OVNFile, cluster.OpenShiftConfDir + "/00-multus.conf"}
	before := r.contents(owned)
	r.seen(r.appPod("plain"))
	r.output(kubectlIn(r.namespace, "apply", "-f", r.file("data.yaml", dataNetwork)))
	for name, names := range map[string]string{
		"alone": network, "with-another": "data," + network, "twice": network + "," + network,
		"as-json": `[{"name": "data", "interface": "data0"}, {"name": "istio-cni", "namespace": "default", "interface": ` +
			`"mesh0"}]`,
	} {
		r.create(r.attached(name, names))
		r.throughSidecar(name)
		r.marked(name)
		pod := r.pod(name)
		r.answersFrom("sidecar-inbound", pod, 8080)
		status := pod.Annotations["k8s.v1.cni.cncf.io/network-status"]
		if strings.Contains(names, "data") && !strings.Contains(status, "/data") {
			r.Errorf("%s has not got its own network: %v", name, pod.Annotations)
		}
		if tables := strings.Count(r.ruleset(name), "table ip istio-pod-network"); tables != 1 {
			r.Errorf("%d tables of ours in %s", tables, name)
		}
	}
	if rules := r.ruleset("plain"); rules != "" {
		r.Errorf("rules in a pod outside the mesh:\n%s", rules)
	}
	if after := r.contents(owned); !slices.Equal(before, after) {
		r.Errorf("files of others were changed:\n%s\n%s", before, after)
	}
	r.clear(r.namespace)
	r.eventually("no record is left", func() bool { return len(r.records()) == 0 })
}

// dataNetwork is a network of a user.
const dataNetwork = `apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: data}
spec:
  config: '{"cniVersion": "0.3.1", "name": "data", "type": "bridge", "bridge": "data0",
    "ipam": {"type": "host-local", "subnet": "10.250.0.0/24"}}'
`

// meshNetwork is our network, as an operator would write it.
const meshNetwork = `apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: istio-cni, namespace: default}
spec:
  config: '{"cniVersion": "0.3.1", "name": "istio-pod-network", "type": "istio-pod-network"}'
`

// kubectlIn returns a command that runs kubectl with all rights in a namespace.
func kubectlIn(namespace string, args ...string) *exec.Cmd {
	return kubectl(append(args, "--namespace="+namespace)...)
}

// file writes a temporary file, and returns its path.
func (r *rig) file(name, contents string) string {
	r.Helper()
	path := filepath.Join(r.TempDir(), name)
	must(r, os.WriteFile(path, []byte(contents), 0o600))
	return path
}

// contents returns the contents of files on the rig's node.
func (r *rig) contents(paths []string) []string {
	r.Helper()
	var all []string
	for _, path := range paths {
		data, err := os.ReadFile(r.node.Path(path))
		must(r, err)
		all = append(all, string(data))
	}
	return all
}

// records returns the records of the rig's namespace on its node.
func (r *rig) records() []record.Record {
	all, _ := record.Store{Dir: r.node.Path(stateDir)}.List()
	return slices.DeleteFunc(all, func(rec record.Record) bool { return rec.Namespace != r.namespace })
}

// openShiftMissing removes what a network of Multus needs. Pods that name it do not start until it is back. A mesh pod
// that does not name it is reported and repaired.
func openShiftMissing(r *rig) {
	r.installedOnOpenShift()
	r.seen(r.appPod("plain"))
	definition := r.output(kubectl("get", "net-attach-def", "istio-cni", "--namespace=default", "-o", "yaml"))
	r.output(kubectl("delete", "net-attach-def", "istio-cni", "--namespace=default"))
	r.create(r.attached("without-definition", network))
	r.eventually("Multus says what is missing", func() bool {
		return strings.Contains(events(r.namespace), "without-definition FailedCreatePodSandBox") &&
			strings.Contains(events(r.namespace), "istio-cni")
	})
	r.stillWaits("without-definition")
	cmd := kubectl("create", "-f", "-")
	cmd.Stdin = strings.NewReader(withoutServerFields(definition))
	r.output(cmd)
	r.throughSidecar("without-definition")

	must(r, os.Remove(r.node.Path(cluster.OpenShiftBinDir+"/istio-pod-network"))) // the agent installs it again
	r.create(r.attached("without-plugin", network))
	r.throughSidecar("without-plugin")

	r.create(r.meshPod("without-name"))
	r.throughSidecar("without-name")
	r.marked("without-name")
	r.eventually("an Event says that the plugin was not run",
		func() bool { return strings.Contains(events(r.namespace), "without-name MeshBypassed") })
}

// withoutServerFields removes the fields that the API server sets from a manifest, so that it can be created again.
func withoutServerFields(manifest string) string {
	var kept strings.Builder
	for line := range strings.Lines(manifest) {
		if key, _, _ := strings.Cut(strings.TrimSpace(line), ":"); !slices.Contains([]string{"creationTimestamp",
			"generation", "resourceVersion", "uid"}, key) {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

// openShiftMultusAway kills Multus, and rewrites and removes the primary's file. Existing pods keep working, and new
// ones start as soon as Multus can add them.
func openShiftMultusAway(r *rig) {
	r.installedOnOpenShift()
	r.seen(r.appPod("plain"))
	r.create(r.attached("stays", network))
	r.throughSidecar("stays")
	for i, trouble := range []func(){
		func() { must(r, r.node.Kill("multus-daemon")) },
		func() { must(r, replace(r.node.Path(cluster.OVNFile), r.node.OVN())) },
		func() {
			must(r, os.Remove(r.node.Path(cluster.OVNFile)))
			time.Sleep(2 * time.Second)
			must(r, replace(r.node.Path(cluster.OVNFile), r.node.OVN()))
		},
	} {
		trouble()
		name := fmt.Sprint("visitor-", i)
		r.create(r.attached(name, network))
		r.throughSidecar(name)
		r.throughSidecar("stays")
	}
}

// openShiftAux and openShiftAuxFailOpen test mode auxChain. The plugin runs for every pod of the node, and knows only
// what the agent tells it. Mesh pods are redirected without an annotation of Multus, others are not touched. Without
// the agent, pods of the platform start. Other pods wait, or start if the operator chose auxFailOpen.
func openShiftAux(r *rig)         { r.auxiliary(false) }
func openShiftAuxFailOpen(r *rig) { r.auxiliary(true) }

func (r *rig) auxiliary(open bool) {
	r.Helper()
	r.installedOnOpenShift("openshift.mode=auxChain", fmt.Sprintf("openshift.auxFailOpen=%t", open), "agentTimeout=1s")
	r.seen(r.appPod("plain"))
	if rules := r.ruleset("plain"); rules != "" {
		r.Errorf("rules in a pod outside the mesh:\n%s", rules)
	}
	r.create(r.meshPod("cart-0"))
	r.throughSidecar("cart-0")
	r.marked("cart-0")
	r.create(r.attached("both-ways", network))
	r.eventually("there is no such network in this mode", func() bool {
		return strings.Contains(events(r.namespace), "both-ways FailedCreatePodSandBox")
	})
	r.output(kubectl("apply", "-f", r.file("ours.yaml", meshNetwork))) // as if created by hand
	r.Cleanup(func() { r.output(kubectl("delete", "-f", r.file("ours.yaml", meshNetwork))) })
	r.throughSidecar("both-ways")
	r.marked("both-ways")
	if tables := strings.Count(r.ruleset("both-ways"), "table ip istio-pod-network"); tables != 1 {
		r.Errorf("%d tables of ours in a pod that comes by both ways", tables)
	}
	r.stopAgents()
	home := r.namespace
	r.namespace = r.namedNamespace(fmt.Sprint("openshift-test-", rigs), enforcing("restricted"), nil)
	r.seen(r.appPod("of-the-platform"))
	r.clear(r.namespace)
	r.namespace = home
	r.create(r.appPod("plain-while-away"))
	r.create(r.meshPod("cart-1"))
	if open {
		r.eventually("the pod outside the mesh starts",
			func() bool { return outside.reached(r.namespace, "plain-while-away") > 0 })
		r.eventually("the mesh pod waits",
			func() bool { return strings.Contains(r.says("cart-1", "istio-validation"), "is absent") })
		r.stillWaits("cart-1")
	} else {
		r.eventually("both are refused, with a reason", func() bool {
			all := events(r.namespace)
			return strings.Contains(all, "plain-while-away FailedCreatePodSandBox") &&
				strings.Contains(all, "cart-1 FailedCreatePodSandBox") &&
				strings.Contains(all, "nobody listens on the socket")
		})
	}
	must(r, os.Remove(r.node.Path(cluster.AuxDir+"/50-istio-pod-network.conf"))) // as after a reboot
	r.create(r.meshPod("cart-2"))
	r.eventually("the plugin is not run, and the mesh pod waits",
		func() bool { return strings.Contains(r.says("cart-2", "istio-validation"), "is absent") })
	r.stillWaits("cart-2")
	r.startAgents()
	r.throughSidecar("cart-1")
	r.throughSidecar("cart-2")
	r.marked("cart-2")
	r.eventually("the pod outside the mesh starts",
		func() bool { return outside.reached(r.namespace, "plain-while-away") > 0 })
}

// openShiftModeChanged changes the release's mode and changes it back while a pod runs. The node has only the file of
// the current mode. With both, the plugin would run for every pod, and refuse it when no agent answers.
func openShiftModeChanged(r *rig) {
	own := map[string]string{
		"nad":      cluster.MultusConfDir + "/istio-pod-network.conf",
		"auxChain": cluster.AuxDir + "/50-istio-pod-network.conf",
	}
	there := func() (modes []string) {
		for mode, path := range own {
			if _, err := os.Stat(r.node.Path(path)); err == nil {
				modes = append(modes, mode)
			}
		}
		return modes
	}
	change := func(mode string) {
		r.installedOnOpenShift("openshift.mode=" + mode)
		if modes := there(); !slices.Equal(modes, []string{mode}) {
			r.Errorf("in mode %s there are the files of %v", mode, modes)
		}
	}
	change("auxChain")
	r.create(r.meshPod("by-chain"))
	r.throughSidecar("by-chain")
	change("nad")
	r.create(r.attached("by-name", network))
	r.throughSidecar("by-chain")
	change("auxChain")
	r.throughSidecar("by-chain")
	r.throughSidecar("by-name")
	r.marked("by-name")
	r.uninstalled()
	if modes := there(); len(modes) > 0 {
		r.Errorf("after the uninstallation there are the files of %v", modes)
	}
	r.seen(r.appPod("plain"))
}

// openShiftUninstall uninstalls the release while its pods run. They keep working and can be deleted, and then nothing
// is left on the node. Multus deletes a pod's networks from its cache, so the plugin stays until the last pod is gone.
func openShiftUninstall(r *rig) {
	r.installedOnOpenShift()
	r.seen(r.appPod("plain"))
	r.create(r.attached("stays", network))
	r.throughSidecar("stays")
	r.uninstalled()
	r.throughSidecar("stays")
	if _, err := os.Stat(r.node.Path(cluster.OpenShiftBinDir + "/istio-pod-network")); err != nil {
		r.Errorf("the plugin is gone, and a pod needs it to be deleted: %v", err)
	}
	must(r, nodes.Client.CoreV1().Pods(r.namespace).Delete(r.ctx, "stays", metav1.DeleteOptions{}))
	r.eventually("the pod is deleted", func() bool {
		list, err := nodes.Client.CoreV1().Pods(r.namespace).List(r.ctx,
			metav1.ListOptions{FieldSelector: "metadata.name=stays"})
		return err == nil && len(list.Items) == 0
	})
	if left := r.records(); len(left) > 0 {
		r.Errorf("records are left: %+v", left)
	}
	left, _ := filepath.Glob(r.node.Path(cluster.MultusConfDir + "/*"))
	if len(left) > 0 {
		r.Errorf("left: %v", left)
	}
	if out, err := kubectl("get", "net-attach-def", "istio-cni", "--namespace=default").CombinedOutput(); err == nil {
		r.Errorf("the network is left: %s", out)
	}
}
