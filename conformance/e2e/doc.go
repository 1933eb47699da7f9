// Package e2e tests the product on real Kubernetes nodes: kube-apiserver, controller manager, scheduler, kubelet,
// containerd and runc, with real pods in namespaces that enforce Pod Security `restricted`. The pods contain stand-ins
// of an app and a sidecar, and the init wait. A peer outside the nodes counts the connections that reach it without
// going through a sidecar.
package e2e
