// Package e2e tests the product on a real Kubernetes node: kube-apiserver, controller manager, scheduler, kubelet,
// containerd and runc, with real pods in a namespace of Pod Security `restricted`. In the pods run stand-ins of an app
// and a sidecar, and the init wait; a peer outside tells who has reached it past the sidecar.
package e2e
