// Package sandbox stands in for the container runtime in tests without a kubelet. It calls the plugin for a pod's
// sandbox as a runtime does, or builds the record that such a call would leave.
package sandbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/istio-pod-network/controller/plugin/redirect"
	corev1 "k8s.io/api/core/v1"
)

// Sandbox is the sandbox of a pod.
type Sandbox struct {
	Pod   *corev1.Pod
	ID    string // container ID
	NetNS string // path of the network namespace
	// Annotated says that the runtime passes the pod's annotations to the plugin. All do, except Multus.
	Annotated bool
}

// Command returns a command that calls the plugin, with its entry of a network configuration.
func (s Sandbox) Command(verb string, entry map[string]any) (*exec.Cmd, error) {
	conf := maps.Clone(entry)
	conf["name"], conf["cniVersion"], conf["prevResult"] = "net", "1.1.0", map[string]any{"cniVersion": "1.1.0"}
	if s.Annotated {
		conf["runtimeConfig"] = map[string]any{"io.kubernetes.cri.pod-annotations": s.Pod.Annotations}
	}
	stdin, err := json.Marshal(conf)
	cmd := exec.Command(filepath.Join(isolated.BinDir(), "istio-pod-network"))
	cmd.Stdin = bytes.NewReader(stdin)
	cmd.Env = []string{"CNI_COMMAND=" + verb, "CNI_CONTAINERID=" + s.ID, "CNI_NETNS=" + s.NetNS, "CNI_IFNAME=eth0",
		"CNI_PATH=/none",
		fmt.Sprintf("CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=%s;K8S_POD_NAME=%s;K8S_POD_UID=%s", s.Pod.Namespace,
			s.Pod.Name, s.Pod.UID)}
	return cmd, err
}

// ID returns the container ID of the sandbox with a number.
func ID(number int) string { return fmt.Sprintf("%064x", number) }

// Record returns the record that the plugin would leave for the pod's sandbox with a number. The number also makes the
// network namespace unique.
func Record(pod *corev1.Pod, number int) record.Record {
	return record.Record{
		Network: "net", IfName: "eth0", ContainerID: ID(number), PodUID: string(pod.UID), Namespace: pod.Namespace,
		Name:     pod.Name,
		NetNS:    record.NetNS(fmt.Sprintf("%s/%d/%d", BootID(), 4026532000+number, 8192+number)),
		Decision: record.Redirect, Reason: "injected", Backend: "nftables", Time: time.Now(), DurationMicroseconds: 1500,
		RuleSetHash: redirect.DefaultSpec().RuleSet().Hash(),
	}
}

// BootID returns the kernel's boot ID, the first part of the identity of every network namespace.
func BootID() record.BootID {
	id, _ := record.ReadBootID()
	return id
}
