package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/agent/ctl/temporary"
	"github.com/istio-pod-network/controller/plugin/flows/report"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	typedcore "k8s.io/client-go/kubernetes/typed/core/v1"
	kubetesting "k8s.io/client-go/testing"
)

// agents is the agents' namespace.
const agents = "mesh-network"

// fakeCluster is a cluster in memory. change plays its kubelets.
type fakeCluster struct {
	*fake.Clientset
	mu     sync.Mutex
	logs   map[string]string // by node, kind of pod and container
	pods   map[string]*corev1.Pod
	change func(kind, node string, p *corev1.Pod)
}

// newFake returns a cluster with two nodes with agents, and one that should have none.
func newFake(t *testing.T) *fakeCluster {
	t.Helper()
	pod, err := os.ReadFile("testdata/pod.yaml")
	if err != nil {
		t.Fatal(err)
	}
	set := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: agents, Name: "istio-pod-network-agent",
		Labels: map[string]string{"app.kubernetes.io/name": "istio-pod-network-agent"}}}
	set.Spec.Template.Spec.NodeSelector = map[string]string{"kubernetes.io/os": "linux"}
	objects := []runtime.Object{set, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: agents, Name: configMap},
		Data: map[string]string{podKey: string(pod)}}}
	for _, name := range []string{"node-a", "node-b", "windows"} {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"kubernetes.io/os": "linux"}}}
		if name == "windows" {
			n.Labels["kubernetes.io/os"] = name
		}
		objects = append(objects, n)
	}
	f := &fakeCluster{Clientset: fake.NewClientset(objects...), logs: map[string]string{}, pods: map[string]*corev1.Pod{},
		change: func(string, string, *corev1.Pod) {}}
	for _, node := range []string{"node-a", "node-b"} {
		f.says(node, "mesh/app", flowsOf(meshName, false)...)
		f.says(node, "mesh/istio-proxy", flowsOf(meshName, true)...)
		f.says(node, "plain/app", flowsOf(plainName, false)...)
		peer := report.Sealed + "\n"
		for _, family := range []string{"IPv4", "IPv6"} {
			peer += report.Reached + "plain outbound " + family + "\n" + report.Reached + "mesh proxy-outbound " + family + "\n"
		}
		f.logs[node+"/peer/app"] = peer
	}
	f.PrependReactor("create", "pods", func(action kubetesting.Action) (bool, runtime.Object, error) {
		p := action.(kubetesting.CreateAction).GetObject().(*corev1.Pod)
		kind, _, _ := strings.Cut(p.Name, "-")
		node := nodeOf(p)
		p.UID, p.Spec.NodeName = types.UID(kind+" on "+node), node
		started(kind, p)
		f.change(kind, node, p)
		if len(action.(kubetesting.CreateActionImpl).CreateOptions.DryRun) > 0 {
			return true, p, nil
		}
		f.mu.Lock()
		f.pods[p.Name] = p.DeepCopy()
		f.mu.Unlock()
		return true, p, f.Tracker().Create(action.GetResource(), p, p.Namespace)
	})
	return f
}

// nodeOf returns the node on which a pod has to run.
func nodeOf(p *corev1.Pod) string {
	terms := p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	return terms[0].MatchFields[0].Values[0]
}

// started sets the status of a pod that works.
func started(kind string, p *corev1.Pod) {
	p.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: "10.0.0.9"}, {IP: "fd00::9"}},
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}
	if kind != "peer" {
		p.Status.Phase, p.Status.Conditions = corev1.PodSucceeded, nil
		for _, c := range p.Spec.Containers {
			p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{Name: c.Name,
				State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}})
		}
	}
}

// pending sets the status of a pod without a sandbox.
func pending(p *corev1.Pod) {
	p.Status = corev1.PodStatus{Phase: corev1.PodPending,
		Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionTrue}}}
}

// warned adds an Event about a pod.
func (f *fakeCluster) warned(p *corev1.Pod, reason, message string) {
	f.warnedAt(p, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), reason, message)
}

func (f *fakeCluster) warnedAt(p *corev1.Pod, at time.Time, reason, message string) {
	_ = f.Tracker().Create(corev1.SchemeGroupVersion.WithResource("events"), &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: Namespace,
			Name: fmt.Sprint(p.Name, strings.ToLower(reason), at.Unix())},
		Type: corev1.EventTypeWarning, Reason: reason, Message: message,
		InvolvedObject: corev1.ObjectReference{Name: p.Name, UID: p.UID},
		FirstTimestamp: metav1.NewTime(at), LastTimestamp: metav1.NewTime(at),
	}, Namespace)
}

// flowsOf returns the results of a pod's flows if all is well.
func flowsOf(pod string, sidecar bool) (all []report.Result) {
	for _, family := range []string{"IPv4", "IPv6"} {
		add := func(flow, to, want string) {
			if pod == plainName && want != "app" {
				want = report.Peer
			}
			r := report.Result{Flow: flow, Family: family, To: to, Want: want, Got: want, Well: true}
			if r.IsEscape() && pod == meshName {
				r.Got, r.Error = "", "nobody answers"
			}
			if r.NoControl = r.Flow == "escape/lo"; r.NoControl {
				r.Got, r.Error = "", "nobody answers"
			}
			all = append(all, r)
		}
		if sidecar {
			add(report.ProxyOutbound, "10.0.0.9:8081", report.Peer)
			add(report.ProxyInbound, "10.0.0.8:8080", "sidecar-inbound")
			continue
		}
		add(report.Outbound, "10.0.0.9:8081", "sidecar-outbound")
		add(report.DNS, "10.0.0.9:53", "sidecar-dns")
		add(report.DNSOverTCP, "10.0.0.9:53", "sidecar-dns")
		add(report.ExcludedOutbound, "10.0.0.9:8082", report.Peer)
		add(report.Inbound, "10.0.0.8:8080", map[bool]string{true: "app", false: "sidecar-inbound"}[pod == plainName])
		add(report.ExcludedInbound, "10.0.0.8:8090", "app")
		add(report.Escape+"from-port", "10.0.0.9:8081", report.Peer)
		add(report.Escape+"lo", "10.0.0.9:8081", report.Peer)
	}
	return all
}

// says sets the log of a container on a node.
func (f *fakeCluster) says(node, who string, all ...report.Result) {
	text := "something else\n"
	for _, r := range all {
		text += r.Line() + "\n"
	}
	f.logs[node+"/"+who] = text
}

// edit changes the results in the log of a container on node-b.
func (f *fakeCluster) edit(who string, change func(*report.Result)) {
	all := report.Parse(f.logs["node-b/"+who])
	for i := range all {
		change(&all[i])
	}
	f.says("node-b", who, all...)
}

// log returns a container's log.
func (f *fakeCluster) log(_ context.Context, pod, container string) ([]byte, error) {
	f.mu.Lock()
	p, there := f.pods[pod]
	f.mu.Unlock()
	if !there {
		return nil, errors.New("no such pod")
	}
	kind, _, _ := strings.Cut(pod, "-")
	text, there := f.logs[nodeOf(p)+"/"+kind+"/"+container]
	if !there {
		return nil, fmt.Errorf("no container %s", container)
	}
	return []byte(text), nil
}

// run runs the command, and returns its exit status and output.
func (f *fakeCluster) run(ctx context.Context, o options, format output.Format) (status int, stdout, stderr string,
	err error) {
	var out, errs bytes.Buffer
	o.tool, o.logs = "istio-pod-networkctl", f.log
	o.pace = temporary.Pace{Poll: time.Millisecond, Beat: 5 * time.Millisecond}
	if o.parallel == 0 {
		o.parallel = 5
	}
	if o.timeout == 0 {
		o.timeout = time.Minute
	}
	c := &cluster.Cluster{Core: obeying{f.CoreV1()}, Apps: f.AppsV1(), Admission: f.AdmissionregistrationV1()}
	ask := func(ask func(context.Context, *cluster.Cluster) error) error { return ask(ctx, c) }
	err = o.end(output.Writer{Out: &out, Format: format}, ask, &temporary.Progress{Out: &errs})
	return outcome.StatusOf(err), out.String(), errs.String(), err
}

// obeying refuses requests with a context that has ended, as clients of a real cluster do.
type obeying struct{ typedcore.CoreV1Interface }

func (o obeying) Namespaces() typedcore.NamespaceInterface {
	return obeyingNamespaces{o.CoreV1Interface.Namespaces()}
}

type obeyingNamespaces struct{ typedcore.NamespaceInterface }

func (o obeyingNamespaces) Get(ctx context.Context, name string, options metav1.GetOptions) (*corev1.Namespace, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return o.NamespaceInterface.Get(ctx, name, options)
}

func (o obeyingNamespaces) Delete(ctx context.Context, name string, options metav1.DeleteOptions) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return o.NamespaceInterface.Delete(ctx, name, options)
}

// there returns the temporary namespace, nil if there is none.
func (f *fakeCluster) there(t *testing.T) *corev1.Namespace {
	t.Helper()
	n, err := f.CoreV1().Namespaces().Get(t.Context(), Namespace, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// onB returns a function that changes pods of a kind on node-b.
func onB(kind string, change func(*corev1.Pod)) func(string, string, *corev1.Pod) {
	return func(k, node string, p *corev1.Pod) {
		if k == kind && node == "node-b" {
			change(p)
		}
	}
}
