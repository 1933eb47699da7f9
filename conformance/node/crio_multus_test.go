package node

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/istio-pod-network/controller/conformance/crio"
	"github.com/istio-pod-network/controller/conformance/crio/wire"
	"github.com/istio-pod-network/controller/conformance/internal/build"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// The directories and files of an OpenShift node, below the rig's directory. Package cluster has those of its nodes.
const (
	ovnFile = "auto/10-ovn-kubernetes.conf" // the primary CNI's own
	auxDir  = "auto/vendor-cni-chain"
	nadDir  = "multus/net.d"
)

// multusCase is a node as OpenShift has it.
type multusCase struct {
	release crio.Release
	version string // CNI version of the other networks
	mode    string // the agent's --mode
	named   string // the network that mesh pods name
}

// CRI-O runs Multus, and Multus runs the plugin: as a network that pods name, or in its auxiliary chain. Multus passes
// no annotations, whatever CRI-O does.
func TestCRIOMultus(t *testing.T) {
	for _, c := range []multusCase{
		{crio.Releases[0], "0.3.1", "nad", "istio-cni"}, // as the chart makes it
		{crio.Releases[1], "1.0.0", "nad", plugin},      // without a configuration; it is then in the agent's file
		{crio.Releases[2], "0.3.1", "aux", ""},
	} {
		t.Run(fmt.Sprint(c.release, " ", c.version, " ", c.mode), func(t *testing.T) {
			r := onCRIO(t, c.release)
			r.flags = append(r.flags, "--mode="+c.mode, "--conf-dir="+r.path(nadDir), "--aux-dir="+r.path(auxDir))
			must(t, os.MkdirAll(r.path(nadDir), 0o755))
			must(t, os.MkdirAll(r.path(auxDir), 0o755))
			r.write(ovnFile, r.bridge(ovnFile, c.version))
			r.multus(c)
			if r.named = c.named; r.named != "" {
				r.network()
			}
			r.startAgent(r.flags...)
			r.ready()
			plain, cart := r.plain("plain"), r.meshed(r.create(r.naming("cart")), "net1")
			r.forget()
			r.cri.Restart()
			r.addressed(plain, cart)
			for _, s := range []wire.Sandbox{plain, cart} {
				r.wantCalled("multus", s, map[bool]string{true: "CHECK", false: ""}[c.version >= "0.4.0"])
			}
			r.forget()
			for _, s := range []wire.Sandbox{plain, cart} {
				r.stop(s)
				r.wantCalled("multus", s, "DEL")
			}
			r.nothing()
			r.multusRebooted()
		})
	}
}

// naming returns a mesh pod, which in mode nad names the network.
func (r *crioRig) naming(name string) *corev1.Pod {
	pod := r.podOf(name, meshAnnotations())
	if r.named != "" {
		pod.Annotations["k8s.v1.cni.cncf.io/networks"] = "default/" + r.named
	}
	return pod
}

// multusRebooted reboots the node. The auxiliary chain is on a tmpfs, so it is missing until the agent has written it
// again.
func (r *crioRig) multusRebooted() {
	r.Helper()
	plain, cart := r.plain("plain-before"), r.meshed(r.create(r.naming("cart-before")), "net1")
	r.agent.end(syscall.SIGKILL)
	r.forget()
	r.cri.Reboot(func() {
		for _, dir := range []string{r.store.Dir, r.path(auxDir)} {
			must(r, os.RemoveAll(dir))
		}
		must(r, os.MkdirAll(r.path(auxDir), 0o755))
	})
	for _, s := range []wire.Sandbox{plain, cart} {
		r.wantCalled("multus", s, "DEL")
		r.remove(s.Pod.Name)
	}
	r.nothing()
	r.startAgent(r.flags...)
	r.ready()
	r.stop(r.meshed(r.create(r.naming("cart-after")), "net1"))
}

// multus makes the runtime run only Multus, which runs the primary CNI.
func (r *crioRig) multus(c multusCase) {
	r.Helper()
	must(r, server.KubeconfigOf(r.path("multus.kubeconfig"), "system:multus", "system:masters"))
	config := map[string]any{
		"cniVersion": c.version, "name": "multus-cni-network", "type": "multus", "namespaceIsolation": true,
		"globalNamespaces": "default,openshift-multus", "binDir": r.path("bin"), "confDir": r.path(nadDir),
		"cniDir": r.path("multus/cache"), "kubeconfig": r.path("multus.kubeconfig"),
		"readinessindicatorfile": r.path(ovnFile),
	}
	if c.mode == "aux" {
		config["clusterNetwork"], config["auxiliaryCNIChainName"] = r.path(ovnFile), filepath.Base(auxDir)
	} else {
		var primary map[string]any
		must(r, json.Unmarshal([]byte(r.bridge(ovnFile, c.version)), &primary))
		config["delegates"] = []any{primary}
	}
	data, err := json.Marshal(config)
	must(r, err)
	r.write("net.d/00-multus.conf", string(data))
	r.eventually("CRI-O has Multus's network", func() bool { return r.cri.Network().Name == "multus-cni-network" })
}

// network creates the network that mesh pods name, as the chart does, and its API, until the test ends.
func (r *crioRig) network() {
	r.Helper()
	text, err := os.ReadFile(filepath.Join(build.Root(), "conformance/openshift/networkattachmentdefinitions.yaml"))
	must(r, err)
	definition, err := yaml.YAMLToJSON(text)
	must(r, err)
	spec := map[string]any{}
	if r.named != plugin {
		entry := map[string]any{"cniVersion": "0.4.0", "name": plugin}
		maps.Copy(entry, r.entry)
		inline, err := json.Marshal(entry)
		must(r, err)
		spec["config"] = string(inline)
	}
	object, err := json.Marshal(map[string]any{
		"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
		"metadata": map[string]any{"name": r.named, "namespace": "default"}, "spec": spec,
	})
	must(r, err)
	for _, object := range []struct {
		path, name string
		body       []byte
	}{
		{"/apis/apiextensions.k8s.io/v1/customresourcedefinitions", "network-attachment-definitions.k8s.cni.cncf.io",
			definition},
		{"/apis/k8s.cni.cncf.io/v1/namespaces/default/network-attachment-definitions", r.named, object},
	} {
		client := r.client.RESTClient()
		r.eventually("the API server takes "+object.name, func() bool {
			return client.Post().AbsPath(object.path).SetHeader("Content-Type", "application/json").Body(object.body).
				Do(r.ctx).Error() == nil
		})
		r.Cleanup(func() {
			must(r, client.Delete().AbsPath(object.path+"/"+object.name).Do(r.ctx).Error())
			r.eventually(object.name+" is gone", func() bool {
				return client.Get().AbsPath(object.path+"/"+object.name).Do(r.ctx).Error() != nil
			})
		})
	}
}
