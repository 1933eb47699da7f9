// Package shapes tests the installer and the agent on nodes as people have them: one row for each shape of a node, by
// owner, mount, link, version, directory and fight. Each shape is made twice. On one, the built installer is run by
// hand. On the other, the built agent runs, with an API server that all of them share. On each, libcni makes a mesh pod
// and a pod outside the mesh, as the runtime of that node does. Either the node is ready and both start, the first one
// with its rules and the second one without. Or the node is not ready, the reason is reported, and pods start as they
// did before.
//
// Every preset of the chart has a node of its distribution, too: a root directory in which the runtime runs, and
// another one for the agent's container, with the mounts of the rendered DaemonSet.
//
// The tests need root. Package cni describes their node.
package shapes
