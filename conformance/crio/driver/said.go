package main

import (
	"fmt"

	"github.com/istio-pod-network/controller/conformance/crio/wire"
)

// What CRI-O 1.28 to 1.37 says of calls that have failed: its own words (server/sandbox_network.go and server.go), then
// those of ocicni, then libcni's. The kubelet puts the first into an Event of the pod; CRI-O writes the second to its
// log when it starts, and the kubelet gets it of a new pod.

// addFailed is of ADD.
func addFailed(s wire.Sandbox, network string, err error) error {
	return fmt.Errorf("failed to create pod network sandbox %s(%s): error adding pod %s to CNI network %q: %w",
		sandboxName(s), s.ID, podName(s), network, err)
}

// checkFailed is of CHECK. libcni adds no words to the plugin's error then.
func checkFailed(s wire.Sandbox, network string, err error) error {
	return fmt.Errorf("failed to get network status for pod sandbox %s(%s): error checking pod %s for CNI network %q: %w",
		sandboxName(s), s.ID, podName(s), network, err)
}

// notRestored is the line of the log.
func notRestored(s wire.Sandbox, err error) string {
	return fmt.Sprintf("Could not restore sandbox IP for %s: %v", s.ID, err)
}

// sandboxName is made of what the kubelet says of a pod, with the number of the attempt.
func sandboxName(s wire.Sandbox) string {
	return fmt.Sprintf("k8s_%s_%s_%s_0", s.Pod.Name, s.Pod.Namespace, s.Pod.UID)
}

func podName(s wire.Sandbox) string { return s.Pod.Namespace + "_" + s.Pod.Name }
