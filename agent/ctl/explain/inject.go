package explain

import (
	"cmp"
	"slices"
	"strconv"

	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/redirect"
	corev1 "k8s.io/api/core/v1"
)

// neverInjected are namespaces that Istio's injector ignores. Source: IgnoredNamespaces in istio/istio,
// pkg/kube/inject/initializer.go.
var neverInjected = []string{"kube-system", "kube-public", "kube-node-lease", "local-path-storage"}

// inject changes the pod as Istio's injector would, as far as the plugin reads that, and returns what was assumed. A
// pod may already have a container for the sidecar with its own settings. Istio then adds the rest.
func inject(pod *corev1.Pod) (assumed string) {
	switch {
	case pod.Annotations[annotation.SidecarStatus] != "":
		return "no injection: Istio has injected the pod already"
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
	with := "with a sidecar of user and group " + strconv.FormatInt(user, 10)
	proxy := proxyIn(&pod.Spec)
	if proxy == nil {
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: redirect.ProxyContainer})
		proxy = &pod.Spec.Containers[len(pod.Spec.Containers)-1]
	} else {
		with = "with what its own container " + redirect.ProxyContainer + " does not say, such as user and group " +
			strconv.FormatInt(user, 10) + ","
	}
	if len(proxy.Args) == 0 {
		proxy.Args = []string{"proxy", "sidecar"}
	}
	if !slices.ContainsFunc(proxy.Env, func(e corev1.EnvVar) bool { return e.Name == redirect.EnvMode }) {
		proxy.Env = append(proxy.Env, corev1.EnvVar{Name: redirect.EnvMode, Value: mode})
	}
	if proxy.SecurityContext == nil {
		proxy.SecurityContext = &corev1.SecurityContext{}
	}
	its := proxy.SecurityContext
	its.RunAsUser, its.RunAsGroup = cmp.Or(its.RunAsUser, &user), cmp.Or(its.RunAsGroup, &group)
	its.AllowPrivilegeEscalation = cmp.Or(its.AllowPrivilegeEscalation, &escalates)
	return "Istio injects it, " + with + " and no settings of a mesh's or a template's own"
}

// proxyIn returns the sidecar's container, nil if there is none.
func proxyIn(spec *corev1.PodSpec) *corev1.Container {
	for _, list := range [][]corev1.Container{spec.Containers, spec.InitContainers} {
		for i := range list {
			if list[i].Name == redirect.ProxyContainer {
				return &list[i]
			}
		}
	}
	return nil
}

// optsOut reports whether the pod opts out of injection. The label takes precedence over the annotation.
func optsOut(pod *corev1.Pod) bool {
	said, present := pod.Labels[annotation.SidecarInject]
	if !present {
		said, present = pod.Annotations[annotation.SidecarInject]
	}
	wanted, err := strconv.ParseBool(said)
	return present && err == nil && !wanted
}
