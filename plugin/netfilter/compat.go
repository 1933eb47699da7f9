package netfilter

import (
	"fmt"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/plugin/netfilter/netlink"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"golang.org/x/sys/unix"
)

// compatTable names a table of iptables-nft, which nf_tables lists like any other.
type compatTable struct {
	family redirect.Family
	kind   redirect.Kind
}

// name identifies the table in Applied.Created.
func (t compatTable) name() string {
	return fmt.Sprintf("%s table %s %s", IptablesNFT, t.family, t.kind)
}

// compatContent is what the kernel lists in such a table. iptables-nft lists no table at all that holds a rule which it
// cannot express, as nft(8) can write it.
type compatContent struct {
	chains []string // ours, by their names
	jumps  []compatJump
	others bool // it holds more than built-in chains, our chains and jumps to them
	// wider says that a rule of ours looks something up in a set. iptables has no sets, and iptables-nft lists such a rule
	// without that condition.
	wider   bool
	dormant bool           // its rules are not in force
	rules   map[string]int // how many of each chain were listed so far
}

// compatJump is a rule that leads to a chain of ours.
type compatJump struct {
	from, to string
	handle   []byte // NFTA_RULE_HANDLE
	after    int    // how many rules of its chain come before it
}

// text is the jump without its conditions, in the words of iptables-save.
func (j compatJump) text() string { return fmt.Sprintf("-A %s -j %s", j.from, j.to) }

// compatBuiltins are the chains that iptables-nft makes by itself.
var compatBuiltins = []string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}

// scanCompat looks into the tables of iptables-nft.
func (s *state) scanCompat(conn *netlink.Conn) error {
	for kind, add := range map[uint16]func(*compatContent, object){
		unix.NFT_MSG_GETCHAIN: (*compatContent).addChain, unix.NFT_MSG_GETRULE: (*compatContent).addRule,
	} {
		objects, err := dumpNFT(conn, kind, unix.AF_UNSPEC, nil)
		if err != nil {
			return err
		}
		for _, o := range objects { // the table is attribute 1 of both
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

// readExpression returns the name of an expression and the chain that it leads to, "" if none.
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

// missingTables lists the tables that writing the rule set with iptables-nft will make.
func missingTables(rules redirect.RuleSet, found state) []string {
	var names []string
	for _, t := range rules.Tables {
		if table := (compatTable{t.Family, t.Kind}); found.compat[table] == nil {
			names = append(names, table.name())
		}
	}
	return names
}

// removeCompat takes out the jumps to our chains that were found, and those of our chains that are not to be kept. It
// runs no program: iptables-nft cannot delete a jump beside a rule that it cannot express, and never deletes a table.
// Tables that Apply created and in which there is nothing but ours go whole.
func removeCompat(found state, keep redirect.RuleSet, created []string) error {
	tx := &transaction{}
	for table, content := range found.compat {
		if len(content.chains) > 0 && !slices.Contains(content.chains, markerChain) {
			continue // Istio's
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
	for _, name := range gone { // they jump to each other: all are emptied before the first is deleted
		t.put(tx, "flushing chain "+name, unix.NFT_MSG_DELRULE, netlink.Text(unix.NFTA_RULE_CHAIN, name))
	}
	for _, name := range gone {
		t.put(tx, "deleting chain "+name, unix.NFT_MSG_DELCHAIN, netlink.Text(unix.NFTA_CHAIN_NAME, name))
	}
}

// put adds a request about the table or something in it, which the table's name, attribute 1, comes before.
func (t compatTable) put(tx *transaction, what string, kind uint16, attrs ...netlink.Attribute) {
	tx.put(t.name()+": "+what, kind, 0, t.family, append(ofTable(string(t.kind)), attrs...)...)
}
