package plugin

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/internal/entry"
	"github.com/istio-pod-network/controller/plugin/netfilter"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

// backends are the values that the configuration accepts.
var backends = []netfilter.Backend{
	netfilter.Auto, netfilter.Nftables, netfilter.Iptables, netfilter.IptablesNFT, netfilter.IptablesLegacy,
}

// Package entry imports no other package, so it lists the backends a second time. Both lists must be equal.
func TestEntryAgrees(t *testing.T) {
	for i, name := range entry.Backends {
		if len(entry.Backends) != len(backends) || netfilter.Backend(name) != backends[i] {
			t.Errorf("backends %q, want %q", entry.Backends, backends)
		}
	}
}

// FuzzParseConfig checks that a parsed configuration has the properties that the rest of the plugin relies on.
func FuzzParseConfig(f *testing.F) {
	for _, seed := range []string{
		``, `null`, `[]`, `{`, `{}`, `{"cniVersion":"1.1.0","name":"n","prevResult":` + previous + `}`,
		`{"agentSocket":"","agentTimeout":"1s","stateDir":"/x","backend":"iptables","selection":"annotated",` +
			`"logLevel":"debug",` +
			`"excludeNamespaces":["a*"],"statusRequiresAgent":true,"redirect":{"mode":"TPROXY","outboundPort":1,` +
			`"excludeInterfaces":"a"}}`,
		`{"runtimeConfig":{"io.kubernetes.cri.pod-annotations":{"a":"b"}},"cni.dev/valid-attachments":[{"containerID":"a",` +
			`"ifname":"b"}]}`,
		`{"runtimeConfig":{"io.kubernetes.cri.pod-annotations":null},"cni.dev/valid-attachments":null,"prevResult":null,` +
			`"redirect":null}`,
		`{"cniVersion":"0.4.0","prevResult":{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.2/24"}]}}`, `{"stateDir":"x"}`,
		`{"redirect":{"proxyUID":0}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, stdin []byte) {
		c, err := parseConfig(stdin)
		// DEL uses the configuration even after an error.
		if !filepath.IsAbs(c.StateDir) || c.logLevel.String() == "trace" {
			t.Errorf("stateDir %q, logLevel %v after %v", c.StateDir, c.logLevel, err)
		}
		if err != nil {
			if !strings.Contains(err.Error(), ": ") {
				t.Errorf("error %q names no key", err)
			}
			return
		}
		if !slices.Contains(backends, netfilter.Backend(c.Backend)) {
			t.Errorf("backend %q", c.Backend)
		}
		if _, err := redirect.ParseSelection(string(c.Policy.Selection)); err != nil {
			t.Error(err)
		}
		if c.AgentTimeout < time.Millisecond || c.AgentTimeout > time.Minute || c.Policy.Agent != (c.AgentSocket != "") {
			t.Errorf("agentTimeout %v, agentSocket %q, agent %v", c.AgentTimeout, c.AgentSocket, c.Policy.Agent)
		}
		if s := c.Policy.Redirect; s.ProxyUID == 0 || s.OutboundPort == 0 || s.InboundPort == 0 || s.DNSPort == 0 {
			t.Errorf("settings %+v", s)
		}
		if result, err := c.result(); err == nil && !json.Valid(result) {
			t.Errorf("result %q", result)
		}
	})
}

// FuzzPodOf finds the pod at every place in CNI_ARGS, and none where there is none.
func FuzzPodOf(f *testing.F) {
	f.Add(podArgs, "shop", "cart-0")
	f.Add("", "", "")
	f.Add("IgnoreUnknown=1;;", "a=b", " ")
	f.Add("K8S_POD_NAME", "x", "y")
	f.Fuzz(func(t *testing.T, other, namespace, name string) {
		if pod, renew, err := podOf(other); err != nil && !strings.Contains(err.Error(), "valid: KEY=VALUE") &&
			!strings.Contains(err.Error(), "valid: true, or nothing") || renew && !strings.Contains(other, renewArg) {
			t.Errorf("renew %t, error %q", renew, err)
		} else if err == nil && pod.Name != "" && !strings.Contains(other, "K8S_POD_NAME") {
			t.Errorf("%q gives %+v", other, pod)
		}
		if strings.ContainsRune(namespace+name, ';') {
			return
		}
		pod, _, err := podOf("K8S_POD_NAMESPACE=" + namespace + ";IgnoreUnknown=1;K8S_POD_NAME=" + name)
		if err != nil || pod.Namespace != namespace || pod.Name != name || pod.Complete || pod.Annotations != nil {
			t.Errorf("%+v, %v", pod, err)
		}
	})
}
