// Package wire is what the driver and whoever runs it say to each other: a Config as the driver's argument, then one
// Request a line on its stdin, and one Response a line on its stdout, all in JSON.
package wire

import "encoding/json"

// Config is what CRI-O is configured with, and where it keeps what it has to know after a restart.
type Config struct {
	Minor          int      // of CRI-O 1.x
	DefaultNetwork string   // cni_default_network; empty: the first
	ConfDir        string   // network_dir
	BinDirs        []string // plugin_dirs
	CacheDir       string   // libcni's
	NetNSDir       string   // in which network namespaces are pinned
	StateDir       string   // of the driver's own
}

// What a Request asks for.
const (
	Network   = "network"   // the one that pods get now
	Run       = "run"       // RunPodSandbox of Pod
	Stop      = "stop"      // StopPodSandbox and RemovePodSandbox of ID
	Sandboxes = "sandboxes" // all
	Calls     = "calls"     // of plugins since the last question
)

// Request is one.
type Request struct {
	Do  string
	Pod Pod    // for Run
	ID  string // for Stop
}

// Pod is what the kubelet says of one.
type Pod struct {
	Namespace, Name, UID string
	Annotations          map[string]string
}

// Sandbox is one of a pod.
type Sandbox struct {
	ID    string
	Pod   Pod
	NetNS string // path
	// Addresses of the pod: none after a CHECK that has failed, and the kubelet then makes the pod again.
	Addresses []string
	// Failed says that a DEL has failed.
	Failed bool
}

// NetworkOf is a network: its name, and the types of its plugins in their order.
type NetworkOf struct {
	Name    string
	Plugins []string
}

// Call is one of a plugin.
type Call struct {
	Verb, Plugin       string
	ContainerID, NetNS string
	Args               string // CNI_ARGS
	Config             json.RawMessage
	Error              string // empty: it has succeeded
}

// Response answers a Request.
type Response struct {
	Error     string // why it has failed
	Network   NetworkOf
	Sandbox   Sandbox
	Sandboxes []Sandbox
	Calls     []Call
}
