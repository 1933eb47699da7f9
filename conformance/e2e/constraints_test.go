package e2e

import (
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/build"
	"github.com/istio-pod-network/controller/conformance/internal/cluster"
	"github.com/istio-pod-network/controller/conformance/internal/scc"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// allocated are the annotations that OpenShift gives a project, platform those of the platform's own namespaces.
var (
	allocated = map[string]string{scc.KeyUsers: "1000660000/10000", scc.KeyGroups: "1000660000/10000",
		scc.KeyLevel: "s0:c26,c5"}
	platform = map[string]string{scc.KeyUsers: "1000700000/10000", scc.KeyGroups: "1000700000/10000",
		scc.KeyLevel: "s0:c27,c4"}
)

// firstUser is the first user of the project's range, which the platform gives to apps. lastUser is the last, which
// Istio gives to sidecars.
const (
	firstUser = 1000660000
	lastUser  = 1000669999
)

// constrained installs OpenShift's admission as webhooks until the end of the test. As on OpenShift, it runs after
// policies and before other webhooks, again if those have changed the pod, and last as a validating webhook.
func (r *rig) constrained() {
	r.Helper()
	stock := filepath.Join(build.Root(), "conformance", "internal", "scc", "stock.yaml")
	r.Cleanup(func() { r.output(kubectl("delete", "--ignore-not-found", "-f", stock)) })
	r.output(kubectl("apply", "--server-side", "-f", stock))
	listener, err := net.Listen("tcp", cluster.Address+":15018")
	must(r, err)
	cert, key := nodes.Server.Serving()
	judge, asked := scc.Handler(nodes.Client, platform), atomic.Bool{}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path == scc.FinalPath {
			asked.Store(true)
		}
		judge.ServeHTTP(w, q)
	})}
	go func() { _ = server.ServeTLS(listener, cert, key) }()
	inForce := func(want bool) func() bool { // for both: the API server applies a change of webhooks late
		return func() bool {
			asked.Store(false)
			pod, err := r.dryRun(r.appPod("try"))
			return err == nil && (pod.Annotations[scc.KeyAdmitted] != "") == want && asked.Load() == want
		}
	}
	r.Cleanup(func() {
		r.eventually("the constraints are in force no more", inForce(false))
		must(r, server.Close())
	})
	hook := func(path string) admissionv1.WebhookClientConfig {
		url := "https://" + listener.Addr().String() + path
		return admissionv1.WebhookClientConfig{URL: &url, CABundle: r.authority()}
	}
	const name = "constraints.openshift.io"
	fail, none, again := admissionv1.Fail, admissionv1.SideEffectClassNone, admissionv1.IfNeededReinvocationPolicy
	mutating, validating := nodes.Client.AdmissionregistrationV1().MutatingWebhookConfigurations(),
		nodes.Client.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	_, err = mutating.Create(r.ctx, &admissionv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: name},
		Webhooks: []admissionv1.MutatingWebhook{{
			Name: name, ClientConfig: hook("/"), Rules: newPods, FailurePolicy: &fail, SideEffects: &none,
			ReinvocationPolicy: &again, AdmissionReviewVersions: []string{"v1"}, TimeoutSeconds: &hooksPatience,
		}}}, metav1.CreateOptions{})
	must(r, err)
	r.Cleanup(func() { must(r, mutating.Delete(r.ctx, name, metav1.DeleteOptions{})) })
	_, err = validating.Create(r.ctx,
		&admissionv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: name},
			Webhooks: []admissionv1.ValidatingWebhook{{
				Name: name, ClientConfig: hook(scc.FinalPath), Rules: newPods, FailurePolicy: &fail, SideEffects: &none,
				AdmissionReviewVersions: []string{"v1"}, TimeoutSeconds: &hooksPatience,
			}}}, metav1.CreateOptions{})
	must(r, err)
	r.Cleanup(func() { must(r, validating.Delete(r.ctx, name, metav1.DeleteOptions{})) })
	r.eventually("the constraints are in force", inForce(true))
}

// developed changes the creator of the rig's pods to a user who may only edit the namespace. The pods leave the
// security context to the platform.
func (r *rig) developed() {
	r.Helper()
	r.bound("edit", authorizationv1.ResourceAttributes{Verb: "create", Resource: "pods"})
	config := rest.CopyConfig(nodes.Server.Admin())
	config.Impersonate = rest.ImpersonationConfig{UserName: "developer", Groups: []string{"system:authenticated"}}
	client, err := kubernetes.NewForConfig(config)
	must(r, err)
	r.person, r.app = client, nil
}

// bound gives the user a cluster role in the rig's namespace, and waits until the role allows an action.
func (r *rig) bound(role string, what authorizationv1.ResourceAttributes) {
	r.Helper()
	_, err := nodes.Client.RbacV1().RoleBindings(r.namespace).Create(r.ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "developer-"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName,
			Kind: "ClusterRole", Name: role},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "developer"}},
	}, metav1.CreateOptions{})
	must(r, err)
	what.Namespace = r.namespace
	r.allowed("developer", what)
}

// granted gives a user a cluster role in all namespaces, until the end of the test.
func (r *rig) granted(user, role string) {
	r.Helper()
	bindings := nodes.Client.RbacV1().ClusterRoleBindings()
	binding, err := bindings.Create(r.ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{GenerateName: user + "-"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName,
			Kind: "ClusterRole", Name: role},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
	}, metav1.CreateOptions{})
	must(r, err)
	r.Cleanup(func() { must(r, ignoreNotFound(bindings.Delete(r.ctx, binding.Name, metav1.DeleteOptions{}))) })
}

// allowed waits until a user may do something. The API server sees a binding with a delay.
func (r *rig) allowed(user string, what authorizationv1.ResourceAttributes) {
	r.Helper()
	r.eventually(fmt.Sprintf("%s may %s %s", user, what.Verb, what.Resource), func() bool {
		review := &authorizationv1.SubjectAccessReview{
			Spec: authorizationv1.SubjectAccessReviewSpec{User: user, ResourceAttributes: &what},
		}
		review, err := nodes.Client.AuthorizationV1().SubjectAccessReviews().Create(r.ctx, review, metav1.CreateOptions{})
		return err == nil && review.Status.Allowed
	})
}

// admitted fails unless those constraints admitted the pod, and its app and sidecar run as those users.
func (r *rig) admitted(name, constraints string, app, sidecar int64) {
	r.Helper()
	pod := r.pod(name)
	runs := func(name string) int64 {
		c := container(pod, name)
		if c.SecurityContext.RunAsUser == nil {
			return -1
		}
		return *c.SecurityContext.RunAsUser
	}
	if by := pod.Annotations[scc.KeyAdmitted]; by != constraints || runs("app") != app || runs("istio-proxy") != sidecar {
		r.Errorf("%s was admitted by %s, its app runs as %d and its sidecar as %d", name, by, runs("app"),
			runs("istio-proxy"))
	}
}

// openShiftIstio tests Istio on OpenShift, with Multus and SecurityContextConstraints. Users may only edit their own
// project. Istio's injector adds our network to their pods, besides the pods' own networks, and the constraints for all
// users admit them: the app as the first user of the project's range, the sidecar as the last. The chart's own pods are
// admitted by the chart's constraints only.
func openShiftIstio(whole *rig) {
	t := whole.TB.(*testing.T)
	whole.installedOnOpenShift()
	whole.constrained()
	whole.output(kubectlIn(system, "rollout", "restart", "daemonset", daemonSet))
	whole.output(kubectlIn(system, "rollout", "status", "daemonset", daemonSet, waits()))
	whole.agentsReady() // the API server may still have the agent that has ended
	for _, agent := range whole.agents() {
		if by := agent.Annotations[scc.KeyAdmitted]; by != "istio-pod-network-agent" {
			t.Errorf("the agent was admitted by %q", by)
		}
	}
	whole.output(helm("test", release, waits()))
	wait := filepath.Join(build.Root(), "docs", "istio", "wait.yaml")
	const openShift, multus = "PLATFORM=openshift", "values.pilot.cni.provider=multus"
	project := func(t *testing.T, environment, files []string, values ...string) *rig {
		r := newRig(t)
		r.node = whole.node
		r.istio(environment, files, values...)
		r.injectedNamespace("restricted", allocated, r.developed)
		r.without()
		return r
	}
	t.Run("wait", func(t *testing.T) {
		r := project(t, []string{openShift}, []string{wait}, cniEnabled, multus)
		r.output(kubectlIn(r.namespace, "apply", "-f", r.file("data.yaml", dataNetwork)))
		r.create(r.injected("with-another", map[string]string{networks: "data"}))
		r.everyVariant("istio-validation", pluginImage())
		r.throughSidecar("with-another")
		for name := range variants {
			r.admitted(name, "restricted-v2", firstUser, lastUser)
		}
		r.admitted("with-another", "restricted-v2", firstUser, lastUser)
		pod := r.pod("with-another")
		if named := pod.Annotations[networks]; !strings.Contains(named, "data") || !strings.Contains(named, network) {
			t.Errorf("it names the networks %q", named)
		}
		if !strings.Contains(pod.Annotations["k8s.v1.cni.cncf.io/network-status"], "/data") ||
			!strings.Contains(r.ruleset("with-another"), fmt.Sprint("meta skuid ", lastUser, " ")) {
			t.Errorf("%v\n%s", pod.Annotations, r.ruleset("with-another"))
		}
		if strings.Contains(events(r.namespace), "ProxyUserShared") {
			t.Error("app and sidecar have one user")
		}
	})
	t.Run("stock", func(t *testing.T) {
		r := project(t, []string{openShift}, nil, cniEnabled, multus)
		r.create(r.injected("cart-0", nil))
		r.throughSidecar("cart-0")
		r.marked("cart-0")
		r.admitted("cart-0", "restricted-v2", firstUser, lastUser)
	})
	t.Run("istio-init-replaced", func(t *testing.T) {
		whole.installedOnOpenShift("injection.replaceInit=true")
		r := project(t, []string{openShift}, nil)
		r.initReplaced()
		r.create(r.injected("cart-0", map[string]string{networks: network})) // here the injector does not add the network
		r.throughSidecar("cart-0")
		r.marked("cart-0")
		r.admitted("cart-0", "restricted-v2", firstUser, lastUser)
	})
	// Without PLATFORM=openshift the sidecar always runs as 1337. That requires nonroot-v2, or a user namespace.
	t.Run("fixed-user", func(t *testing.T) {
		r := project(t, nil, []string{wait}, cniEnabled, multus)
		if _, err := r.tryCreate(r.injected("refused", nil)); !apierrors.IsForbidden(err) ||
			!strings.Contains(err.Error(), "runAsUser: 1337 is not allowed") {
			t.Errorf("%v", err)
		}
		own, no := r.injected("user-namespace", map[string]string{scc.KeyRequired: "restricted-v3"}), false
		own.Spec.HostUsers = &no
		r.create(own)
		r.throughSidecar("user-namespace")
		r.marked("user-namespace")
		r.admitted("user-namespace", "restricted-v3", 1000, proxyUser)
		r.bound("system:openshift:scc:nonroot-v2", authorizationv1.ResourceAttributes{
			Verb: "use", Group: "security.openshift.io", Resource: "securitycontextconstraints", Name: "nonroot-v2",
		})
		r.create(r.injected("cart-0", nil))
		r.throughSidecar("cart-0")
		r.marked("cart-0")
		r.admitted("cart-0", "nonroot-v2", firstUser, proxyUser)
		_, err := r.tryCreate(r.injected("tproxy", map[string]string{"sidecar.istio.io/interceptionMode": "TPROXY"}))
		if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), `capabilities.add: "NET_ADMIN" is not allowed`) {
			t.Errorf("TPROXY: %v", err)
		}
	})
	whole.uninstalled() // the constraints must admit the pod of the uninstall hook too
}
