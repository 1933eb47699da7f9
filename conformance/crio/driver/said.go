package main

import (
	"fmt"

	"github.com/istio-pod-network/controller/conformance/crio/wire"
)

// CRI-O's error texts, as of 1.28 to 1.37: its own words (server/sandbox_network.go and server.go), then those of
// ocicni, then libcni's. The kubelet puts the error of ADD into an Event of the pod. CRI-O returns the error of CHECK
// to the kubelet for a new pod, and logs it at its start.

// addFailed returns the error of ADD.
func addFailed(s wire.Sandbox, network string, err error) error {
	return fmt.Errorf("failed to create pod network sandbox %s(%s): error adding pod %s to CNI network %q: %w",
		sandboxName(s), s.ID, podName(s), network, err)
}

// checkFailed returns the error of CHECK. libcni adds no words of its own to the plugin's error.
func checkFailed(s wire.Sandbox, network string, err error) error {
	return fmt.Errorf("failed to get network status for pod sandbox %s(%s): error checking pod %s for CNI network %q: %w",
		sandboxName(s), s.ID, podName(s), network, err)
}

// notRestored returns the line in the log.
func notRestored(s wire.Sandbox, err error) string {
	return fmt.Sprintf("Could not restore sandbox IP for %s: %v", s.ID, err)
}

// sandboxName returns CRI-O's name of a sandbox: the pod's names and the number of the attempt.
func sandboxName(s wire.Sandbox) string {
	return fmt.Sprintf("k8s_%s_%s_%s_0", s.Pod.Name, s.Pod.Namespace, s.Pod.UID)
}

func podName(s wire.Sandbox) string { return s.Pod.Namespace + "_" + s.Pod.Name }
