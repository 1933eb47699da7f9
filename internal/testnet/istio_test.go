package testnet

import (
	"fmt"
	"strings"
	"testing"
)

// istioRules returns the rules that Istio's CNI plugin makes from the settings, as in its golden files, without the two
// RETURNs for outbound port 15020, which istio-init does not have either. It shares nothing with the product's
// renderer: flows and expectations are tested against it.
func istioRules(s settings, family Family) string {
	lo, pass := "127.0.0.1/32", "127.0.0.6/32"
	if family == IPv6 {
		lo, pass = "::1/128", "::6/128"
	}
	t := tables{}
	for _, link := range wildcards(s.excludeInterfaces) {
		t.add("nat", "PREROUTING -i %s -j RETURN", link)
		t.add("nat", "OUTPUT -o %s -j RETURN", link)
		if s.tproxy {
			t.add("mangle", "PREROUTING -i %s -j RETURN", link)
			t.add("mangle", "OUTPUT -o %s -j RETURN", link)
		}
	}
	t.reroute(s, family)
	if s.dropInvalid {
		t.add("mangle", "PREROUTING -m conntrack --ctstate INVALID -j ISTIO_DROP")
		t.add("mangle", "ISTIO_DROP -j DROP")
	}
	t.add("nat", "ISTIO_INBOUND -p tcp --dport 15008 -j RETURN")
	t.add("nat", "ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports %d", s.outboundPort)
	t.add("nat", "ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports %d", s.inboundPort)
	t.inbound(s, lo, pass)
	t.add("nat", "OUTPUT -j ISTIO_OUTPUT")
	for _, ports := range s.excludeOutPorts {
		t.add("nat", "ISTIO_OUTPUT -p tcp --dport %d:%d -j RETURN", ports[0], ports[1])
		t.add("nat", "ISTIO_OUTPUT -p udp --dport %d:%d -j RETURN", ports[0], ports[1])
	}
	t.add("nat", "ISTIO_OUTPUT -o lo -s %s -j RETURN", pass)
	t.owners(s, lo)
	for _, group := range s.excludeGroups {
		if s.allGroups {
			t.add("nat", "ISTIO_OUTPUT -m owner --gid-owner %d -j RETURN", group)
		}
	}
	if !s.allGroups {
		none := ""
		for _, group := range s.includeGroups {
			none += fmt.Sprintf(" -m owner ! --gid-owner %d", group)
		}
		t.add("nat", "ISTIO_OUTPUT%s -j RETURN", none)
	}
	if s.dns {
		t.dns(s)
	}
	t.add("nat", "ISTIO_OUTPUT -d %s -j RETURN", lo)
	for _, prefix := range s.excludeRanges {
		if prefix.Addr().Is4() == (family == IPv4) {
			t.add("nat", "ISTIO_OUTPUT -d %s -j RETURN", prefix)
		}
	}
	for _, ports := range s.includeOutPorts {
		t.add("nat", "ISTIO_OUTPUT -p tcp --dport %d:%d -j ISTIO_REDIRECT", ports[0], ports[1])
	}
	if s.allRanges || s.allOutPorts {
		t.add("nat", "ISTIO_OUTPUT -j ISTIO_REDIRECT")
	}
	for _, prefix := range s.includeRanges {
		if prefix.Addr().Is4() == (family == IPv4) {
			t.add("nat", "ISTIO_OUTPUT -d %s -j ISTIO_REDIRECT", prefix)
		}
	}
	if s.tproxy {
		t.marks(s, lo)
	}
	return t.String()
}

// tables are the rules of each table, in order.
type tables map[string][]string

func (t tables) add(table, format string, args ...any) {
	t[table] = append(t[table], fmt.Sprintf("-A "+format, args...))
}

// String returns the input of iptables-restore.
func (t tables) String() string {
	var text strings.Builder
	for _, table := range []string{"raw", "mangle", "nat"} {
		fmt.Fprintf(&text, "*%s\n", table)
		declared := map[string]bool{}
		for _, rule := range t[table] {
			fields := strings.Fields(rule)
			for i, field := range fields {
				if strings.HasPrefix(field, "ISTIO_") && (i == 1 || fields[i-1] == "-j") && !declared[field] {
					declared[field] = true
					fmt.Fprintf(&text, ":%s -\n", field)
				}
			}
		}
		for _, rule := range t[table] {
			text.WriteString(rule + "\n")
		}
		text.WriteString("COMMIT\n")
	}
	return text.String()
}

// wildcards returns prefixes of interface names in iptables' form.
func wildcards(links []string) []string {
	return strings.Fields(strings.ReplaceAll(strings.Join(links, " "), "*", "+"))
}

// reroute adds the rules for virtual machines behind interfaces. Istio inserts them before all others.
func (t tables) reroute(s settings, family Family) {
	for _, link := range wildcards(s.rerouteInterfaces) {
		for _, prefix := range s.includeRanges {
			if prefix.Addr().Is4() == (family == IPv4) {
				t.add("nat", "PREROUTING -i %s -d %s -j ISTIO_REDIRECT", link, prefix)
			}
		}
		if s.allRanges {
			t.add("nat", "PREROUTING -i %s -j ISTIO_REDIRECT", link)
		}
		t.add("nat", "PREROUTING -i %s -j RETURN", link)
	}
}

func (t tables) inbound(s settings, lo, pass string) {
	if !s.allInPorts && len(s.includeInPorts) == 0 {
		return
	}
	table := "nat"
	if s.tproxy {
		table = "mangle"
		t.add("mangle", "ISTIO_INBOUND -p tcp -m mark --mark 1337 -j RETURN")
		t.add("mangle", "ISTIO_INBOUND -p tcp -s %s -i lo -j RETURN", pass)
		t.add("mangle", "ISTIO_INBOUND -p tcp -i lo -m mark ! --mark 1338 -j RETURN")
		t.add("mangle", "ISTIO_DIVERT -j MARK --set-mark 1337")
		t.add("mangle", "ISTIO_DIVERT -j ACCEPT")
		t.add("mangle", "ISTIO_TPROXY ! -d %s -p tcp -j TPROXY --tproxy-mark 1337/0xffffffff --on-port %d", lo,
			s.inboundPort)
	}
	t.add(table, "PREROUTING -p tcp -j ISTIO_INBOUND")
	capture := func(match string) {
		if !s.tproxy {
			t.add("nat", "ISTIO_INBOUND -p tcp %s -j ISTIO_IN_REDIRECT", match)
			return
		}
		t.add("mangle", "ISTIO_INBOUND -p tcp %s -m conntrack --ctstate RELATED,ESTABLISHED -j ISTIO_DIVERT", match)
		t.add("mangle", "ISTIO_INBOUND -p tcp %s -j ISTIO_TPROXY", match)
	}
	for _, ports := range s.includeInPorts {
		capture(fmt.Sprintf("--dport %d:%d", ports[0], ports[1]))
	}
	if s.allInPorts {
		for _, ports := range s.excludeInPorts {
			t.add(table, "ISTIO_INBOUND -p tcp --dport %d:%d -j RETURN", ports[0], ports[1])
		}
		capture("")
	}
}

// owners adds the rules for the proxy's packets.
func (t tables) owners(s settings, lo string) {
	tunnel, lan := "! --dport 15008", ""
	if s.dns {
		tunnel, lan = "-m multiport ! --dports 53,15008", "-p tcp ! --dport 53"
	}
	for _, owner := range []string{fmt.Sprintf("--uid-owner %d", s.proxyUID), fmt.Sprintf("--gid-owner %d", s.proxyGID)} {
		t.add("nat", "ISTIO_OUTPUT -o lo ! -d %s -p tcp %s -m owner %s -j ISTIO_IN_REDIRECT", lo, tunnel, owner)
		if !s.loopbackCIDR {
			t.add("nat", "ISTIO_OUTPUT -o lo %s -m owner ! %s -j RETURN", lan, owner)
		}
		t.add("nat", "ISTIO_OUTPUT -m owner %s -j RETURN", owner)
		tunnel = "! --dport 15008" // the rule for the group has no exception for DNS
	}
}

func (t tables) dns(s settings) {
	t.add("nat", "ISTIO_OUTPUT -j ISTIO_OUTPUT_DNS")
	t.add("nat", "ISTIO_OUTPUT_DNS -p tcp --dport 53 -j REDIRECT --to-ports %d", s.dnsPort)
	t.add("nat", "ISTIO_OUTPUT_DNS -p udp --dport 53 -j REDIRECT --to-ports %d", s.dnsPort)
	t.add("raw", "OUTPUT -j ISTIO_OUTPUT_DNS")
	for _, owner := range []string{fmt.Sprintf("--uid-owner %d", s.proxyUID), fmt.Sprintf("--gid-owner %d", s.proxyGID)} {
		t.add("raw", "ISTIO_OUTPUT_DNS -p udp --dport 53 -m owner %s -j CT --zone 1", owner)
		t.add("raw", "ISTIO_OUTPUT_DNS -p udp --sport %d -m owner %s -j CT --zone 2", s.dnsPort, owner)
	}
	t.add("raw", "ISTIO_OUTPUT_DNS -p udp --dport 53 -j CT --zone 2")
	t.add("raw", "PREROUTING -j ISTIO_INBOUND")
	t.add("raw", "ISTIO_INBOUND -p udp --sport 53 -j CT --zone 1")
}

// marks adds TPROXY mode's rules for marks.
func (t tables) marks(s settings, lo string) {
	t.add("mangle", "PREROUTING -p tcp -m mark --mark 1337 -j CONNMARK --save-mark")
	t.add("mangle", "OUTPUT -p tcp -o lo -m mark --mark 1337 -j RETURN")
	t.add("mangle", "OUTPUT ! -d %s -p tcp -o lo -m owner --uid-owner %d -j MARK --set-mark 1338", lo, s.proxyUID)
	t.add("mangle", "OUTPUT ! -d %s -p tcp -o lo -m owner --gid-owner %d -j MARK --set-mark 1338", lo, s.proxyGID)
	t.add("mangle", "OUTPUT -p tcp -m connmark --mark 1337 -j CONNMARK --restore-mark")
}

// applyIstio loads the rules into the lab's pod.
func applyIstio(t *testing.T, l *Lab, s settings) {
	t.Helper()
	for _, family := range l.Families() {
		restore(t, l, family, istioRules(s, family))
		if !s.tproxy {
			continue
		}
		ip := "ip -" + family.String()[len("IPv"):] + " "
		script := ip + "rule add fwmark 1337 lookup 133; " + ip + "route add local default dev lo table 133"
		if out, err := l.PodCommand("sh", "-c", script).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", script, err, out)
		}
	}
}

// restore replaces all rules of one family, and makes the kernel forget all connections.
func restore(t *testing.T, l *Lab, family Family, rules string) {
	t.Helper()
	tool := "iptables-nft-restore"
	if family == IPv6 {
		tool = "ip6tables-nft-restore"
	}
	cmd := l.PodCommand(tool)
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s\n%s", tool, err, out, rules)
	}
	if err := l.flush(); err != nil {
		t.Fatal(err)
	}
}

// TestIstio tests flows, stand-ins and expectations against Istio's own rules.
func TestIstio(t *testing.T) {
	for _, p := range Profiles {
		t.Run(p.Name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, Options{})
			if err := l.AddPassthrough(); err != nil {
				t.Fatal(err)
			}
			if err := l.Use(p); err != nil {
				t.Fatal(err)
			}
			applyIstio(t, l, p.settings())
			for _, r := range l.Check() {
				if !Deliberate(p, r.Flow) {
					t.Error(r)
				}
			}
		})
	}
}
