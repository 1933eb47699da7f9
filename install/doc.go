// Package install puts the plugin on a node and into its network, keeps it there, and takes it out again.
//
// Others own the files it works on: a primary CNI rewrites its configuration whenever it likes. So an edit changes the
// text only where our entry goes (Splice, Unsplice; both pure), every file appears whole or not at all, and an edit
// exchanges two names instead of replacing one: what was there is in our hands afterwards, and if it is not what the
// edit was made from, the edit is made again from that. Nothing of a foreign update is lost, also when the process is
// killed at that moment: the next pass finds what was exchanged (see exchange).
//
// There are three modes. ModeChain joins the network that the runtime uses, ModeNAD and ModeAux write one file of our
// own for Multus. The package never invents a primary network. docs/install.md describes it for operators.
package install
