package chart

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/apiserver"
	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	"github.com/istio-pod-network/controller/internal/await"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// fleet is a cluster with Kubernetes' own DaemonSet controller. The test plays the scheduler and the kubelets of its
// nodes.
type fleet struct {
	testing.TB
	ctx    context.Context
	client *kubernetes.Clientset

	mu   sync.Mutex
	dead map[string]bool
}

func newFleet(t testing.TB, nodes int) *fleet {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", admin)
	await.Must(t, err)
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	await.Must(t, err)
	f := &fleet{TB: t, ctx: context.Background(), client: client, dead: map[string]bool{}}
	for i := range nodes {
		name := fmt.Sprint("fleet-", i)
		_, err := client.CoreV1().Nodes().Create(f.ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name,
			Labels: map[string]string{corev1.LabelOSStable: "linux"}}}, metav1.CreateOptions{})
		await.Must(t, err)
		t.Cleanup(func() {
			err := client.CoreV1().Nodes().Delete(f.ctx, name, metav1.DeleteOptions{})
			if err != nil && !apierrors.IsNotFound(err) {
				t.Error(err)
			}
		})
	}
	log := filepath.Join(t.TempDir(), "controllers.log")
	controllers, err := apiserver.Run(log, filepath.Join(isolated.BinDir(), "kube-controller-manager"),
		"--kubeconfig="+admin, "--authentication-kubeconfig="+admin, "--authorization-kubeconfig="+admin,
		"--leader-elect=false", "--controllers=daemonset-controller", "--secure-port=0")
	await.Must(t, err)
	t.Cleanup(controllers.Kill)
	await.Explain(t, "the end of the controllers' log", controllers.Tail)
	stop, stopped := make(chan bool), make(chan bool)
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
				f.play()
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-stopped })
	return f
}

// agents returns the pods of the DaemonSet by node.
func (f *fleet) agents() map[string]corev1.Pod {
	list, err := f.client.CoreV1().Pods(system).List(f.ctx,
		metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=istio-pod-network-agent"})
	if err != nil {
		f.Error(err)
		return nil
	}
	pods := map[string]corev1.Pod{}
	for _, pod := range list.Items {
		pods[nodeOf(&pod)] = pod
	}
	return pods
}

// nodeOf returns the node for which the controller made the pod.
func nodeOf(pod *corev1.Pod) string {
	return pod.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms[0].
		MatchFields[0].Values[0]
}

// play does the next step of every agent's node: bind the pod, make it ready, or remove it. A dead node does nothing,
// and its pods are not ready.
func (f *fleet) play() {
	f.mu.Lock()
	dead := maps.Clone(f.dead)
	f.mu.Unlock()
	pods := f.client.CoreV1().Pods(system)
	for node, pod := range f.agents() {
		var err error
		switch ready := isReady(&pod); {
		case dead[node] && ready:
			err = f.setReady(&pod, corev1.ConditionFalse) // as the node controller does
		case dead[node]:
		case pod.DeletionTimestamp != nil:
			err = pods.Delete(f.ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64)})
		case pod.Spec.NodeName == "":
			err = pods.Bind(f.ctx, &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: pod.Name},
				Target: corev1.ObjectReference{Kind: "Node", Name: node}}, metav1.CreateOptions{})
		case !ready:
			err = f.setReady(&pod, corev1.ConditionTrue)
		}
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			f.Error(err)
		}
	}
}

func isReady(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions,
		func(c corev1.PodCondition) bool { return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue })
}

func (f *fleet) setReady(pod *corev1.Pod, ready corev1.ConditionStatus) error {
	data, err := json.Marshal(map[string]any{"status": corev1.PodStatus{Phase: corev1.PodRunning,
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: ready, LastTransitionTime: metav1.Now()}}}})
	if err == nil {
		_, err = f.client.CoreV1().Pods(system).Patch(f.ctx, pod.Name, types.MergePatchType, data, metav1.PatchOptions{},
			"status")
	}
	return err
}

// dies stops a node.
func (f *fleet) dies(node string) {
	f.mu.Lock()
	f.dead[node] = true
	f.mu.Unlock()
	f.eventually(node+" is not ready", func() bool { pod := f.agents()[node]; return !isReady(&pod) })
}

func (f *fleet) eventually(what string, holds func() bool) {
	f.Helper()
	await.Eventually(f, patience, what, holds)
}

// status returns the DaemonSet's status, once its controller has seen the last render.
func (f *fleet) status() (status appsv1.DaemonSetStatus) {
	f.Helper()
	f.eventually("the controller has seen it", func() bool {
		d, err := f.client.AppsV1().DaemonSets(system).Get(f.ctx, "istio-pod-network-agent", metav1.GetOptions{})
		if err == nil {
			status = d.Status
		}
		return err == nil && d.Status.ObservedGeneration == d.Generation
	})
	return status
}

// updated waits until that many nodes have an agent of the last render, and that many are ready.
func (f *fleet) updated(nodes, ready int32) {
	f.Helper()
	f.eventually(fmt.Sprintf("%d agents are of the last render, and %d are ready", nodes, ready), func() bool {
		s := f.status()
		return s.UpdatedNumberScheduled >= nodes && s.NumberReady == ready && s.NumberUnavailable == 4-ready
	})
}

// One node of four is dead. It counts as unavailable, and the default allows one unavailable node of so few, so an
// upgrade waits for it. Both ways in docs/operation.md end that: a larger maxUnavailable, or deleting the Node object.
func TestUpgradeWithADeadNode(t *testing.T) {
	f := newFleet(t, 4)
	manifests := func(values ...string) string {
		return template(t, "helm4", append(values, "admissionPolicy.enabled=false")...)
	}
	applied(t, manifests())
	f.updated(4, 4)
	f.dies("fleet-2")
	f.updated(4, 3) // the controller knows it, before it hears of the next render
	apply(t, manifests("agent.logLevel=debug"))
	f.eventually(
		"its agent is to be replaced first",
		func() bool { return f.agents()["fleet-2"].DeletionTimestamp != nil },
	)
	for node, pod := range f.agents() {
		if node != "fleet-2" && pod.DeletionTimestamp != nil {
			t.Errorf("%s: the agent is replaced beside one that is dead", node)
		}
	}
	const unavailable = "agent.updateStrategy.rollingUpdate.maxUnavailable=2"
	apply(t, manifests("agent.logLevel=debug", unavailable))
	f.updated(3, 3)
	apply(t, manifests("agent.logLevel=warning", unavailable))
	f.updated(3, 3)
	await.Must(t, f.client.CoreV1().Nodes().Delete(f.ctx, "fleet-2", metav1.DeleteOptions{}))
	// The controller that deletes the pods of deleted nodes does not run here.
	gone := f.agents()["fleet-2"]
	await.Must(
		t,
		f.client.CoreV1().Pods(system).Delete(f.ctx, gone.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64)}),
	)
	apply(t, manifests("agent.logLevel=error"))
	f.eventually("all three are of the last render, one after the other", func() bool {
		s := f.status()
		return s.DesiredNumberScheduled == 3 && s.UpdatedNumberScheduled == 3 && s.NumberReady == 3
	})
}
