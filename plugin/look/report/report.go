// Package report has what istio-pod-network-look prints: what the kernel has said of a packet, and the rules of a pod.
// The agent reads it, and hands it on to the operator's tool: keys may be added, and none changes its meaning.
package report

// Most bounds what the program prints, in bytes: who has CAP_NET_ADMIN in the pod may have filled its network.
const Most = 1 << 20

// Trace is what became of one packet, by the kernel's own account.
type Trace struct {
	// Why is why nobody knows; "" if the kernel has told it.
	Why string `json:"why,omitempty"`
	// Value is the chart's value with which it would be known.
	Value string `json:"value,omitempty"`
	From  string `json:"from,omitempty"` // address and port, as the pod's kernel saw them first
	To    string `json:"to,omitempty"`
	In    string `json:"in,omitempty"` // the interface that it came by
	Steps []Step `json:"steps,omitempty"`
	End   End    `json:"end,omitzero"`
}

// Step is a rule that took the packet, or the end of a base chain that no rule decided.
type Step struct {
	Hook   string `json:"hook,omitempty"` // of the base chain that led to it, where that is known
	Family string `json:"family"`         // of the table: ip, ip6, inet
	Table  string `json:"table"`
	Chain  string `json:"chain"`
	// Rule is its place in the chain, from 1; 0 for the chain's policy, and where it is not known.
	Rule    int    `json:"rule,omitempty"`
	Verdict string `json:"verdict"` // accept, drop, return, continue, jump CHAIN, goto CHAIN, policy accept, policy drop
}

// Where a packet may end.
const (
	Pod     = "pod"     // it was for a socket of the pod's
	Outside = "outside" // it was leaving the pod
	Dropped = "dropped" // a rule dropped it
)

// End is where the packet was when all rules had been asked. There the program drops it, so nobody receives it.
type End struct {
	Where string `json:"where"`
	To    string `json:"to,omitempty"`   // the destination that it has then
	Link  string `json:"link,omitempty"` // the interface that it came or would have left by
}

// Rules are those of nftables in a pod's network, whoever has written them, without the values that they compare with.
type Rules struct {
	Why    string  `json:"why,omitempty"` // as in Trace
	Value  string  `json:"value,omitempty"`
	Tables []Table `json:"tables"`
	// Legacy are tables of iptables-legacy that are in use, such as ip nat. What is in them is not told.
	Legacy []string `json:"legacy,omitempty"`
}

// Table is one of nftables.
type Table struct {
	Family  string  `json:"family"` // ip, ip6, inet
	Name    string  `json:"name"`
	Dormant bool    `json:"dormant,omitempty"` // its rules are not in force
	Chains  []Chain `json:"chains"`
}

// Chain is one of a table. Type, hook, priority and policy are those of a base chain.
type Chain struct {
	Name     string `json:"name"`
	Type     string `json:"type,omitempty"`
	Hook     string `json:"hook,omitempty"`
	Priority int    `json:"priority,omitempty"`
	Policy   string `json:"policy,omitempty"`
	Rules    []Rule `json:"rules"`
}

// Rule is what a rule looks at and does.
type Rule struct {
	Comment string `json:"comment,omitempty"`
	// Does are its expressions by the kernel's names, such as "meta l4proto, cmp, jump nat-istio-redirect".
	Does string `json:"does"`
}
