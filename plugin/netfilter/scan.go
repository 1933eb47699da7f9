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

// markerChain is an empty chain in every iptables table that we write: Istio's chain names are ours too, so the names
// alone do not tell whose they are.
const markerChain = istioPrefix + "POD_NETWORK"

// istioPrefix begins the name of every chain of ours and of Istio's.
const istioPrefix = "ISTIO_"

// state is what a namespace holds before something is written.
type state struct {
	ours    map[Backend][]redirect.Family  // a backend that wrote nothing has no entry
	compat  map[compatTable]*compatContent // tables of iptables-nft
	foreign []string                       // rules of Istio's own tools
	legacy  bool                           // some iptables-legacy table is in use
	lacking error                          // why there can be nothing of nf_tables, nil if there can
}

// scan looks for packet rules without executing a program. It costs one netlink dump and two file reads in a namespace
// that holds none.
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

// scanNFT looks at the nf_tables side: our table, iptables-nft's tables, and the tables of Istio's native nftables
// mode.
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

// errNoNFT is the error of a kernel without nf_tables.
var errNoNFT = errors.New("the kernel has no nf_tables")

// isDormant reports whether the rules of a table are not in force.
func isDormant(table object) bool {
	return table.number(unix.NFTA_TABLE_FLAGS)&unix.NFT_TABLE_F_DORMANT != 0
}

// withoutNFT tells a kernel without nf_tables, where nothing can be, from one that did not answer.
func withoutNFT(err error) error {
	for _, missing := range []error{unix.EINVAL, unix.EOPNOTSUPP, unix.ENOENT, unix.EPROTONOSUPPORT} {
		if errors.Is(err, missing) {
			return errNoNFT
		}
	}
	return err
}

// kernelFamily returns 0 for families other than ip and ip6.
func kernelFamily(nfproto uint8) redirect.Family {
	switch nfproto {
	case unix.NFPROTO_IPV4:
		return redirect.IPv4
	case unix.NFPROTO_IPV6:
		return redirect.IPv6
	}
	return 0
}

// iptablesTables are the tables that iptables rules of ours or Istio's live in, in the order in which they are written.
var iptablesTables = []redirect.Kind{redirect.Raw, redirect.Mangle, redirect.Filter, redirect.NAT}

func isCompat(name string) bool { return slices.Contains(iptablesTables, redirect.Kind(name)) }

// assign notes who owns the chains of one iptables table.
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

// iptablesName is how the command of a family is called.
func iptablesName(family redirect.Family) string {
	if family == redirect.IPv6 {
		return "ip6tables"
	}
	return "iptables"
}

// scanLegacy looks at the tables of iptables-legacy, which nf_tables does not list.
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

// legacyTables lists the tables of iptables-legacy that are in use in this namespace, as the kernel names them.
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
