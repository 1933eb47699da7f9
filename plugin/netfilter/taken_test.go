package netfilter

import (
	"regexp"
	"strconv"
	"testing"

	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/internal/testnet"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"golang.org/x/sys/unix"
)

// TestInboundPortTaken has an app listen on the sidecar's inbound port while the sidecar does not: before it has
// started, or in a family in which it does not listen. Redirected connections from outside then reach the app, as
// security.md says. TPROXY delivers only to a transparent socket, which needs CAP_NET_RAW or CAP_NET_ADMIN (ip(7),
// IP_TRANSPARENT).
func TestInboundPortTaken(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend Backend) {
		lab, n := newLab(t, testnet.Options{})
		for name, c := range map[string]struct {
			profile      string
			capabilities []uint
			want         testnet.Landing
		}{
			"REDIRECT":             {"default", nil, testnet.AtApp},
			"TPROXY":               {"tproxy", nil, testnet.Timeout},
			"TPROXY and NET_RAW":   {"tproxy", []uint{unix.CAP_NET_RAW}, testnet.AtApp},
			"TPROXY and NET_ADMIN": {"tproxy", []uint{unix.CAP_NET_ADMIN}, testnet.AtApp},
		} {
			profile, _ := testnet.ProfileNamed(c.profile)
			if err := lab.Use(profile); err != nil {
				t.Fatal(err)
			}
			apply(t, n, backend, ruleSet(t, profile))
			for _, family := range lab.Families() {
				giveBack, err := lab.TakeInbound(family, c.capabilities...)
				if err != nil {
					t.Fatal(err)
				}
				flow := testnet.Flow{From: testnet.FromPeer, Proto: testnet.TCP, To: testnet.Pod, Port: 7000} // no server has it
				if got := lab.Run(flow, family); got.Landed != c.want {
					t.Errorf("%s, %s: %s, want %s", name, family, got, c.want)
				}
				giveBack()
				if got := lab.Run(flow, family); got.Landed != testnet.AtInbound {
					t.Errorf("%s, %s, given back: %s", name, family, got)
				}
			}
		}
	})
}

// TestReroutedOwnInterface reroutes the interface by which peers reach the pod, which ADD refuses: the peers bypass the
// sidecar and reach the app.
func TestReroutedOwnInterface(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend Backend) {
		lab, n := newLab(t, testnet.Options{})
		for _, mode := range []string{"REDIRECT", "TPROXY"} {
			profile := testnet.Profile{Name: "own interface", Settings: map[string]any{"mode": mode,
				"rerouteVirtualInterfaces": "eth0", "includeOutboundIPRanges": "10.96.0.0/16,fd96::/64"}}
			await.Must(t, lab.Use(profile))
			apply(t, n, backend, ruleSet(t, profile))
			for _, family := range lab.Families() {
				flow := testnet.Flow{From: testnet.FromPeer, Proto: testnet.TCP, To: testnet.Pod, Port: 8080}
				if got := lab.Run(flow, family); got.Landed != testnet.AtApp {
					t.Errorf("%s, %s: %s", mode, family, got)
				}
			}
		}
	})
}

// TestAnswerWithoutOwner checks who owns the answer to a call of the sidecar's inbound port. If the kernel answers with
// a SYN cookie, as under a flood of SYNs, the answer has no owner, for nftables and for iptables. So its answers do not
// tell an app that listens there from the sidecar, as security.md says.
func TestAnswerWithoutOwner(t *testing.T) {
	lab, _ := newLab(t, testnet.Options{})
	profile, _ := testnet.ProfileNamed("default")
	await.Must(t, lab.Use(profile))
	shell(t, lab, `nft -f - <<-'end'
		table inet owners {
			chain output {
				type filter hook output priority 0
				tcp sport 15006 tcp flags & (syn|ack) == (syn|ack) counter comment "any"
				tcp sport 15006 tcp flags & (syn|ack) == (syn|ack) meta skuid 1337 counter comment "sidecar"
			}
		}
		end
		for t in iptables-nft ip6tables-nft iptables-legacy ip6tables-legacy; do
			$t -A OUTPUT -p tcp --sport 15006 --tcp-flags SYN,ACK SYN,ACK
			$t -A OUTPUT -p tcp --sport 15006 --tcp-flags SYN,ACK SYN,ACK -m owner --uid-owner 1337
		done`)
	for cookies, owned := range map[string]bool{"0": true, "2": false} { // 0: never a cookie; 2: always
		shell(t, lab, "sysctl -qw net.ipv4.tcp_syncookies="+cookies)
		for _, family := range lab.Families() {
			flow := testnet.Flow{From: testnet.FromPeer, Proto: testnet.TCP, To: testnet.Pod, Port: 15006}
			before := owners(t, lab, family)
			if got := lab.Run(flow, family); got.Landed != testnet.AtInbound {
				t.Errorf("%s: %s", family, got)
			}
			for asked, now := range owners(t, lab, family) {
				any, own := now[0]-before[asked][0], now[1]-before[asked][1]
				if any == 0 || (own > 0) != owned {
					t.Errorf("tcp_syncookies=%s, %s, %s: %d answers, %d of the sidecar's", cookies, family, asked, any, own)
				}
			}
		}
	}
}

// owners counts answers, all of them and the sidecar's, for each way to match the owner.
func owners(t *testing.T, lab *testnet.Lab, family testnet.Family) map[string][]int {
	t.Helper()
	counted := map[string][]int{"nft": nil, "-nft": nil, "-legacy": nil}
	for how := range counted {
		script, packets := "nft list table inet owners", regexp.MustCompile(`counter packets (\d+) `)
		if how != "nft" {
			script = iptablesName(redirect.Family(family)) + how + " -nvxL OUTPUT"
			packets = regexp.MustCompile(`(?m)^ *(\d+) .* spt:15006`)
		}
		for _, found := range packets.FindAllStringSubmatch(shell(t, lab, script), -1) {
			count, err := strconv.Atoi(found[1])
			await.Must(t, err)
			counted[how] = append(counted[how], count)
		}
		if len(counted[how]) != 2 {
			t.Fatalf("%s: %v", how, counted[how])
		}
	}
	return counted
}
