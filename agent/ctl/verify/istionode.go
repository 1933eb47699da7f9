package verify

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	"github.com/istio-pod-network/controller/plugin/annotation"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// serverName is the name of the mesh pod that is called by the other one, and of its Service. servedBy is the label
// that distinguishes it from those of other nodes.
const (
	serverName = "server"
	servedBy   = annotation.ControllerPrefix + "verify-server"
	servedAt   = 80
	appPort    = 8080
)

// ofStandIn are annotations of the chart's pod for its stand-in of the sidecar. Istio's sidecar gets them from Istio.
var ofStandIn = []string{annotation.SidecarStatus, annotation.EnvoyUserID, "k8s.v1.cni.cncf.io/networks",
	requiredConstraints}

// proveInjected does what prove does, with pods that Istio injects. There is one more pod, which serves.
func (v *verifier) proveInjected(ctx context.Context, n Node, number int) Node {
	node := n.Name
	name := func(what string) string { return fmt.Sprint(what, "-", number) }
	defer v.remove(ctx, name("peer"), name(serverName), name(meshName), name(plainName))
	v.progress.Step(node, "the peer and a pod of the mesh start")
	service, err := v.core.Services(Namespace).Create(ctx, serviceOf(name(serverName)), metav1.CreateOptions{})
	if err != nil {
		n.find(NotProven, fmt.Sprintf("a Service could not be made%s: %v",
			cluster.Needs("the verb create on services", err), cmp.Or(context.Cause(ctx), err)), "see what refuses it")
		return n
	}
	var peer *corev1.Pod
	if !n.both(func(n *Node) (ok bool) {
		_, ok = v.run(ctx, n, "the pod of the mesh that is called", v.kit.servedPod(name(serverName), node), isReady)
		return ok
	}, func(n *Node) (ok bool) {
		peer, ok = v.run(ctx, n, "the peer", v.kit.outside(v.kit.peerPod(name("peer"), node)), isReady)
		return ok
	}) {
		return n
	}
	v.progress.Step(node, "another pod of the mesh and the control make their flows")
	peers, at := addresses(peer), net.JoinHostPort(service.Spec.ClusterIP, fmt.Sprint(servedAt))
	var mesh, plain *corev1.Pod
	if !n.both(func(n *Node) (ok bool) {
		mesh, ok = v.run(ctx, n, "the pod of the mesh",
			v.kit.envoyPod(name(meshName), node, v.mesh, peers, at, service.Name+"."+Namespace+".svc"), appHasEnded)
		return ok
	}, func(n *Node) (ok bool) {
		plain, ok = v.run(ctx, n, "the control", v.kit.outside(v.kit.plainPod(name(plainName), node, peers)), hasEnded)
		return ok
	}) {
		return n
	}
	v.progress.Step(node, "reading what they say")
	n.judge(v.tool, said{istio: true, mesh: v.log(ctx, mesh.Name, appContainer),
		plain: v.log(ctx, plain.Name, appContainer), peer: v.log(ctx, peer.Name, appContainer)})
	v.exits(ctx, &n, mesh)
	return n
}

// outside makes Istio ignore a pod. DNS is not tested, because the sidecar answers queries to any address.
func (k kit) outside(p *corev1.Pod) *corev1.Pod {
	p.Labels[annotation.SidecarInject] = "false"
	c := &p.Spec.Containers[0]
	c.Args = slices.DeleteFunc(c.Args, func(arg string) bool { return arg == "--dns" })
	if p.Spec.SecurityContext != nil {
		p.Spec.SecurityContext.Sysctls = nil
	}
	return p
}

// serviceOf returns a Service for the pod of that name.
func serviceOf(name string) *corev1.Service {
	http := "http"
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: Namespace, Labels: space.Labels()},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{servedBy: name},
			Ports: []corev1.ServicePort{
				{Name: http, AppProtocol: &http, Port: servedAt, TargetPort: intstr.FromInt32(appPort)}},
		},
	}
}

// appHasEnded reports whether a pod's app has ended. Its sidecar may still run.
func appHasEnded(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.ContainerStatuses, func(c corev1.ContainerStatus) bool {
		return c.Name == appContainer && c.State.Terminated != nil
	})
}

// sidecarTrouble returns that Istio's sidecar runs but is not ready, otherwise "".
func (v *verifier) sidecarTrouble(ctx context.Context, pod *corev1.Pod) string {
	for _, c := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if c.Name == sidecarContainer && c.State.Running != nil && !c.Ready {
			return "its sidecar is not ready: " + lastLine(v.log(ctx, pod.Name, c.Name))
		}
	}
	return ""
}
