package netfilter

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/internal/excerpt"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"golang.org/x/sys/unix"
)

// waysOf returns the backends to try, in order, until one works. The legacy variant of iptables comes before the nft
// variant if legacy tables are in use: with both, a namespace would have two chains at each hook.
func waysOf(want Backend, found state) []Backend {
	iptables := []Backend{IptablesNFT, IptablesLegacy}
	if found.legacy {
		iptables = []Backend{IptablesLegacy, IptablesNFT}
	}
	switch want {
	case Auto:
		return append([]Backend{Nftables}, iptables...)
	case Iptables:
		return iptables
	}
	return []Backend{want}
}

// writeTables writes the packet rules with the first backend that works on this kernel and host.
func (n *NetNS) writeTables(want Backend, rules redirect.RuleSet, found state, keep bool, applied *Applied) error {
	ways := waysOf(want, found)
	var reasons refusals
	for _, way := range ways {
		before := *applied
		err := n.writeBy(way, rules, found, applied)
		if err == nil {
			return n.dropOther(way, found, nil)
		}
		var unusable *unusableError
		if !errors.As(err, &unusable) {
			return err
		}
		if reason := unusable.err; len(ways) == 1 {
			reasons = append(reasons, reason)
		} else {
			reasons = append(reasons, fmt.Errorf("%s: %w", way, reason))
		}
		if found, err = n.abandon(applied, before, found, keep); err != nil {
			return append(reasons, err)
		}
	}
	return &unusableError{want, append(reasons, n.remedies(reasons, ways, rules)...)}
}

// refusals are the reasons why something does not work, joined in one line.
type refusals []error

// shownRefusal limits each reason in bytes: iptables-nft reports every rule that the kernel refuses.
const shownRefusal = 240

func (r refusals) Error() string {
	texts := make([]string, len(r))
	for i, err := range r {
		texts[i] = excerpt.Head(err.Error(), shownRefusal)
	}
	return strings.Join(texts, "; ")
}
func (r refusals) Unwrap() []error { return r }

// remedies returns what helps if programs are missing, or if only iptables was tried.
func (n *NetNS) remedies(reasons refusals, tried []Backend, rules redirect.RuleSet) []error {
	var helps []string
	lacks, lacks6 := false, false
	for _, reason := range reasons {
		var program *noProgramError
		if errors.As(reason, &program) {
			lacks, lacks6 = true, lacks6 || program.only
		}
	}
	if lacks {
		helps = append(helps, "install package iptables (on Alpine ip6tables as well)")
	}
	if !slices.Contains(tried, Nftables) && n.mistakesOwners() == nil && tryNFT(rules) == nil {
		helps = append(helps, "use the nftables backend, which works here and needs no program")
	}
	if lacks6 {
		helps = append(helps, "disable IPv6 (net.ipv6.conf.all.disable_ipv6 and .default.disable_ipv6)")
	}
	if len(helps) == 0 {
		return nil
	}
	return []error{errors.New(strings.Join(helps, ", or "))}
}

// abandon removes what a backend has written that turned out not to work, and scans the namespace again. With keep, it
// removes nothing if there were rules of that backend before: the next backend replaces them.
func (n *NetNS) abandon(applied *Applied, before Applied, found state, keep bool) (state, error) {
	if applied.Backend == before.Backend {
		return found, nil
	}
	if !keep || len(found.ours[applied.Backend]) == 0 {
		if err := n.takeBackTables(*applied); err != nil {
			return found, err
		}
		*applied = before
	}
	return scan()
}

// writeBy writes the packet rules with one backend. IsUnusable holds for the error if the backend cannot work here.
func (n *NetNS) writeBy(way Backend, rules redirect.RuleSet, found state, applied *Applied) error {
	if way != IptablesLegacy && found.lacking != nil {
		return &unusableError{way, found.lacking}
	}
	if way == Nftables {
		return n.writeByNFT(rules, found, applied)
	}
	needed, err := neededFamilies()
	if err != nil {
		return err
	}
	needed = slices.DeleteFunc(slices.Clone(needed), func(f redirect.Family) bool { return !hasFamily(rules, f) })
	tool, err := n.findTool(way, needed...)
	if err != nil {
		return err
	}
	applied.Backend = way
	if way == IptablesNFT {
		applied.Created = slices.Concat(applied.Created, missingTables(rules, found))
	}
	skipped, err := tool.write(rules, found)
	if err != nil {
		return blame(way, err, func() error { return tool.try(rules) })
	}
	applied.Skipped = append(applied.Skipped, skipped...)
	return nil
}

func (n *NetNS) writeByNFT(rules redirect.RuleSet, found state, applied *Applied) error {
	if err := n.mistakesOwners(); err != nil {
		return &unusableError{Nftables, err}
	}
	sent, err := writeNFT(rules, found)
	if sent {
		applied.Backend = Nftables
	}
	if err == nil || sent || raced(err) {
		return err
	}
	return blame(Nftables, err, func() error { return tryNFT(rules) })
}

// blame decides whether err is a failure of this network namespace alone, or means that kernel or host lack something:
// try writes the same rules to a new namespace. So the code need not know how a version of the kernel or of iptables
// reports what it lacks.
func blame(way Backend, err error, try func() error) error {
	switch again := try(); {
	case again == nil:
		return err
	case errors.Is(again, errScratch):
		return errors.Join(err, again)
	}
	return &unusableError{way, err}
}

func tryNFT(rules redirect.RuleSet) error {
	return inScratch(func() error {
		_, err := commitNFT(rules, state{})
		return err
	})
}

// try writes the rules of each family to a new network namespace.
func (t *tool) try(rules redirect.RuleSet) error {
	return inScratch(func() (err error) {
		for _, family := range redirect.Families {
			if t.restore[family] != "" && err == nil {
				_, err = t.fill(family, rules)
			}
		}
		return err
	})
}

// Usable reports whether Apply can write these rules on this kernel and host. It writes them to a new network
// namespace, in which IPv6 is disabled if it is disabled in that of the calling thread, the node's. IsUnusable holds
// for its error, unless there was nothing to try it in.
func Usable(backend Backend, rules redirect.RuleSet) error {
	off, err := noIPv6()
	if err != nil {
		return err
	}
	return withScratch(func(n *NetNS) error {
		err := n.Within(func() error { return likePod(off) })
		if err != nil {
			return err
		}
		_, err = n.Apply(backend, rules)
		if err != nil && !IsUnusable(err) {
			err = &unusableError{backend, err}
		}
		return err
	})
}

// likePod prepares the calling thread's network namespace as a runtime does.
func likePod(no6 bool) error {
	if _, err := loopbackFlags(unix.IFF_UP, 0); err != nil || !no6 {
		return err
	}
	return disableIPv6()
}

// disableIPv6 disables IPv6 by the sysctls that noIPv6 reads.
func disableIPv6() error {
	for _, name := range []string{"all", "default"} {
		err := os.WriteFile(ipv6Sysctls+"/conf/"+name+"/disable_ipv6", []byte("1"), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("disabling IPv6 in a scratch network namespace: %w", err)
		}
	}
	return nil
}
