// Package redirect is the pure core: from what is known of a pod it decides whether the pod's traffic goes through its
// sidecar, and from the pod's settings it derives the packet rules of both IP families as data.
//
// The flow is Pod -> Decide -> Decision{Verdict, Reason, Spec} -> Spec.RuleSet. Nothing here does I/O, reads a clock or
// looks at the machine: the same input gives the same rule set everywhere. Package netfilter makes a network namespace
// match a RuleSet.
package redirect
