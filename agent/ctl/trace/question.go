package trace

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/agent/ctl/explain"
	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/internal/invalid"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"github.com/istio-pod-network/controller/plugin/trace"
	corev1 "k8s.io/api/core/v1"
)

const dnsPort = 53

// sender is the sender of the packet from the command line.
type sender struct {
	kind  string
	owner trace.Owner // for uid
}

// Kinds of sender.
const (
	fromApp     = "app"
	fromProxy   = "proxy"
	fromOutside = "outside"
	fromUID     = "uid"
)

const validFrom = "app, proxy, outside, uid:N or uid:N:GROUP with IDs 0 to 4294967294"

func parseFrom(text string) (sender, error) {
	if slices.Contains([]string{fromApp, fromProxy, fromOutside}, text) {
		return sender{kind: text}, nil
	}
	kind, ids, _ := strings.Cut(text, ":")
	uid, gid, hasGroup := strings.Cut(ids, ":")
	user, err := redirect.ParseID(uid)
	if kind != fromUID || err != nil {
		return sender{}, invalid.Text("--from", text, "unknown sender", validFrom)
	}
	s := sender{kind: fromUID, owner: trace.Owner{UID: user}}
	if hasGroup {
		if s.owner.GID, err = redirect.ParseID(gid); err != nil {
			return sender{}, invalid.Text("--from", text, err.Error(), validFrom)
		}
	}
	return s, nil
}

const validPod = "addresses such as 10.244.1.7,fd00::7"

func parseAddresses(list []string) (parsed []netip.Addr, err error) {
	for _, text := range list {
		address, err := netip.ParseAddr(text)
		if err != nil || address.Zone() != "" || address.Is4In6() {
			return nil, invalid.Text("--pod-address", text, "not an address", validPod)
		}
		if address.IsUnspecified() || address.IsLoopback() || address.IsMulticast() {
			return nil, invalid.Text("--pod-address", text, "no pod has such an address", validPod)
		}
		parsed = append(parsed, address)
	}
	return parsed, nil
}

// question is a question about pods.
type question struct {
	from      sender
	to        destination
	proto     redirect.Proto
	addresses []netip.Addr
	iptables  bool
	kernel    kernel // asked as well; nil for none
	picture   output.Picture
	format    output.Format
}

// fits returns an error if the packet is not possible for a pod with these addresses.
func (q question) fits(addresses []netip.Addr) error {
	to := q.to.of(addresses)
	_, families := explain.Network(addresses)
	switch {
	case !slices.Contains(families, trace.Packet{Dest: to}.Family()) && !to.Addr().IsLoopback():
		return invalid.Text("--to", q.to.text, "the pod has no address of that family", "an address of the pod's families")
	case q.from.kind == fromOutside && !slices.Contains(addresses, to.Addr()):
		return invalid.Text("--to", q.to.text, "a packet from outside goes to the pod", "pod:PORT, or one of its addresses")
	}
	return nil
}

// of traces the packet through the rules of a pod.
func (q question) of(e explain.Explanation) (item Item, err error) {
	item = Item{Object: e.Object, Namespace: e.Namespace, Name: e.Name, Source: e.Source, Verdict: e.Verdict,
		Reason: e.Reason, Meaning: e.Meaning, Error: e.Error, Next: e.Next, Assumed: e.Assumed, Ways: []Way{}}
	if e.Verdict == explain.Refused {
		return item, nil
	}
	addresses := q.addressesOf(e.Pod(), &item)
	if item.hostNetwork = e.Pod().Spec.HostNetwork; item.hostNetwork {
		item.Assumed = nil
		return item, nil
	}
	if err := q.fits(addresses); err != nil {
		return item, err
	}
	pod, families := explain.Network(addresses)
	packet := trace.Packet{Proto: q.proto, Dest: q.to.of(addresses)}
	rules := e.Rules(families)
	rules.Iptables = q.iptables
	q.send(&packet, rules, e.Pod(), &item)
	if q.kernel != nil {
		told := q.kernel(e, packet)
		if told.unasked+told.Why == "" && packet.In != "" { // the kernel's report names the client
			item.Assumed = item.Assumed[:len(item.Assumed)-1]
			packet.In, packet.Source = told.In, parseSource(told.From, packet.Source)
			pod.Links[0].Name = told.In
		}
		item.Kernel = kernelOf(e.Namespace+"/"+e.Name, told, rules, rules.Trace(pod, packet))
	}
	item.ways = rules.Follow(pod, packet)
	for _, way := range item.ways {
		item.Ways = append(item.Ways, wayOf(way))
	}
	return item, nil
}

// send sets the sender of the packet.
func (q question) send(packet *trace.Packet, rules trace.Rules, pod *corev1.Pod, item *Item) {
	switch q.from.kind {
	case fromOutside:
		packet.In, packet.Source = explain.Link, netip.AddrPortFrom(explain.Client(packet.Family()), 0)
		item.Assumed = append(item.Assumed, "the client is "+packet.Source.Addr().String())
	case fromProxy:
		packet.Owner = rules.SidecarOwner()
	case fromUID:
		packet.Owner = &q.from.owner
	default:
		owner, assumed := explain.AppOwner(pod)
		packet.Owner = &owner
		item.Assumed = append(item.Assumed, assumed...)
	}
}

// addressesOf returns the pod's addresses: those of the command line, otherwise of its status, otherwise assumed ones.
func (q question) addressesOf(pod *corev1.Pod, item *Item) (addresses []netip.Addr) {
	if len(q.addresses) > 0 {
		return q.addresses
	}
	addresses, assumed := explain.Addresses(pod)
	item.Assumed = append(item.Assumed, assumed...)
	return addresses
}

const validTo = "ADDRESS:PORT, [ADDRESS]:PORT or pod:PORT, with a port 1 to 65535; with --dns the port may be left out"

// destination is the destination of the packet.
type destination struct {
	text    string
	pod     bool // to the pod's first address
	address netip.AddrPort
}

// of returns the destination's address for a pod with these addresses.
func (d destination) of(pod []netip.Addr) netip.AddrPort {
	if d.pod {
		return netip.AddrPortFrom(pod[0], d.address.Port())
	}
	return d.address
}

// parseTo parses a destination. number is the default port, 0 if a port is required.
func parseTo(text string, number redirect.Port) (to destination, err error) {
	host, port, hasPort := text, "", false
	if i := strings.LastIndexByte(text, ':'); i >= 0 && (strings.Count(text, ":") == 1 || strings.Contains(text, "]:")) {
		host, port, hasPort = text[:i], text[i+1:], true
	}
	switch {
	case hasPort:
		if number, err = redirect.ParsePort(port); err != nil {
			return to, invalid.Text("--to", text, err.Error(), validTo)
		}
	case number == 0:
		return to, invalid.Text("--to", text, "no port", validTo)
	}
	to = destination{text: text, pod: host == "pod"}
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		host = host[1 : len(host)-1]
	}
	address, err := netip.ParseAddr(host)
	if !to.pod && (err != nil || address.Zone() != "" || address.Is4In6() || address.IsUnspecified()) {
		return to, invalid.Text("--to", text, "not an address", validTo)
	}
	to.address = netip.AddrPortFrom(address, uint16(number))
	return to, nil
}
