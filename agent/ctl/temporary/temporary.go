// Package temporary is shared by commands that create pods in the user's cluster: a namespace that is removed in the
// end, the choice of nodes, and progress.
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

// Pace has the pauses between two looks.
type Pace struct {
	Poll time.Duration
	Beat time.Duration // between two updates of the annotation that shows that the run is alive
}

// Late is the error that something has not come within that time.
type Late time.Duration

func (l Late) Error() string { return fmt.Sprintf("not within %s", time.Duration(l)) }

// longestNames is the largest number of bytes of names in an error.
const longestNames = 300

// Choose returns the names of the nodes that --nodes means: all for "", that many for a number, or the named ones.
// others says in an error what other nodes are.
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

// CheckNodes returns an error unless the flag is a number of nodes or has names.
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

// sample returns that many of the nodes, at least one of each kind if that is possible. Kinds differ in kernel, runtime
// and operating system.
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

// On makes a pod run on a node, whatever taints it has, like the agents.
func On(node string, spec *corev1.PodSpec) {
	spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchFields: []corev1.NodeSelectorRequirement{
				{Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{node}}},
		}}},
	}}
}
