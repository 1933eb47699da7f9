package verify

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	"github.com/istio-pod-network/controller/agent/ctl/temporary"
	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/flows/report"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	typedcore "k8s.io/client-go/kubernetes/typed/core/v1"
	"sigs.k8s.io/yaml"
)

// Names of what the chart has for this command: the pod of `helm test`, with the release's image, ports and platform.
const (
	configMap        = "istio-pod-network-verify"
	podKey           = "pod.yaml"
	appContainer     = "app"
	sidecarContainer = "istio-proxy"
	program          = "/istio-pod-network-flows"
)

// Names of the pods in their calls, by which the peer knows them.
const (
	meshName  = "mesh"
	plainName = "plain"
)

// accountName is the service account of the pods. They have no token of it.
const accountName = "verify"

// peerPort is a port of the peer.
const peerPort = 8081

// kit is what pods are made from.
type kit struct {
	pod corev1.Pod
	// longest limits how long a pod runs, even if nothing removes it.
	longest time.Duration
	// secret is a secret of the run, by which its pods recognise each other.
	secret string
	// constraints are the SecurityContextConstraints that the pods require on OpenShift, otherwise "".
	constraints string
}

// readKit reads the chart's ConfigMap. If image is not empty, it replaces the pods' image.
func readKit(ctx context.Context, core typedcore.CoreV1Interface, namespace, image string) (k kit, err error) {
	source := fmt.Sprintf("ConfigMap %s in namespace %s", configMap, namespace)
	object, err := core.ConfigMaps(namespace).Get(ctx, configMap, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return k, fmt.Errorf("reading %s, which the release of the agents has to have: %w", source, err)
	}
	if err != nil {
		return k, fmt.Errorf("reading %s%s: %w", source, cluster.Needs("the verb get on it", err), err)
	}
	if err := yaml.Unmarshal([]byte(object.Data[podKey]), &k.pod); err != nil {
		return k, fmt.Errorf("%s, key %s: %w", source, podKey, err)
	}
	for _, name := range []string{appContainer, sidecarContainer} {
		if !slices.ContainsFunc(k.pod.Spec.Containers, func(c corev1.Container) bool { return c.Name == name }) {
			return k, fmt.Errorf("%s, key %s: the pod has no container %s", source, podKey, name)
		}
	}
	for _, list := range [][]corev1.Container{k.pod.Spec.InitContainers, k.pod.Spec.Containers} {
		for i := range list {
			if image != "" {
				list[i].Image = image
			}
		}
	}
	return k, nil
}

// app returns the app's container.
func (k kit) app() corev1.Container {
	i := slices.IndexFunc(k.pod.Spec.Containers, func(c corev1.Container) bool { return c.Name == appContainer })
	return *k.pod.Spec.Containers[i].DeepCopy()
}

// asks reports whether pods ask the peer by DNS.
func (k kit) asks() bool { return slices.Contains(k.app().Args, "--dns") }

func (k kit) image() string { return k.app().Image }

// meshPod returns a mesh pod. Its app and its stand-in of the sidecar call peers.
func (k kit) meshPod(name, node string, peers []string) *corev1.Pod {
	p := k.on(name, node)
	k.annotate(p)
	for i, c := range p.Spec.Containers {
		p.Spec.Containers[i].Args = append(c.Args, "--name="+meshName, "--peer="+strings.Join(peers, ","))
	}
	return p
}

// annotate adds the annotations of the chart's pod, and excludes the ports for calls that must not be captured.
func (k kit) annotate(p *corev1.Pod) {
	if p.Annotations == nil {
		p.Annotations = map[string]string{}
	}
	maps.Copy(p.Annotations, k.pod.Annotations)
	p.Annotations[annotation.ExcludeOutboundPorts] = fmt.Sprint(report.ExcludedOutboundPort)
	p.Annotations[annotation.ExcludeInboundPorts] = fmt.Sprint(report.ExcludedInboundPort)
}

// plainPod returns a pod outside the mesh, whose app makes the same calls.
func (k kit) plainPod(name, node string, peers []string) *corev1.Pod {
	app := k.app()
	app.Args = append(app.Args, "--outside", "--name="+plainName, "--peer="+strings.Join(peers, ","))
	return k.alone(name, node, app)
}

// peerPod returns a pod outside the mesh that is called. It serves DNS, so every user in it may bind port 53.
func (k kit) peerPod(name, node string) *corev1.Pod {
	app := k.app()
	app.Command, app.Args = []string{program, "peer"}, nil
	app.ReadinessProbe = &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{
		TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(peerPort)}}}
	p := k.alone(name, node, app)
	if !k.asks() { // without DNS the sysctl is not needed, and a platform may refuse it
		return p
	}
	if p.Spec.SecurityContext == nil {
		p.Spec.SecurityContext = &corev1.PodSecurityContext{}
	}
	p.Spec.SecurityContext.Sysctls = []corev1.Sysctl{{Name: "net.ipv4.ip_unprivileged_port_start", Value: "0"}}
	return p
}

// alone returns a pod with one container.
func (k kit) alone(name, node string, c corev1.Container) *corev1.Pod {
	k.pod.Spec.InitContainers, k.pod.Spec.Containers, k.pod.Spec.Volumes = nil, []corev1.Container{c}, nil
	return k.on(name, node)
}

// on returns the chart's pod for one node. It tolerates all taints, as agents do.
func (k kit) on(name, node string) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: Namespace, Labels: space.Labels()},
		Spec:       *k.pod.Spec.DeepCopy(),
	}
	if k.constraints != "" {
		p.Annotations = map[string]string{requiredConstraints: k.constraints}
	}
	no, seconds, grace := false, int64(k.longest.Seconds()), int64(2)
	p.Spec.ServiceAccountName, p.Spec.AutomountServiceAccountToken = accountName, &no
	p.Spec.RestartPolicy, p.Spec.ActiveDeadlineSeconds = corev1.RestartPolicyNever, &seconds
	p.Spec.TerminationGracePeriodSeconds = &grace
	for i := range p.Spec.Containers {
		c := &p.Spec.Containers[i]
		c.Env = append(c.Env, corev1.EnvVar{Name: report.Secret, Value: k.secret})
	}
	temporary.On(node, &p.Spec)
	return p
}
