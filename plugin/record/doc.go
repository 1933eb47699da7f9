// Package record stores what ADD leaves on the node for the agent and for CHECK, DEL and GC: one small JSON file per
// attachment, <stateDir>/pods/<containerID>-<ifname>.json.
//
// A file appears complete under its final name, or not at all: Put writes a temporary file in the same directory, calls
// fsync, renames it, and calls fsync on the directory. So a watcher of the directory may open any file that it sees. A
// plugin that is killed leaves at most a temporary file, which RemoveStale removes later. A record lives as long as its
// sandbox: it survives a restart of the agent, and on the default tmpfs a reboot removes it, as it removes the network
// namespace.
//
// During an upgrade, programs of several releases read the same records. A release may add keys without a new version,
// and readers ignore unknown keys. An unknown version is an error (IsVersion).
//
// The types build for every system, because the operator's tool reads records too. The directory and the network
// namespaces build for Linux only.
package record
