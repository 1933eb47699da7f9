package verify

import (
	"context"
	"fmt"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// OpenShift's names. requiredConstraints is the annotation with which a pod requires certain
// SecurityContextConstraints, and restrictedV2 names those that everybody may use. Without that annotation, pods of an
// administrator are admitted by the constraints with the highest priority, which set other users. rangeOfUsers is the
// annotation with the users of a namespace, which the platform adds shortly after its creation. Source: "Managing
// security context constraints" in OpenShift's documentation.
const (
	requiredConstraints = "openshift.io/required-scc"
	restrictedV2        = "restricted-v2"
	rangeOfUsers        = "openshift.io/sa.scc.uid-range"
)

// constraintsOf returns the constraints for verify's pods, "" if the agents are not installed for OpenShift. There the
// agents require theirs.
func constraintsOf(agents appsv1.DaemonSet) string {
	if agents.Spec.Template.Annotations[requiredConstraints] == "" {
		return ""
	}
	return restrictedV2
}

// awaitRange waits until the platform has assigned users to the namespace: before that it admits no pod.
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
