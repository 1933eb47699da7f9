// Package install installs the plugin on a node and chains it into the node's network, keeps it there, and removes it.
//
// The files that it edits belong to others: a primary CNI rewrites its configuration at any time. So package conflist
// changes only the text of our entry, and package exchange loses no update of others and survives a crash.
//
// There are three modes. ModeChain joins the network that the runtime uses. ModeNAD and ModeAux write one file of our
// own for Multus. The package never creates a primary network. docs/install.md describes it for operators.
package install
