package agent

import (
	"context"
	"slices"
	"sync"

	"github.com/istio-pod-network/controller/plugin/redirect"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// Annotations of static pods, https://kubernetes.io/docs/reference/labels-annotations-taints/#kubernetes-io-config-mirror.
const (
	keyMirror     = "kubernetes.io/config.mirror" // on the API server's image of a pod that the kubelet has from a file
	keyConfigHash = "kubernetes.io/config.hash"   // what the runtime and so the plugin has for the UID of such a pod
)

// byID indexes pods by what a record calls them.
const byID = "id"

// podCache has the pods of this node, trimmed to what is needed.
type podCache struct {
	informer cache.SharedIndexInformer

	mu   sync.Mutex
	next chan struct{} // closed at the next change
}

// newPodCache makes a cache that calls changed, with each of a pod's IDs, for every pod that comes, changes or goes.
func newPodCache(pods cache.ListerWatcher, changed func(id string)) (*podCache, error) {
	c := &podCache{
		informer: cache.NewSharedIndexInformer(pods, &corev1.Pod{}, 0, cache.Indexers{byID: func(object any) ([]string, error) {
			return podIDs(object.(*corev1.Pod)), nil
		}}),
		next: make(chan struct{}),
	}
	if err := c.informer.SetTransform(trim); err != nil {
		return nil, err
	}
	tell := func(object any) {
		if gone, ok := object.(cache.DeletedFinalStateUnknown); ok {
			object = gone.Obj
		}
		pod, ok := object.(*corev1.Pod)
		if !ok {
			return
		}
		for _, id := range podIDs(pod) {
			changed(id)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		close(c.next)
		c.next = make(chan struct{})
	}
	_, err := c.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: tell, UpdateFunc: func(_, object any) { tell(object) }, DeleteFunc: tell,
	})
	return c, err
}

// run lists and watches until the context ends.
func (c *podCache) run(ctx context.Context) { c.informer.RunWithContext(ctx) }

func (c *podCache) synced() bool { return c.informer.HasSynced() }

// changed returns a channel that is closed at the next change.
func (c *podCache) changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.next
}

// named returns the pod of that name, nil if there is none on this node.
func (c *podCache) named(namespace, name string) *corev1.Pod {
	object, exists, _ := c.informer.GetStore().GetByKey(namespace + "/" + name)
	if !exists {
		return nil
	}
	return object.(*corev1.Pod)
}

// withID returns the pod that a record is about, nil if it is not on this node, or not yet.
func (c *podCache) withID(id string) *corev1.Pod {
	objects, _ := c.informer.GetIndexer().ByIndex(byID, id)
	if len(objects) == 0 {
		return nil
	}
	return objects[0].(*corev1.Pod)
}

// all returns every pod.
func (c *podCache) all() []*corev1.Pod {
	var pods []*corev1.Pod
	for _, object := range c.informer.GetStore().List() {
		pods = append(pods, object.(*corev1.Pod))
	}
	return pods
}

// podIDs are what a record may call the pod: the UID that the runtime was given, or its name where it was given none.
func podIDs(pod *corev1.Pod) []string {
	ids := []string{string(pod.UID), pod.Namespace + "/" + pod.Name}
	if hash := pod.Annotations[keyConfigHash]; hash != "" {
		ids = append(ids, hash)
	}
	return ids
}

// isMirror reports whether the pod is the image of a static pod.
func isMirror(pod *corev1.Pod) bool {
	_, mirror := pod.Annotations[keyMirror]
	return mirror
}

// isOver reports whether the pod has no use for its network any more.
func isOver(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// keyLastApplied holds a second copy of the whole manifest, and means nothing to a mesh.
const keyLastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// trim returns the part of a pod that is looked at. With the rest, the memory would grow with what people write into pods.
func trim(object any) (any, error) {
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return object, nil
	}
	delete(pod.Annotations, keyLastApplied)
	small := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: pod.Name, Namespace: pod.Namespace, UID: pod.UID, ResourceVersion: pod.ResourceVersion,
			Labels: pod.Labels, Annotations: pod.Annotations, DeletionTimestamp: pod.DeletionTimestamp,
		},
		Spec: corev1.PodSpec{
			NodeName: pod.Spec.NodeName, HostNetwork: pod.Spec.HostNetwork,
			Containers: trimContainers(pod.Spec.Containers, false), InitContainers: trimContainers(pod.Spec.InitContainers, true),
		},
		Status: corev1.PodStatus{Phase: pod.Status.Phase, StartTime: pod.Status.StartTime},
	}
	if owner := metav1.GetControllerOfNoCopy(pod); owner != nil {
		small.OwnerReferences = []metav1.OwnerReference{*owner}
	}
	if s := pod.Spec.SecurityContext; s != nil {
		small.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: s.RunAsUser, RunAsGroup: s.RunAsGroup}
	}
	if len(pod.Status.PodIPs) > 0 {
		small.Status.PodIPs = pod.Status.PodIPs[:1:1]
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReadyToStartContainers {
			small.Status.Conditions = []corev1.PodCondition{{Type: c.Type, Status: c.Status, LastTransitionTime: c.LastTransitionTime}}
		}
	}
	for _, c := range pod.Status.ContainerStatuses {
		if user := trimUser(c.User); user != nil {
			small.Status.ContainerStatuses = append(small.Status.ContainerStatuses, corev1.ContainerStatus{Name: c.Name, User: user})
		}
	}
	for _, c := range pod.Status.InitContainerStatuses {
		i := slices.IndexFunc(pod.Spec.InitContainers, func(spec corev1.Container) bool { return spec.Name == c.Name })
		if i < 0 {
			continue
		}
		kept := corev1.ContainerStatus{Name: c.Name}
		if isSidecar(pod.Spec.InitContainers[i]) {
			kept.User = trimUser(c.User)
		}
		if isWait(pod.Spec.InitContainers[i]) {
			kept.State.Running = c.State.Running
			if ended := c.State.Terminated; ended != nil {
				kept.State.Terminated = &corev1.ContainerStateTerminated{ExitCode: ended.ExitCode}
			}
		}
		if kept.User != nil || kept.State.Running != nil || kept.State.Terminated != nil {
			small.Status.InitContainerStatuses = append(small.Status.InitContainerStatuses, kept)
		}
	}
	return small, nil
}

// trimUser keeps what the packet rules could go by.
func trimUser(user *corev1.ContainerUser) *corev1.ContainerUser {
	if user == nil || user.Linux == nil {
		return nil
	}
	return &corev1.ContainerUser{Linux: &corev1.LinuxContainerUser{UID: user.Linux.UID, GID: user.Linux.GID}}
}

func trimContainers(containers []corev1.Container, init bool) []corev1.Container {
	var small []corev1.Container
	for _, c := range containers {
		kept := corev1.Container{Name: c.Name, RestartPolicy: c.RestartPolicy}
		// Of other containers these are nobody's business here, and may be large or secret.
		proxy := c.Name == redirect.ProxyContainer
		if proxy || init {
			kept.Command, kept.Args = c.Command, c.Args
		}
		if proxy {
			kept.Env = c.Env
		}
		if s := c.SecurityContext; s != nil {
			kept.SecurityContext = &corev1.SecurityContext{
				RunAsUser: s.RunAsUser, RunAsGroup: s.RunAsGroup, Privileged: s.Privileged, Capabilities: s.Capabilities,
			}
		}
		small = append(small, kept)
	}
	return small
}
