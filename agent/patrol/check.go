package patrol

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/plugin/record"
)

// seeAlso begins what the plugin's errors have behind them: by which command the user of this one has come here.
const seeAlso = "; see: istio-pod-networkctl "

// The plugin's errors that CHECK has for rules that could not be read, and for rules that are not what ADD wrote.
// Source: docs/reference.md.
const (
	codeRules = 101
	codeDrift = 105
)

// The versions of CNI that have no CHECK, and the first that has one. Source: CNI specification, CHANGELOG of 0.4.0.
var beforeCheck = []string{"", "0.1.0", "0.2.0", "0.3.0", "0.3.1"}

const firstWithCheck = "0.4.0"

// Checked is what CHECK of the installed plugin says of a record's rules.
type Checked struct {
	Looked bool
	Drift  string // what is not as ADD wrote it, or cannot be read; "" if all is
	Why    string // nobody has looked
	Value  string // the chart's value with which somebody would have
}

// Cannot says why nobody can look at the rules that a backend has written, nothing where somebody can.
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
// nothing, and waits while others repair or look.
func (r *Repairer) Check(ctx context.Context, its record.Record) Checked {
	if its.Decision != record.Redirect {
		return Checked{Why: "the pod was left untouched, so there are no rules to compare"}
	}
	if cannot := r.Cannot(its.Backend); cannot.Why != "" {
		return cannot
	}
	sandboxes := sandboxes{dir: r.CacheDir, netns: r.NetNSDir} // the patrol's own is in use
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
	// Whoever can change rules can keep them from being read, too: more than is read, so much that it takes too long, or
	// others all the time.
	switch {
	case errors.As(err, &refused) && (refused.Code == codeDrift || refused.Code == codeRules):
		return Checked{Looked: true, Drift: said}
	case errors.Is(err, context.DeadlineExceeded):
		return Checked{Looked: true, Drift: "they could not be compared in time: the node is overloaded, or somebody " +
			"has filled the pod's network namespace"}
	}
	return Checked{Why: said}
}
