package explain

import (
	"fmt"
	"net/netip"

	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"github.com/istio-pod-network/controller/plugin/trace"
	corev1 "k8s.io/api/core/v1"
)

// Assumptions about a pod without addresses, and about a client. The client's addresses are for documentation (RFC
// 5737, RFC 3849).
var (
	assumedPod    = []netip.Addr{netip.MustParseAddr("10.244.0.2"), netip.MustParseAddr("fd00:10:244::2")}
	assumedClient = map[redirect.Family]netip.Addr{
		redirect.IPv4: netip.MustParseAddr("192.0.2.1"), redirect.IPv6: netip.MustParseAddr("2001:db8::1"),
	}
)

// Link is the name of a pod's interface.
const Link = "eth0"

// Client returns the assumed address of a client.
func Client(f redirect.Family) netip.Addr { return assumedClient[f] }

// Addresses returns a pod's addresses. If it has none, it returns assumed ones, and what was assumed.
func Addresses(pod *corev1.Pod) (addresses []netip.Addr, assumed []string) {
	for _, ip := range pod.Status.PodIPs {
		if address, err := netip.ParseAddr(ip.IP); err == nil {
			addresses = append(addresses, address)
		}
	}
	if len(addresses) > 0 {
		return addresses, nil
	}
	return assumedPod, []string{fmt.Sprintf("the pod's addresses are %s and %s", assumedPod[0], assumedPod[1])}
}

// Network returns the network of a pod with those addresses, and their families.
func Network(addresses []netip.Addr) (pod trace.Pod, families []redirect.Family) {
	pod = trace.Pod{Links: []trace.Link{{Name: Link}}}
	for _, a := range addresses {
		pod.Links[0].Addresses = append(pod.Links[0].Addresses, netip.PrefixFrom(a, a.BitLen()))
		families = append(families, familyOf(a))
	}
	return pod, families
}

func familyOf(a netip.Addr) redirect.Family {
	if a.Is6() {
		return redirect.IPv6
	}
	return redirect.IPv4
}

// Rules returns the rules of the pod, which has addresses of those families.
func (e Explanation) Rules(families []redirect.Family) trace.Rules {
	rules := trace.Rules{Spec: redirect.DefaultSpec()}
	if e.Verdict == Redirected {
		rules.Spec = e.spec.ForAddresses(families)
		rules.RuleSet = rules.Spec.RuleSet()
	}
	return rules
}

// AppOwner returns user and group of the first container other than the sidecar, and what was assumed.
func AppOwner(pod *corev1.Pod) (owner trace.Owner, assumed []string) {
	var user, group *int64
	if s := pod.Spec.SecurityContext; s != nil {
		user, group = s.RunAsUser, s.RunAsGroup
	}
	name := "the app"
	if c := app(pod); c != nil {
		name = "container " + c.Name
		if s := c.SecurityContext; s != nil {
			user, group = over(user, s.RunAsUser), over(group, s.RunAsGroup)
		}
	}
	if user != nil {
		owner.UID = redirect.ID(*user)
	} else {
		assumed = append(assumed, name+" runs as user 0, which its image may say otherwise")
	}
	if group != nil {
		owner.GID = redirect.ID(*group)
	}
	return owner, assumed
}

// app returns the first container other than the sidecar, nil if there is none.
func app(pod *corev1.Pod) *corev1.Container {
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Name != redirect.ProxyContainer {
			return &pod.Spec.Containers[i]
		}
	}
	return nil
}

func over(pods, own *int64) *int64 {
	if own != nil {
		return own
	}
	return pods
}

// The packets in a pod's picture: a call of its app to a server outside, and a call from outside to its app.
const (
	serverPort  = 443
	assumedPort = 8080
)

// ways returns the ways of the packets in a pod's picture, and what was assumed.
func (e Explanation) ways() (ways []trace.Way, assumed []string) {
	addresses, assumed := Addresses(e.pod)
	network, families := Network(addresses)
	rules := e.Rules(families)
	owner, more := AppOwner(e.pod)
	assumed = append(assumed, more...)
	port := uint16(assumedPort)
	if c := app(e.pod); c != nil && len(c.Ports) > 0 {
		port = uint16(c.Ports[0].ContainerPort) //nolint:gosec // the API server and the manifest's reader take ports alone
	} else {
		assumed = append(assumed, fmt.Sprintf("the app listens on port %d", port))
	}
	client := Client(families[0])
	out := trace.Packet{Proto: redirect.TCP, Dest: netip.AddrPortFrom(client, serverPort), Owner: &owner}
	in := trace.Packet{Proto: redirect.TCP, Source: netip.AddrPortFrom(client, 0), In: Link,
		Dest: netip.AddrPortFrom(addresses[0], port)}
	return append(rules.Follow(network, out), rules.Follow(network, in)...), assumed
}

// draw draws the pod's picture for a terminal, if the pod can start.
func (e Explanation) draw(t *output.Text) {
	if e.Verdict == Refused {
		return
	}
	ways, assumed := e.ways()
	t.WriteByte('\n')
	for _, what := range assumed {
		t.Item("?", "Assumed for the picture: %s.", what)
	}
	t.Drawn(trace.Picture(ways...))
}

// svg returns the pod's picture as an SVG document.
func (e Explanation) svg() string {
	var ways []trace.Way
	if e.Verdict != Refused {
		ways, _ = e.ways()
	}
	return trace.SVG(output.Printable(fmt.Sprintf("%s %s/%s: %s", e.Object, e.Namespace, e.Name, e.Verdict)), ways...)
}
