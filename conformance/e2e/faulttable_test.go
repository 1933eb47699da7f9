package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/cluster"
	"github.com/istio-pod-network/controller/conformance/internal/faulttable"
	"github.com/istio-pod-network/controller/plugin/annotation"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// making creates each fault of the table on the rig's node. hurt is the name of the pod that the fault is about, or ""
// if it is about the node. undo ends the fault. The caller deletes the pod.
var making = map[string]func(r *rig) (hurt string, undo func()){
	"the plugin's binary is removed, and its directory is read-only": func(r *rig) (string, func()) {
		return "", r.held(cluster.BinDir, func() {
			must(r, os.Remove(r.node.Path(filepath.Join(cluster.BinDir, "istio-pod-network"))))
		})
	},
	"the plugin's entry is removed, and its directory is read-only": func(r *rig) (string, func()) {
		return "", r.held(cluster.ConfDir, r.unchain)
	},
	"a pod came while the plugin's entry was away": func(r *rig) (string, func()) {
		over := r.held(cluster.ConfDir, r.unchain)
		must(r, r.node.RestartRuntime()) // the runtime may still have the entry in memory
		pod := r.meshPod("hurt")
		pod.Spec.InitContainers = nil // a wait would be reported instead
		r.create(pod)
		r.running(pod.Name)
		return pod.Name, over
	},
	"the primary's configuration is in another directory": func(r *rig) (string, func()) {
		must(r, os.Remove(r.node.Conflist()))
		return "", r.primaryBack
	},
	"a rule is deleted in a pod": func(r *rig) (string, func()) {
		r.create(r.meshPod("hurt"))
		r.running("hurt")
		r.marked("hurt")
		r.output(r.inPod("hurt", "nft", "flush", "chain", "ip", "istio-pod-network", "filter-istio-guard-out"))
		return "hurt", func() {}
	},
	"the agent is away, and a pod came": func(r *rig) (string, func()) {
		over := r.agentRefused()
		r.create(r.meshPod("hurt"))
		return "hurt", over
	},
	"the admission policies' bindings are missing": func(r *rig) (string, func()) { return "", r.unbound() },
	"a mark is pasted on a pod that runs, without the policies": func(r *rig) (string, func()) {
		over := r.unbound()
		r.create(r.appPod("hurt"))
		r.running("hurt")
		r.change("hurt", fmt.Sprintf(`{"metadata": {"annotations": {%q: %q, %q: %q}}}`, annotation.Status,
			annotation.Initialized, annotation.NetNS, r.pod("cart-0").Annotations[annotation.NetNS]))
		return "hurt", over
	},
	"a pod opted in, and has no proxy": func(r *rig) (string, func()) {
		pod := r.appPod("hurt")
		pod.Annotations[annotation.Initialize] = "true"
		r.create(pod)
		r.running(pod.Name)
		return pod.Name, func() {}
	},
	"an annotation cannot be read": func(r *rig) (string, func()) {
		pod := r.meshPod("hurt")
		pod.Annotations[annotation.ExcludeOutboundPorts] = "80;"
		r.create(pod)
		return pod.Name, func() {}
	},
	"another mesh's plugin wrote its rules first": func(r *rig) (string, func()) {
		must(r, replace(r.node.Conflist(), []byte(r.node.Primary(cluster.DualStack, foreign))))
		must(r, r.node.RestartRuntime())
		r.healthy()
		r.create(r.meshPod("hurt"))
		r.running("hurt")
		return "hurt", r.primaryBack
	},
	"a pod opted in after it was made": func(r *rig) (string, func()) {
		pod := r.meshPod("hurt")
		pod.Annotations, pod.Spec.InitContainers = map[string]string{}, nil
		r.create(pod)
		r.running(pod.Name)
		r.change(pod.Name, fmt.Sprintf(`{"metadata": {"annotations": {%q: "true"}}}`, annotation.Initialize))
		return pod.Name, func() {}
	},
	"a pod was labelled for injection after it was made": func(r *rig) (string, func()) {
		url, ignore, none := "https://"+cluster.Address+":1/inject", admissionv1.Ignore, admissionv1.SideEffectClassNone
		hooks := nodes.Client.AdmissionregistrationV1().MutatingWebhookConfigurations()
		const name = "istio-sidecar-injector"
		over := r.until(func() error { return hooks.Delete(r.ctx, name, metav1.DeleteOptions{}) })
		_, err := hooks.Create(r.ctx, &admissionv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: name},
			Webhooks: []admissionv1.MutatingWebhook{{
				Name: "object.sidecar-injector.istio.io", ClientConfig: admissionv1.WebhookClientConfig{URL: &url},
				Rules: newPods, ObjectSelector: &metav1.LabelSelector{MatchLabels: map[string]string{injectLabel: "true"}},
				FailurePolicy: &ignore, SideEffects: &none, AdmissionReviewVersions: []string{"v1"},
			}}}, metav1.CreateOptions{})
		must(r, err)
		r.create(r.appPod("hurt"))
		r.running("hurt")
		r.change("hurt", fmt.Sprintf(`{"metadata": {"labels": {%q: "true"}}}`, injectLabel))
		return "hurt", over
	},
	"the plugin's binary was another's, a pod came, and libcni's cache of it is lost": func(r *rig) (string, func()) {
		r.node = nodes.Node("node-" + string(cluster.Debian)) // on the other node the agent would change to a splice
		resume, err := r.node.Stop(daemonSet, cluster.BinDir)
		resumed := r.until(resume)
		must(r, err)
		// tuning prints the previous result, as our plugin does
		another, err := os.ReadFile(filepath.Join(nodes.Bin, "tuning"))
		must(r, err)
		plugin := r.node.Path(filepath.Join(cluster.BinDir, "istio-pod-network"))
		must(r, os.Remove(plugin))
		must(r, os.WriteFile(plugin, another, 0o755))
		undo, err := r.node.ReadOnly(cluster.BinDir) // the kubelet ends an agent that has not answered for half a minute
		undone := r.until(undo)
		must(r, err)
		pod := r.meshPod("hurt")
		pod.Spec.InitContainers = nil // a pod that waits would be repaired
		r.create(pod)
		r.running(pod.Name)
		r.uncached(pod.Name)
		undone()
		resumed()
		return pod.Name, func() {}
	},
}

const injectLabel = "sidecar.istio.io/inject"

// held applies a change to a directory of the rig's node and makes the directory read-only, so that the agent cannot
// undo the change before over is called.
func (r *rig) held(dir string, change func()) (over func()) {
	r.Helper()
	resume, err := r.node.Stop(daemonSet, dir)
	resumed := r.until(resume)
	must(r, err)
	change()
	undo, err := r.node.ReadOnly(dir)
	undone := r.until(undo)
	must(r, err)
	resumed()
	return func() { undone(); r.primaryBack() }
}

// primaryBack restores the primary's configuration, and waits until the agent has added the plugin.
func (r *rig) primaryBack() {
	r.Helper()
	must(r, replace(r.node.Conflist(), []byte(r.node.Primary(cluster.DualStack))))
	r.rechained()
}

// agentRefused makes Pod Security reject the agent on the rig's node, and deletes the running one.
func (r *rig) agentRefused() (over func()) {
	r.Helper()
	allowed := r.until(func() error { return kubectl("label", "namespace", system, enforce+"-").Run() })
	must(r, r.label(system, enforce, "restricted"))
	root := r.appPod("try")
	root.Namespace, root.Spec.Containers[0].SecurityContext = system, nil
	r.eventually("Pod Security is in force", func() bool { _, err := r.dryRun(root); return apierrors.IsForbidden(err) })
	for _, agent := range r.agents() {
		if agent.Spec.NodeName == r.node.Name {
			must(r, nodes.Client.CoreV1().Pods(system).Delete(r.ctx, agent.Name, metav1.DeleteOptions{}))
		}
	}
	r.eventually("the agent is gone", func() bool { return len(r.agents()) == len(nodes.Nodes)-1 })
	return func() {
		allowed()
		r.output(kubectlIn(system, "annotate", "daemonset", daemonSet, "e2e=again")) // to retry at once
		r.output(kubectlIn(system, "annotate", "daemonset", daemonSet, "e2e-"))
	}
}

// unbound deletes the bindings of the admission policies about marks, until over is called.
func (r *rig) unbound() (over func()) {
	r.Helper()
	var objects []string
	for _, name := range []string{"validatingadmissionpolicybinding/istio-pod-network-marks",
		"validatingadmissionpolicybinding/istio-pod-network-copied-marks",
		"mutatingadmissionpolicybinding/istio-pod-network-copied-marks"} {
		text, err := kubectl("get", name, "-o", "json").Output()
		if err != nil {
			continue // the release has only one of the last two
		}
		var object map[string]any
		must(r, json.Unmarshal(text, &object))
		metadata := object["metadata"].(map[string]any)
		for _, key := range []string{"resourceVersion", "uid", "creationTimestamp", "generation", "managedFields"} {
			delete(metadata, key)
		}
		objects = append(objects, r.file(fmt.Sprint("binding-", len(objects), ".json"), string(asJSON(object))))
		r.output(kubectl("delete", name))
	}
	back := r.until(func() (err error) {
		for _, file := range objects {
			err = errors.Join(err, kubectl("create", "-f", file).Run())
		}
		return err
	})
	r.policies(false, false)
	return func() { back(); r.policies(true, false) }
}

// change patches a pod.
func (r *rig) change(name, patch string) {
	r.Helper()
	_, err := nodes.Client.CoreV1().Pods(r.namespace).Patch(r.ctx, name, types.MergePatchType, []byte(patch),
		metav1.PatchOptions{})
	must(r, err)
}

// look runs a command of istio-pod-networkctl about pods, and returns its exit status and its findings.
func (r *rig) look(command string, pods ...string) (status int, said faulttable.Said) {
	r.Helper()
	full := []string{}
	for _, pod := range pods {
		full = append(full, r.namespace+"/"+pod)
	}
	status, out := r.toolPrints(faulttable.Args(command, full...)...)
	said, err := faulttable.Read(command, out)
	must(r, err)
	return status, said
}

// shows fails unless the command reports the fault with the table's words and exit status, and nothing about others. It
// retries if the command is expected to find the fault, or if trace --live has timed out.
func (r *rig) shows(f faulttable.Fault, command string, about, pods []string) {
	r.Helper()
	var wrong error
	again := f.Of(command) != nil
	holds := func() bool {
		status, said := r.look(command, pods...)
		wrong = f.Judge(command, status, said, about...)
		again = again || slices.ContainsFunc(said.Warnings, func(it faulttable.Found) bool { return tooSlow(it.What) })
		return wrong == nil
	}
	if holds() || again && r.soon(holds) {
		return
	}
	r.Error(wrong)
}

// allWell reports whether the commands that look at nodes and pods find nothing any more. Agents report a change with a
// delay.
func (r *rig) allWell(pods []string) bool {
	r.Helper()
	for _, command := range []string{"status", "explain", "check", "version"} {
		status, said := r.look(command, pods...)
		if err := (faulttable.Fault{Name: "over"}).Judge(command, status, said); err != nil {
			return false
		}
	}
	return true
}

// tooSlow reports whether trace --live says that the kernel of a busy machine has not reported a packet in time.
func tooSlow(said string) bool {
	return strings.Contains(said, "has no end after") || strings.Contains(said, "has not come to the pod's rules")
}

// Each fault is created once, on one node. The table's commands find it, with the table's words and exit status. All
// other commands report that all is well, and so do all commands about the other node and the other pods, before the
// first fault and after each one. The table's alerts, and no others, fire for that node. They are silent before the
// first fault and after each one.
func TestFaultTable(t *testing.T) {
	r := newRig(t)
	r.installed()
	w := r.watched()
	names := []string{"cart-0", "cart-1"}
	for i, name := range names {
		r.node = nodes.Nodes[i]
		r.create(r.meshPod(name))
	}
	r.node = nodes.Nodes[0]
	for _, name := range names {
		r.running(name)
		r.marked(name)
	}
	commands := faulttable.EndToEnd.Commands()
	everything := func(f faulttable.Fault, about, pods []string) {
		for _, finds := range []bool{true, false} { // first the commands that find the fault, because they wait for it
			for _, command := range commands {
				if (f.Of(command) != nil) == finds {
					r.shows(f, command, about, pods)
				}
			}
		}
	}
	r.eventually("all is well before the first fault", func() bool { return r.allWell(names) })
	everything(faulttable.Fault{Name: "no fault"}, nil, names)
	w.worked()
	w.silent()
	all := faulttable.MadeBy(faulttable.EndToEnd)
	for _, f := range all {
		if making[f.Name] == nil {
			t.Errorf("nobody makes the fault %q", f.Name)
			continue
		}
		hurt, undo := making[f.Name](r)
		pods := names
		if hurt != "" {
			pods = append(slices.Clone(names), hurt)
		}
		w.fire(f)
		about := []string{hurt, r.node.Name, ""} // "" for a policy
		if slices.Contains(f.Alerts, "IstioPodNetworkAgentMissing") {
			about = append(about, names[0]) // without the agent, no pod of the node can be checked
		}
		everything(f, about, pods)
		if unasked := f.Unasked("explain"); unasked != nil {
			if status, said := r.look("explain", names[0]); status != unasked.Exit || len(said.Unasked) != 1 {
				t.Errorf("%s: explain of a pod that is not hurt: status %d, %+v", f.Name, status, said)
			}
		}
		undo()
		if hurt != "" {
			r.removed(hurt)
		}
		r.node = nodes.Nodes[0]
		r.healthy()
		r.eventually("all is well after: "+f.Name, func() bool { return r.allWell(names) })
		w.silent()
	}
	w.firedOnly(all)
	r.note("%d faults, %d commands, %d alerts", len(all), len(commands), len(w.Alerts()))
}

// uncached removes libcni's cached result of a pod on the rig's node. Without it the agent cannot repair the pod.
func (r *rig) uncached(name string) {
	r.Helper()
	files, err := filepath.Glob(r.node.Path("/var/lib/cni/results/*"))
	must(r, err)
	found := 0
	for _, path := range files {
		data, err := os.ReadFile(path)
		must(r, err)
		if text := string(data); strings.Contains(text, strconv.Quote(name)) && strings.Contains(text, r.namespace) {
			must(r, os.Remove(path))
			found++
		}
	}
	if found == 0 {
		r.Fatalf("libcni has nothing of %s in %q", name, files)
	}
}

// removed deletes a pod and waits until it is gone.
func (r *rig) removed(name string) {
	r.Helper()
	pods := nodes.Client.CoreV1().Pods(r.namespace)
	must(r, ignoreNotFound(pods.Delete(r.ctx, name, metav1.DeleteOptions{GracePeriodSeconds: new(int64)})))
	r.eventually(name+" is gone", func() bool {
		_, err := pods.Get(r.ctx, name, metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
}

// soon waits for a condition, and reports whether it held. It does not end the test, so that a failing test reports all
// differences.
func (r *rig) soon(holds func() bool) bool {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Second) {
		if holds() {
			return true
		}
	}
	return false
}
