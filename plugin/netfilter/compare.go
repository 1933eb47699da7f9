package netfilter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/istio-pod-network/controller/plugin/netfilter/netlink"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"golang.org/x/sys/unix"
)

// tableKey follows the family in the key of a table's own entry in a listing.
const tableKey = " table"

// listing is what a namespace has of our rules. For each chain it has the header and the rules in order, in the
// kernel's own form.
type listing map[string][]string

// compareNFT compares our tables with what the kernel lists after the same rules were written to a scratch namespace.
// So the code need not know how a kernel version reports an expression.
func compareNFT(rules redirect.RuleSet) ([]string, error) {
	var want listing
	var size int
	err := inScratch(func() (err error) {
		if _, err := commitNFT(rules, state{}); err != nil {
			return &unusableError{Nftables, err}
		}
		want, size, err = listNFT(math.MaxInt32, nil)
		return err
	})
	if err != nil {
		return nil, notExpected(err)
	}
	got, _, err := listNFT(size, want)
	if err != nil {
		return nil, err
	}
	before, err := beforeNAT(Nftables, rules)
	return append(diff(want, got, ruleTexts(rules)), before...), err
}

// nodeError is a failure to read or to write that does not depend on the contents of the network namespace.
type nodeError struct{ error }

func (e nodeError) Unwrap() error { return e.error }

// IsOfNode reports whether err is about the node, such as a lack of sockets. It says nothing about the rules in the
// network namespace.
func IsOfNode(err error) bool {
	var target nodeError
	return errors.As(err, &target) || errors.Is(err, errScratch) || errors.Is(err, netlink.ErrSocket)
}

// notExpected is the error if the expected rules could not be written to the scratch namespace.
func notExpected(err error) error {
	return nodeError{fmt.Errorf("writing the expected rules to a scratch network namespace: %w", err)}
}

// errScratch is the error if no scratch network namespace could be created.
var errScratch = errors.New("making a scratch network namespace")

// inScratch runs f in a new network namespace, and removes it afterwards.
func inScratch(f func() error) error {
	return withScratch(func(n *NetNS) error { return n.Within(f) })
}

// newNamespace creates a network namespace that its Close removes. Tests make it fail.
var newNamespace = ns.TempNetNS

// withScratch runs f with a new network namespace, and removes it afterwards.
func withScratch(f func(*NetNS) error) error {
	scratch, err := newNamespace()
	if err != nil {
		return fmt.Errorf("%w: %w", errScratch, err)
	}
	n := &NetNS{scratch}
	defer n.Close()
	return f(n)
}

// ruleTexts returns the expected rules of each chain in the syntax of nft, for error texts.
func ruleTexts(rules redirect.RuleSet) listing {
	texts := listing{}
	for _, t := range rules.Tables {
		for _, c := range t.Chains {
			lines := []string{""} // for the header
			for _, r := range c.Rules {
				for _, line := range r.Lines(t) {
					lines = append(lines, line.Text)
				}
			}
			texts[fmt.Sprintf("%s chain %s", t.Family, redirect.NFTName(t.Kind, c.Name))] = lines
		}
	}
	return texts
}

// listNFT lists tables, chains, rules and sets in tables of our name. It may list more bytes than the default of a
// connection, and returns how many it listed. If want is given, it lists no elements of sets that want lacks: to find a
// set the kernel compares the names of all sets, and somebody else may have created very many.
func listNFT(more int, want listing) (list listing, size int, err error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, 0, err
	}
	defer conn.Close()
	conn.Limit += more
	size = conn.Limit
	list = listing{}
	tables, err := dumpNFT(conn, unix.NFT_MSG_GETTABLE, unix.AF_UNSPEC, nil)
	if err != nil {
		return nil, 0, err
	}
	for _, t := range tables {
		family := kernelFamily(t.family)
		if family == 0 || t.text(unix.NFTA_TABLE_NAME) != redirect.TableName {
			continue
		}
		// The flags are compared too: the rules of a dormant table are not in force.
		list[family.String()+tableKey] = []string{string(t.attr(unix.NFTA_TABLE_FLAGS))}
		if err := list.addTable(conn, t.family, want); err != nil {
			return nil, 0, err
		}
	}
	return list, size - conn.Limit, nil
}

func (l listing) addTable(conn *netlink.Conn, nfproto uint8, want listing) error {
	family := kernelFamily(nfproto).String()
	ours := ofTable(redirect.TableName)
	chains, err := dumpNFT(conn, unix.NFT_MSG_GETCHAIN, nfproto, ours)
	if err != nil {
		return err
	}
	for _, c := range chains {
		if c.text(unix.NFTA_CHAIN_TABLE) == redirect.TableName {
			l[family+" chain "+c.text(unix.NFTA_CHAIN_NAME)] = []string{
				c.join(unix.NFTA_CHAIN_TYPE, unix.NFTA_CHAIN_HOOK, unix.NFTA_CHAIN_POLICY, chainFlags)}
		}
	}
	rules, err := dumpNFT(conn, unix.NFT_MSG_GETRULE, nfproto, ours)
	if err != nil {
		return err
	}
	for _, r := range rules {
		if r.text(unix.NFTA_RULE_TABLE) == redirect.TableName {
			key := family + " chain " + r.text(unix.NFTA_RULE_CHAIN)
			l[key] = append(l[key], r.join(unix.NFTA_RULE_EXPRESSIONS))
		}
	}
	return l.addSets(conn, nfproto, ours, want)
}

func (l listing) addSets(conn *netlink.Conn, nfproto uint8, ours []netlink.Attribute, want listing) error {
	sets, err := dumpNFT(conn, unix.NFT_MSG_GETSET, nfproto, ours)
	if err != nil {
		return err
	}
	for _, s := range sets {
		name := s.text(unix.NFTA_SET_NAME)
		key := kernelFamily(nfproto).String() + " set " + name
		if want != nil && want[key] == nil {
			l[key] = []string{""}
			continue
		}
		ofSet := append(ours, netlink.Text(unix.NFTA_SET_ELEM_LIST_SET, name))
		messages, err := dumpNFT(conn, unix.NFT_MSG_GETSETELEM, nfproto, ofSet)
		if err != nil {
			return err
		}
		elements, err := setElements(messages)
		if err != nil {
			return err
		}
		header := s.join(unix.NFTA_SET_FLAGS, unix.NFTA_SET_KEY_TYPE, unix.NFTA_SET_KEY_LEN)
		l[key] = append([]string{header}, elements...)
	}
	return nil
}

// setElements returns the elements in a fixed order, because the kernel lists a hash set in the order of its buckets.
func setElements(messages []object) ([]string, error) {
	var elements []string
	for _, m := range messages {
		err := netlink.Each(m.attr(unix.NFTA_SET_ELEM_LIST_ELEMENTS), func(_ uint16, value []byte) {
			elements = append(elements, string(value))
		})
		if err != nil {
			return nil, err
		}
	}
	sort.Strings(elements)
	return elements, nil
}

// chainFlags is NFTA_CHAIN_FLAGS (include/uapi/linux/netfilter/nf_tables.h), which golang.org/x/sys lacks.
const chainFlags = 10

// join returns the attributes as one comparable string.
func (o object) join(attrs ...uint16) string {
	var out []byte
	for _, attr := range attrs {
		value := o.attr(attr)
		out = binary.BigEndian.AppendUint32(out, uint32(len(value)))
		out = append(out, value...)
	}
	return string(out)
}

// diff describes the differences, in a fixed order. texts has the texts of a chain's rules; index 0 is the header.
func diff(want, got, texts listing) []string {
	var out []string
	for _, key := range sortedKeys(want, got) {
		w, wanted := want[key]
		g, there := got[key]
		if table := strings.Fields(key)[0] + tableKey; key != table && got[table] == nil && want[table] != nil {
			continue // the missing table has been reported already
		}
		switch {
		case !there:
			out = append(out, "missing "+key)
		case !wanted:
			out = append(out, "unexpected "+key)
		case w[0] != g[0]:
			out = append(out, key+": its definition was changed")
		case !slices.Equal(w, g):
			out = append(out, diffRules(key, w, g, texts[key])...)
		}
	}
	return out
}

func sortedKeys(lists ...listing) []string {
	var keys []string
	for _, l := range lists {
		for key := range l {
			keys = append(keys, key)
		}
	}
	sort.Strings(keys)
	return slices.Compact(keys)
}

// diffRules describes missing and surplus rules, or a different order if there are none. Its time is linear in the
// length of both lists, because somebody else may have made one very long.
func diffRules(key string, want, got []string, texts []string) []string {
	missing := map[string]int{}
	for _, w := range want {
		missing[w]++
	}
	var out, unexpected []string
	for i, g := range got {
		if missing[g]--; missing[g] >= 0 {
			continue
		}
		text := ""
		if strings.HasPrefix(g, "-A ") { // a line of iptables-save, not the kernel's bytes
			text = fmt.Sprintf(", `%s`", g)
		}
		unexpected = append(unexpected, fmt.Sprintf("%s: unexpected entry at position %d%s", key, i, text))
	}
	for i, w := range want {
		if missing[w]--; missing[w] < 0 {
			continue
		}
		name := fmt.Sprintf("entry %d", i)
		if i < len(texts) {
			name = fmt.Sprintf("rule %d, `%s`", i, texts[i])
		}
		out = append(out, fmt.Sprintf("%s: missing %s", key, name))
	}
	if out = append(out, unexpected...); len(out) == 0 {
		out = append(out, key+": the order was changed")
	}
	return out
}
