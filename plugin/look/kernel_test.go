package look

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/internal/testnet"
	"github.com/istio-pod-network/controller/plugin/trace/tracetest"
)

// TestThisKernel has the kernel that runs tell of a packet, and is told that it cannot by one that would keep the
// table. It also runs on other kernels (make kernels).
func TestThisKernel(t *testing.T) {
	p := newPod(t, testnet.Options{})
	p.apply(testnet.BaseProfiles[0])
	before := p.listing()
	release, owns := ownsTables()
	for _, from := range []string{"uid:1000:1000", "outside"} {
		to := netip.AddrPortFrom(testnet.Pod.Addr(testnet.IPv6), 8080)
		if from != "outside" {
			to = netip.AddrPortFrom(testnet.Outside.Addr(testnet.IPv4), 80)
		}
		told, status, stderr := p.look(p.args(from, "tcp", to.String())...)
		switch {
		case status != 0:
			t.Errorf("from %s: status %d: %s", from, status, stderr)
		case !owns:
			if !strings.Contains(told.Why, "takes Linux 5.12, and this is "+release) {
				t.Errorf("from %s: %+v", from, told)
			}
		case told.Why != "":
			t.Errorf("from %s: not told: %s", from, told.Why)
		default:
			way := p.rules.Trace(tracetest.Pod(), packetOf(t, from, "tcp", to, told))
			if c := p.rules.Compare(way, told); c.Differs != "" {
				t.Errorf("from %s: %s: %+v", from, c.Differs, told)
			}
		}
	}
	if after := p.listing(); after != before {
		t.Errorf("left behind:\n%s", after)
	}
	if told := p.read(); told.Why != "" || len(told.Tables) != 2 {
		t.Errorf("%s, %d tables", told.Why, len(told.Tables))
	}
}
