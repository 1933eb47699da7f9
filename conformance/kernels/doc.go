// Package kernels runs agent, plugin and the operator's tool on a node whose kernel lacks something. scripts/kernels.sh
// boots such kernels. They have no cluster, so the API server, and the runtime's exec in the agent's container, are
// stand-ins; what is asked and answered is real.
package kernels
