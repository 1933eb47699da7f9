package wait

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"github.com/istio-pod-network/controller/plugin/annotation"
)

// expectation is the redirection that the probe expects.
type expectation struct {
	proxyUID          uint32
	outbound, inbound uint16
	ranges            *string // the captured outbound ranges, unless all are
	families          families
}

// families says which of the pod's families the rules capture.
type families string

const (
	familiesAll   families = "all"
	familiesProxy families = "proxy" // the one in which a sidecar listens that is not configured to listen in both
)

// of returns the families of the pod that are captured. With proxy that is IPv4 if the pod has it, and otherwise IPv6.
func (f families) of(pod []family) []family {
	for _, one := range pod {
		if f == families(one.name) || f == familiesProxy {
			return []family{one}
		}
	}
	return pod
}

// with returns e, changed by the pod's annotations. They take precedence, as in the plugin; a value that the plugin
// would refuse is ignored. The captured families are a part of the mark, so they count only if the mark is about this
// network namespace (isOwn).
func (e expectation) with(a annotations, isOwn bool) expectation {
	userID(a[annotation.EnvoyUserID], &e.proxyUID)
	port(a[annotation.EnvoyPort], &e.outbound)
	if ranges, present := a[annotation.IncludeOutboundIPRanges]; present && ranges != "*" {
		e.ranges = &ranges
	}
	if isOwn {
		e.families = families(a[annotation.Families])
	}
	return e
}

// prober checks once whether connections are redirected.
type prober func(context.Context, expectation) finding

// family is an address family with the addresses that the probe uses in it.
type family struct {
	name, network                       string
	loopback, passthrough, outside, any netip.Addr
}

// knownFamilies are the families in the order of the attempts. No host has an address in 192.0.2.0/24 or 2001:db8::/32,
// which are reserved for documentation (RFC 5737, RFC 3849).
var knownFamilies = []family{
	{"IPv4", "tcp4", netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.6"), netip.MustParseAddr("192.0.2.1"),
		netip.IPv4Unspecified()},
	{"IPv6", "tcp6", netip.IPv6Loopback(), netip.MustParseAddr("::6"), netip.MustParseAddr("2001:db8::1"),
		netip.IPv6Unspecified()},
}

// dialPort is the port that the probe dials. Istio's own validation uses it too.
const dialPort = 15002

// probe tries every captured family of the pod.
func probe(ctx context.Context, e expectation) finding {
	return e.try(ctx, uint32(os.Geteuid()), podFamilies)
}

func (e expectation) try(ctx context.Context, uid uint32, pod func() ([]family, error)) finding {
	have, err := pod()
	if err != nil {
		return found(missing, "%v", err)
	}
	if len(have) == 0 {
		return found(missing, "the pod has no global address on any interface but lo")
	}
	var arrived, problems []string
	failed := missing
	for _, family := range e.families.of(have) {
		a := e.attempt(family, uid)
		if err := a.run(ctx); err != nil {
			if isHeld(err) {
				failed = never
			}
			problems = append(problems, family.name+": "+err.Error())
			continue
		}
		arrived = append(arrived, fmt.Sprintf("%s to port %d", family.name, a.listen.Port()))
	}
	who := fmt.Sprintf("as user %d, which is not the proxy's (%d)", uid, e.proxyUID)
	if uid == e.proxyUID {
		who = fmt.Sprintf("as the proxy's user %d", uid)
	}
	if len(problems) == 0 {
		return found(ready, "connections made %s are redirected: %s", who, strings.Join(arrived, ", "))
	}
	f := found(failed, "%s (%s)", strings.Join(problems, "; "), who)
	if uid != e.proxyUID && e.ranges != nil {
		f.text += fmt.Sprintf("; the pod captures only %q, which such a probe cannot see: run it as the proxy's user",
			*e.ranges)
	}
	return f
}

// attempt returns the connection that a process of the user makes, and where it has to arrive.
func (e expectation) attempt(f family, uid uint32) attempt {
	if uid == e.proxyUID {
		// The source is the loopback address. The kernel would choose ::6 as the source for ::6, and the rules let pass
		// what comes from 127.0.0.6 or ::6.
		return attempt{f, netip.AddrPortFrom(f.loopback, 0), netip.AddrPortFrom(f.passthrough, dialPort),
			netip.AddrPortFrom(f.loopback, e.inbound)}
	}
	return attempt{f, netip.AddrPortFrom(f.any, 0), netip.AddrPortFrom(f.outside, dialPort),
		netip.AddrPortFrom(f.loopback, e.outbound)}
}

// podFamilies returns the families in which an interface other than lo has a global unicast address.
func podFamilies() ([]family, error) {
	nics, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("listing the interfaces: %w", err)
	}
	has := map[bool]bool{}
	for _, nic := range nics {
		if nic.Flags&net.FlagLoopback != 0 {
			continue
		}
		addrs, err := nic.Addrs()
		if err != nil {
			return nil, fmt.Errorf("listing the addresses of %q: %w", nic.Name, err)
		}
		for _, addr := range addrs {
			if prefix, ok := addr.(*net.IPNet); ok && prefix.IP.IsGlobalUnicast() {
				has[prefix.IP.To4() != nil] = true
			}
		}
	}
	var have []family
	for _, f := range knownFamilies {
		if has[f.loopback.Is4()] {
			have = append(have, f)
		}
	}
	return have, nil
}

// errHeld says that the probe cannot listen where the rules redirect to.
type errHeld struct {
	listen netip.AddrPort
	err    error
}

func (e *errHeld) Error() string {
	if errors.Is(e.err, syscall.EADDRINUSE) {
		return fmt.Sprintf("port %d is already held at %s (a sidecar that was started before?), so nothing can be probed",
			e.listen.Port(), e.listen)
	}
	return fmt.Sprintf("port %d cannot be listened on at %s (%v), so nothing can be probed", e.listen.Port(), e.listen,
		e.err)
}

// isHeld reports whether err is an errHeld.
func isHeld(err error) bool {
	var held *errHeld
	return errors.As(err, &held)
}
