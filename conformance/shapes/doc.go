// Package shapes tests the installer and the agent on nodes as people have them: one row for each shape of a node, by
// owner, mount, link, version, directory and fight. Each shape is made twice. On the one the built installer is run by
// hand; on the other the built agent runs, with the API server that all of them share. On each, libcni makes a pod of
// the mesh and one outside of it, as the runtime of that node does. Either the node is ready, and both start, the one
// with its rules and the other without; or it is not ready, the reason is said, and pods start as they did before.
//
// Every preset of the chart has a node of its distribution, too: a root directory, in which the runtime runs, and
// another for the agent's container, with the mounts that the rendered DaemonSet asks for.
//
// The tests need root; see package cni for what their node is.
package shapes
