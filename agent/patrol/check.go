package patrol

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/plugin/record"
)

// seeAlso is the start of the hint at the end of the plugin's errors. It is removed: the user has already run such a
// command.
const seeAlso = "; see: istio-pod-networkctl "

// The plugin's error codes of CHECK for rules that could not be read, and for drift. Source: docs/reference.md.
const (
	codeRules = 101
	codeDrift = 105
)

// beforeCheck are the CNI versions without CHECK; CHECK is in 0.4.0 and later. Source: CHANGELOG of the CNI
// specification.
var beforeCheck = []string{"", "0.1.0", "0.2.0", "0.3.0", "0.3.1"}

const firstWithCheck = "0.4.0"

// Checked is the result of CHECK of the installed plugin for a record.
type Checked struct {
	Looked bool
	Drift  string // differences from what ADD wrote, or why the rules cannot be read; "" if there are none
	Why    string // why the check was not made
	Value  string // the chart's value with which it would be made
}

// Cannot returns why the rules of a backend cannot be checked. The result is zero if they can.
func (r *Repairer) Cannot(backend string) Checked {
	switch {
	case r.Mode != Apply:
		return Checked{Why: "the agent has no rights in pods' network namespaces (--repair=" + string(r.Mode) + ")",
			Value: "repair: apply"}
	case strings.HasPrefix(backend, "iptables"):
		return Checked{Why: "the rules were written by " + backend + ", whose programs the agent's image lacks",
			Value: "backend: nftables, for pods that are made from then on"}
	}
	return Checked{}
}

// Check has the installed plugin compare the rules of a record with those in the kernel, as a runtime does. It changes
// nothing, and waits for other repairs and checks.
func (r *Repairer) Check(ctx context.Context, its record.Record) Checked {
	if its.Decision != record.Redirect {
		return Checked{Why: "the pod was left untouched, so there are no rules to compare"}
	}
	if cannot := r.Cannot(its.Backend); cannot.Why != "" {
		return cannot
	}
	sandboxes := sandboxes{dir: r.CacheDir, netns: r.NetNSDir} // the patrol's own value is in use
	sandbox, netns, err := sandboxes.attached(its)
	if err == nil {
		if slices.Contains(beforeCheck, sandbox.version) {
			sandbox.version = firstWithCheck
		}
		err = r.run(ctx, "CHECK", r.Plugin, sandbox, netns)
	}
	if err == nil {
		return Checked{Looked: true}
	}
	said, _, _ := strings.Cut(strings.TrimSuffix(err.Error(), ": "), seeAlso)
	var refused *refusal
	// Somebody who can change the rules can also prevent that they are read: by more rules than are read, by so many
	// that it takes too long, or by permanent changes.
	switch {
	case errors.As(err, &refused) && (refused.Code == codeDrift || refused.Code == codeRules):
		return Checked{Looked: true, Drift: said}
	case errors.Is(err, context.DeadlineExceeded):
		return Checked{Looked: true, Drift: "they could not be compared in time: the node is overloaded, or somebody " +
			"has filled the pod's network namespace"}
	}
	return Checked{Why: said}
}
