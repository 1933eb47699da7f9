package sysdump

import (
	"maps"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	"github.com/istio-pod-network/controller/internal/blank"
	"github.com/istio-pod-network/controller/internal/podfacts"
	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/redirect"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// kind is a kind of objects for an archive.
type kind struct {
	group    string
	versions []string // API versions; the first one that the cluster has is used
	name     string
	selector string
	own      bool // only in the agents' namespaces
	takes    func(*unstructured.Unstructured) bool
}

// resource returns the resource in one of its API versions.
func (k kind) resource(version string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: k.group, Version: version, Resource: k.name}
}

const (
	rbac      = "rbac.authorization.k8s.io"
	admission = "admissionregistration.k8s.io"
)

var (
	v1       = []string{"v1"}
	mutating = []string{"v1", "v1beta1", "v1alpha1"}
)

// kinds are the kinds of the chart's objects, and of other objects that affect its pods.
var kinds = []kind{
	{"apps", v1, "daemonsets", cluster.OfChart, true, nil},
	{"batch", v1, "jobs", cluster.OfChart, false, nil},
	{"", v1, "configmaps", cluster.OfChart, true, nil},
	{"", v1, "serviceaccounts", cluster.OfChart, true, nil},
	{"", v1, "services", cluster.OfChart, true, nil},
	{"", v1, "resourcequotas", "", true, nil},
	{rbac, v1, "roles", cluster.OfChart, false, nil},
	{rbac, v1, "rolebindings", cluster.OfChart, false, nil},
	{rbac, v1, "clusterroles", cluster.OfChart, false, nil},
	{rbac, v1, "clusterrolebindings", cluster.OfChart, false, nil},
	{admission, v1, "validatingadmissionpolicies", cluster.OfChart, false, nil},
	{admission, v1, "validatingadmissionpolicybindings", cluster.OfChart, false, nil},
	{admission, mutating, "mutatingadmissionpolicies", cluster.OfChart, false, nil},
	{admission, mutating, "mutatingadmissionpolicybindings", cluster.OfChart, false, nil},
	{admission, v1, "mutatingwebhookconfigurations", "", false, aboutPods},
	{admission, v1, "validatingwebhookconfigurations", "", false, aboutPods},
	{"k8s.cni.cncf.io", v1, "network-attachment-definitions", "", false, nil},
	{"security.openshift.io", v1, "securitycontextconstraints", cluster.OfChart, false, nil},
	{"monitoring.coreos.com", v1, "podmonitors", cluster.OfChart, false, nil},
	{"monitoring.coreos.com", v1, "prometheusrules", cluster.OfChart, false, nil},
}

// Kinds that are read for several purposes.
var (
	ofPods       = kind{"", v1, "pods", "", false, nil}
	ofNodes      = kind{"", v1, "nodes", "", false, nil}
	ofNamespaces = kind{"", v1, "namespaces", "", false, nil}
	ofEvents     = kind{"", v1, "events", "", false, nil}
	agentPods    = kind{"", v1, "pods", cluster.OfAgents, false, nil}
	agentSets    = kind{"apps", v1, "daemonsets", cluster.OfAgents, false, nil}
)

// aboutPods reports whether a webhook is called for pods.
func aboutPods(o *unstructured.Unstructured) bool {
	hooks, _, _ := unstructured.NestedSlice(o.Object, "webhooks")
	return slices.ContainsFunc(hooks, func(hook any) bool {
		fields, _ := hook.(map[string]any)
		rules, _, _ := unstructured.NestedSlice(fields, "rules")
		return slices.ContainsFunc(rules, func(rule any) bool {
			fields, _ := rule.(map[string]any)
			resources, _, _ := unstructured.NestedStringSlice(fields, "resources")
			return slices.ContainsFunc(resources, func(r string) bool {
				return r == "*" || r == "*/*" || r == "pods" || strings.HasPrefix(r, "pods/")
			})
		})
	})
}

// lastApplied is the annotation in which kubectl stores an object as it was applied, including environment variables.
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// cleaned returns an object without managed fields and similar data, and without credentials.
func cleaned(o *unstructured.Unstructured) map[string]any {
	object := maps.Clone(o.Object)
	if meta, ok := object["metadata"].(map[string]any); ok {
		meta = maps.Clone(meta)
		delete(meta, "managedFields")
		if annotations, ok := meta["annotations"].(map[string]any); ok {
			annotations = maps.Clone(annotations)
			delete(annotations, lastApplied)
			meta["annotations"] = annotations
		}
		object["metadata"] = meta
	}
	switch o.GetKind() {
	case "ServiceAccount":
		delete(object, "secrets")
		delete(object, "imagePullSecrets")
	case "ConfigMap":
		if o.GetName() != cluster.SettingsMap { // another one, such as the chart's dashboard
			delete(object, "data")
			delete(object, "binaryData")
		}
	}
	return withoutSecrets(object).(map[string]any)
}

// withoutSecrets returns a JSON tree without values of environment variables, and without what looks like a credential.
func withoutSecrets(v any) any {
	switch v := v.(type) {
	case string:
		return blank.String(v)
	case []any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = withoutSecrets(v[i])
			if before, isText := v[max(0, i-1)].(string); i > 0 && isText && blank.Flag(before) {
				list[i] = blank.Mark
			}
		}
		return list
	case map[string]any:
		object := make(map[string]any, len(v))
		for key, of := range v {
			switch list, isList := of.([]any); {
			case key == "env" && isList:
				object[key] = names(list)
			case key == "envFrom", key == "caBundle", key == "value" && isCalledSecret(v["name"]):
				object[key] = blank.Mark
			case key == "annotations":
				object[key] = withoutSecrets(annotationsOf(of))
			default:
				object[key] = withoutSecrets(of)
			}
		}
		return object
	}
	return v
}

// isCalledSecret reports whether a name beside a value, for example of a header, is that of a credential.
func isCalledSecret(name any) bool {
	text, _ := name.(string)
	return blank.Named(text)
}

// annotationsOf filters annotations as toldOf does: anybody may have written them.
func annotationsOf(v any) any {
	all, is := v.(map[string]any)
	if !is {
		return v
	}
	some := make(map[string]any, len(all))
	for key, value := range all {
		text, _ := value.(string)
		some[key] = toldAs(key, text)
	}
	return some
}

// names returns only the names of a list of variables.
func names(list []any) []any {
	all := []any{}
	for _, v := range list {
		variable, _ := v.(map[string]any)
		all = append(all, map[string]any{"name": variable["name"]})
	}
	return all
}

// told are the domains of annotations and labels whose values are in the archive. Values of other domains may be
// private.
var told = []string{"istio.io", "kubernetes.io", "k8s.io", "cncf.io", "openshift.io", "helm.sh"}

func isTold(domain string) bool {
	return slices.ContainsFunc(told, func(d string) bool { return domain == d || strings.HasSuffix(domain, "."+d) })
}

// untold are annotations in these domains that have parts of a user's environment or manifest.
var untold = map[string]bool{
	lastApplied: true, "proxy.istio.io/config": true, "proxy.istio.io/overrides": true,
	"sidecar.istio.io/userVolume": true, "sidecar.istio.io/userVolumeMount": true,
}

// toldOf returns annotations or labels, without the values that may be private.
func toldOf(all map[string]string) map[string]string {
	some := map[string]string{}
	for key, value := range all {
		some[key] = toldAs(key, value)
	}
	if delete(some, lastApplied); len(some) == 0 {
		return nil
	}
	return some
}

// toldAs returns a value for the archive.
func toldAs(key, value string) string {
	domain, _, _ := strings.Cut(key, "/")
	if !isTold(domain) && key != annotation.Initialize || untold[key] || blank.Named(key) {
		value = blank.Mark
	}
	return blank.String(value)
}

// isOfMesh reports whether a pod belongs to a mesh: by its sidecar, its init wait, or its annotations.
func isOfMesh(pod *corev1.Pod) bool {
	for _, key := range slices.Concat(slices.Collect(maps.Keys(pod.Annotations)), slices.Collect(maps.Keys(pod.Labels))) {
		domain, _, _ := strings.Cut(key, "/")
		switch domain {
		case "sidecar.istio.io", "traffic.sidecar.istio.io", "pod-network-controller.istio.io":
			return true
		}
		if key == annotation.Initialize {
			return true
		}
	}
	return slices.ContainsFunc(slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers), isOurs)
}

// isOurs reports whether a container is the sidecar or is for redirection.
func isOurs(c corev1.Container) bool {
	return c.Name == redirect.ProxyContainer || c.Name == "istio-init" || c.Name == "istio-validation" ||
		podfacts.IsWait(c)
}

// podOf returns what the archive has of a mesh pod: metadata, status, and the part of the spec that the decision needs.
func podOf(pod *corev1.Pod) *corev1.Pod {
	to := &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, CreationTimestamp: pod.CreationTimestamp,
			DeletionTimestamp: pod.DeletionTimestamp, Labels: pod.Labels, Annotations: toldOf(pod.Annotations),
			OwnerReferences: pod.OwnerReferences,
		},
		Spec: corev1.PodSpec{
			NodeName: pod.Spec.NodeName, HostNetwork: pod.Spec.HostNetwork, RuntimeClassName: pod.Spec.RuntimeClassName,
			ServiceAccountName: pod.Spec.ServiceAccountName, SecurityContext: pod.Spec.SecurityContext,
			InitContainers: containersOf(pod.Spec.InitContainers), Containers: containersOf(pod.Spec.Containers),
		},
		Status: corev1.PodStatus{
			Phase: pod.Status.Phase, Reason: pod.Status.Reason, Conditions: pod.Status.Conditions,
			HostIPs: pod.Status.HostIPs, PodIPs: pod.Status.PodIPs, StartTime: pod.Status.StartTime,
			InitContainerStatuses: statusesOf(pod.Status.InitContainerStatuses, pod.Spec.InitContainers),
			ContainerStatuses:     statusesOf(pod.Status.ContainerStatuses, pod.Spec.Containers),
		},
	}
	return to
}

// containersOf returns what the archive has of containers.
func containersOf(all []corev1.Container) (some []corev1.Container) {
	for _, c := range all {
		to := corev1.Container{Name: c.Name, SecurityContext: c.SecurityContext, RestartPolicy: c.RestartPolicy}
		if isOurs(c) {
			to.Image = c.Image
		}
		some = append(some, to)
	}
	return some
}

// statusesOf returns what the archive has of containers' states. Only our containers' termination messages are kept.
func statusesOf(all []corev1.ContainerStatus, of []corev1.Container) (some []corev1.ContainerStatus) {
	for _, s := range all {
		to := corev1.ContainerStatus{Name: s.Name, State: *s.State.DeepCopy(), Ready: s.Ready, Started: s.Started,
			LastTerminationState: *s.LastTerminationState.DeepCopy(), RestartCount: s.RestartCount, User: s.User}
		i := slices.IndexFunc(of, func(c corev1.Container) bool { return c.Name == s.Name })
		if i < 0 || !isOurs(of[i]) {
			for _, state := range []*corev1.ContainerState{&to.State, &to.LastTerminationState} {
				if state.Terminated != nil {
					state.Terminated.Message = ""
				}
			}
		}
		some = append(some, to)
	}
	return some
}

// nodeOf returns what the archive has of a node.
func nodeOf(o *unstructured.Unstructured) map[string]any {
	o = o.DeepCopy()
	o.SetAnnotations(toldOf(o.GetAnnotations()))
	for _, path := range [][]string{
		{"status", "images"}, {"status", "volumesInUse"}, {"status", "volumesAttached"}, {"status", "nodeInfo", "machineID"},
		{"status", "nodeInfo", "systemUUID"}, {"spec", "providerID"},
	} {
		unstructured.RemoveNestedField(o.Object, path...)
	}
	return cleaned(o)
}

// namespaceOf returns what the archive has of a namespace.
func namespaceOf(o *unstructured.Unstructured) map[string]any {
	o = o.DeepCopy()
	o.SetAnnotations(toldOf(o.GetAnnotations()))
	return cleaned(o)
}

// isOfUse reports whether an Event is about this project or about a mesh pod.
func isOfUse(e *corev1.Event, own, pods map[string]bool) bool {
	const prefix = "istio-pod-network"
	return own[e.Namespace] || strings.HasPrefix(e.Source.Component, prefix) ||
		strings.HasPrefix(e.ReportingController, prefix) || strings.Contains(e.Message, prefix) ||
		e.InvolvedObject.Kind == "Pod" && pods[e.InvolvedObject.Namespace+"/"+e.InvolvedObject.Name]
}

// treeOf converts an object into a JSON tree.
func treeOf(o any) (map[string]any, error) {
	tree, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		return nil, err
	}
	return withoutSecrets(tree).(map[string]any), nil
}

// typed converts an object into a type.
func typed(o *unstructured.Unstructured, as any) error {
	return runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, as)
}
