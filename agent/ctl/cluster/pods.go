package cluster

import (
	"context"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
)

// Pod returns a pod. It needs the verb get on pods.
func (c *Cluster) Pod(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	return c.Core.Pods(namespace).Get(ctx, name, metav1.GetOptions{})
}

// mostNames is the largest number of names that a shell is offered.
const mostNames = 500

// PodNames returns the names of a namespace's pods, at most as many as a shell is offered. It needs the verb list on
// pods.
func (c *Cluster) PodNames(ctx context.Context, namespace string) (names []string, err error) {
	list, err := c.Core.Pods(namespace).List(ctx, metav1.ListOptions{Limit: mostNames})
	if err != nil {
		return nil, err
	}
	for _, pod := range list.Items {
		names = append(names, pod.Name)
	}
	return names, nil
}

// NamespaceNames returns the names of namespaces, at most as many. It needs the verb list on namespaces.
func (c *Cluster) NamespaceNames(ctx context.Context) (names []string, err error) {
	list, err := c.Core.Namespaces().List(ctx, metav1.ListOptions{Limit: mostNames})
	if err != nil {
		return nil, err
	}
	for _, namespace := range list.Items {
		names = append(names, namespace.Name)
	}
	return names, nil
}

// NodeNames returns the names of nodes, at most as many. It needs the verb list on nodes.
func (c *Cluster) NodeNames(ctx context.Context) (names []string, err error) {
	list, err := c.Core.Nodes().List(ctx, metav1.ListOptions{Limit: mostNames})
	if err != nil {
		return nil, err
	}
	for _, node := range list.Items {
		names = append(names, node.Name)
	}
	return names, nil
}

// AgentOn returns the agent's pod on a node, nil if there is none. If there are two, it returns the one that is not
// being deleted. It needs the verb list on pods in the agents' namespace, or in all namespaces for "".
func (c *Cluster) AgentOn(ctx context.Context, namespace, node string) (*corev1.Pod, error) {
	list, err := c.Core.Pods(namespace).List(ctx, metav1.ListOptions{
		LabelSelector: OfAgents, FieldSelector: fields.OneTermEqualSelector("spec.nodeName", node).String(),
	})
	if err != nil {
		return nil, err
	}
	var found *corev1.Pod
	for i := range list.Items {
		if pod := &list.Items[i]; found == nil || found.DeletionTimestamp != nil {
			found = pod
		}
	}
	return found, nil
}

// NamespaceNamed returns a namespace. It needs the verb get on namespaces.
func (c *Cluster) NamespaceNamed(ctx context.Context, name string) (*corev1.Namespace, error) {
	return c.Core.Namespaces().Get(ctx, name, metav1.GetOptions{})
}

// ConfigMap returns a ConfigMap. It needs the verb get on configmaps.
func (c *Cluster) ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	return c.Core.ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
}

// configHash is the annotation of a mirror pod with the UID that the kubelet has for the static pod.
const configHash = "kubernetes.io/config.hash"

// EventsOf returns the Events about a pod, but not those about another pod of that name. It needs the verb list on
// events.
func (c *Cluster) EventsOf(ctx context.Context, pod *corev1.Pod) (events []corev1.Event, err error) {
	about := fields.Set{"involvedObject.kind": "Pod", "involvedObject.name": pod.Name}
	list, err := c.Core.Events(pod.Namespace).List(ctx, metav1.ListOptions{FieldSelector: about.AsSelector().String()})
	if err != nil {
		return nil, err
	}
	for _, e := range list.Items {
		if uid := e.InvolvedObject.UID; uid == pod.UID || string(uid) == pod.Annotations[configHash] {
			events = append(events, e)
		}
	}
	return events, nil
}

// MutatingWebhooks returns the configurations of all mutating webhooks. It needs the verb list on
// mutatingwebhookconfigurations.
func (c *Cluster) MutatingWebhooks(ctx context.Context) ([]admissionv1.MutatingWebhookConfiguration, error) {
	list, err := c.Admission.MutatingWebhookConfigurations().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

// LacksImage reports whether the kubelet's reason says that a container waits for an image that it cannot get
// (pkg/kubelet/images/types.go).
func LacksImage(reason string) bool {
	switch reason {
	case "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable",
		"SignatureValidationFailed", "ImageInspectError":
		return true
	}
	return false
}
