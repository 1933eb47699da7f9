// Package redirect is the pure core. It decides from the facts of a pod whether the pod's traffic is redirected through
// its sidecar, and derives the packet rules of both IP families, as data, from the pod's settings.
//
// The flow is Pod -> Decide -> Decision{Verdict, Reason, Spec} -> Spec.RuleSet. The package does no I/O, reads no clock
// and does not look at the machine: equal input gives equal rules everywhere. Package netfilter writes a RuleSet into a
// network namespace.
package redirect
