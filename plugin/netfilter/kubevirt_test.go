package netfilter

import (
	"net"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/internal/testnet"
)

// The rules of KubeVirt's masquerade binding in a pod with a sidecar, for a virtual machine without a list of ports.
// ssh bypasses the sidecar and goes to the machine. What the sidecar passes on to the pod's own address or to loopback
// goes to the machine, with the bridge's address as its source. The ports of a live migration stay in the pod. What the
// machine sends is masqueraded. In IPv6 the sidecar's connections are not forwarded to the machine. In the scripts $nf,
// $ipt, $vm, $gw and $lo belong to a family, $own are the addresses that lead to the machine, and $from those that the
// bridge replaces. Releases whose list of ports to skip has the ports of a migration (49152 and 49153) have a rule for
// them; others, whose ReservedPorts in pkg/network/istio/ports.go has only the sidecar's ports, do not. Source:
// kubevirt/kubevirt pkg/network/setup/netpod/masquerade, pkg/network/istio.
var masquerades = map[string]string{
	"nft": `nft -f - <<END
		table $nf nat {
			chain KUBEVIRT_PREINBOUND { tcp dport 22 counter dnat to $vm; }
			chain KUBEVIRT_POSTINBOUND {
				tcp dport { 15001, 15006, 49152, 49153 } $nf saddr $lo counter return;
				$nf saddr { $from } counter snat to $gw;
			}
			chain prerouting { type nat hook prerouting priority -100; iifname "eth0" counter jump KUBEVIRT_PREINBOUND; }
			chain input { type nat hook input priority 100; }
			chain output {
				type nat hook output priority -100;
				tcp dport { 15001, 15006, 49152, 49153 } $nf saddr $lo counter return;
				$nf daddr { $own } counter dnat to $vm;
			}
			chain postrouting {
				type nat hook postrouting priority 100;
				$nf saddr $vm counter masquerade;
				oifname "k6t-eth0" counter jump KUBEVIRT_POSTINBOUND;
			}
		}
END
`,
	"iptables-nft":    masqueradeBy("-nft"),
	"iptables-legacy": masqueradeBy("-legacy"),
}

// masqueradeBy returns the rules as releases without nft(8) write them.
func masqueradeBy(way string) string {
	return strings.ReplaceAll(`for chain in KUBEVIRT_PREINBOUND KUBEVIRT_POSTINBOUND; do IPT -N $chain; done
		IPT -A PREROUTING -i eth0 -j KUBEVIRT_PREINBOUND
		IPT -A KUBEVIRT_PREINBOUND -p tcp --dport 22 -j DNAT --to-destination $vm
		IPT -A OUTPUT -p tcp -m multiport --dports 15001,15006,49152,49153 -s $lo -j RETURN
		IPT -A OUTPUT -d $own -j DNAT --to-destination $vm
		IPT -A POSTROUTING -s $vm -j MASQUERADE
		IPT -A POSTROUTING -o k6t-eth0 -j KUBEVIRT_POSTINBOUND
		IPT -A KUBEVIRT_POSTINBOUND -p tcp -m multiport --dports 15001,15006,49152,49153 -s $lo -j RETURN
		IPT -A KUBEVIRT_POSTINBOUND -s $from -j SNAT --to-source $gw
`, "IPT", "$ipt"+way+" -t nat")
}

// machine is the name of the virtual machine behind the pod.
const machine = "machine"

func newMachine(t *testing.T, lab *testnet.Lab) *nested {
	t.Helper()
	vm := behindBridge(t, lab, "k6t-eth0", "10.0.2.", "fd10:0:2::")
	shell(t, lab, "echo 1 >/proc/sys/net/ipv4/conf/k6t-eth0/route_localnet") // KubeVirt does so too
	for _, port := range []string{"22", "80", "49152", "49153"} {
		serve(t, vm.path, ":"+port, machine)
	}
	for _, loopback := range []string{"127.0.0.1", "[::1]"} { // where a live migration arrives
		for _, port := range []string{"49152", "49153"} {
			serve(t, lab.Path, loopback+":"+port, "migration")
		}
	}
	return vm
}

func (c *nested) masquerade(t *testing.T, writer string) {
	t.Helper()
	script := masquerades[writer]
	shell(t, c.lab, "nf=ip ipt=iptables vm=10.0.2.2 gw=10.0.2.1 lo=127.0.0.1 own=127.0.0.1,10.88.0.1 "+
		"from=127.0.0.1,127.0.0.6\n"+script+"nf=ip6 ipt=ip6tables vm=fd10:0:2::2 gw=fd10:0:2::1 lo=::1 own=::1 from=::1\n"+
		script)
}

// TestKubeVirt writes our rules before and after KubeVirt's, and again.
func TestKubeVirt(t *testing.T) {
	for name, settings := range map[string]map[string]any{
		"rerouted":         {"excludeInboundPorts": "22", "rerouteVirtualInterfaces": "k6t-eth0"},
		"excluded":         {"includeInboundPorts": "80", "excludeInterfaces": "k6t-eth0", "dnsCapture": true},
		"rerouted, TPROXY": {"mode": "TPROXY", "excludeInboundPorts": "22", "rerouteVirtualInterfaces": "k6t-eth0"},
	} {
		profile := testnet.Profile{Name: name, Settings: settings}
		t.Run(name, func(t *testing.T) {
			eachBackend(t, func(t *testing.T, backend Backend) {
				for writer := range masquerades {
					lab, n := newLab(t, testnet.Options{})
					vm := newMachine(t, lab)
					if err := lab.Use(profile); err != nil {
						t.Fatal(err)
					}
					vm.masquerade(t, writer)
					apply(t, n, backend, ruleSet(t, profile))
					vm.works(t, backend, writer+" before", profile)

					lab, n = newLab(t, testnet.Options{})
					vm = newMachine(t, lab)
					if err := lab.Use(profile); err != nil {
						t.Fatal(err)
					}
					apply(t, n, backend, ruleSet(t, profile))
					vm.masquerade(t, writer)
					vm.works(t, backend, writer+" after", profile)
					apply(t, n, backend, ruleSet(t, profile))
					vm.works(t, backend, writer+" after, and again", profile)
				}
			})
		})
	}
}

func (c *nested) works(t *testing.T, backend Backend, writer string, profile testnet.Profile) {
	t.Helper()
	machineLands := testnet.AtPeer
	if _, reroutes := profile.Settings["rerouteVirtualInterfaces"]; reroutes {
		machineLands = testnet.AtOutbound
	}
	for _, family := range c.lab.Families() {
		for _, want := range []struct {
			flow   testnet.Flow
			lands  testnet.Landing
			source string
		}{
			{testnet.Flow{From: testnet.FromPeer, To: testnet.Pod, Port: 80}, testnet.AtInbound, ""},
			{testnet.Flow{From: testnet.FromPeer, To: testnet.Pod, Port: 22}, machine, ""},
			{testnet.Flow{From: testnet.FromProxy, To: testnet.Pod, Port: 80, Src: testnet.Passthrough}, machine, "10.0.2.1"},
			{testnet.Flow{From: testnet.FromApp, To: testnet.Loopback, Port: 80}, machine, "10.0.2.1"},
			{testnet.Flow{From: testnet.FromApp, To: testnet.Peer, Port: 8080}, testnet.AtOutbound, ""},
			{testnet.Flow{From: testnet.FromRoot, To: testnet.Loopback, Port: 49152}, "migration", ""},
			{testnet.Flow{From: testnet.FromRoot, To: testnet.Loopback, Port: 49153}, "migration", ""},
		} {
			if family == testnet.IPv6 && want.source != "" {
				continue // ::1 cannot leave the pod, and KubeVirt does not forward ::6
			}
			want.flow.Proto = testnet.TCP
			got := c.lab.RunOnce(want.flow, family)
			for try := 0; try < 20 && got.Landed == testnet.Timeout; try++ { // the lab waits for its own servers only
				got = c.lab.RunOnce(want.flow, family)
			}
			if got.Landed != want.lands || want.source != "" && !strings.HasPrefix(got.Source, want.source) {
				t.Errorf("%s, %s: %s: %s: %s", backend, writer, family, want.flow, got)
			}
		}
		peer := testnet.Peer.Addr(family)
		if got := answers(t, dialFrom(t, c.path, "tcp", net.JoinHostPort(peer.String(), "8080"))); got != string(
			machineLands) {
			t.Errorf("%s, %s: %s: the machine reaches %s", backend, writer, family, got)
		}
		if got := c.asks(t, peer); got != testnet.AtPeer {
			t.Errorf("%s, %s: %s: the machine's query is answered by %q", backend, writer, family, got)
		}
	}
}
