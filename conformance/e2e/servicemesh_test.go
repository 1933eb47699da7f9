package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/build"
	"github.com/istio-pod-network/controller/conformance/internal/cluster"
	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	"github.com/istio-pod-network/controller/conformance/internal/mesh"
	"github.com/istio-pod-network/controller/internal/await"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Ports of the apps in the mesh: HTTP and gRPC, gRPC, lines of text, and commands from the test. callsPort is excluded
// from redirection, so that the test reaches it.
const (
	webPort   = 8080
	grpcPort  = 8091 // not peerPort, which attempts to get around a sidecar bind in the pod
	linesPort = 8090
	callsPort = 8099
)

// serviceMesh is a real mesh: istiod, and pods with pilot-agent and Envoy, with mTLS mode STRICT and REGISTRY_ONLY, so
// that nothing from an app may reach the peer.
type serviceMesh struct {
	helm      mesh.Helm
	namespace string // namespace of the pods that scenarios share
	sets      []string
}

// strict makes every sidecar of the mesh accept only mTLS.
const strict = `apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
`

// TestServiceMesh runs scenarios in a real mesh, one after the other. The sidecars are Envoy, configured by istiod. Pod
// Security restricted admits every pod unless the scenario says otherwise.
func TestServiceMesh(t *testing.T) {
	m := newServiceMesh(t)
	for _, s := range []struct {
		name string
		run  func(*serviceMesh, *rig)
	}{
		{"mtls", (*serviceMesh).mutualTLS},
		{"protocols", (*serviceMesh).protocols},
		{"egress", (*serviceMesh).egress},
		{"authorization", (*serviceMesh).authorization},
		{"routing", (*serviceMesh).routing},
		{"dns", (*serviceMesh).names},
		{"probes", (*serviceMesh).probes},
		{"metrics", (*serviceMesh).metrics},
		{"lifecycle", (*serviceMesh).lifecycle},
		{"inits", (*serviceMesh).inits},
		{"workloads", (*serviceMesh).workloads},
		{"escape", (*serviceMesh).escape},
		{"tproxy", (*serviceMesh).transparent},
		{"early", (*serviceMesh).early},
		{"istio-init", (*serviceMesh).keepsIstioInit},
		{"families", (*serviceMesh).families},
		{"gateways", (*serviceMesh).gateways},
		{"verify", (*serviceMesh).verified},
		{"replaced", (*serviceMesh).replaced}, // leaves the release with repair: delete
		{"revisions", (*serviceMesh).revisions},
	} {
		passed := t.Run(s.name, func(t *testing.T) {
			r := newRig(t)
			await.Explain(r, "namespace "+m.namespace, func() string { return describe(m.namespace) })
			before := outside.reached(m.namespace, "plain")
			s.run(m, r)
			own := r.control
			r.namespace = m.namespace
			m.keeps(r, "front")
			r.eventually("the detector sees the app outside the mesh", func() bool {
				r.control = own + outside.reached(m.namespace, "plain") - before
				return r.control >= own+enough
			})
		})
		if !passed { // after a failure the nodes are reset, so the shared pods have lost their network
			return
		}
	}
}

// newServiceMesh installs the mesh and creates the pods that scenarios share, until the end of the test.
func newServiceMesh(t *testing.T) *serviceMesh {
	t.Helper()
	r := newRig(t)
	r.installed("injection.replaceInit=true", "rbac.verifier=true")
	m := newMesh(r, nodes.Nodes, nil)
	m.injects(r, byDefault)
	m.pods(r)
	return m
}

// newMesh installs istiod on the first node, and the sidecar image on the given nodes, for pods of the rig's namespace.
// sets are additional values of istiod in the form of --set. annotations are those of istiod's namespace.
func newMesh(r *rig, on []*cluster.Node, annotations map[string]string, sets ...string) *serviceMesh {
	r.Helper()
	m := &serviceMesh{namespace: r.namespace, sets: sets, helm: mesh.Helm{Program: lookUp("helm4"),
		Kubeconfig: nodes.Admin(), Bin: isolated.BinDir(), Dir: r.TempDir()}}
	pilot, proxy, err := mesh.Images(isolated.BinDir(), nodes.Dir)
	must(r, err)
	must(r, nodes.Nodes[0].Import(pilot))
	for _, n := range on {
		must(r, n.Import(proxy))
	}
	r.namedNamespace(mesh.Namespace, enforcing("restricted"), annotations)
	r.Cleanup(func() { m.remove(r) })
	must(r, m.helm.Install("istio-base", "base", mesh.Namespace, nil))
	m.istiod(r)
	r.apply("", strict)
	must(r, r.label(m.namespace, injectedFrom, "enabled"))
	return m
}

// istiod installs or upgrades istiod.
func (m *serviceMesh) istiod(r *rig) {
	r.Helper()
	files := []string{ourWait(), r.file("own-user.yaml", ownUser)}
	must(r, m.helm.Install("istiod", "istiod", mesh.Namespace, files, append([]string{
		"nodeSelector.kubernetes\\.io/hostname=" + nodes.Nodes[0].Name,
		"meshConfig.outboundTrafficPolicy.mode=REGISTRY_ONLY"}, m.sets...)...))
}

// ourWait returns the path of the values file that makes Istio's injector use our wait (way A of docs/injection.md).
func ourWait() string { return filepath.Join(build.Root(), "docs", "istio", "wait.yaml") }

// remove uninstalls the mesh, including the CRDs that Helm leaves.
func (m *serviceMesh) remove(r *rig) {
	r.Helper()
	for _, release := range []string{"istiod", "istio-base"} {
		must(r, m.helm.Uninstall(release, mesh.Namespace))
	}
	r.output(kubectl("delete", "--ignore-not-found", "-f", m.helm.CRDs()))
}

// pods creates the pods that scenarios share. front calls reviews, which has two versions on two nodes. plain is
// outside the mesh: the control.
func (m *serviceMesh) pods(r *rig) {
	r.Helper()
	plain := r.appPod("plain")
	plain.Labels = map[string]string{"sidecar.istio.io/inject": "false"}
	r.create(plain)
	r.create(m.app(r, "front", "front", "v1"))
	r.create(m.app(r, "reviews-1", "reviews", "v1"))
	second := m.app(r, "reviews-2", "reviews", "v2")
	second.Spec.NodeSelector[corev1.LabelHostname] = nodes.Nodes[1].Name
	r.create(second)
	r.service("reviews", nil)
	for _, name := range []string{"front", "reviews-1", "reviews-2"} {
		r.ready(name)
	}
}

// app returns a pod of the mesh before injection. It serves, calls what the test tells it to, and tries to reach the
// peer.
func (m *serviceMesh) app(r *rig, name, service, version string) *corev1.Pod {
	r.Helper()
	if _, err := nodes.Client.CoreV1().ServiceAccounts(r.namespace).Create(r.ctx,
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: service}}, metav1.CreateOptions{}); err != nil {
		must(r, ignoreExists(err))
	}
	pod := r.appPod(name)
	pod.Labels = map[string]string{"app": service, "version": version}
	pod.Annotations["traffic.sidecar.istio.io/excludeInboundPorts"] = fmt.Sprint(callsPort)
	pod.Spec.ServiceAccountName = service
	pod.Spec.Containers[0].Command = []string{"/podprogram", "app", "-name=" + r.namespace + "/" + name, "-every=100ms",
		fmt.Sprint("-web=", webPort, ",", grpcPort), fmt.Sprint("-serve=", linesPort), fmt.Sprint("-calls=", callsPort)}
	return pod
}

// service creates a service for the app of that name, with a named port for each protocol.
func (r *rig) service(name string, change func(*corev1.ServiceSpec)) {
	r.Helper()
	port := func(name string, port, target int32) corev1.ServicePort {
		return corev1.ServicePort{Name: name, Port: port, TargetPort: intstr.FromInt32(target)}
	}
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{
		Selector: map[string]string{"app": name},
		Ports:    []corev1.ServicePort{port("http", 80, webPort), port("grpc", 81, grpcPort), port("tcp", 90, linesPort)},
	}}
	if change != nil {
		change(&s.Spec)
	}
	_, err := nodes.Client.CoreV1().Services(r.namespace).Create(r.ctx, s, metav1.CreateOptions{})
	must(r, err)
}

// ready waits until a pod is ready, and returns it.
func (r *rig) ready(name string) *corev1.Pod {
	r.Helper()
	r.eventually("pod "+name+" is ready", func() bool {
		for _, c := range r.pod(name).Status.Conditions {
			if c.Type == corev1.PodReady {
				return c.Status == corev1.ConditionTrue
			}
		}
		return false
	})
	return r.pod(name)
}

// apply applies a manifest with all rights. If namespace is empty, the manifest must name it. The objects are deleted
// by remove, or at the end of the test.
func (r *rig) apply(namespace, manifest string) (remove func()) {
	r.Helper()
	file := r.file("manifest.yaml", manifest)
	r.output(kubectl("apply", "--namespace="+namespace, "-f", file))
	return r.until(func() error {
		return kubectl("delete", "--ignore-not-found", "--namespace="+namespace, "-f", file).Run()
	})
}

// answer is the result of a call, as podprogram returns it.
type answer struct {
	Status int
	Body   string
	Error  string
}

// page returns what an HTTP server has seen of the request.
func (a answer) page() (p struct{ Name, Host, Client string }) {
	_ = json.Unmarshal([]byte(a.Body), &p)
	return p
}

// call makes the app of a pod call http://HOST:PORT/PATH, grpc://HOST:PORT or tcp://HOST:PORT.
func (r *rig) call(pod, to string) (a answer) {
	r.Helper()
	return callBy(r.pod(pod).Status.PodIP, to)
}

// callBy is call with the address of the pod.
func callBy(address, to string) (a answer) {
	client := http.Client{Timeout: 3 * time.Minute} // more than the app gives its call
	at := net.JoinHostPort(address, fmt.Sprint(callsPort))
	response, err := client.Get("http://" + at + "/?to=" + url.QueryEscape(to))
	if err != nil {
		return answer{Error: "not called: " + err.Error()}
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err = errors.Join(err, json.Unmarshal(data, &a)); err != nil {
		return answer{Error: "not called: " + err.Error()}
	}
	return a
}

// calls repeats a call until its answer is right, because sidecars get a new configuration with a delay.
func (r *rig) calls(pod, to, want string, holds func(answer) bool) (a answer) {
	r.Helper()
	r.eventually(pod+" calls "+to+": "+want, func() bool {
		a = r.call(pod, to)
		return holds(a)
	})
	return a
}

func answered(a answer) bool { return a.Error == "" && a.Status < 300 }

// guests creates pods that are deleted at the end of the scenario, because later scenarios need the processor.
func (r *rig) guests(pods ...*corev1.Pod) {
	r.Helper()
	for _, pod := range pods {
		r.create(pod)
		r.Cleanup(func() {
			must(r, ignoreNotFound(nodes.Client.CoreV1().Pods(pod.Namespace).Delete(r.ctx, pod.Name, metav1.DeleteOptions{})))
		})
	}
}

// injectedBy gives the rig a new namespace that enforces a level of Pod Security, and whose pods a revision of istiod
// injects.
func (m *serviceMesh) injectedBy(r *rig, revision, level string) {
	r.Helper()
	labels := enforcing(level)
	if revision == byDefault {
		labels[injectedFrom] = "enabled"
	} else {
		labels[revisionOf] = revision
	}
	r.namespace = r.newNamespace(labels, nil)
	m.injects(r, revision)
}

// injects waits until a revision injects the pods of the rig's namespace. The API server sees changed labels with a
// delay.
func (m *serviceMesh) injects(r *rig, revision string) {
	r.Helper()
	r.eventually("pods are injected by "+revision, func() bool {
		pod, err := r.dryRun(r.appPod("try"))
		return err == nil && pod.Annotations[revisionOf] == revision
	})
}

// speaks makes a pod call reviews, and fails unless the sidecar of reviews sees the pod's certificate.
func (m *serviceMesh) speaks(r *rig, name string) {
	r.Helper()
	a := r.calls(name, "http://reviews."+m.namespace+"/", "answers", answered)
	m.identified(r, a, r.namespace, r.pod(name).Spec.ServiceAccountName)
}

// hearsFront makes front call an address. An HTTP server must have seen front's certificate.
func (m *serviceMesh) hearsFront(r *rig, to string) {
	r.Helper()
	front, err := nodes.Client.CoreV1().Pods(m.namespace).Get(r.ctx, "front", metav1.GetOptions{})
	must(r, err)
	var a answer
	r.eventually("front calls "+to, func() bool {
		a = callBy(front.Status.PodIP, to)
		return answered(a)
	})
	if strings.HasPrefix(to, "http") {
		m.identified(r, a, m.namespace, "front")
	}
}

// identified fails unless the server that answered has seen the certificate of a service account.
func (m *serviceMesh) identified(r *rig, a answer, namespace, account string) {
	r.Helper()
	if want := "URI=spiffe://cluster.local/ns/" + namespace + "/sa/" + account; !strings.Contains(a.page().Client, want) {
		r.Errorf("without the certificate %q: %+v", want, a)
	}
}

// keepsPlaintextOut fails if a pod's app answers plaintext from outside the mesh, in any family.
func (m *serviceMesh) keepsPlaintextOut(r *rig, name string) {
	r.Helper()
	for _, ip := range r.pod(name).Status.PodIPs {
		if heard, _ := ask(net.JoinHostPort(ip.IP, fmt.Sprint(linesPort))); strings.Contains(heard, "app") {
			r.Errorf("%s answers plaintext: %q", ip.IP, heard)
		}
	}
}

// keeps fails if the app of a pod has reached the peer, and counts its attempts. It does not count resets, because the
// mesh refuses connections by a reset.
func (m *serviceMesh) keeps(r *rig, names ...string) {
	r.Helper()
	for _, name := range names {
		resets := r.resets
		r.noLeak(name)
		r.resets = resets
	}
}
