// Package install puts the plugin on a node and into its network, keeps it there, and takes it out again.
//
// Others own the files that it edits: a primary CNI rewrites its configuration at any time. So package conflist changes
// the text only where our entry goes, and package exchange loses no update by others and survives a crash.
//
// There are three modes. ModeChain joins the network that the runtime uses. ModeNAD and ModeAux write one file of our
// own for Multus. The package never makes a primary network. docs/install.md describes it for operators.
package install
