package netfilter

import (
	"errors"
	"fmt"
	"slices"

	"github.com/istio-pod-network/controller/plugin/netfilter/netlink"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"golang.org/x/sys/unix"
)

// transaction collects the messages of one nf_tables transaction. google/nftables has the expressions, but its own
// transactions request an acknowledgement for every message. That takes most of the time, and overflows the socket with
// a few hundred rules. Here only the last message requests one: the kernel sends it after the commit, and it reports
// every message that it refuses in any case.
//
// This is needed as long as the released google/nftables (v0.3.0) requests them. The change is merged, but not
// released: https://github.com/google/nftables/pull/336. Once it is, write the rules with the library's Conn, run `make
// bench`, and if ADD's ratio stays the same, remove this type.
type transaction struct {
	messages []netlink.Message
	what     []string // a description of each message, for errors
	sets     uint32   // the last set ID
	err      error    // the first expression that could not be encoded
}

func (tx *transaction) put(what string, kind, flags uint16, family redirect.Family, attrs ...netlink.Attribute) {
	tx.messages = append(tx.messages, nfMessage(kind, flags, nfproto(family), attrs))
	tx.what = append(tx.what, what)
}

func nfproto(family redirect.Family) uint8 {
	if family == redirect.IPv6 {
		return unix.NFPROTO_IPV6
	}
	return unix.NFPROTO_IPV4
}

// batch sends a transaction and waits for its acknowledgement. Tests lose the acknowledgement.
var batch = (*netlink.Conn).Batch

// commit sends the transaction. If sent is true, the kernel may have committed it in spite of an error.
func (tx *transaction) commit() (sent bool, err error) {
	if tx.err != nil || len(tx.messages) == 0 {
		return false, tx.err
	}
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	// The first and the last message name the subsystem in the resource ID, in network byte order.
	bounds := []byte{unix.AF_UNSPEC, 0, 0, unix.NFNL_SUBSYS_NFTABLES}
	messages := append([]netlink.Message{{Kind: unix.NFNL_MSG_BATCH_BEGIN, Header: bounds}}, tx.messages...)
	messages = append(messages, netlink.Message{Kind: unix.NFNL_MSG_BATCH_END, Header: bounds})
	refused, err := batch(conn, messages, len(tx.messages))
	if err != nil && refused >= 1 && refused <= len(tx.what) {
		err = fmt.Errorf("%s: %w", tx.what[refused-1], err)
	}
	return netlink.IsLost(err), err
}

// writeNFT replaces our tables of both families in one transaction. If the acknowledgement is lost, it compares what is
// there. If that fails too, sent is true: the kernel may have the rules in spite of the error.
func writeNFT(rules redirect.RuleSet, found state) (sent bool, err error) {
	sent, err = commitNFT(rules, found)
	if err != nil && sent {
		if differences, readErr := compareNFT(rules); readErr == nil && len(differences) == 0 {
			return true, nil
		}
	}
	return sent, err
}

// commitNFT does so, but relies on the acknowledgement alone.
func commitNFT(rules redirect.RuleSet, found state) (sent bool, err error) {
	tx := &transaction{}
	for _, family := range redirect.Families {
		if slices.Contains(found.ours[Nftables], family) {
			tx.deleteTable(family)
		}
	}
	tx.add(rules)
	if sent, err = tx.commit(); err != nil {
		return sent, fmt.Errorf("committing the nftables transaction: %w", err)
	}
	return true, nil
}

func (tx *transaction) deleteTable(family redirect.Family) {
	tx.put(fmt.Sprintf("deleting table %s %s", family, redirect.TableName), unix.NFT_MSG_DELTABLE, 0, family,
		netlink.Text(unix.NFTA_TABLE_NAME, redirect.TableName))
}

// add adds the rule set to the transaction.
func (tx *transaction) add(rules redirect.RuleSet) {
	made := map[redirect.Family]bool{}
	for _, t := range rules.Tables {
		if !made[t.Family] {
			made[t.Family] = true
			// EXCL: the rules of two concurrent writers must not be combined.
			tx.put(fmt.Sprintf("adding table %s %s", t.Family, redirect.TableName), unix.NFT_MSG_NEWTABLE,
				unix.NLM_F_CREATE|unix.NLM_F_EXCL, t.Family, netlink.Text(unix.NFTA_TABLE_NAME, redirect.TableName))
		}
		for _, c := range t.Chains {
			tx.addChain(t, c)
		}
	}
}

func (tx *transaction) addChain(t redirect.Table, c redirect.Chain) {
	name := redirect.NFTName(t.Kind, c.Name)
	attrs := []netlink.Attribute{
		netlink.Text(unix.NFTA_CHAIN_TABLE, redirect.TableName), netlink.Text(unix.NFTA_CHAIN_NAME, name),
	}
	if c.Hook != redirect.Regular {
		attrs = append(attrs,
			netlink.Nested(unix.NFTA_CHAIN_HOOK, be32(unix.NFTA_HOOK_HOOKNUM, hookNumber(c.Hook)),
				be32(unix.NFTA_HOOK_PRIORITY, uint32(int32(t.Kind.Priority())))),
			be32(unix.NFTA_CHAIN_POLICY, nfAccept),
			netlink.Text(unix.NFTA_CHAIN_TYPE, redirect.ChainType(t.Kind, c.Hook)))
	}
	tx.put(fmt.Sprintf("adding chain %s %s", t.Family, name), unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, t.Family, attrs...)
	for i, r := range c.Rules {
		sets := setMaker{tx: tx, family: t.Family, prefix: fmt.Sprintf("%s-%d", name, i+1)}
		for _, line := range render(t, r, &sets) {
			tx.addRule(t.Family, name, line)
		}
	}
}

// nfAccept is NF_ACCEPT, the policy of every base chain: what is not redirected passes.
const nfAccept = 1

func hookNumber(hook redirect.Hook) uint32 {
	switch hook {
	case redirect.Output:
		return unix.NF_INET_LOCAL_OUT
	case redirect.Input:
		return unix.NF_INET_LOCAL_IN
	case redirect.Forward:
		return unix.NF_INET_FORWARD
	}
	return unix.NF_INET_PRE_ROUTING
}

func (tx *transaction) addRule(family redirect.Family, chain string, l line) {
	var exprs []netlink.Attribute
	for _, e := range l.exprs {
		encoded, err := encode(family, e)
		if err != nil {
			tx.err = errors.Join(tx.err, fmt.Errorf("rendering a rule of chain %s: %w", chain, err))
		}
		exprs = append(exprs, encoded)
	}
	tx.put(fmt.Sprintf("adding a rule to chain %s %s", family, chain), unix.NFT_MSG_NEWRULE,
		unix.NLM_F_CREATE|unix.NLM_F_APPEND, family,
		netlink.Text(unix.NFTA_RULE_TABLE, redirect.TableName), netlink.Text(unix.NFTA_RULE_CHAIN, chain),
		netlink.Nested(unix.NFTA_RULE_EXPRESSIONS, exprs...),
		netlink.Bytes(unix.NFTA_RULE_USERDATA, userdata(commentType, append([]byte(l.comment), 0))))
}

// User data is type, length and value. The kernel stores it for nft. Source: libnftnl include/libnftnl/udata.h.
const (
	commentType      = 0 // NFTNL_UDATA_RULE_COMMENT
	keyByteOrderType = 0 // NFTNL_UDATA_SET_KEYBYTEORDER
	hostOrder        = 1 // enum byteorder of nft (nftables include/datatype.h)
	networkOrder     = 2
)

func userdata(kind byte, value []byte) []byte {
	return append([]byte{kind, byte(len(value))}, value...)
}

// removeNFT deletes our tables.
func removeNFT(found state) error {
	tx := &transaction{}
	for _, family := range redirect.Families {
		if slices.Contains(found.ours[Nftables], family) {
			tx.deleteTable(family)
		}
	}
	if _, err := tx.commit(); err != nil {
		return fmt.Errorf("committing the nftables transaction: %w", err)
	}
	return nil
}
