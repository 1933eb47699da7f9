package netfilter

import (
	"fmt"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/plugin/redirect"
)

// Fake is a Namespace in memory, for tests. The zero value is the namespace of a new pod. It is not safe for concurrent
// use.
type Fake struct {
	Foreign []string          // rules of somebody else: if there are any, Apply fails, and IsForeign holds for its error
	Lacking error             // why no backend works: if set, Apply returns it, and IsUnusable holds for the error
	Skips   []Skipped         // what Apply returns as skipped
	Has     []redirect.Family // what Families returns
	Fail    map[string]error  // by method: an error that it returns instead of doing anything
	Calls   map[string]int    // by method, including "Close": the number of calls

	rules   redirect.RuleSet
	created []string
}

var _ Namespace = (*Fake)(nil)

// Apply stores the rule set in place of the earlier one. As in a real namespace, Created has only what was missing.
func (f *Fake) Apply(backend Backend, rules redirect.RuleSet) (Applied, error) {
	return f.put("Apply", backend, rules)
}

// Replace does what Apply does.
func (f *Fake) Replace(backend Backend, rules redirect.RuleSet) (Applied, error) {
	return f.put("Replace", backend, rules)
}

func (f *Fake) put(method string, backend Backend, rules redirect.RuleSet) (Applied, error) {
	switch err := f.called(method); {
	case err != nil:
		return Applied{}, err
	case f.Lacking != nil:
		return Applied{}, &unusableError{backend, f.Lacking}
	case len(f.Foreign) > 0:
		return Applied{}, &foreignError{f.Foreign}
	}
	applied := Applied{Backend: backend, Skipped: slices.Clone(f.Skips)}
	switch backend {
	case Auto:
		applied.Backend = Nftables
	case Iptables:
		applied.Backend = IptablesNFT
	}
	for _, name := range fakeNames(rules) {
		if !slices.Contains(f.created, name) {
			f.created = append(f.created, name)
			applied.Created = append(applied.Created, name)
		}
	}
	f.rules = rules
	return applied, nil
}

// Check compares the rule set with that of the last Apply. IsDrift holds for the error if they differ.
func (f *Fake) Check(_ Applied, rules redirect.RuleSet) error {
	if err := f.called("Check"); err != nil {
		return err
	}
	if f.rules.Hash() != rules.Hash() {
		return &driftError{[]string{fmt.Sprintf("rule set %s instead of %s", f.rules.Hash(), rules.Hash())}}
	}
	return nil
}

// CheckOutline checks only that there are rules. IsDrift holds for the error if there are none.
func (f *Fake) CheckOutline(Applied, redirect.RuleSet) error {
	if err := f.called("CheckOutline"); err != nil {
		return err
	}
	if len(f.rules.Tables) == 0 {
		return &driftError{[]string{"none are there"}}
	}
	return nil
}

// Remove drops the rule set, and what applied names as created.
func (f *Fake) Remove(applied Applied) error {
	if err := f.called("Remove"); err != nil {
		return err
	}
	f.rules = redirect.RuleSet{}
	f.created = slices.DeleteFunc(f.created, func(name string) bool { return slices.Contains(applied.Created, name) })
	return nil
}

// Families returns Has.
func (f *Fake) Families() ([]redirect.Family, error) { return f.Has, f.called("Families") }

// Close only counts the call.
func (f *Fake) Close() { _ = f.called("Close") }

// Flush drops the rule set, so that Check finds drift.
func (f *Fake) Flush() { f.rules = redirect.RuleSet{} }

// Dump returns the contents of the namespace as text: the rule set in the syntax of nft(8), then one line for
// everything created beside it. It returns "" for an untouched or completely cleaned namespace.
func (f *Fake) Dump() string {
	var out strings.Builder
	out.WriteString(f.rules.String())
	for _, name := range f.created {
		fmt.Fprintf(&out, "created %s\n", name)
	}
	return out.String()
}

func (f *Fake) called(method string) error {
	if f.Calls == nil {
		f.Calls = map[string]int{}
	}
	f.Calls[method]++
	return f.Fail[method]
}

// fakeNames returns the names of what a rule set needs beside its packet rules.
func fakeNames(rules redirect.RuleSet) []string {
	var names []string
	for _, a := range rules.Addresses {
		names = append(names, fmt.Sprintf("address %s dev lo", a.Prefix))
	}
	for _, r := range rules.Routes {
		names = append(names, fmt.Sprintf("%s rule fwmark %d lookup %d", r.Family, r.Mark, r.Table))
	}
	return names
}
