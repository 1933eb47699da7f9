package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/istio-pod-network/controller/conformance/internal/build"
)

// way is one way to redirect a pod's traffic to its sidecar, or not to redirect it.
type way struct {
	key, title string
	wait       bool              // injection with docs/istio/wait.yaml
	sets       []string          // further values for Istio's chart istiod, for --set
	values     string            // further values, as a file's content
	pod        map[string]string // annotations of its pods
	level      string            // level of Pod Security of its namespace
	direct     bool              // requests bypass Envoy, as intended
	inits      []string          // init containers from the injector without the sidecar: NAME=IMAGE
	taint      bool              // the node has the startup taint until the agent is ready
	agent      *agent            // on each node; nil if there is none
	table      qualities
}

// agent is a DaemonSet that Helm installs.
type agent struct {
	program   string // its program's name
	release   string
	namespace string
	account   string // service account of the agent, and of the plugin if that sends requests
	chart     string // Istio's, in the form of mesh.Helm; empty for this project's
	sets      []string
}

// qualities are cells of the table that are not measured. Each run compares the first two with what it finds.
type qualities struct {
	admits        string // the strictest level of Pod Security that admits its pods
	token         string // a file with a credential on the node, outside pods; empty if none
	scc, programs string // found by reading code and documentation
}

const restricted = "restricted"

// withoutWait are the values of the page about the startup taint: wait.yaml without an init container.
const withoutWait = `sidecarInjectorWebhook:
  templates:
    istio-pod-network-wait: |
      spec:
        initContainers:
        - name: istio-validation
          $patch: delete
`

const cniEnabled, cniDisabled = "pilot.cni.enabled=true", "pilot.cni.enabled=false"

// ours returns the agent of this project's release.
func ours(sets ...string) *agent {
	const name = "istio-pod-network-controller"
	return &agent{program: "istio-pod-network-agent", release: name, namespace: name, account: "istio-pod-network-agent",
		sets: sets}
}

var oursNeeds = qualities{admits: restricted, scc: "`restricted-v2`; the agent has one of its own", programs: "none"}

// ways are all measured ways, in the order of the table.
var ways = []way{
	{key: "none", title: "no redirection, same containers", sets: []string{cniDisabled}, level: restricted, direct: true,
		pod:   map[string]string{"sidecar.istio.io/interceptionMode": "NONE"},
		table: qualities{admits: restricted, scc: "`restricted-v2`", programs: "none"}},
	{key: "wait", title: "this project, init wait", wait: true, level: restricted,
		inits: []string{"istio-validation=istio-pod-network-plugin"},
		agent: ours(), table: oursNeeds},
	{key: "taint", title: "this project, startup taint, no init container", wait: true, values: withoutWait,
		level: restricted, taint: true, agent: ours("startupTaint.enabled=true"), table: oursNeeds},
	{key: "istio-cni", title: "Istio CNI, `istio-validation`", sets: []string{cniEnabled}, level: restricted,
		inits: []string{"istio-validation=proxyv2"},
		agent: &agent{program: "install-cni", release: "istio-cni", namespace: "istio-cni", account: "istio-cni",
			chart: "cni"},
		table: qualities{admits: restricted, token: "/run/istio-cni/istio-cni-kubeconfig",
			scc: "`restricted-v2`; the agent has `privileged`", programs: "iptables, or `nft`"}},
	{key: "istio-init", title: "`istio-init`", sets: []string{cniDisabled}, level: "privileged",
		inits: []string{"istio-init=proxyv2"},
		table: qualities{admits: "privileged", scc: "`privileged`, or one of your own",
			programs: "none: in its image"}},
}

func keys(list []way) []string {
	var names []string
	for _, w := range list {
		names = append(names, w.key)
	}
	return names
}

func wayOf(key string) (way, error) {
	for _, w := range ways {
		if w.key == key {
			return w, nil
		}
	}
	return way{}, fmt.Errorf("invalid value %q; valid: %s", key, strings.Join(keys(ways), ", "))
}

// waitValues returns the path of the values that replace istio-validation by the wait.
func waitValues() string { return filepath.Join(build.Root(), "docs", "istio", "wait.yaml") }
