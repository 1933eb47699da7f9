package chart

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/internal/await"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// The marks, and a pod's own annotation.
const (
	status   = "pod-network-controller.istio.io/status"
	netns    = "pod-network-controller.istio.io/netns"
	reason   = "pod-network-controller.istio.io/reason"
	families = "pod-network-controller.istio.io/families"
	taint    = "istio-pod-network-controller/agent-not-ready"
)

// guarded is a cluster with the chart's policies, two nodes, a pod on each, and what reaches it as whom.
type guarded struct {
	testing.TB
	ctx    context.Context
	admin  *kubernetes.Clientset
	agent  *kubernetes.Clientset // with the token of the agent's pod on node a
	loose  *kubernetes.Clientset // with a token of the agent's account that is bound to no pod
	editor *kubernetes.Clientset // who may edit pods, and nodes too
}

const shop = "policy-shop"

func newGuarded(t *testing.T) *guarded {
	t.Helper()
	applied(t, template(t, "helm4", "startupTaint.enabled=true", "repair=delete",
		"sharedProxyUser=refuse"))
	config, err := clientcmd.BuildConfigFromFlags("", admin)
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	g := &guarded{TB: t, ctx: context.Background(), admin: client}
	apply(t, fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata: {name: %s}\n---\n", shop)+editors)
	for _, node := range []string{"a", "b"} {
		_, err := client.CoreV1().Nodes().Create(g.ctx, &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: node, Labels: map[string]string{"zone": "a"}},
			Spec: corev1.NodeSpec{
				Taints: []corev1.Taint{{Key: taint, Effect: corev1.TaintEffectNoSchedule},
					{Key: "other", Effect: corev1.TaintEffectNoSchedule}},
			}}, metav1.CreateOptions{})
		g.must(err)
		g.create(client, "on-"+node, node, nil)
	}
	g.create(client, "noted", "a", map[string]string{"a": "b"})
	g.meshed("meshed", func(_ *corev1.Pod, proxy *corev1.Container) {
		proxy.SecurityContext = &corev1.SecurityContext{RunAsUser: new(int64(2000))}
	})
	pod := g.pod("agent", "a", nil)
	pod.Namespace, pod.Spec.ServiceAccountName = system, "istio-pod-network-agent"
	pod, err = client.CoreV1().Pods(system).Create(g.ctx, pod, metav1.CreateOptions{})
	g.must(err)
	g.agent = g.as(config, &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name,
		UID: pod.UID})
	g.loose = g.as(config, nil)
	as := rest.CopyConfig(config)
	as.Impersonate.UserName = "editor"
	g.editor, err = kubernetes.NewForConfig(as)
	g.must(err)
	g.inForce()
	return g
}

const editors = `apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: policy-editor}
rules:
- apiGroups: [""]
  resources: [pods, pods/status, pods/binding, bindings, pods/ephemeralcontainers, nodes, nodes/status]
  verbs: ["*"]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: policy-editor}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: policy-editor}
subjects:
- {kind: User, name: editor, apiGroup: rbac.authorization.k8s.io}
- {kind: ServiceAccount, name: istio-pod-network-agent, namespace: istio-pod-network-controller}
`

func (g *guarded) must(err error) {
	g.Helper()
	if err != nil {
		g.Fatal(err)
	}
}

// as is a client with a token of the agent's account. It may do more here than its own role lets it, so that the policy
// alone is in its way.
func (g *guarded) as(admin *rest.Config, bound *authenticationv1.BoundObjectReference) *kubernetes.Clientset {
	g.Helper()
	token, err := g.admin.CoreV1().ServiceAccounts(system).CreateToken(g.ctx, "istio-pod-network-agent",
		&authenticationv1.TokenRequest{
			Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: bound},
		}, metav1.CreateOptions{})
	g.must(err)
	config := rest.AnonymousClientConfig(admin)
	config.BearerToken, config.UserAgent = token.Status.Token, "istio-pod-network-agent/test"
	client, err := kubernetes.NewForConfig(config)
	g.must(err)
	return client
}

func (g *guarded) pod(name, node string, annotations map[string]string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: shop, Annotations: annotations,
			Labels: map[string]string{"app": "cart"}},
		Spec: corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "app", Image: "app"}}},
	}
}

func (g *guarded) create(as *kubernetes.Clientset, name, node string, annotations map[string]string) {
	g.Helper()
	_, err := as.CoreV1().Pods(shop).Create(g.ctx, g.pod(name, node, annotations), metav1.CreateOptions{})
	g.must(err)
}

// patch merges into a pod, as the agent does.
func patch(as *kubernetes.Clientset, pod, subresource string, change map[string]any) error {
	return patchIn(shop, as, pod, subresource, change)
}

func patchIn(namespace string, as *kubernetes.Clientset, pod, subresource string, change map[string]any) error {
	data, err := json.Marshal(change)
	if err != nil {
		return err
	}
	var sub []string
	if subresource != "" {
		sub = []string{subresource}
	}
	_, err = as.CoreV1().Pods(namespace).Patch(context.Background(), pod, types.MergePatchType, data,
		metav1.PatchOptions{}, sub...)
	return err
}

// annotated is a change of annotations.
func annotated(pairs ...string) map[string]any {
	annotations := map[string]any{}
	for i := 0; i < len(pairs); i += 2 {
		annotations[pairs[i]] = pairs[i+1]
		if pairs[i+1] == "" {
			annotations[pairs[i]] = nil
		}
	}
	return map[string]any{"metadata": map[string]any{"annotations": annotations}}
}

// inForce waits until the API server has read the policies.
func (g *guarded) inForce() {
	g.Helper()
	await.Success(g, time.Minute, "the policies are in force", func() error {
		pods := g.editor.CoreV1().Pods(shop)
		copied, copying := pods.Create(g.ctx, g.pod("early", "a", map[string]string{status: "initialized"}),
			metav1.CreateOptions{DryRun: []string{"All"}})
		mark, _ := json.Marshal(annotated(status, "initialized"))
		_, err := pods.Patch(g.ctx, "on-b", types.MergePatchType, mark, metav1.PatchOptions{DryRun: []string{"All"}})
		debugging := g.debug(g.editor, "meshed", 1337, nil, true)
		node, _ := json.Marshal(map[string]any{"spec": map[string]any{"unschedulable": true}})
		_, tainting := g.agent.CoreV1().Nodes().Patch(g.ctx, "b", types.MergePatchType, node,
			metav1.PatchOptions{DryRun: []string{"All"}})
		deleting := g.agent.CoreV1().Pods(shop).Delete(g.ctx, "on-b", metav1.DeleteOptions{DryRun: []string{"All"}})
		if copying == nil && len(copied.Annotations) == 0 && err != nil && debugging != nil && tainting != nil &&
			deleting != nil {
			return nil
		}
		return errors.New(fmt.Sprint(copied, copying, ", ", err, ", ", debugging, ", ", tainting, ", ", deleting))
	})
}

// Who may do what to a pod's marks, and what else an agent may not.
func TestPolicy(t *testing.T) {
	g := newGuarded(t)
	g.must(patch(g.agent, "on-a", "status", annotated(status, "initialized", netns, "b/1/1"))) // its work
	copied := g.pod("copied", "", map[string]string{status: "initialized", netns: "b/1/1", "a": "b"})
	labelled := func(app string) map[string]any {
		return map[string]any{"metadata": map[string]any{"labels": map[string]any{"app": app}}}
	}
	for _, c := range []struct {
		what  string
		do    func() error
		words string // of the refusal; empty: it is allowed
	}{
		{"a user copies a pod with its marks, and they are taken off", func() error {
			made, err := g.editor.CoreV1().Pods(shop).Create(g.ctx, copied, metav1.CreateOptions{})
			if err == nil && (len(made.Annotations) != 1 || made.Annotations["a"] != "b") {
				err = fmt.Errorf("the copy has %v", made.Annotations)
			}
			return err
		}, ""},
		{"a user marks by a legacy binding", func() error {
			return g.editor.CoreV1().RESTClient().Post().Namespace(shop).Resource("bindings").Body(
				&corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "copied", Namespace: shop,
					Annotations: map[string]string{status: "initialized"}},
					Target: corev1.ObjectReference{Kind: "Node", Name: "a"}}).Do(g.ctx).Error()
		}, status},
		{"a user binds by a legacy binding", func() error {
			return g.editor.CoreV1().RESTClient().Post().Namespace(shop).Resource("bindings").Body(
				&corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "copied", Namespace: shop},
					Target: corev1.ObjectReference{Kind: "Node", Name: "a"}}).Do(g.ctx).Error()
		}, ""},
		{"the agent takes a mark away", func() error { return patch(g.agent, "on-a", "status", annotated(status, "")) },
			"takes no mark away"},
		{"the agent takes the network namespace away",
			func() error { return patch(g.agent, "on-a", "status", annotated(netns, "")) }, "takes no mark away"},
		{"a user makes a pod without", func() error {
			_, err := g.editor.CoreV1().Pods(shop).Create(g.ctx, g.pod("plain", "a", map[string]string{"a": "b"}),
				metav1.CreateOptions{})
			return err
		}, ""},
		{"a user marks a pod", func() error { return patch(g.editor, "on-b", "", annotated(status, "initialized")) }, status},
		{"a user marks by the status", func() error { return patch(g.editor, "on-b", "status", annotated(reason, "none")) },
			reason},
		{"a user marks by a binding", func() error {
			unbound := g.pod("unbound", "", nil)
			if _, err := g.editor.CoreV1().Pods(shop).Create(g.ctx, unbound, metav1.CreateOptions{}); err != nil {
				return fmt.Errorf("making a pod: %w", err)
			}
			return g.editor.CoreV1().Pods(shop).Bind(g.ctx,
				&corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "unbound",
					Annotations: map[string]string{status: "initialized"}},
					Target: corev1.ObjectReference{Kind: "Node", Name: "a"}}, metav1.CreateOptions{})
		}, status},
		{"a user binds a pod", func() error {
			return g.editor.CoreV1().Pods(shop).Bind(g.ctx, &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "unbound"},
				Target: corev1.ObjectReference{Kind: "Node", Name: "a"}}, metav1.CreateOptions{})
		}, ""},
		{"a user changes a mark", func() error { return patch(g.editor, "on-a", "", annotated(netns, "b/2/2")) }, netns},
		{"a user gives it another reason",
			func() error { return patch(g.editor, "on-a", "", annotated(reason, "opted-in")) }, reason},
		{"a user takes a mark away", func() error { return patch(g.editor, "on-a", "", annotated(status, "")) }, ""},
		{"a user changes a marked pod", func() error { return patch(g.editor, "on-a", "", labelled("users")) }, ""},
		{"the agent marks again", func() error {
			return patch(g.agent, "on-a", "status", annotated(status, "initialized", netns, "b/3/3"))
		}, ""},
		{"the agent takes its reason away", func() error { return patch(g.agent, "on-a", "status", annotated(reason, "")) },
			""},
		{"the agent says that one family is captured",
			func() error { return patch(g.agent, "on-a", "status", annotated(families, "IPv4")) }, ""},
		{"a user says that another is", func() error { return patch(g.editor, "on-a", "", annotated(families, "IPv6")) },
			families},
		{"the agent says that both are", func() error { return patch(g.agent, "on-a", "status", annotated(families, "")) },
			""},
		{"the agent marks a pod of another node",
			func() error { return patch(g.agent, "on-b", "status", annotated(status, "initialized")) }, "own node"},
		{"the agent marks a pod of no node", func() error {
			if _, err := g.editor.CoreV1().Pods(shop).Create(g.ctx, g.pod("nowhere", "", nil),
				metav1.CreateOptions{}); err != nil {
				return err
			}
			return patch(g.agent, "nowhere", "status", annotated(status, "initialized"))
		}, "own node"},
		{"a token that is bound to no pod marks", func() error {
			return patch(g.loose, "on-a", "status", annotated(status, "initialized", netns, "b/4/4"))
		}, "own node"},
		{"the agent marks by the pod itself",
			func() error { return patch(g.agent, "on-a", "", annotated(status, "not-required")) }, "pods/status"},
		{"the agent makes a pod", func() error {
			_, err := g.agent.CoreV1().Pods(shop).Create(g.ctx, g.pod("its", "a", nil), metav1.CreateOptions{})
			return err
		}, "nothing of a pod but its marks"},
		{"the agent changes another annotation",
			func() error { return patch(g.agent, "on-a", "status", annotated("sidecar.istio.io/status", "{}")) },
			"no annotations but its marks"},
		{"the agent changes the value of an annotation",
			func() error { return patch(g.agent, "noted", "status", annotated("a", "c")) }, "no annotations but its marks"},
		{"the agent takes an annotation away",
			func() error { return patch(g.agent, "noted", "status", annotated("a", "")) }, "no annotations but its marks"},
		{"the agent puts an annotation in another's place",
			func() error { return patch(g.agent, "noted", "status", annotated("a", "", "b", "c")) },
			"no annotations but its marks"},
		{"the agent binds a pod", func() error {
			return g.agent.CoreV1().Pods(shop).Bind(g.ctx, &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "nowhere"},
				Target: corev1.ObjectReference{Kind: "Node", Name: "a"}}, metav1.CreateOptions{})
		}, "nothing of a pod but its marks"},
		{"the agent adds an ephemeral container", func() error { return g.debug(g.agent, "on-a", 5, nil, false) },
			"nothing of a pod but its marks"},
		{"the agent changes a label", func() error { return patch(g.agent, "on-a", "status", labelled("its")) }, "no labels"},
		{"the agent adds a finalizer", func() error {
			return patch(g.agent, "on-a", "status",
				map[string]any{"metadata": map[string]any{"finalizers": []string{"example.com/stay"}}})
		}, "no labels, finalizers"},
		{"the agent changes the status", func() error {
			return patch(g.agent, "on-a", "status", map[string]any{"status": map[string]any{"phase": "Failed"}})
		}, "status"},
	} {
		err := c.do()
		if c.words == "" && err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		if c.words != "" && (err == nil || !strings.Contains(err.Error(), c.words) ||
			!strings.Contains(err.Error(), "istio-pod-network-marks")) {
			t.Errorf("%s: %v, want a refusal by the policy with %q", c.what, err, c.words)
		}
	}
	g.many()
	g.kept()
	g.manages()
	g.debuggers()
	g.identities()
	g.taints()
	g.deletions()
}

// many tries pods of which much has to be compared: one with as many annotations as may be is marked, one with more is
// refused before they are looked at. How long each took is printed.
func (g *guarded) many() {
	g.Helper()
	const tooMany = "more than 1000 annotations"
	for _, c := range []struct {
		count int
		words string
	}{{997, ""}, {998, tooMany}, {1001, tooMany}, {15000, tooMany}} {
		annotations := map[string]string{}
		for i := range c.count {
			annotations[fmt.Sprint("a", i)] = ""
		}
		name := fmt.Sprint("many-", c.count)
		g.create(g.editor, name, "a", annotations)
		start := time.Now()
		err := patch(g.agent, name, "status", annotated(status, "initialized", netns, "b/1/1", reason, "x"))
		if (err == nil) != (c.words == "") || err != nil && !strings.Contains(err.Error(), c.words) {
			g.Errorf("%d annotations: %v, want %q", c.count, err, c.words)
		}
		if t, ok := g.TB.(*testing.T); ok {
			t.Logf("a pod with %d annotations: the mark took %v", c.count, time.Since(start).Round(time.Millisecond))
		}
	}
	none := map[string]any{"metadata": map[string]any{"annotations": nil}}
	if err := patch(g.agent, "many-15000", "status", none); err == nil ||
		!strings.Contains(err.Error(), tooMany) {
		g.Errorf("taking 15000 annotations away: %v", err)
	}
}

// kept tries what the agent's patch cannot change, whether the policy or the subresource itself keeps it: the
// specification, the owners, and who manages which fields.
func (g *guarded) kept() {
	g.Helper()
	get := func() *corev1.Pod {
		pod, err := g.admin.CoreV1().Pods(shop).Get(g.ctx, "on-a", metav1.GetOptions{})
		g.must(err)
		return pod
	}
	before := get()
	exchanged := slices.Clone(before.ManagedFields)
	for i := range exchanged {
		exchanged[i].Manager += "-of-another"
	}
	taken := slices.Clone(before.ManagedFields)
	taken[0].FieldsV1 = metav1.NewFieldsV1(`{"f:metadata": {"f:labels": {"f:app": {}}}}`)
	for what, change := range map[string]map[string]any{
		"a deadline": {"spec": map[string]any{"activeDeadlineSeconds": 5}},
		"an owner": meta("ownerReferences", []any{map[string]any{"apiVersion": "v1", "kind": "Node", "name": "x",
			"uid": "u"}}),
		"no managers": meta("managedFields", []any{}), "an empty one": meta("managedFields", []any{map[string]any{}}),
		"nothing of them": meta("managedFields", nil), "others": meta("managedFields", exchanged),
		"fewer fields of one": meta("managedFields", taken),
	} {
		err := patch(g.agent, "on-a", "status", change)
		after := get()
		if after.Spec.ActiveDeadlineSeconds != nil || len(after.OwnerReferences) != len(before.OwnerReferences) ||
			!equality.Semantic.DeepEqual(after.ManagedFields, before.ManagedFields) {
			g.Errorf("%s changed the pod (%v): managed by\n%v, before by\n%v", what, err, after.ManagedFields,
				before.ManagedFields)
		}
	}
}

func meta(key string, value any) map[string]any {
	return map[string]any{"metadata": map[string]any{key: value}}
}

// manages tries which fields an agent may manage, and who may have managed them before it marks a pod.
func (g *guarded) manages() {
	g.Helper()
	entry := func(name string, operation metav1.ManagedFieldsOperationType, fields string) metav1.ManagedFieldsEntry {
		return metav1.ManagedFieldsEntry{Manager: name, Operation: operation, APIVersion: "v1", FieldsType: "FieldsV1",
			FieldsV1: metav1.NewFieldsV1(fields)}
	}
	managed := func(name string, managers ...metav1.ManagedFieldsEntry) {
		g.create(g.admin, name, "a", map[string]string{"a": "b"})
		g.must(patch(g.editor, name, "", meta("managedFields", managers))) // of a new pod the API server takes none
	}
	const label = `{"f:metadata": {"f:labels": {"f:app": {}}}}`
	managed("copy", entry("cart", metav1.ManagedFieldsOperationApply, `{"f:metadata": {"f:annotations": {"f:a": {}, `+
		`"f:`+status+`": {}}, "f:labels": {"f:app": {}}}}`),
		entry("marks", metav1.ManagedFieldsOperationUpdate, `{"f:metadata": {"f:annotations": {"f:`+netns+`": {}}}}`))
	var ten, crowd []metav1.ManagedFieldsEntry
	for i := range 10 {
		ten = append(ten, entry(fmt.Sprint("m", i), metav1.ManagedFieldsOperationUpdate, label))
	}
	for i := range 31 {
		crowd = append(crowd, entry(fmt.Sprint("m", i), metav1.ManagedFieldsOperationApply, label))
	}
	managed("ten", ten...)
	managed("crowd", crowd...)
	mark := annotated(status, "initialized", netns, "b/1/1")
	labelled := map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{
		"labels": map[string]any{"app": "cart"}, "annotations": map[string]any{status: "initialized"}}}
	applied := map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{
		"annotations": map[string]any{status: "initialized"}}}
	for _, c := range []struct {
		what, pod string
		as        types.PatchType
		manager   string
		change    map[string]any
		words     string
	}{
		{"where a copy's managers had marks", "copy", types.MergePatchType, "", mark, ""},
		{"where ten have updated, of which the API server merges the oldest", "ten", types.MergePatchType, "", mark, ""},
		{"where a crowd has set fields", "crowd", types.MergePatchType, "", mark, "more than 30 managers"},
		{"as another manager", "noted", types.MergePatchType, "kubelet", mark, "manages nothing but its marks"},
		{"and a label, which stays as it is", "noted", types.ApplyPatchType, "istio-pod-network-agent", labelled,
			"manages nothing but its marks"},
		{"by application", "noted", types.ApplyPatchType, "istio-pod-network-agent", applied,
			"manages nothing but its marks"},
		{"as it does", "noted", types.MergePatchType, "istio-pod-network-agent", mark, ""},
	} {
		data, err := json.Marshal(c.change)
		g.must(err)
		options := metav1.PatchOptions{FieldManager: c.manager}
		if c.as == types.ApplyPatchType {
			options.Force = new(true)
		}
		_, err = g.agent.CoreV1().Pods(shop).Patch(g.ctx, c.pod, c.as, data, options, "status")
		if (err == nil) != (c.words == "") || err != nil && !strings.Contains(err.Error(), c.words) {
			g.Errorf("the agent marks %s: %v, want %q", c.what, err, c.words)
		}
	}
	pod, err := g.admin.CoreV1().Pods(shop).Get(g.ctx, "copy", metav1.GetOptions{})
	g.must(err)
	if !slices.ContainsFunc(pod.ManagedFields, func(e metav1.ManagedFieldsEntry) bool {
		return e.Manager == "cart" && strings.Contains(e.FieldsV1.GetRawString(), `"f:a"`) &&
			!strings.Contains(e.FieldsV1.GetRawString(), status)
	}) {
		g.Errorf("the copy is managed by %v", pod.ManagedFields)
	}
}

// debug adds an ephemeral container with that user, if it is not 0, and group.
func (g *guarded) debug(as *kubernetes.Clientset, pod string, user int64, group *int64, dryRun bool) error {
	now, err := g.admin.CoreV1().Pods(shop).Get(g.ctx, pod, metav1.GetOptions{})
	g.must(err)
	context := &corev1.SecurityContext{RunAsGroup: group}
	if user != 0 {
		context.RunAsUser = &user
	}
	now.Spec.EphemeralContainers = append(now.Spec.EphemeralContainers, corev1.EphemeralContainer{
		EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: fmt.Sprint("debugger-", rand.Int()), Image: "sh",
			ImagePullPolicy: corev1.PullAlways, TerminationMessagePolicy: corev1.TerminationMessageReadFile,
			SecurityContext: context},
	})
	options := metav1.UpdateOptions{}
	if dryRun {
		options.DryRun = []string{"All"}
	}
	_, err = as.CoreV1().Pods(shop).UpdateEphemeralContainers(g.ctx, pod, now, options)
	return err
}

// meshed makes a pod with a sidecar.
func (g *guarded) meshed(name string, change func(pod *corev1.Pod, proxy *corev1.Container)) {
	g.Helper()
	pod := g.pod(name, "a", nil)
	proxy := corev1.Container{Name: "istio-proxy", Image: "proxy"}
	change(pod, &proxy)
	if proxy.RestartPolicy != nil {
		pod.Spec.InitContainers = append(pod.Spec.InitContainers, proxy)
	} else {
		pod.Spec.Containers = append(pod.Spec.Containers, proxy)
	}
	_, err := g.admin.CoreV1().Pods(shop).Create(g.ctx, pod, metav1.CreateOptions{})
	g.must(err)
}

// debuggers tries which ephemeral containers may join a pod.
func (g *guarded) debuggers() {
	g.Helper()
	g.meshed("native", func(_ *corev1.Pod, proxy *corev1.Container) {
		proxy.RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
		proxy.SecurityContext = &corev1.SecurityContext{RunAsGroup: new(int64(2001))}
	})
	g.meshed("gateway", func(_ *corev1.Pod, proxy *corev1.Container) { proxy.Args = []string{"proxy", "router"} })
	g.meshed("untouched", func(*corev1.Pod, *corev1.Container) {})
	g.must(patch(g.agent, "untouched", "status", annotated(status, "not-required", netns, "b/1/1")))
	g.meshed("pod-wide", func(pod *corev1.Pod, proxy *corev1.Container) {
		pod.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: new(int64(3000)), RunAsGroup: new(int64(3001))}
		proxy.Args = []string{"proxy", "sidecar"}
	})
	g.meshed("named", func(pod *corev1.Pod, _ *corev1.Container) {
		pod.Annotations = map[string]string{"pod-network-controller.istio.io/envoy-userid": "4000",
			"pod-network-controller.istio.io/envoy-groupid": "4001"}
	})
	g.meshed("zeros", func(pod *corev1.Pod, _ *corev1.Container) {
		pod.Annotations = map[string]string{"pod-network-controller.istio.io/envoy-userid": "0006000",
			"pod-network-controller.istio.io/envoy-groupid": "000000000000000006001"}
	})
	for _, c := range []struct {
		what, pod string
		user      int64
		group     *int64
		refused   bool
	}{
		{"the user that is configured", "meshed", 1337, nil, true},
		{"the user of the sidecar", "meshed", 2000, nil, true},
		{"the group", "meshed", 5, new(int64(1337)), true},
		{"no user", "meshed", 0, nil, false},
		{"another", "meshed", 5, new(int64(5)), false},
		{"outside the mesh", "on-b", 1337, nil, false},
		{"the group of a native sidecar", "native", 5, new(int64(2001)), true},
		{"the user beside a gateway", "gateway", 1337, nil, false},
		{"the user, whatever the pod is marked", "untouched", 1337, nil, true},
		{"the user of the pod", "pod-wide", 0, new(int64(5)), true},
		{"the group of the pod", "pod-wide", 5, nil, true},
		{"neither", "pod-wide", 5, new(int64(5)), false},
		{"the user of the annotation", "named", 4000, new(int64(5)), true},
		{"the group of the annotation", "named", 5, new(int64(4001)), true},
		{"the user of an annotation with zeros", "zeros", 6000, new(int64(5)), true},
		{"the group of an annotation with zeros", "zeros", 5, new(int64(6001)), true},
		{"the user of an annotation that is none", "zeros", 5, new(int64(5)), false},
	} {
		err := g.debug(g.editor, c.pod, c.user, c.group, false)
		if (err != nil) != c.refused || err != nil && !strings.Contains(err.Error(), "istio-pod-network-shared-user") {
			g.Errorf("an ephemeral container with %s: %v, want it refused: %t", c.what, err, c.refused)
		}
	}
}

// identities tries to take away, or to change, the annotations by which the rules of a pod know its sidecar: what they
// said when its network was made is what an ephemeral container is compared with.
func (g *guarded) identities() {
	g.Helper()
	const userID, groupID = "pod-network-controller.istio.io/envoy-userid", "pod-network-controller.istio.io/envoy-groupid"
	plain := g.pod("no-sidecar", "a", map[string]string{userID: "4000"})
	_, err := g.admin.CoreV1().Pods(shop).Create(g.ctx, plain, metav1.CreateOptions{})
	g.must(err)
	g.meshed("no-node", func(pod *corev1.Pod, _ *corev1.Container) {
		pod.Spec.NodeName, pod.Annotations = "", map[string]string{userID: "4000"}
	})
	for _, c := range []struct {
		what, pod, by string
		change        map[string]any
		refused       bool
	}{
		{"takes it away", "named", "", annotated(userID, ""), true},
		{"takes it away by the status", "named", "status", annotated(userID, ""), true},
		{"changes it", "named", "", annotated(userID, "4002"), true},
		{"changes the group", "named", "status", annotated(groupID, "4002"), true},
		{"writes it in another way", "zeros", "", annotated(userID, "6000"), true},
		{"changes another annotation", "named", "", annotated("a", "b"), false},
		{"adds it", "meshed", "", annotated(userID, "4002"), false},
		{"and takes it away again", "meshed", "", annotated(userID, ""), true},
		{"of a pod without a sidecar", "no-sidecar", "", annotated(userID, ""), false},
		{"of a pod that has no node yet", "no-node", "", annotated(userID, ""), false},
	} {
		err := patch(g.editor, c.pod, c.by, c.change)
		if (err != nil) != c.refused || err != nil && !strings.Contains(err.Error(), "istio-pod-network-shared-user") {
			g.Errorf("a user %s: %v, want it refused: %t", c.what, err, c.refused)
		}
	}
}

// deletions tries which pods an agent may delete.
func (g *guarded) deletions() {
	g.Helper()
	yes, no := true, false
	for _, c := range []struct {
		what, node, owner string
		marks             map[string]string
		as                *kubernetes.Clientset
		words             string
	}{
		{"a pod of a controller", "a", "ReplicaSet", nil, g.agent, ""},
		{"one that was left untouched", "a", "ReplicaSet", map[string]string{status: "not-required"}, g.agent, "no mark"},
		{"one that is initialized", "a", "ReplicaSet", map[string]string{status: "initialized"}, g.agent, "no mark"},
		{"one that nobody makes again", "a", "", nil, g.agent, "a controller makes again"},
		{"one with an owner that is no controller", "a", "Observer", nil, g.agent, "a controller makes again"},
		{"one of more owners than are looked at", "a", "Crowd", nil, g.agent, "a controller makes again"},
		{"the image of a static pod", "a", "Node", nil, g.agent, "a controller makes again"},
		{"one of another node", "b", "ReplicaSet", nil, g.agent, "own node"},
		{"one of no node", "", "ReplicaSet", nil, g.agent, "own node"},
		{"by a token that is bound to no pod", "a", "ReplicaSet", nil, g.loose, "own node"},
		{"a user's business", "a", "", map[string]string{status: "initialized"}, g.editor, ""},
	} {
		pod := g.pod("doomed", c.node, nil)
		if c.owner != "" {
			pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: c.owner, Name: "x", UID: "u",
				Controller: &yes}}
		}
		switch c.owner {
		case "Observer":
			pod.OwnerReferences[0].Controller = &no
		case "Crowd":
			for i := range 100 {
				pod.OwnerReferences = append(pod.OwnerReferences, metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap",
					Name: fmt.Sprint("x", i), UID: types.UID(fmt.Sprint("u", i))})
			}
		}
		created, err := g.admin.CoreV1().Pods(shop).Create(g.ctx, pod, metav1.CreateOptions{})
		g.must(err)
		if c.marks != nil {
			data, _ := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": c.marks, "uid": created.UID}})
			_, err := g.agent.CoreV1().Pods(shop).Patch(g.ctx, "doomed", types.MergePatchType, data, metav1.PatchOptions{},
				"status")
			g.must(err)
		}
		now := int64(0)
		err = c.as.CoreV1().Pods(shop).Delete(g.ctx, "doomed", metav1.DeleteOptions{GracePeriodSeconds: &now})
		if c.words == "" && err != nil {
			g.Errorf("deleting %s: %v", c.what, err)
		}
		if c.words != "" {
			if err == nil || !strings.Contains(err.Error(), c.words) {
				g.Errorf("deleting %s: %v, want %q", c.what, err, c.words)
			}
			g.must(g.admin.CoreV1().Pods(shop).Delete(g.ctx, "doomed", metav1.DeleteOptions{GracePeriodSeconds: &now}))
		}
	}
}

// taints tries what an agent may do to nodes.
func (g *guarded) taints() {
	g.Helper()
	node, err := g.admin.CoreV1().Nodes().Get(g.ctx, "a", metav1.GetOptions{})
	g.must(err)
	others := slices.DeleteFunc(slices.Clone(node.Spec.Taints), func(t corev1.Taint) bool { return t.Key == taint })
	exchanged, taken := slices.Clone(node.ManagedFields), slices.Clone(node.ManagedFields)
	for i := range exchanged {
		exchanged[i].Manager += "-of-another"
	}
	taken[0].FieldsV1 = metav1.NewFieldsV1(`{"f:metadata": {"f:labels": {"f:zone": {}}}}`)
	given := append(slices.Clone(node.ManagedFields), metav1.ManagedFieldsEntry{Manager: "istio-pod-network-agent",
		Operation: metav1.ManagedFieldsOperationApply, APIVersion: "v1", FieldsType: "FieldsV1", FieldsV1: taken[0].FieldsV1})
	spec := func(key string, value any) map[string]any { return map[string]any{"spec": map[string]any{key: value}} }
	for _, c := range []struct {
		what   string
		as     *kubernetes.Clientset
		node   string
		change map[string]any
		words  string
	}{
		{"of another node", g.agent, "b", spec("taints", others), "own node"},
		{"by a token that is bound to no pod", g.loose, "a", spec("taints", others), "own node"},
		// While the startup taint stays, any change of the agent's is refused, so it goes before the others are tried.
		{"the startup taint", g.agent, "a", spec("taints", others), ""},
		{"all taints", g.agent, "a", spec("taints", []any{}), "nothing else"},
		{"another taint", g.agent, "a",
			spec("taints", slices.DeleteFunc(slices.Clone(node.Spec.Taints),
				func(t corev1.Taint) bool { return t.Key == "other" })), "nothing else"},
		{"a label", g.agent, "a", meta("labels", map[string]any{"zone": "x"}), "nothing else"},
		{"an annotation", g.agent, "a", annotated("a", "b"), "nothing else"},
		{"a finalizer", g.agent, "a", meta("finalizers", []string{"example.com/stay"}), "nothing else"},
		{"an owner", g.agent, "a", meta("ownerReferences",
			[]any{map[string]any{"apiVersion": "v1", "kind": "Node", "name": "x", "uid": "u"}}), "nothing else"},
		{"the provider's ID", g.agent, "a", spec("providerID", "x"), "nothing else"},
		{"the addresses of pods", g.agent, "a", spec("podCIDRs", []string{"10.0.0.0/24"}), "nothing else"},
		{"cordon", g.agent, "a", spec("unschedulable", true), "nothing else"},
		{"managers", g.agent, "a", meta("managedFields", exchanged), "nothing but taints"},
		{"fields of one", g.agent, "a", meta("managedFields", taken), "nothing but taints"},
		{"one for another", g.agent, "a", meta("managedFields", given), "nothing but taints"},
		{"all managers", g.agent, "a", meta("managedFields", []any{map[string]any{}}), "nothing but taints"},
		{"a user's business", g.editor, "b", spec("unschedulable", true), ""},
	} {
		data, err := json.Marshal(c.change)
		g.must(err)
		_, err = c.as.CoreV1().Nodes().Patch(g.ctx, c.node, types.MergePatchType, data, metav1.PatchOptions{})
		if c.words == "" && err != nil {
			g.Errorf("%s: %v", c.what, err)
		}
		if c.words != "" && (err == nil || !strings.Contains(err.Error(), c.words)) {
			g.Errorf("%s: %v, want %q", c.what, err, c.words)
		}
	}
	nodes := g.agent.CoreV1().Nodes()
	_, err = nodes.Create(g.ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "c"}}, metav1.CreateOptions{})
	if err == nil || !strings.Contains(err.Error(), "own node") {
		g.Errorf("a node that an agent makes: %v", err)
	}
	state := []byte(`{"status": {"phase": "Running"}}`)
	if _, err := nodes.Patch(g.ctx, "a", types.MergePatchType, state, metav1.PatchOptions{}, "status"); err == nil ||
		!strings.Contains(err.Error(), "own node") {
		g.Errorf("a node's status that an agent writes: %v", err)
	}
}

// warned keeps what the API server warns of.
type warned struct{ texts []string }

func (w *warned) HandleWarningHeader(_ int, _, text string) { w.texts = append(w.texts, text) }

// Where the API server cannot take copied marks off (before Kubernetes 1.36), it lets the copy pass and warns its
// author.
func TestCopiedMarksAreWarnedOf(t *testing.T) {
	old, errs, err := program(nil, "helm4", "template", "-n", system, dir(), "--kube-version=1.35.0")
	if err != nil || strings.Contains(old, "MutatingAdmissionPolicy") {
		t.Fatalf("for 1.35: %v %s\n%s", err, errs, old)
	}
	var policies []string
	for _, document := range strings.Split(old, "\n---\n") {
		if strings.Contains(document, "\nkind: ValidatingAdmissionPolicy") {
			policies = append(policies, document)
		}
	}
	const namespace = "policy-copied"
	applied(t, fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata: {name: %s}\n---\n", namespace)+
		strings.Join(policies, "\n---\n"))
	config, err := clientcmd.BuildConfigFromFlags("", admin)
	await.Must(t, err)
	var warnings warned
	config.WarningHandler = &warnings
	client, err := kubernetes.NewForConfig(config)
	await.Must(t, err)
	pods := client.CoreV1().Pods(namespace)
	create := func(name string, annotations map[string]string) (*corev1.Pod, error) {
		warnings.texts = nil
		return pods.Create(t.Context(), &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: annotations},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}},
		}, metav1.CreateOptions{})
	}
	marks := map[string]string{status: "initialized", netns: "b/1/1", "a": "b"}
	await.Success(t, time.Minute, "the policies are in force, and those of another test are not", func() error {
		pod, err := create("early", marks)
		if err != nil {
			return err
		}
		warned := slices.Clone(warnings.texts)
		mark, _ := json.Marshal(annotated(reason, "x"))
		_, err = pods.Patch(t.Context(), "early", types.MergePatchType, mark, metav1.PatchOptions{DryRun: []string{"All"}})
		gone := pods.Delete(t.Context(), "early", metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))})
		if len(pod.Annotations) != len(marks) || len(warned) == 0 || err == nil {
			return errors.New(fmt.Sprint(pod.Annotations, ", ", warned, ", ", err))
		}
		return gone
	})
	pod, err := create("copied", marks)
	if err != nil || !maps.Equal(pod.Annotations, marks) || len(warnings.texts) != 1 ||
		!strings.Contains(warnings.texts[0], status+", "+netns) || strings.Contains(warnings.texts[0], reason) {
		t.Errorf("the copy has %v, warnings %q, %v", pod.Annotations, warnings.texts, err)
	}
	_, err = create("plain", map[string]string{"a": "b"})
	if err != nil || len(warnings.texts) > 0 {
		t.Errorf("of a pod without marks: %q, %v", warnings.texts, err)
	}
	if err := patchIn(namespace, client, "plain", "", annotated(status, "initialized")); err == nil {
		t.Error("the mark of a pod is anybody's to set")
	}
}

// The policy is there where the API server can hold to it, and the notes say when it is not.
func TestPolicyIsRendered(t *testing.T) {
	both(t, func(t *testing.T, helm string) {
		old, _, err := program(nil, helm, "template", "-n", system, dir(), "--kube-version=1.29.0")
		if err != nil || strings.Contains(old, "ValidatingAdmissionPolicy") {
			t.Errorf("for 1.29: %v\n%s", err, old)
		}
		for values, want := range map[string]bool{"": true, "admissionPolicy.enabled=false": false,
			"admissionPolicy.enabled=true": true} {
			args := []string{"install", name, dir(), "-n", "mesh-" + helm, "--create-namespace", "--dry-run=server"}
			if values != "" {
				args = append(args, "--set="+values)
			}
			out, errs, err := program(nil, helm, args...)
			if err != nil {
				t.Fatal(errs)
			}
			if rendered := strings.Contains(out, "kind: ValidatingAdmissionPolicy\n"); rendered != want ||
				strings.Contains(out, "no admission policy") == want {
				t.Errorf("%q: rendered %v, notes say %v", values, rendered, strings.Contains(out, "no admission policy"))
			}
		}
	})
}
