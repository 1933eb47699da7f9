package status

import (
	"fmt"
	"strings"

	"github.com/istio-pod-network/controller/agent/inspect"
)

// remedy says what to do about a failed check of the agent.
type remedy struct {
	check string
	says  string // a part of the check's text; "" for any text
	next  string
}

// remedies are tried in this order. The first one that matches counts.
var remedies = []remedy{
	{"HTTP", "address already in use", "another program of the node has the port: choose a free one with the value " +
		"agent.port"},
	{"installed", "none has the name", "the value cni.primary names a network that is not in the directory of " +
		"cni.confDir: name one of those that the line above lists, or leave it empty, which takes the first"},
	{"installed", "no primary network configuration", "see that the primary CNI's pods run on this node: they write " +
		"it. If they do, the value cni.confDir is not where the runtime reads it: on the node `crictl info` (containerd: " +
		"confDir) or `crio status config` (CRI-O: network_dir) prints that directory, and `istio-pod-networkctl check " +
		"--pre --probe-nodes` shows what lies where. The value kubernetesDistribution sets it for a known distribution"},
	{"installed", "looks for plugins elsewhere", "set the value cni.binDir to the directory in which the runtime looks " +
		"for plugins, or name its others in cni.runtimeBinDirs: on the node `crictl info` (containerd: binDir) or `crio " +
		"status config` (CRI-O: plugin_dirs) prints them"},
	{"installed", "readiness file", "Multus is what the runtime calls there: set the value cni.primary to the network " +
		"of the pods, or cni.mode=nad; on OpenShift kubernetesDistribution=OpenShift (docs/install.md, Multus outside " +
		"OpenShift)"},
	{"installed", "again and again", "find the program that rewrites the file, and have it keep our entry: " +
		"docs/install.md, Another program keeps removing the plugin"},
	{"installed", "not looked at yet", "look again in a moment"},
	{"backend", "", "the text names what kernel or host lacks: load the kernel's modules (modprobe nf_tables nft_ct " +
		"nft_redir nft_chain_nat), or install the package iptables on the node; with the value backend=auto whatever " +
		"works is taken"},
	{"pods", "", "see that the agent reaches the API server with its rights: the ClusterRole istio-pod-network-agent, " +
		"and what is between the node and the API server (docs/operation.md, Tell the agents the API server's address)"},
	{"namespaces", "", "see that the agent reaches the API server with its rights: the ClusterRole " +
		"istio-pod-network-agent, and what is between the node and the API server (docs/operation.md, Tell the agents " +
		"the API server's address)"},
}

// nextOf returns what to do about a failed check. kubectl is the command with the agents' namespace, and pod is the
// agent's.
func nextOf(n inspect.Node, c inspect.Check, kubectl, pod string) string {
	log := kubectl + " logs " + pod
	if c.Name == "no bypass" {
		return makeAgain(n.Pods.Bypassed) + ", or have the agent do so (value repair=apply or delete). A pod that no " +
			"controller makes again it does not delete: keep its manifest, delete it, and apply the manifest. While there is " +
			"one the agent is not ready, and helm --wait does not end. Where new pods are without rules, too, the runtime " +
			"does not read what the plugin is chained in: see the value cni.confDir, and docs/alerts.md, IstioPodNetworkBypass"
	}
	for _, r := range remedies {
		if r.check == c.Name && strings.Contains(c.Detail, r.says) {
			return r.next + ". The agent tries again by itself, and its log says how that goes: " + log
		}
	}
	return "the agent tries again by itself; its log says what keeps it from it: " + log
}

// makeAgain returns a command for the first pod of a list.
func makeAgain(pods []string) string {
	if len(pods) == 0 {
		return "make these pods again"
	}
	namespace, name, _ := strings.Cut(pods[0], "/")
	return fmt.Sprintf("make each of these pods again: kubectl -n %s delete pod %s", namespace, name)
}
