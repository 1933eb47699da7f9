// Package record keeps what ADD leaves on the node for the agent and for the later verbs: one small JSON file per pod
// sandbox and interface, <stateDir>/pods/<containerID>-<ifname>.json.
//
// A file appears under its final name whole or not at all (temporary file in the same directory, fsync, rename, fsync
// of the directory), so a reader that watches the directory may open whatever it sees, and a plugin killed at any point
// leaves at most a temporary file, which GC removes after an hour. A record lives as long as its sandbox: it survives a
// restart of the agent and, on the default tmpfs, is gone with a reboot, as the network namespace is.
//
// Programs of different ages meet here during an upgrade. Keys may be added under the same version, and readers ignore
// the ones they do not know; a version that is not known is an error (IsVersion), never a guess.
//
// The types build for every system, since the operator's tool reads records too. What a node alone has, the directory
// and the network namespaces, is in the files for Linux.
package record
