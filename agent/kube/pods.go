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
	KeyMirror     = "kubernetes.io/config.mirror" // on the API server's image of a pod that the kubelet has from a file
	KeyConfigHash = "kubernetes.io/config.hash"   // what the runtime and so the plugin has for the UID of such a pod
)

// byID indexes pods by what a record calls them.
const byID = "id"

// Pods has the pods of this node, trimmed to what is needed.
type Pods struct {
	Cache
	gid     redirect.ID // the sidecar's, where a pod names none
	before  befores
	singles singles

	mu   sync.Mutex
	next chan struct{} // closed at the next change
}

// NewPods makes a cache of the pods that source lists and watches. It calls changed, with each of a pod's IDs, for
// every pod that comes, changes or goes. gid is the sidecar's group where a pod names none.
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

// Named returns the pod of that name, nil if there is none on this node.
func (c *Pods) Named(namespace, name string) *corev1.Pod {
	object, exists, _ := c.informer.GetStore().GetByKey(namespace + "/" + name)
	if !exists {
		return nil
	}
	return object.(*corev1.Pod)
}

// WithID returns the pod that a record is about, nil if it is not on this node, or not yet. The one whose UID it is
// comes before the image of a static pod, whose hash is an annotation that anybody may write.
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

// IDs are what a record may call the pod: the UID that the runtime was given, or its name where it was given none.
func IDs(pod *corev1.Pod) []string {
	ids := []string{string(pod.UID), pod.Namespace + "/" + pod.Name}
	if hash := staticHash(pod); hash != "" {
		ids = append(ids, hash)
	}
	return ids
}

// IsMeant reports whether the pod is the one with that UID. The runtime knows a static pod by its hash; the UID is that
// of its image. Some runtimes give none.
func IsMeant(pod *corev1.Pod, uid string) bool {
	return uid == "" || uid == string(pod.UID) || uid == staticHash(pod)
}

// staticHash is what the runtime has for the UID of a static pod, whose image the pod is; "" of any other pod: the
// annotation alone proves nothing. The kubelet makes such an image, which its node owns
// (https://kubernetes.io/docs/tasks/configure-pod-container/static-pod/).
func staticHash(pod *corev1.Pod) string {
	owner := metav1.GetControllerOfNoCopy(pod)
	if !IsMirror(pod) || owner == nil || owner.APIVersion != "v1" || owner.Kind != "Node" ||
		owner.Name != pod.Spec.NodeName {
		return ""
	}
	return pod.Annotations[KeyConfigHash]
}

// IsMirror reports whether the pod is the image of a static pod.
func IsMirror(pod *corev1.Pod) bool {
	_, mirror := pod.Annotations[KeyMirror]
	return mirror
}

// IsOver reports whether the pod has no use for its network any more.
func IsOver(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}
