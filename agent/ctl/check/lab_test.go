package check

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	"github.com/istio-pod-network/controller/agent/inspect"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"
	discoveryfake "k8s.io/client-go/discovery/fake"
	"k8s.io/client-go/kubernetes/fake"
	metadatafake "k8s.io/client-go/metadata/fake"
	clienttesting "k8s.io/client-go/testing"
)

// home is the chart's namespace.
const home = "mesh-network"

// lab is a cluster in memory: its objects by KIND/NAME, which source turns into a cluster.
type lab struct {
	kubernetes string
	apis       map[string][]string // resources by group and version
	objects    map[string]runtime.Object
	untyped    map[string]*metav1.PartialObjectMetadata // objects with metadata only
	answers    map[string]inspect.Node                  // by pod
	errs       map[string]error                         // of questions to a pod
	ahead      map[string]time.Duration                 // how far the clock of a pod's node is ahead
	server     time.Duration                            // how far the API server's clock is ahead
	dateless   bool                                     // the API server's answers have no date
	refused    []string                                 // VERB RESOURCE
	broken     bool                                     // nothing answers
}

// agents is the cluster with agents in memory.
type agents struct {
	*fake.Clientset
	lab *lab
}

func (a agents) Nodes(ctx context.Context) ([]corev1.Node, error) {
	list, err := a.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	return itemsOf(list, err, func(l *corev1.NodeList) []corev1.Node { return l.Items })
}

func (a agents) Agents(ctx context.Context, namespace string) ([]corev1.Pod, error) {
	list, err := a.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
	return itemsOf(list, err, func(l *corev1.PodList) []corev1.Pod { return l.Items })
}

func (a agents) DaemonSets(ctx context.Context, namespace string) ([]appsv1.DaemonSet, error) {
	list, err := a.AppsV1().DaemonSets(namespace).List(ctx, metav1.ListOptions{
		LabelSelector: "app.kubernetes.io/name=" + daemonSet})
	return itemsOf(list, err, func(l *appsv1.DaemonSetList) []appsv1.DaemonSet { return l.Items })
}

func (a agents) AskNode(_ context.Context, pod corev1.Pod) (inspect.Node, error) {
	answer := a.lab.answers[pod.Name]
	answer.Time = time.Now().Add(a.lab.ahead[pod.Name])
	return answer, a.lab.errs[pod.Name]
}

func itemsOf[L, I any](list L, err error, items func(L) []I) ([]I, error) {
	if err != nil {
		return nil, err
	}
	return items(list), nil
}

// forbidden returns the API server's error for a missing right.
func forbidden(resource string) error {
	return apierrors.NewForbidden(schema.GroupResource{Resource: resource}, "", errors.New(`User "reader" cannot`))
}

// source makes the cluster.
func (l *lab) source() Source {
	var objects []runtime.Object
	for _, o := range l.objects {
		objects = append(objects, o)
	}
	typed := fake.NewClientset(objects...)
	scheme := metadatafake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		panic(err)
	}
	known := metadatafake.NewSimpleMetadataClient(scheme)
	for _, o := range l.untyped {
		gvk := o.GroupVersionKind()
		kinds := map[string]string{"MutatingAdmissionPolicy": "mutatingadmissionpolicies",
			"MutatingAdmissionPolicyBinding": "mutatingadmissionpolicybindings",
			"NetworkAttachmentDefinition":    "network-attachment-definitions"}
		resource := gvk.GroupVersion().WithResource(kinds[gvk.Kind])
		if err := known.Tracker().Create(resource, o, o.Namespace); err != nil {
			panic(err)
		}
	}
	refuse := func(f *clienttesting.Fake) {
		f.PrependReactor("*", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
			for _, right := range l.refused {
				if right == action.GetVerb()+" "+action.GetResource().Resource {
					return true, nil, forbidden(action.GetResource().Resource)
				}
			}
			if l.broken {
				return true, nil, errors.New("connection refused")
			}
			return false, nil, nil
		})
	}
	refuse(&typed.Fake)
	refuse(&known.Fake)
	discovery := typed.Discovery().(*discoveryfake.FakeDiscovery)
	discovery.FakedServerVersion = &version.Info{GitVersion: l.kubernetes}
	for groupVersion, names := range l.apis {
		list := &metav1.APIResourceList{GroupVersion: groupVersion}
		for _, name := range names {
			list.APIResources = append(list.APIResources, metav1.APIResource{Name: name})
		}
		discovery.Resources = append(discovery.Resources, list)
	}
	return Source{Source: agents{typed, l}, Core: typed.CoreV1(), Apps: typed.AppsV1(),
		Admission: typed.AdmissionregistrationV1(), Discovery: typed.Discovery(), Metadata: known,
		Clock: func() (cluster.Clock, bool) {
			now := time.Now()
			return cluster.ClockOf(now.Add(l.server), time.Second, now, now), !l.dateless
		}}
}

// heartbeat is when the API server received the heartbeats of all nodes.
var heartbeat = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// beats sets a node's heartbeat to a clock that is ahead.
func (l *lab) beats(name string, ahead time.Duration) {
	n := l.node(name)
	n.Status.Conditions[0].LastHeartbeatTime = metav1.Time{Time: heartbeat.Add(ahead)}
	n.ManagedFields = []metav1.ManagedFieldsEntry{
		{Manager: "kubelet", Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "v1", FieldsType: "FieldsV1",
			Time:     &metav1.Time{Time: heartbeat.Add(-time.Hour)},
			FieldsV1: metav1.NewFieldsV1(`{"f:metadata": {"f:labels": {}}}`)},
		{Manager: "k3s", Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "v1", FieldsType: "FieldsV1",
			Subresource: "status", Time: &metav1.Time{Time: heartbeat}, FieldsV1: metav1.NewFieldsV1(
				`{"f:status": {"f:conditions": {"k:{\"type\":\"Ready\"}": {"f:lastHeartbeatTime": {}}}}}`)},
	}
}

func named(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Labels: map[string]string{}}
}

func namedIn(namespace, name string) metav1.ObjectMeta {
	meta := named(name)
	meta.Namespace = namespace
	return meta
}

// bare returns an object with metadata only.
func bare(groupVersion, kind string, meta metav1.ObjectMeta) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: groupVersion, Kind: kind}, ObjectMeta: meta}
}

// Access to objects that tests change.
func (l *lab) node(name string) *corev1.Node { return l.objects["Node/"+name].(*corev1.Node) }

func (l *lab) set() *appsv1.DaemonSet { return l.objects["DaemonSet/"+daemonSet].(*appsv1.DaemonSet) }

func (l *lab) config(name string) *corev1.ConfigMap {
	return l.objects["ConfigMap/"+name].(*corev1.ConfigMap)
}

func (l *lab) change(pod string, change func(*inspect.Node)) {
	answer := l.answers[pod]
	change(&answer)
	l.answers[pod] = answer
}

func (l *lab) flag(flag string) {
	container := &l.set().Spec.Template.Spec.Containers[0]
	container.Args = append(container.Args, flag)
}

// policy adds a ValidatingAdmissionPolicy and its binding.
func (l *lab) policy(name string, action admissionv1.ValidationAction) {
	l.objects["Policy/"+name] = &admissionv1.ValidatingAdmissionPolicy{ObjectMeta: named(name),
		Spec: admissionv1.ValidatingAdmissionPolicySpec{Variables: []admissionv1.Variable{{Name: "isAgent",
			Expression: "request.userInfo.username == 'system:serviceaccount:" + home + ":istio-pod-network-agent'"}}}}
	l.objects["Binding/"+name] = &admissionv1.ValidatingAdmissionPolicyBinding{ObjectMeta: named(name),
		Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{PolicyName: name,
			ValidationActions: []admissionv1.ValidationAction{action}}}
}

// mutates adds a MutatingAdmissionPolicy and its binding.
func (l *lab) mutates(name string) {
	l.untyped["Policy/"+name] = bare(admission+"/v1", "MutatingAdmissionPolicy", named(name))
	l.untyped["Binding/"+name] = bare(admission+"/v1", "MutatingAdmissionPolicyBinding", named(name))
}

func (l *lab) validatingPolicy(name string) *admissionv1.ValidatingAdmissionPolicy {
	return l.objects["Policy/"+name].(*admissionv1.ValidatingAdmissionPolicy)
}

func (l *lab) binding(name string) *admissionv1.ValidatingAdmissionPolicyBinding {
	return l.objects["Binding/"+name].(*admissionv1.ValidatingAdmissionPolicyBinding)
}

// foreign adds a DaemonSet of another project.
func (l *lab) foreign(namespace, name string) {
	l.objects["DaemonSet/"+name] = &appsv1.DaemonSet{ObjectMeta: namedIn(namespace, name)}
}

// network replaces the primary by a DaemonSet with that image; name "" means none.
func (l *lab) network(namespace, name, image string) {
	delete(l.objects, "Primary")
	if name == "" {
		return
	}
	set := &appsv1.DaemonSet{ObjectMeta: namedIn(namespace, name)}
	set.Spec.Template.Spec.Containers = []corev1.Container{{Image: image}}
	l.objects["Primary"] = set
}

const (
	injectorValues = `{"pilot": {"cni": {"enabled": %t, "provider": "%s"}}, "global": {}}`
	injectorConfig = "defaultTemplates: [sidecar, ours]\ntemplates:\n  sidecar: |\n    spec: {}\n  ours: |\n    spec:\n" +
		"      initContainers:\n      - {name: istio-validation, command: [/istio-pod-network-wait]}\n"
	stockConfig = "defaultTemplates: [sidecar]\ntemplates:\n  sidecar: |\n    spec: {}\n"
)

// well returns a cluster where all is well: two nodes with agents, one with Windows, and Istio in way A.
func well() *lab {
	l := &lab{kubernetes: "v1.37.2", apis: map[string][]string{admission + "/v1": {"validatingadmissionpolicies",
		"mutatingadmissionpolicies"}}, objects: map[string]runtime.Object{},
		untyped: map[string]*metav1.PartialObjectMetadata{},
		answers: map[string]inspect.Node{}, errs: map[string]error{}, ahead: map[string]time.Duration{}}
	for _, name := range []string{"node-a", "node-b", "windows"} {
		node := &corev1.Node{ObjectMeta: named(name)}
		node.Status.NodeInfo = corev1.NodeSystemInfo{KernelVersion: "6.12.38-generic", OperatingSystem: "linux",
			ContainerRuntimeVersion: "containerd://2.1.4"}
		node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
		node.Labels["kubernetes.io/os"] = "linux"
		l.objects["Node/"+name] = node
		l.beats(name, 0)
		if name == "windows" {
			node.Status.NodeInfo.OperatingSystem, node.Labels["kubernetes.io/os"] = name, name
			continue
		}
		pod := &corev1.Pod{ObjectMeta: namedIn(home, "agent-"+name)}
		pod.Spec.NodeName, pod.Status.Phase = name, corev1.PodRunning
		pod.Labels["app.kubernetes.io/version"] = "1.4.0"
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		l.objects["Pod/"+pod.Name] = pod
		l.answers[pod.Name] = inspect.Node{Node: name, Agent: "v1.4.0", Questions: inspect.Questions,
			Ready: true, Checks: []inspect.Check{{Name: "backend", OK: true,
				Detail: "the runtime's STATUS has told of no problem"}},
			Plugin: inspect.Plugin{Path: "/opt/cni/bin/istio-pod-network", SHA256: "0123", Version: "v1.4.0"},
			Installation: inspect.Installation{Managed: true, Chained: "spliced", Into: "/etc/cni/net.d/10-net.conflist",
				Plugins: []string{"flannel", "portmap"}}}
	}
	set := &appsv1.DaemonSet{ObjectMeta: namedIn(home, daemonSet)}
	set.Labels["app.kubernetes.io/name"] = daemonSet
	set.Spec.Template.Spec.NodeSelector = map[string]string{"kubernetes.io/os": "linux"}
	set.Spec.Template.Spec.Containers = []corev1.Container{{Name: "agent", Args: []string{"--mode=chain",
		"--repair=apply"}}}
	set.Status = appsv1.DaemonSetStatus{DesiredNumberScheduled: 2, NumberReady: 2, UpdatedNumberScheduled: 2}
	l.objects["DaemonSet/"+daemonSet] = set
	l.network("kube-flannel", "kube-flannel-ds", "ghcr.io/flannel-io/flannel:v0.27.4")
	l.objects["ConfigMap/"+configMap] = &corev1.ConfigMap{ObjectMeta: namedIn(home, configMap),
		Data: map[string]string{"network.json": `{"type": "istio-pod-network", "sharedProxyUser": "refuse"}`}}
	l.objects["Namespace/"+home] = &corev1.Namespace{ObjectMeta: named(home)}
	l.policy("istio-pod-network-marks", admissionv1.Deny)
	l.policy("istio-pod-network-shared-user", admissionv1.Deny)
	l.mutates("istio-pod-network-copied-marks")
	hook := &admissionv1.MutatingWebhookConfiguration{ObjectMeta: named("istio-sidecar-injector")}
	hook.Labels["app"], hook.Labels[revisionLabel] = "sidecar-injector", "default"
	hook.Webhooks = []admissionv1.MutatingWebhook{{Name: "rev.namespace.sidecar-injector.istio.io",
		ClientConfig: admissionv1.WebhookClientConfig{Service: &admissionv1.ServiceReference{Namespace: "istio-system",
			Name: "istiod"}}}}
	l.objects["Webhook"] = hook
	istiod := &appsv1.Deployment{ObjectMeta: namedIn("istio-system", "istiod")}
	istiod.Labels["app"], istiod.Labels[revisionLabel] = "istiod", "default"
	istiod.Spec.Template.Spec.Containers = []corev1.Container{{Image: "registry.example.com:5000/istio/pilot:1.31.0"}}
	istiod.Status.AvailableReplicas = 1
	l.objects["Deployment/istiod"] = istiod
	l.objects["ConfigMap/istio-sidecar-injector"] = &corev1.ConfigMap{
		ObjectMeta: namedIn("istio-system", "istio-sidecar-injector"),
		Data:       map[string]string{"values": fmt.Sprintf(injectorValues, true, "default"), "config": injectorConfig}}
	return l
}

// empty returns the same cluster before an installation.
func empty() *lab {
	l := well()
	for key := range l.objects {
		if strings.HasPrefix(key, "Pod/") || strings.HasPrefix(key, "Policy/") || strings.HasPrefix(key, "Binding/") {
			delete(l.objects, key)
		}
	}
	delete(l.objects, "DaemonSet/"+daemonSet)
	delete(l.objects, "ConfigMap/"+configMap)
	delete(l.objects, "Namespace/"+home)
	l.untyped = map[string]*metav1.PartialObjectMetadata{}
	return l
}

// inject sets how Istio injects.
func (l *lab) inject(without bool, provider, config string) {
	data := l.config("istio-sidecar-injector").Data
	data["values"], data["config"] = fmt.Sprintf(injectorValues, without, provider), config
}

// definitions adds Multus's API.
func (l *lab) definitions() { l.apis[multus+"/v1"] = []string{"network-attachment-definitions"} }
