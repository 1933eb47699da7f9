package netfilter

import (
	"errors"
	"fmt"
	"slices"

	"github.com/istio-pod-network/controller/plugin/netfilter/netlink"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"golang.org/x/sys/unix"
)

// iptablesNAT is the priority of the chains in iptables' nat tables, NF_IP_PRI_NAT_DST.
const iptablesNAT = -100

// beforeNAT describes the nat chains of others that run before ours: a connection that one of them translates never
// reaches the sidecar. Of chains with the same priority the newest runs first, and the kernel does not say which that
// is, so they are reported too. Chains without rules are ignored.
func beforeNAT(backend Backend, rules redirect.RuleSet) ([]string, error) {
	chains, err := natCandidates()
	if err != nil && !errors.Is(withoutNFT(err), errNoNFT) { // iptables-legacy needs no nf_tables
		return nil, err
	}
	var names []string
	for _, c := range chains {
		if problem := chainBefore(c, backend, rules); problem != "" {
			names = append(names, problem)
		}
	}
	if backend != IptablesNFT {
		return names, nil
	}
	legacy, err := legacyBefore(rules)
	return append(names, legacy...), err
}

// natCandidates lists the chains of nf_tables.
func natCandidates() ([]object, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return dumpNFT(conn, unix.NFT_MSG_GETCHAIN, unix.AF_UNSPEC, nil)
}

// legacyBefore describes chains of iptables-legacy's nat tables, which have the same priority as those of iptables-nft.
func legacyBefore(rules redirect.RuleSet) (names []string, err error) {
	for _, family := range redirect.Families {
		tables, err := legacyTables(family)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(tables, string(redirect.NAT)) {
			continue
		}
		used, err := legacyHooks(family, string(redirect.NAT))
		if err != nil {
			return nil, err
		}
		for _, hook := range natHooks(rules, family) {
			if used[hookNumber(hook)] {
				names = append(names, fmt.Sprintf("%s table nat of %s: chain %s has rules that may come before ours",
					iptablesName(family), IptablesLegacy, builtinOf[hook]))
			}
		}
	}
	return names, nil
}

// natHooks returns the hooks of our nat chains.
func natHooks(rules redirect.RuleSet, family redirect.Family) (hooks []redirect.Hook) {
	for _, c := range tableOf(rules, family, redirect.NAT).Chains {
		if c.Hook != redirect.Regular {
			hooks = append(hooks, c.Hook)
		}
	}
	return hooks
}

// An attribute that golang.org/x/sys lacks. Source: include/uapi/linux/netfilter/nf_tables.h.
const chainUse = 6 // NFTA_CHAIN_USE: for a base chain, the number of its rules

// chainBefore describes a chain that runs before ours. It returns "" for a chain that does not, and for ours.
func chainBefore(c object, backend Backend, rules redirect.RuleSet) string {
	place := object{attrs: c.attr(unix.NFTA_CHAIN_HOOK)}
	priority := int32(place.number(unix.NFTA_HOOK_PRIORITY))
	table, name := c.text(unix.NFTA_CHAIN_TABLE), c.text(unix.NFTA_CHAIN_NAME)
	ours, family := iptablesNAT, kernelFamily(c.family)
	if backend == Nftables {
		ours = redirect.NAT.Priority()
	}
	switch {
	case c.text(unix.NFTA_CHAIN_TYPE) != "nat", int(priority) > ours, c.number(chainUse) == 0,
		!hooked(rules, c.family, place.number(unix.NFTA_HOOK_HOOKNUM)),
		family != 0 && table == redirect.TableName,
		backend == IptablesNFT && family != 0 && table == string(redirect.NAT) && slices.Contains(compatBuiltins, name):
		return ""
	case int(priority) == ours:
		return fmt.Sprintf("nftables table %s %s chain %s: its rules may come before ours", nfName(c.family), table, name)
	}
	return fmt.Sprintf("nftables table %s %s chain %s: its rules come before ours", nfName(c.family), table, name)
}

// hooked reports whether a nat chain of ours has the hook, in a family that nfproto includes.
func hooked(rules redirect.RuleSet, nfproto uint8, number uint32) bool {
	for _, family := range redirect.Families {
		if kernelFamily(nfproto) != family && nfproto != unix.NFPROTO_INET {
			continue
		}
		for _, hook := range natHooks(rules, family) {
			if hookNumber(hook) == number {
				return true
			}
		}
	}
	return false
}

func nfName(nfproto uint8) string {
	if nfproto == unix.NFPROTO_INET {
		return "inet"
	}
	return kernelFamily(nfproto).String()
}
