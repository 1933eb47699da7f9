package cni

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types/create"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

// outcome is the result of one execution of the plugin.
type outcome struct {
	code   int
	stdout []byte
	took   time.Duration
}

// direct returns the plugin's own configuration, as libcni would pass it.
func (n *node) direct(version string, more object) []byte {
	n.Helper()
	conf := n.pluginConf(object{"cniVersion": version, "name": "pods"})
	for key, value := range more {
		conf[key] = value
	}
	data, err := json.Marshal(conf)
	if err != nil {
		n.Fatal(err)
	}
	return data
}

// attachment returns the environment of a pod's interface.
func attachment(id, netns string) []string {
	args := ""
	for _, pair := range podArgs(id) {
		args += ";" + pair[0] + "=" + pair[1]
	}
	return []string{"CNI_CONTAINERID=" + id, "CNI_NETNS=" + netns, "CNI_IFNAME=eth0", "CNI_ARGS=" + args[1:]}
}

// run executes the plugin without libcni, which would hide its exact output.
func (n *node) run(t testing.TB, verb string, stdin []byte, env []string) outcome {
	t.Helper()
	cmd := exec.Command(filepath.Join(n.bin, pluginType))
	cmd.Env = append([]string{"CNI_COMMAND=" + verb, "CNI_PATH=" + n.bin, "PATH=" + os.Getenv("PATH")}, env...)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(stdin), t.Output()
	start := time.Now()
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", verb, err)
	}
	return outcome{cmd.ProcessState.ExitCode(), out, time.Since(start)}
}

// wantError fails the test unless the plugin failed as the CNI specification demands: a non-zero exit status, and on
// stdout only an error object with this code, or any code for 0. Its message must have all words.
func (o outcome) wantError(t *testing.T, code int, words ...string) {
	t.Helper()
	var failure struct {
		Code    int    `json:"code"`
		Msg     string `json:"msg"`
		Details string `json:"details"`
	}
	decode(t, o.stdout) // one JSON value and nothing else
	if err := json.Unmarshal(o.stdout, &failure); err != nil {
		t.Fatalf("stdout %q: %v", o.stdout, err)
	}
	if o.code == 0 || failure.Code == 0 || code != 0 && failure.Code != code {
		t.Errorf("exit %d, error %+v, want a failure with code %d", o.code, failure, code)
	}
	if failure.Msg == "" {
		t.Errorf("error %+v has no message", failure)
	}
	for _, word := range words {
		if !strings.Contains(failure.Msg+failure.Details, word) {
			t.Errorf("error %+v does not name %q", failure, word)
		}
	}
}

// TestPrevResultPassesThrough passes results with unknown keys, and with numbers that do not fit into a float64.
func TestPrevResultPassesThrough(t *testing.T) {
	for _, version := range versions {
		for pod, annotations := range map[string]map[string]string{"mesh": mesh, "no mesh": noMesh} {
			t.Run(version+" "+pod, func(t *testing.T) {
				n := newNode(t)
				previous := crafted(version)
				conf := n.direct(version, object{"runtimeConfig": object{capability: annotations},
					"prevResult": json.RawMessage(previous)})
				res := n.run(t, "ADD", conf, attachment("aaaa", n.newNetns()))
				if res.code != 0 {
					t.Fatalf("ADD: %s", res.stdout)
				}
				if got, want := decode(t, res.stdout), decode(t, []byte(previous)); !reflect.DeepEqual(got, want) {
					t.Errorf("result %v, want %v", got, want)
				}
			})
		}
	}
}

// crafted returns a result in the form of the version.
func crafted(version string) string {
	family := ""
	if strings.HasPrefix(version, "0.") {
		family = `"version": "4", `
	}
	return `{"cniVersion": "` + version + `", "interfaces": [{"name": "eth0", "mac": "0a:58:0a:58:00:02", "sandbox": "/x",
		"vendor.example/queue": 9007199254740993}],
		"ips": [{` + family + `"interface": 0, "address": "10.88.0.2/24", "gateway": "10.88.0.1", "lease": 1.50}],
		"routes": [{"dst": "0.0.0.0/0", "vendor": {"weights": [123456789012345678901234567890, 1e400]}}],
		"dns": {}, "vendor.example/unknown": {"big": -18446744073709551617, "text": "<&>\u2028", "none": null}}`
}

// TestWithoutPrevResult runs the plugin as the only one of an additional network, as Multus does.
func TestWithoutPrevResult(t *testing.T) {
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			n := newNode(t)
			netns := n.newNetns()
			res := n.run(t, "ADD", n.direct(version, object{"runtimeConfig": object{capability: mesh}}),
				attachment("aaaa", netns))
			if res.code != 0 {
				t.Fatalf("ADD: %s", res.stdout)
			}
			result, err := create.Create(version, res.stdout)
			if err != nil || result.Version() != version {
				t.Errorf("result %s is not valid in %s: %v", res.stdout, version, err)
			}
			n.wantRules(netns)
		})
	}
}

// TestUntouched has the pods that must not be changed.
func TestUntouched(t *testing.T) {
	tests := []struct {
		name        string
		annotations map[string]string
		more        object
		reason      redirect.Reason // in the record; empty if there is none
	}{
		{"no mesh", noMesh, nil, ""},
		{"no annotations", map[string]string{}, nil, ""},
		{"no mesh, agent configured and absent", noMesh, object{"agentSocket": "/nonexistent/agent.sock"}, ""},
		{"opted out", optedOut, nil, redirect.ReasonOptedOut},
		{"inject false", map[string]string{"sidecar.istio.io/inject": "false"}, nil, redirect.ReasonInjectDisabled},
		{"mode NONE", map[string]string{"sidecar.istio.io/status": "{}", "sidecar.istio.io/interceptionMode": "NONE"}, nil,
			redirect.ReasonModeNone},
		{"namespace excluded", noMesh, object{"excludeNamespaces": []string{"de*"}}, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			n := newNode(t)
			w := n.network(n.conflist("1.1.0", "pods", "bridge", test.more))
			rt := runtimeConf("aaaa", n.newNetns(), test.annotations)
			w.add(t, rt)
			n.wantUntouched(rt.NetNS)
			r, err := n.store.Get("aaaa", "eth0")
			if test.reason == "" && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("record %+v, %v, want none", r, err)
			}
			if test.reason != "" && (err != nil || r.Reason != string(test.reason)) {
				t.Errorf("record with reason %q, %v, want %q", r.Reason, err, test.reason)
			}
			if err := w.cni.CheckNetworkList(t.Context(), w.list, rt); err != nil {
				t.Errorf("CHECK: %v", err)
			}
			w.del(t, rt)
			if got := n.records(); len(got) != 0 {
				t.Errorf("records of %q after DEL, want none", got)
			}
		})
	}
}

// TestAgentAbsent is a mesh pod on a node without an answering agent: the error says to try again, and nothing is left.
func TestAgentAbsent(t *testing.T) {
	for name, annotations := range map[string]map[string]string{"mesh": mesh, "annotations unknown": nil} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			netns := n.newNetns()
			more := object{"agentSocket": filepath.Join(n.dir, "agent.sock"), "agentTimeout": "200ms",
				"prevResult": json.RawMessage(crafted("1.1.0"))}
			if annotations != nil {
				more["runtimeConfig"] = object{capability: annotations}
			}
			const short = 5 * time.Second // less than the default, which an ADD takes each time if it ignores agentTimeout
			var res outcome
			for try := 0; try == 0 || res.took > short && try < 5; try++ { // a busy machine may hold up some
				res = n.run(t, "ADD", n.direct("1.1.0", more), attachment("aaaa", netns))
				res.wantError(t, 11, "agent.sock")
			}
			if res.took > short {
				t.Errorf("ADD took %s with an agentTimeout of 200ms", res.took)
			}
			n.wantUntouched(netns)
			if got := n.records(); len(got) != 0 {
				t.Errorf("records of %q, want none", got)
			}
			if res := n.run(t, "STATUS", n.direct("1.1.0", more), nil); res.code != 0 {
				t.Errorf("STATUS without an agent: %s, want success", res.stdout)
			}
			if res := n.run(t, "DEL", n.direct("1.1.0", more), attachment("aaaa", netns)); res.code != 0 ||
				len(res.stdout) != 0 {
				t.Errorf("DEL after the failed ADD: exit %d, %q", res.code, res.stdout)
			}
		})
	}
}

// TestErrors passes what the plugin must reject.
func TestErrors(t *testing.T) {
	tests := []struct {
		name        string
		more        object
		annotations map[string]string
		words       []string
	}{
		{"backend", object{"backend": "ebpf"}, mesh, []string{"backend", "ebpf"}},
		{"selection", object{"selection": "all"}, mesh, []string{"selection", "all"}},
		{"agentTimeout", object{"agentTimeout": "soon"}, mesh, []string{"agentTimeout", "soon"}},
		{"proxyUID", object{"redirect": object{"proxyUID": 0}}, mesh, []string{"proxyUID", "0"}},
		{"mode annotation", nil, map[string]string{"sidecar.istio.io/status": "{}",
			"sidecar.istio.io/interceptionMode": "MAYBE"},
			[]string{"sidecar.istio.io/interceptionMode", "MAYBE"}},
		{"port annotation", nil, map[string]string{"sidecar.istio.io/status": "{}",
			"traffic.sidecar.istio.io/excludeOutboundPorts": "70000"},
			[]string{"traffic.sidecar.istio.io/excludeOutboundPorts", "70000"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			n := newNode(t)
			netns := n.newNetns()
			more := object{"runtimeConfig": object{capability: test.annotations},
				"prevResult": json.RawMessage(crafted("1.0.0"))}
			for key, value := range test.more {
				more[key] = value
			}
			n.run(t, "ADD", n.direct("1.0.0", more), attachment("aaaa", netns)).wantError(t, 0, test.words...)
			n.wantUntouched(netns)
			if got := n.records(); len(got) != 0 {
				t.Errorf("records of %q, want none", got)
			}
		})
	}
}

// TestOwnNetns is a misconfigured runtime that names the node's own network namespace. The plugin must reject it.
func TestOwnNetns(t *testing.T) {
	n := newNode(t)
	conf := n.direct("1.0.0", object{"runtimeConfig": object{capability: mesh},
		"prevResult": json.RawMessage(crafted("1.0.0"))})
	n.run(t, "ADD", conf, attachment("aaaa", "/proc/self/ns/net")).wantError(t, 0)
	n.wantUntouched("/proc/self/ns/net")
}

// TestDelOfNothing deletes what does not exist: unknown container, missing state directory, no network namespace.
func TestDelOfNothing(t *testing.T) {
	for _, netns := range []string{"", "/nonexistent/netns"} {
		n := newNode(t)
		for range 2 {
			if res := n.run(t, "DEL", n.direct("1.1.0", nil), attachment("aaaa", netns)); res.code != 0 || len(res.stdout) != 0 {
				t.Errorf("DEL with netns %q: exit %d, %q", netns, res.code, res.stdout)
			}
		}
		if _, err := os.Stat(n.store.Dir); !os.IsNotExist(err) {
			t.Errorf("DEL with netns %q made the state directory: %v", netns, err)
		}
	}
}

// TestVersion asks for the supported versions.
func TestVersion(t *testing.T) {
	n := newNode(t)
	res := n.run(t, "VERSION", []byte(`{"cniVersion": "1.1.0"}`), nil)
	var info struct{ SupportedVersions []string }
	if err := json.Unmarshal(res.stdout, &info); err != nil || res.code != 0 {
		t.Fatalf("VERSION: exit %d, %s", res.code, res.stdout)
	}
	for _, version := range versions {
		if !slices.Contains(info.SupportedVersions, version) {
			t.Errorf("VERSION lists %q, want %s in it", info.SupportedVersions, version)
		}
	}
}
