// Package agenttest has pods, records and an API server in memory, for the tests of the agent's packages.
package agenttest

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/agent/kube"
	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"github.com/sirupsen/logrus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	source "k8s.io/client-go/tools/cache/testing"
)

// Boot is the boot ID in every record.
const Boot = "5e7c1c9d-boot"

// Quiet returns a log that discards everything.
func Quiet() *logrus.Logger {
	log := logrus.New()
	log.SetOutput(io.Discard)
	return log
}

// MeshPod returns a pod with a sidecar from Istio's injector, about which the agent has nothing to report.
func MeshPod(name string) *corev1.Pod {
	restricted := &corev1.SecurityContext{AllowPrivilegeEscalation: new(false)}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: name, UID: types.UID("uid-of-" + name),
			Annotations: map[string]string{annotation.SidecarStatus: "{}"},
		},
		Spec: corev1.PodSpec{
			NodeName:   "node",
			Containers: []corev1.Container{{Name: "app", SecurityContext: restricted}, {Name: redirect.ProxyContainer}},
		},
	}
}

// StaticPod returns the mirror pod of a static mesh pod.
func StaticPod(name, hash string) *corev1.Pod {
	pod := MeshPod(name)
	pod.Annotations[kube.KeyMirror], pod.Annotations[kube.KeyConfigHash] = hash, hash
	pod.OwnerReferences = []metav1.OwnerReference{
		{APIVersion: "v1", Kind: "Node", Name: pod.Spec.NodeName, UID: "uid-of-node", Controller: new(true)},
	}
	return pod
}

// Running returns a mesh pod that has just started and has an IP address.
func Running(name string) *corev1.Pod {
	pod := MeshPod(name)
	start := metav1.Now()
	pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, StartTime: &start, PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}}}
	return pod
}

// RecordFor returns the plugin's record of the pod's sandbox. netns is the inode and the cookie of its network
// namespace, "INODE/COOKIE".
func RecordFor(pod *corev1.Pod, netns string) record.Record {
	return record.Record{
		Version: record.Version, Network: "net", IfName: "eth0", ContainerID: "c" + netns, PodUID: string(pod.UID),
		Namespace: pod.Namespace, Name: pod.Name, NetNS: record.NetNS(Boot + "/" + netns),
		Decision: record.Redirect, Reason: "injected", Backend: "nftables", Time: time.Now(),
		RuleSetHash: redirect.DefaultSpec().RuleSet().Hash(), Spec: []byte(`{}`),
	}
}

// Pods returns a cache of the pods, and the source that feeds it. It waits until the cache is synced.
func Pods(t testing.TB, changed func(id string), pods ...*corev1.Pod) (*kube.Pods, *source.FakeControllerSource) {
	t.Helper()
	from := source.NewFakeControllerSource()
	for _, pod := range pods {
		from.Add(pod)
	}
	c, err := kube.NewPods(from, redirect.DefaultSpec().ProxyGID, changed)
	await.Must(t, err)
	run(t, "pods", c.Run, c.Synced)
	return c, from
}

// Namespaces returns a cache of the named namespaces, without annotations. It asks read for other namespaces.
func Namespaces(
	t testing.TB, read func(context.Context, string) (map[string]string, error), names ...string,
) *kube.Namespaces {
	t.Helper()
	var all []*metav1.PartialObjectMetadata
	for _, name := range names {
		all = append(all, &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}})
	}
	return namespaces(t, read, all...)
}

// AnnotatedNamespace returns a cache of one namespace.
func AnnotatedNamespace(t testing.TB, name string, annotations map[string]string) *kube.Namespaces {
	t.Helper()
	return namespaces(t, nil, &metav1.PartialObjectMetadata{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), Annotations: annotations},
	})
}

func namespaces(
	t testing.TB, read func(context.Context, string) (map[string]string, error), all ...*metav1.PartialObjectMetadata,
) *kube.Namespaces {
	t.Helper()
	from := source.NewFakeControllerSource()
	for _, namespace := range all {
		from.Add(namespace)
	}
	c := kube.NewNamespaces(from, read)
	run(t, "namespaces", c.Run, c.Synced)
	return c
}

// run feeds a cache until the test ends. It returns once the cache is synced.
func run(t testing.TB, what string, feed func(context.Context), synced func() bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); feed(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	await.Eventually(t, time.Minute, what+" are known", synced)
}

// Reader is an API server's read of a pod.
type Reader func(ctx context.Context, namespace, name string) (*corev1.Pod, error)

// Pod calls r.
func (r Reader) Pod(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	return r(ctx, namespace, name)
}

// NotFound returns the API server's error for a pod that does not exist.
func NotFound(name string) error {
	return apierrors.NewNotFound(schema.GroupResource{Resource: "pods"}, name)
}
