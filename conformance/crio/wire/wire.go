// Package wire is the protocol between the driver and its caller: a Config as the driver's argument, then one Request
// on each line of its stdin, and one Response on each line of its stdout, all as JSON.
package wire

import "encoding/json"

// Config is CRI-O's configuration, and where it stores what it needs after a restart.
type Config struct {
	Minor          int      // of CRI-O 1.x
	DefaultNetwork string   // cni_default_network; empty for the first
	ConfDir        string   // network_dir
	BinDirs        []string // plugin_dirs
	CacheDir       string   // libcni's
	NetNSDir       string   // directory of the pinned network namespaces
	StateDir       string   // the driver's own
}

// Values of Request.Do.
const (
	Network   = "network"   // the network of new pods
	Run       = "run"       // RunPodSandbox of Pod
	Stop      = "stop"      // StopPodSandbox and RemovePodSandbox of ID
	Sandboxes = "sandboxes" // all sandboxes
	Calls     = "calls"     // calls of plugins since the last request
)

// Request is a request to the driver.
type Request struct {
	Do  string
	Pod Pod    // for Run
	ID  string // for Stop
}

// Pod is what the kubelet passes of a pod.
type Pod struct {
	Namespace, Name, UID string
	Annotations          map[string]string
}

// Sandbox is the sandbox of a pod.
type Sandbox struct {
	ID    string
	Pod   Pod
	NetNS string // path
	// Addresses are the pod's addresses. After a failed CHECK there are none, and the kubelet makes the sandbox again.
	Addresses []string
	// Failed says that a DEL has failed.
	Failed bool
}

// NetworkOf is a network: its name, and the types of its plugins in their order.
type NetworkOf struct {
	Name    string
	Plugins []string
}

// Call is a call of a plugin.
type Call struct {
	Verb, Plugin       string
	ContainerID, NetNS string
	Args               string // CNI_ARGS
	Config             json.RawMessage
	Error              string // empty if it succeeded
}

// Response is the response to a Request.
type Response struct {
	Error     string // empty if it succeeded
	Network   NetworkOf
	Sandbox   Sandbox
	Sandboxes []Sandbox
	Calls     []Call
}
