package chart

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// identities tries to remove or change the annotations that name the sidecar's user and group. An ephemeral container
// is compared with their values from the time when the pod's network was made.
func (g *guarded) identities() {
	g.Helper()
	const userID, groupID = "pod-network-controller.istio.io/envoy-userid", "pod-network-controller.istio.io/envoy-groupid"
	plain := g.pod("no-sidecar", "a", map[string]string{userID: "4000"})
	_, err := g.admin.CoreV1().Pods(shop).Create(g.ctx, plain, metav1.CreateOptions{})
	g.must(err)
	g.meshed("no-node", func(pod *corev1.Pod, _ *corev1.Container) {
		pod.Spec.NodeName, pod.Annotations = "", map[string]string{userID: "4000"}
	})
	for _, c := range []struct {
		what, pod, by string
		change        map[string]any
		refused       bool
	}{
		{"takes it away", "named", "", annotated(userID, ""), true},
		{"takes it away by the status", "named", "status", annotated(userID, ""), true},
		{"changes it", "named", "", annotated(userID, "4002"), true},
		{"changes the group", "named", "status", annotated(groupID, "4002"), true},
		{"writes it in another way", "zeros", "", annotated(userID, "6000"), true},
		{"changes another annotation", "named", "", annotated("a", "b"), false},
		{"adds it", "meshed", "", annotated(userID, "4002"), false},
		{"and takes it away again", "meshed", "", annotated(userID, ""), true},
		{"of a pod without a sidecar", "no-sidecar", "", annotated(userID, ""), false},
		{"of a pod that has no node yet", "no-node", "", annotated(userID, ""), false},
	} {
		err := patch(g.editor, c.pod, c.by, c.change)
		if (err != nil) != c.refused || err != nil && !strings.Contains(err.Error(), "istio-pod-network-shared-user") {
			g.Errorf("a user %s: %v, want it refused: %t", c.what, err, c.refused)
		}
	}
}

// deletions tries which pods an agent may delete.
func (g *guarded) deletions() {
	g.Helper()
	yes, no := true, false
	for _, c := range []struct {
		what, node, owner string
		marks             map[string]string
		as                *kubernetes.Clientset
		words             string
	}{
		{"a pod of a controller", "a", "ReplicaSet", nil, g.agent, ""},
		{"one that was left untouched", "a", "ReplicaSet", map[string]string{status: "not-required"}, g.agent, "no mark"},
		{"one that is initialized", "a", "ReplicaSet", map[string]string{status: "initialized"}, g.agent, "no mark"},
		{"one that nobody makes again", "a", "", nil, g.agent, "a controller makes again"},
		{"one with an owner that is no controller", "a", "Observer", nil, g.agent, "a controller makes again"},
		{"one of more owners than are looked at", "a", "Crowd", nil, g.agent, "a controller makes again"},
		{"the image of a static pod", "a", "Node", nil, g.agent, "a controller makes again"},
		{"one of another node", "b", "ReplicaSet", nil, g.agent, "own node"},
		{"one of no node", "", "ReplicaSet", nil, g.agent, "own node"},
		{"by a token that is bound to no pod", "a", "ReplicaSet", nil, g.loose, "own node"},
		{"a user's business", "a", "", map[string]string{status: "initialized"}, g.editor, ""},
	} {
		pod := g.pod("doomed", c.node, nil)
		if c.owner != "" {
			pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: c.owner, Name: "x", UID: "u",
				Controller: &yes}}
		}
		switch c.owner {
		case "Observer":
			pod.OwnerReferences[0].Controller = &no
		case "Crowd":
			for i := range 100 {
				pod.OwnerReferences = append(pod.OwnerReferences, metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap",
					Name: fmt.Sprint("x", i), UID: types.UID(fmt.Sprint("u", i))})
			}
		}
		created, err := g.admin.CoreV1().Pods(shop).Create(g.ctx, pod, metav1.CreateOptions{})
		g.must(err)
		if c.marks != nil {
			data, _ := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": c.marks, "uid": created.UID}})
			_, err := g.agent.CoreV1().Pods(shop).Patch(g.ctx, "doomed", types.MergePatchType, data, metav1.PatchOptions{},
				"status")
			g.must(err)
		}
		now := int64(0)
		err = c.as.CoreV1().Pods(shop).Delete(g.ctx, "doomed", metav1.DeleteOptions{GracePeriodSeconds: &now})
		if c.words == "" && err != nil {
			g.Errorf("deleting %s: %v", c.what, err)
		}
		if c.words != "" {
			if err == nil || !strings.Contains(err.Error(), c.words) {
				g.Errorf("deleting %s: %v, want %q", c.what, err, c.words)
			}
			g.must(g.admin.CoreV1().Pods(shop).Delete(g.ctx, "doomed", metav1.DeleteOptions{GracePeriodSeconds: &now}))
		}
	}
}

// taints tries what an agent may do to nodes.
func (g *guarded) taints() {
	g.Helper()
	node, err := g.admin.CoreV1().Nodes().Get(g.ctx, "a", metav1.GetOptions{})
	g.must(err)
	others := slices.DeleteFunc(slices.Clone(node.Spec.Taints), func(t corev1.Taint) bool { return t.Key == taint })
	exchanged, taken := slices.Clone(node.ManagedFields), slices.Clone(node.ManagedFields)
	for i := range exchanged {
		exchanged[i].Manager += "-of-another"
	}
	taken[0].FieldsV1 = metav1.NewFieldsV1(`{"f:metadata": {"f:labels": {"f:zone": {}}}}`)
	given := append(slices.Clone(node.ManagedFields), metav1.ManagedFieldsEntry{Manager: "istio-pod-network-agent",
		Operation: metav1.ManagedFieldsOperationApply, APIVersion: "v1", FieldsType: "FieldsV1", FieldsV1: taken[0].FieldsV1})
	spec := func(key string, value any) map[string]any { return map[string]any{"spec": map[string]any{key: value}} }
	for _, c := range []struct {
		what   string
		as     *kubernetes.Clientset
		node   string
		change map[string]any
		words  string
	}{
		{"of another node", g.agent, "b", spec("taints", others), "own node"},
		{"by a token that is bound to no pod", g.loose, "a", spec("taints", others), "own node"},
		// While the startup taint is there, every other change by the agent is refused. So this removal comes first.
		{"the startup taint", g.agent, "a", spec("taints", others), ""},
		{"all taints", g.agent, "a", spec("taints", []any{}), "nothing else"},
		{"another taint", g.agent, "a",
			spec("taints", slices.DeleteFunc(slices.Clone(node.Spec.Taints),
				func(t corev1.Taint) bool { return t.Key == "other" })), "nothing else"},
		{"a label", g.agent, "a", meta("labels", map[string]any{"zone": "x"}), "nothing else"},
		{"an annotation", g.agent, "a", annotated("a", "b"), "nothing else"},
		{"a finalizer", g.agent, "a", meta("finalizers", []string{"example.com/stay"}), "nothing else"},
		{"an owner", g.agent, "a", meta("ownerReferences",
			[]any{map[string]any{"apiVersion": "v1", "kind": "Node", "name": "x", "uid": "u"}}), "nothing else"},
		{"the provider's ID", g.agent, "a", spec("providerID", "x"), "nothing else"},
		{"the addresses of pods", g.agent, "a", spec("podCIDRs", []string{"10.0.0.0/24"}), "nothing else"},
		{"cordon", g.agent, "a", spec("unschedulable", true), "nothing else"},
		{"managers", g.agent, "a", meta("managedFields", exchanged), "nothing but taints"},
		{"fields of one", g.agent, "a", meta("managedFields", taken), "nothing but taints"},
		{"one for another", g.agent, "a", meta("managedFields", given), "nothing but taints"},
		{"all managers", g.agent, "a", meta("managedFields", []any{map[string]any{}}), "nothing but taints"},
		{"a user's business", g.editor, "b", spec("unschedulable", true), ""},
	} {
		data, err := json.Marshal(c.change)
		g.must(err)
		_, err = c.as.CoreV1().Nodes().Patch(g.ctx, c.node, types.MergePatchType, data, metav1.PatchOptions{})
		if c.words == "" && err != nil {
			g.Errorf("%s: %v", c.what, err)
		}
		if c.words != "" && (err == nil || !strings.Contains(err.Error(), c.words)) {
			g.Errorf("%s: %v, want %q", c.what, err, c.words)
		}
	}
	nodes := g.agent.CoreV1().Nodes()
	_, err = nodes.Create(g.ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "c"}}, metav1.CreateOptions{})
	if err == nil || !strings.Contains(err.Error(), "own node") {
		g.Errorf("a node that an agent makes: %v", err)
	}
	state := []byte(`{"status": {"phase": "Running"}}`)
	if _, err := nodes.Patch(g.ctx, "a", types.MergePatchType, state, metav1.PatchOptions{}, "status"); err == nil ||
		!strings.Contains(err.Error(), "own node") {
		g.Errorf("a node's status that an agent writes: %v", err)
	}
}
