package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
)

// CNI verbs that are measured.
const (
	add   = "ADD"
	del   = "DEL"
	check = "CHECK"
	stat  = "STATUS"
)

// Annotations in the form in which the runtime passes them.
var (
	kubeletAnnotations = map[string]string{
		"kubernetes.io/config.seen": "2026-01-01T00:00:00.000000000Z", "kubernetes.io/config.source": "api",
	}
	meshAnnotations = map[string]string{
		"kubernetes.io/config.seen": "2026-01-01T00:00:00.000000000Z", "kubernetes.io/config.source": "api",
		"sidecar.istio.io/status": `{"initContainers":["istio-validation"],"containers":["istio-proxy"],` +
			`"volumes":["workload-socket","istio-envoy","istio-data","istio-podinfo","istio-token","istiod-ca-cert"],` +
			`"imagePullSecrets":null,"revision":"default"}`,
	}
)

// spec is one row of the report: a verb of a program, with its budget as a ratio to another row.
type spec struct {
	name    string
	program string
	verb    string
	backend string
	mesh    bool

	base     string  // the row for the ratio
	alone    string  // for a burst: the row of the same call alone
	budget   float64 // largest ratio, 0 for none
	kernels  bool    // the time depends mostly on the kernel: the budget is printed, but never fails
	programs int     // programs it may execute, -1 for no budget
}

// group is a list of specs that run one after the other on the same pod.
type group []spec

// Rows with which others are compared.
const (
	echoAdd = "echo ADD"
	echoDel = "echo DEL"
)

// groups returns everything that is measured one call at a time.
func groups(backends []string) []group {
	all := []group{
		{{name: "true", program: "true", programs: -1}},
		{{name: echoAdd, program: echoName, verb: add, programs: -1}},
		{{name: echoDel, program: echoName, verb: del, programs: -1}},
		{{name: "ADD outside the mesh", program: pluginName, verb: add, base: echoAdd, budget: 1.3}},
		{{name: "DEL without record", program: pluginName, verb: del, base: echoDel, budget: 1.3}},
		{{name: "STATUS", program: pluginName, verb: stat, base: echoAdd}},
	}
	for _, backend := range backends {
		all = append(all, meshGroup(backend))
	}
	return append(all, nftGroup())
}

// nftGroup measures nft when it adds and deletes two tables with a rule each. The kernel needs milliseconds to close a
// netlink socket that has deleted something, whichever program does it.
func nftGroup() group {
	return group{
		{name: "nft, 2 tables added", program: nftName, verb: add, base: echoAdd, programs: -1},
		{name: "nft, 2 tables deleted", program: nftName, verb: del, base: echoDel, programs: -1},
	}
}

const nftName = "nft"

var nftScripts = map[string]string{
	add: "table ip floor { chain c { type nat hook output priority -100; accept; }; }\n" +
		"table ip6 floor { chain c { type nat hook output priority -100; accept; }; }\n",
	del: "delete table ip floor\ndelete table ip6 floor\n",
}

// meshGroup is the life of a mesh pod. The design has wall-clock budgets for nftables alone. Most of a DEL's time is
// spent in the kernel, see nftGroup.
func meshGroup(backend string) group {
	wall, programs := 2.5, 0
	if backend != "nftables" {
		wall, programs = 0, 2 // one iptables-restore for each family
	}
	plugin := spec{program: pluginName, backend: backend, mesh: true, programs: -1, base: echoAdd}
	added, checked, deleted := plugin, plugin, plugin
	added.name, added.verb, added.budget, added.programs = "ADD mesh, "+backend, add, wall, programs
	checked.name, checked.verb, checked.base = "CHECK mesh, "+backend, check, echoDel
	checked.programs = 3 * programs // one iptables-restore and two iptables-save for each family
	deleted.name, deleted.verb, deleted.base, deleted.budget = "DEL with rules, "+backend, del, echoDel, wall
	deleted.kernels = true
	return group{added, checked, deleted}
}

// burstOfAll is the size of the burst that is measured with every backend. Larger bursts are measured with the default
// backend alone: they need a network namespace for each call, and show what limits it.
const burstOfAll = 16

// bursts returns what is measured with many calls at once, the baseline first.
func bursts(backends []string, at int) []spec {
	name := func(what string) string { return fmt.Sprintf("%d x %s", at, what) }
	all := []spec{{name: name(echoAdd), program: echoName, verb: add, alone: echoAdd, programs: -1}}
	for i, backend := range backends {
		if i > 0 && at > burstOfAll {
			break
		}
		s := meshGroup(backend)[0]
		s.name, s.alone, s.base, s.programs = name(s.name), s.name, all[0].name, -1
		all = append(all, s)
	}
	return all
}

// call returns the call of the spec for one pod.
func (n *node) call(s spec, p pod) (call, error) {
	if s.program == "true" {
		return call{path: "/bin/true"}, nil
	}
	if s.program == nftName {
		nsenter, err := exec.LookPath("nsenter")
		return call{path: nsenter, args: []string{"--net=" + p.netns, nftName, "-f", "-"}, env: os.Environ(),
			stdin: []byte(nftScripts[s.verb])}, err
	}
	annotations := kubeletAnnotations
	if s.mesh {
		annotations = meshAnnotations
	}
	conf := map[string]any{
		"cniVersion": "1.1.0", "name": "bench", "type": s.program,
		"agentSocket": socket, "stateDir": stateDir,
		"capabilities":  map[string]bool{"io.kubernetes.cri.pod-annotations": true},
		"runtimeConfig": map[string]any{"io.kubernetes.cri.pod-annotations": annotations},
		"prevResult":    prevResult(p),
	}
	if s.backend != "" {
		conf["backend"] = s.backend
	}
	stdin, err := json.Marshal(conf)
	return call{path: n.binary(s.program), stdin: stdin, env: []string{
		"PATH=" + os.Getenv("PATH"), "CNI_COMMAND=" + s.verb, "CNI_CONTAINERID=" + p.id, "CNI_NETNS=" + p.netns,
		"CNI_IFNAME=eth0", "CNI_PATH=" + n.bin, "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=demo;K8S_POD_NAME=bench;" +
			"K8S_POD_INFRA_CONTAINER_ID=" + p.id + ";K8S_POD_UID=5f5b6a0e-0000-4000-8000-" + p.id[52:],
	}}, err
}

// prevResult is the result of a bridge plugin for the pod.
func prevResult(p pod) map[string]any {
	return map[string]any{
		"cniVersion": "1.1.0",
		"interfaces": []map[string]any{
			{"name": "cni0", "mac": "0a:58:0a:58:00:01"}, {"name": "veth0", "mac": "0a:58:0a:58:00:03"},
			{"name": "eth0", "mac": "0a:58:0a:58:00:02", "sandbox": p.netns},
		},
		"ips": []map[string]any{
			{"interface": 2, "address": "10.88.0.2/24", "gateway": "10.88.0.1"},
			{"interface": 2, "address": "fd00:88::2/64", "gateway": "fd00:88::1"},
		},
		"routes": []map[string]any{{"dst": "0.0.0.0/0"}, {"dst": "::/0"}},
		"dns":    map[string]any{},
	}
}
