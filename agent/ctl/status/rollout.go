package status

import (
	"fmt"
	"strings"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	"github.com/istio-pod-network/controller/agent/ctl/output"
	appsv1 "k8s.io/api/apps/v1"
)

// Rollout is a DaemonSet that has not replaced all its agents yet. The old agents may still be well, but that says
// nothing about the new ones.
type Rollout struct {
	DaemonSet string `json:"daemonSet"` // NAMESPACE/NAME
	Desired   int32  `json:"desired"`   // nodes that should have an agent
	Updated   int32  `json:"updated"`   // nodes that have an agent of the present template
	// Unobserved says that the DaemonSet's controller has not seen its last change, so the numbers are old.
	Unobserved bool `json:"unobserved,omitempty"`
	byHand     bool // updateStrategy OnDelete: agents are replaced when somebody deletes them
}

// RolloutOf returns the rollout of a DaemonSet, nil if it is complete.
func RolloutOf(set appsv1.DaemonSet) *Rollout {
	r := Rollout{DaemonSet: set.Namespace + "/" + set.Name, Desired: set.Status.DesiredNumberScheduled,
		Updated: set.Status.UpdatedNumberScheduled, Unobserved: set.Status.ObservedGeneration < set.Generation,
		byHand: set.Spec.UpdateStrategy.Type == appsv1.OnDeleteDaemonSetStrategyType}
	if r.Unobserved || r.Updated < r.Desired {
		return &r
	}
	return nil
}

// Finding returns a finding about the rollout.
func (r Rollout) Finding() output.Finding {
	namespace, name, _ := strings.Cut(r.DaemonSet, "/")
	f := output.Finding{
		What: fmt.Sprintf("%d of %d agents are of the present release", r.Updated, r.Desired),
		Next: fmt.Sprintf("wait: kubectl -n %s rollout status daemonset %s; docs/operation.md, Upgrade while a node is "+
			"dead, if it does not end", namespace, name),
	}
	switch {
	case r.Unobserved:
		f.What = "it has been changed, and Kubernetes has not begun to replace its agents"
	case r.byHand:
		f.Next = fmt.Sprintf("its updateStrategy is OnDelete: delete the agents that are to be replaced, kubectl -n %s get "+
			"pods -l %s", namespace, cluster.OfAgents)
	}
	return f
}
