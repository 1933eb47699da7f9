// Package standin has what stands for a sidecar, an app and a peer in pods that prove that traffic is redirected:
// servers that say who they are, and calls that say who calls. It needs no privilege and nothing of its image, so that
// the same code runs in the end-to-end tests, in `helm test` and in pods of a user's cluster.
//
// A TCP call sends one line, the caller's name, and hears one line: the server's name and the destination that it has
// been asked for. A DNS server here hears and says the same by UDP, without a destination.
package standin
