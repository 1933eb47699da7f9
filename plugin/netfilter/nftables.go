package netfilter

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/nftables/expr"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"golang.org/x/sys/unix"
)

// transaction collects the messages that nf_tables commits at once. google/nftables knows the expressions; its own
// transaction asks for an acknowledgement of every message, which is what most of the time went into and what overflows
// the socket with a few hundred rules. Here one acknowledgement, of the last message, stands for all: the kernel sends it
// after the commit, and reports every message that it refuses.
type transaction struct {
	messages []nlMessage
	what     []string // each message, for errors
	sets     uint32   // IDs given out
	err      error    // of the first thing that could not be rendered
}

func (tx *transaction) put(what string, kind, flags uint16, family redirect.Family, attrs []byte) {
	tx.messages = append(tx.messages, nfMessage(kind, flags, nfproto(family), attrs))
	tx.what = append(tx.what, what)
}

func nfproto(family redirect.Family) uint8 {
	if family == redirect.IPv6 {
		return unix.NFPROTO_IPV6
	}
	return unix.NFPROTO_IPV4
}

// commit sends the transaction. If sent, the kernel may have committed although there is an error.
func (tx *transaction) commit() (sent bool, err error) {
	if tx.err != nil || len(tx.messages) == 0 {
		return false, tx.err
	}
	conn, err := dialNetlink(unix.NETLINK_NETFILTER)
	if err != nil {
		return false, err
	}
	defer conn.close()
	tx.messages[len(tx.messages)-1].flags |= unix.NLM_F_ACK
	// A batch is addressed by the resource ID of its first and last message, in network order.
	bounds := []byte{unix.AF_UNSPEC, 0, 0, unix.NFNL_SUBSYS_NFTABLES}
	batch := append([]nlMessage{{kind: unix.NFNL_MSG_BATCH_BEGIN, data: bounds}}, tx.messages...)
	first, err := conn.send(append(batch, nlMessage{kind: unix.NFNL_MSG_BATCH_END, data: bounds})...)
	if err != nil {
		return false, err
	}
	refused, err := conn.await(first, first+uint32(len(tx.messages)))
	var lost *receiveError
	if errors.As(err, &lost) {
		return true, err
	}
	if err != nil && refused >= 1 && refused <= len(tx.what) {
		err = fmt.Errorf("%s: %w", tx.what[refused-1], err)
	}
	return false, err
}

// writeNFT replaces our tables of both families in one transaction.
func writeNFT(rules redirect.RuleSet, found state) error {
	tx := &transaction{}
	for _, family := range redirect.Families {
		if found.tables[family] {
			tx.deleteTable(family)
		}
	}
	tx.add(rules)
	sent, err := tx.commit()
	if err == nil {
		return nil
	}
	if sent {
		if differences, readErr := compareNFT(rules); readErr == nil && len(differences) == 0 {
			return nil
		}
	}
	for _, missing := range []error{unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT, unix.ENOENT, unix.ENOPROTOOPT} {
		if errors.Is(err, missing) {
			return &unusableError{Nftables, err}
		}
	}
	return fmt.Errorf("committing the nftables transaction: %w", err)
}

func (tx *transaction) deleteTable(family redirect.Family) {
	tx.put(fmt.Sprintf("deleting table %s %s", family, redirect.TableName), unix.NFT_MSG_DELTABLE, 0, family,
		attr(nil, unix.NFTA_TABLE_NAME, cstr(redirect.TableName)))
}

// add puts the rule set into the transaction.
func (tx *transaction) add(rules redirect.RuleSet) {
	made := map[redirect.Family]bool{}
	for _, t := range rules.Tables {
		if !made[t.Family] {
			made[t.Family] = true
			// EXCL: two writers at once must not add their rules up.
			tx.put(fmt.Sprintf("adding table %s %s", t.Family, redirect.TableName), unix.NFT_MSG_NEWTABLE,
				unix.NLM_F_CREATE|unix.NLM_F_EXCL, t.Family, attr(nil, unix.NFTA_TABLE_NAME, cstr(redirect.TableName)))
		}
		for _, c := range t.Chains {
			tx.addChain(t, c)
		}
	}
}

func (tx *transaction) addChain(t redirect.Table, c redirect.Chain) {
	name := redirect.NFTName(t.Kind, c.Name)
	attrs := attr(nil, unix.NFTA_CHAIN_TABLE, cstr(redirect.TableName))
	attrs = attr(attrs, unix.NFTA_CHAIN_NAME, cstr(name))
	if c.Hook != redirect.Regular {
		hook := attr(nil, unix.NFTA_HOOK_HOOKNUM, be32(hookNumber(c.Hook)))
		hook = attr(hook, unix.NFTA_HOOK_PRIORITY, be32(uint32(int32(t.Kind.Priority()))))
		attrs = nested(attrs, unix.NFTA_CHAIN_HOOK, hook)
		attrs = attr(attrs, unix.NFTA_CHAIN_POLICY, be32(nfAccept))
		attrs = attr(attrs, unix.NFTA_CHAIN_TYPE, cstr(redirect.ChainType(t.Kind, c.Hook)))
	}
	tx.put(fmt.Sprintf("adding chain %s %s", t.Family, name), unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, t.Family, attrs)
	for i, r := range c.Rules {
		sets := setMaker{tx: tx, family: t.Family, prefix: fmt.Sprintf("%s-%d", name, i+1)}
		for _, line := range render(t, r, &sets) {
			tx.addRule(t.Family, name, line)
		}
	}
}

// nfAccept is NF_ACCEPT, the policy of every chain: what is not redirected passes.
const nfAccept = 1

func hookNumber(hook redirect.Hook) uint32 {
	if hook == redirect.Output {
		return unix.NF_INET_LOCAL_OUT
	}
	return unix.NF_INET_PRE_ROUTING
}

func (tx *transaction) addRule(family redirect.Family, chain string, l line) {
	var exprs []byte
	for _, e := range l.exprs {
		data, err := expr.Marshal(nfproto(family), e)
		if err != nil && tx.err == nil {
			tx.err = fmt.Errorf("rendering a rule of chain %q: %w", chain, err)
		}
		exprs = nested(exprs, unix.NFTA_LIST_ELEM, data)
	}
	attrs := attr(nil, unix.NFTA_RULE_TABLE, cstr(redirect.TableName))
	attrs = attr(attrs, unix.NFTA_RULE_CHAIN, cstr(chain))
	attrs = nested(attrs, unix.NFTA_RULE_EXPRESSIONS, exprs)
	attrs = attr(attrs, unix.NFTA_RULE_USERDATA, userdata(commentType, cstr(l.comment)))
	tx.put(fmt.Sprintf("adding a rule to chain %s %s", family, chain), unix.NFT_MSG_NEWRULE,
		unix.NLM_F_CREATE|unix.NLM_F_APPEND, family, attrs)
}

// User data is type, length, value; the kernel keeps it for nft. Source: libnftnl include/libnftnl/udata.h.
const (
	commentType      = 0 // NFTNL_UDATA_RULE_COMMENT
	keyByteOrderType = 0 // NFTNL_UDATA_SET_KEYBYTEORDER
	hostOrder        = 1 // enum byteorder of nft
	networkOrder     = 2
)

func userdata(kind byte, value []byte) []byte {
	return append([]byte{kind, byte(len(value))}, value...)
}

func be32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

// removeNFT deletes our tables.
func removeNFT(found state) error {
	tx := &transaction{}
	for _, family := range redirect.Families {
		if found.tables[family] {
			tx.deleteTable(family)
		}
	}
	if _, err := tx.commit(); err != nil {
		return fmt.Errorf("committing the nftables transaction: %w", err)
	}
	return nil
}
