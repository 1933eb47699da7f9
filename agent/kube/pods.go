package kube

import (
	"sync"

	"github.com/istio-pod-network/controller/plugin/redirect"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
)

// Annotations of static pods,
// https://kubernetes.io/docs/reference/labels-annotations-taints/#kubernetes-io-config-mirror.
const (
	KeyMirror     = "kubernetes.io/config.mirror" // on the mirror pod of a static pod
	KeyConfigHash = "kubernetes.io/config.hash"   // the UID that the runtime, and so the plugin, has for a static pod
)

// byID is the name of the index of pods by IDs.
const byID = "id"

// Pods is a cache of the pods of this node. It keeps only what is needed of each.
type Pods struct {
	Cache
	gid     redirect.ID // the sidecar's group, if a pod sets none
	before  befores
	singles singles

	mu   sync.Mutex
	next chan struct{} // closed at the next change
}

// NewPods returns a cache of the pods that source lists and watches. It calls changed for every pod that is added,
// changed or deleted, once with each of the pod's IDs. gid is the sidecar's group, if a pod sets none.
func NewPods(source cache.ListerWatcher, gid redirect.ID, changed func(id string)) (*Pods, error) {
	byIDs := cache.Indexers{byID: func(object any) ([]string, error) { return IDs(object.(*corev1.Pod)), nil }}
	kept, err := newCache(source, &corev1.Pod{}, byIDs, func(pod *corev1.Pod) *corev1.Pod { return keep(pod, gid) })
	if err != nil {
		return nil, err
	}
	c := &Pods{Cache: kept, gid: gid, next: make(chan struct{}), before: befores{pods: map[types.UID]*before{}},
		singles: singles{pods: map[types.UID]single{}}}
	tell := func(object any, exists bool) {
		if gone, ok := object.(cache.DeletedFinalStateUnknown); ok {
			object = gone.Obj
		}
		pod, ok := object.(*corev1.Pod)
		if !ok {
			return
		}
		c.singles.drop(pod.UID)
		if exists {
			c.before.see(pod)
		} else {
			c.before.forget(pod.UID)
		}
		for _, id := range IDs(pod) {
			changed(id)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		close(c.next)
		c.next = make(chan struct{})
	}
	_, err = c.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { tell(object, true) },
		UpdateFunc: func(_, object any) { tell(object, true) },
		DeleteFunc: func(object any) { tell(object, false) },
	})
	return c, err
}

// Changed returns a channel that is closed at the next change.
func (c *Pods) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.next
}

// Named returns the pod of that name, nil if this node has none.
func (c *Pods) Named(namespace, name string) *corev1.Pod {
	object, exists, _ := c.informer.GetStore().GetByKey(namespace + "/" + name)
	if !exists {
		return nil
	}
	return object.(*corev1.Pod)
}

// WithID returns the pod with an ID from a record, nil if it is not on this node, or not known yet. A pod whose UID is
// id takes precedence over a mirror pod whose hash is id, because anybody may write that annotation.
func (c *Pods) WithID(id string) *corev1.Pod {
	objects, _ := c.informer.GetIndexer().ByIndex(byID, id)
	var found *corev1.Pod
	for _, object := range objects {
		if pod := object.(*corev1.Pod); found == nil || string(pod.UID) == id {
			found = pod
		}
	}
	return found
}

// All returns every pod.
func (c *Pods) All() []*corev1.Pod {
	var pods []*corev1.Pod
	for _, object := range c.informer.GetStore().List() {
		pods = append(pods, object.(*corev1.Pod))
	}
	return pods
}

// IDs returns the IDs by which a record may name the pod: its UID, its NAMESPACE/NAME, and the hash of a static pod.
func IDs(pod *corev1.Pod) []string {
	ids := []string{string(pod.UID), pod.Namespace + "/" + pod.Name}
	if hash := staticHash(pod); hash != "" {
		ids = append(ids, hash)
	}
	return ids
}

// IsMeant reports whether the pod is the one for which the runtime has that UID. For a static pod the runtime has the
// hash, and the pod here is its mirror pod. Some runtimes pass no UID.
func IsMeant(pod *corev1.Pod, uid string) bool {
	return uid == "" || uid == string(pod.UID) || uid == staticHash(pod)
}

// staticHash returns the UID that the runtime has for a static pod, if the pod is its mirror pod; otherwise "". The
// annotation is no proof, because anybody may write it. A mirror pod is created by the kubelet and owned by its Node
// (https://kubernetes.io/docs/tasks/configure-pod-container/static-pod/).
func staticHash(pod *corev1.Pod) string {
	owner := metav1.GetControllerOfNoCopy(pod)
	if !IsMirror(pod) || owner == nil || owner.APIVersion != "v1" || owner.Kind != "Node" ||
		owner.Name != pod.Spec.NodeName {
		return ""
	}
	return pod.Annotations[KeyConfigHash]
}

// IsMirror reports whether the pod has the annotation of a mirror pod.
func IsMirror(pod *corev1.Pod) bool {
	_, mirror := pod.Annotations[KeyMirror]
	return mirror
}

// IsOver reports whether the pod has ended or is being deleted, so that it does not need its network any more.
func IsOver(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}
