package e2e

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/cluster"
)

// snapshot is what is on a node where the plugin could leave something: contents of files by their path.
func snapshot(n *cluster.Node) map[string]string {
	all := map[string]string{}
	for _, dir := range []string{cluster.ConfDir, cluster.BinDir, stateDir} {
		root := n.Path(dir)
		_ = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || path == root { // the directory of the agent's socket is the kubelet's
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

// asBefore fails unless the nodes are as they were.
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

// lives takes an installation through its life on both nodes: mesh pods while it is there; after it was removed new
// pods start plain, old ones can be deleted, and the nodes are as they were.
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
		bare.Spec.InitContainers = nil // nobody would mark it any more
		r.seen(bare)
		if rules := r.ruleset(bare.Name); rules != "" {
			r.Errorf("rules in a pod that came after the plugin was removed:\n%s", rules)
		}
	}
	r.clear(r.namespace)
	r.asBefore(before)
	r.node = first
}

// The life of a release as README.md tells it, with either Helm: install, test, upgrade, roll back, uninstall.
func TestHelmRelease(t *testing.T) {
	for _, which := range []string{"helm3", "helm4"} {
		t.Run(which, func(t *testing.T) {
			r := newRig(t)
			h := func(args ...string) string { r.Helper(); return r.output(helmOf(which, args...)) }
			r.lives(func() {
				notes := h("install", release, chart(), "--create-namespace", "--wait", "--timeout=3m")
				if !strings.Contains(notes, "helm test") {
					t.Errorf("the notes do not say how to verify:\n%s", notes)
				}
				if out := h("test", release); !strings.Contains(out, "Succeeded") {
					t.Errorf("helm test says\n%s", out)
				}
				h("upgrade", release, chart(), "--wait", "--timeout=3m", "--set=agent.logLevel=debug")
				h("rollback", release, "1", "--wait", "--timeout=3m")
			}, func() {
				h("uninstall", release, "--wait", "--timeout=3m")
			})
		})
	}
}

// An uninstallation that was broken off after it had turned the agents can be taken back.
func TestUninstallTakenBack(t *testing.T) {
	// Helm 4 asks before it overwrites what others have set
	for which, flags := range map[string][]string{"helm3": nil, "helm4": {"--force-conflicts"}} {
		t.Run(which, func(t *testing.T) {
			r := newRig(t)
			r.uninstalled()
			r.output(helmOf(which, "install", release, chart(), "--create-namespace", "--wait", "--timeout=3m"))
			r.agentsReady()
			r.turnAgents()
			for _, n := range nodes.Nodes {
				r.eventually("the plugin is out of "+n.Name, func() bool {
					_, body := readyz(n.Address())
					return strings.Contains(body, "[+] uninstalled")
				})
			}
			r.output(helmOf(which, append([]string{"upgrade", release, chart(), "--wait", "--timeout=3m"}, flags...)...))
			r.agentsReady()
			r.create(r.meshPod("cart-0"))
			r.throughSidecar("cart-0")
			r.seen(r.appPod("plain"))
			r.uninstalled()
		})
	}
}

// turnAgents does what the hook does, and is gone before the nodes are done.
func (r *rig) turnAgents() {
	r.Helper()
	out, err := asAdmin("istio-pod-network-agent", "uninstall-all", "--namespace="+system, "--kubeconfig="+nodes.Admin(),
		"--timeout=1s").CombinedOutput()
	if err == nil {
		r.Logf("done within a second: %s", out)
	}
}

// render renders the chart as the article of 2018 does, for kubectl.
func (r *rig) render(flags ...string) []byte {
	r.Helper()
	cmd := exec.Command(lookUp("helm4"),
		append([]string{"template", "-n", system, "--set", "kubernetesDistribution=Kubernetes"},
			append(flags, chart())...)...)
	return []byte(r.output(cmd))
}

// kubectlOn gives manifests to kubectl.
func (r *rig) kubectlOn(manifests []byte, args ...string) string {
	r.Helper()
	cmd := kubectl(append(args, "-f", "-")...)
	cmd.Stdin = bytes.NewReader(manifests)
	return r.output(cmd)
}

// uninstallByManifests is the documented way for those who apply manifests.
func (r *rig) uninstallByManifests() {
	r.Helper()
	manifests := r.render("--set", "uninstall=true")
	r.kubectlOn(manifests, "apply")
	r.output(kubectl("rollout", "status", "--namespace="+system, "daemonset/"+daemonSet, "--timeout=3m"))
	r.kubectlOn(manifests, "delete", "--wait")
}

// The article's command installs, and a rendered DaemonSet uninstalls.
func TestManifests(t *testing.T) {
	r := newRig(t)
	r.lives(func() {
		manifests := string(r.render())
		if strings.Contains(manifests, "helm.sh/hook") ||
			strings.Contains(manifests, "AGENT_UNINSTALL\n          value: \"true\"") {
			t.Errorf("an uninstall or test object in\n%s", manifests)
		}
		r.kubectlOn([]byte(manifests), "apply")
		r.output(kubectl("rollout", "status", "--namespace="+system, "daemonset/"+daemonSet, "--timeout=3m"))
	}, r.uninstallByManifests)
}

// Somebody has deleted the release without its hooks: mesh pods are refused, with the command that helps. It is run on
// a node by kubectl debug, as docs/uninstalling.md says, or for all nodes by the manifests.
func TestForgottenUninstall(t *testing.T) {
	for name, cure := range map[string]func(*rig){"one-node": cureOneNode, "all-nodes": (*rig).uninstallByManifests} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.lives(func() {
				r.output(helm("install", release, chart(), "--create-namespace", "--wait", "--timeout=3m", "--set=agentTimeout=1s"))
			}, func() {
				r.output(helm("uninstall", release, "--no-hooks", "--wait", "--timeout=3m"))
				r.agentsGone()
				r.create(r.meshPod("refused"))
				r.eventually("the mesh pod is refused, with the command that helps", func() bool {
					return strings.Contains(events(r.namespace), "istio-pod-network-install uninstall")
				})
				cure(r)
			})
		})
	}
}

// cureOneNode runs the documented command on each node.
func cureOneNode(r *rig) {
	r.Helper()
	namespace := r.newNamespace(nil, nil) // that of the test admits no such pod
	for _, n := range nodes.Nodes {
		r.output(kubectl("debug", "node/"+n.Name, "--namespace="+namespace, "--profile=sysadmin", "--attach", "--quiet",
			"--image=istio-pod-network-agent:"+version(), "--", "/istio-pod-network-install", "uninstall", "--purge",
			"--bin-dir=/host"+cluster.BinDir, "--conf-dir=/host"+cluster.ConfDir, "--state-dir=/host"+stateDir,
			"--cni-cache-dir=/host/var/lib/cni", "--runtime-version="+r.output(kubectl("get", "node", n.Name, "-o",
				"jsonpath={.status.nodeInfo.containerRuntimeVersion}"))))
	}
}
