package netfilter

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/istio-pod-network/controller/internal/testnet"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

// nested is a container in the pod, as with Docker in Docker: a network namespace behind a bridge of the pod.
type nested struct {
	lab  *testnet.Lab
	path string // the path of its network namespace
}

// nestedPort is the port of the container's server, whose name is nestedName.
const (
	nestedPort = "80"
	nestedName = "nested-container"
)

// newNested starts a container with a server. The bridge is docker0, with 172.17.0.1 and fd17::1.
func newNested(t *testing.T, lab *testnet.Lab) *nested {
	t.Helper()
	c := behindBridge(t, lab, "docker0", "172.17.0.", "fd17::")
	serve(t, c.path, ":"+nestedPort, nestedName)
	return c
}

// behindBridge creates a network namespace behind a bridge of the pod. The bridge's addresses end in 1.
func behindBridge(t *testing.T, lab *testnet.Lab, bridge, net4, net6 string) *nested {
	t.Helper()
	inner, err := ns.TempNetNS()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = inner.Close() })
	path := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), inner.Fd())
	replacer := strings.NewReplacer("BRIDGE", bridge, "NET4", net4, "NET6", net6)
	shell(t, lab, replacer.Replace(`ip link add BRIDGE type bridge
		ip address add NET41/24 dev BRIDGE
		ip -6 address add NET61/64 dev BRIDGE nodad
		ip link set BRIDGE up
		ip link add veth1 master BRIDGE type veth peer name inner
		ip link set veth1 up
		ip link set inner name eth0 netns `+path+`
		nsenter --net=`+path+` sh -ec '
			ip link set lo up
			ip address add NET42/24 dev eth0
			ip -6 address add NET62/64 dev eth0 nodad
			ip link set eth0 up
			ip route add default via NET41
			ip -6 route add default via NET61'`))
	return &nested{lab, path}
}

// serve listens in the network namespace at the path, and answers with a line with the name, as a stand-in of the lab
// does.
func serve(t *testing.T, path, address, name string) {
	t.Helper()
	err := ns.WithNetNSPath(path, func(ns.NetNS) error {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = listener.Close() })
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				go answer(conn, name)
			}
		}()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func answer(conn net.Conn, name string) {
	if _, err := bufio.NewReader(conn).ReadString('\n'); err == nil {
		_, _ = fmt.Fprintf(conn, "WHO %s local=%[2]s remote=%s dst=%[2]s\n", name, conn.LocalAddr(), conn.RemoteAddr())
	}
	_ = conn.Close()
}

// dialFrom connects from a thread in the namespace at the path.
func dialFrom(t *testing.T, path, network, address string) net.Conn {
	t.Helper()
	var conn net.Conn
	err := ns.WithNetNSPath(path, func(ns.NetNS) (err error) {
		conn, err = net.DialTimeout(network, address, time.Minute)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// published is the port of the pod that leads to the container's server.
const published = 8888

// peerReaches returns who answers the peer's connection to the published port.
func (c *nested) peerReaches(t *testing.T, family redirect.Family) string {
	t.Helper()
	address := testnet.Pod.Addr(testnet.Family(family)).String()
	return answers(t, dialFrom(t, c.lab.PeerPath, "tcp", net.JoinHostPort(address, fmt.Sprint(published))))
}

// answers returns the name that the other side sends.
func answers(t *testing.T, conn net.Conn) string {
	t.Helper()
	if _, err := io.WriteString(conn, "who\n"); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if words := strings.Fields(line); len(words) > 1 {
		return words[1]
	}
	return line
}

// writers publish the container's port, as dockerd does. $ipt and $to are the program and the target for a family, $nf
// is nft's name of the family, $where is -A or -I.
var writers = []struct {
	name, script string
}{
	{"iptables-nft", dockerd("-nft")},
	{"iptables-legacy", dockerd("-legacy")},
	{"nft", `nft -f - <<END
		table $nf docker {
			chain docker { tcp dport 8888 dnat to $to:80; }
			chain prerouting { type nat hook prerouting priority -100; fib daddr type local jump docker; }
		}
END
`},
	{"nft, inet", `nft -f - <<END
		table inet docker-$nf {
			chain prerouting {
				type nat hook prerouting priority -101;
				meta nfproto $proto fib daddr type local tcp dport 8888 dnat $nf to $to:80;
			}
		}
END
`},
}

func dockerd(way string) string {
	ipt := "$ipt" + way
	return ipt + " -t nat -N DOCKER\n" + ipt + " -t nat $where PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n" +
		ipt + " -t nat -A DOCKER ! -i docker0 -p tcp --dport 8888 -j DNAT --to-destination $to:80\n"
}

func (c *nested) publish(t *testing.T, script, where string) {
	t.Helper()
	shell(t, c.lab, "where="+where+"; ipt=iptables nf=ip proto=ipv4 to=172.17.0.2\n"+script+
		"ipt=ip6tables nf=ip6 proto=ipv6 to=[fd17::2]\n"+script)
}

// sameHook reports whether a writer's rules are in the same built-in chains as the backend's jumps.
func sameHook(backend Backend, writer string) bool { return string(backend) == writer }

// TestPublishedPort has somebody in the pod publish a container's port, before and after our rules are written. The
// peer's connection to it must reach the sidecar: with nftables always, with iptables if the same iptables appends the
// rules. Otherwise Check reports drift.
func TestPublishedPort(t *testing.T) {
	for _, w := range writers {
		t.Run("no rules/"+w.name, func(t *testing.T) { // the control
			lab, _ := newLab(t, testnet.Options{})
			c := newNested(t, lab)
			c.publish(t, w.script, "-A")
			for _, family := range redirect.Families {
				if got := c.peerReaches(t, family); got != nestedName {
					t.Errorf("%s: the peer reaches %s", family, got)
				}
			}
		})
		for _, backend := range backends {
			for _, where := range []string{"-A", "-I"} {
				t.Run(fmt.Sprintf("%s/%s %s", backend, w.name, where), func(t *testing.T) {
					publishAfter(t, backend, w.name, w.script, where)
				})
			}
			t.Run(fmt.Sprintf("%s/%s before", backend, w.name), func(t *testing.T) {
				lab, n := newLab(t, testnet.Options{})
				c := newNested(t, lab)
				c.publish(t, w.script, "-A")
				c.redirected(t, n, backend, w.name)
			})
		}
	}
}

// redirected writes our rules, and checks that the peer reaches the sidecar if our rules can come first.
func (c *nested) redirected(t *testing.T, n *NetNS, backend Backend, writer string) Applied {
	t.Helper()
	profile, _ := testnet.ProfileNamed("default")
	if err := c.lab.Use(profile); err != nil {
		t.Fatal(err)
	}
	applied := apply(t, n, backend, ruleSet(t, profile))
	if backend == Nftables || sameHook(backend, writer) {
		c.sidecarAnswers(t)
		if err := n.Check(applied, ruleSet(t, profile)); err != nil {
			t.Error(err)
		}
	}
	return applied
}

func (c *nested) sidecarAnswers(t *testing.T) {
	t.Helper()
	for _, family := range redirect.Families {
		if got := c.peerReaches(t, family); got != string(testnet.AtInbound) {
			t.Errorf("%s: the peer reaches %s", family, got)
		}
	}
}

func publishAfter(t *testing.T, backend Backend, writer, script, where string) {
	lab, n := newLab(t, testnet.Options{})
	c := newNested(t, lab)
	applied := c.redirected(t, n, backend, "")
	c.publish(t, script, where)
	err := n.Check(applied, named(t, "default"))
	if backend == Nftables || sameHook(backend, writer) && where == "-A" {
		c.sidecarAnswers(t)
		if err != nil {
			t.Error(err)
		}
		return
	}
	for _, family := range redirect.Families {
		if !IsDrift(err) || !strings.Contains(err.Error(), beforeOurs(backend, writer, family)) {
			t.Errorf("%s: Check says %v\nand not %s", family, err, beforeOurs(backend, writer, family))
		}
	}
	c.redirected(t, n, backend, writer)
}

// TestNestedDNS has a container in the pod, whose packets are masqueraded, query the peer by UDP. DNS capture is for
// apps, so it must not interfere.
func TestNestedDNS(t *testing.T) {
	for _, name := range []string{"none", "default", "dns", "tproxy-dns"} {
		for _, backend := range backends {
			t.Run(fmt.Sprintf("%s/%s", name, backend), func(t *testing.T) {
				lab, n := newLab(t, testnet.Options{})
				c := newNested(t, lab)
				shell(t, lab, `iptables-nft -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
					ip6tables-nft -t nat -A POSTROUTING -s fd17::/64 ! -o docker0 -j MASQUERADE`)
				if name != "none" {
					apply(t, n, backend, named(t, name))
				}
				for _, family := range redirect.Families {
					if got := c.asks(t, testnet.Peer.Addr(testnet.Family(family))); got != testnet.AtPeer {
						t.Errorf("%s: the container's query is answered by %q", family, got)
					}
				}
			})
		}
	}
}

// asks sends a DNS query from the container, at most three times, and returns who answers, or "".
func (c *nested) asks(t *testing.T, resolver netip.Addr) testnet.Landing {
	t.Helper()
	conn := dialFrom(t, c.path, "udp", net.JoinHostPort(resolver.String(), "53"))
	for range 3 {
		if _, err := io.WriteString(conn, "who\n"); err != nil {
			t.Fatal(err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(conn).ReadString('\n')
		if words := strings.Fields(line); err == nil && len(words) > 1 {
			return testnet.Landing(words[1])
		}
	}
	return ""
}

// TestMasqueradedDNS masquerades what leaves by an excluded interface, with its ports: an app's query on that interface
// is not captured, and is answered.
func TestMasqueradedDNS(t *testing.T) {
	profile, _ := testnet.ProfileNamed("dns-exclude-interfaces")
	flow := testnet.Flow{Name: "app-dns-vm", From: testnet.FromApp, Proto: testnet.UDP, To: testnet.VM, Port: 53}
	for _, backend := range backends {
		lab, n := newLab(t, testnet.Options{})
		shell(t, lab, `for ipt in iptables-nft ip6tables-nft; do
			$ipt -t nat -A POSTROUTING -o net1 -p udp -j MASQUERADE --to-ports 61000-62000
		done`)
		if err := lab.Use(profile); err != nil {
			t.Fatal(err)
		}
		apply(t, n, backend, ruleSet(t, profile))
		for _, family := range lab.Families() {
			if got := lab.Run(flow, family); got.Landed != testnet.AtVM || !strings.HasSuffix(got.Source, "(port changed)") {
				t.Errorf("%s: %s: %s", backend, family, got)
			}
		}
	}
}

// TestSamePriority adds a nat chain with the priority of ours, the lowest that the kernel allows. It runs before ours,
// so Check reports it, and the next ADD makes ours the first again.
func TestSamePriority(t *testing.T) {
	lab, n := newLab(t, testnet.Options{})
	c := newNested(t, lab)
	applied := c.redirected(t, n, Nftables, "")
	script := strings.NewReplacer("priority -101", "priority -199").Replace(writers[3].script)
	c.publish(t, script, "")
	err := n.Check(applied, named(t, "default"))
	for _, family := range redirect.Families {
		want := fmt.Sprintf("nftables table inet docker-%s chain prerouting: its rules may come before ours", family)
		if !IsDrift(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("Check says %v\nand not %s", err, want)
		}
	}
	apply(t, n, Nftables, named(t, "default"))
	c.sidecarAnswers(t)
	out, err := lab.PodCommand("nft", "add table ip x; add chain ip x y { type nat hook prerouting priority -200; }").
		CombinedOutput()
	if err == nil {
		t.Errorf("a nat chain may come before the first place: %s", out)
	}
}

// TestExcludedPublishedPort publishes a port that the settings exclude, unlike the container's own port: the peer
// reaches the container.
func TestExcludedPublishedPort(t *testing.T) {
	profile := testnet.Profile{Name: "excluded", Settings: map[string]any{
		"excludeInboundPorts": fmt.Sprint(published)}}
	for _, backend := range backends {
		for _, w := range writers {
			t.Run(fmt.Sprintf("%s/%s", backend, w.name), func(t *testing.T) {
				lab, n := newLab(t, testnet.Options{})
				c := newNested(t, lab)
				apply(t, n, backend, ruleSet(t, profile))
				c.publish(t, w.script, "-A")
				for _, family := range redirect.Families {
					if got := c.peerReaches(t, family); got != nestedName {
						t.Errorf("%s: the peer reaches %s", family, got)
					}
				}
			})
		}
	}
}

// beforeOurs returns Check's text about the writer's rules.
func beforeOurs(backend Backend, writer string, family redirect.Family) string {
	tables := iptablesName(family)
	switch {
	case sameHook(backend, writer):
		return tables + " table nat chain PREROUTING: unexpected entry at position 1, `-A PREROUTING -m addrtype " +
			"--dst-type LOCAL -j DOCKER`"
	case writer == string(IptablesLegacy):
		return tables + " table nat of iptables-legacy: chain PREROUTING has rules that may come before ours"
	case writer == string(IptablesNFT):
		return fmt.Sprintf("nftables table %s nat chain PREROUTING: its rules may come before ours", family)
	case writer == "nft":
		return fmt.Sprintf("nftables table %s docker chain prerouting: its rules may come before ours", family)
	}
	return fmt.Sprintf("nftables table inet docker-%s chain prerouting: its rules come before ours", family)
}
