package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/istio-pod-network/controller/conformance/internal/build"
)

// way is one to have a pod's traffic redirected to its sidecar, or not at all.
type way struct {
	key, title string
	wait       bool              // injection by docs/istio/wait.yaml
	sets       []string          // further values of Istio's chart istiod, as --set takes them
	values     string            // and as a file
	pod        map[string]string // annotations of its pods
	level      string            // of Pod Security, which its namespace has
	direct     bool              // requests go past Envoy, as they are meant to
	inits      []string          // init containers that the injector makes but the sidecar: NAME=IMAGE, in short
	taint      bool              // the node has the startup taint until the agent is ready
	agent      *agent            // on each node; nil: there is none
	table      qualities
}

// agent is a DaemonSet, by Helm.
type agent struct {
	program   string // its name
	release   string
	namespace string
	account   string // by which it, and the plugin where that does, asks the API server
	chart     string // Istio's, as mesh.Helm takes it; empty: this project's
	sets      []string
}

// qualities are cells of the table that are no numbers. The first two are compared with what is seen in each run.
type qualities struct {
	admits        string // the strictest level of Pod Security that admits its pods
	token         string // a file with a credential on the node, outside of pods; empty: none
	scc, programs string // read
}

const restricted = "restricted"

// withoutWait is what the page about the startup taint leaves out of wait.yaml: no init container at all.
const withoutWait = `sidecarInjectorWebhook:
  templates:
    istio-pod-network-wait: |
      spec:
        initContainers:
        - name: istio-validation
          $patch: delete
`

const cniEnabled, cniDisabled = "pilot.cni.enabled=true", "pilot.cni.enabled=false"

// ours is this project's release.
func ours(sets ...string) *agent {
	const name = "istio-pod-network-controller"
	return &agent{program: "istio-pod-network-agent", release: name, namespace: name, account: "istio-pod-network-agent",
		sets: sets}
}

var oursNeeds = qualities{admits: restricted, scc: "`restricted-v2`; the agent has one of its own", programs: "none"}

// ways are all that are measured, in the order of the table.
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

// waitValues is the file by which the injector puts the wait in the place of istio-validation.
func waitValues() string { return filepath.Join(build.Root(), "docs", "istio", "wait.yaml") }
