package chart

import (
	"encoding/json"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// An invalid value is rejected with its name and what is valid.
func TestWrongValues(t *testing.T) {
	both(t, func(t *testing.T, helm string) {
		for value, words := range map[string][]string{
			"kubernetesDistribution=Nomad": {"kubernetesDistribution", `"Nomad"`,
				"AKS, Bottlerocket, DockerDesktop, EKS, Flatcar, GKE, K3d, K3s, Kind, Kubeadm, Kubernetes, Kubespray, " +
					"MicroK8s, Minikube, OpenShift, RKE2, Talos, k0s"},
			"repair=maybe":                                {"/repair", "'auto', 'apply', 'delete', 'off'"},
			"nonsense=1":                                  {"nonsense", "not allowed"},
			"agent.port=70000":                            {"/agent/port", "70,000", "65,535"},
			"selection=all":                               {"/selection", "'injected', 'annotated'"},
			"backend=nft":                                 {"/backend", "'nftables'"},
			"cni.mode=chained":                            {"/cni/mode", "'chain', 'nad', 'aux'"},
			"cni.binDir=opt/cni/bin":                      {"cni.binDir", `"opt/cni/bin"`, "absolute path"},
			"cni.confDir=/etc/cni/":                       {"cni.confDir", `"/etc/cni/"`, "without a slash at its end"},
			"stateDir=":                                   {"stateDir", "absolute path"},
			"agentTimeout=8":                              {"agentTimeout", `"8"`, "8s"},
			"agentTimeout=null":                           {"agentTimeout", "null", "its default"},
			"agent.apiQPS=0":                              {"/agent/apiQPS", "minimum", "want 1"},
			"agent.apiBurst=0":                            {"/agent/apiBurst", "minimum", "want 1"},
			"apiPriority.concurrencyShares=0":             {"/apiPriority/concurrencyShares", "minimum", "want 1"},
			"apiPriority=null":                            {"apiPriority: null"},
			"cni=null":                                    {"cni: null"},
			"admissionPolicy=null":                        {"admissionPolicy: null"},
			"metrics.podMonitor=null":                     {"metrics.podMonitor: null"},
			"cni.runtimeBinDirs={usr/lib/cni}":            {"cni.runtimeBinDirs[0]", `"usr/lib/cni"`, "absolute path"},
			"cni.primary=../x":                            {"cni.primary", `"../x"`, "name of a network"},
			"cni.cacheDir=":                               {"cni.cacheDir", `""`, "absolute path"},
			"cni.netnsDir=x/":                             {"cni.netnsDir", `"x/"`, "absolute path"},
			"repair=apply,backend=iptables-nft":           {"repair", "apply", `"iptables-nft"`, "auto, delete or off"},
			"renewRules={shop},repair=off":                {"renewRules", "repair: apply", `"off"`},
			"renewRules={[}":                              {"renewRules[0]", `"["`, "name of a namespace"},
			"renewRules=*":                                {"/renewRules", "array"},
			"openshift.mode=auxChain":                     {"openshift.mode", `"auxChain"`, "cni.mode=aux"},
			"cni.auxDir=x":                                {"cni.auxDir", `"x"`, "absolute path"},
			"cni.runtimeVersion=2.1":                      {"cni.runtimeVersion", `"2.1"`, "containerd://2.1.4"},
			"Namespace=A_b":                               {"Namespace", `"A_b"`, "name of a namespace"},
			"uninstallTimeout=0s":                         {"uninstallTimeout", `"0s"`, "more than 0"},
			"metrics.podMonitor.interval=1.5m":            {"metrics.podMonitor.interval", `"1.5m"`, "30s"},
			"metrics.prometheusRule=null":                 {"metrics.prometheusRule: null"},
			"metrics.prometheusRule.disabled={Bypass}":    {"/metrics/prometheusRule/disabled/0", "IstioPodNetworkBypass"},
			"metrics.prometheusRule.runbookURL=docs":      {"/metrics/prometheusRule/runbookURL", "https?"},
			"startupTaint.key=a: b":                       {"startupTaint.key", `"a: b"`, "example.com/agent-not-ready"},
			"image.repository=agent:v1":                   {"image.repository", `"agent:v1"`, "without its tag"},
			"pluginImage.repository=UP/x y":               {"pluginImage.repository", "without its tag"},
			"image.tag=v 1":                               {"image.tag", `"v 1"`},
			"pluginImage.tag=:v1":                         {"pluginImage.tag", `":v1"`},
			"pluginImage.digest=v1":                       {"pluginImage.digest", "64 hexadecimal"},
			"namespace.create=true,Namespace=kube-system": {"namespace.create", "kube-system"},
			"uninstallTimeout=soon":                       {"uninstallTimeout", `"soon"`, "10m"},
			"image.registry=https://registry.example.com": {"image.registry", "without a scheme"},
			"image.digest=sha256:abc":                     {"image.digest", "64 hexadecimal"},
			"image.pullPolicy=Sometimes":                  {"/image/pullPolicy", "'IfNotPresent'"},
			"includeIPRanges=10.0.0.0":                    {"includeIPRanges", `"10.0.0.0"`, "10.96.0.0/12"},
			"excludeIPRanges=*":                           {"excludeIPRanges", `"*"`, "prefixes"},
			"excludeInboundPorts=http":                    {"excludeInboundPorts", `"http"`, "80,8000-8100"},
			"redirect.proxyUID=0":                         {"/redirect/proxyUID", "minimum"},
			"redirect.outboundports=1":                    {"outboundports", "not allowed"},
			"redirect.excludeOutboundPorts=x":             {"redirect.excludeOutboundPorts", `"x"`},
			"agent.extraArgs={patrol}":                    {"agent.extraArgs[0]", `"patrol"`},
			"agent.extraEnv[0].name=NODE_NAME":            {"agent.extraEnv[0].name", `"NODE_NAME"`, "agent.extraArgs"},
			"agent.extraEnv[0].name=AGENT_LOG_LEVEL":      {"agent.extraEnv[0].name", `"AGENT_LOG_LEVEL"`},
			"agent.extraEnv[0].value=x":                   {"/agent/extraEnv/0", "name"},
			"agent.securityContext.runAsUser=1000":        {"/agent/securityContext", "runAsUser", "not allowed"},
			"agent.securityContext.capabilities.drop={X}": {"/agent/securityContext/capabilities", "drop", "not allowed"},
			"test.namespace=" + system:                    {"test.namespace", system, "may be in the mesh"},
			"test.namespace=kube-system":                  {"test.namespace", `"kube-system"`, "excludeNamespaces"},
			"test.namespace=A":                            {"test.namespace", `"A"`, "name of a namespace"},
			"agent.listenAddress=localhost":               {"agent.listenAddress", `"localhost"`, "IP address"},
			"resourceQuota.enabled=maybe":                 {"/resourceQuota/enabled", "true, false"},
			"hooks=never":                                 {"/hooks", "'auto', true, false"},
			"excludeIPRanges=10.0.0.0/8,redirect.excludeOutboundIPRanges=10.0.0.0/9": {
				"excludeIPRanges", "redirect.excludeOutboundIPRanges", "one of the two"},
		} {
			_, errs, err := program(nil, helm, "template", "-n", system, dir(), "--set="+value)
			if err == nil {
				t.Errorf("%s is taken", value)
			}
			for _, word := range words {
				if !strings.Contains(errs, word) {
					t.Errorf("%s: no %q in: %s", value, word, errs)
				}
			}
		}
		if _, errs, err := program(nil, helm, "template", dir(), "--kube-version=1.24.0"); err == nil ||
			!strings.Contains(errs, "1.24.0") {
			t.Errorf("Kubernetes 1.24: %v %s", err, errs)
		}
	})
}

// The values of 2018 have the same effect as then.
func TestValuesOf2018(t *testing.T) {
	both(t, func(t *testing.T, helm string) {
		_, keys := entry(t, helm, `includeIPRanges=172.30.0.0/16\,172.20.0.0/16`, "excludeIPRanges=10.1.0.0/16",
			"excludeInboundPorts=80", "redirect.dnsCapture=true")
		want := map[string]any{"includeOutboundIPRanges": "172.30.0.0/16,172.20.0.0/16",
			"excludeOutboundIPRanges": "10.1.0.0/16",
			"excludeInboundPorts":     "80", "dnsCapture": true}
		got, _ := json.Marshal(keys["redirect"])
		if expected, _ := json.Marshal(want); string(got) != string(expected) {
			t.Errorf("%s, want %s", got, expected)
		}
		manifests := template(t, helm, "Namespace=istio-system", "image.repository=example.com/controller", "image.tag=v1",
			"image.pullPolicy=Always",
			"image.runAsUser=1337",
			"resources.limits.cpu=1", "containerRuntime=crio", "ingress.enabled=false")
		var d appsv1.DaemonSet
		find(t, manifests, "DaemonSet", "istio-pod-network-agent", &d)
		agent := d.Spec.Template.Spec.Containers[0]
		if d.Namespace != "istio-system" || agent.Image != "example.com/controller:v1" ||
			agent.ImagePullPolicy != corev1.PullAlways ||
			agent.Resources.Limits.Cpu().Value() != 1 {
			t.Errorf("%s %s %s %v", d.Namespace, agent.Image, agent.ImagePullPolicy, agent.Resources)
		}
	})
}

// A null value counts as unset.
func TestNull(t *testing.T) {
	both(t, func(t *testing.T, helm string) {
		plain, _ := entry(t, helm)
		values := []string{"includeIPRanges=null", "excludeIPRanges=null", "excludeInboundPorts=null", "redirect=null",
			"image.tag=null",
			"nodeSelector=null", "affinity=null", "agent.listenAddress=null", "agent.podLabels=null", "cni.binDir=null"}
		if null, _ := entry(t, helm, values...); null != plain {
			t.Errorf("%s, want %s", null, plain)
		}
		taken(t, template(t, helm, values...))
	})
}
