package chart

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// many tries pods with many annotations. One with the largest allowed number is marked. One with more is refused before
// they are compared. The test prints the times.
func (g *guarded) many() {
	g.Helper()
	const tooMany = "more than 1000 annotations"
	for _, c := range []struct {
		count int
		words string
	}{{997, ""}, {998, tooMany}, {1001, tooMany}, {15000, tooMany}} {
		annotations := map[string]string{}
		for i := range c.count {
			annotations[fmt.Sprint("a", i)] = ""
		}
		name := fmt.Sprint("many-", c.count)
		g.create(g.editor, name, "a", annotations)
		start := time.Now()
		err := patch(g.agent, name, "status", annotated(status, "initialized", netns, "b/1/1", reason, "x"))
		if (err == nil) != (c.words == "") || err != nil && !strings.Contains(err.Error(), c.words) {
			g.Errorf("%d annotations: %v, want %q", c.count, err, c.words)
		}
		if t, ok := g.TB.(*testing.T); ok {
			t.Logf("a pod with %d annotations: the mark took %v", c.count, time.Since(start).Round(time.Millisecond))
		}
	}
	none := map[string]any{"metadata": map[string]any{"annotations": nil}}
	if err := patch(g.agent, "many-15000", "status", none); err == nil ||
		!strings.Contains(err.Error(), tooMany) {
		g.Errorf("taking 15000 annotations away: %v", err)
	}
}

// kept tries what the agent's patch cannot change, either because of the policy or because of the subresource: the
// specification, the owners, and the managers of fields.
func (g *guarded) kept() {
	g.Helper()
	get := func() *corev1.Pod {
		pod, err := g.admin.CoreV1().Pods(shop).Get(g.ctx, "on-a", metav1.GetOptions{})
		g.must(err)
		return pod
	}
	before := get()
	exchanged := slices.Clone(before.ManagedFields)
	for i := range exchanged {
		exchanged[i].Manager += "-of-another"
	}
	taken := slices.Clone(before.ManagedFields)
	taken[0].FieldsV1 = metav1.NewFieldsV1(`{"f:metadata": {"f:labels": {"f:app": {}}}}`)
	for what, change := range map[string]map[string]any{
		"a deadline": {"spec": map[string]any{"activeDeadlineSeconds": 5}},
		"an owner": meta("ownerReferences", []any{map[string]any{"apiVersion": "v1", "kind": "Node", "name": "x",
			"uid": "u"}}),
		"no managers": meta("managedFields", []any{}), "an empty one": meta("managedFields", []any{map[string]any{}}),
		"nothing of them": meta("managedFields", nil), "others": meta("managedFields", exchanged),
		"fewer fields of one": meta("managedFields", taken),
	} {
		err := patch(g.agent, "on-a", "status", change)
		after := get()
		if after.Spec.ActiveDeadlineSeconds != nil || len(after.OwnerReferences) != len(before.OwnerReferences) ||
			!equality.Semantic.DeepEqual(after.ManagedFields, before.ManagedFields) {
			g.Errorf("%s changed the pod (%v): managed by\n%v, before by\n%v", what, err, after.ManagedFields,
				before.ManagedFields)
		}
	}
}

func meta(key string, value any) map[string]any {
	return map[string]any{"metadata": map[string]any{key: value}}
}

// manages tries which fields an agent may manage, and who may have managed them before it marks a pod.
func (g *guarded) manages() {
	g.Helper()
	entry := func(name string, operation metav1.ManagedFieldsOperationType, fields string) metav1.ManagedFieldsEntry {
		return metav1.ManagedFieldsEntry{Manager: name, Operation: operation, APIVersion: "v1", FieldsType: "FieldsV1",
			FieldsV1: metav1.NewFieldsV1(fields)}
	}
	managed := func(name string, managers ...metav1.ManagedFieldsEntry) {
		g.create(g.admin, name, "a", map[string]string{"a": "b"})
		g.must(patch(g.editor, name, "", meta("managedFields", managers))) // a new pod must have none
	}
	const label = `{"f:metadata": {"f:labels": {"f:app": {}}}}`
	managed("copy", entry("cart", metav1.ManagedFieldsOperationApply, `{"f:metadata": {"f:annotations": {"f:a": {}, `+
		`"f:`+status+`": {}}, "f:labels": {"f:app": {}}}}`),
		entry("marks", metav1.ManagedFieldsOperationUpdate, `{"f:metadata": {"f:annotations": {"f:`+netns+`": {}}}}`))
	var ten, crowd []metav1.ManagedFieldsEntry
	for i := range 10 {
		ten = append(ten, entry(fmt.Sprint("m", i), metav1.ManagedFieldsOperationUpdate, label))
	}
	for i := range 31 {
		crowd = append(crowd, entry(fmt.Sprint("m", i), metav1.ManagedFieldsOperationApply, label))
	}
	managed("ten", ten...)
	managed("crowd", crowd...)
	mark := annotated(status, "initialized", netns, "b/1/1")
	labelled := map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{
		"labels": map[string]any{"app": "cart"}, "annotations": map[string]any{status: "initialized"}}}
	applied := map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{
		"annotations": map[string]any{status: "initialized"}}}
	for _, c := range []struct {
		what, pod string
		as        types.PatchType
		manager   string
		change    map[string]any
		words     string
	}{
		{"where a copy's managers had marks", "copy", types.MergePatchType, "", mark, ""},
		{"where ten have updated, of which the API server merges the oldest", "ten", types.MergePatchType, "", mark, ""},
		{"where a crowd has set fields", "crowd", types.MergePatchType, "", mark, "more than 30 managers"},
		{"as another manager", "noted", types.MergePatchType, "kubelet", mark, "manages nothing but its marks"},
		{"and a label, which stays as it is", "noted", types.ApplyPatchType, "istio-pod-network-agent", labelled,
			"manages nothing but its marks"},
		{"by application", "noted", types.ApplyPatchType, "istio-pod-network-agent", applied,
			"manages nothing but its marks"},
		{"as it does", "noted", types.MergePatchType, "istio-pod-network-agent", mark, ""},
	} {
		data, err := json.Marshal(c.change)
		g.must(err)
		options := metav1.PatchOptions{FieldManager: c.manager}
		if c.as == types.ApplyPatchType {
			options.Force = new(true)
		}
		_, err = g.agent.CoreV1().Pods(shop).Patch(g.ctx, c.pod, c.as, data, options, "status")
		if (err == nil) != (c.words == "") || err != nil && !strings.Contains(err.Error(), c.words) {
			g.Errorf("the agent marks %s: %v, want %q", c.what, err, c.words)
		}
	}
	pod, err := g.admin.CoreV1().Pods(shop).Get(g.ctx, "copy", metav1.GetOptions{})
	g.must(err)
	if !slices.ContainsFunc(pod.ManagedFields, func(e metav1.ManagedFieldsEntry) bool {
		return e.Manager == "cart" && strings.Contains(e.FieldsV1.GetRawString(), `"f:a"`) &&
			!strings.Contains(e.FieldsV1.GetRawString(), status)
	}) {
		g.Errorf("the copy is managed by %v", pod.ManagedFields)
	}
}
