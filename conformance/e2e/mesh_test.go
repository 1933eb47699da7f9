package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/cluster"
	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/record"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// stockPod returns a mesh pod as Istio's injection creates it without a CNI plugin.
func (r *rig) stockPod(name string) *corev1.Pod {
	pod, root := r.meshPod(name), int64(0)
	pod.Spec.InitContainers[0] = corev1.Container{Name: "istio-init", Image: pluginImage(),
		SecurityContext: &corev1.SecurityContext{
			RunAsUser: &root, Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"NET_ADMIN", "NET_RAW"}},
		}}
	return pod
}

// Pod Security restricted rejects the init container of stock Istio. That is the problem that this project solves.
func TestStockInitIsRejected(t *testing.T) {
	r := newRig(t)
	r.installed() // without the policy that replaces istio-init
	_, err := r.tryCreate(r.stockPod("stock"))
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "NET_ADMIN") {
		t.Errorf("%v", err)
	}
}

// The same workload starts under Pod Security restricted with the plugin. Its wait ends, traffic goes where the rules
// say, and nothing that the app sends bypasses the sidecar. This holds for a drop-in and for a splice.
func TestMeshPod(t *testing.T) {
	onEveryNode(t, func(r *rig) {
		r.installed()
		want := map[cluster.Runtime]string{cluster.Current: "drop-in", cluster.Debian: "spliced"}[r.node.Runtime]
		r.succeeds("the plugin is "+want, func() error { // an agent that learns the runtime's version late splices first
			if _, ready := readyz(r.node.Address()); !strings.Contains(ready, "("+want+")") {
				return errors.New(ready)
			}
			return nil
		})
		r.seen(r.appPod("plain"))
		pod := r.meshPod("cart-0")
		pod.Annotations["traffic.sidecar.istio.io/excludeOutboundPorts"] = "8082"
		pod.Annotations["traffic.sidecar.istio.io/excludeInboundPorts"] = "8090"
		container(pod, "istio-proxy").Env = []corev1.EnvVar{{Name: "ISTIO_META_DNS_CAPTURE", Value: "true"}}
		app := container(pod, "app")
		app.Args = append(app.Args, excluded, dns)
		r.create(pod)
		r.hears("cart-0", excluded, "peer")
		r.hears("cart-0", dns, "sidecar-dns")
		r.throughSidecar("cart-0")
		pod = r.pod("cart-0")
		if len(pod.Status.PodIPs) != 2 {
			r.Errorf("the pod is not dual-stack: %v", pod.Status.PodIPs)
		}
		r.answersFrom("sidecar-inbound", pod, 8080)
		r.answersFrom("app", pod, 8090)
		r.marked("cart-0")
		r.waited("cart-0", "istio-validation")
		if marked := r.pod("plain").Annotations; len(marked) > 0 {
			r.Errorf("a pod outside the mesh was touched: %v", marked)
		}
	})
}

// Every mode of the wait ends in a mesh pod.
func TestInitWait(t *testing.T) {
	r := newRig(t)
	r.installed()
	r.seen(r.appPod("plain"))
	for _, mode := range []string{"annotation", "probe", "any"} {
		pod := r.meshPod(mode)
		pod.Spec.InitContainers[0] = waitContainer(mode)
		r.create(pod)
		r.throughSidecar(mode)
		r.note("%s: %s", mode, r.waited(mode, "istio-validation"))
	}
}

// waited fails unless an init wait that has ended says that the rules were there. It returns how long it took.
func (r *rig) waited(pod, wait string) (took string) {
	r.Helper()
	log := r.said(pod, wait)
	_, after, found := strings.Cut(log, "ready after ")
	if !found {
		r.Errorf("the wait %s of %s says %q", wait, pod, log)
	}
	took, _, _ = strings.Cut(after, ":")
	return took
}

// native turns the sidecar of a mesh pod into a native sidecar: an init container with restartPolicy Always.
func native(pod *corev1.Pod) *corev1.Pod {
	always := corev1.ContainerRestartPolicyAlways
	proxy := sidecarContainer()
	proxy.RestartPolicy = &always
	pod.Spec.InitContainers = append(pod.Spec.InitContainers, proxy)
	pod.Spec.Containers = pod.Spec.Containers[1:]
	return pod
}

// The plugin works with a native sidecar (Kubernetes 1.29), which also serves later init containers.
func TestNativeSidecar(t *testing.T) {
	r := newRig(t)
	r.installed()
	r.seen(r.appPod("plain"))
	r.create(native(r.meshPod("cart-0")))
	r.throughSidecar("cart-0")
	r.answersFrom("sidecar-inbound", r.pod("cart-0"), 8080)
	r.marked("cart-0")
}

// inTPROXY makes a mesh pod use TPROXY.
func inTPROXY(pod *corev1.Pod) *corev1.Pod {
	pod.Annotations["sidecar.istio.io/interceptionMode"] = "TPROXY"
	proxy := container(pod, "istio-proxy")
	root, group, no := int64(0), int64(proxyUser), false // as Istio's injector sets them
	proxy.SecurityContext = &corev1.SecurityContext{RunAsUser: &root, RunAsGroup: &group, RunAsNonRoot: &no,
		Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"NET_ADMIN"}}}
	proxy.Command = append(proxy.Command, "-tproxy")
	return pod
}

// A TPROXY sidecar needs NET_ADMIN, which Pod Security restricted forbids, so the pod needs another namespace. Inbound
// connections reach the sidecar with their original destination.
func TestTPROXY(t *testing.T) {
	r := newRig(t)
	r.installed()
	r.namespace = r.newNamespace(enforcing("privileged"), nil)
	r.seen(r.appPod("plain"))
	r.create(inTPROXY(r.meshPod("cart-0")))
	r.throughSidecar("cart-0")
	r.answersFrom("sidecar-inbound", r.pod("cart-0"), 8080)
	if rules := r.ruleset("cart-0"); !strings.Contains(rules, "tproxy") {
		t.Errorf("no TPROXY rule in\n%s", rules)
	}
}

// A static pod gets its rules. The agent does not mark its mirror pod, which is all that the API server has of it.
func TestStaticPod(t *testing.T) {
	r := newRig(t)
	r.installed()
	r.seen(r.appPod("plain"))
	name := "cart-" + r.node.Name // the name of the mirror pod
	pod := r.meshPod("cart")
	container(pod, "app").Command[2] = "-name=" + r.namespace + "/" + name
	pod.Spec.InitContainers[0] = waitContainer("any")
	pod.APIVersion, pod.Kind = "v1", "Pod"
	pod.Spec.NodeSelector = nil
	manifest := r.node.Path(filepath.Join(cluster.StaticDir, "cart.json"))
	t.Cleanup(func() { _ = os.Remove(manifest) })
	must(t, os.WriteFile(manifest, asJSON(pod), 0o644))
	r.eventually("the mirror pod is there", func() bool {
		_, err := nodes.Client.CoreV1().Pods(r.namespace).Get(r.ctx, name, metav1.GetOptions{})
		return err == nil
	})
	r.throughSidecar(name)
	mirror := r.pod(name)
	if _, marked := mirror.Annotations[annotation.Status]; marked {
		t.Errorf("the mirror is marked: %v", mirror.Annotations)
	}
	records, _ := record.Store{Dir: r.node.Path(stateDir)}.List()
	hash, found := mirror.Annotations["kubernetes.io/config.hash"], false
	for _, rec := range records {
		found = found || rec.PodUID == hash && rec.Decision == record.Redirect
	}
	if !found {
		t.Errorf("no record of the static pod %s", hash)
	}
	must(t, os.Remove(manifest))
	r.eventually("the mirror is gone", func() bool {
		_, err := nodes.Client.CoreV1().Pods(r.namespace).Get(r.ctx, name, metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
}
