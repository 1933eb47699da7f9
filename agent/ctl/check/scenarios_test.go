package check

import (
	"strings"
	"time"

	"github.com/istio-pod-network/controller/agent/inspect"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// scenario is a cluster and the expected item about it.
type scenario struct {
	make   func(*lab)
	before bool
	status int
	check  string  // the item's name
	as     Verdict // its verdict
	what   string  // a part of What
	next   string  // a part of Next
}

var scenarios = map[string]scenario{
	"well": {make: func(*lab) {}},
	"pre":  {before: true, make: func(*lab) {}},

	"old-kubernetes": {before: true, make: func(l *lab) { l.kubernetes, l.apis = "v1.24.9", nil }, status: 1,
		check: "kubernetes-version", as: NotWell, what: "older than 1.25", next: "upgrade Kubernetes"},
	"strange-kubernetes": {before: true, make: func(l *lab) { l.kubernetes = "main" },
		check: "kubernetes-version", as: Warning, what: "main", next: "1.25"},
	"no-policies": {before: true, make: func(l *lab) { l.kubernetes, l.apis = "v1.29.1", nil },
		check: "admission-api", as: Warning, what: "no ValidatingAdmissionPolicy", next: "1.30"},
	"old-kernel": {before: true, make: func(l *lab) {
		l.node("node-a").Status.NodeInfo.KernelVersion = "5.10.0-41-amd64"
	}, check: "nodes", as: Warning, what: "node-a: Linux before 5.14", next: "leave --mode"},
	"older-kernel": {before: true, make: func(l *lab) {
		l.node("node-a").Status.NodeInfo.KernelVersion = "5.4.0"
	}, check: "nodes", as: Warning, what: "node-a: Linux before 5.10", next: "backend"},
	"oldest-kernel": {before: true, make: func(l *lab) {
		l.node("node-a").Status.NodeInfo.KernelVersion = "3.10.0-1160.el7.x86_64"
	}, check: "nodes", as: Warning, what: "node-a: Linux before 4.18", next: "backend"},
	"docker": {before: true, make: func(l *lab) {
		l.node("node-b").Status.NodeInfo.ContainerRuntimeVersion = "docker://28.0.0"
	}, check: "nodes", as: Warning, what: "node-b: this container runtime", next: "repair"},
	"old-runtime": {before: true, make: func(l *lab) {
		l.node("node-a").Status.NodeInfo.ContainerRuntimeVersion = "containerd://1.5.9"
		l.node("node-b").Status.NodeInfo.ContainerRuntimeVersion = "cri-o://1.27.0"
	}, check: "nodes", as: Warning, what: "node-a, node-b: nobody has tried", next: "upgrade"},
	"node-away": {before: true, make: func(l *lab) { l.node("node-a").Status.Conditions = nil },
		check: "nodes", as: Warning, what: "node-a: the kubelet is not ready", next: "kubectl describe node"},
	"no-linux": {before: true, make: func(l *lab) {
		delete(l.objects, "Node/node-a")
		delete(l.objects, "Node/node-b")
	}, status: 1, check: "nodes", as: NotWell, what: "no node runs Linux", next: "add nodes"},
	"taint-before": {before: true, make: func(l *lab) {
		l.node("node-a").Spec.Taints = []corev1.Taint{{Key: usualTaint}}
	}, check: "startup-taint", as: Warning, what: "node-a", next: "startupTaint.enabled=true"},
	"restricted": {make: func(l *lab) {
		l.objects["Namespace/"+home].(*corev1.Namespace).Labels["pod-security.kubernetes.io/enforce"] = "restricted"
	}, status: 1, check: "pod-security", as: NotWell, what: "enforces Pod Security restricted",
		next: "kubectl label --overwrite namespace mesh-network pod-security.kubernetes.io/enforce=privileged"},

	"not-installed": {make: func(l *lab) { *l = *empty() }, status: 1, check: "daemonset", as: NotWell,
		what: "there is no DaemonSet", next: "check --pre"},
	"installed-twice": {make: func(l *lab) {
		other := l.set().DeepCopy()
		other.Namespace = "other"
		l.objects["DaemonSet/other"] = other
	}, status: 1, check: "daemonset", as: NotWell, what: "mesh-network, other", next: "uninstall all but one"},
	"no-node-selected": {make: func(l *lab) { l.set().Status = appsv1.DaemonSetStatus{} }, status: 1,
		check: "daemonset", as: NotWell, what: "no node is to have an agent", next: "nodeSelector"},
	"changed": {make: func(l *lab) { l.set().Generation = 2 }, check: "daemonset", as: Warning,
		what: "has not begun to replace", next: "rollout status"},
	"rolling-out": {make: func(l *lab) { l.set().Status.UpdatedNumberScheduled = 1 },
		check: "daemonset", as: Warning, what: "1 of 2 agents are of the present release", next: "rollout status"},
	"no-config": {make: func(l *lab) { delete(l.objects, "ConfigMap/"+configMap) }, status: 1,
		check: "config", as: NotWell, what: "no ConfigMap", next: "helm upgrade"},
	"torn-config": {make: func(l *lab) { l.config(configMap).Data = nil }, status: 1,
		check: "config", as: NotWell, what: "no entry that can be read", next: "helm upgrade"},
	"no-policy": {make: func(l *lab) { delete(l.objects, "Policy/istio-pod-network-marks") }, status: 1,
		check: "policy", as: NotWell, what: "istio-pod-network-marks is missing", next: "admissionPolicy.enabled=auto"},
	"no-binding": {make: func(l *lab) { delete(l.objects, "Binding/istio-pod-network-shared-user") }, status: 1,
		check: "policy", as: NotWell, what: "the binding of the ValidatingAdmissionPolicy istio-pod-network-shared-user is " +
			"missing",
		next: "sharedProxyUser=refuse"},
	"other-binding": {make: func(l *lab) { l.binding("istio-pod-network-marks").Spec.PolicyName = "other" }, status: 1,
		check: "policy", as: NotWell, what: `the policy "other"`, next: "helm upgrade"},
	"harmless-binding": {make: func(l *lab) {
		l.binding("istio-pod-network-marks").Spec.ValidationActions = []admissionv1.ValidationAction{admissionv1.Audit}
	}, status: 1, check: "policy", as: NotWell, what: "does not refuse", next: "helm upgrade"},
	"other-namespace": {make: func(l *lab) {
		l.validatingPolicy("istio-pod-network-marks").Spec.Variables[0].Expression =
			"request.userInfo.username == 'system:serviceaccount:other:istio-pod-network-agent'"
	}, status: 1, check: "policy", as: NotWell, what: "the agents of another namespace", next: "helm upgrade"},
	"no-copied-marks": {make: func(l *lab) { delete(l.untyped, "Binding/istio-pod-network-copied-marks") }, status: 1,
		check: "policy", as: NotWell, what: "MutatingAdmissionPolicy istio-pod-network-copied-marks, or its binding is " +
			"missing",
		next: "admissionPolicy.enabled=auto"},
	"no-copied-marks-warning": {make: func(l *lab) { l.apis[admission+"/v1"] = []string{"validatingadmissionpolicies"} },
		status: 1, check: "policy", as: NotWell, what: "the ValidatingAdmissionPolicy istio-pod-network-copied-marks is " +
			"missing",
		next: "admissionPolicy.enabled=auto"},
	"no-repair-policy": {make: func(l *lab) { l.flag("--repair=delete") }, status: 1,
		check: "policy", as: NotWell, what: "may delete every pod", next: "repair=delete"},
	"no-taint-policy": {make: func(l *lab) { l.flag("--startup-taint=" + usualTaint) }, status: 1,
		check: "policy", as: NotWell, what: "may change every node", next: "startupTaint.enabled=true"},

	"agent-missing": {make: func(l *lab) {
		delete(l.objects, "Pod/agent-node-b")
		l.set().Status.NumberReady = 1
	}, status: 1, check: "agent", as: NotWell, what: "no agent runs here", next: "describe daemonset"},
	"no-image": {make: func(l *lab) {
		pod := l.objects["Pod/agent-node-b"].(*corev1.Pod)
		pod.Status.Phase = corev1.PodPending
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Image: "registry.example.com/agent:1.4.0",
			State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull",
				Message: "failed to pull and unpack image: not found"}}}}
	}, status: 1, check: "agent", as: NotWell, what: "ErrImagePull: failed to pull", next: "imagePullSecrets"},
	"entry-removed": {make: func(l *lab) {
		l.change("agent-node-b", func(n *inspect.Node) {
			n.Ready = false
			n.Checks = append(n.Checks, inspect.Check{Name: "installed", Detail: "not ready: it is not chained into " +
				"/etc/cni/net.d/10-net.conflist"})
		})
	}, status: 1, check: "agent", as: NotWell, what: "it is not chained", next: "kubectl -n mesh-network logs " +
		"agent-node-b"},
	"backend": {make: func(l *lab) {
		l.change("agent-node-b", func(n *inspect.Node) {
			n.Ready, n.Checks[0] = false, inspect.Check{Name: "backend", Detail: "backend nftables is not usable: no nf_tables"}
		})
	}, status: 1, check: "agent", as: NotWell, what: "no nf_tables", next: "load the kernel's modules"},
	"iptables": {make: func(l *lab) {
		for _, pod := range []string{"agent-node-a", "agent-node-b"} {
			l.change(pod, func(n *inspect.Node) {
				n.Unchecked = []inspect.Rules{{Detail: "the rules were written by iptables-nft, whose programs the agent's image " +
					"lacks", Change: "backend: nftables, for pods that are made from then on"}}
			})
		}
	}, check: "rules", as: NotLookedAt, what: "on node-a, node-b: the rules were written by iptables-nft"},
	"outside": {make: func(l *lab) {
		l.change("agent-node-a", func(n *inspect.Node) { n.Pods.Outside = []string{"shop/cart-0"} })
	}, check: "pods-outside", as: Warning, what: "shop/cart-0", next: "rollout restart"},
	"older-rules": {make: func(l *lab) {
		l.change("agent-node-a", func(n *inspect.Node) { n.Pods.Older = []string{"shop/cart-0"} })
	}, check: "older-rules", as: Warning, what: "shop/cart-0", next: "renewRules"},
	"not-managed": {make: func(l *lab) {
		l.change("agent-node-a", func(n *inspect.Node) {
			n.Plugin, n.Installation = inspect.Plugin{}, inspect.Installation{}
		})
	}, check: "installation", as: NotLookedAt, what: "--no-install"},
	"clock-ahead": {make: func(l *lab) {
		l.ahead["agent-node-b"] = time.Hour
	}, check: "clock", as: Warning, what: "ahead of", next: "NTP"},
	"clock-behind": {make: func(l *lab) {
		l.ahead["agent-node-b"] = -time.Hour
	}, check: "clock", as: Warning, what: "behind", next: "NTP"},
	"clock-server": {before: true, make: func(l *lab) { l.server = -time.Hour }, check: "clock", as: Warning,
		what: "the API server's clock is 1h0m0s behind", next: "which of the two"},
	"clock-dateless": {before: true, make: func(l *lab) { l.dateless = true }, check: "clock", as: NotLookedAt,
		what: "have no date"},
	"clock-node": {before: true, make: func(l *lab) { l.beats("node-b", time.Hour) }, check: "clock", as: Warning,
		what: "its clock is 1h0m0s ahead of the API server's", next: "NTP"},
	"clock-untold": {before: true, make: func(l *lab) {
		l.node("node-a").ManagedFields, l.node("node-b").ManagedFields = nil, nil
	}, check: "clock", as: NotLookedAt, what: "nothing says when"},
	"clock-new-node": {before: true, make: func(l *lab) {
		n := l.node("node-b")
		n.CreationTimestamp = metav1.Time{Time: heartbeat.Add(-time.Hour)} // the time of its first entry
		n.ManagedFields = n.ManagedFields[:1]
	}, check: "clock", as: Warning, what: "its clock is 1h0m0s ahead of the API server's", next: "NTP"},
	"clock-unbeaten": {before: true, make: func(l *lab) {
		for _, name := range []string{"node-a", "node-b"} {
			n := l.node(name) // changed after the kubelet's last due heartbeat
			n.CreationTimestamp = metav1.Time{Time: heartbeat.Add(-2 * time.Hour)}
			n.ManagedFields = n.ManagedFields[:1]
		}
	}, check: "clock", as: NotLookedAt, what: "nothing says when"},
	"older-agent": {make: func(l *lab) {
		l.change("agent-node-b", func(n *inspect.Node) { n.Agent, n.Plugin.Version = "v1.2.0", "v1.2.0" })
	}, status: 1, check: "versions", as: NotWell, what: "v1.2.0", next: "helm upgrade"},
	"fewer-questions": {make: func(l *lab) {
		l.change("agent-node-b", func(n *inspect.Node) { n.Questions = []string{} })
	}, check: "versions", as: Warning, what: "cannot answer inspect files", next: "upgrade the agents"},
	"no-release": {make: func(l *lab) {
		l.change("agent-node-b", func(n *inspect.Node) { n.Agent, n.Plugin.Version = "(devel)", "(devel)" })
	}, check: "versions", as: NotLookedAt, what: "how far (devel) and v1.4.0 are apart"},
	"taint-untold": {make: func(l *lab) { l.node("node-a").Spec.Taints = []corev1.Taint{{Key: usualTaint}} }, status: 1,
		check: "startup-taint", as: NotWell, what: "the agents are not told", next: "startupTaint.enabled=true"},
	"taint-stays": {make: func(l *lab) {
		l.flag("--startup-taint=x")
		l.policy("istio-pod-network-startup-taint", admissionv1.Deny)
		l.node("node-a").Spec.Taints = []corev1.Taint{{Key: "x"}}
	}, status: 1, check: "startup-taint", as: NotWell, what: "its agent is ready, and the startup taint x",
		next: "kubectl -n mesh-network logs agent-node-a"},
	"taint-goes": {make: func(l *lab) {
		l.flag("--startup-taint=x")
		l.policy("istio-pod-network-startup-taint", admissionv1.Deny)
		l.node("node-b").Spec.Taints = []corev1.Taint{{Key: "x"}}
		l.change("agent-node-b", func(n *inspect.Node) { n.Ready = false })
	}, status: 1, check: "startup-taint", as: Warning, what: "the startup taint x is still there", next: "once it is " +
		"ready"},
	"taint-gone": {make: func(l *lab) {
		l.flag("--startup-taint=x")
		l.policy("istio-pod-network-startup-taint", admissionv1.Deny)
	}},

	"no-istio": {before: true, make: func(l *lab) { delete(l.objects, "Webhook") },
		check: "istiod", as: Warning, what: "no injector", next: "install Istio"},
	"istiod-away": {make: func(l *lab) {
		l.objects["Deployment/istiod"].(*appsv1.Deployment).Status.AvailableReplicas = 0
	}, status: 1, check: "istiod", as: NotWell, what: "no istiod of revision default", next: "kubectl -n istio-system"},
	"istiod-by-digest": {make: func(l *lab) {
		l.objects["Deployment/istiod"].(*appsv1.Deployment).Spec.Template.Spec.Containers[0].Image =
			"registry.example.com:5000/istio/pilot@sha256:" + strings.Repeat("0123456789abcdef", 4)
	}, check: "istiod", as: Well, what: "istiod of revision default"},
	"istiod-by-both": {make: func(l *lab) {
		l.objects["Deployment/istiod"].(*appsv1.Deployment).Spec.Template.Spec.Containers[0].Image =
			"registry.example.com:5000/istio/pilot:1.31.0@sha256:" + strings.Repeat("0123456789abcdef", 4)
	}, check: "istiod", as: Well, what: "istiod 1.31.0 of revision default"},
	"istiod-by-label": {make: func(l *lab) {
		istiod := l.objects["Deployment/istiod"].(*appsv1.Deployment)
		istiod.Labels[versionLabel] = "1.31.1"
		istiod.Spec.Template.Spec.Containers[0].Image = "pilot"
	}, check: "istiod", as: Well, what: "istiod 1.31.1 of revision default"},
	"istiod-elsewhere": {make: func(l *lab) {
		l.objects["Webhook"].(*admissionv1.MutatingWebhookConfiguration).Webhooks[0].ClientConfig.Service = nil
	}, check: "istiod", as: NotLookedAt, what: "outside of this cluster"},
	"revision": {make: func(l *lab) {
		l.objects["Webhook"].(*admissionv1.MutatingWebhookConfiguration).Labels[revisionLabel] = "1-31"
		l.objects["Deployment/istiod"].(*appsv1.Deployment).Labels[revisionLabel] = "1-31"
		config := l.config("istio-sidecar-injector")
		config.Name += "-1-31"
	}},
	"way-b": {make: func(l *lab) { l.inject(true, "default", stockConfig) }},
	"way-c": {make: func(l *lab) {
		l.inject(false, "", stockConfig)
		l.mutates(replaceInit)
	}},
	"no-way": {make: func(l *lab) { l.inject(false, "", stockConfig) }, status: 1,
		check: "injection", as: NotWell, what: "own-init", next: "docs/injection.md"},
	"no-way-yet": {before: true, make: func(l *lab) { l.inject(false, "", stockConfig) },
		check: "injection", as: Warning, what: "adds istio-init", next: "after the installation"},
	"torn-injector": {make: func(l *lab) { l.config("istio-sidecar-injector").Data["values"] = "{" },
		status: 3, check: "injection", as: NotLookedAt, what: "values of the ConfigMap"},
	"torn-templates": {make: func(l *lab) { l.config("istio-sidecar-injector").Data["config"] = "{" },
		status: 3, check: "injection", as: NotLookedAt, what: "config of the ConfigMap"},

	"primary-by-digest": {before: true, make: func(l *lab) {
		l.network("openshift-ovn-kubernetes", "ovnkube-node", "quay.io/openshift-release-dev/ocp-v4.0-art-dev@sha256:"+
			strings.Repeat("0123456789abcdef", 4))
	}, check: "primary", as: Well, what: "is OVN-Kubernetes (DaemonSet openshift-ovn-kubernetes/ovnkube-node)"},
	"primary-mirrored": {before: true, make: func(l *lab) {
		l.network("calico-system", "ours", "registry.example.com:5000/quay.io/calico/node:v3.31.2")
	}, check: "primary", as: Well, what: "is Calico v3.31.2"},
	"primary-unknown": {before: true, make: func(l *lab) {
		l.network("kube-system", "weave-net", "weaveworks/weave-kube:2.8.1")
	}, check: "primary", as: Warning, what: "is Weave Net 2.8.1", next: "verify"},
	"primary-untold": {before: true, make: func(l *lab) { l.network("", "", "") },
		check: "primary", as: NotLookedAt, what: "no agent or probe has told"},
	"primary-told": {make: func(l *lab) {
		l.network("", "", "")
		for _, pod := range []string{"agent-node-a", "agent-node-b"} {
			l.change(pod, func(n *inspect.Node) { n.Installation.Plugins = []string{"ptp", "portmap"} })
		}
	}, check: "primary", as: Well, what: "is the reference plugin ptp"},
	"primary-told-otherwise": {make: func(l *lab) {
		l.change("agent-node-b", func(n *inspect.Node) { n.Installation.Plugins = []string{"purple"} })
	}, check: "primary", as: Warning, what: "is made by the plugin purple", next: "verify"},
	"istio-cni": {make: func(l *lab) { l.foreign("istio-system", "istio-cni-node") },
		check: "other-meshes", as: Warning, what: "Istio's own CNI", next: "docs/migration.md"},
	"istio-cni-plugin": {make: func(l *lab) {
		l.change("agent-node-b", func(n *inspect.Node) { n.Installation.Plugins = []string{"ptp", "istio-cni"} })
	}, check: "other-meshes", as: Warning, what: "Istio's own CNI is in the network of its pods, too",
		next: "docs/migration.md"},
	"other-meshes": {before: true, make: func(l *lab) {
		l.foreign("linkerd-cni", "linkerd-cni")
		l.foreign("kuma-system", "kuma-cni-node")
		l.foreign("consul", "consul-consul-cni")
	}, check: "other-meshes", as: Warning, what: "Kuma's CNI", next: "keep the namespaces"},
	"cilium": {before: true, make: func(l *lab) {
		l.foreign("kube-system", "cilium")
		l.objects["ConfigMap/cilium-config"] = &corev1.ConfigMap{ObjectMeta: namedIn("kube-system", "cilium-config"),
			Data: map[string]string{"cni-exclusive": "true", "kube-proxy-replacement": "true"}}
	}, status: 1, check: "cilium", as: NotWell, what: "cni-exclusive", next: "cni.exclusive=false"},
	"cilium-well": {before: true, make: func(l *lab) {
		l.foreign("kube-system", "cilium")
		l.objects["ConfigMap/cilium-config"] = &corev1.ConfigMap{ObjectMeta: namedIn("kube-system", "cilium-config"),
			Data: map[string]string{"cni-exclusive": "false", "kube-proxy-replacement": "true",
				"bpf-lb-sock-hostns-only": "true"}}
	}},
	"multus-before": {before: true, make: func(l *lab) { l.definitions() },
		check: "multus", as: Warning, what: "Multus is there", next: "cni.primary"},
	"openshift-before": {before: true, make: func(l *lab) {
		l.definitions()
		l.apis["security.openshift.io/v1"] = []string{"securitycontextconstraints"}
	}, check: "multus", as: Warning, what: "this is OpenShift", next: "kubernetesDistribution=OpenShift"},
	"multus-chain": {make: func(l *lab) { l.definitions() },
		check: "multus", as: Warning, what: "the runtime's first network", next: "cni.primary"},
	"multus-primary": {make: func(l *lab) {
		l.definitions()
		l.flag("--primary=10-calico.conflist")
	}},
	"multus-aux": {make: func(l *lab) {
		l.definitions()
		l.flag("--mode=aux")
	}},
	"nad": {make: func(l *lab) {
		l.definitions()
		l.flag("--mode=nad")
		l.inject(true, "multus", injectorConfig)
		definition := bare(multus+"/v1", "NetworkAttachmentDefinition", namedIn("default", "istio-cni"))
		definition.Labels["app.kubernetes.io/part-of"] = "istio-pod-network-controller"
		l.untyped["Definition"] = definition
	}},
	"nad-missing": {make: func(l *lab) {
		l.definitions()
		l.flag("--mode=nad")
		l.inject(true, "multus", injectorConfig)
	}, status: 1, check: "multus", as: NotWell, what: "NetworkAttachmentDefinition", next: "helm upgrade"},
	"nad-without-multus": {make: func(l *lab) { l.flag("--mode=nad") }, status: 1,
		check: "multus", as: NotWell, what: "has no Multus", next: "cni.mode"},
	"nad-unnamed": {make: func(l *lab) { l.flag("--mode=nad") }, status: 1,
		check: "injection", as: NotWell, what: "does not name our network", next: "pilot.cni.provider=multus"},
	"nad-named": {make: func(l *lab) { l.inject(true, "multus", injectorConfig) },
		check: "injection", as: Warning, what: "names the network istio-cni", next: "openshift.mode=nad"},

	"exec-refused": {make: func(l *lab) { l.errs["agent-node-b"] = forbidden("pods/exec") },
		status: 3, check: "agent", as: NotLookedAt,
		what: "the right to create pods/exec in namespace mesh-network is missing"},
	"few-rights": {make: func(l *lab) {
		l.refused = []string{"list nodes", "get namespaces", "list daemonsets", "get configmaps", "list deployments",
			"list mutatingwebhookconfigurations"}
	}, status: 3, check: "daemonset", as: NotLookedAt,
		what: "the right to list daemonsets.apps in all namespaces is missing"},
	"fewer-rights": {make: func(l *lab) {
		l.flag("--mode=nad")
		l.definitions()
		l.inject(false, "multus", stockConfig)
		l.refused = []string{"get version", "get validatingadmissionpolicies", "get mutatingadmissionpolicies", "list pods",
			"list network-attachment-definitions", "list deployments", "get namespaces"}
	}, status: 3, check: "injection", as: NotLookedAt, what: "way C"},
	"config-refused": {make: func(l *lab) {
		l.foreign("kube-system", "cilium")
		l.refused = []string{"get configmaps", "get validatingadmissionpolicybindings", "get mutatingadmissionpolicybindings"}
	}, status: 3, check: "cilium", as: NotLookedAt, what: "get configmaps in namespace kube-system"},
	"discovery-refused": {before: true, make: func(l *lab) { l.refused = []string{"get resource"} },
		status: 3, check: "admission-api", as: NotLookedAt, what: "get /apis/admissionregistration.k8s.io"},
}
