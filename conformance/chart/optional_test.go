package chart

import (
	"maps"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// All optional parts at once, with other names.
func TestOptional(t *testing.T) {
	both(t, func(t *testing.T, helm string) {
		manifests := template(t, helm, "metrics.service.enabled=true", "metrics.podMonitor.enabled=true",
			"metrics.podMonitor.labels.release=prometheus", "metrics.prometheusRule.enabled=true",
			"metrics.dashboard.enabled=true", "resourceQuota.enabled=true", "startupTaint.enabled=true",
			"startupTaint.key=example.com/wait", "apiPriority.enabled=true", "apiPriority.concurrencyShares=7",
			"cni.mode=aux", "agent.apiQPS=20", "agent.apiBurst=40",
			"cni.runtimeVersion=containerd://2.1.4", "agent.listenAddress=127.0.0.1", "agent.port=19999",
			"image.registry=registry.example.com/mesh/",
			"image.tag=v2", "imagePullSecrets[0].name=regcred", "nodeSelector.disk=ssd", "agent.extraArgs={--patrol=1s}")
		taken(t, strings.ReplaceAll(manifests, "registry.example.com/mesh/", "r/"))
		agent := daemonSet(t, manifests)
		for _, flag := range []string{"--startup-taint=example.com/wait",
			"--aux-dir=/var/run/multus/cni/net.d/vendor-cni-chain",
			"--runtime-version=containerd://2.1.4", "--listen=127.0.0.1:19999", "--patrol=1s", "--api-qps=20",
			"--api-burst=40"} {
			if !slices.Contains(agent.Args, flag) {
				t.Errorf("no %s in %q", flag, agent.Args)
			}
		}
		if agent.Image != "registry.example.com/mesh/istio-pod-network-agent:v2" ||
			agent.ReadinessProbe.HTTPGet.Host != "127.0.0.1" {
			t.Errorf("%s %+v", agent.Image, agent.ReadinessProbe.HTTPGet)
		}
		for _, kind := range []string{"Service", "PodMonitor", "PrometheusRule", "ResourceQuota", "FlowSchema",
			"PriorityLevelConfiguration"} {
			if !strings.Contains(manifests, "kind: "+kind+"\n") {
				t.Errorf("no %s", kind)
			}
		}
	})
	for _, word := range []string{"PodMonitor", "PrometheusRule", "kind: Service\n", "startup-taint",
		"kind: ResourceQuota", "dashboard", "uninstall-all", "flowcontrol"} {
		if plain := template(t, "helm4"); strings.Contains(plain, word) {
			t.Errorf("%s was not asked for:\n%s", word, plain)
		}
	}
}

// Labels and annotations in the values never replace those that the chart needs.
func TestLabelsBeneath(t *testing.T) {
	both(t, func(t *testing.T, helm string) {
		const key = `app\.kubernetes\.io/name=mine`
		manifests := template(t, helm, "agent.podLabels."+key, "agent.podLabels.team=mesh",
			`agent.podAnnotations.checksum/network\.json=none`,
			"metrics.dashboard.enabled=true", "metrics.dashboard.labels."+key, "metrics.podMonitor.enabled=true",
			"metrics.podMonitor.labels."+key, "metrics.prometheusRule.enabled=true", "metrics.prometheusRule.labels."+key)
		taken(t, manifests)
		var d appsv1.DaemonSet
		find(t, manifests, "DaemonSet", "istio-pod-network-agent", &d)
		if labels := d.Spec.Template.Labels; labels["app.kubernetes.io/name"] != "istio-pod-network-agent" ||
			labels["team"] != "mesh" {
			t.Errorf("labels of the pods: %v", labels)
		}
		if sum := d.Spec.Template.Annotations["checksum/network.json"]; len(sum) != 64 {
			t.Errorf("the checksum is %q", sum)
		}
		for _, o := range objects(t, manifests) {
			if labels := o.GetLabels(); strings.Contains(strings.Join(slices.Collect(maps.Values(labels)), " "), "mine") {
				t.Errorf("%s %s: %v", o.GetKind(), o.GetName(), labels)
			}
		}
	})
}

// Every object except the test's pod has labels for chart and release, as Helm recommends. With the agents' labels
// another pod would count as an agent.
func TestRecommendedLabels(t *testing.T) {
	both(t, func(t *testing.T, helm string) {
		for _, distribution := range []string{"Kubernetes", "OpenShift"} {
			manifests := template(t, helm, "kubernetesDistribution="+distribution, "hooks=true", "namespace.create=true",
				"startupTaint.enabled=true", "repair=delete", "injection.replaceInit=true", "admissionPolicy.enabled=true",
				"metrics.service.enabled=true", "metrics.podMonitor.enabled=true", "metrics.dashboard.enabled=true",
				"metrics.prometheusRule.enabled=true", "resourceQuota.enabled=true", "apiPriority.enabled=true",
				"rbac.reader=true", "rbac.verifier=true", "sharedProxyUser=refuse")
			for _, o := range objects(t, manifests) {
				labels := o.GetLabels()
				if o.GetKind() == "Pod" {
					if labels["app.kubernetes.io/name"] != "" {
						t.Errorf("the pod of the test: %v", labels)
					}
					continue
				}
				if labels["helm.sh/chart"] != name+"-"+version() || labels["app.kubernetes.io/managed-by"] != "Helm" ||
					labels["app.kubernetes.io/instance"] == "" || labels["app.kubernetes.io/version"] == "" {
					t.Errorf("%s, %s %s: %v", distribution, o.GetKind(), o.GetName(), labels)
				}
			}
		}
		var d appsv1.DaemonSet
		find(t, template(t, helm), "DaemonSet", "istio-pod-network-agent", &d)
		if chart, has := d.Spec.Template.Labels["helm.sh/chart"]; has {
			t.Errorf("a pod of an agent says chart %q", chart)
		}
	})
}

// The plugin's image has the agent's tag, unless the values set another tag or a digest for it.
func TestImages(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0a", 32)
	both(t, func(t *testing.T, helm string) {
		for _, c := range []struct {
			values        []string
			agent, plugin string
		}{
			{nil, "istio-pod-network-agent:" + version(), "istio-pod-network-plugin:" + version()},
			{[]string{"image.tag=v2"}, "istio-pod-network-agent:v2", "istio-pod-network-plugin:v2"},
			{[]string{"image.tag=v2", "pluginImage.tag=v3"}, "istio-pod-network-agent:v2", "istio-pod-network-plugin:v3"},
			{[]string{"image.registry=r.example.com:5000/mesh", "image.digest=" + digest, "pluginImage.repository=wait"},
				"r.example.com:5000/mesh/istio-pod-network-agent@" + digest, "r.example.com:5000/mesh/wait:" + version()},
		} {
			manifests := template(t, helm, append(c.values, "hooks=true")...)
			var pod corev1.Pod
			find(t, manifests, "Pod", "mesh-pod", &pod)
			var job batchv1.Job
			find(t, manifests, "Job", "istio-pod-network-uninstall", &job)
			for _, used := range []struct{ got, want string }{
				{daemonSet(t, manifests).Image, c.agent}, {job.Spec.Template.Spec.Containers[0].Image, c.agent},
				{pod.Spec.InitContainers[0].Image, c.plugin}, {pod.Spec.InitContainers[1].Image, c.plugin},
				{pod.Spec.Containers[0].Image, c.plugin},
			} {
				if used.got != used.want {
					t.Errorf("%q: %s, want %s", c.values, used.got, used.want)
				}
			}
		}
	})
}

// The test's pod is scheduled to nodes with agents, and expects the release's ports. On OpenShift the platform chooses
// its user.
func TestPodOfTheTest(t *testing.T) {
	both(t, func(t *testing.T, helm string) {
		pod := func(values ...string) (pod corev1.Pod) {
			find(t, template(t, helm, append(values, "hooks=true")...), "Pod", "mesh-pod", &pod)
			return pod
		}
		const terms = "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]"
		plain := pod("nodeSelector.mesh=on", "redirect.inboundPort=16006", "redirect.outboundPort=16001",
			terms+".matchExpressions[0].key=mesh", terms+".matchExpressions[0].operator=Exists")
		if plain.Spec.NodeSelector["mesh"] != "on" || plain.Spec.NodeSelector[corev1.LabelOSStable] != "linux" ||
			plain.Spec.Affinity == nil {
			t.Errorf("it goes to %v %v", plain.Spec.NodeSelector, plain.Spec.Affinity)
		}
		// The sidecar's user in this pod is 1337, whatever user the release sets.
		if plain.Annotations["pod-network-controller.istio.io/envoy-userid"] != "1337" ||
			*plain.Spec.InitContainers[1].SecurityContext.RunAsUser != 1337 {
			t.Errorf("%v %+v", plain.Annotations, plain.Spec.InitContainers[1].SecurityContext)
		}
		for _, c := range plain.Spec.InitContainers {
			if !slices.Contains(c.Args, "--inbound-port=16006") || !slices.Contains(c.Args, "--outbound-port=16001") {
				t.Errorf("%s: %q", c.Name, c.Args)
			}
		}
		there := pod("kubernetesDistribution=OpenShift")
		if there.Spec.InitContainers[1].SecurityContext.RunAsUser != nil ||
			there.Annotations["pod-network-controller.istio.io/envoy-userid"] != "1337" ||
			!slices.Contains(there.Spec.InitContainers[1].Args, "--proxy-uid=1337") {
			t.Errorf("on OpenShift: %v %+v", there.Annotations, there.Spec.InitContainers[1])
		}
		asks := func(pod corev1.Pod) bool {
			return slices.ContainsFunc(pod.Spec.Containers,
				func(c corev1.Container) bool { return slices.Contains(c.Args, "--dns") })
		}
		if !asks(plain) || asks(there) { // on OpenShift the stand-in's UDP answers would count as those of an app
			t.Errorf("names are asked for: %t, on OpenShift %t", asks(plain), asks(there))
		}
	})
}

// The kubelet probes the address on which the agent listens. It adds the brackets of IPv6 itself.
func TestProbes(t *testing.T) {
	for address, host := range map[string]string{
		"": "", "0.0.0.0": "", "[::]": "", "127.0.0.1": "127.0.0.1", "[::1]": "::1", "[fd00::7]": "fd00::7",
	} {
		agent := daemonSet(t, template(t, "helm4", "agent.listenAddress="+address, "agent.port=9"))
		for _, probe := range []*corev1.Probe{agent.StartupProbe, agent.LivenessProbe, agent.ReadinessProbe} {
			if probe.HTTPGet.Host != host || probe.HTTPGet.Port.String() != "metrics" || agent.Ports[0].ContainerPort != 9 {
				t.Errorf("listening on %q: %+v", address, probe.HTTPGet)
			}
		}
		if !slices.Contains(agent.Args, "--listen="+address+":9") {
			t.Errorf("listening on %q: %q", address, agent.Args)
		}
	}
}
