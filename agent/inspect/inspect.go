// Package inspect has the types of what istio-pod-network-agent inspect prints as JSON: what an agent knows of its
// node. Agents and the operator's tool of different releases read each other's: keys may be added, and none changes its
// meaning. What an older agent does not say is absent.
package inspect

import (
	"time"

	"github.com/istio-pod-network/controller/plugin/look/report"
)

// SocketSuffix is what the path of the socket on which an agent answers has behind that of the plugin's socket.
const SocketSuffix = ".inspect"

// StuckAfter is the default of --stuck-after: how long an init wait may go on before an agent calls it long.
const StuckAfter = time.Minute

// Questions are what an agent of this release can be asked: the words behind inspect.
var Questions = []string{"files", "node", "pod", "rules", "trace"}

// Node is what an agent says of its node.
type Node struct {
	Node  string `json:"node"`
	Agent string `json:"agent"` // its version
	// Questions are what this agent can be asked. Where they are absent it is node alone.
	Questions    []string     `json:"questions,omitempty"`
	Time         time.Time    `json:"time,omitzero"` // by the node's clock
	Plugin       Plugin       `json:"plugin"`
	Installation Installation `json:"installation"`
	Ready        bool         `json:"ready"`
	Checks       []Check      `json:"checks"` // those of /readyz
	Pods         Pods         `json:"pods"`
	// Unchecked is why this agent cannot look whether the rules of its redirected pods are there: of some, or of all.
	Unchecked []Rules `json:"unchecked,omitempty"`
}

// Plugin is the CNI plugin in the node's directory.
type Plugin struct {
	Path    string `json:"path,omitempty"`
	SHA256  string `json:"sha256,omitempty"`  // absent where there is none, or somebody else installs it
	Version string `json:"version,omitempty"` // absent where it is not the one that the agent has installed
}

// shortHash is how many characters of a hash tell it from others.
const shortHash = 12

// Name is the plugin's version, or the beginning of its hash where that is all that is known.
func (p Plugin) Name() string {
	if p.Version != "" {
		return p.Version
	}
	return p.SHA256[:min(shortHash, len(p.SHA256))]
}

// Installation is how the runtime comes to run the plugin.
type Installation struct {
	Managed bool   `json:"managed"` // the agent keeps it; otherwise it knows nothing of it
	Mode    string `json:"mode,omitempty"`
	// Chained is how our entry is in the network: spliced, drop-in, own file or no.
	Chained string `json:"chained,omitempty"`
	Into    string `json:"into,omitempty"` // path of the file that has it
	// Plugins are the types of those that the network is made of, beside ours, in their order.
	Plugins    []string `json:"plugins,omitempty"`
	LastRepair *Repair  `json:"lastRepair,omitempty"` // by this agent; the first installation counts too
}

// Repair is something that was made good in the node's CNI directories.
type Repair struct {
	Time   time.Time `json:"time"`
	Causes []string  `json:"causes"` // those of the metric installation_repairs_total
}

// Check is a line of /readyz.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

// Pods are the node's, as the last look at them found them. Each list has names, NAMESPACE/NAME, sorted.
type Pods struct {
	Redirected int `json:"redirected"` // by their records
	// Left are those that carry mesh annotations and were left untouched, by their records; others have none.
	Left     int      `json:"left"`
	Backends []string `json:"backends"` // that have written the rules of those pods
	Waiting  []string `json:"waiting"`  // whose init wait has not let them go
	// WaitingLong are those whose init wait has been running for longer than --stuck-after, or has given up before.
	WaitingLong []string `json:"waitingLong"`
	Bypassed    []string `json:"bypassed"` // mesh pods whose network was made without the plugin
	Outside     []string `json:"outside"`  // whom what is said now puts into the mesh, and who have no rules
	Older       []string `json:"older"`    // whose rules another release has written
}

// Pod is what an agent says of a pod of its node.
type Pod struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid,omitempty"` // absent where the agent knows no such pod on its node
	// Record is the plugin's that speaks for the pod; absent where there is none.
	Record *Record `json:"record,omitempty"`
	Rules  Rules   `json:"rules"`
	// The others are as in the lists of Pods.
	WaitsLong bool `json:"waitsLong,omitempty"`
	Bypassed  bool `json:"bypassed,omitempty"`
	Outside   bool `json:"outside,omitempty"`
	Older     bool `json:"older,omitempty"`
}

// Record is what the plugin's record says, by the keys of the record.
type Record struct {
	Network     string    `json:"network"`
	IfName      string    `json:"ifName"`
	ContainerID string    `json:"containerID"`
	NetNS       string    `json:"netns"`
	Decision    string    `json:"decision"` // redirect or untouched
	Reason      string    `json:"reason"`
	Detail      string    `json:"detail,omitempty"`
	Backend     string    `json:"backend,omitempty"`
	RuleSetHash string    `json:"ruleSetHash,omitempty"`
	Families    string    `json:"families,omitempty"`
	Skipped     []string  `json:"skipped,omitempty"`
	Time        time.Time `json:"time"`
}

// Trace is what an agent says of a packet in the network of a pod of its node.
type Trace struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid,omitempty"` // absent where the agent knows no such pod on its node
	// Kernel is what istio-pod-network-look prints, or why it was not run.
	Kernel report.Trace `json:"kernel"`
}

// KernelRules is what an agent says of the packet rules in the network of a pod of its node, whoever has written them.
type KernelRules struct {
	Namespace string       `json:"namespace"`
	Name      string       `json:"name"`
	UID       string       `json:"uid,omitempty"` // absent where the agent knows no such pod on its node
	Kernel    report.Rules `json:"kernel"`
}

// Rules is whether a pod's network namespace has the rules that its record says, by the CHECK of the installed plugin.
type Rules struct {
	Looked bool `json:"looked"`
	OK     bool `json:"ok"` // they are what ADD has written
	// Detail says what is not as it should be, or why nobody has looked.
	Detail string `json:"detail,omitempty"`
	// Change is the chart's value with which the agent would have looked.
	Change string `json:"change,omitempty"`
}
