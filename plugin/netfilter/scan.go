package netfilter

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/plugin/netfilter/netlink"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"golang.org/x/sys/unix"
)

// markerChain is an empty chain in every iptables table that we write. Our chains have Istio's names, so the names
// alone do not tell whose they are.
const markerChain = istioPrefix + "POD_NETWORK"

// istioPrefix is the start of the name of each chain of ours and of Istio's.
const istioPrefix = "ISTIO_"

// state is what a namespace has before anything is written.
type state struct {
	ours    map[Backend][]redirect.Family  // a backend without rules has no entry
	compat  map[compatTable]*compatContent // the tables of iptables-nft
	foreign []string                       // rules of Istio's own tools
	legacy  bool                           // iptables-legacy has a table in use
	lacking error                          // why the kernel has no nf_tables; nil if it has
}

// scan looks for packet rules without running a program. In an empty namespace it costs one netlink dump and reads two
// files.
func scan() (state, error) {
	found, err := scanNFT()
	if err != nil && !errors.Is(err, errNoNFT) {
		return state{}, err
	}
	found.lacking = err
	for _, family := range redirect.Families {
		if err := found.scanLegacy(family); err != nil {
			return state{}, err
		}
	}
	return found, nil
}

// scanNFT scans nf_tables: our table, those of iptables-nft, and those of Istio's native nftables mode.
func scanNFT() (state, error) {
	found := state{ours: map[Backend][]redirect.Family{}, compat: map[compatTable]*compatContent{}}
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return found, withoutNFT(err)
	}
	defer conn.Close()
	tables, err := dumpNFT(conn, unix.NFT_MSG_GETTABLE, unix.AF_UNSPEC, nil)
	if err != nil {
		return found, withoutNFT(err)
	}
	for _, t := range tables {
		name, family := t.text(unix.NFTA_TABLE_NAME), kernelFamily(t.family)
		switch {
		case family != 0 && name == redirect.TableName:
			found.ours[Nftables] = append(found.ours[Nftables], family)
		case strings.HasPrefix(name, "istio-proxy-"), strings.HasPrefix(name, "istio-ambient-"):
			found.foreign = append(found.foreign, "nftables table "+name)
		case family != 0 && isCompat(name):
			found.compat[compatTable{family, redirect.Kind(name)}] = &compatContent{
				dormant: isDormant(t), rules: map[string]int{},
			}
		}
	}
	if len(found.compat) == 0 {
		return found, nil
	}
	return found, found.scanCompat(conn)
}

// errNoNFT is the error for a kernel without nf_tables.
var errNoNFT = errors.New("the kernel has no nf_tables")

// isDormant reports whether the rules of a table are not in force (NFT_TABLE_F_DORMANT).
func isDormant(table object) bool {
	return table.number(unix.NFTA_TABLE_FLAGS)&unix.NFT_TABLE_F_DORMANT != 0
}

// withoutNFT returns errNoNFT if err means that the kernel has no nf_tables, and err otherwise.
func withoutNFT(err error) error {
	for _, missing := range []error{unix.EINVAL, unix.EOPNOTSUPP, unix.ENOENT, unix.EPROTONOSUPPORT} {
		if errors.Is(err, missing) {
			return errNoNFT
		}
	}
	return err
}

// kernelFamily returns the family, or 0 for families other than ip and ip6.
func kernelFamily(nfproto uint8) redirect.Family {
	switch nfproto {
	case unix.NFPROTO_IPV4:
		return redirect.IPv4
	case unix.NFPROTO_IPV6:
		return redirect.IPv6
	}
	return 0
}

// iptablesTables are the iptables tables in which rules of ours or of Istio's may be, in the order of writing.
var iptablesTables = []redirect.Kind{redirect.Raw, redirect.Mangle, redirect.Filter, redirect.NAT}

func isCompat(name string) bool { return slices.Contains(iptablesTables, redirect.Kind(name)) }

// assign notes whose the chains of one iptables table are.
func (s *state) assign(backend Backend, family redirect.Family, table string, chains []string) {
	if slices.Contains(chains, markerChain) {
		s.ours[backend] = append(s.ours[backend], family)
		return
	}
	for _, chain := range chains {
		if strings.HasPrefix(chain, istioPrefix) {
			s.foreign = append(s.foreign,
				fmt.Sprintf("chain %s in table %s %s (%s)", chain, iptablesName(family), table, backend))
		}
	}
	slices.Sort(s.foreign)
}

// iptablesName returns the name of the family's command.
func iptablesName(family redirect.Family) string {
	if family == redirect.IPv6 {
		return "ip6tables"
	}
	return "iptables"
}

// scanLegacy scans the tables of iptables-legacy, which nf_tables does not list.
func (s *state) scanLegacy(family redirect.Family) error {
	tables, err := legacyTables(family)
	if err != nil {
		return err
	}
	for _, table := range tables {
		if !isCompat(table) {
			continue
		}
		chains, err := legacyChains(family, table)
		if err != nil {
			return fmt.Errorf("listing iptables-legacy table %s: %w", table, err)
		}
		s.legacy = s.legacy || len(chains) > 0
		s.assign(IptablesLegacy, family, table, chains)
	}
	return nil
}

// legacyTables returns the names of iptables-legacy's tables that are in use in this namespace.
func legacyTables(family redirect.Family) ([]string, error) {
	file := "/proc/thread-self/net/ip_tables_names"
	if family == redirect.IPv6 {
		file = "/proc/thread-self/net/ip6_tables_names"
	}
	names, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // the modules are not loaded
	}
	if err != nil {
		return nil, fmt.Errorf("listing iptables-legacy tables: %w", err)
	}
	return strings.Fields(string(names)), nil
}
