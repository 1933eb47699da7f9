package chart

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// entry returns the rendered entry of the plugin.
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

// Plugin and agent accept the rendered entry.
func TestEntry(t *testing.T) {
	for _, values := range [][]string{nil, {
		"selection=annotated", "backend=iptables", "repair=off", "sharedProxyUser=refuse", "agentTimeout=1m",
		"statusRequiresAgent=false", "pluginLogLevel=debug", "stateDir=/run/other",
		"excludeNamespaces={kube-*,istio-system}", "redirect.mode=TPROXY", "redirect.proxyUID=2000",
		"redirect.includeInboundPorts=80", "redirect.excludeInterfaces=net1\\,br-*", "redirect.excludeInboundPorts=8000-8100",
		"redirect.excludeOutboundOwnerGroups=1338\\,7",
	}} {
		text, keys := entry(t, "helm4", values...)
		excluded, _ := json.Marshal(keys["excludeNamespaces"])
		if !strings.Contains(string(excluded), `"`+system+`"`) {
			t.Errorf("the chart's own namespace is not excluded: %s", excluded)
		}
		if refused := refusedByPlugin(keys); refused != "" {
			t.Errorf("the plugin refuses: %s\n%s", refused, text)
		}
		file := filepath.Join(t.TempDir(), "network.json")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		args := daemonSet(t, template(t, "helm4", values...)).Args
		for i, arg := range args {
			args[i] = strings.ReplaceAll(strings.ReplaceAll(arg, "/etc/istio-pod-network/network.json", file), "$(NODE_NAME)",
				"node")
		}
		out, err := exec.Command(filepath.Join(isolated.BinDir(), "istio-pod-network-agent"), args...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "reading the credentials for the API server") { // it accepts the rest
			t.Errorf("the agent refuses: %v %s", err, out)
		}
	}
}

// refusedByPlugin returns the plugin's error about an entry, "" if it accepts it.
func refusedByPlugin(keys map[string]any) string {
	keys["type"], keys["name"], keys["cniVersion"] = "istio-pod-network", "net", "1.1.0"
	conf, _ := json.Marshal(keys)
	status := exec.Command(filepath.Join(isolated.BinDir(), "istio-pod-network"))
	status.Env = []string{"CNI_COMMAND=STATUS", "CNI_PATH=/none", "PATH=" + os.Getenv("PATH")}
	status.Stdin = strings.NewReader(string(conf))
	if out, err := status.CombinedOutput(); err != nil {
		return string(out)
	}
	return ""
}

// If the plugin rejects its entry, no pod of the node can start. So the chart accepts exactly what the plugin accepts.
func TestTakesWhatThePluginTakes(t *testing.T) {
	at := func(bytes int) string { return "/run/" + strings.Repeat("x", bytes-len("/run/")) }
	for value, candidates := range map[string][]any{
		"agentTimeout": {"1ms", "999us", "0.001s", "0.0009s", "0.5s", "8s", "59.9s", "60s", "60.1s", "60000ms", "60001ms",
			"1m", "2m", "0s", "-1s", "soon"},
		"stateDir":          {at(96), at(97), "/run/x", "run/x"},
		"excludeNamespaces": {[]string{"kube-*", "[a-c]x?"}, []string{"["}, []string{"[^]"}, []string{"[^a-z]*"}},
		"redirect.excludeOutboundPorts": {"65535", "65536", "0", "99999", "80, 443", "80,,443", "*", "", "-1",
			"8000-8100", "1, 8000-8100 ", "90-80", "9-10", "80-", "80 - 90", "1-2-3", "80-65536"},
		"redirect.includeInboundPorts": {"*", "", "15000", "*,80", "70000", "1-65535"},
		"redirect.excludeOutboundIPRanges": {"10.0.0.0/8,fd00::/8", "10.0.0.0/33", "fd00::/129", "0.0.0.0/0", "::/0",
			"256.0.0.0/8", "10.0.0/8", "*", "10.0.0.1", "10.0.0.0/8, 11.0.0.0/8"},
		"redirect.includeOutboundIPRanges": {"*", "", "10.1.2.3/8", "*,10.0.0.0/8"},
		"redirect.excludeInterfaces": {"net1,eth0.5", "123456789012345", "1234567890123456", "a/b", "br-*", "*",
			"12345678901234*", "123456789012345*", "n*t"},
		"redirect.excludeOutboundOwnerGroups": {"0", "1338, 7", "4294967294", "4294967295", "*", "", "root", "1,", "1-2", 5},
		"redirect.includeOutboundOwnerGroups": {"*", "", "1338", "*,1", "99999999999"},
		"redirect.rerouteVirtualInterfaces":   {"tap0", "1234567890123456"},
		"redirect.proxyUID":                   {1, 0, 4294967294, 4294967295},
		"redirect.proxyGID":                   {0, 4294967295},
		"redirect.dnsPort":                    {0, 1, 65535, 65536},
		"redirect.mode":                       {"TPROXY", "tproxy"},
		"redirect.families":                   {"all", "proxy", "IPv4", "IPv6", ""},
		"redirect.dnsCapture":                 {true, "yes"},
		"selection":                           {"annotated", "all"},
		"sharedProxyUser":                     {"refuse", "allow", ""},
		"backend":                             {"iptables-legacy", "nft"},
	} {
		for _, candidate := range candidates {
			keys := map[string]any{value: candidate}
			if _, key, nested := strings.Cut(value, "redirect."); nested {
				keys = map[string]any{"redirect": map[string]any{key: candidate}}
			} else if value == "stateDir" {
				keys["agentSocket"] = candidate.(string) + "/agent.sock"
			}
			refused := refusedByPlugin(keys)
			data, _ := json.Marshal(candidate)
			_, errs, err := program(nil, "helm4", "template", "-n", system, dir(), "--set=repair=off",
				"--set-json="+value+"="+string(data))
			if (err != nil) != (refused != "") {
				t.Errorf("%s=%s: the plugin says %q, the chart %q", value, data, refused, errs)
			}
		}
	}
}

// The hook may take as long as its timeout and a minute for its start, with all retries.
func TestUninstallHook(t *testing.T) {
	for timeout, seconds := range map[string]int64{"10m": 660, "1h30m": 5460, "90s": 150} {
		var job batchv1.Job
		find(t, template(t, "helm4", "hooks=true", "uninstallTimeout="+timeout), "Job", "istio-pod-network-uninstall", &job)
		if got := job.Spec.ActiveDeadlineSeconds; got == nil || *got != seconds {
			t.Errorf("uninstallTimeout=%s: the job has not %d s: %+v", timeout, seconds, job.Spec)
		}
		if args := job.Spec.Template.Spec.Containers[0].Args; !slices.Contains(args, "--timeout="+timeout) ||
			args[0] != "uninstall-all" {
			t.Errorf("uninstallTimeout=%s: %q", timeout, args)
		}
		if policy := job.Annotations["helm.sh/hook-output-log-policy"]; policy != "hook-succeeded,hook-failed" {
			t.Errorf("Helm does not show why the hook failed: %q", policy)
		}
	}
}

// With uninstall, all agents get --uninstall at the same time. Without it they do not have it.
func TestUninstallRender(t *testing.T) {
	for _, uninstall := range []string{"true", "false"} {
		var d appsv1.DaemonSet
		find(t, template(t, "helm4", "uninstall="+uninstall), "DaemonSet", "istio-pod-network-agent", &d)
		env := d.Spec.Template.Spec.Containers[0].Env
		if i := slices.IndexFunc(env, func(e corev1.EnvVar) bool { return e.Name == "AGENT_UNINSTALL" }); i < 0 ||
			env[i].Value != uninstall {
			t.Errorf("uninstall=%s: %v", uninstall, env)
		}
		if all := d.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable.String() == "100%"; all != (uninstall == "true") {
			t.Errorf("uninstall=%s: %v", uninstall, d.Spec.UpdateStrategy)
		}
	}
}
