package kube

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

// DaemonSet is what is looked at of one. The types of all of apps/v1 would make the program half as big again.
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

// Done reports whether every node has what the DaemonSet says now, and says so.
func (d DaemonSet) Done() bool {
	s := d.Status
	return s.ObservedGeneration >= d.Metadata.Generation && s.UpdatedNumberScheduled == s.DesiredNumberScheduled &&
		s.NumberReady == s.DesiredNumberScheduled
}

// DaemonSet reads one.
func (c *Client) DaemonSet(ctx context.Context, namespace, name string) (d DaemonSet, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	data, err := onDaemonSet(c.core.Get(), namespace, name).Do(ctx).Raw()
	if err == nil {
		err = json.Unmarshal(data, &d)
	}
	return d, err
}

// PatchDaemonSet sends a strategic merge patch.
func (c *Client) PatchDaemonSet(ctx context.Context, namespace, name string, patch []byte) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return onDaemonSet(c.core.Patch(types.StrategicMergePatchType), namespace, name).Body(patch).Do(ctx).Error()
}

func onDaemonSet(r *rest.Request, namespace, name string) *rest.Request {
	path := fmt.Sprintf("/apis/apps/v1/namespaces/%s/daemonsets/%s", namespace, name)
	return r.AbsPath(path).SetHeader("Accept", "application/json")
}

// PodsWith lists the pods of a namespace that have those labels.
func (c *Client) PodsWith(ctx context.Context, namespace string, having map[string]string) ([]corev1.Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	var pods corev1.PodList
	err := c.core.Get().Namespace(namespace).Resource(podsResource.Resource).
		Param("labelSelector", labels.SelectorFromSet(having).String()).Do(ctx).Into(&pods)
	return pods.Items, err
}
