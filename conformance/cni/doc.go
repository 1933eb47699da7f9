// Package cni drives the built plugin as a container runtime does: behind real bridge and ptp plugins, through libcni
// and through the real cnitool, in every CNI version that the plugin supports.
//
// The tests need root, nft and a kernel with network namespaces. Their node is a mount and network namespace in which
// the test binary re-executes itself, with a tmpfs over the directories that CNI writes to. So they change no
// interface, no rule and no file of the machine. The tools have versions from go.mod and are built once, into the
// user's cache directory.
package cni
