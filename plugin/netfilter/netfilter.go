package netfilter

import (
	"errors"
	"fmt"
	"strings"

	"github.com/istio-pod-network/controller/plugin/redirect"
	"golang.org/x/sys/unix"
)

// Backend names what writes the packet rules.
type Backend string

// The backends. The last two are the ways of Iptables: what Apply reports, and accepted to force one.
const (
	Auto           Backend = "auto"     // nftables where the kernel takes it, else iptables
	Nftables       Backend = "nftables" // netlink; no program, nothing needed on the host
	Iptables       Backend = "iptables" // iptables-restore of the host, its nft way where the kernel takes it
	IptablesNFT    Backend = "iptables-nft"
	IptablesLegacy Backend = "iptables-legacy"
)

// Applied is what Apply did, as Check and Remove need it again.
type Applied struct {
	Backend Backend   // Nftables, IptablesNFT or IptablesLegacy
	Created []string  // the names of addresses, policy routes and iptables-nft tables that were not there before
	Skipped []Skipped // what this kernel or host cannot have
}

// Namespace is what a caller needs of a pod's network namespace: *NetNS, or Fake in tests.
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

// foreignError names rules of Istio's own init container or CNI plugin.
type foreignError struct{ found []string }

func (e *foreignError) Error() string {
	return "the network namespace holds rules of Istio's own init container or CNI plugin: " + strings.Join(e.found, ", ")
}

// IsForeign reports whether err says that somebody else has redirected the namespace already. Nothing was written.
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

// driftError lists the differences between what the kernel holds and what should be there.
type driftError struct{ differences []string }

// shownDifferences bounds what an error lists: a flushed namespace differs in every rule.
const shownDifferences = 8

func (e *driftError) Error() string {
	shown, more := e.differences, ""
	if len(shown) > shownDifferences {
		more = fmt.Sprintf("; and %d more", len(shown)-shownDifferences)
		shown = shown[:shownDifferences]
	}
	return "the rules differ from what was written: " + strings.Join(shown, "; ") + more
}

// IsDrift reports whether err says that the kernel does not hold the expected rules.
func IsDrift(err error) bool {
	var target *driftError
	return errors.As(err, &target)
}

// Apply makes the namespace hold exactly the rule set, whatever of ours it held before. If it returns an error, what it
// made is removed again.
func (n *NetNS) Apply(backend Backend, rules redirect.RuleSet) (Applied, error) {
	return n.put(backend, rules, false)
}

// Replace is Apply for a pod that runs with the complete rules of an earlier one. If it returns an error, no table is
// without rules that had some: with nftables they are those of before, or, where the kernel's answer was lost or the
// rules of another backend stay, those of now. With iptables, which commits one table of one family after the other,
// some tables may have those of before and others those of now. To call it again makes up for it.
func (n *NetNS) Replace(backend Backend, rules redirect.RuleSet) (Applied, error) {
	return n.put(backend, rules, true)
}

// put makes the namespace hold exactly the rule set; with keep, a failure takes no rules away that were there.
func (n *NetNS) put(backend Backend, rules redirect.RuleSet, keep bool) (applied Applied, err error) {
	err = n.Within(func() error {
		applied, err = n.apply(backend, rules, keep)
		if raced(err) {
			// Another Apply was between our look and our transaction; its rules are replaced like any earlier ones.
			applied, err = n.apply(backend, rules, keep)
		}
		return err
	})
	return applied, err
}

// raced reports whether err is what the kernel says of a table that another Apply has made or taken away meanwhile.
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

// write runs inside the namespace. With an error, it returns what it may have done by then.
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

// takeBack removes what a failed Apply may have written by now: applied names the backend from its first write on. Of a
// failed Replace it is what was made for rules that are not there. Where they may be, it stays: it does nothing by
// itself.
func (n *NetNS) takeBack(applied Applied, keep bool) error {
	if keep {
		if applied.Backend != "" {
			return nil
		}
		return removeParts(applied.Created)
	}
	return errors.Join(n.takeBackTables(applied), removeParts(applied.Created))
}

// takeBackTables removes the tables of the backend that applied names.
func (n *NetNS) takeBackTables(applied Applied) error {
	found, err := scan()
	found.ours = map[Backend][]redirect.Family{applied.Backend: found.ours[applied.Backend]}
	return errors.Join(err, n.dropOther("", found, applied.Created))
}

// dropOther removes what our other backends had written; the new rules are in force already, so nothing is open
// between. Of iptables-nft's tables it removes those that are named in created, if nothing else is in them.
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

// Remove takes out every rule of ours, of whichever backend, and the addresses and routes that Apply created.
func (n *NetNS) Remove(applied Applied) error {
	return n.Within(func() error {
		found, err := scan()
		return errors.Join(err, n.removeFound(applied, found))
	})
}

// removeFound takes out the rules of the backends that found names as ours, and what Apply created.
func (n *NetNS) removeFound(applied Applied, found state) error {
	return errors.Join(n.dropOther("", found, applied.Created), removeParts(applied.Created))
}

// Check compares what the kernel holds with the rule set as Apply wrote it; IsDrift holds for a difference.
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
