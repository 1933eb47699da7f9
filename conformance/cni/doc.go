// Package cni drives the built plugin as a container runtime does: behind real bridge and ptp plugins, through libcni
// and through the real cnitool, in every CNI version that the plugin claims.
//
// The tests need root, nft and a kernel with network namespaces. Their "node" is a mount and network namespace that the
// test binary re-executes itself in, with tmpfs over the directories CNI writes to, so nothing of the machine changes:
// no interface, no rule, no file. The tools are built once, pinned by go.mod, into the user's cache directory.
package cni
