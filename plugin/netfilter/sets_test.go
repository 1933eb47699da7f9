package netfilter

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/plugin/redirect"
)

// TestIntervals writes intervals as start-end, where end is the first address after. The kernel accepts no overlaps.
func TestIntervals(t *testing.T) {
	for prefixes, want := range map[string]string{
		"10.0.0.0/8":                             "10.0.0.0-11.0.0.0",
		"10.0.0.0/9 10.128.0.0/9":                "10.0.0.0-11.0.0.0",
		"10.0.0.0/24 10.0.2.0/24":                "10.0.0.0-10.0.1.0 10.0.2.0-10.0.3.0",
		"0.0.0.0/0 127.0.0.0/8":                  "0.0.0.0-",
		"126.0.0.0/7 127.0.0.0/8 128.0.0.0/8":    "126.0.0.0-129.0.0.0",
		"1.2.3.4/32 255.255.255.255/32":          "1.2.3.4-1.2.3.5 255.255.255.255-",
		"::/0 ::1/128":                           "::-",
		"fd00::/8 fe00::/8 ffff::/16":            "fd00::-ff00:: ffff::-",
		"10.0.0.0/24 10.0.1.0/32 10.0.1.2/31":    "10.0.0.0-10.0.1.1 10.0.1.2-10.0.1.4",
		"10.0.0.0/8 10.1.0.0/16 10.255.255.0/24": "10.0.0.0-11.0.0.0",
	} {
		var list []netip.Prefix
		for _, p := range strings.Fields(prefixes) {
			list = append(list, netip.MustParsePrefix(p))
		}
		var got strings.Builder
		for _, e := range intervals(list) {
			addr, _ := netip.AddrFromSlice(e.key)
			if e.end {
				fmt.Fprintf(&got, "%s ", addr)
			} else {
				fmt.Fprintf(&got, "%s-", addr)
			}
		}
		if text := strings.TrimSpace(got.String()); text != want {
			t.Errorf("%s: %s, want %s", prefixes, text, want)
		}
	}
}

// TestPortIntervals does the same for ports: an interval up to port 65535 has no end.
func TestPortIntervals(t *testing.T) {
	for text, want := range map[string]string{
		"80,8000-8100": "80-81 8000-8101", "80,81,90-99": "80-82 90-100", "0-10,20": "0-11 20-21",
		"1,65533-65535": "1-2 65533-", "0-65535": "0-", "1-3,65535": "1-4 65535-",
	} {
		ports, err := redirect.ParsePorts(text)
		if err != nil {
			t.Fatal(err)
		}
		var got strings.Builder
		for _, e := range portIntervals(ports.List()) {
			fmt.Fprintf(&got, "%d%s", binary.BigEndian.Uint16(e.key), map[bool]string{true: " ", false: "-"}[e.end])
		}
		if text := strings.TrimSpace(got.String()); text != want {
			t.Errorf("%s: %s, want %s", ports, text, want)
		}
	}
}

// TestMultiport fills iptables' multiport matches: they have fifteen places, and a range needs two.
func TestMultiport(t *testing.T) {
	for text, want := range map[string][]string{
		"80":        {"--dport 80"},
		"8000-8100": {"--dport 8000:8100"},
		"1,3-5":     {"-m multiport --dports 1,3:5"},
		"1,3,5,7,9,11,13,15,17,19,21,23,25,27-29": {"-m multiport --dports 1,3,5,7,9,11,13,15,17,19,21,23,25,27:29"},
		"1,3,5,7,9,11,13,15,17,19,21,23,25,27,29-31": {"-m multiport --dports 1,3,5,7,9,11,13,15,17,19,21,23,25,27",
			"--dport 29:31"},
		"1-3,5-7,9-11,13-15,17-19,21-23,25-27,29,31-33": {"-m multiport --dports 1:3,5:7,9:11,13:15,17:19,21:23,25:27,29",
			"--dport 31:33"},
	} {
		ports, err := redirect.ParsePorts(text)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		rule := redirect.Rule{Matches: []redirect.Match{redirect.DestPorts(ports.List())}, Target: redirect.Return{}}
		for _, single := range rule.Iptables() {
			got = append(got, strings.TrimSuffix(single.IptablesText(), " -j RETURN"))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", ports, got, want)
		}
	}
}

// TestNameIntervals looks up names as the kernel does: byte by byte, in keys padded with zeros.
func TestNameIntervals(t *testing.T) {
	names, err := redirect.ParseInterfaces("br-*,docker0,n*,veth")
	if err != nil {
		t.Fatal(err)
	}
	elements := nameIntervals(names)
	if !slices.IsSortedFunc(elements, func(a, b element) int { return bytes.Compare(a.key, b.key) }) {
		t.Errorf("not sorted: %v", elements)
	}
	for name, want := range map[string]bool{
		"br-0": true, "br-": true, "br-zzzzzzzzzzz": true, "br": false, "br.1": false, "br,": false, "docker0": true,
		"docker": false, "docker01": false, "docker1": false, "n": true, "net1": true, "o": false, "m": false,
		"veth": true, "veth1": false, "vet": false, "lo": false, "eth0": false,
	} {
		inside := false
		for _, e := range elements {
			if bytes.Compare(e.key, interfaceKey(name)) <= 0 {
				inside = !e.end
			}
		}
		if inside != want {
			t.Errorf("%q is among %s: %t", name, names, inside)
		}
	}
}
