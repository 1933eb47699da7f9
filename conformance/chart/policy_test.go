package chart

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/internal/await"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// The annotations of marks, and one of the pod's own.
const (
	status   = "pod-network-controller.istio.io/status"
	netns    = "pod-network-controller.istio.io/netns"
	reason   = "pod-network-controller.istio.io/reason"
	families = "pod-network-controller.istio.io/families"
	taint    = "istio-pod-network-controller/agent-not-ready"
)

// guarded is a cluster with the chart's policies, two nodes with a pod each, and clients of several users.
type guarded struct {
	testing.TB
	ctx    context.Context
	admin  *kubernetes.Clientset
	agent  *kubernetes.Clientset // with the token of the agent's pod on node a
	loose  *kubernetes.Clientset // with a token of the agent's account that is bound to no pod
	editor *kubernetes.Clientset // may edit pods and nodes
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

// as returns a client with a token of the agent's account. It has more rights than the agent's role, so that only the
// policy can refuse a request.
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

// patch sends a merge patch of a pod, as the agent does.
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

// annotated returns a change of annotations.
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

// inForce waits until the API server enforces the policies.
func (g *guarded) inForce() {
	g.Helper()
	await.Success(g, patience, "the policies are in force", func() error {
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

// Who may change a pod's marks, and what else an agent may not change.
func TestPolicy(t *testing.T) {
	g := newGuarded(t)
	g.must(patch(g.agent, "on-a", "status", annotated(status, "initialized", netns, "b/1/1"))) // what the agent does
	copied := g.pod("copied", "", map[string]string{status: "initialized", netns: "b/1/1", "a": "b"})
	labelled := func(app string) map[string]any {
		return map[string]any{"metadata": map[string]any{"labels": map[string]any{"app": app}}}
	}
	for _, c := range []struct {
		what  string
		do    func() error
		words string // in the refusal; empty if the request is allowed
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
