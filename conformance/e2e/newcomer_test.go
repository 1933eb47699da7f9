package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/blocks"
	"github.com/istio-pod-network/controller/conformance/internal/build"
	"github.com/istio-pod-network/controller/conformance/internal/cluster"
	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	"github.com/istio-pod-network/controller/conformance/internal/mesh"
	"github.com/istio-pod-network/controller/plugin/annotation"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

// Pages that lead from an empty cluster to a verified mesh.
const (
	readme         = "README.md"
	gettingStarted = "docs/getting-started-istio.md"
	onOpenShift    = "docs/getting-started-openshift.md"
	oneMachine     = "docs/one-machine.md"
)

// Sections that newcomers on Kubernetes and on OpenShift both use.
const (
	chooseVersions = "Choose the versions"
	verifyMesh     = "Verify the mesh"
	callTheShop    = "Call the shop through the gateway"
	whatMustNot    = "Try what must not work"
	takeAway       = "Remove everything"
)

// elsewhere are the commands of README.md that .ci/run runs, and that are not steps on a cluster.
var elsewhere = []string{"make demo", "make test"}

// leaves removes what the pages leave at the end of the test, or what a page that failed has left. It first removes
// leftovers of earlier tests, because a newcomer's cluster has none of these names.
func (n *reader) leaves(namespaces ...string) {
	remove := func() {
		n.output(kubectl(append([]string{"delete", "namespace", "--ignore-not-found", waits()}, namespaces...)...))
	}
	remove()
	n.Cleanup(func() {
		if n.Failed() {
			n.uninstalled()
		}
		remove()
		n.output(kubectl("delete", "--ignore-not-found", "-f", mesh.Helm{Bin: isolated.BinDir()}.CRDs()))
	})
}

// pagesNamespaces are the namespaces that the pages create. They include the controller's own, because the pages create
// a secret in it.
var pagesNamespaces = []string{"shop", "outside", "istio-ingress", "istio-system", system}

// newNewcomer returns a reader who knows Kubernetes and Istio, but not this project.
func newNewcomer(r *rig) *reader {
	r.Helper()
	n := newReader(r, "helm4")
	n.charts()
	return n
}

// istio imports Istio's images into nodes.
func (n *reader) istio(on ...*cluster.Node) {
	n.Helper()
	pilot, proxy, err := mesh.Images(isolated.BinDir(), nodes.Dir)
	must(n, err)
	for _, node := range on {
		for _, archive := range []string{pilot, proxy} {
			must(n, node.Import(archive))
		}
	}
}

// pushedImages are the images that the pages push to a registry.
var pushedImages = []string{"istio-pod-network-agent", "istio-pod-network-plugin", "shop"}

// A reader who knows Kubernetes and Istio, but not this project, gets from README.md to a verified mesh by pasting the
// pages' commands, moves it to another revision of Istio, and removes everything. The cluster is like one of `make
// cluster`, except that one node has Kind's network.
func TestNewcomer(t *testing.T) {
	r := newRig(t)
	r.uninstalled()
	r.shapedAsKind()
	n := newNewcomer(r)
	images := n.registry(nodes.Nodes)
	n.replaces("kubernetesDistribution=Kubernetes", "kubernetesDistribution=Kind", registryHost, images.host)
	n.leaves(pagesNamespaces...)
	n.istio(nodes.Nodes...)
	n.loads()
	n.readsTheRest()
	images.loggedIn()
	n.pastes(readme, false, "Install on a cluster")
	images.private.Store(true)
	n.pastes(gettingStarted, false, chooseVersions, "Install on Kubernetes")
	images.pulled(images.host+"/mesh", pushedImages, system, "shop", "outside")
	n.pastes(gettingStarted, true, verifyMesh, callTheShop, whatMustNot)
	n.pastes(gettingStarted, false, "Change an Istio that is already installed", "Move to another revision of Istio")
	n.moved()
	n.pastes(gettingStarted, true, callTheShop)
	n.pastes(gettingStarted, false, takeAway)
	n.counted("kubectl", "helm", "istio-pod-networkctl", "cluster.sh", "images.sh")
}

// loads loads images into the nodes as into a cluster of `make cluster`: one from an archive, and one from a program.
func (n *reader) loads() {
	n.Helper()
	dir, program := n.TempDir(), filepath.Join(isolated.BinDir(), "podprogram")
	listener, err := net.Listen("unix", cluster.LoadSocket(dir))
	must(n, err)
	n.Cleanup(func() { must(n, listener.Close()) })
	go cluster.TakeImages(listener, nodes.Dir, nodes.Nodes)
	must(n, os.Symlink(program, filepath.Join(n.dir, "app")))
	must(n, cluster.Image(filepath.Join(n.dir, "app.tar"), "docker.io/library/app:1", "65532:65532",
		[]cluster.File{{Source: program, Path: "app"}}, "/app", "pause"))
	must(n, os.WriteFile(filepath.Join(n.dir, "scripts", "cluster.sh"), fmt.Appendf(nil,
		"#!/bin/sh\nshift\nexec %s -load %s \"$@\"\n", filepath.Join(isolated.BinDir(), "playground"), dir), 0o755))
	n.Cleanup(func() { n.output(kubectl("delete", "pod", "app", "--ignore-not-found", "--grace-period=1")) })
	n.pastes(oneMachine, false, "Bring up a cluster")
	n.eventually("the pod app is started from what was loaded", func() bool {
		pod, err := nodes.Client.CoreV1().Pods(metav1.NamespaceDefault).Get(n.ctx, "app", metav1.GetOptions{})
		return err == nil && len(pod.Status.ContainerStatuses) == 1 && pod.Status.ContainerStatuses[0].ContainerID != ""
	})
}

// moved waits until the shop has only pods of the next revision, and they are in the mesh.
func (n *reader) moved() {
	n.Helper()
	n.eventually("the shop is of the next revision", func() bool {
		list, err := nodes.Client.CoreV1().Pods("shop").List(n.ctx, metav1.ListOptions{})
		return err == nil && len(list.Items) == 4 && !slices.ContainsFunc(list.Items, func(pod corev1.Pod) bool {
			return pod.Annotations[revisionOf] != strings.ReplaceAll(istioVersions[1], ".", "-") ||
				pod.Annotations[annotation.Status] != annotation.Initialized
		})
	})
}

// readsTheRest fails if README.md has commands that are neither steps on a cluster nor run by .ci/run.
func (n *reader) readsTheRest() {
	n.Helper()
	all, _, err := blocks.Read(readme)
	must(n, err)
	stages, err := os.ReadFile(filepath.Join(build.Root(), ".ci", "run"))
	must(n, err)
	for _, b := range all {
		if b.Section == "Install on a cluster" {
			continue
		}
		for line := range strings.Lines(b.Text) {
			command, _, _ := strings.Cut(line, "#")
			command = strings.TrimSpace(command)
			if command != "" && (!slices.Contains(elsewhere, command) || !strings.Contains(string(stages), " "+command)) {
				n.Errorf("%s: nothing runs %q", b.Place, command)
			}
		}
	}
}

// kindnet is the format of kindnetd's 10-kindnet.conflist for a node's pods.
const kindnet = `{
  "cniVersion": "0.3.1",
  "name": "kindnet",
  "plugins": [
  {
    "type": "ptp",
    "ipMasq": false,
    "ipam": {
      "type": "host-local",
      "dataDir": "/run/cni-ipam-state",
      "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
      "ranges": [[{"subnet": %q}], [{"subnet": %q}]]
    },
    "mtu": 1500
  },
  {
    "type": "portmap",
    "capabilities": {"portMappings": true}
  }
  ]
}
`

// shapedAsKind gives the rig's node the network configuration and plugins of a Kind node until the end of the test.
// tuning stands in for portmap, which no pod uses here.
func (r *rig) shapedAsKind() {
	r.Helper()
	primary, own := []byte(r.node.Primary(cluster.DualStack)), r.node.Path(cluster.ConfDir+"/10-kindnet.conflist")
	plugins := map[string]string{"ptp": "ptp", "portmap": "tuning"}
	r.Cleanup(func() {
		must(r, replace(r.node.Conflist(), primary))
		must(r, os.Remove(own))
		for name := range plugins {
			must(r, os.Remove(r.node.Path(cluster.BinDir+"/"+name)))
		}
		must(r, r.node.RemoveBridges())
		must(r, r.node.RestartRuntime())
		r.healthy()
	})
	for name, program := range plugins {
		must(r, os.Symlink(filepath.Join(isolated.BinDir(), program), r.node.Path(cluster.BinDir+"/"+name)))
	}
	must(r, replace(own, fmt.Appendf(nil, kindnet, r.node.Pods4(), r.node.Pods6())))
	must(r, os.Remove(r.node.Conflist()))
	must(r, r.node.RemoveBridges()) // it has the address of the pods' gateway
	must(r, r.node.RestartRuntime())
	r.healthy()
}

// openShiftNewcomer does the same with the page for OpenShift, on a node with OpenShift's directories and
// SecurityContextConstraints. The stand-in for oc calls kubectl.
func openShiftNewcomer(r *rig) {
	r.uninstalled()
	r.alone()
	n := newNewcomer(r)
	images := n.registry([]*cluster.Node{r.node}, registryOC)
	n.leaves(append(pagesNamespaces, "mesh-images")...)
	n.istio(r.node)
	r.constrained()
	r.allocates()
	n.pastes(gettingStarted, false, chooseVersions)
	n.pastes(onOpenShift, false, "Install")
	images.pulled(registryOC+"/mesh-images", pushedImages, system, "shop", "outside")
	n.pastes(gettingStarted, true, verifyMesh, callTheShop, whatMustNot)
	n.pastes(gettingStarted, false, takeAway)
	n.counted("oc", "helm", "istio-pod-networkctl", "images.sh")
}

// alone makes the rig's node the only one for pods and agents until the end of the test.
func (r *rig) alone() {
	r.Helper()
	for _, other := range nodes.Nodes {
		r.Cleanup(func() {
			r.output(kubectl("uncordon", other.Name))
			r.output(kubectl("label", "node", other.Name, "type-"))
		})
		r.output(kubectl("cordon", other.Name))
		r.output(kubectl("label", "node", other.Name, "type=virtual-kubelet")) // the agents' node affinity excludes this type
	}
}

// allocates gives new namespaces the annotations that OpenShift gives a project, until the end of the test.
func (r *rig) allocates() {
	r.Helper()
	ctx, cancel := context.WithCancel(r.ctx)
	done := make(chan error, 1)
	r.Cleanup(func() { cancel(); must(r, <-done) })
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": allocated}})
	must(r, err)
	changes, err := nodes.Client.CoreV1().Namespaces().Watch(ctx, metav1.ListOptions{})
	must(r, err)
	go func() {
		for event := range changes.ResultChan() {
			namespace, is := event.Object.(*corev1.Namespace)
			if !is || event.Type != watch.Added || !slices.Contains(pagesNamespaces, namespace.Name) {
				continue
			}
			if _, err := nodes.Client.CoreV1().Namespaces().Patch(ctx, namespace.Name, types.MergePatchType, patch,
				metav1.PatchOptions{}); err != nil && ctx.Err() == nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
}
