package kube

import (
	"context"
	"encoding/json"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

// DaemonSet has the fields of a DaemonSet that the agent uses. The types of all of apps/v1 would make the program half
// as large again.
type DaemonSet struct {
	Metadata struct{ Generation int64 }
	Spec     struct {
		Selector struct{ MatchLabels map[string]string }
		Template corev1.PodTemplateSpec
	}
	Status struct {
		ObservedGeneration                                          int64
		DesiredNumberScheduled, UpdatedNumberScheduled, NumberReady int
	}
}

// Done reports whether the DaemonSet's present template is on every node, and its pods are ready.
func (d DaemonSet) Done() bool {
	return d.Status.ObservedGeneration >= d.Metadata.Generation &&
		d.Status.UpdatedNumberScheduled == d.Status.DesiredNumberScheduled &&
		d.Status.NumberReady == d.Status.DesiredNumberScheduled
}

// DaemonSet reads a DaemonSet.
func (c *Client) DaemonSet(ctx context.Context, namespace, name string) (d DaemonSet, err error) {
	data, err := do(ctx, onDaemonSet(c.core.Get(), namespace, name)).Raw()
	if err == nil {
		err = json.Unmarshal(data, &d)
	}
	return d, err
}

// PatchDaemonSet sends a strategic merge patch of a DaemonSet.
func (c *Client) PatchDaemonSet(ctx context.Context, namespace, name string, patch []byte) error {
	return do(ctx, onDaemonSet(c.core.Patch(types.StrategicMergePatchType), namespace, name).Body(patch)).Error()
}

func onDaemonSet(r *rest.Request, namespace, name string) *rest.Request {
	return r.AbsPath("/apis/apps/v1/namespaces", namespace, "daemonsets", name).SetHeader("Accept", "application/json")
}

// PodsWith lists the pods in a namespace that have those labels.
func (c *Client) PodsWith(ctx context.Context, namespace string, having map[string]string) ([]corev1.Pod, error) {
	var pods corev1.PodList
	err := do(ctx, c.core.Get().Namespace(namespace).Resource(podsResource.Resource).
		Param("labelSelector", labels.SelectorFromSet(having).String())).Into(&pods)
	return pods.Items, err
}
