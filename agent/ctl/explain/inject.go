package explain

import (
	"cmp"
	"slices"
	"strconv"

	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/redirect"
	corev1 "k8s.io/api/core/v1"
)

// neverInjected are the namespaces that Istio's injector leaves alone. Source: IgnoredNamespaces in istio/istio,
// pkg/kube/inject/initializer.go.
var neverInjected = []string{"kube-system", "kube-public", "kube-node-lease", "local-path-storage"}

// inject gives the pod what Istio's injector would, as far as the plugin looks at it, and says what was assumed.
func inject(pod *corev1.Pod) (assumed string) {
	switch {
	case slices.ContainsFunc(slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers),
		func(c corev1.Container) bool { return c.Name == redirect.ProxyContainer }):
		return "no injection: the pod has a container " + redirect.ProxyContainer + " already"
	case pod.Spec.HostNetwork:
		return "no injection: Istio injects no pod with hostNetwork"
	case slices.Contains(neverInjected, pod.Namespace):
		return "no injection: Istio injects no pod in " + pod.Namespace
	case optsOut(pod):
		return "no injection: " + annotation.SidecarInject + " is false"
	}
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	pod.Annotations[annotation.SidecarStatus] = "{}"
	mode := cmp.Or(pod.Annotations[annotation.InterceptionMode], string(redirect.ModeRedirect))
	user, group, escalates := int64(redirect.DefaultSpec().ProxyUID), int64(redirect.DefaultSpec().ProxyGID), false
	pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{
		Name: redirect.ProxyContainer, Args: []string{"proxy", "sidecar"},
		Env:             []corev1.EnvVar{{Name: redirect.EnvMode, Value: mode}},
		SecurityContext: &corev1.SecurityContext{RunAsUser: &user, RunAsGroup: &group, AllowPrivilegeEscalation: &escalates},
	})
	return "Istio injects it, with a sidecar of user and group " + strconv.FormatInt(user, 10) +
		" and no settings of a mesh's or a template's own"
}

// optsOut reports whether the pod is not to be injected: the label counts before the annotation.
func optsOut(pod *corev1.Pod) bool {
	said, present := pod.Labels[annotation.SidecarInject]
	if !present {
		said, present = pod.Annotations[annotation.SidecarInject]
	}
	wanted, err := strconv.ParseBool(said)
	return present && err == nil && !wanted
}
