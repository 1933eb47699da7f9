// Package node tests the agent, with the plugin and the init wait, as black boxes against a real API server: the
// programs are built, and run on a node of their own with exactly the rights of agent/rbac.yaml. There is no kubelet:
// the tests make pods that are bound to a node, and play the runtime by calling the plugin or leaving its records.
// Requests are counted in the API server's audit log.
package node
