package look

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/internal/testnet"
	"github.com/istio-pod-network/controller/plugin/look/report"
	"golang.org/x/sys/unix"
)

var withDNS = testnet.BaseProfiles[slices.IndexFunc(testnet.BaseProfiles,
	func(p testnet.Profile) bool { return p.Name == "dns" })]

// asked are questions whose packet comes to a socket of the pod, where the kernel would remember it.
func (p *pod) asked() (all []*question) {
	for _, proto := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		for _, family := range []testnet.Family{testnet.IPv4, testnet.IPv6} {
			all = append(all, &question{netns: p.lab.Path, id: p.id, uid: 1000, gid: 1000, proto: proto,
				to: netip.AddrPortFrom(testnet.Outside.Addr(family), 53)})
		}
	}
	return all
}

// takePorts has the program choose these ports first.
func takePorts(t *testing.T, ports ...uint16) {
	real := choosePort
	t.Cleanup(func() { choosePort = real })
	choosePort = func() uint16 {
		if len(ports) == 0 {
			return real()
		}
		port := ports[0]
		ports = ports[1:]
		return port
	}
}

// natAsked reports whether the kernel has told of a rule of nat, and where the packet came to its end.
func (p *pod) natAsked(q *question) (asked bool, from string) {
	p.Helper()
	told, err := q.trace()
	for range 20 {
		if !tooSlow(told) {
			break
		}
		told, err = q.trace()
	}
	if err != nil || told.Why != "" {
		p.Fatalf("%v %s", err, told.Why)
	}
	if told.End.Where != report.Pod {
		p.Errorf("it ends %+v", told.End)
	}
	nat := func(s report.Step) bool { return strings.HasPrefix(s.Chain, "nat-") }
	return slices.ContainsFunc(told.Steps, nat), told.From
}

// The kernel does not remember the packet: one from the same port, right after it, is asked about as the first was.
func TestForget(t *testing.T) {
	p := newPod(t, testnet.Options{})
	p.apply(withDNS)
	for _, q := range p.asked() {
		takePorts(t, slices.Repeat([]uint16{45678}, 100)...) // more than are asked for
		for range 2 {
			if asked, from := p.natAsked(q); !asked || netip.MustParseAddrPort(from).Port() != 45678 {
				t.Errorf("%+v: from %s, nat was asked: %t", q, from, asked)
			}
		}
	}
}

// A port that a connection of the pod has had is not taken: nat asks no rule about that.
func TestPortOfAConnection(t *testing.T) {
	p := newPod(t, testnet.Options{})
	p.apply(withDNS)
	for _, q := range p.asked() {
		takePorts(t, 45679, 45679)
		var sent *packet
		err := p.netns.Within(func() (err error) {
			if sent, err = q.openAs(); err != nil {
				return err
			}
			return sent.send(q.to)
		})
		if err != nil {
			t.Fatal(err)
		}
		sent.close()
		if asked, from := p.natAsked(q); !asked || netip.MustParseAddrPort(from).Port() == 45679 {
			t.Errorf("%+v: from %s, nat was asked: %t", q, from, asked)
		}
	}
}
