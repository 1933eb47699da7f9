package cluster

import (
	"maps"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestWants(t *testing.T) {
	node := corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-a",
		Labels: map[string]string{"kubernetes.io/os": "linux", "generation": "7"}}}
	term := func(key string, operator corev1.NodeSelectorOperator, values ...string) corev1.NodeSelectorTerm {
		return corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{
			{Key: key, Operator: operator, Values: values}}}
	}
	name := corev1.NodeSelectorTerm{MatchFields: []corev1.NodeSelectorRequirement{
		{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{"node-a"}}}}
	for _, test := range []struct {
		terms []corev1.NodeSelectorTerm
		want  bool
	}{
		{[]corev1.NodeSelectorTerm{term("kubernetes.io/os", corev1.NodeSelectorOpIn, "linux", "x")}, true},
		{[]corev1.NodeSelectorTerm{term("kubernetes.io/os", corev1.NodeSelectorOpNotIn, "linux")}, false},
		{[]corev1.NodeSelectorTerm{term("virtual", corev1.NodeSelectorOpDoesNotExist)}, true},
		{[]corev1.NodeSelectorTerm{term("virtual", corev1.NodeSelectorOpExists)}, false},
		{[]corev1.NodeSelectorTerm{term("generation", corev1.NodeSelectorOpGt, "6")}, true},
		{[]corev1.NodeSelectorTerm{term("virtual", corev1.NodeSelectorOpExists), name}, true},
		{[]corev1.NodeSelectorTerm{{}}, false}, // an empty term selects nothing
	} {
		var set appsv1.DaemonSet
		set.Spec.Template.Spec.NodeSelector = map[string]string{"kubernetes.io/os": "linux"}
		set.Spec.Template.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: test.terms}}}
		if got := Wants(set, node); got != test.want {
			t.Errorf("%v: %t", test.terms, got)
		}
		labels := maps.Clone(node.Labels)
		delete(node.Labels, "kubernetes.io/os")
		if Wants(set, node) {
			t.Errorf("%v: the selector is not looked at", test.terms)
		}
		node.Labels = labels
	}
}
