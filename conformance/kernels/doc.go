// Package kernels runs agent, plugin and operator's tool on a node whose kernel lacks something. scripts/kernels.sh
// boots such kernels. There is no cluster there, so stand-ins replace the API server and the runtime's exec. The
// programs and their questions are real.
package kernels
