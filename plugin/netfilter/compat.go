package netfilter

import (
	"fmt"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/plugin/netfilter/netlink"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"golang.org/x/sys/unix"
)

// compatTable identifies a table of iptables-nft, which nf_tables lists like any other.
type compatTable struct {
	family redirect.Family
	kind   redirect.Kind
}

// name is the table's name in Applied.Created.
func (t compatTable) name() string {
	return fmt.Sprintf("%s table %s %s", IptablesNFT, t.family, t.kind)
}

// compatContent is the kernel's listing of such a table. iptables-nft itself lists no table that has a rule which it
// cannot express; nft(8) can add such rules.
type compatContent struct {
	chains []string // the names of our chains
	jumps  []compatJump
	others bool // it has more than built-in chains, our chains and jumps to them
	// wider says that a rule of ours has a lookup in a set. iptables has no sets, and iptables-nft lists such a rule
	// without that condition.
	wider   bool
	dormant bool           // the table's rules are not in force
	rules   map[string]int // the number of rules of each chain so far
}

// compatJump is a rule that jumps to a chain of ours.
type compatJump struct {
	from, to string
	handle   []byte // NFTA_RULE_HANDLE
	after    int    // the number of rules before it in its chain
}

// text is the jump without its conditions, in the syntax of iptables-save.
func (j compatJump) text() string { return fmt.Sprintf("-A %s -j %s", j.from, j.to) }

// compatBuiltins are the chains that iptables-nft creates by itself, in the order of enum nf_inet_hooks.
var compatBuiltins = []string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}

// scanCompat lists the tables of iptables-nft.
func (s *state) scanCompat(conn *netlink.Conn) error {
	for kind, add := range map[uint16]func(*compatContent, object){
		unix.NFT_MSG_GETCHAIN: (*compatContent).addChain, unix.NFT_MSG_GETRULE: (*compatContent).addRule,
	} {
		objects, err := dumpNFT(conn, kind, unix.AF_UNSPEC, nil)
		if err != nil {
			return err
		}
		for _, o := range objects { // the table's name is attribute 1 of chains and of rules
			table := redirect.Kind(o.text(unix.NFTA_RULE_TABLE))
			if content := s.compat[compatTable{kernelFamily(o.family), table}]; content != nil {
				add(content, o)
			}
		}
	}
	for table, content := range s.compat {
		s.assign(IptablesNFT, table.family, string(table.kind), content.chains)
	}
	return nil
}

func (c *compatContent) addChain(o object) {
	name := o.text(unix.NFTA_CHAIN_NAME)
	if strings.HasPrefix(name, istioPrefix) {
		c.chains = append(c.chains, name)
	} else if !slices.Contains(compatBuiltins, name) {
		c.others = true
	}
}

func (c *compatContent) addRule(o object) {
	from := o.text(unix.NFTA_RULE_CHAIN)
	ours, lookup := strings.HasPrefix(from, istioPrefix), false
	_ = netlink.Each(o.attr(unix.NFTA_RULE_EXPRESSIONS), func(_ uint16, expression []byte) {
		name, to := readExpression(expression)
		if strings.HasPrefix(to, istioPrefix) {
			c.jumps, ours = append(c.jumps, compatJump{from, to, o.attr(unix.NFTA_RULE_HANDLE), c.rules[from]}), true
		}
		lookup = lookup || name == "lookup"
	})
	c.rules[from]++
	c.others = c.others || !ours
	c.wider = c.wider || ours && lookup
}

// readExpression returns the name of an expression, and the chain that it jumps to, or "".
func readExpression(data []byte) (name, to string) {
	if name = cstring(netlink.Find(data, unix.NFTA_EXPR_NAME)); name != "immediate" {
		return name, ""
	}
	verdict := []uint16{unix.NFTA_EXPR_DATA, unix.NFTA_IMMEDIATE_DATA, unix.NFTA_DATA_VERDICT, unix.NFTA_VERDICT_CHAIN}
	for _, kind := range verdict {
		data = netlink.Find(data, kind)
	}
	return name, cstring(data)
}

// missingTables returns the tables that iptables-nft will create for the rule set.
func missingTables(rules redirect.RuleSet, found state) []string {
	var names []string
	for _, t := range rules.Tables {
		if table := (compatTable{t.Family, t.Kind}); found.compat[table] == nil {
			names = append(names, table.name())
		}
	}
	return names
}

// removeCompat deletes the jumps to our chains, and those of our chains that are not in keep. It deletes a table with
// nothing but our rules if Apply created it. It runs no program: iptables-nft cannot delete a jump next to a rule that
// it cannot express, and never deletes a table.
func removeCompat(found state, keep redirect.RuleSet, created []string) error {
	tx := &transaction{}
	for table, content := range found.compat {
		if len(content.chains) > 0 && !slices.Contains(content.chains, markerChain) {
			continue // of Istio
		}
		if !content.others && slices.Contains(created, table.name()) {
			table.put(tx, "deleting it", unix.NFT_MSG_DELTABLE)
			continue
		}
		table.removeChains(tx, content, chainsOf(tableOf(keep, table.family, table.kind)))
	}
	if _, err := tx.commit(); err != nil {
		return fmt.Errorf("removing the chains of iptables-nft: %w", err)
	}
	return nil
}

func (t compatTable) removeChains(tx *transaction, content *compatContent, keep []string) {
	if content.dormant && len(keep) > 0 {
		t.put(tx, "putting it in force", unix.NFT_MSG_NEWTABLE, be32(unix.NFTA_TABLE_FLAGS, 0))
	}
	for _, jump := range content.jumps {
		if !strings.HasPrefix(jump.from, istioPrefix) {
			t.put(tx, "deleting "+jump.text(), unix.NFT_MSG_DELRULE,
				netlink.Text(unix.NFTA_RULE_CHAIN, jump.from), netlink.Bytes(unix.NFTA_RULE_HANDLE, jump.handle))
		}
	}
	gone := slices.DeleteFunc(slices.Clone(content.chains), func(name string) bool { return slices.Contains(keep, name) })
	for _, name := range gone { // they jump to each other, so all are flushed before the first is deleted
		t.put(tx, "flushing chain "+name, unix.NFT_MSG_DELRULE, netlink.Text(unix.NFTA_RULE_CHAIN, name))
	}
	for _, name := range gone {
		t.put(tx, "deleting chain "+name, unix.NFT_MSG_DELCHAIN, netlink.Text(unix.NFTA_CHAIN_NAME, name))
	}
}

// put adds a request to the transaction, about the table or something in it. The table's name is attribute 1.
func (t compatTable) put(tx *transaction, what string, kind uint16, attrs ...netlink.Attribute) {
	tx.put(t.name()+": "+what, kind, 0, t.family, append(ofTable(string(t.kind)), attrs...)...)
}
