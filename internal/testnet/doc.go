// Package testnet is a network in which the packet rules of a mesh pod are tried with real packets: a pod's network
// namespace, a peer and, behind the pod's second interface, a virtual machine, joined by veth pairs, with stand-ins for
// the sidecar, the app and the servers outside. A Flow is one attempt to reach something, an Outcome is where it
// landed, and Expected says where Istio's semantics want it to land. Expected is written from Istio's documentation and
// its rule sets, not from this project's renderer, so that the two can be compared.
//
// Everything runs inside the calling process. What the kernel calls the owner of a packet is the credential of the file
// behind its socket, taken when the socket is made (or accepted); so a Lab keeps one OS thread per identity, in the
// identity's namespace, that does nothing but make sockets. The package needs root, and is not part of the product.
package testnet
