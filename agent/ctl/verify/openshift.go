package verify

import (
	"context"
	"fmt"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Of OpenShift: the annotation by which a pod says which SecurityContextConstraints it is for, those that everybody may
// use, and the annotation of the users that a namespace is given, a moment after it is made. Without the first, pods of
// an administrator are admitted by those with the highest priority, which give other users. Source: "Managing security
// context constraints" of OpenShift's documentation.
const (
	requiredConstraints = "openshift.io/required-scc"
	restrictedV2        = "restricted-v2"
	rangeOfUsers        = "openshift.io/sa.scc.uid-range"
)

// constraintsOf are those for pods of verify, "" where the agents are not installed for OpenShift: there they name
// theirs.
func constraintsOf(agents appsv1.DaemonSet) string {
	if agents.Spec.Template.Annotations[requiredConstraints] == "" {
		return ""
	}
	return restrictedV2
}

// awaitRange waits until the platform has given the namespace its users: before that it admits no pod.
func (v *verifier) awaitRange(ctx context.Context) error {
	for {
		n, err := v.core.Namespaces().Get(ctx, Namespace, metav1.GetOptions{})
		if err == nil && n.Annotations[rangeOfUsers] != "" {
			return nil
		}
		if !cluster.Pause(ctx, v.pace.Poll) {
			return fmt.Errorf("namespace %s has no annotation %s, which OpenShift gives each: %w", Namespace, rangeOfUsers,
				context.Cause(ctx))
		}
	}
}
