// Package report is the output of the program istio-pod-network-flows: one line of JSON for each flow, and a few lines
// of the peer's log.
package report

import (
	"encoding/json"
	"strings"
)

// Names of flows. The flow of an attempt to get around the sidecar is Escape, followed by the attempt's name.
const (
	Outbound         = "outbound"          // the app calls
	Inbound          = "inbound"           // the app is called
	DNS              = "dns"               // the app queries a DNS server by UDP
	DNSOverTCP       = "dns-tcp"           // the app queries a DNS server by TCP
	ExcludedOutbound = "excluded-outbound" // the app calls a port that its pod excludes from capture
	ExcludedInbound  = "excluded-inbound"  // the app is called at a port that its pod excludes from capture
	ProxyOutbound    = "proxy-outbound"    // the sidecar calls for the app
	ProxyInbound     = "proxy-inbound"     // the sidecar calls the pod's own address
	Escape           = "escape/"
	// Flows beside Istio's own sidecar only.
	HeldOutbound = "held-outbound" // the app makes a call that its namespace forbids
	HeldInbound  = "held-inbound"  // the app is called without mTLS, which its namespace requires
	MTLS         = "mtls"          // the app calls another app in the mesh
)

// Ports that a pod has to exclude from capture for ExcludedOutbound and ExcludedInbound.
const (
	ExcludedOutboundPort = 8082
	ExcludedInboundPort  = 8090
)

// Names in Result.Want and Result.Got: Peer is a peer, Sidecar is Istio's own sidecar, which is recognised by what it
// does.
const (
	Peer    = "peer"
	Sidecar = "sidecar"
)

// Secret is the environment variable with the secret that the pods of a run share. A peer answers only callers that
// know it, and only answers that prove it count. Images of earlier releases ignore it.
const Secret = "ISTIO_POD_NETWORK_FLOWS_SECRET"

// Sealed is the line of the peer's log that says that it has a secret.
const Sealed = "only who knows the secret is heard"

// Stranger is the name in Result.Got for an answer without the secret.
const Stranger = "somebody else"

// Result is the outcome of a flow.
type Result struct {
	Flow   string `json:"flow"`
	Family string `json:"family"`          // IPv4 or IPv6
	To     string `json:"to"`              // the address and port that was called
	Want   string `json:"want"`            // who has to answer; for an attempt, who must not
	Got    string `json:"got,omitempty"`   // who answered
	Error  string `json:"error,omitempty"` // why nobody answered
	Well   bool   `json:"well"`
	// Unmade says why an attempt could not be made. It then proves nothing.
	Unmade string `json:"unmade,omitempty"`
	// NoControl says that an attempt needs the rules of the mesh, so that a pod outside the mesh cannot be its control.
	NoControl bool `json:"noControl,omitempty"`
}

// Caller returns the name that the pod uses as a caller in this flow.
func (r Result) Caller(pod string) string { return strings.Join([]string{pod, r.Flow, r.Family}, " ") }

// IsEscape reports whether the flow is an attempt to get around the sidecar.
func (r Result) IsEscape() bool { return strings.HasPrefix(r.Flow, Escape) }

// Line returns the result as one line of JSON, without a line feed.
func (r Result) Line() string {
	data, err := json.Marshal(r)
	if err != nil {
		panic(err) // impossible: Result has only strings and booleans
	}
	return string(data)
}

// Parse returns the results in a log, and ignores all other lines.
func Parse(log string) (all []Result) {
	for line := range strings.Lines(log) {
		var r Result
		if json.Unmarshal([]byte(line), &r) == nil && r.Flow != "" && r.Family != "" {
			all = append(all, r)
		}
	}
	return all
}

// Reached is the start of a line in the peer's log. The name of a caller that has reached the peer follows.
const Reached = "reached "

// Callers returns the names of the callers in the peer's log.
func Callers(log string) map[string]bool {
	all := map[string]bool{}
	for line := range strings.Lines(log) {
		if name, found := strings.CutPrefix(strings.TrimSpace(line), Reached); found {
			all[name] = true
		}
	}
	return all
}
