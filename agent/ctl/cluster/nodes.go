package cluster

import (
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// Wants reports whether a DaemonSet's pods should run on a node, by its node selector and affinity. It ignores taints,
// because the agents tolerate all of them.
func Wants(set appsv1.DaemonSet, node corev1.Node) bool {
	spec := set.Spec.Template.Spec
	if !labels.SelectorFromSet(spec.NodeSelector).Matches(labels.Set(node.Labels)) {
		return false
	}
	if spec.Affinity == nil || spec.Affinity.NodeAffinity == nil ||
		spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return true
	}
	terms := spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	return slices.ContainsFunc(terms, func(term corev1.NodeSelectorTerm) bool { return matches(term, node) })
}

// operators converts the operators of node affinity into those of label selectors.
var operators = map[corev1.NodeSelectorOperator]selection.Operator{
	corev1.NodeSelectorOpIn: selection.In, corev1.NodeSelectorOpNotIn: selection.NotIn,
	corev1.NodeSelectorOpExists: selection.Exists, corev1.NodeSelectorOpDoesNotExist: selection.DoesNotExist,
	corev1.NodeSelectorOpGt: selection.GreaterThan, corev1.NodeSelectorOpLt: selection.LessThan,
}

// matches reports whether a node has everything in a term. The only field of a node is its name.
func matches(term corev1.NodeSelectorTerm, node corev1.Node) bool {
	holds := func(of labels.Set) func(corev1.NodeSelectorRequirement) bool {
		return func(r corev1.NodeSelectorRequirement) bool {
			requirement, err := labels.NewRequirement(r.Key, operators[r.Operator], r.Values)
			return err == nil && requirement.Matches(of)
		}
	}
	fails := func(requirements []corev1.NodeSelectorRequirement, of labels.Set) bool {
		return slices.ContainsFunc(requirements, func(r corev1.NodeSelectorRequirement) bool { return !holds(of)(r) })
	}
	return len(term.MatchExpressions)+len(term.MatchFields) > 0 && !fails(term.MatchExpressions, node.Labels) &&
		!fails(term.MatchFields, labels.Set{"metadata.name": node.Name})
}
