package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/apiserver"
	"github.com/istio-pod-network/controller/conformance/internal/build"
	"github.com/istio-pod-network/controller/conformance/internal/cluster"
	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Settings for Istio's injector. The image has the stand-in for Envoy, and Istio's own validation.
const (
	istioImage   = "e2e.local/proxyv2:1"
	injectorAt   = cluster.Address + ":15017"
	injectedFrom = "istio-injection"

	// cniEnabled sets the chart's value pilot.cni.enabled. Istio's renderer derives that value from this setting, also if
	// a file sets it.
	cniEnabled = "components.cni.enabled=true"
)

var istioValues = []string{
	"values.global.hub=e2e.local", "values.global.tag=1", "values.global.imagePullPolicy=Never",
	"values.global.proxy.seccompProfile.type=RuntimeDefault",
}

// importIstio imports the image of injected containers into the rig's node.
func (r *rig) importIstio() {
	r.Helper()
	archive := filepath.Join(r.TempDir(), "proxyv2.tar")
	must(r, cluster.Image(archive, istioImage, "", []cluster.File{
		{Source: filepath.Join(isolated.BinDir(), "istio-agent"), Path: "usr/local/bin/pilot-agent"},
		{Source: filepath.Join(isolated.BinDir(), "podprogram"), Path: "podprogram"},
	}, "/usr/local/bin/pilot-agent"))
	must(r, r.node.Import(archive))
}

// injector returns a command that runs Istio's injector. values have the form of istioctl's --set. files are values
// files of Istio's chart istiod.
func (r *rig) injector(files, values []string, args ...string) *exec.Cmd {
	r.Helper()
	args = append(args, "-manifests="+filepath.Join(isolated.BinDir(), "istio-manifests"))
	for _, v := range append(istioValues, values...) {
		args = append(args, "-set="+v)
	}
	for i, file := range files {
		data, err := os.ReadFile(file)
		must(r, err)
		operator := "apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nspec:\n  values:\n    " +
			strings.ReplaceAll(string(data), "\n", "\n    ")
		args = append(args, "-file="+r.file(fmt.Sprint("operator-", i, ".yaml"), operator))
	}
	return exec.Command(filepath.Join(isolated.BinDir(), "istio-injector"), args...)
}

// newPods are the rules of a webhook that is called for every new pod.
var newPods = []admissionv1.RuleWithOperations{{
	Operations: []admissionv1.OperationType{admissionv1.Create}, Rule: admissionv1.Rule{APIGroups: []string{""},
		APIVersions: []string{"v1"}, Resources: []string{"pods"}},
}}

// hooksPatience is how many seconds the API server waits for a webhook: the most that it allows. By default it waits
// ten, and then refuses the pod.
var hooksPatience int32 = 30

// istio runs Istio's injector as the cluster's webhook until the end of the test.
func (r *rig) istio(environment, files []string, values ...string) {
	r.Helper()
	r.importIstio()
	cert, key := nodes.Server.Serving()
	command := r.injector(files, values, "-kubeconfig="+nodes.Admin(), "-listen="+injectorAt, "-cert="+cert, "-key="+key)
	command.Env = append(os.Environ(), environment...)
	log := filepath.Join(r.TempDir(), "injector.log")
	injector, err := apiserver.RunCommand(log, command)
	must(r, err)
	r.Cleanup(func() {
		if r.Failed() {
			r.Logf("the injector says\n%s", injector.Tail())
		}
		injector.Kill()
	})
	r.eventually("Istio's injector is ready", func() bool {
		if injector.Ended() {
			r.Fatalf("Istio's injector has ended:\n%s", injector.Tail())
		}
		return strings.Contains(injector.Tail(), "ready\n")
	})
	url, fail, none := "https://"+injectorAt+"/inject", admissionv1.Fail, admissionv1.SideEffectClassNone
	hooks := nodes.Client.AdmissionregistrationV1().MutatingWebhookConfigurations()
	_, err = hooks.Create(r.ctx, &admissionv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "istio-sidecar-injector"},
		Webhooks: []admissionv1.MutatingWebhook{{
			Name: "namespace.sidecar-injector.istio.io", ClientConfig: admissionv1.WebhookClientConfig{URL: &url,
				CABundle: r.authority()},
			Rules:             newPods,
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{injectedFrom: "enabled"}},
			FailurePolicy:     &fail, SideEffects: &none, AdmissionReviewVersions: []string{"v1"},
			TimeoutSeconds: &hooksPatience,
		}},
	}, metav1.CreateOptions{})
	must(r, err)
	r.Cleanup(func() { must(r, hooks.Delete(r.ctx, "istio-sidecar-injector", metav1.DeleteOptions{})) })
}

// injectedNamespace creates the rig's namespace with a level of Pod Security and Istio's injection, and calls prepare.
// It waits until both are in force.
func (r *rig) injectedNamespace(level string, annotations map[string]string, prepare ...func()) {
	r.Helper()
	labels := enforcing(level)
	labels[injectedFrom] = "enabled"
	r.namespace = r.newNamespace(labels, annotations)
	_, err := nodes.Client.CoreV1().ConfigMaps(r.namespace).Create(r.ctx, istioAuthority(), metav1.CreateOptions{})
	must(r, err)
	for _, do := range prepare {
		do()
	}
	r.eventually("pods of the namespace are injected", func() bool { // the API server sees the webhook with a delay
		pod, err := r.dryRun(r.appPod("try"))
		return apierrors.IsForbidden(err) || err == nil && len(pod.Spec.Containers)+len(pod.Spec.InitContainers) > 1
	})
}

// istioAuthority returns the ConfigMap that istiod creates in every namespace, and that injected pods mount.
func istioAuthority() *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "istio-ca-root-cert"},
		Data: map[string]string{"root-cert.pem": ""}}
}

// without creates the control: an app that Istio's injector does not change.
func (r *rig) without() {
	r.Helper()
	pod := r.appPod("plain")
	pod.Labels = map[string]string{"sidecar.istio.io/inject": "false"}
	r.seen(pod)
}

// injected returns a pod before Istio's injection.
func (r *rig) injected(name string, annotations map[string]string) *corev1.Pod {
	pod := r.appPod(name)
	for key, value := range annotations {
		pod.Annotations[key] = value
	}
	return pod
}

// variants are annotations of Istio's injector, by the name of the pod.
var variants = map[string]map[string]string{
	"plain-sidecar":  {"sidecar.istio.io/nativeSidecar": "false"},
	"native-sidecar": {"sidecar.istio.io/nativeSidecar": "true"},
	"held": {"proxy.istio.io/config": "holdApplicationUntilProxyStarts: true",
		"sidecar.istio.io/nativeSidecar": "false"},
	"dns": {"proxy.istio.io/config": "proxyMetadata: {ISTIO_META_DNS_CAPTURE: \"true\"}"},
	"excludes": {
		"traffic.sidecar.istio.io/excludeOutboundPorts": "8082", "traffic.sidecar.istio.io/excludeInboundPorts": "8090",
		"traffic.sidecar.istio.io/includeOutboundIPRanges": "10.99.0.0/16,fd00:99::/64",
	},
}

// also are additional targets of some variants' apps.
var also = map[string][]string{"dns": {dns}, "excludes": {excluded}}

// everyVariant creates all variants in the rig's namespace, and checks them. init and image are the name and the image
// that the first init container must have.
func (r *rig) everyVariant(init, image string) {
	r.Helper()
	for name, annotations := range variants {
		pod := r.injected(name, annotations)
		container(pod, "app").Args = append(container(pod, "app").Args, also[name]...)
		r.create(pod)
	}
	r.hears("dns", dns, "sidecar-dns")
	r.hears("excludes", excluded, "peer")
	for name := range variants {
		r.throughSidecar(name)
		r.marked(name)
		pod := r.pod(name)
		first := pod.Spec.InitContainers[0]
		if first.Name != init || first.Image != image {
			r.Errorf("the first init container of %s is %s of %s", name, first.Name, first.Image)
		}
		for _, status := range pod.Status.InitContainerStatuses {
			if status.Name == init && (status.State.Terminated == nil || status.State.Terminated.ExitCode != 0 ||
				status.RestartCount > 0) {
				r.Errorf("%s of %s: %+v", init, name, status)
			}
		}
		r.answersFrom("sidecar-inbound", pod, 8080)
		if name == "excludes" {
			r.answersFrom("app", pod, 8090)
		}
	}
}

// Stock Istio needs only pilot.cni.enabled: Pod Security restricted admits its pods, and Istio's own validation accepts
// our rules.
func TestIstioStock(t *testing.T) {
	r := newRig(t)
	r.installed()
	// A busy machine may need more than the five seconds that Istio's validation has by default. Without rules it still
	// fails, because the agent repairs a pod only after a minute.
	r.istio(nil, nil, cniEnabled, "meshConfig.defaultConfig.proxyMetadata.PROBE_TIMEOUT=20s")
	r.injectedNamespace("restricted", nil)
	r.without()
	r.everyVariant("istio-validation", istioImage)
}

// With the documented values, our wait replaces Istio's validation.
func TestIstioWait(t *testing.T) {
	r := newRig(t)
	r.installed()
	r.istio(nil, []string{filepath.Join(build.Root(), "docs", "istio", "wait.yaml")}, cniEnabled)
	r.injectedNamespace("restricted", nil)
	r.without()
	r.everyVariant("istio-validation", pluginImage())
}

// Without pilot.cni.enabled, pods have the init container istio-init, and Pod Security restricted rejects them.
func TestIstioInitIsRejected(t *testing.T) {
	r := newRig(t)
	r.installed() // without the policy that replaces istio-init
	r.istio(nil, nil)
	r.injectedNamespace("restricted", nil)
	_, err := r.tryCreate(r.appPod("stock"))
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "NET_ADMIN") {
		t.Errorf("%v", err)
	}
}

// A TPROXY sidecar of Istio runs as root with NET_ADMIN, no matter who adds the rules. Pod Security restricted rejects
// it, privileged admits it.
func TestIstioTPROXY(t *testing.T) {
	r := newRig(t)
	r.installed()
	r.istio(nil, nil, cniEnabled)
	r.injectedNamespace("restricted", nil)
	annotations := map[string]string{"sidecar.istio.io/interceptionMode": "TPROXY"}
	if _, err := r.tryCreate(r.injected("refused", annotations)); !apierrors.IsForbidden(err) {
		t.Errorf("under restricted: %v", err)
	}
	r.injectedNamespace("privileged", nil)
	r.without()
	r.create(r.injected("cart-0", annotations))
	r.throughSidecar("cart-0")
	r.answersFrom("sidecar-inbound", r.pod("cart-0"), 8080)
	if rules := r.ruleset("cart-0"); !strings.Contains(rules, "tproxy") {
		t.Errorf("no TPROXY rule in\n%s", rules)
	}
}

// Manual injection: the documented patch replaces istio-init in the output of istioctl kube-inject.
func TestIstioByHand(t *testing.T) {
	r := newRig(t)
	r.installed()
	r.seen(r.appPod("plain"))
	_, err := nodes.Client.CoreV1().ConfigMaps(r.namespace).Create(r.ctx, istioAuthority(), metav1.CreateOptions{})
	must(r, err)
	r.importIstio()
	pod := r.appPod("cart-0") // the name that the StatefulSet gives it
	pod.ObjectMeta = metav1.ObjectMeta{Labels: map[string]string{"app": "cart"}}
	workload, err := json.Marshal(&appsv1.StatefulSet{
		TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "StatefulSet"}, ObjectMeta: metav1.ObjectMeta{Name: "cart",
			Namespace: r.namespace},
		Spec: appsv1.StatefulSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: pod.Labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: pod.ObjectMeta, Spec: pod.Spec},
		},
	})
	must(r, err)
	injected := r.output(r.injector(nil, nil, "-inject="+r.file("cart.yaml", string(workload))))
	if !strings.Contains(injected, "NET_ADMIN") {
		t.Errorf("what is injected needs no patch:\n%s", injected)
	}
	patch := kubectl("patch", "--local", "-f", "-", "--type=strategic", "--patch-file="+filepath.Join(build.Root(), "docs",
		"istio", "replace-init.yaml"), "-o", "yaml")
	patch.Stdin = strings.NewReader(injected)
	patched := r.output(patch)
	apply := kubectl("apply", "-f", "-")
	apply.Stdin = strings.NewReader(patched)
	r.output(apply)
	r.eventually("the pod is made", func() bool {
		_, err := nodes.Client.CoreV1().Pods(r.namespace).Get(r.ctx, "cart-0", metav1.GetOptions{})
		return err == nil
	})
	r.throughSidecar("cart-0")
	r.marked("cart-0")
	r.answersFrom("sidecar-inbound", r.pod("cart-0"), 8080)
	if wait := container(r.pod("cart-0"), "istio-init"); wait.Image != pluginImage() {
		t.Errorf("istio-init is %+v", wait)
	}
}

// initReplaced waits until the chart's policy replaces istio-init. The API server sees a policy with a delay.
func (r *rig) initReplaced() {
	r.Helper()
	r.succeeds("a pod whose istio-init is replaced", func() error { _, err := r.dryRun(r.appPod("try")); return err })
}

// If Istio's injector still adds istio-init, the chart's policy replaces it by our wait before Pod Security checks the
// pod.
func TestIstioInitReplaced(t *testing.T) {
	r := newRig(t)
	r.installed("injection.replaceInit=true")
	r.istio(nil, nil)
	r.injectedNamespace("restricted", nil)
	r.without()
	r.initReplaced()
	for name, native := range map[string]string{"plain-sidecar": "false", "native-sidecar": "true"} {
		r.create(r.injected(name, map[string]string{"sidecar.istio.io/nativeSidecar": native}))
		r.throughSidecar(name)
		r.marked(name)
		wait := container(r.pod(name), "istio-init")
		if wait.Image != pluginImage() || len(wait.SecurityContext.Capabilities.Add) > 0 {
			t.Errorf("istio-init of %s is %+v", name, wait)
		}
		r.waited(name, "istio-init")
	}
}
