package look

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/istio-pod-network/controller/plugin/look/report"
	"github.com/istio-pod-network/controller/plugin/netfilter/netlink"
	"golang.org/x/sys/unix"
)

// Bounds of what is heard: somebody in the pod may have everything traced.
const (
	mostHeard = 20000 // messages
	mostSteps = 400
)

// listener hears what the kernel says of the packet.
type listener struct {
	owner, ear *netlink.Conn
	port       uint16 // the packet's source port
	proto      uint8
	ids        map[uint32]bool     // of the packet in the kernel's trace, which has a new one for each interface
	renamed    map[uint32][]object // what may be the packet, by ID, since something gave it another source port
	links      map[uint32]string   // names by index
	chains     map[string]string   // hook of a base chain, by family, table and chain
	rules      map[string]int      // place in its chain, by family, table, chain and handle
	hook       string              // that the packet is in
	known      bool                // its port is that of a connection that the kernel remembers
	heard      int
	first      header
	told       report.Trace
}

// close ends the listening, and so the table.
func (l *listener) close() {
	for _, c := range []*netlink.Conn{l.owner, l.ear} {
		if c != nil {
			c.Close()
		}
	}
}

// hear returns what the kernel says until the packet's end.
func (l *listener) hear(until time.Time) (report.Trace, error) {
	ended, err := l.ear.Hear(until, func(kind uint16, data []byte) bool {
		l.heard++
		return l.note(kind, data) || l.heard >= mostHeard || len(l.told.Steps) >= mostSteps
	})
	if err != nil || l.told.End.Where == "" && !l.known { // it may be on its way, and nobody is to receive it
		time.Sleep(time.Until(until))
	}
	switch {
	case l.known:
		return report.Trace{}, errKnown
	case netlink.IsLost(err) || ended && l.told.End.Where == "":
		return report.Trace{}, &notTold{why: "so much is traced in the pod, by a rule of somebody else, that the packet's " +
			"own trace is lost"}
	case err != nil:
		return report.Trace{}, err
	case l.first == header{} && len(l.told.Steps) == 0:
		return report.Trace{}, &notTold{why: fmt.Sprintf("the packet has not come to the pod's rules within %s; a "+
			"NetworkPolicy, or what the node does, may keep it away", within)}
	case !ended:
		return report.Trace{}, &notTold{why: fmt.Sprintf("the packet's trace has no end after %s", within)}
	}
	return l.told, nil
}

// note takes in one message, and reports whether it is about the packet's end.
func (l *listener) note(kind uint16, data []byte) (end bool) {
	if kind != unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_TRACE || len(data) < nfgenmsg {
		return false
	}
	attributes, err := parse(slices.Clone(data[nfgenmsg:])) // some are kept
	if err != nil {
		return false
	}
	m := object{data[0], attributes}
	id := m.number(unix.NFTA_TRACE_ID)
	verdict, _ := verdictOf(m)
	ours := m.family == unix.NFPROTO_INET && m.text(unix.NFTA_TRACE_TABLE) == TableName && verdict == "drop"
	h, is := headerOf(m)
	switch {
	case is && h.proto == l.proto && h.from.Port() == l.port:
		delete(l.renamed, id)
		l.ids[id] = true
	case is && ours: // what our table drops is the packet, also from a port that somebody's nat has given it
		l.ids[id] = true
		for _, earlier := range l.renamed[id] {
			l.take(earlier)
		}
	case len(l.renamed[id]) > 0, is && h.proto == l.proto && (l.ids[id] || h.to.String() == l.told.End.To):
		// The packet with another port, or another one: what comes of it says which.
		delete(l.ids, id)
		if len(l.renamed[id]) < mostSteps {
			l.renamed[id] = append(l.renamed[id], m)
		}
	}
	return l.ids[id] && l.take(m)
}

// take takes in a message about the packet, and reports whether it is about its end.
func (l *listener) take(m object) (end bool) {
	if h, is := headerOf(m); is {
		l.begin(m, h)
	}
	return l.step(m)
}

// begin notes where a packet is that comes to a base chain.
func (l *listener) begin(m object, h header) {
	if (l.first == header{}) {
		l.first = h
		l.told.From, l.told.To, l.told.In = h.from.String(), h.to.String(), l.links[m.number(unix.NFTA_TRACE_IIF)]
	}
	l.hook = l.chains[key(m.family, m.text(unix.NFTA_TRACE_TABLE), m.text(unix.NFTA_TRACE_CHAIN))]
	link := m.number(unix.NFTA_TRACE_OIF)
	if link == 0 {
		link = m.number(unix.NFTA_TRACE_IIF)
	}
	l.told.End.To, l.told.End.Link = h.to.String(), l.links[link]
}

// step notes what a rule, or the end of a chain, does.
func (l *listener) step(m object) (end bool) {
	table, chain := m.text(unix.NFTA_TRACE_TABLE), m.text(unix.NFTA_TRACE_CHAIN)
	verdict, decided := verdictOf(m)
	if table == TableName && m.family == unix.NFPROTO_INET {
		switch chain {
		case "delivered":
			l.told.End.Where = report.Pod
		case "leaves":
			l.told.End.Where = report.Outside
		case "known":
			l.known = l.known || verdict == "drop"
		default:
			return false
		}
		return verdict == "drop"
	}
	if !decided {
		return false
	}
	s := report.Step{Hook: l.hook, Family: familyName(m.family), Table: table, Chain: chain, Verdict: verdict}
	if handle := m.attrs[unix.NFTA_TRACE_RULE_HANDLE]; handle != nil {
		s.Rule = l.rules[key(m.family, table, chain)+string(handle)]
	}
	l.told.Steps = append(l.told.Steps, s)
	if verdict == "drop" || verdict == "policy drop" {
		l.told.End.Where = report.Dropped
		return true
	}
	return false
}

// Verdicts by the kernel's numbers: include/uapi/linux/netfilter.h, and enum nft_verdicts.
var verdicts = map[int32]string{
	0: "drop", 1: "accept", 2: "stolen", 3: "queue", -1: "continue", -3: "jump", -4: "goto", -5: "return",
}

// verdictOf is what a message says was decided; false for the end of a chain that leads back to the one before.
func verdictOf(m object) (verdict string, decided bool) {
	if policy := m.attrs[unix.NFTA_TRACE_POLICY]; policy != nil {
		return "policy " + verdicts[int32(m.number(unix.NFTA_TRACE_POLICY))], true
	}
	parts, err := parse(m.attrs[unix.NFTA_TRACE_VERDICT])
	if err != nil {
		return "", false
	}
	v := object{attrs: parts}
	code := int32(v.number(unix.NFTA_VERDICT_CODE))
	verdict = verdicts[code]
	if code >= 0 { // a queue's number is beside it
		verdict = verdicts[code&0xff]
	}
	if to := v.text(unix.NFTA_VERDICT_CHAIN); to != "" {
		verdict += " " + to
	}
	return verdict, m.attrs[unix.NFTA_TRACE_RULE_HANDLE] != nil
}

// header is what identifies a packet.
type header struct {
	proto    uint8
	from, to netip.AddrPort
}

// headerOf reads the headers that the first message of each base chain has: RFC 791 3.1, RFC 8200 3, and the ports of
// TCP and UDP.
func headerOf(m object) (h header, is bool) {
	network, transport := m.attrs[unix.NFTA_TRACE_NETWORK_HEADER], m.attrs[unix.NFTA_TRACE_TRANSPORT_HEADER]
	if len(network) == 0 || len(transport) < 4 {
		return h, len(network) > 0
	}
	var from, to netip.Addr
	switch {
	case network[0]>>4 == 4 && len(network) >= 20:
		h.proto = network[9]
		from, to = netip.AddrFrom4([4]byte(network[12:])), netip.AddrFrom4([4]byte(network[16:]))
	case network[0]>>4 == 6 && len(network) >= 40:
		h.proto = network[6]
		from, to = netip.AddrFrom16([16]byte(network[8:])), netip.AddrFrom16([16]byte(network[24:]))
	}
	h.from = netip.AddrPortFrom(from, binary.BigEndian.Uint16(transport))
	h.to = netip.AddrPortFrom(to, binary.BigEndian.Uint16(transport[2:]))
	return h, true
}

// object is a message of nf_tables: its attributes by type.
type object struct {
	family uint8
	attrs  map[uint16][]byte
}

const nfgenmsg = 4 // bytes of struct nfgenmsg: family, version, resource ID

// text is a name, without what would not be one in a terminal.
func (o object) text(attr uint16) string { return printable(string(o.attrs[attr]), '!') }

// printable is a text without the zeros at its end, and with ? for what comes before the first character that may be in
// it, and for what is no text.
func printable(text string, first rune) string {
	return strings.Map(func(r rune) rune {
		if r < first || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(strings.TrimRight(text, "\x00"), "?"))
}

// number is that of an attribute of 32 bits in network order, 0 where there is none.
func (o object) number(attr uint16) uint32 {
	if value := o.attrs[attr]; len(value) == 4 {
		return binary.BigEndian.Uint32(value)
	}
	return 0
}

func familyName(nfproto uint8) string {
	switch nfproto {
	case unix.NFPROTO_INET:
		return "inet"
	case unix.NFPROTO_IPV4:
		return "ip"
	case unix.NFPROTO_IPV6:
		return "ip6"
	}
	return fmt.Sprintf("family %d", nfproto)
}
