package netfilter

import (
	"errors"
	"fmt"
	"strings"

	"github.com/istio-pod-network/controller/plugin/redirect"
	"golang.org/x/sys/unix"
)

// Backend is the name of what writes the packet rules.
type Backend string

// The backends. The last two are the variants of Iptables: Apply reports which one it used, and a configuration may
// require one.
const (
	Auto           Backend = "auto"     // nftables if the kernel supports it, else iptables
	Nftables       Backend = "nftables" // netlink; it runs no program and needs nothing on the host
	Iptables       Backend = "iptables" // the host's iptables-restore, preferably its nft variant
	IptablesNFT    Backend = "iptables-nft"
	IptablesLegacy Backend = "iptables-legacy"
)

// Applied is the result of Apply, which Check and Remove need.
type Applied struct {
	Backend Backend   // Nftables, IptablesNFT or IptablesLegacy
	Created []string  // the names of addresses, policy routes and iptables-nft tables that did not exist before
	Skipped []Skipped // what this kernel or host does not support
}

// Namespace is a pod's network namespace: *NetNS, or Fake in tests.
type Namespace interface {
	Apply(Backend, redirect.RuleSet) (Applied, error)
	Replace(Backend, redirect.RuleSet) (Applied, error)
	Check(Applied, redirect.RuleSet) error
	CheckOutline(Applied, redirect.RuleSet) error
	Remove(Applied) error
	Families() ([]redirect.Family, error)
	Close()
}

var _ Namespace = (*NetNS)(nil)

// foreignError lists rules of Istio's own init container or CNI plugin.
type foreignError struct{ found []string }

func (e *foreignError) Error() string {
	return "the network namespace holds rules of Istio's own init container or CNI plugin: " + strings.Join(e.found, ", ")
}

// IsForeign reports whether err says that somebody else has already redirected the namespace. Nothing was written.
func IsForeign(err error) bool {
	var target *foreignError
	return errors.As(err, &target)
}

// unusableError says that a backend cannot work on this kernel or host.
type unusableError struct {
	backend Backend
	err     error
}

func (e *unusableError) Error() string {
	return fmt.Sprintf("backend %s is not usable: %v", e.backend, e.err)
}
func (e *unusableError) Unwrap() error { return e.err }

// IsUnusable reports whether err says that the backend cannot work on this kernel or host. Nothing was written.
func IsUnusable(err error) bool {
	var target *unusableError
	return errors.As(err, &target)
}

// driftError lists the differences between the kernel's rules and the expected ones.
type driftError struct{ differences []string }

// shownDifferences limits how many differences an error lists: a flushed namespace lacks every rule.
const shownDifferences = 8

func (e *driftError) Error() string {
	shown, more := e.differences, ""
	if len(shown) > shownDifferences {
		more = fmt.Sprintf("; and %d more", len(shown)-shownDifferences)
		shown = shown[:shownDifferences]
	}
	return "the rules differ from what was written: " + strings.Join(shown, "; ") + more
}

// IsDrift reports whether err says that the kernel's rules differ from the expected ones.
func IsDrift(err error) bool {
	var target *driftError
	return errors.As(err, &target)
}

// Apply replaces all rules of ours in the namespace with the rule set, and creates the addresses and routes that it
// needs. On an error it removes what it has made. IsForeign, IsUnusable and IsNetNS tell its errors apart.
func (n *NetNS) Apply(backend Backend, rules redirect.RuleSet) (Applied, error) {
	return n.put(backend, rules, false)
}

// Replace is Apply for a running pod with the complete rules of an earlier Apply. On an error it leaves no table
// without rules that had some. With nftables these are the old rules; they are the new ones if the kernel's answer was
// lost, or if the rules of another backend could not be removed. With iptables, which commits one table of one family
// after the other, some tables may have the old rules and others the new ones. A second call completes the replacement.
func (n *NetNS) Replace(backend Backend, rules redirect.RuleSet) (Applied, error) {
	return n.put(backend, rules, true)
}

// put does the work of Apply and, with keep, of Replace.
func (n *NetNS) put(backend Backend, rules redirect.RuleSet, keep bool) (applied Applied, err error) {
	err = n.Within(func() error {
		applied, err = n.apply(backend, rules, keep)
		if raced(err) {
			// Another Apply has changed the tables since they were scanned; its rules are replaced like any others.
			applied, err = n.apply(backend, rules, keep)
		}
		return err
	})
	return applied, err
}

// raced reports whether err is the kernel's answer about a table that another Apply has created or deleted meanwhile.
func raced(err error) bool { return errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EBUSY) }

func (n *NetNS) apply(backend Backend, rules redirect.RuleSet, keep bool) (Applied, error) {
	found, err := scan()
	if err != nil {
		return Applied{}, err
	}
	if len(found.foreign) > 0 {
		return Applied{}, &foreignError{found.foreign}
	}
	applied, err := n.write(backend, rules, found, keep)
	if err != nil {
		return Applied{}, errors.Join(err, n.takeBack(applied, keep))
	}
	return applied, nil
}

// write runs in the namespace. With an error, it returns what it may have made by then.
func (n *NetNS) write(backend Backend, rules redirect.RuleSet, found state, keep bool) (applied Applied, err error) {
	if rules, applied.Skipped = supported(rules); len(rules.Tables) == 0 {
		return applied, errors.New("no packet rules to write")
	}
	err = writeParts(rules, &applied)
	if err == nil {
		err = n.writeTables(backend, rules, found, keep, &applied)
	}
	if err == nil && len(found.ours) > 0 {
		err = removeParts(unneeded(rules))
	}
	return applied, err
}

// takeBack removes what a failed Apply may have made. applied.Backend is set once something may have been written.
// After a failed Replace it removes addresses and routes only if no rules were written that may need them; they change
// nothing alone.
func (n *NetNS) takeBack(applied Applied, keep bool) error {
	if keep {
		if applied.Backend != "" {
			return nil
		}
		return removeParts(applied.Created)
	}
	return errors.Join(n.takeBackTables(applied), removeParts(applied.Created))
}

// takeBackTables removes the tables of applied.Backend.
func (n *NetNS) takeBackTables(applied Applied) error {
	found, err := scan()
	found.ours = map[Backend][]redirect.Family{applied.Backend: found.ours[applied.Backend]}
	return errors.Join(err, n.dropOther("", found, applied.Created))
}

// dropOther removes what our other backends have written. The new rules are already in force, so no traffic is
// uncaptured in between. It deletes the iptables-nft tables in created if nothing else is in them.
func (n *NetNS) dropOther(now Backend, found state, created []string) (err error) {
	for _, other := range []Backend{Nftables, IptablesNFT, IptablesLegacy} {
		if other == now || len(found.ours[other]) == 0 {
			continue
		}
		if failed := n.removeTables(other, found, created); failed != nil {
			err = errors.Join(err, fmt.Errorf("removing the rules of backend %s: %w", other, failed))
		}
	}
	return err
}

func (n *NetNS) removeTables(backend Backend, found state, created []string) error {
	switch backend {
	case Nftables:
		return removeNFT(found)
	case IptablesNFT:
		return removeCompat(found, redirect.RuleSet{}, created)
	}
	tool, err := n.findTool(backend)
	if err != nil {
		return err
	}
	_, err = tool.write(redirect.RuleSet{}, found)
	return err
}

// Remove removes all rules of ours, of every backend, and the addresses and routes in applied.Created.
func (n *NetNS) Remove(applied Applied) error {
	return n.Within(func() error {
		found, err := scan()
		return errors.Join(err, n.removeFound(applied, found))
	})
}

// removeFound removes the rules of the backends in found.ours, and the addresses and routes in applied.Created.
func (n *NetNS) removeFound(applied Applied, found state) error {
	return errors.Join(n.dropOther("", found, applied.Created), removeParts(applied.Created))
}

// Check compares the kernel's rules, addresses and routes with those that Apply writes for the rule set. IsDrift holds
// for the error if they differ.
func (n *NetNS) Check(applied Applied, rules redirect.RuleSet) error {
	rules, _ = supported(rules)
	var differences []string
	err := n.Within(func() error {
		var err error
		if differences, err = n.compare(applied, rules); err != nil {
			return err
		}
		missing, err := missingParts(rules, func(p part) bool { return skips(applied.Skipped, p) })
		differences = append(differences, missing...)
		return err
	})
	if err == nil && len(differences) > 0 {
		err = &driftError{differences}
	}
	return err
}

func (n *NetNS) compare(applied Applied, rules redirect.RuleSet) ([]string, error) {
	if applied.Backend == Nftables {
		return compareNFT(rules)
	}
	tool, err := n.findTool(applied.Backend)
	if err != nil {
		return nil, err
	}
	return tool.compare(rules, applied.Skipped)
}
