// Package standin has the stand-ins for a sidecar, an app and a peer, in pods that prove that traffic is redirected:
// servers that tell their names, and calls that tell the caller's. It needs no privilege and no other file of its
// image, so the same code runs in the end-to-end tests, in `helm test` and in pods of a user's cluster.
//
// A TCP call sends one line, the caller's name. The answer is one line: the server's name and the original destination.
// The DNS server answers in the same form by UDP, without a destination.
package standin
