package look

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/plugin/look/report"
	"github.com/istio-pod-network/controller/plugin/netfilter"
	"github.com/istio-pod-network/controller/plugin/netfilter/netlink"
	"golang.org/x/sys/unix"
)

// rules reads what is in the pod's network.
func (q *question) rules() (told report.Rules, err error) {
	netns, err := netfilter.Open(q.netns)
	if err != nil {
		return told, err
	}
	defer netns.Close()
	err = netns.Within(func() error {
		if err := q.isIt(); err != nil {
			return err
		}
		if told.Tables, err = readTables(); err != nil {
			return &notTold{why: fmt.Sprintf("reading nftables: %v", err)}
		}
		told.Legacy, err = legacyTables()
		return err
	})
	var not *notTold
	if errors.As(err, &not) {
		return report.Rules{Why: not.why, Value: not.value, Tables: []report.Table{}}, nil
	}
	return limited(told, report.Most), err
}

// limited are rules if they come to no more than so many bytes, in JSON, which is longer than what the kernel lists
// where others have filled it with what JSON escapes.
func limited(told report.Rules, most int) report.Rules {
	var text bytes.Buffer
	if write(&text, told) == nil && text.Len() > most {
		return report.Rules{Why: fmt.Sprintf("reading nftables: what it lists comes to %d bytes as JSON, more than the "+
			"limit of %d", text.Len(), most), Tables: []report.Table{}}
	}
	return told
}

// readTables reads nftables in the network namespace of the calling thread.
func readTables() (tables []report.Table, err error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	conn.Limit = mostListed
	list := map[uint16][]object{}
	for _, kind := range []uint16{unix.NFT_MSG_GETTABLE, unix.NFT_MSG_GETCHAIN, unix.NFT_MSG_GETRULE} {
		if list[kind], err = dump(conn, kind, unix.AF_UNSPEC); err != nil {
			return nil, err
		}
	}
	rules := map[string][]report.Rule{}
	for _, r := range list[unix.NFT_MSG_GETRULE] {
		its := key(r.family, r.text(unix.NFTA_RULE_TABLE), r.text(unix.NFTA_RULE_CHAIN))
		rules[its] = append(rules[its], report.Rule{Comment: commentOf(r), Does: doesOf(r)})
	}
	chains := map[string][]report.Chain{}
	for _, c := range list[unix.NFT_MSG_GETCHAIN] {
		table := c.text(unix.NFTA_CHAIN_TABLE)
		chain := chainOf(c)
		chain.Rules = append([]report.Rule{}, rules[key(c.family, table, chain.Name)]...)
		chains[key(c.family, table, "")] = append(chains[key(c.family, table, "")], chain)
	}
	tables = []report.Table{}
	for _, t := range list[unix.NFT_MSG_GETTABLE] {
		name := t.text(unix.NFTA_TABLE_NAME)
		tables = append(tables, report.Table{Family: familyName(t.family), Name: name,
			Dormant: t.number(unix.NFTA_TABLE_FLAGS)&unix.NFT_TABLE_F_DORMANT != 0,
			Chains:  append([]report.Chain{}, chains[key(t.family, name, "")]...)})
	}
	return tables, nil
}

func chainOf(c object) report.Chain {
	chain := report.Chain{Name: c.text(unix.NFTA_CHAIN_NAME), Type: c.text(unix.NFTA_CHAIN_TYPE)}
	hook, _ := parse(c.attrs[unix.NFTA_CHAIN_HOOK])
	if place := (object{attrs: hook}); hook[unix.NFTA_HOOK_HOOKNUM] != nil {
		chain.Hook = hooks[place.number(unix.NFTA_HOOK_HOOKNUM)]
		chain.Priority = int(int32(place.number(unix.NFTA_HOOK_PRIORITY)))
		chain.Policy = verdicts[int32(c.number(unix.NFTA_CHAIN_POLICY))]
	}
	return chain
}

// commentType is NFTNL_UDATA_RULE_COMMENT: user data is type, length, value. Source: libnftnl include/libnftnl/udata.h.
const commentType = 0

// commentOf is the comment of a rule, which is the first of its user data.
func commentOf(r object) string {
	data := r.attrs[unix.NFTA_RULE_USERDATA]
	if len(data) < 2 || data[0] != commentType || len(data)-2 < int(data[1]) {
		return ""
	}
	return printable(string(data[2:2+int(data[1])]), ' ')
}

// doesOf names the expressions of a rule.
func doesOf(r object) string {
	var all []string
	_ = netlink.Each(r.attrs[unix.NFTA_RULE_EXPRESSIONS], func(_ uint16, element []byte) {
		parts, err := parse(element)
		if err != nil {
			return
		}
		e := object{attrs: parts}
		data, _ := parse(e.attrs[unix.NFTA_EXPR_DATA])
		all = append(all, expressionOf(e.text(unix.NFTA_EXPR_NAME), object{attrs: data}))
	})
	return strings.Join(all, ", ")
}

// Keys by enum nft_meta_keys and nft_ct_keys, of those that rules about a pod's traffic have.
var keys = map[string]map[uint32]string{
	"meta": {unix.NFT_META_MARK: "mark", unix.NFT_META_IIFNAME: "iifname", unix.NFT_META_OIFNAME: "oifname",
		unix.NFT_META_IIF: "iif", unix.NFT_META_OIF: "oif", unix.NFT_META_SKUID: "skuid", unix.NFT_META_SKGID: "skgid",
		unix.NFT_META_NFTRACE: "nftrace", unix.NFT_META_NFPROTO: "nfproto", unix.NFT_META_L4PROTO: "l4proto"},
	"ct": {unix.NFT_CT_STATE: "state", unix.NFT_CT_DIRECTION: "direction", unix.NFT_CT_MARK: "mark",
		unix.NFT_CT_PROTO_DST: "proto-dst", unix.NFT_CT_ZONE: "zone", unix.NFT_CT_DST_IP: "daddr",
		unix.NFT_CT_DST_IP6: "daddr"},
}

// expressionOf names an expression: with the key of meta and ct, the verdict of immediate, and the name of what is
// iptables' (match and target have their name as attribute 1).
func expressionOf(name string, data object) string {
	switch name {
	case "meta", "ct":
		key := data.number(unix.NFTA_META_KEY)
		if name == "ct" {
			key = data.number(unix.NFTA_CT_KEY)
		}
		if known := keys[name][key]; known != "" {
			return name + " " + known
		}
		return fmt.Sprintf("%s %d", name, key)
	case "match", "target":
		return name + " " + data.text(unix.NFTA_MATCH_NAME)
	case "immediate":
		value, _ := parse(data.attrs[unix.NFTA_IMMEDIATE_DATA])
		if verdict := value[unix.NFTA_DATA_VERDICT]; verdict != nil {
			text, _ := verdictOf(object{attrs: map[uint16][]byte{unix.NFTA_TRACE_VERDICT: verdict}})
			return text
		}
	}
	return name
}

// legacyTables are the tables of iptables-legacy that are in use in the network namespace of the calling thread.
func legacyTables() (all []string, err error) {
	for family, file := range map[string]string{"ip": "ip_tables_names", "ip6": "ip6_tables_names"} {
		names, err := os.ReadFile("/proc/thread-self/net/" + file)
		if err != nil && !errors.Is(err, os.ErrNotExist) { // the modules are not loaded
			return nil, fmt.Errorf("listing iptables-legacy tables: %w", err)
		}
		for _, name := range strings.Fields(string(names)) {
			all = append(all, family+" "+name)
		}
	}
	slices.Sort(all)
	return all, nil
}
