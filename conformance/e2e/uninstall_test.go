package e2e

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/cluster"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// snapshot returns the contents of the files in the directories that the product writes to, by path.
func snapshot(n *cluster.Node) map[string]string {
	all := map[string]string{}
	for _, dir := range []string{cluster.ConfDir, cluster.BinDir, stateDir} {
		root := n.Path(dir)
		_ = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || path == root { // the kubelet creates the directory of the agent's socket
				return nil
			}
			contents := entry.Type().String()
			if entry.Type().IsRegular() {
				data, _ := os.ReadFile(path)
				contents = string(data)
			}
			all[dir+strings.TrimPrefix(path, root)] = contents
			return nil
		})
	}
	return all
}

// asBefore fails unless the nodes' files are as before.
func (r *rig) asBefore(before map[string]map[string]string) {
	r.Helper()
	for _, n := range nodes.Nodes {
		now := snapshot(n)
		for path, contents := range now {
			if want, was := before[n.Name][path]; !was || want != contents {
				r.Errorf("%s: %s is left or changed:\n%.500s", n.Name, path, contents)
			}
		}
		for path := range before[n.Name] {
			if _, is := now[path]; !is {
				r.Errorf("%s: %s is gone", n.Name, path)
			}
		}
	}
}

// lives tests an installation and its removal on both nodes. Mesh pods start while it is installed. After the removal
// new pods start without rules, old pods can be deleted, and the nodes are as before.
func (r *rig) lives(install, remove func()) {
	r.Helper()
	r.uninstalled()
	before := map[string]map[string]string{}
	for _, n := range nodes.Nodes {
		before[n.Name] = snapshot(n)
	}
	install()
	r.agentsReady()
	first := r.node
	for _, n := range nodes.Nodes {
		r.node = n
		r.create(r.meshPod("old-" + n.Name))
		r.throughSidecar("old-" + n.Name)
	}
	remove()
	r.agentsGone()
	for _, n := range nodes.Nodes {
		r.node = n
		bare := r.meshPod("new-" + n.Name)
		bare.Spec.InitContainers = nil // without an agent nobody marks the pod
		r.seen(bare)
		if rules := r.ruleset(bare.Name); rules != "" {
			r.Errorf("rules in a pod that came after the plugin was removed:\n%s", rules)
		}
	}
	r.clear(r.namespace)
	r.asBefore(before)
	r.node = first
}

// Pages about installation and operation.
const (
	installing   = "docs/cluster.md"
	operating    = "docs/operation.md"
	uninstalling = "docs/uninstalling.md"
)

// The life of a release, as in the pages, with each Helm: install, test, upgrade, roll back, uninstall.
func TestHelmRelease(t *testing.T) {
	for _, which := range []string{"helm3", "helm4"} {
		t.Run(which, func(t *testing.T) {
			r := newRig(t)
			n := newReader(r, which)
			images := n.registry(nodes.Nodes)
			n.replaces(registryHost, images.host)
			images.loggedIn()
			h := func(args ...string) { r.Helper(); r.output(helmOf(which, args...)) }
			r.lives(func() {
				n.pastes(installing, false, "Installing on a cluster", "Install with Helm")
				if !strings.Contains(n.said, "helm test") || !strings.Contains(n.said, "Succeeded") {
					t.Errorf("the notes do not say how to verify, or it does not succeed:\n%s", n.said)
				}
				images.pulled(images.host+"/mesh", pushedImages[:1], system) // only the agent's image runs there
				if which == "helm4" {
					n.operates()
				}
				h("upgrade", release, chart(), "--wait", waits(), "--reset-then-reuse-values", "--set=agent.logLevel=debug")
				h("rollback", release, "1", "--wait", waits())
			}, func() { n.pastes(uninstalling, false, "Uninstall with Helm", "What stays on a node") })
			n.counted("kubectl", "helm", "images.sh")
		})
	}
}

// operates pastes the blocks of docs/operation.md, after it has created the pods that the page names.
func (n *reader) operates() {
	n.Helper()
	shop := *n.rig
	shop.namespace = n.namedNamespace("shop", enforcing("restricted"), nil)
	cart := shop.meshPod("cart")
	cart.Labels = map[string]string{"app": "cart"}
	shop.apply(shop.namespace, string(asJSON(&appsv1.Deployment{
		TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"}, ObjectMeta: metav1.ObjectMeta{Name: "cart"},
		Spec: appsv1.DeploymentSpec{Selector: &metav1.LabelSelector{MatchLabels: cart.Labels},
			Template: corev1.PodTemplateSpec{Spec: cart.Spec,
				ObjectMeta: metav1.ObjectMeta{Labels: cart.Labels, Annotations: cart.Annotations}}},
	})))
	shop.create(shop.meshPod("cart-0"))
	shop.marked("cart-0")
	n.pastes(operating, false, "Check that it works", "Bring a running pod into the mesh", "Keep pods from a new node",
		"Upgrade", "Renew the rules of running pods")
	if !strings.Contains(n.said, "\ninitialized") {
		n.Errorf("shop/cart-0 is not said to be initialized:\n%s", n.said)
	}
}

// An uninstallation can be undone if it was interrupted after it had told the agents to uninstall.
func TestUninstallTakenBack(t *testing.T) {
	// Helm 4 refuses to overwrite fields of other managers without this flag
	for which, flags := range map[string][]string{"helm3": nil, "helm4": {"--force-conflicts"}} {
		t.Run(which, func(t *testing.T) {
			r := newRig(t)
			r.uninstalled()
			r.output(helmOf(which, "install", release, chart(), "--create-namespace", "--wait", waits()))
			r.agentsReady()
			r.turnAgents()
			for _, n := range nodes.Nodes {
				r.eventually("the plugin is out of "+n.Name, func() bool {
					_, body := readyz(n.Address())
					return strings.Contains(body, "[+] uninstalled")
				})
			}
			r.output(helmOf(which, append([]string{"upgrade", release, chart(), "--wait", waits()}, flags...)...))
			r.agentsReady()
			r.create(r.meshPod("cart-0"))
			r.throughSidecar("cart-0")
			r.seen(r.appPod("plain"))
			r.uninstalled()
		})
	}
}

// turnAgents does what the uninstall hook does, but ends when the agents are told to uninstall.
func (r *rig) turnAgents() {
	r.Helper()
	hook := asAdmin("istio-pod-network-agent", "uninstall-all", "--namespace="+system, "--kubeconfig="+nodes.Admin(),
		waits())
	must(r, hook.Start())
	defer func() { _, _ = hook.Process.Kill(), hook.Wait() }()
	r.eventually("the agents are told to uninstall", func() bool {
		set, err := nodes.Client.AppsV1().DaemonSets(system).Get(r.ctx, daemonSet, metav1.GetOptions{})
		return err == nil && slices.ContainsFunc(set.Spec.Template.Spec.Containers[0].Env, func(e corev1.EnvVar) bool {
			return e.Name == "AGENT_UNINSTALL" && e.Value == "true"
		})
	})
}

// Manifests install the product, as in 2018, and a rendered DaemonSet uninstalls it, as in the pages.
func TestManifests(t *testing.T) {
	r := newRig(t)
	n := newReader(r, "helm4")
	n.pushed(pagesImages, nodes.Nodes...)
	r.lives(func() { n.pastes(installing, false, "Install manifests") }, n.uninstallsManifests)
	n.counted("kubectl", "helm")
}

func (n *reader) uninstallsManifests() {
	n.Helper()
	n.pastes(uninstalling, false, "Uninstall what was applied as manifests")
}

// The release was deleted without its hooks. Mesh pods are refused, and the error names the command that helps. The
// test runs it on each node by kubectl debug, as in docs/uninstalling.md, or on all nodes by the manifests.
func TestForgottenUninstall(t *testing.T) {
	for name, cure := range map[string]func(*reader){"one-node": (*reader).curesNodes,
		"all-nodes": (*reader).uninstallsManifests} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			n := newReader(r, "helm4")
			n.pushed(pagesImages, nodes.Nodes...)
			r.lives(func() {
				r.output(helm("install", release, chart(), "--create-namespace", "--wait", waits(), "--set=agentTimeout=1s"))
			}, func() {
				r.output(helm("uninstall", release, "--no-hooks", "--wait", waits()))
				r.agentsGone()
				r.create(r.meshPod("refused"))
				r.eventually("the mesh pod is refused, with the command that helps", func() bool {
					return strings.Contains(events(r.namespace), "istio-pod-network-install uninstall")
				})
				cure(n)
			})
			n.counted("kubectl")
		})
	}
}

// curesNodes follows the page's steps for one node on each node.
func (n *reader) curesNodes() {
	n.Helper()
	for _, node := range nodes.Nodes {
		one := *n
		one.replaced = []string{nodeOfPages, node.Name}
		one.pastes(uninstalling, false, "Remove a plugin that was left behind")
		n.blocks = one.blocks
	}
}
