package netfilter

import (
	"fmt"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/plugin/redirect"
)

// Fake is a Namespace in memory, for tests of callers. The zero value is a new pod's namespace. It is not safe for
// concurrent use.
type Fake struct {
	Foreign []string          // rules of somebody else: with any, Apply refuses and IsForeign holds for its error
	Lacking error             // why no backend works: Apply returns it, and IsUnusable holds for its error
	Skips   []Skipped         // what Apply reports as skipped
	Has     []redirect.Family // what Families returns
	Fail    map[string]error  // by method: what it returns instead of doing anything
	Calls   map[string]int    // how often each method was called, "Close" included

	rules   redirect.RuleSet
	created []string
}

var _ Namespace = (*Fake)(nil)

// Apply remembers the rule set in place of the one before. As in a real namespace, Created is only what was not there.
func (f *Fake) Apply(backend Backend, rules redirect.RuleSet) (Applied, error) {
	return f.put("Apply", backend, rules)
}

// Replace is Apply.
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

// Check compares the rule set with the one applied last; IsDrift holds for a difference.
func (f *Fake) Check(_ Applied, rules redirect.RuleSet) error {
	if err := f.called("Check"); err != nil {
		return err
	}
	if f.rules.Hash() != rules.Hash() {
		return &driftError{[]string{fmt.Sprintf("rule set %s instead of %s", f.rules.Hash(), rules.Hash())}}
	}
	return nil
}

// CheckOutline asks only whether there are rules at all.
func (f *Fake) CheckOutline(Applied, redirect.RuleSet) error {
	if err := f.called("CheckOutline"); err != nil {
		return err
	}
	if len(f.rules.Tables) == 0 {
		return &driftError{[]string{"none are there"}}
	}
	return nil
}

// Remove forgets the rule set, and what applied says was created.
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

// Close does nothing but count.
func (f *Fake) Close() { _ = f.called("Close") }

// Flush drops the rule set behind the caller's back, so that Check finds a drift.
func (f *Fake) Flush() { f.rules = redirect.RuleSet{} }

// Dump returns what the namespace holds as text: the rule set in the syntax of nft(8), then one line for each thing
// created beside it. It is "" for a namespace that nobody has touched or that was cleaned up completely.
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

// fakeNames names what a rule set needs beside its packet rules.
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
