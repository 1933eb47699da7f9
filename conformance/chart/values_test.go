package chart

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/build"
	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// A wrong value is refused, by its name and with what would be valid.
func TestWrongValues(t *testing.T) {
	both(t, func(t *testing.T, helm string) {
		for value, words := range map[string][]string{
			"kubernetesDistribution=openshift": {"/kubernetesDistribution", "'Kubernetes', 'Kubeadm', 'OpenShift'"},
			"nonsense=1":                       {"nonsense", "not allowed"},
			"agent.port=70000":                 {"/agent/port", "70,000", "65,535"},
			"selection=all":                    {"/selection", "'injected', 'annotated'"},
			"backend=nft":                      {"/backend", "'nftables'"},
			"cni.mode=chained":                 {"/cni/mode", "'chain', 'nad', 'aux'"},
			"cni.binDir=opt/cni/bin":           {"cni.binDir", `"opt/cni/bin"`, "absolute path"},
			"cni.confDir=/etc/cni/":            {"cni.confDir", `"/etc/cni/"`, "without a slash at its end"},
			"stateDir=":                        {"stateDir", "absolute path"},
			"agentTimeout=8":                   {"agentTimeout", `"8"`, "8s"},
			"uninstallTimeout=soon":            {"uninstallTimeout", `"soon"`, "10m"},
			"image.registry=https://registry.example.com": {"image.registry", "without a scheme"},
			"image.digest=sha256:abc":                     {"image.digest", "64 hexadecimal"},
			"image.pullPolicy=Sometimes":                  {"/image/pullPolicy", "'IfNotPresent'"},
			"includeIPRanges=10.0.0.0":                    {"includeIPRanges", `"10.0.0.0"`, "10.96.0.0/12"},
			"excludeIPRanges=*":                           {"excludeIPRanges", `"*"`, "prefixes"},
			"excludeInboundPorts=http":                    {"excludeInboundPorts", `"http"`, "80,8080"},
			"redirect.proxyUID=0":                         {"/redirect/proxyUID", "minimum"},
			"redirect.outboundports=1":                    {"outboundports", "not allowed"},
			"redirect.excludeOutboundPorts=x":             {"redirect.excludeOutboundPorts", `"x"`},
			"agent.extraArgs={patrol}":                    {"agent.extraArgs[0]", `"patrol"`},
			"agent.listenAddress=localhost":               {"agent.listenAddress", `"localhost"`, "IP address"},
			"resourceQuota.enabled=maybe":                 {"/resourceQuota/enabled", "true, false"},
			"hooks=never":                                 {"/hooks", "'auto', true, false"},
			"excludeIPRanges=10.0.0.0/8,redirect.excludeOutboundIPRanges=10.0.0.0/9": {"excludeIPRanges", "redirect.excludeOutboundIPRanges", "one of the two"},
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
	})
}

// entry is the plugin's, as rendered.
func entry(t testing.TB, helm string, values ...string) (text string, keys map[string]any) {
	t.Helper()
	var c corev1.ConfigMap
	if !find(t, template(t, helm, values...), "ConfigMap", "istio-pod-network-config", &c) {
		t.Fatal("no ConfigMap")
	}
	if err := json.Unmarshal([]byte(c.Data["network.json"]), &keys); err != nil {
		t.Fatalf("%v in %s", err, c.Data["network.json"])
	}
	return c.Data["network.json"], keys
}

// The values of 2018 mean what they did.
func TestValuesOf2018(t *testing.T) {
	both(t, func(t *testing.T, helm string) {
		_, keys := entry(t, helm, `includeIPRanges=172.30.0.0/16\,172.20.0.0/16`, "excludeIPRanges=10.1.0.0/16", "excludeInboundPorts=80", "redirect.dnsCapture=true")
		want := map[string]any{"includeOutboundIPRanges": "172.30.0.0/16,172.20.0.0/16", "excludeOutboundIPRanges": "10.1.0.0/16",
			"excludeInboundPorts": "80", "dnsCapture": true}
		got, _ := json.Marshal(keys["redirect"])
		if expected, _ := json.Marshal(want); string(got) != string(expected) {
			t.Errorf("%s, want %s", got, expected)
		}
		manifests := template(t, helm, "Namespace=istio-system", "image.repository=example.com/controller", "image.tag=v1", "image.pullPolicy=Always", "image.runAsUser=1337",
			"resources.limits.cpu=1", "containerRuntime=crio", "ingress.enabled=false")
		var d appsv1.DaemonSet
		find(t, manifests, "DaemonSet", "istio-pod-network-agent", &d)
		agent := d.Spec.Template.Spec.Containers[0]
		if d.Namespace != "istio-system" || agent.Image != "example.com/controller:v1" || agent.ImagePullPolicy != corev1.PullAlways || agent.Resources.Limits.Cpu().Value() != 1 {
			t.Errorf("%s %s %s %v", d.Namespace, agent.Image, agent.ImagePullPolicy, agent.Resources)
		}
	})
}

// What is rendered is what plugin and agent read.
func TestEntry(t *testing.T) {
	for _, values := range [][]string{nil, {
		"selection=annotated", "backend=iptables", "agentTimeout=1m", "statusRequiresAgent=false", "pluginLogLevel=debug", "stateDir=/run/other",
		"excludeNamespaces={kube-*,istio-system}", "redirect.mode=TPROXY", "redirect.proxyUID=2000", "redirect.includeInboundPorts=80", "redirect.excludeInterfaces=net1",
	}} {
		text, keys := entry(t, "helm4", values...)
		excluded, _ := json.Marshal(keys["excludeNamespaces"])
		if !strings.Contains(string(excluded), `"`+system+`"`) {
			t.Errorf("the chart's own namespace is not excluded: %s", excluded)
		}
		keys["name"], keys["cniVersion"] = "net", "1.1.0"
		conf, _ := json.Marshal(keys)
		status := exec.Command(filepath.Join(isolated.BinDir(), "istio-pod-network"))
		status.Env = []string{"CNI_COMMAND=STATUS", "CNI_PATH=/none", "PATH=" + os.Getenv("PATH")}
		status.Stdin = strings.NewReader(string(conf))
		if out, err := status.CombinedOutput(); err != nil {
			t.Errorf("the plugin refuses: %s\n%s", out, text)
		}
		file := filepath.Join(t.TempDir(), "network.json")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		args := daemonSet(t, template(t, "helm4", values...)).Args
		for i, arg := range args {
			args[i] = strings.ReplaceAll(strings.ReplaceAll(arg, "/etc/istio-pod-network/network.json", file), "$(NODE_NAME)", "node")
		}
		out, err := exec.Command(filepath.Join(isolated.BinDir(), "istio-pod-network-agent"), args...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "reading the credentials for the API server") { // all else is right
			t.Errorf("the agent refuses: %v %s", err, out)
		}
	}
}

// With uninstall the agents are told so, all at once, and without it they are told not to.
func TestUninstallRender(t *testing.T) {
	for _, uninstall := range []string{"true", "false"} {
		var d appsv1.DaemonSet
		find(t, template(t, "helm4", "uninstall="+uninstall), "DaemonSet", "istio-pod-network-agent", &d)
		env := d.Spec.Template.Spec.Containers[0].Env
		if i := slices.IndexFunc(env, func(e corev1.EnvVar) bool { return e.Name == "AGENT_UNINSTALL" }); i < 0 || env[i].Value != uninstall {
			t.Errorf("uninstall=%s: %v", uninstall, env)
		}
		if all := d.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable.String() == "100%"; all != (uninstall == "true") {
			t.Errorf("uninstall=%s: %v", uninstall, d.Spec.UpdateStrategy)
		}
	}
}

// leaves lists the values by their full names. What is free in shape is a leaf.
func leaves(prefix string, value any) (names []string) {
	object, isObject := value.(map[string]any)
	if !isObject || len(object) == 0 || slices.Contains([]string{"resources", "agent.updateStrategy", "metrics.dashboard.labels"}, prefix) {
		return []string{prefix}
	}
	for key, below := range object {
		names = append(names, leaves(strings.TrimPrefix(prefix+"."+key, "."), below)...)
	}
	return names
}

// Every value is in the table of the chart's README and described in the schema, and nothing else is.
func TestValuesAreDescribed(t *testing.T) {
	var values map[string]any
	read(t, filepath.Join(dir(), "values.yaml"), &values)
	readme, err := os.ReadFile(filepath.Join(dir(), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	var schema map[string]any
	read(t, filepath.Join(dir(), "values.schema.json"), &schema)
	for _, name := range leaves("", values) {
		if !strings.Contains(string(readme), "`"+name+"`") {
			t.Errorf("%s is not in README.md", name)
		}
		node := schema
		for _, key := range strings.Split(name, ".") {
			properties, _ := node["properties"].(map[string]any)
			next, described := properties[key].(map[string]any)
			if !described {
				t.Errorf("%s is not in values.schema.json", name)
				break
			}
			node = next
		}
	}
}

// The dashboard shows every metric of the agent, and no other of its prefix.
func TestDashboard(t *testing.T) {
	var dashboard map[string]any
	path := filepath.Join(dir(), "files", "dashboard.json")
	read(t, path, &dashboard)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(filepath.Join(build.Root(), "agent", "metrics.go"))
	if err != nil {
		t.Fatal(err)
	}
	var shown, made []string
	for _, m := range regexp.MustCompile(`istio_pod_network_([a-z_]+)`).FindAllStringSubmatch(string(data), -1) {
		shown = append(shown, strings.TrimSuffix(m[1], "_bucket"))
	}
	for _, m := range regexp.MustCompile(`(?:counters\(|prefix \+ )"([a-z_]+)"`).FindAllStringSubmatch(string(source), -1) {
		made = append(made, m[1])
	}
	slices.Sort(shown)
	slices.Sort(made)
	if shown, made = slices.Compact(shown), slices.Compact(made); !slices.Equal(shown, made) || len(made) < 10 {
		t.Errorf("shown %v\nmade %v", shown, made)
	}
	if panels, _ := dashboard["panels"].([]any); len(panels) < 10 || dashboard["title"] == "" {
		t.Errorf("%d panels", len(panels))
	}
}
