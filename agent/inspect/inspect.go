// Package inspect has the types that istio-pod-network-agent inspect and probe print as JSON: what an agent knows of
// its node. Agents and operator's tools of different releases read each other's JSON. So keys may be added, but the
// meaning of a key never changes. What an older agent does not know is absent.
package inspect

import (
	"time"

	"github.com/istio-pod-network/controller/plugin/look/report"
)

// SocketSuffix is appended to the path of the plugin's socket: that is the path of the agent's inspect socket.
const SocketSuffix = ".inspect"

// StuckAfter is the default of --stuck-after: how long an init wait may run before the agent reports it.
const StuckAfter = time.Minute

// Questions are the arguments of inspect that an agent of this release knows.
var Questions = []string{"files", "node", "pod", "rules", "trace"}

// Node is what an agent says of its node.
type Node struct {
	Node  string `json:"node"`
	Agent string `json:"agent"` // its version
	// Questions are the arguments of inspect that this agent knows. If absent, it knows node alone.
	Questions    []string     `json:"questions,omitempty"`
	Time         time.Time    `json:"time,omitzero"` // by the node's clock
	Plugin       Plugin       `json:"plugin"`
	Installation Installation `json:"installation"`
	Ready        bool         `json:"ready"`
	Checks       []Check      `json:"checks"` // those of /readyz
	Pods         Pods         `json:"pods"`
	// Unchecked is why this agent cannot check the rules of redirected pods. It may hold for some of them only.
	Unchecked []Rules `json:"unchecked,omitempty"`
}

// Plugin is the CNI plugin in the node's plugin directory.
type Plugin struct {
	Path    string `json:"path,omitempty"`
	SHA256  string `json:"sha256,omitempty"`  // absent if there is no plugin, or the agent does not install it
	Version string `json:"version,omitempty"` // absent unless it is the agent's own plugin
}

// shortHash is how many hexadecimal digits of a hash Name returns.
const shortHash = 12

// Name returns the plugin's version. If that is unknown, it returns the first digits of the plugin's hash.
func (p Plugin) Name() string {
	if p.Version != "" {
		return p.Version
	}
	return p.SHA256[:min(shortHash, len(p.SHA256))]
}

// Installation says how the runtime comes to run the plugin.
type Installation struct {
	Managed bool   `json:"managed"` // the agent installs the plugin; otherwise the other fields are empty
	Mode    string `json:"mode,omitempty"`
	// Chained is how our entry is in the network: spliced, drop-in, own file or no.
	Chained string `json:"chained,omitempty"`
	Into    string `json:"into,omitempty"` // path of the file with our entry
	// Plugins are the types of the network's other plugins, in their order.
	Plugins    []string `json:"plugins,omitempty"`
	LastRepair *Repair  `json:"lastRepair,omitempty"` // by this agent; the first installation counts too
}

// Repair is a repair of the installation in the node's CNI directories.
type Repair struct {
	Time   time.Time `json:"time"`
	Causes []string  `json:"causes"` // values of the label cause of the metric installation_repairs_total
}

// Check is a line of /readyz.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

// Pods counts and lists the node's pods, as of the last look. The lists have NAMESPACE/NAME and are sorted.
type Pods struct {
	Redirected int `json:"redirected"` // pods whose record says redirect
	// Left is the number of pods whose record says untouched. Only pods with mesh annotations have such a record.
	Left     int      `json:"left"`
	Backends []string `json:"backends"` // backends of the redirected pods
	Waiting  []string `json:"waiting"`  // pods whose init wait has not ended
	// WaitingLong are pods whose init wait has been running longer than --stuck-after, or has failed before.
	WaitingLong []string `json:"waitingLong"`
	Bypassed    []string `json:"bypassed"` // mesh pods whose network was made without the plugin
	Outside     []string `json:"outside"`  // pods without rules that would be in the mesh if they were made now
	Older       []string `json:"older"`    // pods whose rules were written by another release
}

// Pod is what an agent says of a pod of its node.
type Pod struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid,omitempty"` // absent if the agent does not know the pod
	// Record is the pod's current record; absent if there is none.
	Record *Record `json:"record,omitempty"`
	Rules  Rules   `json:"rules"`
	// The others have the meaning of the lists of the same name in Pods; WaitsLong is that of WaitingLong.
	WaitsLong bool `json:"waitsLong,omitempty"`
	Bypassed  bool `json:"bypassed,omitempty"`
	Outside   bool `json:"outside,omitempty"`
	Older     bool `json:"older,omitempty"`
}

// Record has the content of the plugin's record, under the same keys.
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

// Trace is what an agent says of a packet in a pod's network.
type Trace struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid,omitempty"` // absent if the agent does not know the pod
	// Kernel is the output of istio-pod-network-look, or why it was not run.
	Kernel report.Trace `json:"kernel"`
}

// KernelRules has all packet rules in a pod's network, whoever has written them.
type KernelRules struct {
	Namespace string       `json:"namespace"`
	Name      string       `json:"name"`
	UID       string       `json:"uid,omitempty"` // absent if the agent does not know the pod
	Kernel    report.Rules `json:"kernel"`
}

// Rules says whether a network namespace has the expected rules, for a pod by CHECK of the installed plugin.
type Rules struct {
	Looked bool `json:"looked"`
	OK     bool `json:"ok"` // the rules are those that ADD wrote
	// Detail says what differs, or why the rules were not checked.
	Detail string `json:"detail,omitempty"`
	// Change is the chart's value with which the agent could have checked.
	Change string `json:"change,omitempty"`
}
