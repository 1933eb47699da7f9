// Package report is what the program istio-pod-network-flows writes: one line of JSON for each flow.
package report

import (
	"encoding/json"
	"strings"
)

// Flows by name. An attempt to get around the sidecar has the name Escape and its own.
const (
	Outbound         = "outbound"          // the app calls
	Inbound          = "inbound"           // the app is called
	DNS              = "dns"               // the app asks a DNS server by UDP
	DNSOverTCP       = "dns-tcp"           // likewise by TCP
	ExcludedOutbound = "excluded-outbound" // the app calls a port that its pod excludes
	ExcludedInbound  = "excluded-inbound"  // the app is called at a port that its pod excludes
	ProxyOutbound    = "proxy-outbound"    // the sidecar calls for the app
	ProxyInbound     = "proxy-inbound"     // the sidecar calls the pod's own address
	Escape           = "escape/"
	// Beside Istio's own sidecar:
	HeldOutbound = "held-outbound" // the app calls whom its namespace does not let it call
	HeldInbound  = "held-inbound"  // the app is called without mTLS, which its namespace demands
	MTLS         = "mtls"          // the app calls another of the mesh
)

// Ports that a pod has to exclude for ExcludedOutbound and ExcludedInbound.
const (
	ExcludedOutboundPort = 8082
	ExcludedInboundPort  = 8090
)

// Peer is the name by which a peer answers, and Sidecar that of Istio's own sidecar, which is known by what it does.
const (
	Peer    = "peer"
	Sidecar = "sidecar"
)

// Secret is the variable of the environment by which the pods of a run know each other: only who has it is answered,
// and only its answers count. An image of a release before knows none.
const Secret = "ISTIO_POD_NETWORK_FLOWS_SECRET"

// Sealed is a line of the peer's log that says that it has a secret.
const Sealed = "only who knows the secret is heard"

// Stranger is the name of who answers and does not know the secret.
const Stranger = "somebody else"

// Result is what became of a flow.
type Result struct {
	Flow   string `json:"flow"`
	Family string `json:"family"`          // IPv4 or IPv6
	To     string `json:"to"`              // address and port that was called
	Want   string `json:"want"`            // who has to answer; of an attempt: who must not
	Got    string `json:"got,omitempty"`   // who did
	Error  string `json:"error,omitempty"` // why nobody did
	Well   bool   `json:"well"`
	// Unmade is why an attempt could not be made: it proves nothing.
	Unmade string `json:"unmade,omitempty"`
	// NoControl says of an attempt that it needs the rules of the mesh: no pod outside can show that it is one.
	NoControl bool `json:"noControl,omitempty"`
}

// Caller is the name by which a pod calls in a flow.
func (r Result) Caller(pod string) string { return strings.Join([]string{pod, r.Flow, r.Family}, " ") }

// IsEscape reports whether it is of an attempt to get around the sidecar.
func (r Result) IsEscape() bool { return strings.HasPrefix(r.Flow, Escape) }

// Line is the result as it is written.
func (r Result) Line() string {
	data, err := json.Marshal(r)
	if err != nil {
		panic(err) // texts and truth values
	}
	return string(data)
}

// Parse reads the results of a log, whose other lines are somebody else's.
func Parse(log string) (all []Result) {
	for line := range strings.Lines(log) {
		var r Result
		if json.Unmarshal([]byte(line), &r) == nil && r.Flow != "" && r.Family != "" {
			all = append(all, r)
		}
	}
	return all
}

// Reached begins a line of the peer's log: the name of a caller who has come to it directly follows.
const Reached = "reached "

// Callers returns the names of those who have reached the peer, by its log.
func Callers(log string) map[string]bool {
	all := map[string]bool{}
	for line := range strings.Lines(log) {
		if name, found := strings.CutPrefix(strings.TrimSpace(line), Reached); found {
			all[name] = true
		}
	}
	return all
}
