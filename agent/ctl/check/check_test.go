package check

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/agent/inspect"
	"github.com/istio-pod-network/controller/internal/golden"
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

// home is the namespace of the chart.
const home = "mesh-network"

// lab is a cluster in memory: its objects by KIND/NAME, until it is made.
type lab struct {
	kubernetes string
	apis       map[string][]string // resources by group and version
	objects    map[string]runtime.Object
	untyped    map[string]*metav1.PartialObjectMetadata // of those that are known by their metadata alone
	answers    map[string]inspect.Node                  // by pod
	errs       map[string]error                         // of asking a pod
	ahead      map[string]time.Duration                 // is the clock of a pod's node
	refused    []string                                 // VERB RESOURCE
	broken     bool                                     // no answer at all
}

// agents asks the cluster as the tool does, and the agents in memory.
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

// forbidden is how the API server refuses.
func forbidden(resource string) error {
	return apierrors.NewForbidden(schema.GroupResource{Resource: resource}, "", errors.New("RBAC"))
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
		Admission: typed.AdmissionregistrationV1(), Discovery: typed.Discovery(), Metadata: known}
}

func named(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Labels: map[string]string{}}
}

func namedIn(namespace, name string) metav1.ObjectMeta {
	meta := named(name)
	meta.Namespace = namespace
	return meta
}

// bare is an object of which only the metadata is known.
func bare(groupVersion, kind string, meta metav1.ObjectMeta) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: groupVersion, Kind: kind}, ObjectMeta: meta}
}

// Paths to what tests change.
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

// foreign adds somebody else's DaemonSet.
func (l *lab) foreign(namespace, name string) {
	l.objects["DaemonSet/"+name] = &appsv1.DaemonSet{ObjectMeta: namedIn(namespace, name)}
}

const (
	injectorValues = `{"pilot": {"cni": {"enabled": %t, "provider": "%s"}}, "global": {}}`
	injectorConfig = "defaultTemplates: [sidecar, ours]\ntemplates:\n  sidecar: |\n    spec: {}\n  ours: |\n    spec:\n" +
		"      initContainers:\n      - {name: istio-validation, command: [/istio-pod-network-wait]}\n"
	stockConfig = "defaultTemplates: [sidecar]\ntemplates:\n  sidecar: |\n    spec: {}\n"
)

// well is a cluster where all is well: two nodes with agents, one of Windows, and Istio in way A.
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
			Plugin:       inspect.Plugin{Path: "/opt/cni/bin/istio-pod-network", SHA256: "0123", Version: "v1.4.0"},
			Installation: inspect.Installation{Managed: true, Chained: "spliced", Into: "/etc/cni/net.d/10-net.conflist"}}
	}
	set := &appsv1.DaemonSet{ObjectMeta: namedIn(home, daemonSet)}
	set.Labels["app.kubernetes.io/name"] = daemonSet
	set.Spec.Template.Spec.NodeSelector = map[string]string{"kubernetes.io/os": "linux"}
	set.Spec.Template.Spec.Containers = []corev1.Container{{Name: "agent", Args: []string{"--mode=chain",
		"--repair=apply"}}}
	set.Status = appsv1.DaemonSetStatus{DesiredNumberScheduled: 2, NumberReady: 2, UpdatedNumberScheduled: 2}
	l.objects["DaemonSet/"+daemonSet] = set
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

// empty is the same cluster before an installation.
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

// scenario is a cluster with what is to be said of it.
type scenario struct {
	make   func(*lab)
	before bool
	status int
	check  string  // that is not well,
	as     Verdict // but so
	what   string  // and says this
	next   string  // and that
}

// inject sets how Istio injects.
func (l *lab) inject(without bool, provider, config string) {
	data := l.config("istio-sidecar-injector").Data
	data["values"], data["config"] = fmt.Sprintf(injectorValues, without, provider), config
}

// definitions has the API server know Multus's networks.
func (l *lab) definitions() { l.apis[multus+"/v1"] = []string{"network-attachment-definitions"} }

var scenarios = map[string]scenario{
	"well": {make: func(*lab) {}},
	"pre":  {before: true, make: func(*lab) {}},

	"old-kubernetes": {before: true, make: func(l *lab) { l.kubernetes, l.apis = "v1.24.9", nil }, status: 1,
		check: "kubernetes-version", as: NotWell, what: "older than 1.25", next: "upgrade Kubernetes"},
	"strange-kubernetes": {before: true, make: func(l *lab) { l.kubernetes = "main" },
		check: "kubernetes-version", as: Warning, what: "main", next: "1.25"},
	"no-policies": {before: true, make: func(l *lab) { l.kubernetes, l.apis = "v1.29.1", nil },
		check: "admission-api", as: Warning, what: "no ValidatingAdmissionPolicy", next: "1.30"},
	"old-kernel": {before: true, make: func(l *lab) {
		l.node("node-a").Status.NodeInfo.KernelVersion = "5.10.0-41-amd64"
	}, check: "nodes", as: Warning, what: "node-a: Linux before 5.14", next: "leave --mode"},
	"older-kernel": {before: true, make: func(l *lab) {
		l.node("node-a").Status.NodeInfo.KernelVersion = "5.4.0"
	}, check: "nodes", as: Warning, what: "node-a: Linux before 5.10", next: "backend"},
	"oldest-kernel": {before: true, make: func(l *lab) {
		l.node("node-a").Status.NodeInfo.KernelVersion = "3.10.0-1160.el7.x86_64"
	}, check: "nodes", as: Warning, what: "node-a: Linux before 4.18", next: "backend"},
	"docker": {before: true, make: func(l *lab) {
		l.node("node-b").Status.NodeInfo.ContainerRuntimeVersion = "docker://28.0.0"
	}, check: "nodes", as: Warning, what: "node-b: this container runtime", next: "repair"},
	"old-runtime": {before: true, make: func(l *lab) {
		l.node("node-a").Status.NodeInfo.ContainerRuntimeVersion = "containerd://1.5.9"
		l.node("node-b").Status.NodeInfo.ContainerRuntimeVersion = "cri-o://1.27.0"
	}, check: "nodes", as: Warning, what: "node-a, node-b: nobody has tried", next: "upgrade"},
	"node-away": {before: true, make: func(l *lab) { l.node("node-a").Status.Conditions = nil },
		check: "nodes", as: Warning, what: "node-a: the kubelet is not ready", next: "kubectl describe node"},
	"no-linux": {before: true, make: func(l *lab) {
		delete(l.objects, "Node/node-a")
		delete(l.objects, "Node/node-b")
	}, status: 1, check: "nodes", as: NotWell, what: "no node runs Linux", next: "add nodes"},
	"taint-before": {before: true, make: func(l *lab) {
		l.node("node-a").Spec.Taints = []corev1.Taint{{Key: usualTaint}}
	}, check: "startup-taint", as: Warning, what: "node-a", next: "startupTaint.enabled=true"},
	"restricted": {make: func(l *lab) {
		l.objects["Namespace/"+home].(*corev1.Namespace).Labels["pod-security.kubernetes.io/enforce"] = "restricted"
	}, status: 1, check: "pod-security", as: NotWell, what: "enforces Pod Security restricted",
		next: "kubectl label --overwrite namespace mesh-network pod-security.kubernetes.io/enforce=privileged"},

	"not-installed": {make: func(l *lab) { *l = *empty() }, status: 1, check: "daemonset", as: NotWell,
		what: "there is no DaemonSet", next: "check --pre"},
	"installed-twice": {make: func(l *lab) {
		other := l.set().DeepCopy()
		other.Namespace = "other"
		l.objects["DaemonSet/other"] = other
	}, status: 1, check: "daemonset", as: NotWell, what: "mesh-network, other", next: "uninstall all but one"},
	"no-node-selected": {make: func(l *lab) { l.set().Status = appsv1.DaemonSetStatus{} }, status: 1,
		check: "daemonset", as: NotWell, what: "no node is to have an agent", next: "nodeSelector"},
	"rolling-out": {make: func(l *lab) { l.set().Status.UpdatedNumberScheduled = 1 },
		check: "daemonset", as: Warning, what: "1 of 2 agents are of the present release", next: "rollout status"},
	"no-config": {make: func(l *lab) { delete(l.objects, "ConfigMap/"+configMap) }, status: 1,
		check: "config", as: NotWell, what: "no ConfigMap", next: "helm upgrade"},
	"torn-config": {make: func(l *lab) { l.config(configMap).Data = nil }, status: 1,
		check: "config", as: NotWell, what: "no entry that can be read", next: "helm upgrade"},
	"no-policy": {make: func(l *lab) { delete(l.objects, "Policy/istio-pod-network-marks") }, status: 1,
		check: "policy", as: NotWell, what: "istio-pod-network-marks is missing", next: "admissionPolicy.enabled=auto"},
	"no-binding": {make: func(l *lab) { delete(l.objects, "Binding/istio-pod-network-shared-user") }, status: 1,
		check: "policy", as: NotWell, what: "the binding of the ValidatingAdmissionPolicy istio-pod-network-shared-user is " +
			"missing",
		next: "sharedProxyUser=refuse"},
	"other-binding": {make: func(l *lab) { l.binding("istio-pod-network-marks").Spec.PolicyName = "other" }, status: 1,
		check: "policy", as: NotWell, what: `one of the policy "other"`, next: "helm upgrade"},
	"harmless-binding": {make: func(l *lab) {
		l.binding("istio-pod-network-marks").Spec.ValidationActions = []admissionv1.ValidationAction{admissionv1.Audit}
	}, status: 1, check: "policy", as: NotWell, what: "does not refuse", next: "helm upgrade"},
	"other-namespace": {make: func(l *lab) {
		l.validatingPolicy("istio-pod-network-marks").Spec.Variables[0].Expression =
			"request.userInfo.username == 'system:serviceaccount:other:istio-pod-network-agent'"
	}, status: 1, check: "policy", as: NotWell, what: "the agents of another namespace", next: "helm upgrade"},
	"no-copied-marks": {make: func(l *lab) { delete(l.untyped, "Binding/istio-pod-network-copied-marks") }, status: 1,
		check: "policy", as: NotWell, what: "MutatingAdmissionPolicy istio-pod-network-copied-marks, or its binding is " +
			"missing",
		next: "admissionPolicy.enabled=auto"},
	"no-copied-marks-warning": {make: func(l *lab) { l.apis[admission+"/v1"] = []string{"validatingadmissionpolicies"} },
		status: 1, check: "policy", as: NotWell, what: "the ValidatingAdmissionPolicy istio-pod-network-copied-marks is " +
			"missing",
		next: "admissionPolicy.enabled=auto"},
	"no-repair-policy": {make: func(l *lab) { l.flag("--repair=delete") }, status: 1,
		check: "policy", as: NotWell, what: "may delete every pod", next: "repair=delete"},
	"no-taint-policy": {make: func(l *lab) { l.flag("--startup-taint=" + usualTaint) }, status: 1,
		check: "policy", as: NotWell, what: "may change every node", next: "startupTaint.enabled=true"},

	"agent-missing": {make: func(l *lab) {
		delete(l.objects, "Pod/agent-node-b")
		l.set().Status.NumberReady = 1
	}, status: 1, check: "agent", as: NotWell, what: "no agent runs here", next: "describe daemonset"},
	"no-image": {make: func(l *lab) {
		pod := l.objects["Pod/agent-node-b"].(*corev1.Pod)
		pod.Status.Phase = corev1.PodPending
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Image: "registry.example.com/agent:1.4.0",
			State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull",
				Message: "failed to pull and unpack image: not found"}}}}
	}, status: 1, check: "agent", as: NotWell, what: "ErrImagePull: failed to pull", next: "imagePullSecrets"},
	"entry-removed": {make: func(l *lab) {
		l.change("agent-node-b", func(n *inspect.Node) {
			n.Ready = false
			n.Checks = append(n.Checks, inspect.Check{Name: "installed", Detail: "not ready: it is not chained into " +
				"/etc/cni/net.d/10-net.conflist"})
		})
	}, status: 1, check: "agent", as: NotWell, what: "it is not chained", next: "kubectl -n mesh-network logs " +
		"agent-node-b"},
	"backend": {make: func(l *lab) {
		l.change("agent-node-b", func(n *inspect.Node) {
			n.Ready, n.Checks[0] = false, inspect.Check{Name: "backend", Detail: "backend nftables is not usable: no nf_tables"}
		})
	}, status: 1, check: "agent", as: NotWell, what: "no nf_tables", next: "load the kernel's modules"},
	"iptables": {make: func(l *lab) {
		for _, pod := range []string{"agent-node-a", "agent-node-b"} {
			l.change(pod, func(n *inspect.Node) {
				n.Unchecked = []inspect.Rules{{Detail: "the rules were written by iptables-nft, whose programs the agent's image " +
					"lacks", Change: "backend: nftables, for pods that are made from then on"}}
			})
		}
	}, check: "rules", as: NotLookedAt, what: "on node-a, node-b: the rules were written by iptables-nft"},
	"outside": {make: func(l *lab) {
		l.change("agent-node-a", func(n *inspect.Node) { n.Pods.Outside = []string{"shop/cart-0"} })
	}, check: "pods-outside", as: Warning, what: "shop/cart-0", next: "rollout restart"},
	"older-rules": {make: func(l *lab) {
		l.change("agent-node-a", func(n *inspect.Node) { n.Pods.Older = []string{"shop/cart-0"} })
	}, check: "older-rules", as: Warning, what: "shop/cart-0", next: "renewRules"},
	"not-managed": {make: func(l *lab) {
		l.change("agent-node-a", func(n *inspect.Node) {
			n.Plugin, n.Installation = inspect.Plugin{}, inspect.Installation{}
		})
	}, check: "installation", as: NotLookedAt, what: "--no-install"},
	"clock-ahead": {make: func(l *lab) {
		l.ahead["agent-node-b"] = time.Hour
	}, check: "clock", as: Warning, what: "ahead of", next: "NTP"},
	"clock-behind": {make: func(l *lab) {
		l.ahead["agent-node-b"] = -time.Hour
	}, check: "clock", as: Warning, what: "behind", next: "NTP"},
	"older-agent": {make: func(l *lab) {
		l.change("agent-node-b", func(n *inspect.Node) { n.Agent, n.Plugin.Version = "v1.2.0", "v1.2.0" })
	}, status: 1, check: "versions", as: NotWell, what: "v1.2.0", next: "helm upgrade"},
	"fewer-questions": {make: func(l *lab) {
		l.change("agent-node-b", func(n *inspect.Node) { n.Questions = []string{} })
	}, check: "versions", as: Warning, what: "cannot answer inspect files", next: "upgrade the agents"},
	"no-release": {make: func(l *lab) {
		l.change("agent-node-b", func(n *inspect.Node) { n.Agent, n.Plugin.Version = "(devel)", "(devel)" })
	}, check: "versions", as: NotLookedAt, what: "how far (devel) and v1.4.0 are apart"},
	"taint-untold": {make: func(l *lab) { l.node("node-a").Spec.Taints = []corev1.Taint{{Key: usualTaint}} }, status: 1,
		check: "startup-taint", as: NotWell, what: "the agents are not told", next: "startupTaint.enabled=true"},
	"taint-stays": {make: func(l *lab) {
		l.flag("--startup-taint=x")
		l.policy("istio-pod-network-startup-taint", admissionv1.Deny)
		l.node("node-a").Spec.Taints = []corev1.Taint{{Key: "x"}}
	}, status: 1, check: "startup-taint", as: NotWell, what: "its agent is ready, and the startup taint x",
		next: "kubectl -n mesh-network logs agent-node-a"},
	"taint-goes": {make: func(l *lab) {
		l.flag("--startup-taint=x")
		l.policy("istio-pod-network-startup-taint", admissionv1.Deny)
		l.node("node-b").Spec.Taints = []corev1.Taint{{Key: "x"}}
		l.change("agent-node-b", func(n *inspect.Node) { n.Ready = false })
	}, status: 1, check: "startup-taint", as: Warning, what: "the startup taint x is still there", next: "once it is " +
		"ready"},
	"taint-gone": {make: func(l *lab) {
		l.flag("--startup-taint=x")
		l.policy("istio-pod-network-startup-taint", admissionv1.Deny)
	}},

	"no-istio": {before: true, make: func(l *lab) { delete(l.objects, "Webhook") },
		check: "istiod", as: Warning, what: "no injector", next: "install Istio"},
	"istiod-away": {make: func(l *lab) {
		l.objects["Deployment/istiod"].(*appsv1.Deployment).Status.AvailableReplicas = 0
	}, status: 1, check: "istiod", as: NotWell, what: "no istiod of revision default", next: "kubectl -n istio-system"},
	"istiod-elsewhere": {make: func(l *lab) {
		l.objects["Webhook"].(*admissionv1.MutatingWebhookConfiguration).Webhooks[0].ClientConfig.Service = nil
	}, check: "istiod", as: NotLookedAt, what: "outside of this cluster"},
	"revision": {make: func(l *lab) {
		l.objects["Webhook"].(*admissionv1.MutatingWebhookConfiguration).Labels[revisionLabel] = "1-31"
		l.objects["Deployment/istiod"].(*appsv1.Deployment).Labels[revisionLabel] = "1-31"
		config := l.config("istio-sidecar-injector")
		config.Name += "-1-31"
	}},
	"way-b": {make: func(l *lab) { l.inject(true, "default", stockConfig) }},
	"way-c": {make: func(l *lab) {
		l.inject(false, "", stockConfig)
		l.mutates(replaceInit)
	}},
	"no-way": {make: func(l *lab) { l.inject(false, "", stockConfig) }, status: 1,
		check: "injection", as: NotWell, what: "own-init", next: "docs/injection.md"},
	"no-way-yet": {before: true, make: func(l *lab) { l.inject(false, "", stockConfig) },
		check: "injection", as: Warning, what: "adds istio-init", next: "after the installation"},
	"torn-injector": {make: func(l *lab) { l.config("istio-sidecar-injector").Data["values"] = "{" },
		check: "injection", as: NotLookedAt, what: "values of the ConfigMap"},
	"torn-templates": {make: func(l *lab) { l.config("istio-sidecar-injector").Data["config"] = "{" },
		check: "injection", as: NotLookedAt, what: "config of the ConfigMap"},

	"istio-cni": {make: func(l *lab) { l.foreign("istio-system", "istio-cni-node") },
		check: "other-meshes", as: Warning, what: "Istio's own CNI", next: "docs/migration.md"},
	"istio-cni-plugin": {make: func(l *lab) {
		l.change("agent-node-b", func(n *inspect.Node) { n.Installation.Plugins = []string{"ptp", "istio-cni"} })
	}, check: "other-meshes", as: Warning, what: "Istio's own CNI is in the network of its pods, too",
		next: "docs/migration.md"},
	"other-meshes": {before: true, make: func(l *lab) {
		l.foreign("linkerd-cni", "linkerd-cni")
		l.foreign("kuma-system", "kuma-cni-node")
		l.foreign("consul", "consul-consul-cni")
	}, check: "other-meshes", as: Warning, what: "Kuma's CNI", next: "keep the namespaces"},
	"cilium": {before: true, make: func(l *lab) {
		l.foreign("kube-system", "cilium")
		l.objects["ConfigMap/cilium-config"] = &corev1.ConfigMap{ObjectMeta: namedIn("kube-system", "cilium-config"),
			Data: map[string]string{"cni-exclusive": "true", "kube-proxy-replacement": "true"}}
	}, status: 1, check: "cilium", as: NotWell, what: "cni-exclusive", next: "cni.exclusive=false"},
	"cilium-well": {before: true, make: func(l *lab) {
		l.foreign("kube-system", "cilium")
		l.objects["ConfigMap/cilium-config"] = &corev1.ConfigMap{ObjectMeta: namedIn("kube-system", "cilium-config"),
			Data: map[string]string{"cni-exclusive": "false", "kube-proxy-replacement": "true",
				"bpf-lb-sock-hostns-only": "true"}}
	}},
	"multus-before": {before: true, make: func(l *lab) { l.definitions() },
		check: "multus", as: Warning, what: "Multus is there", next: "cni.primary"},
	"openshift-before": {before: true, make: func(l *lab) {
		l.definitions()
		l.apis["security.openshift.io/v1"] = []string{"securitycontextconstraints"}
	}, check: "multus", as: Warning, what: "this is OpenShift", next: "kubernetesDistribution=OpenShift"},
	"multus-chain": {make: func(l *lab) { l.definitions() },
		check: "multus", as: Warning, what: "the runtime's first network", next: "cni.primary"},
	"multus-primary": {make: func(l *lab) {
		l.definitions()
		l.flag("--primary=10-calico.conflist")
	}},
	"multus-aux": {make: func(l *lab) {
		l.definitions()
		l.flag("--mode=aux")
	}},
	"nad": {make: func(l *lab) {
		l.definitions()
		l.flag("--mode=nad")
		l.inject(true, "multus", injectorConfig)
		definition := bare(multus+"/v1", "NetworkAttachmentDefinition", namedIn("default", "istio-cni"))
		definition.Labels["app.kubernetes.io/part-of"] = "istio-pod-network-controller"
		l.untyped["Definition"] = definition
	}},
	"nad-missing": {make: func(l *lab) {
		l.definitions()
		l.flag("--mode=nad")
		l.inject(true, "multus", injectorConfig)
	}, status: 1, check: "multus", as: NotWell, what: "NetworkAttachmentDefinition", next: "helm upgrade"},
	"nad-without-multus": {make: func(l *lab) { l.flag("--mode=nad") }, status: 1,
		check: "multus", as: NotWell, what: "has no Multus", next: "cni.mode"},
	"nad-unnamed": {make: func(l *lab) { l.flag("--mode=nad") }, status: 1,
		check: "injection", as: NotWell, what: "does not name our network", next: "pilot.cni.provider=multus"},
	"nad-named": {make: func(l *lab) { l.inject(true, "multus", injectorConfig) },
		check: "injection", as: Warning, what: "names the network istio-cni", next: "openshift.mode=nad"},

	"exec-refused": {make: func(l *lab) { l.errs["agent-node-b"] = forbidden("pods/exec") },
		check: "agent", as: NotLookedAt, what: "the right to create pods/exec in namespace mesh-network is missing"},
	"few-rights": {make: func(l *lab) {
		l.refused = []string{"list nodes", "get namespaces", "list daemonsets", "get configmaps", "list deployments",
			"list mutatingwebhookconfigurations"}
	}, check: "daemonset", as: NotLookedAt, what: "the right to list daemonsets.apps in all namespaces is missing"},
	"fewer-rights": {make: func(l *lab) {
		l.flag("--mode=nad")
		l.definitions()
		l.inject(false, "multus", stockConfig)
		l.refused = []string{"get version", "get validatingadmissionpolicies", "get mutatingadmissionpolicies", "list pods",
			"list network-attachment-definitions", "list deployments", "get namespaces"}
	}, check: "injection", as: NotLookedAt, what: "way C"},
	"config-refused": {make: func(l *lab) {
		l.foreign("kube-system", "cilium")
		l.refused = []string{"get configmaps", "get validatingadmissionpolicybindings", "get mutatingadmissionpolicybindings"}
	}, check: "cilium", as: NotLookedAt, what: "get configmaps in namespace kube-system"},
	"discovery-refused": {before: true, make: func(l *lab) { l.refused = []string{"get resource"} },
		check: "admission-api", as: NotLookedAt, what: "get /apis/admissionregistration.k8s.io"},
}

// What is said of clusters, by what is wrong in them, with the exit status.
func TestCheck(t *testing.T) {
	for name, s := range scenarios {
		t.Run(name, func(t *testing.T) {
			l := well()
			if s.before {
				l = empty()
			}
			s.make(l)
			for format, file := range map[output.Format]string{output.Table: name + ".txt", output.JSON: name + ".json",
				output.YAML: name + ".yaml"} {
				whole := name == "well" || name == "pre" || name == "fewer-rights"
				if format != output.Table && !whole {
					continue
				}
				var out bytes.Buffer
				err := options{before: s.before}.run(t.Context(), l.source(), output.Writer{Out: &out, Format: format}, "v1.4.0")
				if got := outcome.StatusOf(err); got != s.status {
					t.Errorf("%s: status %d, want %d: %v\n%s", format, got, s.status, err, out.String())
				}
				golden.Compare(t, filepath.Join("testdata", file), out.String())
				if format == output.Table {
					golden.Fits(t, file, out.String(), output.Width)
				}
			}
			c, err := Of(t.Context(), l.source(), "", s.before, "v1.4.0")
			if err != nil {
				t.Fatal(err)
			}
			said := s.check == ""
			for _, item := range c.Items {
				said = said || item.Check == s.check && item.Verdict == s.as && strings.Contains(item.What, s.what) &&
					strings.Contains(item.Next, s.next)
				if s.check == "" && item.Verdict != Well {
					t.Errorf("%+v", item)
				}
				if needs := item.Verdict == Warning || item.Verdict == NotWell; needs != (item.Next != "") {
					t.Errorf("each ! and ✗ has its remedy, and nothing else: %+v", item)
				}
				if item.MissingRight != "" && item.Verdict != NotLookedAt {
					t.Errorf("%+v", item)
				}
			}
			if !said {
				t.Errorf("nothing says %q and %q: %+v", s.what, s.next, c.Items)
			}
		})
	}
}

// Each check is well in one cluster, and not in another.
func TestEachCheck(t *testing.T) {
	seen := map[string]map[bool]bool{}
	for _, s := range scenarios {
		l := well()
		if s.before {
			l = empty()
		}
		s.make(l)
		c, err := Of(t.Context(), l.source(), "", s.before, "v1.4.0")
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range c.Items {
			if seen[item.Check] == nil {
				seen[item.Check] = map[bool]bool{}
			}
			seen[item.Check][item.Verdict == Well] = true
		}
	}
	// What is only told where it is strange, and what stands in place of others where these cannot be looked at.
	only := map[string]bool{"pods-outside": true, "older-rules": true, "installation": true, "multus-api": true,
		"openshift-api": true, "agents": true, "rules": true}
	for check, verdicts := range seen {
		if !verdicts[false] || !verdicts[true] && !only[check] {
			t.Errorf("%s: %v", check, verdicts)
		}
	}
	if len(seen) < 15 {
		t.Errorf("%d checks", len(seen))
	}
}

// Where the API server does not answer, nothing is said.
func TestUnasked(t *testing.T) {
	l := well()
	l.broken = true
	var out bytes.Buffer
	err := options{}.run(t.Context(), l.source(), output.Writer{Out: &out}, "v1.4.0")
	if outcome.StatusOf(err) != outcome.NotAsked || out.Len() > 0 || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("%v, %q", err, out.String())
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	err = options{}.run(ended, well().source(), output.Writer{Out: &out}, "")
	if outcome.StatusOf(err) != outcome.NotAsked {
		t.Error(err)
	}
	if err := (Check{Summary: Summary{NotLookedAt: 3}}).show(output.Writer{Out: &out}); !errors.Is(err, errNothing) {
		t.Error(err)
	}
}

// -n says where the agents are.
func TestNamespace(t *testing.T) {
	if c, err := Of(t.Context(), well().source(), "elsewhere", false, "v1.4.0"); err != nil || c.Summary.NotWell != 1 {
		t.Errorf("%+v, %v", c, err)
	}
}
