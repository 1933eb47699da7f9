package verify

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	"github.com/istio-pod-network/controller/agent/ctl/explain"
	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/agent/ctl/temporary"
	"github.com/istio-pod-network/controller/internal/golden"
	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/flows/report"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kubetesting "k8s.io/client-go/testing"
)

// hook returns a configuration with one of Istio's webhooks, which selects namespaces by a label.
func hook(name, revision, label, value string) *admissionv1.MutatingWebhookConfiguration {
	return &admissionv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{explain.RevisionLabel: revision}},
		Webhooks: []admissionv1.MutatingWebhook{{
			Name: "namespace.sidecar-injector.istio.io",
			Rules: []admissionv1.RuleWithOperations{{Operations: []admissionv1.OperationType{admissionv1.Create},
				Rule: admissionv1.Rule{APIGroups: []string{""}, Resources: []string{"pods"}}}},
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{label: value}},
		}},
	}
}

// istio adds an istiod to a cluster, which injects pods by these webhooks, and sets the logs of pods with Envoy.
func (f *fakeCluster) istio(t *testing.T, hooks ...*admissionv1.MutatingWebhookConfiguration) {
	t.Helper()
	for _, h := range hooks {
		_, err := f.AdmissionregistrationV1().MutatingWebhookConfigurations().Create(t.Context(), h, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, node := range []string{"node-a", "node-b"} {
		f.says(node, "mesh/app", besideEnvoy()...)
		f.says(node, "plain/app", slices.DeleteFunc(flowsOf(plainName, false), func(r report.Result) bool {
			return strings.HasPrefix(r.Flow, report.DNS)
		})...)
	}
	_, err := f.CoreV1().ConfigMaps(agents).Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: agents, Name: cluster.SettingsMap},
		Data:       map[string]string{"network.json": `{"type": "istio-pod-network", "redirect": {"outboundPort": 15011}}`},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	f.PrependReactor("create", "services", func(action kubetesting.Action) (bool, runtime.Object, error) {
		s := action.(kubetesting.CreateAction).GetObject().(*corev1.Service)
		s.Spec.ClusterIP = "10.96.0.7"
		return true, s, nil
	})
	f.change = injected
}

// injected changes a pod as Istio's injector does.
func injected(_, _ string, p *corev1.Pod) {
	if p.Labels[annotation.SidecarInject] == "false" {
		return
	}
	p.Annotations[annotation.SidecarStatus] = "{}"
	user := int64(1337)
	p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: sidecarContainer,
		Args: []string{"proxy", "sidecar"}, SecurityContext: &corev1.SecurityContext{RunAsUser: &user, RunAsGroup: &user}})
	if strings.HasPrefix(p.Name, serverName) {
		p.Status.Phase = corev1.PodRunning
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	}
}

// besideEnvoy returns the results of a mesh pod with Envoy if all is well. The sidecar does not listen on IPv6.
func besideEnvoy() (all []report.Result) {
	for _, family := range []string{"IPv4", "IPv6"} {
		add := func(flow, to, want, got, err, unmade string) {
			if family == "IPv6" {
				to = strings.NewReplacer("10.0.0.8:", "[fd00::8]:", "10.0.0.9:", "[fd00::9]:", "192.0.2.1:", "[2001:db8::1]:").
					Replace(to)
			}
			all = append(all, report.Result{Flow: flow, Family: family, To: to, Want: want, Got: got, Error: err,
				Unmade: unmade, Well: true, NoControl: flow == "escape/lo"})
		}
		identity, unmade := "sidecar spiffe://cluster.local/ns/istio-pod-network-verify/sa/verify", ""
		sidecar := report.Sidecar
		if family == "IPv6" {
			identity, sidecar, unmade = "", "", "the sidecar does not listen in this family"
		}
		add(report.Outbound, "192.0.2.1:8081", report.Sidecar, sidecar, "", unmade)
		add(report.HeldOutbound, "10.0.0.9:8081", report.Sidecar, "", "EOF", "")
		add(report.ExcludedOutbound, "10.0.0.9:8082", report.Peer, report.Peer, "", "")
		add(report.Inbound, "10.0.0.8:8080", report.Sidecar, identity, "", unmade)
		add(report.HeldInbound, "10.0.0.8:8080", report.Sidecar, "", "EOF", "")
		add(report.ExcludedInbound, "10.0.0.8:8090", "app", "app 10.0.0.8:8090", "", "")
		add(report.Escape+"from-port", "10.0.0.9:8081", report.Peer, "", "nobody answers", "")
		add(report.Escape+"lo", "10.0.0.9:8081", report.Peer, "", "nobody answers", "")
	}
	return append(all, report.Result{Flow: report.MTLS, Family: "IPv4", To: "10.96.0.7:80", Want: "app", Well: true,
		Got: "app spiffe://cluster.local/ns/istio-pod-network-verify/sa/verify"})
}

// byEnvoy returns options with --istio.
func byEnvoy(o options) options {
	o.istio = true
	if o.create == nil {
		o.create = func(context.Context, schema.GroupVersionResource, string, *unstructured.Unstructured) error {
			return nil
		}
	}
	return o
}

var ofDefault = hook("istio-sidecar-injector", "default", temporary.InjectionLabel, "enabled")

// Output about a cluster with its own injection and a fault on one node.
func TestIstio(t *testing.T) {
	edit := func(flow string, change func(*report.Result)) func(*fakeCluster) {
		return func(f *fakeCluster) {
			f.edit("mesh/app", func(r *report.Result) {
				if r.Flow == flow && r.Unmade == "" {
					change(r)
				}
			})
		}
	}
	ill := func(err string) func(*report.Result) {
		return func(r *report.Result) { r.Got, r.Error, r.Well = "", err, false }
	}
	for name, test := range map[string]struct {
		make   func(*fakeCluster)
		status int
	}{
		"istio":                {func(*fakeCluster) {}, outcome.Well},
		"istio-not-redirected": {edit(report.Outbound, ill("connect: no route to host")), outcome.NotWell},
		"istio-plaintext": {edit(report.HeldInbound, func(r *report.Result) { r.Got, r.Well = "app 10.0.0.8:8080", false }),
			outcome.NotWell},
		"istio-leak": {func(f *fakeCluster) {
			f.logs["node-b/peer/app"] += report.Reached + "mesh held-outbound IPv4\n"
			edit(report.HeldOutbound, func(r *report.Result) { r.Got, r.Well = report.Peer, false })(f)
		}, outcome.NotWell},
		"istio-no-mtls": {edit(report.MTLS, ill("app answers, and no sidecar has seen a certificate")), outcome.NotWell},
		"istio-nothing-made": {func(f *fakeCluster) {
			f.logs["node-b/mesh/app"] = "istio-pod-network-flows: the sidecar is not ready within 1m0s\n"
		}, outcome.NotAsked},
		"istio-sidecar-not-ready": {func(f *fakeCluster) {
			f.change = func(kind, node string, p *corev1.Pod) {
				injected(kind, node, p)
				if kind == serverName && node == "node-b" {
					pending(p)
					p.Status.Phase = corev1.PodRunning
					p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: sidecarContainer, State: corev1.ContainerState{
						Running: &corev1.ContainerStateRunning{}}}}
				}
			}
			f.logs["node-b/server/istio-proxy"] = "warn\tca\tca request failed: connection refused\n"
		}, outcome.NotAsked},
		"istio-wait-fails": {func(f *fakeCluster) {
			f.change = func(kind, node string, p *corev1.Pod) {
				injected(kind, node, p)
				if kind == serverName && node == "node-b" {
					pending(p)
					p.Status.Phase = corev1.PodFailed
					p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "istio-validation",
						State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 1}}}}
				}
			}
			f.logs["node-b/server/istio-validation"] = "annotation pod-network-controller.istio.io/status is absent\n"
		}, outcome.NotWell},
	} {
		t.Run(name, func(t *testing.T) {
			for format, suffix := range map[output.Format]string{output.Table: ".txt", output.Wide: "-wide.txt",
				output.JSON: ".json"} {
				if format != output.Table && name != "istio" {
					continue
				}
				f := newFake(t)
				f.istio(t, ofDefault)
				test.make(f)
				o := options{}
				if name == "istio-sidecar-not-ready" {
					o.timeout = short
				}
				status, stdout, stderr, err := f.run(t.Context(), byEnvoy(o), format)
				if status != test.status {
					t.Errorf("%s: status %d, want %d: %v\n%s", format, status, test.status, err, stderr)
				}
				golden.Compare(t, filepath.Join("testdata", name+suffix), stdout)
				if format != output.JSON {
					golden.Fits(t, name, stdout, output.Width)
				}
				if f.there(t) != nil {
					t.Errorf("the namespace is left:\n%s", stderr)
				}
			}
		})
	}
}

// The pods and the namespace of a run with --istio.
func TestIstiosPods(t *testing.T) {
	f := newFake(t)
	f.istio(t, hook("istio-revision-tag-stable", "1-31", explain.RevisionLabel, "stable"))
	var made []string
	var space *corev1.Namespace
	o := byEnvoy(options{nodes: "node-b", revision: "stable"})
	o.create = func(
		_ context.Context, r schema.GroupVersionResource, namespace string, u *unstructured.Unstructured,
	) error {
		if space = f.there(t); r.Version == "v1" && r.Resource == "sidecars" { // as with an older Istio
			return apierrors.NewNotFound(r.GroupResource(), u.GetName())
		}
		made = append(made, fmt.Sprint(namespace, " ", u.GetAPIVersion(), " ", u.GetKind(), " ", u.Object["spec"]))
		return nil
	}
	if status, _, stderr, err := f.run(t.Context(), o, output.Table); status != 0 {
		t.Fatal(err, stderr)
	}
	want := []string{Namespace + " networking.istio.io/v1beta1 Sidecar map[egress:[map[hosts:[./*]]] " +
		"outboundTrafficPolicy:map[mode:REGISTRY_ONLY]]",
		Namespace + " security.istio.io/v1 PeerAuthentication map[mtls:map[mode:STRICT]]"}
	if !slices.Equal(made, want) {
		t.Errorf("made %q, want %q", made, want)
	}
	if l := space.Labels; l[explain.RevisionLabel] != "stable" || l[temporary.InjectionLabel] != "" ||
		l["pod-security.kubernetes.io/enforce"] != "baseline" {
		t.Errorf("%v", l)
	}
	for name, p := range f.pods {
		outside := strings.HasPrefix(name, "peer") || strings.HasPrefix(name, plainName)
		if (p.Labels[annotation.SidecarInject] == "false") != outside || len(p.Spec.InitContainers) > 0 ||
			p.Annotations[annotation.EnvoyUserID] != "" ||
			p.Spec.SecurityContext != nil && len(p.Spec.SecurityContext.Sysctls) > 0 {
			t.Errorf("%s: %+v", name, p)
		}
		if !outside && (p.Annotations[annotation.ExcludeInboundPorts] != "8090" || p.Spec.Volumes != nil) {
			t.Errorf("%s: %v, %v", name, p.Annotations, p.Spec.Volumes)
		}
		if slices.Contains(p.Spec.Containers[0].Args, "--dns") {
			t.Errorf("%s asks by DNS, which nobody captures", name)
		}
	}
	args := f.pods["mesh-0"].Spec.Containers[0].Args
	for _, arg := range []string{"--envoy", "--mtls=10.96.0.7:80", "--peer=10.0.0.9,fd00::9", "--families=all",
		"--identity=/ns/istio-pod-network-verify/sa/verify", "--outbound-port=15011"} {
		if !slices.Contains(args, arg) {
			t.Errorf("no %s in %q", arg, args)
		}
	}
}

// If the sidecars capture DNS, they are asked for the name of a Service. The operator's settings are not known here.
func TestIstioCapturesDNS(t *testing.T) {
	f := newFake(t)
	f.istio(t, ofDefault)
	err := f.CoreV1().ConfigMaps(agents).Delete(t.Context(), cluster.SettingsMap, metav1.DeleteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	f.change = func(kind, node string, p *corev1.Pod) {
		injected(kind, node, p)
		if sidecar := &p.Spec.Containers[len(p.Spec.Containers)-1]; sidecar.Name == sidecarContainer {
			sidecar.Env = []corev1.EnvVar{{Name: "ISTIO_META_DNS_CAPTURE", Value: "true"}}
		}
	}
	status, stdout, _, err := f.run(t.Context(), byEnvoy(options{nodes: "node-b"}), output.JSON)
	if status != 0 || !strings.Contains(stdout, `"dnsCapture": true`) || strings.Contains(stdout, "DNS, which") ||
		!strings.Contains(stdout, "the operator's settings, for which the plugin's defaults were taken") {
		t.Errorf("status %d, %v: %s", status, err, stdout)
	}
	args := f.pods["mesh-0"].Spec.Containers[0].Args
	if !slices.Contains(args, "--dns") || !slices.Contains(args, "--ask=server-0."+Namespace+".svc") {
		t.Errorf("%q", args)
	}
}

// What prevents injection is reported before any pod is created.
func TestNotInjected(t *testing.T) {
	of := func(hooks ...*admissionv1.MutatingWebhookConfiguration) func(*fakeCluster) {
		return func(f *fakeCluster) { f.istio(t, hooks...) }
	}
	then := func(change func(string, string, *corev1.Pod)) func(*fakeCluster) {
		return func(f *fakeCluster) { f.istio(t, ofDefault); f.change = change }
	}
	refused := func(text string) func(*fakeCluster) {
		return func(f *fakeCluster) {
			f.istio(t, ofDefault)
			f.PrependReactor("create", "pods", func(kubetesting.Action) (bool, runtime.Object, error) {
				return true, nil, errors.New(text)
			})
		}
	}
	canary := hook("istio-sidecar-injector-canary", "canary", explain.RevisionLabel, "canary")
	stable := hook("istio-sidecar-injector-stable", "stable", explain.RevisionLabel, "stable")
	for name, test := range map[string]struct {
		make    func(*fakeCluster)
		options options
		status  int
		says    string
	}{
		"no istiod": {of(), options{}, outcome.NotAsked, "no webhook of Istio's injects in this cluster"},
		"no right": {func(f *fakeCluster) {
			f.PrependReactor("list", "mutatingwebhookconfigurations", func(kubetesting.Action) (bool, runtime.Object, error) {
				return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "webhooks"}, "",
					errors.New(`User "reader" cannot list`))
			})
		}, options{}, outcome.NotAsked, "the verb list on mutatingwebhookconfigurations"},
		"two revisions":   {of(canary, stable), options{}, outcome.Misused, "valid: some of canary, stable"},
		"no such one":     {of(canary), options{revision: "old"}, outcome.Misused, `--revision: invalid value "old"`},
		"another label":   {of(hook("a", "default", "team", "mesh")), options{}, outcome.NotAsked, "asks for team=mesh"},
		"istiod is away":  {refused(`failed calling webhook "x"`), options{}, outcome.NotAsked, "-l app=istiod"},
		"it needs rights": {refused("violates PodSecurity"), options{}, outcome.NotAsked, "docs/injection.md"},
		"not injected": {then(func(string, string, *corev1.Pod) {}), options{}, outcome.NotAsked,
			"has not injected one. Istio's injector has not given it a sidecar"},
		"not redirected": {then(func(kind, node string, p *corev1.Pod) {
			injected(kind, node, p)
			p.Annotations[annotation.Initialize] = "false"
		}), options{}, outcome.NotAsked, "is not redirected (opted-out)"},
		"no Sidecar": {of(ofDefault), options{create: func(_ context.Context, r schema.GroupVersionResource, _ string,
			_ *unstructured.Unstructured) error {
			return apierrors.NewNotFound(r.GroupResource(), "default")
		}}, outcome.NotAsked, "does not know sidecars.networking.istio.io"},
		"no right to make one": {of(ofDefault), options{create: func(_ context.Context, r schema.GroupVersionResource,
			_ string, _ *unstructured.Unstructured) error {
			return apierrors.NewForbidden(r.GroupResource(), "default", errors.New(`User "reader" cannot`))
		}}, outcome.NotAsked, "the verb create on sidecars.networking.istio.io"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			test.make(f)
			status, stdout, stderr, err := f.run(t.Context(), byEnvoy(test.options), output.Table)
			if status != test.status || !strings.Contains(fmt.Sprint(err), test.says) || stdout != "" {
				t.Errorf("status %d, %v: %s\n%s", status, err, stdout, stderr)
			}
			if f.there(t) != nil {
				t.Errorf("the namespace is left:\n%s", stderr)
			}
		})
	}
	if _, err := (options{revision: "x", parallel: 1, timeout: 1}).check(); err == nil {
		t.Error("--revision is taken without --istio")
	}
}

// On OpenShift no pod is created before the namespace has its users. Each pod requires the constraints that everybody
// may use.
func TestOpenShift(t *testing.T) {
	platform := func() *fakeCluster {
		f := newFake(t)
		sets := f.AppsV1().DaemonSets(agents)
		set, err := sets.Get(t.Context(), "istio-pod-network-agent", metav1.GetOptions{})
		if err == nil {
			set.Spec.Template.Annotations = map[string]string{requiredConstraints: "istio-pod-network-agent"}
			_, err = sets.Update(t.Context(), set, metav1.UpdateOptions{})
		}
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	f := platform()
	status, _, _, err := f.run(t.Context(), options{timeout: short}, output.Table)
	if status != outcome.NotAsked || !strings.Contains(fmt.Sprint(err), rangeOfUsers) || len(f.pods) > 0 {
		t.Errorf("without users: status %d, %v, %d pods", status, err, len(f.pods))
	}
	f = platform()
	looked := 0
	f.PrependReactor("get", "namespaces", func(kubetesting.Action) (bool, runtime.Object, error) {
		object, err := f.Tracker().Get(corev1.SchemeGroupVersion.WithResource("namespaces"), "", Namespace)
		if err != nil {
			return true, nil, err
		}
		n := object.(*corev1.Namespace).DeepCopy()
		if looked++; looked > 2 {
			n.Annotations[rangeOfUsers] = "1000660000/10000"
		}
		return true, n, nil
	})
	if status, _, stderr, err := f.run(t.Context(), options{}, output.Table); status != 0 || looked < 3 {
		t.Errorf("status %d, %v\n%s", status, err, stderr)
	}
	for name, p := range f.pods {
		if p.Annotations[requiredConstraints] != restrictedV2 {
			t.Errorf("%s: %v", name, p.Annotations)
		}
	}
}
