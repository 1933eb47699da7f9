package explain

import (
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/agent/ctl/outcome"
)

// pod returns a manifest of a pod with additional fields in its container and its spec.
func pod(container, spec string) string {
	return "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: app, " + container + "}], " +
		spec + "}}"
}

// Invalid IDs and ports would be truncated to others. A duplicate key is also found beside a text with <<.
func TestInvalid(t *testing.T) {
	const id, port = ": not a user or group ID; valid: 0 to 2147483647", ": not a port number; valid: 1 to 65535"
	for _, test := range []struct{ container, spec, want string }{
		{"securityContext: {runAsUser: 4294968633}", "",
			"spec.containers[0].securityContext.runAsUser of Pod a: invalid value 4294968633" + id},
		{"securityContext: {runAsGroup: -1}", "", "spec.containers[0].securityContext.runAsGroup of Pod a: invalid value -1"},
		{"", "securityContext: {runAsUser: -1}", "spec.securityContext.runAsUser of Pod a: invalid value -1" + id},
		{"", "securityContext: {runAsGroup: 4294967296}", "spec.securityContext.runAsGroup of Pod a"},
		{"", "securityContext: {fsGroup: 4294968633}", "spec.securityContext.fsGroup of Pod a"},
		{"", "securityContext: {supplementalGroups: [1, -1]}", "spec.securityContext.supplementalGroups[1] of Pod a"},
		{"", "initContainers: [{name: i, securityContext: {runAsUser: 4294968633}}]",
			"spec.initContainers[0].securityContext.runAsUser of Pod a"},
		{"", "ephemeralContainers: [{name: e, securityContext: {runAsUser: 4294968633}}]", "spec.ephemeralContainers[0]."},
		{"ports: [{containerPort: 80}, {containerPort: 70000}]", "",
			"spec.containers[0].ports[1].containerPort of Pod a: invalid value 70000" + port},
		{"ports: [{containerPort: 80, hostPort: -1}]", "", "spec.containers[0].ports[0].hostPort of Pod a"},
		{"livenessProbe: {httpGet: {port: 0}}", "", "spec.containers[0].livenessProbe.httpGet.port of Pod a"},
		{"readinessProbe: {tcpSocket: {port: 65536}}", "", "spec.containers[0].readinessProbe.tcpSocket.port of Pod a"},
		{"startupProbe: {grpc: {port: 65536}}", "", "spec.containers[0].startupProbe.grpc.port of Pod a"},
		{`args: ["cat <<EOF"], name: b`, "", `document 1 has a key twice: line 1: key "name" already set in map`},
	} {
		if out, status, err := explained(t, pod(test.container, test.spec), "-f", "-"); status != outcome.Misused ||
			out != "" || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s %s: %d, %v, %q", test.container, test.spec, status, err, out)
		}
	}
}

// An object's own keys override merged ones. Ports may have names, and IDs may have their largest value.
func TestUsable(t *testing.T) {
	for _, manifest := range []string{
		"x: &x {name: app, image: a}\napiVersion: v1\nkind: Pod\nmetadata: {name: a}\n" +
			"spec: {containers: [{<<: *x, image: b}]}",
		pod("args: [\"cat <<EOF\"]", "securityContext: {runAsUser: 2147483647, runAsGroup: 0, supplementalGroups: [0]}"),
		pod("ports: [{containerPort: 65535, name: a}], livenessProbe: {httpGet: {port: a}}, readinessProbe: {exec: {}}, "+
			"startupProbe: {tcpSocket: {port: 1}}", "initContainers: [{name: i, ports: [{containerPort: 1, hostPort: 2}]}]"),
	} {
		if out, status, err := explained(t, manifest, "-f", "-"); status != outcome.Well {
			t.Errorf("%s: %d, %v: %s", manifest, status, err, out)
		}
	}
}

// Kinds with pods in an unknown API version are reported, also in lists.
func TestOldVersions(t *testing.T) {
	const template = "spec: {template: {spec: {containers: [{name: app}]}}}"
	list := []string{pod("", ""),
		"{apiVersion: batch/v1beta1, kind: CronJob, metadata: {name: nightly}, spec: {jobTemplate: {" + template + "}}}",
		"{apiVersion: apps/v1beta1, kind: Deployment, metadata: {generateName: cart-}, " + template + "}",
		"{apiVersion: apps/v1beta2, kind: DaemonSetList, items: [{metadata: {name: each}, " + template + "}]}",
		"{apiVersion: v1, kind: StatefulSet, metadata: {name: db}, " + template + "}"}
	for _, manifest := range []string{strings.Join(list, "\n---\n"),
		"{apiVersion: v1, kind: List, items: [" + strings.Join(list, ", ") + "]}"} {
		out, status, err := explained(t, manifest, "-f", "-", "-o", "yaml")
		for _, want := range []string{"CronJob nightly of batch/v1beta1 in standard input, whose API version is not known " +
			"here; valid: batch/v1", "Deployment cart- of apps/v1beta1", "DaemonSet each of apps/v1beta2",
			"StatefulSet db of v1 in standard input, whose API version is not known here; valid: apps/v1"} {
			if !strings.Contains(strings.Join(strings.Fields(out), " "), want) || status != outcome.Well {
				t.Errorf("no %q: %d, %v: %s", want, status, err, out)
			}
		}
	}
}
