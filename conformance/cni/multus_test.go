package cni

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	"github.com/istio-pod-network/controller/plugin/facts"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

// Multus runs the plugin as a network of its own, net1, without a previous result and without the pod's annotations, so
// the plugin asks the agent. It deletes with the configuration that it stored at ADD, whatever its configuration is by
// then. From CNI 0.4.0 on it calls CHECK.
func TestMultus(t *testing.T) {
	for _, version := range versions {
		t.Run(version, func(t *testing.T) { testMultus(t, version) })
	}
}

func testMultus(t *testing.T, version string) {
	n := newNode(t)
	run, err := os.MkdirTemp("", "agent") // TempDir's path is too long for a socket, and shared
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(run) })
	socket, asked := filepath.Join(run, "run", "agent.sock"), make(chan struct{}, 100)
	listener, err := facts.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		_ = facts.Serve(listener, func(_ context.Context, q facts.Request) facts.Response {
			asked <- struct{}{}
			return facts.Response{Pod: &redirect.Pod{
				Namespace: q.Namespace, Name: q.Name, UID: q.UID, Complete: true, Annotations: mesh,
				Containers: []redirect.Container{{Name: "app"}, {Name: redirect.ProxyContainer}},
			}}
		})
	}()
	confDir := filepath.Join(n.dir, "net.d")
	if err := os.Mkdir(confDir, 0o755); err != nil {
		t.Fatal(err)
	}
	var list struct{ Plugins []object }
	agent := object{"agentSocket": socket, "agentTimeout": "1m"}
	if err := json.Unmarshal(n.conflist(version, "pods", "bridge", agent), &list); err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"ovn-kubernetes", pluginType} {
		list.Plugins[i]["name"], list.Plugins[i]["cniVersion"] = name, version
	}
	configure := func(delegates []object) {
		data, err := json.Marshal(object{
			"cniVersion": version, "name": "multus-cni-network", "type": "multus", "binDir": n.bin,
			"cniDir": filepath.Join(n.dir, "multus"), "delegates": delegates,
		})
		if err == nil {
			err = os.WriteFile(filepath.Join(confDir, "00-multus.conf"), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	netns := n.newNetns()
	tool := func(verb string) { n.cnitool(t, confDir, verb, "multus-cni-network", netns) }

	configure(list.Plugins)
	tool("add")
	n.wantRules(netns)
	if len(asked) == 0 {
		t.Error("nobody asked the agent, and Multus tells nothing")
	}
	records, _ := n.store.List()
	if len(records) != 1 || records[0].IfName != "net1" {
		t.Errorf("records %+v, want one of net1", records)
	}
	needs := func(want bool) {
		t.Helper()
		out, err := exec.Command(filepath.Join(isolated.BinDir(), "istio-pod-network-install"), "uninstall", "--purge",
			"--mode=nad", "--runtime-version=containerd://2.1.4", "--cni-cache-dir="+n.dir, "--bin-dir="+t.TempDir(),
			"--conf-dir="+t.TempDir(), "--aux-dir="+t.TempDir(), "--state-dir="+t.TempDir()).CombinedOutput()
		if refused := strings.Contains(string(out), "and Multus calls the plugin"); refused != want || (err != nil) != want {
			t.Errorf("Multus has a pod that it deletes by the plugin: %t, and a purge says %v %s", want, err, out)
		}
	}
	needs(true)
	configure(list.Plugins[:1]) // our network is removed from the configuration while the pod exists
	needs(true)
	tool("del")
	needs(false)
	n.wantUntouched(netns)
	if left := n.records(); len(left) > 0 {
		t.Errorf("records of %q after del", left)
	}
	configure(list.Plugins)
	tool("add")
	if version < "0.4.0" {
		tool("del")
		return
	}
	tool("check")
	n.inNetns(netns, "nft", "flush", "ruleset")
	if out, err := n.cnitoolCommand(confDir, "check", "multus-cni-network", netns).CombinedOutput(); err == nil ||
		!strings.Contains(string(out), "rules") {
		t.Errorf("check of a pod without its rules: %v %s", err, out)
	}
	tool("del")
}
