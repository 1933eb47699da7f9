package netfilter

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/plugin/netfilter/netlink"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"golang.org/x/sys/unix"
)

// compatTable is a table of iptables-nft, which nf_tables lists like any other.
type compatTable struct {
	family redirect.Family
	kind   redirect.Kind
}

// name identifies the table in Applied.Created.
func (t compatTable) name() string {
	return fmt.Sprintf("%s table %s %s", IptablesNFT, t.family, t.kind)
}

// missingTables lists the tables that writing the rule set with iptables-nft will make.
func missingTables(rules redirect.RuleSet, found state) []string {
	var names []string
	for _, t := range rules.Tables {
		if table := (compatTable{t.Family, t.Kind}); !found.compat[table] {
			names = append(names, table.name())
		}
	}
	return names
}

// dropTables deletes the tables that Apply made and in which there is nothing but ours, whole and without a program:
// iptables-nft never deletes a table, and would leave its built-in chains. Others are left to iptables-restore.
func dropTables(created []string, found *state) error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer conn.Close()
	tx := &transaction{}
	left := 0
	for table := range found.compat {
		if !slices.Contains(created, table.name()) {
			left++
			continue
		}
		onlyOurs, err := table.onlyOurs(conn)
		if err != nil {
			return err
		}
		if !onlyOurs {
			left++
			continue
		}
		tx.put("deleting "+table.name(), unix.NFT_MSG_DELTABLE, 0, table.family, netlink.Text(unix.NFTA_TABLE_NAME, string(table.kind)))
	}
	if _, err := tx.commit(); err != nil {
		return fmt.Errorf("deleting the tables of iptables-nft: %w", err)
	}
	if left == 0 {
		delete(found.ours, IptablesNFT)
	}
	return nil
}

// onlyOurs reports whether the table's chains are built-in ones and ours, and its rules those of our chains and the jumps
// to them.
func (t compatTable) onlyOurs(conn *netlink.Conn) (bool, error) {
	chains, err := dumpNFT(conn, unix.NFT_MSG_GETCHAIN, nfproto(t.family), nil)
	if err != nil {
		return false, err
	}
	for _, c := range chains {
		inTable := c.text(unix.NFTA_CHAIN_TABLE) == string(t.kind)
		if inTable && c.attrs[unix.NFTA_CHAIN_HOOK] == nil && !strings.HasPrefix(c.text(unix.NFTA_CHAIN_NAME), istioPrefix) {
			return false, nil
		}
	}
	rules, err := dumpNFT(conn, unix.NFT_MSG_GETRULE, nfproto(t.family), ofTable(string(t.kind)))
	if err != nil {
		return false, err
	}
	for _, r := range rules {
		inTable := r.text(unix.NFTA_RULE_TABLE) == string(t.kind)
		ours := strings.HasPrefix(r.text(unix.NFTA_RULE_CHAIN), istioPrefix) ||
			bytes.Contains(r.attrs[unix.NFTA_RULE_EXPRESSIONS], []byte(istioPrefix))
		if inTable && !ours {
			return false, nil
		}
	}
	return true, nil
}
