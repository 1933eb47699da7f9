// Package testnet is a network in which the packet rules of a mesh pod are tested with real packets. It has the network
// namespaces of a pod, of a peer and, behind the pod's second interface, of a virtual machine, connected by veth pairs.
// In them are stand-ins for the sidecar, the app and the servers outside. A Flow is one attempt to reach something, an
// Outcome is where it landed, and Expected says where it should land by Istio's semantics. Expected is written from
// Istio's documentation and rule sets, not from this project's renderer, so that the two can be compared.
//
// Everything runs in the calling process. The kernel's owner of a packet is the credential of its socket's file, at the
// time when the socket was created or accepted. So a Lab has one OS thread per identity, in the identity's namespace,
// that only creates sockets. The package needs root, and is not part of the product.
package testnet
