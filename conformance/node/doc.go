// Package node tests agent, plugin and init wait as black boxes against a real API server. The built programs run in
// network and mount namespaces of their own, with exactly the rights in agent/rbac.yaml. There is no kubelet: the tests
// create pods that are bound to a node, and play the runtime by calling the plugin or writing its records. The API
// server's audit log is used to count requests.
package node
