package look

import (
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/internal/testnet"
	"github.com/istio-pod-network/controller/plugin/look/report"
	"github.com/istio-pod-network/controller/plugin/netfilter"
)

// Nobody receives the packet where somebody else's nat gives it another source before it is dropped: neither who
// listens in the pod nor anybody outside.
func TestNobodyReceivesTranslated(t *testing.T) {
	p := newPod(t, testnet.Options{})
	p.nft(`table inet theirs {
		chain out { type nat hook postrouting priority 100; oifname != "lo" jump masked; }
		chain masked { meta l4proto { tcp, udp } masquerade to :7000-7001; }
		chain in { type nat hook input priority 100; meta l4proto { tcp, udp } snat to :7002-7003; }
	}`)
	seen := func(where []string) string {
		out, err := exec.Command("nsenter", append(where, "nft", "list", "table", "inet", "seen")...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	pod, peer := []string{"--net=" + p.lab.Path}, []string{"--net=" + p.lab.PeerPath}
	for place, hook := range map[string][]string{"input priority 2147483647": pod, "prerouting priority -300": peer} {
		count := exec.Command("nsenter", append(hook, "nft", "table inet seen { chain c { type filter hook "+place+"; "+
			"tcp flags syn counter; udp length 8 counter; }; }")...)
		if out, err := count.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	for _, family := range []testnet.Family{testnet.IPv4, testnet.IPv6} {
		for _, proto := range []string{"tcp", "udp"} {
			for from, places := range map[string][]testnet.Place{"uid:1000:1000": {testnet.Pod, testnet.Outside},
				"outside": {testnet.Pod}} {
				for _, place := range places {
					to := netip.AddrPortFrom(place.Addr(family), 9000)
					if told, status, stderr := p.look(p.args(from, proto, to.String())...); status != 0 || told.Why != "" {
						t.Errorf("%s from %s to %s: %d, %s %s", proto, from, to, status, told.Why, stderr)
					}
				}
			}
		}
	}
	if in := seen(pod); strings.Count(in, "counter packets 0 bytes 0") != 2 {
		t.Errorf("something has come to the pod's sockets:\n%s", in)
	}
	// from the peer's own are those from outside, which it sends
	if out := seen(peer); strings.Count(out, "counter packets 0 bytes 0") != 2 {
		t.Errorf("something has left the pod:\n%s", out)
	}
}

// What rules do with the packet is told also where somebody else's nat has given it another source port before.
func TestHeardAfterTranslation(t *testing.T) {
	p := newPod(t, testnet.Options{})
	p.nft(`table inet theirs {
		chain out { type nat hook postrouting priority 100; meta l4proto { tcp, udp } snat to :7000-7001; }
		chain back { type filter hook prerouting priority 100; meta l4proto { tcp, udp } counter accept; }
		chain in { type filter hook input priority 200; meta l4proto { tcp, udp } counter accept; }
	}`)
	for _, family := range []testnet.Family{testnet.IPv4, testnet.IPv6} {
		for _, proto := range []string{"tcp", "udp"} {
			to := netip.AddrPortFrom(testnet.Pod.Addr(family), 9000)
			told, status, stderr := p.look(p.args("uid:1000:1000", proto, to.String())...)
			var heard []string
			for _, s := range told.Steps {
				if s.Table == "theirs" {
					heard = append(heard, s.Chain)
				}
			}
			if want := []string{"out", "back", "in"}; status != 0 || told.End.Where != report.Pod || !slices.Equal(heard, want) {
				t.Errorf("%s to %s: %d, %+v %s; want steps of %v", proto, to, status, told, stderr, want)
			}
		}
	}
}

// While the program listens, only its own packet is dropped: not others from the same port.
func TestOthersAreNotDropped(t *testing.T) {
	p := newPod(t, testnet.Options{})
	const port = 40000
	pod4, pod6 := testnet.Pod.Addr(testnet.IPv4), testnet.Pod.Addr(testnet.IPv6)
	peer4, peer6 := testnet.Peer.Addr(testnet.IPv4), testnet.Peer.Addr(testnet.IPv6)
	peer, err := netfilter.Open(p.lab.PeerPath)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(peer.Close)
	for _, c := range []struct {
		what    string
		outside bool
		to      netip.AddrPort // of the packet
		from    *netfilter.NetNS
		dial    netip.AddrPort
		comes   bool
	}{
		{"its own", false, netip.AddrPortFrom(peer4, 8080), p.netns, netip.AddrPortFrom(peer4, 8080), false},
		{"the other family", false, netip.AddrPortFrom(peer4, 8080), p.netns, netip.AddrPortFrom(peer6, 8080), true},
		{"to the pod", false, netip.AddrPortFrom(peer4, 8080), peer, netip.AddrPortFrom(pod4, 8080), true},
		{"its own from outside", true, netip.AddrPortFrom(pod6, 8080), peer, netip.AddrPortFrom(pod6, 8080), false},
		{"to another port", true, netip.AddrPortFrom(pod6, 8080), peer, netip.AddrPortFrom(pod6, 8081), true},
		{"the pod's own", true, netip.AddrPortFrom(pod6, 8080), p.netns, netip.AddrPortFrom(peer6, 8080), true},
		{"in the pod", true, netip.AddrPortFrom(pod6, 8080), p.netns, netip.AddrPortFrom(pod6, 8080), true},
	} {
		t.Run(c.what, func(t *testing.T) {
			q := question{proto: 6, to: c.to, outside: c.outside}
			var its *listener
			err := p.netns.Within(func() (err error) {
				its, err = q.listen(port)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			defer its.close()
			if comes := dialled(t, c.from, port, c.dial, c.comes); comes != c.comes {
				t.Errorf("connected: %t, want %t", comes, c.comes)
			}
		})
	}
}

// dialled reports whether somebody answers a call from that port. One that should be answered is waited for.
func dialled(t *testing.T, from *netfilter.NetNS, port int, to netip.AddrPort, answered bool) bool {
	t.Helper()
	limit := time.Minute
	if !answered {
		limit = time.Second
	}
	var c net.Conn
	err := from.Within(func() (err error) {
		c, err = (&net.Dialer{Timeout: limit, LocalAddr: &net.TCPAddr{Port: port}}).Dial("tcp", to.String())
		return err
	})
	if err != nil {
		t.Log(err)
		return false
	}
	_ = c.(*net.TCPConn).SetLinger(0)
	return c.Close() == nil
}

// The packet is sent once, and its port is nobody else's until it is closed.
func TestSentOnce(t *testing.T) {
	p := newPod(t, testnet.Options{})
	p.nft("table ip lost { chain c { type filter hook output priority 0; tcp flags syn counter drop; }; }")
	to := netip.AddrPortFrom(testnet.Outside.Addr(testnet.IPv4), 80)
	err := p.netns.Within(func() error {
		its, err := (&question{proto: 6, to: to}).open()
		if err != nil {
			return err
		}
		defer its.close()
		if err := its.send(to); err != nil {
			return err
		}
		if left := p.sending(); left != "" {
			t.Errorf("it would be sent again: %s", left)
		}
		if l, err := net.Listen("tcp4", fmt.Sprintf(":%d", its.port)); err == nil {
			t.Errorf("somebody else has %s", l.Addr())
			_ = l.Close()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if now := p.listing(); !strings.Contains(now, "counter drop") {
		t.Error(now)
	}
}
