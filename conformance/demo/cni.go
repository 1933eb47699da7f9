package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/istio-pod-network/controller/plugin/record"
)

// annotations is the capability under which a runtime passes a pod's annotations.
const annotations = "io.kubernetes.cri.pod-annotations"

// The pod's annotations, without and with that of Istio's injector.
const (
	outsideMesh = `{}`
	insideMesh  = `{"sidecar.istio.io/status":"{}"}`
)

// cniArgs name the pod.
const cniArgs = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_UID=demo;" +
	"K8S_POD_INFRA_CONTAINER_ID=demo"

// call is the result of a program.
type call struct {
	stdout, stderr string
	err            error
}

// logLine returns the plugin's log line.
func (c call) logLine() string { return c.line("level=") }

// complaint returns the error that cnitool prints, without its usage.
func (c call) complaint() string { return strings.TrimPrefix(c.line("Error: "), "Error: ") }

func (c call) line(prefix string) string {
	for _, line := range strings.Split(c.stderr, "\n") {
		if strings.HasPrefix(line, prefix) {
			return line
		}
	}
	return strings.TrimSpace(c.stderr)
}

// run runs a program in a network namespace of the node, "pod" or "node".
func run(netns string, env []string, stdin string, args ...string) call {
	var stdout, stderr bytes.Buffer
	cmd := exec.Command("ip", append([]string{"netns", "exec", netns}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	err := cmd.Run()
	return call{stdout.String(), stderr.String(), err}
}

// inPod runs a program that must succeed in the pod's network namespace.
func inPod(args ...string) (string, error) {
	c := run("pod", nil, "", args...)
	if c.err != nil {
		return "", fmt.Errorf("running %q: %w: %s", strings.Join(args, " "), c.err, strings.TrimSpace(c.stderr))
	}
	return c.stdout, nil
}

// cnitool runs the real cnitool for the demo's pod.
func cnitool(verb, podAnnotations string) call {
	return run("node", []string{
		"NETCONFPATH=" + filepath.Dir(confPath), "CNI_ARGS=" + cniArgs,
		`CAP_ARGS={"` + annotations + `":` + podAnnotations + `}`,
	}, "", "cnitool", verb, network, podNetns)
}

// repair runs the plugin alone on the pod, as the agent does. plugin is its entry in the conflist, result the output of
// the chain's ADD.
func repair(plugin object, r record.Record, result string) call {
	var conf map[string]any
	if err := json.Unmarshal(plugin, &conf); err != nil {
		return call{err: err}
	}
	conf["cniVersion"], conf["name"], conf["prevResult"] = "1.1.0", network, json.RawMessage(result)
	conf["runtimeConfig"] = map[string]any{annotations: json.RawMessage(insideMesh)}
	stdin, err := json.Marshal(conf)
	if err != nil {
		return call{err: err}
	}
	return run("node", []string{
		"CNI_COMMAND=ADD", "CNI_CONTAINERID=" + r.ContainerID, "CNI_NETNS=" + podNetns, "CNI_IFNAME=" + r.IfName,
		"CNI_ARGS=" + cniArgs,
	}, string(stdin), "istio-pod-network")
}

// records returns the plugin's records on this node.
func records() ([]record.Record, error) {
	list, errs := record.Store{Dir: stateDir}.List()
	return list, errors.Join(errs...)
}

// shortResult returns the part of a CNI result that the demo shows.
func shortResult(result string) (string, error) {
	var all struct{ CNIVersion, IPs json.RawMessage }
	if err := json.Unmarshal([]byte(result), &all); err != nil {
		return "", fmt.Errorf("reading the result of ADD: %w", err)
	}
	var short bytes.Buffer
	if err := json.Compact(&short, fmt.Appendf(nil, `{"cniVersion":%s,"ips":%s}`, all.CNIVersion, all.IPs)); err != nil {
		return "", fmt.Errorf("reading the result of ADD: %w", err)
	}
	return strings.ReplaceAll(short.String(), ",", ", "), nil
}
