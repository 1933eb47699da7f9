// Package temporary has what the commands share that make pods of their own in their user's cluster: a namespace that
// is gone in the end, the choice of nodes, and what is told meanwhile.
package temporary

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/internal/excerpt"
	"github.com/istio-pod-network/controller/internal/invalid"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Pace is how long is waited between two looks.
type Pace struct {
	Poll time.Duration
	Beat time.Duration // of the namespace, which says that its run is alive
}

// Late is the error of what has not come within its time.
type Late time.Duration

func (l Late) Error() string { return fmt.Sprintf("not within %s", time.Duration(l)) }

// longestNames is how many bytes of names an error has.
const longestNames = 300

// Choose returns the names of the nodes that a flag --nodes means: all for "", so many for a number, or those that it
// names. others says in an error what a node is that is not among them.
func Choose(flag string, nodes []corev1.Node, others string) (names []string, err error) {
	for _, n := range nodes {
		names = append(names, n.Name)
	}
	if flag == "" {
		return names, nil
	}
	if count, err := strconv.Atoi(flag); err == nil && !slices.Contains(names, flag) {
		return sample(nodes, count), nil
	}
	chosen := strings.Split(flag, ",")
	slices.Sort(chosen)
	for _, name := range chosen {
		if !slices.Contains(names, name) {
			return nil, outcome.Misuse(invalid.Text("--nodes", name, others,
				"a number, or some of "+excerpt.Head(strings.Join(names, ","), longestNames)))
		}
	}
	return slices.Compact(chosen), nil
}

// CheckNodes returns an error for what is neither a number of nodes nor names.
func CheckNodes(flag string) error {
	if flag == "0" || strings.HasPrefix(flag, "-") {
		return outcome.Misuse(invalid.Text("--nodes", flag, "", "a number from 1 on, or names of nodes"))
	}
	for name := range strings.SplitSeq(flag, ",") {
		if err := cluster.CheckNode("--nodes", name); err != nil && flag != "" {
			return outcome.Misuse(err)
		}
	}
	return nil
}

// sample returns so many of the nodes, of each kind at least one where there are enough: what differs is kernel,
// runtime and operating system.
func sample(nodes []corev1.Node, count int) (names []string) {
	kinds := map[string][]string{}
	var order []string
	for _, n := range nodes {
		i := n.Status.NodeInfo
		kind := fmt.Sprint(i.KernelVersion, " ", i.ContainerRuntimeVersion, " ", i.OSImage, " ", i.Architecture)
		if kinds[kind] == nil {
			order = append(order, kind)
		}
		kinds[kind] = append(kinds[kind], n.Name)
	}
	for round := 0; len(names) < min(count, len(nodes)); round++ {
		for _, kind := range order {
			if round < len(kinds[kind]) && len(names) < count {
				names = append(names, kinds[kind][round])
			}
		}
	}
	slices.Sort(names)
	return names
}

// On has a pod be put on a node, whatever taint that has, as agents are.
func On(node string, spec *corev1.PodSpec) {
	spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchFields: []corev1.NodeSelectorRequirement{
				{Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{node}}},
		}}},
	}}
}
